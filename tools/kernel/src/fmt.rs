// SPDX-License-Identifier: GPL-2.0

//! Formatting utilities: what `kernel::fmt` re-exports.

pub use core::fmt::{
    Arguments, Binary, Debug, Display, Error, Formatter, LowerHex, Octal, Result, UpperHex, Write,
};
