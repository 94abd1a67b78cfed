// SPDX-License-Identifier: GPL-2.0

//! One allocation group (AG): its Alloc tree and the groups of 8192 blocks that are in memory.
//!
//! The Alloc tree on disk holds, for generation N, exactly the blocks that generation N references,
//! and only commits change it. In memory a group that is being worked on has
//!
//! - `used`: blocks that must not be handed out. A block becomes *used* when it is allocated and
//!   stops to be when the commit that freed it is durable (R7: freed is not free);
//! - `busy`: how many of them belong to data I/O in flight. They are in no transaction until the
//!   I/O completes, so a crash gives them back;
//! - `run` and `commit`: what the running and the committing transaction allocate and free.
//!
//! The tree is read when the AG is first worked with: a mount that only reads never does. A group whose
//! bitmap cannot be read, or is not what its free count says, costs nothing but itself: it is *bad*,
//! counts as full from then on, and what is freed in it stays used until the filesystem is made anew. Nothing is
//! allocated in it, so that whatever its bitmap says when it can be read again, it does not lack a block.
//!
//! Behind the last block of a file that is being appended to, a few blocks are *kept*: other files get
//! them only when there is nothing else. That is a hint in memory; kept blocks are free to all
//! accounts, so nothing depends on it ([`Kept`]).
//!
//! Locking: everything is under the AG's mutex. A group stays in memory while it has busy blocks or
//! deltas; hence the tree, which a commit changes before it is durable, is only read for groups that
//! no transaction has touched.

use super::bits::{Bits, BITMAP_BYTES};
use crate::engine::btree::NodeStore;
use crate::engine::btree::{Tree, TreeId, TreeKind, ValueBuf};
use crate::engine::format::{corrupt, le16, le32, GROUP_BLOCKS};
use crate::os::Map;
use kernel::prelude::*;

/// Groups whose free counts share one summary record.
pub const SUMMARY_GROUPS: u64 = 512;
/// Keys of summary records start here.
pub const SUMMARY_KEY: u64 = 1 << 32;
/// Idle groups that are kept in memory.
const IDLE_GROUPS: usize = 32;
/// No group: an empty place among the idle ones.
const NO_GROUP: u64 = u64::MAX;
/// Groups that are looked into for a long run before a shorter one is taken.
const TRIES: usize = 8;

/// Files of an AG that blocks are kept for; the one that asked first gives way to the next.
const KEPT: usize = 64;

/// A few free blocks that are kept for the next append to a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// First block: of the device in the hands of the file, of the AG in its list.
    pub start: u64,
    /// Number of blocks.
    pub len: u32,
    /// Tells it from others that were kept at the same place before.
    id: u64,
}

/// What an allocation is for.
#[derive(Clone, Copy)]
pub struct Wish {
    /// Blocks wanted in one run.
    pub want: u32,
    /// Where.
    pub goal: Option<u64>,
    /// The owner that the blocks get.
    pub owner: Owner,
    /// What was kept for the file.
    pub kept: Option<Kept>,
    /// Blocks to keep for it behind the run.
    pub keep: u32,
}

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

struct Group {
    used: Bits,
    busy: u32,
    run: Option<Delta>,
    commit: Option<Delta>,
    /// The commit delta changed since it was last put into the tree.
    stale: bool,
    /// No free run is longer: saves looking for long runs where there are none, again and again.
    longest: u32,
}

impl Group {
    fn idle(&self) -> bool {
        self.busy == 0 && self.run.is_none() && self.commit.is_none()
    }
}

/// Whose an allocated block is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Data I/O in flight.
    Busy,
    /// The running transaction.
    Running,
    /// The transaction that is being committed.
    Committing,
}

