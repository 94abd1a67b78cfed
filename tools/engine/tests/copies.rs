// SPDX-License-Identifier: GPL-2.0

//! Second copies of nodes: damage of one copy loses nothing and is healed, damage of both loses what is
//! under that node and nothing else.

#![allow(clippy::unwrap_used)]

#[path = "support/ags.rs"]
mod ags;
#[allow(dead_code)]
#[path = "support/census.rs"]
mod census;
mod common;
#[allow(dead_code)]
#[path = "support/counting.rs"]
mod counting;

use census::{Census, OnDisk};
use common::*;
use kernel::prelude::{Result, EIO};
use ordofs_engine::engine::btree::{NodeStore, Tree, TreeKind, WalkItem};
use ordofs_engine::engine::format::group::full_record;
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::ops::scrub::{From, Go};
use ordofs_engine::engine::state::scrub::{Damage, ScrubStatus};
use ordofs_engine::engine::volume::mkfs::default_copies;
use ordofs_engine::engine::*;
use ordofs_engine::os::map::steps as map_steps;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Backend, Device, Shared};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::vec::Vec;

/// What a device does wrong.
#[derive(Default)]
struct Faults {
    /// Blocks that cannot be read until they are written.
    unreadable: BTreeSet<u64>,
    /// Blocks that cannot be written.
    stuck: BTreeSet<u64>,
    /// The reads and the writes of each block.
    reads: BTreeMap<u64, u32>,
    writes: BTreeMap<u64, u32>,
    /// Blocks of which a read does not end, and how many such reads there were.
    held: BTreeSet<u64>,
    waiting: u32,
    /// What had been written at each flush.
    at_flush: Vec<BTreeSet<u64>>,
}

struct Faulty(MemDisk, Arc<Mutex<Faults>>);

