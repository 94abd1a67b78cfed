// SPDX-License-Identifier: GPL-2.0

//! Where an inode is between a change and the commit that makes it durable.
//!
//! The transactions of a mount have lists of dirty inodes, which are numbered ([`DirtyLists`]). A
//! commit takes the running list whole and changes nothing in the inodes on it: an inode only knows
//! the number of the list that it was put on last, and compares.
//!
//! | state | `on` | `taken` | `done` |
//! |---|---|---|---|
//! | clean | l | l | l |
//! | on the running list n | n | l | l |
//! | frozen: n + 1 is the running list, and the snapshot is *due* | n | l | l |
//! | the snapshot has been taken | n | n | l |
//! | changed again meanwhile | n + 1 | n | l |
//! | its commit has ended | n (or n + 1) | n | n |
//!
//! Locks: `on` changes under the lock of the running list, `taken` under `Inode.snap`, and `done` is
//! changed by the commit alone. The number of the running list does not change inside the barrier.
//!
//! [`DirtyLists`]: crate::engine::state::dirty::DirtyLists
//!
//! Tests: `tools/engine/tests/slow_reads.rs`, `tools/engine/tests/threads.rs`,
//! `tools/engine/tests/crash.rs`, `tools/engine/tests/inode_cache.rs`.

use crate::os::atomic::{AtomicU64, Ordering};

/// The numbers of three lists of dirty inodes, or 0.
pub(crate) struct Listed {
    /// The list that the inode was put on last.
    on: AtomicU64,
    /// The list for whose commit the last snapshot was taken.
    taken: AtomicU64,
    /// The list whose commit put the inode's record into the inode tree last.
    done: AtomicU64,
}

impl Listed {
    /// A clean inode.
    pub(super) fn new() -> Self {
        Self {
            on: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }

    /// Whether the inode is on this list.
    pub(crate) fn is_on(&self, list: u64) -> bool {
        self.on.load(Ordering::Acquire) == list
    }

    /// The inode is on this list now; the task holds the lock of the list.
    pub(crate) fn put_on(&self, list: u64) {
        self.on.store(list, Ordering::Release);
    }

    /// Whether a commit still needs the snapshot of the inode; `running` is the number of the
    /// running list. An answer without `Inode.snap` held may be out of date, but only if it is
    /// `true`.
    pub(crate) fn is_due(&self, running: u64) -> bool {
        let on = self.on.load(Ordering::Acquire);
        on != running && on != self.taken.load(Ordering::Acquire)
    }

    /// The snapshot of a due inode has been taken; the task holds `Inode.snap`.
    pub(crate) fn set_taken(&self) {
        let on = self.on.load(Ordering::Acquire);
        self.taken.store(on, Ordering::Release);
    }

    /// The commit for which the last snapshot was taken has put the record into the inode tree.
    pub(crate) fn set_done(&self) {
        let taken = self.taken.load(Ordering::Acquire);
        self.done.store(taken, Ordering::Release);
    }

    /// Whether the inode is on the running list, or on that of a commit under way.
    pub(crate) fn is_dirty(&self) -> bool {
        self.on.load(Ordering::Acquire) != self.done.load(Ordering::Acquire)
    }
}
