// SPDX-License-Identifier: GPL-2.0

//! Scrub: finds every planted error and nothing else, also while the filesystem is in use; can be
//! cancelled and resumed; its steps are small.

#[path = "support/census.rs"]
mod census;
mod common;

use census::{furnished, Census, OnDisk};
use common::hooked::{hooked, Ask};
use common::*;
use fastrand::Rng;
use kernel::prelude::{Result, EBUSY, EIO, ENOSPC, ENOTCONN};
use ordofs_engine::engine::btree::TreeKind;
use ordofs_engine::engine::ops::scrub::{From, Go};
use ordofs_engine::engine::state::scrub::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::{Device, Shared};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::vec::Vec;

/// Runs a scrub to its end.
fn scrub(fs: &Fs) -> (ScrubStatus, Vec<Damage>) {
    let s = fs.scrub_start(From::Start, 0).unwrap();
    fs.scrub_run(s, &mut || Go::On);
    let status = fs.scrub_status();
    assert_eq!(status.phase, Phase::Finished);
    (status, listed(fs))
}

fn listed(fs: &Fs) -> Vec<Damage> {
    let mut list = Vec::new();
    fs.scrub_damage(0, &mut |d| {
        list.push(*d);
        true
    });
    list
}

#[test]
fn everything_in_use_is_read_once() {
    let disk = furnished();
    let census = Census::of(&disk);
    let reads = Arc::new(Mutex::new(BTreeMap::new()));
    let count = reads.clone();
    let fs = mount_on(hooked(&disk, move |ask| {
        if let Ask::Read(at) = ask {
            *count.lock().unwrap().entry(at).or_insert(0u32) += 1;
        }
        Ok(())
    }));
    reads.lock().unwrap().clear();
    let (status, damage) = scrub(&fs);
    assert_eq!(damage, []);
    assert_eq!(status.nodes, census.copies());
    assert_eq!(status.data_blocks, census.data.len() as u64);
    assert_eq!(status.bad_inodes, 0);
    let reads = core::mem::take(&mut *reads.lock().unwrap());
    let nodes = census.nodes.values().flat_map(OnDisk::copies);
    for at in nodes.chain(census.data.values().copied()) {
        assert!(reads.contains_key(&at), "block {at} was not read");
    }
    // Nodes of the inode tree are read for the records, too.
    let data: BTreeSet<u64> = census.data.values().copied().collect();
    assert!(data.iter().all(|at| reads[at] == 1));
    // Again, from what is now in memory.
    fs.shrink_scan(u64::MAX);
    assert_eq!(scrub(&fs).0.nodes, census.copies());
}

/// Whether this is what must be reported of a node without a good copy.
fn is_of(d: &Damage, n: &OnDisk) -> bool {
    let second = if n.addr2 == 0 { 0 } else { Damage::SECOND };
    d.kind == DamageKind::Node
        && (d.tree, d.owner, d.block, d.level) == (n.id.kind as u8, n.id.owner, n.addr, n.level)
        && d.copies == Damage::FIRST | second | Damage::LOST
}

