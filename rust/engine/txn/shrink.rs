// SPDX-License-Identifier: GPL-2.0

//! A mounted filesystem becomes smaller: the commits of it. What moves data and nodes away before
//! that is in `engine/ops/shrink.rs`.
//!
//! # Model
//!
//! Before anything is moved the end is closed for allocation ([`crate::engine::alloc`], `close.rs`), in memory only.
//! Nodes are moved by commits that write them anew ([`Fs::commit_touched`]). When nothing is in use
//! behind the limit any more, a commit cuts the end off: it removes the records of AGs, gives the new
//! last blocks to the area of backups, and its superblock is the first one with the new size. So a power
//! cut leaves the old size or the new one. A shrink of many AGs takes several such steps, from
//! the end on, with valid sizes in between. Before the commit changes anything it makes sure that all is
//! still free and no AG is damaged that it concerns; otherwise it is a commit without a cut. One more commit
//! follows, so that both superblocks have the new size.
//!
//! What was cut off cannot be meant by the log: a record of a generation that is durable is not
//! replayed, and those of later ones were made when nothing was mapped there.
//!
//! When the superblock is durable the backups are written, with the new size, and then those behind
//! the new end are overwritten, so that a repair that has a larger device before it does not take one.
//! A power cut in between leaves them there. The first is made up for by the next mount
//! ([`Fs::mend_superblocks`]), the second is not.
//!
//! Locks: the turn of trims for the last commits, then the commit mutex, and those of
//! [`crate::engine::alloc`] under it. Nothing here may be called inside a transaction.
//!
//! Tests: tools/engine/tests/shrink.rs; tests/vm/t/074-shrink.sh.

use super::commit::IfIdle;
use super::grow::{nodes_for, MOST_AGS};
use super::marks::seconds;
use super::{Drains, Wait};
use crate::engine::alloc::ag::GROUP_NODES;
use crate::engine::alloc::{Grown, Priority, Shrunk};
use crate::engine::format::places::{backups, same_twins, AREA_BLOCKS, SLOTS};
use crate::engine::fs::Fs;
use crate::engine::mutant::{self, Mutant};
use crate::engine::state::commit::{CommitState, Job, Touch};
use crate::os::{Block, NoFs};
use kernel::prelude::*;

/// The most nodes that a key in a [`Touch`] dirties: the path to it, and those of the groups of an AG.
const NODES: u64 = 16;
/// Blocks that must be available besides those that are moved, in parts of what is moved: for nodes that
/// are written anew.
const PART: u64 = 32;
/// And a number of nodes for the commits themselves.
const FOR_COMMITS: u64 = 768;
/// In how many groups a commit of a shrink frees closed blocks of the deferred tree.
const DRAIN_GROUPS: u64 = 64;
/// The nodes that this changes: those of the groups, and some above them.
const DRAIN_NODES: u64 = DRAIN_GROUPS * GROUP_NODES / 8 * 9 + 16;
/// The paths of the trees, besides.
const OTHER_NODES: u64 = 64;

/// What a commit has done for a resize.
pub(super) enum Resized {
    Grown(Grown),
    Shrunk(Shrunk),
}

impl Fs {
    /// The size to which a filesystem can become smaller that is to have at most `blocks` blocks: it ends at the
    /// border of an AG. EDOM if superblocks or log have no place then; EINVAL if it has no more now.
    pub(in crate::engine) fn smaller_size(&self, blocks: u64) -> Result<u64> {
        let from = self.space.total();
        if blocks >= from {
            return Err(EINVAL);
        }
        let to = blocks - blocks % self.space.ag_blocks();
        let c = self.commit.lock();
        let log_end = c.sb.log_start.saturating_add(c.sb.log_len);
        let has_room = to.checked_sub(AREA_BLOCKS).is_some_and(|at| log_end <= at);
        match has_room && same_twins(from, to) && backups(to).next().is_some() {
            true => Ok(to),
            false => Err(EDOM),
        }
    }

    /// Closes what will be cut off, and the new last area before it. ENOSPC if what is in use there
    /// has no room in the rest; EUCLEAN if an AG is damaged; EIO, ENOMEM. Nothing is closed then.
    pub(in crate::engine) fn close_end(&self, to: u64) -> Result {
        self.sync()?;
        let c = self.commit.lock();
        self.writable()?;
        let limit = to.saturating_sub(AREA_BLOCKS);
        let spare = |used: u64| used / PART + FOR_COMMITS * self.space.copies();
        self.space.close(&self.node_store, limit, spare)?;
        self.space.set_deferred(self.surplus(&c));
        Ok(())
    }

    /// A commit that writes the nodes of `touch` anew, and frees closed blocks of the deferred tree: only
    /// these commits do, because only they have reserved the nodes for that. ENOSPC; EIO after a shutdown.
    pub(in crate::engine) fn commit_touched(&self, touch: Touch) -> Result {
        let keys = (touch.inodes.len() + touch.orphans.len() + touch.ags.len()) as u64;
        let reserved = (keys * NODES + DRAIN_NODES + OTHER_NODES) * self.space.copies();
        self.reserve_for_job(reserved)?;
        self.commit_job(Job::Touch(touch), reserved)
    }

