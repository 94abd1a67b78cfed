// SPDX-License-Identifier: GPL-2.0

//! The barrier between operations (shared side) and the snapshot of a commit (exclusive side).
//!
//! # Rule: at most the commit waits for a device, never the barrier
//!
//! While the barrier is closed, no operation begins; what closes it must therefore never wait for a
//! device. Two things see to that:
//!
//! - What runs under the exclusive side takes no lock that is held across a read from the device: not an
//!   inode's `maps`, `dir` or `xattr`, and not an allocation group's. It only marks what the commit has to
//!   take ([`crate::engine::txn::commit`]).
//! - Closing is given up when it takes long *because of a read*. An operation inside may read a node, or
//!   wait for a lock whose holder reads one, whether that is inside or not. It is enough to know that some
//!   node is being read ([`Reads`]): without one, those inside leave by themselves. With one, they get a
//!   moment, since most reads hold up nobody. If they are still there after it, the barrier opens again,
//!   and the commit waits, at first until nothing is read, and at most for a pause that doubles with each
//!   attempt. So a device that needs a second for one read costs everybody else a few milliseconds of
//!   that second.
//!
//! A commit cannot wait for ever: an operation inside that reads makes nodes dirty, and above a number of
//! dirty nodes no operation begins before a commit has ended (`Fs::throttle`). Then those inside leave.

use crate::engine::btree::Reads;
use crate::engine::lock_class;
use crate::os::atomic::{AtomicU64, Ordering};
use crate::os::{LockMap, Shared};
use kernel::prelude::*;

const CLOSED: u64 = 1 << 63;
/// How long those inside may take to leave while a node is being read.
const GRACE_MS: u64 = 2;
/// The longest pause between two attempts to close the barrier.
const MAX_PAUSE_MS: u64 = 128;

/// The barrier between operations (shared) and the snapshot of a commit (exclusive).
pub struct Barrier {
    /// The number of operations inside, and whether it is closed.
    state: AtomicU64,
    /// Its queue is the barrier's as well: a commit that closes it waits for either.
    reads: Shared<Reads>,
    map: LockMap,
}

impl Barrier {
    /// Open, nobody inside.
    pub fn new(reads: Shared<Reads>) -> Result<Self> {
        Ok(Self {
            state: AtomicU64::new(0),
            reads,
            map: LockMap::new(&lock_class::BARRIER)?,
        })
    }

    /// Enters; waits while it is closed.
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

    /// Leaves.
    pub(crate) fn leave(&self) {
        self.map.release();
        if self.state.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            self.reads.queue().wake_all();
        }
    }

    /// Closed, and nobody inside.
    fn is_empty(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLOSED
    }

    /// Closes it and waits until nobody is inside; false if it had to be opened again, because of a read.
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

    /// Runs `f` while no operation is inside. Only one caller at a time (the commit mutex). Unless it is
    /// the last resort of a full disk, `f` waits for no lock that is held across a read.
    pub fn exclusive<R>(&self, f: impl FnOnce() -> R) -> R {
        self.exclusive_then(f, |_| false)
    }

    /// [`Barrier::exclusive`]; where `stay` says so, the caller is inside when it opens again, before
    /// any other operation can be.
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
        // Closed and empty, it is changed by nobody else.
        self.state.store(u64::from(stay), Ordering::Release);
        self.reads.queue().wake_all();
        r
    }
}
