// SPDX-License-Identifier: GPL-2.0

//! What the locks of `os::sync` are made of: shuttle's, whose every use is a point where the schedule may
//! turn.

pub use shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The end of a timed wait. Time does not pass in a model: it has come when the others have run once.
pub struct Deadline;

impl Deadline {
    /// `ms` milliseconds from now.
    pub fn after(_ms: u64) -> Self {
        Self
    }

    /// Releases the lock and lets other tasks run; the time is up.
    pub fn wait<'a, T>(
        &self,
        _cond: &Condvar,
        guard: MutexGuard<'a, T>,
    ) -> Option<MutexGuard<'a, T>> {
        drop(guard);
        shuttle::thread::yield_now();
        None
    }
}
