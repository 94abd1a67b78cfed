// SPDX-License-Identifier: GPL-2.0

//! The AGs in memory.
//!
//! # Model
//!
//! An AG enters the table when it is first used, and stays at least for as long as it has blocks in
//! flight or changes that are not durable. Of the others, which are *idle*, [`MAX_IDLE`](super::idle) stay. An AG
//! that enters is not read yet; the first task that locks it reads its record. An AG with a record
//! that cannot be read stays in the table, so that it is reported once.
//!
//! An AG leaves the table only while no task has a reference to it, and references are made under the
//! table's lock. So there are never two of one AG.
//!
//! # Locks
//!
//! Those of [`super`]: the table's lock is never held across a read, and a task that has an AG's lock
//! does not wait for it.
//!
//! Tests: `tools/engine/tests/sizes.rs`, `tools/engine/tests/full_disk.rs`,
//! `tools/engine/tests/impossible.rs`.

use super::ag::{Ag, State};
use super::Space;
use crate::engine::btree::{NodeStore, Unread, ValueBuf};
use crate::engine::format::{corrupt, GROUP_BLOCKS};
use crate::engine::invariant::{broken, Invariant};
use crate::engine::lock_class;
use crate::os::atomic::Ordering;
use crate::os::{Mutex, Shared};
use kernel::prelude::*;

/// Blocks kept for files in one AG while it is in memory have fewer ids than this.
const KEPT_IDS: u64 = 1 << 32;
/// How many leaves of the AG tree [`Space::look_ahead`] looks into.
const LEAVES: usize = 8;

impl Space {
    /// AG `i` in memory; it enters if it is not there.
    fn enter(&self, i: u64) -> Result<Shared<Mutex<Ag>>> {
        if i >= self.ag_count() {
            return Err(broken(Invariant::Contents, format_args!("no AG {i}")));
        }
        let mut table = self.table.lock();
        if let Some(ag) = table.ags.get(&i) {
            return Ok(ag.clone());
        }
        table.make_room();
        let frozen = self.frozen.load(Ordering::Acquire);
        let first_id = self.kept_ids.fetch_add(KEPT_IDS, Ordering::Relaxed);
        let ag = Ag::new(i, self.ag_len(i), frozen, first_id);
        let ag = Shared::new(Mutex::new(&lock_class::AG, ag)?)?;
        table.ags.insert(i, ag.clone())?;
        Ok(ag)
    }

    /// Calls `f` with AG `i`, locked, read and frozen.
    pub(super) fn with_ag<R>(
        &self,
        node_store: &NodeStore,
        i: u64,
        f: impl FnOnce(&mut Ag) -> Result<R>,
    ) -> Result<R> {
        let shared = self.enter(i)?;
        let mut ag = shared.lock();
        self.swap_deltas(&mut ag);
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
    fn count(&self, ag: &mut Ag) {
        let change = ag.take_change();
        if change != 0 {
            self.free.fetch_add(change, Ordering::Relaxed);
        }
        // The free blocks of an AG that turned out to be bad are no longer free.
        let lost = ag.take_lost();
        if lost != 0 {
            self.reserve_forced(lost);
        }
        let leaked = ag.take_leaked();
        if leaked != 0 {
            self.leaked.fetch_add(leaked, Ordering::Relaxed);
        }
    }

    /// Reads the record of AG `i`. If it is damaged or cannot be read, the AG becomes bad.
    fn load(&self, node_store: &NodeStore, i: u64, ag: &mut Ag) -> Result {
        let mut v = ValueBuf::new();
        let found = self.tree.read().get(node_store, i, &mut v);
        let (r, there) = match found {
            Ok(true) => (ag.fill(&v), true),
            Ok(false) => (
                Err(corrupt("allocation group", i, "it has no record")),
                false,
            ),
            Err(e) => (Err(e), false),
        };
        match r {
            Err(e) if e == ENOMEM => return Err(e),
            Ok(()) => return Ok(()),
            Err(_) => ag.condemn(),
        }
        match there {
            // The sums of the tree have what the record says, whatever else is wrong with it.
            true => self.lose(free_of(&v)),
            false => self.lose_under(node_store, i)?,
        }
        Ok(())
    }

    /// `n` free blocks cannot be used because of damage.
    fn lose(&self, n: u64) {
        self.free.fetch_sub(n as i64, Ordering::Relaxed);
        self.reserve_forced(n);
    }

    /// The node of the AG tree with the record of AG `i` cannot be read: what its parent says is free
    /// there is lost, once.
    fn lose_under(&self, node_store: &NodeStore, i: u64) -> Result {
        let mut failed = Ok(());
        let mut note = |u: Unread| {
            if u.first_key > i || u.last_key < i {
                return;
            }
            let mut known = self.unread.lock();
            let before = known.last_le(i).is_some_and(|(_, last)| *last >= i);
            if !before {
                match known.insert(u.first_key, u.last_key) {
                    Ok(_) => self.lose(u.sums.free),
                    Err(e) => failed = Err(e),
                }
            }
        };
        // The search looks into the first node that may have the AG; all behind that fits.
        let tree = self.tree.read();
        let r = tree.first_where(node_store, i, |_| true, &mut note, &mut ValueBuf::new());
        drop(tree);
        failed?;
        match r {
            Err(e) if e == ENOMEM => Err(e),
            _ => Ok(()),
        }
    }

    /// Looks into the next [`LEAVES`] leaves of the AG tree that no task has looked into since the
    /// mount, if there are any. Free space under a node that cannot be read must be known to be lost
    /// before all other space is used: then a commit would find no block for its nodes.
    pub(super) fn look_ahead(&self, node_store: &NodeStore) -> Result {
        for _ in 0..LEAVES {
            let at = self.looked_at.load(Ordering::Relaxed);
            if at >= self.ag_count() {
                return Ok(());
            }
            let mut last = None;
            let r = self.tree.read().scan_le(node_store, at, |i, _| {
                last = Some(i);
                Ok(true)
            });
            let last = match r {
                Ok(()) => last.filter(|last| *last >= at),
                Err(e) if e == ENOMEM => return Err(e),
                Err(_) => {
                    self.lose_under(node_store, at)?;
                    let unread = self.unread.lock();
                    unread.last_le(at).map(|(_, last)| *last)
                }
            };
            let next = last.map_or(u64::MAX, |last| last.max(at).saturating_add(1));
            self.looked_at.fetch_max(next, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Notes what a search could not read: see [`Space::lose_under`].
    pub(super) fn note_unread(&self, u: &Unread) {
        let mut known = self.unread.lock();
        let before = known.last_le(u.first_key);
        if before.is_none_or(|(_, last)| *last < u.first_key)
            && known.insert(u.first_key, u.last_key).is_ok()
        {
            self.lose(u.sums.free);
        }
    }
}

/// The free blocks that a record has, by which the sums of the tree count.
fn free_of(record: &[u8]) -> u64 {
    crate::engine::format::ag::Sums::of_record(record)
        .free
        .min(GROUP_BLOCKS * 32)
}
