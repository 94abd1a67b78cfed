// SPDX-License-Identifier: GPL-2.0

//! A stand-in for the Rust-for-Linux `kernel` crate.
//!
//! It has the part of the real crate (Linux 7.3) that the OrdoFS engine uses, with the same names,
//! signatures and error codes, so that the engine compiles unchanged in user space. Tests rely on
//! two differences:
//!
//! - every allocation goes through [`fault`], which can make the n-th one fail;
//! - messages go to standard error, see [`print`](mod@print).
//!
//! Tests: all of `tools/engine/tests` run on it; `tools/engine/tests/memory/main.rs` and
//! `tools/engine/tests/btree.rs` use the faults.

#![no_std]
#![forbid(unsafe_code)]

extern crate std;

pub mod alloc;
pub mod error;
pub mod fault;
pub mod fmt;
pub mod prelude;
pub mod print;
