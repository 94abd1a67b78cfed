// SPDX-License-Identifier: GPL-2.0

//! Inodes.
//!
//! # Model
//!
//! A VFS inode and the filesystem's data for it are one object of a slab cache. The data is put in
//! while the inode is new (`I_NEW`: nobody else can use it), and taken out when the VFS evicts the
//! inode. So whoever has an [`Inode<T>`] finds the data there.
//!
//! The attributes have two homes: the filesystem's and the VFS's.
//!
//! | attributes | changed first in | copied |
//! |---|---|---|
//! | mode, owner, flags | the filesystem | by `setattr`, `set_acl`, `fileattr_set` |
//! | link count; size and modification time of directories | the filesystem | by [`Inode::refresh`] |
//! | access time; modification time of what is no directory | the VFS | by `write_inode` |
//! | change time | either | both ways |
//!
//! What the VFS changes by itself (reads, writes, stores to mappings) makes its inode dirty; `write_inode`
//! hands it over and nothing else.
//!
//! # Locking
//!
//! Changes by system calls hold `i_rwsem` exclusively, except that a directory which is renamed in its
//! parent is changed under its parent's. `write_inode` and the VFS's updates of times hold nothing. So
//! attributes are copied, either way, in the filesystem's critical section ([`FileSystem::show`],
//! [`FileSystem::set_attrs`], [`FileSystem::push_times`]): what is copied is never older than what it
//! replaces.

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

use crate::vfs::{FileSystem, NewNode, SuperBlock, Timestamp};
use crate::{bindings, vfs::traits::file_data::FileData};

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
pub(crate) struct Inode<T: FileSystem> {
    vfs: Opaque<bindings::inode>,
    data: UnsafeCell<Option<T::InodeData>>,
    /// Target of a symbolic link with a zero byte after it. Path walks read it under RCU: it is
    /// freed with the inode's memory.
    link: UnsafeCell<Option<KVec<u8>>>,
    /// See [`Inode::has_been_writable`].
    writable: AtomicBool,
}

// SAFETY: The VFS inode has locks of its own, the data is `Send` and `Sync`, the link is read-only.
unsafe impl<T: FileSystem> Send for Inode<T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for Inode<T> {}

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
    pub(crate) atime: Timestamp,
    pub(crate) mtime: Timestamp,
    pub(crate) btime: Timestamp,
}

/// A change of attributes. The size is not among them: see `FileData`.
#[derive(Clone, Copy, Default)]
pub(crate) struct AttrChange {
    /// Permissions; the type bits stay.
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) atime: Option<Timestamp>,
    pub(crate) mtime: Option<Timestamp>,
    pub(crate) ctime: Option<Timestamp>,
    /// `FS_*_FL` flags.
    pub(crate) flags: Option<u32>,
}

/// What the filesystem changes and the VFS only shows.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) nlink: u32,
    pub(crate) ctime: Timestamp,
    /// For directories.
    pub(crate) mtime: Timestamp,
    /// For directories.
    pub(crate) size: u64,
}

/// The times of a VFS inode.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) atime: Timestamp,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
}

