// SPDX-License-Identifier: GPL-2.0

//! A superblock that cannot be read, or that is damaged, may be the newest: going on from the
//! other one would undo what a commit had acknowledged. One that a power cut tore is not, and must not keep a
//! filesystem from being mounted.

mod common;

use common::hooked::{hooked, Ask};
use common::{make, mount, regular};
use kernel::error::code::{EIO, ENOMEM, EUCLEAN};
use kernel::prelude::Error;
use ordofs_engine::engine::format::SB_SLOTS;
use ordofs_engine::engine::{Fs, MountOptions};
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::record::{Op, Recorder};
use ordofs_engine::os::{Block, Device, Shared};

/// A filesystem with three commits of a file each, and the slot of the last one.
fn three_commits() -> (MemDisk, u64) {
    three_commits_on(16384)
}

fn three_commits_on(blocks: u64) -> (MemDisk, u64) {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(blocks);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    for name in [b"f0", b"f1", b"f2"] {
        let f = fs.create(&root, name, &regular()).unwrap();
        fs.iput(f);
        fs.sync().unwrap();
    }
    let newest = SB_SLOTS[(fs.durable_generation() & 1) as usize];
    fs.iput(root);
    (disk, newest)
}

/// The device, on which reads of one block fail.
fn without(disk: &MemDisk, block: u64, error: Error) -> Device {
    hooked(disk, move |ask| match ask {
        Ask::Read(b) if b == block => Err(error),
        _ => Ok(()),
    })
}

fn has(fs: &Shared<Fs>, name: &[u8]) -> bool {
    let root = fs.iget(fs.root_ino()).unwrap();
    let found = fs.lookup(&root, name).unwrap().is_some();
    fs.iput(root);
    found
}

#[test]
fn an_unreadable_superblock_forbids_writing() {
    let (disk, newest) = three_commits();
    let read_only = MountOptions {
        read_only: true,
        ..MountOptions::default()
    };
    let before = disk.image();
    for slot in SB_SLOTS {
        let refused = Fs::mount(without(&disk, slot, EIO), MountOptions::default())
            .err()
            .expect("mounted");
        assert_eq!(refused.error, EIO);
        assert!(refused.reason.contains("superblock"), "{}", refused.reason);

        let fs = Fs::mount(without(&disk, slot, EIO), read_only).unwrap();
        assert_eq!(fs.forbidden().map(|why| why.error), Some(EIO));
        assert!(has(&fs, b"f1"));
        assert_eq!(has(&fs, b"f2"), slot != newest);
        fs.unmount().unwrap();
    }
    assert!(disk.image() == before, "somebody has written");
    let fs = mount(&disk);
    assert!(fs.forbidden().is_none() && has(&fs, b"f2"));
}

#[test]
fn no_memory_is_not_an_unreadable_superblock() {
    let (disk, _) = three_commits();
    for (slot, read_only) in [(0, false), (1, false), (0, true), (1, true)] {
        let options = MountOptions {
            read_only,
            ..MountOptions::default()
        };
        let refused = Fs::mount(without(&disk, SB_SLOTS[slot], ENOMEM), options)
            .err()
            .expect("mounted");
        assert_eq!((refused.error, refused.reason), (ENOMEM, "out of memory"));
    }
}

const READ_ONLY: MountOptions = MountOptions {
    read_only: true,
    commit_secs: 5,
    discard: false,
    recovery: true,
    rescue_log: false,
    cache_nodes: 16384,
};

fn block(disk: &MemDisk, at: u64) -> [u8; 4096] {
    let mut b = Block::zeroed().unwrap();
    disk.device().read(at, &mut b).unwrap();
    *b
}

fn put(disk: &MemDisk, at: u64, data: &[u8; 4096]) {
    let mut b = Block::zeroed().unwrap();
    b.copy_from_slice(data);
    disk.device().write(&[(at, &b)]).unwrap();
}

