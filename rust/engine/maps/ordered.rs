// SPDX-License-Identifier: GPL-2.0

//! Ordered extents: data I/O in flight, file range and disk range with checksums.
//!
//! An [`Ordered`] exists from before its mapping can be seen until the I/O has ended and the extent
//! tree (or, on failure, the space) has been put right. Whoever collects mappings first collects
//! ordered extents and so can wait for the data (R1, from the btrfs races in docs/DESIGN.md).
//! The set is under `Inode.ordered`.

use crate::engine::inode::Inode;
use crate::os::{Map, Shared};
use kernel::prelude::*;

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
}

/// Proof that an ordered extent is in its inode's set, and the right to complete it.
///
/// # Invariants
///
/// Only [`OrderedSet::insert`] makes one, and only [`OrderedSet::remove`] takes it.
#[must_use = "the I/O of an ordered extent must be finished"]
pub struct Ordered {
    id: u64,
    inode: Shared<Inode>,
    flight: Flight,
    phys: u64,
    csums: KVec<u8>,
}

impl Ordered {
    /// The inode that is written.
    pub fn inode(&self) -> &Shared<Inode> {
        &self.inode
    }
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
        }
    }

    /// Inserts an ordered extent for `[start, start + len)` → `phys`; EBUSY if one is there.
    #[allow(clippy::too_many_arguments)]
    pub(in crate::engine) fn insert(
        &mut self,
        inode: &Shared<Inode>,
        start: u64,
        len: u64,
        phys: u64,
        csums: KVec<u8>,
        in_place: bool,
        direct: bool,
    ) -> Result<Ordered> {
        if self.overlaps(start, len) {
            return Err(EBUSY);
        }
        let id = self.next;
        let flight = Flight {
            id,
            start,
            len,
            in_place,
            direct,
        };
        // INVARIANT: checked above.
        self.map.insert(start, flight)?;
        self.next += 1;
        Ok(Ordered {
            id,
            inode: inode.clone(),
            flight,
            phys,
            csums,
        })
    }

    /// Takes it out again.
    pub(in crate::engine) fn remove(&mut self, o: Ordered) {
        self.map.remove(&o.flight.start);
    }

    /// Later ordered extents have at least this id.
    pub fn next_id(&self) -> u64 {
        self.next
    }

    /// The ranges of the writes in flight: first block, number of blocks.
    pub fn for_each(&self, mut f: impl FnMut(u64, u64)) {
        self.map.for_each(|_, x| f(x.start, x.len));
    }

    /// Is an ordered extent with a smaller id still there?
    pub fn any_before(&self, id: u64) -> bool {
        let mut hit = false;
        self.map.for_each(|_, f| hit |= f.id < id);
        hit
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
