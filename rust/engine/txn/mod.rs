// SPDX-License-Identifier: GPL-2.0

//! Transactions, seen from the operations.
//!
//! An operation runs inside a [`Txn`]: it holds the shared side of the barrier, so all it does lands in
//! one transaction, and has reserved its worst case there. The commit holds the exclusive side only
//! for a moment ([`crate::engine::state::barrier`]). A Txn never waits for I/O completions, ordered extents, folio locks
//! or commits; who has to wait for space (which may run a commit) leaves the barrier for that.

pub mod commit;
mod fsync;
mod owed;
#[cfg(any(
    ordofs_mutants,
    ordofs_mutant_r1_trust,
    ordofs_mutant_log_nowait,
    ordofs_mutant_log_split
))]
mod weakened;

use crate::engine::alloc::Priority;
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::os::atomic::Ordering;
use crate::os::{NoFs, Shared, Time};
use kernel::prelude::*;

/// How often a reservation is tried with a commit in between.
const TRIES: usize = 3;
/// Promised nodes (of 4 KiB) at which operations commit. A group that was touched has 3 KiB of bitmaps
/// in memory, and is promised a node, so it counts here.
const HARD_LIMIT: i64 = 16384;

/// An operation's part in the running transaction.
pub struct Txn<'a> {
    fs: &'a Fs,
    generation: u64,
    time: Time,
    reserved: u64,
    used: u64,
    _nofs: NoFs,
}

impl<'a> Txn<'a> {
    /// The filesystem.
    pub fn fs(&self) -> &'a Fs {
        self.fs
    }

    /// The generation that will hold what this operation does.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The one time of this operation: what it stamps on inodes, and what its log records carry, so that
    /// replay stamps the same.
    pub fn time(&self) -> Time {
        self.time
    }

    /// The operation has another time than that at which its transaction began.
    pub(crate) fn set_time(&mut self, time: Time) {
        self.time = time;
    }

    /// `n` more nodes will need a block at the next commit: nodes of a tree that became dirty, or bitmaps of
    /// groups that were touched first.
    pub fn charge(&mut self, n: u64) {
        self.used = self.used.saturating_add(n);
    }

    /// Runs a change of a tree and charges the nodes that it dirtied.
    pub fn charged<T, R>(
        &mut self,
        t: &mut T,
        dirty: impl Fn(&T) -> u64,
        f: impl FnOnce(&mut T) -> R,
    ) -> R {
        let before = dirty(t);
        let r = f(t);
        self.charge(dirty(t).saturating_sub(before));
        r
    }

    /// Puts an inode on the commit's list. Call before changing it, with none of its locks held: it may
    /// fail, changes may not. What a commit under way needs of it is taken first.
    pub fn dirty(&mut self, inode: &Shared<Inode>) -> Result {
        self.fs.take_due(inode)?;
        if !inode.dirty.load(Ordering::Acquire) {
            let mut list = self.fs.dirty.lock();
            // Whoever sees the flag may rely on the list: it is set under the list's lock, when the
            // inode is on it.
            if !inode.dirty.load(Ordering::Acquire) {
                list.push(inode.clone(), GFP_KERNEL)?;
                inode.dirty.store(true, Ordering::Release);
                // The leaf of its record and its share of the nodes above.
                self.charge(2);
            }
        }
        inode.changed.store(self.generation, Ordering::Release);
        Ok(())
    }
}

impl Drop for Txn<'_> {
    /// reserved = used + returned: what the operation used is the next commit's, which finds it in
    /// `commit_reserved`, and the rest goes back. Only a replay, which reserves by force, may use more.
    fn drop(&mut self) {
        let fs = self.fs;
        let exempt = fs.replaying.load(Ordering::Acquire);
        fs.commit_reserved
            .fetch_add(self.used as i64, Ordering::Relaxed);
        if self.reserved >= self.used {
            fs.space.unreserve(self.reserved - self.used);
        } else {
            fs.space.reserve_forced(self.used - self.reserved);
        }
        fs.barrier.leave();
        fs.poke_commit();
        debug_assert!(
            self.used <= self.reserved || exempt,
            "an operation used {} nodes and had reserved {}",
            self.used,
            self.reserved
        );
    }
}