impl Backend for Faulty {
    fn blocks(&self) -> u64 {
        self.0.blocks()
    }
    fn readonly(&self) -> bool {
        false
    }
    fn read(&self, block: u64, buf: &mut [u8; 4096]) -> Result {
        *self.1.lock().unwrap().reads.entry(block).or_default() += 1;
        if self.1.lock().unwrap().held.contains(&block) {
            self.1.lock().unwrap().waiting += 1;
            while self.1.lock().unwrap().held.contains(&block) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if self.1.lock().unwrap().unreadable.contains(&block) {
            return Err(EIO);
        }
        self.0.read(block, buf)
    }
    fn write(&self, block: u64, data: &[u8; 4096]) -> Result {
        let mut f = self.1.lock().unwrap();
        *f.writes.entry(block).or_default() += 1;
        if f.stuck.contains(&block) {
            return Err(EIO);
        }
        f.unreadable.remove(&block);
        drop(f);
        self.0.write(block, data)
    }
    fn flush(&self) -> Result {
        let mut f = self.1.lock().unwrap();
        let written = f.writes.keys().copied().collect();
        f.at_flush.push(written);
        self.0.flush()
    }
    fn write_fua(&self, block: u64, data: &[u8; 4096]) -> Result {
        self.0.write_fua(block, data)
    }
    fn discard(&self, start: u64, len: u64) -> Result {
        self.0.discard(start, len)
    }
}

fn faulty(disk: &MemDisk) -> (Device, Arc<Mutex<Faults>>) {
    let faults = Arc::<Mutex<Faults>>::default();
    (Device::new(Faulty(disk.clone(), faults.clone())), faults)
}

/// A small device with a tree of each kind that is on nodes. The inode tree, an extent tree, a directory
/// and a tree of groups have several levels or leaves.
fn furnished() -> MemDisk {
    let disk = make(1 << 17);
    let fs = mount(&disk);
    let dev = disk.device();
    let root = fs.iget(fs.root_ino()).unwrap();
    let dir = fs.create(&root, b"dir", &file(S_IFDIR | 0o755)).unwrap();
    for n in 0..100u64 {
        let name = format!("a file with a rather long name, number {n}");
        let f = fs.create(&dir, name.as_bytes(), &regular()).unwrap();
        if n < 3 {
            (0..400).for_each(|i| write(&dev, &fs, &f, i * 5, &[n * 1000 + i]).unwrap());
            for x in 0..4u8 {
                let (name, value) = ([b'x', b'a' + x], [x; 900]);
                fs.set_xattr(&f, 1, &name, Some(&value), XattrSet::Any)
                    .unwrap();
            }
        }
        fs.iput(f);
    }
    // Groups with bitmaps.
    let f = fs.create(&root, b"holes", &regular()).unwrap();
    fs.preallocate(&f, 0, 5 * 8192, None).unwrap();
    for g in 0..5 {
        (0..70).for_each(|i| fs.punch(&f, g * 8192 + 2 * i, 1).unwrap());
    }
    fs.iput(f);
    fs.iput(dir);
    // An orphan.
    let gone = fs.create(&root, b"gone", &regular()).unwrap();
    fs.sync().unwrap();
    fs.unlink(&root, b"gone", &gone).unwrap();
    fs.sync().unwrap();
    let crashed = disk.fork();
    fs.abort("the power is cut");
    crashed
}

/// Everything that is to be found on it.
type Content = BTreeMap<u64, Found>;

/// Reads everything through the mount. Returns the inodes of which something cannot be read; what can be
/// read must be right.
fn unreadable(fs: &Shared<Fs>, dev: &Device, all: &Content) -> BTreeSet<u64> {
    let mut bad = BTreeSet::new();
    for (ino, found) in all.iter().filter(|(_, f)| !f.orphan) {
        let Ok(inode) = fs.iget(*ino) else {
            bad.insert(*ino);
            continue;
        };
        let names = found.names.iter().all(|(name, to)| {
            fs.lookup(&inode, name)
                .is_ok_and(|e| e.is_some_and(|e| e.ino == *to))
        });
        let blocks = found.blocks.iter().all(|(b, seed)| {
            let r = read(dev, fs, &inode, *b);
            assert!(r.is_err() || r == Ok(Some(*seed)), "inode {ino} block {b}");
            r.is_ok()
        });
        // The records of preallocated blocks.
        let mut at = 0;
        let end = found.size / 4096 + 50_000;
        let mut extents = true;
        while at < end && extents {
            match fs.map_read(&inode, at, end - at) {
                Ok(m) => at += m.len,
                Err(_) => extents = false,
            }
        }
        let mut values = Vec::new();
        let listed = fs.list_xattr(&inode, &mut |index, name, len| {
            values.push((index, name.to_vec(), len));
            Ok(())
        });
        let values = listed.is_ok()
            && values.iter().all(|(index, name, len)| {
                let mut out = vec![0; *len];
                fs.get_xattr(&inode, *index, name, &mut out) == Ok(Some(*len))
            });
        if !(names && blocks && extents && values) {
            bad.insert(*ino);
        }
        fs.iput(inode);
    }
    bad
}

fn scrub(fs: &Fs) -> (ScrubStatus, Vec<Damage>) {
    let s = fs.scrub_start(From::Start, 0).unwrap();
    fs.scrub_run(s, &mut || Go::On);
    let mut list = Vec::new();
    fs.scrub_damage(0, &mut |d| {
        list.push(*d);
        true
    });
    (fs.scrub_status(), list)
}

fn copies(sb: &Superblock) -> u64 {
    sb.copies.into()
}

fn superblock(disk: &MemDisk) -> Superblock {
    Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason))
}

fn problems(disk: &MemDisk) -> Vec<String> {
    let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options { data: false });
    let report = report.unwrap_or_else(|e| panic!("{}", e.reason));
    report.problems.iter().map(|p| p.to_string()).collect()
}

