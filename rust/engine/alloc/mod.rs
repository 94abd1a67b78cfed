// SPDX-License-Identifier: GPL-2.0

//! Space: allocation groups and reservations.
//!
//! An operation reserves its worst case before it starts, so ENOSPC comes there and nowhere later.
//!
//! # Model
//!
//! One counter carries all reservations: `unreserved`, the free blocks that nothing has reserved.
//! It starts as the free blocks less the pool. A reservation takes from it, and so does an
//! allocation without one; a commit gives it the blocks that it frees. Operations that make room or
//! that must not fail (unlink, truncate, completion of I/O, commits) may take it below zero:
//! [`Space::reserve`] down to minus three quarters of the pool, [`Space::reserve_forced`] without a
//! limit.
//!
//! At any time: free blocks = `unreserved` + pool + reservations that are not used yet.
//!
//! A group that a transaction changes needs a node for its bitmap at the commit. Functions that
//! allocate and free in the running transaction return how many groups the call *touched first*.
//! The caller charges as many nodes to its transaction, which has reserved them.
//!
//! Addresses and lengths are in blocks of the device, and ranges are half-open.
//!
//! # Locks
//!
//! Each AG has a mutex; the counters are atomics. A task that takes an AG's mutex holds no locks
//! but those that come before it in the lock order (docs/DESIGN.md §7), and never two AGs'.
//!
//! Tests: `tools/engine/tests/full_disk.rs`, `tools/engine/tests/full_writes.rs`,
//! `tools/engine/tests/forecast/main.rs`, `tools/engine/tests/writes_in_flight.rs`,
//! `tools/models/tests/rules/r7.rs`, `tests/vm/t/062-full-disk.sh`.

pub mod ag;

pub use crate::engine::format::bits;

use crate::engine::btree::NodeStore;
use crate::engine::format::corrupt;
use crate::engine::invariant::{broken, check, Invariant};
use crate::engine::lock_class;
use crate::os::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use crate::os::Mutex;
use ag::{Ag, FreedBy, Kept, Owner, Wish};
use core::num::NonZeroU64;
use core::ops::DerefMut;
use kernel::prelude::*;

/// The urgency of a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// Ordinary operations: ENOSPC if only the pool is left.
    Normal,
    /// Operations that free space or must not fail: may use the pool.
    Reclaim,
}

/// The blocks reserved for the metadata of `delalloc` blocks of an inode. They are reserved along
/// with the data: if the lack of space showed only at writeback, there would be no caller left to
/// refuse.
pub(crate) fn meta_for(delalloc: u64) -> u64 {
    delalloc.div_ceil(32)
}

/// The blocks that [`Space::alloc`] has allocated.
pub struct Run {
    /// First block.
    pub start: u64,
    /// Number of blocks.
    pub len: u64,
    /// How many groups the running transaction touched first with it.
    pub touched: u64,
}

/// The space of a filesystem, in blocks.
pub struct Space {
    ags: KVec<Mutex<Ag>>,
    ag_blocks: NonZeroU64,
    total: u64,
    /// The free blocks that nothing has reserved, less the pool. Below zero, the pool is in use.
    unreserved: AtomicI64,
    /// Blocks freed by transactions that are not durable.
    freed: AtomicI64,
    /// Groups without a used block.
    empty_groups: AtomicI64,
    /// Blocks that only operations that make room, completions and commits may use.
    pool: i64,
    /// The AG in which the next search without a goal starts.
    rotor: AtomicU32,
    /// The number of free blocks that the superblock has.
    counted: u64,
    /// What the AGs had more than that when they were read.
    off: AtomicI64,
    /// Whether the allocation trees have been read.
    state: AtomicU32,
    /// The number of transactions frozen so far; see [`Space::ag`].
    frozen: AtomicU64,
}

/// State: the free counts have not been read.
const UNREAD: u32 = 0;
/// State: they have been read.
const READ: u32 = 1;
/// State: they are damaged, and nothing will be written.
const GIVEN_UP: u32 = 2;

