// SPDX-License-Identifier: GPL-2.0

//! Reads and writes as the VFS hands them to a file: `struct kiocb` and `struct iov_iter`.
//!
//! # Model
//!
//! An [`Iocb`] is one read or write in progress. Buffered I/O and direct I/O are iomap's
//! ([`crate::vfs::table::iomap_io`]); which of them, with which locks, is the filesystem's choice (`read_iter` and
//! `write_iter` of [`FileOperations`](crate::vfs::traits::file::FileOperations)). What needs `i_rwsem` is a method of [`LockedIocb`], which holds the lock of
//! the very inode that is read or written.
//!
//! Direct I/O always goes through bounce buffers: checksums must be of bytes that do not change, and
//! what was read must not be seen before it has been checked. That also means that the memory may be
//! of any alignment.
//!
//! Tests: tests/vm/t/060-data-paths.sh, 065-race.sh; scripts/check-misuse (what the guards rule
//! out).

use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

use kernel::error::to_result;
use kernel::prelude::*;

use super::inode::{Inode, Locked};
use super::number::{from_ssize, offset};
use super::page_cache::{
    side::{Exclusive, Shared, Side},
    InodeLock, //
};
use super::types::Types;
use crate::bindings;

/// The memory of a read or a write: a `struct iov_iter`. `D` says which of them.
///
/// # Invariants
///
/// A valid `struct iov_iter` of that direction, during `'a`.
pub(crate) struct IovIter<'a, D>(NonNull<bindings::iov_iter>, PhantomData<(&'a mut (), D)>);

/// Of a write: the file is the destination.
pub(crate) enum ToFile {}
/// Of a read: the file is the source.
pub(crate) enum FromFile {}

/// The memory that is written to a file.
pub(crate) type Source<'a> = IovIter<'a, ToFile>;
/// The memory that a file is read into.
pub(crate) type Destination<'a> = IovIter<'a, FromFile>;

impl<D> IovIter<'_, D> {
    /// # Safety
    ///
    /// See the type invariants.
    pub(in crate::vfs) unsafe fn from_raw(ptr: *mut bindings::iov_iter) -> Self {
        // INVARIANT: By this function's contract.
        // SAFETY: By this function's contract the pointer is valid, so it is not null.
        Self(unsafe { NonNull::new_unchecked(ptr) }, PhantomData)
    }

    /// The C side's pointer.
    pub(in crate::vfs) fn as_ptr(&mut self) -> *mut bindings::iov_iter {
        self.0.as_ptr()
    }

    /// Bytes left.
    pub(crate) fn count(&self) -> u64 {
        // SAFETY: By the type invariants the iterator is valid; reads its length.
        unsafe { bindings::ordofs_helper_iov_count(self.0.as_ptr()) as u64 }
    }
}

/// An open file.
///
/// # Invariants
///
/// References to it are to a valid `struct file` of an inode of `T`.
#[repr(transparent)]
pub(crate) struct OpenFile<T: Types> {
    file: kernel::types::Opaque<bindings::file>,
    _inode: PhantomData<T>,
}

impl<T: Types> OpenFile<T> {
    /// # Safety
    ///
    /// `file` is a valid open file of an inode of `T` during `'a`.
    pub(in crate::vfs) unsafe fn from_raw<'a>(file: *mut bindings::file) -> &'a Self {
        // SAFETY: By this function's contract the file is valid; the type is transparent.
        unsafe { &*file.cast() }
    }

    fn as_ptr(&self) -> *mut bindings::file {
        self.file.get()
    }

    /// The inode.
    pub(crate) fn inode(&self) -> &Inode<T> {
        // SAFETY: An open file's inode is valid and does not change.
        unsafe { Inode::from_raw((*self.as_ptr()).f_inode) }
    }

    /// Writes the dirty pages of bytes `start..=end`, waits, and returns an error of any write to the
    /// file's pages since this open file last got one (R8: every open file gets it once).
    pub(crate) fn write_and_wait(&self, start: i64, end: i64) -> Result {
        // SAFETY: By the type invariants the file is open; this may sleep.
        to_result(unsafe { bindings::file_write_and_wait_range(self.as_ptr(), start, end) })
    }

