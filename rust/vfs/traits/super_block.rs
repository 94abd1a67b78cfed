// SPDX-License-Identifier: GPL-2.0

//! Superblocks. Fills `struct super_operations`, but for the slots about inodes.

use core::ffi::CStr;
use core::fmt;

use kernel::error::{to_result, VTABLE_DEFAULT_ERROR};
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

use crate::bindings;
use crate::vfs::object::super_block::SuperBlock;
use crate::vfs::object::sysfs::{File, Group};
use crate::vfs::object::types::Types;
use crate::vfs::os::kthread;

/// What statfs(2) shows.
pub(crate) struct StatFs {
    /// Size in blocks.
    pub(crate) blocks: u64,
    /// Free blocks.
    pub(crate) bfree: u64,
    /// Free blocks that can be written to.
    pub(crate) bavail: u64,
    /// Number of inodes there could be.
    pub(crate) files: u64,
    /// Number of inodes that could be made.
    pub(crate) ffree: u64,
}

/// Bytes of a label in the ioctls, with the zero that ends it.
pub(crate) const FSLABEL_MAX: usize = 256;

/// When syncing a filesystem returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SyncUntil {
    /// At once: a hint that [`SyncUntil::Durable`] follows.
    Started,
    /// When everything is durable.
    Durable,
}

/// A call of ioctl(2) with a command of the filesystem's own.
pub(crate) struct Ioctl {
    /// The command.
    pub(in crate::vfs) cmd: c_uint,
    /// The argument.
    pub(in crate::vfs) arg: c_ulong,
    /// Write access, for commands that need it.
    pub(in crate::vfs) writer: WriteCall,
}

impl Ioctl {
    /// The command.
    pub(crate) fn cmd(&self) -> c_uint {
        self.cmd
    }

    /// EPERM if the current task may not administer the system (CAP_SYS_ADMIN).
    pub(crate) fn needs_admin(&self) -> Result {
        // SAFETY: Looks at the credentials of the current task, in process context.
        match unsafe { bindings::ordofs_capable_sys_admin() } {
            true => Ok(()),
            false => Err(EPERM),
        }
    }

    /// Write access to the mount, which the call has not taken yet.
    pub(crate) fn writer(&self) -> &WriteCall {
        &self.writer
    }

    /// Fills `to` with what the argument points to. EFAULT.
    pub(crate) fn read(&self, to: &mut [u8]) -> Result {
        self.user(to.len()).reader().read_slice(to)
    }

    /// Writes `from` to where the argument points. EFAULT.
    pub(crate) fn write(&self, from: &[u8]) -> Result {
        self.user(from.len()).writer().write_slice(from)
    }

    /// The memory of the user that the argument points to.
    fn user(&self, len: usize) -> UserSlice {
        UserSlice::new(UserPtr::from_addr(self.arg), len)
    }
}

/// `struct fstrim_range` of FITRIM, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct FsTrimRange {
    /// The first byte of the range; it stays as it is.
    pub(crate) start: u64,
    /// The length of the range, and after the call what was discarded.
    pub(crate) len: u64,
    /// The shortest free run to discard, and after the call what the device made of that.
    pub(crate) min_len: u64,
}

/// An ioctl that writes, such as FITRIM: write access for one part of the work after the other. So
/// neither freezing the filesystem nor a system that is about to sleep waits for all of it.
///
/// # Invariants
///
/// The file is open for as long as this exists, and the current task holds no lock and no write
/// access but what [`WriteCall::part`] takes.
pub(crate) struct WriteCall(*mut bindings::file);

impl WriteCall {
    /// # Safety
    ///
    /// See the type invariants.
    pub(in crate::vfs) unsafe fn new(file: *mut bindings::file) -> Self {
        // INVARIANT: By this function's contract.
        Self(file)
    }

