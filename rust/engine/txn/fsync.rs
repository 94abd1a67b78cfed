// SPDX-License-Identifier: GPL-2.0

//! fsync: what an inode has goes into the log, and what is pending in the log to the device. How the log
//! works is told in [`crate::engine::log`].

use super::Txn;
use crate::engine::btree::ValueBuf;
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::log::record::{self, Record};
use crate::engine::log::ring::{self, Batch};
use crate::engine::log::state::{MAX_PENDING, MAX_UNFLUSHED};
use crate::engine::mutant::{self, Mutant};
use crate::os::atomic::Ordering;
use crate::os::{now, trace, Time, Window};
use kernel::prelude::*;

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
    pub(super) fn log_flush(&self, ticket: u64) -> Result<bool> {
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
