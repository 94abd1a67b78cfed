// SPDX-License-Identifier: GPL-2.0

//! The AGs in memory.
//!
//! # Model
//!
//! An AG enters the table when it is first used, and stays at least for as long as it has blocks in
//! flight or changes that are not durable. Of the others, which are *idle*,
//! [`MAX_IDLE`](super::idle) stay. An AG that enters is not read yet; the first task that locks it
//! reads its record. An AG with a record that cannot be read stays in the table, so that it is
//! reported once.
//!
//! An AG leaves the table only while no task has a reference to it, and references are made under
//! the table's lock. So there are never two of one AG.
//!
//! # Locks
//!
//! Those of [`super`]: the table's lock is never held across a read, and a task that has an AG's
//! lock does not wait for it.
//!
//! Tests: `tools/engine/tests/sizes.rs`, `tools/engine/tests/full_disk.rs`,
//! `tools/engine/tests/impossible.rs`.

use super::ag::{Ag, State};
use super::{Lost, Space};
use crate::engine::btree::{NodeStore, Unread, ValueBuf};
use crate::engine::format::ag::Sums;
use crate::engine::format::corrupt;
use crate::engine::invariant::{broken, Invariant};
use crate::engine::lock_class;
use crate::os::atomic::Ordering;
use crate::os::{Map, Mutex, NoFs, Shared};
use core::ops::RangeInclusive;
use kernel::prelude::*;

/// Blocks kept for files in one AG while it is in memory have fewer ids than this.
const KEPT_IDS: u64 = 1 << 32;
/// How many leaves of the AG tree [`Space::look_ahead`] looks into.
const LEAVES: usize = 8;
/// How often the record of an AG is read, if a read fails and a later one does not.
const READS: usize = 3;

/// The first AG of the range of `lost` that has AG `i`.
fn lost_with(lost: &Map<u64, Lost>, i: u64) -> Option<u64> {
    let (first, range) = lost.last_le(i)?;
    (range.last >= i).then_some(first)
}

impl Space {
    /// AG `i` in memory; it enters if it is not there.
    pub(super) fn enter(&self, i: u64) -> Result<Shared<Mutex<Ag>>> {
        let mut table = self.table.lock();
        if i >= self.ag_count() && self.ag_len_before(i) > 0 {
            // A shrink has cut it off.
            return Err(EUCLEAN);
        }
        if i >= self.ag_count() {
            return Err(broken(Invariant::Contents, format_args!("no AG {i}")));
        }
        if let Some(ag) = table.ags.get(&i) {
            return Ok(ag.clone());
        }
        table.make_room();
        let frozen = self.frozen.load(Ordering::Acquire);
        let mut ag = Ag::new(i, self.ag_len(i), frozen, self.first_id());
        if let Some(from) = self.closed_part(i) {
            ag.close(from)?;
        }
        let ag = Shared::new(Mutex::new(&lock_class::AG, ag)?)?;
        table.ags.insert(i, ag.clone())?;
        Ok(ag)
    }

    /// The id of the first kept blocks of an AG that enters.
    pub(super) fn first_id(&self) -> u64 {
        self.kept_ids.fetch_add(KEPT_IDS, Ordering::Relaxed)
    }

    /// Calls `f` with AG `i`, locked, read and frozen.
    pub(super) fn with_ag<R>(
        &self,
        node_store: &NodeStore,
        i: u64,
        f: impl FnOnce(&mut Ag) -> Result<R>,
    ) -> Result<R> {
        // Reclaim evicts inodes, which give up their kept blocks.
        let _nofs = NoFs::enter();
        let shared = self.enter(i)?;
        let mut ag = shared.lock();
        self.swap_deltas(&mut ag);
        if ag.has_no_record() && !self.is_lost(i) {
            ag.read_again();
        }
        if ag.state() == State::Unread {
            self.load(node_store, i, &mut ag)?;
        }
        let r = f(&mut ag);
        self.count(&mut ag);
        r
    }

