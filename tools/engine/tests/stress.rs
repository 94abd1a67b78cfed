// SPDX-License-Identifier: GPL-2.0

//! Threads against each other, with the locks that the glue holds, and crashes at any moment.

mod common;

use common::*;
use fastrand::Rng;
use kernel::prelude::{Result, EIO, ENOSPC};
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::record::Recorder;
use ordofs_engine::os::{Device, Shared};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};
use std::vec::Vec;

/// Blocks of each file that are written.
const SPAN: u64 = 300;

/// A file as the glue sees it.
struct Handle {
    inode: Shared<Inode>,
    /// i_rwsem.
    sem: RwLock<()>,
    /// invalidate_lock.
    inval: RwLock<()>,
    /// One per block, held from before a write to after its completion, as a folio lock and the
    /// writeback flag do. What is in it: the seed that a reader may see, and those that it may see
    /// while a direct write is in flight.
    pages: Vec<Mutex<Option<u64>>>,
}

impl Handle {
    fn new(inode: Shared<Inode>) -> Self {
        let pages = (0..SPAN).map(|_| Mutex::new(None)).collect();
        Self {
            inode,
            sem: RwLock::new(()),
            inval: RwLock::new(()),
            pages,
        }
    }

    fn range(&self, rng: &mut Rng) -> (u64, u64) {
        let start = rng.u64(..SPAN - 1);
        (start, 1 + rng.u64(..(SPAN - start).min(24)))
    }

    /// One operation; errors other than ENOSPC fail.
    fn step(&self, dev: &Device, fs: &Fs, rng: &mut Rng, seeds: &AtomicU64) -> Result {
        let (start, len) = self.range(rng);
        let seeds: Vec<u64> = (0..len)
            .map(|_| seeds.fetch_add(1, Ordering::Relaxed))
            .collect();
        match rng.u64(..24) {
            0..6 => {
                let (fault, short) = (rng.u64(..3) == 0, rng.u64(..8) == 0);
                self.buffered(dev, fs, start, &seeds, fault, short)
            }
            6..10 => self.direct(dev, fs, start, &seeds),
            10..12 => {
                self.punch(fs, start, len);
                Ok(())
            }
            12 => {
                self.cut(fs, start);
                Ok(())
            }
            13 => {
                let _sem = self.sem.write().unwrap();
                let _inval = self.inval.write().unwrap();
                fs.preallocate(&self.inode, start, len, None)
            }
            14 => self.zero(fs, start, len),
            // Seldom: until the next commit there is no log after it.
            15 if rng.u64(..100) == 0 => self.failed_write(fs, start, len, rng.bool()),
            16..20 => self.compare(dev, fs, start, len),
            // Reads without a lock see some block that was written there, or a hole.
            20..22 => {
                (start..start + len).try_for_each(|b| read(dev, fs, &self.inode, b).map(|_| ()))
            }
            15 | 22 => fs.sync_inode(&self.inode),
            _ => {
                fs.release_maps(&self.inode, start, len);
                fs.map_report(&self.inode, start, len).map(|_| ())
            }
        }
    }

