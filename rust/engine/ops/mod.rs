// SPDX-License-Identifier: GPL-2.0

//! The operations: methods of [`Fs`](crate::engine::fs::Fs), each in one transaction or several.
//!
//! | file | operations |
//! |---|---|
//! | [`namei`] | create, link, unlink, rename, attributes |
//! | [`dir`] | directory entries, targets of symbolic links |
//! | [`xattr`] | extended attributes |
//! | [`data`] | data writes (R1), mappings, checks of what was read |
//! | [`space`] | truncate, punch, preallocate, zero |
//! | `extents` | changes of the extent tree, for the two above |
//! | `inodes` | references to inodes |
//! | [`reap`] | deletion in the background |
//! | `reclaim` | what the shrinker frees |
//! | [`scrub`] | reading and checking all that is in use |
//! | [`shrink`] | moving what lies behind a new end, and cutting it off |
//! | [`trim`] | discarding free space |
//! | `statfs` | counts of blocks and inodes |
//!
//! An operation goes through the same steps in the same order: wait for what must be waited for;
//! begin a [`Txn`](crate::engine::txn::Txn), which reserves the worst case; put each inode on the
//! commit's list; take the inode's lock; do the steps that can fail, then those that cannot; append
//! the log record under that lock. An error leaves the filesystem as it was, or shuts it down
//! (CONTRIBUTING.md, "How to add an operation").
//!
//! Tests: tools/engine/tests/state_machine.rs (all operations against a model),
//! tools/engine/tests/memory/main.rs (each allocation fails once),
//! tools/engine/tests/forecast/main.rs (reservations), threads.rs, stress.rs; each file names its
//! own.

pub mod data;
pub mod dir;
pub(crate) mod extents;
mod inodes;
pub mod namei;
pub mod reap;
mod reclaim;
pub mod scrub;
pub mod shrink;
pub mod space;
mod statfs;
pub mod trim;
pub mod xattr;
