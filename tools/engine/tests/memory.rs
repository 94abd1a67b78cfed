// SPDX-License-Identifier: GPL-2.0

//! Every allocation of every operation fails once. The operation then either happened or did not;
//! what is on disk is always a whole state, and space is not lost.

mod support;

use kernel::fault::{nth, Mode};
use kernel::prelude::*;
use ordofs_engine::engine::namei::Rename;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{crc32c, Block, Shared};
use std::string::String;
use support::driver::{clean, mkfs};

const BLOCKS: u64 = 8192;

fn new(mode: u32) -> NewInode<'static> {
    NewInode {
        mode,
        ..Default::default()
    }
}

struct Bed {
    fs: Shared<Fs>,
    root: Shared<Inode>,
    dir: Shared<Inode>,
    file: Shared<Inode>,
}

impl Bed {
    /// Nobody uses the inodes any more.
    fn close(self) -> Shared<Fs> {
        for i in [self.root, self.dir, self.file] {
            self.fs.iput(i);
        }
        self.fs
    }
}

fn write(fs: &Fs, file: &Shared<Inode>, start: u64, n: u64, direct: bool) -> Result {
    let data = Block::zeroed()?;
    let sums = [crc32c(0, &data[..]); 64];
    if !direct {
        let mut at = start;
        while at < start + n {
            let m = fs.map_write(file, at, start + n - at)?.map;
            at = m.start + m.len;
        }
    }
    let mut at = start;
    while at < start + n {
        let s = fs.start_write(file, at, &sums[..(start + n - at) as usize], direct)?;
        let reqs: std::vec::Vec<(u64, &Block)> =
            (s.phys..s.phys + s.len).map(|b| (b, &data)).collect();
        fs.node_store().device().write(&reqs)?;
        at += s.len;
        fs.finish_write(s.ordered, at * 4096, Ok(()))?;
    }
    Ok(())
}

/// A filesystem with a bit of everything, all of it durable.
fn bed(disk: &MemDisk) -> Bed {
    let fs = Fs::mount(disk.device(), MountOptions::default()).expect("mount");
    let root = fs.iget(fs.root_ino()).expect("root");
    let dir = fs
        .create(&root, b"dir", &new(S_IFDIR | 0o755))
        .expect("mkdir");
    let file = fs
        .create(&root, b"file", &new(S_IFREG | 0o644))
        .expect("create");
    for i in 0..30 {
        let f = fs
            .create(
                &dir,
                format!("{i}-{}", "n".repeat(200)).as_bytes(),
                &new(S_IFREG),
            )
            .expect("create");
        fs.iput(f);
    }
    for i in 0..40 {
        write(&fs, &file, 3 * i, 2, i % 2 == 0).expect("write");
    }
    fs.preallocate(&file, 200, 50, None).expect("preallocate");
    for i in 0..30 {
        let name = format!("attribute {i}");
        let value = vec![i; 400 * usize::from(i)];
        fs.set_xattr(
            &file,
            xattr::USER,
            name.as_bytes(),
            Some(&value),
            XattrSet::Any,
        )
        .expect("set_xattr");
    }
    fs.sync().expect("sync");
    Bed {
        fs,
        root,
        dir,
        file,
    }
}

fn set(b: &Bed, name: &[u8], value: Option<&[u8]>) -> Result {
    b.fs.set_xattr(&b.file, xattr::USER, name, value, XattrSet::Any)
}

type Action = fn(&Bed) -> Result;

