// SPDX-License-Identifier: GPL-2.0

//! Reading directories.
//!
//! # Model
//!
//! The position of a directory's file is a cookie: 0 is `.`, 1 is `..`, every other entry has a
//! cookie of its own that never changes, so that a listing goes on where it stopped however the
//! directory was changed meanwhile.

use core::marker::PhantomData;
use kernel::{
    error::{from_result, to_result},
    prelude::*,
};

use super::Inode;
use crate::{bindings, vfs::file_data::FileData};

/// The file operation table of directories.
struct Tables<T: FileData>(PhantomData<T>);

impl<T: FileData> Tables<T> {
    const DIR: bindings::file_operations = bindings::file_operations {
        llseek: Some(bindings::generic_file_llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(iterate::<T>),
        fsync: Some(fsync::<T>),
        unlocked_ioctl: Some(super::ioctl::ioctl::<T>),
        compat_ioctl: super::ioctl::COMPAT,
        ..pin_init::zeroed()
    };
}

/// File operations of directories.
pub(crate) fn dir_file_ops<T: FileData>() -> *const bindings::file_operations {
    &Tables::<T>::DIR
}

/// `iterate_shared`.
///
/// # Safety
///
/// As the VFS calls it for an open directory of `T`, with its `i_rwsem` held.
unsafe extern "C" fn iterate<T: FileData>(
    file: *mut bindings::file,
    ctx: *mut bindings::dir_context,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes an open file of a directory of `T`, whose `i_rwsem` it holds
        // shared, and a context that is ours during the call.
        let dir = unsafe {
            if !bindings::ordofs_dir_emit_dots(file, ctx) {
                return Ok(0);
            }
            Inode::<T>::from_raw((*file).f_inode)
        };
        dir.assert_shared();
        // SAFETY: As above.
        let pos = u64::try_from(unsafe { (*ctx).pos }).map_err(|_| EINVAL)?;
        T::readdir(dir, pos, &mut |name, ino, kind, cookie| {
            let (Ok(at), Ok(len)) = (i64::try_from(cookie), i32::try_from(name.len())) else {
                return false;
            };
            // SAFETY: As above; the name is valid during the call. The actor must see the position
            // of this entry, and the next call starts behind it.
            unsafe {
                (*ctx).pos = at;
                let more = bindings::ordofs_dir_emit(
                    ctx,
                    name.as_ptr().cast(),
                    len,
                    ino,
                    c_uint::from(kind),
                );
                if more {
                    (*ctx).pos = at.saturating_add(1);
                }
                more
            }
        })?;
        Ok(0)
    })
}

/// `fsync`.
///
/// # Safety
///
/// Called by the VFS for an open directory of `T`.
unsafe extern "C" fn fsync<T: FileData>(
    file: *mut bindings::file,
    _start: bindings::loff_t,
    _end: bindings::loff_t,
    _datasync: c_int,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes an open file of a directory of `T`.
        let inode = unsafe { (*file).f_inode };
        // Times that the VFS alone has go to the filesystem first.
        // SAFETY: The inode is valid while the file is open.
        to_result(unsafe { bindings::sync_inode_metadata(inode, 1) })?;
        // SAFETY: As above.
        T::sync_inode(unsafe { Inode::<T>::from_raw(inode) })?;
        Ok(0)
    })
}
