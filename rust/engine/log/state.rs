// SPDX-License-Identifier: GPL-2.0

//! The log as a data structure: what is pending in memory, and where the next batch goes. The operations
//! on it are in `engine/txn/fsync.rs`.

use super::replayed::Replayed;
use super::ring::Area;
use crate::engine::format::Superblock;
use crate::engine::lock_class;
use crate::os::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::os::{Mutex, Time};
use kernel::prelude::*;

/// More pending bytes than that are dropped, and the next fsync is a commit.
pub(in crate::engine) const MAX_PENDING: usize = 2 << 20;
/// Blocks of data of one batch that replay may have to read (8 MiB): more are flushed before. In crash
/// simulations, where writes are short, few, so that both ways are taken.
pub const MAX_UNFLUSHED: u64 = if cfg!(ordofs_mutants) { 4 } else { 2048 };

/// What the log holds in memory, and where it stands.
pub(in crate::engine) struct State {
    pub(in crate::engine) pending: KVVec<u8>,
    /// Records ever appended.
    pub(in crate::engine) ticket: u64,
    /// Bytes at the start of `pending` that the commit under way makes superfluous.
    pub(in crate::engine) frozen: usize,
    /// fsync needs this generation to be durable: records of it were lost.
    pub(in crate::engine) broken: u64,
    /// The newest generation that a record was appended for.
    pub(in crate::engine) newest: u64,
    /// Where the next batch goes.
    pub(in crate::engine) pos: u64,
    pub(in crate::engine) seq: u64,
    /// The oldest position that the newest durable superblock needs.
    pub(in crate::engine) live: u64,
}

/// The log of a filesystem.
pub struct Log {
    pub(in crate::engine) area: Area,
    pub(in crate::engine) state: Mutex<State>,
    pub(in crate::engine) writer: Mutex<()>,
    /// Records before this ticket are durable, in the log or by a commit.
    pub(in crate::engine) durable: AtomicU64,
    /// Records are not kept: replay is under way, or the mount does not log.
    pub(in crate::engine) off: AtomicBool,
    pub(in crate::engine) replay_time: Mutex<Option<Time>>,
    /// What the replay of this mount did.
    pub(in crate::engine) replayed: Mutex<Replayed>,
    /// Batches written.
    pub batches: AtomicU64,
}

impl Log {
    /// The log that a superblock describes; off until [`Log::start`].
    pub fn new(sb: &Superblock) -> Result<Self> {
        let state = State {
            pending: KVVec::new(),
            ticket: 0,
            frozen: 0,
            broken: 0,
            newest: 0,
            pos: sb.log_pos,
            seq: sb.log_seq,
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

    /// From now on operations are recorded.
    pub fn start(&self) {
        self.off.store(false, Ordering::Release);
    }

    /// Replay ended: where the log goes on.
    pub(in crate::engine) fn resume(&self, pos: u64, seq: u64) {
        let mut s = self.state.lock();
        s.pos = pos;
        s.seq = seq;
    }

    /// Barrier: where the log stands as the transaction is frozen (position, sequence number).
    pub fn freeze(&self) -> (u64, u64) {
        let mut s = self.state.lock();
        s.frozen = s.pending.len();
        (s.pos, s.seq)
    }

    /// The commit that froze at `pos` is durable: what the log held for it is free.
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

    /// Appends what `put` writes. Nothing gets between several records: they go into the same batch. Of
    /// several generations, `generation` is the newest.
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
            // From here to this generation's commit the log says nothing. Among what is lost may be
            // records of a newer one: data that an older transaction completed is recorded late.
            s.pending.clear();
            s.frozen = 0;
            s.broken = s.broken.max(s.newest);
        }
    }
}
