// SPDX-License-Identifier: GPL-2.0

//! The end of the filesystem is *closed*: nothing is allocated there, and it will be cut off.
//!
//! # Model
//!
//! [`Space::close`] sets a limit. From then on no search looks behind it: AGs behind it are passed over, and in the
//! AG that it lies in the blocks behind it count as used for searches ([`super::ag`], `close.rs`). The
//! limit is in memory only, so a power cut or an unmount leaves nothing behind.
//!
//! `closed` counts the blocks behind the limit that are free: not in use by the durable generation, nor
//! by the running or the committing transaction, nor busy (R7). They are not part of `unreserved`. So
//! at any time: free blocks = `unreserved` + pool + reservations that are not used yet + `closed`. As
//! nothing is allocated there, the number only grows. When it is the number of blocks behind the limit, less the
//! areas of superblocks there, nothing is in use there any more: neither data nor nodes, neither
//! blocks in flight nor entries of the deferred tree. [`Space::is_evacuated`] compares two numbers.
//!
//! [`Space::shrink`] is the part of a commit that cuts off the AGs at the end, and gives the new last
//! blocks to the area of backups.
//!
//! # Locks
//!
//! Those of [`super`]. The commit mutex is held for [`Space::close`] and [`Space::shrink`]. An AG that
//! enters memory is closed by then if it is behind the limit.
//!
//! Tests: `tools/engine/tests/shrink.rs`.

use super::{pool_of, Priority, Space, OPEN};
use crate::engine::btree::{Behind, NodeStore};
use crate::engine::format::ag::{AgRecord, RootForm};
use crate::engine::format::places::{areas, AREA_BLOCKS};
use crate::engine::invariant::{check, Invariant};
use crate::os::atomic::Ordering;
use crate::os::cond_resched;
use kernel::prelude::*;

/// After how many records other tasks may run.
const RECORDS: u64 = 256;

/// What [`Space::shrink`] has done.
pub struct Shrunk {
    /// The number of blocks before.
    pub from: u64,
    /// And after the commit.
    pub to: u64,
    /// How many of the blocks that are cut off were free on disk.
    pub gone: u64,
}

/// The blocks of `[start, end)` that are in areas of superblocks of a filesystem of `end` blocks.
fn area_blocks(start: u64, end: u64) -> u64 {
    areas(end)
        .map(|at| (at + AREA_BLOCKS).saturating_sub(at.max(start)))
        .sum()
}

