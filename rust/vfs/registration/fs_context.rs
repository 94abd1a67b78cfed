// SPDX-License-Identifier: GPL-2.0

//! Mounting and remounting.
//!
//! # Model
//!
//! A filesystem context carries the options (`T::Params`, in `fs_private`) from the first
//! `parse_param` to `get_tree` or `reconfigure`. Whatever fails says why in the context's log, which
//! mount(8) shows.
//!
//! Tests: tests/vm/t/021-mount.sh, 026-read-only.sh, 032-interface.sh, 024-device-cache.sh.

use core::{ffi::CStr, marker::PhantomData};
use kernel::{
    error::{from_result, to_result},
    prelude::*,
    str::CStrExt,
};

use crate::bindings;
use crate::vfs::object::block::OpenDevice;
use crate::vfs::object::fs_type::FsType;
use crate::vfs::object::inode::Inode;
use crate::vfs::object::super_block::{Mounted, SuperBlock};
use crate::vfs::object::sysfs::Files;
use crate::vfs::table::super_ops::{self, Umount};
use crate::vfs::table::{export, xattr};
use crate::vfs::traits::file_system::FileSystem;
use crate::vfs::traits::mount::{Access, MountError, MountOperations, Param, PosixAcls};

struct Tables<T>(PhantomData<T>);

impl<T: FileSystem> Tables<T> {
    const CONTEXT: &'static bindings::fs_context_operations = &bindings::fs_context_operations {
        free: Some(free::<T>),
        parse_param: Some(parse_param::<T>),
        get_tree: Some(get_tree::<T>),
        reconfigure: Some(reconfigure::<T>),
        ..pin_init::zeroed()
    };
}

/// `init_fs_context`.
///
/// # Safety
///
/// As the VFS calls it, for the type that a `Registration<T>` registered.
pub(super) unsafe extern "C" fn init<T: FileSystem>(fc: *mut bindings::fs_context) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a new context.
        let root = unsafe { (*fc).root };
        // SAFETY: The root, which is set for a remount, keeps the superblock, which is one of `T`.
        let current = (!root.is_null()).then(|| unsafe { SuperBlock::<T>::from_raw((*root).d_sb) });
        let params = KBox::new(T::initial_params(current), GFP_KERNEL)?;
        // SAFETY: The context is this call's to initialise.
        unsafe { (*fc).fs_private = KBox::into_raw(params).cast() };
        // SAFETY: The context is this call's to initialise.
        unsafe { (*fc).ops = Tables::<T>::CONTEXT };
        Ok(0)
    })
}

/// `free`.
///
/// # Safety
///
/// As the VFS calls it, once, for a context after [`init()`] of the same `T`.
unsafe extern "C" fn free<T: MountOperations>(fc: *mut bindings::fs_context) {
    // SAFETY: The VFS passes a context of ours.
    let params = unsafe { (*fc).fs_private }.cast::<T::Params>();
    if !params.is_null() {
        // SAFETY: `init` set it, from a box, and this is the last use of the context.
        drop(unsafe { KBox::from_raw(params) });
    }
}

/// The options of a context.
///
/// # Safety
///
/// `fc` is a context after `init::<T>`, and its lock is held during `'a`.
unsafe fn params<'a, T: MountOperations>(fc: *mut bindings::fs_context) -> &'a mut T::Params {
    // SAFETY: By this function's contract `init` set the field, and the lock keeps other tasks away.
    unsafe { &mut *(*fc).fs_private.cast() }
}

