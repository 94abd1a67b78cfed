// SPDX-License-Identifier: GPL-2.0

//! Formatting utilities: the re-exports of `kernel::fmt`.

pub use core::fmt::{
    Arguments, Binary, Debug, Display, Error, Formatter, LowerHex, Octal, Result, UpperHex, Write,
};
