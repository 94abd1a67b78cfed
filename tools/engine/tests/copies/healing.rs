// SPDX-License-Identifier: GPL-2.0

//! When a bad copy is written again, and what that may hold up.

use crate::census::{Census, OnDisk};
use crate::common::*;
use crate::disk::*;
use ordofs_engine::engine::btree::TreeKind;
use ordofs_engine::engine::format::group::full_record;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::vec::Vec;

/// The first copies of all nodes at once, and of every second node the other one: a read-only mount
/// reads everything and writes nothing.
#[test]
fn a_read_only_mount_reads_the_good_copies_and_heals_nothing() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = settled(&furnished());
    let all = fsck(&disk);
    for (i, n) in Census::of(&disk).nodes.values().enumerate() {
        disk.corrupt(if i % 3 == 0 { n.addr2 } else { n.addr }, 100, 4);
    }
    let before = disk.image();
    for recovery in [true, false] {
        let fs = Fs::mount(disk.device(), crate::common::log::read_only(recovery));
        let fs = fs.unwrap_or_else(|e| panic!("{}", e.reason));
        assert_eq!(unreadable(&fs, &disk.device(), &all), BTreeSet::new());
        assert!(fs.node_store().bad_copies().reads() > 10);
        fs.heal(&|| false);
        let (s, _) = scrub(&fs);
        assert!(s.bad_copies > 10 && s.healed == 0, "{s:?}");
        fs.unmount().unwrap();
        assert!(disk.image() == before);
    }
    // A mount that may write heals what it has read, a few in each round; a scrub the rest.
    let fs = mount(&disk);
    assert_eq!(unreadable(&fs, &disk.device(), &all), BTreeSet::new());
    fs.heal(&|| false);
    let first = fs.node_store().bad_copies().healed();
    assert!(first > 0 && first <= 16, "{first}");
    (0..8).for_each(|_| fs.heal(&|| false));
    let healed = fs.node_store().bad_copies().healed();
    // Before a copy is written, the records of space are asked whether its block is in use. So
    // healing comes upon bad copies itself, of nodes that no reader of files needs, and heals them
    // in a later round.
    let reads = fs.node_store().bad_copies().reads();
    assert!(reads < 64, "{reads} do not fit in the notes");
    assert_eq!(healed, reads);
    let (s, _) = scrub(&fs);
    assert_eq!(s.healed, s.bad_copies);
    fs.unmount().unwrap();
    assert_eq!(problems(&disk), Vec::<String>::new());
}

/// A disk without a free block: a copy is healed in its place.
#[test]
fn healing_needs_no_space() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(1 << 16);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let mut at = 0;
    for n in (0..16).rev().map(|bit| 1 << bit) {
        while fs.preallocate(&f, at, n, None).is_ok() {
            at += n;
        }
    }
    fs.iput(f);
    fs.iput(root);
    fs.sync().unwrap();
    let free = fs.statfs().bavail;
    assert!(free < 40, "{free}");
    fs.unmount().unwrap();
    let all = fsck(&disk);
    let census = Census::of(&disk);
    let copy = |n: &OnDisk| if n.addr % 2 == 0 { n.addr } else { n.addr2 };
    census
        .nodes
        .values()
        .for_each(|n| disk.corrupt(copy(n), 99, 1));
    let fs = mount(&disk);
    assert_eq!(unreadable(&fs, &disk.device(), &all), BTreeSet::new());
    fs.heal(&|| false);
    scrub(&fs);
    // And a commit that needs all that was damaged.
    let root = fs.iget(fs.root_ino()).unwrap();
    let e = fs.lookup(&root, b"f").unwrap().unwrap();
    let f = fs.iget(e.ino).unwrap();
    fs.unlink(&root, b"f", &f).unwrap();
    fs.iput(root);
    fs.delete_inode(f).unwrap();
    at_rest(&disk, &fs);
    fs.unmount().unwrap();
    assert_eq!(problems(&disk), Vec::<String>::new());
}

/// A copy that the device does not write: no commit fails for that, and no reader makes it try
/// again. A scrub does, once.
#[test]
fn a_copy_that_cannot_be_healed_is_not_tried_again_and_stops_no_commit() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = settled(&furnished());
    let all = fsck(&disk);
    let census = Census::of(&disk);
    let node = census
        .nodes
        .values()
        .find(|n| n.id.kind == TreeKind::Extent)
        .unwrap();
    disk.corrupt(node.addr, 50, 1);
    let (dev, faults) = faulty(&disk);
    faults.lock().unwrap().stuck.insert(node.addr);
    let fs = mount_on(dev);
    let writes = || faults.lock().unwrap().writes.get(&node.addr).copied();
    for round in 1..5u64 {
        fs.shrink_scan(u64::MAX);
        assert_eq!(unreadable(&fs, &disk.device(), &all), BTreeSet::new());
        assert!(fs.node_store().bad_copies().reads() >= round);
        fs.heal(&|| false);
        assert_eq!(writes(), Some(1), "round {round}");
        let root = fs.iget(fs.root_ino()).unwrap();
        let name = format!("new {round}");
        fs.iput(fs.create(&root, name.as_bytes(), &regular()).unwrap());
        fs.iput(root);
        fs.sync().unwrap();
    }
    assert_eq!(fs.node_store().bad_copies().failed(), 1);
    assert_eq!(scrub(&fs).0.healed, 0);
    assert_eq!(writes(), Some(2));
    faults.lock().unwrap().stuck.clear();
    assert_eq!(scrub(&fs).0.healed, 1);
    fs.unmount().unwrap();
    assert_eq!(problems(&disk), Vec::<String>::new());
}

