// SPDX-License-Identifier: GPL-2.0

//! The deferred tree: its shape, and what is in it from commit to commit.

#![allow(clippy::unwrap_used)]

#[path = "support/ags.rs"]
mod ags;
mod common;
#[path = "support/counting.rs"]
mod counting;

use common::hooked::{hooked, Ask};
use common::*;
use counting::{device, peak_of, sparse};
use kernel::prelude::EIO;
use ordofs_engine::engine::alloc::deferred::{
    affordable, missing, pair, shape, sort, DEFERRED_TREE, ENTRY, KEEP,
};
use ordofs_engine::engine::btree::{NodeStore, Tree, WalkItem};
use ordofs_engine::engine::format::group::full_record;
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::format::GROUP_BLOCKS;
use ordofs_engine::engine::volume::mount::tree_of;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;
use std::sync::atomic::{AtomicU32, Ordering};

/// Each block is a node or an entry, and the tree can be made with so many leaves.
#[test]
fn every_number_of_blocks_but_one_has_a_shape() {
    for copies in [1, 2] {
        assert_eq!(shape(0, copies).map(|s| s.nodes), Some(0));
        assert_eq!(shape(copies, copies), None);
        assert_eq!(shape(copies + 1, copies).map(|s| s.nodes), Some(1));
    }
    assert_eq!(shape(1, 2), None);
    let disk = MemDisk::new(4096);
    let store = NodeStore::new(Shared::new(disk.device()).unwrap(), 1, 64).unwrap();
    let numbers = (3..2000).chain([31_000, 31_111, 31_112, 31_113, 62_345, 100_000]);
    for (blocks, copies) in numbers.flat_map(|n| [(n, 1), (n, 2)]) {
        let s = shape(blocks, copies).unwrap_or_else(|| panic!("{blocks} blocks"));
        let entries = blocks - s.nodes * copies;
        assert!(entries >= s.leaves && entries <= 310 * s.leaves, "{blocks}");
        let keys: Vec<u64> = (0..entries).map(|i| 7 * i + 300).collect();
        let tree = Tree::spread(DEFERRED_TREE, &keys, &ENTRY, s.leaves as usize).unwrap();
        assert_eq!(tree.unassigned_nodes(), s.nodes, "{blocks}");
        assert_eq!(tree.dirty_nodes(), s.nodes, "{blocks}");
        let mut found = Vec::new();
        tree.walk(&store, &mut |item| {
            if let WalkItem::Item(key, v) = item {
                assert_eq!(v, ENTRY);
                found.push(key);
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(found, keys, "{blocks}");
    }
}

#[test]
fn what_is_missing_is_enough() {
    for need in [0, 1, 3, 400] {
        for dead in [0, 1, 2, 310, 311, 5000] {
            for (have, copies) in (0..2 * need + 40).flat_map(|n| [(n, 1), (n, 2)]) {
                let more = missing(need, have, dead, copies);
                let then = missing(need, have + more, dead, copies);
                assert_eq!(then, 0, "{need} {have} {dead} {copies}");
            }
        }
    }
}

/// Blocks that come in pairs from two AGs go into pairs from two AGs, also after some were freed.
#[test]
fn the_copies_of_a_node_of_a_space_tree_are_in_two_ags() {
    const AG: u64 = 1 << 15;
    let ag_blocks = std::num::NonZeroU64::new(AG).unwrap();
    for ags in [[0, 1, 2], [3, 3, 3], [0, 5, 9]] {
        let mut spare = Vec::new();
        for (i, ag) in (0..600).zip(ags.into_iter().cycle()) {
            spare.extend([ag * AG + 500 + i, (ag + 20) * AG + 9000 + 7 * i]);
        }
        sort(&mut spare);
        let out = affordable(&spare, 8, 5, ag_blocks, 2);
        assert!(out.len() > 700, "{out:?}");
        spare.drain(out);
        assert_eq!(missing(8, spare.len() as u64, 5, 2), 0);
        for nodes in [0, 1, spare.len() / 2] {
            let (first, second, unused) = pair(&spare, nodes, 2).unwrap();
            assert_eq!((first.len(), second.len()), (nodes, nodes));
            assert_eq!(unused.len(), spare.len() - 2 * nodes);
            assert!(first.iter().zip(second).all(|(a, b)| a / AG != b / AG));
        }
        assert!(pair(&spare, spare.len() / 2 + 1, 2).is_none());
    }
    let (first, second, unused) = pair(&[7, 8, 9], 2, 1).unwrap();
    assert_eq!((first, second, unused), (&[7, 8][..], &[][..], &[9][..]));
}

/// The entries of the newest deferred tree.
fn entries(disk: &MemDisk) -> Vec<u64> {
    let sb = Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason));
    let store = NodeStore::new(Shared::new(disk.device()).unwrap(), sb.node_id, 64).unwrap();
    let mut found = Vec::new();
    tree_of(DEFERRED_TREE, sb.deferred_root)
        .walk(&store, &mut |item| {
            if let WalkItem::Item(key, _) = item {
                found.push(key);
            }
            Ok(())
        })
        .unwrap();
    found
}

/// Many small commits neither take more and more blocks nor leave many behind, and a filesystem that
/// comes to rest after a large one has few.
#[test]
fn commits_use_the_blocks_of_the_one_before() {
    let disk = make(1 << 22);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let mut free = 0;
    for i in 0..200 {
        write(&disk.device(), &fs, &f, 0, &[i]).unwrap();
        fs.sync().unwrap();
        fsck(&disk);
        if i == 20 {
            free = fs.statfs().bfree;
        }
    }
    assert_eq!(fs.statfs().bfree, free);
    assert!(entries(&disk).len() as u64 <= 2 * KEEP + 16);
    // All groups of 16 AGs change.
    let large = fs.create(&root, b"large", &regular()).unwrap();
    fs.preallocate(&large, 0, 2 << 20, None).unwrap();
    fs.sync().unwrap();
    fs.set_size(&large, 0).unwrap();
    fs.iput(large);
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();
    assert!(entries(&disk).len() as u64 <= 2 * KEEP + 16);
    fsck(&disk);
}

#[test]
fn addresses_are_sorted() {
    let mut x = 9u64;
    for n in (0..40).chain([100, 1000, 5001]) {
        let mut v: Vec<u64> = (0..n)
            .map(|_| {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                x >> 55
            })
            .collect();
        let mut want = v.clone();
        want.sort_unstable();
        sort(&mut v);
        assert_eq!(v, want);
    }
}

const GIB: u64 = 1 << 18;

/// Makes `addrs` the entries of the deferred tree.
fn defer(disk: &MemDisk, addrs: &[u64]) {
    let mut sb = Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason));
    let leaves = addrs.len().div_ceil(310);
    let mut tree = Tree::spread(DEFERRED_TREE, addrs, &ENTRY, leaves).unwrap();
    let image = disk.image();
    let nodes = image.iter().filter(|(_, d)| d.starts_with(b"ORDN"));
    let next = nodes.map(|(b, _)| *b).max().unwrap() + 1;
    let mut sink = ags::Sink {
        disk,
        sb: &sb,
        next,
    };
    sb.deferred_root = tree.snapshot().unwrap().write_out(&mut sink).unwrap();
    sb.write(&disk.device()).unwrap();
}

