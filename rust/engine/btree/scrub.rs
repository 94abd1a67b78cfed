// SPDX-License-Identifier: GPL-2.0

//! Reading a tree past the node cache, leaf by leaf, while it changes.
//!
//! # Model
//!
//! A [`Walk`] goes through a tree in ascending order of keys. Each step begins with a *look*: under
//! the tree's lock, it follows the links in memory and notes the first pointer to a node on disk
//! ([`Tree::look`]). All reads come after the lock has been released, into nodes that only the walk
//! has. It keeps the nodes of the path to its leaf, so each node is read once, as long as later looks
//! find the same pointer: then the whole path is still part of the tree, because nodes on disk never
//! change.
//!
//! Nodes that are not written yet are followed but not judged: they are not on disk.
//!
//! # When a node counts as damaged
//!
//! Between the look and the read the tree may have replaced the node, a commit may have freed its
//! block, and the block may have been written again. So a copy that does not match its pointer is
//! only a suspect. The walk looks again, and goes down again if the tree has changed. If it comes to
//! the same pointer once more, the node was part of the tree all the time: a pointer has the
//! generation of its node, so it never comes back after it was replaced. Then R7 kept the block from
//! being reused, and the copy is damaged.
//!
//! # Cost
//!
//! A step reads at most one path, or up to [`LOOKS`] paths in a tree that changes all the time, and
//! the walk keeps at most one path in memory.
//!
//! Tests: `tools/engine/tests/scrub.rs`, `tools/engine/tests/scrub_errors.rs`,
//! `tools/crash/tests/scrub.rs`.

use super::reader::Reader;
use super::store::Fault;
use super::{KeyRange, Link, Node, NodeStore, Tree, TreeId};
use crate::engine::format::NodePtr;
use crate::engine::invariant::{broken, Invariant};
use crate::engine::mutant::{self, Mutant};
use kernel::prelude::*;

/// How often a step looks, if the tree changes each time.
const LOOKS: usize = 8;

/// The copies of a node, read from the device.
pub(crate) struct Examined {
    /// The node, from the first good copy.
    pub node: Option<Node>,
    /// What is wrong with each copy.
    pub faults: [Option<Fault>; 2],
}

impl Examined {
    /// Whether a copy is bad.
    pub(crate) fn is_bad(&self) -> bool {
        self.faults.iter().any(Option::is_some)
    }
}

/// A node with at least one damaged copy.
pub(crate) struct Unsound<'a> {
    /// The pointer to it.
    pub ptr: NodePtr,
    /// The tree.
    pub id: TreeId,
    /// The lowest key that may be under it.
    pub first_key: u64,
    /// The greatest key that may be under it.
    pub last_key: u64,
    /// What was read, with what is wrong with each copy.
    pub examined: &'a Examined,
    /// No copy is good.
    pub lost: bool,
}

/// The end of the links in memory on the way to a key.
pub(crate) enum Look {
    /// The tree is empty.
    Empty,
    /// A node on disk, and the keys that may be under it.
    Disk(NodePtr, KeyRange),
    /// A leaf that is not on disk yet: a copy of it.
    Memory(Node, KeyRange),
}

impl Look {
    /// A tree of which no node is in memory, with this root.
    pub(crate) fn root(root: Option<NodePtr>) -> Self {
        match root {
            Some(ptr) => Self::Disk(ptr, KeyRange::ALL),
            None => Self::Empty,
        }
    }
}

impl Tree {
    /// Follows the links in memory towards `key`. Reads nothing from the device.
    pub(crate) fn look(&self, key: u64) -> Result<Look> {
        let mut range = KeyRange::ALL;
        let mut node = match &self.root {
            None => return Ok(Look::Empty),
            Some(Link::Disk(ptr)) => return Ok(Look::Disk(*ptr, range)),
            Some(Link::Mem(root)) => root,
        };
        while node.level() > 0 {
            let i = node.child_for(key);
            range = range.child(node, i);
            match node.kid(i) {
                Some(kid) => node = kid,
                None => return Ok(Look::Disk(node.disk_link(i)?, range)),
            }
        }
        Ok(Look::Memory(Node::copy_of(node)?, range))
    }
}

