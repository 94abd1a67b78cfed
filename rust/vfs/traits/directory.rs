// SPDX-License-Identifier: GPL-2.0

//! Names. Fills the slots of `struct inode_operations` that directories have, and `iterate_shared`.

use kernel::error::VTABLE_DEFAULT_ERROR;
use kernel::prelude::*;

use super::xattr::Label;
use crate::vfs::object::inode::{Inode, Locked};
use crate::vfs::object::super_block::SuperBlock;
use crate::vfs::object::types::Types;
use crate::vfs::os::Time;

/// A new node of the namespace: what `create`, `mkdir`, `mknod`, `symlink` and `tmpfile` ask for.
///
/// Owner, group and mode have gone through the idmapping of the mount and the set-group-id rules.
pub(crate) struct NewNode<'a> {
    /// Type and permissions.
    pub(crate) mode: u32,
    /// Owner, as stored on disk.
    pub(crate) uid: u32,
    /// Group, as stored on disk.
    pub(crate) gid: u32,
    /// Device number for character and block devices (the kernel's encoding for disks).
    pub(crate) rdev: u64,
    /// Target for symbolic links.
    pub(crate) symlink: Option<&'a [u8]>,
    /// Access control list.
    pub(crate) access_acl: Option<&'a [u8]>,
    /// Access control list that is inherited from the new directory.
    pub(crate) default_acl: Option<&'a [u8]>,
    /// Labels of security modules: attributes of [`Namespace::Security`](super::xattr::Namespace::Security).
    pub(crate) labels: &'a [Label],
    /// What it is going to be known by.
    pub(crate) id: Identity,
}

/// What an inode is known by, for as long as it exists. Chosen before it does: security modules label a new
/// inode before it can be found.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    /// Inode number.
    pub(crate) ino: u64,
    /// Birth time.
    pub(crate) born: Time,
    /// Differs between inodes with the same number, one of which no longer exists.
    pub(crate) generation: u32,
}

/// Takes the entries of a directory, one by one: name, inode number, `DT_*`, cookie. False ends it.
pub(crate) type Emit<'a> = &'a mut dyn FnMut(&[u8], u64, u8, u64) -> bool;

/// A rename. Both directories' `i_rwsem` are held exclusively, as are those of `inode` and `target`
/// where the VFS's rules for renames say so.
pub(crate) struct Rename<'a, T: Types> {
    pub(crate) old_dir: &'a Inode<T>,
    pub(crate) old_name: &'a [u8],
    pub(crate) inode: &'a Inode<T>,
    pub(crate) new_dir: &'a Inode<T>,
    pub(crate) new_name: &'a [u8],
    pub(crate) target: Option<&'a Inode<T>>,
    /// Swap `inode` and `target`.
    pub(crate) exchange: bool,
    /// Leave this behind under the old name.
    pub(crate) whiteout: Option<NewNode<'a>>,
}

/// Operations on names. The directories' `i_rwsem` is held: shared for `lookup` and `readdir`, else exclusively. A
/// method with a default is a slot of the kernel's table that is NULL where it is left out.
#[vtable]
pub(crate) trait DirectoryOperations: Types {
    /// The inode number behind a name.
    fn lookup(dir: &Inode<Self>, name: &[u8]) -> Result<Option<u64>>;
    /// Lists entries with cookies from `pos` on (cookies 0 and 1 are `.` and `..`, which the caller
    /// emits): name, inode number, `DT_*`, cookie. Stops when `emit` returns false.
    fn readdir(dir: &Inode<Self>, pos: u64, emit: Emit<'_>) -> Result;
    /// Chooses what a new inode will be known by.
    fn identity(_sb: &SuperBlock<Self>) -> Identity {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
    /// Makes a new inode with a name: `create`, `mkdir`, `mknod` and `symlink`. As with `read_inode`, undone by
    /// `evict`.
    fn create(
        _dir: &Locked<'_, Self>,
        _name: &[u8],
        _new: &NewNode<'_>,
    ) -> Result<Self::InodeData> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
    /// Makes a new inode without a name.
    fn tmpfile(_sb: &SuperBlock<Self>, _new: &NewNode<'_>) -> Result<Self::InodeData> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
    /// Gives an inode one more name.
    fn link(_dir: &Locked<'_, Self>, _name: &[u8], _target: &Inode<Self>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
    /// Removes a name: `unlink` and `rmdir`; of a directory only if that is empty.
    fn unlink(_dir: &Locked<'_, Self>, _name: &[u8], _victim: &Inode<Self>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
    /// Renames.
    fn rename(_rename: &Rename<'_, Self>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}