impl<T: FileSystem> Inode<T> {
    /// Makes a reference from the C side's pointer.
    ///
    /// # Safety
    ///
    /// `ptr` is an inode of a superblock of `T`, its data is set, and it is not evicted during `'a`. The
    /// VFS's callbacks get such inodes, except those for inodes that are new (see [`NewInode`]) or being
    /// evicted (see [`Evicting`]).
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::inode) -> &'a Self {
        // SAFETY: All inodes of `T` are made by `alloc_inode`, with `vfs` as the first field. The
        // caller promises the rest.
        unsafe { &*ptr.cast::<Self>() }
    }

    /// A reference that is counted.
    pub(crate) fn hold(&self) -> InodeRef<'_, T> {
        // SAFETY: Whoever has a reference holds a count, so it is not zero.
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
        // SAFETY: As in `mode`.
        unsafe { ptr::addr_of!((*self.as_ptr()).__bindgen_anon_1.__i_nlink).read_volatile() }
    }

    /// Owner and group, as stored on disk.
    pub(crate) fn owner(&self) -> (u32, u32) {
        // SAFETY: The inode is valid.
        unsafe {
            (
                bindings::ordofs_inode_uid(self.as_ptr()),
                bindings::ordofs_inode_gid(self.as_ptr()),
            )
        }
    }

    /// `i_size`.
    pub(crate) fn size(&self) -> u64 {
        // SAFETY: The inode is valid.
        let size = unsafe { bindings::ordofs_i_size_read(self.as_ptr()) };
        u64::try_from(size).unwrap_or(0)
    }

    /// The caller holds `i_rwsem` exclusively: lockdep, where it is there, knows.
    pub(in crate::vfs) fn assert_locked(&self) {
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: The inode is valid.
            unsafe { bindings::ordofs_inode_assert_locked(self.as_ptr()) };
        }
    }

    /// The caller holds `i_rwsem` at least shared.
    pub(in crate::vfs) fn assert_shared(&self) {
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: The inode is valid.
            unsafe { bindings::ordofs_inode_assert_shared(self.as_ptr()) };
        }
    }

    /// R3: the caller holds the invalidate lock exclusively.
    pub(in crate::vfs) fn assert_layout_locked(&self) {
        // The mutant of R3 takes no such lock.
        if cfg!(all(CONFIG_LOCKDEP, not(ordofs_mutant_r3))) {
            // SAFETY: The inode is valid.
            unsafe { bindings::ordofs_layout_assert_locked(self.as_ptr()) };
        }
    }

    fn store_size(&self, size: u64) {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        // SAFETY: The inode is valid. 64-bit sizes are written in one piece.
        unsafe { bindings::ordofs_i_size_write(self.as_ptr(), size) };
    }

    /// The times that the VFS has.
    pub(crate) fn times(&self) -> Times {
        let (mut a, mut m, mut c) = (
            MaybeUninit::<bindings::timespec64>::uninit(),
            MaybeUninit::<bindings::timespec64>::uninit(),
            MaybeUninit::<bindings::timespec64>::uninit(),
        );
        // SAFETY: The inode is valid, the pointers are valid for writes.
        unsafe {
            bindings::ordofs_inode_times(
                self.as_ptr(),
                a.as_mut_ptr(),
                m.as_mut_ptr(),
                c.as_mut_ptr(),
            );
        }
        let time = |t: bindings::timespec64| Timestamp {
            sec: t.tv_sec,
            nsec: t.tv_nsec as u32,
        };
        // SAFETY: The call has written all three.
        let (a, m, c) = unsafe { (a.assume_init(), m.assume_init(), c.assume_init()) };
        Times {
            atime: time(a),
            mtime: time(m),
            ctime: time(c),
        }
    }

    /// Tells the VFS that it has times that the filesystem does not have yet.
    pub(crate) fn mark_dirty(&self) {
        // SAFETY: The inode is valid.
        unsafe { bindings::ordofs_mark_inode_dirty(self.as_ptr()) };
    }

    /// Copies what operations change in the filesystem into the VFS inode: number of names and ctime; of
    /// directories also size and mtime. Other times stay: the VFS's are the newer ones.
    pub(crate) fn refresh(&self) {
        let ptr = self.as_ptr();
        let dir = self.is_dir();
        T::show(
            self.data(),
            &|| Some(self.times().ctime),
            // SAFETY: The inode is valid. This runs in the critical section that all copies of these
            // attributes run in.
            &mut |attrs| unsafe {
                if self.nlink() != attrs.nlink {
                    bindings::set_nlink(ptr, attrs.nlink);
                }
                bindings::ordofs_inode_set_ctime(ptr, attrs.ctime.sec, attrs.ctime.nsec);
                if dir {
                    bindings::ordofs_inode_set_mtime(ptr, attrs.mtime.sec, attrs.mtime.nsec);
                    self.store_size(attrs.size);
                }
            },
        );
    }

    /// Sets all attributes of a new inode.
    ///
    /// # Safety
    ///
    /// The inode is new and `data` is set.
    unsafe fn init_attrs(&self, attrs: &Attrs) {
        let ptr = self.as_ptr();
        // SAFETY: The inode is new, so it is ours alone.
        unsafe {
            (*ptr).i_mode = attrs.mode as u16;
            bindings::set_nlink(ptr, attrs.nlink);
            bindings::ordofs_inode_set_owner(ptr, attrs.uid, attrs.gid);
            (*ptr).i_generation = attrs.generation;
            (*ptr).i_blocks = attrs.sectors;
            bindings::ordofs_inode_set_atime(ptr, attrs.atime.sec, attrs.atime.nsec);
            bindings::ordofs_inode_set_mtime(ptr, attrs.mtime.sec, attrs.mtime.nsec);
        }
        self.store_size(attrs.size);
        self.apply_flags(attrs.flags);
        T::show(
            self.data(),
            &|| None,
            // SAFETY: As above.
            &mut |shown| unsafe {
                bindings::ordofs_inode_set_ctime(ptr, shown.ctime.sec, shown.ctime.nsec);
            },
        );
    }
}

