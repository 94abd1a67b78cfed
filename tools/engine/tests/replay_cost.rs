// SPDX-License-Identifier: GPL-2.0

//! What a mount after a crash costs does not grow with the blocks that the log names.

mod common;

use common::{make, mount, regular};
use std::time::Duration;

/// Processor time of this thread: other work on the machine does not count.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let ns = stat.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(ns.expect("a number"))
}

/// A mount after a crash that left `blocks` preallocated blocks of a file; how many records it replayed.
fn mount_after_fallocate(blocks: u64) -> u64 {
    let disk = make(1 << 28);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    fs.sync().unwrap();
    fs.preallocate(&f, 0, blocks, Some(blocks << 12)).unwrap();
    fs.sync_inode(&f).unwrap();
    let crashed = disk.fork();
    let before = processor_time();
    let again = mount(&crashed);
    let took = processor_time() - before;
    let records = again.replayed().records;
    println!("{blocks} blocks, {records} records: {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let f = again.iget(f.ino()).unwrap();
    assert_eq!((f.blocks(), f.attrs().size), (blocks, blocks << 12));
    records
}

#[test]
fn a_mount_after_fallocate_of_half_a_tebibyte_takes_under_a_second() {
    // A record for each group at least.
    let records = mount_after_fallocate(1 << 26);
    assert!(records >= (1 << 26) / 8192, "{records} records");
    // So much takes a commit on the way.
    mount_after_fallocate(1 << 27);
}
