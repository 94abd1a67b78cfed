// SPDX-License-Identifier: GPL-2.0

//! The barrier between operations (shared side) and the moment in which a commit freezes its
//! transaction (exclusive side).
//!
//! # Rule: the commit waits for devices, the barrier never
//!
//! While the barrier is closed no operation begins, so the task that closes it must not wait for a
//! device. Two things ensure that:
//!
//! - The code under the exclusive side takes no lock that is held across a read from the device:
//!   neither an inode's `maps`, `dir` or `xattr` nor the lock of an allocation group. Nor does it
//!   do anything for each of them: it takes a short and bounded time ([`crate::engine::txn::commit`]).
//! - The commit gives up closing when it takes long *because of a read*. An operation inside may be
//!   reading a node, or waiting for a lock; the holder of that lock may be reading one, inside the
//!   barrier or outside. It is enough to know that some node is being read ([`Reads`]): without a
//!   read the operations inside leave by themselves. With one they get a short grace period, since
//!   most reads delay no operation. If one is still inside after that, the barrier opens again. The
//!   commit then waits until no node is being read, but no longer than a pause that doubles with
//!   each attempt. So a read that takes a second costs the other operations a few milliseconds of
//!   that second.
//!
//! A commit does not wait for ever: an operation that reads inside the barrier makes nodes dirty,
//! and above a number of dirty nodes no operation begins before a commit has ended
//! (`Fs::throttle`). Then the operations inside leave.
//!
//! # Locks
//!
//! The state is one atomic word, and all waiting is on the queue of [`Reads`]. lockdep sees the
//! barrier as the class [`lock_class::BARRIER`].
//!
//! Tests: `tools/engine/tests/slow_reads.rs`, `tools/engine/tests/threads.rs`, and all of
//! `tools/models/tests/rules/main.rs`.

use crate::engine::btree::Reads;
use crate::engine::lock_class;
use crate::os::atomic::{AtomicU64, Ordering};
use crate::os::{LockMap, Shared};
use kernel::prelude::*;

/// The bit of [`Barrier`]'s state that is set while it is closed.
const CLOSED: u64 = 1 << 63;
/// How long operations may take to leave while a node is being read.
const GRACE_MS: u64 = 2;
/// The longest pause between two attempts to close the barrier.
const MAX_PAUSE_MS: u64 = 128;

/// The barrier between operations (shared) and a commit that freezes its transaction (exclusive).
pub struct Barrier {
    /// The number of operations inside; [`CLOSED`] is set while the barrier is closed.
    state: AtomicU64,
    /// The reads of nodes. Their queue serves the barrier as well, because a commit that closes it
    /// waits for either.
    reads: Shared<Reads>,
    map: LockMap,
}

impl Barrier {
    /// An open barrier without operations inside.
    pub fn new(reads: Shared<Reads>) -> Result<Self> {
        Ok(Self {
            state: AtomicU64::new(0),
            reads,
            map: LockMap::new(&lock_class::BARRIER)?,
        })
    }

    /// Enters the shared side; waits while the barrier is closed.
    pub(crate) fn enter(&self) {
        self.map.acquire(false);
        loop {
            let cur = self.state.load(Ordering::Acquire);
            if cur & CLOSED != 0 {
                self.reads
                    .queue()
                    .wait_until(|| self.state.load(Ordering::Acquire) & CLOSED == 0);
                continue;
            }
            if self
                .state
                .compare_exchange(cur, cur + 1, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                return;
            }
        }
    }

    /// Leaves the shared side. The last operation to leave a closed barrier wakes the commit.
    pub(crate) fn leave(&self) {
        self.map.release();
        if self.state.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            self.reads.queue().wake_all();
        }
    }

    /// Whether the barrier is closed and no operation is inside.
    fn is_empty(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLOSED
    }

    /// Closes the barrier and waits until no operation is inside. False if a read took too long and
    /// the barrier is open again.
    fn try_close(&self) -> bool {
        let wait = self.reads.queue();
        self.map.acquire(true);
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
        loop {
            wait.wait_until(|| self.is_empty() || self.reads.busy());
            if wait.wait_timeout(GRACE_MS, || self.is_empty()) {
                return true;
            }
            if self.reads.busy() {
                break;
            }
        }
        self.map.release();
        self.state.fetch_and(!CLOSED, Ordering::AcqRel);
        wait.wake_all();
        false
    }

    /// Closes the barrier, in as many attempts as reads make necessary.
    fn close(&self) {
        self.reads.watch(true);
        let mut pause = 1;
        while !self.try_close() {
            self.reads
                .queue()
                .wait_timeout(pause, || !self.reads.busy());
            pause = (pause * 2).min(MAX_PAUSE_MS);
        }
        self.reads.watch(false);
    }

    /// Runs `f` while no operation is inside. The caller holds the commit mutex, so only one task
    /// closes at a time. `f` must not wait for a lock that is held across a read, except as the
    /// last resort of a full disk.
    pub fn exclusive<R>(&self, f: impl FnOnce() -> R) -> R {
        self.exclusive_then(f, |_| false)
    }

    /// As [`Barrier::exclusive`]. If `stay` returns true, the caller is on the shared side when the
    /// barrier opens again, before any other operation can enter.
    pub(crate) fn exclusive_then<R>(
        &self,
        f: impl FnOnce() -> R,
        stay: impl FnOnce(&R) -> bool,
    ) -> R {
        self.close();
        let r = f();
        self.map.release();
        let stay = stay(&r);
        if stay {
            self.map.acquired(false);
        }
        // While the barrier is closed and empty, no other task changes the state.
        self.state.store(u64::from(stay), Ordering::Release);
        self.reads.queue().wake_all();
        r
    }
}
