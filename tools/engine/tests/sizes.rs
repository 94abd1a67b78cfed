// SPDX-License-Identifier: GPL-2.0

//! Devices of 16 MiB to 100 TiB, empty and full: what a mount reads, how much memory and processor time
//! it takes, and that a search finds the only AG with space.
//!
//! A full device is an empty one of which the AG records are changed. Most of its blocks have no owner,
//! so it is not checked; that all files of a full disk can be removed is what `full_disk.rs` shows.

#![allow(clippy::unwrap_used)]

#[path = "support/ags.rs"]
mod ags;
mod common;
#[path = "support/counting.rs"]
mod counting;

use ags::{rewrite, Ag};
use common::hooked::Ask;
use common::*;
use counting::{device, peak_of, sparse};
use kernel::prelude::*;
use ordofs_engine::engine::format::bits::Bits;
use ordofs_engine::engine::format::group::{encode, full_record, Form};
use ordofs_engine::engine::format::{Superblock, GROUP_BLOCKS};
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Device;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

const GIB: u64 = 1 << 18;
const SIZES: [u64; 8] = [
    4096,
    GIB / 8,
    GIB,
    16 * GIB - 1,
    16 * GIB,
    100 * GIB + 77,
    8 << 10 << 18,
    100 << 10 << 18,
];
/// An AG with space on a full device.
const MIDDLE: fn(u64) -> u64 = |ags| ags * 3 / 4;

/// Processor time of this thread: other work on the machine does not count.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let ns = stat.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(ns.expect("a number"))
}

/// A device with a counter of reads, whose content does not count as memory in use.
fn counted(disk: &MemDisk) -> (Device, Arc<AtomicU64>) {
    let reads = Arc::<AtomicU64>::default();
    let seen = reads.clone();
    let dev = sparse(disk, move |ask| {
        if let Ask::Read(_) = ask {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
    (dev, reads)
}

fn empty(blocks: u64) -> MemDisk {
    let disk = device(|| MemDisk::new(blocks));
    format_on(sparse(&disk, |_| ()));
    disk
}

/// An AG of which all blocks are in use.
fn full_ag(len: u64) -> Ag {
    Ag {
        free: 0,
        longest: 0,
        groups: vec![(0, full_record(len.div_ceil(GROUP_BLOCKS) as u32).to_vec())],
    }
}

/// Free blocks of each group of [`scattered_ag`], none of which touch.
const SCATTERED: u64 = 100;

/// An AG in which every group has a bitmap with a few single free blocks, so that its tree of groups has
/// nodes.
fn scattered_ag(len: u64) -> Ag {
    let mut used = Bits::zeroed().unwrap();
    used.set(0, GROUP_BLOCKS as u32);
    (0..SCATTERED as u32).for_each(|i| used.clear(80 * i + 7, 1));
    let mut v = KVec::new();
    let form = encode(&used, GROUP_BLOCKS as u32, &mut v).unwrap();
    assert_eq!(form, Form::Own);
    let groups = len / GROUP_BLOCKS;
    Ag {
        free: groups * SCATTERED,
        longest: 1,
        groups: (0..groups).map(|g| (g, v.to_vec())).collect(),
    }
}

/// What [`fill_up`] leaves free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum But {
    /// Nothing.
    Nothing,
    /// What is free in this AG.
    Ag(u64),
    /// Single blocks everywhere, but not in the first and in the last AG.
    Scattered,
}

/// Takes all space but some.
fn fill_up(disk: &MemDisk, but: But) {
    let sb = Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason));
    let last = u64::from(sb.ag_count) - 1;
    rewrite(disk, |ag| {
        let len = sb.ag_len(ag as u32);
        match but {
            But::Ag(but) if ag == but => None,
            But::Scattered if ag > 0 && ag < last => Some(scattered_ag(len)),
            _ => Some(full_ag(len)),
        }
    });
}

/// Mounts and unmounts, and says what that took.
fn mount_costs_little(disk: &MemDisk, what: &str) {
    let (dev, reads) = counted(disk);
    let mut fs = None;
    let before = processor_time();
    let memory = peak_of(|| fs = Some(mount_on(dev)));
    let took = processor_time() - before;
    let reads = reads.load(Ordering::Relaxed);
    println!("{what}: {reads} reads, {} KiB, {took:?}", memory >> 10);
    assert!(reads <= 12, "{what}: {reads} reads");
    assert!(memory < 16 << 20, "{what}: {memory} bytes");
    assert!(took < Duration::from_millis(100), "{what}: {took:?}");
    fs.unwrap().unmount().unwrap();
}