impl<T: FileData> Inode<T> {
    /// Finds an inode by its number.
    pub(crate) fn get(sb: &SuperBlock<T>, ino: u64) -> Result<InodeRef<'_, T>> {
        Self::get_or_init(sb, ino, || {
            let data = T::read_inode(sb, ino)?;
            if T::attrs(&data).nlink == 0 {
                // Deleted, and not for handles to bring back.
                T::evict(sb, data, false);
                return Err(ESTALE);
            }
            Ok(data)
        })
    }

    fn get_or_init(
        sb: &SuperBlock<T>,
        ino: u64,
        make: impl FnOnce() -> Result<T::InodeData>,
    ) -> Result<InodeRef<'_, T>> {
        // SAFETY: The superblock is valid; sleeping is allowed here.
        let raw = unsafe { bindings::iget_locked(sb.as_ptr(), ino) };
        let ptr = NonNull::new(raw.cast::<Self>()).ok_or(ENOMEM)?;
        // SAFETY: `iget_locked` returned a valid inode.
        if unsafe { bindings::ordofs_inode_is_new(raw) } {
            // INVARIANT: The inode was made by our `alloc_inode`, with a reference for us, and it is
            // this task that has to fill it.
            return NewInode { ptr, sb }.complete(make);
        }
        // SAFETY: The reference that `iget_locked` returned goes to the result. Data is set: an inode
        // that another task failed to read is bad and unhashed before others get it from the hash, and
        // `iget_locked` looks again then.
        Ok(unsafe { InodeRef::from_raw(ptr) })
    }

    /// Sets the operations that go with the type.
    ///
    /// # Safety
    ///
    /// The inode is new, and `data`, `link` and the attributes are set.
    unsafe fn init_ops(&self, attrs: &Attrs) {
        let ptr = self.as_ptr();
        // SAFETY: The inode is new, so it is ours alone.
        unsafe {
            match attrs.mode & S_IFMT {
                S_IFREG => {
                    (*ptr).i_op = crate::vfs::table::setattr::regular_ops::<T>();
                    crate::vfs::traits::file_data::init_regular::<T>(ptr);
                }
                S_IFDIR => {
                    (*ptr).i_op = crate::vfs::table::namei::dir_inode_ops::<T>();
                    (*ptr).__bindgen_anon_3.i_fop = crate::vfs::table::dir::dir_file_ops::<T>();
                }
                S_IFLNK => {
                    (*ptr).i_op = crate::vfs::table::setattr::symlink_ops::<T>();
                    // INVARIANT: The pointer is into `link`, whose memory does not move.
                    (*ptr).__bindgen_anon_5.i_link = match &*self.link.get() {
                        Some(target) => target.as_ptr().cast_mut().cast(),
                        None => ptr::null_mut(),
                    };
                }
                _ => {
                    (*ptr).i_op = crate::vfs::table::setattr::special_ops::<T>();
                    bindings::ordofs_init_special_inode(ptr, attrs.mode as u16, attrs.rdev);
                }
            }
        }
    }

    /// Initialises the Rust part of a newly allocated inode.
    ///
    /// # Safety
    ///
    /// `ptr` is memory of the slab cache for inodes of `T` that nobody else knows.
    pub(crate) unsafe fn init_allocated(ptr: *mut Self) {
        // SAFETY: The memory is valid and ours.
        unsafe {
            ptr::addr_of_mut!((*ptr).data).write(UnsafeCell::new(None));
            ptr::addr_of_mut!((*ptr).link).write(UnsafeCell::new(None));
            ptr::addr_of_mut!((*ptr).writable).write(AtomicBool::new(false));
        }
    }

    /// Drops the Rust part before the memory is freed.
    ///
    /// # Safety
    ///
    /// `ptr` was initialised by `init_allocated`, and nobody can use the inode any more.
    pub(crate) unsafe fn drop_allocated(ptr: *mut Self) {
        // SAFETY: As the caller promises; `data` is gone since eviction.
        unsafe {
            ptr::drop_in_place(ptr::addr_of_mut!((*ptr).data));
            ptr::drop_in_place(ptr::addr_of_mut!((*ptr).link));
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
pub(crate) struct InodeRef<'a, T: FileSystem> {
    ptr: NonNull<Inode<T>>,
    _sb: PhantomData<&'a SuperBlock<T>>,
}

impl<T: FileSystem> InodeRef<'_, T> {
    /// # Safety
    ///
    /// `ptr` is an inode of the superblock that the result borrows, its data is set, and the caller gives
    /// one of its references to the result.
    unsafe fn from_raw(ptr: NonNull<Inode<T>>) -> Self {
        // INVARIANT: The caller's promise.
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

impl<T: FileSystem> Deref for InodeRef<'_, T> {
    type Target = Inode<T>;

    fn deref(&self) -> &Inode<T> {
        // SAFETY: By the type invariants the inode is valid as long as `self` is there.
        unsafe { self.ptr.as_ref() }
    }
}

impl<T: FileSystem> Drop for InodeRef<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours to give up; `vfs` is the first field.
        unsafe { bindings::iput(self.ptr.as_ptr().cast()) };
    }
}

