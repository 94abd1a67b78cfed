// SPDX-License-Identifier: GPL-2.0

//! Insertion and removal of items.
//!
//! Both first make the path to the leaf changeable, which copies frozen nodes, and get all memory
//! that the change needs. Until then only the representation has changed, so an error leaves the
//! content as it was. The change itself cannot fail. A merge after a removal only improves the
//! shape: if it lacks memory or cannot read a neighbour, it is left out.
//!
//! The caller holds the exclusive side of the tree's lock; reads from the device happen with it
//! held.
//!
//! Tests: `tools/engine/tests/btree.rs` (against a model, and with failing allocations),
//! `tools/engine/tests/btree_damage.rs`, `tools/engine/tests/bulk.rs`.

use super::{Dead, KeyRange, Link, Node, Places, Tree, MAX_LEVEL, MAX_VALUE};
use crate::engine::btree::NodeStore;
use crate::engine::format::node::{LEAF_SPACE, SLOT_LEN};
use crate::engine::format::NodePtr;
use crate::engine::invariant::{broken, Invariant};
use crate::os::Shared;
use kernel::prelude::*;

/// A node with fewer bytes in use is merged with a neighbour, or gets some of its neighbour's
/// entries.
const MIN_USED: usize = LEAF_SPACE / 3;

/// What [`remove_path`] takes out of the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// The item with the key.
    Item,
    /// The leaf for the key, which is not the root.
    Leaf,
}

/// The parts of a tree that an edit needs besides the root.
pub(super) struct Edit<'a> {
    pub(super) node_store: &'a NodeStore,
    pub(super) dead: &'a mut KVVec<Dead>,
    pub(super) fresh: &'a mut u64,
}

impl Edit<'_> {
    /// Puts both copies of a node on disk on the dead list.
    fn add_dead_ptr(&mut self, ptr: &NodePtr) -> Result {
        self.dead.push(Dead::At(ptr.places()), GFP_KERNEL)?;
        Ok(())
    }

    /// Puts a frozen node that the tree no longer uses on the dead list.
    fn add_dead(&mut self, node: &Shared<Node>) -> Result {
        if node.is_written() {
            return self.add_dead_ptr(&node.ptr());
        }
        self.dead.push(Dead::Node(node.clone()), GFP_KERNEL)?;
        Ok(())
    }

    /// A changeable copy of a frozen node. The old one goes to the dead list.
    fn copy(&mut self, old: &Shared<Node>) -> Result<Shared<Node>> {
        let new = Shared::new(Node::copy_of(old)?)?;
        self.add_dead(old)?;
        *self.fresh += 1;
        Ok(new)
    }

    /// Frees the node of a link that has been taken out of the tree. A failure leaks the block; the
    /// callers have reserved the memory.
    fn retire(&mut self, link: Link) {
        let leaked = match link {
            Link::Disk(ptr) => self.add_dead_ptr(&ptr),
            Link::Mem(mut node) => {
                match Shared::get_mut(&mut node).map(|n| (n.is_written(), n.places())) {
                    // No commit has seen the node, so nothing is left to free,
                    Some((false, Places { first: 0, .. })) => {
                        *self.fresh = self.fresh.saturating_sub(1);
                        Ok(())
                    }
                    // unless it already has an address.
                    Some((false, places)) => self
                        .dead
                        .push(Dead::At(places), GFP_KERNEL)
                        .map_err(Into::into),
                    _ => self.add_dead(&node),
                }
            }
        };
        if leaked.is_err() {
            pr_err!("no memory to free a tree node: its block leaks\n");
        }
    }

    /// The root, made changeable.
    pub(super) fn root<'t>(
        &mut self,
        tree: &'t mut Option<Link>,
        id: &super::TreeId,
    ) -> Result<&'t mut Node> {
        let new = match tree {
            None => None,
            Some(Link::Disk(ptr)) => Some(self.node_store.read(ptr, id)?),
            Some(Link::Mem(n)) => match Shared::get_mut(n) {
                Some(m) if !m.is_written() => None,
                _ => Some(n.clone()),
            },
        };
        if let Some(old) = new {
            *tree = Some(Link::Mem(self.copy(&old)?));
        }
        let root = match tree {
            Some(Link::Mem(n)) => Shared::get_mut(n)
                .ok_or_else(|| broken(Invariant::TreeShape, format_args!("the root is shared")))?,
            _ => return Err(broken(Invariant::TreeShape, format_args!("no root"))),
        };
        // A leaf that was inlined at the last commit, or that came from an inline image, may need a
        // block from now on.
        if *self.fresh == 0 && root.addr() == 0 {
            *self.fresh = 1;
        }
        Ok(root)
    }

    /// Child `i` of a changeable node, made changeable, and its range; `range` is that of the node.
    pub(super) fn child<'n>(
        &mut self,
        node: &'n mut Node,
        i: usize,
        range: KeyRange,
    ) -> Result<(&'n mut Node, KeyRange)> {
        let kid_range = range.child(node, i);
        if node.kid_unique(i).is_none_or(|n| n.is_written()) {
            let (old, _) = node.open_child(self.node_store, i, range)?;
            let new = self.copy(&old)?;
            node.set_kid(i, new)?;
        }
        let kid = node
            .kid_unique(i)
            .ok_or_else(|| broken(Invariant::TreeShape, format_args!("a child is shared")))?;
        Ok((kid, kid_range))
    }
}

