// SPDX-License-Identifier: GPL-2.0

//! The fsync log: logical records in the order in which operations happened (the idea of ZFS' intent
//! log and of ext4's fast commits).
//!
//! Every operation appends a record to the pending ones, in memory, inside its transaction. An fsync
//! appends the inode's modified extents and attributes and then has everything that is pending written
//! as one batch: so each fsync also makes all operations before it durable, in order.
//!
//! **One flush per fsync.** The data of the extents has been written, but not flushed, when the batch is
//! written next to it; one flush then makes both durable, and only then is the fsync acknowledged and
//! the next batch written. Hence a batch that a later one follows was flushed. The last batch of a log may
//! have overtaken its data: replay believes it only if the data blocks that it names have the checksums
//! that it names. So that this costs a mount little, a batch that names much data is written after a flush
//! of its own and says so: what two flushes add to the time of that much I/O is nothing.
//!
//! Every record carries the generation of its transaction; replay skips what a commit already holds.
//! A commit notes where the log stood when it froze its transaction, and what lies before that is free
//! again when it is durable. A log that is full, a record that cannot be stored or an I/O error make
//! fsync fall back to a commit; nothing is ever acknowledged on the strength of a record that was lost.
//!
//! Locking: `writer` is held while a batch is written and flushed, so those who come meanwhile share the
//! next batch (group commit). `state` is never held across I/O; it nests inside all locks of the engine.

pub mod ahead;
pub mod record;
pub mod replayed;
pub mod ring;
pub mod state;

pub use state::Log;