    fn lock(&self, start: u64, len: u64) -> Vec<MutexGuard<'_, Option<u64>>> {
        let range = start as usize..(start + len) as usize;
        self.pages[range]
            .iter()
            .map(|p| p.lock().unwrap())
            .collect()
    }

    /// A buffered write under i_rwsem, or a page fault under the invalidate lock.
    fn buffered(
        &self,
        dev: &Device,
        fs: &Fs,
        start: u64,
        seeds: &[u64],
        fault: bool,
        short: bool,
    ) -> Result {
        let len = seeds.len() as u64;
        let _sem = (!fault).then(|| self.sem.write().unwrap());
        let _inval = fault.then(|| self.inval.read().unwrap());
        let mut pages = self.lock(start, len);
        if let Err(e) = dirty(fs, &self.inode, start, len) {
            fs.release_delalloc(&self.inode, start, len);
            return Err(e);
        }
        if short {
            // Nothing is written after all.
            fs.release_delalloc(&self.inode, start, len);
            return Ok(());
        }
        // Space is reserved: writeback has no caller that it could refuse.
        let r = flush(dev, fs, &self.inode, start, seeds, false);
        assert_eq!(r, Ok(()), "{:?}", fs.statfs());
        pages
            .iter_mut()
            .zip(seeds)
            .for_each(|(p, s)| **p = Some(*s));
        Ok(())
    }

    /// A direct write, under the shared lock where that is enough.
    fn direct(&self, dev: &Device, fs: &Fs, start: u64, seeds: &[u64]) -> Result {
        let len = seeds.len() as u64;
        let shared = fs.reserve_direct(&self.inode, start, len)?;
        let _r = shared.then(|| self.sem.read().unwrap());
        let _w = (!shared).then(|| self.sem.write().unwrap());
        let mut pages = self.lock(start, len);
        let r = flush(dev, fs, &self.inode, start, seeds, true);
        for (i, p) in pages.iter_mut().enumerate() {
            // After an error a part of it may have been written.
            **p = match r {
                Ok(()) => Some(seeds[i]),
                Err(_) => read(dev, fs, &self.inode, start + i as u64)?,
            };
        }
        r
    }

    /// A hole. Making room works on a full disk.
    fn punch(&self, fs: &Fs, start: u64, len: u64) {
        let _sem = self.sem.write().unwrap();
        let _inval = self.inval.write().unwrap();
        let mut pages = self.lock(start, len);
        assert_eq!(
            fs.punch(&self.inode, start, len),
            Ok(()),
            "{:?}",
            fs.statfs()
        );
        pages.iter_mut().for_each(|p| **p = None);
    }

    /// A truncation.
    fn cut(&self, fs: &Fs, start: u64) {
        let _sem = self.sem.write().unwrap();
        let _inval = self.inval.write().unwrap();
        let mut pages: Vec<_> = self.pages[start as usize..]
            .iter()
            .map(|p| p.lock().unwrap())
            .collect();
        assert_eq!(
            fs.set_size(&self.inode, block_to_bytes(start)),
            Ok(()),
            "{:?}",
            fs.statfs()
        );
        pages.iter_mut().for_each(|p| **p = None);
    }

    /// A range of zeroes.
    fn zero(&self, fs: &Fs, start: u64, len: u64) -> Result {
        let _sem = self.sem.write().unwrap();
        let _inval = self.inval.write().unwrap();
        let mut pages = self.lock(start, len);
        let r = fs.zero_range(&self.inode, start, len, None);
        pages.iter_mut().for_each(|p| **p = None);
        r
    }

    /// A write whose I/O fails.
    fn failed_write(&self, fs: &Fs, start: u64, len: u64, direct: bool) -> Result {
        let _sem = self.sem.write().unwrap();
        let mut pages = self.lock(start, len);
        if !direct {
            if let Err(e) = dirty(fs, &self.inode, start, len) {
                fs.release_delalloc(&self.inode, start, len);
                return Err(e);
            }
        }
        let s = fs.start_write(&self.inode, start, &vec![0; len as usize], direct)?;
        assert_eq!(fs.finish_write(s.ordered, 0, Err(EIO)), Err(EIO));
        fs.release_delalloc(&self.inode, start, len);
        pages.iter_mut().for_each(|p| **p = p.take());
        Ok(())
    }

    /// Reads what must be there.
    fn compare(&self, dev: &Device, fs: &Fs, start: u64, len: u64) -> Result {
        let pages = self.lock(start, len);
        for (i, p) in pages.iter().enumerate() {
            assert_eq!(
                read(dev, fs, &self.inode, start + i as u64)?,
                **p,
                "block {}",
                start + i as u64
            );
        }
        Ok(())
    }
}

fn no_space(r: Result) {
    if let Err(e) = r {
        assert_eq!(e, ENOSPC);
    }
}

/// Fails the whole test run when nothing has happened for a while.
fn watchdog(beat: &AtomicU64, stop: &AtomicBool) {
    let mut last = (0, Instant::now());
    while !stop.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(50));
        let now = beat.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > Duration::from_secs(60) {
            eprintln!("locked up");
            std::process::abort();
        }
    }
}

