// SPDX-License-Identifier: GPL-2.0

//! Inodes that are new: found by their number, or made.
//!
//! # Model
//!
//! An inode is new (`I_NEW`) while the task that made it fills it; all others that look its number up wait. The
//! tables of callbacks are on a higher floor than the look-up, which they call: they come in through
//! [`InstallTables`].
//!
//! Tests: tests/vm/t/020-names.sh, 031-handles.sh, 080-fail-nth.sh.

use core::{mem::ManuallyDrop, ptr::NonNull};
use kernel::prelude::*;

use crate::bindings;
use crate::vfs::object::inode::{Inode, InodeRef, S_IFLNK, S_IFMT};
use crate::vfs::object::super_block::SuperBlock;
use crate::vfs::traits::directory::NewNode;
use crate::vfs::traits::inode::{Attrs, Evict, InodeOperations};

/// Gives a new inode the tables of callbacks that go with its type.
pub(crate) trait InstallTables: InodeOperations {
    /// # Safety
    ///
    /// `inode` is new (`I_NEW`), this task fills it, and its data, link and attributes are set.
    unsafe fn install_tables(inode: &Inode<Self>, attrs: &Attrs);
}

impl<T: InstallTables> Inode<T> {
    /// Finds an inode by its number.
    pub(crate) fn get(sb: &SuperBlock<T>, ino: u64) -> Result<InodeRef<'_, T>> {
        match NewInode::look_up(sb, ino)? {
            Found::Old(inode) => Ok(inode),
            Found::New(new) => new.read(ino),
        }
    }
}

/// What is behind a number.
enum Found<'a, T: InstallTables> {
    /// An inode that is in use.
    Old(InodeRef<'a, T>),
    /// A new one, for this task to fill.
    New(NewInode<'a, T>),
}

/// An inode that is new (`I_NEW`) and has no data yet. Dropping it makes the inode bad, and wakes the tasks that
/// wait for it.
///
/// # Invariants
///
/// `ptr` is an inode of `sb` that is new; this task has to fill it, and owns one reference to it.
pub(in crate::vfs) struct NewInode<'a, T: InstallTables> {
    ptr: NonNull<Inode<T>>,
    sb: &'a SuperBlock<T>,
}

