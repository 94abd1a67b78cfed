// SPDX-License-Identifier: GPL-2.0

//! The state that only commits use. The operations are in `engine/txn/commit.rs`.
//!
//! Tests: `tools/engine/tests/crash.rs`, `tools/engine/tests/superblocks.rs`.

use crate::engine::alloc::deferred::Deferred;
use crate::engine::btree::Tree;
use crate::engine::format::Superblock;
use kernel::prelude::*;

/// State that only commits change, under the commit mutex (`Fs::commit`).
pub struct CommitState {
    /// The orphan tree: inodes without names, and inodes with a truncation under way.
    pub orphans: Tree,
    /// What the newest commit has put into the deferred tree.
    pub deferred: Deferred,
    /// The superblock of the newest commit.
    pub sb: KBox<Superblock>,
    /// The generation of the next commit.
    pub next: u64,
    /// The number of blocks that the filesystem has from the next commit on, if it grows.
    pub grow: Option<u64>,
    /// The next commit counts this mount in the superblock.
    pub count_mount: bool,
}
