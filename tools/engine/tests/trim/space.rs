// SPDX-License-Identifier: GPL-2.0

//! Allocation beside trims.

use crate::common::*;
use crate::disk::*;
use ordofs_engine::engine::alloc::ag::Owner;
use ordofs_engine::engine::alloc::{Space, Trim, AG_TREE};
use ordofs_engine::engine::btree::*;
use ordofs_engine::engine::volume::mount::tree_of;
use ordofs_engine::engine::*;
use ordofs_engine::os::Shared;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::vec::Vec;

/// A full disk has nothing to trim but the pool, and a disk on which a trim runs all the time can be
/// filled as far as any other.
#[test]
fn a_trim_takes_no_space() {
    let _alone = alone();
    for blocks in [4096, 8192] {
        let (disk, fs) = fresh(blocks);
        let alone = fill(&disk.device(), &fs);
        fs.sync().unwrap();
        disk.take();
        let left = trim(&fs, ALL).unwrap();
        assert_eq!(left, superblock(&disk.0.disk).free);
        assert!(left < blocks / 8, "{left} blocks are left");
        at_rest(&disk.0.disk, &fs);
        drop(fs);

        let (disk, fs) = fresh(blocks);
        let dev = disk.device();
        disk.before_discard(|_, _| {
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        });
        let stop = AtomicBool::new(false);
        let beside = std::thread::scope(|s| {
            s.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = trim(&fs, ALL);
                }
            });
            let _stop = Stop(&stop);
            fill(&dev, &fs)
        });
        assert!(
            beside + 8 >= alone,
            "{beside} blocks beside a trim, else {alone}"
        );
        assert!(!fs.is_shutdown());
        at_rest(&disk.0.disk, &fs);
    }
}

/// The space of a filesystem, without the filesystem, of which all is in use but `left` blocks.
fn nearly_full(disk: &Forgetful, left: u64) -> (Space, NodeStore) {
    let sb = superblock(&disk.0.disk);
    let store = NodeStore::new(Shared::new(disk.device()).unwrap(), sb.node_id, 4096).unwrap();
    let tree = tree_of(AG_TREE, sb.ag_root);
    let ag_blocks = NonZeroU64::new(sb.ag_blocks.into()).unwrap();
    let space = Space::new(tree, ag_blocks, sb.blocks, sb.free, 1).unwrap();
    space.read(&store).unwrap();
    let mut n = sb.free - left;
    while n > 0 {
        n -= space.alloc(&store, n, None, Owner::Busy).unwrap().len;
    }
    (space, store)
}

fn all_of(blocks: u64) -> Trim {
    Trim {
        start: 0,
        at: 0,
        end: blocks,
        least: 1,
        unit: 1,
        trimmed: 0,
    }
}

/// Everything that is free is withheld: an allocation waits, and gets its blocks when the piece ends.
#[test]
fn an_allocation_waits_for_withheld_blocks() {
    let _alone = alone();
    let (disk, fs) = fresh(8192);
    drop(fs);
    let (space, store) = nearly_full(&disk, 100);
    let (asked, go) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let (count, wait) = (asked.clone(), go.clone());
    disk.before_discard(move |_, n| {
        count.fetch_add(n, Ordering::SeqCst);
        while !wait.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    std::thread::scope(|s| {
        let _go = Stop(&go);
        let trimmer = s.spawn(|| {
            let mut t = all_of(8192);
            while space.trim_piece(&store, &mut t, &mut || false).unwrap() {}
        });
        while asked.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 100);
        let waits = s.spawn(|| space.alloc(&store, 40, None, Owner::Busy).map(|r| r.len));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!waits.is_finished(), "{:?}", waits.join().unwrap());
        go.store(true, Ordering::SeqCst);
        assert_eq!(waits.join().unwrap(), Ok(40));
        trimmer.join().unwrap();
    });
}