impl Space {
    /// The space made of AGs that have not been read. Each AG has `ag_blocks` blocks, but the last
    /// one, which has the rest of `total`. `free` is the number of free blocks that the superblock
    /// has. ENOMEM.
    pub fn new(ags: KVec<Ag>, ag_blocks: NonZeroU64, total: u64, free: u64) -> Result<Self> {
        let mut v = KVec::with_capacity(ags.len(), GFP_KERNEL)?;
        for ag in ags {
            v.push(Mutex::new(&lock_class::AG, ag)?, GFP_KERNEL)?;
        }
        let pool = (total / 64).clamp(256, 8192) as i64;
        Ok(Self {
            ags: v,
            ag_blocks,
            total,
            unreserved: AtomicI64::new(free as i64 - pool),
            freed: AtomicI64::new(0),
            empty_groups: AtomicI64::new(0),
            pool,
            rotor: AtomicU32::new(0),
            counted: free,
            off: AtomicI64::new(0),
            state: AtomicU32::new(UNREAD),
            frozen: AtomicU64::new(0),
        })
    }

    /// Reads the free counts of the allocation trees. To be called before anything is allocated or
    /// freed, by mount or remount, one at a time. EUCLEAN if they are damaged.
    pub fn read(&self, node_store: &NodeStore) -> Result {
        if self.state.load(Ordering::Acquire) == READ {
            return Ok(());
        }
        let mut free = 0u64;
        for ag in self.ags.iter() {
            let mut ag = ag.lock();
            ag.read(node_store)?;
            self.count_empty(&mut ag);
            free = free.saturating_add(ag.free_blocks());
        }
        // Until now the number in the superblock was good enough to show.
        let more = free as i64 - self.counted as i64;
        if more != 0 {
            pr_warn!(
                "the superblock counts {} free blocks, the allocation trees {}\n",
                self.counted,
                free
            );
        }
        self.off.store(more, Ordering::Relaxed);
        self.unreserved.fetch_add(more, Ordering::Relaxed);
        self.state.store(READ, Ordering::Release);
        Ok(())
    }

    /// Gives up the accounting: the allocation trees are damaged, and nothing will ever be written.
    pub fn give_up(&self) {
        self.state.store(GIVEN_UP, Ordering::Release);
    }

    /// Whether the accounting has been given up.
    pub fn given_up(&self) -> bool {
        self.state.load(Ordering::Acquire) == GIVEN_UP
    }

    /// The number of AGs.
    pub fn ag_count(&self) -> usize {
        self.ags.len()
    }

    /// The first block of AG `i`.
    pub fn ag_start(&self, i: usize) -> u64 {
        self.ag_blocks.get().saturating_mul(i as u64)
    }