impl Tree {
    /// Inserts an item or replaces its value (1 to [`MAX_VALUE`] bytes). On an error the content is
    /// unchanged: EINVAL, EFBIG if the tree cannot grow, EUCLEAN, EIO, ENOMEM.
    pub fn insert(&mut self, node_store: &NodeStore, key: u64, value: &[u8]) -> Result {
        if value.is_empty() || value.len() > MAX_VALUE {
            return Err(EINVAL);
        }
        let id = self.id;
        if self.root.is_none() {
            let mut leaf = Node::new(id, 0)?;
            if !leaf.put_item(key, value) {
                return Err(broken(
                    Invariant::TreeShape,
                    format_args!("an item does not fit in an empty leaf"),
                ));
            }
            self.root = Some(Link::Mem(Shared::new(leaf)?));
            self.fresh += 1;
            return Ok(());
        }
        let mut edit = Edit {
            node_store,
            dead: &mut self.dead,
            fresh: &mut self.fresh,
        };
        let root = edit.root(&mut self.root, &id)?;
        let top = root.level();
        // The number of full nodes directly above the leaf, without a gap: these split with it.
        let mut full = 0u8;
        let mut range = KeyRange::ALL;
        let mut node = root;
        while node.level() > 0 {
            full = if node.is_full() { full + 1 } else { 0 };
            if key < node.key(0) {
                node.set_entry_key(0, key);
            }
            let i = node.child_for(key);
            (node, range) = edit.child(node, i, range)?;
        }
        if node.put_item(key, value) {
            return Ok(());
        }
        self.insert_by_split(node_store, key, value, full, top)
    }

    /// The rest of [`Tree::insert`] if the item does not fit in its leaf. The path is changeable,
    /// `full` nodes above the leaf split with it, and `top` is the level of the root.
    fn insert_by_split(
        &mut self,
        node_store: &NodeStore,
        key: u64,
        value: &[u8],
        full: u8,
        top: u8,
    ) -> Result {
        let id = self.id;
        let grows = full == top;
        if grows && top >= MAX_LEVEL {
            return Err(EFBIG);
        }
        // The new nodes, the leaf last.
        let levels = full + 1 + u8::from(grows);
        let mut spares = KVec::with_capacity(usize::from(levels), GFP_KERNEL)?;
        for level in (0..levels).rev() {
            spares.push(Shared::new(Node::new(id, level)?)?, GFP_KERNEL)?;
        }
        // From here on nothing can fail.
        let mut edit = Edit {
            node_store,
            dead: &mut self.dead,
            fresh: &mut self.fresh,
        };
        let root = edit.root(&mut self.root, &id)?;
        let split = split_path(root, key, value, &mut spares)?;
        *edit.fresh += u64::from(levels);
        let Some((right_key, right)) = split else {
            return Ok(());
        };
        let (mut new_root, left) = match (spares.pop(), self.root.take()) {
            (Some(n), Some(l)) => (n, l),
            _ => return Err(broken(Invariant::TreeShape, format_args!("no new root"))),
        };
        let left_key = match &left {
            Link::Mem(n) => n.key(0),
            Link::Disk(_) => 0,
        };
        if let Some(n) = Shared::get_mut(&mut new_root) {
            n.insert_link(0, left_key, left);
            n.insert_link(1, right_key, Link::Mem(right));
        }
        self.root = Some(Link::Mem(new_root));
        Ok(())
    }

    /// Removes an item; false if there is none with this key. On an error the content is unchanged:
    /// EUCLEAN, EIO, ENOMEM.
    pub fn remove(&mut self, node_store: &NodeStore, key: u64) -> Result<bool> {
        if !self.contains(node_store, key)? {
            return Ok(false);
        }
        self.take_out(node_store, key, Gone::Item)?;
        Ok(true)
    }

