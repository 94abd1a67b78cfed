// SPDX-License-Identifier: GPL-2.0

//! Operations on the space of a file: truncate, punch, preallocate, zero.
//!
//! The caller holds i_rwsem and, as R3 says, the invalidate lock exclusively from before the page
//! cache of the range was invalidated until these return; writes in flight are waited for. Long
//! ranges take several transactions. A truncation that takes more than one says so in the inode
//! record ([`STATE_TRUNCATE`]) and the orphan tree, and the next mount finishes it. So does
//! whatever comes to the blocks behind the cut before that: [`Fs::finish_truncation`].

use crate::engine::alloc::ag::Owner;
use crate::engine::alloc::Priority;
use crate::engine::format::extent::Extent;
use crate::engine::format::inode::STATE_TRUNCATE;
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::log::record::Record;
use crate::engine::mutant::{self, Mutant};
use crate::engine::ops::extents::{Budget, Old};
use crate::engine::txn::Txn;
use crate::engine::types::*;
use crate::os::{NoFs, Shared};
use kernel::prelude::*;

/// What one transaction removes: records, the groups that they free blocks in, and nodes of the
/// extent tree that this may dirty. It reserves the nodes and one for the bitmap of each group. The
/// smaller batches are for disks so full that the pool does not even hold the first: making room
/// must always work.
const BATCHES: [(usize, u64, u64); 3] = [(64, 64, 96), (8, 8, 24), (1, 1, 8)];

/// How [`Fs::resize`] goes about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resize {
    /// To the end, and with a record in the log.
    Logged,
    /// To the end, without one.
    Silent,
    /// One transaction's share of it, if what is left behind the new end can be left to
    /// [`Fs::clean_orphans`].
    Begin,
}

/// Nodes that a run of preallocated blocks may dirty: of the extent tree, the inode's, and the
/// bitmap of the one group that the run lies in.
const PREALLOCATE_NODES: u64 = 15 + 1;

impl Fs {
    /// A transaction that removes mappings, and how many it may remove.
    fn begin_removal(&self) -> Result<(Txn<'_>, Budget)> {
        let mut last = ENOSPC;
        for (records, groups, nodes) in BATCHES {
            match self.begin(nodes + groups, Priority::Reclaim) {
                Ok(txn) => return Ok((txn, Budget { records, groups })),
                Err(e) if e == ENOSPC => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
    }

    /// The log must not have a size without the data that was written below it: another file's
    /// fsync takes along the record of the size, and after a crash there would be a hole. Nor
    /// without the zeroes behind the new end of a file that the caller has just written into its
    /// last block: what was cut off would come back when the file grows again. Not inside a Txn.
    fn log_before_size(&self, inode: &Inode) {
        let unsaved = {
            let right = inode.collecting();
            inode.maps.read().ems.unsaved_from(&right, 0).is_some()
        };
        if unsaved {
            self.log_data(inode);
        }
    }

    /// Sets the on-disk size in bytes; down: frees what lies behind it. EFBIG beyond 2^63 - 1.
    pub fn set_size(&self, inode: &Shared<Inode>, bytes: u64) -> Result {
        self.resize(inode, bytes, Resize::Logged)
    }

    /// See [`Fs::set_size`].
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
            m.ems
                .invalidate(from, MAX_FILE_BLOCKS.saturating_sub(from))?;
            let r = self.remove_extents(&mut txn, &mut m, from, MAX_FILE_BLOCKS, batch, Old::Free);
            inode.bump(&mut m);
            m.ems.recount(&self.em_count);
            let done = matches!(r, Ok(at) if at >= MAX_FILE_BLOCKS);
            let mut meta = inode.meta.lock();
            // Until the last batch the smaller of both sizes counts: see above.
            if first || done {
                meta.attrs.size = if done {
                    bytes
                } else {
                    bytes.min(meta.attrs.size)
                };
                first = false;
                if log {
                    txn.log(&Record::Size {
                        ino: inode.ino(),
                        bytes,
                    });
                }
            }
            if done {
                meta.state &= !STATE_TRUNCATE;
                return Ok(());
            }
            // Also after an error: a part may be gone.
            meta.state |= STATE_TRUNCATE;
            meta.cut = from;
            r?;
            if how == Resize::Begin && meta.attrs.size == bytes {
                return Ok(());
            }
        }
    }

