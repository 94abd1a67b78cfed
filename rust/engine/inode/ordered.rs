// SPDX-License-Identifier: GPL-2.0

//! Ordered extents: data I/O in flight, with file range, disk range and checksums.
//!
//! # Model
//!
//! An [`OrderedExtent`] exists from before its mapping becomes visible until the I/O has ended and
//! the extent tree (or, on failure, the space) is up to date. A fast fsync collects ordered extents
//! before it collects mappings, and can so wait for the data (R1, docs/RACES.md).
//!
//! The set also remembers the ranges of buffered data that could not be written. All ranges are
//! half-open, in blocks. The word is from btrfs.
//!
//! # Locks
//!
//! The set is under `Inode.ordered`. Both sides of `Inode.ordered_sem` are types here:
//! [`SharedSide`] to start a write, [`Collecting`] to collect what a fast fsync logs.
//!
//! Tests: `tools/models/tests/rules/r1.rs`, `tools/models/tests/types.rs`,
//! `tools/engine/tests/writes_in_flight.rs`, `tools/engine/tests/write_lost.rs`,
//! `tests/vm/t/049-lost-writes.sh`.

use crate::engine::mutant::{self, Mutant};
use crate::os::{Map, ReadGuard, RwLock, WriteGuard};
use kernel::prelude::*;

/// The shared side of `ordered_sem`, without which no ordered extent can be inserted.
pub struct SharedSide<'a> {
    /// `None` in a mutant only.
    _shared: Option<ReadGuard<'a, ()>>,
}

impl<'a> SharedSide<'a> {
    /// Waits for fast fsyncs that collect. To be taken before `maps`.
    pub(super) fn enter(ordered_sem: &'a RwLock<()>) -> Self {
        Self {
            _shared: (!mutant::is(Mutant::R1Lock)).then(|| ordered_sem.read()),
        }
    }
}

/// The right to collect what a fast fsync logs: the exclusive side of `ordered_sem`. While it
/// exists, no task is between inserting an ordered extent and inserting its extent map.
pub struct Collecting<'a> {
    /// `None` in a mutant only.
    _exclusive: Option<WriteGuard<'a, ()>>,
}

impl<'a> Collecting<'a> {
    /// Waits for writes that are being started. To be taken before `maps`.
    pub(super) fn enter(ordered_sem: &'a RwLock<()>) -> Self {
        Self {
            _exclusive: (!mutant::is(Mutant::R1Lock)).then(|| ordered_sem.write()),
        }
    }
}

/// What the set needs of an ordered extent.
#[derive(Clone, Copy)]
struct Flight {
    id: u64,
    start: u64,
    len: u64,
    in_place: bool,
    direct: bool,
}

impl Flight {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// A write that is about to be started.
pub struct NewWrite {
    /// First file block.
    pub start: u64,
    /// Number of blocks.
    pub len: u64,
    /// First disk block.
    pub phys: u64,
    /// Checksums of the blocks, 4 little-endian bytes each.
    pub csums: KVec<u8>,
    /// Goes into preallocated blocks.
    pub in_place: bool,
    /// Comes from direct I/O.
    pub direct: bool,
    /// Writes what is mapped there already, written and with these checksums, from this disk block on.
    pub source: Option<u64>,
}

/// The ordered extents of an inode, by first file block.
///
/// # Invariants
///
/// No two overlap. Two writes in flight to the same blocks would complete in no order: the later
/// completion would free the blocks that the earlier one mapped, while the other's extent map still
/// pointed to them. A task that has to write where a write is in flight waits for that write.
pub struct OrderedSet {
    next: u64,
    map: Map<u64, Flight>,
    lost: Lost,
}

/// How many losses an inode remembers.
const REMEMBERED: usize = 4;

/// The last few ranges of buffered data that could not be written and are not dirty any more.
///
/// An operation that first writes a range has to know whether *that* write failed. The mapping's
/// error state does not say it: it is about the whole file, and if it holds an unreported error
/// already, another one like it changes nothing.
#[derive(Default)]
struct Lost {
    /// The number of losses so far.
    count: u64,
    /// Loss number n is at n % [`REMEMBERED`]: first file block, number of blocks, error.
    last: [Option<(u64, u64, Error)>; REMEMBERED],
}

/// Proof that an ordered extent is in its inode's set.
///
/// # Invariants
///
/// Only [`OrderedSet::insert`] makes one, and only [`OrderedSet::remove`] takes it.
#[must_use = "the I/O of an ordered extent must be finished"]
pub struct OrderedExtent {
    id: u64,
    flight: Flight,
    phys: u64,
    csums: KVec<u8>,
    source: Option<u64>,
}

impl OrderedExtent {
    /// Its number, unique in its inode and never 0.
    pub fn id(&self) -> u64 {
        self.id
    }
    /// First file block.
    pub fn start(&self) -> u64 {
        self.flight.start
    }
    /// Number of blocks.
    pub fn len(&self) -> u64 {
        self.flight.len
    }
    /// The first file block after the range.
    pub fn end(&self) -> u64 {
        self.flight.start.saturating_add(self.flight.len)
    }
    /// First disk block.
    pub fn phys(&self) -> u64 {
        self.phys
    }
    /// Goes into preallocated blocks.
    pub fn in_place(&self) -> bool {
        self.flight.in_place
    }
    /// Comes from direct I/O.
    pub fn direct(&self) -> bool {
        self.flight.direct
    }
    /// Checksums of the blocks, 4 little-endian bytes each.
    pub fn csums(&self) -> &[u8] {
        self.csums.as_slice()
    }
    /// A move: the first disk block of what is mapped there, with the same content. The write counts only
    /// if it still is when it completes.
    pub fn source(&self) -> Option<u64> {
        self.source
    }
}

impl OrderedSet {
    /// An empty set.
    pub fn new() -> Self {
        Self {
            next: 1,
            map: Map::new(),
            lost: Lost::default(),
        }
    }

