// SPDX-License-Identifier: GPL-2.0

//! The filesystem that an operation is tried on. What it has is committed, but for what one fsync has put
//! into the log: that was acknowledged, and nothing that fails afterwards may take it away.

use super::support::content::fill;
use super::support::driver::mkfs;
use kernel::prelude::*;
use ordofs_engine::engine::ops::xattr;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{crc32c, Backend, Block, Shared};
use std::sync::OnceLock;

/// What the operation finds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scene {
    /// All nodes are in the cache.
    Warm,
    /// None is.
    Cold,
    /// A disk without a free block.
    Full,
}

pub struct Bed {
    pub fs: Shared<Fs>,
    pub root: Shared<Inode>,
    pub dir: Shared<Inode>,
    pub file: Shared<Inode>,
}

pub fn new(mode: u32) -> NewInode<'static> {
    NewInode {
        mode,
        ..Default::default()
    }
}

/// A name that takes much space in its directory.
pub fn long(i: u64) -> std::vec::Vec<u8> {
    format!("{i}-{}", "n".repeat(200)).into_bytes()
}

/// Tags are below this one.
const TAGS: u64 = 10;

/// What a block of a file has when it is written with `tag`, and its checksum. Made beforehand: what
/// fails must be allocations of the engine.
pub fn content(tag: u64, block: u64) -> &'static (Block, u32) {
    static ALL: OnceLock<std::vec::Vec<(Block, u32)>> = OnceLock::new();
    assert!(tag < TAGS);
    let all = ALL.get_or_init(|| {
        let made = |i| {
            let b = fill(i + 1);
            let crc = crc32c(0, &b[..]);
            (b, crc)
        };
        (0..TAGS * 64).map(made).collect()
    });
    &all[(tag * 64 + block % 64) as usize]
}

/// Writes blocks that have `tag` in them.
pub fn write(fs: &Fs, file: &Shared<Inode>, start: u64, n: u64, direct: bool, tag: u64) -> Result {
    if !direct {
        let mut at = start;
        while at < start + n {
            let m = fs.map_write(file, at, start + n - at)?.map;
            at = m.start + m.len;
        }
    }
    write_out(fs, file, start, n, direct, tag)
}

/// Writes dirty pages out.
pub fn write_out(
    fs: &Fs,
    file: &Shared<Inode>,
    start: u64,
    n: u64,
    direct: bool,
    tag: u64,
) -> Result {
    let blocks: std::vec::Vec<&(Block, u32)> =
        (start..start + n).map(|b| content(tag, b)).collect();
    let sums: std::vec::Vec<u32> = blocks.iter().map(|b| b.1).collect();
    let mut done = 0;
    while done < blocks.len() {
        let s = fs.start_write(file, start + done as u64, &sums[done..], direct)?;
        let reqs: std::vec::Vec<(u64, &Block)> = (s.phys..s.phys + s.len)
            .zip(blocks[done..].iter().map(|b| &b.0))
            .collect();
        fs.node_store().device().write(&reqs)?;
        done += s.len as usize;
        fs.finish_write(s.ordered, (start + done as u64) * 4096, Ok(()))?;
    }
    Ok(())
}

/// Calls `f` with the inode of a name.
pub fn with<R>(
    fs: &Fs,
    dir: &Shared<Inode>,
    name: &[u8],
    f: impl FnOnce(&Shared<Inode>) -> Result<R>,
) -> Result<R> {
    let e = fs.lookup(dir, name)?.ok_or(ENOENT)?;
    let i = fs.iget(e.ino)?;
    let r = f(&i);
    fs.iput(i);
    r
}

impl Bed {
    /// Mounts what is on `disk`, and has something in the log.
    pub fn open(disk: &MemDisk, scene: Scene) -> Self {
        let fs = Fs::mount(disk.device(), MountOptions::default()).expect("mount");
        let root = fs.iget(fs.root_ino()).expect("root");
        with(&fs, &root, b"kept", |i| {
            write(&fs, i, 3, 4, true, 7)?;
            let uid = AttrChange {
                uid: Some(77),
                ..AttrChange::default()
            };
            fs.set_attrs(i, &uid)?;
            if scene != Scene::Full {
                fs.link(&root, b"kept as well", i)?;
                fs.set_xattr(i, xattr::USER, b"kept", Some(&[77; 500]), XattrSet::Any)?;
            }
            fs.sync_inode(i)
        })
        .expect("fsync");
        assert!(
            fs.log_space().0 > 0,
            "a commit instead of a batch of the log"
        );
        let [dir, file] = [b"dir".as_slice(), b"file"].map(|name| {
            let e = fs.lookup(&root, name).expect("lookup").expect("entry");
            fs.iget(e.ino).expect("iget")
        });
        match scene {
            Scene::Warm => drop(super::picture::picture(&fs)),
            _ => while fs.shrink_scan(1 << 20) > 0 {},
        }
        Self {
            fs,
            root,
            dir,
            file,
        }
    }

