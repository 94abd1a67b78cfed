// SPDX-License-Identifier: GPL-2.0

//! Directory entries of the VFS's cache.
//!
//! Tests: tests/vm/t/020-names.sh.

use core::{marker::PhantomData, slice};
use kernel::types::Opaque;

use super::{inode::Inode, types::Types};
use crate::bindings;

/// A dentry, while its parent's `i_rwsem` is held (shared or exclusively), as it is in operations
/// on names.
///
/// # Invariants
///
/// The dentry belongs to a superblock of `T`. The lock keeps its name from changing, and its inode
/// from appearing or going away.
#[repr(transparent)]
pub(crate) struct Dentry<T: Types>(Opaque<bindings::dentry>, PhantomData<T>);

impl<T: Types> Dentry<T> {
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
        // SAFETY: By the type invariants the dentry is valid; the length goes to a local.
        let name = unsafe { bindings::ordofs_d_name(self.as_ptr(), &mut len) };
        // SAFETY: By the type invariants the name, of that length, does not change while `self` is borrowed.
        unsafe { slice::from_raw_parts(name.cast(), len as usize) }
    }

    /// The inode, if the name is not negative.
    pub(crate) fn inode(&self) -> Option<&Inode<T>> {
        // SAFETY: By the type invariants the dentry is valid.
        let inode = unsafe { bindings::ordofs_d_inode(self.as_ptr()) };
        // SAFETY: By the type invariants the inode does not change, is one of `T`, and is kept by the dentry.
        (!inode.is_null()).then(|| unsafe { Inode::from_raw(inode) })
    }
}
