// SPDX-License-Identifier: GPL-2.0

//! What a mount does with superblocks that are torn, damaged or unreadable, row by row of the table in
//! docs/FORMAT.md §2. No commit that was acknowledged is undone, and no power cut looks like damage.

mod common;

use common::hooked::{hooked, Ask};
use common::log::read_only;
use common::{make, mount, regular};
use kernel::error::code::{EIO, ENOMEM, EUCLEAN};
use kernel::prelude::Error;
use ordofs_engine::engine::format::places::{backups, slot, SLOTS};
use ordofs_engine::engine::format::slots::State;
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::{Fs, MountOptions};
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::record::{Op, Recorder};
use ordofs_engine::os::{Block, Device, Shared};
use ordofs_fsck::{check, Options, Report};

const SECTOR: usize = 512;
/// A size with backups and the far twin, and one without.
const SIZES: [u64; 2] = [1 << 15, 16384];

/// A filesystem with three commits of a file each, as a crash leaves it.
struct Bed {
    disk: MemDisk,
    blocks: u64,
    /// The generation of the last commit, which has the file `f2`.
    newest: u64,
}

impl Bed {
    fn new(blocks: u64) -> Self {
        kernel::print::set_level(kernel::print::SILENT);
        let disk = make(blocks);
        let fs = mount(&disk);
        for name in ["f0", "f1", "f2"] {
            create(&fs, name);
            fs.sync().unwrap();
        }
        let newest = fs.durable_generation();
        Self {
            disk,
            blocks,
            newest,
        }
    }

    /// The block of a copy of the newest superblock, or of the one before.
    fn at(&self, age: u64, copy: usize) -> u64 {
        slot(self.newest - age, copy, self.blocks)
    }

    /// The same with other content.
    fn fork(&self) -> MemDisk {
        self.disk.fork()
    }
}

fn create(fs: &Shared<Fs>, name: &str) {
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, name.as_bytes(), &regular()).unwrap();
    fs.iput(f);
    fs.iput(root);
}

fn has(fs: &Shared<Fs>, name: &str) -> bool {
    let root = fs.iget(fs.root_ino()).unwrap();
    let found = fs.lookup(&root, name.as_bytes()).unwrap().is_some();
    fs.iput(root);
    found
}

/// The device, on which reads of some blocks fail.
fn without(disk: &MemDisk, blocks: &[u64], error: Error) -> Device {
    let blocks = blocks.to_vec();
    hooked(disk, move |ask| match ask {
        Ask::Read(b) if blocks.contains(&b) => Err(error),
        _ => Ok(()),
    })
}

fn block(disk: &MemDisk, at: u64) -> [u8; 4096] {
    let mut b = Block::zeroed().unwrap();
    disk.device().read(at, &mut b).unwrap();
    *b
}

fn put(disk: &MemDisk, at: u64, data: &[u8; 4096]) {
    let mut b = Block::zeroed().unwrap();
    b.copy_from_slice(data);
    disk.device().write(&[(at, &b)]).unwrap();
}

/// Fills the sectors of `mask` of a block.
fn lose(disk: &MemDisk, at: u64, mask: u32, fill: u8) {
    let mut b = block(disk, at);
    for k in (0..8).filter(|k| mask >> k & 1 != 0) {
        b[k * SECTOR..(k + 1) * SECTOR].fill(fill);
    }
    put(disk, at, &b);
}

fn fsck(disk: &MemDisk) -> Report {
    check(disk.device(), Options::default()).unwrap()
}

/// Superblocks that fsck finds fault with.
fn told(report: &Report) -> bool {
    let all = report.problems.iter().chain(&report.mendable);
    all.clone().count() > 0 && all.clone().all(|p| p.place.contains("superblock"))
}