/// A full device of `gib` GiB, but for the pool and `more` blocks. Most of it has no owner.
fn full(gib: u64, more: u64, copies: u8) -> MemDisk {
    let disk = device(|| MemDisk::new(gib * GIB));
    format_with(sparse(&disk, |_| ()), copies);
    let pool = (gib * GIB / 64).clamp(256, 8192) * u64::from(copies);
    let groups = (pool + more).div_ceil(GROUP_BLOCKS);
    // The space is at the end of an AG, where no superblocks are.
    ags::rewrite(&disk, |i| {
        let free = if i == gib - 2 { groups } else { 0 };
        Some(ags::Ag {
            free: free * GROUP_BLOCKS,
            longest: free.min(1) * GROUP_BLOCKS,
            groups: vec![(0, full_record((32 - free) as u32).to_vec())],
        })
    });
    disk
}

/// A disk that is full, and a deferred tree with a block in each of 16,000 AGs. Each commit frees only
/// what it has blocks for, in little memory, until all are free; and what statfs shows can be had.
#[test]
fn many_scattered_entries_are_freed_bit_by_bit_on_a_full_disk() {
    scattered_entries_are_freed(1);
}

#[test]
fn many_scattered_entries_are_freed_bit_by_bit_with_two_copies() {
    scattered_entries_are_freed(2);
}

