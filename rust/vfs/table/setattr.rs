// SPDX-License-Identifier: GPL-2.0

//! Attributes of inodes: `getattr` and `setattr`.
//!
//! # Locking
//!
//! `setattr` runs under `i_rwsem` held exclusively. The VFS inode changes in the filesystem's critical
//! section, so that a write-back of the inode, which runs without `i_rwsem`, sees both changed or none.
//!
//! Tests: tests/vm/t/053-attrs.sh, 029-flags.sh, 022-xattr.sh (chmod with a list).

use kernel::{
    error::{from_result, to_result},
    prelude::*,
};

use super::acl::ChangedMode;
use crate::bindings;
use crate::vfs::object::inode::{Inode, Locked};
use crate::vfs::os::Time;
use crate::vfs::traits::file::FileOperations;
use crate::vfs::traits::inode::{AttrChange, InodeOperations};

/// `getattr`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of `T`.
pub(super) unsafe extern "C" fn getattr<T: InodeOperations>(
    idmap: *mut bindings::mnt_idmap,
    path: *const bindings::path,
    stat: *mut bindings::kstat,
    request_mask: u32,
    _flags: c_uint,
) -> c_int {
    // SAFETY: The VFS passes a path that it holds, with a positive dentry.
    let ptr = unsafe { bindings::ordofs_d_inode((*path).dentry) };
    // SAFETY: The dentry keeps its inode, which is one of `T`.
    let inode = unsafe { Inode::<T>::from_raw(ptr) };
    // SAFETY: The arguments are the VFS's own, for the inode of the path.
    unsafe { bindings::generic_fillattr(idmap, request_mask, ptr, stat) };
    // SAFETY: The arguments are the VFS's own, for the inode of the path.
    unsafe { bindings::generic_fill_statx_attr(ptr, stat) };
    // SAFETY: The VFS passes a `struct kstat` that is this call's to fill.
    let stat = unsafe { &mut *stat };
    let attrs = T::attrs(inode.data());
    stat.blocks = attrs.sectors;
    // `i_flags`, from which the VFS takes the others that have an attribute, has no such flag.
    stat.attributes_mask |= u64::from(bindings::STATX_ATTR_NODUMP);
    if attrs.flags & bindings::FS_NODUMP_FL != 0 {
        stat.attributes |= u64::from(bindings::STATX_ATTR_NODUMP);
    }
    if request_mask & bindings::STATX_BTIME != 0 {
        stat.btime = timespec(attrs.btime);
        stat.result_mask |= bindings::STATX_BTIME;
    }
    if inode.is_regular() && request_mask & bindings::STATX_DIOALIGN != 0 {
        stat.dio_mem_align = T::BLOCK_SIZE as u32;
        stat.dio_offset_align = T::BLOCK_SIZE as u32;
        stat.result_mask |= bindings::STATX_DIOALIGN;
    }
    0
}

fn timespec(t: Time) -> bindings::timespec64 {
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
pub(super) unsafe extern "C" fn setattr<T: InodeOperations + FileOperations>(
    idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    attr: *mut bindings::iattr,
) -> c_int {
    from_result(|| {
        // SAFETY: The arguments are the VFS's own, which holds the inode's `i_rwsem` exclusively.
        to_result(unsafe { bindings::setattr_prepare(idmap, dentry, attr) })?;
        // SAFETY: The VFS passes a positive dentry, which keeps its inode.
        let inode = unsafe { Inode::<T>::from_raw(bindings::ordofs_d_inode(dentry)) };
        // SAFETY: The VFS holds the inode's `i_rwsem` exclusively until this function has returned.
        let locked = unsafe { Locked::new(inode) };
        // SAFETY: `attr` is valid and the caller's alone.
        let attr = unsafe { &mut *attr };
        // The list, if there is one, says the same as the permissions, and changes with them. It is read before the
        // size changes: a truncation that takes the setuid bit away comes here with both, and must not fail
        // half-way because the list cannot be read. Neither list nor permissions change until they are set below:
        // both are under `i_rwsem`, and `set_size` leaves them alone.
        let acl = match attr.ia_valid & bindings::ATTR_MODE {
            0 => None,
            _ => ChangedMode::new(&locked, attr.ia_mode)?,
        };
        if attr.ia_valid & bindings::ATTR_SIZE != 0 {
            let size = u64::try_from(attr.ia_size).map_err(|_| EINVAL)?;
            if size != locked.size() && attr.ia_valid & bindings::ATTR_MTIME == 0 {
                // truncate(2) leaves it to the filesystem to see that something changes.
                attr.ia_valid |= bindings::ATTR_MTIME | bindings::ATTR_CTIME;
                let now = timespec(crate::vfs::os::now());
                attr.ia_mtime = now;
                attr.ia_ctime = now;
            }
            T::set_size(&locked, size)?;
        }
        T::set_attrs(&locked, acl.as_ref().map(ChangedMode::bytes), &mut || {
            // SAFETY: The arguments are the VFS's own, which holds the inode's `i_rwsem` exclusively.
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
        // The change counter.
        locked.refresh();
        Ok(0)
    })
}
