// SPDX-License-Identifier: GPL-2.0

//! The engine once more, on locks and atomics of the shuttle model checker: the very code that the
//! kernel runs, under schedules that the checker chooses. The rules of order are tested in `tests/`.

#![no_std]

extern crate std;

#[path = "../../../rust/engine/mod.rs"]
pub mod engine;
pub mod os;
