// SPDX-License-Identifier: GPL-2.0

//! Nodes that are being made.
//!
//! # Model
//!
//! The VFS's inode comes first: it is new (`I_NEW`), so that look-ups by its number wait, and has what security
//! modules want to see (type, permissions, owner, number, generation). They say what labels it gets.
//! With these and with the access control lists that it inherits, the filesystem makes the inode and its
//! name in one operation. All that can fail comes before that, or is that; then the VFS's inode is
//! filled and goes to its dentry, and only then others find it.
//!
//! # Locking
//!
//! `i_rwsem` of the directory is held exclusively (not for nodes without a name).
//!
//! Tests: tests/vm/t/020-names.sh, 022-xattr.sh, 080-fail-nth.sh.

use kernel::prelude::*;

use super::acl::Inherited;
use super::new_inode::{InstallTables, NewInode};
use super::xattr::labels_of;
use crate::bindings;
use crate::vfs::object::dentry::Dentry;
use crate::vfs::object::inode::Inode;
use crate::vfs::traits::directory::NewNode;
use crate::vfs::traits::xattr::Label;

/// All that is needed to make a node. Dropped, it leaves nothing behind.
pub(in crate::vfs) struct PreparedNode<'a, T: InstallTables> {
    inode: NewInode<'a, T>,
    /// Target of a symbolic link with a zero byte after it.
    link: Option<KVec<u8>>,
    acls: Inherited,
    labels: KVec<Label>,
}

impl<'a, T: InstallTables> PreparedNode<'a, T> {
    /// Prepares a node in `dir` under the name of `dentry`. Its permissions become what access control lists or
    /// the umask leave of them.
    pub(in crate::vfs) fn new(
        dir: &'a Inode<T>,
        dentry: &Dentry<T>,
        node: &mut NewNode<'_>,
    ) -> Result<Self> {
        let acls = Inherited::new(dir, &mut node.mode)?;
        let link = node.symlink.map(zero_terminated).transpose()?;
        let inode = NewInode::begin(dir.sb(), node)?;
        // SAFETY: `begin` has set number, generation, type, permissions and owner of the new inode.
        let labels = unsafe { labels_of(inode.as_ptr(), dir, dentry)? };
        Ok(Self {
            inode,
            link,
            acls,
            labels,
        })
    }

    /// The node with the attributes that it is made with.
    pub(in crate::vfs) fn complete<'b>(&'b self, node: NewNode<'b>) -> NewNode<'b> {
        NewNode {
            access_acl: self.acls.access(),
            default_acl: self.acls.default(),
            labels: &self.labels,
            ..node
        }
    }

    /// The C side's pointer to the inode.
    pub(in crate::vfs) fn as_ptr(&self) -> *mut bindings::inode {
        self.inode.as_ptr()
    }

    /// The filesystem has made the node: its inode goes to `dentry`.
    ///
    /// # Safety
    ///
    /// `dentry` is negative and the caller's to instantiate.
    pub(in crate::vfs) unsafe fn instantiate(
        self,
        data: T::InodeData,
        dentry: *mut bindings::dentry,
    ) {
        // SAFETY: By this function's contract the dentry is negative and the caller's.
        unsafe { self.inode.instantiate(data, self.link, dentry) };
    }
}

fn zero_terminated(target: &[u8]) -> Result<KVec<u8>> {
    let mut link = KVec::with_capacity(target.len() + 1, GFP_KERNEL)?;
    link.extend_from_slice(target, GFP_KERNEL)?;
    link.push(0, GFP_KERNEL)?;
    Ok(link)
}
