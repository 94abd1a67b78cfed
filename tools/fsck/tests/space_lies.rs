// SPDX-License-Identifier: GPL-2.0

//! Lies about space, with right checksums and right sums: what the checker says, and that a mount
//! that writes does no harm. The checker writes nothing.

mod make;

use make::*;
use ordofs_engine::engine::alloc::ag::FreedBy;
use ordofs_engine::engine::alloc::Space;
use ordofs_engine::engine::btree::{NodeStore, Tree, TreeId, TreeKind};
use ordofs_engine::engine::format::group::full_record;
use ordofs_engine::engine::format::places::areas;
use ordofs_engine::engine::format::{NodePtr, Superblock, GROUP_BLOCKS};
use ordofs_engine::engine::{Fs, MountOptions, NewInode, S_IFREG};
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{crc32c, Block, Shared};
use std::num::NonZeroU64;

fn superblock(disk: &MemDisk) -> Superblock {
    Superblock::read(&disk.device()).unwrap_or_else(|e| panic!("{}", e.reason))
}

fn mount(disk: &MemDisk) -> Shared<Fs> {
    Fs::mount(disk.device(), MountOptions::default()).unwrap_or_else(|e| panic!("{}", e.reason))
}

/// Makes a file with blocks, and commits.
fn work(fs: &Shared<Fs>) {
    let root = fs.iget(fs.root_ino()).unwrap();
    let regular = NewInode {
        mode: S_IFREG | 0o644,
        ..Default::default()
    };
    let f = fs.create(&root, b"f", &regular).unwrap();
    fs.preallocate(&f, 0, 5000, None).unwrap();
    for i in 0..100 {
        fs.punch(&f, 3 * i, 1).unwrap();
    }
    fs.sync().unwrap();
    fs.iput(f);
    fs.iput(root);
}

/// The complaints, one of which has these words. The check has written nothing.
fn told(disk: &MemDisk, words: &str) {
    let before = disk.image();
    let all = complaints(disk);
    assert!(all.iter().any(|l| l.contains(words)), "{words:?}: {all:#?}");
    assert!(disk.image() == before, "the check wrote");
}

/// Blocks of the superblocks and of the log in group 0 of the filesystem of these tests.
const FIXED: u32 = 256 + 781;

#[test]
fn nothing_is_allocated_where_fixed_areas_seem_free() {
    let mut make = of_all_forms();
    make.groups = |ag, items| items.retain(|(g, _)| ag != 0 || *g != 0);
    make.ag = |ag, rec| rec.free += if ag == 0 { FIXED } else { 0 };
    make.sb = |sb| sb.free += u64::from(FIXED);
    let disk = make.on_disk();
    told(
        &disk,
        "blocks 0..256: belong to an area of superblocks but are marked free",
    );
    let fs = mount(&disk);
    work(&fs);
    fs.unmount().unwrap();
    let sb = superblock(&disk);
    let log = sb.log_start..sb.log_start + sb.log_len;
    let nodes = disk.image();
    let mut nodes = nodes.iter().filter(|(_, d)| d.starts_with(b"ORDN"));
    let fixed = |b: u64| log.contains(&b) || areas(sb.blocks).any(|a| (a..a + 256).contains(&b));
    assert_eq!(nodes.find(|(b, _)| fixed(**b)).map(|(b, _)| b), None);
}

