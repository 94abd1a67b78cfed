// SPDX-License-Identifier: GPL-2.0

//! The crash simulator: the engine that the kernel runs, on a device that remembers every write.
//!
//! A *workload* is a short sequence of operations on two files and two directories. It runs on a
//! recording device. From the record come the *crash states*: what may be on the medium when the power
//! goes, with any of the writes that no flush covers dropped, out of order or torn. Each is mounted,
//! replayed, read back, unmounted and checked, and compared with what docs/GUARANTEES.md allows.
//!
//! | module | what is in it |
//! |---|---|
//! | [`workload`] | the operations and their enumeration |
//! | [`disk`] | the recording device and the device of a crash state |
//! | [`base`], [`bases`] | a filesystem with what is expected of it; those that workloads start from |
//! | [`world`], [`pages`] | carries a workload out: the part of the kernel glue, page cache included |
//! | [`oracle`] | what a reader may see after a power cut, from docs/GUARANTEES.md |
//! | [`crash`] | the crash states of a record |
//! | [`damage`] | damage on top of a crash state |
//! | [`observe`] | mounts a state and says what a reader sees |
//! | [`run`] | one workload with all its states |
//!
//! The engine is compiled into this crate once more, with its mutants (rust/engine/mutant.rs), so that
//! no other tool contains them, and on a clock that depends on nothing but the workload: the same
//! seed gives the same bytes.
//!
//! Tests: `tools/crash/tests/recovery.rs`, `tools/crash/tests/attributes.rs`; the simulator tests itself with
//! `scripts/crash mutants`.

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
