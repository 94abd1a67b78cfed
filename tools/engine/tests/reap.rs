// SPDX-License-Identifier: GPL-2.0

//! Deletion in the background: what it costs the task that removes a file, what a crash leaves, and that
//! space which is being freed is not missing meanwhile.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "support/counting.rs"]
mod counting;

use common::hooked::{hooked, Ask};
use common::*;
use counting::{device, peak_of, sparse};
use kernel::prelude::{EIO, ENOSPC, ESTALE};
use ordofs_engine::engine::ops::namei::Rename;
use ordofs_engine::engine::state::reap::{MIN_BLOCKS, MOST};
use ordofs_engine::engine::*;
use ordofs_engine::os::map::steps;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

const GIB: u64 = 1 << 18;

/// The thread of a mount. It ends when this is dropped, also by a test that fails.
struct Thread<'a>(&'a AtomicBool);

impl Drop for Thread<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Frees what is queued until `stop` is set.
fn serve(fs: &Fs, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        fs.reap_wait(10);
        while !stop.load(Ordering::Relaxed) && fs.reap_step() {
            // The device is slower than the tasks.
            std::thread::yield_now();
        }
    }
}

/// An empty filesystem of `blocks` blocks whose large files are deleted in the background.
fn serving(blocks: u64) -> (MemDisk, Shared<Fs>, Shared<Inode>) {
    let disk = device(|| MemDisk::new(blocks));
    format_on(sparse(&disk, |_| ()));
    let fs = mount_on(sparse(&disk, |_| ()));
    fs.serve_reaper(true);
    let root = fs.iget(fs.root_ino()).unwrap();
    (disk, fs, root)
}

/// A file with `blocks` preallocated blocks.
fn make_file(fs: &Fs, root: &Shared<Inode>, name: &str, blocks: u64) -> Shared<Inode> {
    let f = fs.create(root, name.as_bytes(), &regular()).unwrap();
    fs.preallocate(&f, 0, blocks, Some(blocks << 12)).unwrap();
    f
}

/// As rm(1) does it.
fn remove(fs: &Fs, root: &Shared<Inode>, name: &str, f: Shared<Inode>) -> u64 {
    fs.unlink(root, name.as_bytes(), &f).unwrap();
    let ino = f.ino();
    fs.delete_later(f).unwrap();
    ino
}

/// fsck of a device that is too large to be walked block by block.
fn clean(disk: &MemDisk, when: &str) {
    let o = ordofs_fsck::Options { data: false };
    let report = ordofs_fsck::check(disk.device(), o).expect("superblock");
    let list: Vec<String> = report.problems.iter().map(|p| format!("{p}")).collect();
    assert!(report.is_clean(), "fsck {when}:\n{}", list.join("\n"));
}

/// Mounts what a crash has left, without a thread: all that was removed is gone.
fn recovered(crashed: &MemDisk, what: &str) -> StatFs {
    let fs = mount_on(sparse(crashed, |_| ()));
    let root = fs.iget(fs.root_ino()).unwrap();
    for name in [&b"big"[..], b"other"] {
        assert!(fs.lookup(&root, name).unwrap().is_none(), "{what}");
    }
    fs.iput(root);
    fs.sync().unwrap();
    let s = fs.statfs();
    fs.unmount().unwrap();
    clean(crashed, what);
    s
}

