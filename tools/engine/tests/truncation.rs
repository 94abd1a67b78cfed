// SPDX-License-Identifier: GPL-2.0

//! A truncation that an error ended in the middle: what it left behind does not come back, however the
//! file grows afterwards, with and without a crash. And growing takes nothing away.

mod common;

use common::hooked::{hooked, Ask};
use common::*;
use kernel::fault::{self, Mode};
use kernel::prelude::EIO;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Device, Shared};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

const BLOCK: u64 = 4096;
/// Every other block of the file is written up to here, so that each is a record of its own.
const BLOCKS: u64 = 800;
/// What the truncation cuts it to: blocks that stay, and the size.
const KEPT: u64 = 10;
const CUT: u64 = KEPT * BLOCK - 100;
/// How far the file grows afterwards.
const GROWN: u64 = 600;

struct Bed {
    disk: MemDisk,
    dev: Device,
    fs: Shared<Fs>,
    file: Shared<Inode>,
}

/// What ends a truncation in the middle.
#[derive(Clone, Copy)]
enum Failure {
    /// The first allocation that fails after the cut.
    Memory,
    /// All reads of nodes after so many.
    Reads(u64),
}

/// A file whose truncation has failed after the cut and before the end. `committed`: the next commit has
/// been, too. None if it did not fail, or shut the filesystem down.
fn cut_short(failure: Failure, committed: bool) -> Option<Bed> {
    let disk = make(1 << 16);
    // How many reads succeed from now on.
    let reads = Arc::new(AtomicU64::new(u64::MAX));
    let left_reads = reads.clone();
    let device = hooked(&disk, move |ask| {
        if !matches!(ask, Ask::Read(_)) {
            return Ok(());
        }
        let relaxed = Ordering::Relaxed;
        let one_less = |n: u64| {
            if n == u64::MAX {
                Some(n)
            } else {
                n.checked_sub(1)
            }
        };
        let left = left_reads.fetch_update(relaxed, relaxed, one_less);
        left.map(drop).map_err(|_| EIO)
    });
    let (dev, fs) = (disk.device(), mount_on(device));
    let root = fs.iget(fs.root_ino()).unwrap();
    let file = fs.create(&root, b"f", &regular()).unwrap();
    fs.iput(root);
    for b in (0..BLOCKS).step_by(2) {
        write(&dev, &fs, &file, b, &[b]).unwrap();
    }
    fs.sync().unwrap();
    match failure {
        Failure::Memory => (0..)
            .take_while(|n| {
                let _armed = fault::nth(*n, Mode::Once);
                fs.set_size(&file, CUT).is_err() && file.attrs().size != CUT
            })
            .for_each(drop),
        Failure::Reads(n) => {
            while fs.shrink_scan(1000) > 0 {}
            reads.store(n, Ordering::Relaxed);
            let _ = fs.set_size(&file, CUT);
            reads.store(u64::MAX, Ordering::Relaxed);
        }
    }
    if fs.is_shutdown() || file.attrs().size != CUT || left(&fs, &file, KEPT) == 0 {
        return None;
    }
    if committed {
        fs.sync().unwrap();
    }
    Some(Bed {
        disk,
        dev,
        fs,
        file,
    })
}

/// [`cut_short`] at different moments of the truncation.
fn beds() -> impl Iterator<Item = Bed> {
    let how = (0..12).map(Failure::Reads).chain([Failure::Memory]);
    let all: Vec<_> = how
        .flat_map(|f| [false, true].map(|committed| cut_short(f, committed)))
        .flatten()
        .collect();
    let rest: Vec<_> = all.iter().map(|b| left(&b.fs, &b.file, KEPT)).collect();
    assert!(rest.iter().max() > rest.iter().min(), "{rest:?}");
    all.into_iter()
}

/// Blocks that are mapped from `at` on.
fn left(fs: &Fs, file: &Inode, at: u64) -> u64 {
    let (mut at, mut n) = (at, 0);
    while at < BLOCKS {
        let m = fs.map_report(file, at, BLOCKS - at).unwrap();
        n += if m.kind == MapKind::Hole { 0 } else { m.len };
        at += m.len;
    }
    n
}

/// Blocks behind the cut, and below the size, that have data of before.
fn came_back(dev: &Device, fs: &Fs, file: &Inode) -> Vec<u64> {
    let end = file.attrs().size.div_ceil(BLOCK);
    (KEPT..end)
        .filter(|b| read(dev, fs, file, *b).unwrap() == Some(*b))
        .collect()
}

