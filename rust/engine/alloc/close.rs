// SPDX-License-Identifier: GPL-2.0

//! The end of the filesystem is *closed*: nothing is allocated there, and it will be cut off.
//!
//! # Model
//!
//! [`Space::close`] sets a limit. From then on no search looks behind it: AGs behind it are passed over,
//! and in the AG that it lies in the blocks behind it count as used for searches ([`super::ag`],
//! `close.rs`). The limit is in memory only, so a power cut or an unmount leaves nothing behind.
//!
//! `closed` counts the blocks behind the limit that are free: not in use by the durable generation, nor
//! by the running or the committing transaction, nor busy (R7). They are not part of `unreserved`. So
//! at any time: free blocks = `unreserved` + pool + reservations that are not used yet + `closed`. As
//! nothing is allocated there, the number only grows, unless an AG turns out to be damaged, which ends
//! the shrink. When it is the number of blocks behind the limit, less the areas of superblocks there,
//! nothing is in use there any more: neither data nor nodes, neither blocks in flight nor entries of the
//! deferred tree. [`Space::is_evacuated`] compares two numbers.
//!
//! Before the limit is set, room is reserved for all that is in use behind it. So a write that has
//! reserved blocks finds them, also if the shrink is refused.
//!
//! What transactions have freed there, and what the deferred tree has there, does not become available, and
//! is counted apart. A bad AG has no blocks that become free, so nothing is cut off that has one.
//!
//! [`Space::shrink`] is the part of a commit that cuts off the AGs at the end, and gives the new last
//! blocks to the area of backups. It looks at all that it depends on before it changes anything. An AG
//! that was cut off may still be asked for by a task that only looks ([`Space::is_used`]): that is no
//! damage.
//!
//! # Locks
//!
//! Those of [`super`]. The commit mutex is held for [`Space::close`] and [`Space::shrink`]. An AG that
//! enters memory is closed by then if it is behind the limit.
//!
//! Tests: `tools/engine/tests/shrink.rs`, `tools/engine/tests/shrink_space.rs`.

