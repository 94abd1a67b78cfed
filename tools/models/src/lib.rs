// SPDX-License-Identifier: GPL-2.0

//! The engine compiled once more, on the locks and atomics of the shuttle model checker: the code
//! that the kernel runs, under schedules that the checker chooses.
//!
//! Tests: tools/models/tests/rules/main.rs (the rules of order), tools/models/tests/types.rs
//! (misuse that must not compile).

#![no_std]

extern crate std;

#[path = "../../../rust/engine/mod.rs"]
pub mod engine;
pub mod os;
