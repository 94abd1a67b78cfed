// SPDX-License-Identifier: GPL-2.0

//! The superblock's operations.
//!
//! # Locking
//!
//! `s_umount` is held: exclusively for `put_super`, shared or exclusively for `sync_fs`,
//! `freeze_fs`, `statfs` and the shrinker's scan. The shrinker's count holds nothing: the shrinker
//! is unregistered before a superblock is shut down, and does not call before it is born.
//!
//! Tests: tests/vm/t/021-mount.sh, 023-unload.sh, 024-device-cache.sh, 091-reclaim.sh (the
//! shrinker).

use core::{fmt, marker::PhantomData, ptr};
use kernel::{
    error::from_result,
    prelude::*,
    seq_file::SeqFile, //
};

use super::evict::Evicting;
use crate::bindings;
use crate::vfs::ioend::operations::IoendOperations;
use crate::vfs::object::fs_type::FsType;
use crate::vfs::object::inode::Inode;
use crate::vfs::object::super_block::{Mounted, SuperBlock};
use crate::vfs::object::types::Types;
use crate::vfs::traits::inode::InodeOperations;
use crate::vfs::traits::super_block::{SuperOperations, SyncUntil};

struct Tables<T>(PhantomData<T>);

impl<T: SuperOperations + InodeOperations + IoendOperations> Tables<T> {
    const SUPER: &'static bindings::super_operations = &{
        // The superblock's shrinker calls the one if the other has found something, without a look at the slot.
        assert!(
            <T as SuperOperations>::HAS_SHRINK_COUNT == <T as SuperOperations>::HAS_SHRINK_SCAN
        );
        Self::OPERATIONS
    };
    const OPERATIONS: bindings::super_operations = bindings::super_operations {
        alloc_inode: Some(alloc_inode::<T>),
        free_inode: Some(free_inode::<T>),
        write_inode: Some(write_inode::<T>),
        evict_inode: Some(evict_inode::<T>),
        put_super: Some(put_super::<T>),
        sync_fs: Some(sync_fs::<T>),
        freeze_fs: if_has!(<T as SuperOperations>::HAS_FREEZE, freeze_fs::<T>),
        unfreeze_fs: if_has!(<T as SuperOperations>::HAS_UNFREEZE, unfreeze_fs::<T>),
        statfs: Some(statfs::<T>),
        show_options: if_has!(<T as SuperOperations>::HAS_SHOW_OPTIONS, show_options::<T>),
        nr_cached_objects: if_has!(
            <T as SuperOperations>::HAS_SHRINK_COUNT,
            nr_cached_objects::<T>
        ),
        free_cached_objects: if_has!(
            <T as SuperOperations>::HAS_SHRINK_SCAN,
            free_cached_objects::<T>
        ),
        shutdown: Some(shutdown::<T>),
        ..pin_init::zeroed()
    };
}

/// Operations of superblocks.
pub(in crate::vfs) fn super_ops<T: SuperOperations + InodeOperations + IoendOperations>(
) -> *const bindings::super_operations {
    Tables::<T>::SUPER
}

/// `alloc_inode`.
///
/// # Safety
///
/// As the VFS calls it, for a superblock of `T` whose slab cache is there.
unsafe extern "C" fn alloc_inode<T: Types>(sb: *mut bindings::super_block) -> *mut bindings::inode {
    // SAFETY: The VFS passes a superblock, whose type does not change.
    let fs_type = unsafe { (*sb).s_type };
    // SAFETY: The superblock is one of `T`, and keeps the module, and with that its type.
    let fs_type = unsafe { FsType::<T>::from_raw(fs_type) };
    // SAFETY: The cache is one of `Inode<T>`, with a `struct inode` in front, on which `inode_init_once` has run.
    let inode = unsafe { bindings::ordofs_inode_alloc(sb, fs_type.inode_cache()) };
    let inode = inode.cast::<Inode<T>>();
    if !inode.is_null() {
        // SAFETY: Memory of the cache that was just allocated, and that no other task knows.
        unsafe { Inode::init_allocated(inode) };
    }
    inode.cast()
}

/// `free_inode`: called after a grace period of RCU, path walks are over. The superblock may be gone.
///
/// # Safety
///
/// `inode` comes from [`alloc_inode`] of the same `T`, and no task uses it any more.
unsafe extern "C" fn free_inode<T: Types>(inode: *mut bindings::inode) {
    let inode = inode.cast::<Inode<T>>();
    // SAFETY: The VFS is done with the inode, which `alloc_inode` made.
    unsafe { Inode::drop_allocated(inode) };
    // SAFETY: The memory comes from a slab cache, and no task uses it. `kfree` frees such objects, too, and needs no
    // pointer to the cache.
    unsafe { bindings::kfree(inode.cast()) };
}

