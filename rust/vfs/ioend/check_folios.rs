// SPDX-License-Identifier: GPL-2.0

//! The end of a read into the page cache, block by block.
//!
//! # Model
//!
//! Two walks go over the bio's blocks. One goes ahead and computes checksums, the other follows and ends the
//! reads. A folio is locked, and not up to date where it is being read, until `iomap_finish_folio_read` has been
//! called for all of its bytes. So whatever has not been ended yet is still there, and what the first walk looks at
//! is ended later: it is in the folio of the second walk or in a later one.
//!
//! Tests: tests/vm/t/061-bad-block.sh, 066-dead-blocks.sh.

use core::cell::Cell;
use core::ptr;

use kernel::prelude::*;

use super::check::{judge, RUN};
use super::operations::IoendOperations;
use crate::bindings;
use crate::vfs::object::block::SECTOR_SHIFT;
use crate::vfs::object::inode::Inode;
use crate::vfs::object::memory::{BlockData, PageSlice};
use crate::vfs::object::number::offset;

/// A block of a folio: the folio, and where in it the block is.
type Place = (*mut bindings::folio, usize);

/// A place in the folios of a bio. It does not look at a folio again after it has left it.
#[derive(Clone, Copy)]
struct FolioWalk {
    bio: *mut bindings::bio,
    fi: bindings::folio_iter,
    at: usize,
}

impl FolioWalk {
    /// The beginning.
    ///
    /// # Safety
    ///
    /// `bio` is a valid bio of folios, for as long as the walk is used; its first folio is still there.
    unsafe fn new(bio: *mut bindings::bio) -> Self {
        let mut walk = Self {
            bio,
            // SAFETY: The iterator is numbers and pointers, for which zero is a value.
            fi: unsafe { core::mem::zeroed() },
            at: 0,
        };
        // SAFETY: By this function's contract the bio is valid and its first folio is there.
        unsafe { bindings::ordofs_helper_bio_first_folio(&raw mut walk.fi, bio) };
        walk
    }

    /// The next block.
    ///
    /// # Safety
    ///
    /// The folios from the next block on are still there: the read of that block has not been ended.
    unsafe fn next(&mut self, block_size: usize) -> Option<Place> {
        if !self.fi.folio.is_null() && self.at >= self.fi.length {
            // SAFETY: By the contract of `new` the bio is valid. The iterator reads the next folio from the bio's
            // vectors; by this function's contract that folio is there.
            unsafe { bindings::ordofs_helper_bio_next_folio(&raw mut self.fi, self.bio) };
            self.at = 0;
        }
        if self.fi.folio.is_null() {
            return None;
        }
        let off = self.fi.offset + self.at;
        self.at += block_size;
        Some((self.fi.folio, off))
    }
}

/// Neighbouring blocks of a folio whose reads have ended in the same way.
///
/// # Invariants
///
/// If `len` is not 0, `folio` is locked for a read of the bytes `off..off + len` of it, which has not been ended
/// and is ours to end.
struct Ended {
    folio: *mut bindings::folio,
    off: usize,
    len: usize,
    error: c_int,
}

impl Ended {
    /// Nothing.
    fn new() -> Self {
        // INVARIANT: The length is 0.
        Self {
            folio: ptr::null_mut(),
            off: 0,
            len: 0,
            error: 0,
        }
    }

    /// Ends their reads.
    fn flush(&mut self) {
        if self.len > 0 {
            // SAFETY: By the type invariants these bytes of the folio are being read, and the end is ours to say.
            unsafe {
                bindings::iomap_finish_folio_read(self.folio, self.off, self.len, self.error)
            };
            // INVARIANT: The length is 0.
            self.len = 0;
        }
    }

    /// One more block of `len` bytes.
    ///
    /// # Safety
    ///
    /// The folio is locked for a read of that block which has not been ended, and which is ours to end.
    unsafe fn add(&mut self, (folio, off): Place, len: usize, error: c_int) {
        if self.folio != folio || self.off + self.len != off || self.error != error {
            self.flush();
            (self.folio, self.off, self.error) = (folio, off, error);
        }
        // INVARIANT: By this function's contract the block belongs to what is to be ended.
        self.len += len;
    }
}

/// The address of a block.
///
/// # Safety
///
/// The read of that block has not been ended, so the folio is there.
unsafe fn address((folio, off): Place) -> *mut u8 {
    // SAFETY: By this function's contract the folio is valid. Folios are contiguous in the direct map.
    unsafe { bindings::ordofs_helper_folio_address(folio, off) }.cast()
}

