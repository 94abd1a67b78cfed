// SPDX-License-Identifier: GPL-2.0

//! Homes: the AG in which the files of a directory begin.
//!
//! # Model
//!
//! A new directory, wherever it is, gets the next AG in turn that has at least 7/8 of the free blocks
//! that an AG has on average, and a new file gets the home of its directory. Both are in the inode's record, so
//! they are the same after a remount. So files of one directory lie together, and tasks that write in
//! different directories use different AGs and their locks.
//!
//! That is a hint. A file goes on behind what it has, and one whose home is full is put elsewhere
//! ([`super::find`]). What is free is taken from the records of the AGs, which are those of the last
//! commit. One search looks into a few leaves of the AG tree at most, and then the AG with the most free
//! blocks of these will do; if they cannot be read, it is the next AG.
//!
//! Locks: the turn is an atomic; the AG tree's lock is taken for the look-up.
//!
//! Tests: `tools/engine/tests/homes.rs`.

use super::Space;
use crate::engine::btree::NodeStore;
use crate::engine::format::ag::Sums;
use crate::os::atomic::Ordering;

/// How many leaves of the AG tree are looked into for one home.
const LEAVES: usize = 4;

/// The AGs that a search has seen.
struct Seen {
    /// The one with the most free blocks, and how many AGs behind the first one it is.
    best: u64,
    free: u64,
    behind: u64,
    /// How many there were.
    n: u64,
}

impl Space {
    /// The home of a new directory.
    pub fn next_home(&self, node_store: &NodeStore) -> u32 {
        let count = self.ag_count().max(1);
        let turn = self.next_home.fetch_add(1, Ordering::Relaxed);
        let first = turn % count;
        let mut seen = Seen {
            best: first,
            free: 0,
            behind: 0,
            n: 0,
        };
        let average = self.free.load(Ordering::Relaxed).max(0) as u64 / count;
        let enough = average - average / 8;
        for _ in 0..LEAVES {
            let done = self.see_leaf(node_store, (first + seen.n) % count, enough, &mut seen);
            if done || seen.n >= count {
                break;
            }
        }
        if seen.behind > 0 {
            let next = turn.saturating_add(seen.behind).saturating_add(1);
            self.next_home.fetch_max(next, Ordering::Relaxed);
        }
        u32::try_from(seen.best).unwrap_or(0)
    }

    /// Looks at the records of the AGs from `from` on that are in one leaf. Returns whether the search
    /// is over: one has `enough` free blocks, or the leaf cannot be read.
    fn see_leaf(&self, node_store: &NodeStore, from: u64, enough: u64, seen: &mut Seen) -> bool {
        let before = seen.n;
        let mut found = false;
        let r = self.tree.read().scan_le(node_store, from, |i, record| {
            if i < from {
                return Ok(true);
            }
            let free = Sums::of_record(record).free;
            if free > seen.free {
                (seen.best, seen.free, seen.behind) = (i, free, seen.n);
            }
            seen.n += 1;
            found = free >= enough;
            Ok(!found)
        });
        found || r.is_err() || seen.n == before
    }

    /// The home of a file without a directory.
    pub fn no_home(&self) -> u32 {
        let ag = self.next_home.load(Ordering::Relaxed) % self.ag_count().max(1);
        u32::try_from(ag).unwrap_or(0)
    }

    /// A block of the AG where the search for the next home starts.
    pub fn data_goal(&self) -> u64 {
        self.ag_start(self.no_home().into())
    }
}
