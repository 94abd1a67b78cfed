// SPDX-License-Identifier: GPL-2.0

//! The B+tree on a device that gives back something else than was written: damage is found, under right
//! checksums too, and does no harm.

mod trees;

use fastrand::Rng;
use kernel::prelude::*;
use ordofs_engine::engine::btree::{Tree, TreeId, TreeKind, ValueBuf, WalkItem};
use ordofs_engine::engine::format::NodePtr;
use ordofs_engine::os::{crc32c, Block};
use std::collections::BTreeSet;
use std::vec::Vec;
use trees::*;

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
    let mut rng = Rng::with_seed(3);
    for _ in 0..20_000 {
        let disk = w.disk.fork();
        let mut b = Block::zeroed().unwrap();
        disk.device().read(root.addr, &mut b).unwrap();
        for _ in 0..=rng.u64(..3) {
            // Mostly where the structure is.
            let at = if rng.u64(..4) == 0 {
                rng.u64(..4096)
            } else {
                40 + rng.u64(..200)
            };
            b[at as usize] = rng.u64(..) as u8;
        }
        let crc = crc32c(0, &b[8..]);
        b[4..8].copy_from_slice(&crc.to_le_bytes());
        disk.device().write(&[(root.addr, &b)]).unwrap();
        let st = store(&disk, 64);
        let mut t = Tree::from_ptr(ID, NodePtr { crc, ..root });
        let mut v = ValueBuf::new();
        let _ = t.walk_tolerant(&st, &mut |_| Ok(()));
        for _ in 0..8 {
            let k = rng.u64(..400);
            let _ = t.find_ge(&st, k, &mut v);
            let _ = t.find_le(&st, k, &mut v);
            let _ = t.insert(&st, k, &value(k, 300));
            let _ = t.remove(&st, rng.u64(..400));
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
    let mut rng = Rng::with_seed(4);
    let mut accepted = 0;
    for _ in 0..50_000 {
        let disk = w.disk.fork();
        let mut b = Block::zeroed().unwrap();
        disk.device().read(root.addr, &mut b).unwrap();
        for _ in 0..=rng.u64(..3) {
            b[40 + rng.u64(..600) as usize] = rng.u64(..) as u8;
        }
        let crc = crc32c(0, &b[8..]);
        b[4..8].copy_from_slice(&crc.to_le_bytes());
        disk.device().write(&[(root.addr, &b)]).unwrap();
        let st = store(&disk, 64);
        let mut t = Tree::from_ptr(ID, NodePtr { crc, ..root });
        if t.walk(&st, &mut |_| Ok(())).is_ok() {
            accepted += 1;
            for _ in 0..60 {
                let k = rng.u64(..300);
                t.insert(&st, k, &value(k, 1 + rng.u64(..1280) as usize))
                    .unwrap();
                t.remove(&st, rng.u64(..300)).unwrap();
            }
        }
    }
    assert!(accepted > 0);
}

/// Space that is not in use is zero: in a leaf between slots and values, in an interior node behind
/// the entries.
#[test]
fn unused_space_must_be_zero() {
    let mut w = World::new(256);
    for k in 0..60u64 {
        w.insert(k, &value(k, 200));
    }
    w.commit();
    let root = w.durable.0.unwrap();
    assert_eq!(root.level, 1);
    let (_, nodes) = content(&w.tree, &w.st);
    let leaf = *nodes.iter().find(|n| **n != root.addr).unwrap();
    let read = |addr| {
        let mut b = Block::zeroed().unwrap();
        w.disk.device().read(addr, &mut b).unwrap();
        b
    };
    let (inner, b) = (read(root.addr), read(leaf));
    let entries = usize::from(u16::from_le_bytes([inner[42], inner[43]]));
    let items = usize::from(u16::from_le_bytes([b[42], b[43]]));
    let last = 64 + 12 * (items - 1);
    let values = usize::from(u16::from_le_bytes([b[last + 8], b[last + 9]]));
    assert!(last + 12 + 2 < values);
    // The leaf by itself, because the root does not have its new checksum.
    let of_leaf = NodePtr {
        addr: leaf,
        addr2: 0,
        generation: u64::from_le_bytes(b[24..32].try_into().unwrap()),
        crc: 0,
        level: 0,
    };
    let end = 64 + 40 * entries;
    for (ptr, from, to) in [(of_leaf, last + 12, values), (root, end, 4096)] {
        for at in [from, (from + to) / 2, to - 1] {
            let disk = w.disk.fork();
            let mut b = read(ptr.addr);
            assert_eq!(b[at], 0);
            for byte in [0, 0x40] {
                b[at] = byte;
                let crc = crc32c(0, &b[8..]);
                b[4..8].copy_from_slice(&crc.to_le_bytes());
                disk.device().write(&[(ptr.addr, &b)]).unwrap();
                let tree = Tree::from_ptr(ID, NodePtr { crc, ..ptr });
                let r = tree.contains(&store(&disk, 64), 0);
                assert_eq!(r.is_ok(), byte == 0, "level {}, byte {at}", ptr.level);
            }
        }
    }
}

/// A second copy is used when the first is bad.
#[test]
fn a_second_copy_stands_in_for_a_damaged_node() {
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
fn lost_and_misdirected_writes_are_found() {
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
        // The cache has the node now, and must not return it for the other pointer.
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
    let crc = crc32c(0, &b[8..]);
    b[4..8].copy_from_slice(&crc.to_le_bytes());
    w.disk.device().write(&[(root.addr, &b)]).unwrap();
    let t = Tree::from_ptr(ID, NodePtr { crc, ..root });
    assert_eq!(
        t.walk(&store(&w.disk, 64), &mut |_| Ok(())).unwrap_err(),
        EUCLEAN
    );
}
