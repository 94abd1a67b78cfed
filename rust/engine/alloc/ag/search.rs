// SPDX-License-Identifier: GPL-2.0

//! Finding free blocks: a search for a run near a goal, with blocks kept behind it for the next
//! appends. Everything is under the AG's mutex. Block numbers are relative to the AG, bits to a
//! group.
//!
//! Tests: `tools/engine/tests/appends.rs`, `tools/engine/tests/full_disk.rs`,
//! `tools/engine/tests/bulk.rs`, `tools/engine/tests/cost.rs`.

use super::{Ag, Kept, Owner, State, Wish, PIECE};
use crate::engine::alloc::bits::Bits;
use crate::engine::btree::NodeStore;
use crate::engine::format::ag::run_class;
use crate::engine::format::GROUP_BLOCKS;
use crate::engine::invariant::{broken, Invariant};
use kernel::prelude::*;

/// In how many groups with free runs to search for a long run before taking a shorter one.
const TRIES: usize = 8;
/// For how many files of an AG blocks are kept. The file that asked first gives way to the next
/// one.
const KEPT: usize = 64;
/// The smallest number of blocks to keep for a file, 64 KiB.
pub const MIN_KEPT: u64 = 16;
/// The number of blocks that an AG keeps for a file if it asks for them, however little is free.
const FOR_SURE: u64 = PIECE as u64;

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

    /// The most blocks to keep for a file. Of all free blocks half is kept, or 1/32 for each file if
    /// that is less; the files that share them get equal parts in the end, since each of them asks
    /// again with each append. But no part is smaller than [`FOR_SURE`].
    fn most_kept(&self) -> u64 {
        let mut all = 0;
        self.kept.iter().for_each(|k| all += u64::from(k.len));
        let rest = (self.left / 2).saturating_sub(all);
        (self.left / 32).min(rest / 4).max(FOR_SURE)
    }

    /// Keeps blocks for a file, unless memory is missing.
    fn keep(&mut self, start: u64, len: u32) -> Option<Kept> {
        if self.scratch.is_none() {
            self.scratch = Some(Bits::zeroed().ok()?);
        }
        if self.kept.len() >= KEPT {
            self.kept.remove(0).ok()?;
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

    /// Gives up blocks that are kept for some file, if there are more of them than `len` in one
    /// place. Returns whether there were.
    fn give_up_kept(&mut self, len: u32) -> bool {
        let oldest = self.kept.iter().position(|k| k.len > len);
        oldest.is_some_and(|i| self.kept.remove(i).is_ok())
    }

    /// The bitmap of group `g`, which is in memory, with the kept, the withheld and the closed blocks set as well,
    /// and whether there are any.
    fn with_kept(&mut self, g: u64) -> Result<(&Bits, bool)> {
        let (closed, n) = self.closed_bits(g);
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
        // Within one group.
        let withheld = self.withheld.as_ref();
        if let Some(w) = withheld.filter(|w| w.start / GROUP_BLOCKS == g) {
            if !any {
                scratch.copy(used);
                any = true;
            }
            scratch.set((w.start % GROUP_BLOCKS) as u32, (w.end - w.start) as u32);
        }
        if n > 0 {
            if !any {
                scratch.copy(used);
                any = true;
            }
            scratch.set(closed, n);
        }
        Ok((if any { scratch } else { used }, any))
    }

    /// Allocates a run of up to `want` blocks near `goal`; a shorter one if there is no run of that
    /// length within reach. Returns its first block, its length and the blocks kept behind it, or
    /// `None` if the AG has no run that will do.
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
        let want = w.want.clamp(1, GROUP_BLOCKS as u32);
        let keep = u64::from(w.keep).min(self.most_kept()) as u32;
        let goal = w.goal.filter(|g| *g < self.len);
        let found = loop {
            let found = self.best_run(node_store, goal, want, keep)?;
            let len = found.as_ref().map_or(0, |f| f.len);
            let first = found
                .as_ref()
                .map(|f| f.group * GROUP_BLOCKS + u64::from(f.at));
            let goes_on = len >= want && first == goal;
            if !w.last && !goes_on && len < w.least() {
                return Ok(None);
            }
            // Better that a file finds less room to grow than that this one comes in small pieces.
            let small = !goes_on && len < want.min(PIECE);
            if !(w.last && small && self.give_up_kept(len)) {
                break found;
            }
        };
        let Some(found) = found else {
            return Ok(None);
        };
        let len = match w.up_to > want {
            true => self.stretch(&found, w.up_to)?,
            false => found.len.min(want),
        };
        match self.take(node_store, found.group, found.at, len, w.owner) {
            // The group had left memory, and could not be read again.
            Err(_) if self.state != State::Good => return Ok(None),
            r => r?,
        }
        let first = found.group * GROUP_BLOCKS + u64::from(found.at);
        let next = first + u64::from(len);
        let kept = match found.len.saturating_sub(len).min(keep) {
            0 => None,
            n => self.keep(next, n),
        };
        // Nodes have a goal, which goes on from commit to commit.
        if w.owner != Owner::Committing {
            self.cursor = next;
        }
        Ok(Some((first, len, kept)))
    }

    /// How many blocks are free where a run was found, up to `up_to`. Leaves kept blocks alone, but for
    /// those of the run.
    fn stretch(&mut self, found: &Free, up_to: u32) -> Result<u32> {
        let cap = self.group_len(found.group);
        let behind = found.at.saturating_add(found.len);
        let (used, _) = self.with_kept(found.group)?;
        let end = used.next_set(behind.min(cap), cap);
        Ok(end.saturating_sub(found.at).min(up_to))
    }

    /// The free run at `goal` if it has `want` blocks; else the first one behind it, or behind the
    /// cursor, with `keep` blocks more than that; else the longest one in the groups that are
    /// searched. Leaves kept blocks alone.
    fn best_run(
        &mut self,
        node_store: &NodeStore,
        goal: Option<u64>,
        want: u32,
        keep: u32,
    ) -> Result<Option<Free>> {
        let start = goal.unwrap_or(self.cursor);
        let both = want.saturating_add(keep).min(GROUP_BLOCKS as u32);
        let mut need = want;
        let mut best: Option<Free> = None;
        let mut g = start / GROUP_BLOCKS;
        // Only for the first group.
        let mut offset = Some((start % GROUP_BLOCKS) as u32);
        let mut left = TRIES;
        let mut groups = self.info.len() + 1;
        while left > 0 && groups > 0 {
            groups -= 1;
            // If no group has that many free blocks, one is enough.
            let Some(c) = self.candidate(g, need).or_else(|| self.candidate(g, 1)) else {
                break;
            };
            g = c + 1;
            let from = offset.take().filter(|_| c == start / GROUP_BLOCKS);
            let have = best.as_ref().map_or(0, |b| b.len);
            // What is known without reading it.
            let longest = |ag: &Self| ag.info(c).map_or(0, |i| i.free.map_or(0, |_| i.longest));
            let known = self.info(c).is_some_and(|i| i.free.is_some());
            if !known || longest(self) > have {
                match self.is_good(node_store, c) {
                    Ok(true) => {}
                    Ok(false) => return Ok(None),
                    // What has been found may do, and this was only for more.
                    Err(_) if have > 0 && self.state == State::Good => break,
                    Err(e) => return Err(e),
                }
                let look = both.min(longest(self));
                let found = match look > have {
                    true => self.run_in_group(c, from.unwrap_or(0), goal.and(from), want, look)?,
                    false => None,
                };
                if let Some((at, len)) = found {
                    left -= 1;
                    if len > have {
                        best = Some(Free { group: c, at, len });
                    }
                    // A file goes on where it is; elsewhere it gets room to grow, if there is any.
                    let goes_on = goal.is_some() && from == Some(at) && len >= want;
                    if goes_on || len >= both {
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
    /// length. The search starts at bit `from`; a run of `want` blocks at bit `goal` is good enough.
    fn run_in_group(
        &mut self,
        g: u64,
        from: u32,
        goal: Option<u32>,
        want: u32,
        look: u32,
    ) -> Result<Option<(u32, u32)>> {
        let cap = self.group_len(g);
        let (used, kept) = self.with_kept(g)?;
        // Even with nothing left to keep behind it.
        if let Some(goal) = goal {
            let run = used.next_set(goal, cap).saturating_sub(goal);
            if run >= want {
                return Ok(Some((goal, run.min(look))));
            }
        }
        let mut found = used.find_clear(from, cap, look);
        if from > 0 && found.is_none_or(|(_, l)| l < look) {
            found = used.find_clear(0, cap, look);
        }
        let len = found.map_or(0, |f| f.1);
        if len < look && !kept {
            if let Some(info) = self.info_mut(g) {
                info.longest = len;
            }
        }
        Ok(found)
    }
}
