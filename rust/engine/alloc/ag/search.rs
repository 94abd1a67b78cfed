// SPDX-License-Identifier: GPL-2.0

//! Finding free blocks: a search for a run near a goal, with blocks kept behind it for the next
//! appends. Everything is under the AG's mutex. Block numbers are relative to the AG, bits to a
//! group.
//!
//! Tests: `tools/engine/tests/appends.rs`, `tools/engine/tests/full_disk.rs`,
//! `tools/engine/tests/bulk.rs`, `tools/engine/tests/cost.rs`.

use super::{Ag, Kept, Owner, State, Wish};
use crate::engine::alloc::bits::Bits;
use crate::engine::btree::NodeStore;
use crate::engine::format::ag::run_class;
use crate::engine::format::GROUP_BLOCKS;
use crate::engine::invariant::{broken, Invariant};
use kernel::prelude::*;

/// How many groups with free blocks to search for a long run before taking a shorter one. Groups that
/// turn out to be full when they are read do not count: an AG has few groups, and each is read once.
const TRIES: usize = 8;
/// For how many files of an AG blocks are kept. The file that asked first gives way to the next
/// one.
const KEPT: usize = 64;
/// For one file an AG keeps at most this part of its free blocks, or [`MIN_KEPT`],
const FOR_ONE: u64 = 32;
/// and for all files together at most this part.
const FOR_ALL: u64 = 2;
/// The blocks that are kept for a file whatever is free, 64 KiB.
const MIN_KEPT: u64 = 16;

/// A free run: its group, its first bit in the group, its length.
struct Free {
    group: u64,
    at: u32,
    len: u32,
}

impl Ag {
    /// The next group with `want` free blocks, at or after `from`, wrapping around. A group that was
    /// not read yet counts if the record does not say that all its runs are shorter.
    fn candidate(&self, from: u64, want: u32) -> Option<u64> {
        let n = self.info.len() as u64;
        let from = from.min(n);
        let fits = |g: &u64| {
            self.info(*g).is_some_and(|i| match i.free {
                Some(free) => free >= want,
                None => run_class(want.into()) <= self.longest,
            })
        };
        (from..n).find(fits).or_else(|| (0..from).find(fits))
    }

    /// Gives up the blocks kept for a file. Has no effect on an entry that took their place.
    pub fn release_kept(&mut self, kept: Kept) {
        self.kept.retain(|k| k.id != kept.id);
    }

    /// Keeps blocks for a file, unless memory is missing. Those that were kept first give way.
    fn keep(&mut self, start: u64, len: u32) -> Option<Kept> {
        if self.scratch.is_none() {
            self.scratch = Some(Bits::zeroed().ok()?);
        }
        let mut all = u64::from(len);
        self.kept.iter().for_each(|k| all += u64::from(k.len));
        while self.kept.len() >= KEPT || all > self.left / FOR_ALL {
            let Ok(oldest) = self.kept.remove(0) else {
                break;
            };
            all -= u64::from(oldest.len);
        }
        self.next_id += 1;
        let new = Kept {
            start,
            len,
            id: self.next_id,
        };
        self.kept.push(new, GFP_KERNEL).ok()?;
        Some(new)
    }

