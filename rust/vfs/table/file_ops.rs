// SPDX-License-Identifier: GPL-2.0

//! The file operations of regular files.
//!
//! # Model
//!
//! Each callback turns its C pointers into [`Iocb`] and [`OpenFile`] and calls the method of
//! [`FileOperations`]. `FMODE_NOWAIT` is not set: taking the locks may sleep, and saying otherwise would
//! be a lie.
//!
//! Tests: tests/vm/t/060-data-paths.sh, 026-read-only.sh, 027-after-shutdown.sh.

use core::marker::PhantomData;

use kernel::prelude::*;

use super::fault;
use super::ioctl;
use super::iomap::{seek, Seek};
use crate::bindings;
use crate::vfs::object::iocb::{Destination, Iocb, OpenFile, Source};
use crate::vfs::object::number::{offset, to_ssize};
use crate::vfs::object::super_block::SuperBlock;
use crate::vfs::traits::file::{Allocate, FileOperations, SizeChange, SyncOf};
use crate::vfs::traits::file_system::FileSystem;
use crate::vfs::traits::inode::InodeOperations;
use crate::vfs::traits::mapping::MappingOperations;
use crate::vfs::traits::super_block::SuperOperations;

/// `open`.
///
/// # Safety
///
/// Called by the VFS for an inode of `T`.
unsafe extern "C" fn open<T: SuperOperations>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: The VFS passes an inode of a mounted superblock of `T`.
    let sb = unsafe { SuperBlock::<T>::from_raw((*inode).i_sb) };
    if let Err(e) = sb.fs().readable() {
        return e.to_errno();
    }
    // SAFETY: The file is being opened, and not yet visible to others.
    unsafe { (*file).f_mode |= bindings::ORDOFS_FMODE_CAN_ODIRECT };
    // SAFETY: The arguments are the VFS's own.
    unsafe { bindings::generic_file_open(inode, file) }
}

/// `llseek`.
///
/// # Safety
///
/// Called by the VFS for an open file of `T`.
unsafe extern "C" fn llseek<T: MappingOperations + SuperOperations>(
    file: *mut bindings::file,
    pos: bindings::loff_t,
    whence: c_int,
) -> bindings::loff_t {
    let what = match whence as u32 {
        bindings::SEEK_DATA => Seek::Data,
        bindings::SEEK_HOLE => Seek::Hole,
        // SAFETY: The arguments are the VFS's own.
        _ => return unsafe { bindings::generic_file_llseek(file, pos, whence) },
    };
    // SAFETY: The VFS passes an open file of `T`.
    let inode = unsafe { OpenFile::<T>::from_raw(file) }.inode();
    // SAFETY: A superblock outlives its inodes; the field does not change.
    let max = unsafe { (*inode.sb().as_ptr()).s_maxbytes };
    match seek(inode, pos, what) {
        // SAFETY: The VFS passes an open file.
        Ok(at) => unsafe { bindings::vfs_setpos(file, at, max) },
        Err(e) => e.to_errno().into(),
    }
}

/// `read_iter`.
///
/// # Safety
///
/// Called by the VFS for an open file of `T`.
unsafe extern "C" fn read_iter<T: FileOperations>(
    iocb: *mut bindings::kiocb,
    to: *mut bindings::iov_iter,
) -> isize {
    // SAFETY: The VFS passes the iocb of a read of an open file of `T`, for this call.
    let mut iocb = unsafe { Iocb::<T>::from_raw(iocb) };
    // SAFETY: The VFS passes the iterator of a read, for this call.
    let mut to = unsafe { Destination::from_raw(to) };
    to_ssize(T::read_iter(&mut iocb, &mut to))
}

/// `splice_read`.
///
/// # Safety
///
/// Called by the VFS for an open file of `T`.
unsafe extern "C" fn splice_read<T: SuperOperations>(
    file: *mut bindings::file,
    pos: *mut bindings::loff_t,
    pipe: *mut bindings::pipe_inode_info,
    len: usize,
    flags: c_uint,
) -> isize {
    // SAFETY: The VFS passes an open file of `T`.
    let inode = unsafe { OpenFile::<T>::from_raw(file) }.inode();
    if let Err(e) = inode.fs().readable() {
        return e.to_errno() as isize;
    }
    // SAFETY: The arguments are the VFS's own. Direct I/O comes to `read_iter` instead.
    unsafe { bindings::filemap_splice_read(file, pos, pipe, len, flags) }
}