/// All that is free outside of an AG is withheld: a second copy that is to be apart from the first one, in
/// that AG, gets no block, and does not wait for one.
#[test]
fn copies_that_are_to_be_apart_wait_for_no_trim() {
    let _alone = alone();
    const AG: u64 = 1 << 15;
    let (disk, fs) = fresh(2 * AG);
    drop(fs);
    let (space, store) = nearly_full(&disk, 0);
    for (at, n) in [(AG - 1000, 10), (2 * AG - 1000, 100)] {
        space.release_busy(&store, at, n).unwrap();
    }
    let (held, go) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (reached, wait) = (held.clone(), go.clone());
    disk.before_discard(move |_, _| {
        reached.store(true, Ordering::SeqCst);
        while !wait.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let (start, copies) = (2 * AG - 1000, |apart| {
        let run = space.alloc_nodes(&store, 8, AG - 1000, apart).unwrap();
        run.map(|r| (r.start, r.len))
    });
    std::thread::scope(|s| {
        let stop = Stop(&go);
        s.spawn(|| {
            let mut t = Trim {
                start,
                at: start,
                ..all_of(2 * AG)
            };
            while space.trim_piece(&store, &mut t, &mut || false).unwrap() {}
        });
        while !held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let apart = s.spawn(|| copies(Some(0)));
        std::thread::sleep(Duration::from_millis(100));
        let waits = !apart.is_finished();
        // Those that need not be apart have some without waiting.
        assert_eq!(copies(None), Some((AG - 1000, 8)));
        drop(stop);
        assert!(!waits, "it waits for the trim");
        assert_eq!(apart.join().unwrap(), None);
    });
    assert_eq!(copies(Some(0)), Some((start, 8)));
}

/// The last blocks of a disk are allocated and given back again and again, by two tasks, while trims run
/// without a pause: no allocation fails, and none waits for ever.
#[test]
fn no_allocation_starves() {
    let _alone = alone();
    let (disk, fs) = fresh(8192);
    drop(fs);
    let (space, store) = nearly_full(&disk, 2);
    let pieces = Arc::<AtomicU64>::default();
    let count = pieces.clone();
    disk.before_discard(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_micros(200));
        Ok(())
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut t = all_of(8192);
                while space.trim_piece(&store, &mut t, &mut || false).unwrap() {}
            }
        });
        let _stop = Stop(&stop);
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                s.spawn(|| {
                    for _ in 0..2000 {
                        let run = space.alloc(&store, 1, None, Owner::Busy).unwrap();
                        space.release_busy(&store, run.start, 1).unwrap();
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|t| t.join().unwrap());
    });
    println!("{} discards", pieces.load(Ordering::Relaxed));
}

/// A search beside a trim does not conclude that a group has no long run.
#[test]
fn what_was_withheld_is_found_again() {
    let _alone = alone();
    let (disk, fs) = fresh(8192);
    drop(fs);
    let (space, store) = nearly_full(&disk, 0);
    // Two free runs, the longer one of which has a withheld part in its middle.
    for (at, n) in [(4000, 1128), (6000, 600)] {
        space.release_busy(&store, at, n).unwrap();
    }
    let (held, go) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (reached, wait) = (held.clone(), go.clone());
    disk.before_discard(move |_, _| {
        reached.store(true, Ordering::SeqCst);
        while !wait.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let alloc = || {
        let run = space.alloc(&store, 2000, None, Owner::Busy).unwrap();
        (run.start, run.len)
    };
    std::thread::scope(|s| {
        let _go = Stop(&go);
        s.spawn(|| {
            let mut t = Trim {
                start: 4500,
                at: 4500,
                ..all_of(4628)
            };
            while space.trim_piece(&store, &mut t, &mut || false).unwrap() {}
        });
        while !held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(alloc(), (6000, 600));
    });
    assert_eq!(alloc(), (4000, 1128));
}

/// 64 tasks write, check and remove, on a small disk, so that every block is used again at once, while
/// trims run without a pause.
#[test]
fn tasks_lose_nothing_beside_trims() {
    let _alone = alone();
    const TASKS: u64 = 64;
    let (disk, fs) = fresh(12288);
    let dev = disk.device();
    disk.before_discard(|_, _| {
        if fastrand::u32(..16) == 0 {
            std::thread::sleep(Duration::from_micros(fastrand::u64(..3000)));
        }
        Ok(())
    });
    let root = fs.iget(fs.root_ino()).unwrap();
    let homes: Vec<_> = (0..TASKS)
        .map(|me| {
            let name = format!("home{me}");
            let home = fs.create(&root, name.as_bytes(), &file(S_IFDIR | 0o755));
            home.unwrap()
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(8);
    let stop = AtomicBool::new(false);
    let trims = AtomicU64::new(0);
    std::thread::scope(|s| {
        let tasks: Vec<_> = (0..TASKS)
            .zip(homes)
            .map(|(me, home)| {
                let (fs, dev) = (&fs, &dev);
                s.spawn(move || {
                    let mut i = 0;
                    while Instant::now() < end {
                        i += 1;
                        let f = fs.create(&home, b"f", &regular()).unwrap();
                        let n = fastrand::u64(1..60);
                        let seeds: Vec<u64> = (0..n).map(|b| me << 32 | i << 8 | b).collect();
                        write(dev, fs, &f, 0, &seeds).unwrap();
                        match fastrand::u32(..8) {
                            0 => fs.sync().unwrap(),
                            1 | 2 => fs.sync_inode(&f).unwrap(),
                            _ => {}
                        }
                        for (b, seed) in seeds.iter().enumerate() {
                            assert_eq!(read(dev, fs, &f, b as u64).unwrap(), Some(*seed));
                        }
                        remove(fs, &home, "f", f);
                    }
                    fs.iput(home);
                })
            })
            .collect();
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = trim(&fs, ALL);
                trims.fetch_add(1, Ordering::Relaxed);
            }
        });
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs.commit_wait(20);
                let _ = fs.commit_tick();
            }
        });
        let _stop = Stop(&stop);
        let results: Vec<_> = tasks.into_iter().map(|t| t.join()).collect();
        results.into_iter().for_each(|r| r.unwrap());
    });
    println!("{} trims", trims.load(Ordering::Relaxed));
    fs.iput(root);
    at_rest(&disk.0.disk, &fs);
}
