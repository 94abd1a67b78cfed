// SPDX-License-Identifier: GPL-2.0

//! Where a pointer may point to.

use super::{Superblock, RESERVED_BLOCKS};

/// Where nodes and data may be.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    blocks: u64,
    log_start: u64,
    log_end: u64,
    ag_blocks: u64,
}

impl From<u64> for Room {
    /// On a device of so many blocks of which nothing else is known.
    fn from(blocks: u64) -> Self {
        Self {
            blocks,
            log_start: 0,
            log_end: 0,
            ag_blocks: 0,
        }
    }
}

impl From<&Superblock> for Room {
    fn from(sb: &Superblock) -> Self {
        Self {
            blocks: sb.blocks,
            log_start: sb.log_start,
            log_end: sb.first_free_block(),
            ag_blocks: sb.ag_blocks,
        }
    }
}

impl Room {
    /// What is wrong with something at `[start, start + len)`.
    pub fn refuses(&self, start: u64, len: u64) -> Option<&'static str> {
        let Some(end) = start.checked_add(len).filter(|e| *e <= self.blocks) else {
            return Some("blocks beyond the end of the filesystem");
        };
        if start < RESERVED_BLOCKS {
            return Some("blocks in the reserved start of the device");
        }
        if start < self.log_end && end > self.log_start {
            return Some("blocks of the log");
        }
        let ag = |at: u64| at.checked_div(self.ag_blocks);
        (ag(start) != ag(end.saturating_sub(1)))
            .then_some("blocks of more than one allocation group")
    }
}
