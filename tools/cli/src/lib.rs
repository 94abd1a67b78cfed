// SPDX-License-Identifier: GPL-2.0

//! Output and exit statuses of the tools.
//!
//! # Model
//!
//! `println!` and `eprintln!` panic when the reader of a pipe has gone or the disk is full, and
//! fsck(8) decodes the status of a panic, 101, as several errors at once. So the tools print with
//! [`say!`] and [`complain!`], which cannot fail. The first error of standard output is kept. When
//! a tool ends it calls [`output_error`] and decides what the error means for its exit status.
//! Errors of standard error are ignored, because there is no other place to report them.
//!
//! A pipe without a reader is not an error. Unlike other programs the tools do not let SIGPIPE end
//! them, because a filesystem must not stay half repaired.
//!
//! Tests: `tools/mkfs/tests/options_and_lost_output.rs`, `tools/fsck/tests/exit_status.rs`,
//! `tools/ordofs/tests/lost_output.rs`.

pub mod magics;
mod size;

pub use size::size;

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// The first error of standard output. Nothing is printed after it.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints a line on standard output.
#[macro_export]
macro_rules! say { ($($arg:tt)*) => { $crate::print_line(::core::format_args!($($arg)*)) } }

/// Prints a line on standard error.
#[macro_export]
macro_rules! complain { ($($arg:tt)*) => { $crate::complain_line(::core::format_args!($($arg)*)) } }

#[doc(hidden)]
pub fn print_line(line: Arguments<'_>) {
    print(format_args!("{line}\n"));
}

/// Prints on standard output, without the end of a line.
pub fn print(text: Arguments<'_>) {
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    if failed.is_none() {
        let mut out = io::stdout().lock();
        *failed = out.write_fmt(text).and_then(|()| out.flush()).err();
    }
}

#[doc(hidden)]
pub fn complain_line(line: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The first error of standard output. `None` also if the reader of a pipe has gone.
pub fn output_error() -> Option<io::Error> {
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    let e = failed.as_ref()?;
    if e.kind() == ErrorKind::BrokenPipe {
        return None;
    }
    // An io::Error cannot be cloned.
    Some(io::Error::new(e.kind(), e.to_string()))
}

/// Whether some output has been lost, for whatever reason.
pub fn is_output_lost() -> bool {
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    failed.is_some()
}

/// Runs `main`, which returns the exit status. If it panics, the status is `panicked`.
pub fn run(panicked: u8, main: impl FnOnce() -> u8) -> ExitCode {
    ExitCode::from(catch_unwind(AssertUnwindSafe(main)).unwrap_or(panicked))
}
