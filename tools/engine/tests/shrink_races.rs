// SPDX-License-Identifier: GPL-2.0

//! A shrink beside what takes data away while it is moved, and on a device that fails.

#![allow(clippy::unwrap_used)]

mod common;

use common::hooked::{hooked, Ask};
use common::shrinking::*;
use common::*;
use kernel::prelude::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::Shared;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

/// Records of a file: enough for a punch or a deletion to take many transactions.
const RECORDS: u64 = 1200;
const FILES: u64 = 12;

/// Files whose data is behind the new end.
fn in_the_tail(fs: &Fs, dev: &ordofs_engine::os::Device) -> std::vec::Vec<Shared<Inode>> {
    let files = (0..FILES).map(|n| {
        let f = file_from(fs, &format!("file {n}"), 2);
        scattered(dev, fs, &f, RECORDS, 10_000 * n);
        assert!(all_behind(fs, &f, 2 * RECORDS, 2 * AG), "file {n}");
        f
    });
    let files = files.collect();
    fs.sync().unwrap();
    files
}

/// Shrinks, while `other` does something with each file from the moment in which the file is moved.
fn beside_the_mover(name: &str, other: impl Fn(&Fs, u64, &Shared<Inode>) + Sync) {
    let disk = made(4 * AG, 1);
    let dev = disk.device();
    // The files of which something was moved: so many.
    let moved = Arc::new(AtomicU64::new(0));
    let places = Arc::new(std::sync::OnceLock::<std::vec::Vec<(u64, u64)>>::new());
    let fs = {
        let (moved, places) = (moved.clone(), places.clone());
        mount_on(hooked(&disk, move |ask| {
            if let (Ask::Read(at), Some(places)) = (ask, places.get()) {
                if let Some(n) = places.iter().position(|p| p.0 <= at && at < p.1) {
                    moved.fetch_max(n as u64 + 1, Ordering::SeqCst);
                }
            }
            Ok(())
        }))
    };
    let files = in_the_tail(&fs, &dev);
    let ends = files.iter().map(|f| {
        let of = |i| fs.map_read(f, 2 * i, 1).unwrap().phys;
        let all = || (0..RECORDS).map(of);
        (all().min().unwrap(), all().max().unwrap() + 1)
    });
    places.set(ends.collect()).unwrap();
    std::thread::scope(|s| {
        s.spawn(|| {
            for (n, f) in (0..).zip(&files) {
                while moved.load(Ordering::SeqCst) <= n {
                    std::thread::yield_now();
                }
                other(&fs, n, f);
            }
        });
        let r = shrink(&fs, 2 * AG);
        moved.store(FILES, Ordering::SeqCst);
        assert_eq!(r, Ok((4 * AG, 2 * AG)), "{name}");
    });
    assert!(!fs.is_shutdown(), "{name}");
    at_rest(&disk, &fs);
    fs.unmount().unwrap();
    clean(disk.device(), name);
}

/// What a punch has removed stays removed.
#[test]
fn a_punch_beside_a_move() {
    beside_the_mover("punch", |fs, n, f| {
        fs.punch(f, 0, 2 * RECORDS).unwrap();
        fs.wait_ordered(f, 0, 2 * RECORDS);
        for at in 0..2 * RECORDS {
            let m = fs.map_read(f, at, 1).unwrap();
            assert_eq!(m.kind, MapKind::Hole, "file {n}, block {at}");
        }
        if n + 1 == FILES {
            fs.sync_inode(f).unwrap();
        }
    });
}

/// A range that was zeroed reads as zeros.
#[test]
fn a_zeroed_range_beside_a_move() {
    beside_the_mover("zero", |fs, n, f| {
        fs.zero_range(f, 0, 2 * RECORDS, None).unwrap();
        fs.wait_ordered(f, 0, 2 * RECORDS);
        for at in 0..2 * RECORDS {
            let m = fs.map_read(f, at, 1).unwrap();
            assert_eq!(m.kind, MapKind::Unwritten, "file {n}, block {at}");
        }
    });
}

/// What was cut off does not come back when the file grows again.
#[test]
fn a_truncation_beside_a_move() {
    beside_the_mover("truncation", |fs, n, f| {
        fs.set_size(f, 0).unwrap();
        fs.wait_ordered(f, 0, 2 * RECORDS);
        fs.raise_size(f, 4096 * 2 * RECORDS).unwrap();
        assert_eq!(f.blocks(), 0, "file {n}");
    });
}