    /// Comes before everything that writes or allocates below block `end`, or makes the file that
    /// long: if an error ended a truncation in the middle, what it left behind the end of the file
    /// goes first. It would come back otherwise. Does nothing for blocks in front of the cut.
    ///
    /// No write is in flight behind the cut: the truncation has waited for those before it, and
    /// later ones come through here. Must not be called inside a Txn.
    pub(crate) fn finish_truncation(&self, inode: &Shared<Inode>, end: u64) -> Result {
        while inode.left_behind(end).is_some() && !mutant::is(Mutant::LeftBehind) {
            // The file may have grown inside of its last block, which no record says yet.
            self.log_before_size(inode);
            let (mut txn, batch) = self.begin_removal()?;
            txn.dirty(inode)?;
            let mut m = inode.maps.write();
            // Another task may have been faster, and have a write on its way there by now.
            let Some(from) = inode.left_behind(end) else {
                break;
            };
            m.ems
                .invalidate(from, MAX_FILE_BLOCKS.saturating_sub(from))?;
            let r = self.remove_extents(&mut txn, &mut m, from, MAX_FILE_BLOCKS, batch, Old::Free);
            inode.bump(&mut m);
            m.ems.recount(&self.em_count);
            if r? >= MAX_FILE_BLOCKS {
                let mut meta = inode.meta.lock();
                meta.state &= !STATE_TRUNCATE;
                // Replay, which may begin in the middle of the truncation, finishes it here, too.
                txn.log(&Record::Size {
                    ino: inode.ino(),
                    bytes: meta.attrs.size,
                });
            }
        }
        Ok(())
    }

    /// Replay: a truncation, of which only so much is done as one transaction may do. All of the
    /// replay is one transaction, and must not hold the bitmaps of all groups of a large file in
    /// memory. [`Fs::clean_orphans`] does the rest, or [`Fs::finish_truncation`] if the file grows
    /// before that: what made it grow came after all of the truncation, and so after the commits
    /// that the truncation took, so that not much is left then.
    pub(crate) fn begin_truncate(&self, inode: &Shared<Inode>, bytes: u64) -> Result {
        self.resize(inode, bytes, Resize::Begin)
    }

    /// Frees everything mapped in `[start, start + len)`.
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
            m.ems.invalidate(at, end - at)?;
            let r = self.remove_extents(&mut txn, &mut m, at, end, batch, Old::Free);
            inode.bump(&mut m);
            m.ems.recount(&self.em_count);
            // Under `maps`, which orders it with the extents that an fsync records.
            txn.log(&Record::Punch {
                ino: inode.ino(),
                start: at,
                len: r.unwrap_or(end) - at,
            });
            at = r?;
        }
        Ok(())
    }

    /// Allocates unwritten blocks where `[start, start + len)` has holes. Delalloc is left alone:
    /// it has its reservation. `new_size` in bytes raises the on-disk size at the end. On ENOSPC
    /// what was allocated up to there stays, as on ext4 and XFS.
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
        // The end of the hole that there was room for.
        let mut room_to = start;
        while at < end {
            let (hole, goal) = {
                let m = inode.maps.read();
                let v = m.visible(&self.st, at, end - at)?;
                if v.kind != MapKind::Hole {
                    at += v.len;
                    hint = Some(v.phys + v.len).filter(|_| v.kind != MapKind::Delalloc);
                    continue;
                }
                (v.len, hint)
            };
            let want = hole.min(crate::engine::format::GROUP_BLOCKS);
            // ENOSPC now rather than after the disk is full of half a file. Once a hole: what the
            // operation itself needs in the course of it makes it no more hopeless.
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

    /// Makes the on-disk size at least `bytes`. For fallocate, and for dirty pages that are dropped
    /// before they were written (punch): with them goes the write that would have brought the size
    /// along.
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
        txn.log(&Record::Grow {
            ino: inode.ino(),
            bytes,
        });
        Ok(())
    }

    /// One run of at most `want` blocks at `at`, paid for by the caller's reservation. Returns how
    /// many blocks it took and the disk block behind them.
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
        let v = m.visible(&self.st, at, want)?;
        if v.kind != MapKind::Hole {
            return Ok((0, goal.unwrap_or(0)));
        }
        // What is a hole has no extent map, and so none has to be dropped.
        let run = self
            .space
            .alloc(&self.st, v.len.min(want), goal, Owner::Running)?;
        txn.charge(run.touched);
        let (phys, n) = (run.start, run.len);
        let e = Extent {
            start: at,
            phys,
            len: n,
            unwritten: true,
            csums: false,
            generation: txn.generation(),
        };
        if let Err(err) = self.add_extent(&mut txn, &mut m, &e, &[]) {
            // The commit that frees them gives the blocks back; until then they are paid for, while
            // the caller gives back all of its reservation.
            self.space.reserve_forced(n);
            self.free_extent(&mut txn, phys, n)?;
            return Err(err);
        }
        txn.log(&Record::Preallocate {
            ino: inode.ino(),
            start: at,
            phys,
            len: n,
        });
        inode.bump(&mut m);
        Ok((n, phys + n))
    }

    /// Makes `[start, start + len)` read as zeroes and keeps or makes space for it.
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
