// SPDX-License-Identifier: GPL-2.0

//! Reads of nodes in progress. The barrier of a commit must not wait for them
//! (`engine/state/barrier.rs`).
//!
//! A reader may hold locks of the engine. Counter and flag are atomics in sequential consistency:
//! either the commit sees a read, or the reader sees that a commit watches.
//!
//! Tests: `tools/engine/tests/slow_reads.rs`, and the models of `tools/models/tests/rules/main.rs`.

use crate::os::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::os::WaitQueue;
use kernel::prelude::*;

/// The reads of nodes in progress, of all tasks.
pub struct Reads {
    now: AtomicU64,
    /// A commit has to be woken when a read begins and when the last one ends.
    watched: AtomicBool,
    wait: WaitQueue,
}

/// A read in progress, until it is dropped.
pub struct Reading<'a>(&'a Reads);

impl Reads {
    /// No reads.
    pub fn new() -> Result<Self> {
        Ok(Self {
            now: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            wait: WaitQueue::new()?,
        })
    }

    /// Begins a read, which ends when the result is dropped.
    pub fn begin(&self) -> Reading<'_> {
        // Either the commit sees this read, or this task sees that the commit watches.
        self.now.fetch_add(1, Ordering::SeqCst);
        if self.watched.load(Ordering::SeqCst) {
            self.wait.wake_all();
        }
        Reading(self)
    }

    /// Sets whether a commit has to be woken by reads.
    pub fn watch(&self, on: bool) {
        self.watched.store(on, Ordering::SeqCst);
    }

    /// The queue that a beginning read, or the end of the last one, wakes while a commit watches.
    pub fn queue(&self) -> &WaitQueue {
        &self.wait
    }

    /// Whether a node is being read.
    pub fn busy(&self) -> bool {
        self.now.load(Ordering::SeqCst) != 0
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let reads = self.0;
        if reads.now.fetch_sub(1, Ordering::SeqCst) == 1 && reads.watched.load(Ordering::SeqCst) {
            reads.wait.wake_all();
        }
    }
}
