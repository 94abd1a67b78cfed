// SPDX-License-Identifier: GPL-2.0

//! Where commits look for blocks for nodes.
//!
//! # Model
//!
//! There is a search for the first copies of nodes and one for the second copies. A search goes
//! *round*: it takes the free blocks behind its *base*, and when it has taken [`ROUND`] blocks, or
//! four times as many as the last commit if that is more, it begins at the base again. By then the
//! nodes of earlier commits are replaced there, and their blocks are free. So small commits write
//! to the same few MiB again and again.
//!
//! If less than 1/3 of the blocks that a round has come past was free, the next one goes on where
//! it ended, and that is the new base. So a part of the filesystem that fills up with data or with
//! nodes that stay is left, and commits do not look for single blocks there again and again.
//!
//! The places are hints: blocks that are in use, or were freed by a commit that is not durable, are
//! never found (R7).
//!
//! Locks: only commits change it, under the commit mutex. The numbers are atomics, so that it needs
//! no lock of its own.
//!
//! Tests: `tools/engine/tests/reuse.rs`.

use crate::os::atomic::{AtomicU64, Ordering};

/// How many blocks a round takes, at least. 4 MiB.
const ROUND: u64 = 1024;
/// A round takes as many blocks as so many commits: those of two may not be free yet.
const COMMITS: u64 = 4;
/// One of so many blocks must be free where a round goes.
const FREE: u64 = 3;

/// One search.
struct Search {
    /// Where the next commit starts.
    goal: AtomicU64,
    /// Where the next round begins.
    base: AtomicU64,
}

impl Search {
    fn new() -> Self {
        Self {
            goal: AtomicU64::new(0),
            base: AtomicU64::new(0),
        }
    }

    fn start(&self, at: u64) {
        self.goal.store(at, Ordering::Relaxed);
        self.base.store(at, Ordering::Relaxed);
    }

    /// A commit ended before block `end`; the round, too, if it has taken `taken` blocks.
    fn go_on(&self, end: u64, taken: Option<u64>) {
        let base = self.base.load(Ordering::Relaxed);
        match taken {
            None => self.goal.store(end, Ordering::Relaxed),
            Some(n) if end > base && end - base <= n.saturating_mul(FREE) => {
                self.goal.store(base, Ordering::Relaxed)
            }
            // It came past too much that is in use, or to the end of the filesystem.
            Some(_) => self.start(end),
        }
    }
}

/// The searches for nodes.
pub(super) struct NodeSearches {
    first: Search,
    second: Search,
    /// How many blocks the round has taken so far, for first copies.
    taken: AtomicU64,
}

impl NodeSearches {
    pub(super) fn new() -> Self {
        Self {
            first: Search::new(),
            second: Search::new(),
            taken: AtomicU64::new(0),
        }
    }

    /// Where a commit starts to look for first and for second copies.
    pub(super) fn goals(&self) -> (u64, u64) {
        let of = |s: &Search| s.goal.load(Ordering::Relaxed);
        (of(&self.first), of(&self.second))
    }

    /// New rounds begin at these blocks.
    pub(super) fn start(&self, first: u64, second: u64) {
        self.first.start(first);
        self.second.start(second);
        self.taken.store(0, Ordering::Relaxed);
    }

    /// A commit has taken blocks for `nodes` nodes, the last ones before block `first` and, for
    /// second copies, before block `second`.
    pub(super) fn written(&self, nodes: u64, first: u64, second: u64) {
        let taken = self.taken.load(Ordering::Relaxed).saturating_add(nodes);
        let over = taken >= nodes.saturating_mul(COMMITS).max(ROUND);
        self.first.go_on(first, over.then_some(taken));
        self.second.go_on(second, over.then_some(taken));
        let left = if over { 0 } else { taken };
        self.taken.store(left, Ordering::Relaxed);
    }
}
