// SPDX-License-Identifier: GPL-2.0

//! The OS contract (docs/DESIGN.md §1) for model checking. Atomics, and the primitives of locks and
//! wait queues (`primitives`), are shuttle's. Time stands still and randomness is constant
//! ([`still`]). All else is that of `ordofs-engine`.

#[path = "../../engine/src/os/block.rs"]
pub mod block;
#[path = "../../engine/src/os/device.rs"]
pub mod device;
#[path = "../../engine/src/os/map.rs"]
pub mod map;
#[path = "../../engine/src/os/mem.rs"]
pub mod mem;
#[path = "../../engine/src/os/misc.rs"]
pub mod misc;
mod primitives;
pub mod still;
#[path = "../../engine/src/os/sync.rs"]
pub mod sync;
#[path = "../../engine/src/os/trace.rs"]
pub mod trace;
pub mod window;

/// Atomics. At each access the schedule may switch to another task.
pub mod atomic {
    pub use core::sync::atomic::Ordering;
    pub use shuttle::sync::atomic::{
        fence, AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, AtomicUsize,
    };
}

pub use block::Block;
pub use device::{Backend, Device};
pub use map::Map;
pub use misc::{cond_resched, crc32c, is_freezing, siphash, LockMap, NoFs, Time};
pub use still::{now, random_u64, uptime};
pub use sync::{LockClass, Mutex, MutexGuard, ReadGuard, RwLock, Shared, WaitQueue, WriteGuard};
pub use window::Window;
