// SPDX-License-Identifier: GPL-2.0

//! The B+tree against a model, through commits, reloads, failing allocations and damage.

use kernel::fault;
use kernel::prelude::*;
use ordofs_engine::engine::btree::{
    NodeSink, Snapshot, Tree, TreeId, TreeKind, ValueBuf, WalkItem,
};
use ordofs_engine::engine::format::NodePtr;
use ordofs_engine::engine::node_store::NodeStore;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Block, Shared};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

const BLOCKS: u64 = 1 << 20;
const FSID: u64 = 0x1122_3344_5566_7788;
const ID: TreeId = TreeId::new(TreeKind::Extent, 77);

fn store(disk: &MemDisk, nodes: usize) -> NodeStore {
    NodeStore::new(Shared::new(disk.device()).unwrap(), FSID, nodes).unwrap()
}

/// A pseudo-random sequence (SplitMix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Blocks in use, with the lowest free ones handed out first: freed blocks are reused soon.
#[derive(Clone, Default)]
struct Space {
    used: BTreeSet<u64>,
    free: Vec<u64>,
    next: u64,
}

impl Space {
    fn alloc(&mut self) -> u64 {
        let a = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            1000 + self.next
        });
        assert!(self.used.insert(a));
        a
    }
}

struct Sink<'a> {
    disk: &'a MemDisk,
    space: &'a mut Space,
    generation: u64,
    /// Writes after which they fail.
    writes_left: u64,
}

impl NodeSink for Sink<'_> {
    fn fsid(&self) -> u64 {
        FSID
    }
    fn generation(&self) -> u64 {
        self.generation
    }
    fn alloc(&mut self) -> Result<u64> {
        Ok(self.space.alloc())
    }
    fn write(&mut self, addr: u64, image: Block) -> Result {
        if self.writes_left == 0 {
            return Err(ENOMEM);
        }
        self.writes_left -= 1;
        self.disk.device().write(&[(addr, &image)])
    }
}

/// A tree, its device, and what it should contain.
struct World {
    disk: MemDisk,
    st: NodeStore,
    tree: Tree,
    model: BTreeMap<u64, Vec<u8>>,
    space: Space,
    generation: u64,
    /// The last commit: root and content.
    durable: (Option<NodePtr>, BTreeMap<u64, Vec<u8>>),
}

