// SPDX-License-Identifier: GPL-2.0

//! What the tests of the B+tree share: a tree on a device in memory with a model of its content, and an
//! allocator that reuses freed blocks as soon as it may.
#![allow(dead_code)]

use kernel::prelude::*;
use ordofs_engine::engine::btree::NodeStore;
use ordofs_engine::engine::btree::{
    NodeSink, Places, Snapshot, Tree, TreeId, TreeKind, ValueBuf, WalkItem,
};
use ordofs_engine::engine::format::NodePtr;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Block, Shared};
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

pub const BLOCKS: u64 = 1 << 20;
pub const NODE_ID: u64 = 0x1122_3344_5566_7788;
pub const ID: TreeId = TreeId::new(TreeKind::Extent, 77);

pub fn store(disk: &MemDisk, nodes: usize) -> NodeStore {
    NodeStore::new(Shared::new(disk.device()).unwrap(), NODE_ID, nodes).unwrap()
}

/// Blocks in use, with the lowest free ones handed out first: freed blocks are reused soon.
#[derive(Clone, Default)]
pub struct Space {
    pub used: BTreeSet<u64>,
    pub free: Vec<u64>,
    pub next: u64,
}

impl Space {
    pub fn alloc(&mut self) -> u64 {
        let a = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            1000 + self.next
        });
        assert!(self.used.insert(a));
        a
    }
}

pub struct Sink<'a> {
    pub disk: &'a MemDisk,
    pub space: &'a mut Space,
    pub generation: u64,
    /// Writes after which they fail.
    pub writes_left: u64,
}

impl NodeSink for Sink<'_> {
    fn node_id(&self) -> u64 {
        NODE_ID
    }
    fn generation(&self) -> u64 {
        self.generation
    }
    fn alloc(&mut self) -> Result<Places> {
        Ok(Places::one(self.space.alloc()))
    }
    fn write(&mut self, places: Places, image: Block) -> Result {
        if self.writes_left == 0 {
            return Err(ENOMEM);
        }
        self.writes_left -= 1;
        self.disk.device().write(&[(places.first, &image)])
    }
}

/// A tree, its device, and what it should contain.
pub struct World {
    pub id: TreeId,
    pub disk: MemDisk,
    pub st: NodeStore,
    pub tree: Tree,
    pub model: BTreeMap<u64, Vec<u8>>,
    pub space: Space,
    pub generation: u64,
    /// The last commit: root and content.
    pub durable: (Option<NodePtr>, BTreeMap<u64, Vec<u8>>),
}

pub fn content(tree: &Tree, st: &NodeStore) -> (BTreeMap<u64, Vec<u8>>, BTreeSet<u64>) {
    let (mut items, mut nodes) = (BTreeMap::new(), BTreeSet::new());
    let mut last = None;
    tree.walk(st, &mut |w| {
        match w {
            WalkItem::Node(n) => {
                assert!(n.addr == 0 || nodes.insert(n.addr), "node visited twice");
                assert!(n.entries > 0);
            }
            WalkItem::Item(k, v) => {
                assert!(last < Some(k), "order");
                last = Some(k);
                items.insert(k, v.to_vec());
            }
            WalkItem::Bad(_) => panic!("bad node"),
        }
        Ok(())
    })
    .unwrap();
    (items, nodes)
}

impl World {
    pub fn new(cache: usize) -> Self {
        Self::of(ID, cache)
    }

    pub fn of(id: TreeId, cache: usize) -> Self {
        let disk = MemDisk::new(BLOCKS);
        Self {
            id,
            st: store(&disk, cache),
            disk,
            tree: Tree::empty(id),
            model: BTreeMap::new(),
            space: Space::default(),
            generation: 0,
            durable: (None, BTreeMap::new()),
        }
    }

    pub fn insert(&mut self, key: u64, value: &[u8]) {
        let before = self.tree.dirty_nodes();
        self.tree.insert(&self.st, key, value).unwrap();
        assert!(self.tree.dirty_nodes() <= before + Tree::INSERT_COST);
        self.model.insert(key, value.to_vec());
    }

    pub fn remove(&mut self, key: u64) {
        let before = self.tree.dirty_nodes();
        let had = self.tree.remove(&self.st, key).unwrap();
        assert!(self.tree.dirty_nodes() <= before + Tree::REMOVE_COST);
        assert_eq!(had, self.model.remove(&key).is_some());
    }

