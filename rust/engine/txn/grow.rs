// SPDX-License-Identifier: GPL-2.0

//! A mounted filesystem becomes larger.
//!
//! # Model
//!
//! A resize is a number of steps, each of which is one commit. The superblock of that commit is the
//! first one with the new number of blocks, so a power cut leaves the old size or the new one, and
//! between two steps the filesystem is valid with a size in between. A step adds at most [`MOST_AGS`]
//! AGs, which bounds the nodes of the AG tree that it has in memory; on a full disk [`FEW_AGS`],
//! because nodes of the step itself must lie in the old blocks, and the next step has more of these.
//!
//! Before the commit the last new block is read, so that the device is known to have it, and the new
//! areas of superblocks are filled with zeros. When the superblock is durable, the backups are
//! written, also with the new size, and then the one at the old end is removed. Only then may operations
//! have new blocks. The superblock itself says that there are no backups: if the growth ends there, the
//! next mount writes them before it does anything else ([`Fs::mend_superblocks`]). So no backup that a
//! repair could find has a size that leaves data out.
//!
//! Locks: the commit mutex for a step, and those of [`crate::engine::alloc`] under it. One resize at
//! a time. Nothing here may be called inside a transaction.
//!
//! Tests: tools/engine/tests/resize.rs; tests/vm/t/073-grow.sh;
//! tools/crash/tests/grow.rs.

use super::commit::IfIdle;
use super::marks::seconds;
use super::{Drains, Wait};
use crate::engine::alloc::{Grown, Priority};
use crate::engine::format::find::wipe;
use crate::engine::format::places::{
    areas_behind, last_area_before, same_twins, usable, AREA_BLOCKS, SLOTS,
};
use crate::engine::format::MAX_BLOCKS;
use crate::engine::fs::Fs;
use crate::engine::mutant::{self, Mutant};
use crate::engine::state::commit::{CommitState, Job};
use crate::os::atomic::Ordering;
use crate::os::{Block, NoFs};
use kernel::prelude::*;

/// The most AGs that a step adds.
pub(super) const MOST_AGS: u64 = 1 << 15;
/// How many it adds if there is little space for their records.
const FEW_AGS: u64 = 64;
/// At least so many records of new AGs are in a leaf, less the nodes above.
const RECORDS: u64 = 32;
/// Nodes for the rest: the paths of the trees, and the AGs with areas of superblocks.
const OTHER_NODES: u64 = 40;
/// The least number of blocks by which a filesystem grows: its new last area is behind the old one.
const LEAST: u64 = AREA_BLOCKS;
/// The most blocks that a filesystem can get by growing: 1 PiB, as by mkfs.
const MOST_BLOCKS: u64 = 1 << 38;
const _: () = assert!(MOST_BLOCKS <= MAX_BLOCKS);

/// A resize under way. There is one at a time.
pub struct Resize<'a> {
    fs: &'a Fs,
    /// The number of blocks before it.
    pub from: u64,
    /// The number of blocks that it ends with: `from` if there is nothing to be done.
    pub to: u64,
}

impl Drop for Resize<'_> {
    fn drop(&mut self) {
        self.fs.resizing.store(false, Ordering::Release);
    }
}

/// The nodes that a step dirties that adds so many AGs.
pub(super) fn nodes_for(ags: u64) -> u64 {
    ags / RECORDS + OTHER_NODES
}

impl Fs {
    /// The number of blocks of the filesystem.
    pub fn blocks(&self) -> u64 {
        self.space.total()
    }

