// SPDX-License-Identifier: GPL-2.0

//! Superblocks.
//!
//! Tests: tests/vm/t/021-mount.sh, 023-unload.sh.

use core::{ffi::CStr, marker::PhantomData, ptr};
use kernel::{
    prelude::*,
    types::Opaque, //
};

use super::sysfs::{Directory, Files, TypeDirectory};
use super::types::Types;
use crate::bindings;
use crate::vfs::os::{LockClass, Mutex};

static DIRECTORY: LockClass = LockClass::new(c"vfs_sysfs_directory");

/// A mounted filesystem, and what belongs to each mount whatever the filesystem.
pub(crate) struct Mounted<T: Types> {
    fs: T,
    directory: Mutex<Option<Directory<T>>>,
}

impl<T: Types> Mounted<T> {
    /// Without a directory in sysfs.
    pub(in crate::vfs) fn new(fs: T) -> Result<Self> {
        Ok(Self {
            fs,
            directory: Mutex::new(&DIRECTORY, None)?,
        })
    }

    /// The filesystem.
    pub(crate) fn fs(&self) -> &T {
        &self.fs
    }

    /// Makes the directory in sysfs.
    ///
    /// # Safety
    ///
    /// `self` stays where it is, and valid, until [`Mounted::hide`].
    pub(in crate::vfs) unsafe fn show(
        &self,
        parent: &TypeDirectory,
        name: &CStr,
        files: Files<T>,
    ) -> Result {
        // SAFETY: By this function's contract `self.fs` stays where it is until `hide`, which drops the
        // directory.
        let directory = unsafe { Directory::new(parent, name, &self.fs, files) }?;
        *self.directory.lock() = Some(directory);
        Ok(())
    }

    /// Removes the directory. None of its files' functions runs after this.
    pub(in crate::vfs) fn hide(&self) {
        let directory = self.directory.lock().take();
        drop(directory);
    }
}

/// A mounted filesystem of type `T`.
///
/// # Invariants
///
/// - The superblock's type is the one that a `Registration<T>` registered.
/// - `s_fs_info` is null or comes from `KBox::<Mounted<T>>::into_raw`. It is set once, before any inode is
///   made, and is valid until the last inode is gone and `put_super` ran.
#[repr(transparent)]
pub(crate) struct SuperBlock<T: Types>(Opaque<bindings::super_block>, PhantomData<T>);

// SAFETY: What is reached through a shared reference is immutable or has locks of its own.
unsafe impl<T: Types> Send for SuperBlock<T> {}
// SAFETY: What is reached through a shared reference is immutable or has locks of its own.
unsafe impl<T: Types> Sync for SuperBlock<T> {}

impl<T: Types> SuperBlock<T> {
    /// Makes a reference from the C side's pointer.
    ///
    /// # Safety
    ///
    /// `ptr` is a superblock of the type that a `Registration<T>` registered, with `s_fs_info` set
    /// as the type invariants say, and all that stays so for `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::super_block) -> &'a Self {
        // SAFETY: The type is transparent, and the caller promises the rest.
        unsafe { &*ptr.cast::<Self>() }
    }

    /// The C side's pointer.
    pub(crate) fn as_ptr(&self) -> *mut bindings::super_block {
        self.0.get()
    }

    /// The filesystem.
    pub(crate) fn fs(&self) -> &T {
        self.mounted().fs()
    }

    /// The filesystem and what belongs to the mount.
    pub(in crate::vfs) fn mounted(&self) -> &Mounted<T> {
        // SAFETY: By the type invariants `s_fs_info` is a valid `Mounted<T>`; safe code that has a reference
        // to the superblock got it while there were inodes, or from a callback that the VFS
        // makes only between mounting and `put_super`.
        unsafe { &*(*self.as_ptr()).s_fs_info.cast::<Mounted<T>>() }
    }

    /// The device's number, by which traces tell filesystems apart.
    pub(crate) fn dev(&self) -> u32 {
        // SAFETY: The pointer is valid by the type invariants; the number does not change.
        unsafe { (*self.as_ptr()).s_dev }
    }

    /// Whether the filesystem is mounted read-only.
    pub(crate) fn read_only(&self) -> bool {
        // SAFETY: The pointer is valid by the type invariants.
        unsafe { bindings::ordofs_sb_rdonly(self.as_ptr()) }
    }

    /// Writes all dirty pages of the filesystem back and waits for that. False if it could not begin,
    /// because the filesystem is being mounted, unmounted or frozen. May be called with `i_rwsem` and the layout
    /// lock held; not with a folio locked.
    pub(crate) fn write_dirty_data(&self) -> bool {
        // SAFETY: The pointer is valid by the type invariants.
        unsafe { bindings::ordofs_helper_write_dirty_data(self.as_ptr()) }
    }

    /// The name of the device, as the kernel's messages show it.
    pub(crate) fn id(&self) -> &CStr {
        // SAFETY: The pointer is valid by the type invariants; `s_id` is set before the filesystem
        // gets the superblock and is not changed for filesystems on one block device.
        let id: &[u8; 32] = unsafe { &*ptr::addr_of!((*self.as_ptr()).s_id).cast() };
        CStr::from_bytes_until_nul(id).unwrap_or(c"?")
    }
}