    /// Removes the leaf that begins with the first item from `key` on, unless `stop` is one of its
    /// items. Returns whether it did.
    pub fn remove_leaf(&mut self, key: u64, stop: Option<u64>) -> bool {
        let Some((first, _)) = self.model.range(key..).next() else {
            assert!(!self
                .tree
                .remove_leaf(&self.st, key, |_, _| Ok(true))
                .unwrap());
            return false;
        };
        let first = *first;
        let (before, mut gone) = (self.tree.dirty_nodes(), Vec::new());
        let removed = self.tree.remove_leaf(&self.st, first, |k, v| {
            gone.push((k, v.to_vec()));
            Ok(stop != Some(k))
        });
        let removed = removed.unwrap();
        assert!(self.tree.dirty_nodes() <= before + Tree::REMOVE_COST);
        assert!(!removed || gone.iter().all(|(k, _)| stop != Some(*k)));
        let want = self.model.range(first..).take(gone.len());
        assert!(want.eq(gone.iter().map(|(k, v)| (k, v))));
        if removed {
            assert!(gone.iter().all(|(k, _)| self.model.remove(k).is_some()));
        }
        removed
    }

    pub fn look(&self, key: u64) {
        let mut v = ValueBuf::new();
        let found = self.tree.get(&self.st, key, &mut v).unwrap();
        assert_eq!(found.then(|| v.to_vec()), self.model.get(&key).cloned());
        let ge = self.tree.find_ge(&self.st, key, &mut v).unwrap();
        let want = self.model.range(key..).next();
        assert_eq!(
            ge.map(|k| (k, v.to_vec())),
            want.map(|(k, v)| (*k, v.clone()))
        );
        let le = self.tree.find_le(&self.st, key, &mut v).unwrap();
        let want = self.model.range(..=key).next_back();
        assert_eq!(
            le.map(|k| (k, v.to_vec())),
            want.map(|(k, v)| (*k, v.clone()))
        );
    }

    /// All that does not need the disk.
    pub fn check(&self) {
        let (items, _) = content(&self.tree, &self.st);
        assert!(items == self.model);
        assert_eq!(self.tree.is_empty(), self.model.is_empty());
        assert_eq!(self.tree.dirty_nodes(), self.tree.unassigned_nodes());
    }

    /// Ends a commit of `snap`: exactly the blocks in use are referenced.
    pub fn finish(&mut self, snap: Snapshot, model: BTreeMap<u64, Vec<u8>>) {
        self.generation += 1;
        let dead: Vec<u64> = snap.dead().collect();
        let mut sink = Sink {
            disk: &self.disk,
            space: &mut self.space,
            generation: self.generation,
            writes_left: u64::MAX,
        };
        let root = snap.write_out(&mut sink).unwrap();
        for a in &dead {
            assert!(self.space.used.remove(a), "freed twice: {a}");
        }
        let fresh_store = store(&self.disk, 64);
        let again = root.map_or(Tree::empty(self.id), |p| Tree::from_ptr(self.id, p));
        let (items, nodes) = content(&again, &fresh_store);
        assert!(
            items == model,
            "what is on disk is what was there at the snapshot"
        );
        assert_eq!(
            nodes, self.space.used,
            "exactly the blocks in use are referenced"
        );
        drop(snap);
        self.durable = (root, model);
        self.tree.demote(&self.st).unwrap();
        // R7: reusable only now.
        for a in dead {
            self.st.forget(a);
            self.space.free.push(a);
        }
    }

    pub fn commit(&mut self) {
        let snap = self.tree.snapshot().unwrap();
        assert_eq!(self.tree.dirty_nodes(), 0);
        self.finish(snap, self.model.clone());
        assert!(self.tree.root_ptr() == self.durable.0);
    }

    pub fn reload(&mut self) {
        self.st = store(&self.disk, 256);
        self.tree = self
            .durable
            .0
            .map_or(Tree::empty(self.id), |p| Tree::from_ptr(self.id, p));
        self.model = self.durable.1.clone();
    }
}

/// A value that its key and length determine.
pub fn value(key: u64, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (key as usize).wrapping_mul(31).wrapping_add(i) as u8)
        .collect()
}
