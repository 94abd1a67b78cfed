// SPDX-License-Identifier: GPL-2.0

//! The page cache of regular files. Fills `struct address_space_operations` and iomap's tables.
//!
//! # Model
//!
//! The page cache, direct I/O and writeback are the kernel's iomap code; it asks the filesystem for mappings
//! ([`Extent`]), and hands it unsubmitted writes ([`WriteIoend`]).
//!
//! All offsets and lengths here are bytes, and multiples of the block size where not said otherwise.
//!
//! # Rules
//!
//! R3 (faults exclude layout changes): functions that change what blocks a file has need a
//! [`LayoutLock`](crate::vfs::object::page_cache::LayoutLock), and page faults hold the shared side (`fault`).
//! R5 (cached mappings expire): an [`Extent`] carries a cookie, and iomap uses an extent after a lock
//! was dropped only when [`MappingOperations::is_current`] says so with the folio locked.

use kernel::error::VTABLE_DEFAULT_ERROR;
use kernel::prelude::*;

use crate::vfs::ioend::operations::IoendOperations;
use crate::vfs::ioend::write::WriteIoend;
use crate::vfs::object::inode::Inode;
use crate::vfs::object::memory::PageSlice;

/// What a range of a file is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ExtentKind {
    /// Nothing: reads as zeroes.
    Hole,
    /// Dirty in the page cache, with space reserved and no address yet.
    Delalloc,
    /// Allocated and never written: reads as zeroes.
    Unwritten,
    /// Allocated and written.
    Written,
}

/// A range of a file that is of one kind and, if it has an address, contiguous on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Offset in the file.
    pub(crate) pos: u64,
    /// Length, not zero.
    pub(crate) len: u64,
    /// Kind.
    pub(crate) kind: ExtentKind,
    /// Offset on the device; of `Unwritten` and `Written`.
    pub(crate) addr: u64,
    /// R5: changes when any extent of the file changes.
    pub(crate) cookie: u64,
}

/// A range that was made writable through the page cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteExtent {
    /// `Delalloc` or `Unwritten`.
    pub(crate) map: Extent,
    /// Written blocks that are replaced.
    pub(crate) source: Option<Extent>,
    /// Nothing was there before.
    pub(crate) new: bool,
}

/// What the page cache needs. `pos` is the first byte; `len` is a hint how much is wanted. A method with a default
/// is left out of what the kernel's table does where it is left out here.
#[vtable]
pub(crate) trait MappingOperations: IoendOperations {
    /// What reads find on disk.
    fn map_read(inode: &Inode<Self>, pos: u64, len: u64) -> Result<Extent>;
    /// What there is, with delayed allocations, for reports (`SEEK_DATA`, fiemap, writeback).
    fn map_report(inode: &Inode<Self>, pos: u64, len: u64) -> Result<Extent>;
    /// Makes a range writable through the page cache.
    fn map_write(inode: &Inode<Self>, pos: u64, len: u64) -> Result<WriteExtent>;
    /// R5: whether extents with this cookie are still true. Called with a folio locked.
    fn is_current(inode: &Inode<Self>, cookie: u64) -> bool;
    /// Gives back delayed allocations that no dirty page needs. Called with a folio locked.
    fn release_delalloc(inode: &Inode<Self>, pos: u64, len: u64);
    /// R2: memory is short: forget what need not be kept about the range. Called with a folio locked, by
    /// reclaim: must not wait for a lock.
    fn release_maps(_inode: &Inode<Self>, _pos: u64, _len: u64) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reads a range of blocks into a locked folio and checks them.
    fn read_range(inode: &Inode<Self>, pos: u64, data: &mut PageSlice<'_>) -> Result;
    /// Runs `f`, which turns dirty pages into writes in flight.
    fn while_submitting<R>(inode: &Inode<Self>, f: impl FnOnce() -> R) -> R;
    /// Gives addresses to the blocks of a write and submits it. Folio locks may be held.
    fn submit_write(ioend: WriteIoend<'_, Self>);
}
