// SPDX-License-Identifier: GPL-2.0

//! Damage that no checksum gives away, and damage to the account of space: numbers that cannot be are refused with
//! EUCLEAN; files can be read without the AG tree, and a damaged record costs its allocation group.

mod common;
#[path = "support/forge.rs"]
#[allow(dead_code)]
mod forge;

use common::hooked::{hooked, Ask};
use common::log::read_only;
use common::{make_single, mount, read, regular, write};
use forge::leaf;
use kernel::error::code::{EIO, ENOSPC, EUCLEAN};
use ordofs_engine::engine::volume::mount::read_superblock;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

const INODE: u8 = 1;
const EXTENT: u8 = 3;
const AGS: u8 = 6;
const GROUPS: u8 = 7;

fn lookup(fs: &Shared<Fs>, name: &[u8]) -> Option<Shared<Inode>> {
    let root = fs.iget(fs.root_ino()).unwrap();
    let found = fs.lookup(&root, name).unwrap();
    fs.iput(root);
    found.map(|e| fs.iget(e.ino).unwrap())
}

/// Blocks with nodes of that kind that the newest generation refers to.
fn nodes(disk: &MemDisk, kind: u8) -> Vec<u64> {
    let image = disk.image();
    let found = image
        .iter()
        .filter(|(_, d)| d.starts_with(b"ORDN") && d[40] == kind);
    let found = found.map(|(b, _)| *b).filter(|b| {
        let d = disk.fork();
        d.corrupt(*b, 100, 1);
        let report = ordofs_fsck::check(d.device(), ordofs_fsck::Options::default());
        !report.unwrap().is_clean()
    });
    found.collect()
}

#[test]
fn reading_needs_no_allocation_tree() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make_single(1 << 14);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    write(&disk.device(), &fs, &f, 0, &[1, 2, 3]).unwrap();
    fs.sync().unwrap();
    let committed = disk.fork();
    let late = fs.create(&root, b"late", &regular()).unwrap();
    write(&disk.device(), &fs, &late, 0, &[4]).unwrap();
    fs.sync_inode(&late).unwrap();
    for (disk, logged) in [(committed, false), (disk.fork(), true)] {
        let bfree = mount(&disk.fork()).statfs().bfree;
        for node in nodes(&disk, AGS) {
            disk.corrupt(node, 100, 1);
        }
        let before = disk.image();
        let refused = Fs::mount(disk.device(), MountOptions::default()).err();
        assert_eq!(refused.expect("mounted").error, EUCLEAN);
        for recovery in [true, false] {
            let fs = Fs::mount(disk.device(), read_only(recovery))
                .unwrap_or_else(|e| panic!("recovery {recovery}: {}", e.reason));
            let f = lookup(&fs, b"f").expect("f");
            for (block, seed) in (0..).zip([1, 2, 3]) {
                assert_eq!(read(&disk.device(), &fs, &f, block), Ok(Some(seed)));
            }
            let late = lookup(&fs, b"late");
            assert_eq!(late.is_some(), logged && recovery);
            if let Some(late) = late {
                assert_eq!(read(&disk.device(), &fs, &late, 0), Ok(Some(4)));
                assert_eq!(fs.forbidden().map(|e| e.error), Some(EUCLEAN));
            }
            assert!(fs.statfs().bfree.abs_diff(bfree) < 100, "{:?}", fs.statfs());
            fs.unmount().unwrap();
        }
        assert!(disk.image() == before, "somebody has written");
    }
}

/// A filesystem of 1 GiB with a file in each of its 8 allocation groups, and with bitmaps for all
/// groups of the first two: every other block of a part of them is free.
fn fragmented() -> MemDisk {
    let disk = make_single(1 << 18);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let holes = fs.create(&root, b"holes", &regular()).unwrap();
    fs.preallocate(&holes, 0, 2 << 15, None).unwrap();
    for group in 0..8 {
        for i in 0..100 {
            fs.punch(&holes, group * 8192 + 2 * i, 1).unwrap();
        }
    }
    fs.iput(holes);
    for i in 0..40 {
        let f = fs
            .create(&root, format!("f{i}").as_bytes(), &regular())
            .unwrap();
        fs.preallocate(&f, 0, 3000, None).unwrap();
        write(&disk.device(), &fs, &f, 6000, &[i]).unwrap();
        fs.iput(f);
    }
    fs.iput(root);
    fs.unmount().unwrap();
    disk
}

