// SPDX-License-Identifier: GPL-2.0

//! Directories have homes: the files of one lie together, those of others elsewhere, by what is
//! free, and nothing of this keeps a full filesystem from being used to its end.

mod common;

use common::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

/// The blocks of an AG of a filesystem of 16 GiB or more.
const AG: u64 = 1 << 18;
const WRITERS: u64 = 16;

fn dir(fs: &Fs, parent: &Shared<Inode>, name: &str) -> Shared<Inode> {
    let new = file(S_IFDIR | 0o755);
    fs.create(parent, name.as_bytes(), &new).unwrap()
}

fn open(fs: &Fs, dir: &Shared<Inode>, name: &str) -> Shared<Inode> {
    let found = fs.lookup(dir, name.as_bytes()).unwrap().unwrap();
    fs.iget(found.ino).unwrap()
}

/// The AGs in which a file has blocks.
fn ags(fs: &Fs, f: &Inode, blocks: u64) -> BTreeSet<u64> {
    let (mut at, mut found) = (0, BTreeSet::new());
    while at < blocks {
        let m = fs.map_read(f, at, blocks - at).unwrap();
        assert_eq!(m.kind, MapKind::Written);
        found.insert(m.phys / AG);
        at += m.len;
    }
    found
}

/// Appends to 16 files in 16 directories in turns: no two of them have blocks in the same AG, and
/// so none waits for the AG's lock of another. After a remount new files begin where the others
/// are.
#[test]
fn writers_in_different_directories_use_different_allocation_groups() {
    let disk = make(64 * AG);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let dirs: Vec<_> = (0..WRITERS)
        .map(|i| dir(&fs, &root, &format!("d{i}")))
        .collect();
    let make = |d: &Shared<Inode>, name: &str| fs.create(d, name.as_bytes(), &regular()).unwrap();
    let files: Vec<_> = dirs.iter().map(|d| make(d, "f")).collect();
    for at in 0..64 {
        files
            .iter()
            .for_each(|f| write(&disk.device(), &fs, f, at * 16, &[7; 16]).unwrap());
        fs.sync().unwrap();
    }
    let used: Vec<_> = files.iter().map(|f| ags(&fs, f, 1024)).collect();
    let all: BTreeSet<u64> = used.iter().flatten().copied().collect();
    assert!(used.iter().all(|u| u.len() == 1), "{used:?}");
    assert_eq!(all.len() as u64, WRITERS, "{used:?}");
    files.into_iter().chain(dirs).for_each(|i| fs.iput(i));
    fs.iput(root);
    fs.unmount().unwrap();
    drop(fs);

    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    for (i, before) in used.iter().enumerate() {
        let d = open(&fs, &root, &format!("d{i}"));
        let f = fs.create(&d, b"g", &regular()).unwrap();
        write(&disk.device(), &fs, &f, 0, &[7; 16]).unwrap();
        assert_eq!(ags(&fs, &f, 16), *before, "directory {i}");
        fs.iput(f);
        fs.iput(d);
    }
    fs.iput(root);
    fs.unmount().unwrap();
    fsck(&disk);
}

/// A file that was made before a remount, and that nothing was written to, begins in its home.
#[test]
fn an_empty_file_knows_its_home_after_a_remount() {
    let disk = make(64 * AG);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    dir(&fs, &root, "other");
    let d = dir(&fs, &root, "d");
    let home = d.attrs().home_ag;
    assert_ne!(home, root.attrs().home_ag);
    fs.iput(fs.create(&d, b"f", &regular()).unwrap());
    fs.iput(d);
    fs.iput(root);
    fs.unmount().unwrap();
    drop(fs);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let d = open(&fs, &root, "d");
    assert_eq!(d.attrs().home_ag, home);
    let f = open(&fs, &d, "f");
    map_only(&fs, &f, 0, &[7; 16]);
    assert_eq!(ags(&fs, &f, 16), BTreeSet::from([home.into()]));
    for i in [f, d, root] {
        fs.iput(i);
    }
    fs.unmount().unwrap();
}