/// Removing 1 TiB costs the task that removes it as little as 4 MiB, and what the file had counts as
/// available from then on. At each step of the deletion a crash leaves a filesystem that finishes it.
#[test]
fn a_large_file_is_deleted_in_small_steps() {
    let (disk, fs, root) = serving(2048 * GIB);
    let empty = fs.statfs();
    let cost = |name: &str, blocks| {
        let f = make_file(&fs, &root, name, blocks);
        fs.sync().unwrap();
        let before = steps();
        remove(&fs, &root, name, f);
        steps() - before
    };
    let small = cost("small", MIN_BLOCKS);
    while fs.reap_step() {}
    let big = cost("big", 1024 * GIB);
    println!("look-ups: {small} for 4 MiB, {big} for 1 TiB");
    assert!(big <= small + 8, "{big}, {small}");
    let (mut n, mut memory) = (0u64, 0);
    loop {
        let s = fs.statfs();
        // What the next commit may need is not available.
        let missing = empty.bavail.abs_diff(s.bavail + fs.reserved_for_commit());
        assert!(missing < 500, "step {n}: {s:?}, {empty:?}");
        if n.is_power_of_two() {
            fs.sync().unwrap();
            recovered(&device(|| disk.fork()), &format!("after step {n}"));
        }
        let mut stepped = false;
        memory = memory.max(peak_of(|| stepped = fs.reap_step()));
        if !stepped {
            break;
        }
        n += 1;
    }
    println!("{n} steps, {} KiB for one", memory >> 10);
    assert!(memory < 8 << 20, "{memory} bytes for a step");
    assert!(n > 100, "{n} steps for 1 TiB");
    fs.iput(root);
    fs.unmount().unwrap();
    clean(&disk, "at the end");
}

/// A file that is being deleted cannot be opened by its number, before, during and after.
#[test]
fn a_file_that_is_being_deleted_cannot_be_looked_up() {
    let (disk, fs, root) = serving(8 * GIB);
    let f = make_file(&fs, &root, "big", 4 * GIB);
    let ino = remove(&fs, &root, "big", f);
    let gone = || assert!(matches!(fs.iget(ino), Err(e) if e == ESTALE));
    gone();
    while fs.reap_step() {
        gone();
    }
    fs.sync().unwrap();
    gone();
    fs.iput(root);
    fs.unmount().unwrap();
    clean(&disk, "at the end");
}

/// An operation that needs the space of files that are being deleted gets it: what statfs calls available
/// can be had at once, and nothing is refused on the way.
#[test]
fn what_is_being_deleted_can_be_had() {
    let (disk, fs, root) = serving(16 * GIB);
    let all = fs.statfs().bavail;
    let halves = ["a", "b"].map(|name| make_file(&fs, &root, name, all / 2 - 500));
    for (name, f) in ["a", "b"].into_iter().zip(halves) {
        remove(&fs, &root, name, f);
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| serve(&fs, &stop));
        let _thread = Thread(&stop);
        let available = fs.statfs().bavail;
        assert!(available + 2000 > all, "{available} of {all}");
        let new = make_file(&fs, &root, "new", available - 1000);
        fs.iput(new);
    });
    // That was all: now there is nothing to wait for.
    let f = fs.create(&root, b"more", &regular()).unwrap();
    let r = fs.preallocate(&f, 0, 4000, None);
    assert!(matches!(r, Err(e) if e == ENOSPC));
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();
    clean(&disk, "at the end");
}

/// A frozen filesystem deletes nothing, and a thawed one goes on.
#[test]
fn a_frozen_filesystem_deletes_nothing() {
    let (_disk, fs, root) = serving(8 * GIB);
    let f = make_file(&fs, &root, "big", 4 * GIB);
    remove(&fs, &root, "big", f);
    assert!(fs.reap_step());
    fs.pause_reaper(true);
    fs.sync().unwrap();
    let (frozen, generation) = (fs.statfs(), fs.durable_generation());
    assert!(!fs.reap_step());
    assert_eq!(fs.statfs().bavail, frozen.bavail);
    assert_eq!(fs.durable_generation(), generation);
    fs.pause_reaper(false);
    assert!(fs.reap_step());
    fs.iput(root);
    fs.unmount().unwrap();
}

/// An unmount finishes all deletions, and so does a mount that finds some.
#[test]
fn an_unmount_finishes_what_is_queued() {
    let (disk, fs, root) = serving(64 * GIB);
    let empty = fs.statfs();
    // More than the queue takes.
    for i in 0..MOST + 3 {
        let name = format!("f{i}");
        let f = make_file(&fs, &root, &name, MIN_BLOCKS);
        remove(&fs, &root, &name, f);
    }
    fs.sync().unwrap();
    let crashed = device(|| disk.fork());
    fs.iput(root);
    fs.unmount().unwrap();
    clean(&disk, "after the unmount");
    let again = mount_on(sparse(&disk, |_| ()));
    assert!(again.statfs().bavail.abs_diff(empty.bavail) < 100);
    let s = recovered(&crashed, "after a crash");
    assert!(s.bavail.abs_diff(empty.bavail) < 100);
    again.unmount().unwrap();
}