/// `write_inode`.
///
/// # Safety
///
/// As writeback calls it, for an inode of `T` that is neither new nor being freed.
unsafe extern "C" fn write_inode<T: InodeOperations>(
    inode: *mut bindings::inode,
    _wbc: *mut bindings::writeback_control,
) -> c_int {
    from_result(|| {
        // SAFETY: Writeback passes inodes that are not new and not being freed.
        let inode = unsafe { Inode::<T>::from_raw(inode) };
        T::push_times(inode, &|| inode.times()).inspect_err(|e| {
            if *e == ENOMEM || *e == ENOSPC {
                // The VFS takes the inode for clean by now: what may succeed later is tried again.
                inode.mark_dirty();
            }
        })?;
        Ok(0)
    })
}

/// `evict_inode`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of `T` that is being freed and has no users.
unsafe extern "C" fn evict_inode<T: InodeOperations>(inode: *mut bindings::inode) {
    // SAFETY: The VFS passes an inode of `T` that it evicts; this is used up before we return.
    unsafe { Evicting::<T>::from_raw(inode) }.run();
}

/// Which side of `s_umount` is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::vfs) enum Umount {
    /// Either.
    Any,
    /// The exclusive one.
    Exclusive,
}

/// `s_umount` is held: lockdep, where it is there, knows.
///
/// # Safety
///
/// `sb` is valid.
pub(in crate::vfs) unsafe fn assert_locked(sb: *mut bindings::super_block, side: Umount) {
    if cfg!(CONFIG_LOCKDEP) {
        // SAFETY: By this function's contract the superblock, and with it the lock, is valid.
        unsafe { bindings::ordofs_sb_assert_locked(sb, side == Umount::Exclusive) };
    }
}

/// `put_super`.
///
/// # Safety
///
/// As the VFS calls it at the end of a mount: `sb` is a superblock of `T` without inodes, `s_umount` is held
/// exclusively.
unsafe extern "C" fn put_super<T: SuperOperations + IoendOperations>(
    sb: *mut bindings::super_block,
) {
    // SAFETY: The VFS passes a superblock that was mounted.
    unsafe { assert_locked(sb, Umount::Exclusive) };
    // SAFETY: The VFS calls this once, after the last inode is gone, and nothing later.
    unsafe { stop::<T>(sb) };
}

/// The superblock is about to be shut down. Its shrinker is gone already: what is left to be written may
/// need the memory of what is cached.
///
/// # Safety
///
/// `sb` is a superblock of `T`, in `kill_sb`.
pub(in crate::vfs) unsafe fn dying<T: SuperOperations>(sb: *mut bindings::super_block) {
    // SAFETY: Only `fill_super` and `stop` change the field, both in this task. By the superblock's invariants
    // it is null or valid until `stop`.
    if let Some(mounted) = unsafe { (*sb).s_fs_info.cast::<Mounted<T>>().as_ref() } {
        mounted.fs().stop_caching();
    }
}

/// Stops and frees the filesystem behind a superblock, if there is one.
///
/// # Safety
///
/// `sb` is a superblock of `T` without inodes, and nothing of the VFS calls into it at this time or
/// later.
pub(in crate::vfs) unsafe fn stop<T: SuperOperations + IoendOperations>(
    sb: *mut bindings::super_block,
) {
    // SAFETY: By this function's contract no other task changes the field.
    let raw = unsafe { (*sb).s_fs_info }.cast::<Mounted<T>>();
    // SAFETY: By the superblock's invariants this is null or valid until we free it below.
    if let Some(mounted) = unsafe { raw.as_ref() } {
        mounted.hide();
        mounted.fs().hidden();
        mounted.fs().io().flush();
        mounted.fs().unmount();
    }
    // We wrote past the device's page cache, and as long as another program (udev) has it open, what is cached there
    // stays: fsck would see the disk as it was before (as in XFS).
    // SAFETY: The device is open until the superblock is gone.
    unsafe { bindings::invalidate_bdev((*sb).s_bdev) };
    if raw.is_null() {
        return;
    }
    // SAFETY: By the superblock's invariants this comes from `KBox::into_raw`; completions of I/O have
    // been waited for, so that there are no users any more.
    drop(unsafe { KBox::from_raw(raw) });
    // SAFETY: By this function's contract no other task looks at the field.
    unsafe { (*sb).s_fs_info = ptr::null_mut() };
}

/// `sync_fs`.
///
/// # Safety
///
/// As the VFS calls it, for a mounted superblock of `T`, with `s_umount` held.
unsafe extern "C" fn sync_fs<T: SuperOperations>(
    sb: *mut bindings::super_block,
    wait: c_int,
) -> c_int {
    // SAFETY: The VFS passes a mounted superblock.
    unsafe { assert_locked(sb, Umount::Any) };
    let until = if wait != 0 {
        SyncUntil::Durable
    } else {
        SyncUntil::Started
    };
    from_result(|| {
        // SAFETY: The VFS passes a mounted superblock.
        unsafe { SuperBlock::<T>::from_raw(sb) }.fs().sync(until)?;
        Ok(0)
    })
}

/// `freeze_fs`.
///
/// # Safety
///
/// As for [`sync_fs`], with `s_umount` held exclusively.
unsafe extern "C" fn freeze_fs<T: SuperOperations>(sb: *mut bindings::super_block) -> c_int {
    // SAFETY: The VFS passes a mounted superblock.
    unsafe { assert_locked(sb, Umount::Exclusive) };
    from_result(|| {
        // SAFETY: The VFS passes a mounted superblock.
        unsafe { SuperBlock::<T>::from_raw(sb) }.fs().freeze()?;
        Ok(0)
    })
}