    /// Runs a part of the work while the mount is writable and the filesystem is not frozen. Before
    /// that, waits until neither the filesystem nor the system is. EROFS; EINTR if the task is to be
    /// killed.
    pub(crate) fn part<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        kthread::try_to_freeze();
        // SAFETY: Looks at the current task only.
        if unsafe { bindings::ordofs_fatal_signal_pending() } {
            return Err(EINTR);
        }
        // SAFETY: By the type invariants the file is open.
        to_result(unsafe { bindings::mnt_want_write_file(self.0) })?;
        let result = work();
        // SAFETY: The file is open, and write access was taken above.
        unsafe { bindings::mnt_drop_write_file(self.0) };
        result
    }

    /// Whether the part of the work is to end early: the task is to be killed, or the system is about to
    /// sleep.
    pub(crate) fn is_urgent(&self) -> bool {
        // SAFETY: Looks at the current task only.
        unsafe { bindings::ordofs_fatal_signal_pending() || bindings::ordofs_freezing() }
    }
}

/// The whole filesystem. A method with a default is a slot of the kernel's table that is NULL where it is left
/// out.
#[vtable]
pub(crate) trait SuperOperations: Types {
    /// Name of the type, as in `mount -t`.
    const NAME: &'static CStr;
    /// Name of the slab cache of inodes.
    const INODE_CACHE: &'static CStr;
    /// The type's number for statfs(2).
    const MAGIC: u64;
    /// What is in `/sys/fs/<type>/<device>`, for users.
    const FILES: &'static [File<Self>];
    /// Subdirectories of that.
    const FILE_GROUPS: &'static [Group<Self>] = &[];

    /// The root directory's inode number.
    fn root_ino(&self) -> u64;
    /// The filesystem's UUID.
    fn uuid(&self) -> [u8; 16];
    /// Numbers for statfs.
    fn statfs(&self) -> StatFs;
    /// EIO after a shutdown. What is cached must not hide it: every call that reads asks first.
    fn readable(&self) -> Result;

    /// Makes everything that happened up to now durable, or starts doing so. `s_umount` is held, but for
    /// shutdown.
    fn sync(&self, until: SyncUntil) -> Result;
    /// `freeze_fs`: as `sync`, and from now on, until `unfreeze`, nothing is written. `s_umount` is held
    /// exclusively.
    fn freeze(&self) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
    /// `unfreeze_fs`: ends `freeze`. `s_umount` is held exclusively.
    fn unfreeze(&self) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
    /// Writes the mount options that differ from the defaults, each with a comma before it.
    fn show_options(&self, _out: &mut dyn fmt::Write) -> fmt::Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
    /// `nr_cached_objects`: number of objects that `shrink_scan` could free.
    fn shrink_count(&self) -> u64 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
    /// `free_cached_objects`: frees up to `n` objects; returns how many.
    fn shrink_scan(&self, _n: u64) -> u64 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// FS_IOC_GETFSLABEL: the label, padded with zeros.
    fn label(&self) -> Result<[u8; FSLABEL_MAX]> {
        Err(ENOTTY)
    }
    /// FS_IOC_SETFSLABEL: changes the label. Text after the first zero was dropped. The mount is
    /// writable.
    fn set_label(&self, _label: &[u8; FSLABEL_MAX]) -> Result {
        Err(ENOTTY)
    }

    /// FITRIM: discards what is free in a range. The caller may administer the system.
    fn trim(&self, _range: &mut FsTrimRange, _call: &WriteCall) -> Result {
        Err(ENOTTY)
    }

    /// An ioctl of the filesystem's own, on an open file or directory.
    fn ioctl(_sb: &SuperBlock<Self>, _call: &Ioctl) -> Result {
        Err(ENOTTY)
    }

    /// The superblock is about to be shut down: no file is open any more, and the shrinker will not be
    /// called.
    fn stop_caching(&self) {}
    /// The directory in sysfs is gone; the filesystem is about to be unmounted.
    fn hidden(&self) {}
    /// The last inode is gone and no completion is outstanding: write what is left and stop all background
    /// work.
    fn unmount(&self);
    /// The device is gone, or the administrator has declared it so: from now on nothing is written,
    /// and everything that would fails.
    fn shutdown(&self);
}
