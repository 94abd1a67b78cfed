// SPDX-License-Identifier: GPL-2.0

//! Writes in flight that meet each other, failed writes, and reservations on every way out.

mod common;

use common::*;
use kernel::fault;
use kernel::prelude::{EIO, ENOMEM};
use ordofs_engine::engine::volume::mount::read_superblock;
use ordofs_engine::engine::*;
use ordofs_engine::os::{crc32c, Shared};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::vec::Vec;

/// Runs `f` with a time limit: a lock-up fails the test instead of hanging it.
fn within(secs: u64, f: impl FnOnce() + Send + 'static) {
    let (tx, rx) = std::sync::mpsc::channel();
    let t = std::thread::spawn(move || {
        f();
        let _ = tx.send(());
    });
    match rx.recv_timeout(Duration::from_secs(secs)) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("locked up"),
        _ => t.join().unwrap(),
    }
}

/// Two direct writes to the same written blocks, finished in the other order than they started.
#[test]
fn overlapping_direct_writes_finish_in_any_order() {
    within(60, || {
        let disk = make(16384);
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"f", &regular()).unwrap();
        write(&disk.device(), &fs, &f, 0, &(0..16).collect::<Vec<_>>()).unwrap();
        fs.sync().unwrap();
        let crc = |s: u64| crc32c(0, &data(s)[..]);
        let a = fs
            .start_write(&f, 2, &[crc(100), crc(101), crc(102), crc(103)], true)
            .unwrap();
        let started = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                // Overlaps the first one: it has to wait, or at least to win or lose as a whole.
                let b = fs
                    .start_write(&f, 4, &[crc(200), crc(201), crc(202), crc(203)], true)
                    .unwrap();
                started.store(true, Ordering::SeqCst);
                for k in 0..b.len {
                    disk.device()
                        .write(&[(b.phys + k, &data(200 + k))])
                        .unwrap();
                }
                let end = 4 + b.len;
                fs.finish_write(b.ordered, block_to_bytes(end), Ok(()))
                    .unwrap();
                if end < 8 {
                    let rest: Vec<u64> = (end..8).map(|x| 196 + x).collect();
                    flush(&disk.device(), &fs, &f, end, &rest, true).unwrap();
                }
            });
            std::thread::sleep(Duration::from_millis(100));
            for k in 0..a.len {
                disk.device()
                    .write(&[(a.phys + k, &data(100 + k))])
                    .unwrap();
            }
            fs.finish_write(a.ordered, 0, Ok(())).unwrap();
        });
        for b in 0..16 {
            let got = read(&disk.device(), &fs, &f, b).unwrap().unwrap();
            match b {
                2 | 3 => assert_eq!(got, 98 + b),
                4 | 5 => assert!(got == 98 + b || got == 196 + b),
                6 | 7 => assert_eq!(got, 196 + b),
                _ => assert_eq!(got, b),
            }
        }
        fs.iput(f);
        at_rest(&disk, &fs);
        fs.iput(root);
    });
}

/// A write that has completed is hidden by one that began after the fsync did: the fsync has it all the
/// same (R2), though the extent map of the later write took the place of its map.
#[test]
fn an_fsync_has_what_a_later_write_in_flight_hides() {
    within(60, || {
        let disk = make(16384);
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"f", &regular()).unwrap();
        write(&disk.device(), &fs, &f, 0, &(0..16).collect::<Vec<_>>()).unwrap();
        fs.sync().unwrap();
        let durable = fs.durable_generation();
        flush(&disk.device(), &fs, &f, 2, &[100, 101], true).unwrap();
        let start = |block: u64, seed: u64| {
            let crc = crc32c(0, &data(seed)[..]);
            fs.start_write(&f, block, &[crc], true).unwrap()
        };
        // The fsync waits for this one.
        let waited_for = start(10, 200);
        let later = std::thread::scope(|s| {
            let fsync = s.spawn(|| fs.sync_inode(&f));
            std::thread::sleep(Duration::from_millis(200));
            assert!(!fsync.is_finished());
            let later = start(2, 300);
            let to = [(waited_for.phys, &data(200))];
            disk.device().write(&to).unwrap();
            fs.finish_write(waited_for.ordered, 0, Ok(())).unwrap();
            fsync.join().unwrap().unwrap();
            later
        });
        // By the log: a commit would have the tree, whatever the maps say.
        assert_eq!(fs.durable_generation(), durable);
        let crashed = disk.fork();
        let after = mount(&crashed);
        let root2 = after.iget(after.root_ino()).unwrap();
        let ino = after.lookup(&root2, b"f").unwrap().unwrap().ino;
        let f2 = after.iget(ino).unwrap();
        for (block, seed) in [(2, 100), (3, 101), (10, 200), (11, 11)] {
            let found = read(&crashed.device(), &after, &f2, block).unwrap();
            assert_eq!(found, Some(seed), "block {block}");
        }
        disk.device().write(&[(later.phys, &data(300))]).unwrap();
        fs.finish_write(later.ordered, 0, Ok(())).unwrap();
        fs.iput(f);
        at_rest(&disk, &fs);
        fs.iput(root);
    });
}

