// SPDX-License-Identifier: GPL-2.0

//! What a mount after a crash costs does not grow with the blocks that the log names.

mod common;

use common::hooked::Gate;
use common::{make, mount, mount_on, regular};
use ordofs_engine::os::mem::MemDisk;
use std::time::Duration;

/// Processor time of this thread: other work on the machine does not count.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let ns = stat.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(ns.expect("a number"))
}

/// Mounts after a crash that left `blocks` preallocated blocks of file `ino`; how many records that replayed.
fn mount_after(crashed: &MemDisk, ino: u64, blocks: u64) -> u64 {
    let before = processor_time();
    let again = mount(crashed);
    let took = processor_time() - before;
    let records = again.replayed().records;
    println!("{blocks} blocks, {records} records: {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let f = again.iget(ino).unwrap();
    assert_eq!((f.blocks(), f.attrs().size), (blocks, blocks << 12));
    records
}

/// A mount after fallocate and fsync of a new file.
fn mount_after_fallocate(blocks: u64) -> u64 {
    let disk = make(1 << 28);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    fs.sync().unwrap();
    fs.preallocate(&f, 0, blocks, Some(blocks << 12)).unwrap();
    fs.sync_inode(&f).unwrap();
    mount_after(&disk.fork(), f.ino(), blocks)
}

#[test]
fn a_mount_after_fallocate_of_half_a_tebibyte_takes_under_a_second() {
    // A record for each group at least.
    let records = mount_after_fallocate(1 << 26);
    assert!(records >= (1 << 26) / 8192, "{records} records");
    // So much takes a commit on the way.
    mount_after_fallocate(1 << 27);
}

/// The most that a log can hold of it: the transaction of the first half is being committed when power fails.
#[test]
fn a_mount_with_half_a_tebibyte_in_the_log_takes_under_a_second() {
    const HALF: u64 = 1 << 26;
    let disk = make(1 << 28);
    let gate = Gate::default();
    let fs = mount_on(gate.device(&disk));
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    fs.sync().unwrap();
    let half = |from: u64| {
        let end = from + HALF;
        fs.preallocate(&f, from, HALF, Some(end << 12)).unwrap();
        fs.sync_inode(&f).unwrap();
    };
    half(0);
    gate.shut(true);
    let crashed = std::thread::scope(|s| {
        s.spawn(|| fs.sync().unwrap());
        gate.wait();
        half(HALF);
        let crashed = disk.fork();
        gate.shut(false);
        crashed
    });
    let records = mount_after(&crashed, f.ino(), 2 * HALF);
    assert!(records >= 2 * HALF / 8192, "{records} records");
}
