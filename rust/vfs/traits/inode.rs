// SPDX-License-Identifier: GPL-2.0

//! Inodes and their attributes. Fills the slots of `struct super_operations` and `struct inode_operations` that
//! all kinds of inodes have.

use kernel::prelude::*;

use crate::vfs::object::inode::{Inode, Locked, Times};
use crate::vfs::object::super_block::SuperBlock;
use crate::vfs::object::types::Types;
use crate::vfs::os::Time;

/// The attributes of an inode as the filesystem has them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Attrs {
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u64,
    pub(crate) size: u64,
    /// Space taken, in blocks of 512 bytes.
    pub(crate) sectors: u64,
    pub(crate) generation: u32,
    /// `FS_*_FL` flags.
    pub(crate) flags: u32,
    pub(crate) atime: Time,
    pub(crate) mtime: Time,
    pub(crate) btime: Time,
}

/// A change of attributes. The size is not among them: see [`FileOperations::set_size`](super::file::FileOperations::set_size).
#[derive(Clone, Copy, Default)]
pub(crate) struct AttrChange {
    /// Permissions; the type bits stay.
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) atime: Option<Time>,
    pub(crate) mtime: Option<Time>,
    pub(crate) ctime: Option<Time>,
    /// `FS_*_FL` flags.
    pub(crate) flags: Option<u32>,
}

/// What the filesystem changes and the VFS only shows.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) nlink: u32,
    pub(crate) ctime: Time,
    /// The filesystem's change counter: that of a new VFS inode.
    pub(crate) change: u64,
    /// What the filesystem has raised the counter by since the last copy, either way: to be added to that of
    /// a VFS inode that is not new.
    pub(crate) raised: u64,
    /// For directories.
    pub(crate) mtime: Time,
    /// For directories.
    pub(crate) size: u64,
}

/// Why the VFS forgets an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Evict {
    /// It may come back.
    Forget,
    /// Its last name and last user are gone.
    Delete,
}

/// Inodes of all kinds. Methods run in process context and may sleep.
pub(crate) trait InodeOperations: Types {
    /// Finds an inode; `ESTALE` if there is none. Undone by `evict`.
    fn read_inode(sb: &SuperBlock<Self>, ino: u64) -> Result<Self::InodeData>;
    /// The attributes now.
    fn attrs(data: &Self::InodeData) -> Attrs;
    /// The target of a symbolic link.
    fn read_link(sb: &SuperBlock<Self>, data: &Self::InodeData) -> Result<KVec<u8>>;
    /// The VFS forgets the inode.
    fn evict(sb: &SuperBlock<Self>, data: Self::InodeData, why: Evict);
    /// Copies attributes to the VFS inode: `show` gets them, in the critical section that orders their
    /// changes. `ctime` is what the VFS inode has now; if the VFS has changed it by itself and it is later,
    /// `show` gets that.
    fn show(data: &Self::InodeData, ctime: &dyn Fn() -> Option<Time>, show: &mut dyn FnMut(&Shown));
    /// Changes attributes other than the size, and with them the access control list, if there is one:
    /// all in one. `change` changes the VFS inode and returns what that has now; it is called once, in the
    /// critical section in which the filesystem changes its own, unless this fails.
    fn set_attrs(
        inode: &Locked<'_, Self>,
        acl: Option<&[u8]>,
        change: &mut dyn FnMut() -> AttrChange,
    ) -> Result;
    /// Takes over the times and the change counter that the VFS has changed by itself. `times` reads them, perhaps more than once;
    /// what counts is what it reads in the critical section in which they are stored. Holds no lock.
    fn push_times(inode: &Inode<Self>, times: &dyn Fn() -> Times) -> Result;
    /// Makes the inode, data excepted, durable.
    fn sync_inode(inode: &Inode<Self>) -> Result;
}