/// Writeback of a page over blocks that a direct write is filling.
#[test]
fn writeback_and_a_direct_write_in_place_both_finish() {
    within(60, || {
        let disk = make(16384);
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"f", &regular()).unwrap();
        fs.preallocate(&f, 0, 64, Some(64 * 4096)).unwrap();
        fs.sync().unwrap();
        let crc = |s: u64| crc32c(0, &data(s)[..]);
        // The page was made writable, then the direct write started, then the page is written back.
        let a = fs
            .start_write(&f, 0, &(0..64).map(crc).collect::<Vec<_>>(), true)
            .unwrap();
        std::thread::scope(|s| {
            s.spawn(|| flush(&disk.device(), &fs, &f, 8, &[500, 501], false).unwrap());
            std::thread::sleep(Duration::from_millis(100));
            for k in 0..a.len {
                disk.device().write(&[(a.phys + k, &data(k))]).unwrap();
            }
            fs.finish_write(a.ordered, 0, Ok(())).unwrap();
        });
        for b in 0..64 {
            read(&disk.device(), &fs, &f, b).unwrap().unwrap();
        }
        fs.iput(f);
        at_rest(&disk, &fs);
        fs.iput(root);
    });
}

/// A failed write leaves the old data and gives its blocks back.
#[test]
fn failed_writes_leave_what_was_there() {
    let disk = make(16384);
    let dev = disk.device();
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    write(&dev, &fs, &f, 0, &[1, 2, 3, 4]).unwrap();
    fs.preallocate(&f, 8, 8, Some(16 * 4096)).unwrap();
    for (start, direct) in [(1, false), (1, true), (9, false), (9, true), (20, true)] {
        if !direct {
            dirty(&fs, &f, start, 2).unwrap();
        }
        let s = fs.start_write(&f, start, &[7, 8], direct).unwrap();
        assert_eq!(fs.finish_write(s.ordered, 0, Err(EIO)), Err(EIO));
    }
    for b in 0..4 {
        assert_eq!(read(&dev, &fs, &f, b).unwrap(), Some(b + 1));
    }
    assert_eq!(fs.map_read(&f, 9, 1).unwrap().kind, MapKind::Unwritten);
    assert_eq!(fs.map_read(&f, 20, 1).unwrap().kind, MapKind::Hole);
    fs.iput(f);
    at_rest(&disk, &fs);
    fs.iput(root);
}

/// An operation: device, filesystem, root directory, the file `f`.
type Step =
    fn(&ordofs_engine::os::Device, &Fs, &Shared<Inode>, &Shared<Inode>) -> kernel::prelude::Result;