/// `unfreeze_fs`.
///
/// # Safety
///
/// As for [`freeze_fs`].
unsafe extern "C" fn unfreeze_fs<T: SuperOperations>(sb: *mut bindings::super_block) -> c_int {
    // SAFETY: The VFS passes a mounted superblock.
    unsafe { assert_locked(sb, Umount::Exclusive) };
    from_result(|| {
        // SAFETY: The VFS passes a mounted superblock.
        unsafe { SuperBlock::<T>::from_raw(sb) }.fs().unfreeze()?;
        Ok(0)
    })
}

/// `statfs`.
///
/// # Safety
///
/// `dentry` is of a mounted superblock of `T`; `buf` is the caller's.
unsafe extern "C" fn statfs<T: SuperOperations>(
    dentry: *mut bindings::dentry,
    buf: *mut bindings::kstatfs,
) -> c_int {
    // SAFETY: The VFS passes a dentry of a mounted superblock of `T`.
    let fs = unsafe { SuperBlock::<T>::from_raw((*dentry).d_sb) }.fs();
    let stat = fs.statfs();
    let uuid = u128::from_le_bytes(fs.uuid());
    let folded = (uuid as u64) ^ ((uuid >> 64) as u64);
    // SAFETY: The VFS passes a buffer that is this call's to fill.
    let buf = unsafe { &mut *buf };
    buf.f_type = T::MAGIC as c_long;
    buf.f_bsize = T::BLOCK_SIZE as c_long;
    buf.f_frsize = T::BLOCK_SIZE as c_long;
    buf.f_blocks = stat.blocks;
    buf.f_bfree = stat.bfree;
    buf.f_bavail = stat.bavail;
    buf.f_files = stat.files;
    buf.f_ffree = stat.ffree;
    buf.f_namelen = bindings::NAME_MAX as c_long;
    buf.f_fsid.val = [folded as i32, (folded >> 32) as i32];
    0
}

/// Text that goes to a `seq_file`, which grows its buffer and calls again if it was too small.
struct SeqWriter<'a>(&'a SeqFile);

impl fmt::Write for SeqWriter<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0.call_printf(kernel::prelude::fmt!("{s}"));
        Ok(())
    }
}

/// `show_options`.
///
/// # Safety
///
/// `root` is the root of a mounted superblock of `T`; `seq` is open and the caller's.
unsafe extern "C" fn show_options<T: SuperOperations>(
    seq: *mut bindings::seq_file,
    root: *mut bindings::dentry,
) -> c_int {
    // SAFETY: The VFS passes the root dentry of a mounted superblock.
    let fs = unsafe { SuperBlock::<T>::from_raw((*root).d_sb) }.fs();
    // SAFETY: The VFS passes a file that stays open during the call.
    let seq = unsafe { SeqFile::from_raw(seq.cast()) };
    match fs.show_options(&mut SeqWriter(seq)) {
        Ok(()) => 0,
        Err(_) => EIO.to_errno(),
    }
}

/// `nr_cached_objects`.
///
/// # Safety
///
/// As the superblock's shrinker calls it: `sb` is born, of `T`, and does not die meanwhile.
unsafe extern "C" fn nr_cached_objects<T: SuperOperations>(
    sb: *mut bindings::super_block,
    sc: *mut bindings::shrink_control,
) -> c_long {
    // These caches are charged to no control group: one at its limit gains nothing by them.
    // SAFETY: `sc` is valid during the call.
    if !unsafe { bindings::ordofs_shrink_is_global(sc) } {
        return 0;
    }
    // SAFETY: The superblock is born and its shrinker registered, so the filesystem is there.
    let count = unsafe { SuperBlock::<T>::from_raw(sb) }.fs().shrink_count();
    c_long::try_from(count).unwrap_or(c_long::MAX)
}

/// `free_cached_objects`.
///
/// # Safety
///
/// As for [`nr_cached_objects`]; `sc` is valid.
unsafe extern "C" fn free_cached_objects<T: SuperOperations>(
    sb: *mut bindings::super_block,
    sc: *mut bindings::shrink_control,
) -> c_long {
    // SAFETY: The superblock is born and its shrinker registered, so the filesystem is there.
    let fs = unsafe { SuperBlock::<T>::from_raw(sb) }.fs();
    // SAFETY: `sc` is valid during the call.
    let n = unsafe { (*sc).nr_to_scan };
    c_long::try_from(fs.shrink_scan(n as u64)).unwrap_or(c_long::MAX)
}

/// `shutdown`: the device is gone.
///
/// # Safety
///
/// As the block layer's holder operations call it, for a mounted superblock of `T`.
unsafe extern "C" fn shutdown<T: SuperOperations>(sb: *mut bindings::super_block) {
    // SAFETY: The block layer passes a mounted superblock whose device is gone.
    unsafe { SuperBlock::<T>::from_raw(sb) }.fs().shutdown();
}