    /// Takes `i_rwsem` exclusively for an operation on the file.
    pub(crate) fn lock_exclusive(&self) -> LockedFile<'_, T> {
        LockedFile {
            file: self,
            lock: self.inode().lock_exclusive(),
        }
    }

    /// Whether every operation on it is to be durable when it returns.
    pub(crate) fn is_sync(&self) -> bool {
        // SAFETY: By the type invariants the file is open; reads flags.
        unsafe { bindings::ordofs_helper_file_is_sync(self.as_ptr()) }
    }
}

/// An open file, with `i_rwsem` of its inode held exclusively until this is dropped.
pub(crate) struct LockedFile<'a, T: Types> {
    file: &'a OpenFile<T>,
    lock: InodeLock<'a, T, Exclusive>,
}

impl<T: Types> LockedFile<'_, T> {
    /// The inode, for what else needs the lock.
    pub(crate) fn inode(&self) -> Locked<'_, T> {
        self.lock.locked()
    }

    /// What every modification does: takes away setuid bits and the like, sets the times.
    pub(crate) fn modified(&self) -> Result {
        // SAFETY: By the type invariants the file is open; `i_rwsem` of its inode is held exclusively.
        to_result(unsafe { bindings::file_modified(self.file.as_ptr()) })
    }
}

/// A read or write in progress.
///
/// # Invariants
///
/// A valid `struct kiocb` of an open file of an inode of `T`, during `'a`, that no other task changes.
pub(crate) struct Iocb<'a, T: Types> {
    ptr: NonNull<bindings::kiocb>,
    _inode: PhantomData<&'a mut T>,
}

impl<'a, T: Types> Iocb<'a, T> {
    /// # Safety
    ///
    /// See the type invariants.
    pub(in crate::vfs) unsafe fn from_raw(ptr: *mut bindings::kiocb) -> Self {
        // INVARIANT: By this function's contract.
        Self {
            // SAFETY: By this function's contract the pointer is valid, so it is not null.
            ptr: unsafe { NonNull::new_unchecked(ptr) },
            _inode: PhantomData,
        }
    }

    /// The C side's pointer.
    pub(in crate::vfs) fn as_ptr(&self) -> *mut bindings::kiocb {
        self.ptr.as_ptr()
    }