#[test]
fn planted_errors_are_found_with_their_places_and_nothing_else() {
    let disk = furnished();
    let census = Census::of(&disk);
    let mut rng = Rng::with_seed(20);
    for round in 0..3 {
        let disk = disk.fork();
        // Leaves, so that no planted error hides another one. A leaf of inodes hides their files.
        let mut leaves: Vec<OnDisk> = census
            .nodes
            .values()
            .filter(|n| n.level == 0 && n.id.kind != TreeKind::Inode)
            .copied()
            .collect();
        rng.shuffle(&mut leaves);
        leaves.truncate(100);
        assert_eq!(leaves.len(), 100);
        let gone: BTreeSet<u64> = leaves.iter().map(|n| n.addr).collect();
        let mut data: Vec<(u64, u64)> = census
            .data
            .keys()
            .filter(|k| !gone.contains(&census.leaf_of[k]))
            .copied()
            .collect();
        rng.shuffle(&mut data);
        data.truncate(100);
        let fs = mount(&disk);
        if round == 1 {
            // All of it in the node cache: the scrub must not look there.
            let (_, none) = scrub(&fs);
            assert_eq!(none, []);
        }
        for at in leaves.iter().flat_map(OnDisk::copies) {
            disk.corrupt(at, rng.usize(0..4096), 1 << rng.u32(0..8));
        }
        for k in &data {
            disk.corrupt(census.data[k], rng.usize(0..4096), 1 << rng.u32(0..8));
        }
        let (status, damage) = scrub(&fs);
        for n in &leaves {
            let hits = damage.iter().filter(|d| is_of(d, n)).count();
            assert_eq!(hits, 1, "{n:?}");
        }
        let mut found = BTreeSet::new();
        for d in damage.iter().filter(|d| d.kind == DamageKind::Data) {
            for at in (d.start..d.end).step_by(4096) {
                assert!(found.insert((d.owner, at / 4096)), "{d:?} twice");
            }
        }
        assert_eq!(found, data.iter().copied().collect::<BTreeSet<_>>());
        assert!(damage.iter().all(|d| d.kind != DamageKind::Record));
        let copies = leaves.iter().flat_map(OnDisk::copies).count() as u64;
        assert_eq!((status.bad_copies, status.lost_nodes), (copies, 100));
        assert_eq!((status.bad_blocks, status.unlisted), (100, 0));
        let inodes: BTreeSet<u64> = leaves
            .iter()
            .filter(|n| {
                matches!(
                    n.id.kind,
                    TreeKind::Extent | TreeKind::Dir | TreeKind::Xattr
                )
            })
            .map(|n| n.id.owner)
            .chain(data.iter().map(|k| k.0))
            .collect();
        assert_eq!(status.bad_inodes, inodes.len() as u64);
    }
}

#[test]
fn damage_above_the_leaves_is_reported_once_with_the_keys_under_it() {
    let disk = furnished();
    let census = Census::of(&disk);
    let inner: Vec<OnDisk> = census
        .nodes
        .values()
        .filter(|n| n.level > 0 || n.id.kind == TreeKind::Inode)
        .copied()
        .collect();
    assert!(inner.len() > 20, "{}", inner.len());
    for n in inner {
        let disk = disk.fork();
        let fs = mount(&disk);
        n.copies().for_each(|at| disk.corrupt(at, 100, 4));
        let (status, damage) = scrub(&fs);
        // The mount has the nodes in its cache, so the inodes can be used all the same.
        let nodes: Vec<_> = damage
            .iter()
            .filter(|d| d.kind == DamageKind::Node)
            .collect();
        assert_eq!(nodes.len(), 1, "{n:?}: {damage:?}");
        assert!(is_of(nodes[0], &n), "{n:?}: {damage:?}");
        assert!(nodes[0].start < nodes[0].end);
        assert_eq!(status.bad_blocks, 0);
    }
}

#[test]
fn blocks_that_the_device_cannot_read_are_damage() {
    let disk = furnished();
    let census = Census::of(&disk);
    let (&(ino, block), &phys) = census.data.iter().nth(77).unwrap();
    let leaf = *census
        .nodes
        .values()
        .find(|n| n.level == 0 && n.id.kind == TreeKind::Dir)
        .unwrap();
    let fs = mount_on(hooked(&disk, move |ask| match ask {
        Ask::Read(at) if at == phys || leaf.copies().any(|a| a == at) => Err(EIO),
        _ => Ok(()),
    }));
    let (status, damage) = scrub(&fs);
    assert_eq!(damage.len(), 2, "{damage:?}");
    let data = damage.iter().find(|d| d.kind == DamageKind::Data).unwrap();
    assert_eq!(
        (data.owner, data.start, data.block),
        (ino, block << 12, phys)
    );
    assert_eq!(data.end - data.start, 4096);
    assert!(damage.iter().any(|d| is_of(d, &leaf)));
    assert_eq!((status.bad_blocks, status.lost_nodes), (1, 1));
}

