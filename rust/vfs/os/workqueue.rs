// SPDX-License-Identifier: GPL-2.0

//! Workqueues for I/O completions.
//!
//! # Model
//!
//! Completions of data I/O need process context: they take sleeping locks and checksum data. A filesystem
//! has two queues ([`IoQueues`]). Reads are verified in one, writes are completed in the other.
//!
//! # Locking
//!
//! Both queues have a limit on how many works run at once, so a work that waits for another work of
//! its own queue could wait for ever. The order is: a read completion may wait for write completions
//! (a block that a direct write is about to replace), a write completion waits for neither. Both may
//! wait for metadata reads, which do not come here.
//!
//! Tests: tests/vm/t/030-hibernation.sh, 063-write-errors.sh.

use core::ptr::NonNull;
use kernel::{prelude::*, str::CStrExt};

use crate::bindings;

/// A workqueue of our own.
///
/// # Invariants
///
/// `ptr` is a valid workqueue that no other task destroys.
pub(crate) struct Workqueue {
    ptr: NonNull<bindings::workqueue_struct>,
}

// SAFETY: Workqueues may be used from any thread.
unsafe impl Send for Workqueue {}
// SAFETY: Workqueues may be used from many threads at once.
unsafe impl Sync for Workqueue {}

/// What a queue does while the system is about to sleep or makes the image of a hibernation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hibernation {
    /// It runs works as ever.
    Runs,
    /// It begins no work.
    Waits,
}

impl Workqueue {
    /// Makes an unbound queue with a rescuer.
    pub(crate) fn new(name: &CStr, hibernation: Hibernation) -> Result<Self> {
        let freezable = hibernation == Hibernation::Waits;
        // SAFETY: The name is a valid string that is copied.
        let ptr = unsafe { bindings::ordofs_helper_alloc_workqueue(name.as_char_ptr(), freezable) };
        // INVARIANT: Just made.
        Ok(Self {
            ptr: NonNull::new(ptr).ok_or(ENOMEM)?,
        })
    }

    /// Waits until all that was queued before has run.
    pub(crate) fn flush(&self) {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::ordofs_helper_flush_workqueue(self.ptr.as_ptr()) };
    }

    /// Queues a work. Any context.
    ///
    /// # Safety
    ///
    /// `work` is initialised, not queued, and stays valid until its function has begun to run.
    pub(in crate::vfs) unsafe fn queue(&self, work: *mut bindings::work_struct) {
        // SAFETY: The queue is valid by the type invariant. By this function's contract the work is initialised, and
        // stays until its function runs.
        unsafe { bindings::ordofs_helper_queue_work(self.ptr.as_ptr(), work) };
    }
}

impl Drop for Workqueue {
    fn drop(&mut self) {
        // SAFETY: Valid by the type invariant, and no reference through which a work could be queued is left. Runs what is still queued.
        unsafe { bindings::destroy_workqueue(self.ptr.as_ptr()) };
    }
}

/// The queues of one filesystem.
pub(crate) struct IoQueues {
    pub(in crate::vfs) reads: Workqueue,
    pub(in crate::vfs) writes: Workqueue,
}

impl IoQueues {
    /// Makes the queues, with these names.
    pub(crate) fn new(reads: &CStr, writes: &CStr) -> Result<Self> {
        Ok(Self {
            // What makes the image may have to be read.
            reads: Workqueue::new(reads, Hibernation::Runs)?,
            // The end of a write may write metadata, and the disk must not get newer than the image.
            writes: Workqueue::new(writes, Hibernation::Waits)?,
        })
    }

    /// Waits until every completion that has been queued is done. Reads first: they may wait for
    /// writes.
    pub(crate) fn flush(&self) {
        self.reads.flush();
        self.writes.flush();
    }
}
