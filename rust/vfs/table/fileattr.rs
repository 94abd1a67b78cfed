// SPDX-License-Identifier: GPL-2.0

//! Inode flags (`chattr`, `lsattr`).
//!
//! # Locking
//!
//! `fileattr_set` runs under `i_rwsem` held exclusively, after the VFS has checked permissions.
//!
//! Tests: tests/vm/t/029-flags.sh.

use kernel::{
    error::{from_result, to_result},
    prelude::*,
};

use crate::bindings;
use crate::vfs::object::inode::{Inode, Locked};
use crate::vfs::traits::inode::{AttrChange, InodeOperations};

/// The flags that can be set: what the VFS obeys, and `d`, which is for dump(8).
const SETTABLE: u32 = bindings::FS_SYNC_FL
    | bindings::FS_IMMUTABLE_FL
    | bindings::FS_APPEND_FL
    | bindings::FS_NODUMP_FL
    | bindings::FS_NOATIME_FL
    | bindings::FS_DIRSYNC_FL;

/// `fileattr_get`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of `T`.
pub(super) unsafe extern "C" fn get<T: InodeOperations>(
    dentry: *mut bindings::dentry,
    fa: *mut bindings::file_kattr,
) -> c_int {
    // SAFETY: The VFS passes a positive dentry, which keeps its inode.
    let inode = unsafe { Inode::<T>::from_raw(bindings::ordofs_d_inode(dentry)) };
    let flags = T::attrs(inode.data()).flags & SETTABLE;
    // SAFETY: The VFS passes a structure that is this call's to fill.
    unsafe { bindings::fileattr_fill_flags(fa, flags) };
    0
}

/// `fileattr_set`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of `T`.
pub(super) unsafe extern "C" fn set<T: InodeOperations>(
    _idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    fa: *mut bindings::file_kattr,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a positive dentry, which keeps its inode.
        let inode = unsafe { Inode::<T>::from_raw(bindings::ordofs_d_inode(dentry)) };
        // SAFETY: The VFS holds the inode's `i_rwsem` exclusively until this function has returned.
        let inode = unsafe { Locked::new(inode) };
        // SAFETY: The VFS passes a structure that no task changes meanwhile.
        let flags = unsafe { (*fa).flags };
        // SAFETY: The VFS passes a structure that no task changes meanwhile.
        let extended = unsafe { bindings::ordofs_fileattr_has_fsx(fa) };
        if extended || flags & !SETTABLE != 0 {
            return Err(EOPNOTSUPP);
        }
        if flags & bindings::FS_DIRSYNC_FL != 0 && !inode.is_dir() {
            return Err(EOPNOTSUPP);
        }
        if inode.is_regular() && flags & bindings::FS_IMMUTABLE_FL != 0 {
            // What was written before is not to fail later.
            // SAFETY: The inode is valid, and sleeping is allowed under `i_rwsem`.
            to_result(unsafe { bindings::ordofs_write_and_wait(inode.as_ptr()) })?;
        }
        let now = crate::vfs::os::now();
        T::set_attrs(&inode, None, &mut || {
            inode.apply_flags(flags);
            // SAFETY: The inode is valid, and its `i_rwsem` is held exclusively.
            unsafe { bindings::ordofs_inode_set_ctime(inode.as_ptr(), now.sec, now.nsec) };
            AttrChange {
                flags: Some(flags),
                ctime: Some(now),
                ..AttrChange::default()
            }
        })?;
        // The change counter.
        inode.refresh();
        Ok(0)
    })
}
