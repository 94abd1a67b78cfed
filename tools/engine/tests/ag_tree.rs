// SPDX-License-Identifier: GPL-2.0

//! A tree with sums: searches by them against a model, through commits, failed commits and reloads;
//! how much a search reads; sums that are wrong; and lies in which everything is right but the
//! content.

mod trees;

use fastrand::Rng;
use kernel::prelude::*;
use ordofs_engine::engine::btree::{Tree, TreeId, TreeKind, ValueBuf};
use ordofs_engine::engine::format::ag::{run_class, AgRecord, Sums};
use ordofs_engine::engine::format::NodePtr;
use ordofs_engine::os::{crc32c, Block};
use std::collections::BTreeMap;
use std::vec::Vec;
use trees::*;

const AGS: TreeId = TreeId::new(TreeKind::Ag, 0);
const AG_BLOCKS: u64 = 1 << 18;

/// The first bytes of a record with these sums, and `more` bytes behind them.
fn record(free: u32, longest: u8, slots: u32, more: usize) -> Vec<u8> {
    let mut v = Vec::new();
    v.extend(free.to_le_bytes());
    v.extend([longest, 0, 0, 0]);
    v.extend(slots.to_le_bytes());
    v.resize(32 + more, 7);
    v
}

fn random_record(rng: &mut Rng) -> Vec<u8> {
    let free = rng.u32(..=AG_BLOCKS as u32) >> rng.u32(..19);
    let longest = rng.u8(..=run_class(free.into()).min(14));
    record(
        free,
        longest,
        rng.u32(..3000) >> rng.u32(..20),
        rng.usize(..400),
    )
}

fn sums_of(items: &BTreeMap<u64, Vec<u8>>) -> Sums {
    let all = items.values().map(|v| Sums::of_record(v));
    all.fold(Sums::default(), Sums::and)
}

/// Skips nothing.
fn none(_: u64, _: u64) -> bool {
    false
}

/// Searches from `from` for so much, in the tree and in the model.
fn search(w: &World, from: u64, least: Sums) {
    let fits =
        |s: &Sums| s.free >= least.free && s.longest >= least.longest && s.slots >= least.slots;
    let mut v = ValueBuf::new();
    let found = w
        .tree
        .first_where(&w.st, from, fits, &none, &mut |_| panic!("unread"), &mut v)
        .unwrap();
    let mut model = w.model.range(from..);
    let want = model.find(|(_, v)| fits(&Sums::of_record(v)));
    assert_eq!(found, want.map(|(k, _)| *k));
    assert_eq!(v.as_slice(), want.map_or(&[][..], |(_, v)| v));
}

fn searches(w: &World, rng: &mut Rng) {
    for _ in 0..10 {
        let least = Sums {
            free: u64::from(rng.u32(..=AG_BLOCKS as u32) >> rng.u32(..19)),
            longest: rng.u8(..16),
            slots: u64::from(rng.u32(..2000) >> rng.u32(..20)),
        };
        search(w, rng.u64(..3000), least);
    }
    assert_eq!(w.tree.sums(&w.st).unwrap(), sums_of(&w.model));
}

