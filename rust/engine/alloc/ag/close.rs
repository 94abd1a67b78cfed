// SPDX-License-Identifier: GPL-2.0

//! The end of an AG is *closed*: nothing is allocated there, because it will be cut off.
//!
//! Closed blocks are freed as others are. What is free there has left the free space of the filesystem:
//! [`super::super::close`] counts it, and this file reports to it what becomes free.
//!
//! Everything is under the AG's mutex. Block numbers are relative to the AG, bits to a group.
//!
//! Tests: `tools/engine/tests/shrink.rs`.

use super::{Ag, State};
use crate::engine::alloc::bits::Bits;
use crate::engine::btree::{Behind, NodeStore};
use crate::engine::format::GROUP_BLOCKS;
use kernel::prelude::*;

impl Ag {
    /// Closes the blocks from `from` on. ENOMEM.
    pub fn close(&mut self, from: u64) -> Result {
        if from > 0 && from < self.len && self.scratch.is_none() {
            self.scratch = Some(Bits::zeroed()?);
        }
        self.closed_from = from;
        let mut freed = 0;
        self.groups.for_each(|g, group| {
            let (at, n) = self.closed_bits(g);
            for d in [&group.run, &group.commit].into_iter().flatten() {
                freed += u64::from(d.clear.count_range(at, n));
            }
        });
        self.closed_freed = freed;
        Ok(())
    }

    /// All blocks may be allocated again.
    pub fn open(&mut self) {
        self.closed_from = u64::MAX;
        self.closed_freed = 0;
    }

    /// Closes the whole AG. Returns how many more blocks are free than its record says, while no
    /// commit is under way. EUCLEAN if it is damaged.
    pub fn close_all(&mut self) -> Result<i64> {
        self.close(0)?;
        match self.state {
            // What its record says is all that is known.
            State::Unread => Ok(0),
            State::Good => Ok(self.left as i64 - self.on_disk as i64),
            State::Bad => Err(EUCLEAN),
        }
    }

    /// Closes the blocks from `from` on. Returns how many of them are free. EUCLEAN if the AG is
    /// damaged, EIO, ENOMEM.
    pub fn close_part(&mut self, node_store: &NodeStore, from: u64) -> Result<u64> {
        if self.state != State::Good {
            return Err(EUCLEAN);
        }
        let mut free = 0;
        self.parts(from, self.len.saturating_sub(from), |ag, g, at, n| {
            let used = ag.group(node_store, g)?.used.count_range(at, n);
            free += u64::from(n.saturating_sub(used));
            Ok(())
        })?;
        self.close(from)?;
        Ok(free)
    }

    /// The closed bits of group `g`: the first one, and how many.
    pub(super) fn closed_bits(&self, g: u64) -> (u32, u32) {
        let cap = self.group_len(g);
        let first = g.saturating_mul(GROUP_BLOCKS);
        let at = self.closed_from.saturating_sub(first).min(cap.into()) as u32;
        (at, cap - at)
    }

    /// `n` closed blocks have become free. Returns how many of them count: in a bad AG none does.
    pub(super) fn gain_closed(&mut self, n: u32) -> u64 {
        let n = match self.state {
            State::Bad => 0,
            _ => u64::from(n),
        };
        self.closed_gain += n;
        n
    }

    /// A transaction has freed bits `[at, at + n)` of group `g`.
    pub(super) fn free_closed(&mut self, g: u64, at: u32, n: u32) {
        let closed = self.closed_bits(g).0.max(at);
        self.closed_freed += u64::from((at + n).saturating_sub(closed));
    }

    /// `n` closed blocks that transactions have freed are not in their deltas any more.
    pub(super) fn end_closed(&mut self, n: u32) {
        self.closed_freed = self.closed_freed.saturating_sub(n.into());
    }

    /// By how much the number of closed blocks has changed since the last call that transactions have
    /// freed which are not durable.
    pub fn take_closed_freed(&mut self) -> i64 {
        let told = core::mem::replace(&mut self.told_freed, self.closed_freed);
        self.closed_freed as i64 - told as i64
    }

    /// Whether these blocks can become an area of superblocks: the AG is good, and they are free, and
    /// closed. Their groups are in memory then. EUCLEAN, EBUSY, ENOMEM.
    pub fn may_take(&mut self, node_store: &NodeStore, block: u64, len: u64) -> Result {
        if self.state != State::Good {
            return Err(EUCLEAN);
        }
        self.parts(block, len, |ag, g, at, n| {
            let used = ag.group(node_store, g)?.used.count_range(at, n);
            match used == 0 && ag.closed_from <= block {
                true => Ok(()),
                false => Err(EBUSY),
            }
        })
    }

    /// How many closed blocks became free since the last call.
    pub fn take_closed_gain(&mut self) -> u64 {
        core::mem::take(&mut self.closed_gain)
    }

    /// The commit under way writes the record anew, and those nodes of the tree of the groups that have
    /// a copy behind block `block` of the device. Does nothing in a bad AG. EUCLEAN, EIO, ENOMEM.
    pub fn touch_behind(&mut self, node_store: &NodeStore, block: u64) -> Result {
        if self.state != State::Good {
            return Ok(());
        }
        self.changed = true;
        let mut from = 0;
        loop {
            match self.tree.first_behind(node_store, from, block, None)? {
                Behind::Node(key) => self.tree.touch(node_store, key)?,
                Behind::More(key) => from = key,
                _ => return Ok(()),
            }
        }
    }
}
