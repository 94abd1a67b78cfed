// SPDX-License-Identifier: GPL-2.0

//! Mounting and remounting.
//!
//! # Model
//!
//! A filesystem context carries the options (`T::Params`, in `fs_private`) from the first
//! `parse_param` to `get_tree` or `reconfigure`. Whatever fails says why in the context's log, which
//! mount(8) shows.

use core::{ffi::CStr, marker::PhantomData, ptr};
use kernel::{
    error::{from_result, to_result},
    prelude::*,
    str::CStrExt,
};

use crate::vfs::{
    object::inode::Inode, object::super_block::Mounted, registration::Registration,
    table::super_ops, window::Tags, FileSystem, MountError, Param, SuperBlock,
};
use crate::{bindings, os::Device, vfs::traits::file_data::FileData};

/// The only block size.
const BLOCK_SIZE: c_int = 4096;

struct Tables<T: FileData>(PhantomData<T>);

impl<T: FileData> Tables<T> {
    const CONTEXT: bindings::fs_context_operations = bindings::fs_context_operations {
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
pub(crate) unsafe extern "C" fn init<T: FileData>(fc: *mut bindings::fs_context) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a new context; `root` is set for a remount, and then keeps the
        // superblock.
        let current = unsafe {
            if (*fc).root.is_null() {
                None
            } else {
                Some(SuperBlock::<T>::from_raw((*(*fc).root).d_sb))
            }
        };
        let params = KBox::new(T::initial_params(current), GFP_KERNEL)?;
        // SAFETY: The context is ours.
        unsafe {
            (*fc).fs_private = KBox::into_raw(params).cast();
            (*fc).ops = &Tables::<T>::CONTEXT;
        }
        Ok(0)
    })
}

/// `free`.
///
/// # Safety
///
/// As the VFS calls it, once, for a context after [`init()`] of the same `T`.
unsafe extern "C" fn free<T: FileSystem>(fc: *mut bindings::fs_context) {
    // SAFETY: `fs_private` is null or was set by `init`; this is the last use of the context.
    unsafe {
        let params = (*fc).fs_private.cast::<T::Params>();
        if !params.is_null() {
            drop(KBox::from_raw(params));
        }
    }
}

/// The options of a context.
///
/// # Safety
///
/// `fc` is a context after `init::<T>`, and its lock is held during `'a`.
unsafe fn params<'a, T: FileSystem>(fc: *mut bindings::fs_context) -> &'a mut T::Params {
    // SAFETY: By the caller's promise.
    unsafe { &mut *(*fc).fs_private.cast() }
}