/// The operations, by name. There are the files `f` and `victim`.
const STEPS: &[(&str, Step)] = &[
    ("map_write", |_, fs, _, f| {
        fs.map_write(f, 200, 7)
            .map(|_| fs.release_delalloc(f, 200, 7))
    }),
    ("write hole", |d, fs, _, f| {
        dirty(fs, f, 100, 8)?;
        flush(d, fs, f, 100, &[1; 8], false)
    }),
    ("direct", |d, fs, _, f| flush(d, fs, f, 2, &[9; 4], true)),
    ("in place", |d, fs, _, f| flush(d, fs, f, 40, &[9; 4], true)),
    ("preallocate", |_, fs, _, f| {
        fs.preallocate(f, 300, 50, Some(400 * 4096))
    }),
    ("zero", |_, fs, _, f| fs.zero_range(f, 3, 30, None)),
    ("punch", |_, fs, _, f| fs.punch(f, 5, 30)),
    ("truncate", |_, fs, _, f| fs.set_size(f, 3 * 4096)),
    ("create", |_, fs, root, _| {
        fs.create(root, b"new", &regular()).map(|i| fs.iput(i))
    }),
    ("symlink", |_, fs, root, _| {
        let new = NewInode {
            symlink: Some(&[b'x'; 2000]),
            ..file(S_IFLNK | 0o777)
        };
        fs.create(root, b"link", &new).map(|i| fs.iput(i))
    }),
    ("link", |_, fs, root, f| fs.link(root, b"other", f)),
    ("tmpfile", |_, fs, _, _| {
        fs.tmpfile(&regular()).and_then(|i| fs.delete_inode(i))
    }),
    ("unlink", |_, fs, root, _| {
        let i = fs.iget(fs.lookup(root, b"victim")?.unwrap().ino)?;
        let r = fs.unlink(root, b"victim", &i);
        match r {
            Ok(()) => fs.delete_inode(i),
            Err(e) => {
                fs.iput(i);
                Err(e)
            }
        }
    }),
    ("rename", |_, fs, root, f| {
        let t = fs.iget(fs.lookup(root, b"victim")?.unwrap().ino)?;
        let whiteout = file(0o020000);
        let r = Rename {
            old_dir: root,
            old_name: b"f",
            inode: f,
            new_dir: root,
            new_name: b"victim",
            target: Some(&t),
            flags: RenameFlags::default(),
            whiteout: Some(&whiteout),
        };
        let r = fs.rename(&r);
        fs.iput(t);
        r
    }),
];

fn with_two_files() -> ordofs_engine::os::mem::MemDisk {
    let base = make(16384);
    let fs = mount(&base);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    write(&base.device(), &fs, &f, 0, &(0..32).collect::<Vec<_>>()).unwrap();
    fs.preallocate(&f, 38, 20, Some(60 * 4096)).unwrap();
    fs.iput(f);
    let v = fs.create(&root, b"victim", &regular()).unwrap();
    write(&base.device(), &fs, &v, 0, &[1, 2, 3]).unwrap();
    fs.iput(v);
    fs.iput(root);
    fs.unmount().unwrap();
    base
}

/// Every operation with every one of its allocations failing: no reservation leaks, nothing is half
/// done, and what is on disk is consistent.
#[test]
fn failing_allocations_leak_nothing() {
    let base = with_two_files();
    fsck(&base);
    for (name, step) in STEPS {
        let mut n = 0;
        loop {
            let disk = base.fork();
            let dev = disk.device();
            let fs = mount(&disk);
            let root = fs.iget(fs.root_ino()).unwrap();
            let f = fs
                .iget(fs.lookup(&root, b"f").unwrap().unwrap().ino)
                .unwrap();
            // Once cold, once with everything in memory.
            let armed = fault::nth(n / 2, fault::Mode::Once);
            if n % 2 == 1 {
                drop(armed);
                let _ = fs.set_attrs(&f, &AttrChange::default());
                let _ = fs.sync();
                let armed = fault::nth(n / 2, fault::Mode::Once);
                let r = step(&dev, &fs, &root, &f);
                let fired = armed.fired();
                drop(armed);
                finish(name, n, &disk, fs, root, f, r.err());
                if !fired {
                    break;
                }
                n += 1;
                continue;
            }
            let r = step(&dev, &fs, &root, &f);
            drop(armed);
            finish(name, n, &disk, fs, root, f, r.err());
            n += 1;
            assert!(n < 4000, "{name} never succeeds");
        }
    }
}

