// SPDX-License-Identifier: GPL-2.0

//! The state of a trim between two pieces, and what all trims of a filesystem share. `trim.rs` has the
//! model and the locks.
//!
//! Tests: `tools/engine/tests/trim`.

use crate::engine::lock_class;
use crate::os::atomic::{AtomicU32, AtomicU64};
use crate::os::{Mutex, WaitQueue};
use kernel::prelude::*;

/// What is left of a trim. In blocks.
pub struct Trim {
    /// The first block that may be discarded.
    pub start: u64,
    /// Where it goes on.
    pub at: u64,
    /// Its end.
    pub end: u64,
    /// The length of the shortest run that is discarded; at most a group.
    pub least: u32,
    /// The unit in which the device discards; at most a group.
    pub unit: u32,
    /// How many blocks have been discarded.
    pub trimmed: u64,
}

/// The state of trims of a filesystem.
pub(super) struct Trimmer {
    /// Held by the trim whose turn it is to withhold blocks.
    pub(super) turn: Mutex<()>,
    /// Odd while blocks are withheld.
    pub(super) number: AtomicU64,
    /// Tasks that wait for withheld blocks, or search again after that.
    pub(super) starving: AtomicU32,
    /// The queue on which they wait for the trim, and the trim for them.
    pub(super) queue: WaitQueue,
}

impl Trimmer {
    /// No trim runs. ENOMEM.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            turn: Mutex::new(&lock_class::TRIM, ())?,
            number: AtomicU64::new(0),
            starving: AtomicU32::new(0),
            queue: WaitQueue::new()?,
        })
    }
}
