// SPDX-License-Identifier: GPL-2.0

//! The kernel side of the OS contract (`crate::os`) that the engine runs on.
//!
//! # Model
//!
//! The engine is compiled unchanged for the kernel and for user space, where the same names are
//! provided by the standard library or by a model checker. This is all of the kernel that it sees
//! besides `kernel::prelude`. Everything here is safe to use and may sleep, except [`atomic`],
//! [`now`], [`crc32c`] and [`siphash`], which never do.

mod block;
pub(crate) mod kthread;
mod lock;
mod lockmap;
mod map;
mod misc;
mod shared;
mod wait;
pub(crate) mod workqueue;

pub use block::Block;
#[allow(unused_imports)]
pub use lock::{LockClass, Mutex, MutexGuard, ReadGuard, RwLock, WriteGuard};
pub use lockmap::LockMap;
pub use map::Map;
pub use misc::{cond_resched, crc32c, now, random_u64, siphash, uptime, NoFs, Time};
pub use shared::Shared;
pub use wait::WaitQueue;

pub use crate::vfs::object::block::Device;
pub use crate::vfs::trace;
pub use crate::vfs::window::Window;

/// Atomic integers.
pub mod atomic {
    pub use core::sync::atomic::{
        AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
}
