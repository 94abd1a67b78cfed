// SPDX-License-Identifier: GPL-2.0

//! What a mount after a crash costs does not grow with the blocks that the log names.

mod common;

use common::{make, mount, regular};
use ordofs_engine::engine::S_IFREG;
use std::time::Duration;

/// Processor time of this thread: other work on the machine does not count.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let ns = stat.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(ns.expect("a number"))
}

#[test]
fn a_mount_after_fallocate_of_half_a_tebibyte_takes_under_two_seconds() {
    const BLOCKS: u64 = 1 << 27;
    let disk = make(1 << 28);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    fs.sync().unwrap();
    fs.preallocate(&f, 0, BLOCKS, Some(BLOCKS << 12)).unwrap();
    fs.sync_inode(&f).unwrap();
    let crashed = disk.fork();
    let before = processor_time();
    let again = mount(&crashed);
    let took = processor_time() - before;
    assert!(again.replayed().records > BLOCKS / 8192);
    let ino = f.ino();
    let g = again.iget(ino).unwrap();
    assert_eq!(g.blocks(), BLOCKS);
    assert_eq!(g.attrs().mode & S_IFREG, S_IFREG);
    println!("{} records in {took:?}", again.replayed().records);
    assert!(took < Duration::from_secs(2), "{took:?}");
}