/// `parse_param`.
///
/// # Safety
///
/// As the VFS calls it for a context after [`init()`] of the same `T`, with its lock held; `param` is valid.
unsafe extern "C" fn parse_param<T: MountOperations>(
    fc: *mut bindings::fs_context,
    param: *mut bindings::fs_parameter,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a context of ours, with its lock held.
        let params = unsafe { params::<T>(fc) };
        // SAFETY: The VFS passes a parameter that stays during the call.
        let param = unsafe { &*param };
        // SAFETY: The key of a parameter is a string.
        let key = unsafe { CStr::from_char_ptr(param.key) };
        let value = match param.type_() {
            bindings::fs_value_type_fs_value_is_flag => None,
            bindings::fs_value_type_fs_value_is_string => {
                // SAFETY: By its type the value is a string.
                let text = unsafe { CStr::from_char_ptr(param.__bindgen_anon_1.string) };
                Some(text.to_bytes())
            }
            _ => Some(&b"?"[..]),
        };
        match T::parse_param(params, key.to_bytes(), value) {
            Param::Accepted => Ok(0),
            // The VFS looks at the options it knows itself, and else names this one.
            Param::Unknown => Err(ENOPARAM),
            Param::Invalid(expected) => {
                // SAFETY: The context and the strings are valid during the call.
                unsafe {
                    bindings::ordofs_fc_error_param(
                        fc,
                        key.as_char_ptr(),
                        expected.as_ptr().cast(),
                        expected.len() as c_int,
                    );
                }
                Err(EINVAL)
            }
        }
    })
}

/// Puts the reason of a failure into the context's log.
///
/// # Safety
///
/// `fc` is a valid context.
unsafe fn explain(fc: *mut bindings::fs_context, e: MountError) -> Error {
    if !e.reason.is_empty() {
        // SAFETY: The context and the string are valid during the call.
        unsafe {
            bindings::ordofs_fc_error(fc, e.reason.as_ptr().cast(), e.reason.len() as c_int);
        }
    }
    e.error
}

/// Turns access control lists on or off.
///
/// # Safety
///
/// `sb` is valid and its `s_umount` held exclusively, as it is while it is filled.
unsafe fn use_acls(sb: *mut bindings::super_block, acls: PosixAcls) {
    // SAFETY: By this function's contract the superblock is valid.
    unsafe { super_ops::assert_locked(sb, Umount::Exclusive) };
    // SAFETY: By this function's contract the superblock is valid.
    let flags = unsafe { &raw mut (*sb).s_flags };
    // SAFETY: The field is valid; it changes under `s_umount`, which is held exclusively.
    let rest = unsafe { flags.read() } & !bindings::ORDOFS_SB_POSIXACL;
    let acl = match acls {
        PosixAcls::On => bindings::ORDOFS_SB_POSIXACL,
        PosixAcls::Off => 0,
    };
    // SAFETY: The field is valid; it changes under `s_umount`, which is held exclusively. Others read it without a
    // lock, and see the old word or the new one.
    unsafe { flags.write_volatile(rest | acl) };
}

/// `get_tree`.
///
/// # Safety
///
/// As the VFS calls it for a context after [`init()`] of the same `T`.
unsafe extern "C" fn get_tree<T: FileSystem>(fc: *mut bindings::fs_context) -> c_int {
    // SAFETY: The VFS passes a context of ours.
    unsafe { bindings::get_tree_bdev(fc, Some(fill_super::<T>)) }
}

/// Fills a new superblock.
///
/// # Safety
///
/// As `get_tree_bdev` calls it: `sb` is new, its device is open, `fc` is a context after [`init()`] of the same `T`.
unsafe extern "C" fn fill_super<T: FileSystem>(
    sb: *mut bindings::super_block,
    fc: *mut bindings::fs_context,
) -> c_int {
    // SAFETY: The VFS passes a new superblock with its device open, and the context it is for.
    match unsafe { try_fill_super::<T>(sb, fc) } {
        Ok(()) => 0,
        Err(e) => {
            // Without a root the VFS does not call `put_super`.
            // SAFETY: No inode is left, because the root's reference is gone and an inode of a
            // superblock that is not active is evicted with its last reference.
            unsafe { super_ops::stop::<T>(sb) };
            e.to_errno()
        }
    }
}

