// SPDX-License-Identifier: GPL-2.0

//! The fast fsync: collects an inode's records, and writes what is pending to the log.
//! [`crate::engine::log`] says how the log works.
//!
//! 1. `log_inode` waits for the inode's ordered extents, then records its modified extents with
//!    their checksums, and its attributes. R1: it collects under the exclusive side of
//!    `ordered_sem`.
//! 2. `log_flush` pays the debts of renames, takes everything that is pending, and writes it as one
//!    batch with one flush. Fsyncs that arrive meanwhile wait for the lock of the log's writer and
//!    share the next batch. R8: that lock is held across the flush.
//!
//! If the log is full or records were dropped, the caller commits instead. After an error it shuts
//! the filesystem down, because the device may have dropped what it had accepted.
//!
//! Locks: the log's writer, outside of any transaction; `ordered_sem`, `maps`, `meta` of one inode,
//! in this order; the log's state, never across I/O. Tickets count appends. Positions and areas are
//! in blocks.
//!
//! Tests: tools/engine/tests/log_flushes.rs, log_loss.rs, log_recovery.rs, log_size.rs;
//! tools/crash; tools/models/tests/rules/r1.rs, r2.rs, r8.rs; tests/vm/t/041-r1.sh, 042-r2.sh,
//! 070-fsync-cost.sh.

use super::Txn;
use crate::engine::btree::ValueBuf;
use crate::engine::fs::Fs;
use crate::engine::inode::maps::extent_map::ExtentMap;
use crate::engine::inode::maps::range::Range;
use crate::engine::inode::maps::Maps;
use crate::engine::inode::Inode;
use crate::engine::invariant::{check, Invariant};
use crate::engine::log::header::{self, Batch};
use crate::engine::log::record::{self, Record};
use crate::engine::log::ring::{self, Flush};
use crate::engine::log::state::{MAX_PENDING, MAX_UNFLUSHED};
use crate::engine::mutant::{self, Mutant};
use crate::os::atomic::Ordering;
use crate::os::{now, trace, Time, Window};
use kernel::prelude::*;

/// What a fast fsync has collected from an inode.
struct Collected {
    /// Encoded records of writes.
    writes: KVVec<u8>,
    /// The newest generation among the records.
    newest: u64,
    /// The number of records.
    extents: u64,
    /// The newest durable generation when collecting began.
    durable: u64,
    /// The time of all records.
    time: Time,
    value: ValueBuf,
}

/// What goes into the next batch, and where it goes.
pub(super) struct Taken {
    pub(super) records: KVVec<u8>,
    /// Records up to this ticket are in the batch, or durable already.
    pub(super) upto: u64,
    pos: u64,
    seq: u64,
    flushed: u64,
    live: u64,
}

