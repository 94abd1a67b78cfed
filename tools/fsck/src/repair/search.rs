// SPDX-License-Identifier: GPL-2.0

//! Looking for nodes on the device, where the nodes that lead to them are lost.
//!
//! # Model
//!
//! A node says in its header which tree it belongs to, at which level, and which commit wrote it. The
//! device also has nodes that were replaced long ago. So of a lost part of a tree the newest nodes are
//! taken first. An interior node decides what is under it: of the leaves between its first and its last
//! key, those that it names are part of the tree, and others that are not newer than itself are not.
//! Where no interior node is left, the newest leaf counts for its keys. A node that a newer one has
//! replaced in part is left out, because its other items may have been removed since.
//!
//! # Cost
//!
//! What is searched is what the records of space call used, and no tree that could be read has; all
//! that no tree has, where the records cannot be read. The inode tree needs a search before any other
//! tree has been read, so then all used blocks are read. The trees of inodes are searched for together,
//! after the inode tree has been read. Only nodes of trees with lost nodes are kept in memory.
//!
//! Tests: below, `tools/fuzz/tests/repair`.

use super::forest::Work;
use super::found::Node;
use super::gather::gather;
use crate::{Claim, Claims};
use ordofs_engine::engine::btree::{BadNode, Tree, TreeId, TreeKind, WalkItem};
use ordofs_engine::engine::format::ag::{AgRecord, RootForm};
use ordofs_engine::engine::format::bits::Bits;
use ordofs_engine::engine::format::group::{group_len, GroupRecord};
use ordofs_engine::engine::format::node::{NodeHeader, NODE_HEADER};
use ordofs_engine::engine::format::{le64, NodePtr, Superblock, GROUP_BLOCKS};
use ordofs_engine::engine::volume::mount::tree_of;
use ordofs_engine::os::{Block, Device};
use std::collections::BTreeMap;

/// How many blocks are read at once.
const RUN: usize = 256;
/// Calls `f` for each copy of a node of a filesystem in the given runs: its header, its pointer, its
/// content. The pointer to a first copy names no second one, that to any other copy names both; [`gather`]
/// puts them together. Returns the blocks that cannot be read.
pub(super) fn each_node(
    device: &Device,
    runs: impl Iterator<Item = (u64, u64)>,
    f: &mut dyn FnMut(&NodeHeader, NodePtr, &Block),
) -> Result<Vec<u64>, String> {
    let mut unread = Vec::new();
    let mut bufs = Vec::new();
    for _ in 0..RUN {
        bufs.push(Block::zeroed().map_err(|e| format!("{e:?}"))?);
    }
    for (start, end) in runs {
        let mut at = start;
        while at < end {
            let n = usize::try_from(end - at).unwrap_or(RUN).min(RUN);
            let run = bufs.get_mut(..n).unwrap_or(&mut []);
            let whole = device.read_run(at, run).is_ok();
            for (b, block) in run.iter_mut().zip(at..) {
                if !whole && device.read(block, b).is_err() {
                    unread.push(block);
                    continue;
                }
                if let Ok((h, crc)) = NodeHeader::decode(b) {
                    let ptr = NodePtr {
                        addr: h.addr,
                        addr2: if h.addr == block { 0 } else { block },
                        generation: h.generation,
                        crc,
                        level: h.level,
                    };
                    f(&h, ptr, b);
                }
            }
            at += n as u64;
        }
    }
    Ok(unread)
}

/// Whether two pointers are to one node, if they do not know of the same copies.
fn same_node(a: &NodePtr, b: &NodePtr) -> bool {
    let first = |p: &NodePtr| NodePtr { addr2: 0, ..*p };
    first(a) == first(b)
}

