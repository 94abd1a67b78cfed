// SPDX-License-Identifier: GPL-2.0

//! Growing a mounted filesystem: every size, beside other tasks, on a full disk, and cut off at each
//! write.

#![allow(clippy::unwrap_used)]

mod common;

use common::hooked::{hooked, Ask, Gate};
use common::*;
use kernel::prelude::*;
use ordofs_engine::engine::format::places::{areas, backups, usable, AREA_BLOCKS, SLOTS};
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::record::{Op, Recorder};
use ordofs_engine::os::{Block, Device, Shared};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

const GIB: u64 = 1 << 18;
const TIB: u64 = 1 << 28;
/// Blocks of an AG of a filesystem of less than 16 GiB.
const AG: u64 = 1 << 15;

/// Checks everything with fsck.
fn clean(dev: Device, place: &str) {
    let report = ordofs_fsck::check(dev, ordofs_fsck::Options { data: true }).expect("superblock");
    let list: std::vec::Vec<_> = report.problems.iter().map(|p| format!("{p}")).collect();
    assert!(report.is_clean(), "fsck {place}:\n{}", list.join("\n"));
}

/// Grows to `blocks`; 0 means the device. Returns the sizes before and after.
fn resize(fs: &Fs, blocks: u64) -> Result<(u64, u64)> {
    let mut r = fs.resize_begin(blocks)?;
    while fs.resize_step(&mut r)? {}
    assert_eq!(fs.blocks(), r.to);
    Ok((r.from, r.to))
}

fn made(blocks: u64, copies: u8) -> MemDisk {
    let disk = MemDisk::new(blocks);
    format_with(disk.device(), copies);
    disk
}

/// What a mount that begins now shows is what the mount that has grown shows.
fn same_numbers(disk: &MemDisk, fs: &Fs, blocks: u64) {
    fs.sync().unwrap();
    let now = fs.statfs();
    assert_eq!(now.blocks, blocks);
    let again = mount(&disk.fork());
    // Its first commit finds out what the deferred tree has too many.
    let file = again.create(&again.iget(again.root_ino()).unwrap(), b"x", &regular());
    again.iput(file.unwrap());
    again.sync().unwrap();
    let then = again.statfs();
    assert_eq!(now.blocks, then.blocks);
    // The new file, and what the commits keep for themselves.
    let near = |a: u64, b: u64| a.abs_diff(b) <= 400;
    assert!(
        near(now.bfree, then.bfree),
        "{} and {}",
        now.bfree,
        then.bfree
    );
    assert!(
        near(now.bavail, then.bavail),
        "{} and {}",
        now.bavail,
        then.bavail
    );
}

/// The backups are where that size requires them, with that size, and nothing is where one was.
fn check_backups(disk: &MemDisk, before: &[u64]) {
    let sb = Superblock::read(&disk.device()).unwrap();
    let dev = disk.device();
    let mut b = Block::zeroed().unwrap();
    for at in backups(sb.blocks) {
        dev.read(at + SLOTS[0], &mut b).unwrap();
        let backup = Superblock::decode(&b).unwrap_or_else(|e| panic!("at {at}: {}", e.reason));
        assert_eq!(backup.blocks, sb.blocks, "backup at {at}");
    }
    for base in before {
        let at = base + SLOTS[0];
        if !areas(sb.blocks).any(|a| (a..a + AREA_BLOCKS).contains(&at)) {
            dev.read(at, &mut b).unwrap();
            assert!(Superblock::decode(&b).is_err(), "a backup is left at {at}");
        }
    }
}

