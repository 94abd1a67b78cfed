// SPDX-License-Identifier: GPL-2.0

//! One allocation group (AG): its allocation tree, and the groups of 8192 blocks that are in
//! memory.
//!
//! # Model
//!
//! The allocation tree on disk has, for generation N, exactly the blocks that generation N
//! references, and only commits change it. In memory a group in use has
//!
//! - `used`: the blocks that must not be handed out. A block becomes *used* when it is allocated,
//!   and stops being used when the commit that freed it is durable (R7: freed is not free);
//! - `busy`: how many of the used blocks belong to data I/O in flight. They are in no transaction
//!   until the I/O completes, so a crash gives them back;
//! - `run` and `commit`: what the running and the committing transaction allocate and free.
//!
//! The free counts are read by a mount that may write, and by a read-only one that has a log to
//! replay; the bitmap of a group is read when the group is first used. A group becomes *bad* if its
//! bitmap cannot be read or contradicts its free count. It counts as full from then on, and blocks
//! freed in it stay used until the filesystem is made anew. Nothing is allocated in it either, so
//! if its bitmap can be read again one day, it marks every block that is in use.
//!
//! Behind the last block of a file that is appended to, a few blocks are *kept*: other files get
//! them only if there are no others. That is a hint in memory. Kept blocks count as free
//! everywhere, so nothing depends on the hint ([`Kept`]).
//!
//! Block numbers are relative to the start of the AG, bits to the start of a group, and ranges are
//! half-open.
//!
//! # Locks
//!
//! Everything is under the AG's mutex. A group stays in memory while it has busy blocks or deltas.
//! The running commit changes the tree before it is durable, so the tree is read only for groups
//! that no transaction has touched.
//!
//! Tests: `tools/models/tests/rules/r7.rs`, `tools/engine/tests/appends.rs`,
//! `tools/engine/tests/full_disk.rs`, `tools/engine/tests/impossible.rs`,
//! `tools/engine/tests/bulk.rs`.

mod change;
mod commit;
mod search;

use super::bits::{Bits, BITMAP_BYTES};
use crate::engine::btree::NodeStore;
use crate::engine::btree::{Tree, TreeId, TreeKind, ValueBuf, MAX_VALUE};
use crate::engine::format::{corrupt, le16, le32, GROUP_BLOCKS, MAX_AGS, MAX_BLOCKS};
use crate::engine::invariant::{broken, check, Invariant};
use crate::os::Map;
use kernel::prelude::*;

/// How many groups' free counts share one summary record.
pub const SUMMARY_GROUPS: u64 = 512;
/// The key of the first summary record.
pub const SUMMARY_KEY: u64 = 1 << 32;
const _: () = assert!(2 * SUMMARY_GROUPS as usize <= MAX_VALUE && GROUP_BLOCKS <= u16::MAX as u64);
// The keys of the bitmaps are below.
const _: () = assert!(MAX_BLOCKS / MAX_AGS as u64 / GROUP_BLOCKS <= SUMMARY_KEY);
/// How many idle groups stay in memory.
const IDLE_GROUPS: usize = 32;
/// Not a group: an empty place among the idle ones.
const NO_GROUP: u64 = u64::MAX;
/// A few free blocks, kept for the next append to a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// First block: of the device where the file has it, of the AG where the AG has it.
    pub start: u64,
    /// Number of blocks.
    pub len: u32,
    /// Distinguishes it from others that were kept at the same place before.
    id: u64,
}

/// A request for blocks.
#[derive(Clone, Copy)]
pub struct Wish {
    /// How many blocks to allocate in one run.
    pub want: u32,
    /// The block to start the search at.
    pub goal: Option<u64>,
    /// The owner of the blocks.
    pub owner: Owner,
    /// The blocks kept for the file so far.
    pub kept: Option<Kept>,
    /// How many blocks to keep for the file behind the run.
    pub keep: u32,
}

/// The blocks that a transaction allocates and frees in a group.
struct Delta {
    set: Bits,
    clear: Bits,
}

impl Delta {
    fn new() -> Result<Self> {
        Ok(Self {
            set: Bits::zeroed()?,
            clear: Bits::zeroed()?,
        })
    }
}