    /// The inode; it stays as long as the file is open.
    pub(crate) fn inode(&self) -> &'a Inode<T> {
        // SAFETY: By the type invariants the iocb is that of an open file, whose inode is one of `T`.
        unsafe { Inode::from_raw((*(*self.ptr.as_ptr()).ki_filp).f_inode) }
    }

    /// The position in the file.
    pub(crate) fn pos(&self) -> u64 {
        // SAFETY: By the type invariants the iocb is valid, and no other task changes it.
        offset(unsafe { (*self.ptr.as_ptr()).ki_pos })
    }

    /// Whether direct I/O was asked for.
    pub(crate) fn is_direct(&self) -> bool {
        // SAFETY: By the type invariants the iocb is valid; reads its flags.
        unsafe { bindings::ordofs_helper_iocb_is_direct(self.ptr.as_ptr()) }
    }

    /// Whether the write goes to the end of the file.
    pub(crate) fn is_append(&self) -> bool {
        // SAFETY: By the type invariants the iocb is valid; reads its flags.
        unsafe { bindings::ordofs_helper_iocb_is_append(self.ptr.as_ptr()) }
    }

    /// Whether the caller must not be made to wait.
    pub(crate) fn is_nowait(&self) -> bool {
        // SAFETY: By the type invariants the iocb is valid; reads its flags.
        unsafe { bindings::ordofs_helper_iocb_is_nowait(self.ptr.as_ptr()) }
    }

    /// Whether the data is to be durable when the write has ended.
    pub(crate) fn is_dsync(&self) -> bool {
        // SAFETY: By the type invariants the iocb is valid; reads its flags.
        unsafe { bindings::ordofs_helper_iocb_is_dsync(self.ptr.as_ptr()) }
    }

    /// Takes `i_rwsem` shared.
    pub(crate) fn lock_shared(&mut self) -> LockedIocb<'_, 'a, T, Shared> {
        self.with_lock()
    }

    /// Takes `i_rwsem` exclusively.
    pub(crate) fn lock_exclusive(&mut self) -> LockedIocb<'_, 'a, T, Exclusive> {
        self.with_lock()
    }

    fn with_lock<S: Side>(&mut self) -> LockedIocb<'_, 'a, T, S> {
        let lock = InodeLock::take(self.inode());
        LockedIocb { iocb: self, lock }
    }

    /// Notes the access time.
    pub(crate) fn accessed(&self) {
        // SAFETY: By the type invariants the iocb is that of an open file.
        unsafe { bindings::ordofs_helper_file_accessed((*self.ptr.as_ptr()).ki_filp) };
    }

    /// Reads through the page cache.
    pub(crate) fn buffered_read(&mut self, to: &mut Destination<'_>) -> Result<usize> {
        // SAFETY: Both are valid by their invariants.
        from_ssize(unsafe { bindings::filemap_read(self.ptr.as_ptr(), to.0.as_ptr(), 0) })
    }

    /// After a direct write went through the page cache: writes the pages and drops them.
    pub(crate) fn end_direct_fallback(
        &mut self,
        from: &mut Source<'_>,
        written: usize,
    ) -> Result<usize> {
        // SAFETY: Both are valid by their invariants.
        from_ssize(unsafe {
            bindings::direct_write_fallback(
                self.ptr.as_ptr(),
                from.0.as_ptr(),
                0,
                isize::try_from(written).unwrap_or(isize::MAX),
            )
        })
    }

    /// Makes the `written` bytes before the position durable, if the file or the caller asks for that. No
    /// lock may be held.
    pub(crate) fn write_sync(&mut self, written: usize) -> Result<usize> {
        // SAFETY: By the type invariants the iocb is that of an open file.
        from_ssize(unsafe {
            bindings::ordofs_helper_write_sync(
                self.ptr.as_ptr(),
                isize::try_from(written).unwrap_or(isize::MAX),
            )
        })
    }
}

/// A read or write in progress, with `i_rwsem` of its inode held until this is dropped.
pub(crate) struct LockedIocb<'l, 'a, T: Types, S: Side> {
    iocb: &'l mut Iocb<'a, T>,
    lock: InodeLock<'a, T, S>,
}

impl<'a, T: Types, S: Side> Deref for LockedIocb<'_, 'a, T, S> {
    type Target = Iocb<'a, T>;

    fn deref(&self) -> &Iocb<'a, T> {
        self.iocb
    }
}

impl<T: Types, S: Side> LockedIocb<'_, '_, T, S> {
    /// The checks before a write: limits, and the position of an append. Cuts `from` to what may be
    /// written; returns how much that is.
    pub(crate) fn write_checks(&mut self, from: &mut Source<'_>) -> Result<usize> {
        let iocb = self.iocb.ptr.as_ptr();
        // SAFETY: Both are valid by their invariants.
        from_ssize(unsafe { bindings::generic_write_checks(iocb, from.0.as_ptr()) })
    }

    /// What every write does: takes away setuid bits and the like, which needs the lock exclusively
    /// ([`Inode::is_nosec`] says that there are none), and sets the times.
    pub(crate) fn modified(&self) -> Result {
        // SAFETY: By the type invariants the iocb is valid. `i_rwsem` is held: exclusively, or the caller has seen that no
        // privilege goes away.
        to_result(unsafe { bindings::kiocb_modified(self.iocb.ptr.as_ptr()) })
    }
}

impl<T: Types> LockedIocb<'_, '_, T, Exclusive> {
    /// The inode, for what else needs the lock.
    pub(crate) fn locked(&self) -> Locked<'_, T> {
        self.lock.locked()
    }
}
