// SPDX-License-Identifier: GPL-2.0

//! The deferred tree: blocks that are in use on disk, and that nothing refers to.
//!
//! # Model
//!
//! The *space trees* (AG tree, trees of groups, deferred tree) describe their own nodes. If a commit
//! freed the old blocks of the nodes that it replaces, it would change the records of other groups,
//! replace more nodes, and so on. Instead it writes the old addresses into a new deferred tree, and
//! leaves these blocks in use. When the commit is durable nothing on disk refers to them, and the
//! next commit writes its own space trees there (R7 holds: they were freed by a durable commit). What
//! it does not need it puts into its deferred tree again. If that is much, it frees a part: as much as
//! it can pay for ([`affordable`]), because freeing a block changes the records of a group and of an
//! AG, and nothing is reserved for that.
//!
//! So the space trees go to and fro between two sets of blocks, and a commit that changes no more
//! groups than the one before takes no block for them from the free space.
//!
//! At any time: blocks in use = blocks referred to + entries of the deferred tree + fixed areas.
//!
//! The number of nodes of the deferred tree depends on that of its entries, and the other way round,
//! because a block that no node needs becomes an entry. [`shape`] solves that.
//!
//! A node takes as many blocks as it has copies. The blocks come in pairs from different AGs, and
//! [`pair`] puts them together so that the copies of a node are in different AGs again: of the blocks in
//! ascending order the lower ones are for first copies, the upper ones for second copies. No AG has
//! both blocks of a pair unless it has more than half of all. What is freed is in the middle
//! ([`affordable`]), so that as many are left below as above.
//!
//! After a mount the tree comes from the disk. It belongs to the newest generation, so its entries are
//! as good as in a running mount, but for damage. So the first commit checks each address, as far as
//! it can be checked: it is where nodes may be, in use, and there once. Any other stays as it is. An
//! entry in a bad AG cannot be checked, and stays an entry ([`Deferred::held`]).
//!
//! Locks: none; the state belongs to the commit.
//!
//! Tests: `tools/engine/tests/deferred.rs`, `tools/engine/tests/crash.rs`, `tools/crash`.

use crate::engine::alloc::ag::GROUP_NODES;
use crate::engine::btree::{TreeId, TreeKind};
use crate::engine::format::node::{LEAF_SPACE, SLOT_LEN};
use crate::engine::format::GROUP_BLOCKS;
use core::num::NonZeroU64;
use core::ops::Range;
use kernel::prelude::*;

/// The identity of the deferred tree.
pub const DEFERRED_TREE: TreeId = TreeId::new(TreeKind::Deferred, 0);
/// The value of each entry.
pub const ENTRY: [u8; 1] = [1];
/// Entries that fit in a leaf.
const LEAF_ENTRIES: u64 = (LEAF_SPACE / (SLOT_LEN + ENTRY.len())) as u64;
/// How many blocks more than it needs a commit takes for its space trees when it has too few, so
/// that the records that this changes do not make it take more.
pub const SPARE: u64 = 16;
/// How many entries more than it needs a commit leaves in the tree, for each copy of a node: fewer are
/// not worth the nodes that change when they are freed, and may not be enough for these.
pub const KEEP: u64 = 80;
/// The most nodes that a commit changes in order to free entries. This bounds memory, and the number
/// of groups that are read.
const MOST_NODES: u64 = 2048;

/// What the last commit has put into the deferred tree.
pub struct Deferred {
    /// The rest is true. Else the tree has not been read since the mount.
    pub known: bool,
    /// The entries.
    pub entries: KVVec<u64>,
    /// The addresses of its nodes.
    pub nodes: KVVec<u64>,
    /// More entries: blocks in bad AGs, of which it is not known whether they are in use. They stay in
    /// the tree, for a mount that can read these AGs.
    pub held: KVVec<u64>,
}

impl Deferred {
    /// Not read yet.
    pub const fn unread() -> Self {
        Self {
            known: false,
            entries: KVVec::new(),
            nodes: KVVec::new(),
            held: KVVec::new(),
        }
    }

    /// How many of the entries the next commits free: of those before block `limit`, and of those behind.
    pub fn surplus(&self, copies: u64, limit: u64) -> (u64, u64) {
        let open = self.entries.partition_point(|a| *a < limit);
        let closed = self.entries.len().saturating_sub(open);
        ((open as u64).saturating_sub(KEEP * copies), closed as u64)
    }
}

/// The shape of a deferred tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Leaves.
    pub leaves: u64,
    /// All nodes.
    pub nodes: u64,
}

/// The nodes of a tree with so many leaves.
fn nodes(leaves: u64) -> u64 {
    let (mut level, mut all) = (leaves, leaves);
    while level > 1 {
        level = level.div_ceil(TreeKind::Deferred.max_children() as u64);
        all += level;
    }
    all
}