/// A node with what a search needs of it.
fn node(h: &NodeHeader, ptr: NodePtr, b: &Block) -> Option<Node> {
    let (n, leaf) = (usize::from(h.nr), h.level == 0);
    let stride = match leaf {
        true => 12,
        false => h.id.kind.entry_len(),
    };
    let key = |i: usize| le64(&b[..], NODE_HEADER + i * stride);
    let mut children = Vec::new();
    for i in 0..if leaf { 0 } else { n } {
        let at = NODE_HEADER + i * stride + 8;
        children.push(NodePtr::decode(b.get(at..at + 32)?)?);
    }
    Some(Node {
        ptr,
        first: key(0)?,
        last: key(n.checked_sub(1)?)?,
        children,
    })
}

impl Work<'_> {
    /// Whether a search has been made for a tree. If not, the next one is for it, too.
    pub fn searched(&mut self, id: TreeId) -> bool {
        let key = (id.kind as u8, id.owner);
        if self.search.found.contains_key(&key) {
            return true;
        }
        self.search.wanted.insert(key);
        false
    }

    /// Searches for the nodes of all trees that need it.
    pub fn look(&mut self) -> Result<(), String> {
        let wanted = std::mem::take(&mut self.search.wanted);
        if wanted.is_empty() {
            return Ok(());
        }
        let (used, _) = used(self);
        let runs = unclaimed(&used, &self.claims);
        let (node_id, newest) = (self.sb.node_id, self.sb.generation);
        let mut copies = Vec::new();
        let unread = each_node(self.st.device(), runs.into_iter(), &mut |h, ptr, b| {
            let key = (h.id.kind as u8, h.id.owner);
            if h.node_id == node_id && h.generation <= newest && wanted.contains(&key) {
                copies.extend(node(h, ptr, b).map(|n| ((h.id, n), ptr)));
            }
        })?;
        self.unread.extend(unread);
        let mut nodes = gather(self.st.device(), node_id, copies);
        // A node whose first block is free, or has an owner, was freed.
        nodes.retain(|n| {
            let first = n.ptr.addr;
            used.owner(first).is_some() && self.claims.owner(first).is_none()
        });
        let nodes = self.without_stale(nodes);
        let found = &mut self.search.found;
        for key in &wanted {
            found.insert(*key, Vec::new());
        }
        for (id, n) in nodes {
            let key = (id.kind as u8, id.owner);
            found.entry(key).or_default().push(n);
        }
        Ok(())
    }

    /// The leaves of a lost part of a tree: their first keys, and pointers to them.
    pub fn found_for(&mut self, id: TreeId, bad: &BadNode) -> Vec<(u64, NodePtr)> {
        // Of a leaf that is lost there is nothing but older versions.
        if bad.ptr.is_some_and(|p| p.level == 0) {
            return Vec::new();
        }
        let all = self.search.found.get(&(id.kind as u8, id.owner));
        let range = (bad.first_key, bad.last_key);
        // What is under a node was there when it was written.
        let older = |n: &&Node| bad.ptr.is_none_or(|p| n.ptr.generation <= p.generation);
        let within = |n: &&Node| n.first <= range.1 && n.last >= range.0;
        let nodes = all.map_or(&[][..], |all| &all[..]).iter();
        let nodes = nodes.filter(|n| older(n) && within(n)).cloned().collect();
        let mut readable = |ptr: &NodePtr| self.span(id, ptr);
        let leaves = choose(nodes, range, &mut readable);
        if id.kind == TreeKind::Inode {
            self.search
                .leaves
                .extend(leaves.iter().map(|(_, p)| p.addr));
        } else if id.kind == TreeKind::Extent {
            self.search.doubtful.insert(id.owner);
        }
        leaves
    }

    /// The first and the last key of a node that can be read.
    fn span(&self, id: TreeId, ptr: &NodePtr) -> Option<(u64, u64)> {
        let mut span = None;
        let tree = Tree::from_ptr(id, *ptr);
        let _ = tree.walk_tolerant(self.st, &mut |w| {
            if let (WalkItem::Node(n), None) = (w, span) {
                span = Some((n.first_key, n.last_key));
                // The nodes below come later.
                return Err(kernel::prelude::EIO);
            }
            Ok(())
        });
        span
    }
}

