// SPDX-License-Identifier: GPL-2.0

//! Changes on the device that no checksum gives away.

use ordofs_engine::engine::format::superblock::seal;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Block;
use std::vec::Vec;

/// An item of a leaf: key, and where its value is in the block.
pub struct Item {
    pub key: u64,
    pub at: usize,
    pub len: usize,
}

/// The items of the leaf in `data` if it is one of a tree of that kind.
pub fn leaf(data: &[u8; 4096], kind: u8) -> Vec<Item> {
    if !data.starts_with(b"ORDN") || data[40] != kind || data[41] != 0 {
        return Vec::new();
    }
    let u16_at = |i: usize| usize::from(u16::from_le_bytes([data[i], data[i + 1]]));
    (0..u16_at(42))
        .map(|i| 64 + 12 * i)
        .map(|s| Item {
            key: u64::from_le_bytes(data[s..s + 8].try_into().expect("8 bytes")),
            at: u16_at(s + 8),
            len: u16_at(s + 10),
        })
        .collect()
}

/// Writes a node with a right checksum and makes all its ancestors agree, up to the superblock.
pub fn forge(disk: &MemDisk, block: u64, mut data: [u8; 4096]) {
    let crc = ordofs_engine::os::crc32c(0, &data[8..]);
    let old = disk
        .image()
        .get(&block)
        .map(|d| u32::from_le_bytes([d[4], d[5], d[6], d[7]]))
        .expect("node");
    data[4..8].copy_from_slice(&crc.to_le_bytes());
    put(disk, block, &data);
    let mut pointer = block.to_le_bytes().to_vec();
    pointer.extend_from_slice(&[0; 8]);
    let children: Vec<(u64, [u8; 4096])> = disk.image().iter().map(|(b, d)| (*b, **d)).collect();
    for (b, d) in children {
        // A NodePtr: address, no copy, generation, checksum.
        let found = (0..=4096 - 32)
            .find(|i| d[*i..*i + 16] == pointer[..] && d[*i + 24..*i + 28] == old.to_le_bytes());
        let Some(at) = found else { continue };
        let mut d = d;
        d[at + 24..at + 28].copy_from_slice(&crc.to_le_bytes());
        if d.starts_with(b"ORDN") {
            forge(disk, b, d);
        } else if d.starts_with(b"OrdoFS") {
            let generation = u64::from_le_bytes(d[192..200].try_into().expect("8 bytes"));
            seal(&mut d, generation);
            put(disk, b, &d);
        }
    }
}

pub fn put(disk: &MemDisk, block: u64, data: &[u8; 4096]) {
    let mut b = Block::zeroed().expect("memory");
    b.copy_from_slice(data);
    disk.device().write(&[(block, &b)]).expect("write");
}

/// The leaf in `data`, one of a tree of that kind, with another value for a key that it has.
#[allow(dead_code)]
pub fn replaced(data: &[u8; 4096], kind: u8, key: u64, value: &[u8]) -> [u8; 4096] {
    let mut new = [0; 4096];
    new[..64].copy_from_slice(&data[..64]);
    let mut end = 4096;
    for (slot, item) in leaf(data, kind).iter().enumerate() {
        let old = &data[item.at..item.at + item.len];
        let value = if item.key == key { value } else { old };
        end -= value.len();
        new[end..end + value.len()].copy_from_slice(value);
        let at = 64 + 12 * slot;
        new[at..at + 8].copy_from_slice(&item.key.to_le_bytes());
        new[at + 8..at + 10].copy_from_slice(&(end as u16).to_le_bytes());
        new[at + 10..at + 12].copy_from_slice(&(value.len() as u16).to_le_bytes());
    }
    new
}