/// `parse_param`.
///
/// # Safety
///
/// As the VFS calls it for a context after [`init()`] of the same `T`, with its lock held; `param` is valid.
unsafe extern "C" fn parse_param<T: FileData>(
    fc: *mut bindings::fs_context,
    param: *mut bindings::fs_parameter,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a context of ours and a parameter with a key; a value of type
        // string is a string.
        let (params, key, value) = unsafe {
            let value = match (*param).type_() {
                bindings::fs_value_type_fs_value_is_flag => None,
                bindings::fs_value_type_fs_value_is_string => {
                    Some(CStr::from_char_ptr((*param).__bindgen_anon_1.string).to_bytes())
                }
                _ => Some(&b"?"[..]),
            };
            (params::<T>(fc), CStr::from_char_ptr((*param).key), value)
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
unsafe fn use_acls(sb: *mut bindings::super_block, on: bool) {
    // SAFETY: By the caller's promise.
    unsafe { crate::vfs::table::super_ops::assert_locked(sb, true) };
    // SAFETY: The field is valid, and nobody else writes it, by the caller's promise; others read it
    // without a lock, and see the old word or the new one.
    unsafe {
        let flags = ptr::addr_of_mut!((*sb).s_flags);
        let rest = flags.read() & !bindings::ORDOFS_SB_POSIXACL;
        let acl = if on { bindings::ORDOFS_SB_POSIXACL } else { 0 };
        flags.write_volatile(rest | acl);
    }
}

/// `get_tree`.
///
/// # Safety
///
/// As the VFS calls it for a context after [`init()`] of the same `T`.
unsafe extern "C" fn get_tree<T: FileData>(fc: *mut bindings::fs_context) -> c_int {
    // SAFETY: The VFS passes a context of ours.
    unsafe { bindings::get_tree_bdev(fc, Some(fill_super::<T>)) }
}

/// Fills a new superblock.
///
/// # Safety
///
/// As `get_tree_bdev` calls it: `sb` is new, its device is open, `fc` is a context after [`init()`] of the same `T`.
unsafe extern "C" fn fill_super<T: FileData>(
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
/// As the VFS calls `fill_super`.
unsafe fn try_fill_super<T: FileData>(
    sb: *mut bindings::super_block,
    fc: *mut bindings::fs_context,
) -> Result {
    // SAFETY: The superblock is new and ours; the context is ours.
    unsafe {
        if bindings::sb_set_blocksize(sb, BLOCK_SIZE) == 0 {
            let reason = "the device cannot do blocks of 4096 bytes";
            return Err(explain(
                fc,
                MountError {
                    error: EINVAL,
                    reason,
                },
            ));
        }
        // We read past the device's page cache. What somebody wrote there is not on the disk yet if the
        // device stayed open, be it in udev's hands (as in XFS).
        to_result(bindings::sync_blockdev((*sb).s_bdev))?;
        (*sb).s_op = super_ops::super_ops::<T>();
        (*sb).s_xattr = crate::vfs::table::xattr::handlers::<T>();
        use_acls(sb, T::posix_acls(params::<T>(fc)));
        (*sb).s_export_op = crate::vfs::table::export::export_ops::<T>();
        (*sb).s_maxbytes = i64::MAX;
        (*sb).s_magic = T::MAGIC as c_ulong;
        (*sb).s_time_gran = 1;
        (*sb).s_time_min = i64::MIN;
        (*sb).s_time_max = i64::MAX;
        let read_only = bindings::ordofs_sb_rdonly(sb);
        let tags = Tags::new()?;
        let dev = Device::from_super(sb, tags.clone())?;
        let fs = T::mount(dev, params::<T>(fc), read_only).map_err(|e| explain(fc, e))?;
        bindings::ordofs_sb_set_uuid(sb, fs.uuid().as_ptr());
        let mounted = KBox::new(Mounted::new(fs, tags)?, GFP_KERNEL)?;
        // INVARIANT: Set once, before any inode is made.
        (*sb).s_fs_info = KBox::into_raw(mounted).cast();

        let sb_ref = SuperBlock::<T>::from_raw(sb);
        let root = Inode::get(sb_ref, sb_ref.fs().root_ino())?;
        if !root.is_dir() {
            let reason = "the root is not a directory";
            return Err(explain(
                fc,
                MountError {
                    error: EFSCORRUPTED,
                    reason,
                },
            ));
        }
        // Consumes the reference, also on failure.
        let dentry = bindings::d_make_root(root.into_raw());
        if dentry.is_null() {
            return Err(ENOMEM);
        }
        let parent = Registration::<T>::directory((*sb).s_type);
        let started = sb_ref
            .mounted()
            .show(parent, sb_ref.id())
            .and_then(|()| sb_ref.fs().started(sb_ref, read_only));
        if let Err(e) = started {
            bindings::dput(dentry);
            return Err(e);
        }
        (*sb).s_root = dentry;
    }
    Ok(())
}

/// `reconfigure`: a remount.
///
/// # Safety
///
/// As the VFS calls it: `fc` is a context for a mounted superblock of `T`, whose `s_umount` is held exclusively.
unsafe extern "C" fn reconfigure<T: FileData>(fc: *mut bindings::fs_context) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a context of ours for a mounted superblock, whose `s_umount` it
        // holds exclusively.
        let (sb, params, flags, mask) = unsafe {
            (
                SuperBlock::<T>::from_raw((*(*fc).root).d_sb),
                params::<T>(fc),
                (*fc).sb_flags,
                (*fc).sb_flags_mask,
            )
        };
        // SAFETY: As above. When this becomes read-only, the VFS has locked writers out.
        to_result(unsafe { bindings::sync_filesystem(sb.as_ptr()) })?;
        let read_only = if mask & bindings::ORDOFS_SB_RDONLY != 0 {
            flags & bindings::ORDOFS_SB_RDONLY != 0
        } else {
            sb.read_only()
        };
        // SAFETY: The context is valid.
        T::reconfigure(sb, params, read_only).map_err(|e| unsafe { explain(fc, e) })?;
        // SAFETY: As above; `s_umount` is what flags change under.
        unsafe { use_acls(sb.as_ptr(), T::posix_acls(params)) };
        Ok(0)
    })
}

/// `kill_sb`.
///
/// # Safety
///
/// As the VFS calls it, for a superblock of the type that a `Registration<T>` registered.
pub(crate) unsafe extern "C" fn kill_sb<T: FileData>(sb: *mut bindings::super_block) {
    // SAFETY: `stop`, which frees what is behind `s_fs_info`, has not run, or it has cleared that.
    unsafe { super_ops::dying::<T>(sb) };
    // SAFETY: The superblock comes from `get_tree_bdev`.
    unsafe { bindings::kill_block_super(sb) };
}
