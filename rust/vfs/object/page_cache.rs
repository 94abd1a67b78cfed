// SPDX-License-Identifier: GPL-2.0

//! Locks of a file's data, and what may be done to its page cache with them.
//!
//! # Model
//!
//! Two locks order operations on a file's data: `i_rwsem`, held by everything that comes from a
//! system call, and the mapping's `invalidate_lock`, which page faults hold, too. A guard of this
//! module stands for each. Its type says which side is held, and what needs the lock is a method of
//! the guard (of [`Locked`] where the exclusive side is needed, of `LockedIocb` for reads and writes), so
//! that the lock of one inode cannot be shown for another. Guards stay with their task.
//!
//! # Rules
//!
//! R3: [`LayoutLock`] is the exclusive side of `invalidate_lock`. Whoever takes blocks away from a file
//! takes it first, drops the pages second, and keeps it until the blocks are gone from the mapping.
//! The race otherwise: the pages are dropped, a store faults one in again and dirties it, the blocks
//! are freed, and writeback finds a dirty page over blocks that are somebody else's.
//!
//! # Locking
//!
//! `i_rwsem`, then `invalidate_lock`, then folio locks.

use core::marker::PhantomData;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::NotThreadSafe;

use crate::bindings;
use crate::vfs::table::iomap::Tables;
use crate::vfs::trace;
use crate::vfs::traits::file_data::FileData;
use crate::vfs::window::Window;
use crate::vfs::{Inode, Locked};
use side::Side;

/// The sides of `i_rwsem`, as parameters of [`InodeLock`].
pub(crate) mod side {
    mod sealed {
        pub(crate) trait Sealed {}
    }

    /// A side of `i_rwsem`.
    pub(crate) trait Side: sealed::Sealed {
        /// Whether it is the exclusive one.
        const EXCLUSIVE: bool;
    }

    /// Held shared.
    pub(crate) enum Shared {}
    /// Held exclusively.
    pub(crate) enum Exclusive {}

    impl sealed::Sealed for Shared {}
    impl sealed::Sealed for Exclusive {}

    impl Side for Shared {
        const EXCLUSIVE: bool = false;
    }
    impl Side for Exclusive {
        const EXCLUSIVE: bool = true;
    }
}

/// `i_rwsem`, held by the current task from construction to drop. The type says which side.
///
/// # Invariants
///
/// The current task holds that side of the inode's `i_rwsem`.
pub(crate) struct InodeLock<'a, T: FileData, S: Side> {
    inode: &'a Inode<T>,
    _side: PhantomData<S>,
    // A lock is released by the task that took it.
    _not_send: NotThreadSafe,
}

impl<'a, T: FileData, S: Side> InodeLock<'a, T, S> {
    /// Waits for the lock.
    pub(in crate::vfs) fn take(inode: &'a Inode<T>) -> Self {
        // SAFETY: The inode is valid, and the lock is part of it.
        let lock = unsafe { &raw mut (*inode.as_ptr()).i_rwsem };
        if S::EXCLUSIVE {
            // SAFETY: The lock is initialised.
            unsafe { bindings::down_write(lock) };
        } else {
            // SAFETY: The lock is initialised.
            unsafe { bindings::down_read(lock) };
        }
        // INVARIANT: Just taken.
        Self {
            inode,
            _side: PhantomData,
            _not_send: NotThreadSafe,
        }
    }
}

impl<T: FileData> InodeLock<'_, T, side::Exclusive> {
    /// What needs the lock held exclusively is a method of this.
    pub(crate) fn locked(&self) -> Locked<'_, T> {
        // SAFETY: Held by the type invariant, for as long as the result borrows the guard.
        unsafe { Locked::new(self.inode) }
    }
}

impl<T: FileData, S: Side> Drop for InodeLock<'_, T, S> {
    fn drop(&mut self) {
        // SAFETY: The inode is valid, and the lock is part of it.
        let lock = unsafe { &raw mut (*self.inode.as_ptr()).i_rwsem };
        if S::EXCLUSIVE {
            // SAFETY: Held exclusively, by the type invariant.
            unsafe { bindings::up_write(lock) };
        } else {
            // SAFETY: Held shared, by the type invariant.
            unsafe { bindings::up_read(lock) };
        }
    }
}

/// The exclusive side of `invalidate_lock` (R3): no page of the file is faulted in or made writable.
///
/// # Invariants
///
/// The lock is held by the current task.
pub(crate) struct LayoutLock<'a, T: FileData> {
    inode: &'a Inode<T>,
    // A lock is released by the task that took it.
    _not_send: NotThreadSafe,
}

impl<T: FileData> Drop for LayoutLock<'_, T> {
    fn drop(&mut self) {
        trace::layout_done(self.inode.sb().dev(), self.inode.ino());
        // A mutant of R3 has not taken it.
        if cfg!(not(ordofs_mutant_r3)) {
            // SAFETY: Held by the type invariant.
            unsafe { bindings::up_write(&raw mut (*self.inode.mapping()).invalidate_lock) };
        }
    }
}

impl<T: FileData> Inode<T> {
    /// The page cache.
    pub(in crate::vfs) fn mapping(&self) -> *mut bindings::address_space {
        // SAFETY: The inode is valid; the mapping of a regular file is its own.
        unsafe { (*self.as_ptr()).i_mapping }
    }