/// The filesystem can be written to and has its last commit. Afterwards every copy is whole: either
/// of the newest one alone will do.
fn mounts(disk: &MemDisk, what: &str) {
    let fs = Fs::mount(disk.device(), MountOptions::default())
        .unwrap_or_else(|e| panic!("{what}: {}", e.reason));
    assert!(has(&fs, "f2"), "{what}");
    fs.unmount().unwrap();
    let report = fsck(disk);
    assert!(
        report.is_clean() && report.mendable.is_empty(),
        "{what}: {:?}",
        report.problems
    );
    let sb = Superblock::read(&disk.device()).unwrap();
    for copy in [0, 1] {
        let d = disk.fork();
        put(&d, slot(sb.generation, 1 - copy, sb.blocks), &[0xa5; 4096]);
        let alone = Superblock::read(&d.device()).map(|s| s.generation);
        assert_eq!(alone.ok(), Some(sb.generation), "{what}: copy {copy} alone");
    }
}

/// Damage that one good copy makes up for: it is reported, and the mount mends it.
fn mended(disk: &MemDisk, what: &str) {
    let report = fsck(disk);
    assert!(report.is_clean(), "{what}: {:?}", report.problems);
    assert!(told(&report), "{what}: fsck says nothing");
    let before = disk.image();
    let fs = Fs::mount(disk.device(), read_only(true))
        .unwrap_or_else(|e| panic!("{what}: {}", e.reason));
    assert!(fs.forbidden().is_none() && has(&fs, "f2"), "{what}");
    fs.unmount().unwrap();
    assert!(disk.image() == before, "{what}: a read-only mount wrote");
    mounts(disk, what);
}

/// Damage that may have cost the newest commit: no writing unless the user asks for it, and the
/// state before can be looked at.
fn refused(disk: &MemDisk, what: &str) {
    let before = disk.image();
    let e = Fs::mount(disk.device(), MountOptions::default());
    let e = e.err().unwrap_or_else(|| panic!("{what}: mounted"));
    assert_eq!(e.error, EUCLEAN, "{what}: {}", e.reason);
    assert!(e.reason.contains("rescue=older"), "{what}: {}", e.reason);
    let fs = Fs::mount(disk.device(), read_only(true))
        .unwrap_or_else(|e| panic!("{what}: {}", e.reason));
    assert_eq!(fs.forbidden().map(|why| why.error), Some(EUCLEAN), "{what}");
    assert!(has(&fs, "f1") && !has(&fs, "f2"), "{what}");
    fs.unmount().unwrap();
    assert!(disk.image() == before, "{what}: a refused mount wrote");
    let report = fsck(disk);
    assert!(
        !report.is_clean() && told(&report),
        "{what}: {:?}",
        report.problems
    );
    let rescue = MountOptions {
        rescue_older: true,
        ..MountOptions::default()
    };
    let d = disk.fork();
    let fs = Fs::mount(d.device(), rescue).unwrap_or_else(|e| panic!("{what}: {}", e.reason));
    create(&fs, "f2");
    fs.unmount().unwrap();
    mounts(&d, what);
}

#[test]
fn one_damaged_or_unreadable_copy_costs_nothing() {
    for blocks in SIZES {
        let bed = Bed::new(blocks);
        for (age, copy) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let at = bed.at(age, copy);
            for byte in (0..4096).step_by(37) {
                let d = bed.fork();
                d.corrupt(at, byte, 1 << (byte % 8));
                mended(
                    &d,
                    &format!("{blocks} blocks, age {age}, copy {copy}, byte {byte}"),
                );
            }
            for (mask, fill) in [(1, 0), (0x80, 0xa5), (0xff, 0), (0xff, 0xa5), (0x7f, 7)] {
                let d = bed.fork();
                lose(&d, at, mask, fill);
                mended(
                    &d,
                    &format!("{blocks} blocks, age {age}, copy {copy}, mask {mask:x}"),
                );
            }
            // A bad block that comes back as soon as it is written.
            let fs = Fs::mount(without(&bed.disk, &[at], EIO), read_only(true)).unwrap();
            assert!(fs.forbidden().is_none() && has(&fs, "f2"));
            let d = bed.fork();
            let fs = Fs::mount(without(&d, &[at], EIO), MountOptions::default()).unwrap();
            assert!(has(&fs, "f2"));
            fs.unmount().unwrap();
            mounts(&d, "unreadable");
        }
    }
}

