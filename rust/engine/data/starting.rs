// SPDX-License-Identifier: GPL-2.0

//! Both sides of `Inode.ordered_sem` (R1): starting writes and collecting them.
//!
//! A write becomes visible in [`Starting::publish`] and nowhere else. The chain of types:
//!
//! - `OrderedSet::insert` wants a [`Starting`], which holds the shared side of the lock, and which only
//!   [`crate::engine::data`] can make: its one call is in `Fs::start_write`.
//! - `ExtentMaps::insert_pinned` wants the `Ordered`, which only `OrderedSet::insert` makes. So the order
//!   is not a matter of care.
//! - `ExtentMaps::unsaved_from`, by which a fast fsync finds what it has to log, wants a
//!   [`Collecting`], which holds the exclusive side.

use crate::engine::inode::Inode;
use crate::engine::maps::ordered::{NewWrite, Ordered};
use crate::engine::maps::Maps;
use crate::engine::mutant::{self, Mutant};
use crate::os::{trace, Device, ReadGuard, Shared, Window, WriteGuard};
use kernel::prelude::*;

/// The right to start a write: the shared side of `ordered_sem`.
pub struct Starting<'a> {
    inode: &'a Shared<Inode>,
    /// For traces.
    device: &'a Device,
    /// `None` in a mutant only.
    _shared: Option<ReadGuard<'a, ()>>,
}

impl<'a> Starting<'a> {
    /// Waits for fast fsyncs that collect. Taken before `maps`.
    pub(super) fn enter(inode: &'a Shared<Inode>, device: &'a Device) -> Self {
        let shared = (!mutant::is(Mutant::R1Lock)).then(|| inode.ordered_sem.read());
        Self {
            inode,
            device,
            _shared: shared,
        }
    }

    /// The inode that is written.
    pub fn inode(&self) -> &'a Shared<Inode> {
        self.inode
    }

    /// R1: makes a write visible, with `maps` held for writing. EBUSY if one is in flight there. All
    /// is as before on error.
    pub(super) fn publish(&self, maps: &mut Maps, write: NewWrite) -> Result<Ordered> {
        #[cfg(any(ordofs_mutants, ordofs_mutant_r1_order))]
        if mutant::is(Mutant::R1Order) {
            return self.publish_swapped(maps, write);
        }
        // The ordered extent first ...
        let ordered = self.inode.ordered.lock().insert(self, write)?;
        self.tell(&ordered, trace::ordered_insert);
        let _ = self.device.pass(Window::OrderedInserted);
        // ... the extent map second: the type asks for the ordered extent.
        if let Err(e) = maps.ems.insert_pinned(&ordered) {
            self.inode.ordered.lock().remove(ordered);
            return Err(e);
        }
        self.tell(&ordered, trace::ordered_mapped);
        Ok(ordered)
    }

    /// A step in the life of an ordered extent, for traces.
    #[inline(always)]
    fn tell(&self, o: &Ordered, event: fn(u32, u64, u64, u64, u64, u64, bool, bool)) {
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

    /// Hand-weakened, for R1's mutants: the extent map first. It takes an `Ordered` that is in no set,
    /// which real code cannot have.
    #[cfg(any(ordofs_mutants, ordofs_mutant_r1_order))]
    fn publish_swapped(&self, maps: &mut Maps, write: NewWrite) -> Result<Ordered> {
        let ordered = self.inode.ordered.lock().unproved(self, write)?;
        maps.ems.insert_pinned(&ordered)?;
        self.tell(&ordered, trace::ordered_mapped);
        let _ = self.device.pass(Window::OrderedInserted);
        self.inode.ordered.lock().insert_late(&ordered)?;
        self.tell(&ordered, trace::ordered_insert);
        Ok(ordered)
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
    pub(in crate::engine) fn enter(inode: &'a Inode) -> Self {
        Self {
            _exclusive: (!mutant::is(Mutant::R1Lock)).then(|| inode.ordered_sem.write()),
        }
    }
}
