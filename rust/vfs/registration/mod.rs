// SPDX-License-Identifier: GPL-2.0

//! Registering a filesystem type.

pub(crate) mod fs_context;

use core::{marker::PhantomData, ptr};
use kernel::{error::to_result, prelude::*, str::CStrExt, types::Opaque};

use crate::vfs::{object::sysfs::TypeDirectory, Inode};
use crate::{bindings, vfs::traits::file_data::FileData};

/// What is shared with the VFS; it does not move while it is registered.
///
/// `fs_type` is the first field, so that a pointer to it is a pointer to this.
#[repr(C)]
struct Inner {
    fs_type: Opaque<bindings::file_system_type>,
    inode_cache: *mut bindings::kmem_cache,
    directory: TypeDirectory,
}

/// A registered filesystem type. Dropping it unregisters the type; the VFS keeps the module while
/// there are mounts.
///
/// # Invariants
///
/// `inner.fs_type` is registered, and `inner.inode_cache` is a slab cache of `Inode<T>`.
pub(crate) struct Registration<T: FileData> {
    inner: KBox<Inner>,
    _fs: PhantomData<T>,
}

// SAFETY: A type may be unregistered from any thread; there are no methods on shared references.
unsafe impl<T: FileData> Send for Registration<T> {}
// SAFETY: As above.
unsafe impl<T: FileData> Sync for Registration<T> {}

/// Runs once for every object of the cache, when its memory comes from the page allocator.
///
/// # Safety
///
/// `object` is memory for an inode of `T`, of the cache that was made with this constructor.
unsafe extern "C" fn construct<T: FileData>(object: *mut c_void) {
    // SAFETY: The cache's objects are `Inode<T>`, which begin with a `struct inode`.
    unsafe { bindings::inode_init_once(object.cast()) };
}

impl<T: FileData> Registration<T> {
    /// Registers the type.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        // SAFETY: The constructor fits the objects' layout; the name is static.
        let inode_cache = unsafe {
            bindings::ordofs_inode_cache_create(
                T::INODE_CACHE.as_char_ptr(),
                size_of::<Inode<T>>() as c_uint,
                align_of::<Inode<T>>() as c_uint,
                Some(construct::<T>),
            )
        };
        if inode_cache.is_null() {
            return Err(ENOMEM);
        }
        // From here on dropping `inner` alone would leak the cache.
        let result = Self::register(module, inode_cache);
        if result.is_err() {
            // SAFETY: No object was ever allocated.
            unsafe { bindings::kmem_cache_destroy(inode_cache) };
        }
        result
    }

    fn register(
        module: &'static ThisModule,
        inode_cache: *mut bindings::kmem_cache,
    ) -> Result<Self> {
        let inner = KBox::new(
            Inner {
                fs_type: Opaque::zeroed(),
                inode_cache,
                directory: TypeDirectory::new(T::NAME)?,
            },
            GFP_KERNEL,
        )?;
        let fs_type = inner.fs_type.get();
        // SAFETY: The structure is zeroed and nobody else knows it yet. It stays where it is, in the
        // memory of the box, until it is unregistered.
        unsafe {
            (*fs_type).name = T::NAME.as_char_ptr();
            (*fs_type).owner = module.as_ptr().cast();
            (*fs_type).fs_flags = (bindings::FS_REQUIRES_DEV | bindings::FS_ALLOW_IDMAP) as c_int;
            (*fs_type).init_fs_context = Some(fs_context::init::<T>);
            (*fs_type).kill_sb = Some(fs_context::kill_sb::<T>);
            to_result(bindings::ordofs_register_filesystem(fs_type))?;
        }
        // INVARIANT: Registered above; the cache is by the caller.
        Ok(Self {
            inner,
            _fs: PhantomData,
        })
    }

    /// The slab cache for inodes of superblocks of a type.
    ///
    /// # Safety
    ///
    /// `fs_type` is the one that a `Registration<T>` registered.
    pub(crate) unsafe fn inode_cache(
        fs_type: *mut bindings::file_system_type,
    ) -> *mut bindings::kmem_cache {
        // SAFETY: By the caller's promise this is `fs_type` of an `Inner`, its first field.
        unsafe { (*fs_type.cast::<Inner>()).inode_cache }
    }

    /// The directory in sysfs for superblocks of a type.
    ///
    /// # Safety
    ///
    /// `fs_type` is the one that a `Registration<T>` registered, and stays so for `'a`.
    pub(crate) unsafe fn directory<'a>(
        fs_type: *mut bindings::file_system_type,
    ) -> &'a TypeDirectory {
        // SAFETY: As above.
        unsafe { &(*fs_type.cast::<Inner>()).directory }
    }
}

impl<T: FileData> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the type is registered and the cache is ours. The module
        // is being unloaded, so there are no superblocks; inodes that wait for RCU to be freed are
        // gone after the barrier.
        unsafe {
            bindings::ordofs_unregister_filesystem(self.inner.fs_type.get());
            bindings::rcu_barrier();
            bindings::kmem_cache_destroy(self.inner.inode_cache);
        }
        self.inner.inode_cache = ptr::null_mut();
    }
}