fn through(copies: u8, sizes: &[u64]) {
    let disk = made(sizes[0], copies);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"file", &regular()).unwrap();
    for (i, size) in (1..).zip(&sizes[1..]) {
        let before: std::vec::Vec<u64> = backups(fs.blocks()).collect();
        disk.resize(*size);
        // Left from something else.
        let old = fs.blocks();
        let junk = |base: &u64| *base >= old;
        for base in areas(*size).filter(junk) {
            disk.corrupt(base + 5, 8, 0xff);
        }
        write(&disk.device(), &fs, &f, 3 * i, &[i, i + 1]).unwrap();
        // Either what the device has, or a number.
        resize(&fs, (i % 2) * size).unwrap_or_else(|e| panic!("to {size}: {e:?}"));
        assert_eq!(fs.blocks(), *size);
        check_backups(&disk, &before);
        for base in areas(*size).filter(junk) {
            let mut b = Block::zeroed().unwrap();
            disk.device().read(base + 5, &mut b).unwrap();
            assert!(b.iter().all(|x| *x == 0), "junk in the area at {base}");
        }
        clean(disk.device(), &format!("after the step to {size}"));
        same_numbers(&disk, &fs, *size);
        // What is new can be used: behind the old end.
        let want = (size - sizes[i as usize - 1]).min(64);
        fs.preallocate(&f, 1000 * i, want, None).unwrap();
        fs.sync().unwrap();
        clean(disk.device(), &format!("with new blocks, {size}"));
        for j in 1..=i {
            assert_eq!(read(&disk.device(), &fs, &f, 3 * j).unwrap(), Some(j));
        }
    }
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();
    clean(disk.device(), "after the unmount");
    let fs = mount(&disk);
    assert_eq!(fs.blocks(), *sizes.last().unwrap());
    fs.unmount().unwrap();
    assert!(Fs::mount(
        {
            disk.resize(sizes.last().unwrap() - 1);
            disk.device()
        },
        MountOptions::default()
    )
    .is_err_and(|e| e.error == EINVAL));
}

#[test]
fn small_filesystems() {
    for copies in [1, 2] {
        through(
            copies,
            &[4096, 4352, 5000, 8192, 8192 + 256, 20_000, 32_511, 32_767],
        );
    }
}

#[test]
fn across_the_borders_of_groups_and_of_ags() {
    for copies in [1, 2] {
        let sizes = [
            AG,
            AG + 256,
            AG + 513,
            AG + 8192 - 1,
            2 * AG - 100,
            2 * AG + 200,
            3 * AG,
            3 * AG + 1 + 256,
            7 * AG + 12_345,
            40 * AG,
        ];
        through(copies, &sizes);
    }
}

#[test]
fn past_the_inner_backups() {
    let x = 1 << 22;
    for copies in [1, 2] {
        through(
            copies,
            &[16 * GIB - 5, x + 256, x + 600, x + 2000, 17 * GIB],
        );
        through(copies, &[x - 1000, x + 100, x + 512, x + GIB]);
        through(copies, &[x - 200, x + 60, 16 * TIB / 1024 + 3 * GIB]);
    }
}

#[test]
fn to_a_hundred_tebibytes() {
    for copies in [1, 2] {
        through(
            copies,
            &[300 * GIB + 7, TIB / 2, 5 * TIB + 77, 100 * TIB - 3],
        );
    }
}

/// 800,000 AGs of 128 MiB, in steps.
#[test]
fn from_128_mib_to_a_hundred_tebibytes() {
    through(1, &[AG, 100 * TIB]);
}

/// The new blocks cannot be written: the filesystem goes on with the size that it has.
#[test]
fn a_device_that_does_not_write_new_blocks() {
    let disk = made(2 * AG, 0);
    let broken = Arc::new(AtomicBool::new(false));
    let b = broken.clone();
    let dev = hooked(&disk, move |ask| match ask {
        Ask::Write if b.load(Ordering::Relaxed) => Err(EIO),
        _ => Ok(()),
    });
    let fs = mount_on(dev);
    disk.resize(3 * AG);
    broken.store(true, Ordering::Relaxed);
    assert_eq!(resize(&fs, 0), Err(EIO));
    broken.store(false, Ordering::Relaxed);
    let root = fs.iget(fs.root_ino()).unwrap();
    fs.iput(fs.create(&root, b"goes on", &regular()).unwrap());
    fs.iput(root);
    fs.sync().unwrap();
    assert_eq!((fs.blocks(), fs.is_shutdown()), (2 * AG, false));
    assert_eq!(resize(&fs, 0), Ok((2 * AG, 3 * AG)));
    fs.unmount().unwrap();
    clean(disk.device(), "after an error");
}

