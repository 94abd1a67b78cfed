// SPDX-License-Identifier: GPL-2.0

//! Starting a write (R1).
//!
//! A write becomes visible in [`Starting::publish`] and nowhere else. Types carry the order, from
//! lock to ordered extent to extent map:
//!
//! - `OrderedSet::insert` requires a [`SharedSide`], the shared side of `Inode.ordered_sem`.
//!   Outside of this directory only [`Starting`] holds one, and only `ops/data` may name
//!   [`Starting`] (`scripts/layers` checks that): its `mod.rs` has the one call.
//! - `ExtentMaps::insert_in_flight` requires the `OrderedExtent` that only `OrderedSet::insert` makes,
//!   so the compiler enforces the order.
//! - `ExtentMaps::unsaved_from`, by which a fast fsync finds what it has to log, requires a
//!   `Collecting`, which holds the exclusive side.
//!
//! The race and its timelines are in docs/RACES.md (R1). Locks: `ordered_sem` (shared), then `maps`
//! (for writing), then `ordered`.
//!
//! Tests: `tools/models/tests/rules/r1.rs`, `tools/models/tests/types.rs` (what must not compile),
//! `tests/vm/t/041-r1.sh`.

use super::maps::Maps;
use super::ordered::{NewWrite, OrderedExtent, SharedSide};
use super::Inode;
#[cfg(any(ordofs_mutants, ordofs_mutant_r1_order))]
use crate::engine::mutant::{self, Mutant};
use crate::os::{trace, Device, Shared, Window};
use core::ops::Deref;
use kernel::prelude::*;

/// An ordered extent and its inode: the right, and the duty, to complete the write.
#[must_use = "the I/O of an ordered extent must be finished"]
pub struct Ordered {
    inode: Shared<Inode>,
    extent: OrderedExtent,
}

impl Ordered {
    /// The inode that the write belongs to.
    pub fn inode(&self) -> &Shared<Inode> {
        &self.inode
    }

    /// The ordered extent alone, to be removed from its set.
    pub(in crate::engine) fn into_extent(self) -> OrderedExtent {
        self.extent
    }
}

impl Deref for Ordered {
    type Target = OrderedExtent;

    fn deref(&self) -> &OrderedExtent {
        &self.extent
    }
}

/// The destination of a write in flight.
pub struct Started {
    /// First disk block.
    pub phys: u64,
    /// Number of blocks. They may be only a prefix of the requested range.
    pub len: u64,
    /// The ordered extent; pass it to `finish_write` when the I/O has ended.
    pub ordered: Ordered,
}

/// The right to start a write: the shared side of `ordered_sem`.
pub struct Starting<'a> {
    inode: &'a Shared<Inode>,
    /// For traces.
    device: &'a Device,
    side: SharedSide<'a>,
}

impl<'a> Starting<'a> {
    /// Takes the shared side of `ordered_sem`: waits for fast fsyncs that collect. To be taken
    /// before `maps`.
    pub(in crate::engine) fn enter(inode: &'a Shared<Inode>, device: &'a Device) -> Self {
        Self {
            inode,
            device,
            side: SharedSide::enter(&inode.ordered_sem),
        }
    }

    /// The inode.
    pub(in crate::engine) fn inode(&self) -> &'a Shared<Inode> {
        self.inode
    }

    fn ordered(&self, extent: OrderedExtent) -> Ordered {
        Ordered {
            inode: self.inode.clone(),
            extent,
        }
    }

    /// R1: makes a write visible: inserts its ordered extent, then its extent map. The caller holds
    /// `maps` for writing. EBUSY if a write is in flight there, ENOMEM. On error no ordered extent
    /// stays behind, but extent maps of the range may be gone: the caller must keep fsyncs from
    /// relying on the log.
    pub(in crate::engine) fn publish(&self, maps: &mut Maps, write: NewWrite) -> Result<Ordered> {
        #[cfg(any(ordofs_mutants, ordofs_mutant_r1_order))]
        if mutant::is(Mutant::R1Order) {
            return self.publish_swapped(maps, write);
        }
        // The ordered extent first ...
        let ordered = self.inode.ordered.lock().insert(&self.side, write)?;
        self.tell(&ordered, trace::ordered_insert);
        let _ = self.device.pass(Window::OrderedInserted);
        // ... the extent map second: its type requires the ordered extent.
        if let Err(e) = maps.extent_maps.insert_in_flight(&ordered) {
            self.inode.ordered.lock().remove(ordered);
            return Err(e);
        }
        self.tell(&ordered, trace::ordered_mapped);
        Ok(self.ordered(ordered))
    }

    /// Traces a step in the life of an ordered extent.
    #[inline(always)]
    fn tell(&self, o: &OrderedExtent, event: fn(u32, u64, u64, u64, u64, u64, bool, bool)) {
        event(
            self.device.id(),
            self.inode.ino(),
            o.id(),
            o.start(),
            o.len(),
            o.phys(),
            o.in_place(),
            o.direct(),
        );
    }

    /// Hand-weakened, for R1's mutants: inserts the extent map first, against an `OrderedExtent`
    /// that is in no set. Real code cannot have one.
    #[cfg(any(ordofs_mutants, ordofs_mutant_r1_order))]
    fn publish_swapped(&self, maps: &mut Maps, write: NewWrite) -> Result<Ordered> {
        let ordered = self.inode.ordered.lock().unproved(&self.side, write)?;
        maps.extent_maps.insert_in_flight(&ordered)?;
        self.tell(&ordered, trace::ordered_mapped);
        let _ = self.device.pass(Window::OrderedInserted);
        self.inode.ordered.lock().insert_late(&ordered)?;
        self.tell(&ordered, trace::ordered_insert);
        Ok(self.ordered(ordered))
    }
}
