// SPDX-License-Identifier: GPL-2.0

//! One damaged sector: each one of each node and of each data block, one at a time.

use crate::census::Census;
use crate::common::log::{batches, block, synced};
use crate::common::*;
use crate::disk::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{crc32c, Block, Shared};
use std::collections::BTreeSet;

const SECTOR: usize = 512;

/// Makes something else of a sector: zeros, or the complement of what it was.
fn harm_sector(disk: &MemDisk, at: u64, sector: usize) {
    let mut b = kernel_block(&block(disk, at));
    let bytes = &mut b[sector * SECTOR..(sector + 1) * SECTOR];
    match at % 2 == 0 && bytes.iter().any(|x| *x != 0) {
        true => bytes.fill(0),
        false => bytes.iter_mut().for_each(|x| *x = !*x),
    }
    disk.device().write(&[(at, &b)]).unwrap();
}

/// Each sector of each copy of each node: nothing is lost, nothing is wrong, and it is healed, after a
/// read of it or else by a scrub.
#[test]
fn one_damaged_sector_of_a_node_loses_nothing_and_is_healed() {
    kernel::print::set_level(kernel::print::SILENT);
    let good = settled(&furnished());
    let all = fsck(&good);
    let (mut tried, mut by_reads) = (0, 0);
    for node in Census::of(&good).nodes.values() {
        for at in node.copies() {
            let before = block(&good, at);
            for sector in 0..4096 / SECTOR {
                let what = format!("{node:?}, block {at}, sector {sector}");
                let disk = good.fork();
                harm_sector(&disk, at, sector);
                let fs = mount(&disk);
                let lost = unreadable(&fs, &disk.device(), &all);
                assert_eq!(lost, BTreeSet::new(), "{what}");
                let read = fs.node_store().bad_copies().reads() > 0;
                fs.heal(&|| false);
                assert_eq!(block(&disk, at) == before, read, "{what}");
                if !read {
                    assert_eq!(scrub(&fs).0.healed, 1, "{what}");
                    assert!(block(&disk, at) == before, "{what}");
                }
                fs.unmount().unwrap();
                tried += 1;
                by_reads += u64::from(read);
            }
        }
    }
    println!("{tried} sectors, {by_reads} healed after a read");
    assert!(tried > 500 && by_reads > tried / 4);
}

/// [`furnished`] with a log that a mount has to replay, which creates files and adds data to an old one.
fn with_log() -> MemDisk {
    let disk = furnished();
    let fs = mount(&disk);
    for n in 0..6u64 {
        synced(&disk, &fs, format!("new {n}").as_bytes(), 7000 + n);
    }
    let root = fs.iget(fs.root_ino()).unwrap();
    let holes = fs.lookup(&root, b"holes").unwrap().unwrap().ino;
    let holes = fs.iget(holes).unwrap();
    write(&disk.device(), &fs, &holes, 20_000, &[1, 2, 3]).unwrap();
    fs.sync_inode(&holes).unwrap();
    fs.iput(holes);
    fs.iput(root);
    let crashed = disk.fork();
    fs.abort("the power is cut");
    crashed
}

/// The same when the mount replays a log: a sector of each copy, one at a time, before the mount.
#[test]
fn replay_works_with_one_damaged_sector_of_a_node() {
    kernel::print::set_level(kernel::print::SILENT);
    let good = with_log();
    assert!(batches(&good).len() >= 7);
    let all = fsck(&settled(&good));
    let mut tried = 0;
    for node in Census::of(&good).nodes.values() {
        for at in node.copies() {
            let what = format!("{node:?}, block {at}");
            let disk = good.fork();
            harm_sector(&disk, at, at as usize % (4096 / SECTOR));
            let fs = mount(&disk);
            let lost = unreadable(&fs, &disk.device(), &all);
            assert_eq!(lost, BTreeSet::new(), "{what}");
            assert_eq!(scrub(&fs).0.lost_nodes, 0, "{what}");
            fs.unmount().unwrap();
            assert_eq!(problems(&disk), Vec::<String>::new(), "{what}");
            assert_eq!(fsck(&disk).len(), all.len(), "{what}");
            tried += 1;
        }
    }
    assert!(tried > 60, "{tried}");
}

/// The blocks of a file that cannot be read; the others must be right.
fn bad_blocks(fs: &Fs, disk: &MemDisk, inode: &Shared<Inode>, found: &Found) -> Vec<u64> {
    let dev = disk.device();
    let mut bad = Vec::new();
    for (at, seed) in &found.blocks {
        let m = fs.map_read(inode, *at, 1).unwrap();
        let mut b = Block::zeroed().unwrap();
        dev.read(m.phys, &mut b).unwrap();
        match fs.verify(inode, *at, m.phys, crc32c(0, &b[..])).unwrap() {
            Verdict::Good => assert_eq!(seed_of(&b), Some(*seed)),
            Verdict::Bad(_) => bad.push(*at),
            Verdict::Moved => panic!("nothing moves"),
        }
    }
    bad
}

/// Each sector of data: that block cannot be read, every other block of the file can, and the scrub says
/// which one it is.
#[test]
fn one_damaged_sector_of_data_costs_that_block() {
    kernel::print::set_level(kernel::print::SILENT);
    let good = settled(&furnished());
    let all = fsck(&good);
    let data = Census::of(&good).data;
    assert!(data.len() > 1000);
    for ((ino, file_block), at) in data {
        let sectors = match file_block % 100 {
            0 => 0..8,
            n => n as usize % 8..n as usize % 8 + 1,
        };
        for sector in sectors {
            let what = format!("inode {ino}, block {file_block}, sector {sector}");
            let disk = good.fork();
            harm_sector(&disk, at, sector);
            let fs = mount(&disk);
            let inode = fs.iget(ino).unwrap();
            let bad = bad_blocks(&fs, &disk, &inode, &all[&ino]);
            assert_eq!(bad, [file_block], "{what}");
            fs.iput(inode);
            if file_block % 50 == 0 {
                let (_, damage) = scrub(&fs);
                let named: Vec<_> = damage.iter().map(|d| (d.owner, d.start, d.end)).collect();
                let range = (file_block * 4096, (file_block + 1) * 4096);
                assert_eq!(named, [(ino, range.0, range.1)], "{what}");
            }
            fs.unmount().unwrap();
        }
    }
}