    /// Calls `f` with AG `i` if it is in memory.
    pub(super) fn if_in_memory<R>(&self, i: u64, f: impl FnOnce(&mut Ag) -> R) -> Option<R> {
        let shared = self.table.lock().ags.get(&i).cloned()?;
        let mut ag = shared.lock();
        self.swap_deltas(&mut ag);
        let r = f(&mut ag);
        self.count(&mut ag);
        Some(r)
    }

    /// The first AG in memory from `from` on.
    pub(super) fn next_in_memory(&self, from: u64) -> Option<u64> {
        self.table.lock().ags.first_ge(from).map(|(i, _)| i)
    }

    /// Calls `f` for each AG in memory, in order. AGs that enter meanwhile may be left out.
    pub(super) fn each_in_memory(&self, mut f: impl FnMut(u64, &mut Ag) -> Result) -> Result {
        let mut from = 0;
        while let Some(i) = self.next_in_memory(from) {
            self.if_in_memory(i, |ag| f(i, ag)).unwrap_or(Ok(()))?;
            from = i + 1;
        }
        Ok(())
    }

    /// The number of AGs in memory.
    pub fn ags_in_memory(&self) -> usize {
        self.table.lock().ags.len()
    }

    /// After a commit, which leaves many AGs idle: drops those that are too many.
    pub(super) fn trim(&self) {
        self.table.lock().trim_all();
    }

    /// The task is the first that locks the AG since a transaction was frozen: freezes its deltas.
    fn swap_deltas(&self, ag: &mut Ag) {
        let frozen = self.frozen.load(Ordering::Acquire);
        if ag.frozen != frozen {
            ag.freeze();
            ag.frozen = frozen;
        }
    }

    /// Updates the counters after a change of an AG.
    pub(super) fn count(&self, ag: &mut Ag) {
        let change = ag.take_change();
        if change != 0 {
            self.free.fetch_add(change, Ordering::Relaxed);
        }
        // The free blocks of an AG that turned out to be bad are no longer free, unless they are
        // lost already, with what the tree says of the AG.
        let lost = ag.take_lost();
        if lost != 0 {
            let condemned = ag.take_condemned();
            let again = self.found_in_lost(ag.number(), condemned);
            self.free.fetch_add(again as i64, Ordering::Relaxed);
            let mut less = lost.saturating_sub(again);
            if self.closed_part(ag.number()) == Some(0) {
                // What was free when it became bad is not in `unreserved`.
                let closed = condemned.saturating_sub(again).min(less);
                self.closed.fetch_sub(closed as i64, Ordering::AcqRel);
                less -= closed;
            }
            self.reserve_forced(less);
        }
        // What becomes free behind the limit is free for no task: it does not go to `unreserved`.
        let closed = ag.take_closed_gain();
        if closed != 0 {
            self.closed.fetch_add(closed as i64, Ordering::AcqRel);
        }
        let freed = ag.take_closed_freed();
        if freed != 0 {
            self.freed_closed.fetch_add(freed, Ordering::Relaxed);
        }
        let leaked = ag.take_leaked();
        if leaked != 0 {
            self.leaked.fetch_add(leaked, Ordering::Relaxed);
        }
    }

    /// Calls `f` with AG `i` if it is in memory and no task uses it or its table. Waits for
    /// nothing.
    pub(super) fn if_at_hand(&self, i: u64, f: impl FnOnce(&mut Ag)) {
        let found = self.table.try_lock().and_then(|t| t.ags.get(&i).cloned());
        let Some(shared) = found else { return };
        let ag = shared.try_lock();
        if let Some(mut ag) = ag {
            f(&mut ag);
        }
    }

