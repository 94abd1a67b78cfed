// SPDX-License-Identifier: GPL-2.0

//! Logs on a device in memory: where their batches are, damage to them, and forged ones.

use super::{regular, write};
use kernel::prelude::KBox;
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::volume::mount::read_superblock;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{crc32c, Block, Shared};
use std::collections::BTreeMap;

pub const SIZE: usize = 4096;
/// Bytes of a batch's header, and where in it is what.
pub const HEADER: usize = 64;
pub const SUM: usize = 4;
pub const NODE_ID: usize = 8;
pub const NUMBER: usize = 16;
pub const POSITION: usize = 24;
pub const FLUSHED: usize = 32;
pub const LEN: usize = 40;
pub const FLAGS: usize = 44;
pub const GENERATION: usize = 48;
pub const OWN_SUM: usize = 56;
pub const ZERO: usize = 60;

pub fn superblock(disk: &MemDisk) -> KBox<Superblock> {
    read_superblock(&disk.device()).unwrap_or_else(|e| panic!("{}", e.reason))
}

pub fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

pub fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}

/// Where batches begin, in the order of their positions.
pub fn batches(disk: &MemDisk) -> Vec<u64> {
    let sb = superblock(disk);
    let log = sb.log_start..sb.log_start + sb.log_len;
    let mut found = BTreeMap::new();
    for (at, b) in disk.image().range(log) {
        if b.starts_with(b"ORDL") {
            found.insert(u64_at(&b[..], POSITION), *at);
        }
    }
    found.into_values().collect()
}

/// A block.
pub fn block(disk: &MemDisk, at: u64) -> [u8; SIZE] {
    let mut b = Block::zeroed().unwrap();
    disk.device().read(at, &mut b).unwrap();
    *b
}

/// Makes the checksums of a batch of one block right.
pub fn seal(b: &mut [u8; SIZE]) {
    let own = crc32c(0, &b[8..OWN_SUM]);
    b[OWN_SUM..OWN_SUM + 4].copy_from_slice(&own.to_le_bytes());
    let end = HEADER + u32_at(b, LEN) as usize;
    let sum = crc32c(0, &b[8..end.min(SIZE)]);
    b[SUM..SUM + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Changes the first block of a batch, and makes its checksums right.
pub fn forge(disk: &MemDisk, from: u64, to: u64, change: impl FnOnce(&mut [u8; SIZE])) {
    let mut b = Block::zeroed().unwrap();
    disk.device().read(from, &mut b).unwrap();
    change(&mut b);
    seal(&mut b);
    disk.device().write(&[(to, &b)]).unwrap();
}

/// Makes a file of one block, durable by a batch of its own.
pub fn synced(disk: &MemDisk, fs: &Shared<Fs>, name: &[u8], seed: u64) {
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, name, &regular()).unwrap();
    write(&disk.device(), fs, &f, 0, &[seed]).unwrap();
    fs.sync_inode(&f).unwrap();
    fs.iput(f);
    fs.iput(root);
}

/// Flips a bit of a block, or makes all of it zero.
pub fn ruin(disk: &MemDisk, block: u64, damage: usize) {
    match damage {
        SIZE => disk
            .device()
            .write(&[(block, &Block::zeroed().unwrap())])
            .unwrap(),
        at => disk.corrupt(block, at, 1),
    }
}

/// The names in the root directory.
pub fn names(fs: &Shared<Fs>) -> Vec<String> {
    let root = fs.iget(fs.root_ino()).unwrap();
    let mut names = Vec::new();
    fs.readdir(&root, 0, &mut |name, _, _, _| {
        names.push(String::from_utf8_lossy(name).into_owned());
        true
    })
    .unwrap();
    fs.iput(root);
    names.sort();
    names
}

pub fn read_only(recovery: bool) -> MountOptions {
    MountOptions {
        read_only: true,
        recovery,
        ..MountOptions::default()
    }
}
