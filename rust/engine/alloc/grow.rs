// SPDX-License-Identifier: GPL-2.0

//! More blocks: a commit lengthens the last AG and adds AGs behind it.
//!
//! # Model
//!
//! [`Space::grow`] puts the new blocks into the space trees of a commit: the last AG becomes longer
//! ([`super::ag`]), and each new AG gets a record that says that it was never used. Until the commit
//! is durable, operations cannot have any of these blocks: the new AGs are behind [`Space::total`],
//! and the new part of the last one counts as used. An operation that had one could bring it into the
//! log, and with the old superblock that would be damage. [`Space::finish_growth`] then publishes the
//! new size.
//!
//! New AGs are not in memory, but for those with areas of superblocks.
//!
//! Locks: the commit mutex is held; those of [`super`], one at a time. A reference to the last AG is
//! kept from the one call to the other, because its record has another length meanwhile, and nothing
//! may read it with the old one.
//!
//! Tests: `tools/engine/tests/resize.rs`.

use super::ag::{Ag, FreedBy, State};
use super::{pool_of, Space};
use crate::engine::btree::NodeStore;
use crate::engine::format::ag::AgRecord;
use crate::engine::format::places::{areas_behind, last_area_before};
use crate::engine::lock_class;
use crate::os::atomic::Ordering;
use crate::os::{cond_resched, Mutex, Shared};
use kernel::prelude::*;

/// After how many new records other tasks may run.
const RECORDS: u64 = 256;

/// What [`Space::grow`] has done.
pub struct Grown {
    /// The number of blocks before.
    pub from: u64,
    /// And after the commit.
    pub to: u64,
    /// By how much this raises the number of free blocks on disk, the new areas not taken off.
    pub on_disk: u64,
    /// The blocks of new AGs, and those of them that are in areas.
    new: u64,
    areas: u64,
    /// The last AG, if it became longer.
    _last: Option<Shared<Mutex<Ag>>>,
}

impl Space {
    /// Whether the last AG can become longer. EUCLEAN if it is damaged, EIO, ENOMEM.
    pub fn may_grow(&self, node_store: &NodeStore) -> Result {
        let last = self.ag_count().saturating_sub(1);
        self.with_ag(node_store, last, |ag| ag.may_extend(node_store))
    }

    /// Puts the blocks that a filesystem of `to` blocks has more into the trees of the commit
    /// `generation`.
    pub fn grow(&self, node_store: &NodeStore, to: u64, generation: u64) -> Result<Grown> {
        let from = self.total();
        let count = self.ag_count();
        let last = count.saturating_sub(1);
        let start = self.ag_start(last);
        let len = to.saturating_sub(start).min(self.ag_blocks.get());
        let mut grown = Grown {
            from,
            to,
            on_disk: to.saturating_sub(from),
            new: 0,
            areas: 0,
            _last: None,
        };
        let mut areas = KVec::new();
        for (at, n) in areas_behind(from, to) {
            for piece in self.pieces(at, n) {
                areas.push(piece, GFP_KERNEL)?;
            }
        }
        if len > self.ag_len(last) {
            grown._last = Some(self.enter(last)?);
            let mut inside = KVec::new();
            for (at, n) in areas.iter().filter(|(at, _)| *at < start + len) {
                inside.push((at - start, *n), GFP_KERNEL)?;
            }
            let freed = self.with_ag(node_store, last, |ag| ag.extend(node_store, len, &inside))?;
            self.freed.fetch_add(freed as i64, Ordering::Relaxed);
        }
        if let Some((at, n)) = last_area_before(from, to) {
            self.free(node_store, at, n, FreedBy::Commit)?;
        }
        self.add_ags(node_store, count, to, generation, &mut grown)?;
        for (at, n) in areas.iter().filter(|(at, _)| *at >= start + len) {
            self.take_area(node_store, *at, *n, to, generation)?;
            grown.areas += n;
        }
        Ok(grown)
    }

    /// Adds records for the AGs from `first` on.
    fn add_ags(
        &self,
        node_store: &NodeStore,
        first: u64,
        to: u64,
        generation: u64,
        grown: &mut Grown,
    ) -> Result {
        let mut v = KVec::new();
        for i in first..to.div_ceil(self.ag_blocks.get()) {
            let len = (to - self.ag_start(i)).min(self.ag_blocks.get());
            AgRecord::unused(len, generation).encode(&mut v)?;
            self.tree.write().insert(node_store, i, &v)?;
            grown.new += len;
            if i % RECORDS == 0 {
                cond_resched();
            }
        }
        Ok(())
    }

    /// The commit takes blocks of a new AG.
    fn take_area(
        &self,
        node_store: &NodeStore,
        block: u64,
        n: u64,
        to: u64,
        generation: u64,
    ) -> Result {
        let i = block / self.ag_blocks;
        let len = (to - self.ag_start(i)).min(self.ag_blocks.get());
        let shared = self.enter_new(i, len)?;
        let mut ag = shared.lock();
        if ag.state() == State::Unread {
            let mut v = KVec::new();
            AgRecord::unused(len, generation).encode(&mut v)?;
            ag.fill(&v)?;
        }
        ag.take_area(node_store, block % self.ag_blocks, n)?;
        self.count(&mut ag);
        Ok(())
    }

    /// AG `i` of `len` blocks, which is new, in memory.
    fn enter_new(&self, i: u64, len: u64) -> Result<Shared<Mutex<Ag>>> {
        let mut table = self.table.lock();
        if let Some(ag) = table.ags.get(&i) {
            return Ok(ag.clone());
        }
        let ag = Ag::new(i, len, self.frozen.load(Ordering::Acquire), self.first_id());
        let ag = Shared::new(Mutex::new(&lock_class::AG, ag)?)?;
        table.ags.insert(i, ag.clone())?;
        Ok(ag)
    }

    /// The commit is durable: operations may have the new blocks. Those of the last AG become free
    /// with all that the commit has freed.
    pub fn finish_growth(&self, grown: &Grown) {
        let pool = pool_of(grown.to, self.copies);
        let more = pool - self.pool.swap(pool, Ordering::Relaxed);
        self.total_before.store(grown.from, Ordering::Release);
        self.total.store(grown.to, Ordering::Release);
        self.free.fetch_add(grown.new as i64, Ordering::Relaxed);
        let by = grown.new.saturating_sub(grown.areas) as i64 - more;
        self.unreserved.fetch_add(by, Ordering::Relaxed);
    }
}