/// Inodes that only the log has, and those that no commit has seen.
#[test]
fn inodes_that_are_in_no_committed_tree_are_read() {
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let dev = disk.device();
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"new", &regular()).unwrap();
    write(&dev, &fs, &f, 0, &[1, 2, 3]).unwrap();
    fs.sync_inode(&f).unwrap();
    let second = fs.map_read(&f, 1, 1).unwrap().phys;
    disk.corrupt(second, 7, 1);
    let found = |fs: &Fs, ino| {
        let (status, damage) = scrub(fs);
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert_eq!((damage[0].owner, damage[0].start), (ino, 4096));
        assert_eq!((status.data_blocks, status.inodes), (3, 2));
    };
    found(&fs, f.ino());
    // After a crash, read-only: the replay is in memory only. It does not look at data of a batch
    // that was flushed, so there must be a later one.
    disk.corrupt(second, 7, 1);
    let g = fs.create(&root, b"later", &regular()).unwrap();
    fs.sync_inode(&g).unwrap();
    fs.set_attrs_with(&g, || AttrChange {
        uid: Some(7),
        ..AttrChange::default()
    })
    .unwrap();
    fs.sync_inode(&g).unwrap();
    let crashed = disk.fork();
    let options = MountOptions {
        read_only: true,
        ..MountOptions::default()
    };
    let again = Fs::mount(crashed.device(), options).unwrap_or_else(|e| panic!("{}", e.reason));
    crashed.corrupt(second, 7, 1);
    let (status, damage) = scrub(&again);
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!((damage[0].owner, damage[0].start), (f.ino(), 4096));
    assert_eq!((status.data_blocks, status.inodes), (3, 3));
    fs.iput(g);
    fs.iput(f);
    fs.iput(root);
}

/// Files that are made, and files that grow, ahead of the scrub do not keep it from its end.
#[test]
fn it_does_not_run_after_what_is_new() {
    let disk = make(1 << 15);
    let fs = mount(&disk);
    let dev = disk.device();
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"grows", &regular()).unwrap();
    write(&dev, &fs, &f, 0, &[0]).unwrap();
    let s = fs.scrub_start(From::Start, 0).unwrap();
    let mut n = 0;
    fs.scrub_run(s, &mut || {
        n += 1;
        assert!(n < 1000, "no end");
        write(&dev, &fs, &f, n, &[n]).unwrap();
        let name = format!("{n}");
        fs.iput(fs.create(&root, name.as_bytes(), &regular()).unwrap());
        Go::On
    });
    assert_eq!(fs.scrub_status().phase, Phase::Finished);
    fs.iput(f);
    fs.iput(root);
}

#[test]
fn what_does_not_fit_in_the_list_is_counted() {
    let disk = make(1 << 15);
    let fs = mount(&disk);
    let dev = disk.device();
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let all: Vec<u64> = (0..4000).collect();
    write(&dev, &fs, &f, 0, &all).unwrap();
    fs.sync().unwrap();
    let m = |b| fs.map_read(&f, b, 1).unwrap().phys;
    for b in (0..4000).step_by(2) {
        disk.corrupt(m(b), 9, 1);
    }
    for b in [1, 3, 5] {
        disk.corrupt(m(b), 9, 1);
    }
    let (status, damage) = scrub(&fs);
    assert_eq!(status.bad_blocks, 2003);
    assert_eq!(damage.len(), MAX_LISTED);
    // Blocks beside each other are one entry: 0 to 6.
    assert_eq!((damage[0].start, damage[0].end), (0, 7 * 4096));
    assert_eq!(status.unlisted, 2000 - 4 + 1 - MAX_LISTED as u64);
    assert_eq!(status.bad_inodes, 1);
    fs.iput(f);
    fs.iput(root);
}

#[test]
fn a_cancelled_scrub_goes_on_where_it_was() {
    let disk = furnished();
    let fs = mount(&disk);
    let (whole, _) = scrub(&fs);
    assert_eq!(fs.scrub_cancel(), Err(ENOTCONN));
    let mut s = fs.scrub_start(From::Start, 0).unwrap();
    let mut times = 0;
    loop {
        let mut steps = 0;
        fs.scrub_run(s, &mut || {
            assert!(matches!(fs.scrub_start(From::Start, 0), Err(e) if e == EBUSY));
            steps += 1;
            match steps > 25 {
                true => Go::Stop,
                false => Go::On,
            }
        });
        if fs.scrub_status().phase == Phase::Finished {
            break;
        }
        assert_eq!(fs.scrub_status().phase, Phase::Cancelled);
        times += 1;
        s = fs.scrub_start(From::Cancelled, 0).unwrap();
    }
    assert!(times > 10, "{times}");
    let now = fs.scrub_status();
    assert_eq!(now.data_blocks, whole.data_blocks);
    assert_eq!(now.inodes, whole.inodes);
    // A path more for each time.
    assert!(now.nodes >= whole.nodes && now.nodes <= whole.nodes + 16 * times);
    assert_eq!(now.started.sec.max(whole.started.sec), now.started.sec);
}

