// SPDX-License-Identifier: GPL-2.0

//! Copies of data that others may write to while it is being written: see "Stable data" in the directory's
//! description.
//!
//! Tests: tests/vm/t/048-pinned-pages.sh.

use core::ptr;

use kernel::prelude::*;

use crate::bindings;
use crate::vfs::object::inode::Inode;
use crate::vfs::object::memory::PageBuffer;
use crate::vfs::object::types::Types;

/// Blocks of a write that are copied at a time: bounds the memory, and is no more than a bio holds.
pub(super) const COPIES: u64 = 64;

const _: () = assert!(COPIES <= bindings::BIO_MAX_VECS as u64);

/// Its address is the `io_private` of an ioend that is being built and whose data is to be copied.
static COPY: u8 = 0;

fn mark() -> *mut c_void {
    ptr::from_ref(&COPY).cast_mut().cast()
}

/// Marks the ioend to be copied if others may write to the folio that was just added to it.
///
/// # Safety
///
/// `ioend` is an unsubmitted write of `inode`. `folio` is locked, has been write-protected by
/// `folio_clear_dirty_for_io` and is under writeback; the task has one reference to it.
pub(in crate::vfs) unsafe fn mark_if_shared<T: Types>(
    inode: &Inode<T>,
    ioend: *mut bindings::iomap_ioend,
    folio: *mut bindings::folio,
) {
    if !inode.has_been_writable() {
        return;
    }
    // SAFETY: By this function's contract the folio is locked and referenced, so it stays what it is.
    if unsafe { bindings::ordofs_helper_folio_is_shared(folio) } {
        // SAFETY: By this function's contract the ioend is not submitted; until then no other task uses the field.
        unsafe { (*ioend).io_private = mark() };
    }
}

/// Takes the mark from an ioend; returns whether it was there.
///
/// # Safety
///
/// `ioend` is a valid, unsubmitted write that is the caller's.
pub(super) unsafe fn take_mark(ioend: *mut bindings::iomap_ioend) -> bool {
    // SAFETY: By this function's contract no other task looks at the field.
    let private = unsafe { ptr::replace(&raw mut (*ioend).io_private, ptr::null_mut()) };
    private == mark()
}

/// A bio that writes the first `len` bytes of each of `copies` in the place of the bio of `part`.
///
/// # Safety
///
/// `part` is a valid ioend whose bio has its device and flags. The copies stay until the I/O has ended.
pub(super) unsafe fn bio_of_copies(
    part: *mut bindings::iomap_ioend,
    copies: &[PageBuffer],
    len: u32,
) -> *mut bindings::bio {
    debug_assert!(copies.len() as u64 <= COPIES);
    // SAFETY: By this function's contract the ioend is valid.
    let like = unsafe { &raw mut (*part).io_bio };
    // SAFETY: The bio of the part has a device, which is open. The new one comes from a mempool, in a task that
    // may sleep, for fewer vectors than the most that a bio can have: there is one.
    let bio = unsafe {
        bindings::bio_alloc_bioset(
            (*like).bi_bdev,
            copies.len().min(COPIES as usize) as u16,
            bindings::ORDOFS_OP_WRITE,
            bindings::ORDOFS_GFP_NOFS,
            &raw mut bindings::fs_bio_set,
        )
    };
    // SAFETY: Both bios are valid and neither is in flight.
    unsafe { bindings::ordofs_helper_bio_like(bio, like) };
    for copy in copies.iter().take(COPIES as usize) {
        let address = copy.as_ptr().cast_mut().cast();
        // SAFETY: The bio has room for so many vectors. The copy is a page of the direct map, at least `len` bytes,
        // and by this function's contract stays until the I/O has ended; a write only reads it.
        unsafe { bindings::bio_add_virt_nofail(bio, address, len) };
    }
    bio
}
