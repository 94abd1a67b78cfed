// SPDX-License-Identifier: GPL-2.0

//! Inodes.
//!
//! # Model
//!
//! A VFS inode and the filesystem's data for it are one object of a slab cache. The data is put in
//! while the inode is new (`I_NEW`: no other task can use it), and taken out when the VFS evicts the
//! inode. So the data is there for every holder of an [`Inode<T>`].
//!
//! The attributes have two homes: the filesystem's and the VFS's.
//!
//! | attributes | changed first in | copied |
//! |---|---|---|
//! | mode, owner, flags | the filesystem | by `setattr`, `set_acl`, `fileattr_set` |
//! | link count; size and modification time of directories | the filesystem | by `Inode::refresh` |
//! | access time; modification time of what is no directory | the VFS | by `write_inode` |
//! | change time, change counter | either | both ways |
//!
//! What the VFS changes by itself (reads, writes, stores to mappings) makes its inode dirty; `write_inode`
//! hands it over and nothing else. The change counter is `i_version`, which the VFS raises with the times
//! because of `SB_I_VERSION`, and shows as STATX_CHANGE_COOKIE. Both homes raise it, so what each has raised is
//! added to the other's.
//!
//! # Locking
//!
//! Changes by system calls hold `i_rwsem` exclusively, except that a directory which is renamed in its
//! parent is changed under its parent's. `write_inode` and the VFS's updates of times hold nothing. So
//! attributes are copied, either way, in the filesystem's critical section (`show`, `set_attrs` and
//! `push_times` of [`InodeOperations`](crate::vfs::traits::inode::InodeOperations)): what is copied is never
//! older than what it replaces.
//!
//! Tests: tests/vm/t/020-names.sh, 053-attrs.sh, 023-unload.sh.

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    ops::Deref,
    ptr,
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering}, //
};
use kernel::{
    prelude::*,
    types::{NotThreadSafe, Opaque}, //
};

use super::{super_block::SuperBlock, types::Types};
use crate::bindings;
use crate::vfs::os::Time;

/// Mask of the type in a mode.
pub(crate) const S_IFMT: u32 = 0o170000;
/// Regular file.
pub(crate) const S_IFREG: u32 = 0o100000;
/// Directory.
pub(crate) const S_IFDIR: u32 = 0o040000;
/// Symbolic link.
pub(crate) const S_IFLNK: u32 = 0o120000;
/// Character device.
pub(crate) const S_IFCHR: u32 = 0o020000;

/// An inode of filesystem `T`: the VFS's, and behind it the filesystem's data.
///
/// # Invariants
///
/// - The object lies in the slab cache of a `Registration<T>`, with `vfs` initialised.
/// - `data` is `Some` from before the inode stops being new until it is evicted; safe code has
///   references only in that time.
/// - `data` and `link` do not change in that time; `vfs.i_link`, if set, points into `link`.
#[repr(C)]
pub(crate) struct Inode<T: Types> {
    vfs: Opaque<bindings::inode>,
    data: UnsafeCell<Option<T::InodeData>>,
    /// Target of a symbolic link with a zero byte after it. Path walks read it under RCU: it is
    /// freed with the inode's memory.
    link: UnsafeCell<Option<KVec<u8>>>,
    /// See [`Inode::has_been_writable`].
    writable: AtomicBool,
}

// SAFETY: The VFS inode has locks of its own, the data is `Send` and `Sync`, the link is read-only.
unsafe impl<T: Types> Send for Inode<T> {}
// SAFETY: What a shared reference reaches is the VFS inode, which has locks of its own, data that is `Sync`, and
// a link that does not change.
unsafe impl<T: Types> Sync for Inode<T> {}

/// The times and the change counter of a VFS inode.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) atime: Time,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    pub(crate) change: u64,
}

