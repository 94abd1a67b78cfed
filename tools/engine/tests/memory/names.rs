// SPDX-License-Identifier: GPL-2.0

//! Operations on names.

use super::action::{steps, whole, Action};
use super::bed::{long, new, with, Bed};
use kernel::prelude::*;
use ordofs_engine::engine::ops::namei::Rename;
use ordofs_engine::engine::ops::xattr;
use ordofs_engine::engine::state::reap::MIN_BLOCKS;
use ordofs_engine::engine::*;
use ordofs_engine::os::Shared;

const WHITEOUT: u32 = 0o020000;

fn remove(b: &Bed, dir: &Shared<Inode>, name: &[u8]) -> Result {
    let e = b.fs.lookup(dir, name)?.ok_or(ENOENT)?;
    let i = b.fs.iget(e.ino)?;
    if let Err(e) = b.fs.unlink(dir, name, &i) {
        b.fs.iput(i);
        return Err(e);
    }
    b.fs.delete_inode(i)
}

/// A rename of "file" in the root.
fn rename<'a>(b: &'a Bed, new_dir: &'a Shared<Inode>, new_name: &'a [u8]) -> Rename<'a> {
    Rename {
        old_dir: &b.root,
        old_name: b"file",
        inode: &b.file,
        new_dir,
        new_name,
        target: None,
        flags: RenameFlags::default(),
        whiteout: None,
    }
}

/// The file that is replaced stays, as if a process had it open.
fn rename_over(
    b: &Bed,
    dir: &Shared<Inode>,
    name: &[u8],
    whiteout: Option<&NewInode<'_>>,
) -> Result {
    with(&b.fs, dir, name, |t| {
        b.fs.rename(&Rename {
            target: Some(t),
            whiteout,
            ..rename(b, dir, name)
        })
    })
}

fn exchange(b: &Bed, dir: &Shared<Inode>, name: &[u8]) -> Result {
    with(&b.fs, dir, name, |t| {
        b.fs.rename(&Rename {
            target: Some(t),
            flags: RenameFlags {
                noreplace: false,
                exchange: true,
            },
            ..rename(b, dir, name)
        })
    })
}