    fn reserve_for_job(&self, reserved: u64) -> Result {
        let reserve = || Ok(self.space.reserve(reserved, Priority::Reclaim).is_ok());
        match self.with_commits(&mut Drains::new(), Wait::ForCommits, reserved, reserve)? {
            true => Ok(()),
            false => Err(ENOSPC),
        }
    }

    /// Cuts the end off, which is evacuated, or a part of it if that is more than [`MOST_AGS`] AGs.
    /// Returns whether more is to come. ENOSPC if there is no space for the nodes of the commit; EUCLEAN
    /// if AGs are damaged; EIO, ENOMEM. The commit looks again before it changes anything.
    pub(in crate::engine) fn cut_off(&self, to: u64) -> Result<bool> {
        let _nofs = NoFs::enter();
        let ag_blocks = self.space.ag_blocks();
        let count = self.space.ag_count();
        let first = (to / ag_blocks).max(count.saturating_sub(MOST_AGS));
        let next = first * ag_blocks.get();
        self.space.check_removable(&self.node_store, first)?;
        // Its record is not read again.
        let _pin = self.space.pin(first.saturating_sub(1))?;
        self.space.may_shrink(&self.node_store, next)?;
        let reserved = nodes_for(count - first) * self.space.copies();
        self.reserve_for_job(reserved)?;
        self.space.without_trims(|| {
            let zeroed = self.zero_area(next);
            if let Err(e) = zeroed {
                self.space.unreserve(reserved);
                return Err(e);
            }
            self.commit_job(Job::Shrink(next), reserved)
        })?;
        if self.space.total() != next {
            // An AG has gone bad meanwhile, or there was no memory to look at it.
            let why = self.commit.lock().refused.take();
            return Err(why.unwrap_or(EIO));
        }
        let nodes = self.options().cache_limit(next);
        self.node_store.set_max(nodes);
        if next == to {
            // The older superblock is to have the new size, too.
            self.commit_upto(self.running_generation(), IfIdle::Commit)?;
        }
        Ok(next > to)
    }

    /// Fills the last area of a filesystem of `blocks` blocks with zeros. Its blocks are free, and nothing
    /// is allocated there.
    fn zero_area(&self, blocks: u64) -> Result {
        let zero = Block::zeroed()?;
        let device = self.node_store.device();
        let at = blocks.saturating_sub(AREA_BLOCKS);
        (at..blocks).try_for_each(|block| device.write_spare(block, &zero))
    }

    /// A commit begins that does something for a resize besides, or not.
    pub(super) fn begin_job(
        &self,
        c: &mut CommitState,
        generation: u64,
    ) -> Result<Option<Resized>> {
        c.drain = 0;
        match c.job.take() {
            None => Ok(None),
            Some(Job::Grow(to)) => {
                let grown = self.begin_growth(c, to, generation)?;
                Ok(grown.map(Resized::Grown))
            }
            Some(Job::Shrink(to)) => {
                let shrunk = match self.space.shrink(&self.node_store, to)? {
                    Ok(shrunk) => shrunk,
                    Err(e) => {
                        c.refused = Some(e);
                        return Ok(None);
                    }
                };
                c.sb.set_blocks(to);
                c.sb.free = c.sb.free.saturating_sub(shrunk.gone);
                // Those that are there have the old size.
                c.sb.backed_up = 0;
                if mutant::is(Mutant::ShrinkEarly) {
                    c.sb.write_backups(self.node_store.device())?;
                }
                Ok(Some(Resized::Shrunk(shrunk)))
            }
            Some(Job::Touch(touch)) => {
                c.drain = DRAIN_GROUPS;
                self.touch_nodes(c, &touch);
                Ok(None)
            }
        }
    }

    /// Makes nodes dirty that the commit writes anew. A node that cannot be read stays where it is: the
    /// caller finds it again.
    fn touch_nodes(&self, c: &mut CommitState, touch: &Touch) {
        let store = &self.node_store;
        for key in touch.inodes.iter() {
            let _ = self.itree.write().touch(store, *key);
        }
        for key in touch.orphans.iter() {
            let _ = c.orphans.touch(store, *key);
        }
        for ag in touch.ags.iter() {
            let _ = self.space.touch_ag(store, *ag);
        }
    }

    /// The commit that began with [`Fs::begin_job`] is durable.
    pub(super) fn finish_resize(&self, c: &mut CommitState, resized: &Resized) -> Result {
        let shrunk = match resized {
            Resized::Grown(grown) => return self.finish_growth(c, grown),
            Resized::Shrunk(shrunk) => shrunk,
        };
        let device = self.node_store.device();
        c.sb.backed_up = seconds();
        c.sb.write_backups(device)?;
        let zero = Block::zeroed()?;
        let [slot, _] = SLOTS;
        let old = backups(shrunk.from).filter(|at| *at >= shrunk.to);
        for at in old.filter(|_| !mutant::is(Mutant::ShrinkOldBackup)) {
            // The filesystem does not depend on them, nor on that end of the device.
            let _ = device.write_spare(at + slot, &zero);
        }
        device.flush()?;
        self.node_store.resized(shrunk.to);
        self.space.finish_shrink(shrunk);
        Ok(())
    }
}