const ACTIONS: &[(&str, Action)] = &[
    ("create", |b| {
        b.fs.create(&b.dir, b"new", &new(S_IFREG))
            .map(|i| b.fs.iput(i))
    }),
    ("mkdir", |b| {
        b.fs.create(&b.root, b"newdir", &new(S_IFDIR))
            .map(|i| b.fs.iput(i))
    }),
    ("symlink", |b| {
        let s = [b'x'; 3000];
        let n = NewInode {
            symlink: Some(&s),
            ..new(S_IFLNK)
        };
        b.fs.create(&b.dir, b"link", &n).map(|i| b.fs.iput(i))
    }),
    ("link", |b| b.fs.link(&b.dir, b"hard", &b.file)),
    ("unlink", |b| {
        let name = format!("7-{}", "n".repeat(200));
        let e = b.fs.lookup(&b.dir, name.as_bytes())?.ok_or(ENOENT)?;
        let i = b.fs.iget(e.ino)?;
        if let Err(e) = b.fs.unlink(&b.dir, name.as_bytes(), &i) {
            b.fs.iput(i);
            return Err(e);
        }
        b.fs.delete_inode(i)
    }),
    ("rename", |b| {
        b.fs.rename(&Rename {
            old_dir: &b.root,
            old_name: b"file",
            inode: &b.file,
            new_dir: &b.dir,
            new_name: b"moved",
            target: None,
            flags: RenameFlags::default(),
            whiteout: Some(&new(0o020000)),
        })
    }),
    ("exchange", |b| {
        b.fs.rename(&Rename {
            old_dir: &b.root,
            old_name: b"file",
            inode: &b.file,
            new_dir: &b.root,
            new_name: b"dir",
            target: Some(&b.dir),
            flags: RenameFlags {
                noreplace: false,
                exchange: true,
            },
            whiteout: None,
        })
    }),
    ("set_attrs", |b| {
        b.fs.set_attrs(
            &b.file,
            &AttrChange {
                uid: Some(5),
                ..AttrChange::default()
            },
        )
    }),
    ("truncate", |b| b.fs.set_size(&b.file, 50 * 4096)),
    ("punch", |b| b.fs.punch(&b.file, 10, 60)),
    ("zero", |b| b.fs.zero_range(&b.file, 10, 60, None)),
    ("preallocate", |b| {
        b.fs.preallocate(&b.file, 0, 300, Some(300 * 4096))
    }),
    ("buffered write", |b| write(&b.fs, &b.file, 20, 40, false)),
    ("direct write", |b| write(&b.fs, &b.file, 190, 40, true)),
    ("xattr", |b| set(b, b"new", Some(&[b'v'; 30]))),
    ("long xattr", |b| set(b, b"new", Some(&[b'v'; 65536]))),
    ("longer xattr", |b| {
        set(b, b"attribute 9", Some(&[b'v'; 30_000]))
    }),
    ("shorter xattr", |b| {
        set(b, b"attribute 29", Some(&[b'v'; 5000]))
    }),
    ("no xattr", |b| set(b, b"attribute 28", None)),
    ("acl", |b| {
        b.fs.set_acl(&b.file, xattr::ACL_ACCESS, Some(b"acl"), Some(0o604))
    }),
    ("create with xattrs", |b| {
        let xattrs = [30, 20_000].map(|n| NewXattr {
            index: xattr::SECURITY,
            name: if n == 30 { b"a" } else { b"b" },
            value: &[7; 20_000][..n],
        });
        b.fs.create_with(&b.dir, b"new", &new(S_IFREG), &xattrs)
            .map(|i| b.fs.iput(i))
    }),
    ("get and list xattrs", |b| {
        let mut buf = [0; 20_000];
        b.fs.get_xattr(&b.file, xattr::USER, b"attribute 29", &mut buf)?;
        b.fs.list_xattr(&b.file, &mut |_, _, _| Ok(()))
    }),
    ("read", |b| {
        b.fs.map_read(&b.file, 30, 8)?;
        b.fs.map_read(&b.file, 220, 8).map(|_| ())
    }),
    ("grow", |b| b.fs.raise_size(&b.file, 1 << 30)),
    ("tmpfile", |b| {
        let i = b.fs.tmpfile(&new(S_IFREG))?;
        match b.fs.link(&b.dir, b"linked", &i) {
            Ok(()) => {
                b.fs.iput(i);
                Ok(())
            }
            Err(e) => b.fs.delete_inode(i).and(Err(e)),
        }
    }),
    ("fsync of data", |b| {
        write(&b.fs, &b.file, 20, 40, false)?;
        b.fs.sync_inode(&b.file)
    }),
    ("fsync of a name", |b| {
        let i = b.fs.create(&b.dir, b"new", &new(S_IFREG))?;
        let r = b.fs.sync_inode(&i);
        b.fs.iput(i);
        r
    }),
    ("sync", |b| {
        b.fs.set_attrs(
            &b.file,
            &AttrChange {
                uid: Some(6),
                ..AttrChange::default()
            },
        )?;
        b.fs.sync()
    }),
    ("shrink", |b| {
        b.fs.shrink_scan(1 << 20);
        b.fs.lookup(&b.dir, b"nothing").map(|_| ())
    }),
];

/// What a user can see, as text.
fn picture(fs: &Fs) -> String {
    fn visit(fs: &Fs, ino: u64, depth: usize, out: &mut String) {
        use std::fmt::Write;
        let i = fs.iget(ino).expect("iget");
        let a = i.attrs();
        let _ = writeln!(out, "{:depth$}{ino} {:o} {} {}", "", a.mode, a.nlink, a.uid);
        fs.list_xattr(&i, &mut |index, name, len| {
            let mut value = vec![0; len];
            fs.get_xattr(&i, index, name, &mut value)
                .expect("get_xattr");
            let name = String::from_utf8_lossy(name);
            let crc = crc32c(0, &value);
            let _ = writeln!(out, "{:depth$}{index} {name} {len} {crc:x}", "");
            Ok(())
        })
        .expect("list_xattr");
        let mut kids = std::vec::Vec::new();
        if a.is_dir() {
            fs.readdir(&i, 0, &mut |n, c, _, _| {
                kids.push((n.to_vec(), c));
                true
            })
            .expect("readdir");
        }
        fs.iput(i);
        for (n, c) in kids {
            let _ = writeln!(out, "{:depth$}{}", "", String::from_utf8_lossy(&n));
            visit(fs, c, depth + 1, out);
        }
    }
    let mut out = String::new();
    visit(fs, fs.root_ino(), 0, &mut out);
    out
}

