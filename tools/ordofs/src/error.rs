// SPDX-License-Identifier: GPL-2.0

//! The place of an error, for its message.

use anyhow::anyhow;
use kernel::prelude::Error;

/// An error of the engine with the place where it occurred.
pub fn at(place: impl std::fmt::Display, e: Error) -> anyhow::Error {
    anyhow!(
        "{place}: {}",
        std::io::Error::from_raw_os_error(-e.to_errno())
    )
}
