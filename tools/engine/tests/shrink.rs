// SPDX-License-Identifier: GPL-2.0

//! A mounted filesystem becomes smaller: what is moved, what is refused, beside other tasks, and cut
//! off at each write.

#![allow(clippy::unwrap_used)]

mod common;

use common::shrinking::*;
use common::*;
use kernel::prelude::*;
use ordofs_engine::engine::format::places::{backups, SLOTS};
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::ops::xattr::USER;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::record::Recorder;
use ordofs_engine::os::{Block, Shared};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The backups are where this size requires them, and none is behind the end.
fn check_backups(disk: &MemDisk, from: u64) {
    let dev = disk.device();
    let sb = Superblock::read(&dev).unwrap();
    let mut b = Block::zeroed().unwrap();
    for at in backups(sb.blocks) {
        dev.read(at + SLOTS[0], &mut b).unwrap();
        let backup = Superblock::decode(&b).unwrap_or_else(|e| panic!("at {at}: {}", e.reason));
        assert_eq!(backup.blocks, sb.blocks, "backup at {at}");
    }
    for at in backups(from).filter(|at| *at >= sb.blocks) {
        dev.read(at + SLOTS[0], &mut b).unwrap();
        assert!(Superblock::decode(&b).is_err(), "a backup is left at {at}");
    }
}

#[test]
fn an_empty_filesystem() {
    for copies in [1, 2] {
        for (from, to, got) in [
            (3 * AG, 2 * AG, 2 * AG),
            (7 * AG + 12_345, 2 * AG + 77, 2 * AG),
            (2 * AG + 300, 2 * AG, 2 * AG),
            // Less than an area of backups, which begins in the AG before.
            (3 * AG + 100, 3 * AG, 2 * AG),
            (40 * AG, 3 * AG, 3 * AG),
            // Over a place of backups.
            ((1 << 22) + 3 * (1 << 18), 1 << 22, 1 << 22),
            (3 << 26, 1 << 26, 1 << 26),
        ] {
            let disk = made(from, copies);
            let place = format!("{copies} copies, {from} to {to}");
            let fs = mount(&disk);
            assert_eq!(shrink(&fs, to).map(|r| r.1), Ok(got), "{place}");
            check_backups(&disk, from);
            clean(disk.device(), &place);
            at_rest(&disk, &fs);
            grow(&fs, from).unwrap();
            clean(disk.device(), &format!("{place}, grown again"));
            fs.unmount().unwrap();
            let fs = mount(&disk);
            shrink(&fs, to).unwrap();
            fs.unmount().unwrap();
            disk.resize(got);
            clean(disk.device(), &place);
            mount(&disk).unmount().unwrap();
        }
    }
}

/// More AGs than one commit cuts off.
#[test]
fn many_groups() {
    let disk = made(AG, 1);
    disk.resize(80_000 * AG);
    let fs = mount(&disk);
    grow(&fs, 0).unwrap();
    let root = fs.iget(fs.root_ino()).unwrap();
    fs.iput(fs.create(&root, b"file", &regular()).unwrap());
    fs.iput(root);
    assert_eq!(shrink(&fs, 2 * AG), Ok((80_000 * AG, 2 * AG)));
    clean(disk.device(), "after many");
    fs.unmount().unwrap();
    clean(disk.device(), "after the unmount");
}