/// An inode that is new (`I_NEW`) and has no data yet. Dropping it makes the inode bad, and wakes those who
/// wait for it.
///
/// # Invariants
///
/// `ptr` is an inode of `sb` that is new; this task has to fill it, and owns one reference to it.
pub(in crate::vfs) struct NewInode<'a, T: FileSystem> {
    ptr: NonNull<Inode<T>>,
    sb: &'a SuperBlock<T>,
}

impl<'a, T: FileData> NewInode<'a, T> {
    /// Begins to make a node that the filesystem does not have yet. Look-ups by its number wait.
    pub(in crate::vfs) fn begin(sb: &'a SuperBlock<T>, node: &NewNode<'_>) -> Result<Self> {
        // SAFETY: The superblock is valid; sleeping is allowed here.
        let raw = unsafe { bindings::iget_locked(sb.as_ptr(), node.id.ino) };
        let ptr = NonNull::new(raw.cast::<Inode<T>>()).ok_or(ENOMEM)?;
        // SAFETY: `iget_locked` returned a valid inode.
        if !unsafe { bindings::ordofs_inode_is_new(raw) } {
            // The filesystem gives out no number that is in use.
            // SAFETY: The reference is ours.
            unsafe { bindings::iput(raw) };
            return Err(EIO);
        }
        // INVARIANT: As in `get_or_init`.
        let new = Self { ptr, sb };
        // SAFETY: The inode is new, so nobody else looks at the field.
        unsafe { (*raw).i_mode = node.mode as u16 };
        // SAFETY: As above.
        unsafe { (*raw).i_generation = node.id.generation };
        // SAFETY: As above.
        unsafe { bindings::ordofs_inode_set_owner(raw, node.uid, node.gid) };
        Ok(new)
    }

