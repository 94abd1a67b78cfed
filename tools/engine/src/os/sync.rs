// SPDX-License-Identifier: GPL-2.0

//! Sleeping locks, wait queues and reference counts over `primitives`: those of `std`, or those
//! that a model checker replaces them with.
//!
//! A panic while a lock is held does not poison the lock, because the panic already fails the test.

use super::primitives as raw;
use core::ffi::CStr;
use core::ops::{Deref, DerefMut};
use kernel::prelude::*;
use std::sync::{Arc, PoisonError, TryLockError, TryLockResult};

/// Fails as an allocation in the kernel would, when [`kernel::fault`] says so.
fn allocation() -> Result {
    if kernel::fault::should_fail() {
        return Err(ENOMEM);
    }
    Ok(())
}

/// The guard, if the lock was free.
fn free<G>(taken: TryLockResult<G>) -> Option<G> {
    match taken {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// In the kernel: by this, lockdep knows the kind of a lock.
pub struct LockClass(());

impl LockClass {
    /// A class with this name.
    pub const fn new(_name: &'static CStr) -> Self {
        Self(())
    }
}

/// A sleeping mutual exclusion lock.
pub struct Mutex<T>(raw::Mutex<T>);

/// Access to what a [`Mutex`] protects.
pub struct MutexGuard<'a, T>(raw::MutexGuard<'a, T>);

impl<T> Mutex<T> {
    /// A mutex that protects `v`.
    pub fn new(_class: &'static LockClass, v: T) -> Result<Self> {
        allocation()?;
        Ok(Self(raw::Mutex::new(v)))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        free(self.0.try_lock()).map(MutexGuard)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A sleeping readers-writer lock. As in the kernel, a waiting writer holds up new readers.
pub struct RwLock<T>(raw::RwLock<T>);

/// Shared access to what a [`RwLock`] protects.
pub struct ReadGuard<'a, T>(raw::RwLockReadGuard<'a, T>);

/// Exclusive access to what a [`RwLock`] protects.
pub struct WriteGuard<'a, T>(raw::RwLockWriteGuard<'a, T>);

impl<T> RwLock<T> {
    /// A lock that protects `v`.
    pub fn new(_class: &'static LockClass, v: T) -> Result<Self> {
        allocation()?;
        Ok(Self(raw::RwLock::new(v)))
    }

    /// Waits for shared access.
    pub fn read(&self) -> ReadGuard<'_, T> {
        ReadGuard(self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for exclusive access.
    pub fn write(&self) -> WriteGuard<'_, T> {
        WriteGuard(self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the lock exclusively if it is free.
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        free(self.0.try_write()).map(WriteGuard)
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Threads that wait for a condition. No lock is held while a condition is evaluated.
pub struct WaitQueue {
    /// The number of wake-ups so far. A wake-up between the evaluation and the sleep changes it, so
    /// none is lost.
    wakes: raw::Mutex<u64>,
    cond: raw::Condvar,
}

impl WaitQueue {
    /// An empty queue.
    pub fn new() -> Result<Self> {
        allocation()?;
        Ok(Self {
            wakes: raw::Mutex::new(0),
            cond: raw::Condvar::new(),
        })
    }

    fn wakes(&self) -> raw::MutexGuard<'_, u64> {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `cond` is true, which it evaluates after every wake-up.
    pub fn wait_until(&self, mut cond: impl FnMut() -> bool) {
        loop {
            let seen = *self.wakes();
            if cond() {
                return;
            }
            let mut now = self.wakes();
            while *now == seen {
                now = self.cond.wait(now).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// As [`WaitQueue::wait_timeout`], because user space has no freezer.
    pub fn wait_freezable(&self, ms: u64, cond: impl FnMut() -> bool) -> bool {
        self.wait_timeout(ms, cond)
    }

    /// Waits until `cond` is true or `ms` milliseconds have passed. Returns the last value of
    /// `cond`.
    pub fn wait_timeout(&self, ms: u64, mut cond: impl FnMut() -> bool) -> bool {
        let end = raw::Deadline::after(ms);
        loop {
            let seen = *self.wakes();
            if cond() {
                return true;
            }
            let mut now = self.wakes();
            while *now == seen {
                match end.wait(&self.cond, now) {
                    Some(again) => now = again,
                    None => return cond(),
                }
            }
        }
    }

    /// Wakes all waiting threads.
    pub fn wake_all(&self) {
        *self.wakes() += 1;
        self.cond.notify_all();
    }
}

/// A reference-counted value.
pub struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    /// Allocates the value with one reference.
    pub fn new(v: T) -> Result<Self> {
        allocation()?;
        Ok(Self(Arc::new(v)))
    }

    /// The value, for changes, if this is the only reference.
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        Arc::get_mut(&mut this.0)
    }

    /// Whether both refer to the same value.
    pub fn ptr_eq(a: &Self, b: &Self) -> bool {
        Arc::ptr_eq(&a.0, &b.0)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}
