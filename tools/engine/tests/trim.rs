// SPDX-License-Identifier: GPL-2.0

//! FITRIM: exactly the free blocks are discarded, beside what others do, and allocation never fails
//! because of it.

#![allow(clippy::unwrap_used)]

#[path = "support/ags.rs"]
mod ags;
mod common;
#[allow(dead_code)]
#[path = "support/counting.rs"]
mod counting;

use ags::{rewrite, Ag};
use common::*;
use counting::{device, peak_of};
use kernel::prelude::*;
use ordofs_engine::engine::alloc::ag::{self, Owner};
use ordofs_engine::engine::alloc::{Space, Trim, AG_TREE};
use ordofs_engine::engine::btree::*;
use ordofs_engine::engine::format::ag::AgRecord;
use ordofs_engine::engine::format::bits::Bits;
use ordofs_engine::engine::format::group::{group_len, GroupRecord};
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::ops::trim::TrimRange;
use ordofs_engine::engine::volume::mount::tree_of;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Backend, Device, Shared};
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::vec::Vec;

const GIB: u64 = 1 << 18;
const GROUP: u64 = 8192;
/// Reads that fail: none, all, those of nodes with records of groups.
const NOTHING: u64 = 0;
const ALL_BLOCKS: u64 = 1;
const GROUPS: u64 = 2;
const ALL: TrimRange = TrimRange {
    start: 0,
    len: u64::MAX,
    min_len: 0,
};

/// Memory is counted for all threads together, so one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

type Hook = Arc<dyn Fn(u64, u64) -> Result + Send + Sync>;

struct Inner {
    disk: MemDisk,
    unit: AtomicU64,
    /// Which reads fail.
    unreadable: AtomicU64,
    hook: Mutex<Option<Hook>>,
    /// First block, length.
    discards: Mutex<Vec<(u64, u64)>>,
}

/// A device that really forgets what is discarded, and notes it.
#[derive(Clone)]
struct Forgetful(Arc<Inner>);

impl Forgetful {
    fn new(disk: &MemDisk) -> Self {
        Self(Arc::new(Inner {
            disk: disk.clone(),
            unit: AtomicU64::new(4096),
            unreadable: AtomicU64::new(NOTHING),
            hook: Mutex::default(),
            discards: Mutex::default(),
        }))
    }

    fn device(&self) -> Device {
        Device::new(self.clone())
    }

    /// Calls `hook` before each discard from now on.
    fn before_discard(&self, hook: impl Fn(u64, u64) -> Result + Send + Sync + 'static) {
        *self.0.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    fn take(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.0.discards.lock().unwrap())
    }
}

impl Backend for Forgetful {
    fn blocks(&self) -> u64 {
        self.0.disk.blocks()
    }
    fn readonly(&self) -> bool {
        false
    }
    fn read(&self, block: u64, buf: &mut [u8; 4096]) -> Result {
        device(|| self.0.disk.read(block, buf))?;
        let is_group = buf.starts_with(b"ORDN") && buf[40] == TreeKind::Groups as u8;
        match self.0.unreadable.load(Ordering::Relaxed) {
            ALL_BLOCKS => Err(EIO),
            GROUPS if is_group => Err(EIO),
            _ => Ok(()),
        }
    }
    fn write(&self, block: u64, data: &[u8; 4096]) -> Result {
        device(|| self.0.disk.write(block, data))
    }
    fn flush(&self) -> Result {
        self.0.disk.flush()
    }
    fn write_fua(&self, block: u64, data: &[u8; 4096]) -> Result {
        device(|| self.0.disk.write_fua(block, data))
    }
    fn discard(&self, start: u64, len: u64) -> Result {
        let hook = self.0.hook.lock().unwrap().clone();
        hook.map_or(Ok(()), |h| h(start, len))?;
        device(|| {
            self.0.discards.lock().unwrap().push((start, len));
            self.0.disk.discard(start, len)
        })
    }
    fn discard_unit(&self) -> u64 {
        self.0.unit.load(Ordering::Relaxed)
    }
}

/// Stops other tasks when this one ends or fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a trim to its end, and returns how many blocks it says it has discarded.
fn trim(fs: &Fs, mut range: TrimRange) -> Result<u64> {
    let mut trim = fs.trim_begin(&mut range)?;
    while fs.trim_step(&mut trim, &mut || false)? {}
    Ok(trim.trimmed)
}