#[test]
fn what_is_refused() {
    let disk = made(2 * AG, 0);
    let fs = mount(&disk);
    let generation = fs.durable_generation();
    let begin = |n| fs.resize_begin(n).map(|r| (r.from, r.to));
    assert_eq!(begin(AG), Err(EOPNOTSUPP));
    assert_eq!(begin(2 * AG - 1), Err(EOPNOTSUPP));
    assert_eq!(begin(2 * AG + 1), Err(EFBIG));
    // Nothing to be done.
    assert_eq!(begin(2 * AG), Ok((2 * AG, 2 * AG)));
    disk.resize(2 * AG + 255);
    assert_eq!(begin(0), Ok((2 * AG, 2 * AG)));
    assert_eq!(resize(&fs, 0), Ok((2 * AG, 2 * AG)));
    disk.resize(3 * AG);
    {
        let _one = fs.resize_begin(0).unwrap();
        assert_eq!(begin(0), Err(EALREADY));
    }
    assert_eq!(begin(3 * AG + 1), Err(EFBIG));
    disk.resize(1 << 60);
    assert_eq!(begin((1 << 38) + 1), Err(EFBIG));
    assert_eq!(begin(0), Ok((2 * AG, 1 << 38)));
    assert_eq!(fs.durable_generation(), generation);
    // The device shrinks after it was asked.
    disk.resize(3 * AG);
    let mut r = fs.resize_begin(0).unwrap();
    disk.resize(2 * AG);
    assert_eq!(fs.resize_step(&mut r), Err(EIO));
    drop(r);
    assert_eq!((fs.blocks(), fs.is_shutdown()), (2 * AG, false));
    let root = fs.iget(fs.root_ino()).unwrap();
    fs.iput(fs.create(&root, b"goes on", &regular()).unwrap());
    fs.iput(root);
    fs.sync().unwrap();
    clean(disk.device(), "nothing has changed");
    disk.resize(3 * AG);
    fs.go_read_only().unwrap();
    assert_eq!(begin(0), Err(EROFS));
    drop(fs);
    let small = made(20_000, 0);
    small.resize(AG);
    let fs = mount(&small);
    assert_eq!(fs.resize_begin(0).map(drop), Err(EDOM));
    fs.unmount().unwrap();
}

/// Sizes behind the place of an inner backup: mkfs makes none from which growing is impossible.
#[test]
fn no_size_is_a_dead_end() {
    let x = 1 << 22;
    for (size, got) in [
        (x + 256, x + 256),
        (x + 257, x + 256),
        (x + 511, x + 256),
        (x + 512, x + 512),
    ] {
        assert_eq!(usable(size), got);
        let disk = made(size, 0);
        let fs = mount(&disk);
        assert_eq!(fs.blocks(), got);
        disk.resize(x + GIB);
        resize(&fs, x + 900).unwrap();
        resize(&fs, 0).unwrap();
        fs.unmount().unwrap();
        clean(disk.device(), "after growing");
    }
}

/// Uses all space, until ENOSPC.
fn fill(fs: &Fs, f: &Shared<Inode>) {
    let mut at = 0;
    for step in [4096, 256, 16, 1] {
        loop {
            match fs.preallocate(f, at, step, None) {
                Ok(_) => at += step,
                Err(e) => {
                    assert_eq!(e, ENOSPC);
                    break;
                }
            }
        }
        at += step;
        fs.sync().unwrap();
    }
}

/// Leaves single free blocks everywhere, so that groups have bitmaps.
fn scatter(fs: &Fs) {
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"scattered", &regular()).unwrap();
    fill(fs, &f);
    for i in 0..fs.blocks() / 3 {
        fs.punch(&f, 3 * i, 1).unwrap();
    }
    fs.sync().unwrap();
    fs.iput(f);
    fs.iput(root);
}

/// The record of the last group is a bitmap, of full groups, or a list of runs.
#[test]
fn every_form_of_the_last_record() {
    for from in [8192 + 3000, AG + 5000, AG + 8192 + 77] {
        let disk = made(from, 1);
        let fs = mount(&disk);
        scatter(&fs);
        for more in [256, 1000, 7000] {
            disk.resize(fs.blocks() + more);
            resize(&fs, 0).unwrap();
            clean(disk.device(), &format!("from {from}, then {more} more"));
        }
        fs.unmount().unwrap();
        clean(disk.device(), "at the end");
    }
}

#[test]
fn a_full_disk_has_room_again() {
    for (copies, from, to) in [
        (1, 4096, 8192),
        (1, AG, 2 * AG),
        (2, AG, AG + 300),
        (1, AG + 77, 50 * GIB),
        (2, 2 * AG + 8192, 3 * AG + 11),
        (2, 3 * AG, 2 * TIB),
    ] {
        let disk = made(from, copies);
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"ballast", &regular()).unwrap();
        fill(&fs, &f);
        assert_eq!(fs.preallocate(&f, 1 << 30, 100, None).err(), Some(ENOSPC));
        disk.resize(to);
        let place = format!("{copies} copies, {from} to {to}");
        assert_eq!(resize(&fs, 0), Ok((from, to)), "{place}");
        clean(disk.device(), &place);
        fs.preallocate(&f, 1 << 30, 30, None)
            .unwrap_or_else(|e| panic!("{place}: {e:?}"));
        fill(&fs, &f);
        fs.iput(f);
        fs.iput(root);
        fs.unmount().unwrap();
        clean(disk.device(), &place);
    }
}

