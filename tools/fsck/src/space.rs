// SPDX-License-Identifier: GPL-2.0

//! The allocation trees: bitmaps and free counts against the owners of all blocks.
//!
//! # Model
//!
//! While the trees are walked, the bitmaps become one list of runs of used blocks, [`Used`].
//! Afterwards the list is compared with the claims, run by run. A group without a record is free as
//! a whole and costs neither time nor memory: both grow with what is used, not with the size of the
//! device.
//!
//! The comparison waits until all trees have been walked, because their own nodes are claimed on
//! the way.
//!
//! Tests: below, `tools/engine/tests/checker.rs`, `tools/fsck/tests/check_cost.rs`.

use crate::Checker;
use ordofs_engine::engine::alloc::ag::{Ag, SUMMARY_GROUPS, SUMMARY_KEY};
use ordofs_engine::engine::alloc::bits::{Bits, BITMAP_BYTES};
use ordofs_engine::engine::format::{le16, le32, GROUP_BLOCKS};
use ordofs_engine::engine::volume::mount::tree_of;

/// Runs of blocks that the bitmaps mark as used: half-open, as (start, end), in ascending order.
#[derive(Default)]
struct Used(Vec<(u64, u64)>);

impl Used {
    /// Adds the set bits among the first `len` of a group that starts at block `first`.
    fn add(&mut self, first: u64, len: u32, bits: &Bits) {
        let mut at = bits.next_set(0, len);
        while at < len {
            let end = bits.next_clear(at, len);
            let run = (first + u64::from(at), first + u64::from(end));
            match self.0.last_mut() {
                Some(last) if last.1 == run.0 => last.1 = run.1,
                _ => self.0.push(run),
            }
            at = bits.next_set(end, len);
        }
    }
}

/// An allocation group while its tree is walked.
struct AgWalk {
    index: u32,
    start: u64,
    len: u64,
    /// The groups with a bitmap, in ascending order, and the free blocks of each.
    groups: Vec<(u64, u64)>,
    /// The numbers of the summary records seen so far, in ascending order.
    summaries: Vec<u64>,
}

impl AgWalk {
    fn group_count(&self) -> u64 {
        self.len.div_ceil(GROUP_BLOCKS)
    }

    /// The number of blocks of group `g`; 0 past the last one.
    fn group_len(&self, g: u64) -> u64 {
        let before = g.saturating_mul(GROUP_BLOCKS);
        self.len.saturating_sub(before).min(GROUP_BLOCKS)
    }

    fn place(&self, g: u64) -> String {
        format!("allocation group {}, group {g}", self.index)
    }

    /// Free blocks of group `g` by its bitmap.
    fn free(&self, g: u64) -> u64 {
        match self.groups.binary_search_by_key(&g, |(g, _)| *g) {
            Ok(i) => self.groups[i].1,
            Err(_) => self.group_len(g),
        }
    }
}