#[test]
fn a_group_in_two_records_costs_its_ag() {
    let mut make = of_all_forms();
    // Group 3 has a record of its own.
    make.groups = |ag, items| {
        if ag == 2 {
            items[0].1 = full_record(4).to_vec();
        }
    };
    make.ag = |ag, rec| {
        if ag == 2 {
            rec.free -= GROUP_BLOCKS as u32;
            rec.longest -= 1;
        }
    };
    make.sb = |sb| sb.free -= GROUP_BLOCKS;
    let disk = make.on_disk();
    told(
        &disk,
        "allocation group 2, group 3: it is in the record before",
    );
    let sb = superblock(&disk);
    let dev = Shared::new(disk.device()).unwrap();
    let st = NodeStore::new(dev, sb.node_id, 64).unwrap().confine(&sb);
    let tree = Tree::from_ptr(TreeId::new(TreeKind::Ag, 0), sb.ag_root.unwrap());
    let ag_blocks = NonZeroU64::new(sb.ag_blocks).unwrap();
    let space = Space::new(tree, ag_blocks, sb.blocks, sb.free, sb.copies).unwrap();
    space.read(&st).unwrap();
    let free = |ag: u64, g: u64| {
        let block = ag * sb.ag_blocks + g * GROUP_BLOCKS;
        space.free(&st, block, 1, FreedBy::Running).unwrap();
        space.leaked()
    };
    assert_eq!(free(3, 0), 0);
    assert_eq!(free(2, 3), 1);
    assert_eq!(free(2, 0), 2);
}

/// A block of the inode tree, of superblocks, of the log, and one that is free.
#[test]
fn deferred_entries_that_are_in_use() {
    for (address, words) in [
        (
            20_000,
            "block 20000: used by the deferred tree and by inode tree of 0",
        ),
        (
            16_400,
            "block 16400: used by the deferred tree and by an area of superblocks",
        ),
        (300, "block 300: used by the deferred tree and by the log"),
    ] {
        let mut make = of_all_forms();
        make.deferred.push(address);
        told(&make.on_disk(), words);
    }
}

/// Changes a node, and the pointer to it in the superblock.
fn with_root(disk: &MemDisk, root: NodePtr, change: impl Fn(&mut Block)) -> NodePtr {
    let mut b = Block::zeroed().unwrap();
    disk.device().read(root.addr, &mut b).unwrap();
    change(&mut b);
    let crc = crc32c(0, &b[8..]);
    b[4..8].copy_from_slice(&crc.to_le_bytes());
    disk.device().write(&[(root.addr, &b)]).unwrap();
    NodePtr { crc, ..root }
}

/// Trees that share nodes, or that lead back to themselves.
#[test]
fn shared_and_cyclic_nodes_are_refused() {
    let mut make = Make::new(1 << 28);
    make.nodes = 40_000;
    let good = make.on_disk();
    let sb = superblock(&good);
    let root = sb.ag_root.unwrap();
    let entry = |i: usize| 64 + 56 * i + 8..64 + 56 * i + 8 + 32;
    // The second child is the first one.
    let twice = |b: &mut Block| b.copy_within(entry(0), entry(1).start);
    // A child is its own parent. No checksum can be right then.
    let itself = |b: &mut Block| {
        let ptr = NodePtr { level: 0, ..root };
        b[entry(1)].copy_from_slice(&ptr.to_bytes());
    };
    let changes: [(&dyn Fn(&mut Block), &str); 2] =
        [(&twice, "..=0xb2 are lost"), (&itself, "unreadable")];
    for (change, words) in changes {
        let disk = good.fork();
        let mut sb = sb.clone();
        sb.ag_root = Some(with_root(&disk, root, change));
        sb.write(&disk.device()).unwrap();
        told(&disk, words);
        let fs = mount(&disk);
        work(&fs);
        assert!(!fs.is_shutdown());
        fs.unmount().unwrap();
    }
    // A tree is also another one.
    let disk = good.fork();
    let mut sb = sb.clone();
    sb.deferred_root = sb.ag_root;
    sb.write(&disk.device()).unwrap();
    told(&disk, "deferred tree of 0, node at block");
    let fs = mount(&disk);
    work(&fs);
    assert!(!fs.is_shutdown());
    fs.unmount().unwrap();
}

#[test]
fn a_device_that_shrank_is_refused_and_left_alone() {
    let disk = of_all_forms().on_disk();
    let small = MemDisk::from_image(99_999, disk.image());
    let before = small.image();
    for e in [
        ordofs_fsck::check(small.device(), ordofs_fsck::Options::default()).err(),
        Fs::mount(small.device(), MountOptions::default()).err(),
    ] {
        let reason = e.expect("refused").reason;
        assert!(reason.contains("smaller than the filesystem"), "{reason}");
    }
    assert!(small.image() == before);
}