/// The home of a directory is cut off: it counts as none.
#[test]
fn a_home_that_is_gone() {
    let disk = made(8 * AG, 1);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let new = file(S_IFDIR | 0o755);
    let dirs: std::vec::Vec<_> = (0..8u8)
        .map(|i| fs.create(&root, &[b'a' + i], &new).unwrap())
        .collect();
    assert!(dirs.iter().any(|d| d.attrs().home_ag > 4));
    shrink(&fs, 3 * AG).unwrap();
    for (i, d) in dirs.into_iter().enumerate() {
        let f = fs.create(&d, b"before", &regular()).unwrap();
        write(&disk.device(), &fs, &f, 0, &[i as u64; 4]).unwrap();
        fs.iput(f);
        fs.iput(d);
    }
    fs.iput(root);
    fs.unmount().unwrap();
    clean(disk.device(), "with homes that are gone");
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    for i in 0..8u8 {
        let ino = fs.lookup(&root, &[b'a' + i]).unwrap().unwrap().ino;
        let d = fs.iget(ino).unwrap();
        let f = fs.create(&d, b"after", &regular()).unwrap();
        write(&disk.device(), &fs, &f, 0, &[1; 4]).unwrap();
        fs.iput(f);
        // New homes are among what is left.
        let below = fs.create(&d, b"below", &new).unwrap();
        assert!(below.attrs().home_ag < 3);
        fs.iput(below);
        fs.iput(d);
    }
    fs.iput(root);
    at_rest(&disk, &fs);
    fs.unmount().unwrap();
    clean(disk.device(), "at the end");
}

/// Files, preallocated blocks, a directory and attributes that begin where the space ends.
fn populate(disk: &MemDisk, fs: &Fs) -> Shared<Inode> {
    let dev = disk.device();
    let root = fs.iget(fs.root_ino()).unwrap();
    let b = fs.create(&root, b"ballast", &regular()).unwrap();
    ballast(fs, &b, 6000);
    for n in 0..200u64 {
        let name = format!("file {n}");
        let f = fs.create(&root, name.as_bytes(), &regular()).unwrap();
        for i in 0..6 {
            write(&dev, fs, &f, 2 * i, &[1000 * n + i]).unwrap();
        }
        let value = std::vec![n as u8; 3000];
        fs.set_xattr(&f, USER, b"x", Some(&value), XattrSet::Any)
            .unwrap();
        fs.preallocate(&f, 100, 5, None).unwrap();
        fs.iput(f);
        if n % 50 == 49 {
            fs.sync().unwrap();
        }
    }
    // Long records: of data, and of preallocated blocks.
    let f = fs.create(&root, b"long", &regular()).unwrap();
    let seeds: std::vec::Vec<u64> = (5000..5900).collect();
    write(&dev, fs, &f, 0, &seeds).unwrap();
    assert!(all_behind(fs, &f, 900, 2 * AG));
    fs.sync().unwrap();
    fs.iput(f);
    fs.iput(root);
    b
}

fn verify(disk: &MemDisk, fs: &Fs, place: &str) {
    let dev = disk.device();
    let root = fs.iget(fs.root_ino()).unwrap();
    for n in 0..200u64 {
        let name = format!("file {n}");
        let e = fs.lookup(&root, name.as_bytes()).unwrap().unwrap();
        let f = fs.iget(e.ino).unwrap();
        for i in 0..6 {
            let there = read(&dev, fs, &f, 2 * i).unwrap();
            assert_eq!(there, Some(1000 * n + i), "{place}: {name}, {i}");
        }
        let m = fs.map_read(&f, 100, 5).unwrap();
        assert_eq!((m.kind, m.len), (MapKind::Unwritten, 5), "{place}: {name}");
        let mut value = [0; 4000];
        assert_eq!(fs.get_xattr(&f, USER, b"x", &mut value), Ok(Some(3000)));
        assert!(
            value[..3000].iter().all(|b| *b == n as u8),
            "{place}: {name}"
        );
        fs.iput(f);
    }
    let e = fs.lookup(&root, b"long").unwrap().unwrap();
    let f = fs.iget(e.ino).unwrap();
    for i in 0..900 {
        assert_eq!(
            read(&dev, fs, &f, i).unwrap(),
            Some(5000 + i),
            "{place}: {i}"
        );
    }
    fs.iput(f);
    fs.iput(root);
}

