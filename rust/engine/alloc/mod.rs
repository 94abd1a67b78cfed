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
//! At any time: free blocks = `unreserved` + pool + reservations that are not used yet, and while the
//! filesystem is made smaller also the free blocks that will be cut off ([`close`]).
//!
//! A group that a transaction changes needs nodes at the commit: for its record, and with the first
//! group of an AG for the AG's record. Functions that allocate and free in the running transaction
//! return the number of nodes for the groups that the call *touched first*. The caller charges them
//! to its transaction, which has reserved them.
//!
//! The AG tree has a record for each AG, with its free blocks, and the sums of these in its interior
//! nodes. So a search for an AG with free blocks is one descent. It may be wrong in one way: an AG
//! that is in memory has what its record has, less what was allocated since. Then the search goes
//! on behind that AG.
//!
//! Addresses and lengths are in blocks of the device, and ranges are half-open.
//!
//! | file | what is in it |
//! |---|---|
//! | [`table`] | the AGs in memory |
//! | [`ag`] | one AG |
//! | [`find`] | allocation: which AG |
//! | [`homes`] | the AGs in which directories have their files |
//! | [`nodes`] | where commits look for blocks for nodes |
//! | [`grow`] | more blocks |
//! | [`close`] | fewer blocks |
//! | [`records`] | what commits do |
//! | [`trim`], [`trimmer`] | discarding free space; the state of a trim |
//! | [`idle`] | which AGs leave memory |
//! | [`deferred`] | the old addresses of the nodes of the space trees |
//!
//! # Locks
//!
//! - The table of AGs in memory has a mutex. No other lock is waited for under it, and nothing is
//!   read from the device.
//! - Each AG has a mutex. Its holder may read from the device, so the task that closes the barrier
//!   must not wait for it ([`Space::freeze`]). A task that takes it holds no locks but those that
//!   come before it in the lock order (docs/DESIGN.md §7), and never two AGs'.
//! - The AG tree has a lock for readers and writers. Only commits change the tree. It is taken after
//!   an AG's mutex or without one, also across reads from the device, and so not under the closed
//!   barrier either.
//! - The ranges of AGs without a readable record have a mutex, innermost.
//! - A trim has a mutex that is outside of all of these ([`trim`]).
//!
//! The counters are atomics.
//!
//! Tests: `tools/engine/tests/full_disk.rs`, `tools/engine/tests/full_writes.rs`,
//! `tools/engine/tests/forecast/main.rs`, `tools/engine/tests/writes_in_flight.rs`,
//! `tools/engine/tests/sizes.rs`, `tools/engine/tests/impossible.rs`,
//! `tools/models/tests/rules/r7.rs`, `tests/vm/t/062-full-disk.sh`.

pub mod ag;
mod close;
pub mod deferred;
mod find;
mod grow;
mod homes;
mod idle;
mod nodes;
mod records;
mod table;
mod trim;
mod trimmer;

pub use crate::engine::format::bits;
pub use close::Shrunk;
pub use find::Near;
pub use grow::Grown;
pub use records::unused_ags;
pub use trimmer::Trim;

use crate::engine::btree::{NodeStore, Tree, TreeId, TreeKind};
use crate::engine::format::{corrupt, GROUP_BLOCKS};
use crate::engine::invariant::{check, Invariant};
use crate::engine::lock_class;
use crate::os::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use crate::os::{Map, Mutex, RwLock};
use ag::FreedBy;
use core::num::NonZeroU64;
use idle::Table;
use kernel::prelude::*;
use nodes::NodeSearches;
use trimmer::Trimmer;

/// The identity of the AG tree.
pub const AG_TREE: TreeId = TreeId::new(TreeKind::Ag, 0);

/// The urgency of a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// Ordinary operations: ENOSPC if only the pool is left.
    Normal,
    /// Operations that free space or must not fail: may use the pool.
    Reclaim,
}

/// The blocks that [`Space::alloc`] has allocated.
pub struct Run {
    /// First block.
    pub start: u64,
    /// Number of blocks.
    pub len: u64,
    /// The nodes to charge for groups that the running transaction touched first with it.
    pub touched: u64,
}

/// AGs of which the records cannot be read.
struct Lost {
    /// The last one.
    last: u64,
    /// The free blocks that they have by the sums of the AG tree. They no longer count.
    free: u64,
}

