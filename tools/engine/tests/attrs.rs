// SPDX-License-Identifier: GPL-2.0

//! The attributes of an inode have two homes, the engine's and the VFS's. Whatever changes them, with a lock
//! of the VFS (chmod, utimes, operations on names) or without (write-back of the inode, reads, stores
//! through a mapping), both homes hold the same in the end, and no older value overwrites a newer one.

mod common;

use common::*;
use ordofs_engine::engine::ops::xattr;
use ordofs_engine::engine::ops::xattr::ACL_ACCESS;
use ordofs_engine::engine::*;
use ordofs_engine::os::{now, Shared};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::vec::Vec;

/// A VFS inode, as far as this is about. Each field is read and written by itself.
struct Vfs {
    rwsem: Mutex<()>,
    mode: AtomicU64,
    nlink: AtomicU64,
    times: Mutex<Times>,
    dirty: AtomicBool,
    calls: AtomicU64,
}

impl Vfs {
    fn new(a: &Attrs) -> Self {
        Self {
            rwsem: Mutex::new(()),
            mode: AtomicU64::new(a.mode.into()),
            nlink: AtomicU64::new(a.nlink.into()),
            times: Mutex::new(Times {
                atime: a.atime,
                mtime: a.mtime,
                ctime: a.ctime,
                change: a.change,
            }),
            dirty: AtomicBool::new(false),
            calls: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.rwsem.lock().unwrap()
    }

    fn times(&self) -> Times {
        *self.times.lock().unwrap()
    }

    /// The VFS updates times by itself, and raises the change counter if it is more than an access.
    fn touch(&self, f: impl FnOnce(&mut Times)) {
        let mut t = self.times.lock().unwrap();
        let before = (t.mtime, t.ctime);
        f(&mut t);
        t.change += u64::from(before != (t.mtime, t.ctime));
        drop(t);
        self.dirty.store(true, Ordering::SeqCst);
    }

    /// Lets other threads run, now and then.
    fn linger(&self) {
        if self.calls.fetch_add(1, Ordering::Relaxed) % 16 == 0 {
            std::thread::yield_now();
        }
    }

    /// Write-back, as rust/vfs does it.
    fn write_back(&self, fs: &Fs, inode: &Shared<Inode>) {
        if self.dirty.swap(false, Ordering::SeqCst) {
            // A task that is slow after it has read the times must not have read them too early.
            let slow = || {
                let t = self.times();
                self.linger();
                t
            };
            fs.push_times(inode, slow).expect("push_times");
        }
    }

    /// What rust/vfs does after an operation that the engine has carried out first.
    fn refresh(&self, inode: &Inode) {
        inode.show(
            || {
                self.linger();
                Some(self.times().ctime)
            },
            |a, raised| {
                self.nlink.store(a.nlink.into(), Ordering::SeqCst);
                let mut t = self.times.lock().unwrap();
                t.ctime = a.ctime;
                t.change += raised;
                if a.is_dir() {
                    t.mtime = a.mtime;
                }
            },
        );
    }

    fn same(&self, inode: &Inode, what: &str) {
        let (a, t) = (inode.attrs(), self.times());
        assert_eq!(
            u64::from(a.mode),
            self.mode.load(Ordering::SeqCst),
            "{what}"
        );
        assert_eq!(
            u64::from(a.nlink),
            self.nlink.load(Ordering::SeqCst),
            "{what}"
        );
        let times = Times {
            atime: a.atime,
            mtime: a.mtime,
            ctime: a.ctime,
            change: a.change,
        };
        assert_eq!(times, t, "{what}");
    }
}

const ROUNDS: u32 = 4_000;

/// Runs `f`, and the others again and again until it returns.
fn beside(others: &[&(dyn Fn() + Sync)], f: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        for other in others {
            s.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    other();
                }
            });
        }
        let r = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        done.store(true, Ordering::SeqCst);
        if let Err(p) = r {
            std::panic::resume_unwind(p);
        }
    });
}