/// The smallest shape in which `blocks` blocks are either copies of nodes or entries of the tree, with
/// `copies` copies of each node; nothing if there is none, because so few blocks can be neither.
pub fn shape(blocks: u64, copies: u64) -> Option<Shape> {
    if blocks == 0 {
        return Some(Shape {
            leaves: 0,
            nodes: 0,
        });
    }
    let mut leaves = blocks.div_ceil(LEAF_ENTRIES + copies);
    loop {
        let nodes = nodes(leaves);
        let entries = blocks
            .checked_sub(nodes * copies)
            .filter(|e| *e >= leaves)?;
        if entries <= leaves * LEAF_ENTRIES {
            return Some(Shape { leaves, nodes });
        }
        leaves += 1;
    }
}

/// How many blocks are missing, if a commit has `spare` blocks for its space trees, `need` nodes of
/// the AG tree and of trees of groups with `copies` copies, and `dead` blocks that have to become
/// entries.
pub fn missing(need: u64, spare: u64, dead: u64, copies: u64) -> u64 {
    let need = need * copies;
    let have = need.max(spare);
    let mut rest = have - need;
    // More blocks may make more entries, and so more nodes.
    loop {
        let more = match shape(dead + rest, copies) {
            Some(shape) => (shape.nodes * copies).saturating_sub(rest),
            None => 1,
        };
        if more == 0 {
            return need + rest - spare;
        }
        rest += more;
    }
}

/// Of the blocks `spare`, which are in ascending order, the range that a commit can free. With one
/// copy these are the last ones, with two those in the middle. It needs `need` nodes so far, and `dead`
/// blocks have to become entries. The nodes that change because of the blocks that it frees must find
/// place in the others: their number is the one that operations reserve for groups that they touch
/// first, and some for the nodes above them.
pub fn affordable(
    spare: &[u64],
    need: u64,
    dead: u64,
    ag_blocks: NonZeroU64,
    copies: u64,
) -> Range<usize> {
    let start = match copies {
        1 => spare.len(),
        _ => spare.len() / 2,
    };
    let mut range = start..start;
    let mut nodes = 0;
    // The place of the last block that was added below, and above.
    let mut last = [None; 2];
    while range.len() < spare.len() {
        // In turn, as long as there are blocks on that side.
        let above = range.end < spare.len() && (range.start == 0 || range.len() % 2 == 1);
        let i = if above { range.end } else { range.start - 1 };
        let addr = at(spare, i);
        let place = (addr / ag_blocks, addr / GROUP_BLOCKS);
        let known = last.iter().flatten();
        nodes += known.fold(GROUP_NODES, |n, l: &(u64, u64)| match *l {
            same if same == place => 0,
            (ag, _) if ag == place.0 => n.min(1),
            _ => n,
        });
        if let Some(l) = last.get_mut(usize::from(above)) {
            *l = Some(place);
        }
        let all = nodes + nodes / 8 + SPARE;
        let left = (spare.len() - range.len() - 1) as u64;
        if nodes > MOST_NODES || missing(need + all, left, dead + all * copies, copies) > 0 {
            break;
        }
        range = match above {
            true => range.start..range.end + 1,
            false => i..range.end,
        };
    }
    range
}

/// Splits the blocks `spare`, which are in ascending order, into those for the first and for the second
/// copies of `nodes` nodes, and those that are not needed. `None` if there are too few.
pub fn pair(spare: &[u64], nodes: usize, copies: u64) -> Option<(&[u64], &[u64], &[u64])> {
    let (first, rest) = spare.split_at_checked(nodes)?;
    if copies == 1 {
        return Some((first, &[], rest));
    }
    let (unused, second) = rest.split_at_checked(rest.len().checked_sub(nodes)?)?;
    Some((first, second, unused))
}

/// Sorts addresses, in ascending order: a heap sort, which cannot panic and needs no memory. (The
/// sorts of `core` panic when an order contradicts itself, and objtool warns of the code for that.)
pub fn sort(v: &mut [u64]) {
    let n = v.len();
    for root in (0..n / 2).rev() {
        sift(v, root, n);
    }
    for end in (1..n).rev() {
        let (first, last) = (at(v, 0), at(v, end));
        put(v, 0, last);
        put(v, end, first);
        sift(v, 0, end);
    }
}

/// Moves element `root` down until no child of it, below `end`, is greater.
fn sift(v: &mut [u64], mut root: usize, end: usize) {
    let moved = at(v, root);
    loop {
        let left = 2 * root + 1;
        if left >= end {
            break;
        }
        let right = left + 1;
        let child = match right < end && at(v, right) > at(v, left) {
            true => right,
            false => left,
        };
        if at(v, child) <= moved {
            break;
        }
        let up = at(v, child);
        put(v, root, up);
        root = child;
    }
    put(v, root, moved);
}

fn at(v: &[u64], i: usize) -> u64 {
    v.get(i).copied().unwrap_or(0)
}

fn put(v: &mut [u64], i: usize, value: u64) {
    if let Some(x) = v.get_mut(i) {
        *x = value;
    }
}