/// Runs in ascending order, with neighbours joined. No block is there twice.
fn joined(mut runs: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    runs.sort();
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (at, n) in runs {
        match all.last_mut() {
            Some((start, len)) if *start + *len == at => *len += n,
            Some((start, len)) => {
                assert!(*start + *len < at, "block {at} was discarded twice");
                all.push((at, n));
            }
            None => all.push((at, n)),
        }
    }
    all
}

fn sum(runs: &[(u64, u64)]) -> u64 {
    runs.iter().map(|r| r.1).sum()
}

fn superblock(disk: &MemDisk) -> Superblock {
    Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason))
}

/// The runs of each group that are free by the records on disk and have `least` blocks.
fn free_on_disk(disk: &MemDisk, least: u64) -> Vec<(u64, u64)> {
    let sb = superblock(disk);
    let dev = Shared::new(disk.device()).unwrap();
    let store = NodeStore::new(dev, sb.node_id, 64).unwrap();
    let mut runs = Vec::new();
    let ags = tree_of(TreeId::new(TreeKind::Ag, 0), sb.ag_root);
    let mut each = |i: u64, record: &[u8]| -> Result {
        let len = sb.ag_len(i as u32);
        let record = AgRecord::decode(i, len, record)?;
        let mut groups = BTreeMap::new();
        ag::Ag::tree_of(i, &record.groups)?.walk(&store, &mut |item| {
            let WalkItem::Item(g, v) = item else {
                return Ok(());
            };
            let group = GroupRecord::parse(len, g, v).unwrap();
            for g in g..g + u64::from(group.groups()) {
                let mut used = Bits::zeroed()?;
                group.load(group_len(len, g), &mut used);
                groups.insert(g, used);
            }
            Ok(())
        })?;
        for g in 0..len.div_ceil(GROUP) {
            let n = group_len(len, g);
            let none = Bits::zeroed()?;
            let used = groups.get(&g).unwrap_or(&none);
            let mut at = used.next_clear(0, n);
            while at < n {
                let end = used.next_set(at, n);
                if u64::from(end - at) >= least {
                    let start = i * u64::from(sb.ag_blocks) + g * GROUP + u64::from(at);
                    runs.push((start, (end - at).into()));
                }
                at = used.next_clear(end, n);
            }
        }
        Ok(())
    };
    ags.walk(&store, &mut |item| match item {
        WalkItem::Item(i, v) => each(i, v),
        _ => Ok(()),
    })
    .unwrap();
    runs
}

/// Formats and mounts a device that forgets.
fn fresh(blocks: u64) -> (Forgetful, Shared<Fs>) {
    let disk = device(|| MemDisk::new(blocks));
    let forgetful = Forgetful::new(&disk);
    format_on(forgetful.device());
    let fs = mount_on(forgetful.device());
    (forgetful, fs)
}

/// Removes a file that no other task has open.
fn remove(fs: &Fs, dir: &Shared<Inode>, name: &str, f: Shared<Inode>) {
    fs.unlink(dir, name.as_bytes(), &f).unwrap();
    fs.delete_inode(f).unwrap();
}

/// Writes files of these lengths, and removes every second one.
fn mixed(dev: &Device, fs: &Fs, lengths: impl Iterator<Item = u64>) {
    let root = fs.iget(fs.root_ino()).unwrap();
    let mut files = Vec::new();
    for (i, len) in lengths.enumerate() {
        let name = format!("{i}");
        let f = fs.create(&root, name.as_bytes(), &regular()).unwrap();
        let seeds: Vec<u64> = (0..len).map(|b| i as u64 * 10_000 + b).collect();
        write(dev, fs, &f, 0, &seeds).unwrap();
        files.push((name, f));
    }
    for (i, (name, f)) in files.into_iter().enumerate() {
        match i % 2 {
            0 => remove(fs, &root, &name, f),
            _ => fs.iput(f),
        }
    }
    fs.iput(root);
}

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