    /// Takes `i_rwsem` exclusively.
    pub(crate) fn lock_exclusive(&self) -> InodeLock<'_, T, side::Exclusive> {
        InodeLock::take(self)
    }

    /// Whether a file of that size may be: `RLIMIT_FSIZE`, the filesystem's limit, swap files.
    pub(crate) fn check_new_size(&self, size: u64) -> Result {
        let size = i64::try_from(size).map_err(|_| EFBIG)?;
        // SAFETY: The inode is valid.
        to_result(unsafe { bindings::inode_newsize_ok(self.as_ptr(), size) })
    }

    /// Whether no write to the file can change its privileges (setuid bits, file capabilities).
    pub(crate) fn is_nosec(&self) -> bool {
        // SAFETY: The inode is valid.
        unsafe { bindings::ordofs_helper_is_nosec(self.as_ptr()) }
    }

    /// Writes the dirty pages of bytes `start..=end` and waits. Returns an error of starting that; of what
    /// was started the filesystem knows whether it failed. The mapping's own error is left alone: it
    /// is for fsync, and says neither where nor when something failed.
    pub(crate) fn write_and_wait(&self, start: u64, end: u64) -> Result {
        let (start, end) = (start as i64, i64::try_from(end).unwrap_or(i64::MAX));
        let mapping = self.mapping();
        // SAFETY: The mapping is valid.
        let started = unsafe { bindings::filemap_fdatawrite_range(mapping, start, end) };
        // SAFETY: As above.
        unsafe { bindings::filemap_fdatawait_range_keep_errors(mapping, start, end) };
        to_result(started)
    }

    /// Starts the writes of all dirty pages. Errors are for fsync to tell.
    pub(crate) fn start_writeback(&self) {
        // SAFETY: The mapping is valid.
        unsafe { bindings::filemap_fdatawrite(self.mapping()) };
    }

    /// Has the VFS's own changes of attributes handed over to the filesystem. With `datasync` only
    /// those that are needed to find the data again.
    pub(crate) fn write_attributes(&self, datasync: bool) -> Result {
        // SAFETY: The inode is valid.
        unsafe {
            if !bindings::ordofs_helper_inode_is_dirty(self.as_ptr(), datasync) {
                return Ok(());
            }
            to_result(bindings::sync_inode_metadata(self.as_ptr(), 1))
        }
    }
}

impl<'a, T: FileData> Locked<'a, T> {
    /// Takes the layout lock (R3).
    pub(crate) fn lock_layout(&self) -> LayoutLock<'a, T> {
        // The mutant shows that the test of R3 can fail. It is this side that goes: for a page that is
        // not in the cache, the fault handler takes the other one by itself.
        if cfg!(not(ordofs_mutant_r3)) {
            // SAFETY: The inode is valid.
            unsafe { bindings::down_write(&raw mut (*self.mapping()).invalidate_lock) };
        }
        // INVARIANT: Just taken.
        LayoutLock {
            inode: self.inode(),
            _not_send: NotThreadSafe,
        }
    }

    /// Waits until no direct I/O is in flight. New one needs `i_rwsem`.
    pub(crate) fn wait_direct_io(&self) {
        // SAFETY: The inode is valid.
        unsafe { bindings::inode_dio_wait(self.as_ptr()) };
    }
}

impl<T: FileData> LayoutLock<'_, T> {
    /// Makes the bytes `[pos, pos + len)` zero through the page cache. Holes and preallocated blocks
    /// stay what they are. Returns whether anything became dirty.
    pub(crate) fn zero(&self, pos: u64, len: u64) -> Result<bool> {
        if len == 0 {
            return Ok(false);
        }
        let mut did_zero = false;
        // SAFETY: The inode is valid, the locks are held.
        to_result(unsafe {
            bindings::iomap_zero_range(
                self.inode.as_ptr(),
                pos as i64,
                len as i64,
                &raw mut did_zero,
                Tables::<T>::ZERO,
                Tables::<T>::WRITE_OPS,
                core::ptr::null_mut(),
            )
        })?;
        Ok(did_zero)
    }

    /// Makes zero what follows `size` in its block. Returns whether anything became dirty.
    pub(crate) fn zero_tail(&self, size: u64) -> Result<bool> {
        let block = crate::vfs::table::iomap::BLOCK;
        self.zero(size, size.next_multiple_of(block) - size)
    }

    /// Drops the pages of bytes `start..=end`, dirty or not, and unmaps them. Parts of blocks must have
    /// been made zero before.
    pub(crate) fn drop_pages(&self, start: u64, end: u64) {
        // SAFETY: The inode is valid, the locks are held.
        unsafe {
            bindings::truncate_pagecache_range(self.inode.as_ptr(), start as i64, end as i64)
        };
        let (inode, first) = (self.inode, start / crate::vfs::table::iomap::BLOCK);
        let len = (end / crate::vfs::table::iomap::BLOCK).saturating_sub(first) + 1;
        trace::drop_pages(inode.sb().dev(), inode.ino(), first, len);
        let _ = inode.sb().pass(Window::PagesDropped);
    }

    /// Changes `i_size`, and drops the pages beyond it.
    pub(crate) fn set_size(&self, size: u64) {
        // SAFETY: The inode is valid, the locks are held.
        unsafe { bindings::truncate_setsize(self.inode.as_ptr(), size as i64) };
    }

    /// Dirty pages were dropped that were still part of the file: the next fsync says so.
    pub(crate) fn lost(&self, e: Error) {
        // SAFETY: The inode is valid.
        unsafe { bindings::ordofs_helper_lost(self.inode.as_ptr(), e.to_errno()) };
    }
}
