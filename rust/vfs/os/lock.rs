// SPDX-License-Identifier: GPL-2.0

//! Sleeping locks.
//!
//! # Model
//!
//! The C lock lives in memory of its own, so that the Rust lock can be moved; the value lies in
//! the Rust lock.
//!
//! # Lock classes
//!
//! Every lock is made with its [`LockClass`], a static: lockdep, where it is there, takes the address of the
//! key in it and shows the name. The locks of two inodes, say, are of one class; holding both would
//! need subclasses and is not done. Two kinds of lock must not share a class, or lockdep would miss
//! what their order says.

use core::{
    cell::UnsafeCell,
    ffi::CStr,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut}, //
};
use kernel::{
    prelude::*,
    sync::LockClassKey,
    types::Opaque, //
};

use crate::bindings;

/// What lockdep knows a kind of lock by. It has to be a `static`, so that it has an address of its own.
pub struct LockClass {
    name: &'static CStr,
    /// Not dropped, which would unregister a key that never was registered: lockdep knows static keys by their
    /// address.
    key: ManuallyDrop<LockClassKey>,
}

impl LockClass {
    /// A class; `name` is what lockdep's reports call it.
    pub const fn new(name: &'static CStr) -> Self {
        // SAFETY: The key is used through `raw` only, which needs a static. It is never dropped.
        let key = ManuallyDrop::new(unsafe { LockClassKey::new_static() });
        Self { name, key }
    }

    /// The name and the key, both in the module's static data: lockdep forgets the class when the
    /// module goes.
    pub(in crate::vfs) fn raw(&'static self) -> (*const c_char, *mut c_void) {
        (self.name.as_char_ptr(), self.key.as_ptr().cast())
    }
}

/// Guards are tied to the task that took the lock.
type NotSend = PhantomData<*mut ()>;

/// Mutual exclusion.
///
/// # Invariants
///
/// `raw` is initialised and does not move.
pub struct Mutex<T> {
    raw: KBox<Opaque<bindings::mutex>>,
    value: UnsafeCell<T>,
}

// SAFETY: The C mutex may be used from any thread; moving the lock moves the value.
unsafe impl<T: Send> Send for Mutex<T> {}
// SAFETY: The mutex gives the value to one thread at a time, which is like moving it there.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// Makes an unlocked mutex.
    pub fn new(class: &'static LockClass, value: T) -> Result<Self> {
        let raw = KBox::new(Opaque::uninit(), GFP_KERNEL)?;
        let (name, key) = class.raw();
        // SAFETY: The memory is valid for a `struct mutex` and no other task knows it. Name and key
        // are static; of the key, lockdep looks at the address only.
        unsafe { bindings::ordofs_mutex_init(raw.get(), name, key) };
        // INVARIANT: Initialised above; the contents of a `KBox` do not move with it.
        Ok(Self {
            raw,
            value: UnsafeCell::new(value),
        })
    }

    /// Waits until the mutex is free and takes it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // SAFETY: By the type invariant the mutex is initialised.
        unsafe { bindings::ordofs_mutex_lock(self.raw.get()) };
        // INVARIANT: Taken above, by this task.
        MutexGuard {
            lock: self,
            _task: PhantomData,
        }
    }

    /// Takes the mutex if it is free: for reclaim, on which its holder may be waiting for memory.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        // SAFETY: By the type invariant the mutex is initialised.
        let taken = unsafe { bindings::ordofs_mutex_trylock(self.raw.get()) };
        if !taken {
            return None;
        }
        // INVARIANT: Taken above, by this task.
        Some(MutexGuard {
            lock: self,
            _task: PhantomData,
        })
    }
}

/// Proof that the mutex is held, and the way to the value.
///
/// # Invariants
///
/// This task holds `lock.raw`.
#[must_use = "the mutex is released at once when the guard is dropped"]
pub struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    _task: NotSend,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant the mutex is held, so no other task reaches the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariant the mutex is held, so no other task reaches the value; this
        // guard is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this task holds the mutex; no reference to the value is
        // left, because they all borrow the guard.
        unsafe { bindings::mutex_unlock(self.lock.raw.get()) };
    }
}

/// Many readers or one writer, on a `rw_semaphore`.
///
/// # Invariants
///
/// `raw` is initialised and does not move.
pub struct RwLock<T> {
    raw: KBox<Opaque<bindings::rw_semaphore>>,
    value: UnsafeCell<T>,
}

// SAFETY: The C semaphore may be used from any thread; moving the lock moves the value.
unsafe impl<T: Send> Send for RwLock<T> {}
// SAFETY: A writer is given the value, which needs `Send`, and readers share it, which needs
// `Sync`.
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

impl<T> RwLock<T> {
    /// Makes an unlocked lock.
    pub fn new(class: &'static LockClass, value: T) -> Result<Self> {
        let raw = KBox::new(Opaque::uninit(), GFP_KERNEL)?;
        let (name, key) = class.raw();
        // SAFETY: The memory is valid for a `struct rw_semaphore` and no other task knows it. Name and
        // key are static; of the key, lockdep looks at the address only.
        unsafe { bindings::ordofs_rwsem_init(raw.get(), name, key) };
        // INVARIANT: Initialised above; the contents of a `KBox` do not move with it.
        Ok(Self {
            raw,
            value: UnsafeCell::new(value),
        })
    }

    /// Waits until there is no writer and takes the lock shared.
    pub fn read(&self) -> ReadGuard<'_, T> {
        // SAFETY: By the type invariant the semaphore is initialised.
        unsafe { bindings::down_read(self.raw.get()) };
        // INVARIANT: Taken above, by this task.
        ReadGuard {
            lock: self,
            _task: PhantomData,
        }
    }

    /// Waits until no task holds the lock and takes it exclusively.
    pub fn write(&self) -> WriteGuard<'_, T> {
        // SAFETY: By the type invariant the semaphore is initialised.
        unsafe { bindings::down_write(self.raw.get()) };
        // INVARIANT: Taken above, by this task.
        WriteGuard {
            lock: self,
            _task: PhantomData,
        }
    }

    /// Takes the lock exclusively if no task holds it: for reclaim, as [`Mutex::try_lock`].
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        // SAFETY: By the type invariant the semaphore is initialised.
        if unsafe { bindings::down_write_trylock(self.raw.get()) } == 0 {
            return None;
        }
        // INVARIANT: Taken above, by this task.
        Some(WriteGuard {
            lock: self,
            _task: PhantomData,
        })
    }
}

/// Proof that the lock is held shared.
///
/// # Invariants
///
/// This task holds the shared side of `lock.raw`.
#[must_use = "the lock is released at once when the guard is dropped"]
pub struct ReadGuard<'a, T> {
    lock: &'a RwLock<T>,
    _task: NotSend,
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant the lock is held shared, so there is no writer.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this task holds the shared side.
        unsafe { bindings::up_read(self.lock.raw.get()) };
    }
}

/// Proof that the lock is held exclusively.
///
/// # Invariants
///
/// This task holds the exclusive side of `lock.raw`.
#[must_use = "the lock is released at once when the guard is dropped"]
pub struct WriteGuard<'a, T> {
    lock: &'a RwLock<T>,
    _task: NotSend,
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant no other task holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariant no other task holds the lock, and this guard is borrowed
        // exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this task holds the exclusive side.
        unsafe { bindings::up_write(self.lock.raw.get()) };
    }
}
