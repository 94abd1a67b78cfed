// SPDX-License-Identifier: GPL-2.0

//! Waiting for a condition.
//!
//! # Model
//!
//! The condition is a closure that may take sleeping locks. It therefore runs with the task in
//! state running, and a wake-up that comes meanwhile is kept as a flag in the queue entry
//! (`wait_woken`), so that it is never lost: the entry is on the queue before the condition is
//! looked at for the first time, and a task that makes the condition true calls `wake_all` after.

use kernel::{
    prelude::*,
    types::Opaque, //
};

use super::kthread;
use crate::bindings;

/// What a waiting task does while the system is about to sleep or makes the image of a hibernation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suspend {
    /// It may go on.
    Ignore,
    /// It is kept where it waits.
    Freeze,
}

/// A queue of waiting tasks.
///
/// # Invariants
///
/// `raw` is initialised and does not move.
pub struct WaitQueue {
    raw: KBox<Opaque<bindings::wait_queue_head>>,
}

// SAFETY: A wait queue head has its own lock and may be used from any thread.
unsafe impl Send for WaitQueue {}
// SAFETY: A wait queue head has its own lock and may be used from many threads at once.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// Makes an empty queue.
    pub fn new() -> Result<Self> {
        let raw = KBox::new(Opaque::uninit(), GFP_KERNEL)?;
        // SAFETY: The memory is valid for a `struct wait_queue_head` and no other task knows it.
        unsafe { bindings::ordofs_waitqueue_init(raw.get()) };
        // INVARIANT: Initialised above; the contents of a `KBox` do not move with it.
        Ok(Self { raw })
    }

    /// Waits, uninterruptibly, until `cond` is true.
    pub fn wait_until(&self, mut cond: impl FnMut() -> bool) {
        if cond() {
            return;
        }
        self.sleep(&mut cond, None, Suspend::Ignore);
    }

    /// Waits until `cond` is true, for at most `ms` milliseconds, or until the calling kernel
    /// thread is to stop. Returns whether `cond` is true.
    pub fn wait_timeout(&self, ms: u64, mut cond: impl FnMut() -> bool) -> bool {
        if cond() {
            return true;
        }
        self.sleep(&mut cond, Some(ms), Suspend::Ignore)
    }

    /// As [`WaitQueue::wait_timeout`], and while the system sleeps or makes the image of a hibernation
    /// the caller is kept here ([`kthread::set_freezable`]). No lock may be held.
    pub fn wait_freezable(&self, ms: u64, mut cond: impl FnMut() -> bool) -> bool {
        if cond() {
            return true;
        }
        self.sleep(&mut cond, Some(ms), Suspend::Freeze)
    }

    /// Wakes all who wait, so that they look at their conditions again. What makes a condition true
    /// is done before this is called.
    pub fn wake_all(&self) {
        // SAFETY: By the type invariant the queue is initialised.
        unsafe { bindings::ordofs_wake_all(self.raw.get()) };
    }

    /// The loop behind all ways of waiting.
    fn sleep(&self, cond: &mut dyn FnMut() -> bool, ms: Option<u64>, suspend: Suspend) -> bool {
        let freezable = suspend == Suspend::Freeze;
        let storage = Opaque::<bindings::wait_queue_entry>::uninit();
        let entry = storage.get();
        // SAFETY: The entry is on this stack frame and is taken off the queue below before the
        // frame is left; nothing between can unwind or return.
        unsafe { bindings::ordofs_wait_begin(self.raw.get(), entry) };
        let mut left = match ms {
            // SAFETY: No requirements: only computes.
            Some(ms) => unsafe { bindings::ordofs_ms_to_jiffies(ms) },
            None => c_long::MAX,
        };
        let ok = loop {
            if cond() {
                break true;
            }
            if ms.is_some() && (left == 0 || kthread::should_stop()) {
                break false;
            }
            // SAFETY: The entry was initialised for this task by `ordofs_wait_begin`.
            left = unsafe { bindings::ordofs_wait_once(entry, left, ms.is_some(), freezable) };
        };
        // SAFETY: The entry is on this queue since `ordofs_wait_begin`.
        unsafe { bindings::remove_wait_queue(self.raw.get(), entry) };
        ok
    }
}
