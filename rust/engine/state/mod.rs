// SPDX-License-Identifier: GPL-2.0

//! The parts of [`Fs`](crate::engine::fs::Fs) besides space, inodes and log, as data structures:
//! the barrier, the commit state, the list of dirty inodes and the debts of renames. The operations
//! on them are in `engine/txn/`, and the tests are those of each file.

pub mod barrier;
pub mod commit;
pub(crate) mod dirty;
pub mod owed;
