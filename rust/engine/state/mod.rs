// SPDX-License-Identifier: GPL-2.0

//! What [`Fs`](crate::engine::fs::Fs) is made of besides space, inodes and log, as data structures: the
//! operations on them are in `engine/txn/`.

pub mod barrier;
pub mod commit;
pub mod owed;