/// Chooses the leaves that make up the keys `range` of a tree. `span` returns the first and the last
/// key of a node that can be read.
fn choose(
    mut nodes: Vec<Node>,
    range: (u64, u64),
    span: &mut dyn FnMut(&NodePtr) -> Option<(u64, u64)>,
) -> Vec<(u64, NodePtr)> {
    nodes.sort_by_key(|n| {
        let p = n.ptr;
        std::cmp::Reverse((p.generation, p.level))
    });
    let by_address: BTreeMap<u64, usize> = nodes
        .iter()
        .enumerate()
        .map(|(i, n)| (n.ptr.addr, i))
        .collect();
    // The keys that are decided, as runs, inclusive; and the leaves that were chosen.
    let mut decided = Spans::default();
    let mut leaves = BTreeMap::new();
    for n in &nodes {
        let mut stack = vec![n.ptr];
        let mut spans = Vec::new();
        while let Some(ptr) = stack.pop() {
            // What was not found, or left out, is not part of the tree because an old parent names it.
            let found = by_address.get(&ptr.addr).and_then(|i| nodes.get(*i));
            let Some(found) = found.filter(|f| same_node(&f.ptr, &ptr)) else {
                continue;
            };
            let Some((first, last)) = span(&found.ptr) else {
                continue;
            };
            if first < range.0 || last > range.1 || decided.meets(first, last) && ptr.level == 0 {
                continue;
            }
            if ptr.level == 0 {
                leaves.insert(first, found.ptr);
                spans.push((first, last));
                continue;
            }
            spans.push((found.first, found.last));
            stack.extend(found.children.iter().copied());
        }
        for (first, last) in spans {
            decided.add(first, last);
        }
    }
    leaves.into_iter().collect()
}

/// Runs of keys, both ends inclusive.
#[derive(Default)]
struct Spans(BTreeMap<u64, u64>);

impl Spans {
    fn meets(&self, first: u64, last: u64) -> bool {
        let before = self.0.range(..=last).next_back();
        before.is_some_and(|(_, end)| *end >= first)
    }

    fn add(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last);
        while let Some((f, l)) = self.0.range(..=last).next_back().map(|(f, l)| (*f, *l)) {
            if l < first {
                break;
            }
            self.0.remove(&f);
            first = first.min(f);
            last = last.max(l);
        }
        self.0.insert(first, last);
    }
}

/// The parts of the runs of `used` that have no owner.
fn unclaimed(used: &Claims, claims: &Claims) -> Vec<(u64, u64)> {
    let mut runs = Vec::new();
    for (start, len, _) in used.runs() {
        let (mut at, end) = (start, start + len);
        while at < end {
            let (s, l) = match claims.at_or_after(at) {
                Some((s, l, _)) => (s.min(end), l),
                None => (end, 0),
            };
            if s > at {
                runs.push((at, s));
            }
            at = (s + l).max(at + 1);
        }
    }
    runs
}

/// The blocks that the records of space call used. AGs with records that cannot be read count as used;
/// they are returned once more.
pub(super) fn used(work: &Work<'_>) -> (Claims, Claims) {
    let sb = &work.sb;
    let (mut used, mut unknown) = (Claims::default(), Claims::default());
    let mut next = 0;
    let mut all = |used: &mut Claims, from: u64, to: u64| {
        let start = from.saturating_mul(sb.ag_blocks).min(sb.blocks);
        let end = to.saturating_mul(sb.ag_blocks).min(sb.blocks);
        if start < end {
            used.add(start, end - start, Claim::Deferred);
            unknown.add(start, end - start, Claim::Deferred);
        }
    };
    let tree = tree_of(TreeId::new(TreeKind::Ag, 0), sb.ag_root);
    let _ = tree.walk_tolerant(work.st, &mut |w| {
        let WalkItem::Item(ag, value) = w else {
            return Ok(());
        };
        if ag < next || ag >= sb.ag_count.into() {
            return Ok(());
        }
        all(&mut used, next, ag);
        next = ag + 1;
        if used_in_ag(work, ag, value, &mut used).is_none() {
            all(&mut used, ag, ag + 1);
        }
        Ok(())
    });
    all(&mut used, next, sb.ag_count.into());
    (used, unknown)
}