/// Fills a file from block `at` on until there is no space. Returns where it ends.
fn fill(fs: &Shared<Fs>, f: &Shared<Inode>, mut at: u64) -> u64 {
    for step in [1000, 10, 1] {
        loop {
            match fs.preallocate(f, at, step, None) {
                Ok(()) => at += step,
                Err(e) => {
                    assert_eq!(e, ENOSPC);
                    fs.sync().unwrap();
                    break;
                }
            }
        }
    }
    at
}

#[test]
fn a_damaged_bitmap_costs_its_allocation_group() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = fragmented();
    // A leaf with group records, and not of the first group, where nodes are.
    let image = disk.image();
    let bitmaps = nodes(&disk, GROUPS).into_iter().find(|b| {
        let items = leaf(&image[b], GROUPS);
        !items.is_empty() && items.iter().all(|i| i.key > 0)
    });
    let bitmaps = bitmaps.expect("a leaf with nothing but bitmaps");
    let items = leaf(&image[&bitmaps], GROUPS);
    let u16_at = |at: usize| u16::from_le_bytes(image[&bitmaps][at..at + 2].try_into().unwrap());
    let free: u64 = items.iter().map(|i| u64::from(u16_at(i.at + 2))).sum();
    let whole = mount(&disk.fork()).statfs();
    disk.corrupt(bitmaps, 100, 1);

    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    // What is there can be read, and removed, wherever it is.
    for i in 0..40 {
        let name = format!("f{i}");
        let f = lookup(&fs, name.as_bytes()).expect("file");
        assert_eq!(read(&disk.device(), &fs, &f, 6000), Ok(Some(i)));
        fs.unlink(&root, name.as_bytes(), &f).unwrap();
        fs.delete_inode(f).unwrap();
        fs.sync().unwrap();
    }
    let holes = lookup(&fs, b"holes").expect("holes");
    let there = holes.blocks();
    fs.set_size(&holes, 0).unwrap();
    fs.sync().unwrap();
    let leaked = fs.leaked_blocks();
    // The group costs its allocation group.
    let lost = 1 << 15;
    assert!(leaked > 0 && leaked <= lost - free, "{leaked} of {there}");
    assert!(!fs.is_shutdown());
    // Everything else can be filled.
    let at = fill(&fs, &holes, 0);
    assert!(
        !fs.is_shutdown() && fs.statfs().bavail < 64,
        "{:?}",
        fs.statfs()
    );
    let rest = (1 << 18) - lost;
    assert!(
        at > rest * 9 / 10 && at < rest,
        "{at} of {rest} blocks, {free} were free"
    );
    fs.iput(holes);
    fs.iput(root);
    fs.unmount().unwrap();
    // The next mount works as well.
    let fs = mount(&disk);
    let f = lookup(&fs, b"holes").expect("holes");
    assert_eq!(f.blocks(), at);
    assert!(whole.bfree > fs.statfs().bfree);
}

/// The leaf of the AG tree with the last records.
fn last_leaf(disk: &MemDisk) -> u64 {
    let image = disk.image();
    let first_key = |b: &u64| leaf(&image[b], AGS).first().map_or(0, |i| i.key);
    let last = nodes(disk, AGS).into_iter().max_by_key(first_key);
    last.expect("leaves")
}

/// Half of the allocation groups have records in a leaf that cannot be read.
#[test]
fn a_damaged_leaf_of_the_ag_tree_costs_its_groups() {
    kernel::print::set_level(kernel::print::SILENT);
    let (ags, ag) = (160u64, 1u64 << 18);
    let disk = MemDisk::new(ags * ag);
    common::format_with(disk.device(), 1);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    // What is free at the end is not under the damaged leaf.
    let first = fs.create(&root, b"first", &regular()).unwrap();
    fs.preallocate(&first, 0, 20_000, None).unwrap();
    let big = fs.create(&root, b"big", &regular()).unwrap();
    let used = fill(&fs, &big, 0);
    fs.set_size(&first, 0).unwrap();
    fs.iput(first);
    fs.iput(big);
    fs.iput(root);
    fs.unmount().unwrap();
    let last = last_leaf(&disk);
    let image = disk.image();
    let items = leaf(&image[&last], AGS);
    let first = items.first().expect("records").key;
    let gone = items.len() as u64;
    assert!(first > 0 && first + gone == ags, "{gone} from {first}");
    disk.corrupt(last, 100, 1);

    for round in 0..2 {
        let fs = mount(&disk);
        let big = lookup(&fs, b"big").expect("big");
        if round == 0 {
            assert_eq!(big.blocks(), used);
            fs.set_size(&big, 0).unwrap();
            fs.sync().unwrap();
            let leaked = fs.leaked_blocks();
            assert!(leaked > (gone - 1) * ag && leaked <= gone * ag, "{leaked}");
            let at = fill(&fs, &big, 0);
            let rest = first * ag;
            assert!(at > rest - rest / 100 && at < rest, "{at} of {rest}");
        }
        // The first commit looks into the tree.
        fs.set_attrs(&big, &AttrChange::default()).unwrap();
        fs.sync().unwrap();
        assert!(fs.statfs().bavail < 64, "{:?}", fs.statfs());
        fs.iput(big);
        assert!(!fs.is_shutdown());
        fs.unmount().unwrap();
    }
}

