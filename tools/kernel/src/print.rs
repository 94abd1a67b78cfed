// SPDX-License-Identifier: GPL-2.0

//! The `pr_*` macros: messages go to standard error.
//!
//! It prints messages at or below the level set by [`set_level`]. That level starts at the number
//! in the environment variable `ORDOFS_LOGLEVEL`, or at 4 (warnings and worse), with the numbers of
//! `dmesg -n`.

use core::sync::atomic::{AtomicI32, Ordering};

/// The level that prints nothing.
pub const SILENT: i32 = -1;
const UNSET: i32 = i32::MIN;
const DEFAULT: i32 = 4;

static LEVEL: AtomicI32 = AtomicI32::new(UNSET);

/// Prints messages of this level (0 = emergency .. 7 = debug) and below; [`SILENT`] for none.
pub fn set_level(level: i32) {
    LEVEL.store(level, Ordering::Relaxed);
}

fn level() -> i32 {
    let l = LEVEL.load(Ordering::Relaxed);
    if l != UNSET {
        return l;
    }
    let l = std::env::var("ORDOFS_LOGLEVEL")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(DEFAULT);
    LEVEL.store(l, Ordering::Relaxed);
    l
}

#[doc(hidden)]
pub fn emit(at: i32, args: core::fmt::Arguments<'_>) {
    if at > level() {
        return;
    }
    let text = std::format!("{args}");
    // libtest captures only the output of this macro, but the macro panics if standard error cannot
    // be written. Then the message is lost.
    let _ = std::panic::catch_unwind(|| {
        std::eprintln!("ordofs: {}", text.trim_end_matches('\n'));
    });
}

/// Prints an emergency-level message.
#[macro_export]
macro_rules! pr_emerg { ($($arg:tt)*) => { $crate::print::emit(0, ::core::format_args!($($arg)*)) } }
/// Prints an alert-level message.
#[macro_export]
macro_rules! pr_alert { ($($arg:tt)*) => { $crate::print::emit(1, ::core::format_args!($($arg)*)) } }
/// Prints a critical-level message.
#[macro_export]
macro_rules! pr_crit { ($($arg:tt)*) => { $crate::print::emit(2, ::core::format_args!($($arg)*)) } }
/// Prints an error-level message.
#[macro_export]
macro_rules! pr_err { ($($arg:tt)*) => { $crate::print::emit(3, ::core::format_args!($($arg)*)) } }
/// Prints a warning-level message.
#[macro_export]
macro_rules! pr_warn { ($($arg:tt)*) => { $crate::print::emit(4, ::core::format_args!($($arg)*)) } }
/// Prints a notice-level message.
#[macro_export]
macro_rules! pr_notice { ($($arg:tt)*) => { $crate::print::emit(5, ::core::format_args!($($arg)*)) } }
/// Prints an info-level message.
#[macro_export]
macro_rules! pr_info { ($($arg:tt)*) => { $crate::print::emit(6, ::core::format_args!($($arg)*)) } }
/// Prints a debug-level message.
#[macro_export]
macro_rules! pr_debug { ($($arg:tt)*) => { $crate::print::emit(7, ::core::format_args!($($arg)*)) } }

/// Asserts at compile time.
#[macro_export]
macro_rules! static_assert {
    ($condition:expr $(,$arg:literal)?) => {
        const _: () = ::core::assert!($condition $(,$arg)?);
    };
}
