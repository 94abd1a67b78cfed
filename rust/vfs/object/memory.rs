// SPDX-License-Identifier: GPL-2.0

//! Memory of folios and bounce buffers.
//!
//! # Model
//!
//! [`PageSlice`] is memory that nothing else accesses. [`BlockData`] is memory that user space may have mapped: it
//! is read by address only, and no Rust reference to it is made.
//!
//! Tests: tests/vm/t/060-data-paths.sh, 061-bad-block.sh, 048-pinned-pages.sh.

use core::marker::PhantomData;
use core::ptr::NonNull;

use kernel::error::to_result;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

use super::block::SECTOR_SHIFT;
use super::inode::Inode;
use super::types::Types;
use crate::bindings;
use crate::vfs::os::Buffer;

/// Memory of a folio or of a bounce buffer that is being read into.
///
/// # Invariants
///
/// `ptr` points to `len` bytes that are physically contiguous in the direct map, that stay during
/// `'a`, and that nothing else accesses in that time.
pub(crate) struct PageSlice<'a> {
    ptr: NonNull<u8>,
    len: usize,
    _memory: PhantomData<&'a mut [u8]>,
}

impl PageSlice<'_> {
    /// # Safety
    ///
    /// `ptr` and `len` are as the type invariants say, for a lifetime that the caller chooses.
    pub(in crate::vfs) unsafe fn from_raw(ptr: *mut u8, len: usize) -> Self {
        debug_assert!(!ptr.is_null());
        // INVARIANT: By this function's contract.
        Self {
            // SAFETY: By this function's contract the pointer is into the direct map, so it is not null.
            ptr: unsafe { NonNull::new_unchecked(ptr) },
            len,
            _memory: PhantomData,
        }
    }

    /// Number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariants these bytes are there, and no task writes them while `self` is
        // borrowed.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    /// The bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: By the type invariants these bytes are there, and nothing else accesses them while `self` is
        // borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }

    /// The whole blocks of `size` bytes that it consists of.
    pub(in crate::vfs) fn blocks(&self, size: usize) -> impl Iterator<Item = BlockData<'_>> {
        (0..self.len.checked_div(size).unwrap_or(0)).map(move |i| BlockData {
            // INVARIANT: A block of memory that is borrowed from us.
            // SAFETY: The index is less than the number of whole blocks, so the block lies inside of the slice.
            ptr: unsafe { self.ptr.add(i * size) },
            len: size,
            _memory: PhantomData,
        })
    }

    /// A part of it, cut to what there is.
    pub(crate) fn part(&mut self, start: usize, len: usize) -> PageSlice<'_> {
        let start = start.min(self.len);
        // INVARIANT: A part of memory that is borrowed from us.
        PageSlice {
            // SAFETY: `start` was cut to the length, so this stays inside of the slice or one past its end.
            ptr: unsafe { self.ptr.add(start) },
            len: len.min(self.len - start),
            _memory: PhantomData,
        }
    }
}

/// The content of one block, read by address only: user space may have the page mapped, so that no Rust
/// reference to it may exist.
///
/// # Invariants
///
/// `ptr` points to `len` bytes in the direct map, at most a page, that stay during `'a`.
#[derive(Clone, Copy)]
pub(crate) struct BlockData<'a> {
    ptr: NonNull<u8>,
    len: usize,
    _memory: PhantomData<&'a [u8]>,
}

impl BlockData<'_> {
    /// # Safety
    ///
    /// `ptr` and `len` are as the type invariants say, for a lifetime that the caller chooses.
    pub(in crate::vfs) unsafe fn from_raw(ptr: *mut u8, len: usize) -> Self {
        debug_assert!(!ptr.is_null() && len <= PAGE_SIZE);
        // INVARIANT: By this function's contract.
        Self {
            // SAFETY: By this function's contract the pointer is into the direct map, so it is not null.
            ptr: unsafe { NonNull::new_unchecked(ptr) },
            len,
            _memory: PhantomData,
        }
    }

    /// Its CRC-32C.
    pub(crate) fn crc32c(self) -> u32 {
        // The kernel leaves the inversions before and after to the caller.
        // SAFETY: By the type invariants these bytes are there to be read. What user space writes meanwhile is
        // no Rust access.
        !unsafe { bindings::crc32c(!0, self.ptr.as_ptr().cast(), self.len) }
    }

    /// A copy, at the beginning of a page. What is written to the block meanwhile is in it or not.
    pub(in crate::vfs) fn copy(self) -> Result<PageBuffer> {
        let mut copy = PageBuffer::zeroed()?;
        let to = copy.as_mut_ptr().cast();
        // SAFETY: By the type invariants the source has `len` bytes, which are no more than the page has; the page
        // is this call's alone.
        unsafe { bindings::ordofs_helper_copy(to, self.ptr.as_ptr().cast(), self.len) };
        Ok(copy)
    }

    /// The first `len` bytes of a copy.
    pub(in crate::vfs) fn of_copy(copy: &PageBuffer, len: usize) -> BlockData<'_> {
        // INVARIANT: The length is cut to the page, which is borrowed.
        BlockData {
            ptr: NonNull::from(&**copy).cast(),
            len: len.min(PAGE_SIZE),
            _memory: PhantomData,
        }
    }
}

/// A page of our own.
pub(in crate::vfs) type PageBuffer = Buffer<PAGE_SIZE>;

/// Waits until memory may have been freed. Returns whether to try again after `error`: yes if memory was
/// all that was missing.
pub(in crate::vfs) fn wait_for_memory(error: Error) -> bool {
    let missing = error == ENOMEM;
    if missing {
        // SAFETY: May sleep, as all of its callers may: they are about to allocate with `GFP_KERNEL`.
        unsafe { bindings::ordofs_helper_wait_for_memory() };
    }
    missing
}

/// Whether a message about bad data may go to the log: there could be very many.
pub(crate) fn message_allowed() -> bool {
    // SAFETY: No requirements: looks at a static rate limit, which has a lock of its own.
    unsafe { bindings::ordofs_helper_message_allowed() }
}

impl<T: Types> Inode<T> {
    /// Reads from the device at byte offset `addr` and waits. Both are multiples of the block size.
    pub(crate) fn read_device(&self, addr: u64, data: &mut PageSlice<'_>) -> Result {
        let len = u32::try_from(data.len).map_err(|_| EINVAL)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: The superblock outlives its inodes, and its device is open as long as there are inodes.
        let bdev = unsafe { (*self.sb().as_ptr()).s_bdev };
        // SAFETY: The device is open. The bio comes from a mempool, in a task that may sleep: there is one.
        let bio = unsafe {
            bindings::bio_alloc_bioset(
                bdev,
                1,
                bindings::ORDOFS_OP_READ,
                bindings::ORDOFS_GFP_NOFS,
                &raw mut bindings::fs_bio_set,
            )
        };
        // SAFETY: The bio was just allocated and is ours.
        unsafe { (*bio).bi_iter.bi_sector = addr >> SECTOR_SHIFT };
        // SAFETY: The bio has room for one vector; by the slice's invariants the memory is contiguous, and it is
        // borrowed exclusively until the I/O has ended (R6).
        unsafe { bindings::bio_add_virt_nofail(bio, data.ptr.as_ptr().cast(), len) };
        // SAFETY: The bio is ours and complete; the call waits for its end.
        let error = unsafe { bindings::submit_bio_wait(bio) };
        // SAFETY: The I/O has ended; the reference is ours.
        unsafe { bindings::bio_put(bio) };
        to_result(error)
    }
}
