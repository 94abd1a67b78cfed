// SPDX-License-Identifier: GPL-2.0

//! What a crash could bring back is not discarded, and errors take nothing.

use crate::common::*;
use crate::disk::*;
use kernel::prelude::*;
use ordofs_engine::engine::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::vec::Vec;

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
