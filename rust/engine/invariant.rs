// SPDX-License-Identifier: GPL-2.0

//! Internal invariants: what the engine relies on, whatever is on the disk.
//!
//! An invariant that does not hold is a bug of the engine. It is reported by its name, with the place
//! that found it, and the caller gets an error, which ends what it was about to do. A debug build stops
//! there. What a damaged disk can bring about is no invariant: see [`crate::engine::format::corrupt`].
//!
//! Invariants of what is on the disk are asserted in pairs: before it is written ([`check`]) and, as a
//! check of the format, after it is read:
//!
//! | before it is written | after it is read |
//! |---|---|
//! | [`Invariant::FreeCount`], by each commit | mounting compares the superblock with the AG tree |
//! | [`Invariant::Generation`], [`Invariant::Slot`], by each commit | `format/slots.rs` judges the other slot |
//! | [`Invariant::LogGeneration`], by each batch | replay refuses a batch of a later transaction |
//! | [`Invariant::LogPosition`], by each batch | replay follows positions and numbers |
//!
//! Test: tools/crash/tests/invariants.rs.
//!
//! # Cost
//!
//! An assertion costs a comparison, and that of the free counts one for each allocation group and commit.

use core::fmt::Arguments;
use core::panic::Location;
use core::sync::atomic::{AtomicU64, Ordering};
use kernel::prelude::*;

/// What is relied on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invariant {
    /// The shape of a tree in memory: children are there where they are needed, and fit.
    TreeShape,
    /// Ranges of file blocks in one map do not overlap.
    Ranges,
    /// A container has what its owner put there.
    Contents,
    /// Before a superblock is written: it counts as many free blocks as the AG tree. When the commit has
    /// ended, in each allocation group: free = free on disk - busy - allocated by the running transaction - free
    /// on disk in bad AGs.
    FreeCount,
    /// A transaction uses no more than it has reserved.
    Reservation,
    /// When nothing is under way: unreserved + pool + reserved for the next commit = free. What else was reserved
    /// was allocated or given back.
    Reserved,
    /// The generation of a commit is the one that was to come: the last one + 1, but for mounts that skip some.
    Generation,
    /// A commit writes into the slot that the newest superblock is not in.
    Slot,
    /// A commit gives addresses to as many nodes as it took blocks for.
    NodeBlocks,
    /// An inode that was due for a snapshot has one.
    Snapshot,
    /// A batch of the log has no record of a transaction after the one that runs beside a commit.
    LogGeneration,
    /// Nothing else moves the end of the log while a batch is written.
    LogPosition,
    /// A block of the log holds what it was made for.
    LogBlock,
    /// R1: after fsync has waited, no older write is in flight.
    R1,
    /// A name does not change while its directory is locked.
    Name,
}

/// Lets 10 messages a second through: what goes wrong a million times must not fill the log.
pub(crate) struct Limit {
    second: AtomicU64,
    lines: AtomicU64,
}

impl Limit {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self {
            second: AtomicU64::new(0),
            lines: AtomicU64::new(0),
        }
    }

    /// May one more be printed?
    pub(crate) fn allows(&self) -> bool {
        let now = crate::os::uptime();
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.lines.store(0, Ordering::Relaxed);
        }
        self.lines.fetch_add(1, Ordering::Relaxed) < 10
    }
}

/// Reports a broken invariant; the error is for the caller to return. A debug build stops.
#[cold]
#[track_caller]
pub fn broken(which: Invariant, what: Arguments<'_>) -> Error {
    static LIMIT: Limit = Limit::new();
    let at = Location::caller();
    if LIMIT.allows() {
        pr_err!(
            "broken invariant {:?} ({}:{}): {}\n",
            which,
            at.file(),
            at.line(),
            what
        );
    }
    #[cfg(ordofs_mutants)]
    REPORTED.with(|c| c.set(Some(which)));
    debug_assert!(
        false,
        "broken invariant {which:?} ({}:{}): {what}",
        at.file(),
        at.line()
    );
    EUCLEAN
}

/// Does the invariant hold? See [`broken`] for what happens if it does not.
#[inline]
#[track_caller]
pub fn check(which: Invariant, holds: bool, what: Arguments<'_>) -> Result {
    if holds && !planted(which) {
        return Ok(());
    }
    Err(broken(which, what))
}

#[cfg(not(ordofs_mutants))]
#[inline(always)]
fn planted(_which: Invariant) -> bool {
    false
}

#[cfg(ordofs_mutants)]
std::thread_local! {
    static PLANTED: core::cell::Cell<Option<Invariant>> = const { core::cell::Cell::new(None) };
    static REPORTED: core::cell::Cell<Option<Invariant>> = const { core::cell::Cell::new(None) };
}

#[cfg(ordofs_mutants)]
fn planted(which: Invariant) -> bool {
    PLANTED.with(|c| c.get() == Some(which))
}

/// From now on this invariant does not hold where this thread checks it (`None`: all hold), to prove that it
/// is checked, and reported.
#[cfg(ordofs_mutants)]
pub fn plant(which: Option<Invariant>) {
    PLANTED.with(|c| c.set(which));
}

/// The broken invariant that this thread has reported last.
#[cfg(ordofs_mutants)]
pub fn reported() -> Option<Invariant> {
    REPORTED.with(|c| c.get())
}
