// SPDX-License-Identifier: GPL-2.0

//! Kernel threads.
//!
//! Tests: tests/vm/t/023-unload.sh, 030-hibernation.sh.

use core::{ffi::CStr, ptr};
use kernel::{prelude::*, str::CStrExt};

use crate::bindings;

/// A running kernel thread. Dropping this makes it stop and waits until it has.
///
/// # Invariants
///
/// `task` is a thread made by [`spawn`] that no other task stops; we have a reference to it.
pub(crate) struct KThread {
    task: ptr::NonNull<bindings::task_struct>,
    /// The closure, if the thread never ran, and how to free it.
    closure: *mut c_void,
    free: unsafe fn(*mut c_void),
}

// SAFETY: A thread may be stopped from any other; the closure is `Send`.
unsafe impl Send for KThread {}
// SAFETY: There are no methods on shared references.
unsafe impl Sync for KThread {}

/// Whether the current task is a kernel thread that is to stop.
pub(crate) fn should_stop() -> bool {
    // SAFETY: Looks at the current task only.
    unsafe { bindings::ordofs_kthread_should_stop() }
}

/// From now on the system, before it sleeps or makes the image of a hibernation, waits until the current
/// thread has come to [`try_to_freeze`] or waits in [`WaitQueue::wait_freezable`](super::WaitQueue::wait_freezable), and keeps
/// it there until the end of that. For kernel threads.
pub(crate) fn set_freezable() {
    // SAFETY: Changes flags of the current task only; no requirements.
    unsafe { bindings::ordofs_kthread_set_freezable() };
}

/// A place where the current thread may be kept, see [`set_freezable`]. A task of a user may be kept
/// here, too. No lock may be held.
pub(crate) fn try_to_freeze() {
    // SAFETY: May sleep, which every caller in process context may.
    unsafe { bindings::ordofs_kthread_try_to_freeze() };
}

/// What a thread runs.
///
/// # Safety
///
/// `closure` comes from `KBox::<F>::into_raw`, and no other task uses it.
unsafe extern "C" fn run<F: FnOnce()>(closure: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a pointer from `KBox::into_raw`, once.
    let closure = unsafe { KBox::<F>::from_raw(closure.cast()) };
    KBox::into_inner(closure)();
    0
}

/// Frees what no thread came to run.
///
/// # Safety
///
/// As for [`run`].
unsafe fn free<F>(closure: *mut c_void) {
    // SAFETY: By this function's contract the pointer comes from `KBox::into_raw`, and the thread did not take it.
    drop(unsafe { KBox::<F>::from_raw(closure.cast()) });
}

/// Starts a thread called `name`/`id`. `f` returns soon after [`should_stop`] has become true.
pub(crate) fn spawn<F: FnOnce() + Send + 'static>(name: &CStr, id: &CStr, f: F) -> Result<KThread> {
    let closure = KBox::into_raw(KBox::new(f, GFP_KERNEL)?).cast::<c_void>();
    // SAFETY: The function and the closure match; the strings are copied.
    let task = unsafe {
        bindings::ordofs_kthread_create(
            Some(run::<F>),
            closure,
            name.as_char_ptr(),
            id.as_char_ptr(),
        )
    };
    match kernel::error::from_err_ptr(task).map(ptr::NonNull::new) {
        Ok(Some(task)) => {
            // SAFETY: The helper took a reference to the thread for us.
            unsafe { bindings::wake_up_process(task.as_ptr()) };
            // INVARIANT: Just made, with a reference for us.
            Ok(KThread {
                task,
                closure,
                free: free::<F>,
            })
        }
        other => {
            // SAFETY: There is no thread, so the closure is still ours.
            unsafe { free::<F>(closure) };
            Err(other.err().unwrap_or(ENOMEM))
        }
    }
}

impl Drop for KThread {
    fn drop(&mut self) {
        // SAFETY: By the type invariants we have a reference, so the task is valid even if the
        // thread has returned; this gives it up.
        let result = unsafe { bindings::kthread_stop_put(self.task.as_ptr()) };
        if result == EINTR.to_errno() {
            // The thread was stopped before it ran for the first time (`run` returns 0 only).
            // SAFETY: So the closure was not taken.
            unsafe { (self.free)(self.closure) };
        }
    }
}
