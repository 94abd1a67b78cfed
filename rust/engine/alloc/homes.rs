// SPDX-License-Identifier: GPL-2.0

//! Homes: the AG in which the files of a directory begin.
//!
//! # Model
//!
//! A new directory, wherever it is, gets an AG in turn, and a new file gets the home of its
//! directory. Both are in the inode's record, so they are the same after a remount. So files of one
//! directory lie together, and tasks that write in different directories use different AGs and
//! their locks.
//!
//! The turns go round in a *district* of [`DISTRICT`] AGs, so that many small directories do not
//! have as many AGs written to. AGs in it with less than half of their blocks free are passed over,
//! or with less than 7/8 of what an AG has on average, if that is less. When the turns begin anew
//! or find nothing more, and fewer than 1/[`WORTH`] of the AGs have room, another district is
//! chosen: searches for long free runs find those that may do.
//!
//! A task looks for a home from the AG on whose turn it is, and then passes the turn to the one
//! behind it, if no other task has done so meanwhile; else it looks again. So tasks that make
//! directories at once get different homes.
//!
//! All of that is a hint. What is free is taken from the records of the AGs, which are those of the
//! last commit. What cannot be read is noted as lost, and not read again. If nothing is found in a
//! few attempts, the best AG that was seen will do.
//!
//! Locks: the turn is an atomic; the AG tree's lock is taken for looks into a leaf.
//!
//! Tests: `tools/engine/tests/homes.rs`, `tools/engine/tests/allocation.rs`.

use super::ag::State;
use super::Space;
use crate::engine::btree::NodeStore;
use crate::engine::format::ag::{allocates, run_class, Sums};
use crate::engine::format::GROUP_BLOCKS;
use crate::os::atomic::Ordering;
use core::ops::Range;

/// The AGs of a district. The last one has up to twice as many, less one.
const DISTRICT: u64 = 64;
/// A district is left if fewer than one of so many AGs has room.
const WORTH: u64 = 4;
/// How many districts are looked at before one is taken that is worth less.
const LOOKS: usize = 4;
/// How often a task tries to take the turn. After that it may get the home of another one.
const TRIES: usize = 16;

fn len(ags: &Range<u64>) -> u64 {
    ags.end.saturating_sub(ags.start).max(1)
}

impl Space {
    /// The home of a new directory.
    pub fn next_home(&self, node_store: &NodeStore) -> u32 {
        let enough = self.enough();
        let mut best = None;
        for _ in 0..TRIES {
            if let Some(i) = self.take_turn(node_store, enough, &mut best) {
                return number(i);
            }
        }
        number(best.map_or(self.turn(), |(i, _)| i))
    }

