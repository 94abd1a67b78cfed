// SPDX-License-Identifier: GPL-2.0

//! The B+tree against a model, through commits, reloads and failing allocations.

mod trees;

use fastrand::Rng;
use kernel::fault;
use kernel::prelude::*;
use ordofs_engine::engine::btree::{Tree, ValueBuf};
use ordofs_engine::os::mem::MemDisk;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;
use trees::*;

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, usize),
    Remove(u64),
    /// The leaf that begins with the first item from here on.
    RemoveLeaf(u64, u64),
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

fn apply(w: &mut World, op: &Op) {
    match op {
        Op::Insert(k, len) => w.insert(*k, &value(*k, *len)),
        Op::Remove(k) => w.remove(*k),
        Op::RemoveLeaf(k, stop) => {
            // A leaf seldom begins there, so each item behind it is tried until one does.
            let stop = Some(*stop);
            let keys: Vec<u64> = w.model.range(*k..).map(|(k, _)| *k).take(90).collect();
            let _ = keys.into_iter().any(|k| w.remove_leaf(k, stop));
        }
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
        1 => (key(), key()).prop_map(|(k, stop)| Op::RemoveLeaf(k, stop)),
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
fn a_long_random_run_agrees_with_the_model() {
    let mut rng = Rng::with_seed(1);
    let mut w = World::new(2048);
    for n in 0..300_000u64 {
        // Phases that grow and phases that shrink.
        let grow = (n / 50_000) % 2 == 0;
        let k = rng.u64(..60_000);
        if rng.u64(..10) < if grow { 7 } else { 2 } {
            let len = match rng.u64(..20) {
                0 => 1280,
                1..=4 => 200 + rng.u64(..700) as usize,
                _ => 1 + rng.u64(..60) as usize,
            };
            w.insert(k, &value(k, len));
        } else {
            w.remove(k);
        }
        if n % 64 == 0 {
            w.look(rng.u64(..60_000));
        }
        if n % 4096 == 0 {
            w.check();
            let snap = w.tree.snapshot().unwrap();
            let model = w.model.clone();
            for _ in 0..500 {
                let k = rng.u64(..60_000);
                match rng.u64(..2) {
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
    let mut rng = Rng::with_seed(5);
    while w.model.len() > 4_000 {
        let k = rng.u64(..40_000) * 3;
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
    let mut rng = Rng::with_seed(9);
    for k in 0..3_000 {
        w.insert(k, &value(k, 40));
    }
    w.commit();
    for round in 0..20u64 {
        for _ in 0..200 {
            let k = rng.u64(..4_000);
            w.insert(k, &value(k ^ round, 30));
        }
        let snap = w.tree.snapshot().unwrap();
        let model = w.model.clone();
        for _ in 0..1_000 {
            let k = rng.u64(..4_000);
            match rng.u64(..3) {
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
            dead.extend(w.tree.take_dead().iter().flat_map(|d| d.addrs()));
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
        dead.extend(dead_now.iter().flat_map(|d| d.addrs()));
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
fn inline_images_hold_what_the_tree_held() {
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
                let mut rng = Rng::with_seed(seed);
                let mut v = ValueBuf::new();
                for n in 0..20_000 {
                    let k = rng.u64(..20_000);
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
    let mut rng = Rng::with_seed(2);
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
        tree.insert(&st, rng.u64(..2 * n), &[8; 40]).unwrap();
    }
    say("insert random", n, t);
    let mut v = ValueBuf::new();
    let t = cpu();
    for _ in 0..n {
        tree.get(&st, rng.u64(..2 * n), &mut v).unwrap();
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
        tree.get(&st, rng.u64(..2 * n), &mut v).unwrap();
    }
    say("get, cached tree", n, t);
    let t = cpu();
    for _ in 0..n {
        tree.find_ge(&st, rng.u64(..2 * n), &mut v).unwrap();
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