/// A group in memory.
struct Group {
    /// The blocks that must not be handed out.
    used: Bits,
    /// How many of them belong to data I/O in flight.
    busy: u32,
    /// The blocks that the running and the committing transaction allocate (`set`) and free
    /// (`clear`).
    run: Option<Delta>,
    commit: Option<Delta>,
    /// The commit's delta has changed since it was last put into the tree.
    stale: bool,
    /// An upper bound of the free runs. It saves repeated searches for long runs where there are
    /// none.
    longest: u32,
}

impl Group {
    /// Whether the group may leave memory.
    fn idle(&self) -> bool {
        self.busy == 0 && self.run.is_none() && self.commit.is_none()
    }
}

/// The owner of an allocated block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Data I/O in flight.
    Busy,
    /// The running transaction.
    Running,
    /// The transaction that is being committed.
    Committing,
}

/// The transaction that frees blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FreedBy {
    /// The running one.
    Running,
    /// The one that is being committed.
    Commit,
}

/// The state of an AG.
pub struct Ag {
    /// The allocation tree.
    pub tree: Tree,
    /// The number of blocks.
    len: u64,
    /// The groups in memory, by number.
    groups: Map<u64, Group>,
    /// The groups that became idle last. Some of them may be in use again, or have left memory.
    idle: [u64; IDLE_GROUPS],
    /// The place in `idle` for the next one.
    next_idle: usize,
    /// The blocks kept for files, at most `KEPT` entries.
    kept: KVec<Kept>,
    /// The place in `kept` for the next one, and its id.
    next_kept: usize,
    next_id: u64,
    /// Scratch: the bitmap of a group, with the blocks kept in it. Allocated with the first kept
    /// blocks.
    scratch: Option<Bits>,
    /// The number of blocks of each group that are not used.
    free: KVVec<u16>,
    /// The sum of `free`.
    left: u64,
    /// The same of what the tree says, with the commit's deltas that were put there.
    on_disk: u64,
    /// Busy blocks.
    busy: u64,
    /// Blocks that the running transaction has allocated.
    running: u64,
    /// Blocks of `on_disk` that are in bad groups.
    bad_free: u64,
    /// For each [`SUMMARY_GROUPS`] groups, an upper bound of `free`. It saves a look at each group
    /// of a large AG when none has enough.
    most: KVVec<u16>,
    /// How the number of groups without a used block has changed since [`Ag::take_emptied`].
    emptied: i64,
    /// The block where the next search for data without a goal starts, and that for nodes of a
    /// commit.
    cursor: u64,
    meta_cursor: u64,
    /// How many groups the running transaction has touched first since [`Ag::take_touched`].
    touched: u64,
    /// The free counts have been read.
    read: bool,
    /// The bad groups.
    bad: Map<u64, ()>,
    /// How many free blocks were in groups that became bad since [`Ag::take_lost`].
    lost: u64,
    /// How many transactions have been frozen here; see [`super::Space::ag`].
    pub(super) frozen: u64,
}

impl Ag {
    /// An AG of `len` blocks with the tree `tree`. The tree is not read, so the AG seems full.
    pub fn new(tree: Tree, len: u64) -> Self {
        Self {
            tree,
            len,
            groups: Map::new(),
            idle: [NO_GROUP; IDLE_GROUPS],
            next_idle: 0,
            free: KVVec::new(),
            kept: KVec::new(),
            next_kept: 0,
            next_id: 0,
            scratch: None,
            left: 0,
            on_disk: 0,
            busy: 0,
            running: 0,
            bad_free: 0,
            most: KVVec::new(),
            emptied: 0,
            cursor: 0,
            meta_cursor: 0,
            touched: 0,
            read: false,
            bad: Map::new(),
            lost: 0,
            frozen: 0,
        }
    }

    /// Reads the free counts, unless that has been done. EUCLEAN if they are damaged, EIO, ENOMEM.
    pub fn read(&mut self, node_store: &NodeStore) -> Result {
        if self.read {
            return Ok(());
        }
        let n = self.len.div_ceil(GROUP_BLOCKS);
        let mut free = KVVec::with_capacity(n as usize, GFP_KERNEL)?;
        for g in 0..n {
            free.push(self.group_len(g) as u16, GFP_KERNEL)?;
        }
        self.free = free;
        let r = self.load_summaries(node_store).and_then(|()| self.count());
        if r.is_err() {
            self.free.clear();
        }
        self.read = r.is_ok();
        r
    }

