// SPDX-License-Identifier: GPL-2.0

//! Transactions, as operations see them.
//!
//! An operation runs inside a [`Txn`]. It holds the shared side of the barrier, so all its changes
//! land in one transaction, and it has reserved blocks for its worst case. The commit holds the
//! exclusive side only for a moment ([`crate::engine::state::barrier`]). A task inside a [`Txn`]
//! never waits for I/O completions, ordered extents, folio locks or commits; a task that must wait
//! for space, and so possibly for a commit, leaves the barrier first.
//!
//! Accounting, in nodes: at the end of an operation, reserved = used + returned. The used part moves
//! to `Fs::commit_reserved`, for the nodes that the next commit writes; the rest goes back to the free
//! counter. A node takes a block for each of its copies, and reservations of [`Space`] are in blocks.
//!
//! [`Space`]: crate::engine::alloc::Space
//!
//! Locks: the shared side of the barrier is level 4 of docs/DESIGN.md §7: a task takes it with
//! `i_rwsem` held, and before any lock of an inode or an AG.
//!
//! Tests: tools/engine/tests/forecast/main.rs (no operation uses more than it reserved),
//! full_disk.rs, full_writes.rs, abort.rs, threads.rs; tools/models/tests/rules/r8.rs;
//! tests/vm/t/062-full-disk.sh.
//!
//! | file | what is in it |
//! |---|---|
//! | [`commit`] | from the running transaction to a superblock |
//! | `fsync` | the fast fsync: collecting records, writing batches |
//! | [`grow`] | a mounted filesystem becomes larger |
//! | `heal` | bad copies of nodes are written anew |
//! | [`shrink`] | it becomes smaller: the commits of it |
//! | [`marks`] | the clean mark, the label and backups of the superblock |
//! | `owed` | debts of renames |
//! | `sink` | where a commit puts its nodes |
//! | `space` | the part of a commit that writes the space trees |
//! | `weakened` | what mutants do instead |

pub mod commit;
mod fsync;
pub mod grow;
mod heal;
pub mod marks;
mod owed;
pub mod shrink;
mod sink;
mod space;
#[cfg(any(
    ordofs_mutants,
    ordofs_mutant_r1_trust,
    ordofs_mutant_log_nowait,
    ordofs_mutant_log_split
))]
mod weakened;

use crate::engine::alloc::Priority;
use crate::engine::btree::Tree;
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::invariant::{check, Invariant};
use crate::engine::mutant::{self, Mutant};
use crate::os::atomic::Ordering;
use crate::os::{NoFs, Shared, Time};
use kernel::prelude::*;

/// How often a reservation is tried, with a commit in between.
const TRIES: usize = 3;
/// How often an operation tries again, or waits anew for deletions, because other tasks have taken
/// what became free. More often than tasks overtake each other on a disk that has room for all of them; after
/// that it gets ENOSPC, so that it does not wait for ever.
const OVERTAKEN: usize = 100;
/// How many more commits free blocks of the deferred tree before a reservation is refused. Each frees
/// all blocks, or if they are scattered over many AGs, a part of them: those in about 500 AGs, or if
/// that is less, about a sixth.
const DRAINS: usize = 128;
/// Nodes (of 4 KiB) reserved for the next commit at which an operation commits before it begins.
/// This bounds memory, since changed nodes cannot be reclaimed. A touched group has 3 KiB of
/// bitmaps in memory and one node reserved for it, so it counts here.
const HARD_LIMIT: i64 = 16384;
const _: () = assert!(commit::SOFT_LIMIT < HARD_LIMIT);

/// What an operation waits for that finds too little space.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Commits that free some. For operations that make room, of which deletions are some, and for
    /// writeback, because a deletion may wait for memory.
    ForCommits,
    /// Deletions in the background, too.
    ForDeletions,
}

/// Blocks that deletions free besides those of data: the copies of nodes. A guess.
const NODES_TO_COME: u64 = 256;

/// How many more commits an operation may still make for a reservation.
pub(crate) struct Drains(usize);