    /// The C side's pointer.
    pub(in crate::vfs) fn as_ptr(&self) -> *mut bindings::inode {
        self.ptr.as_ptr().cast()
    }

    /// Fills the inode with what `make` returns, and lets others use it.
    fn complete(self, make: impl FnOnce() -> Result<T::InodeData>) -> Result<InodeRef<'a, T>> {
        let data = make()?;
        let link = match T::attrs(&data).mode & S_IFMT {
            S_IFLNK => match Self::link(self.sb, &data) {
                Ok(target) => Some(target),
                Err(e) => {
                    T::evict(self.sb, data, false);
                    return Err(e);
                }
            },
            _ => None,
        };
        let this = ManuallyDrop::new(self);
        this.fill(data, link);
        // INVARIANT: `data` is set; from here on others may use the inode.
        // SAFETY: The inode is new and complete.
        unsafe { bindings::unlock_new_inode(this.as_ptr()) };
        // SAFETY: The reference goes from `self`, which is not dropped, to the result.
        Ok(unsafe { InodeRef::from_raw(this.ptr) })
    }

    /// Fills the inode, gives it to `dentry`, and lets others use it.
    ///
    /// # Safety
    ///
    /// `dentry` is negative and the caller's to instantiate.
    pub(in crate::vfs) unsafe fn instantiate(
        self,
        data: T::InodeData,
        link: Option<KVec<u8>>,
        dentry: *mut bindings::dentry,
    ) {
        let this = ManuallyDrop::new(self);
        this.fill(data, link);
        // INVARIANT: `data` is set; from here on others may use the inode.
        // SAFETY: The inode is new and complete; the reference goes from `self`, which is not dropped, to
        // the dentry, of which the caller promises the rest.
        unsafe { bindings::d_instantiate_new(dentry, this.as_ptr()) };
    }

    /// Gives the inode its data, attributes and operations. `link` is the target of a symbolic link, with a
    /// zero byte after it.
    fn fill(&self, data: T::InodeData, link: Option<KVec<u8>>) {
        let attrs = T::attrs(&data);
        let ptr = self.ptr.as_ptr();
        // SAFETY: By the type invariants nobody else looks at the field.
        unsafe { *UnsafeCell::raw_get(&raw const (*ptr).data) = Some(data) };
        // SAFETY: By the type invariants nobody else looks at the field.
        unsafe { *UnsafeCell::raw_get(&raw const (*ptr).link) = link };
        // SAFETY: The data is set, and the reference keeps the inode.
        let inode = unsafe { Inode::<T>::from_raw(ptr.cast()) };
        // SAFETY: The inode is new, and its data is set.
        unsafe { inode.init_attrs(&attrs) };
        // SAFETY: The inode is new; data, link and attributes are set.
        unsafe { inode.init_ops(&attrs) };
    }

    /// The target of a symbolic link, with a zero byte after it.
    fn link(sb: &SuperBlock<T>, data: &T::InodeData) -> Result<KVec<u8>> {
        let mut target = T::read_link(sb, data)?;
        target.push(0, GFP_KERNEL)?;
        Ok(target)
    }
}

impl<T: FileSystem> Drop for NewInode<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the inode is new and the reference is ours. This makes the inode
        // bad, unlocks it and drops the reference.
        unsafe { bindings::iget_failed(self.ptr.as_ptr().cast()) };
    }
}

