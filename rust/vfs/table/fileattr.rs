// SPDX-License-Identifier: GPL-2.0

//! Inode flags (`chattr`, `lsattr`).
//!
//! # Locking
//!
//! `fileattr_set` runs under `i_rwsem` held exclusively, after the VFS has checked permissions.

use kernel::{error::from_result, prelude::*};

use crate::vfs::{AttrChange, FileSystem, Inode, Locked};
use crate::{bindings, vfs::traits::file_data::FileData};

/// The flags that can be set: what the VFS obeys, and `d`, which is for dump(8).
const SETTABLE: u32 = bindings::FS_SYNC_FL
    | bindings::FS_IMMUTABLE_FL
    | bindings::FS_APPEND_FL
    | bindings::FS_NODUMP_FL
    | bindings::FS_NOATIME_FL
    | bindings::FS_DIRSYNC_FL;

impl<T: FileSystem> Inode<T> {
    /// Makes the VFS obey flags. The inode is new, or `i_rwsem` is held exclusively.
    pub(in crate::vfs) fn apply_flags(&self, flags: u32) {
        let pairs = [
            (bindings::FS_SYNC_FL, bindings::ORDOFS_S_SYNC),
            (bindings::FS_IMMUTABLE_FL, bindings::ORDOFS_S_IMMUTABLE),
            (bindings::FS_APPEND_FL, bindings::ORDOFS_S_APPEND),
            (bindings::FS_NOATIME_FL, bindings::ORDOFS_S_NOATIME),
            (bindings::FS_DIRSYNC_FL, bindings::ORDOFS_S_DIRSYNC),
        ];
        let (mut set, mut mask) = (0, 0);
        for (disk, memory) in pairs {
            mask |= memory;
            if flags & disk != 0 {
                set |= memory;
            }
        }
        // SAFETY: The inode is valid, and its flags are the caller's to change.
        unsafe { bindings::inode_set_flags(self.as_ptr(), set, mask) };
    }
}

/// `fileattr_get`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of `T`.
pub(crate) unsafe extern "C" fn get<T: FileData>(
    dentry: *mut bindings::dentry,
    fa: *mut bindings::file_kattr,
) -> c_int {
    // SAFETY: The VFS passes a positive dentry and a structure to fill.
    unsafe {
        let inode = Inode::<T>::from_raw(bindings::ordofs_d_inode(dentry));
        bindings::fileattr_fill_flags(fa, T::attrs(inode.data()).flags & SETTABLE);
    }
    0
}

/// `fileattr_set`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of `T`.
pub(crate) unsafe extern "C" fn set<T: FileData>(
    _idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    fa: *mut bindings::file_kattr,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a positive dentry whose inode's `i_rwsem` it holds exclusively.
        let (inode, flags, extended) = unsafe {
            (
                Locked::new(Inode::<T>::from_raw(bindings::ordofs_d_inode(dentry))),
                (*fa).flags,
                bindings::ordofs_fileattr_has_fsx(fa),
            )
        };
        if extended || flags & !SETTABLE != 0 {
            return Err(EOPNOTSUPP);
        }
        if flags & bindings::FS_DIRSYNC_FL != 0 && !inode.is_dir() {
            return Err(EOPNOTSUPP);
        }
        if inode.is_regular() && flags & bindings::FS_IMMUTABLE_FL != 0 {
            // What was written before is not to fail later.
            // SAFETY: The inode is valid, and sleeping is allowed.
            kernel::error::to_result(unsafe { bindings::ordofs_write_and_wait(inode.as_ptr()) })?;
        }
        let now = crate::os::now();
        T::set_attrs(&inode, None, &mut || {
            inode.apply_flags(flags);
            // SAFETY: The inode is valid and its attributes are ours to change.
            unsafe { bindings::ordofs_inode_set_ctime(inode.as_ptr(), now.sec, now.nsec) };
            AttrChange {
                flags: Some(flags),
                ctime: Some(now),
                ..AttrChange::default()
            }
        })?;
        Ok(0)
    })
}
