// SPDX-License-Identifier: GPL-2.0

//! Damaged records, and devices that fail for a moment.

use crate::ags::{rewrite, Ag};
use crate::common::*;
use crate::disk::*;
use std::sync::atomic::Ordering;

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
