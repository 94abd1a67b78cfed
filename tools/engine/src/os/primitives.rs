// SPDX-License-Identifier: GPL-2.0

//! The locks that [`sync`](super::sync) is built on: those of `std`.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

pub use std::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The end of a timed wait.
pub struct Deadline(Instant);

impl Deadline {
    /// `ms` milliseconds from now.
    pub fn after(ms: u64) -> Self {
        Self(Instant::now() + Duration::from_millis(ms))
    }

    /// Releases the lock until `cond` is signalled. `None`, without the lock, when the time is up.
    pub fn wait<'a, T>(
        &self,
        cond: &Condvar,
        guard: MutexGuard<'a, T>,
    ) -> Option<MutexGuard<'a, T>> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let woken = cond.wait_timeout(guard, left);
        Some(woken.unwrap_or_else(PoisonError::into_inner).0)
    }
}