#[test]
fn the_rate_is_kept_and_cancelling_does_not_wait_for_it() {
    let disk = furnished();
    let fs = mount(&disk);
    let s = fs.scrub_start(From::Start, 4 << 20).unwrap();
    let begin = Instant::now();
    let mut ended = None;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(700));
            fs.scrub_cancel().unwrap();
        });
        fs.scrub_run(s, &mut || Go::On);
        ended = Some(begin.elapsed());
    });
    let status = fs.scrub_status();
    assert_eq!(status.phase, Phase::Cancelled);
    let bytes = 4096 * (status.nodes + status.data_blocks);
    let most = (4 << 20) * ended.unwrap().as_millis() as u64 / 1000 + (1 << 20);
    assert!(bytes > 0 && bytes < most, "{bytes} of at most {most}");
    // A very low one: a step, and then a long pause.
    let s = fs.scrub_start(From::Start, 1).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while fs.scrub_status().nodes == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            fs.scrub_cancel().unwrap();
        });
        fs.scrub_run(s, &mut || Go::On);
    });
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_shutdown_ends_it() {
    let disk = furnished();
    let fs = mount(&disk);
    let s = fs.scrub_start(From::Start, 0).unwrap();
    let mut steps = 0;
    fs.scrub_run(s, &mut || {
        steps += 1;
        if steps == 20 {
            fs.abort("the test");
        }
        Go::On
    });
    assert_eq!(fs.scrub_status().phase, Phase::Failed);
    assert!(matches!(fs.scrub_start(From::Start, 0), Err(e) if e == EIO));
}

/// A file of very many extents and huge holes: each step is small.
#[test]
fn steps_are_bounded_in_a_sparse_file() {
    const EXTENTS: u64 = 200_000;
    let disk = make(1 << 19);
    let zero = ordofs_engine::os::crc32c(0, &[0; 4096]);
    let reads = Arc::new(AtomicU64::new(0));
    let count = reads.clone();
    let fs = mount_on(hooked(&disk, move |ask| {
        count.fetch_add(u64::from(matches!(ask, Ask::Read(_))), Ordering::Relaxed);
        Ok(())
    }));
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"sparse", &regular()).unwrap();
    for i in 0..EXTENTS {
        // No data is written: what was never written reads as zeroes.
        map_only(&fs, &f, i * (1 << 20), &[zero]);
    }
    map_only(&fs, &f, 1 << 50, &[zero; 300]);
    fs.sync().unwrap();
    fs.shrink_scan(u64::MAX);
    let mut s = fs.scrub_start(From::Start, 0).unwrap();
    let (mut most, mut slowest, mut steps) = (0, Duration::ZERO, 0);
    loop {
        let (before, begin) = (reads.load(Ordering::Relaxed), Instant::now());
        fs.scrub_step(&mut s).unwrap();
        most = most.max(reads.load(Ordering::Relaxed) - before);
        slowest = slowest.max(begin.elapsed());
        steps += 1;
        if fs.scrub_status().cursor.stage == Stage::End {
            break;
        }
    }
    // 64 blocks of data, a path of nodes, and a path of the inode tree through the cache.
    assert!(most <= 64 + 16, "{most} reads in a step");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    let status = fs.scrub_status();
    assert_eq!(status.data_blocks, EXTENTS + 300);
    assert_eq!(status.bad_copies, 0);
    // Some of the blocks were nodes before.
    for d in listed(&fs) {
        assert!(disk.image()[&d.block].iter().any(|b| *b != 0), "{d:?}");
    }
    // Records are compared many at a time, and so are blocks that are not beside each other.
    assert!(steps < EXTENTS / 30, "{steps}");
    fs.iput(f);
    fs.iput(root);
}

