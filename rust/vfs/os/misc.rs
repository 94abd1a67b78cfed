// SPDX-License-Identifier: GPL-2.0

//! Allocation scopes, checksums, clocks and randomness.

use core::{marker::PhantomData, mem::MaybeUninit};
use kernel::prelude::*;

use crate::bindings;

/// While this lives, allocations of this task do not enter the filesystem to reclaim memory.
///
/// # Invariants
///
/// `saved` is what `memalloc_nofs_save` returned to this task.
#[must_use = "the scope ends when the guard is dropped"]
pub struct NoFs {
    saved: c_uint,
    _task: PhantomData<*mut ()>,
}

impl NoFs {
    /// Opens a scope. Scopes are closed in the reverse of the order they were opened in.
    pub fn enter() -> Self {
        // INVARIANT: By construction.
        Self {
            // SAFETY: Changes flags of the current task only; no requirements.
            saved: unsafe { bindings::ordofs_nofs_save() },
            _task: PhantomData,
        }
    }
}

impl Drop for NoFs {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this is the value to restore; the type is not `Send`, so
        // this is the task it came from.
        unsafe { bindings::ordofs_nofs_restore(self.saved) };
    }
}

/// The usual CRC-32C: `crc32c(0, b"123456789") == 0xE306_9283`. The checksum of two
/// pieces one after the other is `crc32c(crc32c(0, a), b)`.
pub fn crc32c(seed: u32, data: &[u8]) -> u32 {
    // The kernel leaves the inversions before and after to the caller.
    // SAFETY: The slice is valid for reads of its length.
    !unsafe { bindings::crc32c(!seed, data.as_ptr().cast(), data.len()) }
}

/// SipHash-2-4.
pub fn siphash(key: [u64; 2], data: &[u8]) -> u64 {
    // SAFETY: The slice is valid for reads of its length.
    unsafe { bindings::ordofs_siphash(key[0], key[1], data.as_ptr().cast(), data.len()) }
}

/// Wall clock time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time {
    /// Seconds since 1970.
    pub sec: i64,
    /// Nanoseconds, less than 10^9.
    pub nsec: u32,
}

/// The time now, on the clock that the VFS takes its timestamps from.
pub fn now() -> Time {
    let mut ts = MaybeUninit::<bindings::timespec64>::uninit();
    // SAFETY: The memory is valid for writes of a `struct timespec64`.
    unsafe { bindings::ktime_get_coarse_real_ts64(ts.as_mut_ptr()) };
    // SAFETY: The call has written all of it.
    let ts = unsafe { ts.assume_init() };
    Time {
        sec: ts.tv_sec,
        // A `timespec64` of the clock is normalised.
        nsec: ts.tv_nsec as u32,
    }
}

/// Seconds since boot, on a clock that cannot be set: for intervals. Time in suspend does not count.
pub fn uptime() -> u64 {
    // SAFETY: No requirements: reads a clock, in any context.
    let seconds = unsafe { bindings::ktime_get_seconds() };
    seconds.unsigned_abs()
}

/// A number that cannot be guessed.
pub fn random_u64() -> u64 {
    // SAFETY: No requirements: any context.
    unsafe { bindings::ordofs_random_u64() }
}

/// Whether the current task is to come to a place where it can be kept, because the system goes to
/// sleep or makes the image of a hibernation (see [`kthread`](super::kthread)).
pub fn is_freezing() -> bool {
    // SAFETY: Looks at the current task only.
    unsafe { bindings::ordofs_freezing() }
}

/// Lets others run, if they should.
pub fn cond_resched() {
    // SAFETY: May sleep, which the contract of this module allows its callers to rely on.
    unsafe { bindings::ordofs_cond_resched() };
}
