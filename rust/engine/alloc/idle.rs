// SPDX-License-Identifier: GPL-2.0

//! The table of the AGs in memory, which drops idle ones. [`super`] says which lock it is under, and
//! `table.rs` what is in it.
//!
//! Tests: `tools/engine/tests/sizes.rs`, `tools/engine/tests/full_disk.rs`.

use super::ag::Ag;
use crate::os::{Map, Mutex, Shared};

/// How many idle AGs stay in memory.
const MAX_IDLE: usize = 256;
/// How many AGs are looked at for one that may leave when another one enters.
const LOOK_AT: usize = 8;

/// The AGs in memory, by number.
pub(super) struct Table {
    pub(super) ags: Map<u64, Shared<Mutex<Ag>>>,
    /// Where the search for an idle AG goes on.
    hand: u64,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            ags: Map::new(),
            hand: 0,
        }
    }

    /// Before another AG enters: drops idle ones if there are too many.
    pub(super) fn make_room(&mut self) {
        self.trim(LOOK_AT);
    }

    /// Drops all idle AGs that are too many.
    pub(super) fn trim_all(&mut self) {
        self.trim(self.ags.len());
    }

    /// Drops idle AGs as long as there are too many: looks at `look_at` of them.
    fn trim(&mut self, look_at: usize) {
        for _ in 0..look_at {
            if self.ags.len() <= MAX_IDLE {
                return;
            }
            let from = self.hand;
            let next = self.ags.first_ge(from).or_else(|| self.ags.first());
            let Some(i) = next.map(|(i, _)| i) else {
                return;
            };
            self.hand = i + 1;
            let idle = self.ags.get_mut(&i).and_then(Shared::get_mut);
            // No task has a reference, so the lock is free.
            let idle = idle.is_some_and(|ag| ag.try_lock().is_some_and(|ag| ag.is_idle()));
            if idle {
                self.ags.remove(&i);
            }
        }
    }
}