/// One of the tasks that use the filesystem during a scrub. ENOSPC is a valid result.
fn work(fs: &Fs, dev: &Device, me: u64, stop: &AtomicBool) {
    let may = |r: Result| assert!(matches!(r, Ok(()) | Err(ENOSPC)), "{r:?}");
    let mut rng = Rng::with_seed(me);
    let root = fs.iget(fs.root_ino()).unwrap();
    let home = fs.lookup(&root, format!("home{me}").as_bytes()).unwrap();
    let home = fs.iget(home.unwrap().ino).unwrap();
    fs.iput(root);
    let mut files: Vec<(Vec<u8>, Shared<Inode>)> = Vec::new();
    let mut n = 0u64;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        if files.len() < 3 {
            let name = format!("{n}").into_bytes();
            match fs.create(&home, &name, &regular()) {
                Ok(f) => files.push((name, f)),
                Err(e) => may(Err(e)),
            }
            continue;
        }
        let which = rng.usize(..files.len());
        let f = files[which].1.clone();
        let at = rng.u64(..60);
        let seeds: Vec<u64> = (0..1 + rng.u64(..20))
            .map(|i| me << 32 | n << 8 | i)
            .collect();
        match rng.u64(..14) {
            0 => {
                let (name, f) = files.swap_remove(which);
                fs.unlink(&home, &name, &f).unwrap();
                fs.delete_inode(f).unwrap();
            }
            1 => may(fs.punch(&f, at, 10)),
            2 => may(fs.set_size(&f, at * 4096)),
            3 => may(fs.preallocate(&f, at, 20, None).map(drop)),
            4 => may(fs.sync_inode(&f)),
            5 if me % 8 == 0 => may(fs.sync()),
            6 => may(fs.set_xattr(
                &f,
                1,
                &[b'a' + (n % 20) as u8],
                Some(&[7; 800]),
                XattrSet::Any,
            )),
            k => may(flush_or_write(fs, dev, &f, at, &seeds, k % 2 == 0)),
        }
    }
    for (_, f) in files {
        fs.iput(f);
    }
    fs.iput(home);
}

fn flush_or_write(
    fs: &Fs,
    dev: &Device,
    f: &Shared<Inode>,
    at: u64,
    seeds: &[u64],
    direct: bool,
) -> Result {
    match direct {
        true => flush(dev, fs, f, at, seeds, true),
        false => write(dev, fs, f, at, seeds),
    }
}

std::thread_local! {
    /// The reads of this thread are slow now and then.
    static SLOW: Cell<bool> = const { Cell::new(false) };
}

/// A small disk, so that blocks are reused at once, and a device that forgets what was freed.
#[test]
fn nothing_is_damaged_under_64_tasks_but_what_was_planted() {
    const TASKS: u64 = 64;
    let disk = make(12288);
    let options = MountOptions {
        discard: true,
        commit_secs: 1,
        ..MountOptions::default()
    };
    let slow = hooked(&disk, |ask| {
        if let (Ask::Read(_), true) = (ask, SLOW.get()) {
            if fastrand::u32(..64) == 0 {
                std::thread::sleep(Duration::from_millis(fastrand::u64(..15)));
            }
        }
        Ok(())
    });
    let fs = Fs::mount(slow, options).unwrap_or_else(|e| panic!("{}", e.reason));
    let dev = disk.device();
    let root = fs.iget(fs.root_ino()).unwrap();
    for me in 0..TASKS {
        let name = format!("home{me}");
        let home = fs.create(&root, name.as_bytes(), &file(S_IFDIR | 0o755));
        fs.iput(home.unwrap());
    }
    let still = fs.create(&root, b"still", &regular()).unwrap();
    write(&dev, &fs, &still, 0, &(0..50).collect::<Vec<_>>()).unwrap();
    fs.sync().unwrap();
    disk.corrupt(fs.map_read(&still, 30, 1).unwrap().phys, 5, 2);
    let stop = AtomicBool::new(false);
    let (mut scrubs, mut moved) = (0, 0);
    std::thread::scope(|s| {
        for me in 0..TASKS {
            let (fs, stop, dev) = (&fs, &stop, &dev);
            s.spawn(move || work(fs, dev, me, stop));
        }
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs.commit_wait(20);
                fs.commit_tick().unwrap();
                fs.shrink_scan(100);
            }
        });
        let end = Instant::now() + Duration::from_secs(10);
        let mut wrong = None;
        SLOW.set(true);
        while Instant::now() < end && wrong.is_none() {
            let run = fs.scrub_start(From::Start, 0).unwrap();
            let late = end + Duration::from_secs(5);
            fs.scrub_run(run, &mut || match Instant::now() > late {
                true => Go::Stop,
                false => Go::On,
            });
            let (status, damage) = (fs.scrub_status(), listed(&fs));
            scrubs += 1;
            moved += status.moved_blocks;
            let planted = damage.len() == 1
                && (damage[0].owner, damage[0].start, damage[0].end)
                    == (still.ino(), 30 * 4096, 31 * 4096);
            if !planted || status.bad_copies > 0 {
                wrong = Some((status, damage));
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(wrong.is_none(), "{wrong:?}");
    });
    println!("{scrubs} scrubs, {moved} blocks moved under them");
    assert!(scrubs > 0);
    fs.iput(still);
    fs.iput(root);
}
