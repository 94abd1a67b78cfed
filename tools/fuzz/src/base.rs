// SPDX-License-Identifier: GPL-2.0

//! The images that recipes change: small filesystems with everything in them.
//!
//! The first is unmounted cleanly. The second was cut off with a log behind its last commit, and with
//! files that were deleted while they were open and truncations under way. The third is empty. The
//! fourth is larger: its AG tree has two levels, and trees of groups have nodes and records of all
//! forms. Nodes have one copy or two, as the caller says.
//!
//! Tests: tools/fuzz/tests/corpus.rs.

use crate::structure::Structure;
use crate::work;
use kernel::prelude::Result;
use ordofs_crash::engine::ops::namei::Rename;
use ordofs_crash::engine::volume::mkfs::{format, FormatOptions};
use ordofs_crash::engine::*;
use ordofs_crash::os;
use ordofs_engine::os::mem::{Image, MemDisk};
use ordofs_engine::os::Shared;

/// Type of a FIFO.
const S_IFIFO: u32 = 0o010000;
/// Blocks of the small images.
const SMALL: u64 = 4096;
/// Blocks of the large image: 100 AGs, which need two leaves, and a short one.
const LARGE: u64 = 100 * AG_BLOCKS + 100;
/// Blocks of its AGs.
const AG_BLOCKS: u64 = 1 << 15;
/// The distance of the holes in its largest file: more than 64 of them are in each group.
const HOLES: u64 = 110;
/// Blocks of the file of the most extents.
const SCATTERED: u64 = 700;

/// An image.
pub struct Base {
    /// Its name.
    pub name: &'static str,
    /// Its blocks.
    pub blocks: u64,
    /// Its content.
    pub image: Image,
    /// What is where.
    pub structure: Structure,
}

impl Base {
    fn of(name: &'static str, disk: &MemDisk) -> Self {
        let sb = format::Superblock::read(&disk.device());
        let sb = sb.unwrap_or_else(|e| panic!("{name}: {}", e.reason));
        let image = disk.image();
        Self {
            name,
            blocks: sb.blocks,
            structure: Structure::of(&image, &sb),
            image,
        }
    }
}

/// All images, in the order in which recipes number them.
pub fn all() -> Vec<Base> {
    with_copies(1)
}

/// All images, with so many copies of each node.
pub fn with_copies(copies: u8) -> Vec<Base> {
    os::set_clock(0);
    os::set_random(0);
    let empty = made(SMALL, copies);
    let large = made(LARGE, copies);
    let fs = mounted(&large);
    scatter(&fs).expect("the free space");
    fs.unmount().expect("a clean unmount");
    drop(fs);
    let fs = mounted(&empty);
    let disk = empty.fork();
    drop(fs);
    let full = mounted(&disk);
    fill(&full, &disk).expect("the files");
    full.unmount().expect("a clean unmount");
    drop(full);
    let clean = disk.fork();
    let later = mounted(&disk);
    log(&later, &disk).expect("the log");
    // The power goes: nothing more is written.
    let cut = disk.fork();
    drop(later);
    vec![
        Base::of("clean", &clean),
        Base::of("cut off", &cut),
        Base::of("empty", &empty),
        Base::of("large", &large),
    ]
}

/// A new filesystem.
pub fn made(blocks: u64, copies: u8) -> MemDisk {
    let disk = MemDisk::new(blocks);
    let options = FormatOptions {
        uuid: *b"ordofs-fuzz.uuid",
        label: [0; 64],
        blocks: 0,
        root_owner: (0, 0),
        copies,
    };
    format(disk.device(), &options).unwrap_or_else(|e| panic!("mkfs: {}", e.reason));
    disk
}

/// A mount of it that can write.
pub fn mounted(disk: &MemDisk) -> Shared<Fs> {
    let fs = Fs::mount(disk.device(), MountOptions::default());
    fs.unwrap_or_else(|e| panic!("mount: {}", e.reason))
}

fn new(mode: u32) -> NewInode<'static> {
    NewInode {
        mode,
        uid: 1000,
        gid: 100,
        ..Default::default()
    }
}