/// The other slot.
fn beside(slot: u64) -> u64 {
    SB_SLOTS[0] + SB_SLOTS[1] - slot
}

/// A damaged newest superblock: no writing, and the other one can be looked at.
fn refused(disk: &MemDisk, what: &str) {
    let before = disk.image();
    let e = Fs::mount(disk.device(), MountOptions::default());
    let e = e.err().unwrap_or_else(|| panic!("{what}: mounted"));
    assert_eq!(e.error, EUCLEAN, "{what}: {}", e.reason);
    assert!(e.reason.contains("superblock slot"), "{what}: {}", e.reason);
    let fs = Fs::mount(disk.device(), READ_ONLY).unwrap_or_else(|e| panic!("{what}: {}", e.reason));
    assert_eq!(fs.forbidden().map(|why| why.error), Some(EUCLEAN), "{what}");
    assert!(has(&fs, b"f1") && !has(&fs, b"f2"), "{what}");
    fs.unmount().unwrap();
    assert!(disk.image() == before, "{what}: somebody has written");
    let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options::default()).unwrap();
    let told = report
        .problems
        .iter()
        .any(|p| p.place.starts_with("superblock slot"));
    assert!(told, "{what}: {:?}", report.problems);
}

/// The error of a mount that may write.
fn rw_error(disk: &MemDisk) -> Option<Error> {
    Fs::mount(disk.fork().device(), MountOptions::default())
        .err()
        .map(|e| e.error)
}

/// A damaged older superblock: it is reported, and the mount mends it.
fn mended(disk: &MemDisk, what: &str) {
    let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options::default()).unwrap();
    assert!(report.is_clean(), "{what}: {:?}", report.problems);
    let told = report
        .mendable
        .iter()
        .any(|p| p.place.starts_with("superblock slot"));
    assert!(told, "{what}: fsck says nothing");
    let fs = Fs::mount(disk.device(), READ_ONLY).unwrap_or_else(|e| panic!("{what}: {}", e.reason));
    assert!(fs.forbidden().is_none() && has(&fs, b"f2"), "{what}");
    fs.unmount().unwrap();
    mounts(disk, what);
}

/// The filesystem can be written to, has its last commit, and has two good superblocks afterwards.
fn mounts(disk: &MemDisk, what: &str) {
    let fs = Fs::mount(disk.device(), MountOptions::default())
        .unwrap_or_else(|e| panic!("{what}: {}", e.reason));
    assert!(has(&fs, b"f2"), "{what}");
    fs.unmount().unwrap();
    let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options::default()).unwrap();
    assert!(report.is_clean() && report.mendable.is_empty(), "{what}");
    for at in SB_SLOTS {
        let d = disk.fork();
        put(&d, beside(at), &[0; 4096]);
        assert!(
            Fs::mount(d.device(), READ_ONLY).is_ok(),
            "{what}: slot {at}"
        );
    }
}

#[test]
fn a_flipped_bit_of_the_newest_superblock_forbids_writing() {
    for blocks in [16384, 1 << 21] {
        let (disk, newest) = three_commits_on(blocks);
        for at in (0..4096).filter(|at| *at < 300 && at % 3 == 0 || at % 29 == 0) {
            let d = disk.fork();
            d.corrupt(newest, at, 1 << (at % 8));
            refused(&d, &format!("{blocks} blocks, byte {at}"));
        }
        for bit in 0..64 {
            let d = disk.fork();
            d.corrupt(newest, 144 + bit / 8, 1 << (bit % 8));
            refused(&d, &format!("{blocks} blocks, bit {bit} of the generation"));
        }
    }
}

#[test]
fn a_flipped_bit_of_the_older_superblock_is_reported_and_mended() {
    for blocks in [16384, 1 << 21] {
        let (disk, newest) = three_commits_on(blocks);
        for at in (0..4096).filter(|at| *at < 300 && at % 3 == 0 || at % 29 == 0) {
            let d = disk.fork();
            d.corrupt(beside(newest), at, 1 << (at % 8));
            mended(&d, &format!("{blocks} blocks, byte {at}"));
        }
    }
}

