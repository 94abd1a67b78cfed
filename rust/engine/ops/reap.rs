// SPDX-License-Identifier: GPL-2.0

//! Deletion in the background: what a large file had is freed after its last user is gone, and no
//! task waits for that but those that need the space.
//!
//! # Model
//!
//! [`Fs::delete_later`] queues an inode without names. A thread calls [`Fs::reap_step`] as long as
//! something is queued; a step is one transaction. It begins with a cut at block 0, as a truncation
//! of several transactions does ([`super::space`]), and frees what is behind the cut, then the
//! entries and attributes; the last step marks the inode as deleted. A crash in between leaves an
//! orphan with a cut, which the next mount deletes.
//!
//! What queued inodes have counts as available ([`Fs::statfs`]), because an operation that finds too
//! little space waits for the next step ([`Fs::begin`], [`Fs::reserve`]). Unmounting and going
//! read-only wait for all.
//!
//! # Locks
//!
//! `stepper` is held across a step, outermost ([`crate::engine::state::reap`]). No step is taken
//! inside a transaction. A task that waits for a step may hold what it may hold while it waits for a
//! commit.
//!
//! Tests: `tools/engine/tests/reap.rs`, `tests/vm/t/059-background-deletion.sh`.

use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::ops::space::Resize;
use crate::engine::state::reap::{Outcome, MIN_BLOCKS};
use crate::engine::types::{MAX_FILE_BLOCKS, S_IFREG};
use crate::os::{cond_resched, NoFs, Shared};
use kernel::prelude::*;

impl Fs {
    /// [`Fs::delete_inode`], in the background if the inode has many blocks and a thread serves.
    /// An error of that is only printed.
    pub fn delete_later(&self, inode: Shared<Inode>) -> Result {
        let blocks = inode.blocks();
        if blocks < MIN_BLOCKS || inode.kind() != S_IFREG || self.is_shutdown() {
            return self.delete_inode(inode);
        }
        // Before it can be found there: no handle opens it any more.
        inode.meta.lock().doomed = true;
        let kept = inode.maps.write().kept.take();
        if let Some(kept) = kept {
            self.space.release_kept(kept);
        }
        match self.reaper.add(inode, blocks) {
            Some(inode) => self.delete_inode(inode),
            None => Ok(()),
        }
    }

    /// From now on a thread calls [`Fs::reap_step`] when something is queued, or none does any more.
    /// What is queued stays so.
    pub fn serve_reaper(&self, on: bool) {
        self.reaper.serve(on);
    }

    /// The filesystem is frozen: waits for the step that is under way, and no other one begins; or it
    /// is not frozen any more. Must not be called inside a transaction.
    pub fn pause_reaper(&self, on: bool) {
        self.reaper.pause(on);
    }

    /// The thread sleeps until there is something for it to do, at most `ms` milliseconds. If there
    /// was nothing for so long, what failed is tried again.
    pub fn reap_wait(&self, ms: u64) {
        let reaper = &self.reaper;
        let work = || !reaper.is_empty() && !reaper.is_paused();
        if !reaper.work.wait_freezable(ms, work) && !reaper.is_paused() {
            reaper.retry(Inode::blocks);
        }
    }

    /// Frees something of an inode that is queued. Returns false if none is, or if the filesystem is
    /// frozen. After an error the inode rests; if it cannot be deleted at all, that is printed, and it
    /// stays on the list of orphans, from which the next mount deletes it. Must not be called inside a
    /// transaction.
    pub fn reap_step(&self) -> bool {
        let _nofs = NoFs::enter();
        let one_at_a_time = self.reaper.stepper.lock();
        let first = self.reaper.first().filter(|_| !self.reaper.is_paused());
        let Some(inode) = first else {
            return false;
        };
        let before = inode.blocks();
        let (outcome, error) = match self.reap_some(&inode) {
            Ok(false) => (Outcome::More, None),
            Ok(true) => (Outcome::Done, None),
            Err(e) if e == EUCLEAN || self.is_shutdown() => (Outcome::Done, Some(e)),
            Err(e) => (Outcome::Failed, Some(e)),
        };
        let (ino, after) = (inode.ino(), inode.blocks());
        let left = self.reaper.step_done(ino, before, after, outcome);
        drop(one_at_a_time);
        if left {
            // After a shutdown that is so for all, and nothing to talk about.
            if let Some(e) = error.filter(|_| !self.is_shutdown()) {
                pr_warn!(
                    "{}: inode {ino}: could not be deleted: {e:?}\n",
                    self.device_name()
                );
            }
            self.iput(inode);
        }
        true
    }

    /// Frees all that is queued. What fails is tried again a few times. Must not be called inside a
    /// transaction.
    pub fn reap_all(&self) {
        loop {
            while self.reap_step() {
                cond_resched();
            }
            self.reaper.retry(Inode::blocks);
            if self.reaper.is_empty() || self.reaper.is_paused() {
                return;
            }
        }
    }

    /// One transaction of a deletion. Returns whether it was the last one.
    fn reap_some(&self, inode: &Shared<Inode>) -> Result<bool> {
        if inode.left_behind(MAX_FILE_BLOCKS).is_some() {
            self.truncation_step(inode, MAX_FILE_BLOCKS)?;
            return Ok(false);
        }
        if !inode.maps.read().tree.is_empty() {
            self.resize(inode, 0, Resize::Begin)?;
            return Ok(false);
        }
        self.free_items(inode)
    }
}
