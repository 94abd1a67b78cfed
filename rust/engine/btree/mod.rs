// SPDX-License-Identifier: GPL-2.0

//! Persistent B+trees. Keys are u64, values are byte strings of 1 to [`MAX_VALUE`] bytes, and a
//! node is one block. [`NodeStore`] reads nodes and caches the clean ones.
//!
//! # Model
//!
//! A tree is a link to its root and the list of the nodes that it has replaced since its last
//! snapshot. Nodes are shared ([`crate::os::Shared`]). A node is changed in place if this tree
//! holds the only reference to it and it is not written. Otherwise the node is copied and the copy
//! takes its place; the old node goes to the dead list if it has, or may yet get, a block on disk.
//!
//! A commit takes these steps:
//!
//! 1. [`Tree::snapshot`], under the tree's lock: a clone of the root link, and the dead list. From
//!    then on the nodes are shared, and changes to the tree copy them.
//! 2. [`Snapshot::write_out`], without any lock: gives an address to every node that has none and
//!    passes its image to the sink, children first. Nodes that earlier commits wrote are skipped.
//! 3. [`Snapshot::dead`]: the blocks that the snapshot no longer references.
//! 4. When all is durable and the snapshot is dropped: [`Tree::demote`], under the tree's lock,
//!    passes the written nodes to the cache. Only then may they be read from the device.
//!
//! A commit that fails before anything has reached the device gives the dead list back
//! ([`Tree::restore_dead`]). The nodes that it wrote stay written: they are valid for the next
//! attempt, provided that their blocks stay allocated and no write to the device failed. After a
//! failed write the filesystem must shut down.
//!
//! The blocks that a space tree is written to are in that tree. So a commit counts its nodes
//! ([`Tree::unassigned_nodes`]) and takes the blocks before it writes it out.
//!
//! # Sums
//!
//! The interior nodes of the AG tree have, beside each pointer, the sums of all records under that
//! child ([`crate::engine::format::sums`]). Like the checksum, they are computed when a node is
//! written, children first, so a change makes no more nodes dirty than it would without them. A
//! child that is read must have the sums that its parent gives. [`Tree::first_where`] searches by
//! them.
//!
//! # Locking
//!
//! A tree is plain data, protected by a lock of its owner: `&self` methods need the shared side (or
//! the lock), `&mut self` methods the exclusive side. A look-up may sleep in a read from the device
//! with that lock held. A tree and a snapshot being written share nodes; the write-out changes
//! nothing of them but their states, which are atomics.
//!
//! # Cost
//!
//! A change of an item copies at most its path; a removal may also copy one neighbour per level; a
//! split adds a node per level. So one insertion makes at most [`Tree::INSERT_COST`] nodes dirty,
//! and one removal at most [`Tree::REMOVE_COST`], in a tree of the greatest depth. A leaf of which all
//! items go is neither copied nor merged: [`Tree::remove_leaf`] takes it out of its parent.
//!
//! Prior art of snapshots as clones of the root: O. Rodeh, "B-trees, Shadowing, and Clones", on
//! which btrfs is built.
//!
//! Tests: `tools/engine/tests/btree.rs` (with the model in `tools/engine/tests/trees/mod.rs`),
//! `tools/engine/tests/btree_damage.rs`, `tools/engine/tests/ag_tree.rs`,
//! `tools/engine/tests/bulk.rs`, `tools/engine/tests/scrub.rs`.

mod behind;
mod bulk;
mod checkpoint;
mod commit;
pub(crate) mod descend;
mod edit;
mod find;
pub(crate) mod heal;
mod inline;
mod node;
mod page;
pub(crate) mod reader;
mod reads;
pub(crate) mod scrub;
mod search;
mod store;
mod walk;