impl Checker<'_> {
    /// Checks the allocation trees, when all other blocks have been claimed.
    pub(crate) fn check_space(&mut self) {
        let mut used = Used::default();
        let mut free = 0;
        for ag in 0..self.sb.ag_count {
            free += self.walk_ag(ag, &mut used);
        }
        self.report.stats.free_blocks = free;
        if free != self.sb.free {
            let said = self.sb.free;
            self.problem(
                "superblock",
                format_args!("counts {said} free blocks, there are {free}"),
            );
        }
        self.compare(&used);
    }

    /// Walks the tree of an allocation group and checks its records against each other. Returns how
    /// many blocks of the group are free.
    fn walk_ag(&mut self, index: u32, used: &mut Used) -> u64 {
        let mut ag = AgWalk {
            index,
            start: self.sb.ag_start(index),
            len: self.sb.ag_len(index),
            groups: Vec::new(),
            summaries: Vec::new(),
        };
        let Some(root) = self.sb.ag_roots.get(index as usize) else {
            return ag.len;
        };
        let tree = tree_of(Ag::tree_id(index), *root);
        // Bitmaps come first: their keys are below those of all summaries.
        self.walk(&tree, |c, key, value| match key.checked_sub(SUMMARY_KEY) {
            None => c.check_bitmap(&mut ag, key, value, used),
            Some(s) => c.check_summary(&mut ag, s, value),
        });
        // A group without a place in a summary record was never touched.
        for (g, free) in &ag.groups {
            let len = ag.group_len(*g);
            let told = ag.summaries.binary_search(&(g / SUMMARY_GROUPS)).is_ok();
            if !told && *free != len {
                self.free_count(&ag.place(*g), len, *free);
            }
        }
        let not_free = ag.groups.iter().map(|(g, free)| ag.group_len(*g) - free);
        ag.len - not_free.sum::<u64>()
    }

    fn free_count(&mut self, place: &str, said: u64, free: u64) {
        self.problem(
            place,
            format_args!("free count is {said}, its bitmap has {free}"),
        );
    }

    /// Checks the bitmap of group `g` against its own free count, and adds it to `used`.
    fn check_bitmap(&mut self, ag: &mut AgWalk, g: u64, value: &[u8], used: &mut Used) {
        let bits = Bits::zeroed().ok().and_then(|mut bits| {
            bits.load(value.get(4..)?)?;
            Some(bits)
        });
        let (Some(said), Some(bits), true) = (
            le32(value, 0),
            bits,
            g < ag.group_count() && value.len() == 4 + BITMAP_BYTES,
        ) else {
            let place = format!("allocation group {}, record {g:#x}", ag.index);
            return self.problem(place, "malformed bitmap");
        };
        let place = ag.place(g);
        // At most GROUP_BLOCKS.
        let len = ag.group_len(g) as u32;
        let free = len - bits.count_range(0, len);
        if said != free {
            self.problem(
                &place,
                format_args!("says {said} free blocks, its bitmap has {free}"),
            );
        }
        if bits.count_range(len, GROUP_BLOCKS as u32 - len) != 0 {
            self.problem(&place, "blocks past its end are marked");
        }
        used.add(ag.start + g * GROUP_BLOCKS, len, &bits);
        ag.groups.push((g, u64::from(free)));
    }

    /// Checks summary record `s` against the bitmaps.
    fn check_summary(&mut self, ag: &mut AgWalk, s: u64, value: &[u8]) {
        let first = s.saturating_mul(SUMMARY_GROUPS);
        if first >= ag.group_count() || value.len() != 2 * SUMMARY_GROUPS as usize {
            let key = SUMMARY_KEY + s;
            let place = format!("allocation group {}, record {key:#x}", ag.index);
            return self.problem(place, "malformed free counts");
        }
        ag.summaries.push(s);
        for i in 0..SUMMARY_GROUPS {
            let g = first + i;
            let said = le16(value, 2 * i as usize).map_or(0, u64::from);
            if g >= ag.group_count() {
                if said != 0 {
                    self.problem(ag.place(g), "has a free count but does not exist");
                }
            } else if said != ag.free(g) {
                self.free_count(&ag.place(g), said, ag.free(g));
            }
        }
    }

    /// Compares the marks with the owners. Nothing is claimed after this.
    fn compare(&mut self, used: &Used) {
        let claims = std::mem::take(&mut self.claims);
        let marked = || used.0.iter().copied();
        let owned = || claims.runs().map(|(start, len, _)| (start, start + len));
        let owners = claims
            .runs()
            .map(|(start, len, owner)| (start, start + len, owner));
        without(owners, marked(), |start, end, owner| {
            self.problem(
                format_args!("blocks {start}..{end}"),
                format_args!("belong to {owner} but are marked free"),
            );
        });
        let marks = marked().map(|(start, end)| (start, end, ()));
        without(marks, owned(), |start, end, ()| {
            self.problem(
                format_args!("blocks {start}..{end}"),
                "are marked used but nothing refers to them",
            );
        });
    }
}

/// Calls `f` for the parts of the runs `of` that no run of `minus` covers. A run is its start, its
/// end, and a value that is passed on. The runs of each list are in ascending order and do not
/// overlap.
fn without<T: Copy>(
    of: impl Iterator<Item = (u64, u64, T)>,
    minus: impl Iterator<Item = (u64, u64)>,
    mut f: impl FnMut(u64, u64, T),
) {
    let mut minus = minus.peekable();
    for (mut at, end, what) in of {
        while at < end {
            match minus.peek() {
                Some((_, e)) if *e <= at => {
                    minus.next();
                }
                Some((s, e)) if *s <= at => at = *e,
                next => {
                    let to = next.map_or(end, |(s, _)| end.min(*s));
                    f(at, to, what);
                    at = to;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(of: &[(u64, u64)], minus: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        let of = of.iter().map(|(s, e)| (*s, *e, ()));
        without(of, minus.iter().copied(), |s, e, ()| out.push((s, e)));
        out
    }

    #[test]
    fn what_is_left_of_runs() {
        let of = [(0, 10), (10, 20), (30, 40)];
        assert_eq!(parts(&of, &[]), of);
        assert_eq!(parts(&of, &[(0, 100)]), []);
        assert_eq!(
            parts(&of, &[(2, 4), (8, 12), (19, 31), (35, 36), (39, 50)]),
            [(0, 2), (4, 8), (12, 19), (31, 35), (36, 39)]
        );
    }

    #[test]
    fn runs_go_on_from_one_group_to_the_next() {
        let mut bits = Bits::zeroed().unwrap();
        bits.set(0, 3);
        bits.set(70, GROUP_BLOCKS as u32 - 70);
        let mut used = Used::default();
        used.add(0, GROUP_BLOCKS as u32, &bits);
        used.add(GROUP_BLOCKS, 80, &bits);
        let group = GROUP_BLOCKS;
        assert_eq!(used.0, [(0, 3), (70, group + 3), (group + 70, group + 80)]);
    }
}
