// SPDX-License-Identifier: GPL-2.0

//! The result of a replay. It is plain data that [`super::Log`] keeps for reports;
//! `engine/volume/replay.rs` fills it in.
//!
//! Tests: tools/engine/tests/log_recovery.rs, log_damage.rs, tools/crash/tests/recovery.rs,
//! tests/vm/t/067-damage.sh, 072-recovery.sh.

use crate::engine::types::MountError;
use kernel::prelude::*;

/// What a replay found in the log, and what it did.
#[derive(Clone, Copy, Default, Debug)]
pub struct Replayed {
    /// Batches that were believed, and so replayed.
    pub batches: u64,
    /// Records that were carried out.
    pub records: u64,
    /// Records that did not fit, and were left out ([`MountOptions::rescue_records`]).
    ///
    /// [`MountOptions::rescue_records`]: crate::engine::types::MountOptions::rescue_records
    pub skipped: u64,
    /// The last batch was whole, but its data was not there: power failed before its flush.
    pub disbelieved: bool,
    /// Number of the batch behind the last one believed, if that batch was cut off or damaged.
    pub damaged: Option<u64>,
    /// Set if that batch was acknowledged, so it was not cut off but damaged (docs/FORMAT.md §11).
    pub lost: Option<Lost>,
    /// Set if batches need a newer superblock than the one in use: the generation that they call
    /// durable. They are not replayed.
    pub newer: Option<u64>,
    /// The mount option `rescue=log` gave up what `lost` says, or `rescue=older` did.
    pub given_up: bool,
    /// The mount option `rescue=older` gave up what `newer` says.
    pub older: bool,
}

/// Acknowledged batches that replay cannot read.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// Log position of the first one, which is damaged.
    pub pos: u64,
    /// Its number.
    pub seq: u64,
    /// Number of the newest batch found behind it. Equals `seq` if a block at `pos` cannot be read
    /// and nothing is behind it; then it is not certain that there was a batch at all.
    pub newest: u64,
}

impl Lost {
    /// The least number of batches that are affected.
    pub fn batches(&self) -> u64 {
        self.newest.saturating_sub(self.seq).saturating_add(1)
    }
}

impl Replayed {
    /// Must the log continue behind a gap of sequence numbers? Also after a batch that was only
    /// damaged: a new batch of the same number in its place would make old batches behind it part
    /// of the new log.
    pub fn changes(&self) -> bool {
        let newer = self.newer.is_some();
        self.batches > 0 || self.disbelieved || self.damaged.is_some() || newer
    }

    /// The reason why the mount must be read-only, if it must.
    pub fn forbids(&self) -> Option<MountError> {
        let reason = if self.newer.is_some() && !self.older {
            "the log belongs to a newer superblock than any that is there (see the kernel log); mount with -o ro to see the older state, or with -o rescue=older to go on from it"
        } else if self.lost.is_some() && !self.given_up {
            "the log is damaged before its end, so fsyncs are lost (see the kernel log); run fsck.ordofs, mount with -o ro to see what is there, or with -o rescue=log to go on without them"
        } else {
            return None;
        };
        Some(MountError::new(EUCLEAN, reason))
    }
}
