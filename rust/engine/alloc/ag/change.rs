// SPDX-License-Identifier: GPL-2.0

//! Changes by transactions: allocating, completing and freeing blocks. Everything is under the AG's
//! mutex. Block numbers are relative to the AG, bits to a group.
//!
//! Tests: `tools/models/tests/rules/r7.rs`, `tools/engine/tests/state_machine.rs`,
//! `tools/engine/tests/log_recovery.rs` (claims), `tools/engine/tests/impossible.rs` (bad groups).

use super::{delta, Ag, FreedBy, Owner, State};
use crate::engine::alloc::bits::Bits;
use crate::engine::btree::NodeStore;
use crate::engine::format::{corrupt, GROUP_BLOCKS};
use kernel::prelude::*;

impl Ag {
    /// Marks the bits `[at, at + len)` of group `g`, which are free, as used by `owner`.
    pub(super) fn take(
        &mut self,
        node_store: &NodeStore,
        g: u64,
        at: u32,
        len: u32,
        owner: Owner,
    ) -> Result {
        let mut fresh = 0;
        let group = self.group(node_store, g)?;
        match owner {
            Owner::Busy => group.busy += len,
            Owner::Running => delta(&mut group.run, &mut fresh)?.set.set(at, len),
            Owner::Committing => {
                delta(&mut group.commit, &mut 0)?.set.set(at, len);
                group.stale = true;
            }
        }
        group.used.set(at, len);
        match owner {
            Owner::Busy => self.busy += u64::from(len),
            Owner::Running => self.running += u64::from(len),
            Owner::Committing => {}
        }
        self.touch(fresh);
        self.add_free(g, -(len as i32));
        Ok(())
    }

    /// Blocks of group `g` have become free.
    pub(super) fn forget_longest(&mut self, g: u64) {
        let cap = self.group_len(g);
        if let Some(info) = self.info_mut(g) {
            info.longest = cap;
        }
    }

    /// Calls `f(ag, group, first bit, length)` for the parts of `[block, block + len)`.
    pub(super) fn parts(
        &mut self,
        block: u64,
        len: u64,
        mut f: impl FnMut(&mut Self, u64, u32, u32) -> Result,
    ) -> Result {
        let end = block.saturating_add(len);
        if end > self.len {
            return Err(corrupt("allocation", block, "beyond the end of its group"));
        }
        let mut at = block;
        while at < end {
            let bit = (at % GROUP_BLOCKS) as u32;
            let n = (GROUP_BLOCKS - u64::from(bit)).min(end - at) as u32;
            f(self, at / GROUP_BLOCKS, bit, n)?;
            at += u64::from(n);
        }
        Ok(())
    }

    /// Marks blocks as used without checking that they are free (mkfs: the reserved areas).
    pub fn reserve_fixed(&mut self, node_store: &NodeStore, block: u64, len: u64) -> Result {
        self.parts(block, len, |ag, g, at, n| {
            if ag.groups.get(&g).is_none() {
                ag.load_new_group(node_store, g)?;
            }
            ag.take(node_store, g, at, n, Owner::Running)
        })
    }

    /// Replay: marks those blocks of the range that are free as busy. Returns how many there were that
    /// counted as free: not those of a bad AG.
    pub fn claim(&mut self, node_store: &NodeStore, block: u64, len: u64) -> Result<u64> {
        let mut n = 0;
        self.parts(block, len, |ag, g, at, len| {
            let (mut at, end) = (at, at + len);
            loop {
                let used = &ag.group(node_store, g)?.used;
                let from = used.next_clear(at, end);
                if from >= end {
                    return Ok(());
                }
                at = used.next_set(from, end);
                ag.take(node_store, g, from, at - from, Owner::Busy)?;
                if ag.state == State::Good {
                    n += u64::from(at - from);
                }
            }
        })?;
        Ok(n)
    }

