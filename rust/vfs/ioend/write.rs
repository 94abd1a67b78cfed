// SPDX-License-Identifier: GPL-2.0

//! A write, from the page cache or direct, until it is submitted.
//!
//! Tests: tests/vm/t/041-r1.sh, 048-pinned-pages.sh, 060-data-paths.sh, 063-write-errors.sh.

use core::marker::PhantomData;
use core::{mem, ptr};

use kernel::error::from_err_ptr;
use kernel::prelude::*;

use super::copy::{bio_of_copies, take_mark, COPIES};
use super::finish::finish;
use super::operations::IoendOperations;
use super::write_end::WriteWork;
use crate::bindings;
use crate::vfs::object::block::SECTOR_SHIFT;
use crate::vfs::object::inode::Inode;
use crate::vfs::object::memory::{wait_for_memory, BlockData, PageBuffer};
use crate::vfs::object::number::offset;

/// Where a write comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteFrom {
    /// Dirty folios of the page cache.
    PageCache,
    /// A direct I/O.
    Direct,
}

/// An unsubmitted write, or what is left of one. Dropping it fails the I/O.
///
/// # Invariants
///
/// - `ioend` is null (it was given away), or a valid ioend of ours with a write bio that is not in
///   flight; its inode is of `T`.
/// - `vec` and `done` are a position in the bio's vectors, as they were before it was split.
/// - Every vector is a number of whole blocks.
/// - `sums` are the checksums of the next blocks, and `copies`, if `copied`, are their content.
#[must_use = "dropping a write fails it"]
pub(crate) struct WriteIoend<'a, T: IoendOperations> {
    ioend: *mut bindings::iomap_ioend,
    /// Blocks that have not been submitted.
    left: u64,
    /// First of them.
    block: u64,
    /// Next block to be read by [`WriteIoend::checksums`]: index of the vector, bytes in it.
    vec: usize,
    done: usize,
    sums: KVec<u32>,
    copies: KVec<PageBuffer>,
    copied: bool,
    from: WriteFrom,
    _inode: PhantomData<&'a Inode<T>>,
}

/// Memory for the completion of one part of a write.
pub(crate) struct PreparedWrite<T: IoendOperations> {
    work: KBox<WriteWork<T>>,
}

impl<'a, T: IoendOperations> WriteIoend<'a, T> {
    /// # Safety
    ///
    /// `ioend` is an unsubmitted write of an inode of `T` whose bio covers whole blocks. The ioend
    /// becomes ours.
    pub(in crate::vfs) unsafe fn new(ioend: *mut bindings::iomap_ioend, from: WriteFrom) -> Self {
        // SAFETY: By this function's contract the ioend is unsubmitted and ours.
        let copied = unsafe { take_mark(ioend) };
        // SAFETY: By this function's contract the ioend is valid, and no other task changes it.
        let size = unsafe { (*ioend).io_bio.bi_iter.bi_size };
        // SAFETY: By this function's contract the ioend is valid, and no other task changes it.
        let pos = offset(unsafe { (*ioend).io_offset });
        debug_assert!(pos % T::BLOCK_SIZE == 0 && u64::from(size) % T::BLOCK_SIZE == 0);
        // INVARIANT: By this function's contract; the position is the beginning.
        Self {
            ioend,
            left: u64::from(size) / T::BLOCK_SIZE,
            block: pos / T::BLOCK_SIZE,
            vec: 0,
            done: 0,
            sums: KVec::new(),
            copies: KVec::new(),
            copied,
            from,
            _inode: PhantomData,
        }
    }

