// SPDX-License-Identifier: GPL-2.0

//! What a check costs depends on what is used, not on the size of the device.

use ordofs_engine::engine::volume::mkfs::{format, FormatOptions};
use ordofs_engine::os::mem::MemDisk;
use std::time::{Duration, Instant};

#[test]
fn an_empty_pebibyte_is_checked_at_once() {
    let blocks = 1u64 << (50 - 12);
    let disk = MemDisk::new(blocks);
    let options = FormatOptions {
        uuid: [1; 16],
        label: [0; 64],
        blocks: 0,
        root_owner: (0, 0),
    };
    assert!(format(disk.device(), &options).is_ok());
    let begin = Instant::now();
    let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options::default());
    let took = begin.elapsed();
    let report = report.expect("a superblock");
    assert_eq!((report.count, &report.problems[..]), (0, &[][..]));
    assert_eq!(report.stats.blocks, blocks);
    // The reserved start, the log, a few nodes.
    let used = blocks - report.stats.free_blocks;
    assert!((256 + 16384..256 + 16384 + 100).contains(&used), "{used}");
    // Block by block it is minutes, group by group some seconds.
    println!("{took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}
