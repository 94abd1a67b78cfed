// SPDX-License-Identifier: GPL-2.0

//! Recovery, case by case: damaged logs, read-only mounts, and the violations that the simulator found.

mod common;

use common::first_violation;
use ordofs_crash::bases::Bases;
use ordofs_crash::disk::{Blocks, Image, Recorder, Scratch, SIZE};
use ordofs_crash::engine::log::replayed::Replayed;
use ordofs_crash::engine::{Fs, Inode, MountOptions, Ordered};
use ordofs_crash::observe::{recovered, untouched};
use ordofs_crash::oracle::View;
use ordofs_crash::os::{crc32c, Block, Shared};
use ordofs_crash::run::Effort;
use ordofs_crash::workload::{Op, Start};
use ordofs_crash::world::World;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Checks all crash states of a workload with both ends.
fn none_violates(ops: &[Op]) {
    let effort = Effort {
        states: 2000,
        deep: 1,
    };
    let violation = first_violation(ops, effort, None, 3);
    assert!(violation.is_none(), "{ops:?}: {violation:?}");
}

/// The medium after operations, with nothing lost. The filesystem is still mounted.
fn after(ops: &[Op]) -> (Recorder, World) {
    kernel::print::set_level(kernel::print::SILENT);
    let bases = Bases::new().expect("bases");
    let base = bases.of(Start::Fresh, 1);
    let rec = Recorder::new(base.image.clone());
    let mut w = World::new(base, &rec, None).expect("mount");
    w.steps(ops).expect("operations");
    (rec, w)
}

fn names(v: &View) -> Vec<&str> {
    v.names.iter().map(|n| n.1.as_str()).collect()
}

fn has(v: &View, name: &str) -> bool {
    names(v).contains(&name)
}

/// Mounts: the result of the replay, and what a reader sees.
fn replay(image: &Image) -> (Replayed, View) {
    let disk = Scratch::new(image.clone());
    let fs = Fs::mount(disk.device(), MountOptions::default()).expect("mount");
    let r = fs.replayed();
    drop(fs);
    (r, recovered(image).expect("recovery").0)
}

/// The blocks of the log that were written and begin with the header of a batch.
fn batches(rec: &Recorder) -> Vec<u64> {
    let image = rec.image();
    let log = 256..512;
    log.filter(|b| image.get(*b).is_some_and(|d| d.starts_with(b"ORDL")))
        .filter(|b| rec.base().get(*b).is_none_or(|d| Some(d) != image.get(*b)))
        .collect()
}

fn with(image: &Image, block: u64, f: impl FnOnce(&mut [u8; SIZE])) -> Image {
    let mut data = image.get(block).map_or([0; SIZE], |d| **d);
    f(&mut data);
    let mut over = Blocks::default();
    over.insert(block, Arc::new(data));
    image.with(over)
}

const TWO: [Op; 5] = [
    Op::Create("A/d/h"),
    Op::Append("A/d/h", 9000),
    Op::Fsync("A/d/h"),
    Op::Create("B/f"),
    Op::Fsync("B/f"),
];

#[test]
fn pending_log_is_seen_by_mounts_that_recover_and_by_no_other() {
    let (rec, _w) = after(&TWO);
    let image = rec.image();
    untouched(&image).expect("fsck of what is committed");
    let (r, view) = replay(&image);
    assert_eq!((r.batches, r.damaged, r.disbelieved), (2, None, false));
    assert!(has(&view, "h") && names(&view).iter().filter(|n| **n == "f").count() == 2);
    for recovery in [true, false] {
        let disk = Scratch::readonly(image.clone());
        let o = MountOptions {
            read_only: true,
            recovery,
            ..MountOptions::default()
        };
        let fs = Fs::mount(disk.device(), o).expect("read-only mount");
        let dir = fs.lookup(&fs.iget(fs.root_ino()).unwrap(), b"A").unwrap();
        let dir = fs.iget(dir.unwrap().ino).unwrap();
        let dir = fs
            .iget(fs.lookup(&dir, b"d").unwrap().unwrap().ino)
            .unwrap();
        assert_eq!(fs.lookup(&dir, b"h").unwrap().is_some(), recovery);
        fs.unmount().expect("unmount");
        assert!(!disk.changed());
    }
}

