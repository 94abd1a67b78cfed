// SPDX-License-Identifier: GPL-2.0

//! Snapshots and write-out of a tree. The header of [`super`] has the steps of a commit, and says
//! which of them need the tree's lock.
//!
//! Tests: `tools/engine/tests/btree.rs`, `tools/engine/tests/crash.rs`,
//! `tools/models/tests/rules/r6.rs`.

use super::{Dead, Link, Node, Places, Tree, TreeId};
use crate::engine::btree::NodeStore;
use crate::engine::format::NodePtr;
use crate::os::{Block, Shared};
use kernel::prelude::*;

/// The source of addresses for a write-out, and the destination of its images.
pub trait NodeSink {
    /// The node id of the superblock.
    fn node_id(&self) -> u64;
    /// The generation being committed, not 0.
    fn generation(&self) -> u64;
    /// Free blocks for the copies of a node. Called once per node.
    fn alloc(&mut self) -> Result<Places>;
    /// Queues the writes of a node's image to all its places. The commit makes them durable before a
    /// superblock refers to them.
    fn write(&mut self, places: Places, image: Block) -> Result;
}

/// A tree at one moment, to be written out.
pub struct Snapshot {
    id: TreeId,
    root: Option<Link>,
    dead: KVVec<Dead>,
    fresh: u64,
}

/// Gives addresses to `node` and the nodes under it that have none, and counts them.
fn assign_node(node: &Node, sink: &mut dyn NodeSink, count: &mut u64) -> Result {
    if node.is_written() {
        return Ok(());
    }
    for i in 0..node.len() {
        if let Some(kid) = node.kid(i) {
            assign_node(kid, sink, count)?;
        }
    }
    if node.addr() == 0 {
        node.set_places(sink.alloc()?);
        *count += 1;
    }
    Ok(())
}

/// The number of nodes without an address under `node`, itself included.
fn count_unassigned(node: &Node) -> u64 {
    if node.is_written() {
        return 0;
    }
    let kids = (0..node.len())
        .filter_map(|i| node.kid(i))
        .map(|k| count_unassigned(k));
    u64::from(node.addr() == 0) + kids.sum::<u64>()
}

/// Writes `node` and the nodes under it that are not written, children first.
fn write_node(node: &Node, sink: &mut dyn NodeSink) -> Result<NodePtr> {
    if node.is_written() {
        return Ok(node.ptr());
    }
    for i in 0..node.len() {
        if let Some(kid) = node.kid(i) {
            write_node(kid, sink)?;
        }
    }
    if node.addr() == 0 {
        node.set_places(sink.alloc()?);
    }
    let generation = sink.generation();
    let (image, crc, sums) = node.sealed_image(sink.node_id(), generation)?;
    sink.write(node.places(), image)?;
    node.set_written(generation, crc, sums);
    Ok(node.ptr())
}

/// Passes a written node and the nodes in memory under it to the cache.
fn adopt(node_store: &NodeStore, node: &mut Shared<Node>) -> NodePtr {
    let ptr = node.ptr();
    if node.level() == 0 {
        node_store.insert(node.clone());
    } else if let Some(n) = Shared::get_mut(node) {
        n.demote_kids(|kid| Some(adopt(node_store, kid)));
        n.drop_kid_list();
        node_store.insert(node.clone());
    } else {
        // A snapshot or a reader holds the node with its children, so the cache gets a copy without
        // them.
        if let Ok(copy) = Node::clean_copy(node).and_then(Shared::new) {
            node_store.insert(copy);
        }
        for i in 0..node.len() {
            if let Some(kid) = node.kid(i) {
                adopt(node_store, &mut kid.clone());
            }
        }
    }
    ptr
}

/// As [`Tree::demote`], for the nodes under a node that is not written itself.
fn demote_under(node_store: &NodeStore, node: &mut Node) {
    node.demote_kids(|kid| {
        if kid.is_written() {
            return Some(adopt(node_store, kid));
        }
        if let Some(n) = Shared::get_mut(kid) {
            demote_under(node_store, n);
        }
        None
    });
}

