// SPDX-License-Identifier: GPL-2.0

//! The rules of order (docs/RACES.md), each under many schedules of few threads, on the engine that
//! the kernel runs: `rust/engine`, compiled unchanged on the locks and atomics of the model
//! checker.
//!
//! | module | what is in it |
//! |---|---|
//! | [`explore`] | schedules, replay, mutants |
//! | [`disk`], [`judge`] | a device with a volatile cache, a power cut, and what recovery makes of it |
//! | [`bed`] | a mounted filesystem with a file |
//! | [`page_cache`], [`layout`] | a small model of what `rust/vfs` and the kernel do above the engine |
//! | `r1` .. `r8` | the rules |

mod bed;
mod disk;
mod explore;
mod judge;
mod layout;
mod page_cache;
mod r1;
mod r2;
mod r3;
mod r4;
mod r5;
mod r6;
mod r7;
mod r8;
mod reads;