#[test]
fn searches_find_what_the_model_finds() {
    for seed in 0..12 {
        let mut rng = Rng::with_seed(seed);
        let mut w = World::of(AGS, 64);
        // Few children make three levels, and many removals.
        let keys = if seed % 2 == 0 { 3000 } else { 200 };
        for round in 0..40 {
            for _ in 0..rng.u32(..300) {
                let key = rng.u64(..keys);
                match rng.u32(..10) {
                    0..=6 => w.insert(key, &random_record(&mut rng)),
                    _ => w.remove(key),
                }
            }
            searches(&w, &mut rng);
            match rng.u32(..5) {
                0 => {
                    // Changes while a commit writes.
                    let snap = w.tree.snapshot().unwrap();
                    let model = w.model.clone();
                    for _ in 0..rng.u32(..100) {
                        w.insert(rng.u64(..keys), &random_record(&mut rng));
                    }
                    searches(&w, &mut rng);
                    w.finish(snap, model);
                }
                1 => {
                    // A commit that fails in the middle leaves written nodes under dirty ones.
                    let snap = w.tree.snapshot().unwrap();
                    let mut sink = Sink {
                        disk: &w.disk,
                        space: &mut w.space,
                        generation: w.generation + 1,
                        writes_left: rng.u64(1..40),
                    };
                    match snap.write_out(&mut sink) {
                        Ok(_) => w.finish(snap, w.model.clone()),
                        Err(_) => {
                            w.tree.restore_dead(snap);
                            searches(&w, &mut rng);
                            w.commit();
                        }
                    }
                }
                2 => {
                    w.commit();
                    w.reload();
                }
                _ => w.commit(),
            }
            searches(&w, &mut rng);
            w.check();
            if round % 8 == 7 {
                let all: Vec<u64> = w.model.keys().copied().collect();
                for key in all.into_iter().filter(|k| k % 8 != 3) {
                    w.remove(key);
                }
                w.commit();
                searches(&w, &mut rng);
            }
        }
    }
}

/// A tree of so many AGs, all free, and written.
fn of_ags(ags: u64) -> World {
    let mut w = World::of(AGS, 64);
    let mut v = KVec::new();
    AgRecord::unused(AG_BLOCKS, 1).encode(&mut v).unwrap();
    for ag in 0..ags {
        w.tree.insert(&w.st, ag, &v).unwrap();
    }
    write_out(&mut w);
    w
}

/// A commit without the checks of [`World::commit`], which read the whole tree.
fn write_out(w: &mut World) {
    let snap = w.tree.snapshot().unwrap();
    w.generation += 1;
    let mut sink = Sink {
        disk: &w.disk,
        space: &mut w.space,
        generation: w.generation,
        writes_left: u64::MAX,
    };
    w.durable.0 = snap.write_out(&mut sink).unwrap();
    drop(snap);
    w.tree.demote(&w.st).unwrap();
}

/// What a search finds in the last commit, and how many nodes it reads.
fn found_by(w: &World, from: u64, want: impl Fn(&Sums) -> bool) -> (Option<u64>, u64) {
    let st = store(&w.disk, 4096);
    let tree = Tree::from_ptr(AGS, w.durable.0.unwrap());
    let mut v = ValueBuf::new();
    let found = tree.first_where(&st, from, want, &none, &mut |_| panic!("unread"), &mut v);
    (found.unwrap(), st.cached())
}

/// The AG records of 100 TiB: a search reads one path.
#[test]
fn a_search_reads_one_path() {
    let ags = 102_400u64;
    let mut w = of_ags(ags);
    assert_eq!(w.durable.0.unwrap().level, 2);
    let all = w.tree.sums(&w.st).unwrap();
    assert_eq!((all.free, all.longest), (ags * AG_BLOCKS, 14));
    assert_eq!(found_by(&w, 5, |s| s.free > 0), (Some(5), 3));
    // All is in use, but for one AG.
    for ag in 0..ags {
        let one = ag == 77_777;
        let v = record(u32::from(one), u8::from(one), 0, 0);
        w.tree.insert(&w.st, ag, &v).unwrap();
    }
    write_out(&mut w);
    assert_eq!(found_by(&w, 0, |s| s.free > 0), (Some(77_777), 3));
    assert_eq!(found_by(&w, 0, |s| s.longest > 0), (Some(77_777), 3));
    assert_eq!(found_by(&w, 77_778, |s| s.free > 0), (None, 3));
    assert_eq!(found_by(&w, 0, |s| s.free > 1), (None, 1));
}

/// One change dirties one path, with sums as without.
#[test]
fn sums_dirty_no_more_than_the_path() {
    let mut w = of_ags(10_000);
    let before = w.space.used.len();
    let levels = u64::from(w.durable.0.unwrap().level) + 1;
    let v = record(1, 1, 0, 0);
    w.tree.insert(&w.st, 5_000, &v).unwrap();
    assert_eq!(w.tree.dirty_nodes(), levels);
    write_out(&mut w);
    assert_eq!(w.space.used.len() - before, levels as usize);
    assert_eq!(w.tree.sums(&w.st).unwrap().free, 9_999 * AG_BLOCKS + 1);
}

