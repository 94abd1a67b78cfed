// SPDX-License-Identifier: GPL-2.0

//! Ordered extents: data I/O in flight, file range and disk range with checksums.
//!
//! An [`OrderedExtent`] exists from before its mapping can be seen until the I/O has ended and the extent
//! tree (or, on failure, the space) has been put right. Whoever collects mappings first collects
//! ordered extents and so can wait for the data (R1, docs/RACES.md).
//! The set is under `Inode.ordered`. Both sides of `Inode.ordered_sem` are types here: [`SharedSide`] to
//! start a write, [`Collecting`] to collect what a fast fsync logs.

use crate::engine::mutant::{self, Mutant};
use crate::os::{Map, ReadGuard, RwLock, WriteGuard};
use kernel::prelude::*;

/// The shared side of `ordered_sem`: what it takes to insert an ordered extent.
pub struct SharedSide<'a> {
    /// `None` in a mutant only.
    _shared: Option<ReadGuard<'a, ()>>,
}

impl<'a> SharedSide<'a> {
    /// Waits for fast fsyncs that collect. Taken before `maps`.
    pub(super) fn enter(ordered_sem: &'a RwLock<()>) -> Self {
        Self {
            _shared: (!mutant::is(Mutant::R1Lock)).then(|| ordered_sem.read()),
        }
    }
}

/// The right to collect what a fast fsync logs: the exclusive side of `ordered_sem`. Nobody is between
/// an ordered extent and its extent map.
pub struct Collecting<'a> {
    /// `None` in a mutant only.
    _exclusive: Option<WriteGuard<'a, ()>>,
}

impl<'a> Collecting<'a> {
    /// Waits for writes that are being started. Taken before `maps`.
    pub(super) fn enter(ordered_sem: &'a RwLock<()>) -> Self {
        Self {
            _exclusive: (!mutant::is(Mutant::R1Lock)).then(|| ordered_sem.write()),
        }
    }
}

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
}

/// The ordered extents of an inode, by first file block.
///
/// # Invariants
///
/// No two overlap. Two writes in flight to the same blocks would complete in no order: the later
/// completion would free what the earlier one mapped, while the extent map of the other still
/// pointed there. Whoever wants to write where a write is in flight waits for it.
pub struct OrderedSet {
    next: u64,
    map: Map<u64, Flight>,
    lost: Lost,
}

/// How many losses an inode remembers one by one.
const REMEMBERED: usize = 4;

/// Buffered data that could not be written, and is not dirty any more: the last few ranges.
///
/// An operation that first writes a range has to know whether *this* failed: the mapping's error is
/// about the whole file, and is the same before and after when another one like it has not been
/// reported yet.
#[derive(Default)]
struct Lost {
    /// How many there have been.
    count: u64,
    /// Loss number n is at n % [`REMEMBERED`]: first block, number of blocks, error.
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
}

impl OrderedExtent {
    /// Unique in its inode, never 0.
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
    /// First file block after it.
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
}

impl OrderedSet {
    /// No I/O in flight.
    pub fn new() -> Self {
        Self {
            next: 1,
            map: Map::new(),
            lost: Lost::default(),
        }
    }

    /// R1: inserts an ordered extent; EBUSY if one is there. Only who may start a write can call it.
    pub(in crate::engine) fn insert(
        &mut self,
        side: &SharedSide<'_>,
        write: NewWrite,
    ) -> Result<OrderedExtent> {
        let o = self.token(side, write)?;
        // INVARIANT: of the set: `token` has looked.
        self.map.insert(o.start(), o.flight)?;
        Ok(o)
    }

    /// An [`OrderedExtent`] with the next number. Private: it is not in the set yet.
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
        })
    }

    /// Hand-weakened, for R1's mutants: proof of what is not so.
    #[cfg(any(ordofs_mutants, ordofs_mutant_r1_order))]
    pub(super) fn unproved(
        &mut self,
        side: &SharedSide<'_>,
        write: NewWrite,
    ) -> Result<OrderedExtent> {
        self.token(side, write)
    }

    /// Hand-weakened, for R1's mutants: makes [`Self::unproved`] true at last.
    #[cfg(any(ordofs_mutants, ordofs_mutant_r1_order))]
    pub(super) fn insert_late(&mut self, o: &OrderedExtent) -> Result {
        self.map.insert(o.start(), o.flight)?;
        Ok(())
    }

    /// Takes it out again.
    pub(in crate::engine) fn remove(&mut self, o: OrderedExtent) {
        self.map.remove(&o.flight.start);
    }

    /// Data of dirty pages of the range is lost. Told before the pages leave writeback.
    pub fn set_lost(&mut self, start: u64, len: u64, error: Error) {
        let at = (self.lost.count % REMEMBERED as u64) as usize;
        if let Some(slot) = self.lost.last.get_mut(at) {
            *slot = Some((start, len, error));
        }
        self.lost.count += 1;
    }

    /// How many losses there have been: where [`Self::lost_since`] begins.
    pub fn lost(&self) -> u64 {
        self.lost.count
    }

    /// The error of a loss in the range since there were `count` of them. When there were more than
    /// are remembered, the last one counts, wherever it was.
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

    /// Later ordered extents have at least this id.
    pub fn next_id(&self) -> u64 {
        self.next
    }

    /// Is no write in flight?
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// How many ordered extents with a smaller id are there?
    pub fn count_before(&self, id: u64) -> u64 {
        let mut n = 0;
        self.map.for_each(|_, f| n += u64::from(f.id < id));
        n
    }

    /// Is any write in flight in the range?
    pub fn overlaps(&self, start: u64, len: u64) -> bool {
        self.any(start, len, |_| true)
    }

    /// Is any direct write in flight in the range?
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

    fn any(&self, start: u64, len: u64, f: impl Fn(&Flight) -> bool) -> bool {
        let end = start.saturating_add(len);
        if start >= end {
            return false;
        }
        // One may begin before the range and reach into it; the others begin in it.
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