    /// Removes all items of the leaf that begins with the item `key`, without a copy of it. First
    /// `item` gets each item. Returns false, and changes nothing, if no leaf begins with `key`, if it
    /// is the root, or once `item` has returned false. On an error the content is unchanged: EUCLEAN,
    /// EIO, ENOMEM, or that of `item`.
    pub fn remove_leaf(
        &mut self,
        node_store: &NodeStore,
        key: u64,
        mut item: impl FnMut(u64, &[u8]) -> Result<bool>,
    ) -> Result<bool> {
        if self.height() < 2 {
            return Ok(false);
        }
        let Some(leaf) = self.leaf_from(node_store, key)? else {
            return Ok(false);
        };
        for i in 0..leaf.len() {
            if !item(leaf.key(i), leaf.value(i))? {
                return Ok(false);
            }
        }
        drop(leaf);
        self.take_out(node_store, key, Gone::Leaf)?;
        Ok(true)
    }

    /// The rest of a removal, when it is known that there is something to remove.
    fn take_out(&mut self, node_store: &NodeStore, key: u64, gone: Gone) -> Result {
        let id = self.id;
        let mut edit = Edit {
            node_store,
            dead: &mut self.dead,
            fresh: &mut self.fresh,
        };
        // Two nodes per level, for the path and a neighbour, with two copies each.
        edit.dead
            .reserve(4 * (usize::from(MAX_LEVEL) + 1), GFP_KERNEL)?;
        let root = edit.root(&mut self.root, &id)?;
        remove_path(root, key, gone, KeyRange::ALL, &mut edit)?;
        // The root may have become empty, or have only one child left.
        while let Some(Link::Mem(n)) = &mut self.root {
            let next = match Shared::get_mut(n) {
                Some(m) if m.is_written() => break,
                Some(m) if m.is_empty() => None,
                Some(m) if m.level() > 0 && m.len() == 1 => Some(m.remove_link(0)?),
                _ => break,
            };
            if let Some(old) = core::mem::replace(&mut self.root, next) {
                edit.retire(old);
            }
        }
        Ok(())
    }
}

/// Inserts the item under `node` and splits full nodes. All nodes on the path are changeable. If
/// `node` was split, returns its new right neighbour.
fn split_path(
    node: &mut Node,
    key: u64,
    value: &[u8],
    spares: &mut KVec<Shared<Node>>,
) -> Result<Option<(u64, Shared<Node>)>> {
    if node.level() == 0 {
        return split_leaf(node, key, value, spares).map(Some);
    }
    let i = node.child_for(key);
    let kid = node.kid_unique(i).ok_or_else(|| {
        broken(
            Invariant::TreeShape,
            format_args!("the path is not changeable"),
        )
    })?;
    let Some((new_key, new)) = split_path(kid, key, value, spares)? else {
        return Ok(None);
    };
    if !node.is_full() {
        node.insert_link(i + 1, new_key, Link::Mem(new));
        return Ok(None);
    }
    let mut right = spares
        .pop()
        .ok_or_else(|| broken(Invariant::TreeShape, format_args!("no spare node")))?;
    let r = Shared::get_mut(&mut right)
        .ok_or_else(|| broken(Invariant::TreeShape, format_args!("a spare node is shared")))?;
    let (nr, at) = (node.len(), i + 1);
    // With ascending keys this leaves full nodes behind.
    let keep = if at == nr { nr } else { nr.div_ceil(2) };
    r.append(node, keep, nr);
    node.truncate(keep);
    if at <= keep && keep < nr {
        node.insert_link(at, new_key, Link::Mem(new));
    } else {
        r.insert_link(at - keep, new_key, Link::Mem(new));
    }
    let right_key = r.key(0);
    Ok(Some((right_key, right)))
}

/// Splits a leaf for an item that does not fit. Returns the new right neighbour.
fn split_leaf(
    leaf: &mut Node,
    key: u64,
    value: &[u8],
    spares: &mut KVec<Shared<Node>>,
) -> Result<(u64, Shared<Node>)> {
    let mut right = spares
        .pop()
        .ok_or_else(|| broken(Invariant::TreeShape, format_args!("no spare leaf")))?;
    let r = Shared::get_mut(&mut right)
        .ok_or_else(|| broken(Invariant::TreeShape, format_args!("a spare leaf is shared")))?;
    let at = leaf.lower_bound(key);
    if at < leaf.len() && leaf.key(at) == key {
        leaf.remove_item(at);
    }
    let nr = leaf.len();
    if at == nr {
        // With ascending keys this leaves full leaves behind.
        r.insert_item(0, key, value);
        return Ok((key, right));
    }
    // The left leaf gets so many of the nr + 1 items that it is at least half full. An item takes
    // at most a third of a leaf, so both halves fit.
    let total = leaf.used() + SLOT_LEN + value.len();
    let mut keep = 0;
    let mut used = 0;
    while keep < nr && used < total / 2 {
        used += SLOT_LEN
            + match keep.cmp(&at) {
                core::cmp::Ordering::Less => leaf.value(keep).len(),
                core::cmp::Ordering::Equal => value.len(),
                core::cmp::Ordering::Greater => leaf.value(keep - 1).len(),
            };
        keep += 1;
    }
    if at < keep {
        r.append(leaf, keep - 1, nr);
        leaf.truncate(keep - 1);
        leaf.insert_item(at, key, value);
    } else {
        r.append(leaf, keep, nr);
        leaf.truncate(keep);
        r.insert_item(at - keep, key, value);
    }
    let right_key = r.key(0);
    Ok((right_key, right))
}

