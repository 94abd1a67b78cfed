// SPDX-License-Identifier: GPL-2.0

//! ioctls of files and directories.
//!
//! Tests: tests/vm/t/021-mount.sh, 069-trim.sh, 027-after-shutdown.sh, 028-compat.sh, 031-handles.sh.

use kernel::{
    error::to_result,
    prelude::*,
    uaccess::{UserPtr, UserSlice},
};

use crate::bindings;
use crate::vfs::object::super_block::SuperBlock;
use crate::vfs::traits::super_block::{
    FsTrimRange,
    Ioctl,
    SuperOperations,
    SyncUntil,
    WriteCall,
    FSLABEL_MAX, //
};

/// `_IOR('X', 125, __u32)`: stop the filesystem at once.
const FS_IOC_SHUTDOWN: c_uint = 0x8004_587d;

/// `_IOR('v', 1, long)`: the inode's generation.
const FS_IOC_GETVERSION: c_uint = 0x8008_7601;
/// The same for 32-bit programs.
const FS_IOC32_GETVERSION: c_uint = 0x8004_7601;

/// `_IOR(0x94, 49, char[FSLABEL_MAX])`: the label.
const FS_IOC_GETFSLABEL: c_uint = 0x8100_9431;
/// `_IOW(0x94, 50, char[FSLABEL_MAX])`: changes the label.
const FS_IOC_SETFSLABEL: c_uint = 0x4100_9432;

/// `_IOWR('X', 121, struct fstrim_range)`: discards what is free.
const FITRIM: c_uint = 0xc018_5879;
/// Bytes of a `struct fstrim_range`: three u64, the same for 32-bit programs.
const FSTRIM_RANGE_LEN: usize = 24;

/// `compat_ioctl`.
type CompatIoctl = unsafe extern "C" fn(*mut bindings::file, c_uint, c_ulong) -> c_long;

/// 32-bit programs pass the same structures; only their pointers are narrower.
#[cfg(CONFIG_COMPAT)]
pub(in crate::vfs) const COMPAT: Option<CompatIoctl> = Some(bindings::compat_ptr_ioctl);
/// There are no 32-bit programs.
#[cfg(not(CONFIG_COMPAT))]
pub(in crate::vfs) const COMPAT: Option<CompatIoctl> = None;

/// `unlocked_ioctl`.
///
/// # Safety
///
/// As the VFS calls it, for an open file of a superblock of `T`.
pub(crate) unsafe extern "C" fn ioctl<T: SuperOperations>(
    file: *mut bindings::file,
    cmd: c_uint,
    arg: c_ulong,
) -> c_long {
    // SAFETY: The open file keeps its inode.
    let inode = unsafe { (*file).f_inode };
    let result = match cmd {
        FS_IOC_SHUTDOWN => {
            // SAFETY: The open file keeps the superblock, which is one of `T`, mounted.
            let sb = unsafe { SuperBlock::<T>::from_raw((*inode).i_sb) };
            shutdown(sb, arg)
        }
        FS_IOC_GETFSLABEL => {
            // SAFETY: The open file keeps the superblock, which is one of `T`, mounted.
            let sb = unsafe { SuperBlock::<T>::from_raw((*inode).i_sb) };
            let label = sb.fs().label();
            label.and_then(|label| user(arg, FSLABEL_MAX).writer().write_slice(&label))
        }
        FS_IOC_SETFSLABEL => {
            // SAFETY: The open file keeps the superblock, which is one of `T`, mounted.
            let sb = unsafe { SuperBlock::<T>::from_raw((*inode).i_sb) };
            // SAFETY: The VFS passes a file that is open for the whole call.
            unsafe { set_label(sb, file, arg) }
        }
        FITRIM => {
            // SAFETY: The open file keeps the superblock, which is one of `T`, mounted.
            let sb = unsafe { SuperBlock::<T>::from_raw((*inode).i_sb) };
            // SAFETY: The VFS passes a file that is open for the whole call, and calls with no lock
            // held.
            trim(sb, unsafe { &WriteCall::new(file) }, arg)
        }
        FS_IOC_GETVERSION | FS_IOC32_GETVERSION => {
            // SAFETY: The open file keeps its inode, whose generation does not change.
            let generation = unsafe { (*inode).i_generation };
            // SAFETY: No requirements: the copy checks the address.
            to_result(unsafe { bindings::ordofs_put_user_u32(generation, arg) })
        }
        _ => {
            // SAFETY: The open file keeps the superblock, which is one of `T`, mounted.
            let sb = unsafe { SuperBlock::<T>::from_raw((*inode).i_sb) };
            // SAFETY: The VFS passes a file that is open for the whole call, and calls with no lock
            // held.
            let writer = unsafe { WriteCall::new(file) };
            T::ioctl(sb, &Ioctl { cmd, arg, writer })
        }
    };
    match result {
        Ok(()) => 0,
        Err(e) => e.to_errno() as c_long,
    }
}