fn content(tree: &Tree, st: &NodeStore) -> (BTreeMap<u64, Vec<u8>>, BTreeSet<u64>) {
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
    fn new(cache: usize) -> Self {
        let disk = MemDisk::new(BLOCKS);
        Self {
            st: store(&disk, cache),
            disk,
            tree: Tree::empty(ID),
            model: BTreeMap::new(),
            space: Space::default(),
            generation: 0,
            durable: (None, BTreeMap::new()),
        }
    }

    fn insert(&mut self, key: u64, value: &[u8]) {
        let before = self.tree.dirty_nodes();
        self.tree.insert(&self.st, key, value).unwrap();
        assert!(self.tree.dirty_nodes() <= before + Tree::INSERT_COST);
        self.model.insert(key, value.to_vec());
    }

    fn remove(&mut self, key: u64) {
        let before = self.tree.dirty_nodes();
        let had = self.tree.remove(&self.st, key).unwrap();
        assert!(self.tree.dirty_nodes() <= before + Tree::REMOVE_COST);
        assert_eq!(had, self.model.remove(&key).is_some());
    }

    fn look(&self, key: u64) {
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
    fn check(&self) {
        let (items, _) = content(&self.tree, &self.st);
        assert!(items == self.model);
        assert_eq!(self.tree.is_empty(), self.model.is_empty());
        assert_eq!(self.tree.dirty_nodes(), self.tree.unassigned_nodes());
    }

    /// Ends a commit of `snap`: exactly the blocks in use are referenced.
    fn finish(&mut self, snap: Snapshot, model: BTreeMap<u64, Vec<u8>>) {
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
        let again = root.map_or(Tree::empty(ID), |p| Tree::from_ptr(ID, p));
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

    fn commit(&mut self) {
        let snap = self.tree.snapshot().unwrap();
        assert_eq!(self.tree.dirty_nodes(), 0);
        self.finish(snap, self.model.clone());
        assert!(self.tree.root_ptr() == self.durable.0);
    }

    fn reload(&mut self) {
        self.st = store(&self.disk, 256);
        self.tree = self
            .durable
            .0
            .map_or(Tree::empty(ID), |p| Tree::from_ptr(ID, p));
        self.model = self.durable.1.clone();
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, usize),
    Remove(u64),
    Look(u64),
    Commit,
    /// A snapshot, then these changes, then its write-out.
    CommitDuring(Vec<Op>),
    /// A commit that fails after so many writes; changes; the next commit succeeds.
    FailedCommit(u64, Vec<Op>),
    Reload,
    Shrink(u64),
    /// The n-th allocation fails in the next insert or remove.
    Fault(u64, bool, u64, usize),
    Clear(u64, u64),
}

fn value(key: u64, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (key as usize).wrapping_mul(31).wrapping_add(i) as u8)
        .collect()
}

fn apply(w: &mut World, op: &Op) {
    match op {
        Op::Insert(k, len) => w.insert(*k, &value(*k, *len)),
        Op::Remove(k) => w.remove(*k),
        Op::Look(k) => w.look(*k),
        Op::Commit => w.commit(),
        Op::CommitDuring(ops) => {
            let snap = w.tree.snapshot().unwrap();
            let model = w.model.clone();
            for o in ops {
                apply(w, o);
            }
            w.finish(snap, model);
        }
        Op::FailedCommit(n, ops) => {
            let snap = w.tree.snapshot().unwrap();
            let mut sink = Sink {
                disk: &w.disk,
                space: &mut w.space,
                generation: w.generation + 1,
                writes_left: *n,
            };
            if snap.write_out(&mut sink).is_ok() {
                return w.finish(snap, w.model.clone());
            }
            // Some nodes are written now, and the tree has the only reference to them.
            w.tree.restore_dead(snap);
            ops.iter().for_each(|o| apply(w, o));
            w.commit();
        }
        Op::Reload => {
            if w.durable.1.len() == w.model.len() || w.generation % 3 == 0 {
                w.reload();
                let (_, nodes) = content(&w.tree, &w.st);
                w.space.used = nodes;
            }
        }
        Op::Shrink(n) => {
            w.st.shrink(*n);
        }
        Op::Fault(nth, insert, key, len) => {
            let fail = fault::nth(*nth, fault::Mode::Once);
            let v = value(key ^ 1, *len);
            let r = match insert {
                true => w.tree.insert(&w.st, *key, &v).map(|()| true),
                false => w.tree.remove(&w.st, *key),
            };
            let fired = fail.fired();
            drop(fail);
            match r {
                Ok(_) if *insert => {
                    w.model.insert(*key, v);
                }
                Ok(_) => {
                    w.model.remove(key);
                }
                Err(e) => assert!(fired && e == ENOMEM),
            }
            w.check();
        }
        Op::Clear(from, n) => {
            let mut v = ValueBuf::new();
            for _ in 0..*n {
                let Some(k) = w.tree.find_ge(&w.st, *from, &mut v).unwrap() else {
                    break;
                };
                w.remove(k);
            }
        }
    }
}

fn key() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0u64..600,
        2 => (0u64..50).prop_map(|k| k << 40),
        1 => Just(u64::MAX),
        1 => any::<u64>(),
    ]
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1usize..40, 2 => 1usize..=1280, 1 => Just(1280usize), 1 => Just(1usize)]
}