/// While healing waits for the device, others commit. After that it rests.
#[test]
fn commits_do_not_wait_for_reads_of_healing() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = settled(&furnished());
    let all = fsck(&disk);
    let census = Census::of(&disk);
    let is_dir = |n: &&OnDisk| n.id.kind == TreeKind::Dir && n.id.owner != 2;
    let nodes: Vec<&OnDisk> = census.nodes.values().filter(is_dir).collect();
    assert!(nodes.len() >= 2);
    nodes.iter().for_each(|n| disk.corrupt(n.addr, 50, 1));
    let (dev, faults) = faulty(&disk);
    let fs = mount_on(dev);
    assert_eq!(unreadable(&fs, &disk.device(), &all), BTreeSet::new());
    assert!(fs.node_store().bad_copies().reads() >= 2);
    faults
        .lock()
        .unwrap()
        .held
        .extend(nodes.iter().map(|n| n.addr));
    std::thread::scope(|s| {
        s.spawn(|| fs.heal(&|| false));
        while faults.lock().unwrap().waiting == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let root = fs.iget(fs.root_ino()).unwrap();
        for n in 0..3 {
            let f = fs.create(&root, format!("new {n}").as_bytes(), &regular());
            fs.iput(f.unwrap());
            fs.sync().unwrap();
        }
        fs.iput(root);
        assert_eq!(fs.node_store().bad_copies().healed(), 0);
        // Longer than it may take.
        std::thread::sleep(Duration::from_millis(4100));
        faults.lock().unwrap().held.clear();
    });
    // The one that it was at, although commits came between; no other one.
    assert_eq!(fs.node_store().bad_copies().healed(), 1);
    fs.heal(&|| false);
    assert_eq!(fs.node_store().bad_copies().healed(), 1);
    let (s, _) = scrub(&fs);
    assert_eq!((s.healed, s.lost_nodes), (nodes.len() as u64 - 1, 0));
    fs.unmount().unwrap();
    assert_eq!(problems(&disk), Vec::<String>::new());
}

/// A note outlives its node: the blocks have other content by the time it is taken.
#[test]
fn a_note_of_a_node_that_was_replaced_is_dropped() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = settled(&furnished());
    let dev = disk.device();
    let sb = superblock(&disk);
    let census = Census::of(&disk);
    let owner = census
        .nodes
        .values()
        .find(|n| n.id.kind == TreeKind::Extent)
        .unwrap()
        .id
        .owner;
    let nodes = census.nodes.values().filter(|n| n.id.owner == owner);
    nodes.for_each(|n| disk.corrupt(n.addr, 50, 1));
    let (counting, faults) = faulty(&disk);
    let fs = mount_on(counting);
    let f = fs.iget(owner).unwrap();
    (0..400).for_each(|i| assert!(read(&dev, &fs, &f, i * 5).unwrap().is_some()));
    assert!(fs.node_store().bad_copies().reads() > 2);
    // All its nodes are replaced, and their blocks get data.
    fs.set_size(&f, 0).unwrap();
    fs.sync().unwrap();
    let root = fs.iget(fs.root_ino()).unwrap();
    let big = fs.create(&root, b"big", &regular()).unwrap();
    let mut at = 0;
    while write(&dev, &fs, &big, at, &[at; 64]).is_ok() {
        at += 64;
    }
    fs.sync().unwrap();
    faults.lock().unwrap().writes.clear();
    fs.heal(&|| false);
    assert_eq!(fs.node_store().bad_copies().healed(), 0);
    assert_eq!(faults.lock().unwrap().writes.len(), 0);
    (0..at).for_each(|b| assert_eq!(read(&dev, &fs, &big, b), Ok(Some(b / 64 * 64))));
    fs.iput(big);
    fs.iput(root);
    fs.iput(f);
    at_rest(&disk, &fs);
    fs.unmount().unwrap();
    assert_eq!(copies(&sb), 2);
}

/// A node of a directory below the root, the first copy of which is damaged and was read, on a
/// mount that has nothing else in its cache.
fn noted() -> (MemDisk, Shared<Fs>, Arc<Mutex<Faults>>, OnDisk, Content) {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = settled(&furnished());
    let all = fsck(&disk);
    let census = Census::of(&disk);
    let is_dir = |n: &OnDisk| n.id.kind == TreeKind::Dir && n.id.owner != 2 && n.level == 0;
    let node = census.nodes.into_values().find(is_dir).unwrap();
    disk.corrupt(node.addr, 50, 1);
    let (dev, faults) = faulty(&disk);
    let fs = mount_on(dev);
    assert_eq!(unreadable(&fs, &disk.device(), &all), BTreeSet::new());
    assert_eq!(fs.node_store().bad_copies().reads(), 1);
    fs.shrink_scan(u64::MAX);
    *faults.lock().unwrap() = Faults::default();
    (disk, fs, faults, node, all)
}