/// The space of a filesystem, in blocks.
pub struct Space {
    table: Mutex<Table>,
    /// The AG tree. Only commits change it.
    tree: RwLock<Tree>,
    /// The AGs of which the record cannot be read: ranges that do not overlap, by the first AG.
    lost: Mutex<Map<u64, Lost>>,
    ag_blocks: NonZeroU64,
    /// The number of blocks. It grows when a commit with more blocks is durable (`grow.rs`), and becomes
    /// less in a commit with less (`close.rs`).
    total: AtomicU64,
    /// What it was before it changed last.
    total_before: AtomicU64,
    /// How many blocks a node takes.
    copies: u64,
    /// Free blocks, without those that cannot be allocated because of damage.
    free: AtomicI64,
    /// The free blocks that nothing has reserved, less the pool. Below zero, the pool is in use.
    unreserved: AtomicI64,
    /// Blocks freed by transactions that are not durable.
    freed: AtomicI64,
    /// Blocks that the deferred tree has and the next commits free.
    deferred: AtomicU64,
    /// Blocks that were freed where the account of space is damaged; they stay used.
    leaked: AtomicU64,
    /// Blocks that only operations that make room, completions and commits may use.
    pool: AtomicI64,
    /// The AG in which the last search ended that found no room where it began; it may be one behind the
    /// last AG.
    rotor: AtomicU64,
    /// See [`Space::is_closing`].
    closing: AtomicBool,
    /// The AG whose turn it is to be a home ([`homes`]).
    home_turn: AtomicU64,
    /// Where the search for the next district starts.
    home_look: AtomicU64,
    /// How many searches for a long run have failed since the last commit.
    failed: AtomicU32,
    /// The class of the runs that a search did not find since the last commit, or
    /// [`NOT_IN_VAIN`]. A hint.
    in_vain: AtomicU32,
    nodes: NodeSearches,
    /// The first AG of which the leaf in the AG tree was not looked into; see
    /// [`Space::look_ahead`].
    looked_at: AtomicU64,
    /// The id of the next AG's first kept blocks.
    kept_ids: AtomicU64,
    /// The number of free blocks that the superblock has.
    counted: u64,
    /// What the AG tree had more than that when it was read.
    off: AtomicI64,
    /// Whether the sums of the AG tree have been read.
    state: AtomicU32,
    /// The number of transactions frozen so far; see [`Space::freeze`].
    frozen: AtomicU64,
    /// Nothing is allocated from this block on ([`close`]).
    limit: AtomicU64,
    /// The free blocks there.
    closed: AtomicI64,
    /// Those of `freed` that are there.
    freed_closed: AtomicI64,
    /// Blocks there that the deferred tree has.
    deferred_closed: AtomicU64,
    /// The most blocks that the filesystem had since the mount.
    most: AtomicU64,
    trimmer: Trimmer,
}

/// The end of the filesystem is not closed ([`close`]).
const OPEN: u64 = u64::MAX;
/// No search for a long run was in vain ([`find`]).
const NOT_IN_VAIN: u32 = u32::MAX;
/// State: the free blocks have not been compared with the AG tree.
const UNREAD: u32 = 0;
/// State: they have been.
const READ: u32 = 1;
/// State: the AG tree is damaged, and nothing will be written.
const GIVEN_UP: u32 = 2;

/// The blocks of the pool of a filesystem of `total` blocks.
fn pool_of(total: u64, copies: u64) -> i64 {
    ((total / 64).clamp(256, 8192) * copies) as i64
}

