// SPDX-License-Identifier: GPL-2.0

//! Operations on the space of a file: truncate, punch, preallocate, zero.
//!
//! The caller holds `i_rwsem`. R3: it also holds the invalidate lock exclusively, from before it
//! invalidates the page cache of the range until these functions return. They wait for writes in
//! flight.
//!
//! Removing mappings may touch any number of bitmaps, so a long range takes several transactions,
//! each with a bounded reservation. A truncation that takes more than one is marked in the inode
//! record, with the first block to be freed (the *cut*), and is listed in the orphan tree, so that
//! the next mount finishes it. Whatever reaches the blocks behind the cut before that also finishes
//! it first: [`Fs::finish_truncation`].
//!
//! Locks: none of an inode at entry; inside, `maps` and `meta` under a transaction. Ranges are
//! half-open, in file blocks; sizes are in bytes.
//!
//! Tests: tools/engine/tests/truncation.rs, log_size.rs, full_disk.rs, full_writes.rs,
//! replay_cost.rs, tools/engine/tests/forecast/main.rs; tools/models/tests/rules/r3.rs, r4.rs;
//! tests/vm/t/025-sizes.sh, 043-r3.sh, 060-data-paths.sh.

use crate::engine::alloc::ag::{Owner, GROUP_NODES};
use crate::engine::alloc::{Near, Priority};
use crate::engine::format::extent::Extent;
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::log::record::Record;
use crate::engine::mutant::{self, Mutant};
use crate::engine::ops::extents::{Budget, Old};
use crate::engine::txn::Txn;
use crate::engine::types::*;
use crate::os::{NoFs, Shared};
use kernel::prelude::*;

/// What one transaction may remove: leaves of the extent tree or single records, groups in which
/// that frees blocks, and the nodes of the extent tree that it may dirty. A transaction reserves the
/// nodes, and those of the records of the groups, each of which may lie in another AG. The smaller
/// sets are for disks so full that the pool cannot hold the first one: making room must always work.
const BATCHES: [(usize, u64, u64); 3] = [(64, 64, 160), (8, 8, 32), (1, 1, 8)];

/// How far [`Fs::resize`] goes, and whether it appends a log record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resize {
    /// Completes the truncation and appends a log record.
    Logged,
    /// Completes the truncation without a log record.
    Silent,
    /// Stops after one transaction, without a log record, if the rest can be left to
    /// [`Fs::clean_orphans`].
    Begin,
}

/// The most nodes that a run of preallocated blocks dirties: of the extent tree, the inode's, and
/// the records of the one group in which the run lies.
const PREALLOCATE_NODES: u64 = 15 + GROUP_NODES;