/// Adds the used blocks of an AG. `None` if a record cannot be read.
fn used_in_ag(work: &Work<'_>, ag: u64, value: &[u8], used: &mut Claims) -> Option<()> {
    let sb: &Superblock = &work.sb;
    let index = u32::try_from(ag).ok()?;
    let (start, len) = (sb.ag_start(index), sb.ag_len(index));
    let rec = AgRecord::parse(len, value).ok()?;
    let id = TreeId::new(TreeKind::Groups, ag);
    let tree = match rec.groups {
        RootForm::Empty => return Some(()),
        RootForm::Ptr(p) => Tree::from_ptr(id, p),
        RootForm::Inline(items) => Tree::from_inline(id, items).ok()?,
    };
    let mut good = true;
    let mut bits = Bits::zeroed().ok()?;
    let walked = tree.walk(work.st, &mut |w| {
        let WalkItem::Item(g, value) = w else {
            return Ok(());
        };
        let Ok(rec) = GroupRecord::parse(len, g, value) else {
            good = false;
            return Ok(());
        };
        for g in g..g + u64::from(rec.groups()) {
            let (n, first) = (group_len(len, g), start + g * GROUP_BLOCKS);
            rec.load(n, &mut bits);
            let mut at = bits.next_set(0, n);
            while at < n {
                let end = bits.next_clear(at, n);
                used.add(first + u64::from(at), (end - at).into(), Claim::Deferred);
                at = bits.next_set(end, n);
            }
        }
        Ok(())
    });
    (walked.is_ok() && good).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ptr(addr: u64, generation: u64, level: u8) -> NodePtr {
        NodePtr {
            addr,
            addr2: 0,
            generation,
            crc: 0,
            level,
        }
    }

    fn found(p: NodePtr, first: u64, last: u64, children: &[NodePtr]) -> Node {
        Node {
            ptr: p,
            first,
            last,
            children: children.to_vec(),
        }
    }

    /// The addresses of the leaves that are chosen.
    fn chosen(nodes: &[Node]) -> Vec<u64> {
        let spans: BTreeMap<u64, (u64, u64)> = nodes
            .iter()
            .map(|n| (n.ptr.addr, (n.first, n.last)))
            .collect();
        let mut span = |p: &NodePtr| spans.get(&p.addr).copied();
        let leaves = choose(nodes.to_vec(), (0, 1000), &mut span);
        leaves.iter().map(|(_, p)| p.addr).collect()
    }

    #[test]
    fn the_newest_leaf_counts_where_no_parent_is_left() {
        let old = found(ptr(300, 5, 0), 1, 50, &[]);
        let new = found(ptr(301, 7, 0), 1, 20, &[]);
        let behind = found(ptr(302, 6, 0), 60, 70, &[]);
        assert_eq!(chosen(&[old, new, behind]), [301, 302]);
    }

    #[test]
    fn a_parent_decides_about_leaves_that_are_not_newer() {
        let named = [ptr(300, 2, 0), ptr(301, 5, 0)];
        let a = found(named[0], 10, 19, &[]);
        let b = found(named[1], 40, 49, &[]);
        // It was removed: between the two, and not newer than the parent.
        let removed = found(ptr(302, 4, 0), 25, 30, &[]);
        let parent = found(ptr(400, 5, 1), 10, 40, &named);
        assert_eq!(
            chosen(&[a.clone(), b.clone(), removed.clone(), parent.clone()]),
            [300, 301]
        );
        // One that a later commit wrote, under a parent that is lost.
        let later = found(ptr(303, 6, 0), 12, 18, &[]);
        assert_eq!(chosen(&[a, b, removed, parent, later]), [303, 301]);
    }
}