/// Does a writable mount refuse because of the log?
fn refused(image: &Image) -> bool {
    let disk = Scratch::new(image.clone());
    let e = Fs::mount(disk.device(), MountOptions::default()).err();
    e.is_some_and(|e| e.reason.contains("the log is damaged")) && !disk.changed()
}

#[test]
fn a_damaged_batch_at_the_end_ends_replay_and_one_before_it_forbids_writing() {
    let (rec, _w) = after(&TWO);
    let image = rec.image();
    let log = batches(&rec);
    assert_eq!(log.len(), 2);
    let used = |b: u64| {
        let d = image.get(b).unwrap();
        64 + u32::from_le_bytes(d[40..44].try_into().unwrap()) as usize
    };
    for at in 0..used(log[0]).min(SIZE) {
        let bit = 1 << (at % 8);
        let image = with(&image, log[0], |d| d[at] ^= bit);
        assert!(refused(&image), "byte {at}");
    }
    for sectors in 0..used(log[0]).div_ceil(512) {
        let image = with(&image, log[0], |d| d[512 * sectors..].fill(0));
        assert!(refused(&image), "{sectors} sectors");
    }
    for at in 0..used(log[1]).min(SIZE) {
        let bit = 1 << (at % 8);
        let (r, view) = replay(&with(&image, log[1], |d| d[at] ^= bit));
        assert_eq!(r.batches, 1, "byte {at}");
        assert!(has(&view, "h"), "byte {at}");
        // Wherever the bit is: it was begun.
        assert!(r.damaged.is_some(), "byte {at}");
    }
    for sectors in 1..used(log[1]).div_ceil(512) {
        let cut = with(&image, log[1], |d| d[512 * sectors..].fill(0));
        let (r, _) = replay(&cut);
        assert_eq!((r.batches, r.damaged.is_some()), (1, true));
    }
}

#[test]
fn a_batch_with_a_wrong_number_or_a_wrong_record_does_not_count() {
    let (rec, _w) = after(&TWO);
    let image = rec.image();
    let log = batches(&rec);
    let forged = |at: usize, xor: u8| {
        with(&image, log[1], |d| {
            d[at] ^= xor;
            let own = crc32c(0, &d[8..56]);
            d[56..60].copy_from_slice(&own.to_le_bytes());
            let len = u32::from_le_bytes(d[40..44].try_into().unwrap()) as usize;
            let crc = crc32c(0, &d[8..64 + len]);
            d[4..8].copy_from_slice(&crc.to_le_bytes());
        })
    };
    // Sequence number; position; what was flushed; flags; kind of the first record; its length.
    for (at, damaged) in [
        (16, false),
        (24, false),
        (39, false),
        (44, false),
        (68, true),
        (64, true),
    ] {
        let (r, view) = replay(&forged(at, 0x40));
        assert_eq!((r.batches, r.damaged.is_some()), (1, damaged), "byte {at}");
        assert!(has(&view, "h"));
    }
}

#[test]
fn writable_after_a_read_only_replay_loses_no_fsync() {
    let (rec, _w) = after(&TWO);
    let disk = Scratch::new(rec.image());
    let o = MountOptions {
        read_only: true,
        ..MountOptions::default()
    };
    let fs = Fs::mount(disk.device(), o).expect("read-only mount");
    fs.set_read_only(false);
    fs.clean_orphans().expect("orphans");
    let root = fs.iget(fs.root_ino()).unwrap();
    let a = fs
        .iget(fs.lookup(&root, b"A").unwrap().unwrap().ino)
        .unwrap();
    let a = fs.iget(fs.lookup(&a, b"d").unwrap().unwrap().ino).unwrap();
    let g = fs.iget(fs.lookup(&a, b"h").unwrap().unwrap().ino).unwrap();
    fs.link(&root, b"late", &g).expect("link");
    fs.sync_inode(&g).expect("fsync");
    let view = recovered(&disk.image()).expect("recovery").0;
    assert!(has(&view, "late"), "{:?}", view.names);
}

