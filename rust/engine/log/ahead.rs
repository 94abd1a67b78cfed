// SPDX-License-Identifier: GPL-2.0

//! Reading blocks that lie one behind the other, many at a time: replay reads the whole log, and a
//! device answers one long request sooner than many short ones.
//!
//! What was read ahead is kept until something else is asked for, so nothing may write to the blocks
//! meanwhile. Replay changes nothing on the device.

use crate::os::{Block, Device};
use core::ops::Range;
use kernel::prelude::*;

/// Blocks of one request.
const AHEAD: usize = 64;

/// A stretch of a device, in memory.
pub struct Ahead<'a> {
    dev: &'a Device,
    /// The first block that `blocks` has.
    first: u64,
    /// How many of `blocks` were read.
    len: u64,
    blocks: KVVec<Block>,
    /// Among these is one that cannot be read: they are read singly.
    bad: Range<u64>,
}

impl<'a> Ahead<'a> {
    /// Nothing read yet.
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

    /// The block `at`. What follows it is read with it, up to the block `end`, which is not.
    pub fn get(&mut self, at: u64, end: u64) -> Result<&Block> {
        if at < self.first || at - self.first >= self.len {
            self.fill(at, end)?;
        }
        self.blocks.get((at - self.first) as usize).ok_or(EIO)
    }

    fn fill(&mut self, at: u64, end: u64) -> Result {
        self.len = 0;
        let n = end.saturating_sub(at).clamp(1, AHEAD as u64);
        if !self.bad.contains(&at) {
            let before = self.bad.start.checked_sub(at).filter(|b| *b > 0);
            let n = n.min(before.unwrap_or(n));
            if self.read(at, n).is_ok() {
                return Ok(());
            }
            // A block that cannot be read matters only to those who want that one.
            self.bad = at..at.saturating_add(n);
        }
        self.read(at, 1)
    }

    fn read(&mut self, at: u64, n: u64) -> Result {
        let run = self.blocks.get_mut(..n as usize).ok_or(EIO)?;
        self.dev.read_run(at, run)?;
        self.first = at;
        self.len = n;
        Ok(())
    }
}