impl Txn<'_> {
    /// Records what this transaction did. The caller holds the lock that orders the operation with
    /// others on the same objects, so that the log has them in the same order. Cannot fail: if the
    /// record cannot be kept, the next fsync commits.
    pub(crate) fn log(&self, r: &Record<'_>) {
        self.log_all(r, []);
    }

    /// Like [`Txn::log`], for several records of which a crash must leave all or none.
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
    /// The time of an operation: now, or during replay the time in the record.
    pub(crate) fn time(&self) -> Time {
        if self.log.off.load(Ordering::Acquire) {
            if let Some(t) = *self.log.replay_time.lock() {
                return t;
            }
        }
        now()
    }

    /// Makes an inode durable through the log. Returns false if only a commit can do it. EIO if the
    /// device may have lost something. Must not be called inside a transaction.
    pub(crate) fn log_sync(&self, inode: &Inode) -> Result<bool> {
        if self.log.off.load(Ordering::Acquire) || self.log_broken() {
            return Ok(false);
        }
        self.log_inode(inode)?;
        let ticket = self.log.state.lock().ticket;
        self.log_flush(ticket)
    }

    /// Has any operation returned that is neither in the log nor committed? An fsync of any file
    /// makes such operations durable too.
    pub(crate) fn log_pending(&self) -> bool {
        let s = self.log.state.lock();
        self.log.off.load(Ordering::Acquire)
            || !s.pending.is_empty()
            || s.broken > self.durable_generation()
            || self.log.durable.load(Ordering::Acquire) < s.ticket
    }

    /// Were records dropped that are not durable by a commit yet?
    pub(crate) fn log_broken(&self) -> bool {
        let broken = self.log.state.lock().broken;
        broken > self.durable_generation()
    }

    /// Makes every fsync commit until the running transaction is durable.
    pub(crate) fn break_log(&self) {
        let mut s = self.log.state.lock();
        s.broken = s.broken.max(self.running_generation());
    }

    /// Records an inode's modified extents and attributes, and makes nothing durable. If that
    /// fails, the next fsync commits. Must not be called inside a transaction, because it waits for
    /// the inode's ordered extents.
    pub(crate) fn log_data(&self, inode: &Inode) {
        if !self.log.off.load(Ordering::Acquire) && self.log_inode(inode).is_err() {
            self.break_log();
        }
    }

    /// The number of log blocks that the newest superblock needs, and the length of the log in
    /// blocks.
    pub fn log_space(&self) -> (u64, u64) {
        let s = self.log.state.lock();
        (s.pos.saturating_sub(s.live), self.log.area.len)
    }

    /// Records the modified extents and the attributes of an inode.
    ///
    /// R1: under the exclusive side of `ordered_sem` no task is between inserting an ordered extent
    /// and inserting its extent map. So the first look finds the ordered extent of every mapping
    /// that is visible by then, and the wait is for those. A mapping in flight that is found after
    /// the wait belongs to a write that began later.
    fn log_inode(&self, inode: &Inode) -> Result {
        trace::fsync_start(self.dev(), inode.ino());
        let limit = self.wait_for_writes(inode);
        self.node_store.device().pass(Window::FsyncCollect)?;

        let collecting = inode.collecting();
        let mut m = inode.maps.write();
        // Appended together with the attributes, below.
        let mut out = Collected {
            writes: KVVec::new(),
            newest: 0,
            extents: 0,
            durable: self.durable_generation(),
            time: now(),
            value: ValueBuf::new(),
        };
        let mut at = 0;
        let mut maps = 0;
        while let Some(r) = m.extent_maps.unsaved_from(&collecting, at) {
            at = r.end();
            maps += 1;
            let in_flight = r.value.in_flight != 0;
            // R1: a write that was in flight before the wait is complete now; one that is in flight
            // now began after it.
            let waited_for = in_flight && r.value.in_flight < limit;
            #[cfg(any(ordofs_mutants, ordofs_mutant_r1_trust))]
            if waited_for && mutant::is(Mutant::R1Trust) {
                self.log_on_trust(inode, &r, &mut out.writes)?;
                continue;
            }
            check(
                Invariant::R1,
                !waited_for,
                format_args!("R1: fsync missed a write in flight"),
            )?;
            if !self.collect_extents(inode, &m, &r, &mut out)? {
                self.break_log();
                return Ok(());
            }
            if !in_flight {
                m.extent_maps.set_logged(&r);
            }
        }
        // Size and extents are appended as one unit, so that the batch of another fsync has both or
        // neither; otherwise a crash could leave a hole below the new size. The size comes first,
        // because nothing may be mapped behind the size. Completing writes change the size
        // under `maps`, which is held here. Every other change of attributes has a record of its
        // own, and `meta` orders that record with this one.
        let meta = inode.meta.lock();
        // A deletion cuts the file without a record, and replay takes no smaller size out of
        // attributes. The record of the last name that went is all that the log needs.
        if meta.doomed {
            return Ok(());
        }
        let generation = inode.changed.load(Ordering::Acquire);
        let attrs = Record::Attrs {
            ino: inode.ino(),
            attrs: meta.attrs,
        };
        self.log.append_with(out.newest.max(generation), |pending| {
            attrs.append(pending, generation, out.time)?;
            Ok(pending.extend_from_slice(&out.writes, GFP_KERNEL)?)
        });
        drop(meta);
        trace::fsync_collect(self.dev(), inode.ino(), maps, out.extents);
        Ok(())
    }

    /// R1: waits for the ordered extents that the inode has now. Returns the number at which those
    /// of later writes begin.
    fn wait_for_writes(&self, inode: &Inode) -> u64 {
        let limit = {
            let _collecting = inode.collecting();
            inode.ordered.lock().next_id()
        };
        let flying = inode.ordered.lock().count_before(limit);
        if flying > 0 {
            trace::fsync_wait(self.dev(), inode.ino(), limit, flying);
        }
        self.ordered_until(inode, || inode.ordered.lock().count_before(limit) == 0);
        limit
    }

    /// Records the extents under one extent map: the mapping with its checksums as the extent tree
    /// has it; one extent map may be several records. If the map is in flight, this is the
    /// completed mapping under it: the map in flight took that one's place on the list of modified
    /// maps (R2), and has the newest generation of what it took the place of. A part of that may be
    /// older: then the record says what the tree has anyway. Returns false if there are too many, or
    /// no memory.
    fn collect_extents(
        &self,
        inode: &Inode,
        m: &Maps,
        r: &Range<ExtentMap>,
        out: &mut Collected,
    ) -> Result<bool> {
        // Nothing under a map in flight needs a record, if all of it is durable.
        if r.value.in_flight != 0 && r.value.generation <= out.durable {
            return Ok(true);
        }
        let mut from = r.start;
        while from < r.end() {
            let found = m.extent_at_or_after(&self.node_store, from, &mut out.value);
            // Maps that are marked as logged by now are in no record, so fsync must commit.
            let Some(e) = found.inspect_err(|_| self.break_log())? else {
                break;
            };
            if e.start >= r.end() {
                break;
            }
            let part = e.slice(r.start, r.end());
            from = part.end();
            if e.unwritten {
                continue;
            }
            let generation = r.value.generation;
            let w = Record::Write {
                ino: inode.ino(),
                start: part.start,
                phys: part.phys,
                csums: e.csum_slice(out.value.as_slice(), part.start, part.end()),
            };
            out.newest = out.newest.max(generation);
            if out.writes.len() > MAX_PENDING
                || w.append(&mut out.writes, generation, out.time).is_err()
            {
                return Ok(false);
            }
            out.extents += 1;
        }
        Ok(true)
    }

    /// Writes batches until the append with this ticket is durable. Returns false if only a commit
    /// can make it durable. EIO if the device may have lost something, EUCLEAN if replay would
    /// refuse the batch.
    pub(super) fn log_flush(&self, ticket: u64) -> Result<bool> {
        loop {
            if self.log.durable.load(Ordering::Acquire) >= ticket {
                return Ok(!self.log_broken());
            }
            let writer = self.log.writer.lock();
            if self.log.durable.load(Ordering::Acquire) >= ticket {
                return Ok(!self.log_broken());
            }
            let Some(taken) = self.take_pending()? else {
                return Ok(false);
            };
            let (batch, pos, seq) = (&taken.records, taken.pos, taken.seq);
            let blocks = header::blocks_of(batch.len());
            let room = taken.live + self.log.area.len;
            let fits = batch.len() <= header::MAX_PAYLOAD && pos + blocks <= room;
            #[cfg(any(ordofs_mutants, ordofs_mutant_log_nowait))]
            if fits && !batch.is_empty() && mutant::is(Mutant::LogNoWait) {
                self.flush_late(writer, &taken)?;
                continue;
            }
            let written = if batch.is_empty() {
                // A commit made all of it durable meanwhile.
                Ok(())
            } else if fits {
                let written = self.write_batch(&taken);
                let error = written.err().map_or(0, |e| e.to_errno());
                trace::log_batch(self.dev(), seq, pos, blocks, batch.len() as u64, error);
                written
            } else {
                Err(ENOSPC)
            };
            let mut s = self.log.state.lock();
            let written = written.and_then(|()| {
                check(
                    Invariant::LogPosition,
                    (s.pos, s.seq) == (pos, seq),
                    format_args!("batch {seq} was written at {pos}, the log is at {}", s.pos),
                )
            });
            if let Err(e) = written {
                // The records of the batch are gone from memory, so fsync must commit.
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
                s.flushed = seq;
                self.log.batches.fetch_add(1, Ordering::Relaxed);
            }
            drop(s);
            self.log.durable.store(taken.upto, Ordering::Release);
            // R8: held until here, so that the next batch is written only after this one and its
            // data are durable.
            drop(writer);
        }
    }

    /// Takes the pending records for a batch, after the data that renames among them owe has been
    /// written. `None` if records were dropped, so that only a commit can help. EUCLEAN if replay
    /// would refuse them.
    fn take_pending(&self) -> Result<Option<Taken>> {
        let mut strict = None;
        loop {
            // Renames among the records owe data, which must be there first.
            self.pay_owed();
            let mut s = self.log.state.lock();
            if self.owed.any() {
                drop(s);
                strict.get_or_insert_with(|| self.owed.be_strict());
                continue;
            }
            // Checked under the lock under which the records are taken. Once records were
            // dropped, later ones must not get into the log before the commit of the dropped
            // ones.
            if s.broken > self.durable_generation() {
                return Ok(None);
            }
            // Replay refuses a batch that breaks this.
            let durable = self.durable_generation();
            check(
                Invariant::LogGeneration,
                s.pending.is_empty() || s.newest <= durable.saturating_add(2),
                format_args!("a record of generation {}, {durable} is durable", s.newest),
            )?;
            let records = core::mem::replace(&mut s.pending, KVVec::new());
            s.frozen = 0;
            return Ok(Some(Taken {
                records,
                upto: s.ticket,
                pos: s.pos,
                seq: s.seq,
                flushed: s.flushed,
                live: s.live,
            }));
        }
    }

    /// Writes one batch, and makes it and its data durable. EIO if the device may have lost what
    /// was written. After any other error nothing was written, and the caller may try a commit.
    fn write_batch(&self, taken: &Taken) -> Result {
        let device = self.node_store.device();
        device.pass(Window::LogBatch)?;
        let data_durable = record::data_blocks(&taken.records) > MAX_UNFLUSHED;
        if data_durable && !mutant::is(Mutant::LogFlagOnly) {
            // EIO, so that the caller does not try a commit: see `ring::write`.
            device.flush().map_err(|_| EIO)?;
            // An earlier flush that failed may have cost the data.
            self.check_device()?;
        }
        let at = self.batch_of(taken, data_durable);
        let (area, records) = (self.log.area, &taken.records);
        ring::write(&self.node_store, area, at, records, Flush::Now)?;
        self.check_device()
    }

    /// The batch that the records become.
    pub(super) fn batch_of(&self, taken: &Taken, data_durable: bool) -> Batch {
        let own = mutant::is(Mutant::LogFlushedOwn);
        Batch {
            pos: taken.pos,
            seq: taken.seq,
            flushed: if own { taken.seq } else { taken.flushed },
            generation: self.durable_generation(),
            data_durable,
        }
    }
}
