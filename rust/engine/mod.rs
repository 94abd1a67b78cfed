// SPDX-License-Identifier: GPL-2.0

//! The OrdoFS engine: everything that is not the Linux VFS.
//!
//! The engine runs unchanged in the kernel and in user space. It is `no_std`, has no unsafe code,
//! allocates fallibly, and uses nothing of its surroundings but `kernel::prelude` and
//! [`crate::os`].
//!
//! From the ground up. A file imports nothing from a higher floor (`scripts/layers`):
//!
//! | directory or file | what is in it |
//! |---|---|
//! | [`types`], [`lock_class`], [`invariant`], [`mutant`] | plain types; the classes of locks, in lock order; internal invariants; builds without a protection, for the tests |
//! | [`mod@format`] | encoding and checking of everything that is on disk |
//! | [`btree`] | persistent B+trees and the cache of their clean nodes |
//! | [`alloc`] | allocation groups, bitmaps, reservations |
//! | [`inode`] | inodes in memory: their table, extent maps, delalloc, ordered extents (rules R1, R2, R4, R5) |
//! | [`log`] | the fsync log as a data structure |
//! | [`state`] | barrier, commit state, debts of renames, as data structures |
//! | [`fs`] | the mounted state that all operations share |
//! | [`txn`] | transactions, commits, fsync (R7, R8) |
//! | [`ops`] | names, directories, attributes, data writes, file space |
//! | [`volume`] | mkfs, mount, replay |
//!
//! The lock order is in docs/DESIGN.md §7 and in [`lock_class`], the terms are in docs/GLOSSARY.md.
//!
//! Tests: docs/TESTING.md says which suites run the engine; each module's header names its own.

#![forbid(unsafe_code)]

pub mod alloc;
pub mod btree;
pub mod format;
pub mod fs;
pub mod inode;
pub mod invariant;
pub mod lock_class;
pub mod log;
pub mod mutant;
pub mod ops;
pub mod state;
pub mod txn;
pub mod types;
pub mod volume;

pub use fs::Fs;
#[allow(unused_imports)] // Not every crate that contains the engine writes data.
pub use inode::starting::{Ordered, Started};
pub use inode::Inode;
pub use ops::namei::Rename;
pub use ops::xattr::XattrSet;
#[allow(unused_imports)] // Not every crate that contains the engine unmounts.
pub use txn::marks::Backups;
pub use types::*;