    /// Drops all inodes.
    pub fn close(self) -> Shared<Fs> {
        for i in [self.root, self.dir, self.file] {
            self.fs.iput(i);
        }
        self.fs
    }
}

/// A disk with a filesystem for that scene; each call gives another one with the same content.
pub fn disk(scene: Scene) -> MemDisk {
    static ROOMY: OnceLock<MemDisk> = OnceLock::new();
    static FULL: OnceLock<MemDisk> = OnceLock::new();
    match scene {
        Scene::Full => FULL.get_or_init(full).fork(),
        _ => ROOMY.get_or_init(roomy).fork(),
    }
}

fn made(fs: &Fs, dir: &Shared<Inode>, name: &[u8], new: &NewInode<'_>) -> Shared<Inode> {
    fs.create(dir, name, new).expect("create")
}

/// How much larger than the filesystem the device is, for a resize.
const MORE: u64 = 700;

/// A bit of everything.
fn roomy() -> MemDisk {
    let disk = MemDisk::new(8192);
    mkfs(disk.device());
    let fs = Fs::mount(disk.device(), MountOptions::default()).expect("mount");
    let root = fs.iget(fs.root_ino()).expect("root");
    let dir = made(&fs, &root, b"dir", &new(S_IFDIR | 0o755));
    let file = made(&fs, &root, b"file", &new(S_IFREG | 0o644));
    for i in 0..30 {
        fs.iput(made(&fs, &dir, &long(i), &new(S_IFREG)));
    }
    for i in 0..40 {
        write(&fs, &file, 3 * i, 2, i % 2 == 0, 1).expect("write");
    }
    fs.preallocate(&file, 200, 50, Some(250 * 4096))
        .expect("preallocate");
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
    fs.set_acl(&dir, xattr::ACL_DEFAULT, Some(b"acl"), None)
        .expect("set_acl");
    let link = NewInode {
        symlink: Some(&[b'x'; 3000]),
        ..new(S_IFLNK)
    };
    fs.iput(made(&fs, &root, b"link", &link));
    let other = made(&fs, &root, b"other", &new(S_IFREG));
    write(&fs, &other, 0, 5, false, 2).expect("write");
    // Enough records for a truncation to take two transactions.
    let long = made(&fs, &root, b"long", &new(S_IFREG));
    for i in 0..80 {
        write(&fs, &long, 2 * i, 1, true, 3).expect("write");
    }
    let kept = made(&fs, &root, b"kept", &new(S_IFREG));
    write(&fs, &kept, 0, 8, true, 4).expect("write");
    let sub = made(&fs, &root, b"sub", &new(S_IFDIR));
    let empty = made(&fs, &root, b"empty", &new(S_IFDIR));
    for i in [root, dir, file, other, long, kept, sub, empty] {
        fs.iput(i);
    }
    fs.unmount().expect("unmount");
    disk.resize(disk.blocks() + MORE);
    disk
}

/// The smallest disk, and no block is free.
fn full() -> MemDisk {
    let disk = MemDisk::new(4096);
    mkfs(disk.device());
    let fs = Fs::mount(disk.device(), MountOptions::default()).expect("mount");
    let root = fs.iget(fs.root_ino()).expect("root");
    let dir = made(&fs, &root, b"dir", &new(S_IFDIR));
    let file = made(&fs, &root, b"file", &new(S_IFREG));
    let kept = made(&fs, &root, b"kept", &new(S_IFREG));
    let ballast = made(&fs, &root, b"ballast", &new(S_IFREG));
    fs.preallocate(&kept, 0, 8, Some(8 * 4096))
        .expect("preallocate");
    fs.preallocate(&ballast, 0, 200, None).expect("preallocate");
    for i in 0..20 {
        write(&fs, &file, 2 * i, 1, true, 1).expect("write");
    }
    let mut at = 1000;
    for step in [64, 8, 1] {
        while fs.preallocate(&file, at, step, None).is_ok() {
            at += step;
        }
        fs.sync().expect("sync");
    }
    for i in [root, dir, file, kept, ballast] {
        fs.iput(i);
    }
    fs.unmount().expect("unmount");
    disk.resize(disk.blocks() + MORE);
    disk
}