    /// AG `i`, locked. Its holder may read a bitmap from the device, so the task that closes the
    /// barrier must not wait for this lock. Therefore [`Space::freeze`] only counts, and the first
    /// task that locks an AG afterwards freezes its deltas.
    pub fn ag(&self, i: usize) -> Result<impl DerefMut<Target = Ag> + '_> {
        let ag = self.ags.get(i);
        let mut ag = ag
            .ok_or_else(|| broken(Invariant::Contents, format_args!("no AG {i}")))?
            .lock();
        let frozen = self.frozen.load(Ordering::Acquire);
        if ag.frozen != frozen {
            ag.freeze();
            ag.frozen = frozen;
        }
        Ok(ag)
    }

    /// (free blocks for users, blocks freed and not durably so, blocks left of the pool)
    pub fn counts(&self) -> (u64, u64, u64) {
        let free = self.unreserved.load(Ordering::Relaxed);
        let freed = self.freed.load(Ordering::Relaxed).max(0) as u64;
        let pool = (self.pool + free.min(0)).max(0) as u64;
        (free.max(0) as u64, freed, pool)
    }

    /// The blocks that the bitmaps of groups without a used block will need when the groups are
    /// used; until then these groups have no bitmap. Two or three bitmaps share a node, and there
    /// are the nodes above.
    pub fn bitmaps_to_come(&self) -> u64 {
        let n = self.empty_groups.load(Ordering::Relaxed).max(0) as u64;
        n.div_ceil(2) + n / 64
    }

    /// Updates the counters after a change of an AG: empty groups, and bad groups.
    fn count_empty(&self, ag: &mut Ag) {
        let by = ag.take_emptied();
        if by != 0 {
            self.empty_groups.fetch_add(by, Ordering::Relaxed);
        }
        // The free blocks of groups that turned out to be bad are no longer free.
        self.reserve_forced(ag.take_lost());
    }

    /// The number of blocks that become free when the transactions that freed them are durable.
    pub fn freed(&self) -> u64 {
        self.freed.load(Ordering::Relaxed).max(0) as u64
    }

    /// Reserves `n` blocks. ENOSPC.
    pub fn reserve(&self, n: u64, prio: Priority) -> Result {
        let n = i64::try_from(n).map_err(|_| ENOSPC)?;
        // The last quarter of the pool is for commits: for the nodes of the allocation trees, and
        // for errors of the forecast.
        let floor = if prio == Priority::Reclaim {
            self.pool / 4 - self.pool
        } else {
            0
        };
        let mut cur = self.unreserved.load(Ordering::Relaxed);
        loop {
            let new = cur.checked_sub(n).filter(|v| *v >= floor).ok_or(ENOSPC)?;
            match self
                .unreserved
                .compare_exchange(cur, new, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(now) => cur = now,
            }
        }
    }

    /// Reserves `n` blocks even if none are left, for work that must go on. The next commit gives
    /// some back.
    pub fn reserve_forced(&self, n: u64) {
        self.unreserved.fetch_sub(n as i64, Ordering::Relaxed);
    }

    /// Gives back a reservation, or blocks that were allocated and are not used after all.
    pub fn unreserve(&self, n: u64) {
        self.unreserved.fetch_add(n as i64, Ordering::Relaxed);
    }

    /// The number of blocks from `block` to the end of its AG. No extent crosses that border, so
    /// that freeing an extent takes one lock.
    pub fn to_border(&self, block: u64) -> u64 {
        self.ag_blocks.get() - block % self.ag_blocks
    }

    /// The blocks `[block, block + len)` as `(block, len)` of runs, each within one AG.
    fn pieces(&self, block: u64, len: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = block.saturating_add(len);
        let mut at = block;
        core::iter::from_fn(move || {
            let n = self.to_border(at).min(end - at);
            let piece = (at, n);
            at += n;
            (n > 0).then_some(piece)
        })
    }

    /// The AG of a range, and its first block in the AG. EUCLEAN if the range is not within one.
    fn locate(&self, block: u64, len: u64) -> Result<(usize, u64)> {
        let i = (block / self.ag_blocks) as usize;
        let off = block % self.ag_blocks;
        let end = block.checked_add(len).ok_or(EIO)?;
        if end > self.total || i >= self.ags.len() || off + len > self.ag_blocks.get() {
            return Err(corrupt(
                "allocation",
                block,
                "range outside its allocation group",
            ));
        }
        Ok((i, off))
    }

    /// Allocates up to `want` blocks in one run, near `goal`. The caller has reserved them: ENOSPC
    /// means that it reserved too few, which is a bug unless it reserved by force. EUCLEAN, EIO,
    /// ENOMEM.
    pub fn alloc(
        &self,
        node_store: &NodeStore,
        want: u64,
        goal: Option<u64>,
        owner: Owner,
    ) -> Result<Run> {
        self.append(node_store, want, goal, owner, &mut None, 0)
    }

    /// [`Space::alloc`] for a file that is appended to: uses the blocks kept for it, and keeps up
    /// to `keep` blocks behind the run for the next append. `kept` belongs to the file and is
    /// updated.
    pub fn append(
        &self,
        node_store: &NodeStore,
        want: u64,
        goal: Option<u64>,
        owner: Owner,
        kept: &mut Option<Kept>,
        keep: u32,
    ) -> Result<Run> {
        let mine = kept.take();
        let want = want.min(crate::engine::format::GROUP_BLOCKS) as u32;
        let first = match goal {
            Some(g) => (g / self.ag_blocks) as usize,
            None => self.rotor.load(Ordering::Relaxed) as usize,
        };
        if let Some(m) = mine.filter(|m| (m.start / self.ag_blocks) as usize != first) {
            self.release_kept(m);
        }
        let n = self.ags.len().max(1);
        for k in 0..n {
            let i = (first + k).checked_rem(n).unwrap_or(0);
            let start = self.ag_start(i);
            let wish = Wish {
                want,
                goal: goal.filter(|_| k == 0).and_then(|g| g.checked_sub(start)),
                owner,
                kept: mine.filter(|_| k == 0),
                keep,
            };
            let (got, touched) = {
                let mut ag = self.ag(i)?;
                let got = ag.alloc(node_store, wish)?;
                self.count_empty(&mut ag);
                (got, ag.take_touched())
            };
            if let Some((at, len, behind)) = got {
                *kept = behind;
                if let Some(k) = kept {
                    k.start += start;
                }
                return Ok(Run {
                    start: start + at,
                    len: u64::from(len),
                    touched,
                });
            }
            if wish.goal.is_none() && owner != Owner::Committing {
                self.rotor.store(
                    ((i + 1).checked_rem(n).unwrap_or(0)) as u32,
                    Ordering::Relaxed,
                );
            }
        }
        Err(ENOSPC)
    }

    /// Gives up the blocks kept for a file.
    pub fn release_kept(&self, kept: Kept) {
        if let Ok(mut ag) = self.ag((kept.start / self.ag_blocks) as usize) {
            ag.release_kept(kept);
        }
    }

    /// Moves the next new directory or large file to another AG.
    pub fn turn(&self) {
        self.rotor.fetch_add(1, Ordering::Relaxed);
        let n = self.ags.len().max(1) as u32;
        let r = self.rotor.load(Ordering::Relaxed);
        if r >= n {
            self.rotor
                .store(r.checked_rem(n).unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// Replay: claims the blocks that a log record maps, before anything else can allocate them.
    pub fn claim(&self, node_store: &NodeStore, block: u64, len: u64) -> Result {
        if self.given_up() {
            return Ok(());
        }
        for (at, n) in self.pieces(block, len) {
            let (i, off) = self.locate(at, n)?;
            let taken = {
                let mut ag = self.ag(i)?;
                let taken = ag.claim(node_store, off, n)?;
                self.count_empty(&mut ag);
                taken
            };
            self.reserve_forced(taken);
        }
        Ok(())
    }

    /// See [`Ag::is_claimed`].
    pub fn is_claimed(&self, node_store: &NodeStore, block: u64, len: u64) -> Result<bool> {
        if self.given_up() {
            return Ok(true);
        }
        let (i, off) = self.locate(block, len)?;
        self.ag(i)?.is_claimed(node_store, off, len)
    }

    /// See [`Ag::commit_busy`]. Returns how many groups the running transaction touched first with
    /// it.
    pub fn commit_busy(&self, node_store: &NodeStore, block: u64, len: u64) -> Result<u64> {
        if self.given_up() {
            return Ok(0);
        }
        let (i, off) = self.locate(block, len)?;
        let mut ag = self.ag(i)?;
        ag.commit_busy(node_store, off, len)?;
        Ok(ag.take_touched())
    }

    /// See [`Ag::release_busy`]. Also gives the reservation of the blocks back.
    pub fn release_busy(&self, node_store: &NodeStore, block: u64, len: u64) -> Result {
        let (i, off) = self.locate(block, len)?;
        {
            let mut ag = self.ag(i)?;
            ag.release_busy(node_store, off, len)?;
            self.count_empty(&mut ag);
        }
        self.unreserve(len);
        Ok(())
    }

    /// Frees blocks in the running (or committing) transaction; see [`Ag::free`]. Returns how many
    /// groups the running transaction touched first with it.
    pub fn free(&self, node_store: &NodeStore, block: u64, len: u64, by: FreedBy) -> Result<u64> {
        if self.given_up() {
            return Ok(0);
        }
        let mut touched = 0;
        for (at, n) in self.pieces(block, len) {
            let (i, off) = self.locate(at, n)?;
            let freed = {
                let mut ag = self.ag(i)?;
                let freed = ag.free(node_store, off, n, by)?;
                touched += ag.take_touched();
                self.count_empty(&mut ag);
                freed
            };
            self.freed.fetch_add(freed as i64, Ordering::Relaxed);
        }
        Ok(touched)
    }

    /// Marks blocks as used (mkfs).
    pub fn reserve_fixed(&self, node_store: &NodeStore, block: u64, len: u64) -> Result {
        let len = len.min(self.total.saturating_sub(block));
        for (at, n) in self.pieces(block, len) {
            let (i, off) = self.locate(at, n)?;
            {
                let mut ag = self.ag(i)?;
                ag.reserve_fixed(node_store, off, n)?;
                self.count_empty(&mut ag);
                // An empty disk has room for the bitmaps, so they are not charged.
                ag.take_touched();
            }
            self.reserve_forced(n);
        }
        Ok(())
    }

    /// Called under the closed barrier: the deltas of the running transaction become the commit's.
    /// Takes no lock; see [`Space::ag`].
    pub fn freeze(&self) {
        self.frozen.fetch_add(1, Ordering::AcqRel);
    }

    /// Calls `f(block, len)` for the runs that the commit frees, with no lock held.
    pub fn freed_runs(&self, mut f: impl FnMut(u64, u64)) -> Result {
        let mut runs = KVVec::new();
        for (i, ag) in self.ags.iter().enumerate() {
            let start = self.ag_start(i);
            let mut failed = false;
            ag.lock()
                .freed_runs(|at, len| failed |= runs.push((start + at, len), GFP_KERNEL).is_err());
            if failed {
                return Err(ENOMEM);
            }
            runs.iter().for_each(|r| f(r.0, r.1));
            runs.clear();
        }
        Ok(())
    }

    /// The commit is durable: the blocks that it freed may be used again (R7).
    pub fn finish_commit(&self) -> Result {
        let mut n = 0;
        for ag in self.ags.iter() {
            let mut ag = ag.lock();
            n += ag.finish_commit()?;
            self.count_empty(&mut ag);
        }
        // In this order, so that no task finds neither free blocks nor blocks about to be freed.
        self.unreserve(n);
        self.freed.fetch_sub(n as i64, Ordering::Relaxed);
        Ok(())
    }

    /// A commit is about to say that `free` blocks are free: the AGs say so, too. If the two differed
    /// when the AGs were read, the superblock is wrong and this proves nothing: a number that is too
    /// small stays at 0 when blocks are allocated.
    pub fn check_free(&self, free: u64) -> Result {
        if self.off.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        let mut sum = 0u64;
        for ag in self.ags.iter() {
            sum = sum.saturating_add(ag.lock().free_on_disk());
        }
        check(
            Invariant::FreeCount,
            free == sum,
            format_args!("the superblock would count {free} free blocks, the AGs {sum}"),
        )
    }

    /// Nothing is under way: all that was reserved has been allocated or given back, but for `for_commit` blocks
    /// that the next commit may need.
    pub fn check_reserved(&self, for_commit: u64) -> Result {
        if self.state.load(Ordering::Acquire) != READ {
            return Ok(());
        }
        let mut free = 0i64;
        for ag in self.ags.iter() {
            let mut ag = ag.lock();
            // A group that became bad in a call that then failed may not be counted yet.
            self.count_empty(&mut ag);
            free += ag.free_blocks() as i64;
        }
        let unreserved = self.unreserved.load(Ordering::Relaxed);
        let freed = self.freed.load(Ordering::Relaxed);
        check(
            Invariant::Reserved,
            unreserved + self.pool + for_commit as i64 == free && freed == 0,
            format_args!("{unreserved} unreserved, {} in the pool, {for_commit} reserved for the commit, {freed} freed, {free} free", self.pool),
        )
    }
}