impl<T: Types> Inode<T> {
    /// Makes a reference from the C side's pointer.
    ///
    /// # Safety
    ///
    /// `ptr` is an inode of a superblock of `T`, its data is set, and it is not evicted during `'a`. The
    /// VFS's callbacks get such inodes, except those for inodes that are new (`NewInode`) or being
    /// evicted (`Evicting`).
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::inode) -> &'a Self {
        // SAFETY: All inodes of `T` are made by `alloc_inode`, with `vfs` as the first field. The
        // caller promises the rest.
        unsafe { &*ptr.cast::<Self>() }
    }

    /// A reference that is counted.
    pub(crate) fn hold(&self) -> InodeRef<'_, T> {
        // SAFETY: A holder of a reference holds a count, so it is not zero.
        unsafe { bindings::ihold(self.as_ptr()) };
        // SAFETY: The count was just taken.
        unsafe { InodeRef::from_raw(NonNull::from(self)) }
    }

    /// The C side's pointer.
    pub(crate) fn as_ptr(&self) -> *mut bindings::inode {
        self.vfs.get()
    }

    /// The filesystem's data.
    pub(crate) fn data(&self) -> &T::InodeData {
        // SAFETY: By the type invariants `data` does not change while there are references.
        let data = unsafe { &*self.data.get() };
        // SAFETY: By the type invariants it is `Some`.
        unsafe { data.as_ref().unwrap_unchecked() }
    }

    /// A page of the file is about to become writable in a page table.
    pub(in crate::vfs) fn note_writable(&self) {
        self.writable.store(true, Ordering::Relaxed);
    }

    /// Whether a page of the file was ever writable in a page table, so that there may be references for
    /// writing to its pages. No ordering is needed: the entry is made later, under the page table lock.
    pub(in crate::vfs) fn has_been_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    /// The superblock.
    pub(crate) fn sb(&self) -> &SuperBlock<T> {
        // SAFETY: `i_sb` never changes, and a superblock outlives its inodes.
        unsafe { SuperBlock::from_raw((*self.as_ptr()).i_sb) }
    }

    /// The filesystem.
    pub(crate) fn fs(&self) -> &T {
        self.sb().fs()
    }

    /// The inode number.
    pub(crate) fn ino(&self) -> u64 {
        // SAFETY: The number does not change while there are references.
        unsafe { (*self.as_ptr()).i_ino }
    }

    /// Type and permissions.
    pub(crate) fn mode(&self) -> u32 {
        // SAFETY: The field is valid; other tasks write it with plain stores of its width.
        u32::from(unsafe { ptr::addr_of!((*self.as_ptr()).i_mode).read_volatile() })
    }

    /// Whether this is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        self.mode() & S_IFMT == S_IFDIR
    }

    /// Whether this is a regular file.
    pub(crate) fn is_regular(&self) -> bool {
        self.mode() & S_IFMT == S_IFREG
    }

    /// Number of names, as the VFS knows it.
    pub(crate) fn nlink(&self) -> u32 {
        // SAFETY: The field is valid; other tasks write it with plain stores of its width.
        unsafe { ptr::addr_of!((*self.as_ptr()).__bindgen_anon_1.__i_nlink).read_volatile() }
    }

    /// Owner and group, as stored on disk.
    pub(crate) fn owner(&self) -> (u32, u32) {
        // SAFETY: By the type invariants the inode is initialised; reads one word.
        let uid = unsafe { bindings::ordofs_inode_uid(self.as_ptr()) };
        // SAFETY: By the type invariants the inode is initialised; reads one word.
        let gid = unsafe { bindings::ordofs_inode_gid(self.as_ptr()) };
        (uid, gid)
    }

    /// `i_size`.
    pub(crate) fn size(&self) -> u64 {
        // SAFETY: By the type invariants the inode is initialised; 64-bit sizes are read in one piece.
        let size = unsafe { bindings::ordofs_i_size_read(self.as_ptr()) };
        u64::try_from(size).unwrap_or(0)
    }

    /// The caller holds `i_rwsem` exclusively: lockdep, where it is there, knows.
    pub(in crate::vfs) fn assert_locked(&self) {
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: By the type invariants the inode is initialised, its lock with it.
            unsafe { bindings::ordofs_inode_assert_locked(self.as_ptr()) };
        }
    }

    /// The caller holds `i_rwsem` at least shared.
    pub(in crate::vfs) fn assert_shared(&self) {
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: By the type invariants the inode is initialised, its lock with it.
            unsafe { bindings::ordofs_inode_assert_shared(self.as_ptr()) };
        }
    }

    /// Sets `i_size`.
    pub(in crate::vfs) fn store_size(&self, size: u64) {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        // SAFETY: By the type invariants the inode is initialised. 64-bit sizes are written in one piece.
        unsafe { bindings::ordofs_i_size_write(self.as_ptr(), size) };
    }

    /// The change counter that the VFS has.
    pub(crate) fn change(&self) -> u64 {
        // SAFETY: By the type invariants the inode is initialised; reads one atomic word.
        unsafe { bindings::ordofs_inode_change(self.as_ptr()) }
    }

    /// The times and the change counter that the VFS has.
    pub(crate) fn times(&self) -> Times {
        let (mut a, mut m, mut c) = (
            MaybeUninit::<bindings::timespec64>::uninit(),
            MaybeUninit::<bindings::timespec64>::uninit(),
            MaybeUninit::<bindings::timespec64>::uninit(),
        );
        // SAFETY: By the type invariants the inode is initialised; the pointers are to locals.
        unsafe {
            bindings::ordofs_inode_times(
                self.as_ptr(),
                a.as_mut_ptr(),
                m.as_mut_ptr(),
                c.as_mut_ptr(),
            );
        }
        let time = |t: bindings::timespec64| Time {
            sec: t.tv_sec,
            nsec: t.tv_nsec as u32,
        };
        // SAFETY: The call has written all three.
        let (a, m, c) = unsafe { (a.assume_init(), m.assume_init(), c.assume_init()) };
        Times {
            atime: time(a),
            mtime: time(m),
            ctime: time(c),
            change: self.change(),
        }
    }

    /// Marks the inode dirty: the VFS has times that the filesystem does not have yet.
    pub(crate) fn mark_dirty(&self) {
        // SAFETY: By the type invariants the inode is initialised, and not evicted while there are references.
        unsafe { bindings::ordofs_mark_inode_dirty(self.as_ptr()) };
    }
}

