// SPDX-License-Identifier: GPL-2.0

//! Reading directories.
//!
//! # Model
//!
//! The position of a directory's file is a cookie: 0 is `.`, 1 is `..`, every other entry has a
//! cookie of its own that never changes, so that a listing goes on where it stopped however the
//! directory was changed meanwhile.
//!
//! A cookie has 63 bits. 32-bit programs keep positions in a `long`, and so does what sets
//! `FMODE_32BITHASH` (NFS 2). They see the upper 31 bits, and the open file keeps the exact cookie at
//! which its listing goes on (in `private_data`, as a number). After a seek only the upper bits are
//! known: the listing goes on at the first entry that has them, and may repeat some names, but leaves
//! none out.
//!
//! # Locking
//!
//! The VFS holds `f_pos_lock` for reading and seeking, or the caller has the open file for itself.

use core::{marker::PhantomData, ptr};
use kernel::{
    error::{from_result, to_result},
    prelude::*,
};

use crate::vfs::Inode;
use crate::{bindings, vfs::traits::file_data::FileData};

/// The file operation table of directories.
struct Tables<T: FileData>(PhantomData<T>);

impl<T: FileData> Tables<T> {
    const DIR: bindings::file_operations = bindings::file_operations {
        open: Some(open::<T>),
        llseek: Some(llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(iterate::<T>),
        fsync: Some(fsync::<T>),
        unlocked_ioctl: Some(crate::vfs::table::ioctl::ioctl::<T>),
        compat_ioctl: crate::vfs::table::ioctl::COMPAT,
        ..pin_init::zeroed()
    };
}

/// File operations of directories.
pub(crate) fn dir_file_ops<T: FileData>() -> *const bindings::file_operations {
    &Tables::<T>::DIR
}

/// The first position of an entry.
const FIRST: u64 = 2;

/// What a 32-bit program sees of a position.
fn narrow(pos: u64) -> u64 {
    if pos <= FIRST {
        pos
    } else {
        (pos >> 32).max(FIRST)
    }
}

/// The first position that [`narrow`] makes this of. Wider ones are exact: another program has left them.
fn widen(pos: u64) -> u64 {
    match i32::try_from(pos) {
        Ok(_) if pos > FIRST => pos << 32,
        _ => pos,
    }
}

/// The position at which an open directory goes on, if only its upper bits are seen.
///
/// # Safety
///
/// `file` is an open directory, and nobody else uses its position.
unsafe fn kept(file: *mut bindings::file) -> u64 {
    // SAFETY: By the caller's promise. The field has a number, nothing that it points to.
    unsafe { (*file).private_data as usize as u64 }
}

/// Sets [`kept`]; 0: nothing is.
///
/// # Safety
///
/// As for [`kept`].
unsafe fn keep(file: *mut bindings::file, pos: u64) {
    // SAFETY: By the caller's promise.
    unsafe { (*file).private_data = ptr::without_provenance_mut(pos as usize) };
}

/// `open`.
///
/// # Safety
///
/// As the VFS calls it for a directory of `T`.
unsafe extern "C" fn open<T: FileData>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes an inode of `T`.
        unsafe { Inode::<T>::from_raw(inode) }.fs().readable()?;
        // SAFETY: The arguments are the VFS's own.
        to_result(unsafe { bindings::generic_file_open(inode, file) })?;
        Ok(0)
    })
}

/// `llseek`.
///
/// # Safety
///
/// As the VFS calls it for an open directory.
unsafe extern "C" fn llseek(
    file: *mut bindings::file,
    offset: bindings::loff_t,
    whence: c_int,
) -> bindings::loff_t {
    // SAFETY: The arguments are the VFS's own.
    let pos = unsafe { bindings::generic_file_llseek(file, offset, whence) };
    // A question for the position is no seek.
    if pos >= 0 && (whence as u32 != bindings::SEEK_CUR || offset != 0) {
        // SAFETY: The VFS has locked the position.
        unsafe { keep(file, 0) };
    }
    pos
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
        // SAFETY: As above; the position is locked.
        let (seen, exact, upper_only) = unsafe {
            let seen = u64::try_from((*ctx).pos).map_err(|_| EINVAL)?;
            (
                seen,
                kept(file),
                bindings::ordofs_dir_shows_upper_bits(file),
            )
        };
        let show = |pos| if upper_only { narrow(pos) } else { pos };
        let mut next = match upper_only {
            // Nobody has sought elsewhere.
            true if exact != 0 && narrow(exact) == seen => exact,
            true => widen(seen),
            false => seen,
        };
        let done = T::readdir(dir, next, &mut |name, ino, kind, cookie| {
            let (Ok(at), Ok(len)) = (i64::try_from(show(cookie)), i32::try_from(name.len())) else {
                return false;
            };
            next = cookie;
            // SAFETY: As above; the name is valid during the call. The actor must see the position
            // of this entry, and the next call starts behind it.
            let more = unsafe {
                (*ctx).pos = at;
                bindings::ordofs_dir_emit(ctx, name.as_ptr().cast(), len, ino, c_uint::from(kind))
            };
            if more {
                next = cookie.saturating_add(1);
            }
            more
        });
        // SAFETY: As above.
        unsafe {
            (*ctx).pos = i64::try_from(show(next)).unwrap_or(i64::MAX);
            keep(file, if upper_only { next } else { 0 });
        }
        done?;
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