impl Space {
    /// Behind which block nothing is allocated; [`u64::MAX`] if there is no limit.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Acquire)
    }

    /// The number of AGs in which blocks may be allocated.
    pub(super) fn open_ags(&self) -> u64 {
        let all = self.ag_count();
        match self.limit() {
            OPEN => all,
            limit => limit.div_ceil(self.ag_blocks.get()).min(all),
        }
    }

    /// Where the part of AG `i` begins that is closed.
    pub(super) fn closed_part(&self, i: u64) -> Option<u64> {
        let limit = self.limit();
        let start = self.ag_start(i);
        (limit != OPEN && limit < start.saturating_add(self.ag_blocks.get()))
            .then(|| limit.saturating_sub(start))
    }

    /// Closes the blocks from `limit` on, which is not at the border of an AG. If so many are in use there, they
    /// must be available elsewhere, and `spare` of that number more. ENOSPC if they are not; EUCLEAN if something is damaged that has to be known;
    /// EIO, ENOMEM. After an error everything is as before.
    pub fn close(&self, node_store: &NodeStore, limit: u64, spare: impl Fn(u64) -> u64) -> Result {
        let r = self.try_close(node_store, limit, spare);
        if r.is_err() {
            self.reopen();
        }
        r
    }

    fn try_close(&self, node_store: &NodeStore, limit: u64, spare: impl Fn(u64) -> u64) -> Result {
        if self.given_up() || self.lost.lock().first_ge(0).is_some() {
            return Err(EUCLEAN);
        }
        let border = limit / self.ag_blocks;
        // It does not leave memory meanwhile.
        let _pin = self.enter(border)?;
        let at = limit % self.ag_blocks;
        let in_border = self.with_ag(node_store, border, |ag| ag.close_part(node_store, at))?;
        self.limit.store(limit, Ordering::Release);
        let on_disk = self.tree.read().sums_from(node_store, border + 1)?.free;
        let mut more = 0i64;
        self.each_in_memory(|i, ag| {
            if i > border {
                more += ag.close_all()?;
            }
            Ok(())
        })?;
        let free = (in_border + on_disk).saturating_add_signed(more);
        let total = self.total();
        let used = (total - limit).saturating_sub(area_blocks(limit, total) + free);
        let room = used.saturating_add(spare(used));
        self.reserve(free.saturating_add(room), Priority::Normal)?;
        self.unreserve(room);
        self.closed.fetch_add(free as i64, Ordering::AcqRel);
        Ok(())
    }

    /// Nothing is closed any more.
    pub fn reopen(&self) {
        self.limit.store(OPEN, Ordering::Release);
        let _ = self.each_in_memory(|_, ag| {
            ag.open();
            Ok(())
        });
        // From here on none becomes free there that is not counted as all others are.
        let n = self.closed.swap(0, Ordering::AcqRel);
        self.unreserved.fetch_add(n, Ordering::Relaxed);
    }

    /// Whether nothing is in use behind the limit but areas of superblocks.
    pub fn is_evacuated(&self) -> bool {
        let (limit, total) = (self.limit(), self.total());
        let all = total.saturating_sub(limit);
        let want = all.saturating_sub(area_blocks(limit, total));
        limit < total && self.closed.load(Ordering::Acquire) == want as i64
    }

    /// Calls `f` while no trim withholds or discards blocks.
    pub fn without_trims<R>(&self, f: impl FnOnce() -> R) -> R {
        let _turn = self.trimmer.turn.lock();
        f()
    }

    /// Reads the records of the AGs from `first` on, and checks that they can be removed. EUCLEAN if
    /// one has a tree of nodes, or is missing; EIO, ENOMEM.
    pub fn check_removable(&self, node_store: &NodeStore, first: u64) -> Result {
        let mut at = first;
        while at < self.ag_count() {
            let from = at;
            self.tree.read().scan_le(node_store, at, |i, v| {
                if i >= at {
                    let rec = AgRecord::decode(i, self.ag_len(i), v)?;
                    if i > at || matches!(rec.groups, RootForm::Ptr(_)) {
                        return Err(EUCLEAN);
                    }
                    at = i + 1;
                }
                Ok(true)
            })?;
            if at == from {
                return Err(EUCLEAN);
            }
            cond_resched();
        }
        Ok(())
    }

    /// In a commit: the filesystem has `to` blocks from now on, a multiple of the size of AGs. Everything
    /// behind is evacuated, and the last area before that.
    pub fn shrink(&self, node_store: &NodeStore, to: u64) -> Result<Shrunk> {
        let (from, count) = (self.total(), self.ag_count());
        let first = to / self.ag_blocks;
        let area = to.saturating_sub(AREA_BLOCKS);
        check(
            Invariant::Contents,
            self.is_evacuated() && self.limit() <= area && to % self.ag_blocks == 0 && first > 0,
            format_args!("blocks behind {area} are in use"),
        )?;
        let at = area % self.ag_blocks;
        self.with_ag(node_store, first - 1, |ag| {
            ag.take_area(node_store, at, AREA_BLOCKS)
        })?;
        self.closed.fetch_sub(AREA_BLOCKS as i64, Ordering::AcqRel);
        for i in first..count {
            self.tree.write().remove(node_store, i)?;
            if i % RECORDS == 0 {
                cond_resched();
            }
        }
        // No task uses them: nothing is allocated or free to be allocated there, and no trim runs.
        self.total_before.store(from, Ordering::Release);
        self.total.store(to, Ordering::Release);
        let mut table = self.table.lock();
        while let Some(i) = table.ags.first_ge(first).map(|(i, _)| i) {
            table.ags.remove(&i);
        }
        drop(table);
        Ok(Shrunk {
            from,
            to,
            gone: (from - to).saturating_sub(area_blocks(to, from)),
        })
    }

    /// The commit is durable.
    pub fn finish_shrink(&self, shrunk: &Shrunk) {
        let gone = shrunk.gone as i64;
        let pool = pool_of(shrunk.to, self.copies);
        let less = self.pool.swap(pool, Ordering::Relaxed) - pool;
        self.closed.fetch_sub(gone, Ordering::AcqRel);
        self.free.fetch_sub(gone, Ordering::Relaxed);
        self.unreserved.fetch_add(less, Ordering::Relaxed);
    }

    /// Passes the records of AGs from `from` on that are in the same leaf to `f`. Returns whether a node of the
    /// AG tree on the path to `from` has a copy behind the limit.
    pub fn scan_records(
        &self,
        node_store: &NodeStore,
        from: u64,
        f: &mut dyn FnMut(u64, &[u8]) -> Result<bool>,
    ) -> Result<bool> {
        let tree = self.tree.read();
        tree.scan_le(node_store, from, |i, v| match i < from {
            true => Ok(true),
            false => f(i, v),
        })?;
        let limit = self.limit();
        Ok(tree.first_behind(node_store, from, limit, None)? == Behind::Node(from))
    }

    /// In a commit: AG `i` is written anew; see [`super::ag::Ag::touch_behind`].
    pub fn touch_ag(&self, node_store: &NodeStore, i: u64) -> Result {
        let limit = self.limit();
        self.with_ag(node_store, i, |ag| ag.touch_behind(node_store, limit))
    }
}
