// SPDX-License-Identifier: GPL-2.0

//! Damage to a log of ten batches, bit by bit. What one of the headers calls flushed was acknowledged:
//! damage to it is reported as such. `rescue=log` goes on without it.

mod common;

use common::log::*;
use common::{file, fsck, make, mount, regular};
use kernel::prelude::EUCLEAN;
use ordofs_engine::engine::format::places::slot;
use ordofs_engine::engine::log::replayed::Replayed;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Block, Shared};

const TEN: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// A log of ten batches of one block, each with a file and its data.
fn ten() -> (MemDisk, Vec<u64>) {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(1 << 12);
    let fs = mount(&disk);
    for (name, seed) in TEN.iter().zip(1..) {
        synced(&disk, &fs, name.as_bytes(), seed);
    }
    let log = batches(&disk);
    assert_eq!(log.len(), TEN.len());
    (disk.fork(), log)
}

/// The mount that may write refuses, and writes nothing; one for reading shows `count` batches.
fn refuses(disk: &MemDisk, count: usize, what: &str) -> Replayed {
    let e = Fs::mount(disk.device(), MountOptions::default()).err();
    let e = e.unwrap_or_else(|| panic!("{what}: mounted"));
    assert_eq!(e.error, EUCLEAN, "{what}: {}", e.reason);
    assert!(e.reason.contains("log"), "{what}: {}", e.reason);
    let fs = Fs::mount(disk.device(), read_only(true));
    let fs = fs.unwrap_or_else(|e| panic!("{what}: {}", e.reason));
    assert_eq!(names(&fs), TEN[..count], "{what}");
    fs.replayed()
}

/// Each bit of each batch: before the last one the mount refuses and names the batches. The last one
/// may have been cut off, so it is dropped, and that is reported.
#[test]
fn each_flipped_bit_of_ten_batches_is_found() {
    let (disk, log) = ten();
    let first = u64_at(&block(&disk, log[0]), NUMBER);
    for (n, at) in log.iter().enumerate() {
        let good = block(&disk, *at);
        let end = HEADER + u32_at(&good, LEN) as usize;
        for bit in 0..8 * end {
            let what = format!("batch {n}, byte {}, bit {}", bit / 8, bit % 8);
            disk.corrupt(*at, bit / 8, 1 << (bit % 8));
            if n + 1 == log.len() {
                let fork = disk.fork();
                let fs = mount(&fork);
                assert_eq!(names(&fs), TEN[..n], "{what}");
                let r = fs.replayed();
                assert_eq!(r.damaged, Some(first + n as u64), "{what}");
                assert!(r.lost.is_none() && r.newer.is_none(), "{what}");
            } else {
                let r = refuses(&disk, n, &what);
                let lost = r.lost.unwrap_or_else(|| panic!("{what}: {r:?}"));
                assert_eq!(lost.seq, first + n as u64, "{what}");
                assert_eq!(lost.batches(), (log.len() - n) as u64, "{what}");
                assert!(r.newer.is_none(), "{what}");
            }
            disk.corrupt(*at, bit / 8, 1 << (bit % 8));
            assert_eq!(block(&disk, *at), good);
        }
        // The rest of the block means nothing.
        disk.corrupt(*at, end, 1);
        assert_eq!(names(&mount(&disk.fork())), TEN, "behind batch {n}");
        disk.corrupt(*at, end, 1);
    }
}

/// With rescue=log the log ends before the damage, for good, and the filesystem is in order.
#[test]
fn rescue_goes_on_without_what_is_behind_the_damage() {
    let (disk, log) = ten();
    let rescue = |read_only| MountOptions {
        read_only,
        rescue_log: true,
        ..MountOptions::default()
    };
    for (n, at) in log.iter().enumerate().take(9) {
        for damage in [SIZE, HEADER + 40, FLUSHED] {
            let what = format!("batch {n}, {damage}");
            let d = disk.fork();
            ruin(&d, *at, damage);
            refuses(&d, n, &what);
            let fs = Fs::mount(d.device(), rescue(true)).unwrap_or_else(|e| panic!("{}", e.reason));
            assert_eq!(names(&fs), TEN[..n], "{what}");
            assert!(fs.forbidden().is_none(), "{what}: it may become writable");
            let fs =
                Fs::mount(d.device(), rescue(false)).unwrap_or_else(|e| panic!("{}", e.reason));
            let r = fs.replayed();
            assert!(r.given_up && r.lost.is_some(), "{what}: {r:?}");
            assert_eq!(names(&fs), TEN[..n], "{what}");
            // A new batch where the damaged one was, and the power goes again.
            synced(&d, &fs, b"new", 77);
            let crashed = d.fork();
            let fs = mount(&crashed);
            let mut want = TEN[..n].to_vec();
            want.push("new");
            want.sort_unstable();
            assert_eq!(names(&fs), want, "{what}");
            fs.unmount().unwrap();
            fsck(&crashed);
        }
    }
    // Without damage it changes nothing.
    let d = disk.fork();
    let fs = Fs::mount(d.device(), rescue(false)).unwrap_or_else(|e| panic!("{}", e.reason));
    assert!(!fs.replayed().given_up);
    assert_eq!(names(&fs), TEN);
}