/// # Safety
///
/// As for [`fill_super`].
unsafe fn try_fill_super<T: FileSystem>(
    sb: *mut bindings::super_block,
    fc: *mut bindings::fs_context,
) -> Result {
    // SAFETY: By this function's contract the superblock is new and ours, and so is the context.
    unsafe { prepare::<T>(sb, fc) }?;
    // SAFETY: The superblock is new, its device open, and stays so until `stop` has dropped what is made of it.
    let dev = unsafe { OpenDevice::from_super(sb) }?;
    // SAFETY: The superblock is valid; reads its flags.
    let access = access(unsafe { bindings::ordofs_sb_rdonly(sb) });
    // SAFETY: By this function's contract the context is ours, and its lock is held while a superblock is filled.
    let params = unsafe { params::<T>(fc) };
    // SAFETY: The context is valid.
    let fs = T::mount(dev, params, access).map_err(|e| unsafe { explain(fc, e) })?;
    // SAFETY: The superblock is ours; the UUID has 16 bytes, which are copied.
    unsafe { bindings::ordofs_sb_set_uuid(sb, fs.uuid().as_ptr()) };
    let mounted = KBox::new(Mounted::new(fs)?, GFP_KERNEL)?;
    // INVARIANT: Set once, before any inode is made.
    // SAFETY: The superblock is new and ours.
    unsafe { (*sb).s_fs_info = KBox::into_raw(mounted).cast() };

    // SAFETY: The superblock is one of `T`, with `s_fs_info` set; `stop` runs after the last use of this.
    let this = unsafe { SuperBlock::<T>::from_raw(sb) };
    let root = Inode::get(this, this.fs().root_ino())?;
    if !root.is_dir() {
        let error = MountError {
            error: EFSCORRUPTED,
            reason: "the root is not a directory",
        };
        // SAFETY: The context is valid.
        return Err(unsafe { explain(fc, error) });
    }
    // SAFETY: The inode comes with a reference, which this consumes, also on failure.
    let dentry = unsafe { bindings::d_make_root(root.into_raw()) };
    if dentry.is_null() {
        return Err(ENOMEM);
    }
    if let Err(e) = start(this, access) {
        // SAFETY: The reference to the new dentry is ours.
        unsafe { bindings::dput(dentry) };
        return Err(e);
    }
    // SAFETY: The superblock is ours; the reference to the dentry goes to it.
    unsafe { (*sb).s_root = dentry };
    Ok(())
}

fn access(read_only: bool) -> Access {
    if read_only {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    }
}

/// Sets what does not depend on what is on the device.
///
/// # Safety
///
/// As for [`fill_super`].
unsafe fn prepare<T: FileSystem>(
    sb: *mut bindings::super_block,
    fc: *mut bindings::fs_context,
) -> Result {
    // SAFETY: The superblock is new, and its device open.
    if unsafe { bindings::sb_set_blocksize(sb, T::BLOCK_SIZE as c_int) } == 0 {
        let error = MountError {
            error: EINVAL,
            reason: "the device cannot do blocks of the filesystem's size",
        };
        // SAFETY: The context is valid.
        return Err(unsafe { explain(fc, error) });
    }
    // We read past the device's page cache. What another program wrote there is not on the disk yet if the
    // device stayed open, be it in udev's hands (as in XFS).
    // SAFETY: The device is open.
    to_result(unsafe { bindings::sync_blockdev((*sb).s_bdev) })?;
    // SAFETY: By this function's contract the context is ours, and its lock is held.
    let acls = T::posix_acls(unsafe { params::<T>(fc) });
    // SAFETY: The superblock is being filled, with `s_umount` held exclusively.
    unsafe { use_acls(sb, acls) };
    // SAFETY: The superblock is new: no other task looks at the field.
    unsafe { (*sb).s_flags |= bindings::ORDOFS_SB_I_VERSION as c_ulong };
    // Write-back of pages is charged to the control group that made them dirty: iomap does it in its bios.
    // SAFETY: The superblock is new: no other task looks at the field.
    unsafe { (*sb).s_iflags |= bindings::ORDOFS_SB_I_CGROUPWB };
    // SAFETY: The superblock is new: no other task looks at the field.
    unsafe { (*sb).s_op = super_ops::super_ops::<T>() };
    // SAFETY: The superblock is new: no other task looks at the field.
    unsafe { (*sb).s_xattr = xattr::handlers::<T>() };
    // SAFETY: The superblock is new: no other task looks at the field.
    unsafe { (*sb).s_export_op = export::export_ops::<T>() };
    // SAFETY: The superblock is new: no other task looks at the field.
    unsafe { (*sb).s_maxbytes = i64::MAX };
    // SAFETY: The superblock is new: no other task looks at the field.
    unsafe { (*sb).s_magic = T::MAGIC as c_ulong };
    // SAFETY: The superblock is new: no other task looks at the field.
    unsafe { (*sb).s_time_gran = 1 };
    // SAFETY: The superblock is new: no other task looks at the field.
    unsafe { (*sb).s_time_min = i64::MIN };
    // SAFETY: The superblock is new: no other task looks at the field.
    unsafe { (*sb).s_time_max = i64::MAX };
    Ok(())
}

