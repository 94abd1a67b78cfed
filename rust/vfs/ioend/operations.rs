// SPDX-License-Identifier: GPL-2.0

//! What a filesystem does for its data I/O in flight.

use kernel::prelude::*;

use crate::vfs::object::inode::Inode;
use crate::vfs::object::memory::{BlockData, PageSlice};
use crate::vfs::object::probe::Probes;
use crate::vfs::os::workqueue::IoQueues;

/// The filesystem's part of an ioend. Methods run in process context and may sleep, except where said
/// otherwise.
///
/// `pos` is an offset in the file and `addr` one on the device, both in bytes and multiples of the block size.
pub(crate) trait IoendOperations: Probes {
    /// What stands for a write in flight.
    type Write: Send;

    /// The queues for completions. Any context.
    fn io(&self) -> &IoQueues;

    /// The I/O of a write has ended. `reach` is the offset in the file to which its data reaches. In the queue
    /// for writes.
    fn write_ended(inode: &Inode<Self>, write: Self::Write, reach: u64, status: Result) -> Result;
    /// The data of dirty pages of the range cannot be written, and the pages will be clean. Gives the
    /// delayed allocations back. Called with a folio locked or under writeback.
    fn lose_dirty(inode: &Inode<Self>, pos: u64, len: u64, error: Error);

    /// The checksum of a block.
    fn checksum(block: BlockData<'_>) -> u32;
    /// Compares the checksums of blocks that were read from `addr` on for the file offsets from `pos`
    /// on. Returns how many are good before the first that is not, which is for
    /// [`IoendOperations::check_block`].
    fn check_run(inode: &Inode<Self>, pos: u64, addr: u64, sums: &[u32]) -> Result<usize>;
    /// Checks one block that was read from `addr` for the file offset `pos`. If it is not there any
    /// more, reads it again from where it is.
    fn check_block(inode: &Inode<Self>, pos: u64, addr: u64, data: &mut PageSlice<'_>) -> Result;
}
