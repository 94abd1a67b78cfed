// SPDX-License-Identifier: GPL-2.0

//! The file operations of regular files.
//!
//! # Model
//!
//! Each callback turns its C pointers into [`Iocb`] and [`OpenFile`] and calls the method of
//! [`FileData`]. `FMODE_NOWAIT` is not set: taking the locks may sleep, and saying otherwise would
//! be a lie.

use kernel::prelude::*;

use crate::bindings;
use crate::vfs::object::iocb::{to_ssize, Destination, Iocb, OpenFile, Source};
use crate::vfs::table::fault;
use crate::vfs::table::iomap::{offset, seek};
use crate::vfs::traits::file_data::{Allocate, FileData};
use crate::vfs::SuperBlock;

/// `open`.
///
/// # Safety
///
/// Called by the VFS for an inode of `T`.
unsafe extern "C" fn open<T: FileData>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: By the requirements.
    if let Err(e) = unsafe { SuperBlock::<T>::from_raw((*inode).i_sb) }
        .fs()
        .readable()
    {
        return e.to_errno();
    }
    // SAFETY: By the requirements; the file is not yet visible to others.
    unsafe {
        (*file).f_mode |= bindings::ORDOFS_FMODE_CAN_ODIRECT;
        bindings::generic_file_open(inode, file)
    }
}

/// `llseek`.
///
/// # Safety
///
/// Called by the VFS for an open file of `T`.
unsafe extern "C" fn llseek<T: FileData>(
    file: *mut bindings::file,
    pos: bindings::loff_t,
    whence: c_int,
) -> bindings::loff_t {
    let data = match whence as u32 {
        bindings::SEEK_DATA => true,
        bindings::SEEK_HOLE => false,
        // SAFETY: By the requirements.
        _ => return unsafe { bindings::generic_file_llseek(file, pos, whence) },
    };
    // SAFETY: By the requirements.
    let inode = unsafe { OpenFile::<T>::from_raw(file) }.inode();
    match seek(inode, pos, data) {
        // SAFETY: As above.
        Ok(at) => unsafe { bindings::vfs_setpos(file, at, (*(*inode.as_ptr()).i_sb).s_maxbytes) },
        Err(e) => e.to_errno().into(),
    }
}

/// `read_iter`.
///
/// # Safety
///
/// Called by the VFS for an open file of `T`.
unsafe extern "C" fn read_iter<T: FileData>(
    iocb: *mut bindings::kiocb,
    to: *mut bindings::iov_iter,
) -> isize {
    // SAFETY: By the requirements.
    let (mut iocb, mut to) = unsafe { (Iocb::<T>::from_raw(iocb), Destination::from_raw(to)) };
    to_ssize(T::read_iter(&mut iocb, &mut to))
}

/// `splice_read`.
///
/// # Safety
///
/// Called by the VFS for an open file of `T`.
unsafe extern "C" fn splice_read<T: FileData>(
    file: *mut bindings::file,
    pos: *mut bindings::loff_t,
    pipe: *mut bindings::pipe_inode_info,
    len: usize,
    flags: c_uint,
) -> isize {
    // SAFETY: By the requirements.
    if let Err(e) = unsafe { OpenFile::<T>::from_raw(file) }
        .inode()
        .fs()
        .readable()
    {
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
unsafe extern "C" fn write_iter<T: FileData>(
    iocb: *mut bindings::kiocb,
    from: *mut bindings::iov_iter,
) -> isize {
    // SAFETY: By the requirements.
    let (mut iocb, mut from) = unsafe { (Iocb::<T>::from_raw(iocb), Source::from_raw(from)) };
    to_ssize(T::write_iter(&mut iocb, &mut from))
}

/// `fsync`.
///
/// # Safety
///
/// Called by the VFS for an open file of `T`.
unsafe extern "C" fn fsync<T: FileData>(
    file: *mut bindings::file,
    start: bindings::loff_t,
    end: bindings::loff_t,
    datasync: c_int,
) -> c_int {
    // SAFETY: By the requirements.
    let file = unsafe { OpenFile::<T>::from_raw(file) };
    match T::fsync(file, start, end, datasync != 0) {
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
unsafe extern "C" fn fallocate<T: FileData>(
    file: *mut bindings::file,
    mode: c_int,
    pos: bindings::loff_t,
    len: bindings::loff_t,
) -> isize {
    let mode = mode as u32;
    let keep_size = mode & bindings::FALLOC_FL_KEEP_SIZE != 0;
    let what = match mode & !bindings::FALLOC_FL_KEEP_SIZE {
        0 => Allocate::Reserve,
        bindings::FALLOC_FL_PUNCH_HOLE => Allocate::Punch,
        bindings::FALLOC_FL_ZERO_RANGE => Allocate::Zero,
        _ => return EOPNOTSUPP.to_errno() as isize,
    };
    // SAFETY: By the requirements.
    let file = unsafe { OpenFile::<T>::from_raw(file) };
    match T::fallocate(file, what, keep_size, offset(pos), offset(len)) {
        Ok(()) => 0,
        Err(e) => e.to_errno() as isize,
    }
}

/// The table for files of `T`.
pub(in crate::vfs) fn file_operations<T: FileData>() -> &'static bindings::file_operations {
    struct Ops<T>(core::marker::PhantomData<T>);
    impl<T: FileData> Ops<T> {
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
            unlocked_ioctl: Some(crate::vfs::table::ioctl::ioctl::<T>),
            compat_ioctl: crate::vfs::table::ioctl::COMPAT,
            fsync: Some(fsync::<T>),
            fallocate: Some(fallocate::<T>),
            setlease: Some(bindings::generic_setlease),
            ..pin_init::zeroed()
        };
    }
    Ops::<T>::REF
}
