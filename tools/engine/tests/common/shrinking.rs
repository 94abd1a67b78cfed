// SPDX-License-Identifier: GPL-2.0

//! Filesystems that become smaller.

use super::{file, format_with, read, regular, write};
use kernel::prelude::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Device, Shared};

/// Blocks of an AG of a filesystem of less than 16 GiB.
pub const AG: u64 = 1 << 15;

/// Checks everything with fsck.
pub fn clean(dev: Device, place: &str) {
    let report = ordofs_fsck::check(dev, ordofs_fsck::Options { data: true }).expect("superblock");
    let list: std::vec::Vec<_> = report.problems.iter().map(|p| format!("{p}")).collect();
    assert!(report.is_clean(), "fsck {place}:\n{}", list.join("\n"));
}

pub fn shrink(fs: &Fs, blocks: u64) -> Result<(u64, u64)> {
    let mut s = fs.shrink_begin(blocks)?;
    while fs.shrink_step(&mut s)? {}
    let r = (s.from(), s.to());
    assert_eq!(fs.blocks(), r.1);
    Ok(r)
}

pub fn grow(fs: &Fs, blocks: u64) -> Result<(u64, u64)> {
    let mut r = fs.resize_begin(blocks)?;
    while fs.resize_step(&mut r)? {}
    Ok((r.from, r.to))
}

pub fn made(blocks: u64, copies: u8) -> MemDisk {
    let disk = MemDisk::new(blocks);
    format_with(disk.device(), copies);
    disk
}

/// Fills the space with preallocated blocks of a file, but for about `left` blocks.
pub fn ballast(fs: &Fs, f: &Shared<Inode>, left: u64) {
    let mut at = 0;
    for step in [2048, 64] {
        while fs.statfs().bavail > left + step && fs.preallocate(f, at, step, None).is_ok() {
            at += step;
        }
    }
    fs.sync().unwrap();
}

/// Whether all data in the first blocks of a file lies behind `limit`.
pub fn all_behind(fs: &Fs, f: &Inode, blocks: u64, limit: u64) -> bool {
    (0..blocks)
        .map(|at| fs.map_read(f, at, 1).unwrap())
        .all(|m| m.kind == MapKind::Hole || m.phys >= limit)
}

/// A new file in the root directory whose data begins in AG `ag` or behind it: it is made in a
/// directory with such a home.
pub fn file_from(fs: &Fs, name: &str, ag: u32) -> Shared<Inode> {
    let root = fs.iget(fs.root_ino()).unwrap();
    for i in 0..16 {
        let (dir, new) = (format!("{name}, {i}"), file(S_IFDIR | 0o755));
        let dir = fs.create(&root, dir.as_bytes(), &new).unwrap();
        if dir.attrs().home_ag >= ag {
            let f = fs.create(&dir, name.as_bytes(), &regular()).unwrap();
            fs.link(&root, name.as_bytes(), &f).unwrap();
            fs.unlink(&dir, name.as_bytes(), &f).unwrap();
            [dir, root].into_iter().for_each(|i| fs.iput(i));
            return f;
        }
        fs.iput(dir);
    }
    panic!("no directory has a home from {ag} on");
}

/// Writes `n` records of one block each, to every second block, which have the seeds from `seed` on.
pub fn scattered(dev: &Device, fs: &Fs, f: &Shared<Inode>, n: u64, seed: u64) {
    for i in 0..n {
        write(dev, fs, f, 2 * i, &[seed + i]).unwrap();
    }
}

/// The content of [`scattered`].
pub fn check_scattered(dev: &Device, fs: &Fs, f: &Inode, n: u64, seed: u64, place: &str) {
    for i in 0..n {
        let there = read(dev, fs, f, 2 * i).unwrap();
        assert_eq!(there, Some(seed + i), "{place}: {i}");
    }
}
