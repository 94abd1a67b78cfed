// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over the kernel's VFS, memory management, iomap and block layers.
//!
//! # Model
//!
//! A filesystem is a type `T` that implements [`FileSystem`] (superblock, inodes, names) and
//! `FileData` (page cache and I/O of regular files). The abstractions own every C callback table;
//! a callback turns its C pointers into [`SuperBlock<T>`], [`Inode<T>`], [`Dentry<T>`] references,
//! whose invariants say what a holder may rely on, and calls the safe method.
//!
//! Nearly all `unsafe` code of the project is in this directory. It knows nothing of OrdoFS.
//!
//! # Locking
//!
//! The methods say which of the VFS's locks their caller holds. [`Locked`] carries the proof that
//! `i_rwsem` is held exclusively.

#[cfg(ordofs_debug)]
mod errortag;
pub(crate) mod ioend;
pub(crate) mod object;
#[allow(unreachable_pub, dead_code)]
pub(crate) mod os;
pub(crate) mod registration;
mod table;
#[cfg(any(ordofs_planted, ordofs_misuse_types, ordofs_misuse_lifetimes))]
mod testing;
#[allow(unreachable_pub, dead_code)]
pub mod trace;
pub(crate) mod traits;
#[allow(unreachable_pub)]
pub(crate) mod window;

pub(crate) use object::dentry::Dentry;
pub(crate) use object::inode::{AttrChange, Attrs, Inode, Locked, Shown, Times};
pub(crate) use object::super_block::{StatFs, SuperBlock};
pub(crate) use object::sysfs;
pub(crate) use table::xattr::{Label, Namespace, XattrSet};

use core::ffi::CStr;
use kernel::prelude::*;

use crate::os::{Device, Time};

/// Why a mount or remount failed: the error, and one line for the user that says why.
pub(crate) struct MountError {
    /// What the system call returns.
    pub(crate) error: Error,
    /// What the log and the mount(8) message say; empty for errors that speak for themselves.
    pub(crate) reason: &'static str,
}

impl From<Error> for MountError {
    fn from(error: Error) -> Self {
        MountError { error, reason: "" }
    }
}

/// What a filesystem makes of one mount option.
pub(crate) enum Param {
    /// Understood and stored.
    Accepted,
    /// Not an option of this filesystem; the VFS names it in its message.
    Unknown,
    /// An option of this filesystem with a value that it cannot have; says what is expected.
    Invalid(&'static str),
}

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
    /// Labels of security modules: attributes of [`Namespace::Security`].
    pub(crate) labels: &'a [Label],
    /// What it is going to be known by.
    pub(crate) id: Identity,
}

/// What an inode is known by, for as long as it exists. Chosen before it does: security modules label a new
/// inode before anybody can find it.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    /// Inode number.
    pub(crate) ino: u64,
    /// Birth time.
    pub(crate) born: Timestamp,
    /// Tells inodes with the same number apart, one of which no longer exists.
    pub(crate) generation: u32,
}

/// Takes the entries of a directory, one by one: name, inode number, `DT_*`, cookie. False ends it.
pub(crate) type Emit<'a> = &'a mut dyn FnMut(&[u8], u64, u8, u64) -> bool;

/// A rename. Both directories' `i_rwsem` are held exclusively, as are those of `inode` and `target`
/// where the VFS's rules for renames say so.
pub(crate) struct Rename<'a, T: FileSystem> {
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