#[test]
fn replay_is_committed_to_the_slot_that_the_superblock_is_not_in() {
    // The log has records of the two generations after the superblock's.
    none_violates(&[Op::Exchange("A/f", "B/g")]);
    none_violates(&[
        Op::Chmod("A/f", 0o600),
        Op::Commit(2),
        Op::Mkdir("B/d"),
        Op::Fsync("B"),
    ]);
}

#[test]
fn dropped_pages_of_an_append_take_the_size_along() {
    none_violates(&[
        Op::Append("A/f", 5000),
        Op::Zero("A/f", 4096, 20480, true),
        Op::Fsync("A/f"),
    ]);
    none_violates(&[
        Op::Append("A/f", 5000),
        Op::Punch("A/f", 4096, 40960),
        Op::Fsync("A/f"),
    ]);
}

#[test]
fn a_larger_size_keeps_what_is_preallocated_behind_it() {
    none_violates(&[
        Op::Allocate("A/f", 12288, 40960, true),
        Op::Sync,
        Op::Allocate("A/f", 12288, 4096, false),
        Op::DirectAppend("A/f", 8192),
        Op::Fsync("A/f"),
    ]);
}

#[test]
fn what_a_truncation_cut_off_does_not_come_back() {
    none_violates(&[
        Op::Truncate("A/f", 5000),
        Op::Truncate("A/f", 20000),
        Op::Fsync("B/g"),
    ]);
}

#[test]
fn whiteouts_and_long_symlinks_are_replayed() {
    none_violates(&[
        Op::Whiteout("A/f", "B/f"),
        Op::Fsync("B/f"),
        Op::Whiteout("B/f", "B/g"),
        Op::Fsync("B"),
    ]);
    none_violates(&[
        Op::Symlink("A/s", 4095),
        Op::Symlink("B/s", 1024),
        Op::Fsync("A"),
    ]);
}

fn start(fs: &Shared<Fs>, f: &Shared<Inode>, rec: &Recorder, block: u64, byte: u8) -> Ordered {
    let mut b = Block::zeroed().unwrap();
    b.fill(byte);
    let s = fs
        .start_write(f, block, &[crc32c(0, &b[..])], true)
        .unwrap_or_else(|e| panic!("{e:?}"));
    rec.device().write(&[(s.phys, &b)]).unwrap();
    s.ordered
}

/// An fsync waits for one write, while another one begins over blocks whose last write has
/// completed and is in no log. The mapping of the new write must not hide the completed one.
#[test]
fn a_mapping_in_flight_hides_no_completed_one_from_fsync() {
    let mut seen = 0;
    for _ in 0..20 {
        let (rec, w) = after(&[]);
        let fs = w.fs().clone();
        let root = fs.iget(fs.root_ino()).unwrap();
        let dir = fs
            .iget(fs.lookup(&root, b"A").unwrap().unwrap().ino)
            .unwrap();
        let f = fs
            .iget(fs.lookup(&dir, b"f").unwrap().unwrap().ino)
            .unwrap();
        let done = |o: Ordered, end: u64| fs.finish_write(o, end, Ok(())).unwrap();
        done(start(&fs, &f, &rec, 0, 0xaa), 4096);
        let waited_for = start(&fs, &f, &rec, 1, 0xbb);
        let image = std::thread::scope(|s| {
            let syncing = s.spawn(|| {
                fs.sync_inode(&f).unwrap();
                rec.image()
            });
            std::thread::sleep(Duration::from_millis(30));
            let over = start(&fs, &f, &rec, 0, 0xcc);
            done(waited_for, 8192);
            let late = Instant::now() + Duration::from_secs(1);
            while !syncing.is_finished() && Instant::now() < late {
                std::thread::sleep(Duration::from_millis(1));
            }
            // Too late this time: the fsync waits for both.
            let hit = syncing.is_finished();
            done(over, 4096);
            let image = syncing.join().unwrap();
            hit.then_some(image)
        });
        let Some(image) = image else { continue };
        let view = recovered(&image).expect("recovery").0;
        let file = &view.inodes[&f.ino()];
        assert!(file.blocks.contains(&(0, [0xaa; SIZE])), "block 0 was lost");
        assert!(file.blocks.contains(&(1, [0xbb; SIZE])), "block 1 was lost");
        seen += 1;
        if seen == 3 {
            return;
        }
    }
    panic!("the fsync never came first");
}