/// The debt of a rename is recorded by the fsync of another file. If the renamed file is being deleted by
/// then, its size must not get into the log: replay takes no smaller size out of attributes.
#[test]
fn a_deletion_under_way_is_not_recorded_in_the_log() {
    for size in [64, 2 * MIN_BLOCKS] {
        let disk = make(GIB);
        let fs = mount(&disk);
        fs.serve_reaper(true);
        let root = fs.iget(fs.root_ino()).unwrap();
        let a = make_file(&fs, &root, "a", size);
        let b = make_file(&fs, &root, "b", 1);
        let other = make_file(&fs, &root, "other", 1);
        fs.sync().unwrap();
        let seed = 7;
        let crc = ordofs_engine::os::crc32c(0, &data(seed)[..]);
        let flight = fs.start_write(&a, 0, &[crc], true).unwrap();
        fs.rename(&Rename {
            old_dir: &root,
            old_name: b"a",
            inode: &a,
            new_dir: &root,
            new_name: b"b",
            target: Some(&b),
            flags: RenameFlags::default(),
            whiteout: None,
        })
        .unwrap();
        fs.delete_later(b).unwrap();
        disk.device().write(&[(flight.phys, &data(seed))]).unwrap();
        fs.finish_write(flight.ordered, 0, Ok(())).unwrap();
        remove(&fs, &root, "b", a);
        fs.reap_step();
        let durable = fs.durable_generation();
        write(&disk.device(), &fs, &other, 0, &[1]).unwrap();
        fs.sync_inode(&other).unwrap();
        assert_eq!(fs.durable_generation(), durable, "the log was not used");
        let crashed = disk.fork();
        let after = mount(&crashed);
        let root2 = after.iget(after.root_ino()).unwrap();
        for name in [&b"a"[..], b"b"] {
            assert!(after.lookup(&root2, name).unwrap().is_none(), "{size}");
        }
        after.iput(root2);
        after.unmount().unwrap();
        fsck(&crashed);
        fs.iput(other);
        fs.iput(root);
        fs.unmount().unwrap();
    }
}

/// A request that deletions cannot meet does not wait for them.
#[test]
fn what_cannot_be_had_is_refused_at_once() {
    let (_disk, fs, root) = serving(16 * GIB);
    let f = make_file(&fs, &root, "big", 4 * GIB);
    remove(&fs, &root, "big", f);
    // No thread: a wait would have no end.
    let f = fs.create(&root, b"more", &regular()).unwrap();
    let r = fs.preallocate(&f, 0, 20 * GIB, None);
    assert!(matches!(r, Err(e) if e == ENOSPC));
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();
}

/// A mount with a thread leaves the large files that a crash has left to the thread.
#[test]
fn a_mount_does_not_wait_for_what_a_crash_has_left() {
    let (disk, fs, root) = serving(1024 * GIB);
    let f = make_file(&fs, &root, "big", 900 * GIB);
    remove(&fs, &root, "big", f);
    fs.sync().unwrap();
    let crashed = device(|| disk.fork());
    let options = MountOptions {
        reaper: true,
        ..MountOptions::default()
    };
    let before = steps();
    let fs2 =
        Fs::mount(sparse(&crashed, |_| ()), options).unwrap_or_else(|e| panic!("{}", e.reason));
    let cost = steps() - before;
    let mut n = 0;
    while fs2.reap_step() {
        n += 1;
    }
    println!("{cost} look-ups for the mount, {n} steps");
    assert!(cost < 2000 && n > 50, "{cost} look-ups, {n} steps");
    fs2.unmount().unwrap();
    clean(&crashed, "in the end");
    fs.iput(root);
    fs.unmount().unwrap();
}