impl Drains {
    /// For a new operation.
    pub const fn new() -> Self {
        Self(DRAINS)
    }
}

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

    /// The generation whose commit will contain this operation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The epoch of the extent records that this operation makes.
    pub fn epoch(&self) -> u32 {
        self.fs.epoch
    }

    /// The time of this operation. Inodes and log records get the same one, so replay restores the
    /// same times.
    pub fn time(&self) -> Time {
        self.time
    }

    /// Sets another time for the operation than that at which its transaction began.
    pub(crate) fn set_time(&mut self, time: Time) {
        self.time = time;
    }

    /// Charges `n` more nodes, each of which needs a block at the next commit: nodes of a tree that
    /// became dirty, or bitmaps of groups that were touched for the first time.
    pub fn charge(&mut self, n: u64) {
        self.used = self.used.saturating_add(n);
    }

    /// Runs `f`, which changes a tree, and charges the nodes that became dirty.
    pub fn charged<R>(&mut self, tree: &mut Tree, f: impl FnOnce(&mut Tree) -> R) -> R {
        let before = tree.dirty_nodes();
        let r = f(tree);
        self.charge(tree.dirty_nodes().saturating_sub(before));
        r
    }

    /// Puts an inode on the list of the commit. An operation calls this before it changes the
    /// inode, because this may fail and a half-done change must not, and with none of the inode's
    /// locks held. If a commit under way still needs the inode's snapshot, takes that first.
    pub fn dirty(&mut self, inode: &Shared<Inode>) -> Result {
        self.fs.take_due(inode)?;
        if self.fs.dirty.add(inode)? {
            // The leaf with the inode's record, and its share of the nodes above.
            self.charge(2);
        }
        inode.changed.store(self.generation, Ordering::Release);
        Ok(())
    }
}

impl Drop for Txn<'_> {
    /// reserved = used + returned. The used part stays reserved for the next commit, in
    /// `commit_reserved`. Only a replay, which reserves by force, may use more than it reserved.
    fn drop(&mut self) {
        let fs = self.fs;
        let exempt = fs.replaying.load(Ordering::Acquire);
        let copies = fs.space.copies();
        fs.commit_reserved
            .fetch_add((self.used * copies) as i64, Ordering::Relaxed);
        if self.reserved >= self.used {
            fs.space.unreserve((self.reserved - self.used) * copies);
        } else {
            fs.space
                .reserve_forced((self.used - self.reserved) * copies);
        }
        fs.barrier.leave();
        fs.wake_commit_thread();
        if !exempt {
            // Not worth more than a message: the reservation was taken by force.
            let _ = check(
                Invariant::Reservation,
                self.used <= self.reserved,
                format_args!(
                    "an operation used {} nodes and had reserved {}",
                    self.used, self.reserved
                ),
            );
        }
    }
}