/// The state of an AG; block numbers are relative to its start.
pub struct Ag {
    /// The Alloc tree.
    pub tree: Tree,
    len: u64,
    groups: Map<u64, Group>,
    /// The groups that became idle last. Some of them may be in use again, or gone.
    idle: [u64; IDLE_GROUPS],
    /// The place of the next one.
    next_idle: usize,
    /// What is kept for files, at most [`KEPT`] of them.
    kept: KVec<Kept>,
    /// The place of the next one, and its id.
    next_kept: usize,
    next_id: u64,
    /// The bitmap of a group with what is kept for others; made with the first of them.
    scratch: Option<Bits>,
    /// Blocks of each group that are not used.
    free: KVVec<u16>,
    /// The sum of `free`.
    left: u64,
    /// For each [`SUMMARY_GROUPS`] groups: none of them has more free blocks. Saves looking at each group
    /// of a large AG for what none has.
    most: KVVec<u16>,
    /// By how much the number of groups without a used block changed since this was last asked for.
    emptied: i64,
    cursor: u64,
    meta_cursor: u64,
    /// Groups that the running transaction began to change since this was last asked for.
    touched: u64,
    /// The free counts have been read.
    read: bool,
    /// Bad groups.
    bad: Map<u64, ()>,
    /// Free blocks that bad groups had, since this was last asked for.
    lost: u64,
    /// How many transactions were frozen here; see [`super::Space::ag`].
    pub(super) frozen: u64,
}

impl Ag {
    /// An AG of `len` blocks with the tree `tree`, which is not read: it seems full.
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

    /// Reads the free counts, if that has not been done.
    pub fn read(&mut self, st: &NodeStore) -> Result {
        if self.read {
            return Ok(());
        }
        let n = self.len.div_ceil(GROUP_BLOCKS);
        let mut free = KVVec::with_capacity(n as usize, GFP_KERNEL)?;
        for g in 0..n {
            free.push(self.group_len(g) as u16, GFP_KERNEL)?;
        }
        self.free = free;
        let r = self.load_summaries(st).and_then(|()| self.count());
        if r.is_err() {
            self.free.clear();
        }
        self.read = r.is_ok();
        r
    }