    /// Replay: whether these blocks are free on disk, claimed, and not in use since. If not, a
    /// record maps blocks of something else.
    pub fn is_claimed(&mut self, node_store: &NodeStore, block: u64, len: u64) -> Result<bool> {
        let mut good = true;
        let mut bits = Bits::zeroed()?;
        self.parts(block, len, |ag, g, at, n| {
            bits.clear(0, GROUP_BLOCKS as u32);
            ag.disk_bits(node_store, g, &mut bits)?;
            let group = ag.group(node_store, g)?;
            let given = group.run.as_ref().map_or(0, |d| d.set.count_range(at, n));
            good &= bits.count_range(at, n) == 0 && given == 0;
            good &= group.used.count_range(at, n) == n;
            Ok(())
        })?;
        Ok(good)
    }

    /// Data I/O has completed: its busy blocks enter the running transaction.
    pub fn commit_busy(&mut self, node_store: &NodeStore, block: u64, len: u64) -> Result {
        self.parts(block, len, |ag, g, at, n| {
            let mut fresh = 0;
            let group = ag.group(node_store, g)?;
            delta(&mut group.run, &mut fresh)?.set.set(at, n);
            group.busy = group.busy.saturating_sub(n);
            ag.busy = ag.busy.saturating_sub(u64::from(n));
            ag.running += u64::from(n);
            ag.touch(fresh);
            Ok(())
        })
    }

    /// Data I/O has failed or was never submitted: its blocks are free at once. Returns how many of them
    /// are not closed.
    pub fn release_busy(&mut self, node_store: &NodeStore, block: u64, len: u64) -> Result<u64> {
        let mut open = 0;
        self.parts(block, len, |ag, g, at, n| {
            let group = ag.group(node_store, g)?;
            group.used.clear(at, n);
            group.busy = group.busy.saturating_sub(n);
            let idle = group.idle();
            let closed = ag.closed_bits(g).0.max(at);
            let gain = ag.gain_closed((at + n).saturating_sub(closed));
            open += u64::from(n).saturating_sub(gain);
            ag.forget_longest(g);
            ag.busy = ag.busy.saturating_sub(u64::from(n));
            ag.add_free(g, n as i32);
            if idle {
                ag.park(g);
            }
            Ok(())
        })?;
        Ok(open)
    }

    /// Whether all blocks of the range are used; `None` if the AG is bad.
    pub fn is_used(
        &mut self,
        node_store: &NodeStore,
        block: u64,
        len: u64,
    ) -> Result<Option<bool>> {
        let mut all = Some(true);
        self.parts(block, len, |ag, g, at, n| {
            if !ag.is_good(node_store, g)? {
                all = None;
                return Ok(());
            }
            let used = ag.group(node_store, g)?.used.count_range(at, n) == n;
            all = all.map(|before| before && used);
            Ok(())
        })?;
        Ok(all)
    }

    /// Frees blocks in the running or the committing transaction. They stay used until that
    /// transaction is durable (R7). Adds to `freed` how many become free then, also if an error ends
    /// it in the middle: not those of bad groups. EUCLEAN if a block is free already.
    pub fn free(
        &mut self,
        node_store: &NodeStore,
        block: u64,
        len: u64,
        by: FreedBy,
        freed: &mut u64,
    ) -> Result {
        self.parts(block, len, |ag, g, at, n| {
            if !ag.is_good(node_store, g)? {
                ag.leaked += u64::from(n);
                return Ok(());
            }
            let group = ag.group(node_store, g)?;
            if group.used.count_range(at, n) != n {
                return Err(corrupt("allocation", block, "freeing a block that is free"));
            }
            let mut fresh = 0;
            let d = match by {
                FreedBy::Commit => delta(&mut group.commit, &mut 0)?,
                FreedBy::Running => delta(&mut group.run, &mut fresh)?,
            };
            if d.clear.count_range(at, n) != 0 {
                return Err(corrupt("allocation", block, "freeing a block twice"));
            }
            d.clear.set(at, n);
            group.stale |= by == FreedBy::Commit;
            ag.touch(fresh);
            ag.free_closed(g, at, n);
            *freed += u64::from(n);
            Ok(())
        })
    }
}
