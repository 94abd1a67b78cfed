// SPDX-License-Identifier: GPL-2.0

//! What the tests share: a filesystem on a device in memory, writes as the glue does them, and a
//! consistency walker that compares the space trees with every reference there is.
#![allow(dead_code, unused_imports)]

pub mod blocks;
pub mod hooked;
pub mod log;
pub mod shrinking;
pub mod walker;

pub use blocks::{data, seed_of, try_data};
pub use walker::{fsck, Found};

use kernel::prelude::Result;
use ordofs_engine::engine::volume::mkfs::{format, FormatOptions};
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{crc32c, Block, Device, Shared};
use std::collections::BTreeMap;
use std::vec::Vec;

pub fn format_on(dev: Device) {
    format_with(dev, 0);
}

/// With so many copies of each node; 0 means what mkfs chooses.
pub fn format_with(dev: Device, copies: u8) {
    let o = FormatOptions {
        uuid: [7; 16],
        label: [0; 64],
        blocks: 0,
        root_owner: (0, 0),
        copies,
    };
    format(dev, &o).unwrap_or_else(|e| panic!("format: {}", e.reason));
}

pub fn make(blocks: u64) -> MemDisk {
    let disk = MemDisk::new(blocks);
    format_on(disk.device());
    disk
}

/// With one copy of each node, for tests that damage it.
pub fn make_single(blocks: u64) -> MemDisk {
    let disk = MemDisk::new(blocks);
    format_with(disk.device(), 1);
    disk
}

pub fn mount_on(dev: Device) -> Shared<Fs> {
    Fs::mount(dev, MountOptions::default()).unwrap_or_else(|e| panic!("mount: {}", e.reason))
}

pub fn mount(disk: &MemDisk) -> Shared<Fs> {
    mount_on(disk.device())
}

pub fn file(mode: u32) -> NewInode<'static> {
    NewInode {
        mode,
        uid: 1,
        gid: 2,
        ..Default::default()
    }
}

pub fn regular() -> NewInode<'static> {
    file(S_IFREG | 0o644)
}

/// Reserves the range, as a buffered write does.
pub fn dirty(fs: &Fs, inode: &Shared<Inode>, start: u64, len: u64) -> Result {
    let mut at = start;
    while at < start + len {
        at += fs.map_write(inode, at, start + len - at)?.map.len;
    }
    Ok(())
}

/// A buffered write of whole blocks, as writeback would do it.
pub fn write(dev: &Device, fs: &Fs, inode: &Shared<Inode>, start: u64, seeds: &[u64]) -> Result {
    dirty(fs, inode, start, seeds.len() as u64)?;
    flush(dev, fs, inode, start, seeds, false)
}

/// Writeback or a direct write.
pub fn flush(
    dev: &Device,
    fs: &Fs,
    inode: &Shared<Inode>,
    start: u64,
    seeds: &[u64],
    direct: bool,
) -> Result {
    let blocks: Vec<Block> = seeds.iter().map(|s| try_data(*s)).collect::<Result<_>>()?;
    let crcs: Vec<u32> = blocks.iter().map(|b| crc32c(0, &b[..])).collect();
    let mut i = 0;
    while i < seeds.len() {
        let s = fs.start_write(inode, start + i as u64, &crcs[i..], direct)?;
        let io = (0..s.len).try_for_each(|k| dev.write(&[(s.phys + k, &blocks[i + k as usize])]));
        i += s.len as usize;
        fs.finish_write(s.ordered, block_to_bytes(start + i as u64), io)?;
    }
    Ok(())
}

/// Maps blocks with these checksums, as a write does, but writes no data.
pub fn map_only(fs: &Fs, f: &Shared<Inode>, start: u64, csums: &[u32]) {
    dirty(fs, f, start, csums.len() as u64).unwrap();
    let mut i = 0;
    while i < csums.len() {
        let s = fs
            .start_write(f, start + i as u64, &csums[i..], false)
            .unwrap();
        i += s.len as usize;
        fs.finish_write(s.ordered, block_to_bytes(start + i as u64), Ok(()))
            .unwrap();
    }
}

/// Reads a block as the glue does: until its checksum has been judged. `None` is a hole.
pub fn read(dev: &Device, fs: &Fs, inode: &Inode, block: u64) -> Result<Option<u64>> {
    for _ in 0..1000 {
        let m = fs.map_read(inode, block, 1)?;
        assert_eq!(m.start, block);
        if m.kind != MapKind::Written {
            return Ok(None);
        }
        let mut b = Block::zeroed().unwrap();
        dev.read(m.phys, &mut b)?;
        match fs.verify(inode, block, m.phys, crc32c(0, &b[..]))? {
            Verdict::Good => return Ok(Some(seed_of(&b).expect("not a block of ours"))),
            Verdict::Bad(want) => panic!(
                "inode {} block {block} at {}: bad, want {want:x}",
                inode.ino(),
                m.phys
            ),
            Verdict::Moved => {}
        }
    }
    panic!(
        "inode {} block {block}: map_read and verify never agree",
        inode.ino()
    );
}

/// After everything has come to rest: no reservation is left over, and the disk is consistent.
pub fn at_rest(disk: &MemDisk, fs: &Fs) -> BTreeMap<u64, Found> {
    fs.sync().unwrap();
    let now = fs.statfs();
    let found = fsck(disk);
    let again = mount(&disk.fork());
    let fresh = again.statfs();
    // Orphans that the second mount removed are not free yet there.
    if !found.values().any(|f| f.orphan) {
        assert_eq!(now.bfree, fresh.bfree, "reservations leaked");
        assert_eq!(now.bavail, fresh.bavail, "reservations leaked");
    }
    found
}
