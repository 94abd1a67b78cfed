// SPDX-License-Identifier: GPL-2.0

//! Allocation: the choice of an AG. [`Ag::alloc`] finds the blocks in it.
//!
//! First comes the AG of the goal, or without one the home of the file. If that has only short runs
//! ([`PIECE`](super::ag::PIECE)), the AG tree says which one may have a longer one: behind the AG
//! of the goal, or else from the AG on where the last search ended that found no room in the home,
//! so that no search comes past all AGs that others have filled before it. An AG that was written
//! before comes first, if a quarter of it is free. After a few attempts a short run in the first AG
//! will do, and then any free block. If there is none but those that are being discarded, the
//! search waits for these ([`super::trim`]).
//!
//! Locks: those of [`super`], one at a time.
//!
//! Tests: `tools/engine/tests/allocation.rs`, `tools/engine/tests/full_disk.rs`,
//! `tools/engine/tests/sizes.rs`,
//! `tools/engine/tests/appends.rs`, `tools/engine/tests/homes.rs`.

use super::ag::{Ag, Kept, Owner, Wish};
use super::{Run, Space};
use crate::engine::btree::{NodeStore, Unread, ValueBuf};
use crate::engine::format::ag::{is_in_use, run_class, Sums};
use crate::engine::format::places::AREA_BLOCKS;
use crate::engine::format::GROUP_BLOCKS;
use crate::os::atomic::Ordering;
use kernel::prelude::*;

/// Where to look for blocks.
#[derive(Clone, Copy)]
pub struct Near {
    /// The block to start at.
    pub goal: Option<u64>,
    /// The AG to start in if there is none; if there is no such AG, any.
    pub home: u64,
}

/// How many AGs are tried that may have a long run, before a shorter one is taken.
const TRIES: u64 = 4;
/// How many such searches may fail between two commits.
const SEARCHES: u32 = 4;

/// A search through AGs.
struct Tries {
    /// Where it goes on.
    at: u64,
    /// How many AGs it may still try.
    left: u64,
}

impl Tries {
    fn all_from(at: u64) -> Self {
        let left = u64::MAX;
        Self { at, left }
    }
}

impl Space {
    /// Allocates up to `want` blocks in one run, near `goal`. The caller has reserved them: ENOSPC
    /// means that it reserved too few, which is a bug unless it reserved by force. EUCLEAN, EIO,
    /// ENOMEM.
    pub fn alloc(
        &self,
        node_store: &NodeStore,
        want: u64,
        goal: Option<u64>,
        owner: Owner,
    ) -> Result<Run> {
        let home = self.rotor.load(Ordering::Relaxed);
        self.append(node_store, want, Near { goal, home }, owner, &mut None, 0)
    }

    /// [`Space::alloc`] for a file that is appended to: uses the blocks kept for it, and keeps up
    /// to `keep` blocks behind the run for the next append. `kept` belongs to the file and is
    /// updated.
    pub fn append(
        &self,
        node_store: &NodeStore,
        want: u64,
        near: Near,
        owner: Owner,
        kept: &mut Option<Kept>,
        keep: u32,
    ) -> Result<Run> {
        let mine = kept.take();
        let goal = near.goal.filter(|g| *g <= self.end());
        let (first, then) = match goal.and_then(|g| g.checked_sub(1)) {
            Some(before) => (before / self.ag_blocks, before / self.ag_blocks + 1),
            None => {
                let (ags, rotor) = (self.open_ags(), self.rotor.load(Ordering::Relaxed));
                // Homes that do not exist, because they were cut off, are spread as those that do.
                (near.home % ags.max(1), rotor)
            }
        };
        let begins = goal.is_none();
        // A goal at a border is in another AG than the block before it, and no extent goes on
        // there.
        let goal = goal.filter(|g| *g / self.ag_blocks == first);
        let here = mine.filter(|m| m.start / self.ag_blocks == first);
        if let (Some(m), None) = (mine, here) {
            self.release_kept(m);
        }
        let wish = Wish {
            want: want.clamp(1, GROUP_BLOCKS) as u32,
            goal: goal.map(|g| g % self.ag_blocks),
            owner,
            kept: here,
            keep,
            last: false,
            up_to: 0,
        };
        let found = self.beside_trim(node_store, || {
            self.find(node_store, (first, then), wish, kept)
        });
        let Some(run) = found.inspect_err(|_| *kept = here)? else {
            return Err(ENOSPC);
        };
        let ag = run.start / self.ag_blocks;
        if begins && ag != first {
            self.rotor.store(ag, Ordering::Relaxed);
        }
        Ok(run)
    }