    /// Takes the turn: the AG whose turn it is, or the next one with room. `None` if another task
    /// has taken it meanwhile. `best` is the AG with the most free blocks so far, and how many.
    fn take_turn(
        &self,
        node_store: &NodeStore,
        enough: u64,
        best: &mut Option<(u64, u64)>,
    ) -> Option<u64> {
        let turn = self.home_turn.load(Ordering::Relaxed);
        let mut look = self.home_look.load(Ordering::Relaxed);
        let mut ags = self.district_of(turn);
        let mut found = None;
        if ags.start < turn && turn < ags.end {
            found = self.next_with_room(node_store, turn..ags.end, enough, best);
        }
        if found.is_none() {
            ags = self.choose_district(node_store, ags, enough, &mut look);
            found = self.next_with_room(node_store, ags.clone(), enough, best);
        }
        let i = found.or(best.map(|(i, _)| i)).unwrap_or(ags.start);
        let ags = self.district_of(i);
        let next = if i + 1 < ags.end { i + 1 } else { ags.start };
        self.home_turn
            .compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed)
            .ok()?;
        self.home_look.store(look, Ordering::Relaxed);
        Some(i)
    }

    /// The first of the AGs that has `enough` free blocks.
    fn next_with_room(
        &self,
        node_store: &NodeStore,
        ags: Range<u64>,
        enough: u64,
        best: &mut Option<(u64, u64)>,
    ) -> Option<u64> {
        let mut found = None;
        self.see(node_store, ags, |i, free| {
            if best.is_none_or(|(_, most)| free > most) {
                *best = Some((i, free));
            }
            found = (free >= enough).then_some(i);
            found.is_none()
        });
        found
    }

    /// How many free blocks a home has.
    fn enough(&self) -> u64 {
        let free = self.free.load(Ordering::Relaxed).max(0) as u64;
        let average = free / self.ag_count().max(1);
        let half = self.ag_blocks.get() / 2;
        (average - average / 8).min(half).max(1)
    }

    /// The district of AG `i`.
    fn district_of(&self, i: u64) -> Range<u64> {
        let ags = self.open_ags().max(1);
        let last = (ags / DISTRICT).saturating_sub(1);
        let n = (i / DISTRICT).min(last);
        let end = if n == last { ags } else { (n + 1) * DISTRICT };
        n * DISTRICT..end
    }

    /// The AG whose turn it is.
    fn turn(&self) -> u64 {
        let last = self.open_ags().saturating_sub(1);
        self.home_turn.load(Ordering::Relaxed).min(last)
    }

    /// At mount: it is AG `i`'s turn.
    pub(super) fn start_homes(&self, i: u64) {
        let behind = self.district_of(i).end;
        self.home_turn.store(i, Ordering::Relaxed);
        self.home_look.store(behind, Ordering::Relaxed);
    }

    /// The district for the next turns: `now`, or another one if that is worth more. The search
    /// for others begins at AG `look`, and sets that to where the next one goes on.
    fn choose_district(
        &self,
        node_store: &NodeStore,
        now: Range<u64>,
        enough: u64,
        look: &mut u64,
    ) -> Range<u64> {
        let mut with_room = self.with_room(node_store, &now, enough);
        if with_room * WORTH >= len(&now) || len(&now) >= self.open_ags() {
            return now;
        }
        let mut best = now;
        for _ in 0..LOOKS {
            let Some(ags) = self.next_district(node_store, enough, *look) else {
                break;
            };
            *look = ags.end;
            let n = self.with_room(node_store, &ags, enough);
            let good = n * WORTH >= len(&ags);
            if n > with_room {
                (best, with_room) = (ags, n);
            }
            if good {
                break;
            }
        }
        best
    }

    /// The next district, from AG `look` on, with an AG that may have a long free run.
    fn next_district(&self, node_store: &NodeStore, enough: u64, look: u64) -> Option<Range<u64>> {
        let class = run_class((enough / 16).clamp(1, GROUP_BLOCKS));
        [look, 0].into_iter().find_map(|from| {
            let i = self.next_with(node_store, from, class).ok().flatten()?;
            (i < self.open_ags()).then(|| self.district_of(i))
        })
    }

    /// How many of the AGs have `enough` free blocks.
    fn with_room(&self, node_store: &NodeStore, ags: &Range<u64>, enough: u64) -> u64 {
        let mut n = 0;
        self.see(node_store, ags.clone(), |_, free| {
            n += u64::from(free >= enough);
            true
        });
        n
    }

    /// Calls `f(i, free)` for each of the AGs whose record can be read and lets blocks be
    /// allocated, and that is not known to be damaged, until it returns false.
    fn see(&self, node_store: &NodeStore, ags: Range<u64>, mut f: impl FnMut(u64, u64) -> bool) {
        let (mut at, mut go_on) = (ags.start, true);
        while go_on && at < ags.end {
            let from = at;
            let read = self.see_leaf(node_store, from, |i, record| {
                if i >= ags.end {
                    return false;
                }
                at = i + 1;
                if allocates(record) && !self.is_bad(i) {
                    go_on = f(i, Sums::of_record(record).free);
                }
                go_on
            });
            match read {
                true => at = at.max(from + 1),
                false => {
                    at = self
                        .lost_to(from)
                        .map_or(ags.end, |last| last.saturating_add(1))
                }
            }
        }
    }

    /// Whether AG `i` is in memory and known to be damaged. Waits for nothing.
    pub(super) fn is_bad(&self, i: u64) -> bool {
        let mut bad = false;
        self.if_at_hand(i, |ag| bad = ag.state() == State::Bad);
        bad
    }

    /// The home of a file without a directory.
    pub fn no_home(&self) -> u32 {
        number(self.turn())
    }

    /// A block of the AG whose turn it is to be a home. Takes no lock.
    pub fn data_goal(&self) -> u64 {
        self.ag_start(self.turn())
    }
}

fn number(ag: u64) -> u32 {
    u32::try_from(ag).unwrap_or(0)
}
