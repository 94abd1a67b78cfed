// SPDX-License-Identifier: GPL-2.0

//! Services of the kernel that have nothing to do with filesystems.
//!
//! Everything here is safe to use and may sleep, except [`atomic`], [`trace`], [`now`], [`crc32c`] and [`siphash`],
//! which never do.

mod block;
pub(crate) mod kthread;
mod lock;
mod lockmap;
mod map;
mod misc;
mod shared;
pub(crate) mod trace;
mod wait;
pub(crate) mod workqueue;

pub use block::Buffer;
#[allow(unused_imports)]
pub use lock::{LockClass, Mutex, MutexGuard, ReadGuard, RwLock, WriteGuard};
pub use lockmap::LockMap;
pub use map::Map;
pub use misc::{cond_resched, crc32c, is_freezing, now, random_u64, siphash, uptime, NoFs, Time};
pub use shared::Shared;
pub use wait::WaitQueue;

/// Atomic integers.
pub mod atomic {
    pub use core::sync::atomic::{
        AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
}
