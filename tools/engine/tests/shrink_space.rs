// SPDX-License-Identifier: GPL-2.0

//! A shrink and the space of others: what writes have reserved, what commits write anew, and what is
//! being deleted.

#![allow(clippy::unwrap_used)]

mod common;

use common::hooked::{hooked, Ask};
use common::shrinking::*;
use common::*;
use kernel::prelude::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// 1 GiB, in blocks.
const GIB: u64 = 1 << 18;

/// Ends the other tasks when it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// All free blocks are behind the new end, so the shrink is refused. Writes that have reserved some of
/// them do not fail meanwhile.
#[test]
fn a_shrink_that_is_refused_harms_no_write() {
    let disk = made(4 * AG, 1);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let b = fs.create(&root, b"ballast", &regular()).unwrap();
    let mut at = 0;
    for step in [1024, 64, 8, 1] {
        while fs.preallocate(&b, at, step, None).is_ok() {
            at += step;
        }
    }
    let behind = |at: &u64| fs.map_read(&b, *at, 1).unwrap().phys > 3 * AG;
    for block in (0..at).filter(behind) {
        fs.punch(&b, block, 1).unwrap();
    }
    fs.sync().unwrap();
    assert!(fs.statfs().bavail > AG / 2);
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        for t in 0..4u64 {
            let (fs, disk, root, stop) = (&fs, &disk, &root, &stop);
            s.spawn(move || {
                let dev = disk.device();
                let name = format!("file {t}");
                let f = fs.create(root, name.as_bytes(), &regular()).unwrap();
                let mut i = 0;
                while !stop.load(Ordering::Relaxed) {
                    i += 1;
                    write(&dev, fs, &f, i % 50, &[i; 32])
                        .unwrap_or_else(|e| panic!("{t}, {i}: {e:?}"));
                }
                fs.iput(f);
            });
        }
        let _end = Stop(&stop);
        for _ in 0..40_000 {
            assert_eq!(fs.shrink_begin(2 * AG).map(drop), Err(ENOSPC));
        }
    });
    [b, root].into_iter().for_each(|i| fs.iput(i));
    at_rest(&disk, &fs);
    fs.unmount().unwrap();
    clean(disk.device(), "after it");
}

/// Another task's commits write the trees of AGs anew while the shrink reads them: each of its reads
/// takes as long as two of them, if it holds nothing that they wait for. Nothing is cached.
#[test]
fn trees_of_groups_that_are_written_anew() {
    const AGS: u64 = 16;
    let disk = made(AGS * AG, 1);
    let commits = Arc::new(AtomicU64::new(0));
    let slow = Arc::new(Mutex::new(None));
    let device = {
        let (commits, slow) = (commits.clone(), slow.clone());
        move || {
            let (commits, slow) = (commits.clone(), slow.clone());
            hooked(&disk, move |ask| {
                let here = std::thread::current().id();
                if matches!(ask, Ask::Read(_)) && *slow.lock().unwrap() == Some(here) {
                    let seen = commits.load(Ordering::Relaxed);
                    let until = Instant::now() + Duration::from_millis(6);
                    while commits.load(Ordering::Relaxed) < seen + 2 && Instant::now() < until {
                        std::thread::yield_now();
                    }
                }
                Ok(())
            })
        }
    };
    let fs = mount_on(device());
    let root = fs.iget(fs.root_ino()).unwrap();
    let b = fs.create(&root, b"ballast", &regular()).unwrap();
    ballast(&fs, &b, 2000);
    // In each 1024 blocks many that lie alone, so that groups have bitmaps, and AGs trees.
    let end = AGS * AG;
    for at in (0..end).step_by(1024) {
        fs.punch(&b, at + 64, 960).unwrap();
        for i in 0..20 {
            fs.punch(&b, at + 2 * i, 1).unwrap();
        }
    }
    [b, root].into_iter().for_each(|i| fs.iput(i));
    fs.unmount().unwrap();
    let options = MountOptions {
        cache_nodes: 1,
        ..MountOptions::default()
    };
    let fs = Fs::mount(device(), options).map_err(|e| e.error).unwrap();
    let stop = AtomicBool::new(false);
    let before = commits.load(Ordering::Relaxed);
    std::thread::scope(|s| {
        s.spawn(|| {
            let root = fs.iget(fs.root_ino()).unwrap();
            let e = fs.lookup(&root, b"ballast").unwrap().unwrap();
            let b = fs.iget(e.ino).unwrap();
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                // Something of each AG that stays.
                for at in (0..end / 2).step_by(AG as usize) {
                    fs.punch(&b, at + n % 16 * 1024 + 41 + n / 16 % 20, 1)
                        .unwrap();
                }
                fs.sync().unwrap();
                commits.fetch_add(1, Ordering::Relaxed);
            }
            [b, root].into_iter().for_each(|i| fs.iput(i));
        });
        let _end = Stop(&stop);
        *slow.lock().unwrap() = Some(std::thread::current().id());
        assert_eq!(shrink(&fs, AGS / 2 * AG), Ok((AGS * AG, AGS / 2 * AG)));
        *slow.lock().unwrap() = None;
    });
    assert!(commits.load(Ordering::Relaxed) > before + 10);
    fs.unmount().unwrap();
    clean(device(), "after it");
}