pub const NAMES: &[Action] = &[
    whole("create", |b| {
        b.fs.create(&b.dir, b"new", &new(S_IFREG))
            .map(|i| b.fs.iput(i))
    }),
    whole("mkdir", |b| {
        b.fs.create(&b.root, b"newdir", &new(S_IFDIR))
            .map(|i| b.fs.iput(i))
    }),
    whole("symlink", |b| {
        let s = [b'x'; 3000];
        let n = NewInode {
            symlink: Some(&s),
            ..new(S_IFLNK)
        };
        b.fs.create(&b.dir, b"newlink", &n).map(|i| b.fs.iput(i))
    }),
    whole("create with xattrs", |b| {
        let xattrs = [30, 20_000].map(|n| NewXattr {
            index: xattr::SECURITY,
            name: if n == 30 { b"a" } else { b"b" },
            value: &[7; 20_000][..n],
        });
        b.fs.create_with(&b.dir, b"newer", &new(S_IFREG), &xattrs)
            .map(|i| b.fs.iput(i))
    }),
    whole("tmpfile", |b| {
        let i = b.fs.tmpfile(&new(S_IFREG))?;
        match b.fs.link(&b.dir, b"linked", &i) {
            Ok(()) => {
                b.fs.iput(i);
                Ok(())
            }
            Err(e) => b.fs.delete_inode(i).and(Err(e)),
        }
    }),
    whole("tmpfile with xattrs", |b| {
        let xattrs = [NewXattr {
            index: xattr::SECURITY,
            name: b"a",
            value: &[7; 20_000],
        }];
        let i = b.fs.tmpfile_with(&new(S_IFREG), &xattrs)?;
        b.fs.delete_inode(i)
    }),
    whole("link", |b| b.fs.link(&b.dir, b"hard", &b.file)),
    steps("unlink", |b| remove(b, &b.dir, &long(7))),
    steps("unlink of a file with data and xattrs", |b| {
        remove(b, &b.root, b"file")
    }),
    steps("unlink of a large file, in the background", |b| {
        let i = b.fs.iget(b.file.ino())?;
        if let Err(e) = b.fs.unlink(&b.root, b"file", &i) {
            b.fs.iput(i);
            return Err(e);
        }
        b.fs.delete_later(i)?;
        b.fs.reap_all();
        Ok(())
    })
    .after(|b| {
        b.fs.preallocate(&b.file, 1000, MIN_BLOCKS, None)
            .expect("preallocate");
        b.fs.sync().expect("sync");
        b.fs.serve_reaper(true);
    }),
    whole("unlink of an open file", |b| {
        b.fs.unlink(&b.root, b"file", &b.file)
    }),
    steps("rmdir", |b| remove(b, &b.root, b"empty")),
    whole("rmdir of a directory that is not empty", |b| {
        match b.fs.unlink(&b.root, b"dir", &b.dir) {
            Err(e) if e == ENOTEMPTY => Ok(()),
            r => r.and(Err(EINVAL)),
        }
    }),
    whole("rename", |b| b.fs.rename(&rename(b, &b.root, b"moved"))),
    whole("rename to another directory, whiteout", |b| {
        b.fs.rename(&Rename {
            whiteout: Some(&new(WHITEOUT)),
            ..rename(b, &b.dir, b"moved")
        })
    }),
    whole("rename of a directory", |b| {
        with(&b.fs, &b.root, b"sub", |i| {
            b.fs.rename(&Rename {
                inode: i,
                old_name: b"sub",
                ..rename(b, &b.dir, b"moved")
            })
        })
    }),
    whole("rename over a file", |b| {
        rename_over(b, &b.root, b"other", None)
    }),
    whole("rename over a file in another directory", |b| {
        rename_over(b, &b.dir, &long(11), None)
    }),
    whole("rename over a file, whiteout", |b| {
        rename_over(b, &b.dir, &long(12), Some(&new(WHITEOUT)))
    }),
    whole("rename over a directory", |b| {
        with(&b.fs, &b.root, b"sub", |i| {
            with(&b.fs, &b.root, b"empty", |t| {
                b.fs.rename(&Rename {
                    inode: i,
                    old_name: b"sub",
                    target: Some(t),
                    ..rename(b, &b.root, b"empty")
                })
            })
        })
    }),
    whole("exchange", |b| exchange(b, &b.root, b"dir")),
    whole("exchange between directories", |b| {
        exchange(b, &b.dir, &long(3))
    }),
    whole("lookup", |b| {
        let e = b.fs.lookup(&b.dir, &long(17))?;
        assert!(e.is_some(), "an entry is not found");
        let e = b.fs.lookup(&b.dir, b"nothing")?;
        assert!(e.is_none(), "an entry that is not there is found");
        Ok(())
    }),
    whole("readdir", |b| {
        let mut n = 0;
        b.fs.readdir(&b.dir, 0, &mut |_, _, _, _| {
            n += 1;
            true
        })?;
        assert_eq!(n, 30, "entries that readdir finds");
        Ok(())
    }),
    whole("iget", |b| {
        with(&b.fs, &b.root, b"other", |i| {
            assert_eq!(i.attrs().size, 5 * 4096);
            Ok(())
        })?;
        match b.fs.iget(1 << 40) {
            Err(e) if e == ESTALE => Ok(()),
            r => r.map(|_| ()).and(Err(EINVAL)),
        }
    }),
    whole("readlink", |b| {
        with(&b.fs, &b.root, b"link", |i| {
            assert_eq!(b.fs.readlink(i)?, &[b'x'; 3000][..]);
            Ok(())
        })
    }),
];
