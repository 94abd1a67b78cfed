// SPDX-License-Identifier: GPL-2.0

//! Blocks that say what they are.

use kernel::prelude::Result;
use ordofs_engine::os::Block;

/// The block that is made of a seed.
pub fn data(seed: u64) -> Block {
    try_data(seed).unwrap()
}

/// As [`data`], for when allocations are made to fail.
pub fn try_data(seed: u64) -> Result<Block> {
    let mut b = Block::zeroed()?;
    for (i, c) in b.chunks_exact_mut(8).enumerate() {
        let v = if i == 0 {
            seed
        } else {
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i as u64
        };
        c.copy_from_slice(&v.to_le_bytes());
    }
    Ok(b)
}

/// The seed of a block that [`data`] made; `None` when it is not one.
pub fn seed_of(b: &Block) -> Option<u64> {
    let seed = u64::from_le_bytes(b[..8].try_into().unwrap());
    (b[..] == data(seed)[..]).then_some(seed)
}
