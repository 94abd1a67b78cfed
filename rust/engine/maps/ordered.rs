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
    start: u64,
    len: u64,
    in_place: bool,
    direct: bool,
}

impl Flight {
    fn overlaps(&self, start: u64, len: u64) -> bool {
        self.start < start.saturating_add(len) && start < self.start.saturating_add(self.len)
    }
}

/// The ordered extents of an inode.
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
        Self { next: 1, map: Map::new() }
    }

    /// Inserts an ordered extent for `[start, start + len)` → `phys`.
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
        let id = self.next;
        let flight = Flight { start, len, in_place, direct };
        self.map.insert(id, flight)?;
        self.next += 1;
        Ok(Ordered { id, inode: inode.clone(), flight, phys, csums })
    }

    /// Takes it out again.
    pub(in crate::engine) fn remove(&mut self, o: Ordered) {
        self.map.remove(&o.id);
    }

    /// Later ordered extents have at least this id.
    pub fn next_id(&self) -> u64 {
        self.next
    }

    /// Is an ordered extent with a smaller id still there?
    pub fn any_before(&self, id: u64) -> bool {
        self.map.first().is_some_and(|(k, _)| k < id)
    }

    /// Is any in-place write in flight in the range?
    pub fn in_place(&self, start: u64, len: u64) -> bool {
        self.any(|f| f.in_place && f.overlaps(start, len))
    }

    /// Is any write in flight in the range?
    pub fn overlaps(&self, start: u64, len: u64) -> bool {
        self.any(|f| f.overlaps(start, len))
    }

    /// Is any direct write in flight in the range?
    pub fn direct(&self, start: u64, len: u64) -> bool {
        self.any(|f| f.direct && f.overlaps(start, len))
    }

    fn any(&self, f: impl Fn(&Flight) -> bool) -> bool {
        let mut hit = false;
        self.map.for_each(|_, x| hit |= f(x));
        hit
    }
}
