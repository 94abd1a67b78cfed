// SPDX-License-Identifier: GPL-2.0

//! The log as a data structure: the records that are pending in memory, and where the next batch
//! goes. `engine/txn/fsync.rs` has the operations on it.
//!
//! Each append gets a ticket. A caller that needs its records durable waits until `Log::durable`
//! reaches the ticket that it saw. Positions and lengths are in blocks, `pending` and `frozen` in
//! bytes.
//!
//! Locks: `state` guards all of `State` and is taken under the locks of inodes. `writer` serialises
//! batches; it is taken before all of these and never inside a transaction (docs/DESIGN.md §7).
//!
//! Tests: tools/engine/tests/log_loss.rs (records dropped for lack of memory), log_flushes.rs,
//! log_size.rs, tools/models/tests/rules/r8.rs.

use super::header::MAX_PAYLOAD;
use super::replayed::Replayed;
use super::ring::Area;
use crate::engine::format::Superblock;
use crate::engine::lock_class;
use crate::os::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::os::{Mutex, Time};
use kernel::prelude::*;

/// The most bytes that may be pending before a record is appended. Beyond it the records are
/// dropped, and fsync commits instead (2 MiB).
pub(in crate::engine) const MAX_PENDING: usize = 2 << 20;
// A batch has room for the record that went beyond it.
const _: () = assert!(2 * MAX_PENDING <= MAX_PAYLOAD);
/// The most data blocks that a batch may name without a flush before it (8 MiB), because replay may
/// have to read them. Small in crash simulations, where writes are short, so that both cases occur.
pub const MAX_UNFLUSHED: u64 = if cfg!(ordofs_mutants) { 4 } else { 2048 };

/// What is pending, and where the log stands. Guarded by `Log::state`.
pub(in crate::engine) struct State {
    /// Encoded records that are in no batch yet.
    pub(in crate::engine) pending: KVVec<u8>,
    /// Number of appends so far; the ticket of the last one.
    pub(in crate::engine) ticket: u64,
    /// Bytes at the start of `pending` that belong to the commit under way. They are dropped when
    /// it is durable.
    pub(in crate::engine) frozen: usize,
    /// Records of generations up to this one were dropped: until it is durable, every fsync is a
    /// commit.
    pub(in crate::engine) broken: u64,
    /// The newest generation of any record appended so far.
    pub(in crate::engine) newest: u64,
    /// Position of the next batch.
    pub(in crate::engine) pos: u64,
    /// Sequence number of the next batch.
    pub(in crate::engine) seq: u64,
    /// Batches up to this number, and the data that they name, are durable, or no superblock needs
    /// them any more.
    pub(in crate::engine) flushed: u64,
    /// The oldest position that the newest durable superblock needs. Blocks from here to `pos` must
    /// not be overwritten.
    pub(in crate::engine) live: u64,
}

/// The log of a filesystem.
pub struct Log {
    /// The blocks of the log.
    pub(in crate::engine) area: Area,
    /// Never held across I/O.
    pub(in crate::engine) state: Mutex<State>,
    /// Held while a batch is written and flushed (R8).
    pub(in crate::engine) writer: Mutex<()>,
    /// Appends up to this ticket are durable, through the log or a commit.
    pub(in crate::engine) durable: AtomicU64,
    /// Set while no records are kept: during replay, and on a mount that does not log.
    pub(in crate::engine) off: AtomicBool,
    /// During replay, the time of the present record.
    pub(in crate::engine) replay_time: Mutex<Option<Time>>,
    /// The result of this mount's replay.
    pub(in crate::engine) replayed: Mutex<Replayed>,
    /// Number of batches written by this mount.
    pub batches: AtomicU64,
}

impl Log {
    /// The log that a superblock describes. It keeps no records before [`Log::start`].
    pub fn new(sb: &Superblock) -> Result<Self> {
        let state = State {
            pending: KVVec::new(),
            ticket: 0,
            frozen: 0,
            broken: 0,
            newest: 0,
            pos: sb.log_pos,
            seq: sb.log_seq,
            flushed: sb.log_seq.saturating_sub(1),
            live: sb.log_pos,
        };
        Ok(Self {
            area: Area {
                start: sb.log_start,
                len: sb.log_len,
            },
            state: Mutex::new(&lock_class::LOG_STATE, state)?,
            writer: Mutex::new(&lock_class::LOG_WRITER, ())?,
            durable: AtomicU64::new(0),
            off: AtomicBool::new(true),
            replay_time: Mutex::new(&lock_class::REPLAY_TIME, None)?,
            replayed: Mutex::new(&lock_class::REPLAYED, Replayed::default())?,
            batches: AtomicU64::new(0),
        })
    }

    /// Starts recording operations.
    pub fn start(&self) {
        self.off.store(false, Ordering::Release);
    }

    /// Sets where the next batch goes, after a replay.
    pub(in crate::engine) fn resume(&self, pos: u64, seq: u64) {
        let mut s = self.state.lock();
        s.pos = pos;
        s.seq = seq;
        // The numbers before the gap belong to batches that the commit of the replay replaces.
        s.flushed = seq.saturating_sub(1);
    }

    /// Marks what is pending as part of the commit that is being frozen; returns position and
    /// number of the next batch. Called under the exclusive side of the barrier.
    pub fn freeze(&self) -> (u64, u64) {
        let mut s = self.state.lock();
        s.frozen = s.pending.len();
        (s.pos, s.seq)
    }

    /// The commit that froze the log at `pos` is durable: drops the records that it made
    /// superfluous, and frees the log blocks before `pos`.
    pub fn committed(&self, pos: u64) {
        let mut s = self.state.lock();
        s.live = pos;
        let n = s.frozen.min(s.pending.len());
        s.frozen = 0;
        let rest = s.pending.len().saturating_sub(n);
        if n > 0 {
            s.pending.copy_within(n.., 0);
            s.pending.truncate(rest);
        }
    }

    /// Appends the records that `put` writes as one unit: no other record and no batch boundary
    /// comes between them. `generation` is the newest generation among them. Cannot fail: if the
    /// records cannot be kept, `broken` makes fsync commit.
    pub(in crate::engine) fn append_with(
        &self,
        generation: u64,
        put: impl FnOnce(&mut KVVec<u8>) -> Result,
    ) {
        if self.off.load(Ordering::Acquire) {
            return;
        }
        let mut s = self.state.lock();
        s.ticket += 1;
        s.newest = s.newest.max(generation);
        if s.broken >= generation {
            return;
        }
        let full = s.pending.len() > MAX_PENDING;
        if full || put(&mut s.pending).is_err() {
            // From here until this generation is committed the log is incomplete. The dropped
            // records may include some of a newer generation, because data that completes late is
            // recorded under an older transaction; so the log is broken up to the newest generation
            // seen.
            s.pending.clear();
            s.frozen = 0;
            s.broken = s.broken.max(s.newest);
        }
    }
}
