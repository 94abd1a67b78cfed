// SPDX-License-Identifier: GPL-2.0

//! A filesystem as a whole: making it, mounting it, replaying its log.
//!
//! This is the top floor of the engine. Its functions put an [`Fs`](crate::engine::fs::Fs) together
//! and run its operations, and nothing else of the engine calls them.
//!
//! Tests: tools/engine/tests/superblocks.rs, log_recovery.rs, impossible.rs; tools/mkfs/tests;
//! tests/vm/t/021-mount.sh.

pub mod mkfs;
pub mod mount;
mod replay;
