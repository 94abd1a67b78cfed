// SPDX-License-Identifier: GPL-2.0

//! ioctls of files and directories.

use kernel::{error::to_result, prelude::*};

use crate::vfs::SuperBlock;
use crate::{bindings, vfs::traits::file_data::FileData};

/// `_IOR('X', 125, __u32)`: stop the filesystem at once.
const FS_IOC_SHUTDOWN: c_uint = 0x8004_587d;

/// `_IOR('v', 1, long)`: the inode's generation.
const FS_IOC_GETVERSION: c_uint = 0x8008_7601;
/// The same for 32-bit programs.
const FS_IOC32_GETVERSION: c_uint = 0x8004_7601;

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
pub(crate) unsafe extern "C" fn ioctl<T: FileData>(
    file: *mut bindings::file,
    cmd: c_uint,
    arg: c_ulong,
) -> c_long {
    let result = match cmd {
        FS_IOC_SHUTDOWN => shutdown(
            // SAFETY: The file keeps the superblock mounted.
            unsafe { SuperBlock::<T>::from_raw((*(*file).f_inode).i_sb) },
            arg,
        ),
        FS_IOC_GETVERSION | FS_IOC32_GETVERSION => {
            // SAFETY: The file keeps its inode, whose generation never changes. The copy checks the
            // address.
            to_result(unsafe {
                bindings::ordofs_put_user_u32((*(*file).f_inode).i_generation, arg)
            })
        }
        _ => Err(ENOTTY),
    };
    match result {
        Ok(()) => 0,
        Err(e) => e.to_errno() as c_long,
    }
}

fn shutdown<T: FileData>(sb: &SuperBlock<T>, arg: c_ulong) -> Result {
    let mut flags = 0u32;
    // SAFETY: Checks the caller's capabilities and copies from its memory, faults included.
    unsafe {
        if !bindings::ordofs_capable_sys_admin() {
            return Err(EPERM);
        }
        to_result(bindings::ordofs_get_user_u32(arg, &mut flags))?;
    }
    match flags {
        // Everything written so far, data included, stays: as if the device were unplugged after a
        // sync.
        bindings::FS_SHUTDOWN_FLAGS_DEFAULT => {
            // SAFETY: The superblock is mounted; freezing syncs, and thawing undoes it.
            unsafe {
                let bdev = (*sb.as_ptr()).s_bdev;
                to_result(bindings::bdev_freeze(bdev))?;
                sb.fs().shutdown();
                to_result(bindings::bdev_thaw(bdev))
            }
        }
        // What fsync would have made durable stays.
        bindings::FS_SHUTDOWN_FLAGS_LOGFLUSH => {
            let synced = sb.fs().sync(true);
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