/// The same when these groups are free: what was free there is not available any more.
#[test]
fn free_space_under_a_damaged_leaf_of_the_ag_tree_is_lost() {
    kernel::print::set_level(kernel::print::SILENT);
    let (ags, ag) = (160u64, 1u64 << 18);
    let disk = MemDisk::new(ags * ag);
    common::format_with(disk.device(), 1);
    let last = last_leaf(&disk);
    let image = disk.image();
    let gone = leaf(&image[&last], AGS).len() as u64;
    disk.corrupt(last, 100, 1);
    for round in 0..2 {
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = match round {
            0 => fs.create(&root, b"full", &regular()).unwrap(),
            _ => lookup(&fs, b"full").expect("full"),
        };
        let at = fill(&fs, &f, f.blocks());
        let rest = (ags - gone) * ag;
        assert!(at > rest - rest / 100 && at < rest, "{at} of {rest}");
        assert!(fs.statfs().bavail < 64, "{:?}", fs.statfs());
        assert!(!fs.is_shutdown());
        fs.iput(f);
        fs.iput(root);
        fs.unmount().unwrap();
    }
}

/// A file over the first leaf of the AG tree and a part of the last one, and the address of the last.
/// There is room for nodes in the first AG, which is not the file's home.
fn over_two_leaves() -> (MemDisk, u64) {
    let (ags, ag) = (160u64, 1u64 << 18);
    let disk = MemDisk::new(ags * ag);
    common::format_with(disk.device(), 1);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let new = common::file(S_IFDIR | 0o755);
    let dirs = [b"a", b"b"].map(|name| fs.create(&root, name, &new).unwrap());
    assert_eq!(dirs[1].attrs().home_ag, 1);
    let big = fs.create(&dirs[1], b"big", &regular()).unwrap();
    fs.link(&root, b"big", &big).unwrap();
    fs.preallocate(&big, 0, 120 * ag, None).unwrap();
    dirs.into_iter().for_each(|d| fs.iput(d));
    fs.iput(big);
    fs.iput(root);
    fs.unmount().unwrap();
    let last = last_leaf(&disk);
    (disk, last)
}

/// Changes something, so that the next commit looks into the AG tree.
fn touch(fs: &Shared<Fs>) {
    let big = lookup(fs, b"big").expect("big");
    fs.set_attrs(&big, &AttrChange::default()).unwrap();
    fs.iput(big);
    fs.sync().unwrap();
}

/// The last leaf can be read, but not the first time.
#[test]
fn a_read_of_the_ag_tree_that_fails_once_costs_nothing() {
    kernel::print::set_level(kernel::print::SILENT);
    let (disk, last) = over_two_leaves();
    let failed = AtomicBool::new(false);
    let dev = hooked(&disk, move |ask| match ask {
        Ask::Read(b) if b == last && !failed.swap(true, Ordering::SeqCst) => Err(EIO),
        _ => Ok(()),
    });
    let fs = common::mount_on(dev);
    let before = fs.statfs().bavail;
    touch(&fs);
    let after = fs.statfs().bavail;
    assert!(after + 32 > before, "{before} before, {after} after");
    common::at_rest(&disk, &fs);
    fs.unmount().unwrap();
}

/// What is free under a leaf that cannot be read counts again when it can be read.
#[test]
fn a_leaf_of_the_ag_tree_that_can_be_read_later_is_not_lost() {
    kernel::print::set_level(kernel::print::SILENT);
    let (disk, last) = over_two_leaves();
    let bad = Arc::new(AtomicBool::new(true));
    let dev = {
        let bad = bad.clone();
        hooked(&disk, move |ask| match ask {
            Ask::Read(b) if b == last && bad.load(Ordering::SeqCst) => Err(EIO),
            _ => Ok(()),
        })
    };
    let fs = common::mount_on(dev);
    let before = fs.statfs().bavail;
    touch(&fs);
    let lost = before - fs.statfs().bavail;
    assert!(lost > 30 << 18, "{lost} blocks are lost");
    // A block in one of these AGs is freed, and stays in use.
    let big = lookup(&fs, b"big").expect("big");
    fs.punch(&big, (120 << 18) - 10, 10).unwrap();
    fs.sync().unwrap();
    assert_eq!(fs.leaked_blocks(), 10);
    bad.store(false, Ordering::SeqCst);
    fs.set_size(&big, (110 << 18) * 4096).unwrap();
    fs.sync().unwrap();
    let after = fs.statfs().bavail;
    assert!(after > before + (9 << 18), "{before} before, {after} after");
    assert_eq!(fs.leaked_blocks(), 10);
    // In the AG that was bad, too.
    fs.set_size(&big, 0).unwrap();
    fs.iput(big);
    fs.sync().unwrap();
    assert_eq!(fs.leaked_blocks(), 10);
    let now = fs.statfs();
    let again = mount(&disk.fork()).statfs();
    assert_eq!((now.bfree, now.bavail), (again.bfree, again.bavail));
    fs.unmount().unwrap();
}