    /// Computes the sums of the free counts.
    fn count(&mut self) -> Result {
        let mut most = KVVec::new();
        let (mut left, mut empty) = (0, 0);
        for (c, some) in self.free.chunks(SUMMARY_GROUPS as usize).enumerate() {
            most.push(some.iter().copied().max().unwrap_or(0), GFP_KERNEL)?;
            for (g, f) in (c as u64 * SUMMARY_GROUPS..).zip(some) {
                left += u64::from(*f);
                empty += i64::from(u32::from(*f) == self.group_len(g));
            }
        }
        (self.most, self.left, self.on_disk) = (most, left, left);
        self.emptied += empty;
        Ok(())
    }

    /// Reads the summary records. Groups without one are empty.
    fn load_summaries(&mut self, node_store: &NodeStore) -> Result {
        let mut v = ValueBuf::new();
        let mut from = SUMMARY_KEY;
        while let Some(key) = self.tree.find_ge(node_store, from, &mut v)? {
            let first = (key - SUMMARY_KEY).saturating_mul(SUMMARY_GROUPS);
            if first >= self.free.len() as u64 {
                return Err(corrupt("free counts", key, "of groups that do not exist"));
            }
            for i in 0..SUMMARY_GROUPS {
                let Some(n) = le16(v.as_slice(), 2 * i as usize) else {
                    break;
                };
                let cap = self.group_len(first + i);
                if u32::from(n) > cap {
                    return Err(corrupt("free counts", key, "more than the group has"));
                }
                if let Some(f) = self.free.get_mut((first + i) as usize) {
                    *f = n;
                }
            }
            from = key + 1;
        }
        Ok(())
    }

    /// The number of blocks of group `g`.
    fn group_len(&self, g: u64) -> u32 {
        self.len
            .saturating_sub(g.saturating_mul(GROUP_BLOCKS))
            .min(GROUP_BLOCKS) as u32
    }

    /// The number of blocks that are not used.
    pub fn free_blocks(&self) -> u64 {
        self.left
    }

    /// Free blocks that the tree says there are.
    pub fn free_on_disk(&self) -> u64 {
        self.on_disk
    }

    /// What is free is what the tree says, but for what was allocated since and what bad groups have.
    /// Holds while no commit is under way.
    fn check_free(&self) -> Result {
        let taken = self.busy + self.running + self.bad_free;
        check(
            Invariant::FreeCount,
            !self.read || self.left + taken == self.on_disk,
            format_args!(
                "AG {}: {} free, {} on disk, {} busy, {} allocated, {} bad",
                self.tree.id().owner,
                self.left,
                self.on_disk,
                self.busy,
                self.running,
                self.bad_free
            ),
        )
    }

    /// Changes the free count of group `g` by `by`.
    fn add_free(&mut self, g: u64, by: i32) {
        let cap = self.group_len(g);
        let chunk = (g / SUMMARY_GROUPS) as usize;
        let (Some(f), Some(most)) = (self.free.get_mut(g as usize), self.most.get_mut(chunk))
        else {
            return;
        };
        let old = u32::from(*f);
        let new = old.saturating_add_signed(by).min(cap);
        *f = new as u16;
        *most = (*most).max(*f);
        self.left = self.left.saturating_sub(u64::from(old)) + u64::from(new);
        self.emptied += i64::from(new == cap) - i64::from(old == cap);
    }

    /// How the number of groups without a used block has changed since the last call.
    pub fn take_emptied(&mut self) -> i64 {
        core::mem::take(&mut self.emptied)
    }

    /// Reads a group's bitmap on disk into `bits`. True if the group has a record. EUCLEAN if it is
    /// damaged.
    fn disk_bits(&self, node_store: &NodeStore, g: u64, bits: &mut Bits) -> Result<bool> {
        let mut v = ValueBuf::new();
        if !self.tree.get(node_store, g, &mut v)? {
            return Ok(false);
        }
        let bad = || corrupt("bitmap", g, "wrong length of the record");
        if v.as_slice().len() != 4 + BITMAP_BYTES {
            return Err(bad());
        }
        bits.load(v.as_slice().get(4..).ok_or_else(bad)?)
            .ok_or_else(bad)?;
        let cap = self.group_len(g);
        if le32(v.as_slice(), 0) != Some(cap - bits.count_range(0, cap)) {
            return Err(corrupt("bitmap", g, "disagrees with its own count"));
        }
        Ok(true)
    }