/// A remount without writes: the orphan is gone, and the filesystem clean.
fn settled(disk: &MemDisk) -> MemDisk {
    let disk = disk.fork();
    mount(&disk).unmount().unwrap();
    disk
}

#[test]
fn mkfs_writes_two_copies_where_they_can_be_apart() {
    for (blocks, asked, made) in [
        (1 << 14, 0, 1),
        ((1 << 16) - 1, 0, 1),
        (1 << 16, 0, 2),
        (1 << 23, 0, 2),
        (1 << 16, 1, 1),
        (1 << 14, 2, 2),
    ] {
        let disk = MemDisk::new(blocks);
        format_with(disk.device(), asked);
        let sb = superblock(&disk);
        assert_eq!(sb.copies, made, "{blocks} blocks, {asked}");
        assert!(asked != 0 || default_copies(blocks) == made);
        let census = Census::of(&disk);
        for n in census.nodes.values() {
            assert_eq!(n.copies().count() as u8, made);
            // The AG of a few blocks at the end does not count.
            if blocks >= 1 << 16 && made == 2 {
                assert_ne!(n.addr / sb.ag_blocks, n.addr2 / sb.ag_blocks, "{n:?}");
            }
        }
        fsck(&disk);
    }
}

/// Both copies of each node of a filesystem in use are in different AGs.
#[test]
fn copies_are_in_two_ags_as_the_filesystem_grows_old() {
    let disk = furnished();
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let dev = disk.device();
    for round in 0..30u64 {
        for n in 0..20 {
            let name = format!("{n}");
            if let Some(e) = fs.lookup(&root, name.as_bytes()).unwrap() {
                let f = fs.iget(e.ino).unwrap();
                fs.unlink(&root, name.as_bytes(), &f).unwrap();
                fs.delete_inode(f).unwrap();
            }
            let f = fs.create(&root, name.as_bytes(), &regular()).unwrap();
            write(&dev, &fs, &f, 0, &vec![round; (n * 7) as usize + 1]).unwrap();
            fs.iput(f);
        }
        fs.sync().unwrap();
    }
    fs.iput(root);
    at_rest(&disk, &fs);
    fs.unmount().unwrap();
    let sb = superblock(&disk);
    for n in Census::of(&disk).nodes.values() {
        assert!(n.addr2 != 0, "{n:?}");
        assert_ne!(n.addr / sb.ag_blocks, n.addr2 / sb.ag_blocks, "{n:?}");
    }
    assert_eq!(problems(&disk), Vec::<String>::new());
}

/// How a copy is damaged.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Flip,
    Lost,
    /// The content of another node.
    Misplaced,
    Unreadable,
}

fn harm(disk: &MemDisk, faults: &Mutex<Faults>, at: u64, other: u64, how: How) {
    match how {
        How::Flip => disk.corrupt(at, (at * 7 % 4096) as usize, 1 << (at % 8)),
        How::Lost => disk
            .device()
            .write(&[(at, &kernel_block(&[0; 4096]))])
            .unwrap(),
        How::Misplaced => {
            let image = disk.image();
            let block = kernel_block(&image[&other]);
            disk.device().write(&[(at, &block)]).unwrap();
        }
        How::Unreadable => {
            faults.lock().unwrap().unreadable.insert(at);
        }
    }
}

fn kernel_block(data: &[u8; 4096]) -> ordofs_engine::os::Block {
    let mut b = ordofs_engine::os::Block::zeroed().unwrap();
    b.copy_from_slice(data);
    b
}

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

/// The first copies of all nodes at once, and of every second node the other one: a read-only mount reads
/// everything and writes nothing.
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
        let fs = Fs::mount(disk.device(), common::log::read_only(recovery));
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
    let reads = fs.node_store().bad_copies().reads();
    fs.heal(&|| false);
    let first = fs.node_store().bad_copies().healed();
    assert!(first > 0 && first <= 16, "{first}");
    (0..8).for_each(|_| fs.heal(&|| false));
    let healed = fs.node_store().bad_copies().healed();
    assert_eq!(healed, reads.min(64));
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

