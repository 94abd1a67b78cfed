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
use std::sync::{Mutex, RwLock};
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
        let at = start as usize..(start + len) as usize;
        match rng.u64(..24) {
            // Buffered: i_rwsem, or a page fault under the invalidate lock.
            0..6 => {
                let fault = rng.u64(..3) == 0;
                let _sem = (!fault).then(|| self.sem.write().unwrap());
                let _inval = fault.then(|| self.inval.read().unwrap());
                let mut pages: Vec<_> = self.pages[at].iter().map(|p| p.lock().unwrap()).collect();
                if let Err(e) = dirty(fs, &self.inode, start, len) {
                    fs.release_delalloc(&self.inode, start, len);
                    return Err(e);
                }
                if rng.u64(..8) == 0 {
                    // A short write.
                    fs.release_delalloc(&self.inode, start, len);
                    return Ok(());
                }
                // Space is reserved: writeback has no caller that it could refuse.
                let r = flush(dev, fs, &self.inode, start, &seeds, false);
                assert_eq!(r, Ok(()), "{:?}", fs.statfs());
                pages.iter_mut().zip(seeds).for_each(|(p, s)| **p = Some(s));
            }
            // Direct, under the shared lock where that is enough.
            6..10 => {
                let shared = fs.reserve_direct(&self.inode, start, len)?;
                let _r = shared.then(|| self.sem.read().unwrap());
                let _w = (!shared).then(|| self.sem.write().unwrap());
                let mut pages: Vec<_> = self.pages[at].iter().map(|p| p.lock().unwrap()).collect();
                let r = flush(dev, fs, &self.inode, start, &seeds, true);
                for (i, p) in pages.iter_mut().enumerate() {
                    // After an error a part of it may have been written.
                    **p = match r {
                        Ok(()) => Some(seeds[i]),
                        Err(_) => read(dev, fs, &self.inode, start + i as u64)?,
                    };
                }
                r?;
            }
            10..12 => {
                let _sem = self.sem.write().unwrap();
                let _inval = self.inval.write().unwrap();
                let mut pages: Vec<_> = self.pages[at].iter().map(|p| p.lock().unwrap()).collect();
                // Making room works on a full disk.
                assert_eq!(
                    fs.punch(&self.inode, start, len),
                    Ok(()),
                    "{:?}",
                    fs.statfs()
                );
                pages.iter_mut().for_each(|p| **p = None);
            }
            12 => {
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
            13 => {
                let _sem = self.sem.write().unwrap();
                let _inval = self.inval.write().unwrap();
                fs.preallocate(&self.inode, start, len, None)?;
            }
            14 => {
                let _sem = self.sem.write().unwrap();
                let _inval = self.inval.write().unwrap();
                let mut pages: Vec<_> = self.pages[at].iter().map(|p| p.lock().unwrap()).collect();
                let r = fs.zero_range(&self.inode, start, len, None);
                pages.iter_mut().for_each(|p| **p = None);
                r?;
            }
            // A failed write.
            15 => {
                let _sem = self.sem.write().unwrap();
                let mut pages: Vec<_> = self.pages[at].iter().map(|p| p.lock().unwrap()).collect();
                let direct = rng.u64(..2) == 0;
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
            }
            16..20 => {
                let pages: Vec<_> = self.pages[at].iter().map(|p| p.lock().unwrap()).collect();
                for (i, p) in pages.iter().enumerate() {
                    assert_eq!(
                        read(dev, fs, &self.inode, start + i as u64)?,
                        **p,
                        "block {}",
                        start + i as u64
                    );
                }
            }
            // Reads without a lock see some block that was written there, or a hole.
            20..22 => {
                for b in start..start + len {
                    read(dev, fs, &self.inode, b)?;
                }
            }
            22 => fs.sync_inode(&self.inode)?,
            _ => {
                fs.release_maps(&self.inode, start, len);
                fs.map_report(&self.inode, start, len)?;
            }
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
            let same = |t: &Shared<Inode>| (t.kind() == S_IFDIR) == (i.kind() == S_IFDIR);
            let empty = |t: &Shared<Inode>| t.kind() != S_IFDIR || t.attrs().nlink == 2;
            let r = if target.as_ref().is_none_or(|t| same(t) && empty(t)) {
                fs.rename(&Rename {
                    old_dir: dir,
                    old_name: &name(n),
                    inode: &i,
                    new_dir,
                    new_name: &m,
                    target: target.as_ref(),
                    flags: RenameFlags {
                        exchange: target.is_some() && rng.u64(..3) == 0,
                        ..Default::default()
                    },
                    whiteout: None,
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
            r?;
        }
        (_, None) => {
            let t = fs.tmpfile(&regular())?;
            fs.delete_inode(t)?;
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

fn storm(room: Option<u64>, secs: u64, seed: u64) {
    let disk = make(if room.is_some() { 4096 } else { 65536 });
    let dev = disk.device();
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    if let Some(room) = room {
        let f = fs.create(&root, b"filler", &regular()).unwrap();
        let n = fs.statfs().bavail - room;
        fs.preallocate(&f, 0, n, None).unwrap();
        fs.iput(f);
    }
    let dirs: Vec<_> = (0..2)
        .map(|i| {
            fs.create(&root, format!("d{i}").as_bytes(), &file(S_IFDIR | 0o755))
                .unwrap()
        })
        .collect();
    let files: Vec<_> = (0..3)
        .map(|i| {
            Handle::new(
                fs.create(&root, format!("f{i}").as_bytes(), &regular())
                    .unwrap(),
            )
        })
        .collect();
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
    std::thread::scope(|s| {
        s.spawn(|| watchdog(&beat, &stop));
        let workers: Vec<_> = (0..4)
            .map(|t| {
                let (dev, fs, files, seeds, report) = (&dev, &fs, &files, &seeds, &report);
                s.spawn(move || {
                    let mut rng = Rng::with_seed(seed * 1000 + t);
                    while Instant::now() < end {
                        let f = &files[rng.u64(..3) as usize];
                        report(f.step(dev, fs, &mut rng, seeds));
                    }
                })
            })
            .chain((0..2).map(|t| {
                let (dev, fs, dirs, report, dir_sem) = (&dev, &fs, &dirs, &report, &dir_sem);
                s.spawn(move || {
                    let mut rng = Rng::with_seed(seed * 2000 + t);
                    while Instant::now() < end {
                        let _sem = dir_sem.lock().unwrap();
                        let a = rng.u64(..2) as usize;
                        report(names(dev, fs, &dirs[a], &dirs[1 - a], &mut rng, t));
                    }
                })
            }))
            .chain((0..1).map(|_| {
                let (disk, fs) = (&disk, &fs);
                s.spawn(move || {
                    let mut n = 0;
                    while Instant::now() < end {
                        fs.shrink_scan(50);
                        match n % 3 {
                            0 => fs.sync().unwrap(),
                            1 => fs.commit_tick().unwrap(),
                            _ => {
                                fs.statfs();
                            }
                        }
                        if n % 20 == 0 {
                            // The power goes now; everything so far was flushed, in some order.
                            let crash = disk.fork();
                            fsck(&crash);
                        }
                        n += 1;
                    }
                })
            }))
            .collect();
        let done: Vec<_> = workers.into_iter().map(|w| w.join()).collect();
        stop.store(true, Ordering::SeqCst);
        for d in done {
            if let Err(e) = d {
                std::panic::resume_unwind(e);
            }
        }
    });
    for f in &files {
        assert_eq!(f.inode.blocks(), {
            fs.sync().unwrap();
            f.inode.blocks()
        });
    }
    let full = full.load(Ordering::Relaxed);
    println!(
        "{} operations, {full} without space",
        beat.load(Ordering::Relaxed)
    );
    assert_eq!(full > 0, room.is_some());
    let found = at_rest(&disk, &fs);
    for f in &files {
        let want: BTreeMap<u64, u64> = f
            .pages
            .iter()
            .enumerate()
            .filter_map(|(b, p)| Some((b as u64, (*p.lock().unwrap())?)))
            .collect();
        assert_eq!(found[&f.inode.ino()].blocks, want);
    }
    for f in files {
        fs.iput(f.inode);
    }
    dirs.into_iter().for_each(|d| fs.iput(d));
    fs.iput(root);
    fs.unmount().unwrap();
    fsck(&disk);
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

/// What must be there after a crash: what the last sync that returned saw. What may be there: what was
/// done later, as whole operations.
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
        // After which operation of the device which state was durable: names with first block.
        let mut model: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let mut history: Vec<(usize, BTreeMap<Vec<u8>, u64>)> = Vec::from([(0, model.clone())]);
        for step in 0..250u64 {
            let name = format!("n{}", rng.u64(..12)).into_bytes();
            let old = fs
                .lookup(&root, &name)
                .unwrap()
                .map(|e| fs.iget(e.ino).unwrap());
            match (rng.u64(..10), old) {
                (0..3, Some(i)) => {
                    fs.unlink(&root, &name, &i).unwrap();
                    fs.delete_inode(i).unwrap();
                    model.remove(&name);
                }
                (3..6, Some(i)) => {
                    let k = rng.u64(..30);
                    let seeds: Vec<u64> = (0..=k).map(|b| step * 1000 + b).collect();
                    write(&dev, &fs, &i, 0, &seeds).unwrap();
                    model.insert(name, step * 1000);
                    fs.iput(i);
                }
                (6, Some(i)) => {
                    fs.punch(&i, 1 + rng.u64(..10), 7).unwrap();
                    fs.iput(i);
                }
                (7, Some(i)) => {
                    fs.preallocate(&i, 40, 20, None).unwrap();
                    flush(&dev, &fs, &i, 45, &[step * 1000], true).unwrap();
                    fs.iput(i);
                }
                (8, Some(i)) => {
                    fs.set_size(&i, 4096 + rng.u64(..20) * 4096).unwrap();
                    fs.iput(i);
                }
                (_, Some(i)) => fs.iput(i),
                (_, None) => {
                    let i = fs.create(&root, &name, &regular()).unwrap();
                    write(&dev, &fs, &i, 0, &[step * 1000]).unwrap();
                    fs.iput(i);
                    model.insert(name, step * 1000);
                }
            }
            if rng.u64(..6) == 0 {
                // Commits that overlap nothing: exact states.
                fs.sync().unwrap();
                history.push((rec.len(), model.clone()));
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
            let found = fsck(&disk);
            let names = &found[&fs.root_ino()].names;
            let last = history.iter().rposition(|(at, _)| *at <= cut).unwrap();
            let state: BTreeMap<Vec<u8>, u64> = names
                .iter()
                .map(|(n, ino)| (n.clone(), found[ino].blocks[&0]))
                .collect();
            let ok = history[last..].iter().take(2).any(|(_, m)| *m == state);
            assert!(
                ok,
                "seed {seed} cut {cut} of {total}: {state:?} is neither before nor after a sync"
            );
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