    /// Group `g`, read from the tree if it is not in memory. A damaged one becomes bad: EUCLEAN.
    fn group(&mut self, node_store: &NodeStore, g: u64) -> Result<&mut Group> {
        if self.bad.get(&g).is_some() {
            return Err(EUCLEAN);
        }
        if self.groups.get(&g).is_none() {
            if let Err(e) = self.load_group(node_store, g) {
                if e != ENOMEM {
                    self.condemn(g)?;
                }
                return Err(e);
            }
            self.park(g);
        }
        self.groups
            .get_mut(&g)
            .ok_or_else(|| broken(Invariant::Contents, format_args!("group {g} left")))
    }

    /// Reads group `g` into memory, and checks its bitmap against the free count.
    fn load_group(&mut self, node_store: &NodeStore, g: u64) -> Result {
        let mut used = Bits::zeroed()?;
        self.disk_bits(node_store, g, &mut used)?;
        let cap = self.group_len(g);
        used.set(cap, GROUP_BLOCKS as u32 - cap);
        let free = GROUP_BLOCKS as u32 - used.count();
        if let Some(f) = self.free.get_mut(g as usize) {
            if u32::from(*f) != free {
                return Err(corrupt("bitmap", g, "disagrees with the free count"));
            }
        }
        self.groups.insert(
            g,
            Group {
                used,
                busy: 0,
                run: None,
                commit: None,
                stale: false,
                longest: cap,
            },
        )?;
        Ok(())
    }

    /// Takes a group that cannot be used out of use: makes it bad.
    fn condemn(&mut self, g: u64) -> Result {
        self.bad.insert(g, ())?;
        let free = self.free.get(g as usize).copied().unwrap_or(0);
        self.add_free(g, -i32::from(free));
        self.lost += u64::from(free);
        self.bad_free += u64::from(free);
        pr_err!(
            "allocation group {}: the bitmap of group {} is damaged: nothing is allocated or freed there any more\n",
            self.tree.id().owner,
            g
        );
        Ok(())
    }

    /// Whether the group can be used. Reads its bitmap if it is not in memory.
    fn is_good(&mut self, node_store: &NodeStore, g: u64) -> Result<bool> {
        let r = self.group(node_store, g).map(|_| true);
        match r {
            Err(_) if self.bad.get(&g).is_some() => Ok(false),
            r => r,
        }
    }

    /// How many free blocks were in groups that became bad since the last call.
    pub fn take_lost(&mut self) -> u64 {
        core::mem::take(&mut self.lost)
    }

    /// Notes that group `g` is idle. It takes the place of the group that became idle
    /// [`IDLE_GROUPS`] groups ago, and that group leaves memory if it is still idle. Every group
    /// gets a place whenever it becomes idle, so there are never more idle groups than places.
    /// Needs no memory, and takes the same time however many groups are in use.
    fn park(&mut self, g: u64) {
        let Some(place) = self.idle.get_mut(self.next_idle) else {
            return;
        };
        let old = core::mem::replace(place, g);
        self.next_idle = (self.next_idle + 1) % IDLE_GROUPS;
        if old != g && self.groups.get(&old).is_some_and(Group::idle) {
            self.groups.remove(&old);
        }
    }

    /// How many groups the running transaction has touched first since the last call.
    pub fn take_touched(&mut self) -> u64 {
        core::mem::take(&mut self.touched)
    }

    /// The number of groups in memory.
    pub fn groups_in_memory(&self) -> usize {
        self.groups.len()
    }

    /// The identity of the tree of AG `index`.
    pub fn tree_id(index: u32) -> TreeId {
        TreeId {
            kind: TreeKind::Groups,
            owner: u64::from(index),
        }
    }
}

/// The delta in `slot`. Makes one if there is none, and counts it in `fresh`.
fn delta<'a>(slot: &'a mut Option<Delta>, fresh: &mut u64) -> Result<&'a mut Delta> {
    if slot.is_none() {
        *slot = Some(Delta::new()?);
        *fresh += 1;
    }
    slot.as_mut().ok_or(ENOMEM)
}
