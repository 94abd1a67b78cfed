// SPDX-License-Identifier: GPL-2.0

//! A read, from its submission to its end.
//!
//! The device's interrupt queues a work, which checks every block before it can be seen.
//!
//! Tests: tests/vm/t/060-data-paths.sh, 061-bad-block.sh, 066-dead-blocks.sh.

use core::marker::PhantomData;
use core::mem::offset_of;
use core::ptr;

use kernel::prelude::*;

use super::check::check_blocks;
use super::check_folios::check_folios;
use super::finish::{finish, of_bio, status};
use super::operations::IoendOperations;
use crate::bindings;
use crate::vfs::object::block::SECTOR_SHIFT;
use crate::vfs::object::inode::Inode;
use crate::vfs::object::memory::PageSlice;
use crate::vfs::object::number::offset;
use crate::vfs::os::NoFs;

/// What checks a read.
#[repr(C)]
struct ReadWork<T: IoendOperations> {
    work: bindings::work_struct,
    ioend: *mut bindings::iomap_ioend,
    _inode: PhantomData<T>,
}

/// Attaches a [`ReadWork`] to a read that is about to be submitted.
///
/// # Safety
///
/// `ioend` is an initialised, unsubmitted ioend of an inode of `T` that is the caller's.
unsafe fn attach<T: IoendOperations>(ioend: *mut bindings::iomap_ioend) -> Result {
    let work = KBox::new(
        ReadWork::<T> {
            work: bindings::work_struct::default(),
            ioend,
            _inode: PhantomData,
        },
        GFP_KERNEL,
    )?;
    let work = KBox::into_raw(work);
    // SAFETY: The memory was just leaked, and stays until the worker takes it. The function is that of this type.
    unsafe { bindings::ordofs_helper_init_work(&raw mut (*work).work, Some(read_worker::<T>)) };
    // SAFETY: By this function's contract no other task looks at the field.
    unsafe { (*ioend).io_private = work.cast() };
    Ok(())
}

/// `submit_read` for reads into the page cache.
///
/// # Safety
///
/// Called by iomap with a context whose bio is of `iomap_ioend_bioset`, for an inode of `T`.
pub(in crate::vfs) unsafe extern "C" fn submit_read<T: IoendOperations>(
    iter: *const bindings::iomap_iter,
    ctx: *mut bindings::iomap_read_folio_ctx,
) {
    let _nofs = NoFs::enter();
    // SAFETY: iomap passes the iterator that it reads with.
    let inode = unsafe { (*iter).inode };
    // SAFETY: iomap passes the context that it collected the bio in.
    let (bio, pos) = unsafe {
        (
            (*ctx).read_ctx.cast::<bindings::bio>(),
            (*ctx).read_ctx_file_offset,
        )
    };
    // SAFETY: The bio is of `iomap_ioend_bioset`, so it is embedded in an ioend, which becomes ours.
    let ioend = unsafe { bindings::iomap_init_ioend(inode, bio, pos, 0) };
    // SAFETY: The ioend was just initialised, for an inode of `T`, and is ours.
    match unsafe { attach::<T>(ioend) } {
        // SAFETY: The arguments are iomap's own; the bio has a work for `read_end_io`.
        Ok(()) => unsafe {
            bindings::iomap_bio_submit_read_endio(iter, ctx, Some(read_end_io::<T>))
        },
        Err(e) => {
            // SAFETY: The context is iomap's, and forgets the bio, which is finished here.
            unsafe { (*ctx).read_ctx = ptr::null_mut() };
            // SAFETY: The ioend is ours and was not submitted; it is not used afterwards.
            unsafe { finish(ioend, Err(e)) };
        }
    }
}

/// `submit_io` for direct reads.
///
/// # Safety
///
/// Called by iomap with a bio of `iomap_ioend_bioset` for an inode of `T`.
pub(in crate::vfs) unsafe extern "C" fn direct_read_submit<T: IoendOperations>(
    iter: *const bindings::iomap_iter,
    bio: *mut bindings::bio,
    pos: bindings::loff_t,
) {
    let flags = bindings::IOMAP_IOEND_DIRECT as u16;
    // SAFETY: iomap passes the iterator that it reads with.
    let inode = unsafe { (*iter).inode };
    // SAFETY: The bio is of `iomap_ioend_bioset`, so it is embedded in an ioend, which becomes ours.
    let ioend = unsafe { bindings::iomap_init_ioend(inode, bio, pos, flags) };
    // SAFETY: The ioend was just initialised, for an inode of `T`, and is ours.
    if let Err(e) = unsafe { attach::<T>(ioend) } {
        // SAFETY: The ioend is ours and was not submitted; it is not used afterwards.
        unsafe { finish(ioend, Err(e)) };
        return;
    }
    // SAFETY: The bio is ours, and has a work for `read_end_io`.
    unsafe { (*bio).bi_end_io = Some(read_end_io::<T>) };
    // SAFETY: The bio is complete, and given away.
    unsafe { bindings::submit_bio(bio) };
}

