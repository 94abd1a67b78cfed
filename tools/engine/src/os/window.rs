// SPDX-License-Identifier: GPL-2.0

//! The places where the kernel's debug build can hold a task (`rust/vfs/window.rs`). In user space
//! no task is held; under the model checker they are points where the schedule may turn.

use kernel::prelude::*;

/// The engine's places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// R1: between an ordered extent and its extent map.
    OrderedInserted,
    /// R1, R2: a fast fsync has waited and is about to collect.
    FsyncCollect,
    /// R4: between the two looks.
    MapWrite,
    /// R6: a node is being read.
    NodeRead,
    /// R6: a node that was read is in the cache, and its reader has not yet got it.
    NodeCached,
    /// A batch of the log is about to be written.
    LogBatch,
    /// The times of an inode that is being written back are not yet in a transaction.
    InodeWrite,
}

/// A task has come to a place.
#[inline(always)]
pub fn pass(_window: Window) -> Result {
    Ok(())
}
