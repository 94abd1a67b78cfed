// SPDX-License-Identifier: GPL-2.0

//! The part of the device where nodes and data may be: outside of the fixed areas of superblocks and
//! log, within one allocation group; and the epochs that records may have. Pointers and extents that
//! lead elsewhere are refused.
//!
//! Tests: `tools/engine/tests/impossible.rs`, `tools/engine/tests/log_recovery.rs`.

use super::places::{areas, meets_areas, AREA_BLOCKS};
use super::{Superblock, MAX_EPOCH};

/// The blocks where nodes and data may be.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    blocks: u64,
    log_start: u64,
    log_end: u64,
    /// 0 if nothing is known but the size of the device.
    ag_blocks: u64,
    epoch: u32,
}

impl From<u64> for Room {
    /// For a device of `blocks` blocks about which nothing else is known.
    fn from(blocks: u64) -> Self {
        Self {
            blocks,
            log_start: 0,
            log_end: 0,
            ag_blocks: 0,
            epoch: MAX_EPOCH,
        }
    }
}

impl From<&Superblock> for Room {
    fn from(sb: &Superblock) -> Self {
        Self {
            blocks: sb.blocks,
            log_start: sb.log_start,
            log_end: sb.log_start.saturating_add(sb.log_len),
            ag_blocks: sb.ag_blocks,
            epoch: sb.epoch,
        }
    }
}

impl Room {
    /// The same for a filesystem that has grown to `blocks` blocks.
    pub fn grown(self, blocks: u64) -> Self {
        Self { blocks, ..self }
    }

    /// The current epoch, or the greatest one if nothing is known about it.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The ranges where neither nodes nor data can be: see [`Superblock::fixed_areas`]. None if only
    /// the size of the device is known.
    pub fn fixed_areas(&self) -> impl Iterator<Item = (u64, u64)> {
        let known = self.ag_blocks != 0;
        let log = (self.log_start, self.log_end.saturating_sub(self.log_start));
        // The prelude has another `chain`.
        let all = Iterator::chain(
            areas(self.blocks).map(|start| (start, AREA_BLOCKS)),
            core::iter::once(log),
        );
        all.filter(move |_| known)
    }

    /// The first block of allocation group `ag`.
    pub fn ag_start(&self, ag: u64) -> u64 {
        ag.saturating_mul(self.ag_blocks)
    }

    /// Why nodes or data cannot be in the blocks `[start, start + len)`; `None` if they can.
    pub fn refuses(&self, start: u64, len: u64) -> Option<&'static str> {
        let Some(end) = start.checked_add(len).filter(|e| *e <= self.blocks) else {
            return Some("blocks beyond the end of the filesystem");
        };
        if self.ag_blocks == 0 {
            return None;
        }
        if start < self.log_end && end > self.log_start {
            return Some("blocks of the log");
        }
        if meets_areas(self.blocks, start, end) {
            return Some("blocks of superblocks");
        }
        let ag = |at: u64| at.checked_div(self.ag_blocks);
        (ag(start) != ag(end.saturating_sub(1)))
            .then_some("blocks of more than one allocation group")
    }
}
