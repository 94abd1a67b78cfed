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
//! R3: [`LayoutLock`] is the exclusive side of `invalidate_lock`. An operation that takes blocks away from a
//! file takes it first, drops the pages second, and keeps it until the blocks are gone from the mapping.
//! The race otherwise: the pages are dropped, a store faults one in again and dirties it, the blocks
//! are freed, and writeback finds a dirty page over blocks that have another owner.
//!
//! # Locking
//!
//! `i_rwsem`, then `invalidate_lock`, then folio locks.
//!
//! Tests: tests/vm/t/043-r3.sh, 065-race.sh; scripts/check-misuse (what the guards rule out).

use core::marker::PhantomData;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::NotThreadSafe;

use super::inode::{Inode, Locked};
use super::probe::Probes;
use super::types::Types;
use crate::bindings;
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
pub(crate) struct InodeLock<'a, T: Types, S: Side> {
    inode: &'a Inode<T>,
    _side: PhantomData<S>,
    // A lock is released by the task that took it.
    _not_send: NotThreadSafe,
}

impl<'a, T: Types, S: Side> InodeLock<'a, T, S> {
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

impl<T: Types> InodeLock<'_, T, side::Exclusive> {
    /// What needs the lock held exclusively is a method of this.
    pub(crate) fn locked(&self) -> Locked<'_, T> {
        // SAFETY: Held by the type invariant, for as long as the result borrows the guard.
        unsafe { Locked::new(self.inode) }
    }
}

impl<T: Types, S: Side> Drop for InodeLock<'_, T, S> {
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
/// The lock is held by the current task, except with [`Probes::LAYOUT_LOCK`] false.
pub(crate) struct LayoutLock<'a, T: Probes> {
    inode: &'a Inode<T>,
    // A lock is released by the task that took it.
    _not_send: NotThreadSafe,
}

impl<T: Probes> Drop for LayoutLock<'_, T> {
    fn drop(&mut self) {
        T::layout_done(self.inode);
        if T::LAYOUT_LOCK {
            // SAFETY: Held by the type invariant.
            unsafe { bindings::up_write(&raw mut (*self.inode.mapping()).invalidate_lock) };
        }
    }
}

impl<T: Types> Inode<T> {
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
        // SAFETY: The inode is valid, being borrowed; reads its limits.
        to_result(unsafe { bindings::inode_newsize_ok(self.as_ptr(), size) })
    }

    /// Whether no write to the file can change its privileges (setuid bits, file capabilities).
    pub(crate) fn is_nosec(&self) -> bool {
        // SAFETY: The inode is valid, being borrowed; reads flags.
        unsafe { bindings::ordofs_helper_is_nosec(self.as_ptr()) }
    }

    /// Writes the dirty pages of bytes `start..=end` and waits. Returns an error of starting that; of what
    /// was started the filesystem knows whether it failed. The mapping's own error is left alone: it
    /// is for fsync, and says neither where nor when something failed.
    pub(crate) fn write_and_wait(&self, start: u64, end: u64) -> Result {
        let (start, end) = (start as i64, i64::try_from(end).unwrap_or(i64::MAX));
        let mapping = self.mapping();
        // SAFETY: The mapping is valid as long as the inode, which is borrowed.
        let started = unsafe { bindings::filemap_fdatawrite_range(mapping, start, end) };
        // SAFETY: The mapping is valid as long as the inode, which is borrowed.
        unsafe { bindings::filemap_fdatawait_range_keep_errors(mapping, start, end) };
        to_result(started)
    }

    /// Starts the writes of all dirty pages. Errors are for fsync to tell.
    pub(crate) fn start_writeback(&self) {
        // SAFETY: The mapping is valid as long as the inode, which is borrowed.
        unsafe { bindings::filemap_fdatawrite(self.mapping()) };
    }

    /// Has the VFS's own changes of attributes handed over to the filesystem. With `datasync` only
    /// those that are needed to find the data again.
    pub(crate) fn write_attributes(&self, datasync: bool) -> Result {
        // SAFETY: The inode is valid; reads its state.
        if !unsafe { bindings::ordofs_helper_inode_is_dirty(self.as_ptr(), datasync) } {
            return Ok(());
        }
        // SAFETY: The inode is valid, and this may sleep, as its callers may.
        to_result(unsafe { bindings::sync_inode_metadata(self.as_ptr(), 1) })
    }
}

impl<T: Probes> Inode<T> {
    /// R3: the caller holds the layout lock: lockdep, where it is there, knows.
    pub(in crate::vfs) fn assert_layout_locked(&self) {
        if cfg!(CONFIG_LOCKDEP) && T::LAYOUT_LOCK {
            // SAFETY: The inode is valid, and its mapping's lock with it.
            unsafe { bindings::ordofs_layout_assert_locked(self.as_ptr()) };
        }
    }
}

impl<'a, T: Probes> Locked<'a, T> {
    /// Takes the layout lock (R3).
    pub(crate) fn lock_layout(&self) -> LayoutLock<'a, T> {
        // It is this side that a mutant leaves out: for a page that is not in the cache, the fault handler
        // takes the other one by itself.
        if T::LAYOUT_LOCK {
            // SAFETY: The mapping is that of a valid inode, with its lock initialised.
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
        // SAFETY: The inode is valid, being borrowed; this may sleep under `i_rwsem`, which is held.
        unsafe { bindings::inode_dio_wait(self.as_ptr()) };
    }
}

impl<T: Probes> LayoutLock<'_, T> {
    /// The inode that is locked.
    pub(in crate::vfs) fn inode(&self) -> &Inode<T> {
        self.inode
    }

    /// Drops the pages of bytes `start..=end`, dirty or not, and unmaps them. Parts of blocks must have
    /// been made zero before.
    pub(crate) fn drop_pages(&self, start: u64, end: u64) {
        // SAFETY: The inode is valid; by the type invariant no page of the range is faulted in meanwhile.
        unsafe {
            bindings::truncate_pagecache_range(self.inode.as_ptr(), start as i64, end as i64)
        };
        let first = start / T::BLOCK_SIZE;
        let len = (end / T::BLOCK_SIZE).saturating_sub(first) + 1;
        T::pages_dropped(self.inode, first, len);
    }

    /// Changes `i_size`, and drops the pages beyond it.
    pub(crate) fn set_size(&self, size: u64) {
        // SAFETY: The inode is valid. The lock was taken through `Locked`, so `i_rwsem` is held exclusively.
        unsafe { bindings::truncate_setsize(self.inode.as_ptr(), size as i64) };
    }

    /// Dirty pages were dropped that were still part of the file: the next fsync says so.
    pub(crate) fn lost(&self, e: Error) {
        // SAFETY: The inode, and its mapping with it, is valid, being borrowed; the error is set atomically.
        unsafe { bindings::ordofs_helper_lost(self.inode.as_ptr(), e.to_errno()) };
    }
}
