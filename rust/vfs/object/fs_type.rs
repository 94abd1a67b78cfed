// SPDX-License-Identifier: GPL-2.0

//! `struct file_system_type`, and what belongs to a type whatever the filesystem.
//!
//! Tests: tests/vm/t/021-mount.sh, 023-unload.sh (loading and unloading).

use core::{marker::PhantomData, ptr};
use kernel::{prelude::*, types::Opaque};

use super::inode::Inode;
use super::sysfs::TypeDirectory;
use super::types::Types;
use crate::bindings;

/// A filesystem type. It does not move while it is registered.
///
/// `raw` is the first field, so that a pointer to it is a pointer to this.
///
/// # Invariants
///
/// `inode_cache` is null, or a slab cache of `Inode<T>` that is this one's to destroy.
#[repr(C)]
pub(crate) struct FsType<T: Types> {
    raw: Opaque<bindings::file_system_type>,
    inode_cache: *mut bindings::kmem_cache,
    directory: TypeDirectory,
    _fs: PhantomData<T>,
}

/// Runs once for every object of the cache, when its memory comes from the page allocator.
///
/// # Safety
///
/// `object` is memory of a slab cache of `Inode<T>` that no task uses yet.
unsafe extern "C" fn construct<T: Types>(object: *mut c_void) {
    // SAFETY: By this function's contract the object has the layout of `Inode<T>`, which begins with a
    // `struct inode`, and is the slab allocator's to have initialised.
    unsafe { bindings::inode_init_once(object.cast()) };
}

impl<T: Types> FsType<T> {
    /// A type that is not registered, with a cache for its inodes and a directory in sysfs.
    pub(in crate::vfs) fn new(cache: &'static CStr, name: &CStr) -> Result<KBox<Self>> {
        // INVARIANT: No cache yet.
        let mut this = KBox::new(
            Self {
                raw: Opaque::zeroed(),
                inode_cache: ptr::null_mut(),
                directory: TypeDirectory::new(name)?,
                _fs: PhantomData,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The name is static; size, alignment and constructor are those of `Inode<T>`.
        let inode_cache = unsafe {
            bindings::ordofs_inode_cache_create(
                cache.as_char_ptr(),
                size_of::<Inode<T>>() as c_uint,
                align_of::<Inode<T>>() as c_uint,
                Some(construct::<T>),
            )
        };
        if inode_cache.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: Just made for `Inode<T>`, and no other task has it.
        this.inode_cache = inode_cache;
        Ok(this)
    }

    /// The type of a superblock.
    ///
    /// # Safety
    ///
    /// `ptr` is [`FsType::as_ptr`] of an `FsType<T>` that is not dropped during `'a`. That of a superblock of
    /// `T` is: a type is unregistered when the module goes, and superblocks keep the module.
    pub(in crate::vfs) unsafe fn from_raw<'a>(ptr: *mut bindings::file_system_type) -> &'a Self {
        // SAFETY: By this function's contract `ptr` is the first field of a live `FsType<T>`.
        unsafe { &*ptr.cast() }
    }

    /// The C side's pointer.
    pub(in crate::vfs) fn as_ptr(&self) -> *mut bindings::file_system_type {
        self.raw.get()
    }

    /// The slab cache of inodes.
    pub(in crate::vfs) fn inode_cache(&self) -> *mut bindings::kmem_cache {
        self.inode_cache
    }

    /// The directory in sysfs in which those of mounts are.
    pub(in crate::vfs) fn directory(&self) -> &TypeDirectory {
        &self.directory
    }
}

impl<T: Types> Drop for FsType<T> {
    fn drop(&mut self) {
        if self.inode_cache.is_null() {
            return;
        }
        // Inodes that wait for a grace period of RCU to be freed are gone after this.
        // SAFETY: Only waits, in a task that may sleep: types are dropped at module init and exit.
        unsafe { bindings::rcu_barrier() };
        // SAFETY: By the type invariant the cache is ours. No superblock of the type is left, and so no
        // inode, because the type is not registered any more.
        unsafe { bindings::kmem_cache_destroy(self.inode_cache) };
    }
}