/// Larger damage: sectors of zeroes, of garbage, and all of the block.
#[test]
fn lost_sectors_of_a_superblock_are_told_from_a_torn_write() {
    for blocks in [16384, 1 << 21] {
        let (disk, newest) = three_commits_on(blocks);
        for fill in [0u8, 0xa5] {
            for mask in 1..=255u32 {
                // Sectors that are zero anyway.
                if fill == 0 && mask & 7 == 0 {
                    continue;
                }
                let what = format!("{blocks} blocks, sectors {mask:08b} filled with {fill:#x}");
                for slot in SB_SLOTS {
                    let d = disk.fork();
                    let mut b = block(&d, slot);
                    for k in (0..8).filter(|k| mask >> k & 1 != 0) {
                        b[k * 512..(k + 1) * 512].fill(fill);
                    }
                    put(&d, slot, &b);
                    if slot == newest {
                        refused(&d, &what);
                    }
                    // Where nothing of it is left that says how old it was, it may have been the newest.
                    else if mask & 7 != 7 || rw_error(&d).is_none() {
                        mended(&d, &what);
                    }
                }
            }
        }
        // Two flipped bits. In roots they are seen where every commit changes every sector of roots, as with
        // one allocation group.
        let fields = [(50, 60), (130, 140), (152, 3000), (3000, 3001)];
        let roots = [(513, 560), (1025, 1050)];
        let roots = &roots[..if blocks > 1 << 20 { 0 } else { 2 }];
        for (a, b) in fields.iter().chain(roots).copied() {
            let d = disk.fork();
            d.corrupt(newest, a, 1);
            d.corrupt(newest, b, 16);
            refused(&d, &format!("{blocks} blocks, bytes {a} and {b}"));
        }
    }
}

/// All that a power cut can leave of the write of a superblock, and of another one over that, and of a third.
#[test]
fn a_torn_superblock_is_no_damage() {
    for blocks in [16384, 1 << 21] {
        let (disk, newest) = three_commits_on(blocks);
        let target = beside(newest);
        let mut before = vec![disk];
        for round in 0..if blocks > 1 << 20 { 2 } else { 3 } {
            let mut after = Vec::new();
            for disk in &before {
                let rec = Recorder::new(disk.fork());
                let fs = mount_on_with_work(&rec, round);
                drop(fs);
                let old = block(disk, target);
                let ops = rec.ops();
                let write = ops.iter().position(
                    |op| matches!(op, Op::Write { block, fua: true, .. } if *block == target),
                );
                let write = write.expect("no superblock was written to the other slot");
                let whole = rec.crash_image(write + 1, |_| true);
                let new = block(&whole, target);
                for mask in 0..16u32 {
                    let mut torn = old;
                    for k in (0..4).filter(|k| mask >> k & 1 != 0) {
                        torn[k * 512..(k + 1) * 512].copy_from_slice(&new[k * 512..(k + 1) * 512]);
                    }
                    put(&whole, target, &torn);
                    let what = format!("{blocks} blocks, round {round}, sectors {mask:04b}");
                    mounts(&whole.fork(), &what);
                    let interesting = [1, 2, 6, 14].contains(&mask);
                    if interesting && torn != old && torn != new {
                        after.push(whole.fork());
                    }
                }
            }
            before = after;
        }
    }
}

/// A mount that commits something.
fn mount_on_with_work(rec: &Recorder, round: u64) -> Shared<Fs> {
    let fs =
        Fs::mount(rec.device(), MountOptions::default()).unwrap_or_else(|e| panic!("{}", e.reason));
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs
        .create(&root, format!("g{round}").as_bytes(), &regular())
        .unwrap();
    fs.iput(f);
    fs.iput(root);
    fs.sync().unwrap();
    fs
}