/// Nodes that a commit puts into the new blocks are read from there.
#[test]
fn nodes_in_new_blocks_can_be_read() {
    for (copies, from, to) in [(1, AG, 3 * AG), (2, AG + 77, 3 * AG), (2, 2 * AG, 5 * AG)] {
        let disk = made(from, copies);
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"ballast", &regular()).unwrap();
        fill(&fs, &f);
        disk.resize(to);
        assert_eq!(resize(&fs, 0), Ok((from, to)));
        fs.iput(f);
        // Each commit puts its nodes behind those of the one before.
        let mut names = 0;
        let is_new = || {
            let tree = Superblock::read(&disk.device()).unwrap().inode_root;
            tree.is_some_and(|p| p.addr >= from || p.addr2 >= from)
        };
        while !is_new() {
            for n in names..names + 100 {
                let f = fs.create(&root, format!("file {n}").as_bytes(), &regular());
                fs.iput(f.unwrap());
            }
            names += 100;
            assert!(names < 20_000);
            fs.sync().unwrap();
        }
        fs.iput(root);
        while fs.shrink_scan(u64::MAX) > 0 {}
        let root = fs.iget(fs.root_ino()).unwrap();
        for n in 0..names {
            let found = fs.lookup(&root, format!("file {n}").as_bytes()).unwrap();
            let f = fs.iget(found.unwrap().ino).unwrap();
            fs.iput(f);
        }
        fs.iput(root);
        fs.unmount().unwrap();
        clean(disk.device(), &format!("{copies} copies, {from} to {to}"));
    }
}