/// Only what a header says counts, not that one is there: a batch that no other calls flushed ends the
/// log if it is not whole, and what is behind it never comes back.
#[test]
fn a_batch_that_no_header_calls_flushed_may_be_cut_off() {
    let (disk, log) = ten();
    let eighth = u64_at(&block(&disk, log[7]), NUMBER);
    for last in [8, 9] {
        // As if batches had been written while the flush of an earlier one ran.
        forge(&disk, log[last], log[last], |b| {
            b[FLUSHED..FLUSHED + 8].copy_from_slice(&eighth.to_le_bytes());
        });
    }
    assert_eq!(names(&mount(&disk.fork())), TEN);
    for damage in [SIZE, HEADER + 40, FLUSHED] {
        let d = disk.fork();
        ruin(&d, log[8], damage);
        let fs = mount(&d);
        assert_eq!(names(&fs), TEN[..8], "{damage}");
        assert_eq!(fs.replayed().damaged, Some(eighth + 1), "{damage}");
        // As long as the lost one: what follows it on disk has the number after.
        synced(&d, &fs, b"i", 9);
        let crashed = d.fork();
        let fs = mount(&crashed);
        assert_eq!(names(&fs), TEN[..9], "{damage}");
        fs.unmount().unwrap();
        fsck(&crashed);
    }
    // The batch before was flushed: damage to it is damage.
    ruin(&disk, log[7], HEADER + 40);
    let r = refuses(&disk, 7, "batch 7");
    assert_eq!(r.lost.map(|l| l.batches()), Some(3), "{r:?}");
}

/// Where a batch is of no use to this superblock: the newest one is gone, and the log shows it.
#[test]
fn a_log_of_a_newer_superblock_is_not_replayed() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(1 << 12);
    let fs = mount(&disk);
    synced(&disk, &fs, b"a", 1);
    fs.sync().unwrap();
    synced(&disk, &fs, b"b", 2);
    let root = fs.iget(fs.root_ino()).unwrap();
    // In no batch: the commit makes its record superfluous.
    let dir = fs.create(&root, b"d", &file(S_IFDIR | 0o700)).unwrap();
    let old = superblock(&disk).generation;
    let copies = [0, 1].map(|copy| slot(old + 1, copy, 1 << 12));
    let outdated = copies.map(|at| block(&disk, at));
    fs.sync().unwrap();
    let new = superblock(&disk).generation;
    assert_eq!(new, old + 1);
    let inside = fs.create(&dir, b"inside", &regular()).unwrap();
    fs.sync_inode(&inside).unwrap();
    // The newest superblock was never written, though the device said so; or it is damaged.
    let before = disk.fork();
    drop((inside, dir, root, fs));
    for lost in [true, false] {
        let d = before.fork();
        for (at, outdated) in copies.iter().zip(&outdated) {
            if lost {
                let mut b = Block::zeroed().unwrap();
                b.copy_from_slice(&outdated[..]);
                d.device().write(&[(*at, &b)]).unwrap();
            } else {
                for byte in 0..512 {
                    d.corrupt(*at, byte, 0x55);
                }
            }
        }
        assert_eq!(superblock(&d).generation, old);
        let e = Fs::mount(d.device(), MountOptions::default()).err();
        assert_eq!(e.expect("refused").error, EUCLEAN);
        let rescue = MountOptions {
            rescue_log: true,
            ..MountOptions::default()
        };
        let e = Fs::mount(d.device(), rescue).err();
        assert_eq!(e.expect("not this way").error, EUCLEAN);
        let fs: Shared<Fs> = Fs::mount(d.device(), read_only(true)).expect("for reading");
        assert_eq!(names(&fs), ["a", "b"]);
        assert_eq!(fs.replayed().newer, Some(new));
        assert_eq!(fs.forbidden().map(|e| e.error), Some(EUCLEAN));
        // Going on from the older state is possible if the user asks for that.
        let rescue = MountOptions {
            rescue_older: true,
            ..MountOptions::default()
        };
        let fs = Fs::mount(d.device(), rescue).expect("rescue");
        assert_eq!(names(&fs), ["a", "b"]);
        assert!(fs.durable_generation() > new);
        fs.unmount().unwrap();
        fsck(&d);
    }
}