fn node(w: &World, addr: u64) -> Block {
    let mut b = Block::zeroed().unwrap();
    w.disk.device().read(addr, &mut b).unwrap();
    b
}

/// Writes a node with a right checksum, which it returns.
fn rewrite(w: &World, addr: u64, b: &mut Block) -> u32 {
    let crc = crc32c(0, &b[8..]);
    b[4..8].copy_from_slice(&crc.to_le_bytes());
    w.disk.device().write(&[(addr, b)]).unwrap();
    crc
}

/// The bytes of an entry: key, pointer, sums; and of the header.
#[test]
fn entries_of_the_ag_tree_are_longer() {
    let w = of_ags(200);
    let root = w.durable.0.unwrap();
    let b = node(&w, root.addr);
    assert_eq!(b[40..48], [6, 1, 3, 0, 56, 0, 0, 0]);
    let leaf = NodePtr::decode(&b[64 + 56 + 8..][..32]).unwrap();
    let key = u64::from_le_bytes(b[64 + 56..][..8].try_into().unwrap());
    assert_eq!(b[64 + 56 + 40..][..7], (key * AG_BLOCKS).to_le_bytes()[..7]);
    assert_eq!(b[64 + 56 + 47], 14);
    assert_eq!(b[64 + 56 + 48..][..8], [0; 8]);
    assert_eq!(
        node(&w, leaf.addr)[40..48],
        [6, 0, key as u8, 0, 0, 0, 0, 0]
    );
}

/// Sums that are wrong under right checksums are damage of the child.
#[test]
fn wrong_sums_are_damage() {
    let w = of_ags(300);
    let root = w.durable.0.unwrap();
    assert_eq!(root.level, 1);
    let good = node(&w, root.addr);
    // Bits of the sums of the second child: free, longest, slots.
    for at in [
        104 + 56,
        104 + 56 + 6,
        104 + 56 + 7,
        104 + 56 + 8,
        104 + 56 + 15,
    ] {
        let mut b = Block::zeroed().unwrap();
        b.copy_from_slice(&good[..]);
        b[at] ^= 4;
        let crc = rewrite(&w, root.addr, &mut b);
        let tree = Tree::from_ptr(AGS, NodePtr { crc, ..root });
        let st = store(&w.disk, 64);
        assert_eq!(tree.contains(&st, 100).unwrap_err(), EUCLEAN);
        assert!(tree.contains(&st, 0).unwrap());
        // A search skips the child, says so, and goes on behind it.
        let mut unread = Vec::new();
        let mut v = ValueBuf::new();
        let mut first = |from| {
            let mut note = |u| unread.push(u);
            tree.first_where(&st, from, |s| s.free > 0, &none, &mut note, &mut v)
        };
        assert_eq!(first(0).unwrap(), Some(0));
        assert_eq!(first(95).unwrap(), Some(182));
        assert_eq!(unread.len(), 1);
        assert_eq!((unread[0].first_key, unread[0].last_key), (91, 181));
        assert_eq!(unread[0].error, EUCLEAN);
    }
    // An entry of the wrong size, and reserved bytes.
    for at in [44, 45, 46, 63] {
        let mut b = Block::zeroed().unwrap();
        b.copy_from_slice(&good[..]);
        b[at] ^= 1;
        let crc = rewrite(&w, root.addr, &mut b);
        let tree = Tree::from_ptr(AGS, NodePtr { crc, ..root });
        assert_eq!(tree.contains(&store(&w.disk, 64), 0).unwrap_err(), EUCLEAN);
    }
}

/// The nodes of a tree, by their addresses: the pointer, and the node and the entry that it is in.
struct Nodes(BTreeMap<u64, (NodePtr, Option<(u64, usize)>)>);

