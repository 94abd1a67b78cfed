// SPDX-License-Identifier: GPL-2.0

//! A size in the log has its data beside it. A file is written and gets another size, without an fsync;
//! another file's fsync takes the record of the size along. After a crash the file must not consist of a
//! hole where it had data.

mod common;

use common::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::Shared;

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 16;

/// The size after a crash, and how many of the blocks below it have their data.
fn after_crash(change: impl FnOnce(&Fs, &Shared<Inode>)) -> (u64, u64) {
    let disk = make(1 << 14);
    let dev = disk.device();
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let a = fs.create(&root, b"a", &regular()).unwrap();
    let seeds: Vec<u64> = (100..100 + BLOCKS).collect();
    write(&dev, &fs, &a, 0, &seeds).unwrap();
    change(&fs, &a);
    let b = fs.create(&root, b"b", &regular()).unwrap();
    fs.sync_inode(&b).unwrap();

    let left = disk.fork();
    let again = mount(&left);
    assert!(again.replayed().records > 0, "the fsync was a commit");
    let root = again.iget(again.root_ino()).unwrap();
    let ino = again.lookup(&root, b"a").unwrap().unwrap().ino;
    let a = again.iget(ino).unwrap();
    let size = a.attrs().size;
    let there = (0..size.div_ceil(BLOCK).min(BLOCKS))
        .filter(|i| read(&left.device(), &again, &a, *i).unwrap() == Some(100 + i))
        .count();
    (size, there as u64)
}

#[test]
fn a_file_that_grows_keeps_its_data() {
    let size = (BLOCKS + 5) * BLOCK;
    let found = after_crash(|fs, a| fs.set_size(a, size).unwrap());
    assert_eq!(found, (size, BLOCKS));
}

/// The record of other attributes says nothing of a size that only the write has raised.
#[test]
fn a_change_of_the_mode_logs_no_size() {
    let found = after_crash(|fs, a| {
        let mode = Some(0o600);
        fs.set_attrs(
            a,
            &AttrChange {
                mode,
                ..AttrChange::default()
            },
        )
        .unwrap();
    });
    assert_eq!(found, (0, 0));
}

/// Nor does it undo a size that is in the log.
#[test]
fn a_change_of_the_mode_undoes_no_logged_size() {
    let size = BLOCKS * BLOCK;
    let found = after_crash(|fs, a| {
        fs.sync_inode(a).unwrap();
        let mode = Some(0o600);
        fs.set_attrs(
            a,
            &AttrChange {
                mode,
                ..AttrChange::default()
            },
        )
        .unwrap();
    });
    assert_eq!(found, (size, BLOCKS));
}

#[test]
fn the_same_size_again_keeps_the_data() {
    let size = BLOCKS * BLOCK;
    let found = after_crash(|fs, a| fs.set_size(a, size).unwrap());
    assert_eq!(found, (size, BLOCKS));
}

#[test]
fn a_cut_between_two_blocks_keeps_the_data_below_it() {
    let size = 7 * BLOCK;
    let found = after_crash(|fs, a| fs.set_size(a, size).unwrap());
    assert_eq!(found, (size, 7));
}

#[test]
fn a_cut_inside_a_block_keeps_the_data_below_it() {
    let size = 7 * BLOCK + 5;
    let found = after_crash(|fs, a| fs.set_size(a, size).unwrap());
    assert_eq!(found, (size, 8));
}

#[test]
fn preallocation_behind_the_end_keeps_the_data() {
    let size = (BLOCKS + 3) * BLOCK;
    let found = after_crash(|fs, a| fs.preallocate(a, BLOCKS, 3, Some(size)).unwrap());
    assert_eq!(found, (size, BLOCKS));
}