    /// The bitmap of group `g`, which is in memory, with the kept blocks set as well, and whether
    /// there are any.
    fn with_kept(&mut self, g: u64) -> Result<(&Bits, bool)> {
        let group = self.groups.get(&g);
        let used = &group
            .ok_or_else(|| broken(Invariant::Contents, format_args!("group {g} left")))?
            .used;
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

    /// Allocates a run of up to `want` blocks near `goal`; a shorter one if there is no run of that
    /// length within reach. Returns its first block, its length and the blocks kept behind it, or
    /// `None` if the AG is full.
    pub fn alloc(
        &mut self,
        node_store: &NodeStore,
        w: Wish,
    ) -> Result<Option<(u64, u32, Option<Kept>)>> {
        if let Some(k) = w.kept {
            self.release_kept(k);
        }
        if !self.allocates() {
            return Ok(None);
        }
        let found = self.search(node_store, w)?;
        if found.is_some() || self.kept.is_empty() {
            return Ok(found);
        }
        // Only kept blocks are left.
        self.kept.clear();
        self.search(node_store, w)
    }

    /// Looks for a run, takes it, and keeps blocks behind it; as [`Ag::alloc`], but leaves kept
    /// blocks alone.
    fn search(
        &mut self,
        node_store: &NodeStore,
        w: Wish,
    ) -> Result<Option<(u64, u32, Option<Kept>)>> {
        let want = w.want.clamp(1, GROUP_BLOCKS as u32);
        let start = w.goal.filter(|g| *g < self.len).unwrap_or(self.cursor);
        let keep = u64::from(w.keep).min((self.left / FOR_ONE).max(MIN_KEPT)) as u32;
        let Some(found) = self.best_run(node_store, start, want, keep)? else {
            return Ok(None);
        };
        let len = found.len.min(want);
        match self.take(node_store, found.group, found.at, len, w.owner) {
            // The group had left memory, and could not be read again.
            Err(_) if self.state != State::Good => return Ok(None),
            r => r?,
        }
        let first = found.group * GROUP_BLOCKS + u64::from(found.at);
        let next = first + u64::from(len);
        let kept = match (found.len - len).min(keep) {
            0 => None,
            n => self.keep(next, n),
        };
        // Nodes have a goal, which goes on from commit to commit.
        if w.owner != Owner::Committing {
            self.cursor = next;
        }
        Ok(Some((first, len, kept)))
    }

    /// The free run at `start` if it has `want` blocks; else the first one behind it with `keep`
    /// blocks more than that; else the longest one in the groups that are searched.
    fn best_run(
        &mut self,
        node_store: &NodeStore,
        start: u64,
        want: u32,
        keep: u32,
    ) -> Result<Option<Free>> {
        let both = want.saturating_add(keep).min(GROUP_BLOCKS as u32);
        let mut need = want;
        let mut best: Option<Free> = None;
        let mut g = start / GROUP_BLOCKS;
        let mut attempt = 0;
        // Only for the first group.
        let mut offset = (start % GROUP_BLOCKS) as u32;
        while attempt < TRIES {
            // If no group has that many free blocks, one is enough.
            let Some(c) = self.candidate(g, need).or_else(|| self.candidate(g, 1)) else {
                break;
            };
            let from = match c == start / GROUP_BLOCKS {
                true => offset,
                false => 0,
            };
            offset = 0;
            if !self.is_good(node_store, c)? {
                return Ok(None);
            }
            g = c + 1;
            let (free, longest) = self
                .info(c)
                .map_or((0, 0), |i| (i.free.unwrap_or(0), i.longest));
            if free == 0 {
                continue;
            }
            attempt += 1;
            if best.as_ref().is_none_or(|b| b.len < longest) {
                let look = both.min(longest).max(1);
                if let Some((at, len)) = self.run_in_group(c, from, want, look)? {
                    if best.as_ref().is_none_or(|b| b.len < len) {
                        best = Some(Free { group: c, at, len });
                    }
                    // The file goes on where it is; elsewhere it gets room to grow, if there is any.
                    let goes_on = attempt == 1 && c == start / GROUP_BLOCKS && at == from;
                    if (goes_on && len >= want) || len >= both {
                        break;
                    }
                }
            }
            need = best.as_ref().map_or(1, |b| b.len.saturating_add(1)).max(1);
            if self.candidate(g, need).is_none() {
                break;
            }
        }
        Ok(best)
    }

    /// A free run of up to `look` blocks in group `g`, which is in memory: its first bit, and its
    /// length.
    fn run_in_group(
        &mut self,
        g: u64,
        from: u32,
        want: u32,
        look: u32,
    ) -> Result<Option<(u32, u32)>> {
        let cap = self.group_len(g);
        let (used, kept) = self.with_kept(g)?;
        // A run at the goal is good enough, even with nothing left to keep behind it.
        let run = used.next_set(from, cap).saturating_sub(from);
        let mut found = (run >= want)
            .then_some((from, run.min(look)))
            .or_else(|| used.find_clear(from, cap, look));
        if found.is_none_or(|(_, l)| l < want.min(look)) {
            if from > 0 {
                found = used.find_clear(0, cap, look);
            }
            let len = found.map_or(0, |f| f.1);
            if len < look && !kept {
                if let Some(info) = self.info_mut(g) {
                    info.longest = len;
                }
            }
        }
        Ok(found)
    }
}
