// SPDX-License-Identifier: GPL-2.0

//! Windows of races, held open for tests.
//!
//! # Model
//!
//! A race is between two steps of a task, and whether it happens is a matter of luck. In builds with
//! `ordofs_debug` a task that comes to such a place can be made to wait there, or to fail, so that a test
//! does not need luck: `/sys/fs/ordofs/<device>/errortag/<window>`, see `errortag`. In other builds
//! this is nothing: no code, no data, no names.

/// The places.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Window {
    /// R1: an ordered extent has been inserted, its extent map has not. Both locks are held.
    OrderedInserted = 0,
    /// R1: a data write has its blocks, its mapping can be seen, and nothing was sent to the device.
    /// An error is that of the I/O.
    DataIo = 1,
    /// R1, R2: a fast fsync has waited for ordered extents and is about to collect extent maps.
    FsyncCollect = 2,
    /// R3: the pages of a range have been dropped, its blocks are still there.
    PagesDropped = 3,
    /// R4: the first look found no delalloc, space is reserved, the second look is to come. Can fail.
    MapWrite = 4,
    /// R5: a mapping for a write has been looked up, the folio is not yet locked.
    Mapped = 5,
    /// R6: a node is being read; its marker is in the cache. Can fail.
    NodeRead = 6,
    /// R6: a node that was read is in the cache, and its reader has not yet got it.
    NodeCached = 7,
    /// A batch of the log is about to be written. Can fail.
    LogBatch = 8,
    /// An inode is being written back: the VFS takes it for clean, and its times are not yet in a
    /// transaction. Can fail.
    InodeWrite = 9,
}
