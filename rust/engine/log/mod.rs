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

mod ahead;
pub mod record;
pub mod replay;
pub mod ring;
#[cfg(any(
    ordofs_mutants,
    ordofs_mutant_r1_trust,
    ordofs_mutant_log_nowait,
    ordofs_mutant_log_split
))]
mod weakened;

use crate::engine::btree::ValueBuf;
use crate::engine::format::Superblock;
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::lock_class;
use crate::engine::mutant::{self, Mutant};
use crate::engine::txn::Txn;
use crate::os::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::os::{now, trace, Mutex, Time, Window};
use kernel::prelude::*;
use record::Record;
use replay::Replayed;
use ring::{Area, Batch};

/// More pending bytes than that are dropped, and the next fsync is a commit.
const MAX_PENDING: usize = 2 << 20;
/// Blocks of data of one batch that replay may have to read (8 MiB): more are flushed before. In crash
/// simulations, where writes are short, few, so that both ways are taken.
pub const MAX_UNFLUSHED: u64 = if cfg!(ordofs_mutants) { 4 } else { 2048 };

struct State {
    pending: KVVec<u8>,
    /// Records ever appended.
    ticket: u64,
    /// Bytes at the start of `pending` that the commit under way makes superfluous.
    frozen: usize,
    /// fsync needs this generation to be durable: records of it were lost.
    broken: u64,
    /// The newest generation that a record was appended for.
    newest: u64,
    /// Where the next batch goes.
    pos: u64,
    seq: u64,
    /// The oldest position that the newest durable superblock needs.
    live: u64,
}

/// The log of a filesystem.
pub struct Log {
    area: Area,
    state: Mutex<State>,
    writer: Mutex<()>,
    /// Records before this ticket are durable, in the log or by a commit.
    durable: AtomicU64,
    /// Records are not kept: replay is under way, or the mount does not log.
    off: AtomicBool,
    replay_time: Mutex<Option<Time>>,
    /// What the replay of this mount did.
    replayed: Mutex<Replayed>,
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
    fn resume(&self, pos: u64, seq: u64) {
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
    fn append_with(&self, generation: u64, put: impl FnOnce(&mut KVVec<u8>) -> Result) {
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

impl Txn<'_> {
    /// Records what this transaction did. Call it under the lock that orders the operation with others
    /// on the same objects. Cannot fail: a record that cannot be kept makes fsync commit.
    pub(crate) fn log(&self, r: &Record<'_>) {
        self.log_all(r, []);
    }

    /// As [`Txn::log`], for records of which a crash must leave all or none.
    pub(crate) fn log_all<'r>(
        &self,
        first: &Record<'_>,
        more: impl IntoIterator<Item = Record<'r>>,
    ) {
        let (generation, t) = (self.generation(), self.time());
        #[cfg(any(ordofs_mutants, ordofs_mutant_log_split))]
        if mutant::is(Mutant::LogSplit) {
            return self.log_each(first, more);
        }
        self.fs().log.append_with(generation, |out| {
            first.append(out, generation, t)?;
            more.into_iter()
                .try_for_each(|r| r.append(out, generation, t))
        });
        #[cfg(ordofs_mutants)]
        self.fs().fsync_beside();
    }
}

impl Fs {
    /// The time of an operation: now, or when a record that is being replayed was made.
    pub(crate) fn time(&self) -> Time {
        if self.log.off.load(Ordering::Acquire) {
            if let Some(t) = *self.log.replay_time.lock() {
                return t;
            }
        }
        now()
    }

    /// Makes an inode durable through the log. False: only a commit can do it.
    pub(crate) fn log_sync(&self, inode: &Inode) -> Result<bool> {
        if self.log.off.load(Ordering::Acquire) || self.log_broken() {
            return Ok(false);
        }
        self.log_inode(inode)?;
        let ticket = self.log.state.lock().ticket;
        self.log_flush(ticket)
    }

    /// Is there anything that happened and is neither in the log nor committed? Every fsync makes that
    /// durable too, whatever file it is for.
    pub(crate) fn log_pending(&self) -> bool {
        let s = self.log.state.lock();
        self.log.off.load(Ordering::Acquire)
            || !s.pending.is_empty()
            || s.broken > self.durable_generation()
            || self.log.durable.load(Ordering::Acquire) < s.ticket
    }