/// While a filesystem is frozen, neither the commit thread nor a scrub writes.
#[test]
fn nothing_is_healed_while_the_filesystem_is_frozen() {
    let (_disk, fs, faults, node, _) = noted();
    fs.sync().unwrap();
    fs.pause_healing(true);
    faults.lock().unwrap().writes.clear();
    fs.heal(&|| false);
    let (s, _) = scrub(&fs);
    assert_eq!((s.bad_copies, s.healed), (1, 0));
    assert_eq!(faults.lock().unwrap().writes, BTreeMap::new());
    // Neither has forgotten it.
    fs.pause_healing(false);
    fs.heal(&|| false);
    assert_eq!(fs.node_store().bad_copies().healed(), 1);
    assert!(faults.lock().unwrap().writes.keys().eq([&node.addr]));
    assert_eq!(scrub(&fs).0.bad_copies, 0);
    fs.unmount().unwrap();
}

/// Healing reads the copies of its node once, and one copy of each node above, at most once.
#[test]
fn healing_reads_little_and_ends_when_it_is_told() {
    let (disk, fs, faults, node, all) = noted();
    // Before the first read, and then one read later each time.
    let asked = AtomicU64::new(0);
    for limit in 0..3u64 {
        asked.store(0, Ordering::Relaxed);
        let before = faults.lock().unwrap().reads.values().sum::<u32>();
        let stop = || asked.fetch_add(1, Ordering::Relaxed) >= limit;
        fs.heal(&stop);
        let reads = faults.lock().unwrap().reads.values().sum::<u32>() - before;
        assert!(u64::from(reads) <= limit, "{reads} reads, limit {limit}");
        assert_eq!(fs.node_store().bad_copies().healed(), 0);
        // It may have dropped the note.
        assert_eq!(unreadable(&fs, &disk.device(), &all), BTreeSet::new());
        fs.shrink_scan(u64::MAX);
    }
    faults.lock().unwrap().reads.clear();
    fs.heal(&|| false);
    assert_eq!(fs.node_store().bad_copies().healed(), 1);
    let reads = faults.lock().unwrap().reads.clone();
    println!("{reads:?}");
    assert_eq!(
        [reads.get(&node.addr), reads.get(&node.addr2)],
        [Some(&1); 2]
    );
    assert!(reads.values().all(|n| *n == 1), "{reads:?}");
    fs.unmount().unwrap();
}

/// On a filesystem with a commit in each look, the copy is healed all the same, and nothing is read
/// twice.
#[test]
fn healing_gets_on_beside_commits() {
    let (disk, fs, faults, node, _) = noted();
    faults.lock().unwrap().held.insert(node.addr2);
    std::thread::scope(|s| {
        s.spawn(|| fs.heal(&|| false));
        while faults.lock().unwrap().waiting == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let root = fs.iget(fs.root_ino()).unwrap();
        for n in 0..3 {
            let f = fs.create(&root, format!("new {n}").as_bytes(), &regular());
            fs.iput(f.unwrap());
            fs.sync().unwrap();
        }
        fs.iput(root);
        faults.lock().unwrap().held.clear();
    });
    assert_eq!(fs.node_store().bad_copies().healed(), 1);
    let reads = faults.lock().unwrap().reads.clone();
    assert_eq!(
        [reads.get(&node.addr), reads.get(&node.addr2)],
        [Some(&1); 2]
    );
    fs.unmount().unwrap();
    assert_eq!(problems(&disk), Vec::<String>::new());
}

/// The records of space call the block of a bad copy free, so it may have another owner: it is left
/// alone.
#[test]
fn a_block_that_is_not_in_use_by_its_record_is_left_alone() {
    kernel::print::set_level(kernel::print::SILENT);
    let whole = settled(&furnished());
    let sb = superblock(&whole);
    let census = Census::of(&whole);
    let mut nodes = census.nodes.values();
    let node = nodes.find(|n| n.id.kind == TreeKind::Extent).unwrap();
    whole.corrupt(node.addr2, 50, 1);
    let (ag, block) = (node.addr2 / sb.ag_blocks, node.addr2 % sb.ag_blocks);
    assert!(block < 3 * 8192 && sb.ag_len(ag as u32) == 4 * 8192);
    for lies in [false, true] {
        let disk = whole.fork();
        if lies {
            let record = || crate::ags::Ag {
                free: 3 * 8192,
                longest: 3 * 8192,
                groups: vec![(3, full_record(1).to_vec())],
            };
            crate::ags::rewrite(&disk, |i| (i == ag).then(record));
        }
        let before = disk.image()[&node.addr2].clone();
        let fs = mount(&disk);
        let (s, _) = scrub(&fs);
        assert_eq!((s.bad_copies, s.healed), (1, u64::from(!lies)));
        assert_eq!(disk.image()[&node.addr2] == before, lies);
        fs.abort("the power is cut");
    }
}