impl<'a, T: InstallTables> NewInode<'a, T> {
    /// Looks a number up in the VFS's table of inodes.
    fn look_up(sb: &'a SuperBlock<T>, ino: u64) -> Result<Found<'a, T>> {
        // SAFETY: The superblock is valid; sleeping is allowed where inodes are looked up.
        let raw = unsafe { bindings::iget_locked(sb.as_ptr(), ino) };
        let ptr = NonNull::new(raw.cast::<Inode<T>>()).ok_or(ENOMEM)?;
        // SAFETY: `iget_locked` returned a valid inode, with a reference.
        if unsafe { bindings::ordofs_inode_is_new(raw) } {
            // INVARIANT: Our `alloc_inode` made the inode. `iget_locked` returns it as new to one task only, with a
            // reference.
            return Ok(Found::New(NewInode { ptr, sb }));
        }
        // SAFETY: The reference that `iget_locked` returned goes to the result. Data is set: an inode that another
        // task failed to read is bad and unhashed before others get it from the hash, and `iget_locked` looks again
        // then.
        Ok(Found::Old(unsafe { InodeRef::from_raw(ptr) }))
    }

    /// Begins to make a node that the filesystem does not have yet. Look-ups by its number wait.
    pub(in crate::vfs) fn begin(sb: &'a SuperBlock<T>, node: &NewNode<'_>) -> Result<Self> {
        let Found::New(new) = Self::look_up(sb, node.id.ino)? else {
            // The filesystem gives out no number that is in use.
            return Err(EIO);
        };
        let raw = new.as_ptr();
        // SAFETY: By the type invariants the inode is new, so no other task looks at the field.
        unsafe { (*raw).i_mode = node.mode as u16 };
        // SAFETY: By the type invariants the inode is new, so no other task looks at the field.
        unsafe { (*raw).i_generation = node.id.generation };
        // SAFETY: By the type invariants the inode is new, so no other task looks at the owner.
        unsafe { bindings::ordofs_inode_set_owner(raw, node.uid, node.gid) };
        Ok(new)
    }

    /// The C side's pointer.
    pub(in crate::vfs) fn as_ptr(&self) -> *mut bindings::inode {
        self.ptr.as_ptr().cast()
    }

    /// Fills the inode with what the filesystem has, and lets others use it.
    fn read(self, ino: u64) -> Result<InodeRef<'a, T>> {
        let data = T::read_inode(self.sb, ino)?;
        let attrs = T::attrs(&data);
        if attrs.nlink == 0 {
            // Deleted, and not for handles to bring back.
            T::evict(self.sb, data, Evict::Forget);
            return Err(ESTALE);
        }
        let link = match attrs.mode & S_IFMT {
            S_IFLNK => match Self::link(self.sb, &data) {
                Ok(target) => Some(target),
                Err(e) => {
                    T::evict(self.sb, data, Evict::Forget);
                    return Err(e);
                }
            },
            _ => None,
        };
        let this = ManuallyDrop::new(self);
        this.fill(data, link);
        // INVARIANT: `data` is set; from here on others may use the inode.
        // SAFETY: By the type invariants the inode is new, and it is complete.
        unsafe { bindings::unlock_new_inode(this.as_ptr()) };
        // SAFETY: The reference goes from `self`, which is not dropped, to the result.
        Ok(unsafe { InodeRef::from_raw(this.ptr) })
    }

    /// Fills the inode, gives it to `dentry`, and lets others use it.
    ///
    /// # Safety
    ///
    /// `dentry` is negative and the caller's to instantiate.
    pub(in crate::vfs) unsafe fn instantiate(
        self,
        data: T::InodeData,
        link: Option<KVec<u8>>,
        dentry: *mut bindings::dentry,
    ) {
        let this = ManuallyDrop::new(self);
        this.fill(data, link);
        // INVARIANT: `data` is set; from here on others may use the inode.
        // SAFETY: By the type invariants the inode is new, and it is complete; the reference goes from `self`, which
        // is not dropped, to the dentry, which by this function's contract is negative and ours.
        unsafe { bindings::d_instantiate_new(dentry, this.as_ptr()) };
    }

    /// Gives the inode its data, attributes and operations. `link` is the target of a symbolic link, with a
    /// zero byte after it.
    fn fill(&self, data: T::InodeData, link: Option<KVec<u8>>) {
        let attrs = T::attrs(&data);
        // SAFETY: By the type invariants the inode is new, and this task fills it.
        unsafe { Inode::set_data(self.ptr.as_ptr(), data, link) };
        // SAFETY: The data is set, and the reference keeps the inode.
        let inode = unsafe { Inode::<T>::from_raw(self.as_ptr()) };
        // SAFETY: By the type invariants the inode is new and this task fills it; its data is set.
        unsafe { inode.init_attrs(&attrs) };
        // SAFETY: By the type invariants the inode is new and this task fills it; data, link and attributes are set.
        unsafe { T::install_tables(inode, &attrs) };
    }

    /// The target of a symbolic link, with a zero byte after it.
    fn link(sb: &SuperBlock<T>, data: &T::InodeData) -> Result<KVec<u8>> {
        let mut target = T::read_link(sb, data)?;
        target.push(0, GFP_KERNEL)?;
        Ok(target)
    }
}

impl<T: InstallTables> Drop for NewInode<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the inode is new and the reference is ours. This makes the inode
        // bad, unlocks it and drops the reference.
        unsafe { bindings::iget_failed(self.ptr.as_ptr().cast()) };
    }
}