impl Node {
    /// The pointer to the child for `key`, of a node that was read from the device.
    pub(super) fn child_on_disk(&self, key: u64) -> Result<NodePtr> {
        self.disk_link(self.child_for(key))
    }

    /// The pointer to child `i`, which is not in memory.
    fn disk_link(&self, i: usize) -> Result<NodePtr> {
        match self.link(i)? {
            Link::Disk(ptr) => Ok(ptr),
            Link::Mem(_) => Err(broken(
                Invariant::TreeShape,
                format_args!("a node from the device has a child in memory"),
            )),
        }
    }
}

impl NodeStore {
    /// Reads all copies of a node from the device, past the cache. Reports nothing. ENOMEM, EINTR if
    /// the reader is to stop.
    pub(crate) fn examine(
        &self,
        ptr: &NodePtr,
        id: &TreeId,
        reader: &Reader<'_>,
    ) -> Result<Examined> {
        let mut out = Examined {
            node: None,
            faults: [None, None],
        };
        let copies = [Some(ptr.addr), Some(ptr.addr2).filter(|a| *a != 0)];
        if let Some(what) = self.misplaced(ptr) {
            out.faults = copies.map(|at| at.map(|_| Fault::damage(what)));
            return Ok(out);
        }
        for (addr, fault) in copies.into_iter().zip(&mut out.faults) {
            let Some(addr) = addr else { continue };
            reader.begin()?;
            match self.read_at(addr, ptr, id, reader.urgency) {
                Ok(node) => drop(out.node.get_or_insert(node)),
                Err(f) if f.is_passing() => return Err(ENOMEM),
                Err(f) => *fault = Some(f),
            }
        }
        Ok(out)
    }
}

impl NodeStore {
    /// Reads all copies of a node from the device, and says what is wrong with each. For the tools.
    /// ENOMEM.
    #[allow(dead_code)] // Only the tools ask.
    pub fn faults(&self, ptr: &NodePtr, id: &TreeId) -> Result<[Option<Fault>; 2]> {
        self.examine(ptr, id, &Reader::background(&|| false))
            .map(|e| e.faults)
    }
}

/// A node that has to be reached once more before it counts as damaged.
struct Suspect {
    ptr: NodePtr,
    examined: Examined,
}

/// Where a step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// The tree has no keys.
    Empty,
    /// A leaf, with keys up to this one.
    Leaf(u64),
    /// A node that no copy of is good, with keys up to this one.
    Lost(u64),
    /// The tree changed with every look; the caller tries again.
    Moving,
}

/// A walk through a tree that may change.
pub(crate) struct Walk {
    id: TreeId,
    /// The first node on disk of the path, and its keys; `None` if the leaf was in memory.
    top: Option<(NodePtr, KeyRange)>,
    /// The path from there to the leaf, with the keys that may be under each node.
    path: KVec<(Node, KeyRange)>,
    /// The number of blocks read since [`Walk::take_reads`].
    reads: u64,
    /// The node that was reported last.
    reported: Option<NodePtr>,
}

impl Walk {
    /// A walk through the tree `id` that has not begun.
    pub(crate) fn new(id: TreeId) -> Self {
        Self {
            id,
            top: None,
            path: KVec::new(),
            reads: 0,
            reported: None,
        }
    }

    /// Turns to the tree `id`; nothing of another tree is kept.
    pub(crate) fn enter(&mut self, id: TreeId) {
        if self.id != id {
            self.id = id;
            self.forget();
        }
    }

    /// Drops the path, so that the next step reads it again.
    pub(crate) fn forget(&mut self) {
        self.top = None;
        self.path.clear();
    }

    /// Whether blocks were read since the last call of [`Walk::take_reads`].
    pub(crate) fn has_read(&self) -> bool {
        self.reads > 0
    }

    /// The number of blocks read since the last call.
    pub(crate) fn take_reads(&mut self) -> u64 {
        core::mem::take(&mut self.reads)
    }

    /// The first item of the leaf with a key of at least `key`.
    pub(crate) fn item(&self, key: u64) -> Option<(u64, &[u8])> {
        let (leaf, _) = self.path.last()?;
        let i = leaf.lower_bound(key);
        (leaf.level() == 0 && i < leaf.len()).then(|| (leaf.key(i), leaf.value(i)))
    }