    /// The file that is written to.
    pub(crate) fn inode(&self) -> &'a Inode<T> {
        // SAFETY: By the type invariants the ioend is valid and its inode one of `T`, which stays until the ioend
        // is finished.
        unsafe { Inode::from_raw((*self.ioend).io_inode) }
    }

    /// The first block of what is left.
    pub(crate) fn block(&self) -> u64 {
        self.block
    }

    /// How many blocks are left.
    pub(crate) fn blocks(&self) -> u64 {
        self.left
    }

    /// Whether this is direct I/O.
    pub(crate) fn is_direct(&self) -> bool {
        self.from == WriteFrom::Direct
    }

    /// The bio's vectors: the first, and how many.
    fn vecs(&self) -> (*mut bindings::bio_vec, usize) {
        // SAFETY: By the type invariants the ioend is valid and ours.
        let bio = unsafe { &(*self.ioend).io_bio };
        (bio.bi_io_vec, usize::from(bio.bi_vcnt))
    }

    /// The checksums of the first of the blocks that are left: at least one, at most `max`. What they are
    /// of does not change until it is written: folios are under writeback and copied if others may write
    /// to them nevertheless, direct writes have bounce buffers. After an error it may be called again.
    pub(crate) fn checksums(&mut self, max: u64) -> Result<&[u32]> {
        let max = if self.copied { max.min(COPIES) } else { max } as usize;
        let block_size = T::BLOCK_SIZE as usize;
        let (vecs, count) = self.vecs();
        while self.sums.len() < max && self.vec < count {
            // SAFETY: The index is less than the number of vectors.
            let vec = unsafe { vecs.add(self.vec) };
            // SAFETY: The vector is one of the bio's, which is ours.
            let len = unsafe { (*vec).bv_len } as usize;
            if self.done >= len {
                self.vec += 1;
                self.done = 0;
                continue;
            }
            // SAFETY: The vector is one of the bio's; its memory is contiguous in the direct map.
            let address = unsafe { bindings::ordofs_helper_bvec_virt(vec) }.cast::<u8>();
            // SAFETY: `done` is less than the vector's length.
            let address = unsafe { address.add(self.done) };
            // SAFETY: By the type invariants vectors are whole blocks, so the block lies inside of this one. The
            // memory stays with the bio.
            let data = unsafe { BlockData::from_raw(address, block_size) };
            self.sums.reserve(1, GFP_KERNEL)?;
            if self.copied {
                self.copies.reserve(1, GFP_KERNEL)?;
                let copy = data.copy()?;
                let sum = T::checksum(BlockData::of_copy(&copy, block_size));
                self.sums.push(sum, GFP_KERNEL)?;
                self.copies.push(copy, GFP_KERNEL)?;
            } else {
                self.sums.push(T::checksum(data), GFP_KERNEL)?;
            }
            self.done += block_size;
        }
        if self.sums.is_empty() {
            return Err(EIO);
        }
        Ok(self.sums.as_slice())
    }

    /// Forgets the checksums of the first `blocks` blocks, which have been submitted; returns their copies.
    fn taken(&mut self, blocks: u64) -> KVec<PageBuffer> {
        let n = (blocks as usize).min(self.sums.len());
        if !self.copied {
            self.sums.copy_within(n.., 0);
            self.sums.truncate(self.sums.len() - n);
            return KVec::new();
        }
        // What was copied in vain is copied again.
        let mut copies = mem::replace(&mut self.copies, KVec::new());
        copies.truncate(n);
        let mut back = (self.sums.len() - n) * T::BLOCK_SIZE as usize;
        self.sums.clear();
        let (vecs, _) = self.vecs();
        while back > self.done && self.vec > 0 {
            back -= self.done;
            self.vec -= 1;
            // SAFETY: The index is less than the one before, which was at most the number of vectors.
            self.done = unsafe { (*vecs.add(self.vec)).bv_len } as usize;
        }
        self.done = self.done.saturating_sub(back);
        copies
    }

    /// Prepares to submit: what cannot fail any more once the filesystem has started the write.
    pub(crate) fn prepare(&self) -> Result<PreparedWrite<T>> {
        Ok(PreparedWrite {
            work: WriteWork::new()?,
        })
    }

    /// Whether what failed with `error` before the write was started is to be tried again: see the directory's
    /// description. Waits before it says so. A direct write just fails, with nothing lost.
    pub(crate) fn retry(&self, error: Error) -> bool {
        !self.is_direct() && wait_for_memory(error)
    }

    /// Submits the first `blocks` blocks (at least one, at most as many as [`WriteIoend::checksums`] last
    /// returned) to device address `addr`, as the write that `write` stands for. Returns what is left.
    pub(crate) fn submit(
        mut self,
        blocks: u64,
        addr: u64,
        write: T::Write,
        prepared: PreparedWrite<T>,
    ) -> Option<Self> {
        let inode = self.inode();
        let blocks = blocks.min(self.left).min(self.sums.len() as u64);
        let split = self.split(blocks);
        let status = T::data_io(inode);
        let part = match split {
            Ok(part) => part,
            Err(error) => {
                // The write was started, so it is ended, too.
                let _ = T::write_ended(inode, write, 0, Err(error));
                self.fail(error);
                return None;
            }
        };
        let copies = self.taken(blocks);
        if part == self.ioend {
            // The parts keep it: it is finished after the last of them.
            self.ioend = ptr::null_mut();
        } else {
            self.block += blocks;
            self.left -= blocks;
        }
        let mut work = prepared.work;
        work.write = Some(write);
        work.copies = copies;
        // SAFETY: The part is an ioend of an inode of `T` that was ours until here.
        unsafe { send(part, addr, work, status) };
        (!self.ioend.is_null()).then_some(self)
    }

    /// The ioend of the first `blocks` blocks: a new one, or, if nothing is left besides, `self.ioend`.
    fn split(&self, blocks: u64) -> Result<*mut bindings::iomap_ioend> {
        if blocks == 0 {
            // Nothing was checksummed.
            return Err(EIO);
        }
        let max = u32::try_from(blocks * T::BLOCK_SIZE).unwrap_or(u32::MAX);
        // SAFETY: By the type invariants the ioend is ours and not in flight. Parts that are split off count in
        // it.
        let split = from_err_ptr(unsafe { bindings::iomap_split_ioend(self.ioend, max, false) })?;
        Ok(if split.is_null() { self.ioend } else { split })
    }

    /// Ends what is left with an error. The pages will be clean without having been written, which the
    /// error says.
    pub(crate) fn fail(mut self, error: Error) {
        self.end(error);
    }

    fn end(&mut self, error: Error) {
        if self.ioend.is_null() {
            return;
        }
        if !self.is_direct() {
            let (pos, len) = (self.block * T::BLOCK_SIZE, self.left * T::BLOCK_SIZE);
            T::lose_dirty(self.inode(), pos, len, error);
        }
        let ioend = mem::replace(&mut self.ioend, ptr::null_mut());
        // SAFETY: By the type invariants the ioend is ours and not in flight; it is not used afterwards.
        unsafe { finish(ioend, Err(error)) };
    }
}

