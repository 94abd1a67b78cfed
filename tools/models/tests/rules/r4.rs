// SPDX-License-Identifier: GPL-2.0

//! R4, look again under the lock: page fault || fallocate || buffered write on the same range. At every
//! quiet point the reservations are those of the delalloc blocks, and none is left at eviction; no
//! unwritten extent is lost.

use crate::bed::{mount, prepare, Base, Bed};
use crate::explore::{caught, holds, Rule};
use crate::page_cache::File;
use ordofs_models::engine::mutant::Mutant;
use ordofs_models::engine::MapKind;
use shuttle::thread;
use std::sync::Arc;

/// A hole of four blocks.
const BASE: Base = Base {
    name: "r4",
    make: |b| b.fs.set_size(&b.file, 4 * 4096).expect("set_size"),
};

const RULE: Rule = Rule {
    name: "r4",
    cases: &["engine", "page-cache"],
    run: |case| if case == 0 { engine() } else { page_cache() },
    prepare: || drop(prepare(&BASE)),
};

/// Free blocks of the filesystem, including those reserved for the next commit.
fn free(b: &Bed) -> u64 {
    b.fs.statfs().bfree + b.fs.reserved_for_commit()
}

/// Checks that the blocks missing from `before` are those that the file has allocated and reserved.
fn check(b: &Bed, before: u64) {
    let (mut delalloc, mut copies) = (0, 0);
    for i in 0..8 {
        let now = b.fs.map_report(&b.file, i, 1).expect("map_report");
        let under = b.fs.map_read(&b.file, i, 1).expect("map_read");
        delalloc += u64::from(now.kind == MapKind::Delalloc);
        // The file has a block there already, and one more is reserved for the new content.
        copies += u64::from(now.kind == MapKind::Delalloc && under.kind == MapKind::Written);
        assert!(
            now.kind != MapKind::Delalloc || under.kind != MapKind::Unwritten,
            "block {i}: delalloc over an unwritten extent"
        );
    }
    // Delalloc reserves its metadata, too.
    let reserved = b.file.blocks() + copies + delalloc.div_ceil(32);
    assert_eq!(before, free(b) + reserved, "{delalloc} delalloc blocks");
}

/// Everything is written and deleted: nothing stays reserved.
fn check_end(b: &Bed, before: u64) {
    b.fs.set_size(&b.file, 0).expect("truncate");
    assert_eq!(b.file.blocks(), 0, "at eviction");
    b.fs.sync().expect("sync");
    b.fs.sync().expect("sync");
    assert_eq!(free(b), before, "reservations leaked");
}

/// The engine alone, without the locks that the VFS holds: it must hold up even then.
fn engine() {
    let b = Arc::new(mount(prepare(&BASE)));
    let before = free(&b);
    let (b2, b3) = (b.clone(), b.clone());
    let fault = thread::spawn(move || b2.fs.map_write(&b2.file, 1, 1).expect("fault"));
    let fallocate = thread::spawn(move || b3.fs.preallocate(&b3.file, 0, 4, None));
    let mut at = 0;
    while at < 3 {
        let w = b.fs.map_write(&b.file, at, 3 - at).expect("write");
        assert_eq!(w.map.start, at);
        at += w.map.len;
    }
    fault.join().expect("fault");
    fallocate.join().expect("fallocate").expect("preallocate");
    check(&b, before);
    // Every block is either delalloc or unwritten.
    assert_eq!(b.file.blocks(), 4);
    b.write(0, &[[2, 2]; 3], false).expect("writeback");
    check(&b, before);
    assert_eq!(b.file.blocks(), 4);
    check_end(&b, before);
}

/// With the page cache, its locks, and writeback.
fn page_cache() {
    let f = Arc::new(File::new(mount(prepare(&BASE))));
    let before = free(&f.bed);
    let (f2, f3) = (f.clone(), f.clone());
    let fault = thread::spawn(move || {
        f2.store(2, 7).expect("store");
        f2.writeback(0, 2).expect("writeback");
    });
    let fallocate = thread::spawn(move || f3.preallocate(0, 4).expect("preallocate"));
    f.write(0, &[5, 5, 5, 5, 5]).expect("write");
    fault.join().expect("fault");
    fallocate.join().expect("fallocate");
    f.check_quiet();
    check(&f.bed, before);
    // A pending overwrite adds none.
    assert_eq!(f.bed.file.blocks(), 4);
    let data = f.settle(4);
    let raced = data[1] == [5, 5] || data[1] == [7, 5];
    assert!(
        data[0] == [5, 5] && raced && data[2] == [5, 0] && data[3] == [0, 0],
        "{data:?}"
    );
    f.check_quiet();
    check(&f.bed, before);
    f.truncate(0).expect("truncate");
    check_end(&f.bed, before);
}

#[test]
fn r4_look_again_under_the_lock() {
    holds(&RULE);
}

#[test]
fn r4_mutant_is_caught() {
    caught(&RULE, "engine", &[Mutant::R4]);
    caught(&RULE, "page-cache", &[Mutant::R4]);
}