fn simple_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (key(), len()).prop_map(|(k, l)| Op::Insert(k, l)),
        4 => key().prop_map(Op::Remove),
        2 => key().prop_map(Op::Look),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(simple_op(), 0..40)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        80 => simple_op(),
        3 => Just(Op::Commit),
        3 => changes().prop_map(Op::CommitDuring),
        2 => (0u64..20, changes()).prop_map(|(n, o)| Op::FailedCommit(n, o)),
        1 => Just(Op::Reload),
        1 => (0u64..200).prop_map(Op::Shrink),
        6 => (0u64..30, any::<bool>(), key(), len()).prop_map(|(n, i, k, l)| Op::Fault(n, i, k, l)),
        2 => (key(), 0u64..150).prop_map(|(k, n)| Op::Clear(k, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_map(ops in prop::collection::vec(op(), 1..800)) {
        let mut w = World::new(256);
        for o in &ops {
            apply(&mut w, o);
        }
        w.check();
        w.commit();
        w.reload();
        w.check();
    }
}

#[test]
fn long_random_run() {
    let mut rng = Rng(1);
    let mut w = World::new(2048);
    for n in 0..300_000u64 {
        // Phases that grow and phases that shrink.
        let grow = (n / 50_000) % 2 == 0;
        let k = rng.below(60_000);
        if rng.below(10) < if grow { 7 } else { 2 } {
            let len = match rng.below(20) {
                0 => 1280,
                1..=4 => 200 + rng.below(700) as usize,
                _ => 1 + rng.below(60) as usize,
            };
            w.insert(k, &value(k, len));
        } else {
            w.remove(k);
        }
        if n % 64 == 0 {
            w.look(rng.below(60_000));
        }
        if n % 4096 == 0 {
            w.check();
            let snap = w.tree.snapshot().unwrap();
            let model = w.model.clone();
            for _ in 0..500 {
                let k = rng.below(60_000);
                match rng.below(2) {
                    0 => w.insert(k, &value(k, 100)),
                    _ => w.remove(k),
                }
            }
            w.finish(snap, model);
        }
        if n % 30_000 == 29_999 {
            w.commit();
            w.reload();
        }
    }
    w.check();
    let keys: Vec<u64> = w.model.keys().copied().collect();
    for k in keys {
        w.remove(k);
    }
    assert!(w.tree.is_empty());
    w.commit();
    assert!(w.space.used.is_empty(), "an empty tree has no blocks");
}

#[test]
fn ascending_keys_fill_the_nodes() {
    let mut w = World::new(4096);
    let n = 50_000u64;
    for k in 0..n {
        w.insert(k, &value(k, 24));
    }
    w.commit();
    let (_, nodes) = content(&w.tree, &w.st);
    let full = n.div_ceil(4032 / (12 + 24));
    assert!(
        (nodes.len() as u64) < full + full / 50 + 3,
        "{} nodes for {full} leaves",
        nodes.len()
    );
    // Removing from the front, as truncation from the back, gives the blocks back.
    for k in 0..n - 10 {
        w.remove(k);
    }
    w.commit();
    assert_eq!(w.space.used.len(), 1);
}

#[test]
fn sparse_trees_shrink() {
    let mut w = World::new(4096);
    for k in 0..40_000u64 {
        w.insert(k * 3, &value(k, 50));
    }
    let mut rng = Rng(5);
    while w.model.len() > 4_000 {
        let k = rng.below(40_000) * 3;
        w.remove(k);
    }
    w.check();
    w.commit();
    // 4000 items of 62 bytes are 62 full leaves; a third full is the promise.
    assert!(
        w.space.used.len() < 62 * 3 + 10,
        "{} nodes",
        w.space.used.len()
    );
}

#[test]
fn snapshots_stay_as_they_were() {
    let mut w = World::new(1024);
    let mut rng = Rng(9);
    for k in 0..3_000 {
        w.insert(k, &value(k, 40));
    }
    w.commit();
    for round in 0..20u64 {
        for _ in 0..200 {
            let k = rng.below(4_000);
            w.insert(k, &value(k ^ round, 30));
        }
        let snap = w.tree.snapshot().unwrap();
        let model = w.model.clone();
        for _ in 0..1_000 {
            let k = rng.below(4_000);
            match rng.below(3) {
                0 => w.insert(k, &value(k ^ round, 700)),
                _ => w.remove(k),
            }
        }
        // finish() compares what is written with the model of the snapshot.
        w.finish(snap, model);
        w.check();
    }
}

#[test]
fn allocation_trees_assign_before_they_write() {
    let mut w = World::new(64);
    // The value of a key says how many addresses were given out in its range: giving one out changes
    // the tree.
    let bump = |w: &mut World, addr: u64| {
        let k = addr / 4;
        let mut v = w.model.get(&k).cloned().unwrap_or_else(|| vec![0; 1026]);
        v[0] = v[0].wrapping_add(1);
        w.insert(k, &v);
    };
    for a in 1_000..1_400 {
        bump(&mut w, a);
    }
    for round in 1..10u64 {
        bump(&mut w, round * 90);
        let mut dead = BTreeSet::new();
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds < 60, "does not settle");
            let before = w.space.used.clone();
            dead.extend(w.tree.take_dead().iter().filter_map(|d| d.addr()));
            assert_eq!(w.tree.dirty_nodes(), w.tree.unassigned_nodes());
            let mut sink = Sink {
                disk: &w.disk,
                space: &mut w.space,
                generation: w.generation + 1,
                writes_left: 0,
            };
            w.tree.assign(&mut sink).unwrap();
            let new: Vec<u64> = w.space.used.difference(&before).copied().collect();
            for &a in &new {
                bump(&mut w, a);
            }
            if new.is_empty() && w.tree.dirty_nodes() == 0 {
                break;
            }
        }
        let dead_now = w.tree.take_dead();
        dead.extend(dead_now.iter().filter_map(|d| d.addr()));
        let allocated = w.space.used.clone();
        for a in &dead {
            assert!(w.space.used.remove(a));
        }
        let snap = w.tree.snapshot().unwrap();
        let model = w.model.clone();
        w.finish(snap, model);
        assert!(
            w.space.used.is_subset(&allocated),
            "write-out allocated nothing"
        );
        w.space.free.extend(dead);
    }
}