fn scattered_entries_are_freed(copies: u8) {
    let gib = 16_000;
    let disk = full(gib, 0, copies);
    // Behind the log.
    let addrs: Vec<u64> = (0..gib).map(|ag| ag * GIB + 10 * GROUP_BLOCKS).collect();
    defer(&disk, &addrs);
    let crashed = {
        // The first commit of a mount, and a crash.
        let fs = mount_on(sparse(&disk, |_| ()));
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"f", &regular()).unwrap();
        write(&disk.device(), &fs, &f, 0, &[1]).unwrap();
        fs.sync_inode(&f).unwrap();
        let crashed = device(|| disk.fork());
        fs.abort("the power is cut");
        crashed
    };
    let fs = mount_on(sparse(&crashed, |_| ()));
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"g", &regular()).unwrap();
    let mut left = addrs.len();
    for i in 0..2 {
        let memory = peak_of(|| {
            write(&crashed.device(), &fs, &f, 0, &[i]).unwrap();
            fs.sync_inode(&f).unwrap();
            fs.sync().unwrap();
        });
        let now = entries(&crashed).len();
        println!("{now} entries, {} KiB", memory >> 10);
        assert!(now < left, "{now} entries after {left}");
        assert!(memory < 8 << 20, "{memory} bytes");
        left = now;
    }
    assert!(left > 1000, "too fast to see anything: {left}");
    let available = fs.statfs().bavail;
    let before = entries(&crashed).len() as u64;
    assert!(
        available + 300 > before,
        "{available} available, {before} entries"
    );
    let nodes = 300 * u64::from(copies);
    fs.preallocate(&f, 1, available - nodes, None).unwrap();
    let rest = entries(&crashed).len() as u64;
    println!("{rest} entries at the end");
    assert!(rest <= KEEP * u64::from(copies) + nodes - 300);
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();
    assert!(entries(&crashed).len() as u64 <= KEEP * u64::from(copies));
}

/// What a sync does on a frozen filesystem: with nothing dirty it writes nothing, whatever the deferred
/// tree has.
#[test]
fn a_commit_of_what_is_dirty_frees_no_entries_alone() {
    let gib = 1_000;
    let disk = full(gib, 0, 2);
    let addrs: Vec<u64> = (0..gib).map(|ag| ag * GIB + 10 * GROUP_BLOCKS).collect();
    defer(&disk, &addrs);
    let fs = mount_on(sparse(&disk, |_| ()));
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    write(&disk.device(), &fs, &f, 0, &[1]).unwrap();
    fs.sync().unwrap();
    let left = entries(&disk).len() as u64;
    assert!(left > 4 * KEEP, "too fast to see anything: {left}");
    let generation = fs.durable_generation();
    fs.commit_all().unwrap();
    assert_eq!(fs.durable_generation(), generation);
    fs.sync().unwrap();
    assert!(fs.durable_generation() > generation);
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();
}

