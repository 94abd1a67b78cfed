// SPDX-License-Identifier: GPL-2.0

//! Reads of nodes in progress: what the barrier of a commit must not wait for (`engine/state/barrier.rs`).

use crate::os::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::os::WaitQueue;
use kernel::prelude::*;

/// Reads of nodes in progress, by anybody. A reader may hold locks of the engine.
pub struct Reads {
    now: AtomicU64,
    /// A commit wants to know when one begins, and when the last one ends.
    watched: AtomicBool,
    wait: WaitQueue,
}

/// A read in progress.
pub struct Reading<'a>(&'a Reads);

impl Reads {
    /// None.
    pub fn new() -> Result<Self> {
        Ok(Self {
            now: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            wait: WaitQueue::new()?,
        })
    }

    /// A read begins; it ends when the result is dropped.
    pub fn begin(&self) -> Reading<'_> {
        // Either the commit sees this read, or this task sees that the commit watches.
        self.now.fetch_add(1, Ordering::SeqCst);
        if self.watched.load(Ordering::SeqCst) {
            self.wait.wake_all();
        }
        Reading(self)
    }

    /// A commit wants to know of reads, or no longer.
    pub fn watch(&self, on: bool) {
        self.watched.store(on, Ordering::SeqCst);
    }

    /// The queue that is woken when a read begins or the last one ends.
    pub fn queue(&self) -> &WaitQueue {
        &self.wait
    }

    /// Is a node being read?
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