fn finish(
    name: &str,
    n: u64,
    disk: &ordofs_engine::os::mem::MemDisk,
    fs: Shared<Fs>,
    root: Shared<Inode>,
    f: Shared<Inode>,
    e: Option<kernel::prelude::Error>,
) {
    assert!(e.is_none_or(|e| e == ENOMEM), "{name} {n}: {e:?}");
    fs.iput(f);
    if fs.is_shutdown() {
        // Allowed where half an operation could not be undone; the disk has the state before.
        assert!(e.is_some());
        fsck(disk);
        return;
    }
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| at_rest(disk, &fs)));
    assert!(
        found.is_ok(),
        "{name} with allocation {n} failing: error {e:?}"
    );
    fs.iput(root);
    fs.unmount().unwrap();
}

/// The count of extent maps goes back when inodes leave memory.
#[test]
fn the_count_of_extent_maps_drops_with_their_inode() {
    let disk = make(65536);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    for i in 0..200u64 {
        let f = fs
            .create(&root, format!("f{i}").as_bytes(), &regular())
            .unwrap();
        for b in 0..10 {
            write(&disk.device(), &fs, &f, 2 * b, &[b]).unwrap();
        }
        fs.iput(f);
    }
    fs.sync().unwrap();
    while fs.shrink_scan(1000) > 0 {}
    assert_eq!(fs.shrink_count(), 0);
    fs.iput(root);
}

/// A truncation that failed half-way must not leave old data behind for a later extension to show.
#[test]
fn a_cut_off_truncation_is_finished_before_the_file_grows() {
    let disk = make(65536);
    let dev = disk.device();
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    for b in 0..400 {
        write(&dev, &fs, &f, 2 * b, &[b]).unwrap();
    }
    fs.sync().unwrap();
    let mut n = 0;
    loop {
        let armed = fault::nth(n, fault::Mode::Once);
        let r = fs.set_size(&f, 0);
        drop(armed);
        if r.is_ok() {
            break;
        }
        assert!(!fs.is_shutdown(), "at allocation {n}");
        if f.attrs().size == 0 {
            fs.set_size(&f, 1000 * 4096).unwrap();
            for b in 0..1000 {
                assert_eq!(read(&dev, &fs, &f, b).unwrap(), None, "old data at {b}");
            }
            break;
        }
        n += 1;
    }
    fs.iput(f);
    at_rest(&disk, &fs);
    fs.iput(root);
}

/// Unwritten blocks of two allocation groups that lie next to each other on disk and in the file are
/// one mapping to a writer; the records that the write leaves stay in their groups all the same.
#[test]
fn a_write_in_place_may_cross_the_border_of_two_groups() {
    for direct in [false, true] {
        // With one copy of each node: a file goes on in the next group, not in that of the second ones.
        let disk = make_single(131_072);
        let dev = disk.device();
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"f", &regular()).unwrap();
        fs.preallocate(&f, 0, 100_000, None).unwrap();
        fs.sync().unwrap();
        let ag_blocks = read_superblock(&dev).unwrap().ag_blocks;
        let mut at = 0;
        let before = loop {
            let m = fs.map_read(&f, at, u64::MAX).unwrap();
            assert!(at < 100_000 && m.len > 0, "nothing lies on the border");
            let border = (m.phys / ag_blocks + 1) * ag_blocks;
            if m.phys + m.len > border {
                break m.start + (border - m.phys);
            }
            at += m.len;
        };
        // Longer than a record with checksums may be, on both sides.
        let seeds: Vec<u64> = (0..700).collect();
        let start = before - 350;
        if !direct {
            dirty(&fs, &f, start, 700).unwrap();
        }
        flush(&dev, &fs, &f, start, &seeds, direct).unwrap();
        for (b, s) in (start..).zip(&seeds) {
            assert_eq!(read(&dev, &fs, &f, b).unwrap(), Some(*s));
        }
        fs.sync().unwrap();
        // The walker looks at every record.
        fsck(&disk);
        fs.punch(&f, before - 5, 10).unwrap();
        fs.sync().unwrap();
        fsck(&disk);
        fs.unlink(&root, b"f", &f).unwrap();
        fs.delete_inode(f).unwrap();
        at_rest(&disk, &fs);
        fs.iput(root);
    }
}