/// The device has ended a read. Any context.
///
/// # Safety
///
/// Called by the block layer for a bio of an ioend with a [`ReadWork`], which has ended.
unsafe extern "C" fn read_end_io<T: IoendOperations>(bio: *mut bindings::bio) {
    // SAFETY: The bio is an ioend's.
    let ioend = unsafe { of_bio(bio) };
    // SAFETY: `attach` put the work there; ioend and work stay until the work has run.
    let work = unsafe { (*ioend).io_private.cast::<ReadWork<T>>() };
    // SAFETY: The inode is one of `T`, and stays until the ioend is finished: its folios are locked, or a direct
    // I/O counts in it.
    let inode = unsafe { Inode::<T>::from_raw((*ioend).io_inode) };
    // SAFETY: `attach` initialised the work; it is queued once, here, and stays until it runs.
    unsafe { inode.fs().io().reads.queue(&raw mut (*work).work) };
}

/// Checks what was read, and finishes the read.
///
/// # Safety
///
/// Called by the workqueue for a work of [`attach`].
unsafe extern "C" fn read_worker<T: IoendOperations>(work: *mut bindings::work_struct) {
    // SAFETY: The work is embedded at that offset.
    let this = unsafe { work.byte_sub(offset_of!(ReadWork<T>, work)) };
    // SAFETY: `attach` leaked the box for this function, and the workqueue does not use a work once it runs.
    let this = unsafe { KBox::from_raw(this.cast::<ReadWork<T>>()) };
    let ioend = this.ioend;
    drop(this);
    let _nofs = NoFs::enter();
    // SAFETY: The I/O has ended, and the ioend is valid until it is finished.
    let status = unsafe { status(ioend) };
    // SAFETY: The ioend is valid until it is finished.
    let flags = u32::from(unsafe { (*ioend).io_flags });
    match status {
        // SAFETY: The ioend is ours, ended, and not used afterwards; workers run in process context.
        Err(e) => unsafe { finish(ioend, Err(e)) },
        Ok(()) if flags & bindings::IOMAP_IOEND_DIRECT != 0 => {
            // SAFETY: A direct read of an inode of `T` that has ended; all of ours are bounced.
            let result = unsafe { check_direct::<T>(ioend) };
            // SAFETY: The ioend is ours, ended, and not used afterwards.
            unsafe { finish(ioend, result) };
        }
        // SAFETY: A read into the page cache of an inode of `T` that has ended; not used afterwards.
        Ok(()) => unsafe { check_folios::<T>(ioend) },
    }
}

/// Checks a direct read. Its first vector is the bounce buffer, the others are where the data goes when
/// all of it is good.
///
/// # Safety
///
/// `ioend` is a bounced direct read of an inode of `T` that has ended, and is the caller's.
unsafe fn check_direct<T: IoendOperations>(ioend: *mut bindings::iomap_ioend) -> Result {
    // SAFETY: By this function's contract the ioend is valid, and no other task changes it.
    let ioend = unsafe { &*ioend };
    // SAFETY: The inode is one of `T`, and stays until the ioend is finished.
    let inode = unsafe { Inode::<T>::from_raw(ioend.io_inode) };
    // SAFETY: A bounced bio has at least one vector.
    let address = unsafe { bindings::ordofs_helper_bvec_virt(ioend.io_bio.bi_io_vec) };
    // SAFETY: The bounce buffer is one contiguous vector of the size of the I/O, and only this task's until the ioend
    // is finished.
    let mut data = unsafe { PageSlice::from_raw(address.cast(), ioend.io_size) };
    let addr = ioend.io_sector << SECTOR_SHIFT;
    check_blocks(inode, offset(ioend.io_offset), addr, &mut data)
}