    fn log_broken(&self) -> bool {
        let broken = self.log.state.lock().broken;
        broken > self.durable_generation()
    }

    /// From now on until the running transaction is durable, fsync is a commit.
    pub(crate) fn break_log(&self) {
        let mut s = self.log.state.lock();
        s.broken = s.broken.max(self.running_generation());
    }

    /// Records what an inode has, without making anything durable. Not inside a Txn: it waits for the
    /// inode's ordered extents.
    pub(crate) fn log_data(&self, inode: &Inode) {
        if !self.log.off.load(Ordering::Acquire) && self.log_inode(inode).is_err() {
            self.break_log();
        }
    }

    /// What the replay of this mount did.
    pub fn replayed(&self) -> Replayed {
        *self.log.replayed.lock()
    }

    /// Blocks of the log that the newest superblock needs, and all blocks of the log.
    pub fn log_space(&self) -> (u64, u64) {
        let s = self.log.state.lock();
        (s.pos.saturating_sub(s.live), self.log.area.len)
    }

    /// Records the modified extents and the attributes of an inode.
    ///
    /// R1: under the exclusive side of `ordered_sem` nobody is between an ordered extent and its
    /// extent map; the ordered extents found then are waited for before extent maps are collected.
    fn log_inode(&self, inode: &Inode) -> Result {
        trace::fsync_start(self.dev(), inode.ino());
        let limit = {
            let _collecting = inode.collecting();
            inode.ordered.lock().next_id()
        };
        let flying = inode.ordered.lock().count_before(limit);
        if flying > 0 {
            trace::fsync_wait(self.dev(), inode.ino(), limit, flying);
        }
        self.ordered_until(inode, || inode.ordered.lock().count_before(limit) == 0);
        self.st.device().pass(Window::FsyncCollect)?;

        let collecting = inode.collecting();
        let mut m = inode.maps.write();
        // Together with the attributes, below.
        let mut writes = KVVec::new();
        let mut newest = 0;
        let mut v = ValueBuf::new();
        let mut at = 0;
        let (mut maps, mut extents) = (0, 0);
        let durable = self.durable_generation();
        while let Some(r) = m.ems.unsaved_from(&collecting, at) {
            at = r.end();
            maps += 1;
            let pinned = r.value.pinned != 0;
            // R1: what was in flight before the wait is complete; what is in flight now came later.
            let waited_for = pinned && r.value.pinned < limit;
            #[cfg(any(ordofs_mutants, ordofs_mutant_r1_trust))]
            if waited_for && mutant::is(Mutant::R1Trust) {
                self.log_on_trust(inode, &r, &mut writes)?;
                continue;
            }
            debug_assert!(!waited_for, "R1: fsync missed a write in flight");
            // The mapping with its checksums as the tree has it; one extent map may be several records.
            // Under a pinned map: what was completed there before, which the pinned map took off the
            // modified list.
            let mut from = r.start;
            while from < r.end() {
                let found = m.extent_at_or_after(&self.st, from, &mut v);
                // The maps that count as logged by now are in no record.
                let Some(e) = found.inspect_err(|_| self.break_log())? else {
                    break;
                };
                if e.start >= r.end() {
                    break;
                }
                let part = e.slice(r.start, r.end());
                from = part.end();
                if e.unwritten || (pinned && e.generation <= durable) {
                    continue;
                }
                let csums = e.csum_slice(v.as_slice(), part.start, part.end());
                let generation = if pinned {
                    e.generation
                } else {
                    r.value.generation
                };
                let w = Record::Write {
                    ino: inode.ino(),
                    start: part.start,
                    phys: part.phys,
                    csums,
                };
                newest = newest.max(generation);
                if writes.len() > MAX_PENDING || w.append(&mut writes, generation, now()).is_err() {
                    self.break_log();
                    return Ok(());
                }
                extents += 1;
            }
            if !pinned {
                m.ems.set_logged(&r);
            }
        }
        // Another fsync takes the size along with all of the extents or without: else a crash could leave
        // a hole below the new size. The size goes first, nothing may be mapped behind it. Writes that
        // complete change it under `maps`; everything else has a record of its own, which `meta` orders
        // with this one.
        let meta = inode.meta.lock();
        let generation = inode.changed.load(Ordering::Acquire);
        let attrs = Record::Attrs {
            ino: inode.ino(),
            attrs: meta.attrs,
        };
        self.log.append_with(newest.max(generation), |out| {
            attrs.append(out, generation, now())?;
            Ok(out.extend_from_slice(&writes, GFP_KERNEL)?)
        });
        drop(meta);
        trace::fsync_collect(self.dev(), inode.ino(), maps, extents);
        Ok(())
    }

