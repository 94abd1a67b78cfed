// SPDX-License-Identifier: GPL-2.0

//! The time of a check depends on the blocks in use, not on the size of the device.

use ordofs_engine::os::mem::MemDisk;
use ordofs_testkit::image::make_filesystem;
use std::time::{Duration, Instant};

#[test]
fn an_empty_pebibyte_is_checked_within_two_seconds() {
    let blocks = 1u64 << (50 - 12);
    let disk = MemDisk::new(blocks);
    make_filesystem(disk.device());
    let begin = Instant::now();
    let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options::default());
    let took = begin.elapsed();
    let report = report.expect("a superblock");
    assert_eq!((report.count, &report.problems[..]), (0, &[][..]));
    assert_eq!(report.stats.blocks, blocks);
    // In use are the superblocks, their twins and four backups, the log, the records of the AGs, of
    // which a node has at least 80, and a few nodes; of each two copies.
    let used = blocks - report.stats.free_blocks;
    let fixed = 6 * 256 + 16384;
    let ags = blocks >> 18;
    assert!(
        (fixed..fixed + 2 * (ags / 80 + 100)).contains(&used),
        "{used}"
    );
    // A check block by block takes minutes, one group by group some seconds.
    println!("{took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}
