// SPDX-License-Identifier: GPL-2.0

//! Code that only tests have.

#[cfg(any(ordofs_misuse_types, ordofs_misuse_lifetimes))]
mod misuse;
#[cfg(ordofs_planted)]
pub(crate) mod planted;
