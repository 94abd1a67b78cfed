// SPDX-License-Identifier: GPL-2.0

//! What blocks, attributes and names hold in these tests.

use ordofs_engine::os::Block;
use std::vec::Vec as StdVec;

/// The content of a block.
pub fn fill(tag: u64) -> Block {
    let mut b = Block::zeroed().unwrap();
    if tag != 0 {
        let bytes = tag.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        b.chunks_exact_mut(8)
            .for_each(|c| c.copy_from_slice(&bytes));
        b[..8].copy_from_slice(&tag.to_le_bytes());
    }
    b
}

/// The bytes of a value.
pub fn value(tag: u64, len: usize) -> StdVec<u8> {
    let words = (tag << 16..).flat_map(|w| w.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.take(len).collect()
}

/// A name of a directory entry; the first ones are long.
pub fn name_of(n: u8) -> StdVec<u8> {
    match n {
        0..=15 => std::format!("{n}-{}", "x".repeat(250)).into_bytes(),
        _ => std::format!("name{}", n % 60).into_bytes(),
    }
}

/// The element that a number chooses.
pub fn pick<T: Copy>(v: &[T], n: u8) -> Option<T> {
    v.get(usize::from(n) % v.len().max(1)).copied()
}