impl Nodes {
    fn of(w: &World) -> Self {
        let root = w.durable.0.unwrap();
        let mut all = BTreeMap::from([(root.addr, (root, None))]);
        let mut next = vec![root];
        while let Some(ptr) = next.pop() {
            let b = node(w, ptr.addr);
            let n = usize::from(u16::from_le_bytes([b[42], b[43]]));
            for i in (0..n).filter(|_| ptr.level > 0) {
                let kid = NodePtr::decode(&b[64 + 56 * i + 8..][..32]).unwrap();
                all.insert(kid.addr, (kid, Some((ptr.addr, i))));
                next.push(kid);
            }
        }
        Self(all)
    }

    /// Writes node `addr` with the content `b`, and lets all above it agree: checksums, and also sums if
    /// `sums`. Returns the pointer to the root.
    fn forge(&self, w: &World, addr: u64, mut b: Block, sums: bool) -> NodePtr {
        let (mut ptr, mut parent) = self.0[&addr];
        loop {
            let total = total(&b);
            ptr.crc = rewrite(w, ptr.addr, &mut b);
            let Some((above, i)) = parent else { return ptr };
            b = node(w, above);
            let at = 64 + 56 * i;
            b[at + 8..at + 40].copy_from_slice(&ptr.to_bytes());
            if sums {
                b[at + 40..at + 56].copy_from_slice(&total.to_bytes());
            }
            (ptr, parent) = self.0[&above];
        }
    }
}

/// The sums of a node, by its bytes, as far as they make sense.
fn total(b: &[u8; 4096]) -> Sums {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([b[at], b[at + 1]]));
    let n = u16_at(42).min(330);
    let part = |i: usize| match b[41] {
        0 => {
            let slot = 64 + 12 * i;
            let at = u16_at(slot + 8);
            b.get(at..at + u16_at(slot + 10)).map(Sums::of_record)
        }
        _ => b.get(64 + 56 * i + 40..).and_then(Sums::decode),
    };
    (0..n).filter_map(part).fold(Sums::default(), Sums::and)
}

/// In a tree of three levels, wrong sums in the root of a child with right ones.
#[test]
fn a_lie_above_right_sums_is_found() {
    let w = of_ags(20_000);
    let root = w.durable.0.unwrap();
    assert_eq!(root.level, 2);
    let nodes = Nodes::of(&w);
    for at in [40, 46, 47, 48, 55] {
        let mut b = node(&w, root.addr);
        // The second child of the root.
        b[64 + 56 + at] ^= 4;
        let first = u64::from_le_bytes(b[64 + 56..][..8].try_into().unwrap());
        let lie = nodes.forge(&w, root.addr, b, true);
        let tree = Tree::from_ptr(AGS, lie);
        let st = store(&w.disk, 64);
        assert_eq!(tree.contains(&st, first).unwrap_err(), EUCLEAN);
        assert!(tree.contains(&st, first - 1).unwrap());
        let good = nodes.0[&root.addr].0;
        let mut b = node(&w, root.addr);
        b[64 + 56 + at] ^= 4;
        assert_eq!(rewrite(&w, root.addr, &mut b), good.crc);
    }
}

