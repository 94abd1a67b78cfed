// SPDX-License-Identifier: GPL-2.0

//! Windows of races, held open for tests.
//!
//! # Model
//!
//! A race is between two steps of somebody, and whether it happens is a matter of luck. In builds with
//! `ordofs_debug` whoever comes to such a place can be made to wait there, so that a test does not
//! need luck. In other builds this is nothing.

/// The places.
#[derive(Clone, Copy)]
pub(crate) enum Window {
    /// R3: the pages of a range have been dropped, its blocks are still there.
    PagesDropped = 0,
    /// R5: a mapping for a write has been looked up, the folio is not yet locked.
    Mapped = 1,
}

/// The current task has come to a place. May sleep.
#[inline]
pub(crate) fn hold(window: Window) {
    #[cfg(ordofs_debug)]
    // SAFETY: Only sleeps.
    unsafe {
        crate::bindings::ordofs_helper_hold(window as u32)
    };
    #[cfg(not(ordofs_debug))]
    let _ = window;
}