    /// R1: inserts an ordered extent. EBUSY if one overlaps it, ENOMEM. The shared side proves that
    /// the caller may start a write.
    pub(in crate::engine) fn insert(
        &mut self,
        side: &SharedSide<'_>,
        write: NewWrite,
    ) -> Result<OrderedExtent> {
        let o = self.token(side, write)?;
        // INVARIANT: no two overlap, because `token` has looked.
        self.map.insert(o.start(), o.flight)?;
        Ok(o)
    }

    /// An [`OrderedExtent`] with the next number. Private, because it is not in the set yet.
    fn token(&mut self, _side: &SharedSide<'_>, write: NewWrite) -> Result<OrderedExtent> {
        if self.overlaps(write.start, write.len) {
            return Err(EBUSY);
        }
        let id = self.next;
        self.next += 1;
        Ok(OrderedExtent {
            id,
            flight: Flight {
                id,
                start: write.start,
                len: write.len,
                in_place: write.in_place,
                direct: write.direct,
            },
            phys: write.phys,
            csums: write.csums,
            source: write.source,
        })
    }

    /// Hand-weakened, for R1's mutants: a proof of something that is not true yet.
    #[cfg(any(ordofs_mutants, ordofs_mutant_r1_order))]
    pub(super) fn unproved(
        &mut self,
        side: &SharedSide<'_>,
        write: NewWrite,
    ) -> Result<OrderedExtent> {
        self.token(side, write)
    }

    /// Hand-weakened, for R1's mutants: inserts what [`Self::unproved`] claimed to have inserted.
    #[cfg(any(ordofs_mutants, ordofs_mutant_r1_order))]
    pub(super) fn insert_late(&mut self, o: &OrderedExtent) -> Result {
        self.map.insert(o.start(), o.flight)?;
        Ok(())
    }

    /// Removes an ordered extent, whose write has ended or never began.
    pub(in crate::engine) fn remove(&mut self, o: OrderedExtent) {
        self.map.remove(&o.flight.start);
    }

    /// Records that data of dirty pages in the range is lost. To be called before the pages leave
    /// writeback, so that a task which waits for them sees the loss.
    pub fn set_lost(&mut self, start: u64, len: u64, error: Error) {
        let at = (self.lost.count % REMEMBERED as u64) as usize;
        if let Some(slot) = self.lost.last.get_mut(at) {
            *slot = Some((start, len, error));
        }
        self.lost.count += 1;
    }

    /// The number of losses so far, to pass to [`Self::lost_since`] later.
    pub fn lost(&self) -> u64 {
        self.lost.count
    }

    /// The error of a loss in the range, of those after the first `count`. If there were more of
    /// them than are remembered, the last one counts, wherever it was.
    pub fn lost_since(&self, count: u64, start: u64, len: u64) -> Result {
        let new = self.lost.count.saturating_sub(count);
        let all = new > REMEMBERED as u64;
        for n in (0..new.min(REMEMBERED as u64)).map(|i| self.lost.count - 1 - i) {
            let slot = self.lost.last.get((n % REMEMBERED as u64) as usize);
            if let Some(Some((at, n, error))) = slot.copied() {
                let meets = at < start.saturating_add(len) && start < at.saturating_add(n);
                if all || meets {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The number that the next ordered extent gets.
    pub fn next_id(&self) -> u64 {
        self.next
    }

    /// Whether no write is in flight.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The number of ordered extents with a number below `id`.
    pub fn count_before(&self, id: u64) -> u64 {
        let mut n = 0;
        self.map.for_each(|_, f| n += u64::from(f.id < id));
        n
    }

    /// Whether a write is in flight in the range.
    pub fn overlaps(&self, start: u64, len: u64) -> bool {
        self.any(start, len, |_| true)
    }

    /// Whether a direct write is in flight in the range.
    pub fn direct(&self, start: u64, len: u64) -> bool {
        self.any(start, len, |f| f.direct)
    }

    /// The first block at or after `start` where a write is in flight.
    pub fn next(&self, start: u64) -> Option<u64> {
        if self.overlaps(start, 1) {
            return Some(start);
        }
        self.map.first_ge(start).map(|(k, _)| k)
    }

    /// Whether `f` accepts one that overlaps the range.
    fn any(&self, start: u64, len: u64, f: impl Fn(&Flight) -> bool) -> bool {
        let end = start.saturating_add(len);
        if start >= end {
            return false;
        }
        // One may begin before the range and reach into it; all others begin within it.
        if self
            .map
            .last_le(start)
            .is_some_and(|(_, x)| x.end() > start && f(x))
        {
            return true;
        }
        let mut from = start;
        while let Some((k, x)) = self.map.first_ge(from).filter(|(k, _)| *k < end) {
            if f(x) {
                return true;
            }
            from = k.saturating_add(1);
        }
        false
    }
}