/// A lie of which checksums and sums are right up to the root: a node of any level, leaves and records
/// included. Nothing panics, and a search believes the records.
#[test]
fn consistent_lies_never_panic() {
    let w = of_ags(20_000);
    let nodes = Nodes::of(&w);
    let addresses: Vec<u64> = nodes.0.keys().copied().collect();
    let mut rng = Rng::with_seed(10);
    let (mut accepted, mut levels) = (0, [0; 3]);
    for round in 0..4_000 {
        // Leaves are most; one of three times it is another.
        let addr = loop {
            let addr = addresses[rng.usize(..addresses.len())];
            if round % 3 > 0 || nodes.0[&addr].0.level > 0 {
                break addr;
            }
        };
        levels[usize::from(nodes.0[&addr].0.level)] += 1;
        let good = node(&w, addr);
        let disk = w.disk.fork();
        let mut lie = node(&w, addr);
        for _ in 0..=rng.u32(..2) {
            let at = match rng.u32(..4) {
                0 => 40 + rng.usize(..8),
                // Slots or entries, values.
                1 => 64 + rng.usize(..4000),
                2 => 64 + rng.usize(..300),
                _ => 4096 - 32 * (1 + rng.usize(..80)) + rng.usize(..12),
            };
            lie[at] = rng.u8(..);
        }
        let root = nodes.forge(&w, addr, lie, rng.u32(..4) > 0);
        let mut tree = Tree::from_ptr(AGS, root);
        let st = store(&w.disk, 256);
        let mut v = ValueBuf::new();
        let free = rng.u64(..1 << 20);
        let mut unread = 0;
        let found = tree.first_where(
            &st,
            rng.u64(..20_000),
            |s| s.free > free,
            &none,
            &mut |_| unread += 1,
            &mut v,
        );
        if matches!(found, Ok(Some(_))) {
            accepted += 1;
            assert!(Sums::of_record(&v).free > free);
        }
        let _ = tree.sums(&st);
        let key = rng.u64(..20_000);
        let _ = tree.insert(&st, key, &random_record(&mut rng));
        let _ = tree.remove(&st, rng.u64(..20_000));
        let _ = tree.sums(&st);
        drop((tree, st));
        nodes.forge(&w, addr, good, true);
        assert!(round % 500 > 0 || disk.image() == w.disk.image());
    }
    assert!(accepted > 400, "{accepted}");
    assert!(levels.iter().all(|n| *n > 10), "{levels:?}");
}

/// A leaf that cannot be read costs a search the AGs in it, and nothing else.
#[test]
fn an_unreadable_leaf_is_skipped() {
    let w = of_ags(300);
    let root = w.durable.0.unwrap();
    let leaf = NodePtr::decode(&node(&w, root.addr)[64 + 8..][..32]).unwrap();
    w.disk.corrupt(leaf.addr, 1000, 1);
    let tree = Tree::from_ptr(AGS, root);
    let st = store(&w.disk, 64);
    let (mut lost, mut v) = (Vec::new(), ValueBuf::new());
    let found = tree.first_where(&st, 3, |s| s.free > 9, &none, &mut |u| lost.push(u), &mut v);
    assert_eq!(found.unwrap(), Some(91));
    assert_eq!((lost[0].first_key, lost[0].last_key), (0, 90));
    assert_eq!(lost[0].sums.free, 91 * AG_BLOCKS);
    w.disk.corrupt(root.addr, 1000, 1);
    let st = store(&w.disk, 64);
    let found = tree.first_where(&st, 3, |_| true, &none, &mut |_| panic!(), &mut v);
    assert_eq!(found.unwrap_err(), EUCLEAN);
    assert!(tree.sums(&st).is_err());
}

/// Nonsense under right checksums never panics.
#[test]
fn nonsense_never_panics() {
    let w = of_ags(300);
    let root = w.durable.0.unwrap();
    let good = node(&w, root.addr);
    let mut rng = Rng::with_seed(9);
    for _ in 0..5_000 {
        let mut b = Block::zeroed().unwrap();
        b.copy_from_slice(&good[..]);
        for _ in 0..=rng.u32(..3) {
            b[40 + rng.usize(..260)] = rng.u8(..);
        }
        let crc = rewrite(&w, root.addr, &mut b);
        let mut tree = Tree::from_ptr(AGS, NodePtr { crc, ..root });
        let st = store(&w.disk, 64);
        let mut v = ValueBuf::new();
        let free = rng.u64(..1 << 20);
        let _ = tree.first_where(
            &st,
            rng.u64(..400),
            |s| s.free > free,
            &none,
            &mut |_| (),
            &mut v,
        );
        let _ = tree.sums(&st);
        let _ = tree.insert(&st, rng.u64(..400), &random_record(&mut rng));
        let _ = tree.remove(&st, rng.u64(..400));
        let _ = tree.sums(&st);
    }
}
