// SPDX-License-Identifier: GPL-2.0

//! Reading trees that may be damaged, and what a repair knows while it works.
//!
//! # Model
//!
//! [`Work`] has the filesystem as it will be: the inode tree, the records and trees that change
//! ([`Pending`]), and who has each block. Blocks of the old filesystem that the new one does not need
//! are kept apart ([`Work::old`]): nothing is written to them, so the old filesystem stays whole until
//! the new superblock is there.
//!
//! A tree of which all nodes can be read stays as it is, on disk; an item that must go is taken out by
//! the engine's own copy-on-write. A tree with a node that cannot be read is put together from the
//! leaves that can (`super::search`).
//!
//! Memory: a record for each inode and each name, a run for each run of blocks with one owner, the
//! changed nodes, and for each damaged tree a pointer to each of its leaves.
//!
//! Tests: `tools/fuzz/tests/repair`.

use super::found::{Search, POSTPONED};
use super::peek::node_at;
use crate::{Claim, Claims};
use kernel::prelude::{EIO, ENOMEM};
use ordofs_engine::engine::btree::{
    BadNode, NodeInfo, NodeStore, Tree, TreeId, TreeKind, WalkItem,
};
use ordofs_engine::engine::format::inode::{InodeRecord, RootForm};
use ordofs_engine::engine::format::{NodePtr, Superblock};
use ordofs_engine::engine::volume::mount::INODE_TREE;
use ordofs_engine::os::Block;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// How often a tree is put together at most.
const TURNS: usize = 4;

/// An inode, as far as names and links need it.
pub(super) struct Known {
    pub ino: u64,
    pub mode: u32,
    pub nlink: u32,
    pub truncated: bool,
    pub parent: u64,
    /// The names that lead to it, and the directory of one of them.
    pub names: u64,
    pub named_in: u64,
    /// Of a directory: its entries, and its subdirectories.
    pub entries: u64,
    pub subdirs: u64,
}

/// A directory entry.
pub(super) struct Edge {
    pub dir: u64,
    pub child: u64,
    pub kind: u8,
    pub cookie: u64,
    /// It stays.
    pub keep: bool,
}

/// An inode that changes.
#[derive(Default)]
pub(super) struct Pending {
    /// Its record: the old one, or one that was put in order.
    pub record: Vec<u8>,
    /// The record goes.
    pub gone: bool,
    pub extents: Option<Tree>,
    pub dir: Option<Tree>,
    pub xattr: Option<Tree>,
    pub blocks: Option<u64>,
    pub size: Option<u64>,
    pub nlink: Option<u32>,
    pub parent: Option<u64>,
}

/// A repair in progress. See the module's header.
pub(super) struct Work<'a> {
    pub st: &'a NodeStore,
    pub sb: Superblock,
    /// The owners of the blocks of the new filesystem.
    pub claims: Claims,
    /// Blocks that only the old one has.
    pub old: Claims,
    /// Blocks that records of the log name, and those of an older state: free, and not to be written.
    pub avoid: Claims,
    pub said: Vec<String>,
    pub inodes: Vec<Known>,
    pub edges: Vec<Edge>,
    pub pending: BTreeMap<u64, Pending>,
    pub itree: Tree,
    pub orphans: BTreeSet<u64>,
    /// Nodes could not be read, so the owners of some blocks are not known.
    pub lost: bool,
    /// Blocks with two owners, and whether one of the owners is no data.
    pub contested: BTreeMap<u64, bool>,
    /// What has been claimed for the present inode.
    pub claimed: Vec<(u64, u64, Claim)>,
    /// Blocks that the device could not read, and that would have been of use.
    pub unread: Vec<u64>,
    /// The device could not read a node, and can by now.
    pub retry: bool,
    /// Blocks that are of files, although pointers to nodes name them.
    pub foreign: BTreeSet<u64>,
    /// The orphan tree has to be written anew.
    pub orphans_odd: bool,
    /// Nodes of trees that have lost some.
    pub search: Search,
}

/// The tree with this root. `None` if it is inline and damaged.
pub(super) fn open(id: TreeId, root: &RootForm<'_>) -> Option<Tree> {
    match root {
        RootForm::Empty => Some(Tree::empty(id)),
        RootForm::Inline(items) => Tree::from_inline(id, items).ok(),
        RootForm::Ptr(p) => Some(Tree::from_ptr(id, *p)),
    }
}

/// A tree after a scan.
pub(super) struct Scanned<B> {
    /// What the function has gathered.
    pub found: B,
    pub tree: Tree,
    /// It is not the tree that the record has.
    pub changed: bool,
}