fn again(disk: &MemDisk) -> (Shared<Fs>, Shared<Inode>) {
    let fs = mount(disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let ino = fs.lookup(&root, b"f").unwrap().unwrap().ino;
    let file = fs.iget(ino).unwrap();
    fs.iput(root);
    (fs, file)
}

fn check_after(disk: &MemDisk, how: &str) {
    let (fs, file) = again(disk);
    let none: [u64; 0] = [];
    assert_eq!(file.attrs().size, GROWN * BLOCK, "{how}");
    assert_eq!(came_back(&disk.device(), &fs, &file), none, "{how}");
    for b in (0..KEPT).step_by(2) {
        assert_eq!(read(&disk.device(), &fs, &file, b).unwrap(), Some(b));
    }
    fs.iput(file);
    fs.unmount().unwrap();
    drop(fs);
    let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options { data: true });
    let report = report.unwrap_or_else(|e| panic!("fsck: {}", e.reason));
    assert!(report.is_clean(), "{how}: {:?}", report.problems);
}

fn nothing_comes_back(grow: impl Fn(&Bed)) {
    for bed in beds() {
        grow(&bed);
        assert_eq!(bed.file.attrs().size, GROWN * BLOCK);
        let none: [u64; 0] = [];
        assert_eq!(came_back(&bed.dev, &bed.fs, &bed.file), none, "at once");
        bed.fs.sync_inode(&bed.file).unwrap();
        check_after(&bed.disk.fork(), "fsync and a crash");
        bed.fs.sync().unwrap();
        check_after(&bed.disk.fork(), "sync and a crash");
    }
}

#[test]
fn a_far_write_brings_nothing_back() {
    nothing_comes_back(|b| write(&b.dev, &b.fs, &b.file, GROWN - 1, &[7777]).unwrap());
}

#[test]
fn a_far_direct_write_brings_nothing_back() {
    nothing_comes_back(|b| flush(&b.dev, &b.fs, &b.file, GROWN - 1, &[7777], true).unwrap());
}

#[test]
fn preallocation_brings_nothing_back() {
    nothing_comes_back(|b| {
        let size = Some(GROWN * BLOCK);
        b.fs.preallocate(&b.file, KEPT, GROWN - KEPT, size).unwrap();
    });
}

#[test]
fn preallocation_behind_the_end_brings_nothing_back_and_stays() {
    nothing_comes_back(|b| {
        b.fs.preallocate(&b.file, GROWN - 5, 5, None).unwrap();
        b.fs.raise_size(&b.file, GROWN * BLOCK).unwrap();
        assert_eq!(left(&b.fs, &b.file, KEPT), 5);
    });
}

#[test]
fn growing_brings_nothing_back() {
    nothing_comes_back(|b| b.fs.raise_size(&b.file, GROWN * BLOCK).unwrap());
    nothing_comes_back(|b| b.fs.set_size(&b.file, GROWN * BLOCK).unwrap());
}

/// The next mount finishes it, and the replay of what came after does not get there first.
#[test]
fn a_crash_right_after_it_brings_nothing_back() {
    for bed in beds() {
        bed.fs.sync_inode(&bed.file).unwrap();
        let left_disk = bed.disk.fork();
        let (fs, file) = again(&left_disk);
        assert_eq!(file.attrs().size, CUT);
        assert_eq!(left(&fs, &file, KEPT), 0);
        fs.raise_size(&file, GROWN * BLOCK).unwrap();
        fs.sync_inode(&file).unwrap();
        check_after(&left_disk.fork(), "twice");
    }
}

/// generic/092 upstream: what is preallocated behind the end stays when the file grows, over it or up to
/// the middle of it, with and without a crash.
#[test]
fn growing_keeps_what_is_preallocated_behind_the_end() {
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let file = fs.create(&root, b"f", &regular()).unwrap();
    fs.preallocate(&file, 0, 100, None).unwrap();
    for size in [50 * BLOCK, 50 * BLOCK + 100, 200 * BLOCK] {
        fs.raise_size(&file, size).unwrap();
        assert_eq!(left(&fs, &file, 0), 100);
        fs.sync_inode(&file).unwrap();
        let disk = disk.fork();
        let (fs, file) = again(&disk);
        assert_eq!((file.attrs().size, left(&fs, &file, 0)), (size, 100));
    }
}

/// The record that ends the truncation says the size, and a size comes with its data: here of what was
/// appended in the last block meanwhile. Another file's fsync takes the record along.
#[test]
fn the_size_at_its_end_comes_with_its_data() {
    for bed in beds() {
        let (dev, fs, file) = (&bed.dev, &bed.fs, &bed.file);
        write(dev, fs, file, KEPT - 1, &[4711]).unwrap();
        fs.map_write(file, GROWN, 1).unwrap();
        let root = fs.iget(fs.root_ino()).unwrap();
        let other = fs.create(&root, b"other", &regular()).unwrap();
        fs.sync_inode(&other).unwrap();
        let disk = bed.disk.fork();
        let (again, file) = again(&disk);
        if file.attrs().size == KEPT * BLOCK {
            let last = read(&disk.device(), &again, &file, KEPT - 1).unwrap();
            assert_eq!(last, Some(4711));
        }
        fs.release_delalloc(&bed.file, GROWN, 1);
    }
}