/// chmod, chown, utimes, setfacl and link of a file beside write-back and what makes the inode dirty.
#[test]
fn write_back_undoes_no_change() {
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let file = fs.create(&root, b"f", &regular()).unwrap();
    let vfs = Vfs::new(&file.attrs());
    let passes = AtomicU64::new(0);
    let write_back = || {
        vfs.write_back(&fs, &file);
        passes.fetch_add(1, Ordering::SeqCst);
    };
    // A read, or a store through a mapping.
    let dirtier = || {
        vfs.touch(|t| t.atime = now());
        std::thread::yield_now();
    };
    let mut lost = Vec::new();
    beside(&[&write_back, &dirtier], || {
        for n in 0..ROUNDS {
            let _rwsem = vfs.lock();
            let mode = S_IFREG | n % 0o777;
            let set = Time {
                sec: n.into(),
                nsec: n,
            };
            let copy = || {
                vfs.mode.store(mode.into(), Ordering::SeqCst);
                let mut t = vfs.times.lock().unwrap();
                t.mtime = set;
                t.ctime = set;
                AttrChange {
                    mode: Some(mode),
                    uid: Some(n),
                    mtime: Some(set),
                    ctime: Some(set),
                    ..AttrChange::default()
                }
            };
            match n % 4 {
                0 => fs.set_attrs_and_acl(&file, &n.to_le_bytes(), copy),
                1 => {
                    fs.set_attrs_with(&file, copy).unwrap();
                    vfs.mode.store((S_IFREG | 0o777).into(), Ordering::SeqCst);
                    let r = fs.set_acl(&file, ACL_ACCESS, Some(b"list"), Some(0o777));
                    vfs.refresh(&file);
                    r
                }
                _ => fs.set_attrs_with(&file, copy),
            }
            .unwrap();
            // A write-back that began before ends.
            let seen = passes.load(Ordering::SeqCst);
            while n % 16 == 0 && passes.load(Ordering::SeqCst) < seen + 2 {
                std::thread::yield_now();
            }
            let (a, t) = (file.attrs(), vfs.times());
            let same = u64::from(a.mode) == vfs.mode.load(Ordering::SeqCst)
                && (a.uid, a.mtime, a.ctime, t.mtime) == (n, set, t.ctime, set);
            if !same {
                lost.push(n);
            }
        }
    });
    assert!(
        lost.is_empty(),
        "{} of {ROUNDS} changes were lost",
        lost.len()
    );
    vfs.dirty.store(true, Ordering::SeqCst);
    vfs.write_back(&fs, &file);
    vfs.refresh(&file);
    vfs.same(&file, "in the end");
}

/// Operations on names in a directory, beside the renaming of that directory in its parent (which does not
/// take its i_rwsem) and write-back.
#[test]
fn a_directory_keeps_its_newest_times_and_links() {
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let dir = fs.create(&root, b"0", &file(S_IFDIR | 0o755)).unwrap();
    let vfs = Vfs::new(&dir.attrs());
    let write_back = || vfs.write_back(&fs, &dir);
    let dirtier = || {
        vfs.touch(|t| t.atime = now());
        std::thread::yield_now();
    };
    let at = Mutex::new(0u64);
    let renamer = || {
        let mut n = at.lock().unwrap();
        let (old, new) = (format!("{n}"), format!("{}", *n + 1));
        fs.rename(&Rename {
            old_dir: &root,
            old_name: old.as_bytes(),
            inode: &dir,
            new_dir: &root,
            new_name: new.as_bytes(),
            target: None,
            flags: RenameFlags::default(),
            whiteout: None,
        })
        .unwrap();
        vfs.refresh(&dir);
        *n += 1;
    };
    beside(&[&write_back, &dirtier, &renamer], || {
        for n in 0..ROUNDS / 4 {
            let _rwsem = vfs.lock();
            if n % 4 == 3 {
                let set = Time {
                    sec: n.into(),
                    nsec: 0,
                };
                fs.set_attrs_with(&dir, || {
                    vfs.times.lock().unwrap().mtime = set;
                    AttrChange {
                        mtime: Some(set),
                        ..AttrChange::default()
                    }
                })
                .unwrap();
                assert_eq!(vfs.times().mtime, set, "round {n}");
            } else {
                let child = fs.create(&dir, b"d", &file(S_IFDIR)).unwrap();
                vfs.refresh(&dir);
                assert_eq!(vfs.nlink.load(Ordering::SeqCst), 3, "round {n}");
                fs.unlink(&dir, b"d", &child).unwrap();
                fs.delete_inode(child).unwrap();
                vfs.refresh(&dir);
            }
            let (a, t) = (dir.attrs(), vfs.times());
            assert_eq!(vfs.nlink.load(Ordering::SeqCst), 2, "round {n}");
            assert_eq!((a.nlink, a.mtime), (2, t.mtime), "round {n}");
        }
    });
    vfs.dirty.store(true, Ordering::SeqCst);
    vfs.write_back(&fs, &dir);
    vfs.refresh(&dir);
    vfs.same(&dir, "in the end");
}