/// The superblock, inode and namespace side of a filesystem.
///
/// Methods run in process context and may sleep.
pub(crate) trait FileSystem: Sized + Send + Sync + 'static {
    /// What the filesystem keeps with every VFS inode; reached by [`Inode::data`].
    type InodeData: Send + Sync + 'static;
    /// Mount options.
    type Params: Send + Sync + 'static;

    /// Name of the type, as in `mount -t`.
    const NAME: &'static CStr;
    /// Name of the slab cache of inodes.
    const INODE_CACHE: &'static CStr;
    /// What `statfs` calls the type.
    const MAGIC: u64;
    /// What is in `/sys/fs/<type>/<device>`, for users.
    const FILES: &'static [sysfs::File<Self>];

    // Mounting.

    /// The options before any is parsed: the defaults, or what is in force for a remount.
    fn initial_params(current: Option<&SuperBlock<Self>>) -> Self::Params;
    /// Takes one option.
    fn parse_param(params: &mut Self::Params, key: &[u8], value: Option<&[u8]>) -> Param;
    /// Whether POSIX access control lists are wanted.
    fn posix_acls(params: &Self::Params) -> bool;
    /// Reads the filesystem on `dev`.
    fn mount(dev: Device, params: &Self::Params, read_only: bool) -> Result<Self, MountError>;
    /// The mount has succeeded and is about to become visible: start what runs in the background.
    fn started(&self, sb: &SuperBlock<Self>, read_only: bool) -> Result;
    /// Remount with other options. `read_only` is the state asked for; when it changes to read-only,
    /// everything was synced and no writer is left.
    fn reconfigure(
        sb: &SuperBlock<Self>,
        params: &Self::Params,
        read_only: bool,
    ) -> Result<(), MountError>;
    /// The last inode is gone: write what is left and stop all background work.
    fn unmount(&self);
    /// Writes the mount options that differ from the defaults, each with a comma before it.
    fn show_options(&self, out: &mut dyn core::fmt::Write) -> core::fmt::Result;
    /// The root directory's inode number.
    fn root_ino(&self) -> u64;
    /// The filesystem's UUID.
    fn uuid(&self) -> [u8; 16];

    // The whole filesystem.

    /// Makes everything that happened up to now durable (if `wait`), or starts doing so.
    fn sync(&self, wait: bool) -> Result;
    /// As `sync`, and from now on, until `unfreeze`, nothing is written.
    fn freeze(&self) -> Result {
        self.sync(true)
    }
    /// Ends `freeze`.
    fn unfreeze(&self) -> Result {
        Ok(())
    }
    /// Numbers for statfs.
    fn statfs(&self) -> StatFs;
    /// Number of objects that `shrink_scan` could free.
    fn shrink_count(&self) -> u64 {
        0
    }
    /// The shrinker will not be called any more.
    fn stop_caching(&self) {}
    /// Frees up to `n` objects; returns how many.
    fn shrink_scan(&self, _n: u64) -> u64 {
        0
    }
    /// The device is gone, or the administrator wants it to seem so: from now on nothing is written,
    /// and everything that would fails.
    fn shutdown(&self);
    /// EIO after a shutdown. What is cached must not hide it: every call that reads asks first.
    fn readable(&self) -> Result;

    // Inodes.

    /// Finds an inode; `ESTALE` if there is none. Undone by `evict`.
    fn read_inode(sb: &SuperBlock<Self>, ino: u64) -> Result<Self::InodeData>;
    /// The attributes now.
    fn attrs(data: &Self::InodeData) -> Attrs;
    /// The target of a symbolic link.
    fn read_link(sb: &SuperBlock<Self>, data: &Self::InodeData) -> Result<KVec<u8>>;
    /// The VFS forgets the inode. With `delete` its last name and last user are gone, too.
    fn evict(sb: &SuperBlock<Self>, data: Self::InodeData, delete: bool);
    /// Copies attributes to the VFS inode: `show` gets them, in the critical section that orders their
    /// changes. `ctime` is what the VFS inode has now; if the VFS has changed it by itself and it is later,
    /// `show` gets that.
    fn show(
        data: &Self::InodeData,
        ctime: &dyn Fn() -> Option<Timestamp>,
        show: &mut dyn FnMut(&Shown),
    );
    /// Changes attributes other than the size, and with them the access control list, if there is one:
    /// all in one. `change` changes the VFS inode and returns what that has now; it is called once, in the
    /// critical section in which the filesystem changes its own, unless this fails.
    fn set_attrs(
        inode: &Locked<'_, Self>,
        acl: Option<&[u8]>,
        change: &mut dyn FnMut() -> AttrChange,
    ) -> Result;
    /// Takes over the times that the VFS has changed by itself. `times` reads them, perhaps more than once;
    /// what counts is what it reads in the critical section in which they are stored.
    fn push_times(inode: &Inode<Self>, times: &dyn Fn() -> Times) -> Result;
    /// The inode number of a directory's parent; `None` if it is not a directory.
    fn parent(inode: &Inode<Self>) -> Option<u64>;
    /// Makes the inode, data excepted, durable.
    fn sync_inode(inode: &Inode<Self>) -> Result;

    // Extended attributes. Names are without the namespace's prefix.

    /// Copies a value to `out`; answers its size, `None` if there is no such attribute. With an empty
    /// `out` only that; ERANGE if it is too short.
    fn get_xattr(
        inode: &Inode<Self>,
        ns: Namespace,
        name: &[u8],
        out: &mut [u8],
    ) -> Result<Option<usize>>;
    /// Sets an attribute, or removes it. The caller holds `i_rwsem` exclusively.
    fn set_xattr(
        inode: &Inode<Self>,
        ns: Namespace,
        name: &[u8],
        value: Option<&[u8]>,
        how: XattrSet,
    ) -> Result;
    /// Calls `emit` for each attribute until it returns an error, which is the answer then.
    fn list_xattr(inode: &Inode<Self>, emit: &mut dyn FnMut(Namespace, &[u8]) -> Result) -> Result;
    /// Sets an access control list, or removes it if it is there, together with the permissions.
    fn set_acl(
        inode: &Locked<'_, Self>,
        ns: Namespace,
        value: Option<&[u8]>,
        mode: Option<u32>,
    ) -> Result;

    // Names. The directories' `i_rwsem` is held: shared for `lookup` and `readdir`, else exclusively.

    /// The inode number behind a name.
    fn lookup(dir: &Inode<Self>, name: &[u8]) -> Result<Option<u64>>;
    /// Chooses what a new inode will be known by.
    fn identity(sb: &SuperBlock<Self>) -> Identity;
    /// Makes a new inode with a name. As with `read_inode`, undone by `evict`.
    fn create(dir: &Locked<'_, Self>, name: &[u8], new: &NewNode<'_>) -> Result<Self::InodeData>;
    /// Makes a new inode without a name.
    fn tmpfile(sb: &SuperBlock<Self>, new: &NewNode<'_>) -> Result<Self::InodeData>;
    /// Gives an inode one more name.
    fn link(dir: &Locked<'_, Self>, name: &[u8], target: &Inode<Self>) -> Result;
    /// Removes a name; of a directory only if that is empty.
    fn unlink(dir: &Locked<'_, Self>, name: &[u8], victim: &Inode<Self>) -> Result;
    /// Renames.
    fn rename(rename: &Rename<'_, Self>) -> Result;
    /// Lists entries with cookies from `pos` on (cookies 0 and 1 are `.` and `..`, which the caller
    /// emits): name, inode number, `DT_*`, cookie. Stops when `emit` returns false.
    fn readdir(dir: &Inode<Self>, pos: u64, emit: Emit<'_>) -> Result;
}

/// Wall clock time as the VFS keeps it.
pub(crate) type Timestamp = Time;