/// A copy that the device does not write: no commit fails for that, and no reader makes it try again. A
/// scrub does, once.
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

/// A node of a directory below the root, the first copy of which is damaged and was read, on a mount that
/// has nothing else in its cache.
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

/// On a filesystem with a commit in each look, the copy is healed all the same, and nothing is read twice.
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

/// The records of space call the block of a bad copy free, so it may have another owner: it is left alone.
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
            let record = || ags::Ag {
                free: 3 * 8192,
                longest: 3 * 8192,
                groups: vec![(3, full_record(1).to_vec())],
            };
            ags::rewrite(&disk, |i| (i == ag).then(record));
        }
        let before = disk.image()[&node.addr2].clone();
        let fs = mount(&disk);
        let (s, _) = scrub(&fs);
        assert_eq!((s.bad_copies, s.healed), (1, u64::from(!lies)));
        assert_eq!(disk.image()[&node.addr2] == before, lies);
        fs.abort("the power is cut");
    }
}

/// A search for a place costs the same however many there were before it in a commit, also if free
/// blocks are scattered, and if no other AG has one for the second copy.
#[test]
fn a_commit_does_not_search_for_each_node() {
    // 50,000 are enough; 1,900,000 if all AGs are looked at for each node.
    const STEPS: u64 = 200_000;
    use ags::{rewrite, Ag};
    use ordofs_engine::engine::format::bits::Bits;
    use ordofs_engine::engine::format::group::encode;
    const GIB: u64 = 1 << 18;
    let ags = 400;
    let disk = counting::device(|| MemDisk::new(ags * GIB));
    format_with(counting::sparse(&disk, |_| ()), 2);
    let mut used = Bits::zeroed().unwrap();
    used.set(0, 8192);
    used.clear(7, 1);
    let mut bitmap = kernel::prelude::KVec::new();
    encode(&used, 8192, &mut bitmap).unwrap();
    let mut comb = Bits::zeroed().unwrap();
    (0..4096).for_each(|i| comb.set(2 * i, 1));
    let mut holes = kernel::prelude::KVec::new();
    encode(&comb, 8192, &mut holes).unwrap();
    rewrite(&disk, |i| match i {
        // One AG has single blocks everywhere, the others a block each, or none where superblocks and
        // the log are.
        9 => Some(Ag {
            free: 32 * 4096,
            longest: 1,
            groups: (0..32).map(|g| (g, holes.to_vec())).collect(),
        }),
        _ if i % 16 == 0 => Some(Ag {
            free: 0,
            longest: 0,
            groups: vec![(0, full_record(32).to_vec())],
        }),
        _ => Some(Ag {
            free: 1,
            longest: 1,
            groups: vec![(0, bitmap.to_vec()), (1, full_record(31).to_vec())],
        }),
    });
    let fs = mount_on(counting::sparse(&disk, |_| ()));
    let root = fs.iget(fs.root_ino()).unwrap();
    for n in 0..1500 {
        // Each gets a node of its own.
        let f = fs
            .create(&root, format!("{n}").as_bytes(), &regular())
            .unwrap();
        fs.set_xattr(&f, 1, b"x", Some(&[1; 900]), XattrSet::Any)
            .unwrap();
        fs.iput(f);
    }
    let before = map_steps();
    fs.commit_all().unwrap();
    let steps = map_steps() - before;
    println!("{steps} steps");
    assert!(steps < STEPS, "{steps} steps");
    fs.iput(root);
    fs.unmount().unwrap();
}

