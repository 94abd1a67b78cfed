// SPDX-License-Identifier: GPL-2.0

//! FITRIM: the device learns which blocks are free.
//!
//! # Model
//!
//! A trim is a number of calls of [`Fs::trim_step`], each of which discards a bounded piece
//! ([`crate::engine::alloc::Trim`] has the state in between). Between two of them the caller may let
//! the filesystem be frozen, remounted or shut down. A trim is no transaction and changes nothing
//! that is on disk: it may be cut off anywhere.
//!
//! Bytes from outside are rounded inwards to blocks, so nothing outside of the range is discarded.
//!
//! Locks: those of [`crate::engine::alloc`].
//!
//! Tests: `tools/engine/tests/trim`, `tools/crash/tests/trim.rs`, `tests/vm/t/069-trim.sh`.

use crate::engine::alloc::Trim;
use crate::engine::format::GROUP_BLOCKS;
use crate::engine::fs::Fs;
use crate::engine::types::*;
use kernel::prelude::*;

/// A range to trim, as `struct fstrim_range` of FITRIM has it, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrimRange {
    /// Its first byte.
    pub start: u64,
    /// Its length; it may go beyond the end of the filesystem.
    pub len: u64,
    /// Shorter free runs are left out. A run ends at the border of its group (32 MiB).
    pub min_len: u64,
}

impl Fs {
    /// Begins a trim; nothing is discarded yet. Raises `min_len` to the unit in which the device
    /// discards. EOPNOTSUPP if the device cannot discard, or only in larger units than a group;
    /// EINVAL if the range begins beyond the end, has less than a block, or asks for longer runs
    /// than a group can have.
    pub fn trim_begin(&self, range: &mut TrimRange) -> Result<Trim> {
        let blocks = bytes_to_blocks;
        let unit = self.node_store.device().discard_unit();
        if unit == 0 || blocks(unit) > GROUP_BLOCKS {
            return Err(EOPNOTSUPP);
        }
        let total = self.space.total();
        let block = BLOCK_SIZE as u64;
        if range.start / block >= total || range.len < block || blocks(range.min_len) > GROUP_BLOCKS
        {
            return Err(EINVAL);
        }
        range.min_len = range.min_len.max(unit);
        let start = blocks(range.start);
        let end = range.start.saturating_add(range.len) / block;
        Ok(Trim {
            start,
            at: start,
            end: end.min(total),
            least: blocks(range.min_len) as u32,
            unit: blocks(unit) as u32,
            trimmed: 0,
        })
    }

    /// Discards the next piece of a trim, unless `stop`, which is called often, returns true. Returns
    /// whether something is left. EROFS on a read-only mount, EIO after a shutdown, ENOMEM, and
    /// errors of the device. Must not be called inside a transaction.
    pub fn trim_step(&self, trim: &mut Trim, stop: &mut dyn FnMut() -> bool) -> Result<bool> {
        self.writable()?;
        self.space
            .trim_piece(&self.node_store, trim, &mut || self.is_shutdown() || stop())
    }
}