/// A file of which a node cannot be read rests, and those behind it are deleted. It is tried again, and
/// left to the next mount only if that fails too often.
#[test]
fn a_file_that_cannot_be_deleted_does_not_stop_the_others() {
    for again in [true, false] {
        let disk = make_single(GIB);
        let bad = Arc::new(AtomicBool::new(false));
        let node = Arc::new(std::sync::Mutex::new(0));
        let (is_bad, which) = (bad.clone(), node.clone());
        let dev = hooked(&disk, move |ask| match ask {
            Ask::Read(at) if is_bad.load(Ordering::Relaxed) && at == *which.lock().unwrap() => {
                Err(EIO)
            }
            _ => Ok(()),
        });
        let fs = mount_on(dev);
        fs.serve_reaper(true);
        let root = fs.iget(fs.root_ino()).unwrap();
        // Many extents, so that they do not lie in the inode's record.
        let a = fs.create(&root, b"a", &regular()).unwrap();
        for i in 0..2000 {
            fs.preallocate(&a, 2 * i, 1, None).unwrap();
        }
        let b = make_file(&fs, &root, "b", 4 * MIN_BLOCKS);
        fs.sync().unwrap();
        let extents = nodes_of(&disk, a.ino());
        *node.lock().unwrap() = extents[extents.len() / 2];
        fs.shrink_scan(u64::MAX);
        bad.store(true, Ordering::Relaxed);
        let ino = remove(&fs, &root, "a", a);
        remove(&fs, &root, "b", b);
        while fs.reap_step() {}
        assert!(!fs.is_shutdown());
        assert!(matches!(fs.iget(ino), Err(e) if e == ESTALE));
        let resting = fs.statfs();
        if again {
            bad.store(false, Ordering::Relaxed);
            fs.reap_wait(1);
            while fs.reap_step() {}
            assert!(fs.statfs().bavail > resting.bavail + 500);
        }
        fs.iput(root);
        fs.unmount().unwrap();
        // The device works again: the next mount deletes what is left.
        let fs = mount(&disk);
        assert!(fs.statfs().bavail > resting.bavail + 500);
        fs.unmount().unwrap();
        fsck(&disk);
    }
}

/// The blocks of the extent tree's leaves of inode `ino`.
fn nodes_of(disk: &MemDisk, ino: u64) -> Vec<u64> {
    let image = disk.image();
    let is_leaf = |d: &[u8]| {
        d.starts_with(b"ORDN")
            && d[40] == 3
            && d[41] == 0
            && u64::from_le_bytes(d[32..40].try_into().unwrap()) == ino
    };
    let found = image.iter().filter(|(_, d)| is_leaf(&d[..]));
    found.map(|(at, _)| *at).collect()
}

/// Tasks that make and remove large files on a disk that has room for a few of them, beside the thread:
/// none is refused, and nothing is left over.
#[test]
fn many_tasks_remove_and_make_files_beside_the_thread() {
    let (disk, fs, root) = serving(4 * GIB);
    let before = fs.statfs();
    let each = before.bavail / 10;
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| serve(&fs, &stop));
        let _thread = Thread(&stop);
        let tasks: Vec<_> = (0..8)
            .map(|t| {
                let (fs, root) = (&fs, &root);
                s.spawn(move || {
                    for i in 0..200 {
                        let name = format!("{t}-{i}");
                        let f = make_file(fs, root, &name, each);
                        remove(fs, root, &name, f);
                    }
                })
            })
            .collect();
        let done: Vec<_> = tasks.into_iter().map(|t| t.join()).collect();
        done.into_iter().for_each(|d| d.unwrap());
    });
    fs.reap_all();
    fs.sync().unwrap();
    let s = fs.statfs();
    assert!(s.bavail.abs_diff(before.bavail) < 100, "{s:?} {before:?}");
    fs.iput(root);
    fs.unmount().unwrap();
    clean(&disk, "at the end");
}