#[test]
fn both_copies_of_one_slot_damaged_in_different_sectors_make_one() {
    for blocks in SIZES {
        let bed = Bed::new(blocks);
        for age in [0, 1] {
            for mask in 1..255u32 {
                let d = bed.fork();
                lose(&d, bed.at(age, 0), mask, 0xa5);
                lose(&d, bed.at(age, 1), !mask & 0xff, 0);
                mended(&d, &format!("{blocks} blocks, age {age}, mask {mask:x}"));
            }
        }
    }
}

#[test]
fn both_copies_damaged_in_one_sector_forbid_writing() {
    for blocks in SIZES {
        let bed = Bed::new(blocks);
        for k in 0..8 {
            for (a, b) in [
                (1 << k, 1 << k),
                (1 << k | 3, 1 << k),
                (0xff, 1 << k),
                (0xff, 0xff),
            ] {
                let d = bed.fork();
                lose(&d, bed.at(0, 0), a, 0);
                lose(&d, bed.at(0, 1), b, 0xa5);
                refused(&d, &format!("{blocks} blocks, masks {a:x}, {b:x}"));
            }
            let d = bed.fork();
            for copy in [0, 1] {
                d.corrupt(bed.at(0, copy), k * SECTOR + 100 * copy + 7, 4);
            }
            refused(&d, &format!("{blocks} blocks, bits of sector {k}"));
        }
        // Of the older slot, nothing is left but one sector that says how old it was.
        for k in 0..8 {
            let d = bed.fork();
            lose(&d, bed.at(1, 0), 0xff, 0);
            lose(&d, bed.at(1, 1), 0xff & !(1 << k), 0xa5);
            mended(&d, &format!("{blocks} blocks, older slot, sector {k} left"));
        }
    }
}

#[test]
fn a_slot_that_cannot_be_read_forbids_writing() {
    let bed = Bed::new(SIZES[0]);
    for age in [0, 1] {
        let gone = [bed.at(age, 0), bed.at(age, 1)];
        let before = bed.disk.image();
        let refused = Fs::mount(without(&bed.disk, &gone, EIO), MountOptions::default());
        assert_eq!(refused.err().map(|e| e.error), Some(EIO));
        let fs = Fs::mount(without(&bed.disk, &gone, EIO), read_only(true)).unwrap();
        assert_eq!(fs.forbidden().map(|why| why.error), Some(EIO));
        assert!(has(&fs, "f1"));
        assert_eq!(has(&fs, "f2"), age == 1);
        fs.unmount().unwrap();
        assert!(bed.disk.image() == before, "a refused mount wrote");
    }
    let all: Vec<u64> = [0, 1]
        .into_iter()
        .flat_map(|a| [bed.at(a, 0), bed.at(a, 1)])
        .collect();
    let refused = Fs::mount(without(&bed.disk, &all, EIO), read_only(true));
    assert_eq!(refused.err().map(|e| e.error), Some(EIO));
}

#[test]
fn no_memory_is_not_an_unreadable_superblock() {
    let bed = Bed::new(SIZES[0]);
    for (age, copy) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let dev = without(&bed.disk, &[bed.at(age, copy)], ENOMEM);
        let refused = Fs::mount(dev, MountOptions::default())
            .err()
            .expect("mounted");
        assert_eq!((refused.error, refused.reason), (ENOMEM, "out of memory"));
    }
}

/// A mount that commits something: the disk before the two writes of the last superblock, and these.
fn commit_on(disk: &MemDisk, name: &str) -> (MemDisk, Vec<(u64, [u8; 4096])>) {
    let rec = Recorder::new(disk.fork());
    let fs =
        Fs::mount(rec.device(), MountOptions::default()).unwrap_or_else(|e| panic!("{}", e.reason));
    create(&fs, name);
    fs.sync().unwrap();
    drop(fs);
    let ops = rec.ops();
    let superblock = |op: &Op| matches!(op, Op::Write { fua: true, .. });
    let second = ops.iter().rposition(superblock).expect("a superblock");
    let pair = [&ops[second - 1], &ops[second]].map(|op| match op {
        Op::Write {
            block,
            data,
            fua: true,
        } => (*block, **data),
        op => panic!("{op:?} beside the superblock"),
    });
    (rec.crash_image(second - 1, |_| true), pair.to_vec())
}