/// A superblock with a wrong number of free blocks and the right checksum, as a bug might have left it.
/// The AG tree has the number, so everything works, down to a number that is much too small.
#[test]
fn a_wrong_count_of_free_blocks_stops_no_commit() {
    kernel::print::set_level(kernel::print::SILENT);
    for wrong in [0, 100, 1 << 14] {
        let disk = make_single(1 << 14);
        let mut sb = read_superblock(&disk.device()).unwrap_or_else(|e| panic!("{}", e.reason));
        sb.free = wrong;
        sb.write(&disk.device()).unwrap();
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"f", &regular()).unwrap();
        fs.preallocate(&f, 0, 1000, None).unwrap();
        fs.sync().unwrap();
        fs.set_size(&f, 0).unwrap();
        fs.sync().unwrap();
        fs.iput(f);
        fs.iput(root);
        fs.unmount().unwrap();
    }
}

/// Changes a value of a leaf so that all checksums are right, up to the superblock.
fn forged(disk: &MemDisk, kind: u8, f: impl Fn(u64, &mut [u8]) -> bool) -> MemDisk {
    let d = disk.fork();
    for node in nodes(disk, kind) {
        let mut data = **disk.image().get(&node).unwrap();
        let mut changed = false;
        for item in leaf(&data.clone(), kind) {
            changed |= f(item.key, &mut data[item.at..item.at + item.len]);
        }
        if changed {
            forge::forge(&d, node, data);
        }
    }
    d
}

#[test]
fn impossible_numbers_are_refused() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make_single(1 << 14);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    // Too many extents for an inline tree.
    for i in 0..30 {
        write(&disk.device(), &fs, &f, 2 * i, &[i]).unwrap();
    }
    fs.unmount().unwrap();
    let ino = f.ino();
    let sb = read_superblock(&disk.device()).unwrap_or_else(|e| panic!("{}", e.reason));

    let inode = |offset: usize, value: u64| {
        forged(&disk, INODE, |key, v| {
            if key == ino {
                v[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
            }
            key == ino
        })
    };
    // Blocks; generation; size.
    for (offset, value) in [(32, (1 << 51) + 1), (128, sb.generation + 9), (24, 1 << 63)] {
        let d = inode(offset, value);
        let fs = Fs::mount(d.device(), read_only(true)).unwrap();
        let e = fs.iget(ino).err();
        assert_eq!(e, Some(EUCLEAN), "inode record, offset {offset}");
    }

    let ends = [
        ("reserved", 17),
        ("log", sb.log_start + 1),
        ("past the end", sb.blocks),
    ];
    for (what, phys) in ends {
        // The device is longer than the filesystem.
        let d = forged(&disk, EXTENT, |key, v| {
            if key == 4 {
                v[..8].copy_from_slice(&u64::to_le_bytes(phys));
            }
            key == 4
        });
        let longer = MemDisk::from_image(1 << 15, d.image());
        let fs = Fs::mount(longer.device(), MountOptions::default()).unwrap();
        let f = fs.iget(ino).unwrap();
        assert_eq!(fs.map_read(&f, 4, 1).err(), Some(EUCLEAN), "{what}");
        assert_eq!(fs.map_read(&f, 20, 1).map(|m| m.kind), Ok(MapKind::Written));
    }

    // The next inode number is one that is in use.
    let d = disk.fork();
    for next in [ino, u64::MAX] {
        let mut sb = sb.clone();
        sb.next_ino = next;
        sb.inodes = 1;
        sb.write(&d.device()).unwrap();
        let before = d.image();
        let e = Fs::mount(d.device(), MountOptions::default()).err();
        assert_eq!(e.expect("mounted").error, EUCLEAN, "next inode {next}");
        assert!(d.image() == before);
    }
}