/// An inode that the VFS is evicting. It may have no data, if reading it failed.
///
/// # Invariants
///
/// `ptr` is an inode of `T` in `evict_inode`: nobody else uses it, except path walks under RCU, which do
/// not look at `data`.
pub(in crate::vfs) struct Evicting<T: FileData> {
    ptr: NonNull<Inode<T>>,
}

impl<T: FileData> Evicting<T> {
    /// # Safety
    ///
    /// `ptr` is an inode of `T` that the VFS passed to `evict_inode`, and the result does not outlive the
    /// callback.
    pub(in crate::vfs) unsafe fn from_raw(ptr: *mut bindings::inode) -> Self {
        // INVARIANT: The caller's promise.
        Self {
            // SAFETY: The VFS passes no null pointers.
            ptr: unsafe { NonNull::new_unchecked(ptr.cast()) },
        }
    }

    /// The inode, if it has data.
    fn inode(&self) -> Option<&Inode<T>> {
        // SAFETY: By the type invariants nobody changes the field meanwhile.
        let data = unsafe { &*UnsafeCell::raw_get(&raw const (*self.ptr.as_ptr()).data) };
        data.is_some()
            // SAFETY: The data is set, and stays while the result borrows `self`.
            .then(|| unsafe { Inode::from_raw(self.ptr.as_ptr().cast()) })
    }

    /// What `evict_inode` has to do, in the VFS's order: first the pages, then the inode's own state, then
    /// the filesystem's part.
    pub(in crate::vfs) fn run(self) {
        let raw: *mut bindings::inode = self.ptr.as_ptr().cast();
        if let Some(inode) = self.inode() {
            T::evicting(inode);
        }
        // SAFETY: The inode is valid, and this is the place for it.
        unsafe { bindings::truncate_inode_pages_final(ptr::addr_of_mut!((*raw).i_data)) };
        // SAFETY: The inode is valid, and its pages are gone.
        unsafe { bindings::clear_inode(raw) };
        let Some(deleted) = self.inode().map(|inode| inode.nlink() == 0) else {
            return;
        };
        // SAFETY: By the type invariants the field is ours.
        let data = unsafe { (*UnsafeCell::raw_get(&raw const (*self.ptr.as_ptr()).data)).take() };
        // SAFETY: `i_sb` never changes, and a superblock outlives its inodes.
        let sb = unsafe { SuperBlock::<T>::from_raw((*raw).i_sb) };
        let Some(data) = data else { return };
        if !deleted {
            T::evict(sb, data, false);
            return;
        }
        // Deleting writes; wait while the filesystem is frozen.
        // SAFETY: The superblock is valid.
        unsafe { bindings::ordofs_sb_start_intwrite(sb.as_ptr()) };
        T::evict(sb, data, true);
        // SAFETY: Taken above.
        unsafe { bindings::ordofs_sb_end_intwrite(sb.as_ptr()) };
    }
}

/// An inode whose `i_rwsem` the current task holds exclusively.
///
/// # Invariants
///
/// The current task holds `i_rwsem` exclusively for `'a`.
pub(crate) struct Locked<'a, T: FileSystem> {
    inode: &'a Inode<T>,
    // Another task does not hold the lock.
    _not_send: NotThreadSafe,
}

impl<'a, T: FileSystem> Locked<'a, T> {
    /// # Safety
    ///
    /// The current task holds `i_rwsem` of the inode exclusively during `'a`.
    pub(crate) unsafe fn new(inode: &'a Inode<T>) -> Self {
        inode.assert_locked();
        // INVARIANT: The caller's promise.
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

impl<T: FileSystem> Deref for Locked<'_, T> {
    type Target = Inode<T>;

    fn deref(&self) -> &Inode<T> {
        self.inode
    }
}