/// Files and directories of all kinds and shapes.
fn fill(fs: &Shared<Fs>, disk: &MemDisk) -> Result {
    let dev = disk.device();
    let root = fs.iget(fs.root_ino())?;
    let dir = |name: &[u8], in_: &Shared<Inode>| fs.create(in_, name, &new(S_IFDIR | 0o755));
    let file = |name: &[u8], in_: &Shared<Inode>| fs.create(in_, name, &new(S_IFREG | 0o644));
    let small = dir(b"small", &root)?;
    let large = dir(b"large", &root)?;
    for i in 0..120 {
        // Long names, so that the directory has several levels.
        let name = format!("{i:03}-{}", "n".repeat(150 + i % 50));
        let f = file(name.as_bytes(), &large)?;
        if i % 8 == 0 {
            work::write(fs, &dev, &f, 0, 1)?;
        }
        fs.iput(f);
    }
    // Two names in each bucket of hashes cannot be made on purpose; two names of one inode can.
    let f = file(b"linked", &small)?;
    fs.link(&large, b"another name", &f)?;
    work::write(fs, &dev, &f, 0, 3)?;
    fs.iput(f);
    // Every second block: each is an extent.
    let f = file(b"scattered", &small)?;
    for i in 0..SCATTERED / 2 {
        work::write(fs, &dev, &f, i * 2, 1)?;
    }
    fs.iput(f);
    let f = file(b"preallocated", &small)?;
    fs.preallocate(&f, 0, 300, Some(300 << 12))?;
    work::write(fs, &dev, &f, 10, 5)?;
    fs.iput(f);
    let f = file(b"sparse", &small)?;
    work::write(fs, &dev, &f, MAX_FILE_BLOCKS - 2, 1)?;
    work::write(fs, &dev, &f, 1 << 20, 30)?;
    fs.iput(f);
    let f = file(b"attributes", &small)?;
    for i in 0..40u32 {
        let name = format!("name{i}");
        let value = vec![i as u8; if i % 10 == 9 { 3000 } else { 60 }];
        let how = XattrSet::Any;
        fs.set_xattr(&f, 1, name.as_bytes(), Some(&value), how)?;
    }
    fs.iput(f);
    for (name, len) in [(&b"short"[..], 20), (b"long", 4000)] {
        let target = vec![b't'; len];
        let l = NewInode {
            symlink: Some(&target),
            ..new(S_IFLNK | 0o777)
        };
        fs.iput(fs.create(&small, name, &l)?);
    }
    for (name, kind, rdev) in [(&b"fifo"[..], S_IFIFO, 0), (b"device", S_IFCHR, 0x103)] {
        let n = NewInode {
            rdev,
            ..new(kind | 0o600)
        };
        fs.iput(fs.create(&small, name, &n)?);
    }
    let mut d = dir(b"deep", &root)?;
    for i in 0..6 {
        let next = dir(format!("d{i}").as_bytes(), &d)?;
        fs.iput(std::mem::replace(&mut d, next));
    }
    for i in [d, small, large, root] {
        fs.iput(i);
    }
    Ok(())
}

/// Groups that are full, that have a few free runs, and that have many.
fn scatter(fs: &Shared<Fs>) -> Result {
    let root = fs.iget(fs.root_ino())?;
    let file = |name: &[u8]| fs.create(&root, name, &new(S_IFREG | 0o644));
    let full = file(b"full")?;
    fs.preallocate(&full, 0, 5 * AG_BLOCKS, None)?;
    let f = file(b"holes")?;
    fs.preallocate(&f, 0, 3 * AG_BLOCKS, None)?;
    fs.sync()?;
    for i in 0..2 * AG_BLOCKS / HOLES {
        fs.punch(&f, i * HOLES, 1)?;
    }
    fs.punch(&f, 5 * AG_BLOCKS / 2, 1)?;
    for i in [full, f, root] {
        fs.iput(i);
    }
    fs.sync()
}

/// Operations that are in the log, in batches of their own, and a few that only a commit has.
fn log(fs: &Shared<Fs>, disk: &MemDisk) -> Result {
    let dev = disk.device();
    let root = fs.iget(fs.root_ino())?;
    let file = |name: &[u8]| fs.create(&root, name, &new(S_IFREG | 0o644));
    let gone = file(b"gone")?;
    work::write(fs, &dev, &gone, 0, 4)?;
    fs.unlink(&root, b"gone", &gone)?;
    fs.sync()?;
    for i in 0..6 {
        let f = file(format!("logged{i}").as_bytes())?;
        work::write(fs, &dev, &f, i, 3)?;
        fs.set_xattr(&f, 1, b"x", Some(b"value"), XattrSet::Any)?;
        fs.sync_inode(&f)?;
        fs.iput(f);
    }
    let f = file(b"changed")?;
    work::write(fs, &dev, &f, 0, 20)?;
    fs.sync_inode(&f)?;
    fs.punch(&f, 3, 4)?;
    fs.preallocate(&f, 40, 50, None)?;
    fs.set_size(&f, 12 << 12)?;
    fs.link(&root, b"second name", &f)?;
    fs.rename(&Rename {
        old_dir: &root,
        old_name: b"second name",
        inode: &f,
        new_dir: &root,
        new_name: b"third name",
        target: None,
        flags: RenameFlags::default(),
        whiteout: None,
    })?;
    let mode = AttrChange {
        mode: Some(0o600),
        ..AttrChange::default()
    };
    fs.set_attrs(&f, &mode)?;
    fs.sync_inode(&f)?;
    for name in [&b"logged0"[..], b"logged1"] {
        let e = fs.lookup(&root, name)?.expect("a file");
        let victim = fs.iget(e.ino)?;
        fs.unlink(&root, name, &victim)?;
        fs.delete_inode(victim)?;
    }
    fs.sync_inode(&f)?;
    for i in [gone, f, root] {
        fs.iput(i);
    }
    Ok(())
}