#[test]
fn what_is_not_durably_free_is_left_alone() {
    let _alone = alone();
    let (disk, fs) = fresh(8192);
    let dev = disk.device();
    let root = fs.iget(fs.root_ino()).unwrap();
    let make = |name: &str, seed: u64| {
        let f = fs.create(&root, name.as_bytes(), &regular()).unwrap();
        write(&dev, &fs, &f, 0, &(seed..seed + 50).collect::<Vec<_>>()).unwrap();
        f
    };
    let places = |f: &Inode| -> Vec<u64> {
        let all = (0..50).map(|b| fs.map_read(f, b, 1).unwrap().phys);
        all.collect()
    };
    let gone = make("gone", 100);
    fs.sync().unwrap();
    let was = places(&gone);
    // Allocated and logged, and freed after that, all in the running transaction.
    let logged = make("logged", 200);
    fs.sync_inode(&logged).unwrap();
    let logged_was = places(&logged);
    fs.set_size(&logged, 0).unwrap();
    remove(&fs, &root, "gone", gone);
    // In flight.
    let flying = fs.create(&root, b"flying", &regular()).unwrap();
    dirty(&fs, &flying, 0, 50).unwrap();
    let started = fs.start_write(&flying, 0, &[1; 50], false).unwrap();
    let in_flight: Vec<u64> = (started.phys..started.phys + started.len).collect();
    disk.take();

    let contains = |runs: &[(u64, u64)], blocks: &[u64]| {
        let has = |b: &&u64| runs.iter().any(|(at, n)| (*at..at + n).contains(*b));
        blocks.iter().filter(has).count()
    };
    let first = trim(&fs, ALL).unwrap();
    let discarded = disk.take();
    assert_eq!(
        contains(&discarded, &was),
        0,
        "freed by the running transaction"
    );
    assert_eq!(contains(&discarded, &logged_was), 0, "replay needs them");
    assert_eq!(contains(&discarded, &in_flight), 0, "in flight");
    // After a power cut the log has the file, with its data.
    let cut = disk.0.disk.fork();
    let again = mount(&cut);
    let root2 = again.iget(again.root_ino()).unwrap();
    let entry = again.lookup(&root2, b"logged").unwrap().unwrap();
    let f = again.iget(entry.ino).unwrap();
    assert_eq!(read(&cut.device(), &again, &f, 49).unwrap(), Some(249));

    let n = started.len;
    let failed = fs.finish_write(started.ordered, block_to_bytes(n), Err(EIO));
    assert_eq!(failed, Err(EIO));
    fs.sync().unwrap();
    disk.take();
    let second = trim(&fs, ALL).unwrap();
    let discarded = disk.take();
    assert_eq!(contains(&discarded, &was), was.len());
    assert!(second > first + 100);
    assert_eq!(joined(discarded), joined(free_on_disk(&disk.0.disk, 1)));
    fs.iput(logged);
    fs.iput(flying);
    fs.iput(root);
}

/// The commit is in the middle of its writes: what it frees is still in use on disk.
#[test]
fn what_a_running_commit_frees_is_left_alone() {
    let _alone = alone();
    let disk = make(8192);
    let gate = hooked::Gate::default();
    let fs = mount_on(gate.device(&disk));
    let dev = disk.device();
    mixed(&dev, &fs, (1..30).map(|i| 1 + i % 13));
    fs.sync().unwrap();
    let before = fsck(&disk).len();
    let root = fs.iget(fs.root_ino()).unwrap();
    for i in (1..29).step_by(2) {
        let name = format!("{i}");
        let entry = fs.lookup(&root, name.as_bytes()).unwrap().unwrap();
        let f = fs.iget(entry.ino).unwrap();
        remove(&fs, &root, &name, f);
    }
    gate.shut(true);
    std::thread::scope(|s| {
        s.spawn(|| fs.sync().unwrap());
        gate.wait();
        let trimmed = trim(&fs, ALL);
        // The superblock of that commit is not written.
        let cut = disk.fork();
        gate.shut(false);
        assert!(trimmed.unwrap() > 0);
        assert_eq!(fsck(&cut).len(), before);
    });
    fs.iput(root);
    at_rest(&disk, &fs);
}

