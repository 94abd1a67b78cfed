// SPDX-License-Identifier: GPL-2.0

//! Waits that are no lock's, told to lockdep as if they were (after btrfs' wait event maps).
//!
//! # Model
//!
//! A task that must do something before others can go on has the map; a task that waits for that acquires it. So
//! lockdep finds a deadlock of such a wait with locks in the first run that takes them in both orders,
//! also when no task had to wait. Without lockdep all of this is nothing.

use super::lock::LockClass;
use crate::bindings;
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// How a task has come by a map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// It may have waited.
    Waited,
    /// Without waiting.
    AtOnce,
}

/// Lockdep's view of a wait.
///
/// # Invariants
///
/// `raw` is initialised and does not move.
pub struct LockMap {
    raw: KBox<Opaque<bindings::lockdep_map>>,
}

// SAFETY: lockdep itself sees to it that a map can be used from any thread.
unsafe impl Send for LockMap {}
// SAFETY: lockdep itself sees to it that a map can be used from many threads at once.
unsafe impl Sync for LockMap {}

impl LockMap {
    /// A map of this class.
    pub fn new(class: &'static LockClass) -> Result<Self> {
        let raw = KBox::new(Opaque::uninit(), GFP_KERNEL)?;
        let (name, key) = class.raw();
        // SAFETY: The memory is valid for a `struct lockdep_map` and no other task knows it. Name and key
        // are static; of the key, lockdep looks at the address only.
        unsafe { bindings::ordofs_lockmap_init(raw.get(), name, key) };
        // INVARIANT: Initialised above; the contents of a `KBox` do not move with it.
        Ok(Self { raw })
    }

    /// This task waits for the map, shared or exclusively, and has it then. Call it before the wait. A
    /// task that has one of the sides must not ask for any.
    pub fn acquire(&self, exclusive: bool) {
        self.note(exclusive, How::Waited);
    }

    /// As [`LockMap::acquire`] for what is had without waiting.
    pub fn acquired(&self, exclusive: bool) {
        self.note(exclusive, How::AtOnce);
    }

    fn note(&self, exclusive: bool, how: How) {
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: By the type invariant the map is initialised.
            unsafe {
                bindings::ordofs_lockmap_acquire(self.raw.get(), exclusive, how == How::AtOnce)
            };
        }
    }

    /// This task has the map no longer.
    pub fn release(&self) {
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: By the type invariant the map is initialised. lockdep complains of a task that
            // does not have it, and no more.
            unsafe { bindings::ordofs_lockmap_release(self.raw.get()) };
        }
    }

    /// This task may wait for those who have the map. Call it before, whether or not it has to wait.
    pub fn might_wait(&self) {
        self.acquire(true);
        self.release();
    }
}