/// The homes of a tree of 1000 directories are spread evenly over the AGs that have room.
#[test]
fn homes_are_spread_by_free_space() {
    let ags = 40;
    let disk = make(ags * AG);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    // Fills about five of them.
    let f = fs.create(&root, b"f", &regular()).unwrap();
    fs.preallocate(&f, 0, 5 * AG, None).unwrap();
    fs.sync().unwrap();
    let mut homes: BTreeMap<u32, u32> = BTreeMap::new();
    for i in 0..10 {
        let a = dir(&fs, &root, &format!("{i}"));
        for j in 0..10 {
            let b = dir(&fs, &a, &format!("{j}"));
            for k in 0..10 {
                let c = dir(&fs, &b, &format!("{k}"));
                *homes.entry(c.attrs().home_ag).or_default() += 1;
                fs.iput(c);
            }
            fs.iput(b);
        }
        fs.iput(a);
    }
    let (least, most) = (homes.values().min().unwrap(), homes.values().max().unwrap());
    assert!((34..=36).contains(&homes.len()), "{homes:?}");
    assert!(*most <= least + least / 4, "{homes:?}");
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();
}

/// Whatever their homes are, files get the last blocks: in one AG, and in several.
#[test]
fn files_with_homes_fill_the_filesystem() {
    for blocks in [1 << 14, 3 << 15] {
        let disk = MemDisk::new(blocks);
        format_with(disk.device(), 1);
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let dirs: Vec<_> = (0..5).map(|i| dir(&fs, &root, &format!("d{i}"))).collect();
        let files: Vec<_> = dirs
            .iter()
            .map(|d| fs.create(d, b"f", &regular()).unwrap())
            .collect();
        let mut at = 0;
        while files
            .iter()
            .all(|f| fs.preallocate(f, at, 64, None).is_ok())
        {
            at += 64;
        }
        fs.sync().unwrap();
        let left = fs.statfs().bavail;
        assert!(left < 400, "{left} of {blocks} blocks are left");
        files.into_iter().chain(dirs).for_each(|i| fs.iput(i));
        fs.iput(root);
        fs.unmount().unwrap();
        fsck(&disk);
    }
}

/// Directories that only the log has get homes when it is replayed.
#[test]
fn a_replay_gives_homes() {
    let disk = make(64 * AG);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let before: Vec<_> = (0..4)
        .map(|i| {
            let d = dir(&fs, &root, &format!("d{i}"));
            fs.sync_inode(&d).unwrap();
            let home = d.attrs().home_ag;
            fs.iput(d);
            home
        })
        .collect();
    fs.iput(root);
    fs.abort("the test ends here");
    drop(fs);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let after: Vec<_> = (0..4)
        .map(|i| {
            let d = open(&fs, &root, &format!("d{i}"));
            let home = d.attrs().home_ag;
            fs.iput(d);
            home
        })
        .collect();
    assert_eq!(before, after);
    fs.iput(root);
    fs.unmount().unwrap();
}

/// The AGs of a file, in the order of its blocks.
fn order(fs: &Fs, f: &Inode, blocks: u64) -> Vec<u64> {
    let (mut at, mut found) = (0, Vec::new());
    while at < blocks {
        let m = fs.map_read(f, at, AG).unwrap();
        found.push(m.phys / AG);
        at += m.len;
    }
    found.dedup();
    found
}

/// An AG that has a backup of the superblock, and nothing else, does not count as written: a file
/// that fills its home goes on in the next AG.
#[test]
fn data_does_not_prefer_allocation_groups_of_backups() {
    let disk = MemDisk::new(40 * AG);
    format_with(disk.device(), 1);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let large = fs.create(&root, b"large", &regular()).unwrap();
    fs.preallocate(&large, 0, AG + AG / 2, None).unwrap();
    assert_eq!(order(&fs, &large, AG + AG / 2), [0, 1]);
    [large, root].into_iter().for_each(|i| fs.iput(i));
    fs.unmount().unwrap();
}

/// What does not fit in the home goes to an AG that was written before, not to the next one.
#[test]
fn data_prefers_allocation_groups_in_use() {
    let disk = make(40 * AG);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let dirs: Vec<_> = (0..8).map(|i| dir(&fs, &root, &format!("d{i}"))).collect();
    let d = dirs.iter().find(|d| d.attrs().home_ag == 5).unwrap();
    let f = fs.create(d, b"f", &regular()).unwrap();
    map_only(&fs, &f, 0, &[7; 16]);
    fs.sync().unwrap();
    let large = fs.create(&root, b"large", &regular()).unwrap();
    fs.preallocate(&large, 0, AG + AG / 2, None).unwrap();
    assert_eq!(order(&fs, &large, AG + AG / 2), [0, 5]);
    for i in dirs.into_iter().chain([f, large, root]) {
        fs.iput(i);
    }
    fs.unmount().unwrap();
}
