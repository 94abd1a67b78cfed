// SPDX-License-Identifier: GPL-2.0

//! Damage of one copy and of both.

use crate::census::{Census, OnDisk};
use crate::common::*;
use crate::disk::*;
use kernel::prelude::{Error, EIO, EUCLEAN};
use ordofs_engine::engine::btree::{NodeStore, Tree, TreeId, TreeKind, WalkItem};
use ordofs_engine::engine::format::NodePtr;
use ordofs_engine::engine::state::scrub::Damage;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Device, Shared};
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

/// Each copy of each node is damaged, one at a time: nothing is lost, nothing is wrong, fsck names the
/// copy, and it is healed: after a read of the first one, and in any case after a scrub.
#[test]
fn damage_of_one_copy_loses_nothing_and_is_healed() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = settled(&furnished());
    let all = fsck(&disk);
    let census = Census::of(&disk);
    let kinds: BTreeSet<u8> = census.nodes.values().map(|n| n.id.kind as u8).collect();
    // Inode, extent, directory, attributes, AG, groups, deferred.
    assert!(
        kinds.is_superset(&[1, 3, 4, 5, 6, 7, 12].into()),
        "{kinds:?}"
    );
    let hows = [How::Flip, How::Lost, How::Misplaced, How::Unreadable];
    let (mut read_ones, mut n) = (0, 0);
    let addrs: Vec<u64> = census.nodes.keys().copied().collect();
    for (i, node) in census.nodes.values().enumerate() {
        for (second, at) in node.copies().enumerate() {
            n += 1;
            let how = hows[n % hows.len()];
            let what = format!("{node:?}, block {at}, {how:?}");
            let disk = disk.fork();
            let before = disk.image()[&at].clone();
            let (dev, faults) = faulty(&disk);
            harm(&disk, &faults, at, addrs[(i + 1) % addrs.len()], how);
            if how != How::Unreadable {
                let said = problems(&disk);
                assert!(
                    said.len() == 1 && said[0].contains(&format!("block {at}")),
                    "{said:?}"
                );
            }
            let fs = mount_on(dev);
            assert_eq!(
                unreadable(&fs, &disk.device(), &all),
                BTreeSet::new(),
                "{what}"
            );
            let reads = fs.node_store().bad_copies().reads();
            fs.heal(&|| false);
            let healed = fs.node_store().bad_copies().healed();
            assert_eq!(healed, u64::from(reads > 0), "{what}");
            assert!(second == 0 || reads == 0, "{what}");
            read_ones += healed;
            let is_healed =
                || !faults.lock().unwrap().unreadable.contains(&at) && disk.image()[&at] == before;
            assert_eq!(is_healed(), reads > 0, "{what}");
            // What no read came to, a scrub does.
            let (s, damage) = scrub(&fs);
            assert_eq!((s.healed, s.bad_copies), (1 - healed, 1 - healed), "{what}");
            assert_eq!(
                (s.lost_nodes, damage.len() as u64),
                (0, 1 - healed),
                "{what}"
            );
            assert!(is_healed(), "{what}");
            assert_eq!(scrub(&fs).0.bad_copies, 0, "{what}");
            fs.unmount().unwrap();
            assert_eq!(problems(&disk), Vec::<String>::new(), "{what}");
        }
    }
    println!("{n} copies, {read_ones} healed by a read");
    assert!(read_ones > n as u64 / 4);
}

