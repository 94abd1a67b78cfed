// SPDX-License-Identifier: GPL-2.0

//! Extent maps: what is known in memory about where file blocks are, ahead of the extent tree.
//!
//! - *Pinned*: the I/O of an ordered extent is in flight there. Only R1's helper inserts pinned maps,
//!   and only against the [`OrderedExtent`] that proves that the ordered extent came first.
//! - *Modified*: the I/O completed in transaction `generation`, which is not committed (nor logged):
//!   a fast fsync collects these.
//! - *Logged*: modified, and a fast fsync has collected it. It stays until the commit all the same.
//! - Otherwise clean: a cache entry that says what the extent tree says.
//!
//! A fast fsync looks only where it must: `unsaved` covers every map that is pinned, or modified and not
//! logged. It may cover more (where memory to cut a range was missing), never less. Neighbours of the
//! same state whose blocks lie one behind the other on disk, too, are one map. So the cost of an fsync is
//! that of what it saves, whatever happened since the last commit.
//!
//! R2 (modified maps stay): [`ExtentMaps::release`], which release_folio and the shrinker come
//! through, drops clean maps only. Everything is under `Inode.maps`.

use super::range::{Range, RangeMap, RangeValue};
use crate::engine::inode::ordered::{Collecting, OrderedExtent};
use crate::engine::mutant::{self, Mutant};
use crate::os::atomic::{AtomicI64, Ordering};
use kernel::prelude::*;

/// Clean maps that an inode keeps after a commit.
const KEEP: usize = 128;

/// Where a range of file blocks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Em {
    /// First disk block.
    pub phys: u64,
    /// Ordered extent in flight (its id), or 0.
    pub pinned: u64,
    /// The write goes into preallocated blocks.
    pub in_place: bool,
    /// Not committed yet.
    pub modified: bool,
    /// In the log already, or in the records that the next batch writes.
    pub logged: bool,
    /// Transaction that completed it.
    pub generation: u64,
}

impl RangeValue for Em {
    fn advance(self, by: u64) -> Self {
        Self {
            phys: self.phys + by,
            ..self
        }
    }
}

impl Em {
    /// May be dropped at any time.
    fn clean(&self) -> bool {
        self.pinned == 0 && !self.modified
    }
}

/// The extent maps of a filesystem's inodes.
pub struct Counts {
    /// All of them.
    pub all: AtomicI64,
    /// Those that a shrinker could free; a few more at times.
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
    maps: RangeMap<Em>,
    /// Where a fast fsync has to look.
    ///
    /// # Invariants
    ///
    /// Covers all maps that are pinned, or modified and not logged.
    unsaved: RangeMap<()>,
    /// Clean maps: set by commits, which make them. What takes some of them away may leave it too high;
    /// the shrinker puts that right.
    clean: usize,
    /// What the filesystem's counts have of `maps` and `clean`.
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

    /// Brings the filesystem's counts of extent maps up to date.
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
    pub fn at(&self, block: u64) -> Option<Range<Em>> {
        self.maps.at(block)
    }

    /// The first map that ends after `block`.
    pub fn at_or_after(&self, block: u64) -> Option<Range<Em>> {
        self.maps.at_or_after(block)
    }

    /// The first map in `[from, to)` whose write goes into preallocated blocks.
    pub fn first_in_place(&self, from: u64, to: u64) -> Option<Range<Em>> {
        self.find(from, to, |em| em.in_place)
    }

    /// R1: makes the mapping of a write in flight visible. `proof` is the ordered extent, which is
    /// in the inode's set already: order is a matter of types here.
    /// An error may have dropped modified maps: the caller sees to it that no fsync relies on the log.
    pub(in crate::engine) fn insert_pinned(&mut self, proof: &OrderedExtent) -> Result {
        self.unsaved.cover(proof.start(), proof.len())?;
        self.maps.carve(proof.start(), proof.len(), |_| ())?;
        let value = Em {
            phys: proof.phys(),
            pinned: proof.id(),
            in_place: proof.in_place(),
            modified: false,
            logged: false,
            generation: 0,
        };
        self.maps.insert(Range {
            start: proof.start(),
            len: proof.len(),
            value,
        })
    }

    /// The I/O of `o` completed in transaction `generation`: its maps are modified now. Parts that
    /// a later write replaced keep that write's state.
    pub fn completed(&mut self, o: &OrderedExtent, generation: u64) {
        self.each_of(o, |em| {
            em.pinned = 0;
            em.in_place = false;
            em.modified = true;
            em.logged = false;
            em.generation = generation;
        });
        self.join(o.start());
        self.join(o.end());
    }

    /// Joins the maps on both sides of `block` if they are one: the same state, and one run on disk.
    fn join(&mut self, block: u64) {
        self.maps.join(block, |l, r| l.pinned == 0 && l == r);
    }