/// The Rust part of an inode, for the callbacks that make and unmake inodes.
impl<T: Types> Inode<T> {
    /// Initialises the Rust part of a newly allocated inode.
    ///
    /// # Safety
    ///
    /// `ptr` is memory of the slab cache for inodes of `T` that no other task knows.
    pub(in crate::vfs) unsafe fn init_allocated(ptr: *mut Self) {
        // SAFETY: By this function's contract the field lies in memory that is this call's alone.
        unsafe { (&raw mut (*ptr).data).write(UnsafeCell::new(None)) };
        // SAFETY: The field lies in memory that is this call's alone.
        unsafe { (&raw mut (*ptr).link).write(UnsafeCell::new(None)) };
        // SAFETY: The field lies in memory that is this call's alone.
        unsafe { (&raw mut (*ptr).writable).write(AtomicBool::new(false)) };
    }

    /// Drops the Rust part before the memory is freed.
    ///
    /// # Safety
    ///
    /// `init_allocated` has initialised `ptr`, no task can use the inode any more, and this is called once.
    pub(in crate::vfs) unsafe fn drop_allocated(ptr: *mut Self) {
        // SAFETY: By this function's contract the field is initialised and this call's alone. Eviction has
        // taken its content.
        unsafe { ptr::drop_in_place(&raw mut (*ptr).data) };
        // SAFETY: The field is initialised and this call's alone: path walks, which read it under RCU, are
        // over.
        unsafe { ptr::drop_in_place(&raw mut (*ptr).link) };
    }

    /// Whether the inode has data. It has none if reading it failed.
    ///
    /// # Safety
    ///
    /// `ptr` is a valid inode of `T` that is new or being evicted, and this task is the one that fills or
    /// evicts it.
    pub(in crate::vfs) unsafe fn has_data(ptr: *mut Self) -> bool {
        // SAFETY: By this function's contract no other task changes the field.
        unsafe { &*UnsafeCell::raw_get(&raw const (*ptr).data) }.is_some()
    }