/// All that a power cut can leave of the two writes of a superblock; then again on top of that, with
/// some of it; then a third time.
#[test]
fn a_torn_superblock_is_no_damage() {
    let masks = [0u32, 1, 0x80, 0x0f, 0x55, 0xfe, 0xff];
    for blocks in SIZES {
        let bed = Bed::new(blocks);
        let mut before = vec![bed.fork()];
        for round in 0..3 {
            let mut after = Vec::new();
            for disk in &before {
                let (disk, pair) = commit_on(disk, &format!("g{round}"));
                for (i, a) in masks.into_iter().enumerate() {
                    for (j, b) in masks.into_iter().enumerate() {
                        if a == 0xff || b == 0xff {
                            continue;
                        }
                        let d = disk.fork();
                        for ((at, new), mask) in pair.iter().zip([a, b]) {
                            let mut torn = block(&d, *at);
                            for k in (0..8).filter(|k| mask >> k & 1 != 0) {
                                let r = k * SECTOR..(k + 1) * SECTOR;
                                torn[r.clone()].copy_from_slice(&new[r]);
                            }
                            put(&d, *at, &torn);
                        }
                        let what = format!("{blocks} blocks, round {round}, sectors {a:x}, {b:x}");
                        mounts(&d.fork(), &what);
                        if round < 2 && (i + j) % 3 == 1 {
                            after.push(d);
                        }
                    }
                }
            }
            after.truncate(6);
            before = after;
        }
    }
}

/// One copy of a commit has arrived whole: the commit counts, and the next mount writes the other copy.
#[test]
fn a_commit_of_which_one_copy_arrived_counts() {
    for blocks in SIZES {
        for copy in [0, 1] {
            let bed = Bed::new(blocks);
            let was = block(&bed.disk, bed.at(0, copy));
            let fs = mount(&bed.disk);
            create(&fs, "f3");
            fs.sync().unwrap();
            create(&fs, "f4");
            fs.sync().unwrap();
            let newest = fs.durable_generation();
            drop(fs);
            assert_eq!(newest & 1, bed.newest & 1);
            let d = bed.fork();
            put(&d, slot(newest, copy, blocks), &was);
            let fs = mount(&d);
            assert!(has(&fs, "f4"));
            drop(fs);
            let other = slot(newest, 1 - copy, blocks);
            put(&d, other, &[0; 4096]);
            let fs = Fs::mount(d.device(), read_only(true)).unwrap();
            assert!(fs.forbidden().is_none() && has(&fs, "f4"), "copy {copy}");
        }
    }
}

#[test]
fn a_clean_unmount_is_noted_and_taken_back_before_anything_else() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(SIZES[0]);
    let sb = || Superblock::read(&disk.device()).unwrap();
    let first = sb();
    assert!(first.is_clean() && first.mounts == 0);
    // A mount that changes nothing writes nothing.
    let before = disk.image();
    let fs = mount(&disk);
    fs.sync().unwrap();
    fs.unmount().unwrap();
    drop(fs);
    assert!(disk.image() == before);
    let fs = mount(&disk);
    create(&fs, "f0");
    let then = sb();
    assert!(!then.is_clean() && then.generation > first.generation);
    assert_eq!(then.mounts, 1);
    let root = fs.iget(fs.root_ino()).unwrap();
    fs.sync_inode(&root).unwrap();
    fs.iput(root);
    // Durable by the log only.
    assert_eq!(sb().generation, then.generation);
    let crashed = disk.fork();
    let again = mount(&crashed);
    assert!(has(&again, "f0"));
    drop(again);
    fs.unmount().unwrap();
    drop(fs);
    let last = sb();
    assert!(last.is_clean());
    assert_eq!(last.mounts, 1);
    // The same mount may go on after a remount that made it read-only.
    let fs = mount(&disk);
    create(&fs, "f1");
    fs.mark_clean(ordofs_engine::engine::Backups::Daily)
        .unwrap();
    assert!(sb().is_clean());
    create(&fs, "f2");
    assert!(!sb().is_clean());
    let root = fs.iget(fs.root_ino()).unwrap();
    fs.sync_inode(&root).unwrap();
    fs.iput(root);
    let again = mount(&disk.fork());
    assert!(has(&again, "f1") && has(&again, "f2"));
    assert_eq!(sb().mounts, 2);
}