/// Other tasks write, sync and remove while the filesystem grows.
#[test]
fn beside_other_tasks() {
    for copies in [1, 2] {
        let disk = made(3 * AG + 100, copies);
        let fs = mount(&disk);
        let stop = AtomicBool::new(false);
        let rounds = AtomicU64::new(0);
        std::thread::scope(|s| {
            for t in 0..4u64 {
                let (fs, disk, stop, rounds) = (&fs, &disk, &stop, &rounds);
                s.spawn(move || {
                    let dev = disk.device();
                    let root = fs.iget(fs.root_ino()).unwrap();
                    let name = format!("file {t}");
                    let f = fs.create(&root, name.as_bytes(), &regular()).unwrap();
                    let mut i = 0;
                    while !stop.load(Ordering::Relaxed) {
                        i += 1;
                        let at = i * 7 % 500;
                        write(&dev, fs, &f, at, &[t * 1_000_000 + i]).unwrap();
                        assert_eq!(read(&dev, fs, &f, at).unwrap(), Some(t * 1_000_000 + i));
                        fs.preallocate(&f, 1000 + i * 40 % 20_000, 40, None)
                            .unwrap();
                        match i % 16 {
                            3 => fs.sync_inode(&f).unwrap(),
                            9 => fs.set_size(&f, 4096 * 600).unwrap(),
                            _ => {}
                        }
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                    fs.iput(f);
                    fs.iput(root);
                });
            }
            let mut size = 3 * AG + 100;
            for i in 0..60 {
                size += 256 + i * i * 97;
                disk.resize(size);
                let seen = rounds.load(Ordering::Relaxed);
                resize(&fs, 0).unwrap();
                while rounds.load(Ordering::Relaxed) < seen + 4 {
                    std::thread::yield_now();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        fs.unmount().unwrap();
        clean(disk.device(), "after growing under load");
    }
}

/// Power cuts at each write, with none, all or some of what no flush covers: the old size, one in
/// between, or the new one, all of them clean, and what was acknowledged is there.
fn cuts(copies: u8, sizes: &[u64]) {
    let disk = made(sizes[0], copies);
    {
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"file", &regular()).unwrap();
        write(&disk.device(), &fs, &f, 0, &[1, 2, 3]).unwrap();
        fs.iput(f);
        fs.iput(root);
        fs.unmount().unwrap();
    }
    let rec = Recorder::new(disk.clone());
    let fs = mount_on(rec.device());
    let root = fs.iget(fs.root_ino()).unwrap();
    let (_, f) = fs
        .lookup(&root, b"file")
        .map(|e| (0, fs.iget(e.unwrap().ino).unwrap()))
        .unwrap();
    // (operations, size that is durable, blocks that are)
    let mut marks = std::vec![(rec.len(), sizes[0], 3)];
    let mut n = 3;
    for size in &sizes[1..] {
        disk.resize(*size);
        resize(&fs, 0).unwrap();
        marks.push((rec.len(), *size, n));
        for _ in 0..3 {
            // In the log, and blocks that are new.
            write(&rec.device(), &fs, &f, n, &[n + 1]).unwrap();
            n += 1;
            fs.preallocate(&f, 10_000 + 1000 * n, 500, None).unwrap();
            fs.sync_inode(&f).unwrap();
            marks.push((rec.len(), *size, n));
        }
    }
    let ops = rec.ops();
    let mut x = 88_172_645_463_325_252u64;
    let mut random = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let mut seen = std::collections::BTreeSet::new();
    for cut in marks[0].0..=ops.len() {
        for kind in ["none", "all", "some"] {
            let image = rec.crash_image(cut, |_| match kind {
                "none" => false,
                "all" => true,
                _ => random() % 2 == 0,
            });
            let place = format!("cut after {cut} of {}, {kind}", ops.len());
            let (_, least, blocks) = *marks.iter().rfind(|m| m.0 <= cut).unwrap();
            clean(image.device(), &place);
            let fs = mount(&image);
            // Also if the growth was cut off before it had written them.
            check_backups(&image, &[]);
            seen.insert(fs.blocks());
            assert!(fs.blocks() >= least, "{place}: {} blocks", fs.blocks());
            let root = fs.iget(fs.root_ino()).unwrap();
            let e = fs.lookup(&root, b"file").unwrap().unwrap();
            let f = fs.iget(e.ino).unwrap();
            for i in 0..blocks {
                let there = read(&image.device(), &fs, &f, i).unwrap();
                assert_eq!(there, Some(i + 1), "{place}, block {i}");
            }
            // Another attempt.
            resize(&fs, 0).unwrap_or_else(|e| panic!("{place}: {e:?}"));
            fs.iput(f);
            fs.iput(root);
            fs.unmount().unwrap();
            clean(image.device(), &format!("{place}, grown again"));
        }
    }
    assert!(sizes.iter().all(|s| seen.contains(s)), "{seen:?}");
    assert!(ops.iter().any(|op| matches!(op, Op::Flush)));
}

#[test]
fn a_power_cut_leaves_a_valid_size() {
    cuts(1, &[4096, 4400, 9000]);
    cuts(1, &[AG + 100, AG + 500, 2 * AG + 100]);
    cuts(2, &[2 * AG, 2 * AG + 300, 4 * AG + 8000]);
}

/// The commit is under way, and its superblock is not there yet: what a task writes and syncs
/// meanwhile is in the old blocks, so it is there after a power cut.
#[test]
fn nothing_is_in_new_blocks_too_early() {
    for (copies, from, to) in [(1, AG + 8192, 4 * AG), (2, 3 * AG - 8000, 3 * AG)] {
        let disk = made(from, copies);
        let gate = Gate::default();
        let dev = gate.device(&disk);
        let fs = mount_on(gate.device(&disk));
        let root = fs.iget(fs.root_ino()).unwrap();
        let ballast = fs.create(&root, b"ballast", &regular()).unwrap();
        let f = fs.create(&root, b"file", &regular()).unwrap();
        fill(&fs, &ballast);
        // Only short runs are free, so a search looks for a longer one in other AGs.
        for i in 0..300 {
            fs.punch(&ballast, 16 * i, 8).unwrap();
        }
        fs.sync().unwrap();
        disk.resize(to);
        gate.shut(true);
        // More than the long runs that are left, which are for the pool.
        let seeds: std::vec::Vec<u64> = (1..=1600).collect();
        let mut cut = None;
        std::thread::scope(|s| {
            let t = s.spawn(|| resize(&fs, 0));
            gate.wait();
            let written = (0..)
                .step_by(80)
                .zip(seeds.chunks(80))
                .try_for_each(|(at, part)| write(&dev, &fs, &f, at, part))
                .and_then(|()| fs.sync_inode(&f));
            cut = Some(disk.fork());
            gate.shut(false);
            assert_eq!(t.join().unwrap(), Ok((from, to)));
            written.unwrap();
        });
        let cut = cut.unwrap();
        clean(cut.device(), "in the middle");
        let again = mount(&cut);
        assert_eq!(again.blocks(), from);
        let ino = again.lookup(&again.iget(again.root_ino()).unwrap(), b"file");
        let f2 = again.iget(ino.unwrap().unwrap().ino).unwrap();
        for (at, seed) in (0..).zip(&seeds) {
            assert_eq!(read(&cut.device(), &again, &f2, at).unwrap(), Some(*seed));
        }
        [f, ballast, root].into_iter().for_each(|i| fs.iput(i));
        fs.unmount().unwrap();
        clean(disk.device(), "at the end");
    }
}

/// A growth is cut off when its superblock is durable, and the log has a record already: the next mount
/// writes the backups before it commits what it replays, because that commit may use new blocks.
#[test]
fn backups_come_before_what_is_replayed() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = made(AG, 1);
    disk.resize(2 * AG);
    let (armed, reached, go) = <(Arc<AtomicBool>, Arc<AtomicBool>, Arc<AtomicBool>)>::default();
    let (arm, here, wait) = (armed.clone(), reached.clone(), go.clone());
    let superblocks = AtomicU64::new(0);
    // The first write after both copies of the growth's superblock waits.
    let fs = mount_on(hooked(&disk, move |ask| {
        if matches!(ask, Ask::Read(_)) || !arm.load(Ordering::SeqCst) {
            return Ok(());
        }
        if superblocks.load(Ordering::SeqCst) < 2 {
            superblocks.fetch_add(u64::from(matches!(ask, Ask::Fua)), Ordering::SeqCst);
        } else if arm.swap(false, Ordering::SeqCst) {
            here.store(true, Ordering::SeqCst);
            while !wait.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }));
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"g", &regular()).unwrap();
    fs.sync().unwrap();
    let cut = std::thread::scope(|s| {
        armed.store(true, Ordering::SeqCst);
        let t = s.spawn(|| resize(&fs, 0));
        while !reached.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        write(&disk.device(), &fs, &f, 0, &[7]).unwrap();
        fs.sync_inode(&f).unwrap();
        let cut = disk.fork();
        go.store(true, Ordering::SeqCst);
        assert_eq!(t.join().unwrap(), Ok((AG, 2 * AG)));
        cut
    });
    let rec = Recorder::new(cut);
    let again = Fs::mount(rec.device(), MountOptions::default()).map_err(|e| e.reason);
    let again = again.unwrap();
    assert!(again.replayed().records > 0 && again.blocks() == 2 * AG);
    let backup = |at: u64| backups(2 * AG).any(|b| (b..b + AREA_BLOCKS).contains(&at));
    let first = rec.ops().iter().find_map(|op| match op {
        Op::Write { block, .. } => Some(*block),
        _ => None,
    });
    assert!(backup(first.unwrap()), "block {first:?} is written first");
    fs.unmount().unwrap();
}

/// A scrub finds nothing while the filesystem grows.
#[test]
fn beside_a_scrub() {
    use ordofs_engine::engine::ops::scrub::{From, Go};
    let disk = made(2 * AG + 100, 2);
    let fs = mount(&disk);
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let (fs, stop) = (&fs, &stop);
        let scrubs = s.spawn(move || {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                let scrub = fs.scrub_start(From::Start, 0).unwrap();
                fs.scrub_run(scrub, &mut || Go::On);
                let st = fs.scrub_status();
                assert_eq!((st.bad_records, st.lost_nodes, st.bad_copies), (0, 0, 0));
                n += 1;
            }
            n
        });
        let mut size = 2 * AG + 100;
        for i in 0..200 {
            size += 256 + i % 5 * 1777;
            disk.resize(size);
            resize(fs, 0).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(scrubs.join().unwrap() > 1);
    });
    fs.unmount().unwrap();
    clean(disk.device(), "after scrubs");
    // Between its steps.
    let disk = made(2 * AG + 1000, 2);
    let fs = mount(&disk);
    scatter(&fs);
    let mut size = 2 * AG + 1000;
    let scrub = fs.scrub_start(From::Start, 0).unwrap();
    fs.scrub_run(scrub, &mut || {
        size += 256;
        disk.resize(size);
        resize(&fs, 0).unwrap();
        Go::On
    });
    assert_eq!(fs.scrub_status().bad_records, 0);
    fs.unmount().unwrap();
}