/// A filesystem whose large files are deleted in the background, with these files of so many GiB, one
/// behind the other.
fn with_files(sizes: &[u64]) -> (MemDisk, Shared<Fs>, std::vec::Vec<Shared<Inode>>) {
    let disk = made(64 * GIB, 1);
    let fs = mount(&disk);
    fs.serve_reaper(true);
    let root = fs.iget(fs.root_ino()).unwrap();
    let files = (0..).zip(sizes).map(|(i, n)| {
        let f = fs
            .create(&root, format!("f{i}").as_bytes(), &regular())
            .unwrap();
        fs.preallocate(&f, 0, n * GIB, Some(n * GIB << 12)).unwrap();
        f
    });
    let files = files.collect();
    fs.sync().unwrap();
    fs.iput(root);
    (disk, fs, files)
}

/// As rm(1) does it.
fn remove(fs: &Fs, i: usize, f: &Shared<Inode>) {
    let root = fs.iget(fs.root_ino()).unwrap();
    fs.unlink(&root, format!("f{i}").as_bytes(), f).unwrap();
    fs.iput(root);
    fs.delete_later(f.clone()).unwrap();
}

/// Shrinks while a thread deletes, slowly.
fn beside_deletions(fs: &Fs, gib: u64) -> Result<(u64, u64)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(3));
                fs.reap_step();
            }
        });
        let _end = Stop(&stop);
        shrink(fs, gib * GIB)
    })
}

/// The only room is what a file has that is being deleted.
#[test]
fn deletions_make_room() {
    let (disk, fs, files) = with_files(&[50]);
    remove(&fs, 0, &files[0]);
    assert!(fs.shrink_begin(10 * GIB).is_ok());
    drop(files);
    assert_eq!(beside_deletions(&fs, 10), Ok((64 * GIB, 10 * GIB)));
    fs.unmount().unwrap();
    clean(disk.device(), "after it");
}

/// A file that is being deleted has blocks before the new end, which are freed first, and behind it.
#[test]
fn deletions_take_long() {
    let (disk, fs, files) = with_files(&[15, 30]);
    let first = fs.map_read(&files[1], 0, 1).unwrap().phys;
    let last = fs.map_read(&files[1], 30 * GIB - 1, 1).unwrap().phys;
    assert!(first < 30 * GIB && last > 40 * GIB);
    for (i, f) in files.iter().enumerate() {
        remove(&fs, i, f);
        while i == 0 && fs.reap_step() {}
    }
    drop(files);
    assert_eq!(beside_deletions(&fs, 35), Ok((64 * GIB, 35 * GIB)));
    fs.unmount().unwrap();
    clean(disk.device(), "after it");
}
