// SPDX-License-Identifier: GPL-2.0

//! Inodes that the VFS forgets.
//!
//! Tests: tests/vm/t/020-names.sh, 023-unload.sh, 091-reclaim.sh.

use core::ptr::NonNull;

use crate::bindings;
use crate::vfs::object::inode::Inode;
use crate::vfs::object::super_block::SuperBlock;
use crate::vfs::traits::inode::{Evict, InodeOperations};

/// An inode that the VFS is evicting. It may have no data, if reading it failed.
///
/// # Invariants
///
/// `ptr` is an inode of `T` in `evict_inode`: no other task uses it, except path walks under RCU, which do
/// not look at `data`.
pub(in crate::vfs) struct Evicting<T: InodeOperations> {
    ptr: NonNull<Inode<T>>,
}

impl<T: InodeOperations> Evicting<T> {
    /// # Safety
    ///
    /// `ptr` is an inode of `T` that the VFS passed to `evict_inode`, and the result does not outlive the
    /// callback.
    pub(in crate::vfs) unsafe fn from_raw(ptr: *mut bindings::inode) -> Self {
        // INVARIANT: By this function's contract.
        Self {
            // SAFETY: By this function's contract the VFS passed the pointer, and it passes no null pointers.
            ptr: unsafe { NonNull::new_unchecked(ptr.cast()) },
        }
    }

    /// What `evict_inode` has to do, in the VFS's order: first the pages, then the inode's own state, then
    /// the filesystem's part.
    pub(in crate::vfs) fn run(self) {
        let raw: *mut bindings::inode = self.ptr.as_ptr().cast();
        // SAFETY: By the type invariants no task adds pages any more; `evict_inode` is the place for this.
        unsafe { bindings::truncate_inode_pages_final(&raw mut (*raw).i_data) };
        // SAFETY: By the type invariants no task uses the inode, and its pages are gone.
        unsafe { bindings::clear_inode(raw) };
        let Some(why) = self.why() else { return };
        // SAFETY: By the type invariants no other task has a reference; the one of `why` has ended.
        let Some(data) = (unsafe { Inode::take_data(self.ptr.as_ptr()) }) else {
            return;
        };
        // SAFETY: `i_sb` never changes, and a superblock outlives its inodes.
        let sb = unsafe { SuperBlock::<T>::from_raw((*raw).i_sb) };
        if why == Evict::Forget {
            T::evict(sb, data, why);
            return;
        }
        // Deleting writes; wait while the filesystem is frozen.
        // SAFETY: The superblock is valid. This is the innermost level of freeze protection, so whatever this task
        // has of it was taken before.
        unsafe { bindings::ordofs_sb_start_intwrite(sb.as_ptr()) };
        T::evict(sb, data, why);
        // SAFETY: Taken above, by this task.
        unsafe { bindings::ordofs_sb_end_intwrite(sb.as_ptr()) };
    }

    /// Why it is evicted; `None` if it has no data.
    fn why(&self) -> Option<Evict> {
        // SAFETY: By the type invariants this task evicts the inode.
        if !unsafe { Inode::has_data(self.ptr.as_ptr()) } {
            return None;
        }
        // SAFETY: The data is set, and stays while the reference is used, which is in this function.
        let inode = unsafe { Inode::<T>::from_raw(self.ptr.as_ptr().cast()) };
        Some(if inode.nlink() == 0 {
            Evict::Delete
        } else {
            Evict::Forget
        })
    }
}