    /// Reads the record of AG `i`. If it is damaged or cannot be read, the AG becomes bad.
    fn load(&self, node_store: &NodeStore, i: u64, ag: &mut Ag) -> Result {
        let mut v = ValueBuf::new();
        for _ in 0..READS {
            let found = self.tree.read().get(node_store, i, &mut v);
            match found {
                Ok(true) => {
                    self.give_back(i);
                    match ag.fill(&v) {
                        Err(e) if e == EUCLEAN => {
                            // The sums of the tree have what the record says, whatever is wrong
                            // with it.
                            self.lose(i..=i, Sums::of_record(&v).free)?;
                            ag.condemn();
                            return Ok(());
                        }
                        r => return r,
                    }
                }
                // A shrink has cut it off.
                Ok(false) if i >= self.ag_count() => return Err(EUCLEAN),
                Ok(false) => {
                    // So the sums of the tree have nothing of it.
                    let _ = corrupt("allocation group", i, "it has no record");
                    self.lose(i..=i, 0)?;
                    ag.condemn();
                    return Ok(());
                }
                Err(e) if e == ENOMEM => return Err(e),
                Err(_) => {}
            }
            if !self.is_lost(i) {
                self.lose_under(node_store, i)?;
            }
            if self.is_lost(i) {
                ag.condemn();
                return Ok(());
            }
            // That could be read now.
        }
        // It fails at one time and not at another. What is free there is not known: at most all.
        self.lose(i..=i, self.ag_len(i))?;
        ag.condemn();
        Ok(())
    }

    /// Whether the record of AG `i` could not be read.
    fn is_lost(&self, i: u64) -> bool {
        self.all_lost(i, i)
    }

    /// Whether the records of AGs `first` to `last` could not be read.
    pub(super) fn all_lost(&self, first: u64, last: u64) -> bool {
        let lost = self.lost.lock();
        lost.last_le(first).is_some_and(|(_, l)| l.last >= last)
    }

    /// The last AG of the range of AGs around AG `i` whose records could not be read.
    pub(super) fn lost_to(&self, i: u64) -> Option<u64> {
        let lost = self.lost.lock();
        lost.last_le(i).map(|(_, l)| l.last).filter(|l| *l >= i)
    }

    /// For searches that may fail: calls `f` for the AGs from `from` on whose records are in the
    /// same leaf of the AG tree, until it returns false. Returns whether the leaf could be read.
    /// One that could not is noted as lost, and is not read again.
    pub(super) fn see_leaf(
        &self,
        node_store: &NodeStore,
        from: u64,
        mut f: impl FnMut(u64, &[u8]) -> bool,
    ) -> bool {
        if self.given_up() || self.is_lost(from) {
            return false;
        }
        let read = self
            .tree
            .read()
            .scan_le(node_store, from, |i, record| Ok(i < from || f(i, record)));
        if read.is_err_and(|e| e != ENOMEM) {
            // Without memory, a later search notes it.
            let _ = self.lose_under(node_store, from);
        }
        read.is_ok()
    }

    /// The record of AG `i` can be read. If it is in a range that is lost, so can the node that the
    /// range is under, and all that is free there counts again. AGs in the range that were not read
    /// for that reason are read when they are used again ([`Space::with_ag`]).
    fn give_back(&self, i: u64) {
        let mut lost = self.lost.lock();
        let Some(at) = lost_with(&lost, i) else {
            return;
        };
        let free = lost.remove(&at).map_or(0, |l| l.free);
        self.free.fetch_add(free as i64, Ordering::Relaxed);
        self.unreserve(free);
    }

    /// Whether a part of the AG tree could not be read that has records of AGs from `first` on.
    pub fn is_lost_from(&self, first: u64) -> bool {
        let lost = self.lost.lock();
        lost.last_le(u64::MAX).is_some_and(|(_, l)| l.last >= first)
    }

    /// The AGs from `first` on have been cut off, and none is lost.
    pub(super) fn forget_lost(&self, first: u64) {
        while let Some(i) = self.lost.lock().first_ge(first).map(|(i, _)| i) {
            self.give_back(i);
        }
    }

    /// `free` blocks are lost with AG `i`. Returns how many of them are lost already, with a range
    /// that the AG is in. That range has so many less from now on.
    fn found_in_lost(&self, i: u64, free: u64) -> u64 {
        let mut lost = self.lost.lock();
        let Some(at) = lost_with(&lost, i) else {
            return 0;
        };
        let Some(range) = lost.get_mut(&at) else {
            return 0;
        };
        let both = free.min(range.free);
        range.free -= both;
        both
    }