    /// Begins a resize to `blocks` blocks, or to all that the device has if that is 0; nothing is
    /// changed yet. If it is less than 1 MiB more than now, there is nothing to be done.
    ///
    /// EALREADY while another one is under way; EOPNOTSUPP if the filesystem would become smaller, which [`Fs::shrink_begin`] does;
    /// EFBIG if the device is smaller than that, or for more than 1 PiB; EDOM if one of less than
    /// 128 MiB would get more than that, because its superblocks have other places; EROFS; EIO.
    pub fn resize_begin(&self, blocks: u64) -> Result<Resize<'_>> {
        let mut r = self.resize_enter()?;
        let from = r.from;
        let device = self.node_store.device().blocks();
        let to = match blocks {
            0 => device.min(MOST_BLOCKS),
            n if n > device || n > MOST_BLOCKS => return Err(EFBIG),
            n => n,
        };
        if to < from {
            return Err(EOPNOTSUPP);
        }
        let to = usable(to);
        if to.saturating_sub(from) < LEAST {
            return Ok(r);
        }
        if !same_twins(from, to) || usable(from) != from {
            return Err(EDOM);
        }
        r.to = to;
        Ok(r)
    }

    /// Begins a resize that does nothing so far. It ends when it is dropped. EALREADY, EROFS, EIO.
    pub(in crate::engine) fn resize_enter(&self) -> Result<Resize<'_>> {
        self.writable()?;
        if self.resizing.swap(true, Ordering::AcqRel) {
            return Err(EALREADY);
        }
        let from = self.space.total();
        Ok(Resize {
            fs: self,
            from,
            to: from,
        })
    }

    /// Does the next step. Returns whether more are to come. What the steps before have added stays,
    /// also after an error: EROFS; ENOSPC if there is no space for the records of the new blocks;
    /// EUCLEAN if the last AG is damaged; EIO, also if the device does not have the blocks; ENOMEM.
    pub fn resize_step(&self, resize: &mut Resize<'_>) -> Result<bool> {
        let from = self.space.total();
        if from >= resize.to {
            return Ok(false);
        }
        self.writable()?;
        let _nofs = NoFs::enter();
        let (next, reserved) = match self.reserve_step(from, resize.to, MOST_AGS)? {
            Some(step) => step,
            None => self.reserve_step(from, resize.to, FEW_AGS)?.ok_or(ENOSPC)?,
        };
        if let Err(e) = self.prepare(from, next) {
            self.space.unreserve(reserved);
            return Err(e);
        }
        self.commit_job(Job::Grow(next), reserved)?;
        if self.space.total() != next {
            // The last AG has gone bad meanwhile, or there was no memory to look at it.
            return Err(self.commit.lock().refused.take().unwrap_or(EIO));
        }
        let nodes = self.options().cache_limit(next);
        self.node_store.set_max(nodes);
        Ok(next < resize.to)
    }

    /// The number of blocks after a step that adds at most `most` AGs, and how many are reserved for its
    /// nodes. `None` if there is no space for them: for many AGs it must be four times as much.
    fn reserve_step(&self, from: u64, to: u64, most: u64) -> Result<Option<(u64, u64)>> {
        let next = self.next_size(from, to, most);
        let ags = next.saturating_sub(from) / self.space.ag_blocks();
        let reserved = nodes_for(ags) * self.space.copies();
        if ags > FEW_AGS && self.space.available() < 4 * reserved {
            return Ok(None);
        }
        let reserve = || Ok(self.space.reserve(reserved, Priority::Reclaim).is_ok());
        let done = self.with_commits(&mut Drains::new(), Wait::ForCommits, reserved, reserve)?;
        Ok(done.then_some((next, reserved)))
    }

    /// How many blocks the filesystem has after a step that adds at most `ags` AGs.
    fn next_size(&self, from: u64, to: u64, ags: u64) -> u64 {
        let ag_blocks = self.space.ag_blocks().get();
        let border = from.div_ceil(ag_blocks).saturating_add(ags) * ag_blocks;
        match to.saturating_sub(border) {
            0 => to,
            // The last step must not be too small.
            n if n < LEAST => border - ag_blocks,
            _ => border,
        }
    }

    /// What comes before the commit of a step: reads the last block, and fills the new areas of
    /// superblocks with zeros. What fails here changes nothing.
    fn prepare(&self, from: u64, to: u64) -> Result {
        self.space.may_grow(&self.node_store)?;
        let device = self.node_store.device();
        device.read(to.saturating_sub(1), &mut Block::zeroed()?)?;
        let zero = Block::zeroed()?;
        for (at, n) in areas_behind(from, to) {
            // The filesystem does not depend on these writes: if one fails, it goes on as it is.
            (at..at + n).try_for_each(|block| device.write_spare(block, &zero))?;
        }
        self.node_store.device_has(device.blocks());
        Ok(())
    }

    /// Commits, and does `job` with it, for which `reserved` blocks are reserved. After an error
    /// they are not any more.
    pub(super) fn commit_job(&self, job: Job, reserved: u64) -> Result {
        let mut job = Some(job);
        let mut strict = None;
        loop {
            self.pay_owed();
            match self.try_job(&mut job, reserved) {
                Ok(true) => return Ok(()),
                Ok(false) => drop(strict.get_or_insert_with(|| self.owed.be_strict())),
                Err(e) => {
                    self.space.unreserve(reserved);
                    return Err(e);
                }
            }
        }
    }

    /// One attempt of [`Fs::commit_job`]. Returns false if the caller must pay debts of renames
    /// first. After an error the reservation is as before.
    fn try_job(&self, job: &mut Option<Job>, reserved: u64) -> Result<bool> {
        let mut c = self.commit.lock();
        self.writable()?;
        c.job = job.take();
        self.commit_reserved
            .fetch_add(reserved as i64, Ordering::Relaxed);
        let r = self.commit_locked(&mut c, IfIdle::Commit);
        if r.is_err() {
            self.abort("commit failed");
        }
        *job = c.job.take();
        if r != Ok(true) {
            self.commit_reserved
                .fetch_sub(reserved as i64, Ordering::Relaxed);
        }
        r
    }

    /// The commit `generation` begins: puts the new blocks into its trees, so that the filesystem has
    /// `to`.
    pub(super) fn begin_growth(
        &self,
        c: &mut CommitState,
        to: u64,
        generation: u64,
    ) -> Result<Option<Grown>> {
        // It was good before this commit waited for others. Nothing has changed yet.
        if let Err(e) = self.space.may_grow(&self.node_store) {
            c.refused = Some(e);
            return Ok(None);
        }
        let grown = self.space.grow(&self.node_store, to, generation)?;
        c.sb.set_blocks(to);
        c.sb.free = c.sb.free.saturating_add(grown.on_disk);
        // Those that are there have the old size.
        c.sb.backed_up = 0;
        if mutant::is(Mutant::GrowEarly) {
            self.publish_growth(&grown);
        }
        Ok(Some(grown))
    }

    /// The commit that began with [`Fs::begin_growth`] is durable.
    pub(super) fn finish_growth(&self, c: &mut CommitState, grown: &Grown) -> Result {
        let device = self.node_store.device();
        if c.sb.has_backups() {
            c.sb.backed_up = seconds();
            c.sb.write_backups(device)?;
        }
        // The new ones are durable.
        let old = last_area_before(grown.from, grown.to);
        if let Some((at, _)) = old.filter(|_| !mutant::is(Mutant::GrowOldBackup)) {
            let [slot, _] = SLOTS;
            wipe(device, at + slot, 1)?;
            device.flush()?;
        }
        if !mutant::is(Mutant::GrowEarly) {
            self.publish_growth(grown);
        }
        Ok(())
    }

    /// From now on operations may have the new blocks.
    fn publish_growth(&self, grown: &Grown) {
        self.node_store.resized(grown.to);
        self.space.finish_growth(grown);
    }
}
