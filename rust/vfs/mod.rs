// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over the kernel's VFS, memory management, iomap and block layers.
//!
//! # Model
//!
//! A filesystem is a type `T` that implements the traits of [`traits`]. The abstractions own every C callback
//! table; a callback turns its C pointers into [`SuperBlock<T>`], [`Inode<T>`], [`Dentry<T>`](object::dentry::Dentry) references,
//! whose invariants say what a holder may rely on, and calls the safe method. docs/VFS.md shows it on one page.
//!
//! Nearly all `unsafe` code of the project is in this directory. It knows nothing of OrdoFS.
//!
//! # Floors
//!
//! From the ground up; a file imports nothing of a higher floor (`scripts/layers`).
//!
//! | directory | what |
//! |---|---|
//! | `os` | services of the kernel: locks, threads, memory |
//! | `object` | wrappers, each of one kernel object: inode, dentry, superblock, iocb, bio |
//! | `ioend` | data I/O in flight |
//! | `traits` | what a filesystem implements |
//! | `table` | the tables of callbacks, and what they call |
//! | `registration` | mounting, and the type |
//! | `testing` | code that only tests have |
//!
//! # Locking
//!
//! The methods say which of the VFS's locks their caller holds. [`Locked`] carries the proof that
//! `i_rwsem` is held exclusively.

pub(crate) mod ioend;
pub(crate) mod object;
#[allow(unreachable_pub, dead_code)]
pub(crate) mod os;
pub(crate) mod registration;
mod table;
#[cfg(any(ordofs_planted, ordofs_misuse_types, ordofs_misuse_lifetimes))]
pub(crate) mod testing;
pub(crate) mod traits;

pub(crate) use object::block::{BlockDevice, OpenDevice};
pub(crate) use object::inode::{Inode, Locked, Times};
pub(crate) use object::super_block::SuperBlock;
pub(crate) use table::iomap_io::DirectWrite;
