// SPDX-License-Identifier: GPL-2.0

//! Extent maps: where file blocks are, in memory, ahead of the extent tree.
//!
//! # Model
//!
//! A map is in one of four states:
//!
//! - *Pinned* (in flight): the I/O of an ordered extent has not ended. Only
//!   [`crate::engine::inode::starting`] inserts maps in flight, against the [`OrderedExtent`] that
//!   proves that the ordered extent came first (R1).
//! - *Modified*: the I/O completed in transaction `generation`, which is not durable, and no fast
//!   fsync has collected the map.
//! - *Logged*: modified, and collected by a fast fsync. The map stays until the commit all the
//!   same.
//! - *Clean*: none of these. The map says what the extent tree says, and is only a cache entry.
//!
//! A fast fsync looks only at the ranges in `unsaved`, which cover every map that is in flight, or
//! modified and not logged. They may cover more, where memory to cut a range was missing, but never
//! less. Maps that are neighbours in the file and on disk, and in the same state, are joined. So an
//! fsync costs as much as it has to save, however much was written since the last commit.
//!
//! R2 (modified maps stay): release_folio and the shrinker both go through [`ExtentMaps::release`],
//! which drops clean maps only.
//!
//! # Locks
//!
//! Everything is under `Inode.maps`, but for [`Counts`], which are atomics. Ranges are half-open,
//! in blocks.
//!
//! Tests: `tools/models/tests/rules/r1.rs`, `tools/models/tests/rules/r2.rs`,
//! `tools/engine/tests/writes_in_flight.rs`, `tools/engine/tests/cost.rs`, `tests/vm/t/042-r2.sh`,
//! `tests/vm/t/091-reclaim.sh`.

use super::range::{Range, RangeMap, RangeValue};
use crate::engine::inode::ordered::{Collecting, OrderedExtent};
use crate::engine::mutant::{self, Mutant};
use crate::os::atomic::{AtomicI64, Ordering};
use kernel::prelude::*;

/// How many maps an inode may have so that a commit keeps its clean ones.
const KEEP: usize = 128;

/// The place and the state of a range of file blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentMap {
    /// First disk block.
    pub phys: u64,
    /// The number of the ordered extent in flight, or 0.
    pub in_flight: u64,
    /// The write goes into preallocated blocks.
    pub in_place: bool,
    /// The write has completed in a transaction that is not durable.
    pub modified: bool,
    /// In the log, or in the records of the next batch. Only with `modified`.
    pub logged: bool,
    /// The generation of the transaction in which the write completed. While it is in flight, that
    /// of the newest completed write under it, which has no map any more, or 0.
    pub generation: u64,
}

impl RangeValue for ExtentMap {
    fn advance(self, by: u64) -> Self {
        Self {
            phys: self.phys + by,
            ..self
        }
    }
}

impl ExtentMap {
    /// Whether the map may be dropped at any time.
    fn clean(&self) -> bool {
        self.in_flight == 0 && !self.modified
    }
}

/// Numbers of extent maps of all inodes of a filesystem, for the shrinker.
pub struct Counts {
    /// All extent maps.
    pub all: AtomicI64,
    /// Those that the shrinker could free; at times a few more.
    pub clean: AtomicI64,
}

impl Counts {
    /// None.
    pub fn new() -> Self {
        Self {
            all: AtomicI64::new(0),
            clean: AtomicI64::new(0),
        }
    }
}

/// The extent maps of an inode.
pub struct ExtentMaps {
    maps: RangeMap<ExtentMap>,
    /// The ranges in which a fast fsync has to look.
    ///
    /// # Invariants
    ///
    /// Covers all maps that are in flight, or modified and not logged.
    unsaved: RangeMap<()>,
    /// The number of clean maps. Commits set it, since they make maps clean. When maps go in other
    /// ways it may stay too high, until the shrinker corrects it.
    clean: usize,
    /// The shares of `maps` and `clean` in [`Counts`], as of the last [`ExtentMaps::recount`].
    counted: (usize, usize),
}

impl ExtentMaps {
    /// None.
    pub fn new() -> Self {
        Self {
            maps: RangeMap::new(),
            unsaved: RangeMap::new(),
            clean: 0,
            counted: (0, 0),
        }
    }