#[test]
fn the_label_can_be_changed() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(SIZES[0]);
    let fs = mount(&disk);
    let mut label = [0; 64];
    label[..7].copy_from_slice("Größe".as_bytes());
    fs.set_label(label).unwrap();
    assert_eq!(fs.label(), label);
    let again = Superblock::read(&disk.device()).unwrap();
    assert_eq!(again.label, label);
    for base in backups(SIZES[0]) {
        let b = Superblock::decode(&block(&disk, base + SLOTS[0])).unwrap();
        assert_eq!((b.label, b.generation), (label, again.generation));
    }
    label[1] = 0xff;
    assert!(fs.set_label(label).is_err());
    fs.unmount().unwrap();
    let fs = Fs::mount(disk.device(), read_only(true)).unwrap();
    assert!(fs.set_label([0; 64]).is_err());
}

#[test]
fn damaged_backups_are_reported() {
    let bed = Bed::new(SIZES[0]);
    let all: Vec<u64> = backups(bed.blocks).map(|base| base + SLOTS[0]).collect();
    assert_eq!(all.len(), 1);
    assert!(fsck(&bed.disk).is_clean());
    for at in all {
        let d = bed.fork();
        d.corrupt(at, 600, 1);
        let report = fsck(&d);
        assert!(!report.is_clean() && told(&report));
    }
}

/// Twins of an older, larger or smaller filesystem on the same device count for nothing.
#[test]
fn twins_of_another_filesystem_do_not_count() {
    let bed = Bed::new(SIZES[0]);
    let other = Bed::new(SIZES[0]);
    for age in [0, 1] {
        put(
            &bed.disk,
            bed.at(age, 1),
            &block(&other.disk, bed.at(age, 1)),
        );
    }
    mended(&bed.disk, "twins of another filesystem");
}

fn fsync_root(fs: &Shared<Fs>) {
    let root = fs.iget(fs.root_ino()).unwrap();
    fs.sync_inode(&root).unwrap();
    fs.iput(root);
}

/// A torn superblock lets the next commit skip a generation. The first fsync after that must not
/// meet a log that does not know of it, also if the mount was read-only at first.
#[test]
fn an_fsync_comes_first_after_a_torn_superblock() {
    for first_read_only in [false, true] {
        let bed = Bed::new(SIZES[0]);
        let (disk, pair) = commit_on(&bed.disk, "torn");
        let (at, new) = &pair[0];
        let mut torn = block(&disk, *at);
        torn[..SECTOR].copy_from_slice(&new[..SECTOR]);
        put(&disk, *at, &torn);
        let options = MountOptions {
            read_only: first_read_only,
            ..MountOptions::default()
        };
        let fs = Fs::mount(disk.device(), options).unwrap();
        if first_read_only {
            fs.set_read_only(false);
            fs.mend_superblocks().unwrap();
        }
        create(&fs, "f3");
        fsync_root(&fs);
        assert!(!fs.is_shutdown());
        let again = mount(&disk.fork());
        assert!(has(&again, "f2") && has(&again, "f3"));
    }
}

/// A read-only mount mends nothing; when it becomes writable, it does.
#[test]
fn a_remount_mends_superblocks() {
    let bed = Bed::new(SIZES[0]);
    let was = block(&bed.disk, bed.at(0, 0));
    bed.disk.corrupt(bed.at(0, 0), 600, 1);
    let fs = Fs::mount(bed.disk.device(), read_only(true)).unwrap();
    assert!(block(&bed.disk, bed.at(0, 0)) != was);
    fs.set_read_only(false);
    fs.mend_superblocks().unwrap();
    drop(fs);
    bed.disk.corrupt(bed.at(0, 1), 600, 1);
    let fs = mount(&bed.disk);
    assert!(has(&fs, "f2"));
}

