// SPDX-License-Identifier: GPL-2.0

//! Reads of nodes that are not for an operation: how urgent they are, when they end, and how many
//! there were.
//!
//! Locks: none; a [`Reader`] belongs to one task.
//!
//! Tests: `tools/engine/tests/copies`.

use super::store::Urgency;
use core::cell::Cell;
use kernel::prelude::*;

/// The caller of a read.
pub(crate) struct Reader<'a> {
    pub(super) urgency: Urgency,
    /// Asked before each read. If it says so, nothing more is read.
    stop: &'a dyn Fn() -> bool,
    blocks: Cell<u64>,
}

impl<'a> Reader<'a> {
    /// A task waits for the reads on which others depend.
    pub(crate) fn waited(stop: &'a dyn Fn() -> bool) -> Self {
        Self::new(Urgency::Waited, stop)
    }

    /// Nothing depends on the reads.
    pub(crate) fn background(stop: &'a dyn Fn() -> bool) -> Self {
        Self::new(Urgency::Background, stop)
    }

    fn new(urgency: Urgency, stop: &'a dyn Fn() -> bool) -> Self {
        Self {
            urgency,
            stop,
            blocks: Cell::new(0),
        }
    }

    /// A block is about to be read. EINTR if none must be.
    pub(crate) fn begin(&self) -> Result {
        if (self.stop)() {
            return Err(EINTR);
        }
        self.blocks.set(self.blocks.get() + 1);
        Ok(())
    }

    /// How many blocks were read.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks.get()
    }
}