    /// Goes to the leaf that has `key`, or would have it. `key` must not be lower than in the last
    /// step in the same tree. `look` looks at the tree as it is now, by [`Tree::look`] or
    /// [`Look::root`]. Damaged nodes are passed to `report`, each once. ENOMEM, or an error of
    /// `look`.
    pub(crate) fn step(
        &mut self,
        node_store: &NodeStore,
        key: u64,
        look: &mut dyn FnMut() -> Result<Look>,
        report: &mut dyn FnMut(&Unsound<'_>),
    ) -> Result<Reached> {
        let mut suspect = None;
        for _ in 0..LOOKS {
            match look()? {
                Look::Empty => {
                    self.forget();
                    return Ok(Reached::Empty);
                }
                Look::Memory(leaf, range) => {
                    self.forget();
                    self.path.push((leaf, range), GFP_KERNEL)?;
                    return Ok(Reached::Leaf(range.hi));
                }
                Look::Disk(ptr, range) if self.top != Some((ptr, range)) => {
                    self.forget();
                    self.top = Some((ptr, range));
                }
                Look::Disk(..) => {}
            }
            while self.path.last().is_some_and(|(_, r)| r.hi < key) {
                self.path.pop();
            }
            if let Some(reached) = self.descend(node_store, key, &mut suspect, report)? {
                return Ok(reached);
            }
        }
        Ok(Reached::Moving)
    }

    /// Goes down from the end of the path. `None`: there is a new suspect.
    fn descend(
        &mut self,
        node_store: &NodeStore,
        key: u64,
        suspect: &mut Option<Suspect>,
        report: &mut dyn FnMut(&Unsound<'_>),
    ) -> Result<Option<Reached>> {
        loop {
            let (ptr, range) = match (self.path.last(), self.top) {
                (Some((node, range)), _) if node.level() == 0 => {
                    return Ok(Some(Reached::Leaf(range.hi)));
                }
                (Some((node, range)), _) => {
                    let i = node.child_for(key);
                    (node.disk_link(i)?, range.child(node, i))
                }
                (None, Some(top)) => top,
                (None, None) => return Ok(Some(Reached::Moving)),
            };
            let again = suspect.take().filter(|s| s.ptr == ptr);
            let confirmed = again.is_some() || mutant::is(Mutant::ScrubOneLook);
            let examined = match again {
                Some(s) => s.examined,
                None => self.examine(node_store, key, &ptr, range)?,
            };
            if examined.is_bad() && !confirmed {
                *suspect = Some(Suspect { ptr, examined });
                return Ok(None);
            }
            // A node that is read once more, because the tree has changed above it, was reported
            // when the walk came to its first key.
            let lost = examined.node.is_none();
            let first = lost || key <= range.lo;
            if examined.is_bad() && first && self.reported != Some(ptr) {
                self.reported = Some(ptr);
                report(&Unsound {
                    ptr,
                    id: self.id,
                    first_key: range.lo,
                    last_key: range.hi,
                    examined: &examined,
                    lost,
                });
            }
            let Some(node) = examined.node else {
                return Ok(Some(Reached::Lost(range.hi)));
            };
            self.path.push((node, range), GFP_KERNEL)?;
        }
    }

    /// Reads a node, and compares it with what its parent says.
    fn examine(
        &mut self,
        node_store: &NodeStore,
        key: u64,
        ptr: &NodePtr,
        range: KeyRange,
    ) -> Result<Examined> {
        let reader = Reader::background(&|| false);
        let mut examined = node_store.examine(ptr, &self.id, &reader)?;
        self.reads += reader.blocks();
        let Some(node) = &examined.node else {
            return Ok(examined);
        };
        let parent = self.path.last().map(|(p, _)| p);
        let other_sums = parent.is_some_and(|p| {
            let sums = node.sums();
            sums.is_some() && p.sums_under(p.child_for(key)) != sums
        });
        let wrong = match (range.holds(node), other_sums) {
            (false, _) => "keys outside of the range that its parent gives",
            (_, true) => "other sums than its parent gives",
            _ => return Ok(examined),
        };
        examined.node = None;
        examined.faults = examined.faults.map(|_| Some(Fault::damage(wrong)));
        if ptr.addr2 == 0 {
            examined.faults[1] = None;
        }
        Ok(examined)
    }
}