impl Tree {
    /// The tree as it is now, to be written out, with the nodes that it has replaced since the last
    /// snapshot. O(1). Needs no memory.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        Ok(Snapshot {
            id: self.id,
            root: self.root.clone(),
            dead: core::mem::replace(&mut self.dead, KVVec::new()),
            fresh: core::mem::replace(&mut self.fresh, 0),
        })
    }

    /// Gives back what [`Self::snapshot`] took, after a commit that failed.
    pub fn restore_dead(&mut self, mut s: Snapshot) {
        self.fresh += s.fresh;
        if self.dead.len() > s.dead.len() {
            core::mem::swap(&mut self.dead, &mut s.dead);
        }
        let moved = s
            .dead
            .into_iter()
            .try_for_each(|d| self.dead.push(d, GFP_KERNEL));
        if moved.is_err() {
            pr_err!("no memory to free tree nodes: their blocks leak\n");
        }
    }

    /// Takes the list of replaced nodes, for a tree that must free them before its snapshot.
    /// [`Dead::addrs`] turns each into addresses.
    pub fn take_dead(&mut self) -> KVVec<Dead> {
        core::mem::replace(&mut self.dead, KVVec::new())
    }

    /// How many nodes have no address, counted exactly. The cost grows with the number of nodes
    /// that are not written.
    pub fn unassigned_nodes(&self) -> u64 {
        match &self.root {
            Some(Link::Mem(root)) => count_unassigned(root),
            _ => 0,
        }
    }

    /// Gives an address to every node that has none, for a tree that its own write-out changes. The
    /// tree may change afterwards: nodes with an address are still changed in place, and the next
    /// call finds the new ones.
    pub fn assign(&mut self, sink: &mut dyn NodeSink) -> Result {
        let mut count = 0;
        let done = match &self.root {
            Some(Link::Mem(root)) => assign_node(root, sink, &mut count),
            _ => Ok(()),
        };
        self.fresh = match done {
            Ok(()) => 0,
            Err(_) => self.fresh.saturating_sub(count),
        };
        done
    }

    /// Turns links to written nodes into links to the disk, and passes the nodes to the cache.
    /// Called when the commit that wrote them is durable, and before the next one writes. The cost
    /// grows with the number of nodes of that commit.
    pub fn demote(&mut self, node_store: &NodeStore) -> Result {
        // The dead list comes first: it must not keep written nodes in memory.
        for d in self.dead.iter_mut() {
            let places = d.places();
            if places.first != 0 {
                *d = Dead::At(places);
            }
        }
        let ptr = match &mut self.root {
            Some(Link::Mem(root)) if root.is_written() => adopt(node_store, root),
            Some(Link::Mem(root)) => {
                if let Some(n) = Shared::get_mut(root) {
                    demote_under(node_store, n);
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.root = Some(Link::Disk(ptr));
        Ok(())
    }
}

impl Dead {
    /// Where the copies of the node are.
    fn places(&self) -> Places {
        match self {
            Self::At(places) => *places,
            Self::Node(node) => node.places(),
        }
    }

    /// The blocks to free; none if the node never got one.
    pub fn addrs(&self) -> impl Iterator<Item = u64> {
        self.places().each()
    }
}

impl Snapshot {
    /// Writes all nodes that are not written, children first. Returns the pointer to the root,
    /// `None` for an empty tree. After an error it may be called again.
    pub fn write_out(&self, sink: &mut dyn NodeSink) -> Result<Option<NodePtr>> {
        match &self.root {
            None => Ok(None),
            Some(Link::Disk(ptr)) => Ok(Some(*ptr)),
            Some(Link::Mem(root)) => write_node(root, sink).map(Some),
        }
    }

    /// The blocks of the nodes that the tree had replaced. Valid when the previous commit has
    /// ended.
    pub fn dead(&self) -> impl Iterator<Item = u64> + '_ {
        self.dead.iter().flat_map(Dead::addrs)
    }

    /// The identity of the tree.
    pub fn id(&self) -> TreeId {
        self.id
    }

    /// Whether the tree has no items.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// How many nodes need an address, counted exactly. The cost grows with the number of nodes that
    /// are not written.
    pub fn unassigned_nodes(&self) -> u64 {
        match &self.root {
            Some(Link::Mem(root)) => count_unassigned(root),
            _ => 0,
        }
    }

    /// How many nodes need an address: see [`Tree::dirty_nodes`].
    pub fn dirty_nodes(&self) -> u64 {
        self.fresh
    }

    pub(super) fn root(&self) -> Option<&Link> {
        self.root.as_ref()
    }
}