/// True when the fault came: then there may be a later one to try.
fn one(name: &str, action: Action, n: u64, mode: Mode) -> bool {
    let disk = MemDisk::new(BLOCKS);
    mkfs(disk.device());
    let b = bed(&disk);
    let before = picture(&b.fs);
    let armed = nth(n, mode);
    let r = action(&b);
    let fired = armed.fired();
    drop(armed);
    let place = format!("{name}, allocation {n} fails ({mode:?}), answer {r:?}");
    if !fired {
        r.unwrap_or_else(|e| panic!("{place}: {e:?}"));
    }
    if b.fs.is_shutdown() {
        // It refused to go on: the last commit is what counts.
        let Bed { fs, .. } = b;
        drop(fs);
    } else {
        // These consist of several steps, of which some may have been done.
        let steps = [
            "unlink",
            "truncate",
            "punch",
            "zero",
            "preallocate",
            "buffered write",
            "direct write",
            "fsync of data",
            "fsync of a name",
            "sync",
        ];
        if r.is_err() && !steps.contains(&name) {
            assert_eq!(
                picture(&b.fs),
                before,
                "{place}: it failed, yet something changed"
            );
        }
        b.fs.release_delalloc(&b.file, 0, 1 << 40);
        let fs = b.close();
        let now = picture(&fs);
        fs.unmount()
            .unwrap_or_else(|e| panic!("{place}: unmount: {e:?}"));
        drop(fs);
        clean(disk.device(), true, &place);
        let fs = Fs::mount(disk.device(), MountOptions::default()).expect("mount");
        assert_eq!(picture(&fs), now, "{place}: after the remount");
    }
    clean(disk.device(), true, &place);
    fired
}

#[test]
fn every_allocation_may_fail() {
    kernel::print::set_level(kernel::print::SILENT);
    for (name, action) in ACTIONS {
        for mode in [Mode::Once, Mode::Onward] {
            let mut n = 0;
            while one(name, *action, n, mode) {
                n += 1;
                assert!(n < 100_000, "{name} never ends");
            }
            assert!(n > 0 || *name == "shrink", "{name} allocates nothing");
        }
    }
}

/// A filesystem that was left with a full day's work in its log.
fn left_behind() -> (MemDisk, String) {
    let disk = MemDisk::new(BLOCKS);
    mkfs(disk.device());
    let b = bed(&disk);
    for (name, action) in ACTIONS {
        // One moves the file, which others want.
        if !["rename", "exchange", "sync", "acl"].contains(name) {
            let _ = action(&b);
        }
    }
    b.fs.sync_inode(&b.file).expect("fsync");
    let left = disk.fork();
    let before = picture(&b.fs);
    b.close().unmount().expect("unmount");
    (left, before)
}

#[test]
fn every_allocation_of_a_replay_may_fail() {
    kernel::print::set_level(kernel::print::SILENT);
    let (left, before) = left_behind();
    for mode in [Mode::Once, Mode::Onward] {
        for n in 0.. {
            assert!(n < 100_000, "a mount never ends");
            let disk = left.fork();
            let armed = nth(n, mode);
            let mounted = Fs::mount(disk.device(), MountOptions::default());
            let fired = armed.fired();
            drop(armed);
            let place = format!("mount, allocation {n} fails ({mode:?})");
            match mounted {
                Ok(fs) => {
                    assert!(fs.replayed().records > 0, "{place}");
                    assert_eq!(picture(&fs), before, "{place}");
                    fs.unmount()
                        .unwrap_or_else(|e| panic!("{place}: unmount: {e:?}"));
                }
                // The log is what it was, and the next mount replays it.
                Err(_) => assert!(fired, "{place}"),
            }
            let fs = Fs::mount(disk.device(), MountOptions::default())
                .unwrap_or_else(|e| panic!("{place}: again: {}", e.reason));
            assert_eq!(picture(&fs), before, "{place}: again");
            fs.unmount()
                .unwrap_or_else(|e| panic!("{place}: unmount: {e:?}"));
            drop(fs);
            clean(disk.device(), true, &place);
            if !fired {
                break;
            }
        }
    }
}