/// An operation of the engine and one of the VFS meet: the change time that stays is one of the two, in both
/// homes, and never older than either.
#[test]
fn change_times_of_the_engine_and_of_the_vfs_meet() {
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let file = fs.create(&root, b"f", &regular()).unwrap();
    let vfs = Vfs::new(&file.attrs());
    // The engine's is newer and not yet shown: a write-back of what the VFS has does not undo it.
    vfs.touch(|t| t.atime = now());
    fs.link(&root, b"g", &file).unwrap();
    let linked = file.attrs().ctime;
    vfs.write_back(&fs, &file);
    assert_eq!(file.attrs().ctime, linked);
    vfs.refresh(&file);
    vfs.same(&file, "linked");
    // The VFS's came in between, and stays.
    fs.unlink(&root, b"g", &file).unwrap();
    vfs.touch(|t| t.ctime = now());
    let stored = vfs.times().ctime;
    vfs.refresh(&file);
    assert_eq!(vfs.times().ctime, stored);
    vfs.write_back(&fs, &file);
    vfs.same(&file, "stored to");
    // A clock set back: what happens last is what is shown.
    vfs.touch(|t| t.ctime.sec -= 1000);
    vfs.write_back(&fs, &file);
    vfs.same(&file, "stored to after the clock was set back");
}

/// All attributes of all inodes below the root.
fn all_attrs(fs: &Fs) -> Vec<(u64, String)> {
    let root = fs.iget(fs.root_ino()).unwrap();
    let mut inodes = std::vec![root.ino()];
    let mut at = 0;
    while let Some(ino) = inodes.get(at).copied() {
        at += 1;
        let i = fs.iget(ino).unwrap();
        if i.kind() == S_IFDIR {
            fs.readdir(&i, 0, &mut |_, ino, _, _| {
                inodes.push(ino);
                true
            })
            .unwrap();
        }
        fs.iput(i);
    }
    let text = |ino: u64| {
        let i = fs.iget(ino).unwrap();
        let a = i.attrs();
        let text = format!("{a:?}");
        fs.iput(i);
        (ino, text)
    };
    inodes.into_iter().map(text).collect()
}