/// A rename over what is there, if the VFS would allow it.
fn rename(
    fs: &Fs,
    from: (&Shared<Inode>, &[u8]),
    i: Shared<Inode>,
    to: (&Shared<Inode>, &[u8]),
    target: Option<Shared<Inode>>,
    exchange: bool,
    whiteout: Option<NewId>,
) -> Result {
    let white = NewInode {
        id: whiteout,
        ..file(0o020000)
    };
    let same = |t: &Shared<Inode>| (t.kind() == S_IFDIR) == (i.kind() == S_IFDIR);
    let empty = |t: &Shared<Inode>| t.kind() != S_IFDIR || t.attrs().nlink == 2;
    let r = if target.as_ref().is_none_or(|t| same(t) && empty(t)) {
        fs.rename(&Rename {
            old_dir: from.0,
            old_name: from.1,
            inode: &i,
            new_dir: to.0,
            new_name: to.1,
            target: target.as_ref(),
            flags: RenameFlags {
                exchange,
                ..Default::default()
            },
            whiteout: whiteout.map(|_| &white),
        })
    } else {
        Ok(())
    };
    fs.iput(i);
    if let Some(t) = target {
        if t.attrs().nlink == 0 {
            fs.delete_inode(t)?;
        } else {
            fs.iput(t);
        }
    }
    r
}

fn names(
    dev: &Device,
    fs: &Fs,
    dir: &Shared<Inode>,
    other: &Shared<Inode>,
    rng: &mut Rng,
    me: u64,
) -> Result {
    let name = |n: u64| format!("t{me}-{n}").into_bytes();
    let n = rng.u64(..40);
    // As the VFS does: chosen before the transaction that uses it, with commits in between.
    let id = Some(fs.new_id());
    if rng.u64(..4) == 0 {
        std::thread::sleep(Duration::from_micros(300));
    }
    let find = |d: &Shared<Inode>, n: &[u8]| -> Result<Option<Shared<Inode>>> {
        fs.lookup(d, n)?.map(|e| fs.iget(e.ino)).transpose()
    };
    let here = find(dir, &name(n))?;
    match (rng.u64(..6), here) {
        (0..3, None) => {
            let new = match rng.u64(..6) {
                0 => file(S_IFDIR | 0o755),
                1 => NewInode {
                    symlink: Some(&[b'y'; 700]),
                    ..file(S_IFLNK | 0o777)
                },
                _ => regular(),
            };
            let new = NewInode { id, ..new };
            let i = fs.create(dir, &name(n), &new)?;
            let r = if i.kind() == S_IFREG {
                write(dev, fs, &i, 0, &[1, 2, 3])
            } else {
                Ok(())
            };
            if r.is_err() {
                fs.release_delalloc(&i, 0, 3);
            }
            fs.iput(i);
            r?;
        }
        (0..2, Some(i)) => {
            let r = fs.unlink(dir, &name(n), &i);
            assert_ne!(r, Err(ENOSPC), "{:?}", fs.statfs());
            if r.is_ok() && i.attrs().nlink == 0 {
                fs.delete_inode(i)?;
            } else {
                fs.iput(i);
            }
            r?;
        }
        (2, Some(i)) => {
            let m = rng.u64(..40);
            let r = match find(dir, &name(m))? {
                None if i.kind() != S_IFDIR => fs.link(dir, &name(m), &i),
                None => Ok(()),
                Some(x) => {
                    fs.iput(x);
                    Ok(())
                }
            };
            fs.iput(i);
            r?;
        }
        (_, Some(i)) => {
            let new_dir = if rng.u64(..2) == 0 { dir } else { other };
            let m = name(rng.u64(..40));
            let target = find(new_dir, &m)?;
            let exchange = target.is_some() && rng.u64(..3) == 0;
            let whiteout = id.filter(|_| !exchange && i.kind() != S_IFDIR && rng.u64(..4) == 0);
            let (from, to) = (name(n), (new_dir, &m[..]));
            rename(fs, (dir, &from), i, to, target, exchange, whiteout)?;
        }
        (_, None) => {
            let t = fs.tmpfile(&NewInode { id, ..regular() })?;
            if rng.bool() {
                let r = fs.link(dir, &name(n), &t);
                if r.is_err() {
                    return r.and(fs.delete_inode(t));
                }
                let r = fs.sync_inode(&t);
                fs.iput(t);
                r?;
            } else {
                fs.delete_inode(t)?;
            }
        }
    }
    Ok(())
}