/// A filesystem that is idle makes no more commits, however many entries the last one has left.
#[test]
fn an_idle_sync_ends() {
    let disk = make(1 << 21);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let groups = 240;
    fs.preallocate(&f, 0, groups * GROUP_BLOCKS, None).unwrap();
    // So many free runs that each group has a bitmap.
    for g in 0..groups {
        (0..66).for_each(|i| fs.punch(&f, g * GROUP_BLOCKS + 2 * i, 1).unwrap());
    }
    fs.sync().unwrap();
    // Commits that write more and more nodes.
    for n in (20..groups).step_by(2) {
        (0..n).for_each(|g| fs.punch(&f, g * GROUP_BLOCKS + 1000 + 2 * n, 1).unwrap());
        for _ in 0..4 {
            fs.sync().unwrap();
        }
        let generation = fs.durable_generation();
        fs.sync().unwrap();
        assert_eq!(fs.durable_generation(), generation, "{n} groups");
    }
    fs.iput(f);
    fs.iput(root);
    at_rest(&disk, &fs);
    fs.unmount().unwrap();
}

/// A filesystem with a file of three blocks, its superblock, and the first of the blocks.
fn with_a_file() -> (MemDisk, Superblock, u64) {
    let disk = make(1 << 16);
    let dev = disk.device();
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    write(&dev, &fs, &f, 0, &[1, 2, 3]).unwrap();
    fs.sync().unwrap();
    let data = fs.map_read(&f, 0, 3).unwrap().phys;
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();
    let sb = Superblock::read(&dev).unwrap_or_else(|r| panic!("{}", r.reason));
    (disk, sb, data)
}

/// Entries and nodes of the deferred tree that cannot be the tree's are left alone.
#[test]
fn forged_addresses_of_the_deferred_tree_are_not_written_to() {
    kernel::print::set_level(kernel::print::SILENT);
    let (disk, sb, data) = with_a_file();
    let twin = 16384 + 200;
    let free = 60_000;
    let forged = [200, sb.log_start + 5, twin, free];
    // Each by itself, as an entry and as a node that cannot be read.
    for (i, addr) in forged.into_iter().chain([data]).enumerate() {
        for node in [false, true] {
            // That it is in use proves nothing; and no pointer leads to the first superblocks.
            if (addr == data && !node) || (addr < 256 && node) {
                continue;
            }
            let disk = disk.fork();
            match node {
                false => defer(&disk, &[addr]),
                true => {
                    let mut sb =
                        Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason));
                    let mut root = sb.deferred_root.unwrap_or(sb.ag_root.unwrap());
                    root.addr = addr;
                    sb.deferred_root = Some(root);
                    sb.write(&disk.device()).unwrap();
                }
            }
            let before = disk.image().get(&addr).map(|d| d.to_vec());
            let dev = disk.device();
            let fs = mount(&disk);
            let root = fs.iget(fs.root_ino()).unwrap();
            let f = fs
                .iget(fs.lookup(&root, b"f").unwrap().unwrap().ino)
                .unwrap();
            for n in 0..8 {
                write(&dev, &fs, &f, 10 + n, &[n]).unwrap();
                fs.sync().unwrap();
                let is_log = addr == forged[1];
                let now = disk.image().get(&addr).map(|d| d.to_vec());
                let node_there = now.as_ref().is_some_and(|d| d.starts_with(b"ORDN"));
                assert!(!node_there, "{i} {node}: a node at {addr}");
                assert!(
                    is_log || addr == free || now == before,
                    "{i} {node}: {addr} has changed"
                );
            }
            assert_eq!(read(&dev, &fs, &f, 0), Ok(Some(1)));
            fs.iput(f);
            fs.iput(root);
            fs.unmount().unwrap();
        }
    }
}

/// A read of the root that fails twice, and not a third time, loses nothing.
#[test]
fn a_deferred_tree_that_can_be_read_later_is_not_lost() {
    kernel::print::set_level(kernel::print::SILENT);
    let (disk, sb, _) = with_a_file();
    let addr = sb.deferred_root.unwrap().addr;
    let left = AtomicU32::new(2);
    let one_less = |n: u32| n.checked_sub(1);
    let dev = hooked(&disk, move |ask| match ask {
        Ask::Read(b) if b == addr => left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .map_or(Ok(()), |_| Err(EIO)),
        _ => Ok(()),
    });
    let fs = mount_on(dev);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"g", &regular()).unwrap();
    fs.iput(f);
    fs.iput(root);
    at_rest(&disk, &fs);
    fs.unmount().unwrap();
}
