// SPDX-License-Identifier: GPL-2.0

//! The AG tree, the trees of groups and the deferred tree, against the owners of all blocks.
//!
//! # Model
//!
//! A block is in use if a tree refers to it, if the deferred tree has its address, or if it is in a
//! fixed area; entries of the deferred tree are claims like all others. While the trees of groups
//! are walked, their records become one list of runs of used blocks, [`Used`]. Afterwards the list is
//! compared with the claims, run by run. A group without a record is free as a whole and costs
//! neither time nor memory: both grow with what is used and with the number of AGs.
//!
//! The comparison waits until all trees have been walked, because their own nodes are claimed on
//! the way.
//!
//! The sums in the interior nodes of the AG tree are checked by the engine, when it reads a child.
//!
//! Tests: below, `tools/fsck/tests/space_trees.rs`, `tools/engine/tests/checker.rs`,
//! `tools/fsck/tests/check_cost.rs`.

use crate::{Checker, Claim};
use ordofs_engine::engine::btree::{Tree, TreeId, TreeKind};
use ordofs_engine::engine::format::ag::{
    run_class, AgRecord, RootForm, NEVER_USED, NOT_TRUSTED, NO_ALLOCATION,
};
use ordofs_engine::engine::format::bits::Bits;
use ordofs_engine::engine::format::group::{group_len, GroupRecord, Order};
use ordofs_engine::engine::format::shared::{self, SharedRecord};
use ordofs_engine::engine::format::superblock::RO_COMPAT_SHARED;
use ordofs_engine::engine::format::GROUP_BLOCKS;
use ordofs_engine::engine::volume::mount::tree_of;

const AG_TREE: TreeId = TreeId::new(TreeKind::Ag, 0);
const DEFERRED_TREE: TreeId = TreeId::new(TreeKind::Deferred, 0);

/// Runs of blocks that the groups mark as used: half-open, as (start, end), in ascending order.
#[derive(Default)]
struct Used(Vec<(u64, u64)>);

impl Used {
    /// Adds the set bits among the first `len` of a group that starts at block `first`.
    fn add(&mut self, first: u64, len: u32, bits: &Bits) {
        let mut at = bits.next_set(0, len);
        while at < len {
            let end = bits.next_clear(at, len);
            self.add_run(first + u64::from(at), first + u64::from(end));
            at = bits.next_set(end, len);
        }
    }

    /// Adds a run that is not below any other.
    fn add_run(&mut self, start: u64, end: u64) {
        match self.0.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => self.0.push((start, end)),
        }
    }

    /// Whether all blocks of a range are in use.
    fn has(&self, start: u64, end: u64) -> bool {
        let i = self.0.partition_point(|(_, e)| *e <= start);
        self.0.get(i).is_some_and(|(s, e)| *s <= start && end <= *e)
    }
}

/// An allocation group while its groups are walked.
struct AgWalk {
    index: u64,
    start: u64,
    len: u64,
    order: Order,
    /// Blocks that are not free, by the records of the groups.
    used: u64,
    /// Whether all records could be read.
    whole: bool,
    /// The group behind the last record.
    next: u64,
    /// The class of the longest free run so far.
    longest: u8,
}

impl AgWalk {
    fn place(&self, g: u64) -> String {
        format!("allocation group {}, group {g}", self.index)
    }

    /// Notes a free run.
    fn free_run(&mut self, len: u32) {
        self.longest = self.longest.max(run_class(len.into()));
    }

    /// Notes that the groups up to `g`, exclusive, that have had no record have none.
    fn no_record_before(&mut self, g: u64) {
        if self.next < g {
            // If one of them is short, it is the last.
            self.free_run(group_len(self.len, self.next));
        }
    }
}

