// SPDX-License-Identifier: GPL-2.0

//! What else may be on a device of which only backups of a superblock are left: another filesystem,
//! which a repair must not overwrite.
//!
//! Tests: `tools/fsck/tests/repair.rs`.

use ordofs_cli::magics::MAGICS;
use ordofs_engine::engine::format::places::SLOTS;
use ordofs_engine::engine::format::superblock::SB_MAGIC;
use ordofs_engine::engine::BLOCK_SIZE;
use ordofs_engine::os::{Block, Device};

/// An error, by name, if there is something else.
pub(super) fn refuse(device: &Device) -> Result<(), String> {
    let mut b = Block::zeroed().map_err(|e| format!("{e:?}"))?;
    let mut has = |at: u64, magic: &[u8]| -> bool {
        let (block, offset) = (at / BLOCK_SIZE as u64, at as usize % BLOCK_SIZE);
        let there = block < device.blocks() && device.read(block, &mut b).is_ok();
        there && b.get(offset..).is_some_and(|b| b.starts_with(magic))
    };
    for (what, at, magic) in MAGICS {
        if has(*at, magic) {
            return Err(format!("there is another format on the device: {what}"));
        }
    }
    let [name @ .., _] = &SB_MAGIC;
    for slot in SLOTS {
        let at = slot * BLOCK_SIZE as u64;
        if has(at, name) && !has(at, &SB_MAGIC) {
            return Err("it has a superblock of another version of OrdoFS".into());
        }
    }
    if has(510, b"\x55\xaa") {
        return Err("there is a boot sector or a partition table (DOS) on the device".into());
    }
    Ok(())
}
