// SPDX-License-Identifier: GPL-2.0

//! Registering a filesystem type.
//!
//! Tests: tests/vm/t/021-mount.sh, 023-unload.sh.

mod fs_context;

use kernel::{error::to_result, prelude::*, str::CStrExt};

use crate::bindings;
use crate::vfs::object::fs_type::FsType;
use crate::vfs::traits::file_system::FileSystem;

/// A registered filesystem type. Dropping it unregisters the type; the VFS keeps the module while
/// there are mounts.
///
/// # Invariants
///
/// `fs_type` is registered.
pub(crate) struct Registration<T: FileSystem> {
    fs_type: KBox<FsType<T>>,
}

// SAFETY: A type may be unregistered from any thread; there are no methods on shared references.
unsafe impl<T: FileSystem> Send for Registration<T> {}
// SAFETY: There are no methods on shared references.
unsafe impl<T: FileSystem> Sync for Registration<T> {}

impl<T: FileSystem> Registration<T> {
    /// Registers the type.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        let fs_type = FsType::<T>::new(T::INODE_CACHE, T::NAME)?;
        let ptr = fs_type.as_ptr();
        // SAFETY: The type is not registered, so it is ours alone.
        let raw = unsafe { &mut *ptr };
        raw.name = T::NAME.as_char_ptr();
        raw.owner = module.as_ptr().cast();
        raw.fs_flags = (bindings::FS_REQUIRES_DEV | bindings::FS_ALLOW_IDMAP) as c_int;
        raw.init_fs_context = Some(fs_context::init::<T>);
        raw.kill_sb = Some(fs_context::kill_sb::<T>);
        // SAFETY: The type is complete. It stays where it is, in the memory of the box, until it is unregistered.
        to_result(unsafe { bindings::ordofs_register_filesystem(ptr) })?;
        // INVARIANT: Just registered.
        Ok(Self { fs_type })
    }
}

impl<T: FileSystem> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the type is registered. The module is being unloaded, so there are no
        // superblocks.
        unsafe { bindings::ordofs_unregister_filesystem(self.fs_type.as_ptr()) };
    }
}
