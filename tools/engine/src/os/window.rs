// SPDX-License-Identifier: GPL-2.0

//! The windows of races, in which a debug build of the module can hold a task
//! (`rust/fs/os/window.rs`). In user space no task is held; under the model checker they are points
//! where the schedule may switch threads.

use kernel::prelude::*;

/// The windows in the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// R1: between an ordered extent and its extent map.
    OrderedInserted,
    /// R1, R2: a fast fsync has waited and is about to collect.
    FsyncCollect,
    /// R4: between the look without the lock and the second look under it.
    MapWrite,
    /// R6: a node is being read.
    NodeRead,
    /// R6: a node that was read is in the cache, and the reader has not returned it yet.
    NodeCached,
    /// A batch of the log is about to be written.
    LogBatch,
    /// The times of an inode that is being written back are in no transaction yet.
    InodeWrite,
}

/// Called by a task that has come to a window.
#[inline(always)]
pub fn pass(_window: Window) -> Result {
    Ok(())
}
