// SPDX-License-Identifier: GPL-2.0

//! The OrdoFS engine, compiled unchanged for user space, and the [`os`] it runs on there.

#![no_std]

extern crate std;

#[path = "../../../rust/engine/mod.rs"]
pub mod engine;
pub mod os;