use super::ag::{Ag, State};
use super::{pool_of, Priority, Space, OPEN};
use crate::engine::btree::{Behind, NodeStore, Tree};
use crate::engine::format::ag::{AgRecord, RootForm, NOT_TRUSTED};
use crate::engine::format::places::{areas, AREA_BLOCKS};
use crate::os::atomic::Ordering;
use crate::os::{cond_resched, Mutex, Shared};
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
    /// From which block on nothing is allocated; [`u64::MAX`] if there is no limit.
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

    /// Closes the blocks from `limit` on, which is not at the border of an AG. As many as are in use there
    /// must be available elsewhere, and `spare` of that number more: ENOSPC if they are not; EUCLEAN if
    /// something is damaged that has to be known; EIO, ENOMEM. After an error everything is as before.
    pub fn close(&self, node_store: &NodeStore, limit: u64, spare: impl Fn(u64) -> u64) -> Result {
        self.closing.store(true, Ordering::Release);
        let r = self.try_close(node_store, limit, spare);
        if r.is_err() {
            self.reopen();
        }
        self.closing.store(false, Ordering::Release);
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
        let total = self.total();
        let all = (total - limit).saturating_sub(area_blocks(limit, total));
        // First of all room before the limit is reserved: a write that has reserved blocks finds them
        // there. Only what fails meanwhile makes blocks free behind it, so there can hardly be more.
        let on_disk = self.tree.read().sums_from(node_store, border + 1)?.free;
        let in_part = self.with_ag(node_store, border, |ag| ag.free_from(node_store, at))?;
        let most = in_part.saturating_add(on_disk).min(all);
        let room = (all - most).saturating_add(spare(all - most));
        let taken = most.saturating_add(room);
        self.reserve(taken, Priority::Normal)?;
        let free = match self.close_ags(node_store, limit, on_disk) {
            Ok(free) => free.min(all),
            Err(e) => {
                // In this order: what is reserved is where the limit still is.
                self.reopen();
                self.unreserve(taken);
                return Err(e);
            }
        };
        self.unreserve(taken.saturating_sub(free));
        self.closed.fetch_add(free as i64, Ordering::AcqRel);
        Ok(())
    }

    /// Sets the limit and closes what is in memory behind it. `on_disk` is the sum of free blocks that the
    /// records of the AGs have which are wholly behind it. Returns how many blocks are free there.
    fn close_ags(&self, node_store: &NodeStore, limit: u64, on_disk: u64) -> Result<u64> {
        let (border, at) = (limit / self.ag_blocks, limit % self.ag_blocks);
        let in_part = self.with_ag(node_store, border, |ag| ag.close_part(node_store, at))?;
        self.limit.store(limit, Ordering::Release);
        let mut more = 0i64;
        self.each_in_memory(|i, ag| {
            if i > border {
                more += ag.close_all()?;
            }
            Ok(())
        })?;
        Ok(in_part.saturating_add(on_disk).saturating_add_signed(more))
    }

    /// Whether [`Space::close`] has reserved more for a moment than it needs. That is over when the commit
    /// mutex is free.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The number of free blocks behind the limit. It becomes less only if an AG turns out to be damaged.
    pub fn closed_blocks(&self) -> i64 {
        self.closed.load(Ordering::Acquire)
    }

    /// The number of blocks behind the limit that the deferred tree has.
    pub fn deferred_closed(&self) -> u64 {
        self.deferred_closed.load(Ordering::Relaxed)
    }

    /// So many blocks that are not closed are in the deferred tree and will be freed, and so many that are.
    pub fn set_deferred(&self, (open, closed): (u64, u64)) {
        self.deferred.store(open, Ordering::Relaxed);
        self.deferred_closed.store(closed, Ordering::Relaxed);
    }

    /// A commit is about to free `n` closed blocks of the deferred tree.
    pub fn take_deferred_closed(&self, n: u64) {
        let left = self.deferred_closed().saturating_sub(n);
        self.deferred_closed.store(left, Ordering::Relaxed);
    }

    /// Whether AG `i` existed in this mount, and does not any more.
    pub fn was_cut_off(&self, i: u64) -> bool {
        i >= self.ag_count() && self.ag_start(i) < self.most.load(Ordering::Acquire)
    }

    /// Whether one of the AGs from `first` on is damaged, as far as that is known.
    pub fn is_damaged_from(&self, first: u64) -> bool {
        let mut bad = self.given_up() || self.is_lost_from(first);
        let _ = self.each_in_memory(|i, ag| {
            bad |= i >= first && ag.state() == State::Bad;
            Ok(())
        });
        bad
    }

    /// Keeps AG `i` in memory until the result is dropped.
    pub fn pin(&self, i: u64) -> Result<Shared<Mutex<Ag>>> {
        self.enter(i)
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

    /// Reads the records of the AGs from `first` on, and checks that they can be removed: each says that
    /// all is free but areas of superblocks. EUCLEAN if one does not, is not to be trusted, has a tree of
    /// nodes or is missing, or if an AG turned out to be damaged; EIO, ENOMEM.
    pub fn check_removable(&self, node_store: &NodeStore, first: u64) -> Result {
        if self.is_damaged_from(first) {
            return Err(EUCLEAN);
        }
        let mut at = first;
        while at < self.ag_count() {
            let from = at;
            self.tree.read().scan_le(node_store, at, |i, v| {
                if i >= at {
                    let rec = AgRecord::decode(i, self.ag_len(i), v)?;
                    let bad =
                        rec.flags & NOT_TRUSTED != 0 || matches!(rec.groups, RootForm::Ptr(_));
                    if i > at || bad || u64::from(rec.free) != self.free_at_end(i) {
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

    /// How many blocks of AG `i` are in no area of superblocks.
    fn free_at_end(&self, i: u64) -> u64 {
        let (start, len) = (self.ag_start(i), self.ag_len(i));
        let end = start.saturating_add(len);
        let inside = |at: u64| (at + AREA_BLOCKS).min(end).saturating_sub(at.max(start));
        len.saturating_sub(areas(self.total()).map(inside).sum())
    }

    /// Whether a commit can cut off all that is behind block `to`, a multiple of the size of AGs. EBUSY if
    /// something is in use there or in the new last area, EUCLEAN if an AG is damaged; EIO, ENOMEM.
    pub fn may_shrink(&self, node_store: &NodeStore, to: u64) -> Result {
        self.with_new_area(node_store, to, |_, _| Ok(()))
    }

    /// Checks what [`Self::may_shrink`] says, and calls `f` with the AG of the new last area and the
    /// first block of that.
    fn with_new_area(
        &self,
        node_store: &NodeStore,
        to: u64,
        f: impl FnOnce(&mut Ag, u64) -> Result,
    ) -> Result {
        let first = to / self.ag_blocks;
        let area = to.saturating_sub(AREA_BLOCKS);
        if !self.is_evacuated() || self.limit() > area || to % self.ag_blocks != 0 || first == 0 {
            return Err(EBUSY);
        }
        if self.is_damaged_from(first) {
            return Err(EUCLEAN);
        }
        let at = area % self.ag_blocks;
        self.with_ag(node_store, first - 1, |ag| {
            ag.may_take(node_store, at, AREA_BLOCKS)?;
            f(ag, at)
        })
    }

    /// In a commit: the filesystem has `to` blocks from now on, if [`Self::may_shrink`] says that it can.
    /// The inner error says why it cannot; then nothing has changed.
    pub fn shrink(&self, node_store: &NodeStore, to: u64) -> Result<Result<Shrunk>> {
        let (from, count) = (self.total(), self.ag_count());
        let first = to / self.ag_blocks;
        // An area is in one group, which is in memory, so this takes all of it or nothing.
        let taken = self.with_new_area(node_store, to, |ag, at| {
            ag.take_area(node_store, at, AREA_BLOCKS)
        });
        if let Err(e) = taken {
            return Ok(Err(e));
        }
        self.closed.fetch_sub(AREA_BLOCKS as i64, Ordering::AcqRel);
        // Before the records go: a task that does not find one sees that the AG is no more.
        self.most.fetch_max(from, Ordering::AcqRel);
        self.total_before.store(from, Ordering::Release);
        self.total.store(to, Ordering::Release);
        for i in first..count {
            self.tree.write().remove(node_store, i)?;
            if i % RECORDS == 0 {
                cond_resched();
            }
        }
        // No operation uses them: nothing is allocated or free to be allocated there, and no trim runs.
        // One that only looks may have a reference.
        let mut table = self.table.lock();
        while let Some(i) = table.ags.first_ge(first).map(|(i, _)| i) {
            table.ags.remove(&i);
        }
        drop(table);
        self.forget_lost(first);
        Ok(Ok(Shrunk {
            from,
            to,
            gone: (from - to).saturating_sub(area_blocks(to, from)),
        }))
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

    /// Whether a node of the tree of groups of AG `i` has a copy behind the limit. The AG tree is locked
    /// meanwhile, for the few reads that this takes: so no commit can give the AG another tree, and the
    /// next one write to the blocks of this. EUCLEAN, EIO, ENOMEM.
    pub fn has_groups_behind(&self, node_store: &NodeStore, i: u64) -> Result<bool> {
        let tree = self.tree.read();
        let mut root = None;
        tree.scan_le(node_store, i, |at, v| {
            if at == i {
                match AgRecord::decode(i, self.ag_len(i), v)?.groups {
                    RootForm::Ptr(p) => root = Some(p),
                    _ => root = None,
                }
            }
            Ok(false)
        })?;
        let Some(root) = root else {
            return Ok(false);
        };
        let groups = Tree::from_ptr(Ag::tree_id(i), root);
        Ok(groups.first_behind(node_store, 0, self.limit(), None)? != Behind::Nothing)
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