impl Fs {
    /// Begins an operation that dirties at most `nodes` nodes. ENOSPC if they cannot be reserved,
    /// EROFS on a read-only mount, EIO after a shutdown. May commit; must not be called inside a
    /// transaction.
    ///
    /// The reservation is made inside the barrier. So a task that waits for the barrier holds no
    /// reservation that the last resort of another task, a commit with all operations locked out,
    /// would need.
    pub fn begin(&self, nodes: u64, prio: Priority) -> Result<Txn<'_>> {
        let blocks = nodes * self.space.copies();
        self.writable()?;
        let nofs = NoFs::enter();
        self.throttle()?;
        if self.replaying.load(Ordering::Acquire) {
            // Replay is one transaction: no commit may come in between.
            self.barrier.enter();
            self.space.reserve_forced(blocks);
            return Ok(self.entered(nodes, nofs));
        }
        let wait = match prio {
            Priority::Normal => Wait::ForDeletions,
            Priority::Reclaim => Wait::ForCommits,
        };
        let enter = || self.enter(blocks, prio);
        if self.with_commits(&mut Drains::new(), wait, blocks, enter)? {
            return Ok(self.entered(nodes, nofs));
        }
        // Operations that make room must not fail for lack of it.
        if prio == Priority::Reclaim {
            for _ in 0..TRIES {
                if self.commit_and_enter(blocks)? {
                    return Ok(self.entered(nodes, nofs));
                }
            }
        }
        Err(ENOSPC)
    }

    /// Like [`Fs::begin`], for work that cannot be refused, such as completions of I/O: if the pool
    /// is used up and a commit did not help, overdraws the free counter.
    pub fn begin_forced(&self, nodes: u64) -> Result<Txn<'_>> {
        let blocks = nodes * self.space.copies();
        self.writable()?;
        let nofs = NoFs::enter();
        // Does not wait for debts of renames: the data that one waits for may be that of this
        // completion.
        if self.over_limit() {
            self.sync_unless_owed()?;
        }
        if !self.enter(blocks, Priority::Reclaim)? {
            self.sync_unless_owed()?;
            if !self.enter(blocks, Priority::Reclaim)? {
                self.enter_unmarked()?;
                self.space.reserve_forced(blocks);
            }
        }
        Ok(self.entered(nodes, nofs))
    }

    /// Enters the barrier with `n` blocks reserved, or does nothing and returns false.
    fn enter(&self, n: u64, prio: Priority) -> Result<bool> {
        self.enter_unmarked()?;
        let r = self.space.reserve(n, prio).is_ok();
        if !r {
            self.barrier.leave();
        }
        Ok(r)
    }

    /// Enters the barrier when the superblock on disk does not say that the filesystem was
    /// unmounted cleanly.
    fn enter_unmarked(&self) -> Result {
        loop {
            self.clear_clean_mark()?;
            self.barrier.enter();
            if !self.marked_clean.load(Ordering::Acquire) || mutant::is(Mutant::CleanStays) {
                return Ok(());
            }
            self.barrier.leave();
        }
    }

    /// Makes the [`Txn`] of a caller that is inside the barrier and has reserved the blocks of
    /// `reserved` nodes.
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

    /// Changed nodes cannot be reclaimed before they are written. If tasks dirty them faster than
    /// the commit thread writes them, the tasks commit here themselves. Must not be called inside a
    /// transaction.
    pub(crate) fn throttle(&self) -> Result {
        if self.over_limit() {
            return self.commit_all();
        }
        Ok(())
    }

    /// Do changed nodes take so much memory that operations must commit?
    fn over_limit(&self) -> bool {
        self.nodes_for_commit() > HARD_LIMIT
    }

    /// How many nodes are reserved for the next commit. A node is in memory once, however many copies
    /// of it are written.
    fn nodes_for_commit(&self) -> i64 {
        self.commit_reserved.load(Ordering::Relaxed) / self.space.copies() as i64
    }

    /// Reserves `n` blocks; commits if that can free some. ENOSPC. Must not be called inside a
    /// transaction.
    pub fn reserve(&self, n: u64) -> Result {
        self.reserve_within(n, &mut Drains::new(), Wait::ForDeletions)
    }

    /// [`Fs::reserve`], for a caller that tries several times, or does not wait for deletions.
    pub(crate) fn reserve_within(&self, n: u64, drains: &mut Drains, wait: Wait) -> Result {
        if self.replaying.load(Ordering::Acquire) {
            self.space.reserve_forced(n);
            return Ok(());
        }
        let reserve = || Ok(self.space.reserve(n, Priority::Normal).is_ok());
        match self.with_commits(drains, wait, n, reserve)? {
            true => Ok(()),
            false => Err(ENOSPC),
        }
    }

    /// Are `n` blocks free, or will they be after commits and deletions that are under way? Reserves
    /// nothing. Must not be called inside a transaction.
    pub(crate) fn room_for(&self, n: u64) -> Result<bool> {
        let room = || Ok(n <= self.space.available());
        self.with_commits(&mut Drains::new(), Wait::ForDeletions, n, room)
    }

    /// Calls `f` until it returns true, with a commit before each further attempt, as long as a
    /// commit can free space or has freed enough, and then after waiting for deletions in the
    /// background, if `wait` says so and `n` blocks may become free by them. Returns what the last call
    /// returned.
    fn with_commits(
        &self,
        drains: &mut Drains,
        wait: Wait,
        n: u64,
        f: impl Fn() -> Result<bool>,
    ) -> Result<bool> {
        let (mut tries, mut overtaken) = (0, 0);
        loop {
            let seen = self.reaper.steps();
            if f()? {
                return Ok(true);
            }
            // A commit under way gives back what was reserved for it and it did not need; `commit_all`
            // waits for it.
            let committing = self.durable_generation() + 1 < self.running_generation();
            let for_commit = self.commit_reserved.load(Ordering::Relaxed) > 0;
            let freed = self.space.freed() > self.space.deferred();
            let closing = self.space.is_closing();
            if tries < TRIES && (committing || for_commit || freed || closing) {
                tries += 1;
                self.commit_all()?;
            } else if overtaken < OVERTAKEN && self.room_after_commit() >= n {
                overtaken += 1;
                self.commit_all()?;
            } else if drains.0 > 0 && self.commit_deferred()? {
                drains.0 -= 1;
            } else if wait == Wait::ForDeletions
                && overtaken < OVERTAKEN
                && self.wait_for_deletions(n, seen)
            {
                (tries, overtaken) = (0, overtaken + 1);
            } else {
                return Ok(false);
            }
        }
    }

    /// How many blocks are available now, or after a commit, if no other task takes them.
    fn room_after_commit(&self) -> u64 {
        let deferred = self.space.deferred();
        self.space.available().saturating_sub(deferred)
    }

    /// Waits until deletions in the background have freed so much that `n` blocks are available
    /// after a commit. `seen` is the number of steps before the caller looked for them. Returns false
    /// if nothing has been freed since, or if there is too little to be freed.
    fn wait_for_deletions(&self, n: u64, mut seen: u64) -> bool {
        let mut freed = false;
        loop {
            let reserved = self.commit_reserved.load(Ordering::Relaxed).max(0) as u64;
            let room = self.space.available().saturating_add(reserved);
            if freed && room >= n {
                return true;
            }
            let to_come = self.reaper.blocks().saturating_add(NODES_TO_COME);
            if room.saturating_add(to_come) < n || !self.reaper.wait_for_step(seen) {
                return freed;
            }
            (freed, seen) = (true, self.reaper.steps());
        }
    }
}
