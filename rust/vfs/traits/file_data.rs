// SPDX-License-Identifier: GPL-2.0

//! What a filesystem does for the data of its regular files.
//!
//! # Model
//!
//! [`FileData`] is the data half of [`FileSystem`]. The page cache, direct I/O and writeback are the
//! kernel's iomap code; it asks the filesystem for mappings ([`Extent`]), hands it unsubmitted writes
//! ([`WriteIoend`]) and read blocks ([`PageSlice`]), and tells it when a write has ended.
//!
//! All offsets and lengths here are bytes, and multiples of the block size where not said otherwise.
//!
//! # Rules
//!
//! R3 (faults exclude layout changes): functions that change what blocks a file has want a
//! [`LayoutLock`](crate::vfs::object::page_cache::LayoutLock), and page faults hold the shared side (`fault`).
//! R5 (cached mappings expire): an [`Extent`] carries a cookie, and iomap uses an extent after a lock
//! was dropped only when [`FileData::is_current`] says so with the folio locked.

use kernel::prelude::*;

use crate::bindings;
use crate::vfs::ioend::{BlockData, PageSlice, WriteIoend};
use crate::vfs::object::iocb::{Destination, Iocb, OpenFile, Source};
use crate::vfs::os::workqueue::IoQueues;
use crate::vfs::{table::address_space, table::file_ops, FileSystem, Inode, Locked};

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

/// Answer to a request to make a range writable through the page cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteExtent {
    /// `Delalloc` or `Unwritten`.
    pub(crate) map: Extent,
    /// Written blocks that are replaced.
    pub(crate) source: Option<Extent>,
    /// Nothing was there before.
    pub(crate) new: bool,
}

/// What fallocate is asked for. Offset and length are in bytes, of any alignment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Allocate {
    /// Allocate what is a hole.
    Reserve,
    /// Make a hole; the size stays.
    Punch,
    /// Make the range read as zeroes, and allocate it.
    Zero,
}

/// The data half of a filesystem.
///
/// Methods run in process context and may sleep, except where said otherwise.
pub(crate) trait FileData: FileSystem {
    /// What stands for a write in flight.
    type Write: Send;

    /// The queues for completions.
    fn io(&self) -> &IoQueues;

    /// The superblock is going away and no inode is left: wait for completions.
    fn drain(&self) {
        self.io().flush();
    }

    /// The inode is about to be evicted; its pages are still there.
    fn evicting(_inode: &Inode<Self>) {}

    // Mappings. `pos` is the first byte; `len` is a hint how much is wanted.

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
    /// The data of dirty pages of the range cannot be written, and the pages will be clean. Gives the
    /// delayed allocations back. Called with a folio locked or under writeback.
    fn lose_dirty(inode: &Inode<Self>, pos: u64, len: u64, error: Error);
    /// R2: memory is short: forget what need not be kept about the range. Called with a folio locked, by
    /// reclaim: must not wait for a lock.
    fn release_maps(inode: &Inode<Self>, pos: u64, len: u64);

    // I/O.

    /// Runs `f`, which turns dirty pages into writes in flight.
    fn while_submitting<R>(inode: &Inode<Self>, f: impl FnOnce() -> R) -> R;
    /// Gives addresses to the blocks of a write and submits it. Folio locks may be held.
    fn submit_write(ioend: WriteIoend<'_, Self>);
    /// The I/O of a write has ended. `reach` is the offset in the file to which its data reaches.
    fn write_ended(inode: &Inode<Self>, write: Self::Write, reach: u64, status: Result) -> Result;
    /// The checksum of a block.
    fn checksum(block: BlockData<'_>) -> u32;
    /// Compares the checksums of blocks that were read from `addr` on for the file offsets from `pos`
    /// on. Returns how many are good before the first that is not, which is for
    /// [`FileData::check_block`].
    fn check_run(inode: &Inode<Self>, pos: u64, addr: u64, sums: &[u32]) -> Result<usize>;
    /// Checks one block that was read from `addr` for the file offset `pos`. If it is not there any
    /// more, reads it again from where it is.
    fn check_block(inode: &Inode<Self>, pos: u64, addr: u64, data: &mut PageSlice<'_>) -> Result;
    /// Reads a range of blocks into a locked folio and checks them.
    fn read_range(inode: &Inode<Self>, pos: u64, data: &mut PageSlice<'_>) -> Result;

    // Files.

    /// `read(2)`. `Err(EIOCBQUEUED)`: the result comes later.
    fn read_iter(iocb: &mut Iocb<'_, Self>, to: &mut Destination<'_>) -> Result<usize>;
    /// `write(2)`; as above.
    fn write_iter(iocb: &mut Iocb<'_, Self>, from: &mut Source<'_>) -> Result<usize>;
    /// A direct write that goes beyond `i_size`, to `end`, has ended, with this status; `i_size` has to
    /// grow if it is good.
    fn direct_write_grew(inode: &Locked<'_, Self>, end: u64, status: Result) -> Result;
    /// `fsync(2)`, for bytes `start..=end`.
    fn fsync(file: &OpenFile<Self>, start: i64, end: i64, datasync: bool) -> Result;
    /// `fallocate(2)`.
    fn fallocate(
        file: &OpenFile<Self>,
        what: Allocate,
        keep_size: bool,
        pos: u64,
        len: u64,
    ) -> Result;
    /// `truncate(2)`: `setattr_prepare` was called.
    fn set_size(inode: &Locked<'_, Self>, size: u64) -> Result;
}

/// Sets the operations of a regular file and the properties of its page cache.
///
/// # Safety
///
/// `inode` is a new inode of a superblock of `T` whose data is set.
pub(in crate::vfs) unsafe fn init_regular<T: FileData>(inode: *mut bindings::inode) {
    // SAFETY: The inode is new, so it is ours alone.
    unsafe {
        (*inode).__bindgen_anon_3.i_fop = file_ops::file_operations::<T>();
        let mapping = (*inode).i_mapping;
        (*mapping).a_ops = address_space::address_space_operations::<T>();
        bindings::ordofs_helper_mapping_init(mapping);
    }
}

pub(in crate::vfs) use crate::vfs::table::iomap::fiemap;
