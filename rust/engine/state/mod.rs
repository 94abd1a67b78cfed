// SPDX-License-Identifier: GPL-2.0

//! The parts of [`Fs`](crate::engine::fs::Fs) besides space, inodes and log, as data structures:
//! the barrier, the commit state, the list of dirty inodes, the debts of renames, the queue of
//! deletions and the report of the scrub. The operations on them are in `engine/txn/` and `engine/ops/`, and the tests are those
//! of each file.

pub mod barrier;
pub mod commit;
pub(crate) mod dirty;
pub mod owed;
pub mod reap;
pub mod scrub;
