// SPDX-License-Identifier: GPL-2.0

//! Calling tracepoints that C defines.
//!
//! # Model
//!
//! Events are declared in C, so that perf, trace-cmd and BPF know them as they know those of any other
//! subsystem. [`tracepoints`] defines a function for each. It looks at the event's static key, in place: a
//! disabled event costs a no-op, and its arguments are not passed anywhere. Any context.
//!
//! Tests: tests/vm/t/035-observing.sh.

/// Whether an event is enabled.
macro_rules! enabled {
    ($key:path) => {{
        #[cfg(CONFIG_JUMP_LABEL)]
        // SAFETY: The key is a static key that C defines, inside of a `struct tracepoint`.
        unsafe {
            kernel::jump_label::arch_static_branch! { $key, crate::bindings::tracepoint, key, false }
        }
        #[cfg(not(CONFIG_JUMP_LABEL))]
        {
            // SAFETY: The key is a static of C's, so it is always there to be looked at.
            unsafe { crate::bindings::ordofs_helper_key_enabled((&raw mut $key.key).cast()) }
        }
    }};
}

/// Defines functions for the events of a trace system: `tracepoints! { in system; fn event(arg: type); }`
/// calls `trace_<system>_<event>` of C.
macro_rules! tracepoints {
    (in $system:ident; $($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?);)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        #[allow(clippy::too_many_arguments)]
        pub fn $name($($arg: $ty),*) {
            kernel::macros::paste! {
                if $crate::vfs::os::trace::enabled!($crate::bindings::[<__tracepoint_ $system _ $name>]) {
                    // SAFETY: The event is enabled, so C has registered it; it takes plain numbers, in any
                    // context.
                    unsafe { $crate::bindings::[<rust_do_trace_ $system _ $name>]($($arg),*) };
                }
            }
        }
    )*};
}

pub(crate) use {enabled, tracepoints};