    /// `free` blocks in the AGs `ags` cannot be used because of damage, with those that are lost
    /// there already. ENOMEM: nothing has changed.
    fn lose(&self, ags: RangeInclusive<u64>, free: u64) -> Result {
        let (mut first, mut last) = (*ags.start(), *ags.end());
        let mut lost = self.lost.lock();
        // Lost in these AGs, and in others: nodes have other borders than before.
        let (mut inside, mut beside) = (0u64, 0u64);
        if let Some((at, l)) = lost.last_le(first).filter(|(_, l)| l.last >= first) {
            if l.last >= last {
                return Ok(());
            }
            match at == first {
                true => inside = l.free,
                false => (first, beside) = (at, l.free),
            }
        }
        let mut from = *ags.start() + 1;
        while let Some((at, l)) = lost.first_ge(from).filter(|(at, _)| *at <= *ags.end()) {
            match l.last <= *ags.end() {
                true => inside = inside.saturating_add(l.free),
                false => (last, beside) = (l.last, beside.saturating_add(l.free)),
            }
            from = at + 1;
        }
        // In this order, because this may fail.
        let all = free.max(inside).saturating_add(beside);
        lost.insert(first, Lost { last, free: all })?;
        while let Some(at) = lost.first_ge(first + 1).map(|(at, _)| at) {
            if at > last {
                break;
            }
            lost.remove(&at);
        }
        let more = free.saturating_sub(inside);
        self.free.fetch_sub(more as i64, Ordering::Relaxed);
        self.reserve_forced(more);
        Ok(())
    }

    /// The node of the AG tree with the record of AG `i` cannot be read: what its parent says is
    /// free there is lost. Does nothing if the node can be read.
    fn lose_under(&self, node_store: &NodeStore, i: u64) -> Result {
        let mut failed = Ok(());
        let mut note = |u: Unread| {
            if u.first_key <= i && i <= u.last_key && failed.is_ok() {
                failed = self.note_unread(&u);
            }
        };
        // The search looks into the first node that may have the AG; all behind that fits.
        let tree = self.tree.read();
        let r = tree.first_where(
            node_store,
            i,
            |_| true,
            &|_, _| false,
            &mut note,
            &mut ValueBuf::new(),
        );
        drop(tree);
        failed?;
        match r {
            Err(e) if e == ENOMEM => Err(e),
            _ => Ok(()),
        }
    }

    /// What is free in a part of the AG tree that a search could not read is lost. ENOMEM: nothing
    /// has changed.
    pub(super) fn note_unread(&self, u: &Unread) -> Result {
        self.lose(u.first_key..=u.last_key, u.sums.free)
    }

    /// Looks into the next [`LEAVES`] leaves of the AG tree that no task has looked into since the
    /// mount, if there are any. Free space under a node that cannot be read must be known to be
    /// lost before all other space is used: then a commit would find no block for its nodes.
    pub(super) fn look_ahead(&self, node_store: &NodeStore) -> Result {
        for _ in 0..LEAVES {
            let at = self.looked_at.load(Ordering::Relaxed);
            if at >= self.open_ags() {
                return Ok(());
            }
            let mut last = at;
            let r = self.tree.read().scan_le(node_store, at, |i, _| {
                last = last.max(i);
                Ok(true)
            });
            match r {
                Ok(()) => {}
                Err(e) if e == ENOMEM => return Err(e),
                Err(_) => {
                    self.lose_under(node_store, at)?;
                    let lost = self.lost.lock();
                    match lost.last_le(at).filter(|(_, l)| l.last >= at) {
                        Some((_, l)) => last = l.last,
                        // That could be read now.
                        None => continue,
                    }
                }
            }
            let next = last.saturating_add(1);
            self.looked_at.fetch_max(next, Ordering::Relaxed);
        }
        Ok(())
    }
}