#[test]
fn what_is_refused() {
    let disk = made(3 * AG, 0);
    let fs = mount(&disk);
    let begin = |n| fs.shrink_begin(n).map(|s| (s.from(), s.to()));
    assert_eq!(begin(3 * AG), Err(EINVAL));
    assert_eq!(begin(AG - 1), Err(EDOM));
    assert_eq!(begin(0), Err(EDOM));
    // Down to one AG, whose log still fits.
    assert_eq!(begin(2 * AG - 1), Ok((3 * AG, AG)));
    {
        let _one = fs.shrink_begin(2 * AG).unwrap();
        assert_eq!(begin(2 * AG), Err(EALREADY));
        assert_eq!(fs.resize_begin(0).map(drop), Err(EALREADY));
    }
    assert_eq!(fs.resize_begin(0).map(drop), Ok(()));
    at_rest(&disk, &fs);
    fs.go_read_only().unwrap();
    assert_eq!(begin(2 * AG), Err(EROFS));
    drop(fs);
    // The log ends behind the first AG.
    let disk = made(100 * AG, 0);
    let fs = mount(&disk);
    assert_eq!(fs.shrink_begin(AG).map(drop), Err(EDOM));
    shrink(&fs, 2 * AG).unwrap();
    fs.unmount().unwrap();
    let small = made(20_000, 0);
    let fs = mount(&small);
    assert_eq!(fs.shrink_begin(10_000).map(drop), Err(EDOM));
    fs.unmount().unwrap();
}

/// Ended between any two steps: the size is the old one, all space can be used again, and another
/// attempt goes through.
#[test]
fn ended_in_the_middle() {
    for copies in [1, 2] {
        let disk = made(6 * AG, copies);
        let fs = mount(&disk);
        let b = populate(&disk, &fs);
        fs.punch(&b, 0, AG * 5).unwrap();
        fs.iput(b);
        for steps in (0..14).map(|n| (1usize << n) + n) {
            let mut s = fs.shrink_begin(2 * AG).unwrap();
            let mut more = true;
            for _ in 0..steps {
                more = more && fs.shrink_step(&mut s).unwrap();
            }
            drop(s);
            let place = format!("{copies} copies, {steps} steps");
            clean(disk.fork().device(), &place);
            at_rest(&disk, &fs);
            verify(&disk, &fs, &place);
            if !more {
                break;
            }
            assert_eq!(fs.blocks(), 6 * AG);
        }
        assert_eq!(fs.blocks(), 2 * AG);
        fs.unmount().unwrap();
        clean(disk.device(), "at the end");
    }
}

/// Data that does not match its checksum stays where it is.
#[test]
fn damaged_data_ends_it() {
    let disk = made(6 * AG, 2);
    let fs = mount(&disk);
    let b = populate(&disk, &fs);
    fs.punch(&b, 0, AG * 5).unwrap();
    let root = fs.iget(fs.root_ino()).unwrap();
    let e = fs.lookup(&root, b"long").unwrap().unwrap();
    let f = fs.iget(e.ino).unwrap();
    let m = fs.map_read(&f, 700, 1).unwrap();
    assert!(m.phys >= 2 * AG, "at {}", m.phys);
    disk.corrupt(m.phys, 100, 0xff);
    assert_eq!(shrink(&fs, 2 * AG), Err(EUCLEAN));
    assert_eq!((fs.blocks(), fs.is_shutdown()), (6 * AG, false));
    assert_eq!(fs.map_read(&f, 700, 1).unwrap().phys, m.phys);
    disk.corrupt(m.phys, 100, 0xff);
    assert_eq!(shrink(&fs, 2 * AG), Ok((6 * AG, 2 * AG)));
    verify(&disk, &fs, "mended");
    [f, b, root].into_iter().for_each(|i| fs.iput(i));
    fs.unmount().unwrap();
    clean(disk.device(), "mended");
}