    /// The range holds nothing any more that a fast fsync has to look at.
    fn saved(&mut self, start: u64, len: u64) {
        // Without memory it stays covered, which costs the next fsync a look.
        let _ = self.unsaved.carve(start, len, |_| ());
    }

    /// The first map in `[from, to)` whose I/O is in flight.
    pub fn first_pinned(&self, from: u64, to: u64) -> Option<Range<Em>> {
        self.find(from, to, |em| em.pinned != 0)
    }

    fn find(&self, from: u64, to: u64, want: impl Fn(&Em) -> bool) -> Option<Range<Em>> {
        let mut at = from;
        while let Some(r) = self.maps.at_or_after(at).filter(|r| r.start < to) {
            if want(&r.value) {
                return Some(r);
            }
            at = r.end();
        }
        None
    }

    /// The I/O of `o` failed: its maps never were.
    pub fn failed(&mut self, o: &OrderedExtent) -> Result {
        let mut from = o.start();
        while let Some(r) = self.maps.at_or_after(from).filter(|r| r.start < o.end()) {
            if r.value.pinned == o.id() {
                self.maps.carve(r.start, r.len, |_| ())?;
                self.saved(r.start, r.len);
            }
            from = r.end();
        }
        Ok(())
    }

    fn each_of(&mut self, o: &OrderedExtent, f: impl Fn(&mut Em)) {
        let mut from = o.start();
        while let Some(r) = self.maps.at_or_after(from).filter(|r| r.start < o.end()) {
            if r.value.pinned == o.id() {
                if let Some(em) = self.maps.get_mut(r.start) {
                    f(em);
                }
            }
            from = r.end();
        }
    }

    /// The first map from `block` on that a fast fsync has to look at: a modified one that none has
    /// collected yet, or a pinned one, which may have taken the place of one. R1: nobody may be
    /// starting a write.
    pub fn unsaved_from(&self, _right: &Collecting<'_>, block: u64) -> Option<Range<Em>> {
        let mut at = block;
        loop {
            let u = self.unsaved.at_or_after(at)?;
            let unsaved = |em: &Em| em.pinned != 0 || (em.modified && !em.logged);
            if let Some(r) = self.find(at.max(u.start), u.end(), unsaved) {
                return Some(r);
            }
            at = u.end();
        }
    }

    /// The map `r` is in the log's records.
    pub fn set_logged(&mut self, r: &Range<Em>) {
        if let Some(em) = self.maps.get_mut(r.start) {
            em.logged = true;
        }
        self.saved(r.start, r.len);
        self.join(r.end());
        self.join(r.start);
    }

    /// The extent tree changed in this range (punch, truncate, preallocation): forget it.
    pub fn invalidate(&mut self, start: u64, len: u64) -> Result {
        self.maps.carve(start, len, |_| ())?;
        self.saved(start, len);
        Ok(())
    }

    /// Generation `durable` is on disk: its maps are clean. The tree says the same as a clean map, so
    /// only a few are kept: else each commit would have to look at all that were ever written.
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
                // Merely a flag of modified maps.
                let logged = core::mem::replace(&mut em.logged, false);
                if !logged {
                    self.saved(r.start, r.len);
                }
            }
            let Some(em) = self.maps.get_mut(r.start) else {
                continue;
            };
            // R2 holds here as well. A whole map goes: no memory is needed.
            if em.clean() && (keep || self.maps.carve(r.start, r.len, |_| ()).is_err()) {
                self.clean += 1;
            }
        }
    }

    /// The inode leaves memory.
    pub fn forget_all(&mut self) {
        self.maps = RangeMap::new();
        self.unsaved = RangeMap::new();
        self.clean = 0;
    }

    /// R2: drops clean maps, at most `max`, for the shrinker; returns as [`ExtentMaps::release`]. Of more
    /// than a few maps nearly all are modified, and the next commit drops the others: those are not
    /// looked through.
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

    /// R2: drops clean maps that lie in the range, at most `max`. Pinned and modified maps
    /// (logged ones included) stay: a fast fsync still has to see them. Returns how many were dropped, and
    /// how many are left in the range.
    pub fn release(&mut self, start: u64, len: u64, max: usize) -> (usize, usize) {
        let end = start.saturating_add(len);
        let mut from = start;
        let mut dropped = 0;
        let mut kept = 0;
        while let Some(r) = self.maps.at_or_after(from).filter(|r| r.start < end) {
            from = r.end();
            let may_go = r.value.clean() || (mutant::is(Mutant::R2) && r.value.pinned == 0);
            if may_go && dropped < max {
                // The whole map goes, also where it reaches beyond the range: no memory is needed.
                if self.maps.carve(r.start, r.len, |_| ()).is_ok() {
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