/// A truncation to a larger size frees what is preallocated behind that size, and nothing before it. An
/// error ends it in the middle; then the next mount goes on where it has to, which is not the size on
/// disk: until the last step that is the smaller of both.
#[test]
fn the_next_mount_goes_on_at_the_cut_and_not_at_the_size() {
    const SIZE: u64 = 4;
    const CUT: u64 = 50;
    let (mut cut_short, mut kept_alive) = (0, 0);
    for succeed in 0..12 {
        let disk = make(1 << 16);
        let reads = Arc::new(AtomicU64::new(u64::MAX));
        let left_reads = reads.clone();
        let fs = mount_on(hooked(&disk, move |ask| {
            if !matches!(ask, Ask::Read(_)) {
                return Ok(());
            }
            let one_less = |n: u64| match n {
                u64::MAX => Some(n),
                n => n.checked_sub(1),
            };
            let left = left_reads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
            left.map(drop).map_err(|_| EIO)
        }));
        let root = fs.iget(fs.root_ino()).unwrap();
        let file = fs.create(&root, b"f", &regular()).unwrap();
        fs.iput(root);
        write(&disk.device(), &fs, &file, 0, &[1, 2, 3, 4]).unwrap();
        // Behind the end and before the cut; and behind both, in many records.
        fs.preallocate(&file, 20, 10, None).unwrap();
        for b in (CUT..BLOCKS).step_by(2) {
            fs.preallocate(&file, b, 1, None).unwrap();
        }
        fs.sync().unwrap();
        while fs.shrink_scan(1000) > 0 {}
        reads.store(succeed, Ordering::Relaxed);
        let failed = fs.set_size(&file, CUT * BLOCK).is_err();
        reads.store(u64::MAX, Ordering::Relaxed);
        if !failed || fs.is_shutdown() || file.attrs().size == CUT * BLOCK {
            continue;
        }
        cut_short += 1;
        fs.sync().unwrap();
        let rest = left(&fs, &file, CUT);
        kept_alive += u64::from(rest > 0 && rest < (BLOCKS - CUT) / 2);
        let crashed = disk.fork();
        let (again, file) = again(&crashed);
        let have = (left(&again, &file, 0), left(&again, &file, CUT));
        assert_eq!(file.attrs().size, SIZE * BLOCK);
        assert_eq!(have, (SIZE + 10, 0), "{succeed} reads");
        again.raise_size(&file, GROWN * BLOCK).unwrap();
        assert_eq!(left(&again, &file, 0), SIZE + 10);
        again.iput(file);
        again.unmount().unwrap();
    }
    assert!(cut_short > 3 && kept_alive > 0, "{cut_short} {kept_alive}");
}

/// An unlinked file that is damaged stays, and is no reason to refuse the mount; others are freed.
#[test]
fn a_damaged_orphan_does_not_stop_the_mount() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let mut files = Vec::new();
    for name in [&b"damaged"[..], b"good"] {
        let f = fs.create(&root, name, &regular()).unwrap();
        // Every second block: more extents than an inode record holds.
        for i in 0..40 {
            write(&disk.device(), &fs, &f, 2 * i, &[i]).unwrap();
        }
        fs.unlink(&root, name, &f).unwrap();
        files.push(f);
    }
    fs.sync().unwrap();
    let cut = disk.fork();
    let bad = cut.image().into_iter().find(|(_, d)| {
        let owner = u64::from_le_bytes(d[32..40].try_into().unwrap());
        d.starts_with(b"ORDN") && d[40] == 3 && owner == files[0].ino()
    });
    cut.corrupt(bad.expect("a leaf of extents").0, 200, 1);
    for _ in 0..2 {
        let fs = mount(&cut);
        write_something(&fs, &cut);
        fs.unmount().unwrap();
        let report = ordofs_fsck::check(cut.device(), ordofs_fsck::Options::default()).unwrap();
        assert_eq!(report.stats.orphans, 1, "{report:?}");
    }
}

fn write_something(fs: &Shared<Fs>, disk: &MemDisk) {
    let root = fs.iget(fs.root_ino()).unwrap();
    let name = format!("file {}", fs.running_generation());
    let f = fs.create(&root, name.as_bytes(), &regular()).unwrap();
    write(&disk.device(), fs, &f, 0, &[1]).unwrap();
    fs.iput(f);
    fs.iput(root);
}
