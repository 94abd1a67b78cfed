// SPDX-License-Identifier: GPL-2.0

//! Which blocks are discarded, and in what pieces.

use crate::common::*;
use crate::counting::peak_of;
use crate::disk::*;
use kernel::prelude::*;
use ordofs_engine::engine::ops::trim::TrimRange;
use std::sync::atomic::Ordering;
use std::time::Instant;

#[test]
fn exactly_the_free_blocks_are_discarded_at_every_size() {
    let _alone = alone();
    for blocks in [
        4096,
        8192,
        8193,
        32767,
        32768,
        GIB,
        GIB + 8191,
        20 * GIB + 5,
    ] {
        let (disk, fs) = fresh(blocks);
        let dev = disk.device();
        mixed(&dev, &fs, (1..60).map(|i| 1 + i * 7 % 31));
        fs.sync().unwrap();
        disk.take();
        for least in [1, 2, 16, 300] {
            let range = TrimRange {
                min_len: least * 4096,
                ..ALL
            };
            let bfree = fs.statfs().bfree;
            let trimmed = trim(&fs, range).unwrap();
            let discarded = disk.take();
            assert_eq!(sum(&discarded), trimmed);
            let free = joined(free_on_disk(&disk.0.disk, least));
            assert_eq!(joined(discarded), free, "{blocks} blocks, from {least}");
            if least == 1 {
                assert_eq!(trimmed, superblock(&disk.0.disk).free, "{blocks} blocks");
            }
            assert_eq!(fs.statfs().bfree, bfree);
        }
        at_rest(&disk.0.disk, &fs);
    }
}

#[test]
fn a_range_is_rounded_inwards() {
    let _alone = alone();
    let (disk, fs) = fresh(3 * GIB);
    mixed(&disk.device(), &fs, 1..40);
    fs.sync().unwrap();
    disk.take();
    let free = free_on_disk(&disk.0.disk, 1);
    let cut = |start: u64, end: u64| {
        let part = free.iter().filter_map(|(at, n)| {
            let (from, to) = ((*at).max(start), (at + n).min(end));
            (from < to).then(|| (from, to - from))
        });
        joined(part.collect())
    };
    for _ in 0..60 {
        let start = fastrand::u64(..3 * GIB * 4096);
        let len = fastrand::u64(4096..GIB * 8192);
        let range = TrimRange {
            start,
            len,
            min_len: 0,
        };
        trim(&fs, range).unwrap();
        let want = cut(start.div_ceil(4096), (start + len) / 4096);
        assert_eq!(joined(disk.take()), want, "{start}+{len}");
    }
}

#[test]
fn what_cannot_be_trimmed_is_refused() {
    let _alone = alone();
    let (disk, fs) = fresh(8192);
    let end = 8192 * 4096;
    let range = |start, len, min_len| TrimRange {
        start,
        len,
        min_len,
    };
    for (bad, e) in [
        (range(end, u64::MAX, 0), EINVAL),
        (range(u64::MAX, 1 << 20, 0), EINVAL),
        (range(0, 4095, 0), EINVAL),
        (range(0, u64::MAX, GROUP * 4096 + 1), EINVAL),
        (range(0, u64::MAX, u64::MAX), EINVAL),
    ] {
        assert_eq!(trim(&fs, bad), Err(e), "{bad:?}");
    }
    assert!(trim(&fs, range(0, u64::MAX, GROUP * 4096)).is_ok());
    assert_eq!(trim(&fs, range(end - 4095, 4096, 0)), Ok(0));
    assert!(trim(&fs, range(end - 8192, u64::MAX, 0)).is_ok());
    disk.take();

    // Runs that are shorter than the unit of the device are left out, and the caller learns it.
    disk.0.unit.store(1 << 20, Ordering::Relaxed);
    let mut all = ALL;
    fs.trim_begin(&mut all).unwrap();
    assert_eq!(all.min_len, 1 << 20);
    trim(&fs, ALL).unwrap();
    let long = joined(free_on_disk(&disk.0.disk, 256));
    assert_eq!(joined(disk.take()), long);
    disk.0.unit.store(0, Ordering::Relaxed);
    assert_eq!(trim(&fs, ALL), Err(EOPNOTSUPP));
    disk.0.unit.store(64 << 20, Ordering::Relaxed);
    assert_eq!(trim(&fs, ALL), Err(EOPNOTSUPP));
    disk.0.unit.store(4096, Ordering::Relaxed);

    fs.go_read_only().unwrap();
    assert_eq!(trim(&fs, ALL), Err(EROFS));
    fs.set_read_only(false);
    fs.abort("a test");
    assert_eq!(trim(&fs, ALL), Err(EIO));
    assert!(disk.take().is_empty());
}

/// A long run is divided, so that not too much is withheld at once, at multiples of the unit.
#[test]
fn a_piece_is_bounded_and_aligned() {
    let _alone = alone();
    for (blocks, unit, most) in [
        (8192, 1, 128),
        (8192, 16, 128),
        (8192, 128, 256),
        (GIB, 8, 4096),
    ] {
        let (disk, fs) = fresh(blocks);
        disk.0.unit.store(unit * 4096, Ordering::Relaxed);
        trim(&fs, ALL).unwrap();
        let free = joined(free_on_disk(&disk.0.disk, unit));
        for (at, n) in disk.take() {
            assert!(n <= most, "{n} blocks at once of {blocks}");
            let ends = free.iter().any(|(start, len)| start + len == at + n);
            let aligned = (at + n) % unit == 0;
            assert!(ends || aligned, "{at}+{n} with unit {unit}");
        }
    }
}

/// A freeze waits for a piece, so that has few runs, however small they are.
#[test]
fn a_piece_has_few_runs() {
    let _alone = alone();
    let (disk, fs) = fresh(1 << 16);
    mixed(&disk.device(), &fs, (0..3000).map(|_| 1));
    fs.sync().unwrap();
    disk.take();
    let mut range = ALL;
    let mut t = fs.trim_begin(&mut range).unwrap();
    let (mut most, mut all) = (0, 0);
    while fs.trim_step(&mut t, &mut || false).unwrap() {
        let n = disk.take().len();
        (most, all) = (most.max(n), all + n);
    }
    println!("{all} runs, at most {most} in a piece");
    assert!(most <= 64 && all > 1000, "{most}, {all}");
}

#[test]
fn a_hundred_tib_take_little_memory() {
    let _alone = alone();
    let (disk, fs) = fresh(100 << 10 << 18);
    disk.take();
    let free = superblock(&disk.0.disk).free;
    let before = Instant::now();
    let mut trimmed = 0;
    let memory = peak_of(|| trimmed = trim(&fs, ALL).unwrap());
    println!("{} KiB, {:?}", memory >> 10, before.elapsed());
    assert_eq!(trimmed, free);
    assert!(memory < 16 << 20, "{} KiB", memory >> 10);
    // What is known does not make it slower: a part takes its share of the time.
    let part = TrimRange {
        // Where no node is: second copies begin in the middle.
        start: 60 << 40,
        len: 1 << 40,
        min_len: 0,
    };
    assert_eq!(trim(&fs, part), Ok(1 << 28));
    let longest = disk.take().into_iter().map(|r: (u64, u64)| r.1).max();
    assert_eq!(longest, Some(GROUP));
}