impl<'a> Work<'a> {
    /// Nothing is known yet, but what is given.
    pub fn new(st: &'a NodeStore, sb: &Superblock, avoid: Claims, foreign: BTreeSet<u64>) -> Self {
        Self {
            st,
            sb: sb.clone(),
            claims: Claims::default(),
            old: Claims::default(),
            avoid,
            said: Vec::new(),
            inodes: Vec::new(),
            edges: Vec::new(),
            pending: BTreeMap::new(),
            itree: Tree::empty(INODE_TREE),
            orphans: BTreeSet::new(),
            lost: false,
            contested: BTreeMap::new(),
            claimed: Vec::new(),
            unread: Vec::new(),
            retry: false,
            foreign,
            orphans_odd: false,
            search: Search::default(),
        }
    }
}

impl Work<'_> {
    /// Notes a sentence for the report.
    pub fn say(&mut self, place: impl std::fmt::Display, what: impl std::fmt::Display) {
        self.said.push(format!("{place}: {what}"));
    }

    /// Reads a whole tree and claims its nodes. `item` gathers what it needs from each item; if the
    /// tree has to be put together, it starts over with an empty `B`.
    pub fn scan<B: Default>(
        &mut self,
        place: &str,
        mut tree: Tree,
        item: &mut dyn FnMut(&mut B, u64, &[u8]),
    ) -> Result<Scanned<B>, String> {
        // What is put together may still have leaves that do not fit each other; each turn leaves out
        // those that do not.
        for turn in 0..TURNS {
            let changed = turn > 0;
            let (mut found, mut nodes, mut bad) = (B::default(), Vec::new(), Vec::new());
            let walked = tree.walk_tolerant(self.st, &mut |w| {
                match w {
                    WalkItem::Node(n) => nodes.push(n),
                    WalkItem::Item(key, value) => item(&mut found, key, value),
                    WalkItem::Bad(b) if b.error == ENOMEM => return Err(ENOMEM),
                    WalkItem::Bad(b) => bad.push(b),
                }
                Ok(())
            });
            walked.map_err(|e| format!("{place}: cannot be walked: {e:?}"))?;
            if bad.is_empty() && !nodes.iter().any(|n| self.is_odd(n)) {
                for n in nodes.iter().filter(|n| n.addr != 0) {
                    self.claim(n.addr, 1, Claim::Node(tree.id()));
                    if n.addr2 != 0 {
                        self.claim(n.addr2, 1, Claim::Node(tree.id()));
                    }
                }
                return Ok(Scanned {
                    found,
                    tree,
                    changed,
                });
            }
            let id = tree.id();
            let interior = |b: &BadNode| b.ptr.is_none_or(|p| p.level > 0);
            // What the orphan tree must have is known without it.
            let of_use = id.kind != TreeKind::Orphan && bad.iter().any(interior);
            if of_use && !self.searched(id) {
                if id.kind != TreeKind::Inode {
                    return Err(POSTPONED.into());
                }
                self.look()?;
            }
            tree = self.mend(place, id, &nodes, &bad)?;
        }
        Err(format!("{place}: its leaves cannot be read again"))
    }

    /// Puts a tree together from the leaves that could be read and those that a search finds.
    fn mend(
        &mut self,
        place: &str,
        id: TreeId,
        nodes: &[NodeInfo],
        bad: &[BadNode],
    ) -> Result<Tree, String> {
        self.lost = true;
        let mut leaves: Vec<(u64, NodePtr)> = Vec::new();
        for n in nodes.iter().filter(|n| n.addr != 0) {
            let foreign = self.foreign.contains(&n.addr);
            if n.level == 0 && foreign {
                self.say(
                    place,
                    format_args!(
                        "node at block {} of the {} tree: a file has that block, keys {:#x}..={:#x} are lost",
                        n.addr, id.kind.name(), n.first_key, n.last_key
                    ),
                );
                continue;
            }
            if n.level == 0 && n.generation <= self.sb.generation {
                let mut ptr = n.ptr();
                if self.is_odd(n) {
                    ptr.addr2 = 0;
                }
                leaves.push((n.first_key, ptr));
                continue;
            }
            self.retire(id, n.addr, n.addr2);
            if n.level == 0 {
                self.say(
                    place,
                    format_args!(
                        "node at block {} of the {} tree is newer than the superblock, keys {:#x}..={:#x} are lost",
                        n.addr, id.kind.name(), n.first_key, n.last_key
                    ),
                );
            }
        }
        for b in bad {
            self.note_unread(b);
            let found = self.found_for(id, b);
            let at = b.ptr.map_or(0, |p| p.addr);
            let (first, last) = (b.first_key, b.last_key);
            let what = match found.len() {
                0 => "the items under it are lost".to_owned(),
                n => format!("{n} leaves of it were found"),
            };
            self.say(
                place,
                format_args!(
                    "node at block {at} of the {} tree cannot be read ({:?}), keys {first:#x}..={last:#x}: {what}",
                    id.kind.name(), b.error
                ),
            );
            leaves.extend(found);
        }
        leaves.sort_by_key(|(key, _)| *key);
        Tree::from_leaves(id, &leaves).map_err(|e| format!("{place}: {e:?}"))
    }

    /// Whether a node that can be read cannot be part of a tree: it is newer than the superblock, or a
    /// copy of it is where a file or another node is.
    fn is_odd(&self, n: &NodeInfo) -> bool {
        let foreign = |at| self.foreign.contains(at);
        n.generation > self.sb.generation
            || foreign(&n.addr)
            || n.addr2 != 0 && (foreign(&n.addr2) || self.is_of_another(n))
    }

    /// Whether the block of the second copy has another node.
    fn is_of_another(&self, n: &NodeInfo) -> bool {
        let there = node_at(self.st.device(), self.sb.node_id, n.addr2);
        there.is_some_and(|h| h.addr != n.addr)
    }

    /// Notes which copies of a bad node the device cannot read.
    fn note_unread(&mut self, bad: &BadNode) {
        let Ok(mut b) = Block::zeroed() else { return };
        let places = bad.ptr.iter().flat_map(|p| p.places().each());
        let failing = places.filter(|at| self.st.device().read(*at, &mut b).is_err());
        let failing: Vec<u64> = failing.collect();
        self.retry |= bad.error == EIO && failing.is_empty();
        self.unread.extend(failing);
    }

    /// A node that the new filesystem does not have.
    pub fn retire(&mut self, id: TreeId, addr: u64, addr2: u64) {
        for a in [addr, addr2] {
            if a != 0 && a < self.sb.blocks {
                // Damage may have given the block to a file or to another tree as well.
                if self.claims.owner(a) == Some(Claim::Node(id)) {
                    self.claims.remove(a, 1);
                }
                self.old.add(a, 1, Claim::Deferred);
            }
        }
    }

    /// Retires the nodes that changes of a tree have replaced.
    pub fn retire_dead(&mut self, tree: &mut Tree) {
        for addr in tree.take_dead().iter().flat_map(|d| d.addrs()) {
            self.retire(tree.id(), addr, 0);
        }
    }

    /// Retires all nodes of a tree. Those that cannot be read stay unknown.
    pub fn retire_tree(&mut self, tree: &Tree) {
        let mut nodes = Vec::new();
        let walked = tree.walk_tolerant(self.st, &mut |w| {
            match w {
                WalkItem::Node(n) => nodes.push((n.addr, n.addr2)),
                WalkItem::Bad(_) => self.lost = true,
                WalkItem::Item(..) => {}
            }
            Ok(())
        });
        self.lost |= walked.is_err();
        for (addr, addr2) in nodes {
            self.retire(tree.id(), addr, addr2);
        }
    }

    /// Claims blocks, and notes those that have an owner already.
    pub fn claim(&mut self, start: u64, len: u64, owner: Claim) {
        let data = |c: &Claim| matches!(c, Claim::Data(_));
        for (at, n, other) in self.claims.within(start, len) {
            let solid = !data(&owner) || !data(&other);
            for block in at..at + n {
                *self.contested.entry(block).or_insert(solid) |= solid;
            }
        }
        self.claims.add(start, len, owner);
        self.claimed.push((start, len, owner));
    }

    /// Takes back what was claimed and noted since [`Self::claimed`] was empty and there were so many
    /// sentences and names.
    pub fn take_back(&mut self, said: usize, edges: usize) {
        self.said.truncate(said);
        self.edges.truncate(edges);
        for (start, len, owner) in std::mem::take(&mut self.claimed) {
            for (at, n, has) in self.claims.within(start, len) {
                if has == owner {
                    self.claims.remove(at, n);
                }
            }
        }
    }

    /// The change of an inode, which begins with the record that it has.
    pub fn change(&mut self, ino: u64) -> Result<&mut Pending, String> {
        let vacant = match self.pending.entry(ino) {
            Entry::Occupied(there) => return Ok(there.into_mut()),
            Entry::Vacant(vacant) => vacant,
        };
        let record = self
            .itree
            .get_with(self.st, ino, <[u8]>::to_vec)
            .map_err(|e| format!("inode {ino}: {e:?}"))?
            .ok_or_else(|| format!("inode {ino}: it has no record"))?;
        Ok(vacant.insert(Pending {
            record,
            ..Pending::default()
        }))
    }

    /// The directory tree of an inode, to be changed.
    pub fn dir_tree(&mut self, ino: u64) -> Result<&mut Tree, String> {
        let p = self.change(ino)?;
        if p.dir.is_none() {
            let rec = InodeRecord::parse(&p.record).map_err(|e| format!("inode {ino}: {e}"))?;
            let id = TreeId::new(TreeKind::Dir, ino);
            let tree = open(id, &rec.dir).ok_or_else(|| format!("inode {ino}: no directory"))?;
            p.dir = Some(tree);
        }
        p.dir
            .as_mut()
            .ok_or_else(|| format!("inode {ino}: no directory"))
    }

    /// An inode by its number.
    pub fn known(&mut self, ino: u64) -> Option<&mut Known> {
        let i = self.inodes.binary_search_by_key(&ino, |k| k.ino).ok()?;
        self.inodes.get_mut(i)
    }
}