/// Makes the directory in sysfs and starts what runs in the background.
fn start<T: FileSystem>(sb: &SuperBlock<T>, access: Access) -> Result {
    // SAFETY: A superblock's type does not change.
    let fs_type = unsafe { (*sb.as_ptr()).s_type };
    // SAFETY: The superblock is one of `T`, and keeps the module, and with that its type.
    let parent = unsafe { FsType::<T>::from_raw(fs_type) }.directory();
    let files = Files {
        files: T::FILES,
        groups: T::FILE_GROUPS,
    };
    // SAFETY: What is behind `s_fs_info` stays where it is until `stop`, which hides it first.
    unsafe { sb.mounted().show(parent, sb.id(), files) }?;
    sb.fs().started(sb, access)
}

/// `reconfigure`: a remount.
///
/// # Safety
///
/// As the VFS calls it: `fc` is a context for a mounted superblock of `T`, whose `s_umount` is held exclusively.
unsafe extern "C" fn reconfigure<T: FileSystem>(fc: *mut bindings::fs_context) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a context of ours for a remount, with the root of a mounted superblock.
        let sb = unsafe { SuperBlock::<T>::from_raw((*(*fc).root).d_sb) };
        // SAFETY: The VFS passes a context of ours, with its lock held.
        let params = unsafe { params::<T>(fc) };
        // SAFETY: The context is valid, and no task changes it meanwhile.
        let (flags, mask) = unsafe { ((*fc).sb_flags, (*fc).sb_flags_mask) };
        // SAFETY: The superblock is mounted, and the VFS holds its `s_umount` exclusively. When this becomes
        // read-only, the VFS has locked writers out.
        to_result(unsafe { bindings::sync_filesystem(sb.as_ptr()) })?;
        let read_only = if mask & bindings::ORDOFS_SB_RDONLY != 0 {
            flags & bindings::ORDOFS_SB_RDONLY != 0
        } else {
            sb.read_only()
        };
        // SAFETY: The context is valid.
        T::reconfigure(sb, params, access(read_only)).map_err(|e| unsafe { explain(fc, e) })?;
        // remount(2) replaces the flag by that of its caller.
        // SAFETY: The context is valid, and no other task changes it meanwhile.
        unsafe { (*fc).sb_flags |= bindings::ORDOFS_SB_I_VERSION };
        // SAFETY: The VFS holds `s_umount` exclusively.
        unsafe { use_acls(sb.as_ptr(), T::posix_acls(params)) };
        Ok(0)
    })
}

/// `kill_sb`.
///
/// # Safety
///
/// As the VFS calls it, for a superblock of the type that a `Registration<T>` registered.
pub(super) unsafe extern "C" fn kill_sb<T: FileSystem>(sb: *mut bindings::super_block) {
    // SAFETY: `stop`, which frees what is behind `s_fs_info`, has not run, or it has cleared that.
    unsafe { super_ops::dying::<T>(sb) };
    // SAFETY: The superblock comes from `get_tree_bdev`.
    unsafe { bindings::kill_block_super(sb) };
}