impl Fs {
    /// Starts an operation that dirties at most `blocks` nodes. ENOSPC, EROFS, EIO after a shutdown.
    ///
    /// What it reserves it reserves inside the barrier: whoever waits there has nothing that the last
    /// resort of another one, a commit with everybody locked out, would need.
    pub fn begin(&self, blocks: u64, prio: Priority) -> Result<Txn<'_>> {
        self.writable()?;
        let nofs = NoFs::enter();
        self.throttle()?;
        if self.replaying.load(Ordering::Acquire) {
            // Replay is one transaction: no commit may come in between.
            self.barrier.enter();
            self.space.reserve_forced(blocks);
            return Ok(self.entered(blocks, nofs));
        }
        if self.with_commits(|| self.enter(blocks, prio))? {
            return Ok(self.entered(blocks, nofs));
        }
        // Making room has to work.
        if prio == Priority::Reclaim {
            for _ in 0..TRIES {
                if self.commit_and_enter(blocks)? {
                    return Ok(self.entered(blocks, nofs));
                }
            }
        }
        Err(ENOSPC)
    }

    /// Like [`Fs::begin`] for work that cannot be refused, such as completions of I/O: when even the
    /// pool is used up, and a commit did not help, it overdraws.
    pub fn begin_forced(&self, blocks: u64) -> Result<Txn<'_>> {
        self.writable()?;
        let nofs = NoFs::enter();
        // What a rename owes is not waited for here: it may be this very completion.
        if self.over_limit() {
            self.sync_unless_owed()?;
        }
        if !self.enter(blocks, Priority::Reclaim) {
            self.sync_unless_owed()?;
            if !self.enter(blocks, Priority::Reclaim) {
                self.barrier.enter();
                self.space.reserve_forced(blocks);
            }
        }
        Ok(self.entered(blocks, nofs))
    }

    /// Enters the barrier with a reservation of `n` blocks, or not at all.
    fn enter(&self, n: u64, prio: Priority) -> bool {
        self.barrier.enter();
        let r = self.space.reserve(n, prio).is_ok();
        if !r {
            self.barrier.leave();
        }
        r
    }

    /// The caller is inside the barrier and has reserved `reserved` blocks.
    fn entered(&self, reserved: u64, nofs: NoFs) -> Txn<'_> {
        Txn {
            fs: self,
            generation: self.running_generation(),
            time: self.time(),
            reserved,
            used: 0,
            _nofs: nofs,
        }
    }

    /// Changed nodes cannot be reclaimed before they are written. Whoever makes them faster than the
    /// commit thread writes them writes them himself. Never called inside a Txn.
    pub(crate) fn throttle(&self) -> Result {
        if self.over_limit() {
            return self.sync();
        }
        Ok(())
    }

    fn over_limit(&self) -> bool {
        self.commit_reserved.load(Ordering::Relaxed) > HARD_LIMIT
    }

    /// Reserves blocks; commits when that can free some. Never called inside a Txn.
    pub fn reserve(&self, n: u64) -> Result {
        if self.replaying.load(Ordering::Acquire) {
            self.space.reserve_forced(n);
            return Ok(());
        }
        match self.with_commits(|| self.space.reserve(n, Priority::Normal).is_ok())? {
            true => Ok(()),
            false => Err(ENOSPC),
        }
    }

    /// Are there `n` blocks, or will there be after a commit? Reserves nothing. Never called inside a Txn.
    pub(crate) fn room_for(&self, n: u64) -> Result<bool> {
        self.with_commits(|| {
            let (free, pinned, _) = self.space.counts();
            n <= free + pinned
        })
    }

    /// Tries `f`, and again after commits while one can free space. Answers what `f` did last.
    fn with_commits(&self, f: impl Fn() -> bool) -> Result<bool> {
        for _ in 0..TRIES {
            if f() {
                return Ok(true);
            }
            // A commit under way gives back what it was promised and does not need; `sync` waits for it.
            let committing = self.durable_generation() + 1 < self.running_generation();
            let promised = self.commit_reserved.load(Ordering::Relaxed) > 0;
            if !committing && !promised && self.space.pinned() == 0 {
                break;
            }
            self.sync()?;
        }
        Ok(f())
    }
}