    /// Updates the filesystem's counts of extent maps.
    pub fn recount(&mut self, counts: &Counts) {
        let now = (self.maps.len(), self.clean.min(self.maps.len()));
        let (all, clean) = self.counted;
        counts
            .all
            .fetch_add(now.0 as i64 - all as i64, Ordering::Relaxed);
        counts
            .clean
            .fetch_add(now.1 as i64 - clean as i64, Ordering::Relaxed);
        self.counted = now;
    }

    /// The number of maps.
    pub fn len(&self) -> usize {
        self.maps.len()
    }

    /// The map that contains `block`.
    pub fn at(&self, block: u64) -> Option<Range<ExtentMap>> {
        self.maps.at(block)
    }

    /// The first map that ends after `block`.
    pub fn at_or_after(&self, block: u64) -> Option<Range<ExtentMap>> {
        self.maps.at_or_after(block)
    }

    /// The first map in `[from, to)` whose write goes into preallocated blocks.
    pub fn first_in_place(&self, from: u64, to: u64) -> Option<Range<ExtentMap>> {
        self.find(from, to, |em| em.in_place)
    }

    /// R1: makes the mapping of a write in flight visible. `proof` shows that the ordered extent is
    /// in the inode's set already, so the types enforce the order. ENOMEM; an error may have
    /// dropped modified maps, so the caller must keep fsyncs from relying on the log.
    pub(in crate::engine) fn insert_in_flight(&mut self, proof: &OrderedExtent) -> Result {
        self.unsaved.cover(proof.start(), proof.len())?;
        let under = self.newest(proof.start(), proof.end());
        self.maps.remove_range(proof.start(), proof.len(), |_| ())?;
        let value = ExtentMap {
            phys: proof.phys(),
            in_flight: proof.id(),
            in_place: proof.in_place(),
            modified: false,
            logged: false,
            generation: under,
        };
        self.maps.insert(Range {
            start: proof.start(),
            len: proof.len(),
            value,
        })
    }

    /// The newest generation of the maps that have a block of `[from, to)`.
    fn newest(&self, from: u64, to: u64) -> u64 {
        let (mut at, mut newest) = (from, 0);
        while let Some(r) = self.maps.at_or_after(at).filter(|r| r.start < to) {
            newest = newest.max(r.value.generation);
            at = r.end();
        }
        newest
    }

    /// The I/O of `o` completed in transaction `generation`: makes its maps modified. What is no
    /// longer in flight for `o`, because it was cut off, keeps its state.
    pub fn completed(&mut self, o: &OrderedExtent, generation: u64) {
        self.each_of(o, |em| {
            em.in_flight = 0;
            em.in_place = false;
            em.modified = true;
            em.logged = false;
            em.generation = generation;
        });
        self.join(o.start());
        self.join(o.end());
    }

    /// Joins the maps on both sides of `block` if they have the same state and are one run on disk.
    fn join(&mut self, block: u64) {
        self.maps.join(block, |l, r| l.in_flight == 0 && l == r);
    }

    /// Nothing in the range is left for a fast fsync to look at.
    fn saved(&mut self, start: u64, len: u64) {
        // Without memory the range stays covered, which costs the next fsync a look.
        let _ = self.unsaved.remove_range(start, len, |_| ());
    }

    /// The first map in `[from, to)` whose I/O is in flight.
    pub fn first_in_flight(&self, from: u64, to: u64) -> Option<Range<ExtentMap>> {
        self.find(from, to, |em| em.in_flight != 0)
    }

    /// The first map in `[from, to)` that `want` accepts.
    fn find(
        &self,
        from: u64,
        to: u64,
        want: impl Fn(&ExtentMap) -> bool,
    ) -> Option<Range<ExtentMap>> {
        let mut at = from;
        while let Some(r) = self.maps.at_or_after(at).filter(|r| r.start < to) {
            if want(&r.value) {
                return Some(r);
            }
            at = r.end();
        }
        None
    }

    /// The I/O of `o` failed: removes its maps. ENOMEM.
    pub fn failed(&mut self, o: &OrderedExtent) -> Result {
        let mut from = o.start();
        while let Some(r) = self.maps.at_or_after(from).filter(|r| r.start < o.end()) {
            if r.value.in_flight == o.id() {
                self.maps.remove_range(r.start, r.len, |_| ())?;
                self.saved(r.start, r.len);
            }
            from = r.end();
        }
        Ok(())
    }

