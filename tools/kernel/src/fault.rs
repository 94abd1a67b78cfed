// SPDX-License-Identifier: GPL-2.0

//! Allocation faults: makes the n-th fallible allocation of this thread fail.
//!
//! ```
//! use kernel::{fault, prelude::*};
//! let fail = fault::nth(1, fault::Mode::Once);
//! assert!(KBox::new(1u8, GFP_KERNEL).is_ok());
//! assert!(KBox::new(2u8, GFP_KERNEL).is_err());
//! assert!(KBox::new(3u8, GFP_KERNEL).is_ok());
//! assert!(fail.fired());
//! ```

use core::cell::Cell;
use core::marker::PhantomData;

/// The behaviour after the first failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Only one allocation fails.
    Once,
    /// All further allocations fail too.
    Onward,
}

#[derive(Clone, Copy)]
struct State {
    left: u64,
    mode: Mode,
    fired: bool,
}

std::thread_local! {
    static STATE: Cell<Option<State>> = const { Cell::new(None) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// A fault that is armed until this is dropped, on the thread that made it.
pub struct Armed(PhantomData<*const ()>);

/// Arms a fault: after `n` successful allocations the next one fails.
#[must_use = "faults stop when this is dropped"]
pub fn nth(n: u64, mode: Mode) -> Armed {
    STATE.set(Some(State {
        left: n,
        mode,
        fired: false,
    }));
    Armed(PhantomData)
}

impl Armed {
    /// Whether an allocation has failed.
    pub fn fired(&self) -> bool {
        STATE.get().is_some_and(|s| s.fired)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        STATE.set(None);
    }
}

/// The number of allocations of this thread so far.
pub fn count() -> u64 {
    COUNT.get()
}

/// Called by every fallible allocation. True if it has to fail.
pub fn should_fail() -> bool {
    COUNT.set(COUNT.get().wrapping_add(1));
    let Some(mut s) = STATE.get() else {
        return false;
    };
    let fail = if s.fired {
        s.mode == Mode::Onward
    } else {
        s.left == 0
    };
    if fail {
        s.fired = true;
    } else {
        s.left = s.left.saturating_sub(1);
    }
    STATE.set(Some(s));
    fail
}