/// mkfs was cut off in its second commit, or the first commit after it was: no filesystem has a
/// whole superblock in both slots then, and nothing but power cuts has happened.
#[test]
fn a_filesystem_of_generation_1_is_mounted() {
    let bed = Bed::new(SIZES[1]);
    let even = |copy| slot(2, copy, bed.blocks);
    let first = slot(1, 0, bed.blocks);
    let sb = Superblock::read(&bed.disk.device()).unwrap();
    let mut one = sb.clone();
    one.generation = 1;
    for r in [
        &mut one.inode_root,
        &mut one.ag_root,
        &mut one.deferred_root,
    ] {
        if let Some(p) = r {
            p.generation = 1;
        }
    }
    (one.orphan_root, one.deferred_root) = (None, None);
    let mut two = one.clone();
    two.generation = 2;
    let mut image = Block::zeroed().unwrap();
    two.encode(0, &mut image);
    for mask in [0u32, 1, 0x80, 0x7f] {
        let d = bed.fork();
        one.write(&d.device()).unwrap();
        assert!(block(&d, first)[..6] == *b"OrdoFS");
        for copy in [0, 1] {
            let mut b = [0; 4096];
            for k in (0..8).filter(|k| mask >> k & 1 != 0) {
                let r = k * SECTOR..(k + 1) * SECTOR;
                b[r.clone()].copy_from_slice(&image[r]);
            }
            put(&d, even(copy), &b);
        }
        let found = Superblock::find(&d.device()).map_err(|e| e.reason).unwrap();
        assert_eq!(found.sb.generation, 1);
        assert_eq!(found.doubt, None, "mask {mask:x}");
        let states: Vec<_> = found.copies.iter().map(|(_, s)| *s).collect();
        assert!(
            !states.iter().any(|s| matches!(s, State::Damaged(_))),
            "{states:?}"
        );
    }
}

/// Without primary superblocks, twins count only where the size that they name puts them.
#[test]
fn twins_of_an_older_filesystem_are_not_taken_alone() {
    let large = Bed::new(SIZES[0]);
    let small = Bed::new(SIZES[1]);
    for with_small in [false, true] {
        let d = large.fork();
        for parity in [0, 1] {
            put(&d, slot(parity, 0, large.blocks), &[0; 4096]);
            if with_small {
                let at = slot(parity, 1, small.blocks);
                put(&d, at, &block(&small.disk, at));
            }
        }
        let found = Superblock::find(&d.device());
        match with_small {
            false => assert_eq!(found.ok().map(|f| f.sb.generation), Some(large.newest)),
            true => assert_eq!(found.err().map(|e| e.error), Some(EUCLEAN)),
        }
    }
}

/// After a clean unmount a block of the log that cannot be read costs nothing: the log holds nothing.
#[test]
fn a_dead_block_of_the_log_does_not_stop_a_clean_mount() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(SIZES[0]);
    let fs = mount(&disk);
    create(&fs, "f");
    fsync_root(&fs);
    fs.unmount().unwrap();
    drop(fs);
    let sb = Superblock::read(&disk.device()).unwrap();
    let dead = sb.log_start + sb.log_pos % sb.log_len;
    let fs = Fs::mount(without(&disk, &[dead], EIO), MountOptions::default());
    let fs = fs.unwrap_or_else(|e| panic!("{}", e.reason));
    assert!(has(&fs, "f") && fs.forbidden().is_none());
}