#[test]
fn inline_images() {
    let mut w = World::new(64);
    assert!(w.tree.inline_image(320).unwrap().is_none());
    for k in 0..5 {
        w.insert(k * 7, &value(k, 30));
    }
    let image = w.tree.inline_image(320).unwrap().expect("fits");
    assert_eq!(image.len(), 2 + 5 * 40);
    assert!(w.tree.inline_image(201).unwrap().is_none());
    let mut again = Tree::from_inline(ID, &image).unwrap();
    assert_eq!(again.dirty_nodes(), 0);
    assert!(content(&again, &w.st).0 == w.model);
    again.insert(&w.st, 1, &[1; 1000]).unwrap();
    assert_eq!((again.dirty_nodes(), again.unassigned_nodes()), (1, 1));
    // Every prefix and every damage is refused or gives a tree, and never panics.
    for cut in 0..image.len() {
        assert!(Tree::from_inline(ID, &image[..cut]).is_err());
    }
    for bit in 0..image.len() * 8 {
        let mut bad = image.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(t) = Tree::from_inline(ID, &bad) {
            content(&t, &w.st);
        }
    }
    // Inlined by a commit, then it grows.
    let snap = w.tree.snapshot().unwrap();
    assert!(snap.inline_image(320).unwrap().is_some());
    drop(snap);
    assert_eq!(w.tree.dirty_nodes(), 0);
    w.tree.demote(&w.st).unwrap();
    for k in 100..400 {
        w.insert(k, &value(k, 100));
        assert_eq!(w.tree.dirty_nodes(), w.tree.unassigned_nodes());
    }
    w.commit();
}

/// Flips every bit of every node, one at a time.
#[test]
fn damage_is_found() {
    let mut w = World::new(256);
    for k in 0..60u64 {
        w.insert(k * 5, &value(k, 200));
    }
    w.commit();
    let root = w.durable.0.unwrap();
    let (_, nodes) = content(&w.tree, &w.st);
    assert!(nodes.len() > 3);
    let tree = Tree::from_ptr(ID, root);
    for &n in nodes.iter().take(2).chain([root.addr].iter()) {
        for at in 0..4096 {
            let bit = 1u8 << (at % 8);
            w.disk.corrupt(n, at, bit);
            let st = store(&w.disk, 64);
            assert_eq!(tree.walk(&st, &mut |_| Ok(())).unwrap_err(), EUCLEAN);
            let mut bad = 0;
            tree.walk_tolerant(&st, &mut |i| {
                bad += usize::from(matches!(i, WalkItem::Bad(_)));
                Ok(())
            })
            .unwrap();
            assert_eq!(bad, 1);
            w.disk.corrupt(n, at, bit);
        }
    }
    // Checksums are not trusted either: damage under a right checksum never panics.
    let mut rng = Rng(3);
    for _ in 0..20_000 {
        let disk = w.disk.fork();
        let mut b = Block::zeroed().unwrap();
        disk.device().read(root.addr, &mut b).unwrap();
        for _ in 0..=rng.below(3) {
            // Mostly where the structure is.
            let at = if rng.below(4) == 0 {
                rng.below(4096)
            } else {
                40 + rng.below(200)
            };
            b[at as usize] = rng.next() as u8;
        }
        let crc = ordofs_engine::os::crc32c(0, &b[8..]);
        b[4..8].copy_from_slice(&crc.to_le_bytes());
        disk.device().write(&[(root.addr, &b)]).unwrap();
        let st = store(&disk, 64);
        let mut t = Tree::from_ptr(ID, NodePtr { crc, ..root });
        let mut v = ValueBuf::new();
        let _ = t.walk_tolerant(&st, &mut |_| Ok(()));
        for _ in 0..8 {
            let k = rng.below(400);
            let _ = t.find_ge(&st, k, &mut v);
            let _ = t.find_le(&st, k, &mut v);
            let _ = t.insert(&st, k, &value(k, 300));
            let _ = t.remove(&st, rng.below(400));
        }
    }
}