    /// The steps of a search that starts in AG `first` and goes on from AG `then` on.
    fn find(
        &self,
        node_store: &NodeStore,
        (first, then): (u64, u64),
        wish: Wish,
        kept: &mut Option<Kept>,
    ) -> Result<Option<Run>> {
        let one_will_do = wish.least() == 1;
        let last = Wish { last: true, ..wish };
        let near = if one_will_do { last } else { wish };
        let near = self.take_in(node_store, first, near, kept)?;
        if near.is_some() {
            return Ok(near);
        }
        let elsewhere = Wish {
            goal: None,
            kept: None,
            ..wish
        };
        if !one_will_do {
            let long = self.take_long(node_store, (first, then), elsewhere, kept);
            if long.is_some() {
                return Ok(long);
            }
            let near = self.take_in(node_store, first, last, kept)?;
            if near.is_some() {
                return Ok(near);
            }
        }
        let any = Wish {
            last: true,
            ..elsewhere
        };
        let mut all = Tries::all_from(then);
        self.take_elsewhere(node_store, &mut all, &[first], any, kept, 1)
    }

    /// A long run in an AG from AG `then` on, but AG `first`, if one is found after a few attempts:
    /// in one that was written before, if there is one nearby. After [`SEARCHES`] of them that have
    /// failed, or one that has found no AG to try, there is no such search again before a commit
    /// has freed blocks: otherwise each write would read bitmaps of several AGs. Each goes on where
    /// the last one that failed has ended. The search may fail without any harm, because shorter
    /// runs will do.
    fn take_long(
        &self,
        node_store: &NodeStore,
        (first, then): (u64, u64),
        wish: Wish,
        kept: &mut Option<Kept>,
    ) -> Option<Run> {
        let class = run_class(wish.least().into());
        if self.in_vain.load(Ordering::Relaxed) <= class.into() {
            return None;
        }
        let used = self.next_used(node_store, (first, then), &wish);
        if let Some(used) = used {
            if let Ok(Some(run)) = self.take_in(node_store, used, wish, kept) {
                return Some(run);
            }
        }
        let at = match self.failed.load(Ordering::Relaxed) {
            0 => then,
            _ => self.rotor.load(Ordering::Relaxed),
        };
        let mut tries = Tries { at, left: TRIES };
        let not = [first, used.unwrap_or(first)];
        let found = self.take_elsewhere(node_store, &mut tries, &not, wish, kept, class);
        if let Ok(None) = found {
            self.rotor.store(tries.at, Ordering::Relaxed);
            let failed = self.failed.fetch_add(1, Ordering::Relaxed) + 1;
            if tries.left > 0 || failed >= SEARCHES {
                self.in_vain.store(class.into(), Ordering::Relaxed);
            }
        }
        found.ok().flatten()
    }

    /// An AG from AG `then` on, but AG `first`, that was written before, has a quarter of its
    /// blocks free, and may have a free run of all that is wished for. Looks into one leaf of the
    /// AG tree.
    fn next_used(
        &self,
        node_store: &NodeStore,
        (first, then): (u64, u64),
        wish: &Wish,
    ) -> Option<u64> {
        let all = u64::from(wish.want.saturating_add(wish.keep));
        let class = run_class(all.min(GROUP_BLOCKS));
        let mut found = None;
        self.see_leaf(node_store, then, |i, record| {
            let (sums, len) = (Sums::of_record(record), self.ag_len(i));
            let room = sums.longest >= class && sums.free >= len / 4;
            // A backup of the superblock is all that some AGs have.
            let written = is_in_use(record) && sums.free != len.saturating_sub(AREA_BLOCKS);
            if i != first && room && written && !self.is_bad(i) {
                found = Some(i);
            }
            found.is_none()
        });
        found.filter(|i| *i < self.open_ags())
    }