#[test]
fn an_error_ends_it_and_gives_everything_back() {
    let _alone = alone();
    let (disk, fs) = fresh(8192);
    let dev = disk.device();
    mixed(&dev, &fs, (1..40).map(|i| 1 + i * 7 % 31));
    fs.sync().unwrap();
    let n = Arc::<AtomicU64>::default();
    let count = n.clone();
    disk.before_discard(move |_, _| match count.fetch_add(1, Ordering::Relaxed) {
        7 => Err(EIO),
        _ => Ok(()),
    });
    assert_eq!(trim(&fs, ALL), Err(EIO));
    assert_eq!(n.load(Ordering::Relaxed), 8);
    fill(&dev, &fs);
    at_rest(&disk.0.disk, &fs);
    // It goes on where it was, also after a stop in the middle of a piece.
    disk.before_discard(|_, _| Ok(()));
    let root = fs.iget(fs.root_ino()).unwrap();
    for i in (1..39).step_by(2) {
        let name = format!("{i}");
        let entry = fs.lookup(&root, name.as_bytes()).unwrap().unwrap();
        let f = fs.iget(entry.ino).unwrap();
        remove(&fs, &root, &name, f);
    }
    fs.iput(root);
    fs.sync().unwrap();
    disk.take();
    let mut range = ALL;
    let mut t = fs.trim_begin(&mut range).unwrap();
    let mut calls = 0;
    while fs
        .trim_step(&mut t, &mut || {
            calls += 1;
            calls % 3 == 0
        })
        .unwrap()
    {}
    let discarded = disk.take();
    assert_eq!(sum(&discarded), t.trimmed);
    assert_eq!(joined(discarded), joined(free_on_disk(&disk.0.disk, 1)));
}

/// Writes to a new file, block by block, until there is no space; returns how many blocks it got.
fn fill(dev: &Device, fs: &Fs) -> u64 {
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"filler", &regular()).unwrap();
    let mut n = 0;
    loop {
        match write(dev, fs, &f, n, &[n]) {
            Ok(()) => n += 1,
            Err(e) => {
                assert_eq!(e, ENOSPC);
                break;
            }
        }
    }
    fs.iput(f);
    fs.iput(root);
    n
}

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

/// An AG whose groups cannot be read is left out; the others are trimmed.
#[test]
fn a_damaged_ag_is_passed_over() {
    let _alone = alone();
    let disk = make(4 * GIB / 8 * 3);
    let ag = GIB / 8;
    rewrite(&disk, |i| {
        (i == 5).then(|| Ag {
            free: 4000,
            longest: 4000,
            groups: vec![(1, vec![9; 20])],
        })
    });
    let forgetful = Forgetful::new(&disk);
    let fs = mount_on(forgetful.device());
    let free = superblock(&disk).free;
    let trimmed = trim(&fs, ALL).unwrap();
    // Its first group has no record and is read before the bad one.
    assert!(free - 4000 <= trimmed, "{trimmed} of {free}");
    let bad = 5 * ag + GROUP..6 * ag;
    for (at, n) in forgetful.take() {
        assert!(at + n <= bad.start || at >= bad.end, "{at}+{n}");
    }
    assert!(trim(&fs, ALL).unwrap() <= free - 4000);
}

/// A device that cannot be read for a moment: a trim concludes nothing from that, and no space is lost.
#[test]
fn an_outage_costs_no_space() {
    let _alone = alone();
    for which in [ALL_BLOCKS, GROUPS] {
        let (disk, fs) = fresh(GIB);
        mixed(&disk.device(), &fs, (0..6000).map(|i| 1 + i % 3));
        fs.unmount().unwrap();
        drop(fs);
        let fs = mount_on(disk.device());
        fs.shrink_scan(u64::MAX);
        let before = fs.statfs().bavail;
        disk.take();
        disk.0.unreadable.store(which, Ordering::Relaxed);
        let _ = trim(&fs, ALL);
        disk.0.unreadable.store(NOTHING, Ordering::Relaxed);
        let during: u64 = disk.take().iter().map(|r| r.1).sum();
        assert!(during < before, "the outage was not noticed");
        assert_eq!(fs.statfs().bavail, before);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"all", &regular()).unwrap();
        fs.preallocate(&f, 0, before - 300, None).unwrap();
        fs.iput(f);
        fs.iput(root);
        fs.unmount().unwrap();
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