/// Nothing of a deleted file stays in use.
#[test]
fn a_deletion_beside_a_move() {
    beside_the_mover("deletion", |fs, n, f| {
        let root = fs.iget(fs.root_ino()).unwrap();
        fs.unlink(&root, format!("file {n}").as_bytes(), f).unwrap();
        fs.iput(root);
        // The reference of the list stays.
        let again = fs.iget(f.ino()).unwrap();
        fs.delete_inode(again).unwrap();
    });
}

/// A write that fails at the new place ends the shrink and nothing else.
#[test]
fn a_failed_write_to_the_new_place() {
    let disk = made(4 * AG, 2);
    let dev = disk.device();
    let (source, next) = (Arc::new(AtomicU64::new(0)), AtomicBool::new(false));
    let fs = {
        let source = source.clone();
        mount_on(hooked(&disk, move |ask| {
            match ask {
                Ask::Read(at) if at == source.load(Ordering::SeqCst) => {
                    next.store(true, Ordering::SeqCst);
                }
                Ask::Write if next.swap(false, Ordering::SeqCst) => {
                    source.store(0, Ordering::SeqCst);
                    return Err(EIO);
                }
                _ => {}
            }
            Ok(())
        }))
    };
    let files = in_the_tail(&fs, &dev);
    let m = fs.map_read(&files[3], 2, 1).unwrap();
    source.store(m.phys, Ordering::SeqCst);
    assert_eq!(shrink(&fs, 2 * AG), Err(EIO));
    assert_eq!(source.load(Ordering::SeqCst), 0, "no write has failed");
    fs.sync().unwrap();
    assert!(!fs.is_shutdown());
    at_rest(&disk, &fs);
    assert_eq!(shrink(&fs, 2 * AG), Ok((4 * AG, 2 * AG)));
    for (n, f) in (0..).zip(&files) {
        check_scattered(&dev, &fs, f, RECORDS, 10_000 * n, "after it");
    }
    files.into_iter().for_each(|f| fs.iput(f));
    fs.unmount().unwrap();
    clean(disk.device(), "after it");
}

/// Preallocated blocks that are given back and preallocated again while they are moved: what is written
/// behind them stays.
#[test]
fn preallocation_beside_a_move() {
    const PIECES: u64 = 300;
    for round in 0..8u64 {
        let disk = made(4 * AG, 1);
        let dev = disk.device();
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let b = fs.create(&root, b"ballast", &regular()).unwrap();
        ballast(&fs, &b, 45_000);
        let f = fs.create(&root, b"file", &regular()).unwrap();
        for i in 0..PIECES {
            fs.preallocate(&f, i * 128, 63, None).unwrap();
            write(&dev, &fs, &f, i * 128 + 63, &[i + 1]).unwrap();
        }
        fs.punch(&b, 0, 2 * AG).unwrap();
        fs.sync().unwrap();
        let behind = |i: &u64| fs.map_read(&f, i * 128, 1).unwrap().phys > 2 * AG;
        assert!((0..PIECES).filter(behind).count() as u64 > PIECES / 4);
        let stop = AtomicBool::new(false);
        std::thread::scope(|s| {
            for t in 0..2 {
                let (fs, f, stop) = (&fs, &f, &stop);
                s.spawn(move || {
                    for i in (0..PIECES).cycle().skip(t * 150) {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        fs.punch(f, i * 128, 63).unwrap();
                        fs.preallocate(f, i * 128, 63, None).unwrap();
                        // What is given back can be had again after a commit.
                        if i % 100 == 0 {
                            fs.sync().unwrap();
                        }
                    }
                });
            }
            let r = shrink(&fs, 2 * AG);
            stop.store(true, Ordering::Relaxed);
            assert_eq!(r, Ok((4 * AG, 2 * AG)), "round {round}");
        });
        for i in 0..PIECES {
            let there = read(&dev, &fs, &f, i * 128 + 63).unwrap();
            assert_eq!(there, Some(i + 1), "round {round}, {i}");
        }
        [f, b, root].into_iter().for_each(|i| fs.iput(i));
        at_rest(&disk, &fs);
        fs.unmount().unwrap();
        clean(disk.device(), "after it");
    }
}