/// The table in docs/DESIGN.md: the blocks that the commit after an operation writes, without those of the
/// superblock.
#[test]
fn what_an_operation_costs() {
    let mut table = Vec::new();
    for copies in [1, 2] {
        let disk = MemDisk::new(1 << 18);
        format_with(disk.device(), copies);
        let (dev, faults) = faulty(&disk);
        let fs = mount_on(dev);
        let data = disk.device();
        let root = fs.iget(fs.root_ino()).unwrap();
        let dir = fs.create(&root, b"dir", &file(S_IFDIR | 0o755)).unwrap();
        for n in 0..3000 {
            let f = fs.create(&dir, format!("file {n}").as_bytes(), &regular());
            fs.iput(f.unwrap());
        }
        let f = fs.create(&root, b"f", &regular()).unwrap();
        (0..2000).for_each(|i| write(&data, &fs, &f, i * 2, &[i]).unwrap());
        let blocks = || {
            faults.lock().unwrap().writes.clear();
            fs.commit_all().unwrap();
            faults.lock().unwrap().writes.len()
        };
        // Twice, so that the space trees have their two sets of blocks.
        for _ in 0..2 {
            fs.set_attrs(&f, &AttrChange::default()).unwrap();
            blocks();
        }
        let chmod = AttrChange {
            mode: Some(0o600),
            ..AttrChange::default()
        };
        fs.set_attrs(&f, &chmod).unwrap();
        let mut costs = std::vec![("chmod", blocks())];
        let new = fs.create(&dir, b"new", &regular()).unwrap();
        costs.push(("create", blocks()));
        write(&data, &fs, &f, 5000, &[1]).unwrap();
        costs.push(("append", blocks()));
        (0..2000).for_each(|i| write(&data, &fs, &f, i * 2, &[i + 1]).unwrap());
        costs.push(("overwrite", blocks()));
        fs.unlink(&dir, b"new", &new).unwrap();
        fs.delete_inode(new).unwrap();
        costs.push(("unlink", blocks()));
        fs.iput(f);
        fs.iput(dir);
        fs.iput(root);
        fs.unmount().unwrap();
        table.push(costs);
    }
    for (one, two) in table[0].iter().zip(&table[1]) {
        println!("{}: {} and {} blocks", one.0, one.1, two.1);
        assert!(
            two.1 % 2 == 0 && two.1 >= 2 * one.1 && two.1 <= 2 * one.1 + 12,
            "{one:?} {two:?}"
        );
    }
}

/// Both copies of each node are written before the flush of the commit.
#[test]
fn both_copies_are_written_before_the_flush() {
    let disk = make(1 << 16);
    let (dev, faults) = faulty(&disk);
    let fs = mount_on(dev);
    let root = fs.iget(fs.root_ino()).unwrap();
    fs.iput(fs.create(&root, b"f", &regular()).unwrap());
    *faults.lock().unwrap() = Faults::default();
    let before = disk.image();
    fs.commit_all().unwrap();
    fs.iput(root);
    let faults = faults.lock().unwrap();
    let written = faults.at_flush.first().unwrap();
    let mut new = 0;
    for n in Census::of(&disk).nodes.values() {
        let [a, b] = [n.addr, n.addr2].map(|at| written.contains(&at));
        assert_eq!(a, b, "{n:?}");
        assert!(disk.image()[&n.addr] == disk.image()[&n.addr2], "{n:?}");
        let changed = before.get(&n.addr) != disk.image().get(&n.addr);
        assert!(a || !changed, "{n:?}");
        new += u32::from(a);
    }
    assert!(new >= 3, "{new}");
}

/// Numbers of copies that this code does not know are refused by name.
#[test]
fn another_number_of_copies_is_refused() {
    kernel::print::set_level(kernel::print::SILENT);
    for number in [0u8, 3, 255] {
        let mut b = [0; 4096];
        let mut sb = superblock(&make(1 << 14));
        sb.generation = 3;
        sb.encode(0, &mut b);
        b[210] = number;
        format::superblock::seal(&mut b, 3);
        let refused = Superblock::decode(&b).err().unwrap();
        assert!(
            refused.reason.contains("copies of nodes"),
            "{}",
            refused.reason
        );
    }
}