/// Replay gives every inode the attributes that it had: times, birth, generation number, change counter.
#[test]
fn replay_changes_no_attributes() {
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let mkdir = |d: &Shared<Inode>, name: &[u8]| fs.create(d, name, &file(S_IFDIR)).unwrap();
    let (a, b) = (mkdir(&root, b"a"), mkdir(&root, b"b"));
    fs.sync().unwrap();
    let pause = || std::thread::sleep(std::time::Duration::from_micros(50));
    let f = fs.create(&a, b"f", &regular()).unwrap();
    pause();
    let link = NewInode {
        symlink: Some(&[b'x'; 3000]),
        ..file(S_IFLNK | 0o777)
    };
    fs.create(&a, b"link", &link).unwrap();
    pause();
    fs.link(&b, b"g", &f).unwrap();
    pause();
    let h = fs.create(&b, b"h", &regular()).unwrap();
    fs.set_xattr(&h, xattr::USER, b"x", Some(b"v"), XattrSet::Any)
        .unwrap();
    pause();
    fs.unlink(&a, b"f", &f).unwrap();
    pause();
    fs.set_acl(&f, ACL_ACCESS, Some(b"list"), Some(0o640))
        .unwrap();
    let tmp = fs.tmpfile(&regular()).unwrap();
    pause();
    fs.link(&b, b"tmp", &tmp).unwrap();
    pause();
    let white = file(0o020000);
    let names = |old: &'static [u8], new: &'static [u8], target, whiteout| {
        let inode = fs.iget(fs.lookup(&b, old).unwrap().unwrap().ino).unwrap();
        pause();
        fs.rename(&Rename {
            old_dir: &b,
            old_name: old,
            inode: &inode,
            new_dir: &a,
            new_name: new,
            target,
            flags: RenameFlags {
                exchange: target.is_some(),
                noreplace: false,
            },
            whiteout,
        })
        .unwrap();
        fs.iput(inode);
    };
    names(b"h", b"white", None, Some(&white));
    names(b"tmp", b"plain", None, None);
    let l = fs
        .iget(fs.lookup(&a, b"link").unwrap().unwrap().ino)
        .unwrap();
    names(b"g", b"link", Some(&l), None);
    let d = mkdir(&a, b"d");
    pause();
    // A write-back of what the VFS has of a directory, in the middle.
    fs.push_times(&a, || Times {
        atime: now(),
        ..Times::default()
    })
    .unwrap();
    mkdir(&d, b"e");
    let before = all_attrs(&fs);
    fs.sync_inode(&h).unwrap();

    let again = mount(&disk.fork());
    assert!(again.replayed().records > 10, "the fsync was a commit");
    assert_eq!(all_attrs(&again), before);
}

/// A number that was given out and lost is given out again, with another generation.
#[test]
fn a_number_that_is_used_again_has_another_generation() {
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let born = |fs: &Fs| {
        let root = fs.iget(fs.root_ino()).unwrap();
        let i = fs.create(&root, b"f", &regular()).unwrap();
        (i.ino(), i.attrs().handle_generation)
    };
    let lost = born(&fs);
    let again = mount(&disk.fork());
    let new = born(&again);
    assert_eq!(lost.0, new.0);
    assert_ne!(lost.1, new.1);
}