/// How long a storm lasts; ORDOFS_STORM_SECS for more.
fn seconds() -> u64 {
    std::env::var("ORDOFS_STORM_SECS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(5)
}

/// A filesystem with directories and files for a storm; without `room`, there is plenty.
struct Bed {
    disk: MemDisk,
    fs: Shared<Fs>,
    root: Shared<Inode>,
    dirs: Vec<Shared<Inode>>,
    files: Vec<Handle>,
}

impl Bed {
    fn new(room: Option<u64>) -> Self {
        let disk = make(if room.is_some() { 4096 } else { 65536 });
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        if let Some(room) = room {
            let f = fs.create(&root, b"filler", &regular()).unwrap();
            let n = fs.statfs().bavail - room;
            fs.preallocate(&f, 0, n, None).unwrap();
            fs.iput(f);
        }
        let make = |name: String, new| fs.create(&root, name.as_bytes(), &new).unwrap();
        let dirs = (0..2).map(|i| make(format!("d{i}"), file(S_IFDIR | 0o755)));
        let dirs = dirs.collect();
        let files = (0..3).map(|i| Handle::new(make(format!("f{i}"), regular())));
        let files = files.collect();
        Self {
            disk,
            fs,
            root,
            dirs,
            files,
        }
    }

    /// Commits, reclaim, and power cuts: everything so far was flushed, in some order.
    fn disturb(&self, end: Instant) {
        let (mut n, mut records) = (0, 0);
        while Instant::now() < end {
            self.fs.shrink_scan(50);
            // Every second time the log grows for a while.
            let quiet = n / 40 % 2 == 1;
            match n % 3 {
                0 if quiet => std::thread::sleep(Duration::from_millis(2)),
                0 => self.fs.sync().unwrap(),
                1 => self.fs.commit_tick().unwrap(),
                _ => {
                    self.fs.statfs();
                }
            }
            if n % 20 == 0 {
                fsck(&self.disk.fork());
            }
            if n % 20 == 10 {
                records += self.cut_power();
            }
            n += 1;
        }
        assert!(records > 0, "no log was ever replayed");
        println!("{records} records replayed");
    }

    /// The medium as a power cut would leave it at this moment is replayed: no record that operations
    /// have logged is refused. Returns how many there were.
    fn cut_power(&self) -> u64 {
        let crashed = self.disk.fork();
        let fs = mount(&crashed);
        let r = fs.replayed();
        assert!(r.lost.is_none() && r.newer.is_none(), "{r:?}");
        fs.unmount().unwrap();
        fsck(&crashed);
        r.records
    }

    /// Everything is on disk as the pages say, and after the unmount, too.
    fn verify(self) {
        for f in &self.files {
            let before = f.inode.blocks();
            self.fs.sync().unwrap();
            assert_eq!(f.inode.blocks(), before);
        }
        let found = at_rest(&self.disk, &self.fs);
        for f in &self.files {
            let pages = f.pages.iter().enumerate();
            let want: BTreeMap<u64, u64> = pages
                .filter_map(|(b, p)| Some((b as u64, (*p.lock().unwrap())?)))
                .collect();
            assert_eq!(found[&f.inode.ino()].blocks, want);
        }
        let fs = self.fs;
        self.files.into_iter().for_each(|f| fs.iput(f.inode));
        self.dirs.into_iter().for_each(|d| fs.iput(d));
        fs.iput(self.root);
        fs.unmount().unwrap();
        fsck(&self.disk);
    }
}

fn storm(room: Option<u64>, secs: u64, seed: u64) {
    let bed = Bed::new(room);
    let dev = bed.disk.device();
    let seeds = AtomicU64::new(1);
    let (stop, beat) = (AtomicBool::new(false), AtomicU64::new(0));
    let end = Instant::now() + Duration::from_secs(secs);
    let dir_sem = Mutex::new(());
    let full = AtomicU64::new(0);
    let report = |r: Result| {
        full.fetch_add(u64::from(r.is_err()), Ordering::Relaxed);
        no_space(r);
        beat.fetch_add(1, Ordering::Relaxed);
    };
    let data = |t: u64| {
        let mut rng = Rng::with_seed(seed * 1000 + t);
        while Instant::now() < end {
            let f = &bed.files[rng.u64(..3) as usize];
            report(f.step(&dev, &bed.fs, &mut rng, &seeds));
        }
    };
    let tree = |t: u64| {
        let mut rng = Rng::with_seed(seed * 2000 + t);
        while Instant::now() < end {
            let _sem = dir_sem.lock().unwrap();
            let a = rng.u64(..2) as usize;
            let (dir, other) = (&bed.dirs[a], &bed.dirs[1 - a]);
            report(names(&dev, &bed.fs, dir, other, &mut rng, t));
        }
    };
    std::thread::scope(|s| {
        s.spawn(|| watchdog(&beat, &stop));
        let (data, tree) = (&data, &tree);
        let mut workers: Vec<_> = (0..4).map(|t| s.spawn(move || data(t))).collect();
        workers.extend((0..2).map(|t| s.spawn(move || tree(t))));
        workers.push(s.spawn(|| bed.disturb(end)));
        let done: Vec<_> = workers.into_iter().map(|w| w.join()).collect();
        stop.store(true, Ordering::SeqCst);
        for d in done {
            if let Err(e) = d {
                std::panic::resume_unwind(e);
            }
        }
    });
    let full = full.load(Ordering::Relaxed);
    println!(
        "{} operations, {full} without space",
        beat.load(Ordering::Relaxed)
    );
    assert_eq!(full > 0, room.is_some());
    bed.verify();
}

#[test]
fn a_storm_with_room_leaves_a_consistent_disk() {
    storm(None, seconds(), 1);
}

#[test]
fn a_storm_on_a_full_disk_leaves_a_consistent_disk() {
    // Less than two of the three files, let alone the names.
    storm(Some(500), seconds(), 2);
}

/// Names with the seed of their first block.
type State = BTreeMap<Vec<u8>, u64>;

/// One operation on one of a dozen names; the state follows.
fn change(
    dev: &Device,
    fs: &Fs,
    root: &Shared<Inode>,
    rng: &mut Rng,
    step: u64,
    state: &mut State,
) {
    let name = format!("n{}", rng.u64(..12)).into_bytes();
    let old = fs.lookup(root, &name).unwrap();
    let Some(i) = old.map(|e| fs.iget(e.ino).unwrap()) else {
        rng.u64(..10);
        let i = fs.create(root, &name, &regular()).unwrap();
        write(dev, fs, &i, 0, &[step * 1000]).unwrap();
        fs.iput(i);
        state.insert(name, step * 1000);
        return;
    };
    match rng.u64(..10) {
        0..3 => {
            fs.unlink(root, &name, &i).unwrap();
            fs.delete_inode(i).unwrap();
            state.remove(&name);
            return;
        }
        3..6 => {
            let k = rng.u64(..30);
            let seeds: Vec<u64> = (0..=k).map(|b| step * 1000 + b).collect();
            write(dev, fs, &i, 0, &seeds).unwrap();
            state.insert(name, step * 1000);
        }
        6 => fs.punch(&i, 1 + rng.u64(..10), 7).unwrap(),
        7 => {
            fs.preallocate(&i, 40, 20, None).unwrap();
            flush(dev, fs, &i, 45, &[step * 1000], true).unwrap();
        }
        8 => fs.set_size(&i, 4096 + rng.u64(..20) * 4096).unwrap(),
        _ => {}
    }
    fs.iput(i);
}

/// Checks the disk after a power cut at operation `cut`: it has the state of the last sync before, or of
/// the first one after.
fn judge(disk: &MemDisk, root: u64, history: &[(usize, State)], cut: usize, what: &str) {
    let found = fsck(disk);
    let names = found[&root].names.iter();
    let last = history.iter().rposition(|(at, _)| *at <= cut).unwrap();
    let state: State = names
        .map(|(n, ino)| (n.clone(), found[ino].blocks[&0]))
        .collect();
    let ok = history[last..].iter().take(2).any(|(_, m)| *m == state);
    assert!(ok, "{what}: {state:?} is neither before nor after a sync");
}

/// After a crash there is what the last sync that returned saw, or that and all that the next one saw.
#[test]
fn a_crash_at_any_write_loses_nothing_committed() {
    for seed in 0..6 {
        let base = MemDisk::new(8192);
        format_on(base.device());
        let rec = Recorder::new(base);
        let fs = mount_on(rec.device());
        let dev = rec.device();
        let root = fs.iget(fs.root_ino()).unwrap();
        let mut rng = Rng::with_seed(seed);
        let mut state = State::new();
        // After which operation of the device which state was durable.
        let mut history = Vec::from([(0, state.clone())]);
        for step in 0..250 {
            change(&dev, &fs, &root, &mut rng, step, &mut state);
            if rng.u64(..6) == 0 {
                // Commits that overlap nothing: exact states.
                fs.sync().unwrap();
                history.push((rec.len(), state.clone()));
            }
        }
        let total = rec.len();
        for cut in 0..=total {
            if cut > 200 && rng.u64(..4) != 0 {
                continue;
            }
            let keep = rng.u64(..);
            let mut coin = Rng::with_seed(keep);
            let disk = rec.crash_image(cut, |_| match keep % 4 {
                0 => false,
                1 => true,
                _ => coin.u64(..2) == 0,
            });
            let what = format!("seed {seed} cut {cut} of {total}");
            judge(&disk, fs.root_ino(), &history, cut, &what);
            if rng.u64(..20) == 0 {
                // It mounts, goes on, and is consistent again.
                let again = mount(&disk);
                let root = again.iget(again.root_ino()).unwrap();
                fs_goes_on(&disk, &again, &root);
                again.iput(root);
                at_rest(&disk, &again);
            }
        }
    }
}

fn fs_goes_on(disk: &MemDisk, fs: &Fs, root: &Shared<Inode>) {
    let i = fs.create(root, b"after the crash", &regular()).unwrap();
    write(&disk.device(), fs, &i, 0, &(0..500).collect::<Vec<u64>>()).unwrap();
    fs.iput(i);
    fs.sync().unwrap();
}

/// Inodes without names and truncations under way are finished by the next mount, wherever the power
/// went.
#[test]
fn a_crash_in_a_long_deletion_is_cleaned_up() {
    let base = MemDisk::new(16384);
    format_on(base.device());
    {
        let fs = mount(&base);
        let root = fs.iget(fs.root_ino()).unwrap();
        for n in ["a", "b", "c"] {
            let f = fs.create(&root, n.as_bytes(), &regular()).unwrap();
            for b in 0..300 {
                write(&base.device(), &fs, &f, 2 * b, &[b]).unwrap();
            }
            fs.iput(f);
        }
        fs.iput(root);
        fs.unmount().unwrap();
    }
    let rec = Recorder::new(base);
    let fs = mount_on(rec.device());
    let root = fs.iget(fs.root_ino()).unwrap();
    let get = |n: &[u8]| fs.iget(fs.lookup(&root, n).unwrap().unwrap().ino).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let a = get(b"a");
            fs.unlink(&root, b"a", &a).unwrap();
            fs.delete_inode(a).unwrap();
            let b = get(b"b");
            fs.set_size(&b, 4096).unwrap();
            fs.iput(b);
            let c = get(b"c");
            fs.punch(&c, 10, 500).unwrap();
            fs.iput(c);
            stop.store(true, Ordering::SeqCst);
        });
        while !stop.load(Ordering::SeqCst) {
            fs.sync().unwrap();
        }
    });
    fs.sync().unwrap();
    for cut in 0..=rec.len() {
        let disk = rec.crash_image(cut, |_| false);
        fsck(&disk);
        let again = mount(&disk);
        again.sync().unwrap();
        let found = fsck(&disk);
        assert!(!found.values().any(|f| f.orphan));
        let names = &found[&again.root_ino()].names;
        let b = &found[&names[&b"b".to_vec()]];
        assert!(b.size == 4096 && b.blocks.len() == 1 || b.blocks.len() == 300);
    }
}