pub use crate::engine::format::node::{Places, TreeId, TreeKind, MAX_LEVEL, MAX_VALUE};
pub use behind::Behind;
pub use commit::{NodeSink, Snapshot};
pub use heal::BadCopies;
pub use node::{Link, Node};
pub use reads::Reads;
pub use search::Unread;
#[allow(unused_imports)] // Only the tools name it.
pub use store::Fault;
pub use store::NodeStore;
#[allow(unused_imports)] // Only the tools walk trees.
pub use walk::{BadNode, NodeInfo, WalkItem};

use crate::engine::format::NodePtr;
use crate::os::Shared;
use kernel::prelude::*;

/// A reusable buffer for a value.
pub type ValueBuf = KVec<u8>;

/// A node that a tree has replaced. The commit that takes the next snapshot frees its blocks.
pub enum Dead {
    /// Where a node on disk is.
    At(Places),
    /// A node that a running commit may be writing. Its address is known when that commit has
    /// ended; if it has none, there is nothing to free.
    Node(Shared<Node>),
}

/// A B+tree.
pub struct Tree {
    id: TreeId,
    root: Option<Link>,
    dead: KVVec<Dead>,
    /// Nodes without an address that were made since the last snapshot.
    fresh: u64,
}

/// The keys that may occur under a link, both ends inclusive. A descent narrows it from level to
/// level and checks every node that it reads against it, so that no descent reaches a node twice,
/// whatever is on the device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyRange {
    lo: u64,
    hi: u64,
}

impl KeyRange {
    /// All keys.
    const ALL: Self = Self {
        lo: 0,
        hi: u64::MAX,
    };

    /// The range of child `i` of a node with this range.
    fn child(self, node: &Node, i: usize) -> Self {
        let lo = self.lo.max(node.key(i));
        let hi = match i + 1 < node.len() {
            true => self.hi.min(node.key(i + 1).saturating_sub(1)),
            false => self.hi,
        };
        Self { lo, hi }
    }

    /// Whether all keys of the node are in the range.
    fn holds(self, node: &Node) -> bool {
        match node.len().checked_sub(1) {
            None => true,
            Some(last) => node.key(0) >= self.lo && node.key(last) <= self.hi,
        }
    }
}

impl Tree {
    /// The most nodes that one [`Tree::insert`] makes dirty.
    pub const INSERT_COST: u64 = 2 * (MAX_LEVEL as u64 + 1) + 1;
    /// The most nodes that one [`Tree::remove`] makes dirty.
    pub const REMOVE_COST: u64 = 2 * (MAX_LEVEL as u64 + 1);

    /// An empty tree.
    pub fn empty(id: TreeId) -> Self {
        Self {
            id,
            root: None,
            dead: KVVec::new(),
            fresh: 0,
        }
    }

    /// The tree with its root at `ptr`. Reads nothing.
    pub fn from_ptr(id: TreeId, ptr: NodePtr) -> Self {
        Self {
            id,
            root: Some(Link::Disk(ptr)),
            dead: KVVec::new(),
            fresh: 0,
        }
    }

    /// The identity that its nodes carry.
    pub fn id(&self) -> TreeId {
        self.id
    }

    /// Whether the tree has no items.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The number of levels: 0 for an empty tree, 1 for one leaf.
    pub fn height(&self) -> u64 {
        match &self.root {
            None => 0,
            Some(Link::Disk(p)) => u64::from(p.level) + 1,
            Some(Link::Mem(n)) => u64::from(n.level()) + 1,
        }
    }

    /// The pointer to the root, if the root is on disk or written.
    pub fn root_ptr(&self) -> Option<NodePtr> {
        match &self.root {
            Some(Link::Disk(p)) => Some(*p),
            Some(Link::Mem(n)) if n.is_written() => Some(n.ptr()),
            _ => None,
        }
    }

    /// How many nodes need an address at the next write-out, not counting those of a snapshot that
    /// is being written. An upper bound, and exact as long as no commit fails. O(1).
    pub fn dirty_nodes(&self) -> u64 {
        self.fresh
    }

    /// How many replaced nodes wait for the next snapshot.
    pub fn dead_nodes(&self) -> usize {
        self.dead.len()
    }
}
