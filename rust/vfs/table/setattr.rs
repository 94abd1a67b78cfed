// SPDX-License-Identifier: GPL-2.0

//! Attributes of inodes: `getattr` and `setattr`.
//!
//! # Locking
//!
//! `setattr` runs under `i_rwsem` held exclusively. The VFS inode changes in the filesystem's critical
//! section, so that a write-back of the inode, which runs without `i_rwsem`, sees both changed or none.

use core::marker::PhantomData;
use kernel::{
    error::{from_result, to_result},
    prelude::*,
};

use crate::vfs::{table::acl::ChangedMode, AttrChange, Inode, Locked, Timestamp};
use crate::{bindings, vfs::traits::file_data::FileData};

/// What direct I/O must be aligned to, in memory and in the file.
const DIO_ALIGN: u32 = 4096;

/// Operation tables of inodes that are not directories.
struct Tables<T: FileData>(PhantomData<T>);

impl<T: FileData> Tables<T> {
    const ANY: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(getattr::<T>),
        setattr: Some(setattr::<T>),
        listxattr: Some(crate::vfs::table::xattr::list::<T>),
        ..pin_init::zeroed()
    };
    const SPECIAL: bindings::inode_operations = bindings::inode_operations {
        get_inode_acl: Some(crate::vfs::table::acl::get::<T>),
        set_acl: Some(crate::vfs::table::acl::set::<T>),
        ..Self::ANY
    };
    const REGULAR: bindings::inode_operations = bindings::inode_operations {
        fiemap: Some(crate::vfs::traits::file_data::fiemap::<T>),
        fileattr_get: Some(crate::vfs::table::fileattr::get::<T>),
        fileattr_set: Some(crate::vfs::table::fileattr::set::<T>),
        ..Self::SPECIAL
    };
    // `get_link` is for the VFS to know a symbolic link; it takes the target from `i_link`.
    const SYMLINK: bindings::inode_operations = bindings::inode_operations {
        get_link: Some(bindings::simple_get_link),
        ..Self::ANY
    };
}

/// Operations of regular files.
pub(crate) fn regular_ops<T: FileData>() -> *const bindings::inode_operations {
    &Tables::<T>::REGULAR
}

/// Operations of symbolic links.
pub(crate) fn symlink_ops<T: FileData>() -> *const bindings::inode_operations {
    &Tables::<T>::SYMLINK
}

/// Operations of device nodes, fifos and sockets.
pub(crate) fn special_ops<T: FileData>() -> *const bindings::inode_operations {
    &Tables::<T>::SPECIAL
}

/// `getattr`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of `T`.
pub(crate) unsafe extern "C" fn getattr<T: FileData>(
    idmap: *mut bindings::mnt_idmap,
    path: *const bindings::path,
    stat: *mut bindings::kstat,
    request_mask: u32,
    _flags: c_uint,
) -> c_int {
    // SAFETY: The VFS passes a path that it holds, with a positive dentry, and a `struct kstat` to
    // fill.
    unsafe {
        let ptr = bindings::ordofs_d_inode((*path).dentry);
        let inode = Inode::<T>::from_raw(ptr);
        bindings::generic_fillattr(idmap, request_mask, ptr, stat);
        bindings::generic_fill_statx_attr(ptr, stat);
        let attrs = T::attrs(inode.data());
        (*stat).blocks = attrs.sectors;
        // `i_flags`, from which the VFS takes the others that have an attribute, has no such flag.
        (*stat).attributes_mask |= u64::from(bindings::STATX_ATTR_NODUMP);
        if attrs.flags & bindings::FS_NODUMP_FL != 0 {
            (*stat).attributes |= u64::from(bindings::STATX_ATTR_NODUMP);
        }
        if request_mask & bindings::STATX_BTIME != 0 {
            (*stat).btime = timespec(attrs.btime);
            (*stat).result_mask |= bindings::STATX_BTIME;
        }
        if inode.is_regular() && request_mask & bindings::STATX_DIOALIGN != 0 {
            (*stat).dio_mem_align = DIO_ALIGN;
            (*stat).dio_offset_align = DIO_ALIGN;
            (*stat).result_mask |= bindings::STATX_DIOALIGN;
        }
    }
    0
}

fn timespec(t: Timestamp) -> bindings::timespec64 {
    bindings::timespec64 {
        tv_sec: t.sec,
        tv_nsec: t.nsec as c_long,
    }
}

/// `setattr`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of `T`.
pub(crate) unsafe extern "C" fn setattr<T: FileData>(
    idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    attr: *mut bindings::iattr,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes valid pointers and holds the inode's `i_rwsem` exclusively, and
        // the dentry is positive.
        let inode = unsafe {
            to_result(bindings::setattr_prepare(idmap, dentry, attr))?;
            Inode::<T>::from_raw(bindings::ordofs_d_inode(dentry))
        };
        // SAFETY: See above; the lock is held until this function has returned.
        let locked = unsafe { Locked::new(inode) };
        // SAFETY: `attr` is valid and the caller's alone.
        let attr = unsafe { &mut *attr };
        if attr.ia_valid & bindings::ATTR_SIZE != 0 {
            let size = u64::try_from(attr.ia_size).map_err(|_| EINVAL)?;
            if size != locked.size() && attr.ia_valid & bindings::ATTR_MTIME == 0 {
                // truncate(2) leaves it to the filesystem to see that something changes.
                attr.ia_valid |= bindings::ATTR_MTIME | bindings::ATTR_CTIME;
                let now = timespec(crate::os::now());
                attr.ia_mtime = now;
                attr.ia_ctime = now;
            }
            T::set_size(&locked, size)?;
        }
        let valid = attr.ia_valid;
        let acl = match valid & bindings::ATTR_MODE {
            0 => None,
            // The list, if there is one, says the same as the permissions, and changes with them.
            _ => ChangedMode::new(&locked, attr.ia_mode)?,
        };
        T::set_attrs(&locked, acl.as_ref().map(ChangedMode::bytes), &mut || {
            // SAFETY: `attr` is valid, and the lock is held.
            unsafe { bindings::setattr_copy(idmap, locked.as_ptr(), attr) };
            let (times, (uid, gid)) = (locked.times(), locked.owner());
            // All times, also those that the VFS has kept to itself so far (lazytime): with the change
            // of another attribute they become durable.
            AttrChange {
                mode: Some(locked.mode()),
                uid: Some(uid),
                gid: Some(gid),
                atime: Some(times.atime),
                mtime: Some(times.mtime),
                ctime: Some(times.ctime),
                flags: None,
            }
        })?;
        if let Some(acl) = acl {
            acl.cache(&locked);
        }
        Ok(0)
    })
}