impl<T: IoendOperations> Drop for WriteIoend<'_, T> {
    fn drop(&mut self) {
        // A folio that stayed under writeback would hang the tasks that wait for it.
        self.end(EIO);
    }
}

/// Sends a part to the device, or ends it with the error of `status` as if the device had.
///
/// # Safety
///
/// `part` is a valid ioend of an inode of `T` with a write bio that is not in flight. It is given away.
unsafe fn send<T: IoendOperations>(
    part: *mut bindings::iomap_ioend,
    addr: u64,
    mut work: KBox<WriteWork<T>>,
    status: Result,
) {
    let sector = addr >> SECTOR_SHIFT;
    // No Rust reference to the part: parts that were split off from it may end meanwhile, and they change its
    // count and its error.
    // SAFETY: By this function's contract the part is the caller's; the end of others does not touch this field.
    unsafe { (*part).io_sector = sector };
    // SAFETY: By this function's contract the part is valid; the end of others does not touch these fields.
    let (pos, size) = unsafe { ((*part).io_offset, (*part).io_size) };
    work.reach = offset(pos).saturating_add(size as u64);
    let bio = if work.copies.is_empty() {
        // SAFETY: By this function's contract the part is valid.
        unsafe { &raw mut (*part).io_bio }
    } else {
        // SAFETY: The part is valid. The work has the copies, and lives until the I/O has ended.
        unsafe { bio_of_copies(part, &work.copies, T::BLOCK_SIZE as u32) }
    };
    // SAFETY: The bio is the part's or one of its copies, and not in flight.
    unsafe { (*bio).bi_iter.bi_sector = sector };
    // SAFETY: Part and bio belong together and are ours; the bio is submitted or ended below.
    unsafe { WriteWork::attach(work, part, bio) };
    match status {
        // SAFETY: The bio is complete, and given away.
        Ok(()) => unsafe { bindings::submit_bio(bio) },
        Err(e) => {
            // SAFETY: No requirements: only computes.
            let status = unsafe { bindings::errno_to_blk_status(e.to_errno()) };
            // SAFETY: The bio is ours until it is ended.
            unsafe { (*bio).bi_status = status };
            // SAFETY: The bio is complete, and given away.
            unsafe { bindings::bio_endio(bio) };
        }
    }
}
