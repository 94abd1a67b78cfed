// SPDX-License-Identifier: GPL-2.0

//! The OrdoFS engine: everything that is not the Linux VFS.
//!
//! The engine runs unchanged in the kernel and in user space. It is `no_std`, has no unsafe code,
//! allocates fallibly, and reaches the outside only through `kernel::prelude` and [`crate::os`].
//!
//! | room | what is in it |
//! |---|---|
//! | [`mod@format`] | encoding and checking of everything that is on disk |
//! | [`btree`] | persistent B+trees and the cache of their clean nodes |
//! | [`alloc`] | allocation groups, bitmaps, reservations |
//! | [`inode`] | inodes in memory: their table, extent maps, delalloc, ordered extents (rules R1, R2, R4, R5) |
//! | [`dir`], [`namei`] | directories and the operations on names |
//! | [`xattr`] | extended attributes |
//! | [`data`], [`space`] | data writes (R1) and operations on file space |
//! | [`log`] | the fsync log as a data structure |
//! | [`state`] | barrier, commit state, what renames owe, as data structures |
//! | [`txn`] | transactions, commits, fsync (R7, R8) |
//! | [`volume`] | mkfs, mount, replay |
//! | [`lock_class`] | what the locks are called, in lock order |
//! | [`mutant`] | builds with a protection missing, for the tests |
//! | [`fs`] | the interface that the glue and the tools call |
//!
//! The lock order is in docs/DESIGN.md §7 and in [`lock_class`].

#![forbid(unsafe_code)]

pub mod alloc;
pub mod btree;
pub mod data;
pub mod dir;
pub mod extents;
pub mod format;
pub mod fs;
pub mod inode;
pub mod lock_class;
pub mod log;
pub mod mutant;
pub mod namei;
pub mod space;
pub mod state;
pub mod txn;
pub mod types;
pub mod volume;
pub mod xattr;

pub use fs::Fs;
#[allow(unused_imports)] // Not every crate that contains the engine writes data.
pub use inode::starting::{Ordered, Started};
pub use inode::Inode;
pub use namei::Rename;
pub use types::*;
pub use xattr::XattrSet;