/// A damaged leaf under a right checksum.
#[test]
fn damaged_leaves_do_no_harm() {
    let mut w = World::new(64);
    for k in 0..40u64 {
        w.insert(k * 5, &value(k, 20));
    }
    w.commit();
    let root = w.durable.0.unwrap();
    assert_eq!(root.level, 0);
    let mut rng = Rng(4);
    let mut accepted = 0;
    for _ in 0..50_000 {
        let disk = w.disk.fork();
        let mut b = Block::zeroed().unwrap();
        disk.device().read(root.addr, &mut b).unwrap();
        for _ in 0..=rng.below(3) {
            b[40 + rng.below(600) as usize] = rng.next() as u8;
        }
        let crc = ordofs_engine::os::crc32c(0, &b[8..]);
        b[4..8].copy_from_slice(&crc.to_le_bytes());
        disk.device().write(&[(root.addr, &b)]).unwrap();
        let st = store(&disk, 64);
        let mut t = Tree::from_ptr(ID, NodePtr { crc, ..root });
        if t.walk(&st, &mut |_| Ok(())).is_ok() {
            accepted += 1;
            for _ in 0..60 {
                let k = rng.below(300);
                t.insert(&st, k, &value(k, 1 + rng.below(1280) as usize))
                    .unwrap();
                t.remove(&st, rng.below(300)).unwrap();
            }
        }
    }
    assert!(accepted > 0);
}

/// A second copy is used when the first is bad.
#[test]
fn second_copies() {
    let mut w = World::new(64);
    w.insert(1, b"one");
    w.commit();
    let root = w.durable.0.unwrap();
    let mut b = Block::zeroed().unwrap();
    w.disk.device().read(root.addr, &mut b).unwrap();
    w.disk.device().write(&[(9_999, &b)]).unwrap();
    w.disk.corrupt(root.addr, 100, 1);
    let t = Tree::from_ptr(
        ID,
        NodePtr {
            addr2: 9_999,
            ..root
        },
    );
    assert!(t.contains(&store(&w.disk, 64), 1).unwrap());
    w.disk.corrupt(9_999, 3_000, 1);
    assert!(t.contains(&store(&w.disk, 64), 1).is_err());
    // Replacing it frees both.
    w.disk.corrupt(9_999, 3_000, 1);
    let mut t = Tree::from_ptr(
        ID,
        NodePtr {
            addr2: 9_999,
            ..root
        },
    );
    t.insert(&store(&w.disk, 64), 2, b"two").unwrap();
    let dead: BTreeSet<u64> = t.snapshot().unwrap().dead().collect();
    assert_eq!(dead, BTreeSet::from([root.addr, 9_999]));
}

/// A lost write leaves the node of an older generation: found although its checksum is right.
#[test]
fn lost_and_misdirected_writes() {
    let mut w = World::new(64);
    w.insert(1, b"one");
    w.commit();
    let root = w.durable.0.unwrap();
    let st = store(&w.disk, 64);
    let wrong = [
        NodePtr {
            generation: root.generation + 1,
            ..root
        },
        NodePtr {
            crc: root.crc ^ 1,
            ..root
        },
        NodePtr { level: 1, ..root },
        NodePtr {
            addr: root.addr + 1,
            ..root
        },
        NodePtr {
            addr: BLOCKS,
            ..root
        },
        NodePtr {
            addr: u64::MAX,
            ..root
        },
    ];
    for ptr in wrong {
        assert!(Tree::from_ptr(ID, ptr).contains(&st, 1).is_err());
        // The cache has the node now, and must not give it for the other pointer.
        assert!(Tree::from_ptr(ID, root).contains(&st, 1).unwrap());
        assert!(Tree::from_ptr(ID, ptr).contains(&st, 1).is_err());
    }
    for id in [
        TreeId::new(TreeKind::Extent, 78),
        TreeId::new(TreeKind::Dir, 77),
    ] {
        assert!(Tree::from_ptr(id, root).contains(&st, 1).is_err());
        // From the cache as well.
        assert!(Tree::from_ptr(ID, root).contains(&st, 1).unwrap());
        assert!(Tree::from_ptr(id, root).contains(&st, 1).is_err());
    }
}