/// Computes the checksums of blocks that follow each other in the file, as many as `sums` has room for. Returns
/// how many, and the offset of the first in the file.
///
/// # Safety
///
/// The walk is over a bio that reads for an inode of `T`, and the blocks from its next one on have not been ended.
unsafe fn sum_run<T: IoendOperations>(
    ahead: &mut FolioWalk,
    sums: &mut [u32; RUN],
) -> (usize, u64) {
    let size = T::BLOCK_SIZE as usize;
    let (mut n, mut pos) = (0, 0);
    while let Some(sum) = sums.get_mut(n) {
        let mut next = *ahead;
        // SAFETY: By this function's contract the blocks from here on have not been ended.
        let Some(place) = (unsafe { next.next(size) }) else {
            break;
        };
        // SAFETY: The read of the block has not been ended, so the folio is there.
        let here = offset(unsafe { bindings::ordofs_helper_folio_pos(place.0) }) + place.1 as u64;
        // What lies together on the device may have holes between in the file.
        if n == 0 {
            pos = here;
        } else if here != pos + (n * size) as u64 {
            break;
        }
        // SAFETY: The read of the block has not been ended.
        let address = unsafe { address(place) };
        // SAFETY: The block lies inside of the folio, which stays: its read has not been ended.
        *sum = T::checksum(unsafe { BlockData::from_raw(address, size) });
        *ahead = next;
        n += 1;
    }
    (n, pos)
}

/// Checks and finishes a read into the page cache. Each block has its own result: a bad one spoils
/// neither its folio's other blocks nor the other folios.
///
/// # Safety
///
/// `ioend` is a read into the page cache of an inode of `T` that has ended. It is gone afterwards.
pub(super) unsafe fn check_folios<T: IoendOperations>(ioend: *mut bindings::iomap_ioend) {
    let size = T::BLOCK_SIZE as usize;
    // SAFETY: By this function's contract the ioend is valid.
    let bio = unsafe { &raw mut (*ioend).io_bio };
    // SAFETY: The inode is one of `T`, and stays until the last folio is unlocked.
    let inode = unsafe { Inode::<T>::from_raw((*ioend).io_inode) };
    // SAFETY: By this function's contract the ioend is valid.
    let mut addr = unsafe { (*ioend).io_sector } << SECTOR_SHIFT;
    // SAFETY: The bio is valid until it is put below, and nothing has been ended.
    let mut ahead = unsafe { FolioWalk::new(bio) };
    let mut behind = ahead;
    let mut done = Ended::new();
    let mut sums = [0; RUN];
    loop {
        // SAFETY: What has been ended lies before `behind`, which is not beyond `ahead`.
        let (n, pos) = unsafe { sum_run::<T>(&mut ahead, &mut sums) };
        if n == 0 {
            break;
        }
        // Where `slow` finds its block: the one after all that have been ended.
        let (place, end) = (Cell::new(behind), &mut done);
        let _ = judge(
            inode,
            pos,
            addr,
            sums.get(..n).unwrap_or(&[]),
            |_, pos, addr| {
                let mut at = place.get();
                // SAFETY: The block is the first that has not been ended.
                let block = unsafe { at.next(size) }.ok_or(EIO)?;
                // SAFETY: Its read has not been ended.
                let address = unsafe { address(block) };
                // SAFETY: The block lies inside of the folio, which is locked and not up to date there: no task
                // else accesses it until its read is ended.
                let mut data = unsafe { PageSlice::from_raw(address, size) };
                T::check_block(inode, pos, addr, &mut data)
            },
            |n, result| {
                let error = result.err().map_or(0, |e| e.to_errno());
                let mut at = place.get();
                for _ in 0..n {
                    // SAFETY: The block is the first that has not been ended, or added to what is to be.
                    let block = unsafe { at.next(size) }.ok_or(EIO)?;
                    // SAFETY: Its folio is locked for this bio's read of it, which is ours to end.
                    unsafe { end.add(block, size, error) };
                }
                place.set(at);
                Ok(())
            },
        );
        behind = place.get();
        addr += (n * size) as u64;
    }
    done.flush();
    // SAFETY: The bio's reference is ours. Its reads have all been ended, and it is not used afterwards.
    unsafe { bindings::bio_put(bio) };
}