/// Every change of data or attributes raises the change counter, and an access does not. After an fsync
/// and a crash it is what it was.
#[test]
fn every_change_raises_the_counter() {
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let before = root.attrs().change;
    let f = fs.create(&root, b"f", &regular()).unwrap();
    assert!(root.attrs().change > before && f.attrs().change > 0);
    let raises = |what: &str, by: u64, change: &dyn Fn()| {
        let before = f.attrs().change;
        change();
        assert_eq!(f.attrs().change - before, by, "{what}");
        fs.sync_inode(&f).unwrap();
        let again = mount(&disk.fork());
        let g = again.iget(f.ino()).unwrap();
        assert_eq!(g.attrs().change, f.attrs().change, "{what}, after a crash");
    };
    let vfs = |by: u64| {
        let a = f.attrs();
        Times {
            atime: now(),
            mtime: a.mtime,
            ctime: a.ctime,
            change: a.change + by,
        }
    };
    let mode = AttrChange {
        mode: Some(0o600),
        ..AttrChange::default()
    };
    raises("chmod", 1, &|| fs.set_attrs(&f, &mode).unwrap());
    raises("link", 1, &|| fs.link(&root, b"g", &f).unwrap());
    raises("unlink", 1, &|| fs.unlink(&root, b"g", &f).unwrap());
    raises("xattr", 1, &|| {
        fs.set_xattr(&f, xattr::USER, b"x", Some(b"v"), XattrSet::Any)
            .unwrap();
    });
    raises("list", 1, &|| {
        fs.set_acl(&f, ACL_ACCESS, Some(b"list"), Some(0o640))
            .unwrap();
    });
    raises("preallocation", 1, &|| {
        fs.preallocate(&f, 0, 4, None).unwrap();
    });
    raises("size", 1, &|| fs.raise_size(&f, 20_000).unwrap());
    raises("punch", 1, &|| fs.punch(&f, 1, 1).unwrap());
    raises("truncation", 1, &|| fs.set_size(&f, 1000).unwrap());
    raises("read", 0, &|| {
        let t = vfs(0);
        f.show(|| Some(t.ctime), |_, _| ());
        fs.push_times(&f, || t).unwrap();
    });
    raises("store", 3, &|| {
        let t = vfs(3);
        f.show(|| Some(t.ctime), |_, _| ());
        fs.push_times(&f, || t).unwrap();
    });
    // The VFS has raised it when the pages were changed; it is not written back when they are.
    raises("write", 2, &|| {
        f.show(|| None, |_, _| ());
        let vfs = f.attrs().change + 2;
        f.note_change(|| vfs);
        write(&disk.device(), &fs, &f, 0, &[1]).unwrap();
        let before = f.attrs().change;
        let again = {
            fs.sync().unwrap();
            mount(&disk.fork())
        };
        assert_eq!(again.iget(f.ino()).unwrap().attrs().change, before);
    });
}

/// The I/O of a write has ended, and its completion waits. An operation comes first, and the VFS inode
/// gets a counter in which both changes are. The write must bring along what it has raised all the same.
#[test]
fn a_copy_between_the_io_and_its_completion_loses_no_change() {
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    f.show(|| None, |_, _| ());
    let mut vfs = f.attrs().change;
    vfs += 1;
    f.note_change(|| vfs);
    let mode = AttrChange {
        mode: Some(0o600),
        ..AttrChange::default()
    };
    fs.set_attrs(&f, &mode).unwrap();
    let ctime = f.attrs().ctime;
    f.show(|| Some(ctime), |_, raised| vfs += raised);
    write(&disk.device(), &fs, &f, 0, &[1]).unwrap();
    assert_eq!(f.attrs().change, vfs);
    // Nothing is counted twice: the next copies find both equal.
    let ctime = f.attrs().ctime;
    f.show(|| Some(ctime), |_, raised| assert_eq!(raised, 0));
    vfs += 1;
    f.note_change(|| vfs);
    write(&disk.device(), &fs, &f, 1, &[2]).unwrap();
    assert_eq!(f.attrs().change, vfs);
}

/// What both have raised is in both in the end, whatever is copied first.
#[test]
fn change_counters_of_the_engine_and_of_the_vfs_meet() {
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    for order in 0..4 {
        let name = [b'f', b'0' + order];
        let f = fs.create(&root, &name, &regular()).unwrap();
        f.show(|| None, |_, _| ());
        let vfs = Vfs::new(&f.attrs());
        let start = f.attrs().change;
        for _ in 0..3 {
            vfs.touch(|t| t.mtime = now());
            let mode = AttrChange {
                mode: Some(0o600),
                ..AttrChange::default()
            };
            fs.set_attrs(&f, &mode).unwrap();
            if order & 1 != 0 {
                vfs.write_back(&fs, &f);
            }
            vfs.refresh(&f);
            if order & 2 != 0 {
                vfs.write_back(&fs, &f);
            }
        }
        vfs.write_back(&fs, &f);
        let both = (f.attrs().change, vfs.times().change);
        assert_eq!(both, (start + 6, start + 6), "{order}");
    }
}
