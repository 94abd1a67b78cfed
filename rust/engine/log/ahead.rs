// SPDX-License-Identifier: GPL-2.0

//! Read-ahead for replay, which reads the whole log and the data that its last batch names: one
//! long request takes a device less time than many short ones.
//!
//! An [`Ahead`] keeps the last run of blocks that it read until the caller asks for a block outside
//! of it. Nothing may write to the area meanwhile, or the caller sees old content; replay changes
//! nothing on the device. No locks: each `Ahead` belongs to one task. Addresses and lengths are in
//! blocks, ranges are half-open.
//!
//! Tests: tools/engine/tests/replay_cost.rs (requests and memory),
//! tools/engine/tests/log_recovery.rs (blocks that cannot be read), tests/vm/t/072-recovery.sh.

use crate::engine::invariant::{broken, Invariant};
use crate::os::{Block, Device};
use core::ops::Range;
use kernel::prelude::*;

/// The most blocks that one request reads.
const AHEAD: usize = 64;

/// A run of a device's blocks, in memory.
pub struct Ahead<'a> {
    dev: &'a Device,
    /// The disk block in `blocks[0]`.
    first: u64,
    /// How many of `blocks` are valid, from the first on.
    len: u64,
    blocks: KVVec<Block>,
    /// The last run that could not be read as a whole. Its blocks are read one at a time.
    bad: Range<u64>,
}

impl<'a> Ahead<'a> {
    /// Allocates the buffers and reads nothing. ENOMEM.
    pub fn new(dev: &'a Device) -> Result<Self> {
        let mut blocks = KVVec::with_capacity(AHEAD, GFP_KERNEL)?;
        for _ in 0..AHEAD {
            blocks.push(Block::zeroed()?, GFP_KERNEL)?;
        }
        Ok(Self {
            dev,
            first: 0,
            len: 0,
            blocks,
            bad: 0..0,
        })
    }

    /// Returns disk block `at`. If it has to be read, the blocks behind it are read with it, as far
    /// as one request reaches and below `end`. An error concerns block `at` alone.
    pub fn get(&mut self, at: u64, end: u64) -> Result<&Block> {
        if at < self.first || at - self.first >= self.len {
            self.fill(at, end)?;
        }
        self.blocks
            .get((at - self.first) as usize)
            .ok_or_else(|| broken(Invariant::Contents, format_args!("block {at} was not read")))
    }

    /// Reads the run that begins with `at`, or only `at` if the run cannot be read.
    fn fill(&mut self, at: u64, end: u64) -> Result {
        self.len = 0;
        let n = end.saturating_sub(at).clamp(1, AHEAD as u64);
        if !self.bad.contains(&at) {
            let before = self.bad.start.checked_sub(at).filter(|b| *b > 0);
            let n = n.min(before.unwrap_or(n));
            if self.read(at, n).is_ok() {
                return Ok(());
            }
            // One unreadable block must fail only its own reader: from here on read this run block
            // by block.
            self.bad = at..at.saturating_add(n);
        }
        self.read(at, 1)
    }

    /// Reads blocks `[at, at + n)` into the buffers.
    fn read(&mut self, at: u64, n: u64) -> Result {
        let run = self.blocks.get_mut(..n as usize);
        let run =
            run.ok_or_else(|| broken(Invariant::Contents, format_args!("{n} blocks in one go")))?;
        self.dev.read_run(at, run)?;
        self.first = at;
        self.len = n;
        Ok(())
    }
}
