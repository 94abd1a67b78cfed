// SPDX-License-Identifier: GPL-2.0

//! The end of a write.
//!
//! The device's interrupt queues a work, which hands the filesystem's token back and then finishes the part.
//!
//! Tests: tests/vm/t/041-r1.sh, 063-write-errors.sh, 049-lost-writes.sh.

use core::mem::offset_of;
use core::ptr;

use kernel::prelude::*;

use super::finish::{finish, of_bio, status};
use super::operations::IoendOperations;
use crate::bindings;
use crate::vfs::object::inode::Inode;
use crate::vfs::object::memory::PageBuffer;
use crate::vfs::os::NoFs;

/// What completes a part of a write: allocated before it starts, because afterwards there is no way back.
#[repr(C)]
pub(super) struct WriteWork<T: IoendOperations> {
    work: bindings::work_struct,
    ioend: *mut bindings::iomap_ioend,
    /// `None` only before submission.
    pub(super) write: Option<T::Write>,
    pub(super) reach: u64,
    /// What the device reads, if it is not the ioend's own memory.
    pub(super) copies: KVec<PageBuffer>,
}

impl<T: IoendOperations> WriteWork<T> {
    /// Memory for the completion of one part.
    pub(super) fn new() -> Result<KBox<Self>> {
        Ok(KBox::new(
            Self {
                work: bindings::work_struct::default(),
                ioend: ptr::null_mut(),
                write: None,
                reach: 0,
                copies: KVec::new(),
            },
            GFP_KERNEL,
        )?)
    }

    /// Gives the work to `part`, and lets `bio` end in it: the part's own bio, or one of its copies.
    ///
    /// # Safety
    ///
    /// `part` is a valid ioend of an inode of `T` that is the caller's, and `bio` its bio, or one of
    /// [`bio_of_copies`](super::copy::bio_of_copies) for it. The caller submits or ends the bio, once.
    pub(super) unsafe fn attach(
        mut this: KBox<Self>,
        part: *mut bindings::iomap_ioend,
        bio: *mut bindings::bio,
    ) {
        this.ioend = part;
        let copied = !this.copies.is_empty();
        let this = KBox::into_raw(this);
        // SAFETY: The memory was just leaked, and stays until the worker takes it. The function is that of this
        // type.
        unsafe {
            bindings::ordofs_helper_init_work(&raw mut (*this).work, Some(write_worker::<T>))
        };
        // SAFETY: By this function's contract the part is the caller's.
        unsafe { (*part).io_private = this.cast() };
        let end_io: unsafe extern "C" fn(*mut bindings::bio) = if copied {
            // SAFETY: By this function's contract the bio is the caller's; that of copies has no other use for the
            // field.
            unsafe { (*bio).bi_private = this.cast() };
            copied_end_io::<T>
        } else {
            write_end_io::<T>
        };
        // SAFETY: By this function's contract the bio is the caller's, and not submitted yet.
        unsafe { bindings::ordofs_helper_bio_init_write(bio, Some(end_io)) };
    }
}

/// The device has ended a write of copies. Any context.
///
/// # Safety
///
/// Called by the block layer for a bio of copies that [`WriteWork::attach`] prepared, and that has ended.
unsafe extern "C" fn copied_end_io<T: IoendOperations>(bio: *mut bindings::bio) {
    // SAFETY: `attach` put the work there. It stays until it has run, which it cannot before it is queued below.
    let ioend = unsafe { (*(*bio).bi_private.cast::<WriteWork<T>>()).ioend };
    // SAFETY: The bio is valid until it is put below.
    let status = unsafe { (*bio).bi_status };
    // SAFETY: The ioend stays until its work has run. Its own bio is not in flight.
    let own = unsafe { &raw mut (*ioend).io_bio };
    // SAFETY: No task looks at the status before the work is queued.
    unsafe { (*own).bi_status = status };
    // SAFETY: The I/O has ended, and the reference is ours since it was allocated.
    unsafe { bindings::bio_put(bio) };
    // SAFETY: `attach` made the work that of this ioend, and the part's I/O has ended with that of the copies.
    unsafe { write_end_io::<T>(own) };
}

/// The device has ended a write. Any context.
///
/// # Safety
///
/// `bio` is that of an ioend that [`WriteWork::attach`] prepared, and the I/O of the part has ended.
unsafe extern "C" fn write_end_io<T: IoendOperations>(bio: *mut bindings::bio) {
    // SAFETY: By this function's contract the bio is an ioend's.
    let ioend = unsafe { of_bio(bio) };
    // SAFETY: `attach` put the work there; ioend and work stay until the work has run.
    let work = unsafe { (*ioend).io_private.cast::<WriteWork<T>>() };
    // SAFETY: The inode is one of `T`, and stays until the ioend is finished: its folios are under writeback, or a
    // direct I/O counts in it.
    let inode = unsafe { Inode::<T>::from_raw((*ioend).io_inode) };
    // SAFETY: `attach` initialised the work; it is queued once, here, and stays until it runs.
    unsafe { inode.fs().io().writes.queue(&raw mut (*work).work) };
}

/// Completes one part of a write.
///
/// # Safety
///
/// Called by the workqueue for a work of [`WriteWork::attach`].
unsafe extern "C" fn write_worker<T: IoendOperations>(work: *mut bindings::work_struct) {
    // SAFETY: The work is embedded at that offset.
    let this = unsafe { work.byte_sub(offset_of!(WriteWork<T>, work)) };
    // SAFETY: `attach` leaked the box for this function, and the workqueue does not use a work once it runs.
    let this = unsafe { KBox::from_raw(this.cast::<WriteWork<T>>()) };
    let (ioend, reach) = (this.ioend, this.reach);
    // SAFETY: The I/O has ended, and the ioend is valid until it is finished below.
    let status = unsafe { status(ioend) };
    // SAFETY: The inode is one of `T`, and stays until the ioend is finished below.
    let inode = unsafe { Inode::<T>::from_raw((*ioend).io_inode) };
    // The I/O has ended: the copies go now, not after the filesystem's part, which may sleep.
    let write = KBox::into_inner(this).write;
    let result = {
        // Writeback for the sake of reclaim may wait for us: do not wait for reclaim's writeback.
        let _nofs = NoFs::enter();
        match write {
            Some(write) => T::write_ended(inode, write, reach, status),
            None => Err(EIO),
        }
    };
    // The mapping is in place (or the error known): now, and not before, the folios may go.
    // SAFETY: The ioend is ours, ended, and not used afterwards; workers run in process context.
    unsafe { finish(ioend, result) };
}