/// A file without names that is open, and one that a truncation has left something of.
#[test]
fn orphans_are_moved() {
    let disk = made(6 * AG, 2);
    let fs = mount(&disk);
    let b = populate(&disk, &fs);
    fs.punch(&b, 0, AG * 5).unwrap();
    let root = fs.iget(fs.root_ino()).unwrap();
    let e = fs.lookup(&root, b"long").unwrap().unwrap();
    let f = fs.iget(e.ino).unwrap();
    fs.unlink(&root, b"long", &f).unwrap();
    fs.sync().unwrap();
    assert_eq!(shrink(&fs, 2 * AG), Ok((6 * AG, 2 * AG)));
    for i in 0..900 {
        assert_eq!(read(&disk.device(), &fs, &f, i).unwrap(), Some(5000 + i));
    }
    fs.delete_inode(f).unwrap();
    fs.iput(b);
    fs.iput(root);
    fs.unmount().unwrap();
    clean(disk.device(), "with orphans");
}

/// What a thread does beside resizes: writes of both kinds, fsyncs, files that come and go.
fn work(disk: &MemDisk, fs: &Fs, t: u64, stop: &AtomicBool, rounds: &AtomicU64) {
    let dev = disk.device();
    let root = fs.iget(fs.root_ino()).unwrap();
    let name = format!("thread {t}");
    let f = fs.create(&root, name.as_bytes(), &regular()).unwrap();
    let mut last = std::collections::BTreeMap::new();
    let mut i = 0;
    while !stop.load(Ordering::Relaxed) {
        i += 1;
        let at = i * 7 % 400;
        let seed = t * 1_000_000 + i;
        match i % 3 {
            0 => flush(&dev, fs, &f, at, &[seed], true).unwrap(),
            _ => write(&dev, fs, &f, at, &[seed]).unwrap(),
        }
        last.insert(at, seed);
        let other = i * 13 % 400;
        let there = read(&dev, fs, &f, other).unwrap();
        assert_eq!(
            there,
            last.get(&other).copied(),
            "thread {t}, block {other}"
        );
        fs.preallocate(&f, 1000 + i * 40 % 20_000, 40, None)
            .unwrap();
        // In place.
        let place = 1000 + i * 39 % 20_000;
        write(&dev, fs, &f, place, &[seed]).unwrap();
        assert_eq!(read(&dev, fs, &f, place).unwrap(), Some(seed));
        match i % 16 {
            3 => fs.sync_inode(&f).unwrap(),
            7 => {
                let name = format!("thread {t}, {i}");
                let g = fs.create(&root, name.as_bytes(), &regular()).unwrap();
                write(&dev, fs, &g, 0, &[seed; 9]).unwrap();
                fs.unlink(&root, name.as_bytes(), &g).unwrap();
                fs.delete_inode(g).unwrap();
            }
            9 => fs.set_size(&f, 4096 * 600).unwrap(),
            11 => fs.punch(&f, 1000, 500).unwrap(),
            _ => {}
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    fs.iput(f);
    fs.iput(root);
}

/// Ends the other tasks when it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Random sizes, with fsck after each.
#[test]
fn up_and_down_beside_other_tasks() {
    for copies in [1, 2] {
        let disk = made(9 * AG, copies);
        let fs = mount(&disk);
        let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|s| {
            for t in 0..4u64 {
                let (fs, disk, stop, rounds) = (&fs, &disk, &stop, &rounds);
                s.spawn(move || work(disk, fs, t, stop, rounds));
            }
            // Also if this task panics.
            let _end = Stop(&stop);
            let mut x = 88_172_645_463_325_252u64;
            for i in 0..50 {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                let to = (5 + x % 20) * AG + x % 3 * 1000;
                let seen = rounds.load(Ordering::Relaxed);
                let from = fs.blocks();
                disk.resize(from.max(to));
                match to < from {
                    true => shrink(&fs, to).map(drop),
                    false => grow(&fs, to).map(drop),
                }
                .unwrap_or_else(|e| panic!("{i}: {from} to {to}: {e:?}"));
                clean(disk.fork().device(), &format!("{i}: {from} to {to}"));
                while rounds.load(Ordering::Relaxed) < seen + 4 {
                    std::thread::yield_now();
                }
            }
        });
        at_rest(&disk, &fs);
        fs.unmount().unwrap();
        clean(disk.device(), "after all");
    }
}

/// Power cuts at each write, with none, all or some of what no flush covers: the old size or the new
/// one, clean, and with everything that was there.
#[test]
fn a_power_cut_leaves_the_old_size_or_the_new_one() {
    for copies in [1, 2] {
        let disk = made(4 * AG, copies);
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = file_from(&fs, "file", 2);
        let b = fs.create(&root, b"ballast", &regular()).unwrap();
        scattered(&disk.device(), &fs, &f, 20, 1);
        fs.preallocate(&f, 100, 50, None).unwrap();
        assert!(all_behind(&fs, &f, 150, 2 * AG));
        ballast(&fs, &b, 3000);
        fs.sync().unwrap();
        fs.punch(&b, 0, AG * 3).unwrap();
        [f, b, root].into_iter().for_each(|i| fs.iput(i));
        fs.unmount().unwrap();
        let rec = Recorder::new(disk.clone());
        let fs = mount_on(rec.device());
        let first = rec.len();
        assert_eq!(shrink(&fs, 2 * AG), Ok((4 * AG, 2 * AG)));
        let done = rec.len();
        let root = fs.iget(fs.root_ino()).unwrap();
        fs.iput(fs.create(&root, b"behind", &regular()).unwrap());
        fs.sync().unwrap();
        let mut x = 88_172_645_463_325_252u64;
        let mut random = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        let mut seen = std::collections::BTreeSet::new();
        // Most writes are the zeros of the new area.
        let all: std::vec::Vec<usize> = (first..=rec.len()).collect();
        for cut in all {
            for kind in ["none", "all", "some"] {
                if kind != "some" && cut % 3 != 0 {
                    continue;
                }
                let image = rec.crash_image(cut, |_| match kind {
                    "none" => false,
                    "all" => true,
                    _ => random() % 2 == 0,
                });
                let place = format!("{copies} copies, cut after {cut}, {kind}");
                clean(image.device(), &place);
                let fs = mount(&image);
                seen.insert(fs.blocks());
                assert!(cut < done || fs.blocks() == 2 * AG, "{place}");
                let root = fs.iget(fs.root_ino()).unwrap();
                let e = fs.lookup(&root, b"file").unwrap().unwrap();
                let f = fs.iget(e.ino).unwrap();
                for i in 0..20 {
                    let there = read(&image.device(), &fs, &f, 2 * i).unwrap();
                    assert_eq!(there, Some(i + 1), "{place}, {i}");
                }
                assert_eq!(fs.map_read(&f, 100, 50).unwrap().kind, MapKind::Unwritten);
                fs.iput(f);
                fs.iput(root);
                if fs.blocks() > 2 * AG {
                    shrink(&fs, 2 * AG).unwrap_or_else(|e| panic!("{place}: {e:?}"));
                }
                fs.unmount().unwrap();
                clean(image.device(), &format!("{place}, again"));
            }
        }
        assert_eq!(
            seen.into_iter().collect::<std::vec::Vec<_>>(),
            [2 * AG, 4 * AG]
        );
    }
}

#[test]
fn what_is_in_the_tail_is_moved() {
    for copies in [1, 2] {
        let disk = made(6 * AG, copies);
        let fs = mount(&disk);
        let b = populate(&disk, &fs);
        // Refused as long as the ballast is there.
        let generation = fs.durable_generation();
        assert_eq!(shrink(&fs, 2 * AG), Err(ENOSPC));
        assert!(fs.durable_generation() <= generation + 3);
        assert_eq!(fs.blocks(), 6 * AG);
        fs.punch(&b, 0, AG * 5).unwrap();
        fs.sync().unwrap();
        let place = format!("{copies} copies");
        assert_eq!(shrink(&fs, 2 * AG), Ok((6 * AG, 2 * AG)), "{place}");
        verify(&disk, &fs, &place);
        clean(disk.device(), &place);
        at_rest(&disk, &fs);
        fs.iput(b);
        fs.unmount().unwrap();
        disk.resize(2 * AG);
        clean(disk.device(), &place);
        let fs = mount(&disk);
        verify(&disk, &fs, &place);
        fs.unmount().unwrap();
    }
}