/// Both copies of a node are damaged: exactly what is under it fails, and the scrub names it.
#[test]
fn damage_of_both_copies_loses_what_is_under_the_node() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = settled(&furnished());
    let all = fsck(&disk);
    let census = Census::of(&disk);
    let mut tried = BTreeMap::new();
    for node in census.nodes.values().filter(|n| n.level == 0) {
        use TreeKind::{Dir, Extent, Inode, Xattr};
        let under: BTreeSet<u64> = match node.id.kind {
            Extent | Dir | Xattr => [node.id.owner].into(),
            Inode => inodes_in(&disk, node).into_iter().collect(),
            _ => continue,
        };
        // A mount reads the root directory, and the record of the last inode.
        let last = all.keys().next_back().unwrap();
        if node.id.kind == Inode && (under.contains(&2) || under.contains(last)) {
            continue;
        }
        let how = [How::Flip, How::Unreadable][(node.addr % 2) as usize];
        *tried.entry(node.id.kind as u8).or_insert(0) += 1;
        let disk = disk.fork();
        let (dev, faults) = faulty(&disk);
        node.copies()
            .for_each(|at| harm(&disk, &faults, at, 0, how));
        let fs = mount_on(dev);
        let bad = unreadable(&fs, &disk.device(), &all);
        assert_eq!(bad, under, "{node:?}");
        fs.heal(&|| false);
        assert_eq!(fs.node_store().bad_copies().healed(), 0);
        let (s, damage) = scrub(&fs);
        assert_eq!(
            (s.lost_nodes, s.bad_copies, s.healed),
            (1, 2, 0),
            "{node:?}"
        );
        let named = damage.iter().filter(|d| {
            (d.tree, d.owner, d.block) == (node.id.kind as u8, node.id.owner, node.addr)
                && d.copies == Damage::FIRST | Damage::SECOND | Damage::LOST
        });
        assert_eq!(named.count(), 1, "{node:?}");
        fs.unmount().unwrap();
    }
    assert!(tried.len() == 4, "{tried:?}");
}

/// The inodes with their records in a leaf.
fn inodes_in(disk: &MemDisk, node: &OnDisk) -> Vec<u64> {
    let sb = superblock(disk);
    let store = NodeStore::new(Shared::new(disk.device()).unwrap(), sb.node_id, 64).unwrap();
    let (mut list, mut here) = (Vec::new(), false);
    Tree::from_ptr(node.id, sb.inode_root.unwrap())
        .walk(&store, &mut |w| {
            match w {
                WalkItem::Node(n) => here = n.addr == node.addr,
                WalkItem::Item(ino, _) if here => list.push(ino),
                _ => {}
            }
            Ok(())
        })
        .unwrap();
    list
}

/// The error of the inode tree, read past the cache, if its root is `root`.
fn error_of(disk: &MemDisk, dev: Device, root: NodePtr) -> Option<Error> {
    let sb = superblock(disk);
    let store = NodeStore::new(Shared::new(dev).unwrap(), sb.node_id, 64).unwrap();
    let store = store.confine(&sb);
    let id = TreeId::new(TreeKind::Inode, 0);
    let walked = Tree::from_ptr(id, root).walk(&store, &mut |_| Ok(()));
    walked.err()
}

/// A node counts as damaged only if both copies are: an error of the device may go away.
#[test]
fn an_error_of_the_device_is_not_taken_for_damage() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = settled(&furnished());
    let root = superblock(&disk).inode_root.unwrap();
    let (flip, unreadable) = (How::Flip, How::Unreadable);
    for (first, second, error) in [
        (Some(flip), Some(flip), Some(EUCLEAN)),
        (Some(flip), Some(unreadable), Some(EIO)),
        (Some(unreadable), Some(flip), Some(EIO)),
        (Some(unreadable), None, None),
        (None, Some(unreadable), None),
    ] {
        let disk = disk.fork();
        let (dev, faults) = faulty(&disk);
        for (how, at) in [(first, root.addr), (second, root.addr2)] {
            how.into_iter()
                .for_each(|how| harm(&disk, &faults, at, 0, how));
        }
        assert_eq!(error_of(&disk, dev, root), error);
    }
}

/// A pointer with one address where no node can be is refused, although the other copy is good: the log
/// and the superblocks are in use, so they would be healed, and later freed.
#[test]
fn a_copy_in_a_fixed_area_is_refused() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = settled(&furnished());
    let sb = superblock(&disk);
    let root = sb.inode_root.unwrap();
    let refused = |root| error_of(&disk, disk.device(), root) == Some(EUCLEAN);
    assert!(!refused(root));
    for (start, len) in sb.fixed_areas() {
        for at in [start.max(1), start + len - 1] {
            assert!(refused(NodePtr { addr2: at, ..root }), "block {at}");
            let (addr, addr2) = (at, root.addr);
            assert!(
                refused(NodePtr {
                    addr,
                    addr2,
                    ..root
                }),
                "block {at}"
            );
        }
    }
}
