// SPDX-License-Identifier: GPL-2.0

//! The allocation trees: bitmaps and free counts against the owners of all blocks.

use crate::{Checker, Claim};
use ordofs_engine::engine::alloc::ag::{Ag, SUMMARY_GROUPS, SUMMARY_KEY};
use ordofs_engine::engine::format::GROUP_BLOCKS;
use ordofs_engine::engine::mount::tree_of;
use std::collections::BTreeMap;

const BITMAP_BYTES: usize = GROUP_BLOCKS as usize / 8;

/// What an allocation tree says.
#[derive(Default)]
struct AgRecords {
    /// Group number to free count and bitmap.
    groups: BTreeMap<u64, (u32, Vec<u8>)>,
    /// Group number to free count.
    summary: BTreeMap<u64, u16>,
}

impl Checker<'_> {
    pub(crate) fn check_space(&mut self) {
        // The trees' own nodes are claimed before any bitmap is compared.
        let ags: Vec<AgRecords> = (0..self.sb.ag_count).map(|ag| self.read_ag(ag)).collect();
        let mut free = 0;
        for (ag, records) in (0..).zip(&ags) {
            free += self.check_ag(ag, records);
        }
        self.report.stats.free_blocks = free;
        if free != self.sb.free {
            let said = self.sb.free;
            self.problem(
                "superblock",
                format_args!("counts {said} free blocks, there are {free}"),
            );
        }
    }

    fn read_ag(&mut self, ag: u32) -> AgRecords {
        let mut out = AgRecords::default();
        let Some(root) = self.sb.ag_roots.get(ag as usize) else {
            return out;
        };
        let tree = tree_of(Ag::tree_id(ag), *root);
        let groups = self.sb.ag_len(ag).div_ceil(GROUP_BLOCKS);
        self.walk(&tree, |c, key, value| {
            let place = format!("allocation group {ag}, record {key:#x}");
            if key >= SUMMARY_KEY {
                let first = (key - SUMMARY_KEY).saturating_mul(SUMMARY_GROUPS);
                if first >= groups || value.len() != 2 * SUMMARY_GROUPS as usize {
                    c.problem(place, "malformed free counts");
                    return;
                }
                for (g, n) in (first..).zip(value.chunks_exact(2)) {
                    out.summary.insert(g, u16::from_le_bytes([n[0], n[1]]));
                }
            } else if key >= groups || value.len() != 4 + BITMAP_BYTES {
                c.problem(place, "malformed bitmap");
            } else {
                let free = value[..4]
                    .iter()
                    .rev()
                    .fold(0, |a, b| a << 8 | u32::from(*b));
                out.groups.insert(key, (free, value[4..].to_vec()));
            }
        });
        out
    }

    fn check_ag(&mut self, ag: u32, records: &AgRecords) -> u64 {
        let (start, len) = (self.sb.ag_start(ag), self.sb.ag_len(ag));
        let groups = len.div_ceil(GROUP_BLOCKS);
        let mut total = 0;
        for g in 0..groups {
            let first = start + g * GROUP_BLOCKS;
            let cap = (len - g * GROUP_BLOCKS).min(GROUP_BLOCKS);
            total += self.check_group(ag, g, first, cap, records);
        }
        for g in records
            .summary
            .range(groups..)
            .filter(|(_, n)| **n != 0)
            .map(|(g, _)| *g)
        {
            self.problem(
                format_args!("allocation group {ag}, group {g}"),
                "has a free count but does not exist",
            );
        }
        total
    }

    /// Checks a group of `cap` blocks from `first` on; answers how many are free in its bitmap.
    fn check_group(&mut self, ag: u32, g: u64, first: u64, cap: u64, records: &AgRecords) -> u64 {
        let place = format!("allocation group {ag}, group {g}");
        let empty = (cap as u32, Vec::new());
        let (said, bitmap) = records.groups.get(&g).unwrap_or(&empty);
        let bit = |i: u64| {
            bitmap
                .get(i as usize / 8)
                .is_some_and(|b| b >> (i % 8) & 1 != 0)
        };
        let free = (0..cap).filter(|i| !bit(*i)).count() as u64;
        if u64::from(*said) != free {
            self.problem(
                &place,
                format_args!("says {said} free blocks, its bitmap has {free}"),
            );
        }
        let summary = records.summary.get(&g).map_or(cap, |n| u64::from(*n));
        if summary != free {
            self.problem(
                &place,
                format_args!("free count is {summary}, its bitmap has {free}"),
            );
        }
        if (cap..GROUP_BLOCKS).any(bit) {
            self.problem(&place, "blocks past its end are marked");
        }
        self.compare(first, cap, bit);
        free
    }

    /// Compares marks with owners, run by run.
    fn compare(&mut self, first: u64, cap: u64, bit: impl Fn(u64) -> bool) {
        let end = first + cap;
        let mut at = first;
        while at < end {
            let (run_end, owner) = match self.claims.at_or_after(at) {
                Some((s, l, o)) if s <= at => ((s + l).min(end), Some(o)),
                Some((s, _, _)) => (s.min(end), None),
                None => (end, None),
            };
            self.compare_run(first, at, run_end, owner, &bit);
            at = run_end;
        }
    }

    fn compare_run(
        &mut self,
        first: u64,
        from: u64,
        to: u64,
        owner: Option<Claim>,
        bit: &impl Fn(u64) -> bool,
    ) {
        let mut at = from;
        while at < to {
            let start = at;
            let wrong = bit(at - first) != owner.is_some();
            while at < to && (bit(at - first) != owner.is_some()) == wrong {
                at += 1;
            }
            if !wrong {
                continue;
            }
            let blocks = format!("blocks {start}..{at}");
            match owner {
                Some(o) => self.problem(blocks, format_args!("belong to {o} but are marked free")),
                None => self.problem(blocks, "are marked used but nothing refers to them"),
            }
        }
    }
}