    /// Calls `f` for the maps of `o`, without those that something else has replaced.
    fn each_of(&mut self, o: &OrderedExtent, f: impl Fn(&mut ExtentMap)) {
        let mut from = o.start();
        while let Some(r) = self.maps.at_or_after(from).filter(|r| r.start < o.end()) {
            if r.value.in_flight == o.id() {
                if let Some(em) = self.maps.get_mut(r.start) {
                    f(em);
                }
            }
            from = r.end();
        }
    }

    /// The first map from `block` on that a fast fsync has to look at: a modified one that is not
    /// logged, or one in flight, which may have taken the place of such a map. R1: `_right` proves
    /// that no task is starting a write.
    pub fn unsaved_from(&self, _right: &Collecting<'_>, block: u64) -> Option<Range<ExtentMap>> {
        let mut at = block;
        loop {
            let u = self.unsaved.at_or_after(at)?;
            let unsaved = |em: &ExtentMap| em.in_flight != 0 || (em.modified && !em.logged);
            if let Some(r) = self.find(at.max(u.start), u.end(), unsaved) {
                return Some(r);
            }
            at = u.end();
        }
    }

    /// Notes that the map `r` is in the records of the log.
    pub fn set_logged(&mut self, r: &Range<ExtentMap>) {
        if let Some(em) = self.maps.get_mut(r.start) {
            em.logged = true;
        }
        self.saved(r.start, r.len);
        self.join(r.end());
        self.join(r.start);
    }

    /// Drops the maps of a range in which the extent tree has changed (punch, truncate,
    /// preallocation). ENOMEM.
    pub fn invalidate(&mut self, start: u64, len: u64) -> Result {
        self.maps.remove_range(start, len, |_| ())?;
        self.saved(start, len);
        Ok(())
    }

    /// Generation `durable` is durable: makes its maps clean. A clean map says what the tree says,
    /// so an inode keeps only a few; otherwise each commit would have to look at all maps that were
    /// ever written.
    pub fn committed(&mut self, durable: u64) {
        let keep = self.maps.len() <= KEEP;
        self.clean = 0;
        let mut from = 0;
        while let Some(r) = self.maps.at_or_after(from) {
            from = r.end();
            let Some(em) = self.maps.get_mut(r.start) else {
                continue;
            };
            if em.modified && em.generation <= durable {
                em.modified = false;
                // `logged` has a meaning for modified maps only.
                let logged = core::mem::replace(&mut em.logged, false);
                if !logged {
                    self.saved(r.start, r.len);
                }
            }
            let Some(em) = self.maps.get_mut(r.start) else {
                continue;
            };
            // R2 holds here as well. Whole maps are dropped, which needs no memory.
            if em.clean() && (keep || self.maps.remove_range(r.start, r.len, |_| ()).is_err()) {
                self.clean += 1;
            }
        }
    }

    /// Drops all maps, because the inode leaves memory.
    pub fn forget_all(&mut self) {
        self.maps = RangeMap::new();
        self.unsaved = RangeMap::new();
        self.clean = 0;
    }

    /// R2: drops at most `max` clean maps, for the shrinker. Returns what [`ExtentMaps::release`]
    /// returns. An inode with more than a few maps is skipped: nearly all of them are modified, and
    /// the next commit drops the others.
    pub fn shrink(&mut self, max: u64) -> (usize, usize) {
        if self.maps.len() > KEEP {
            self.clean = 0;
            return (0, self.maps.len());
        }
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let (dropped, kept) = self.release(0, u64::MAX, max);
        if dropped < max {
            self.clean = 0;
        }
        (dropped, kept)
    }

    /// R2: drops at most `max` clean maps that touch the range. Pinned and modified maps, logged
    /// ones included, stay, because a fast fsync still has to see them. Returns how many were
    /// dropped, and how many are left in the range.
    pub fn release(&mut self, start: u64, len: u64, max: usize) -> (usize, usize) {
        let end = start.saturating_add(len);
        let mut from = start;
        let mut dropped = 0;
        let mut kept = 0;
        while let Some(r) = self.maps.at_or_after(from).filter(|r| r.start < end) {
            from = r.end();
            let may_go = r.value.clean() || (mutant::is(Mutant::R2) && r.value.in_flight == 0);
            if may_go && dropped < max {
                // The whole map goes, even if it reaches beyond the range, because that needs no
                // memory.
                if self.maps.remove_range(r.start, r.len, |_| ()).is_ok() {
                    dropped += 1;
                    continue;
                }
            }
            kept += 1;
        }
        self.clean = self.clean.saturating_sub(dropped);
        (dropped, kept)
    }
}
