// SPDX-License-Identifier: GPL-2.0

//! The user-space side of the OS contract (docs/DESIGN.md §1). Its names and signatures are those
//! of `rust/vfs/os`, so that the engine compiles unchanged over either.
//!
//! | module | what is in it |
//! |---|---|
//! | [`sync`](mod@sync) | Mutex, RwLock, WaitQueue, Shared; made of `primitives` |
//! | [`atomic`] | atomics |
//! | [`map`] | ordered map |
//! | [`block`] | page-aligned block buffers |
//! | [`trace`], [`window`] | the kernel's tracepoints and windows of races, without effect here |
//! | [`device`] | Device and its backends: [`file`](mod@file), [`mem`](mod@mem), [`record`] |
//!
//! Tests: all of `tools/engine/tests`; [`misc`] and [`record`] have their own.

pub mod block;
pub mod device;
pub mod file;
pub mod map;
pub mod mem;
pub mod misc;
mod primitives;
pub mod record;
pub mod sync;
pub mod trace;
pub mod window;

/// Atomics, in one place, so that those of a model checker can replace them.
pub mod atomic {
    pub use core::sync::atomic::{
        fence, AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
}

pub use block::Block;
pub use device::{Backend, Device};
pub use map::Map;
pub use misc::{
    cond_resched, crc32c, is_freezing, now, on_exclusive, random_u64, set_clock, siphash, uptime,
    Clock, LockMap, NoFs, Time,
};
pub use sync::{LockClass, Mutex, MutexGuard, ReadGuard, RwLock, Shared, WaitQueue, WriteGuard};
pub use window::Window;