impl Fs {
    /// Begins a transaction that removes mappings, and says how many it may remove. ENOSPC if not
    /// even the smallest reservation is possible.
    fn begin_removal(&self) -> Result<(Txn<'_>, Budget)> {
        let mut last = ENOSPC;
        for (steps, groups, nodes) in BATCHES {
            let all = nodes + GROUP_NODES * groups;
            // No commit would help.
            if groups > 1 && !self.space.can_ever_reserve(all * self.space.copies()) {
                continue;
            }
            match self.begin(all, Priority::Reclaim) {
                Ok(txn) => return Ok((txn, Budget { steps, groups })),
                Err(e) if e == ENOSPC => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
    }

    /// Records the inode's modified extents, if there are any, before a record of a size is
    /// appended. Without this, the fsync of another file could write the record of the size alone,
    /// and a crash would leave a hole below it. And if the caller has just written zeroes behind
    /// the new end into the last block, a crash would leave the old bytes, which come back when the
    /// file grows again.
    ///
    /// Must not be called inside a transaction.
    fn log_before_size(&self, inode: &Inode) {
        let unsaved = {
            let right = inode.collecting();
            inode
                .maps
                .read()
                .extent_maps
                .unsaved_from(&right, 0)
                .is_some()
        };
        if unsaved {
            self.log_data(inode);
        }
    }

    /// Sets the on-disk size in bytes, and frees what lies behind it. EFBIG beyond 2^63 - 1, EIO,
    /// EROFS. After another error a part may be gone; the rest goes later.
    pub fn set_size(&self, inode: &Shared<Inode>, bytes: u64) -> Result {
        self.resize(inode, bytes, Resize::Logged)
    }

    /// [`Fs::set_size`] in one of its variants.
    pub(crate) fn resize(&self, inode: &Shared<Inode>, bytes: u64, how: Resize) -> Result {
        let log = how == Resize::Logged;
        if bytes > i64::MAX as u64 {
            return Err(EFBIG);
        }
        let from = bytes_to_blocks(bytes);
        if log && bytes > 0 {
            self.log_before_size(inode);
        }
        self.wait_ordered(inode, from, MAX_FILE_BLOCKS);
        self.release_delalloc(inode, from, MAX_FILE_BLOCKS.saturating_sub(from));
        self.finish_truncation(inode, from)?;
        let mut first = true;
        loop {
            let (mut txn, batch) = self.begin_removal()?;
            txn.dirty(inode)?;
            let mut m = inode.maps.write();
            m.extent_maps
                .invalidate(from, MAX_FILE_BLOCKS.saturating_sub(from))?;
            if let Some(kept) = m.kept.take() {
                self.space.release_kept(kept);
            }
            let r = self.remove_extents(&mut txn, &mut m, from, MAX_FILE_BLOCKS, batch, Old::Free);
            inode.bump(&mut m);
            m.extent_maps.recount(&self.em_count);
            let done = matches!(r, Ok(at) if at >= MAX_FILE_BLOCKS);
            let mut meta = inode.meta.lock();
            // Until the last step the smaller of both sizes counts, so that no crash shows a size
            // with a part of its data gone.
            if first || done {
                meta.attrs.size = if done {
                    bytes
                } else {
                    bytes.min(meta.attrs.size)
                };
                first = false;
                meta.raise_change();
                if log {
                    txn.log(&Record::Size {
                        ino: inode.ino(),
                        bytes,
                    });
                }
            }
            if done {
                meta.end_cut();
                return Ok(());
            }
            // Also after an error, because a part may be gone. Nothing is mapped at the limit.
            if inode.kind() == S_IFREG && from < MAX_FILE_BLOCKS {
                meta.begin_cut(from);
            }
            r?;
            if how == Resize::Begin && meta.attrs.size == bytes {
                return Ok(());
            }
        }
    }

    /// Finishes a truncation that an error ended in the middle. Called before anything writes or
    /// allocates below block `end`, or makes the file that long: what the truncation left behind
    /// the end of the file would come back otherwise. Does nothing if `end` is not behind the cut.
    ///
    /// No write is in flight behind the cut, because the truncation waited for earlier ones, and
    /// later ones come through here. Must not be called inside a transaction.
    ///
    /// This appends no log record. A replay that begins in the middle of the truncation finds the
    /// cut in the inode record, and comes through here as well before it maps anything behind it.
    pub(crate) fn finish_truncation(&self, inode: &Shared<Inode>, end: u64) -> Result {
        while inode.left_behind(end).is_some() && !mutant::is(Mutant::LeftBehind) {
            self.truncation_step(inode, end)?;
        }
        Ok(())
    }

    /// One transaction of [`Fs::finish_truncation`].
    pub(super) fn truncation_step(&self, inode: &Shared<Inode>, end: u64) -> Result {
        let (mut txn, batch) = self.begin_removal()?;
        txn.dirty(inode)?;
        let mut m = inode.maps.write();
        // Another task may have been faster, and its write may be in flight there by now.
        let Some(from) = inode.left_behind(end) else {
            return Ok(());
        };
        m.extent_maps
            .invalidate(from, MAX_FILE_BLOCKS.saturating_sub(from))?;
        let r = self.remove_extents(&mut txn, &mut m, from, MAX_FILE_BLOCKS, batch, Old::Free);
        inode.bump(&mut m);
        m.extent_maps.recount(&self.em_count);
        if r? >= MAX_FILE_BLOCKS {
            inode.meta.lock().end_cut();
        }
        Ok(())
    }

    /// Replay of a truncation: does as much of it as one transaction may. A whole replay is one
    /// transaction, and must not hold the bitmaps of all groups of a large file in memory.
    ///
    /// [`Fs::clean_orphans`] does the rest, or [`Fs::finish_truncation`] if the file grows before
    /// that. In the second case little is left: what made the file grow came after the whole
    /// truncation, and so after the commits between the transactions of it.
    pub(crate) fn begin_truncate(&self, inode: &Shared<Inode>, bytes: u64) -> Result {
        self.resize(inode, bytes, Resize::Begin)
    }

    /// Unmaps and frees file blocks `[start, start + len)`. After an error a part may be gone. Must
    /// not be called inside a transaction.
    pub fn punch(&self, inode: &Shared<Inode>, start: u64, len: u64) -> Result {
        let end = start.saturating_add(len).min(MAX_FILE_BLOCKS);
        if start >= end {
            return Ok(());
        }
        self.wait_ordered(inode, start, end - start);
        self.release_delalloc(inode, start, end - start);
        let mut at = start;
        while at < end {
            let (mut txn, batch) = self.begin_removal()?;
            txn.dirty(inode)?;
            let mut m = inode.maps.write();
            m.extent_maps.invalidate(at, end - at)?;
            let r = self.remove_extents(&mut txn, &mut m, at, end, batch, Old::Free);
            inode.bump(&mut m);
            m.extent_maps.recount(&self.em_count);
            inode.meta.lock().raise_change();
            // Under `maps`, which orders this record with the extents that an fsync records.
            txn.log(&Record::Punch {
                ino: inode.ino(),
                start: at,
                len: r.unwrap_or(end) - at,
            });
            at = r?;
        }
        Ok(())
    }

    /// Allocates unwritten blocks for the holes in file blocks `[start, start + len)`. Leaves
    /// delalloc alone, because that has a reservation. Raises the on-disk size to `new_size` bytes
    /// at the end. EFBIG. On ENOSPC, what was allocated before stays, as on ext4 and XFS. Must not
    /// be called inside a transaction.
    pub fn preallocate(
        &self,
        inode: &Shared<Inode>,
        start: u64,
        len: u64,
        new_size: Option<u64>,
    ) -> Result {
        let end = start
            .checked_add(len)
            .filter(|e| *e <= MAX_FILE_BLOCKS)
            .ok_or(EFBIG)?;
        self.finish_truncation(inode, end)?;
        let _nofs = NoFs::enter();
        let mut at = start;
        let mut hint = None;
        // The end of the last hole for which there was room.
        let mut room_to = start;
        while at < end {
            let (hole, goal) = {
                let m = inode.maps.read();
                let v = m.visible(&self.node_store, at, end - at)?;
                if v.kind != MapKind::Hole {
                    at += v.len;
                    hint = Some(v.phys + v.len).filter(|_| v.kind != MapKind::Delalloc);
                    continue;
                }
                (v.len, hint)
            };
            let want = hole.min(crate::engine::format::GROUP_BLOCKS);
            // ENOSPC now is better than after the disk is full of half a file. Asked once for each
            // hole, because the nodes that the operation needs meanwhile do not make the rest
            // hopeless.
            if at >= room_to {
                if !self.room_for(hole)? {
                    return Err(ENOSPC);
                }
                room_to = at + hole;
            }
            self.reserve(want)?;
            let done = self.preallocate_run(inode, at, want, goal);
            self.space
                .unreserve(want - *done.as_ref().map_or(&0, |(n, _)| n));
            let (n, next) = done?;
            at += n;
            hint = Some(next);
        }
        match new_size {
            Some(size) => self.raise_size(inode, size),
            None => Ok(()),
        }
    }

    /// Raises the on-disk size to at least `bytes`. For fallocate, and for a punch that drops dirty
    /// pages: the write that would have raised the size never comes. Must not be called inside a
    /// transaction.
    pub fn raise_size(&self, inode: &Shared<Inode>, bytes: u64) -> Result {
        if inode.meta.lock().attrs.size >= bytes {
            return Ok(());
        }
        self.finish_truncation(inode, bytes_to_blocks(bytes))?;
        self.log_before_size(inode);
        let mut txn = self.begin(4, Priority::Reclaim)?;
        txn.dirty(inode)?;
        let mut meta = inode.meta.lock();
        meta.attrs.size = meta.attrs.size.max(bytes);
        meta.raise_change();
        txn.log(&Record::Grow {
            ino: inode.ino(),
            bytes,
        });
        Ok(())
    }

    /// Preallocates one run of at most `want` blocks at file block `at`, from the caller's
    /// reservation. Returns the number of blocks, 0 if the hole is filled by now, and the disk
    /// block behind them.
    fn preallocate_run(
        &self,
        inode: &Shared<Inode>,
        at: u64,
        want: u64,
        goal: Option<u64>,
    ) -> Result<(u64, u64)> {
        let mut txn = self.begin(PREALLOCATE_NODES, Priority::Reclaim)?;
        txn.dirty(inode)?;
        let mut m = inode.maps.write();
        // Writeback of a page that was dirtied meanwhile may have filled the hole.
        let v = m.visible(&self.node_store, at, want)?;
        if v.kind != MapKind::Hole {
            return Ok((0, goal.unwrap_or(0)));
        }
        // A hole has no extent map, so none has to be dropped.
        let goal = match goal {
            None => self.goal(&m, at)?,
            some => some,
        };
        let (node_store, want) = (&self.node_store, v.len.min(want));
        // Preallocation behind the end uses what is kept there.
        let mut kept = m.kept.take_if(|k| Some(k.start) == goal);
        let (_, home) = inode.size_and_home();
        let near = Near { goal, home };
        let run = self
            .space
            .append(node_store, want, near, Owner::Running, &mut kept, 0)?;
        txn.charge(run.touched);
        let (phys, n) = (run.start, run.len);
        let e = Extent {
            start: at,
            phys,
            len: n,
            unwritten: true,
            csums: false,
            epoch: txn.epoch(),
        };
        if let Err(err) = self.add_extent(&mut txn, &mut m, &e, &[]) {
            // The next commit frees these blocks. Until then they count as allocated, while the
            // caller returns its whole reservation.
            self.space.reserve_forced(n);
            self.free_extent(&mut txn, phys, n)?;
            return Err(err);
        }
        inode.meta.lock().raise_change();
        txn.log(&Record::Preallocate {
            ino: inode.ino(),
            start: at,
            phys,
            len: n,
        });
        inode.bump(&mut m);
        Ok((n, phys + n))
    }

    /// Makes file blocks `[start, start + len)` read as zeroes, and keeps or allocates space for
    /// them: a punch and a preallocation. Must not be called inside a transaction.
    pub fn zero_range(
        &self,
        inode: &Shared<Inode>,
        start: u64,
        len: u64,
        new_size: Option<u64>,
    ) -> Result {
        self.punch(inode, start, len)?;
        self.preallocate(inode, start, len, new_size)
    }
}
