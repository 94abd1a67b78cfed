// SPDX-License-Identifier: GPL-2.0

//! The callbacks of direct I/O.
//!
//! Tests: tests/vm/t/060-data-paths.sh, 065-race.sh.

use core::marker::PhantomData;

use kernel::error::to_result;
use kernel::prelude::*;

use crate::bindings;
use crate::vfs::ioend::read;
use crate::vfs::ioend::write::{WriteFrom, WriteIoend};
use crate::vfs::object::inode::{Inode, Locked};
use crate::vfs::object::number::offset;
use crate::vfs::os::NoFs;
use crate::vfs::traits::file::FileOperations;
use crate::vfs::traits::mapping::MappingOperations;

/// `submit_io` for direct writes.
///
/// # Safety
///
/// Called by iomap with a bio of `iomap_ioend_bioset` for an inode of `T`.
unsafe extern "C" fn write_submit<T: MappingOperations>(
    iter: *const bindings::iomap_iter,
    bio: *mut bindings::bio,
    pos: bindings::loff_t,
) {
    let flags = bindings::IOMAP_IOEND_DIRECT as u16;
    // SAFETY: iomap passes the iterator that it writes with.
    let inode = unsafe { (*iter).inode };
    // SAFETY: The bio is of `iomap_ioend_bioset`, so it is embedded in an ioend, which becomes ours.
    let ioend = unsafe { bindings::iomap_init_ioend(inode, bio, pos, flags) };
    // SAFETY: The ioend is new and ours, for an inode of `T`. `IOMAP_DIO_FSBLOCK_ALIGNED` makes it whole blocks.
    let ioend = unsafe { WriteIoend::<T>::new(ioend, WriteFrom::Direct) };
    let _nofs = NoFs::enter();
    T::submit_write(ioend);
}

/// `end_io` of direct writes: all parts have been finished.
///
/// # Safety
///
/// Called by iomap for a direct write to a file of `T`.
unsafe extern "C" fn write_end<T: FileOperations>(
    iocb: *mut bindings::kiocb,
    size: isize,
    error: c_int,
    _flags: c_uint,
) -> c_int {
    // SAFETY: iomap passes the iocb of the write, which keeps its file open.
    let inode = unsafe { Inode::<T>::from_raw((*(*iocb).ki_filp).f_inode) };
    // SAFETY: The iocb is valid until this has returned; its position does not change before that.
    let pos = offset(unsafe { (*iocb).ki_pos });
    let end = pos.saturating_add(u64::try_from(size).unwrap_or(0));
    let result = to_result(error);
    if size <= 0 || end <= inode.size() {
        return error;
    }
    // SAFETY: Only a writer that waits for its end, with the lock held exclusively, goes beyond
    // `i_size`; iomap calls this in that task then.
    let inode = unsafe { Locked::new(inode) };
    match T::direct_write_grew(&inode, end, result).and(result) {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}

struct Tables<T>(PhantomData<T>);

impl<T: FileOperations + MappingOperations> Tables<T> {
    const READ: &'static bindings::iomap_dio_ops = &bindings::iomap_dio_ops {
        end_io: None,
        submit_io: Some(read::direct_read_submit::<T>),
        bio_set: &raw mut bindings::iomap_ioend_bioset,
    };
    const WRITE: &'static bindings::iomap_dio_ops = &bindings::iomap_dio_ops {
        end_io: Some(write_end::<T>),
        submit_io: Some(write_submit::<T>),
        bio_set: &raw mut bindings::iomap_ioend_bioset,
    };
}

/// The table for direct reads.
pub(super) fn read_ops<T: FileOperations + MappingOperations>() -> *const bindings::iomap_dio_ops {
    Tables::<T>::READ
}

/// The table for direct writes.
pub(super) fn write_ops<T: FileOperations + MappingOperations>() -> *const bindings::iomap_dio_ops {
    Tables::<T>::WRITE
}
