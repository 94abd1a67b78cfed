// SPDX-License-Identifier: GPL-2.0

//! What a replay found and did.

use crate::engine::types::MountError;
use kernel::prelude::*;

/// What a replay did.
#[derive(Clone, Copy, Default, Debug)]
pub struct Replayed {
    /// Batches believed.
    pub batches: u64,
    /// Records carried out.
    pub records: u64,
    /// A last batch was there whose data was not.
    pub disbelieved: bool,
    /// After the last batch believed comes one that was cut off, or damaged: number of it.
    pub damaged: Option<u64>,
    /// That one was not cut off: what fsync had acknowledged cannot be replayed.
    pub lost: Option<Lost>,
}

/// Acknowledged batches that cannot be replayed.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// Position of the first one, which is damaged.
    pub pos: u64,
    /// Its number.
    pub seq: u64,
    /// The newest batch that was found behind it; its own number if it cannot be read, and may not be
    /// one at all.
    pub newest: u64,
}

impl Lost {
    /// How many batches there were at least.
    pub fn batches(&self) -> u64 {
        self.newest.saturating_sub(self.seq).saturating_add(1)
    }
}

impl Replayed {
    /// Must the log go on elsewhere? Also behind a batch that was only damaged: one of the same number
    /// would make what follows it there part of the new log.
    pub fn changes(&self) -> bool {
        self.batches > 0 || self.disbelieved || self.damaged.is_some()
    }

    /// Why nothing may be written after it.
    pub fn forbids(&self) -> Option<MountError> {
        self.lost.map(|_| {
            MountError::new(
                EUCLEAN,
                "the log is damaged before its end, fsyncs are lost (see the kernel log); run fsck.ordofs, mount with -o ro to see what is there",
            )
        })
    }
}