/// Operations race with a remount that makes the mount read-only: each of them either happened, and is
/// durable, or got EROFS.
#[test]
fn a_remount_loses_no_operation() {
    use std::sync::atomic::{AtomicBool, Ordering};
    kernel::print::set_level(kernel::print::SILENT);
    for _ in 0..20 {
        let disk = make(SIZES[1]);
        let fs = mount(&disk);
        let stop = AtomicBool::new(false);
        let made: Vec<String> = std::thread::scope(|s| {
            let tasks: Vec<_> = (0..4)
                .map(|t| {
                    let (fs, stop) = (&fs, &stop);
                    s.spawn(move || {
                        let root = fs.iget(fs.root_ino()).unwrap();
                        let mut made = Vec::new();
                        for i in 0.. {
                            let name = format!("{t}-{i}");
                            match fs.create(&root, name.as_bytes(), &regular()) {
                                Ok(f) => {
                                    fs.iput(f);
                                    made.push(name);
                                }
                                Err(e) => {
                                    assert_eq!(e, kernel::error::code::EROFS);
                                    if stop.load(Ordering::SeqCst) {
                                        break;
                                    }
                                }
                            }
                        }
                        fs.iput(root);
                        made
                    })
                })
                .collect();
            std::thread::sleep(std::time::Duration::from_millis(2));
            fs.go_read_only().unwrap();
            stop.store(true, Ordering::SeqCst);
            tasks.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        assert!(Superblock::read(&disk.device()).unwrap().is_clean());
        let again = mount(&disk.fork());
        for name in &made {
            assert!(has(&again, name), "{name} of {}", made.len());
        }
    }
}

/// 64 tasks begin the first transaction of a mount at once, and each fsyncs. One commit clears the mark,
/// and nothing that was acknowledged is lost.
#[test]
fn many_tasks_begin_the_first_transaction_at_once() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(SIZES[0]);
    let fs = mount(&disk);
    let before = fs.durable_generation();
    let gate = std::sync::Barrier::new(64);
    std::thread::scope(|s| {
        for i in 0..64 {
            let (fs, gate) = (&fs, &gate);
            s.spawn(move || {
                gate.wait();
                create(fs, &format!("f{i}"));
                fsync_root(fs);
            });
        }
    });
    assert_eq!(fs.durable_generation(), before + 1);
    let again = mount(&disk.fork());
    assert!((0..64).all(|i| has(&again, &format!("f{i}"))));
}

/// Numbers that only go up are so near to their limits that a mount could not go on: the filesystem can
/// only be read, also with a rescue, and fsck says so.
#[test]
fn used_up_numbers_allow_only_reading() {
    const LIMIT: u64 = 3 << 60;
    let bed = Bed::new(SIZES[0]);
    let newest = Superblock::read(&bed.disk.device()).unwrap();
    let set: [fn(&mut Superblock, u64); 3] = [
        |sb, n| sb.log_pos = n,
        |sb, n| sb.log_seq = n,
        |sb, n| sb.next_ino = n,
    ];
    for (i, set) in set.iter().enumerate() {
        for number in [LIMIT - 1, LIMIT, 1 << 62] {
            let what = format!("number {i}, {number:x}");
            let d = bed.fork();
            let mut sb = newest.clone();
            set(&mut sb, number);
            sb.write(&d.device()).unwrap();
            let used_up = number >= LIMIT;
            assert_eq!(fsck(&d).is_clean(), !used_up, "{what}");
            let before = d.image();
            for rescue_older in [false, true] {
                let o = MountOptions {
                    rescue_older,
                    ..MountOptions::default()
                };
                let fs = Fs::mount(
                    if used_up {
                        d.device()
                    } else {
                        d.fork().device()
                    },
                    o,
                );
                match fs {
                    Ok(fs) => {
                        assert!(!used_up, "{what}: mounted");
                        create(&fs, "new");
                        fs.unmount().unwrap();
                    }
                    Err(e) => assert!(
                        used_up && e.reason.contains("used up"),
                        "{what}: {}",
                        e.reason
                    ),
                }
            }
            let fs = Fs::mount(d.device(), read_only(true)).unwrap();
            assert!(has(&fs, "f2"), "{what}");
            assert_eq!(fs.forbidden().is_some(), used_up, "{what}");
            fs.unmount().unwrap();
            assert!(d.image() == before, "{what}: written to");
        }
    }
}
