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
//!
//! Tests: tests/vm/t/020-names.sh, 028-compat.sh (positions of 32-bit programs).

use core::{marker::PhantomData, ptr};
use kernel::{
    error::{from_result, to_result},
    prelude::*,
};

use super::ioctl;
use crate::bindings;
use crate::vfs::object::inode::Inode;
use crate::vfs::traits::directory::DirectoryOperations;
use crate::vfs::traits::inode::InodeOperations;
use crate::vfs::traits::super_block::SuperOperations;

/// The file operation table of directories.
struct Tables<T>(PhantomData<T>);

impl<T: DirectoryOperations + InodeOperations + SuperOperations> Tables<T> {
    const DIR: &'static bindings::file_operations = &bindings::file_operations {
        open: Some(open::<T>),
        llseek: Some(llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(iterate::<T>),
        fsync: Some(fsync::<T>),
        unlocked_ioctl: Some(ioctl::ioctl::<T>),
        compat_ioctl: ioctl::COMPAT,
        ..pin_init::zeroed()
    };
}

/// File operations of directories.
pub(super) fn dir_file_ops<T: DirectoryOperations + InodeOperations + SuperOperations>(
) -> *const bindings::file_operations {
    Tables::<T>::DIR
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
/// `file` is an open directory, and no other task uses its position.
unsafe fn kept(file: *mut bindings::file) -> u64 {
    // SAFETY: By this function's contract the file is valid and its position this task's. The field has a number, nothing that it points to.
    unsafe { (*file).private_data as usize as u64 }
}

/// Sets [`kept`]; 0: nothing is.
///
/// # Safety
///
/// As for [`kept`].
unsafe fn keep(file: *mut bindings::file, pos: u64) {
    // SAFETY: By this function's contract the file is valid and its position this task's.
    unsafe { (*file).private_data = ptr::without_provenance_mut(pos as usize) };
}

/// `open`.
///
/// # Safety
///
/// As the VFS calls it for a directory of `T`.
unsafe extern "C" fn open<T: SuperOperations>(
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

/// The position of an open directory, as a program sees it and as it is.
struct Position {
    /// The program sees the upper bits only.
    upper_only: bool,
}

impl Position {
    /// What the program sees of a position.
    fn show(&self, pos: u64) -> u64 {
        if self.upper_only {
            narrow(pos)
        } else {
            pos
        }
    }

    /// Where a listing goes on: `seen` is what the program sees, `exact` what was [`kept`].
    fn next(&self, seen: u64, exact: u64) -> u64 {
        match self.upper_only {
            // No seek came between.
            true if exact != 0 && narrow(exact) == seen => exact,
            true => widen(seen),
            false => seen,
        }
    }

    /// What is to be [`kept`] of a position.
    fn keep(&self, pos: u64) -> u64 {
        if self.upper_only {
            pos
        } else {
            0
        }
    }
}

/// `iterate_shared`.
///
/// # Safety
///
/// As the VFS calls it for an open directory of `T`, with its `i_rwsem` held.
unsafe extern "C" fn iterate<T: DirectoryOperations>(
    file: *mut bindings::file,
    ctx: *mut bindings::dir_context,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes an open directory, and a context that is ours during the call.
        if !unsafe { bindings::ordofs_dir_emit_dots(file, ctx) } {
            return Ok(0);
        }
        // SAFETY: The open file keeps its inode, which is one of `T`.
        let dir = unsafe { Inode::<T>::from_raw((*file).f_inode) };
        dir.assert_shared();
        // SAFETY: The context is ours during the call.
        let seen = u64::try_from(unsafe { (*ctx).pos }).map_err(|_| EINVAL)?;
        // SAFETY: The VFS has locked the position, or the caller has the open file for itself.
        let exact = unsafe { kept(file) };
        // SAFETY: The file is open.
        let upper_only = unsafe { bindings::ordofs_dir_shows_upper_bits(file) };
        let position = Position { upper_only };
        let mut next = position.next(seen, exact);
        let done = T::readdir(dir, next, &mut |name, ino, kind, cookie| {
            let at = i64::try_from(position.show(cookie));
            let (Ok(at), Ok(len)) = (at, i32::try_from(name.len())) else {
                return false;
            };
            next = cookie;
            // The actor must see the position of this entry, and the next call starts behind it.
            // SAFETY: The context is ours during the call.
            unsafe { (*ctx).pos = at };
            let (name, kind) = (name.as_ptr().cast(), c_uint::from(kind));
            // SAFETY: The context is ours during the call; the name has `len` bytes and is copied.
            let more = unsafe { bindings::ordofs_dir_emit(ctx, name, len, ino, kind) };
            if more {
                next = cookie.saturating_add(1);
            }
            more
        });
        let at = i64::try_from(position.show(next)).unwrap_or(i64::MAX);
        // SAFETY: The context is ours during the call.
        unsafe { (*ctx).pos = at };
        // SAFETY: The VFS has locked the position, or the caller has the open file for itself.
        unsafe { keep(file, position.keep(next)) };
        done?;
        Ok(0)
    })
}

/// `fsync`.
///
/// # Safety
///
/// Called by the VFS for an open directory of `T`.
unsafe extern "C" fn fsync<T: InodeOperations>(
    file: *mut bindings::file,
    _start: bindings::loff_t,
    _end: bindings::loff_t,
    _datasync: c_int,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes an open file.
        let inode = unsafe { (*file).f_inode };
        // Times that the VFS alone has go to the filesystem first.
        // SAFETY: The open file keeps its inode; this may sleep.
        to_result(unsafe { bindings::sync_inode_metadata(inode, 1) })?;
        // SAFETY: The open file keeps its inode, which is one of `T`.
        T::sync_inode(unsafe { Inode::<T>::from_raw(inode) })?;
        Ok(0)
    })
}