    /// Writes what is pending until `ticket` is durable. False: only a commit can do it.
    fn log_flush(&self, ticket: u64) -> Result<bool> {
        loop {
            if self.log.durable.load(Ordering::Acquire) >= ticket {
                return Ok(!self.log_broken());
            }
            let writer = self.log.writer.lock();
            if self.log.durable.load(Ordering::Acquire) >= ticket {
                return Ok(!self.log_broken());
            }
            let mut strict = None;
            let (batch, upto, pos, seq, live) = loop {
                // The renames among the records need their data.
                self.pay_owed();
                let mut s = self.log.state.lock();
                if self.owed.any() {
                    drop(s);
                    strict.get_or_insert_with(|| self.owed.be_strict());
                    continue;
                }
                // Under the lock that takes the records: once they are gone, what comes after them must
                // not get into the log before their commit.
                if s.broken > self.durable_generation() {
                    return Ok(false);
                }
                let b = core::mem::replace(&mut s.pending, KVVec::new());
                s.frozen = 0;
                break (b, s.ticket, s.pos, s.seq, s.live);
            };
            drop(strict);
            let blocks = ring::blocks_of(batch.len());
            let fits = batch.len() <= ring::MAX_PAYLOAD && pos + blocks <= live + self.log.area.len;
            #[cfg(any(ordofs_mutants, ordofs_mutant_log_nowait))]
            if fits && !batch.is_empty() && mutant::is(Mutant::LogNoWait) {
                let at = Batch {
                    pos,
                    seq,
                    data_durable: false,
                };
                self.flush_late(writer, &batch, at, upto)?;
                continue;
            }
            let written = if batch.is_empty() {
                // A commit held it all already.
                Ok(())
            } else if fits {
                let written = self.write_batch(&batch, pos, seq);
                let error = written.err().map_or(0, |e| e.to_errno());
                trace::log_batch(self.dev(), seq, pos, blocks, batch.len() as u64, error);
                written
            } else {
                Err(ENOSPC)
            };
            let mut s = self.log.state.lock();
            if let Err(e) = written {
                // The records are lost: everything up to now needs a commit.
                s.broken = s.broken.max(self.running_generation());
                return if e.to_errno() == EIO.to_errno() {
                    Err(e)
                } else {
                    Ok(false)
                };
            }
            if !batch.is_empty() {
                s.pos = pos + blocks;
                s.seq = seq + 1;
                self.log.batches.fetch_add(1, Ordering::Relaxed);
            }
            drop(s);
            self.log.durable.store(upto, Ordering::Release);
            // Not before: the next batch is written when this one, and its data, are durable.
            drop(writer);
        }
    }

    /// Writes one batch, and makes it and its data durable. EIO: the device may have lost what had been
    /// written; any other error: nothing happened, and a commit may be tried.
    fn write_batch(&self, batch: &[u8], pos: u64, seq: u64) -> Result {
        let device = self.st.device();
        device.pass(Window::LogBatch)?;
        let data_durable = record::data_blocks(batch) > MAX_UNFLUSHED;
        if data_durable && !mutant::is(Mutant::LogFlagOnly) {
            // Not an error that may end in a commit: see `ring::write`.
            device.flush().map_err(|_| EIO)?;
        }
        let at = Batch {
            pos,
            seq,
            data_durable,
        };
        ring::write(&self.st, self.log.area, at, batch, true)?;
        self.nothing_lost()
    }
}