/// `write_iter`.
///
/// # Safety
///
/// Called by the VFS for an open file of `T`.
unsafe extern "C" fn write_iter<T: FileOperations>(
    iocb: *mut bindings::kiocb,
    from: *mut bindings::iov_iter,
) -> isize {
    // SAFETY: The VFS passes the iocb of a write to an open file of `T`, for this call.
    let mut iocb = unsafe { Iocb::<T>::from_raw(iocb) };
    // SAFETY: The VFS passes the iterator of a write, for this call.
    let mut from = unsafe { Source::from_raw(from) };
    to_ssize(T::write_iter(&mut iocb, &mut from))
}

/// `fsync`.
///
/// # Safety
///
/// Called by the VFS for an open file of `T`.
unsafe extern "C" fn fsync<T: FileOperations>(
    file: *mut bindings::file,
    start: bindings::loff_t,
    end: bindings::loff_t,
    datasync: c_int,
) -> c_int {
    // SAFETY: The VFS passes an open file of `T`.
    let file = unsafe { OpenFile::<T>::from_raw(file) };
    let what = if datasync != 0 {
        SyncOf::Data
    } else {
        SyncOf::All
    };
    match T::fsync(file, start, end, what) {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}

/// `fallocate`. The VFS has checked offset and length, the limits of the filesystem, and that the
/// flags make sense together.
///
/// # Safety
///
/// Called by the VFS for an open file of `T`.
unsafe extern "C" fn fallocate<T: FileOperations + InodeOperations>(
    file: *mut bindings::file,
    mode: c_int,
    pos: bindings::loff_t,
    len: bindings::loff_t,
) -> isize {
    let mode = mode as u32;
    let size = if mode & bindings::FALLOC_FL_KEEP_SIZE != 0 {
        SizeChange::Keep
    } else {
        SizeChange::Grow
    };
    let what = match mode & !bindings::FALLOC_FL_KEEP_SIZE {
        0 => Allocate::Reserve,
        bindings::FALLOC_FL_PUNCH_HOLE => Allocate::Punch,
        bindings::FALLOC_FL_ZERO_RANGE => Allocate::Zero,
        _ => return EOPNOTSUPP.to_errno() as isize,
    };
    // SAFETY: The VFS passes an open file of `T`.
    let file = unsafe { OpenFile::<T>::from_raw(file) };
    let result = T::fallocate(file, what, size, offset(pos), offset(len));
    // The change counter.
    file.inode().refresh();
    match result {
        Ok(()) => 0,
        Err(e) => e.to_errno() as isize,
    }
}

struct Ops<T>(PhantomData<T>);

impl<T: FileSystem> Ops<T> {
    const REF: &'static bindings::file_operations = &bindings::file_operations {
        fop_flags: bindings::ORDOFS_FOP_DIO_PARALLEL_WRITE,
        open: Some(open::<T>),
        llseek: Some(llseek::<T>),
        read_iter: Some(read_iter::<T>),
        write_iter: Some(write_iter::<T>),
        splice_read: Some(splice_read::<T>),
        splice_write: Some(bindings::iter_file_splice_write),
        mmap_prepare: Some(fault::mmap_prepare::<T>),
        get_unmapped_area: Some(bindings::thp_get_unmapped_area),
        unlocked_ioctl: Some(ioctl::ioctl::<T>),
        compat_ioctl: ioctl::COMPAT,
        fsync: Some(fsync::<T>),
        fallocate: if <T as FileOperations>::HAS_FALLOCATE {
            Some(fallocate::<T>)
        } else {
            None
        },
        setlease: Some(bindings::generic_setlease),
        ..pin_init::zeroed()
    };
}

/// The table for files of `T`.
pub(super) fn file_operations<T: FileSystem>() -> &'static bindings::file_operations {
    Ops::<T>::REF
}
