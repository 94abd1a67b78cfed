// SPDX-License-Identifier: GPL-2.0

//! Directory entries of the VFS's cache.

use core::{marker::PhantomData, slice};
use kernel::types::Opaque;

use crate::bindings;
use crate::vfs::{FileSystem, Inode};

/// A dentry, while its parent's `i_rwsem` is held (shared or exclusively), as it is in operations
/// on names.
///
/// # Invariants
///
/// The dentry belongs to a superblock of `T`. The lock keeps its name from changing, and its inode
/// from appearing or going away.
#[repr(transparent)]
pub(crate) struct Dentry<T: FileSystem>(Opaque<bindings::dentry>, PhantomData<T>);

impl<T: FileSystem> Dentry<T> {
    /// Makes a reference from the C side's pointer.
    ///
    /// # Safety
    ///
    /// `ptr` is a dentry of a superblock of `T`, and its parent's `i_rwsem` is held during `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::dentry) -> &'a Self {
        // SAFETY: The type is transparent, and the caller promises the rest.
        unsafe { &*ptr.cast::<Self>() }
    }

    /// The C side's pointer.
    pub(crate) fn as_ptr(&self) -> *mut bindings::dentry {
        self.0.get()
    }

    /// The name.
    pub(crate) fn name(&self) -> &[u8] {
        let mut len = 0;
        // SAFETY: The dentry is valid; by the type invariants its name is stable.
        unsafe {
            let name = bindings::ordofs_d_name(self.as_ptr(), &mut len);
            slice::from_raw_parts(name.cast(), len as usize)
        }
    }

    /// The inode, if the name is not negative.
    pub(crate) fn inode(&self) -> Option<&Inode<T>> {
        // SAFETY: The dentry is valid. By the type invariants its inode is stable, and the dentry
        // keeps it alive.
        unsafe {
            let inode = bindings::ordofs_d_inode(self.as_ptr());
            if inode.is_null() {
                None
            } else {
                Some(Inode::from_raw(inode))
            }
        }
    }
}