impl Checker<'_> {
    /// Checks the trees of space, when all other blocks have been claimed.
    pub(crate) fn check_space(&mut self) {
        self.check_deferred();
        let mut used = Used::default();
        let (mut next, mut free) = (0, 0);
        let tree = tree_of(AG_TREE, self.sb.ag_root);
        self.walk(&tree, |c, ag, value| {
            c.missing_ags(next, ag);
            next = ag.saturating_add(1);
            free += c.check_ag(ag, value, &mut used);
        });
        self.missing_ags(next, self.sb.ag_count.into());
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

    /// Walks the deferred tree: its addresses are in use until the next commit.
    fn check_deferred(&mut self) {
        let tree = tree_of(DEFERRED_TREE, self.sb.deferred_root);
        self.walk(&tree, |c, address, value| {
            if value != [1] {
                c.problem(format_args!("deferred block {address}"), "malformed record");
            }
            c.claim(address, 1, Claim::Deferred);
        });
    }

    /// Notes that the AGs `[from, to)` have no record.
    fn missing_ags(&mut self, from: u64, to: u64) {
        let to = to.min(self.sb.ag_count.into());
        if from < to {
            let place = format!("allocation groups {from}..{to}");
            self.problem(place, "have no record");
        }
    }

    /// Checks the record of an AG and walks the tree of its groups. Returns how many of its blocks
    /// are free.
    fn check_ag(&mut self, index: u64, value: &[u8], used: &mut Used) -> u64 {
        let place = format!("allocation group {index}");
        let Some(ag) = u32::try_from(index).ok().filter(|i| *i < self.sb.ag_count) else {
            self.problem(place, "it has a record, but does not exist");
            return 0;
        };
        let mut ag = AgWalk {
            index,
            start: self.sb.ag_start(ag),
            len: self.sb.ag_len(ag),
            order: Order::default(),
            used: 0,
            whole: true,
            next: 0,
            longest: 0,
        };
        let rec = match AgRecord::parse(ag.len, value) {
            Ok(rec) => rec,
            Err(fault) => {
                self.problem(place, fault);
                return 0;
            }
        };
        self.generation(&place, rec.generation);
        if rec.flags & !NEVER_USED != 0 {
            self.flags(&place, rec.flags);
        }
        let id = TreeId::new(TreeKind::Groups, index);
        let tree = match rec.groups {
            RootForm::Empty => return ag.len,
            RootForm::Ptr(p) => Ok(Tree::from_ptr(id, p)),
            RootForm::Inline(items) => Tree::from_inline(id, items),
        };
        let Ok(tree) = tree else {
            self.problem(place, "malformed tree of its groups");
            return rec.free.into();
        };
        let before = self.report.count;
        self.walk(&tree, |c, g, value| c.check_group(&mut ag, g, value, used));
        // What cannot be read says nothing about the numbers.
        ag.whole &= self.report.count == before;
        if !rec.shared.is_empty() {
            self.check_shared(&ag, &rec.shared, used);
        }
        let free = ag.len - ag.used;
        if !ag.whole {
            return rec.free.into();
        }
        if u64::from(rec.free) != free {
            let said = rec.free;
            self.problem(
                &place,
                format_args!("free count is {said}, its groups have {free}"),
            );
        }
        ag.no_record_before(ag.len.div_ceil(GROUP_BLOCKS));
        let (said, longest) = (rec.longest, ag.longest);
        if said < longest {
            self.problem(
                &place,
                format_args!("no free run is above class {said}, but one is of {longest}"),
            );
        }
        free
    }

    /// Walks the tree of the shared blocks of an AG.
    fn check_shared(&mut self, ag: &AgWalk, root: &RootForm<'_>, used: &Used) {
        let place = format!("allocation group {}", ag.index);
        if self.sb.ro_compat & RO_COMPAT_SHARED == 0 {
            self.problem(&place, "it has shared blocks, and the superblock has none");
        }
        let id = TreeId::new(TreeKind::Shared, ag.index);
        let tree = match root {
            RootForm::Empty => return,
            RootForm::Ptr(p) => Ok(Tree::from_ptr(id, *p)),
            RootForm::Inline(items) => Tree::from_inline(id, items),
        };
        let Ok(tree) = tree else {
            return self.problem(place, "malformed tree of its shared blocks");
        };
        let mut order = shared::Order::default();
        self.walk(&tree, |c, key, value| {
            let place = format!("{place}, shared blocks from {key} on");
            let rec = SharedRecord::parse(ag.len, key, value)
                .and_then(|rec| order.check(key, rec).map(|()| rec));
            match rec {
                Err(what) => c.problem(place, what),
                Ok(rec) => {
                    let start = ag.start + key;
                    if !used.has(start, start + u64::from(rec.blocks)) {
                        c.problem(place, "some are free");
                    }
                }
            }
        });
    }

    /// Space that the filesystem counts and cannot use is a problem.
    fn flags(&mut self, place: &str, flags: u8) {
        for (flag, what) in [
            (
                NO_ALLOCATION,
                "it is marked: nothing is to be allocated in it",
            ),
            (
                NOT_TRUSTED,
                "it is marked: its groups are not to be trusted",
            ),
        ] {
            if flags & flag != 0 {
                self.problem(place, what);
            }
        }
    }

    /// Checks the record of group `g`, and adds its blocks in use to `used`.
    fn check_group(&mut self, ag: &mut AgWalk, g: u64, value: &[u8], used: &mut Used) {
        let rec = GroupRecord::parse(ag.len, g, value)
            .and_then(|rec| ag.order.check(g, &rec).map(|()| rec));
        let rec = match rec {
            Ok(rec) => rec,
            Err(what) => {
                ag.whole = false;
                return self.problem(ag.place(g), what);
            }
        };
        let groups = u64::from(rec.groups());
        ag.no_record_before(g);
        ag.next = g + groups;
        let start = ag.start + g * GROUP_BLOCKS;
        if let GroupRecord::Full { .. } = rec {
            let blocks = (g..g + groups).map(|g| u64::from(group_len(ag.len, g)));
            let blocks = blocks.sum::<u64>();
            ag.used += blocks;
            return used.add_run(start, start + blocks);
        }
        let Ok(mut bits) = Bits::zeroed() else {
            ag.whole = false;
            return self.problem(ag.place(g), "no memory");
        };
        let len = group_len(ag.len, g);
        rec.load(len, &mut bits);
        ag.used += u64::from(len - rec.free());
        let longest = bits.find_clear(0, len, len).map_or(0, |(_, n)| n);
        ag.free_run(longest);
        used.add(start, len, &bits);
    }

    /// Compares the marks with the owners. Nothing is claimed after this.
    fn compare(&mut self, used: &Used) {
        if !self.owners {
            return;
        }
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