    /// Allocates blocks for nodes of the commit: the first free ones behind `goal`, or in another AG
    /// behind the place where it has allocated last, up to `up_to` in one run, so that nodes fill holes one
    /// after the other. Nothing if no AG but `apart` has
    /// free blocks. EUCLEAN, EIO, ENOMEM.
    pub fn alloc_nodes(
        &self,
        node_store: &NodeStore,
        up_to: u64,
        goal: u64,
        apart: Option<u64>,
    ) -> Result<Option<Run>> {
        let goal = if goal < self.end() { goal } else { 0 };
        let first = goal / self.ag_blocks;
        let wish = Wish {
            want: 1,
            goal: Some(goal % self.ag_blocks),
            owner: Owner::Committing,
            kept: None,
            keep: 0,
            last: true,
            up_to: up_to.min(GROUP_BLOCKS) as u32,
        };
        let search = || {
            if apart != Some(first) {
                let near = self.take_in(node_store, first, wish, &mut None)?;
                if near.is_some() {
                    return Ok(near);
                }
            }
            let elsewhere = Wish { goal: None, ..wish };
            let not = [first, apart.unwrap_or(first)];
            let mut all = Tries::all_from(first + 1);
            self.take_elsewhere(node_store, &mut all, &not, elsewhere, &mut None, 1)
        };
        match apart {
            // No commit waits for a discard so that copies are apart.
            Some(_) => search(),
            None => self.beside_trim(node_store, search),
        }
    }

    /// Allocates in AG `i`; nothing if it has no free block.
    fn take_in(
        &self,
        node_store: &NodeStore,
        i: u64,
        wish: Wish,
        kept: &mut Option<Kept>,
    ) -> Result<Option<Run>> {
        // A search that began before the limit was set.
        if i >= self.open_ags() {
            return Ok(None);
        }
        let start = self.ag_start(i);
        let (got, touched) = self.with_ag(node_store, i, |ag: &mut Ag| {
            Ok((ag.alloc(node_store, wish)?, ag.take_touched()))
        })?;
        Ok(got.map(|(at, len, behind)| {
            *kept = behind.map(|k| Kept {
                start: k.start + start,
                ..k
            });
            Run {
                start: start + at,
                len: u64::from(len),
                touched,
            }
        }))
    }

    /// Allocates in one of the first AGs from AG `tries.at` on, wrapping around, that may have a
    /// free run of class `class`, but for the AGs `not`.
    fn take_elsewhere(
        &self,
        node_store: &NodeStore,
        tries: &mut Tries,
        not: &[u64],
        wish: Wish,
        kept: &mut Option<Kept>,
        class: u8,
    ) -> Result<Option<Run>> {
        self.look_ahead(node_store)?;
        let end = self.open_ags();
        let then = tries.at.min(end);
        for (from, to) in [(then, end), (0, then)] {
            tries.at = from;
            while tries.left > 0 {
                let Some(i) = self
                    .next_with(node_store, tries.at, class)?
                    .filter(|i| *i < to)
                else {
                    break;
                };
                tries.at = i + 1;
                if not.contains(&i) {
                    continue;
                }
                if let Some(run) = self.take_in(node_store, i, wish, kept)? {
                    return Ok(Some(run));
                }
                tries.left -= 1;
            }
            if tries.left == 0 {
                break;
            }
        }
        Ok(None)
    }

    /// The first AG from `from` on that has a free run of class `class`, as far as the AG tree
    /// says. Parts of the tree that cannot be read are passed over, and are not read again.
    pub(super) fn next_with(
        &self,
        node_store: &NodeStore,
        from: u64,
        class: u8,
    ) -> Result<Option<u64>> {
        // Without memory, a later search notes it. What is closed is not free for anyone.
        let end = self.open_ags();
        self.next_readable(node_store, from, class, &mut |u| {
            if u.first_key < end {
                let _ = self.note_unread(&u);
            }
        })
    }

    /// [`Space::next_with`], which passes the parts that cannot be read to `unread`.
    pub(super) fn next_readable(
        &self,
        node_store: &NodeStore,
        from: u64,
        class: u8,
        unread: &mut dyn FnMut(Unread),
    ) -> Result<Option<u64>> {
        self.tree.read().first_where(
            node_store,
            from,
            |sums| sums.longest >= class,
            &|first, last| self.all_lost(first, last),
            unread,
            &mut ValueBuf::new(),
        )
    }

    /// Gives up the blocks kept for a file. Blocks kept in an AG that left memory are given up
    /// already. Waits for no lock, because reclaim evicts inodes: the blocks of an AG that is in
    /// use stay kept, until those of other files take their place or nothing else is left.
    pub fn release_kept(&self, kept: Kept) {
        self.if_at_hand(kept.start / self.ag_blocks, |ag| ag.release_kept(kept));
    }

    /// The end of the blocks that may be allocated.
    fn end(&self) -> u64 {
        self.total().min(self.limit())
    }
}