    /// Gives a new inode its data; `link` is the target of a symbolic link with a zero byte after it.
    ///
    /// # Safety
    ///
    /// `ptr` is a valid inode of `T` that is new (`I_NEW`), and this task is the one that fills it.
    pub(in crate::vfs) unsafe fn set_data(
        ptr: *mut Self,
        data: T::InodeData,
        link: Option<KVec<u8>>,
    ) {
        // SAFETY: By this function's contract no other task looks at the field: it waits for `I_NEW` to be
        // cleared.
        unsafe { *UnsafeCell::raw_get(&raw const (*ptr).data) = Some(data) };
        // SAFETY: No other task looks at the field; `i_link`, through which path walks do, is not set yet.
        unsafe { *UnsafeCell::raw_get(&raw const (*ptr).link) = link };
    }

    /// Takes the data from an inode that is being evicted. The link stays until the memory is freed.
    ///
    /// # Safety
    ///
    /// `ptr` is a valid inode of `T` in `evict_inode`, no reference from [`Inode::from_raw`] is left, and
    /// none is made from now on.
    pub(in crate::vfs) unsafe fn take_data(ptr: *mut Self) -> Option<T::InodeData> {
        // SAFETY: By this function's contract no other task reaches the field.
        unsafe { (*UnsafeCell::raw_get(&raw const (*ptr).data)).take() }
    }

    /// The target of a symbolic link with a zero byte after it, for `i_link`; null for other inodes.
    pub(in crate::vfs) fn link_target(&self) -> *mut c_char {
        // SAFETY: By the type invariants `link` does not change while there are references.
        match unsafe { &*self.link.get() } {
            Some(target) => target.as_ptr().cast_mut().cast(),
            None => ptr::null_mut(),
        }
    }
}

/// A counted reference to an inode. It borrows the superblock, which must not go while an inode of it is
/// in use.
///
/// # Invariants
///
/// - The inode's data is set.
/// - One of the inode's references is this one's.
pub(crate) struct InodeRef<'a, T: Types> {
    ptr: NonNull<Inode<T>>,
    _sb: PhantomData<&'a SuperBlock<T>>,
}

impl<T: Types> InodeRef<'_, T> {
    /// # Safety
    ///
    /// `ptr` is an inode of the superblock that the result borrows, its data is set, and the caller gives
    /// one of its references to the result.
    pub(in crate::vfs) unsafe fn from_raw(ptr: NonNull<Inode<T>>) -> Self {
        // INVARIANT: By this function's contract.
        Self {
            ptr,
            _sb: PhantomData,
        }
    }

    /// The C side's pointer, with the reference, for a C function that consumes it.
    pub(crate) fn into_raw(self) -> *mut bindings::inode {
        ManuallyDrop::new(self).as_ptr()
    }
}

impl<T: Types> Deref for InodeRef<'_, T> {
    type Target = Inode<T>;

    fn deref(&self) -> &Inode<T> {
        // SAFETY: By the type invariants the inode is valid as long as `self` is there.
        unsafe { self.ptr.as_ref() }
    }
}

impl<T: Types> Drop for InodeRef<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours to give up; `vfs` is the first field.
        unsafe { bindings::iput(self.ptr.as_ptr().cast()) };
    }
}

/// An inode whose `i_rwsem` the current task holds exclusively.
///
/// # Invariants
///
/// The current task holds `i_rwsem` exclusively for `'a`.
pub(crate) struct Locked<'a, T: Types> {
    inode: &'a Inode<T>,
    // Another task does not hold the lock.
    _not_send: NotThreadSafe,
}

impl<'a, T: Types> Locked<'a, T> {
    /// # Safety
    ///
    /// The current task holds `i_rwsem` of the inode exclusively during `'a`.
    pub(crate) unsafe fn new(inode: &'a Inode<T>) -> Self {
        inode.assert_locked();
        // INVARIANT: By this function's contract.
        Self {
            inode,
            _not_send: NotThreadSafe,
        }
    }

    /// The inode.
    pub(crate) fn inode(&self) -> &'a Inode<T> {
        self.inode
    }

    /// Sets `i_size`.
    pub(crate) fn set_size(&self, size: u64) {
        self.store_size(size);
    }
}

impl<T: Types> Deref for Locked<'_, T> {
    type Target = Inode<T>;

    fn deref(&self) -> &Inode<T> {
        self.inode
    }
}
