// SPDX-License-Identifier: GPL-2.0

//! The primitives of the locks in `os::sync`: shuttle's. At each use the schedule may switch to
//! another task.

pub use shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The end of a timed wait. Time does not pass in a model, so the wait ends once the other tasks
/// have run.
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