/// Memory of the user at an address that came with the call.
fn user(arg: c_ulong, len: usize) -> UserSlice {
    UserSlice::new(UserPtr::from_addr(arg), len)
}

/// Changes the label to what is at the user's address.
///
/// # Safety
///
/// The file must be open, on this superblock, for the whole call.
unsafe fn set_label<T: SuperOperations>(
    sb: &SuperBlock<T>,
    file: *mut bindings::file,
    arg: c_ulong,
) -> Result {
    // SAFETY: Looks at the credentials of the current task, in process context.
    if !unsafe { bindings::ordofs_capable_sys_admin() } {
        return Err(EPERM);
    }
    let mut text = [0; FSLABEL_MAX];
    user(arg, FSLABEL_MAX).reader().read_slice(&mut text)?;
    let end = text.iter().position(|b| *b == 0).ok_or(EINVAL)?;
    text.iter_mut().skip(end).for_each(|b| *b = 0);
    // SAFETY: The file is open for the whole call.
    to_result(unsafe { bindings::mnt_want_write_file(file) })?;
    let result = sb.fs().set_label(&text);
    // SAFETY: The file is open, and write access was taken above.
    unsafe { bindings::mnt_drop_write_file(file) };
    result
}

/// Discards the free blocks of the range at the user's address, and writes there how many bytes these
/// were.
fn trim<T: SuperOperations>(sb: &SuperBlock<T>, call: &WriteCall, arg: c_ulong) -> Result {
    // SAFETY: Looks at the credentials of the current task, in process context.
    if !unsafe { bindings::ordofs_capable_sys_admin() } {
        return Err(EPERM);
    }
    let mut bytes = [0; FSTRIM_RANGE_LEN];
    user(arg, bytes.len()).reader().read_slice(&mut bytes)?;
    let [start, len, min_len] = [0, 8, 16].map(|at| {
        let word = bytes.get(at..).and_then(|b| b.first_chunk());
        u64::from_ne_bytes(word.copied().unwrap_or([0; 8]))
    });
    let mut range = FsTrimRange {
        start,
        len,
        min_len,
    };
    sb.fs().trim(&mut range, call)?;
    let words = [range.start, range.len, range.min_len];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    user(arg, bytes.len()).writer().write_slice(&bytes)
}

fn shutdown<T: SuperOperations>(sb: &SuperBlock<T>, arg: c_ulong) -> Result {
    // SAFETY: Looks at the credentials of the current task, in process context.
    if !unsafe { bindings::ordofs_capable_sys_admin() } {
        return Err(EPERM);
    }
    let mut flags = 0u32;
    // SAFETY: The copy checks the address, and goes to a local.
    to_result(unsafe { bindings::ordofs_get_user_u32(arg, &mut flags) })?;
    match flags {
        // Everything written so far, data included, stays: as if the device were unplugged after a
        // sync.
        bindings::FS_SHUTDOWN_FLAGS_DEFAULT => {
            // SAFETY: The superblock is mounted, and so its device open.
            let bdev = unsafe { (*sb.as_ptr()).s_bdev };
            // SAFETY: The device is open; freezing it freezes the filesystem, which syncs.
            to_result(unsafe { bindings::bdev_freeze(bdev) })?;
            sb.fs().shutdown();
            // SAFETY: The device is open, and frozen by the call above.
            to_result(unsafe { bindings::bdev_thaw(bdev) })
        }
        // What fsync would have made durable stays.
        bindings::FS_SHUTDOWN_FLAGS_LOGFLUSH => {
            let synced = sb.fs().sync(SyncUntil::Durable);
            sb.fs().shutdown();
            synced
        }
        bindings::FS_SHUTDOWN_FLAGS_NOLOGFLUSH => {
            sb.fs().shutdown();
            Ok(())
        }
        _ => Err(EINVAL),
    }
}