/// Two ways to the same node are refused: nothing is visited (or freed) twice.
#[test]
fn shared_subtrees_are_refused() {
    let mut w = World::new(64);
    for k in 0..40u64 {
        w.insert(k, &value(k, 300));
    }
    w.commit();
    let root = w.durable.0.unwrap();
    assert_eq!(root.level, 1);
    let mut b = Block::zeroed().unwrap();
    w.disk.device().read(root.addr, &mut b).unwrap();
    let first: Vec<u8> = b[72..104].to_vec();
    b[112..144].copy_from_slice(&first);
    let crc = ordofs_engine::os::crc32c(0, &b[8..]);
    b[4..8].copy_from_slice(&crc.to_le_bytes());
    w.disk.device().write(&[(root.addr, &b)]).unwrap();
    let t = Tree::from_ptr(ID, NodePtr { crc, ..root });
    assert_eq!(
        t.walk(&store(&w.disk, 64), &mut |_| Ok(())).unwrap_err(),
        EUCLEAN
    );
}

#[test]
fn the_cache_is_bounded_and_shared() {
    let mut w = World::new(4096);
    for k in 0..20_000u64 {
        w.insert(k, &value(k, 100));
    }
    w.commit();
    let st = store(&w.disk, 256);
    let t = Tree::from_ptr(ID, w.durable.0.unwrap());
    std::thread::scope(|s| {
        for seed in 0..4 {
            let (st, t, model) = (&st, &t, &w.model);
            s.spawn(move || {
                let mut rng = Rng(seed);
                let mut v = ValueBuf::new();
                for n in 0..20_000 {
                    let k = rng.below(20_000);
                    assert!(t.get(st, k, &mut v).unwrap());
                    assert!(v[..] == model[&k][..]);
                    if n % 500 == 0 {
                        st.shrink(50);
                    }
                }
            });
        }
    });
    assert!(st.cached() <= 256 + 64);
    while st.shrink(1_000) > 0 {}
    assert_eq!(st.cached(), 0);
}

/// Not a test but a measurement: `cargo test --release -p ordofs-engine --test btree -- --ignored
/// --nocapture speed`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    /// Time of this thread on a processor: others may be busy.
    fn cpu() -> u64 {
        let s = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        s.split(' ').next().unwrap().parse().unwrap()
    }
    let disk = MemDisk::new(BLOCKS);
    let st = store(&disk, 1 << 16);
    let mut tree = Tree::empty(ID);
    let n = 1_000_000u64;
    let mut rng = Rng(2);
    let say = |what: &str, n: u64, t: u64| {
        let s = (cpu() - t) as f64 / 1e9;
        println!(
            "{what}: {:.0} ns each, {:.0}/s",
            s * 1e9 / n as f64,
            n as f64 / s
        );
    };
    let t = cpu();
    for k in 0..n {
        tree.insert(&st, k * 2, &[7; 40]).unwrap();
    }
    say("insert ascending", n, t);
    let t = cpu();
    for _ in 0..n {
        tree.insert(&st, rng.below(2 * n), &[8; 40]).unwrap();
    }
    say("insert random", n, t);
    let mut v = ValueBuf::new();
    let t = cpu();
    for _ in 0..n {
        tree.get(&st, rng.below(2 * n), &mut v).unwrap();
    }
    say("get, dirty tree", n, t);
    let snap = tree.snapshot().unwrap();
    let mut space = Space::default();
    let t = cpu();
    let mut sink = Sink {
        disk: &disk,
        space: &mut space,
        generation: 1,
        writes_left: u64::MAX,
    };
    snap.write_out(&mut sink).unwrap();
    say("write out, nodes", space.used.len() as u64, t);
    drop(snap);
    let t = cpu();
    tree.demote(&st).unwrap();
    say("demote, nodes", space.used.len() as u64, t);
    let t = cpu();
    for _ in 0..n {
        tree.get(&st, rng.below(2 * n), &mut v).unwrap();
    }
    say("get, cached tree", n, t);
    let t = cpu();
    for _ in 0..n {
        tree.find_ge(&st, rng.below(2 * n), &mut v).unwrap();
    }
    say("find_ge, cached tree", n, t);
    let t = cpu();
    let mut at = 0;
    let mut count = 0u64;
    while let Some(k) = tree.find_ge(&st, at, &mut v).unwrap() {
        tree.remove(&st, k).unwrap();
        at = k;
        count += 1;
    }
    say("find_ge + remove, all", count, t);
}
