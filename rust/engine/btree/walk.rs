// SPDX-License-Identifier: GPL-2.0

//! Walks over a whole tree, for fsck, dumps and deletion. They need the shared side of the tree's
//! lock, or a tree that nothing else uses, and sleep in reads from the device.
//!
//! Tests: `tools/engine/tests/btree.rs`, `tools/engine/tests/checker.rs`,
//! `tools/engine/tests/damage.rs`.

use super::{KeyRange, Link, Node, Tree};
use crate::engine::btree::NodeStore;
use crate::engine::format::NodePtr;
use crate::os::cond_resched;
use kernel::prelude::*;

/// A node that a walk has visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Block address; 0 if it has none yet.
    pub addr: u64,
    /// Address of a second copy; 0 if there is none.
    pub addr2: u64,
    /// Level, 0 = leaf.
    pub level: u8,
    /// Generation of the commit that wrote it; 0 if it is not written.
    pub generation: u64,
    /// The checksum in its header; 0 if it is not written.
    pub crc: u32,
    /// Number of entries.
    pub entries: usize,
    /// The key of its first entry.
    pub first_key: u64,
    /// The key of its last entry.
    pub last_key: u64,
}

#[allow(dead_code)] // Only fsck repairs trees.
impl NodeInfo {
    /// The pointer to a node that is on disk.
    pub fn ptr(&self) -> NodePtr {
        NodePtr {
            addr: self.addr,
            addr2: self.addr2,
            generation: self.generation,
            crc: self.crc,
            level: self.level,
        }
    }
}

/// A node that a walk could not read.
#[derive(Clone, Copy, Debug)]
pub struct BadNode {
    /// The pointer to it; `None` if the pointer itself is damaged.
    pub ptr: Option<NodePtr>,
    /// The lowest key that may be under it.
    pub first_key: u64,
    /// The greatest key that may be under it.
    pub last_key: u64,
    /// EUCLEAN if the node is damaged, or the error of the device.
    pub error: Error,
}

/// An element of a walk, passed to its function.
pub enum WalkItem<'a> {
    /// A node, before the items and nodes under it.
    Node(NodeInfo),
    /// An item: key and value. Items come in ascending order of keys.
    Item(u64, &'a [u8]),
    /// A node that cannot be read ([`Tree::walk_tolerant`] only).
    Bad(BadNode),
}

/// The function that a walk calls; its error ends the walk.
type Visit<'a> = dyn FnMut(WalkItem<'_>) -> Result + 'a;

fn walk_node(
    node: &Node,
    range: KeyRange,
    node_store: &NodeStore,
    tolerant: bool,
    f: &mut Visit<'_>,
) -> Result {
    let p = node.ptr();
    f(WalkItem::Node(NodeInfo {
        addr: p.addr,
        addr2: p.addr2,
        level: p.level,
        generation: p.generation,
        crc: p.crc,
        entries: node.len(),
        first_key: node.first_key(),
        last_key: node.last_key(),
    }))?;
    cond_resched();
    for i in 0..node.len() {
        if node.level() == 0 {
            f(WalkItem::Item(node.key(i), node.value(i)))?;
            continue;
        }
        match node.open_child(node_store, i, range) {
            Ok((kid, r)) => walk_node(&kid, r, node_store, tolerant, f)?,
            Err(error) if tolerant => {
                let ptr = match node.link(i) {
                    Ok(Link::Disk(ptr)) => Some(ptr),
                    _ => None,
                };
                let r = range.child(node, i);
                f(WalkItem::Bad(BadNode {
                    ptr,
                    first_key: r.lo,
                    last_key: r.hi,
                    error,
                }))?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl Tree {
    /// Visits every node and item. The first error, of a read or of `f`, ends the walk.
    pub fn walk(&self, node_store: &NodeStore, f: &mut Visit<'_>) -> Result {
        self.walk_any(node_store, false, f)
    }

    /// Visits every node and item. Reports nodes that are damaged or cannot be read, and goes on;
    /// an error of `f` ends the walk.
    pub fn walk_tolerant(&self, node_store: &NodeStore, f: &mut Visit<'_>) -> Result {
        self.walk_any(node_store, true, f)
    }

    fn walk_any(&self, node_store: &NodeStore, tolerant: bool, f: &mut Visit<'_>) -> Result {
        let all = KeyRange::ALL;
        match self.open_root(node_store) {
            Ok(None) => Ok(()),
            Ok(Some(root)) => walk_node(&root, all, node_store, tolerant, f),
            Err(error) if tolerant => f(WalkItem::Bad(BadNode {
                ptr: self.root_ptr(),
                first_key: all.lo,
                last_key: all.hi,
                error,
            })),
            Err(e) => Err(e),
        }
    }
}
