// SPDX-License-Identifier: GPL-2.0

//! The crash simulator: the engine that the kernel runs, on a device that records every write.
//!
//! A *workload* is a short sequence of operations on two files and two directories. It runs on a
//! recording device. From the record come the *crash states*: what may be on the medium after a
//! power cut, with any of the writes that no flush covers missing, out of order or torn. Each state
//! is mounted, replayed, read back, unmounted and checked, and the result is compared with what
//! docs/GUARANTEES.md allows.
//!
//! | module | what is in it |
//! |---|---|
//! | [`workload`] | the operations and their enumeration |
//! | [`disk`] | the recording device and the device of a crash state |
//! | [`base`], [`bases`] | a filesystem with what is expected of it; those that workloads start from |
//! | [`world`], [`pages`] | runs a workload: the part of the kernel glue, page cache included |
//! | [`oracle`] | what a reader may see after a power cut, from docs/GUARANTEES.md |
//! | [`crash`] | the crash states of a record |
//! | [`damage`] | damage on top of a crash state |
//! | [`observe`] | mounts a state and reports what a reader sees |
//! | [`run`] | one workload with all its states |
//!
//! This crate compiles the engine once more, with its mutants (rust/engine/mutant.rs), so that no
//! other tool contains them. Its clock and its random numbers depend on nothing but the workload,
//! so the same seed gives the same bytes.
//!
//! Tests: tools/crash/tests/recovery.rs, attributes.rs, invariants.rs; `scripts/crash mutants`
//! shows that the simulator notices missing protections.

#[path = "../../../rust/engine/mod.rs"]
#[allow(dead_code, clippy::all)]
pub mod engine;
pub mod os;

pub mod base;
pub mod bases;
pub mod crash;
pub mod damage;
pub mod disk;
pub mod observe;
pub mod oracle;
pub mod pages;
pub mod run;
pub mod workload;
pub mod world;