impl Space {
    /// The space of a filesystem of `total` blocks with the AG tree `tree`. Each AG has `ag_blocks`
    /// blocks, but the last one, which has the rest. `free` is the number of free blocks that the
    /// superblock has, and nodes have `copies` copies. Reads nothing. ENOMEM.
    pub fn new(
        tree: Tree,
        ag_blocks: NonZeroU64,
        total: u64,
        free: u64,
        copies: u8,
    ) -> Result<Self> {
        let copies = u64::from(copies.max(1));
        let pool = pool_of(total, copies);
        Ok(Self {
            table: Mutex::new(&lock_class::AG_TABLE, Table::new())?,
            tree: RwLock::new(&lock_class::AG_TREE, tree)?,
            lost: Mutex::new(&lock_class::AGS_LOST, Map::new())?,
            ag_blocks,
            total: AtomicU64::new(total),
            total_before: AtomicU64::new(total),
            copies,
            free: AtomicI64::new(free as i64),
            unreserved: AtomicI64::new(free as i64 - pool),
            freed: AtomicI64::new(0),
            deferred: AtomicU64::new(0),
            leaked: AtomicU64::new(0),
            pool: AtomicI64::new(pool),
            rotor: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            home_turn: AtomicU64::new(0),
            home_look: AtomicU64::new(0),
            failed: AtomicU32::new(0),
            in_vain: AtomicU32::new(NOT_IN_VAIN),
            nodes: NodeSearches::new(),
            looked_at: AtomicU64::new(0),
            kept_ids: AtomicU64::new(0),
            counted: free,
            off: AtomicI64::new(0),
            state: AtomicU32::new(UNREAD),
            frozen: AtomicU64::new(0),
            limit: AtomicU64::new(OPEN),
            closed: AtomicI64::new(0),
            freed_closed: AtomicI64::new(0),
            deferred_closed: AtomicU64::new(0),
            most: AtomicU64::new(total),
            trimmer: Trimmer::new()?,
        })
    }

    /// Compares the free blocks of the superblock with the sums of the AG tree, of which it reads
    /// the root; the AGs are read when they are used. To be called before anything is allocated or
    /// freed, by mount or remount, one at a time. EUCLEAN or EIO if the root cannot be read: then
    /// nothing can be allocated.
    pub fn read(&self, node_store: &NodeStore) -> Result {
        if self.state.load(Ordering::Acquire) == READ {
            return Ok(());
        }
        let free = self.tree.read().sums(node_store)?.free;
        if free > self.total() {
            return Err(corrupt("AG tree", 0, "more free blocks than blocks"));
        }
        // Until now the number in the superblock was good enough to show.
        let more = free as i64 - self.counted as i64;
        if more != 0 {
            pr_warn!(
                "the superblock counts {} free blocks, the AG tree {}\n",
                self.counted,
                free
            );
        }
        self.off.store(more, Ordering::Relaxed);
        self.free.fetch_add(more, Ordering::Relaxed);
        self.unreserved.fetch_add(more, Ordering::Relaxed);
        self.state.store(READ, Ordering::Release);
        Ok(())
    }

    /// Gives up the accounting: the AG tree is damaged, and nothing will ever be written.
    pub fn give_up(&self) {
        self.state.store(GIVEN_UP, Ordering::Release);
    }

    /// Whether the accounting has been given up.
    pub fn given_up(&self) -> bool {
        self.state.load(Ordering::Acquire) == GIVEN_UP
    }

    /// How many copies of each node a commit writes, and so how many blocks a node takes.
    pub fn copies(&self) -> u64 {
        self.copies
    }

    /// The blocks reserved for the metadata of `delalloc` blocks of an inode. They are reserved along
    /// with the data: if the lack of space showed only at writeback, there would be no caller left to
    /// refuse.
    pub(crate) fn meta_for(&self, delalloc: u64) -> u64 {
        delalloc.div_ceil(32) * self.copies
    }

