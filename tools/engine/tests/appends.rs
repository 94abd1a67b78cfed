// SPDX-License-Identifier: GPL-2.0

//! Files that are appended to in turns do not share the disk block by block, and what is kept for them is
//! free for every other file when there is nothing else.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::Shared;

/// Runs of blocks on disk that the file consists of.
fn runs(fs: &Fs, file: &Inode, blocks: u64) -> usize {
    let (mut at, mut next, mut n) = (0, 0, 0);
    while at < blocks {
        let m = fs.map_read(file, at, blocks - at).unwrap();
        assert_eq!(m.kind, MapKind::Written);
        n += usize::from(m.phys != next);
        next = m.phys + m.len;
        at += m.len;
    }
    n
}

fn files(fs: &Fs, n: usize) -> (Shared<Inode>, Vec<Shared<Inode>>) {
    let root = fs.iget(fs.root_ino()).unwrap();
    let make = |i| {
        fs.create(&root, format!("{i}").as_bytes(), &regular())
            .unwrap()
    };
    let all = (0..n).map(make).collect();
    (root, all)
}

/// A block and an fsync at a time, in AGs of 128 MiB and of 1 GiB. Many files share what an AG keeps.
#[test]
fn files_appended_in_turns_lie_in_few_pieces() {
    let cases = [
        (65536, 2, 8192, 16),
        (65536, 4, 4096, 14),
        (65536, 16, 1024, 10),
        (65536, 64, 512, 12),
        (1 << 22, 2, 16384, 12),
        (1 << 22, 32, 2048, 10),
    ];
    for (size, n, blocks, most) in cases {
        let disk = make(size);
        let dev = disk.device();
        let fs = mount(&disk);
        let (root, all) = files(&fs, n);
        for b in 0..blocks {
            for f in &all {
                write(&dev, &fs, f, b, &[b]).unwrap();
                fs.sync_inode(f).unwrap();
            }
        }
        let pieces = all.iter().map(|f| runs(&fs, f, blocks));
        let worst = pieces.max().unwrap();
        println!("{n} files of {blocks} blocks on {size}: at most {worst} runs");
        assert!(worst <= most, "{n} files of {blocks} blocks: {worst} runs");
        all.into_iter().for_each(|f| fs.iput(f));
        fs.iput(root);
        at_rest(&disk, &fs);
        fs.unmount().unwrap();
    }
}

/// Writes into a file leave alone what is kept behind its end.
#[test]
fn overwrites_give_up_no_kept_blocks() {
    let disk = make(65536);
    let dev = disk.device();
    let fs = mount(&disk);
    let (root, all) = files(&fs, 2);
    let blocks = 2048;
    for b in 0..blocks {
        for f in &all {
            write(&dev, &fs, f, b, &[b]).unwrap();
            write(&dev, &fs, f, 0, &[b]).unwrap();
        }
    }
    for f in &all {
        let n = runs(&fs, f, blocks);
        println!("{n} runs");
        assert!(n <= 16, "{n} runs");
    }
    all.into_iter().for_each(|f| fs.iput(f));
    fs.iput(root);
    fs.unmount().unwrap();
}

/// A file that was appended to, and then gets space preallocated behind its end, goes on in what was kept
/// for it.
#[test]
fn preallocation_behind_the_end_uses_kept_blocks() {
    let disk = make(65536);
    let dev = disk.device();
    let fs = mount(&disk);
    let (root, all) = files(&fs, 2);
    for b in 0..50 {
        for f in &all {
            write(&dev, &fs, f, b, &[b]).unwrap();
        }
    }
    let f = &all[0];
    let end = |at| {
        let m = fs.map_read(f, at, 1).unwrap();
        (m.kind, m.phys)
    };
    let (_, last) = end(49);
    fs.preallocate(f, 50, 8, None).unwrap();
    assert_eq!(end(50), (MapKind::Unwritten, last + 1));
    all.into_iter().for_each(|f| fs.iput(f));
    fs.iput(root);
    fs.unmount().unwrap();
}

/// A large write takes what is kept for others, if it would lie in small pieces otherwise.
#[test]
fn kept_blocks_do_not_cut_a_write_to_pieces() {
    let disk = make(16384);
    let dev = disk.device();
    let fs = mount(&disk);
    let (root, all) = files(&fs, 40);
    for b in 0..64 {
        for f in &all {
            write(&dev, &fs, f, b, &[b]).unwrap();
        }
    }
    let big = fs.create(&root, b"big", &regular()).unwrap();
    let n = fs.statfs().bavail / 2;
    let seeds: Vec<u64> = (0..n).collect();
    write(&dev, &fs, &big, 0, &seeds).unwrap();
    let runs = runs(&fs, &big, n) as u64;
    println!("{runs} runs of {n} blocks");
    assert!(runs <= n / 64, "{runs}");
    all.into_iter().for_each(|f| fs.iput(f));
    fs.iput(big);
    fs.iput(root);
    at_rest(&disk, &fs);
    fs.unmount().unwrap();
}

/// What is kept behind a file is for the file itself: it stays in one piece, however many writes made it.
#[test]
fn a_file_appended_to_alone_lies_in_one_piece() {
    let disk = make(65536);
    let dev = disk.device();
    let fs = mount(&disk);
    let (_root, all) = files(&fs, 1);
    for b in 0..500 {
        write(&dev, &fs, &all[0], b, &[b]).unwrap();
        if b % 7 == 0 {
            fs.sync_inode(&all[0]).unwrap();
        }
    }
    // The first blocks may fill a gap between nodes.
    assert!(runs(&fs, &all[0], 500) <= 2);
}

/// What is kept counts as free, and can be had.
#[test]
fn kept_blocks_are_no_others_loss() {
    let disk = make(16384);
    let dev = disk.device();
    let fs = mount(&disk);
    let (root, all) = files(&fs, 70);
    for b in 0..3 {
        for f in &all {
            write(&dev, &fs, f, b, &[b]).unwrap();
        }
    }
    fs.sync().unwrap();
    let before = fs.statfs();
    // As much is free as after a mount, which keeps nothing.
    assert_eq!(mount(&disk.fork()).statfs().bavail, before.bavail);
    let big = fs.create(&root, b"big", &regular()).unwrap();
    fs.preallocate(&big, 0, before.bavail - 64, None).unwrap();
    fs.sync().unwrap();
    // The others go on where there is room.
    for f in &all[..8] {
        write(&dev, &fs, f, 3, &[3]).unwrap();
        for b in 0..4 {
            assert_eq!(read(&dev, &fs, f, b).unwrap(), Some(b));
        }
    }
    fs.unlink(&root, b"big", &big).unwrap();
    fs.delete_inode(big).unwrap();
    all.into_iter().for_each(|f| fs.iput(f));
    fs.iput(root);
    at_rest(&disk, &fs);
    fs.unmount().unwrap();
}
