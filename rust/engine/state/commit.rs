// SPDX-License-Identifier: GPL-2.0

//! The state that only commits use. The operations are in `engine/txn/commit.rs`.
//!
//! Tests: `tools/engine/tests/crash.rs`, `tools/engine/tests/superblocks.rs`.

use crate::engine::alloc::deferred::Deferred;
use crate::engine::btree::Tree;
use crate::engine::format::Superblock;
use kernel::prelude::*;

/// Nodes that a commit writes anew, because they have a copy where the filesystem will end.
#[derive(Default)]
pub struct Touch {
    /// Keys of the inode tree.
    pub inodes: KVec<u64>,
    /// Keys of the orphan tree.
    pub orphans: KVec<u64>,
    /// AGs.
    pub ags: KVec<u64>,
}

/// What a commit does besides, for a resize.
pub enum Job {
    /// The filesystem has more blocks from then on: this many.
    Grow(u64),
    /// It has fewer.
    Shrink(u64),
    /// Nodes are moved.
    Touch(Touch),
}

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
    /// What the next commit does besides.
    pub job: Option<Job>,
    /// Why the last commit with a job for another size did not do it.
    pub refused: Option<Error>,
    /// In how many groups the commit under way may free closed blocks of the deferred tree.
    pub drain: u64,
    /// The next commit counts this mount in the superblock.
    pub count_mount: bool,
}