    /// The number of blocks.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Acquire)
    }

    fn pool(&self) -> i64 {
        self.pool.load(Ordering::Relaxed)
    }

    /// The number of AGs.
    pub fn ag_count(&self) -> u64 {
        self.total().div_ceil(self.ag_blocks.get())
    }

    /// The first block of AG `i`.
    pub fn ag_start(&self, i: u64) -> u64 {
        self.ag_blocks.get().saturating_mul(i)
    }

    /// The number of blocks of AG `i`.
    pub fn ag_len(&self, i: u64) -> u64 {
        let before = self.ag_start(i);
        self.total()
            .saturating_sub(before)
            .min(self.ag_blocks.get())
    }

    /// The number of blocks that AG `i` had before the filesystem was resized last.
    pub fn ag_len_before(&self, i: u64) -> u64 {
        let total = self.total_before.load(Ordering::Acquire);
        total
            .saturating_sub(self.ag_start(i))
            .min(self.ag_blocks.get())
    }

    /// (free blocks for users, blocks that commits will free, blocks left of the pool)
    pub fn counts(&self) -> (u64, u64, u64) {
        let free = self.unreserved.load(Ordering::Relaxed);
        let freed = self.freed();
        let pool = (self.pool() + free.min(0)).max(0) as u64;
        (free.max(0) as u64, freed, pool)
    }

    /// How many blocks users can have: those that are free, and those that commits will free, of which
    /// the pool comes first if it is in use.
    pub fn available(&self) -> u64 {
        let free = self.unreserved.load(Ordering::Relaxed);
        free.saturating_add_unsigned(self.freed()).max(0) as u64
    }

    /// The blocks that the records of groups will need when `free` blocks are used that lie in groups
    /// without a used block: two or three bitmaps share a node, and there are the nodes above. Groups
    /// that become full share their records, and need less.
    pub fn bitmaps_to_come(&self, free: u64) -> u64 {
        let n = free.div_ceil(GROUP_BLOCKS);
        (n.div_ceil(2) + n / 64) * self.copies
    }

    /// The number of blocks that become available when the transactions that freed them are durable, and
    /// of those in the deferred tree that more commits free. Closed ones ([`close`]) do not.
    pub fn freed(&self) -> u64 {
        let closed = self.freed_closed.load(Ordering::Relaxed);
        let freed = self.freed.load(Ordering::Relaxed) - closed;
        freed.max(0) as u64 + self.deferred()
    }

    /// The number of blocks that the deferred tree has and the next commits free, without closed ones.
    pub fn deferred(&self) -> u64 {
        let closed = match self.limit() {
            OPEN => self.deferred_closed(),
            _ => 0,
        };
        self.deferred.load(Ordering::Relaxed) + closed
    }

    /// A commit is about to free `n` blocks of the deferred tree.
    pub fn take_deferred(&self, n: u64) {
        let left = self.deferred().saturating_sub(n);
        if self.limit() == OPEN {
            // They count as all others do.
            self.deferred_closed.store(0, Ordering::Relaxed);
        }
        self.deferred.store(left, Ordering::Relaxed);
    }

    /// The number of blocks of each AG, but for the last one.
    pub fn ag_blocks(&self) -> NonZeroU64 {
        self.ag_blocks
    }

    /// The number of blocks that were freed where the account of space is damaged, and stay used.
    pub fn leaked(&self) -> u64 {
        self.leaked.load(Ordering::Relaxed)
    }

    /// How far operations that make room may draw the pool. The last quarter is for commits: for the
    /// nodes of the space trees, and for errors of the forecast.
    fn drawable(&self) -> i64 {
        let pool = self.pool();
        pool - pool / 4
    }

    /// Whether an operation that makes room can reserve `n` blocks with a full pool and what is free
    /// and freed.
    pub fn can_ever_reserve(&self, n: u64) -> bool {
        n <= self.available().saturating_add(self.drawable() as u64)
    }

    /// Reserves `n` blocks. ENOSPC.
    pub fn reserve(&self, n: u64, prio: Priority) -> Result {
        let n = i64::try_from(n).map_err(|_| ENOSPC)?;
        let floor = match prio {
            Priority::Reclaim => -self.drawable(),
            Priority::Normal => 0,
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
    fn locate(&self, block: u64, len: u64) -> Result<(u64, u64)> {
        let i = block / self.ag_blocks;
        let off = block % self.ag_blocks;
        let end = block.checked_add(len).ok_or(EIO)?;
        if end <= self.total_before.load(Ordering::Acquire) && end > self.total() {
            // A shrink has cut it off.
            return Err(EUCLEAN);
        }
        if end > self.total() || off + len > self.ag_blocks.get() {
            return Err(corrupt(
                "allocation",
                block,
                "range outside its allocation group",
            ));
        }
        Ok((i, off))
    }

    /// Replay: claims the blocks that a log record maps, before anything else can allocate them.
    pub fn claim(&self, node_store: &NodeStore, block: u64, len: u64) -> Result {
        if self.given_up() {
            return Ok(());
        }
        for (at, n) in self.pieces(block, len) {
            let (i, off) = self.locate(at, n)?;
            let taken = self.with_ag(node_store, i, |ag| ag.claim(node_store, off, n))?;
            self.reserve_forced(taken);
        }
        Ok(())
    }

    /// See [`ag::Ag::is_claimed`].
    pub fn is_claimed(&self, node_store: &NodeStore, block: u64, len: u64) -> Result<bool> {
        if self.given_up() {
            return Ok(true);
        }
        let (i, off) = self.locate(block, len)?;
        self.with_ag(node_store, i, |ag| ag.is_claimed(node_store, off, len))
    }

    /// See [`ag::Ag::commit_busy`]. Returns the nodes to charge for groups that the running
    /// transaction touched first with it.
    pub fn commit_busy(&self, node_store: &NodeStore, block: u64, len: u64) -> Result<u64> {
        if self.given_up() {
            return Ok(0);
        }
        let (i, off) = self.locate(block, len)?;
        self.with_ag(node_store, i, |ag| {
            ag.commit_busy(node_store, off, len)?;
            Ok(ag.take_touched())
        })
    }

    /// See [`ag::Ag::release_busy`]. Also gives the reservation of the blocks back.
    pub fn release_busy(&self, node_store: &NodeStore, block: u64, len: u64) -> Result {
        let (i, off) = self.locate(block, len)?;
        let open = self.with_ag(node_store, i, |ag| ag.release_busy(node_store, off, len))?;
        self.unreserve(open);
        Ok(())
    }

    /// See [`ag::Ag::is_used`]. What the filesystem does not have is not. EUCLEAN if the range is not
    /// within one AG, or if that has just been cut off.
    pub fn is_used(&self, node_store: &NodeStore, block: u64, len: u64) -> Result<Option<bool>> {
        if block.saturating_add(len) > self.total() {
            return Ok(Some(false));
        }
        let (i, off) = self.locate(block, len)?;
        self.with_ag(node_store, i, |ag| ag.is_used(node_store, off, len))
    }

    /// Frees blocks in the running (or committing) transaction; see [`ag::Ag::free`]. Returns the
    /// nodes to charge for groups that the running transaction touched first with it.
    pub fn free(&self, node_store: &NodeStore, block: u64, len: u64, by: FreedBy) -> Result<u64> {
        if self.given_up() {
            return Ok(0);
        }
        let mut touched = 0;
        for (at, n) in self.pieces(block, len) {
            let (i, off) = self.locate(at, n)?;
            let mut freed = 0;
            let r = self.with_ag(node_store, i, |ag| {
                ag.free(node_store, off, n, by, &mut freed)?;
                Ok(ag.take_touched())
            });
            self.freed.fetch_add(freed as i64, Ordering::Relaxed);
            touched += r?;
        }
        Ok(touched)
    }

    /// Marks blocks as used (mkfs).
    pub fn reserve_fixed(&self, node_store: &NodeStore, block: u64, len: u64) -> Result {
        let len = len.min(self.total().saturating_sub(block));
        for (at, n) in self.pieces(block, len) {
            let (i, off) = self.locate(at, n)?;
            self.with_ag(node_store, i, |ag| {
                ag.reserve_fixed(node_store, off, n)?;
                // An empty disk has room for the records, so they are not charged.
                ag.take_touched();
                Ok(())
            })?;
            self.reserve_forced(n);
        }
        Ok(())
    }

    /// Called under the closed barrier: the deltas of the running transaction become the commit's.
    /// Takes no lock. The first task that locks an AG afterwards freezes its deltas.
    pub fn freeze(&self) {
        self.frozen.fetch_add(1, Ordering::AcqRel);
    }

    /// Nothing is under way: all that was reserved has been allocated or given back, but for
    /// `for_commit` blocks that the next commit may need.
    pub fn check_reserved(&self, for_commit: u64) -> Result {
        if self.state.load(Ordering::Acquire) != READ {
            return Ok(());
        }
        let free = self.free.load(Ordering::Relaxed);
        let unreserved = self.unreserved.load(Ordering::Relaxed);
        let freed = self.freed.load(Ordering::Relaxed);
        let unreserved = unreserved + self.closed.load(Ordering::Relaxed);
        check(
            Invariant::Reserved,
            unreserved + self.pool() + for_commit as i64 == free && freed == 0,
            format_args!("{unreserved} unreserved, {} in the pool, {for_commit} reserved for the commit, {freed} freed, {free} free", self.pool()),
        )
    }
}
