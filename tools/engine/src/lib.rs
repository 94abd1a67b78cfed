// SPDX-License-Identifier: GPL-2.0

//! The OrdoFS engine, compiled unchanged for user space, and the [`os`] that it runs on there.
//!
//! Tests: `tools/engine/tests`; docs/TESTING.md says what each suite is for.

#![no_std]

extern crate std;

#[path = "../../../rust/engine/mod.rs"]
pub mod engine;
pub mod os;
