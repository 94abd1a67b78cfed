// SPDX-License-Identifier: GPL-2.0

//! Look-ups in a tree.
//!
//! They need the shared side of the tree's lock, and may sleep in a read from the device with it
//! held. Every node that is read is checked against the range of keys that its parent gives it; one
//! outside is EUCLEAN. So is one with other sums than its parent gives, in a tree with sums.
//!
//! Tests: `tools/engine/tests/btree.rs`, `tools/engine/tests/btree_damage.rs`,
//! `tools/engine/tests/read_verify.rs`.

use super::{KeyRange, Link, Node, Tree, ValueBuf};
use crate::engine::btree::NodeStore;
use crate::engine::format::corrupt_fmt;
use crate::os::Shared;
use kernel::prelude::*;

impl Node {
    /// Child `i` of this node, and the range of the child's keys; `range` is that of this node.
    /// Reads the child if it is not in memory. EUCLEAN if its keys are out of the range.
    pub(super) fn open_child(
        &self,
        node_store: &NodeStore,
        i: usize,
        range: KeyRange,
    ) -> Result<(Shared<Node>, KeyRange)> {
        let range = range.child(self, i);
        let ptr = match self.link(i)? {
            Link::Mem(kid) => return Ok((kid, range)),
            Link::Disk(ptr) => ptr,
        };
        let kid = node_store.read(&ptr, &self.id())?;
        let wrong = if !range.holds(&kid) {
            "keys outside of the range"
        } else if kid.sums().is_some_and(|s| self.sums_under(i) != Some(s)) {
            "other sums than"
        } else {
            return Ok((kid, range));
        };
        let id = self.id();
        Err(corrupt_fmt(format_args!(
            "{} tree of {}: node at block {} has {wrong} that its parent gives",
            id.kind.name(),
            id.owner,
            ptr.addr
        )))
    }
}

/// The child to go on with if the leaf has no fitting item: its parent, its index, and the
/// parent's range.
type Fallback = Option<(Shared<Node>, usize, KeyRange)>;

/// On which side of a key an item is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The first item whose key is not below it.
    AtLeast,
    /// The last item whose key is not above it.
    AtMost,
}

impl Tree {
    /// The root; `None` for an empty tree.
    pub(super) fn open_root(&self, node_store: &NodeStore) -> Result<Option<Shared<Node>>> {
        match &self.root {
            None => Ok(None),
            Some(Link::Mem(n)) => Ok(Some(n.clone())),
            Some(Link::Disk(p)) => node_store.read(p, &self.id).map(Some),
        }
    }

    /// Calls `f` with the value of `key`. Returns `None` if there is no such item.
    pub fn get_with<R>(
        &self,
        node_store: &NodeStore,
        key: u64,
        f: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        let Some(mut node) = self.open_root(node_store)? else {
            return Ok(None);
        };
        let mut range = KeyRange::ALL;
        while node.level() > 0 {
            let i = node.child_for(key);
            let (kid, r) = node.open_child(node_store, i, range)?;
            (node, range) = (kid, r);
        }
        let i = node.lower_bound(key);
        Ok((i < node.len() && node.key(i) == key).then(|| f(node.value(i))))
    }

    /// Whether there is an item with this key.
    pub fn contains(&self, node_store: &NodeStore, key: u64) -> Result<bool> {
        Ok(self.get_with(node_store, key, |_| ())?.is_some())
    }

    /// Copies the value of `key` to `out`. Returns false, with `out` empty, if there is no such
    /// item.
    pub fn get(&self, node_store: &NodeStore, key: u64, out: &mut ValueBuf) -> Result<bool> {
        out.clear();
        match self.get_with(node_store, key, |v| out.extend_from_slice(v, GFP_KERNEL))? {
            None => Ok(false),
            Some(copied) => {
                copied?;
                Ok(true)
            }
        }
    }

    /// The first item whose key is at least `key`: its key, and its value in `out`.
    pub fn find_ge(
        &self,
        node_store: &NodeStore,
        key: u64,
        out: &mut ValueBuf,
    ) -> Result<Option<u64>> {
        self.find(node_store, key, out, Side::AtLeast)
    }

    /// The last item whose key is at most `key`: its key, and its value in `out`.
    pub fn find_le(
        &self,
        node_store: &NodeStore,
        key: u64,
        out: &mut ValueBuf,
    ) -> Result<Option<u64>> {
        self.find(node_store, key, out, Side::AtMost)
    }

    /// [`Self::find_le`] or [`Self::find_ge`].
    fn find(
        &self,
        node_store: &NodeStore,
        key: u64,
        out: &mut ValueBuf,
        side: Side,
    ) -> Result<Option<u64>> {
        out.clear();
        let Some((leaf, i)) = self.leaf(node_store, key, side)? else {
            return Ok(None);
        };
        out.extend_from_slice(leaf.value(i), GFP_KERNEL)?;
        Ok(Some(leaf.key(i)))
    }

    /// Passes the last item with a key of at most `key`, and the items that follow it in the same
    /// leaf, to `f` until `f` returns false. Allocates nothing.
    pub fn scan_le(
        &self,
        node_store: &NodeStore,
        key: u64,
        mut f: impl FnMut(u64, &[u8]) -> Result<bool>,
    ) -> Result {
        let Some((leaf, first)) = self.leaf(node_store, key, Side::AtMost)? else {
            return Ok(());
        };
        for i in first..leaf.len() {
            if !f(leaf.key(i), leaf.value(i))? {
                break;
            }
        }
        Ok(())
    }

    /// The leaf whose first item has the key `key`.
    pub(super) fn leaf_from(
        &self,
        node_store: &NodeStore,
        key: u64,
    ) -> Result<Option<Shared<Node>>> {
        let found = self.leaf(node_store, key, Side::AtLeast)?;
        Ok(found.and_then(|(leaf, i)| (i == 0 && leaf.key(0) == key).then_some(leaf)))
    }

    /// The leaf and the slot of the item that [`Self::find_le`] or [`Self::find_ge`] finds.
    fn leaf(
        &self,
        node_store: &NodeStore,
        key: u64,
        side: Side,
    ) -> Result<Option<(Shared<Node>, usize)>> {
        let le = side == Side::AtMost;
        let Some(mut node) = self.open_root(node_store)? else {
            return Ok(None);
        };
        let mut range = KeyRange::ALL;
        let mut other: Fallback = None;
        loop {
            if node.level() > 0 {
                let i = node.child_for(key);
                let (kid, r) = node.open_child(node_store, i, range)?;
                // The child may have no item on the requested side of the key. The sibling on that
                // side has only such items.
                if le && i > 0 {
                    other = Some((node, i - 1, range));
                } else if !le && i + 1 < node.len() {
                    other = Some((node, i + 1, range));
                }
                (node, range) = (kid, r);
                continue;
            }
            let mut i = node.lower_bound(key);
            let exact = i < node.len() && node.key(i) == key;
            let mut found = i < node.len();
            if le && !exact {
                found = i > 0;
                i = i.saturating_sub(1);
            }
            if found {
                return Ok(Some((node, i)));
            }
            // Each turn goes to a node on the requested side, and no node is empty, so one turn is
            // enough. In any case the fallback is used up.
            let Some((parent, j, r)) = other.take() else {
                return Ok(None);
            };
            let (kid, r) = parent.open_child(node_store, j, r)?;
            (node, range) = (kid, r);
        }
    }
}
