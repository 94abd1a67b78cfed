// SPDX-License-Identifier: GPL-2.0

//! The kernel side of the OS contract (`crate::os`) that the engine runs on.
//!
//! # Model
//!
//! The engine is compiled unchanged for the kernel and for user space, where the same names are
//! provided by the standard library or by a model checker. This is all of the kernel that it sees
//! besides `kernel::prelude`: services of [`crate::vfs::os`], and what is OrdoFS's own, namely the size of a
//! block, tracepoints, and the windows of races. Everything here may sleep, except [`atomic`], [`trace`],
//! [`now`], [`crc32c`] and [`siphash`], which never do.

mod device;
#[cfg(ordofs_debug)]
mod errortag;
#[cfg(not(ordofs_debug))]
mod no_errortag;
#[allow(dead_code)]
pub mod trace;
mod window;

pub use crate::vfs::os::{
    atomic, cond_resched, crc32c, is_freezing, now, random_u64, siphash, uptime, LockClass,
    LockMap, Map, Mutex, NoFs, ReadGuard, RwLock, Shared, Time, WaitQueue, WriteGuard,
};
pub use device::Device;
pub use window::Window;

#[cfg(ordofs_debug)]
pub(crate) use errortag::Tags;
#[cfg(not(ordofs_debug))]
pub(crate) use no_errortag::Tags;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 4096;

/// One page-aligned block that devices can be given.
pub type Block = crate::vfs::os::Buffer<BLOCK_BYTES>;
