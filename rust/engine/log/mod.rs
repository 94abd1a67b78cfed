// SPDX-License-Identifier: GPL-2.0

//! The fsync log: logical records, in the order in which the operations happened. The idea is that
//! of the intent log of ZFS and of the fast commits of ext4; that the checksums of the data stand
//! in the log is the idea of the `DataChecksums` record in the journal of Fxfs.
//!
//! Every operation appends a record to the pending ones, in memory, inside its transaction. An
//! fsync appends the inode's modified extents and attributes, then writes all that is pending as
//! one batch. So each fsync also makes every earlier operation durable, in order.
//!
//! **One flush per fsync.** When the batch is written, the data of its extents has been written
//! too, but not flushed. One flush then makes both durable; only after it does fsync return, and
//! only after it is the next batch written, whose header says how far the log is flushed. Replay
//! relies on what the headers say: a batch that one of them calls flushed was acknowledged, and its
//! data need not be checked. A batch that none of them calls flushed may have reached the disk
//! without its data: replay believes it only if the data blocks that it names have the checksums
//! that it names. To bound
//! what a mount has to read for this, a batch that names more than [`state::MAX_UNFLUSHED`] blocks
//! is written after a flush of its own and says so in its header; the time of a second flush does
//! not count beside that much I/O.
//!
//! Every record carries the generation of its transaction, and replay skips those that the
//! superblock's commit already contains. A commit notes the position of the log when it freezes its
//! transaction; once the commit is durable, the blocks before that position can be reused. If the
//! log is full or memory is short, fsync falls back to a commit. No fsync is acknowledged on the
//! strength of a record that was dropped. After an error of the device the filesystem shuts down.
//!
//! A worked example. The superblock says generation 7, position 100, number 40. Two fsyncs write
//! batch 40 (two blocks, flushed: 39) and batch 41 (flushed: 40). Power fails during the second one.
//! The mount finds batch 40 whole at position 100, and the header of batch 41 at position 102, which
//! says that batch 40 was flushed: it is replayed. Batch 41 is replayed only if it and its data are
//! there; it was never acknowledged. If a bit of batch 40 is wrong, the mount can only be read-only:
//! no power cut does that to a batch that was flushed.
//!
//! Locks: `writer` is held while a batch is written and flushed, so fsyncs that arrive meanwhile
//! wait for it and share the next batch (group commit). `state` is never held across I/O; only the
//! locks of the last line of docs/DESIGN.md §7 are taken under it. A position is a count of log
//! blocks ever written; modulo the length of the area it is a place in the ring. Lengths are in
//! blocks, payloads in bytes.
//!
//! | file | what is in it |
//! |---|---|
//! | [`record`] | encoding and decoding of records |
//! | [`header`] | encoding and decoding of a batch's header |
//! | [`ring`] | batches: writing and reading |
//! | [`scan`] | the headers of a log: what was flushed, what is behind damage |
//! | [`ahead`] | read-ahead for replay |
//! | [`state`] | what is pending, and where the next batch goes |
//! | [`replayed`] | the result of a replay |
//!
//! The operations are in `engine/txn/fsync.rs`, replay in `engine/volume/replay.rs`, the bytes in
//! docs/FORMAT.md §11.
//!
//! Tests: tools/engine/tests/log_damage.rs, log_flushes.rs, log_format.rs, log_loss.rs,
//! log_recovery.rs, log_size.rs, replay_cost.rs, crash.rs; tools/crash; the model tools/models/tests/rules/r8.rs;
//! tests/vm/t/067-damage.sh, 070-fsync-cost.sh, 072-recovery.sh.

pub mod ahead;
pub mod header;
pub mod record;
pub mod replayed;
pub mod ring;
pub mod scan;
pub mod state;

pub use state::Log;