#[test]
fn a_mount_costs_little_at_every_size() {
    for blocks in SIZES {
        let disk = empty(blocks);
        mount_costs_little(&disk, &format!("{blocks} blocks, empty"));
        let sb = Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason));
        let ags = u64::from(sb.ag_count);
        let mut all = vec![But::Nothing];
        all.extend((ags > 1).then_some(But::Ag(MIDDLE(ags))));
        // A tree of groups has a dozen nodes.
        all.extend((3..1000).contains(&ags).then_some(But::Scattered));
        for but in all
            .into_iter()
            .filter(|b| scatters(&sb) || *b != But::Scattered)
        {
            let full = device(|| disk.fork());
            fill_up(&full, but);
            mount_costs_little(&full, &format!("{blocks} blocks, full but for {but:?}"));
        }
    }
}

/// The first file of an empty device, and of one that is full but for one AG.
#[test]
fn the_only_space_is_found_with_few_reads() {
    for blocks in SIZES {
        let disk = empty(blocks);
        let sb = Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason));
        let ags = u64::from(sb.ag_count);
        let but = (ags > 1).then_some(MIDDLE(ags));
        if let Some(but) = but {
            fill_up(&disk, But::Ag(but));
        }
        let (dev, reads) = counted(&disk);
        let fs = mount_on(dev);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"f", &regular()).unwrap();
        write(&sparse(&disk, |_| ()), &fs, &f, 0, &[1, 2, 3]).unwrap();
        let at = fs.map_read(&f, 0, 1).unwrap();
        fs.sync().unwrap();
        let reads = reads.load(Ordering::Relaxed);
        println!("{blocks} blocks: {reads} reads, at {at:?}");
        // The search needs a few. Searches in another AG than that of the goal, and commits, also look
        // into some leaves of the AG tree that were not read yet; so does that for second copies.
        assert!(reads <= 80, "{blocks} blocks: {reads} reads");
        assert_eq!(at.kind, MapKind::Written);
        if let Some(but) = but {
            assert_eq!(at.phys / sb.ag_blocks, but);
        }
        fs.iput(f);
        fs.iput(root);
        fs.unmount().unwrap();
        if but.is_none() {
            fsck(&disk);
        }
    }
}

/// Whether [`scattered_ag`] makes trees of two levels.
fn scatters(sb: &Superblock) -> bool {
    sb.ag_blocks == GIB
}

/// A search for a long run where there are only single blocks, in a hundred AGs with trees of groups on
/// nodes: the AG tree says so, and no group is read in vain.
#[test]
fn a_search_in_vain_passes_many_groups_by() {
    let disk = empty(100 * GIB + 77);
    fill_up(&disk, But::Scattered);
    let (dev, reads) = counted(&disk);
    let fs = mount_on(dev);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let before = reads.load(Ordering::Relaxed);
    // The first search learns of the group that it takes from; then a group lasts.
    fs.preallocate(&f, 0, SCATTERED, None).unwrap();
    let first = reads.load(Ordering::Relaxed) - before;
    fs.preallocate(&f, 1000, 10 * SCATTERED, None).unwrap();
    fs.sync().unwrap();
    let all = reads.load(Ordering::Relaxed) - before;
    println!("{first} reads, then {all}");
    assert!(first <= 10, "{first} reads");
    assert!(all <= 30, "{all} reads");
    assert_eq!(f.blocks(), 11 * SCATTERED);
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();
}

#[test]
fn a_hundred_tebibytes_are_made_within_two_seconds() {
    let before = processor_time();
    let mut disk = None;
    let memory = peak_of(|| disk = Some(empty(100 << 10 << 18)));
    let took = processor_time() - before;
    let written = disk.unwrap().image().len();
    println!("{took:?}, {} MiB, {written} blocks", memory >> 20);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(memory < 64 << 20, "{memory} bytes");
    // The areas of superblocks, another place of twins, which is wiped, and the AG tree: leaves of 91
    // records, written once to each of their two places.
    let tree = (100u64 << 10).div_ceil(91);
    let areas = 7 * 256;
    let most = areas + 2 * (tree + tree / 72 + 100);
    assert!((written as u64) < most, "{written} of {most} blocks");
}