/// Removes an existing item, or its leaf, from under a changeable node.
fn remove_path(
    node: &mut Node,
    key: u64,
    gone: Gone,
    range: KeyRange,
    edit: &mut Edit<'_>,
) -> Result {
    if node.level() == 0 {
        let i = node.lower_bound(key);
        if i < node.len() && node.key(i) == key {
            node.remove_item(i);
        }
        return Ok(());
    }
    let i = node.child_for(key);
    if gone == Gone::Leaf && node.level() == 1 {
        let link = node.remove_link(i)?;
        edit.retire(link);
        return Ok(());
    }
    let (kid, kid_range) = edit.child(node, i, range)?;
    remove_path(kid, key, gone, kid_range, edit)?;
    if kid.is_empty() {
        // It has become empty: its link goes, too.
        let link = node.remove_link(i)?;
        edit.retire(link);
    } else if kid.used() < MIN_USED {
        // A failure leaves the shape as it is: see the module's header.
        let _ = rebalance(node, i, range, edit);
    }
    Ok(())
}

/// Merges child `i`, which is changeable and not empty, with a neighbour, or evens them out.
fn rebalance(node: &mut Node, i: usize, range: KeyRange, edit: &mut Edit<'_>) -> Result {
    let used = node.kid(i).map_or(0, |k| k.used());
    let neighbours = [i.checked_sub(1), Some(i + 1).filter(|&j| j < node.len())];
    let mut fullest = None;
    for j in neighbours.into_iter().flatten() {
        let (other, _) = node.open_child(edit.node_store, j, range)?;
        if other.used() + used <= LEAF_SPACE {
            drop(other);
            return merge(node, i.min(j), range, edit);
        }
        if fullest.is_none_or(|(_, u)| u < other.used()) {
            fullest = Some((j, other.used()));
        }
    }
    match fullest {
        Some((j, _)) => even_out(node, i, j, range, edit),
        None => Ok(()),
    }
}

/// Moves all entries of child `l + 1` to child `l`.
fn merge(node: &mut Node, l: usize, range: KeyRange, edit: &mut Edit<'_>) -> Result {
    edit.child(node, l, range)?;
    let (right, _) = node.open_child(edit.node_store, l + 1, range)?;
    let left = node
        .kid_unique(l)
        .ok_or_else(|| broken(Invariant::TreeShape, format_args!("a child is shared")))?;
    if !left.append(&right, 0, right.len()) {
        return Err(broken(
            Invariant::TreeShape,
            format_args!("merged nodes do not fit"),
        ));
    }
    drop(right);
    let link = node.remove_link(l + 1)?;
    edit.retire(link);
    Ok(())
}

/// Moves entries from child `from` to its neighbour `to` until both are about equally full.
fn even_out(
    node: &mut Node,
    to: usize,
    from: usize,
    range: KeyRange,
    edit: &mut Edit<'_>,
) -> Result {
    edit.child(node, to, range)?;
    edit.child(node, from, range)?;
    let (Some(mut donor), Some(mut taker)) = (node.take_kid(from), node.take_kid(to)) else {
        return Err(broken(
            Invariant::TreeShape,
            format_args!("a child is missing"),
        ));
    };
    let mut moved = Ok(());
    if let (Some(d), Some(t)) = (Shared::get_mut(&mut donor), Shared::get_mut(&mut taker)) {
        while t.used() < MIN_USED || t.used() + MAX_VALUE / 2 < d.used() {
            match d.shift_one(t, from < to) {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => {
                    moved = Err(e);
                    break;
                }
            }
        }
        let right_key = if from < to { t.key(0) } else { d.key(0) };
        node.set_entry_key(from.max(to), right_key);
    }
    node.set_kid(from, donor)?;
    node.set_kid(to, taker)?;
    moved
}