    /// The sums of what was read.
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
        (self.most, self.left) = (most, left);
        self.emptied += empty;
        Ok(())
    }

    fn load_summaries(&mut self, st: &NodeStore) -> Result {
        let mut v = ValueBuf::new();
        let mut from = SUMMARY_KEY;
        while let Some(key) = self.tree.find_ge(st, from, &mut v)? {
            let first = (key - SUMMARY_KEY).saturating_mul(SUMMARY_GROUPS);
            if first >= self.free.len() as u64 {
                return Err(corrupt("free counts", key, "of groups that there are not"));
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

    /// Blocks of group `g`.
    fn group_len(&self, g: u64) -> u32 {
        self.len
            .saturating_sub(g.saturating_mul(GROUP_BLOCKS))
            .min(GROUP_BLOCKS) as u32
    }

    /// Blocks that are not used.
    pub fn free_blocks(&self) -> u64 {
        self.left
    }

    /// Group `g` has `by` free blocks more, or less.
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

    /// By how much the number of groups without a used block changed since the last call.
    pub fn take_emptied(&mut self) -> i64 {
        core::mem::take(&mut self.emptied)
    }

    /// Reads a group's bitmap on disk into `bits`; true if it has a record.
    fn disk_bits(&self, st: &NodeStore, g: u64, bits: &mut Bits) -> Result<bool> {
        let mut v = ValueBuf::new();
        if !self.tree.get(st, g, &mut v)? {
            return Ok(false);
        }
        let bad = || corrupt("bitmap", g, "record length");
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

    fn group(&mut self, st: &NodeStore, g: u64) -> Result<&mut Group> {
        if self.bad.get(&g).is_some() {
            return Err(EUCLEAN);
        }
        if self.groups.get(&g).is_none() {
            if let Err(e) = self.load_group(st, g) {
                if e != ENOMEM {
                    self.condemn(g)?;
                }
                return Err(e);
            }
            self.park(g);
        }
        self.groups.get_mut(&g).ok_or(EIO)
    }

    fn load_group(&mut self, st: &NodeStore, g: u64) -> Result {
        let mut used = Bits::zeroed()?;
        self.disk_bits(st, g, &mut used)?;
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

    /// Takes a group out of use that cannot be worked with.
    fn condemn(&mut self, g: u64) -> Result {
        self.bad.insert(g, ())?;
        let free = self.free.get(g as usize).copied().unwrap_or(0);
        self.add_free(g, -i32::from(free));
        self.lost += u64::from(free);
        pr_err!(
            "allocation group {}: the bitmap of group {} is damaged: nothing is allocated or freed there any more\n",
            self.tree.id().owner,
            g
        );
        Ok(())
    }

    /// Can the group be worked with?
    fn is_good(&mut self, st: &NodeStore, g: u64) -> Result<bool> {
        let r = self.group(st, g).map(|_| true);
        match r {
            Err(_) if self.bad.get(&g).is_some() => Ok(false),
            r => r,
        }
    }

    /// Free blocks that bad groups had, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        core::mem::take(&mut self.lost)
    }

    /// Group `g` is idle now. It takes the place of the one that became idle [`IDLE_GROUPS`] groups ago,
    /// which leaves the memory if it is idle still. So there are no more idle ones than places: each
    /// is put in a place whenever it becomes idle. Needs no memory, and the same time however many
    /// groups are in use.
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

    /// The group to look into for `want` blocks, at or after `from`, wrapping around.
    fn candidate(&mut self, from: u64, want: u32) -> Option<u64> {
        let n = self.free.len();
        let from = (from as usize).min(n);
        self.first_with(from, n, want)
            .or_else(|| self.first_with(0, from, want))
    }

    /// The first of the groups `[from, to)` with `want` free blocks.
    fn first_with(&mut self, from: usize, to: usize, want: u32) -> Option<u64> {
        const CHUNK: usize = SUMMARY_GROUPS as usize;
        let mut at = from;
        while at < to {
            let chunk = at / CHUNK;
            let (begin, end) = (chunk * CHUNK, ((chunk + 1) * CHUNK).min(self.free.len()));
            let most = self.most.get_mut(chunk)?;
            if u32::from(*most) >= want {
                let part = self.free.get(at..end.min(to))?;
                if let Some(i) = part.iter().position(|f| u32::from(*f) >= want) {
                    return Some((at + i) as u64);
                }
                if at == begin && end <= to {
                    *most = part.iter().copied().max().unwrap_or(0);
                }
            }
            at = end;
        }
        None
    }

    /// Gives up what was kept for a file. Has no effect on what took its place.
    pub fn release_kept(&mut self, kept: Kept) {
        self.kept.retain(|k| k.id != kept.id);
    }

    /// Keeps blocks for a file, if there is memory for that.
    fn keep(&mut self, start: u64, len: u32) -> Option<Kept> {
        if self.scratch.is_none() {
            self.scratch = Some(Bits::zeroed().ok()?);
        }
        self.next_id += 1;
        let new = Kept {
            start,
            len,
            id: self.next_id,
        };
        if self.kept.len() < KEPT {
            self.kept.push(new, GFP_KERNEL).ok()?;
        } else {
            *self.kept.get_mut(self.next_kept)? = new;
            self.next_kept = (self.next_kept + 1) % KEPT;
        }
        Some(new)
    }

    /// The bitmap of group `g`, which is in memory, with what is kept there, and whether anything is.
    fn with_kept(&mut self, g: u64) -> Result<(&Bits, bool)> {
        let used = &self.groups.get(&g).ok_or(EIO)?.used;
        let Some(scratch) = &mut self.scratch else {
            return Ok((used, false));
        };
        let mut any = false;
        for k in self.kept.iter().filter(|k| k.start / GROUP_BLOCKS == g) {
            if !any {
                scratch.copy(used);
                any = true;
            }
            scratch.set((k.start % GROUP_BLOCKS) as u32, k.len);
        }
        Ok((if any { scratch } else { used }, any))
    }

    /// Allocates a run of up to `want` blocks near `goal`; a shorter one when there is no run of that length
    /// in reach. Returns its first block, its length and what is kept behind it, or `None` when the AG
    /// is full.
    pub fn alloc(&mut self, st: &NodeStore, w: Wish) -> Result<Option<(u64, u32, Option<Kept>)>> {
        if let Some(k) = w.kept {
            self.release_kept(k);
        }
        if self.left == 0 {
            return Ok(None);
        }
        let found = self.search(st, w)?;
        if found.is_some() || self.kept.is_empty() {
            return Ok(found);
        }
        // Only what is kept is left.
        self.kept.clear();
        self.search(st, w)
    }

    fn search(&mut self, st: &NodeStore, w: Wish) -> Result<Option<(u64, u32, Option<Kept>)>> {
        let want = w.want.clamp(1, GROUP_BLOCKS as u32);
        let both = want.saturating_add(w.keep).min(GROUP_BLOCKS as u32);
        let meta = w.owner == Owner::Committing;
        let cursor = if meta { self.meta_cursor } else { self.cursor };
        let start = w.goal.filter(|g| *g < self.len).unwrap_or(cursor);
        let mut need = want;
        let mut best: Option<(u64, u32, u32)> = None;
        let mut g = start / GROUP_BLOCKS;
        let mut attempt = 0;
        while attempt < TRIES {
            // Fewer free blocks than wanted everywhere: take what there is.
            let Some(c) = self.candidate(g, need).or_else(|| self.candidate(g, 1)) else {
                break;
            };
            let from = if attempt == 0 && c == start / GROUP_BLOCKS {
                (start % GROUP_BLOCKS) as u32
            } else {
                0
            };
            let cap = self.group_len(c);
            if !self.is_good(st, c)? {
                // It counts as full now, so this ends.
                continue;
            }
            attempt += 1;
            let longest = self.group(st, c)?.longest;
            let mut found = None;
            if best.is_none_or(|b| b.2 < longest) {
                let look = both.min(longest).max(1);
                let (used, kept) = self.with_kept(c)?;
                // What follows the goal is good enough without anything behind it.
                let run = used.next(from, cap, true).saturating_sub(from);
                found = (run >= want)
                    .then_some((from, run.min(look)))
                    .or_else(|| used.find_clear(from, cap, look));
                if found.is_none_or(|(_, l)| l < want.min(look)) {
                    if from > 0 {
                        found = used.find_clear(0, cap, look);
                    }
                    let len = found.map_or(0, |f| f.1);
                    if len < look && !kept {
                        if let Some(group) = self.groups.get_mut(&c) {
                            group.longest = len;
                        }
                    }
                }
            }
            if let Some((at, len)) = found {
                if best.is_none_or(|b| b.2 < len) {
                    best = Some((c, at, len));
                }
                if len >= want {
                    break;
                }
            }
            g = c + 1;
            need = best.map_or(1, |b| b.2.saturating_add(1)).max(1);
            if self.candidate(g, need).is_none() {
                break;
            }
        }
        let Some((g, at, run)) = best else {
            return Ok(None);
        };
        let len = run.min(want);
        self.take(st, g, at, len, w.owner)?;
        let first = g * GROUP_BLOCKS + u64::from(at);
        let next = first + u64::from(len);
        let kept = match (run - len).min(w.keep) {
            0 => None,
            n => self.keep(next, n),
        };
        if meta {
            self.meta_cursor = next;
        } else {
            self.cursor = next;
        }
        Ok(Some((first, len, kept)))
    }

    fn take(&mut self, st: &NodeStore, g: u64, at: u32, len: u32, owner: Owner) -> Result {
        let mut fresh = 0;
        let group = self.group(st, g)?;
        match owner {
            Owner::Busy => group.busy += len,
            Owner::Running => delta(&mut group.run, &mut fresh)?.set.set(at, len),
            Owner::Committing => {
                delta(&mut group.commit, &mut 0)?.set.set(at, len);
                group.stale = true;
            }
        }
        group.used.set(at, len);
        self.touched += fresh;
        self.add_free(g, -(len as i32));
        Ok(())
    }

    /// Calls `f(ag, group, first bit, length)` for the parts of `[block, block + len)`.
    fn parts(
        &mut self,
        block: u64,
        len: u64,
        mut f: impl FnMut(&mut Self, u64, u32, u32) -> Result,
    ) -> Result {
        let end = block.saturating_add(len);
        if end > self.len {
            return Err(corrupt("allocation", block, "beyond the end of its group"));
        }
        let mut at = block;
        while at < end {
            let bit = (at % GROUP_BLOCKS) as u32;
            let n = (GROUP_BLOCKS - u64::from(bit)).min(end - at) as u32;
            f(self, at / GROUP_BLOCKS, bit, n)?;
            at += u64::from(n);
        }
        Ok(())
    }

    /// Marks blocks used without looking for them (mkfs: the reserved areas).
    pub fn reserve_fixed(&mut self, st: &NodeStore, block: u64, len: u64) -> Result {
        self.parts(block, len, |ag, g, at, n| {
            ag.take(st, g, at, n, Owner::Running)
        })
    }

    /// Replay: takes the blocks of the range that nobody uses yet as busy; returns how many.
    pub fn claim(&mut self, st: &NodeStore, block: u64, len: u64) -> Result<u64> {
        let mut n = 0;
        self.parts(block, len, |ag, g, at, len| {
            let (mut at, end) = (at, at + len);
            loop {
                let used = &ag.group(st, g)?.used;
                let from = used.next(at, end, false);
                if from >= end {
                    return Ok(());
                }
                at = used.next(from, end, true);
                ag.take(st, g, from, at - from, Owner::Busy)?;
                n += u64::from(at - from);
            }
        })?;
        Ok(n)
    }

    /// Replay: are these blocks free on disk and claimed, and by nobody in use? Else a record maps what belongs
    /// to something else.
    pub fn is_claimed(&mut self, st: &NodeStore, block: u64, len: u64) -> Result<bool> {
        let mut good = true;
        let mut bits = Bits::zeroed()?;
        self.parts(block, len, |ag, g, at, n| {
            bits.clear(0, GROUP_BLOCKS as u32);
            ag.disk_bits(st, g, &mut bits)?;
            let group = ag.group(st, g)?;
            let given = group.run.as_ref().map_or(0, |d| d.set.count_range(at, n));
            good &= bits.count_range(at, n) == 0 && given == 0;
            good &= group.used.count_range(at, n) == n;
            Ok(())
        })?;
        Ok(good)
    }

    /// Data I/O completed: its busy blocks enter the running transaction.
    pub fn commit_busy(&mut self, st: &NodeStore, block: u64, len: u64) -> Result {
        self.parts(block, len, |ag, g, at, n| {
            let mut fresh = 0;
            let group = ag.group(st, g)?;
            delta(&mut group.run, &mut fresh)?.set.set(at, n);
            group.busy = group.busy.saturating_sub(n);
            ag.touched += fresh;
            Ok(())
        })
    }

    /// Data I/O failed or was never submitted: its blocks are free at once.
    pub fn release_busy(&mut self, st: &NodeStore, block: u64, len: u64) -> Result {
        self.parts(block, len, |ag, g, at, n| {
            let group = ag.group(st, g)?;
            group.used.clear(at, n);
            group.longest = GROUP_BLOCKS as u32;
            group.busy = group.busy.saturating_sub(n);
            let idle = group.idle();
            ag.add_free(g, n as i32);
            if idle {
                ag.park(g);
            }
            Ok(())
        })
    }

    /// Frees blocks in the running or the committing transaction. They stay unavailable until that
    /// transaction is durable (R7). Returns how many will be free then: not those of bad groups.
    pub fn free(&mut self, st: &NodeStore, block: u64, len: u64, committing: bool) -> Result<u64> {
        let mut freed = 0;
        self.parts(block, len, |ag, g, at, n| {
            if !ag.is_good(st, g)? {
                return Ok(());
            }
            let group = ag.group(st, g)?;
            if group.used.count_range(at, n) != n {
                return Err(corrupt("allocation", block, "freeing a block that is free"));
            }
            let mut fresh = 0;
            let d = match committing {
                true => delta(&mut group.commit, &mut 0)?,
                false => delta(&mut group.run, &mut fresh)?,
            };
            if d.clear.count_range(at, n) != 0 {
                return Err(corrupt("allocation", block, "freeing a block twice"));
            }
            d.clear.set(at, n);
            group.stale |= committing;
            ag.touched += fresh;
            freed += u64::from(n);
            Ok(())
        })?;
        Ok(freed)
    }

    /// Barrier: what the running transaction did now belongs to the commit.
    pub fn freeze(&mut self) {
        let mut g = 0;
        while let Some((key, _)) = self.groups.first_ge(g) {
            if let Some(group) = self.groups.get_mut(&key) {
                group.commit = group.run.take();
                group.stale = group.commit.is_some();
            }
            g = key + 1;
        }
    }

    /// Puts the commit's deltas into the tree. Returns whether something changed, and by how much the
    /// free blocks on disk did.
    pub fn apply(&mut self, st: &NodeStore) -> Result<(bool, i64)> {
        let mut changed = false;
        let mut by = 0i64;
        let mut from = 0;
        let mut value = KVec::new();
        let mut bits = Bits::zeroed()?;
        while let Some((g, stale)) = self.groups.first_ge(from).map(|(g, x)| (g, x.stale)) {
            from = g + 1;
            if !stale {
                continue;
            }
            bits.clear(0, GROUP_BLOCKS as u32);
            self.disk_bits(st, g, &mut bits)?;
            let cap = self.group_len(g);
            let Some(group) = self.groups.get_mut(&g) else {
                continue;
            };
            group.stale = false;
            let Some(d) = &group.commit else { continue };
            let used = bits.count_range(0, cap);
            bits.or(&d.set);
            bits.and_not(&d.clear);
            let free = cap - bits.count_range(0, cap);
            by += i64::from(free) - i64::from(cap - used);
            // No record says the same as one of an empty group: a disk that is emptied needs no nodes for what
            // it had. Removing one may need its neighbours, which may be damaged.
            let removed = free == cap
                && match self.tree.remove(st, g) {
                    Err(e) if e == ENOMEM => return Err(e),
                    r => r.is_ok(),
                };
            if !removed {
                value.clear();
                value.extend_from_slice(&free.to_le_bytes(), GFP_KERNEL)?;
                bits.store(&mut value)?;
                self.tree.insert(st, g, &value)?;
            }
            self.put_summary(st, g, free as u16)?;
            changed = true;
        }
        Ok((changed, by))
    }

    fn put_summary(&mut self, st: &NodeStore, g: u64, free: u16) -> Result {
        let key = SUMMARY_KEY + g / SUMMARY_GROUPS;
        let first = g - g % SUMMARY_GROUPS;
        let mut v = ValueBuf::new();
        let mut out = KVec::new();
        if self.tree.get(st, key, &mut v)? {
            out.extend_from_slice(v.as_slice(), GFP_KERNEL)?;
        } else {
            for i in 0..SUMMARY_GROUPS {
                let n = self.group_len(first + i) as u16;
                out.extend_from_slice(&n.to_le_bytes(), GFP_KERNEL)?;
            }
        }
        let at = 2 * (g - first) as usize;
        let slot = out.get_mut(at..at + 2).ok_or(EIO)?;
        slot.copy_from_slice(&free.to_le_bytes());
        let all_free = (first..)
            .zip(out.chunks_exact(2))
            .all(|(g, n)| n == (self.group_len(g) as u16).to_le_bytes());
        if all_free {
            return self.tree.remove(st, key).map(|_| ());
        }
        self.tree.insert(st, key, &out)
    }

    /// Calls `f(block, len)` for the runs that the commit frees.
    pub fn freed_runs(&self, mut f: impl FnMut(u64, u64)) {
        let lim = GROUP_BLOCKS as u32;
        self.groups.for_each(|g, group| {
            let Some(d) = &group.commit else { return };
            let mut i = d.clear.next(0, lim, true);
            while i < lim {
                let end = d.clear.next(i, lim, false);
                f(g * GROUP_BLOCKS + u64::from(i), u64::from(end - i));
                i = d.clear.next(end, lim, true);
            }
        });
    }

    /// The commit is durable: what it freed may be used again (R7). Returns how many blocks that are.
    pub fn finish_commit(&mut self) -> u64 {
        let mut total = 0u64;
        let mut from = 0;
        while let Some((g, _)) = self.groups.first_ge(from) {
            from = g + 1;
            let Some(group) = self.groups.get_mut(&g) else {
                continue;
            };
            let Some(d) = group.commit.take() else {
                continue;
            };
            group.used.and_not(&d.clear);
            group.longest = GROUP_BLOCKS as u32;
            let n = d.clear.count();
            let idle = group.idle();
            self.add_free(g, n as i32);
            total += u64::from(n);
            if idle {
                self.park(g);
            }
        }
        total
    }

    /// How many groups the running transaction began to change since the last call.
    pub fn take_touched(&mut self) -> u64 {
        core::mem::take(&mut self.touched)
    }

    /// Groups in memory.
    pub fn groups_in_memory(&self) -> usize {
        self.groups.len()
    }

    /// The AG's tree id.
    pub fn tree_id(index: u32) -> TreeId {
        TreeId {
            kind: TreeKind::Alloc,
            owner: u64::from(index),
        }
    }
}

fn delta<'a>(slot: &'a mut Option<Delta>, fresh: &mut u64) -> Result<&'a mut Delta> {
    if slot.is_none() {
        *slot = Some(Delta::new()?);
        *fresh += 1;
    }
    slot.as_mut().ok_or(ENOMEM)
}
