// SPDX-License-Identifier: GPL-2.0

//! Allocation groups that are nearly full: their first groups of blocks are in use, so a search reads
//! many before it finds one with a free block.
//!
//! The devices are empty ones of which the AG records are changed. Most of the blocks have no owner, so
//! fsck has nothing to say of them.

#![allow(clippy::unwrap_used)]

#[path = "support/ags.rs"]
mod ags;
mod common;
#[path = "support/counting.rs"]
mod counting;

use ags::{rewrite, Ag};
use common::hooked::Ask;
use common::{format_on, mount, regular, write};
use counting::{device, sparse};
use kernel::prelude::Result;
use ordofs_engine::engine::alloc::ag::Owner;
use ordofs_engine::engine::alloc::{Space, AG_TREE};
use ordofs_engine::engine::btree::NodeStore;
use ordofs_engine::engine::format::group::{encode, full_record, Form};
use ordofs_engine::engine::format::{bits::Bits, Superblock, GROUP_BLOCKS};
use ordofs_engine::engine::volume::mount::tree_of;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

const GIB: u64 = 1 << 18;
const GROUPS: u64 = 32;

/// A device of `gib` GiB on which each AG has the groups that `ag` gives.
fn made(gib: u64, ag: impl Fn() -> Ag) -> MemDisk {
    let disk = device(|| MemDisk::new(gib * GIB));
    format_on(sparse(&disk, |_| ()));
    rewrite(&disk, |_| Some(ag()));
    disk
}

/// The space of a filesystem, without the filesystem.
struct Opened {
    space: Space,
    store: NodeStore,
    reads: Arc<AtomicU64>,
}

fn open(disk: &MemDisk) -> Opened {
    let sb = Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason));
    let reads = Arc::<AtomicU64>::default();
    let seen = reads.clone();
    let dev = sparse(disk, move |ask| {
        if let Ask::Read(_) = ask {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
    let store = NodeStore::new(Shared::new(dev).unwrap(), sb.node_id, 4096).unwrap();
    let tree = tree_of(AG_TREE, sb.ag_root);
    let ag_blocks = NonZeroU64::new(sb.ag_blocks).unwrap();
    let space = Space::new(tree, ag_blocks, sb.blocks, sb.free).unwrap();
    space.read(&store).unwrap();
    Opened {
        space,
        store,
        reads,
    }
}

impl Opened {
    /// Allocates up to `want` blocks. Returns the first, and how many there are.
    fn take(&self, want: u64) -> Result<(u64, u64)> {
        self.space.reserve_forced(want);
        let run = self.space.alloc(&self.store, want, None, Owner::Busy)?;
        Ok((run.start, run.len))
    }
}

/// Groups `0..full` are full, with a record for each `together`; the others are free.
fn full_before(full: u64, together: u64) -> Ag {
    let mut ag = Ag {
        free: (GROUPS - full) * GROUP_BLOCKS,
        longest: GROUP_BLOCKS,
        groups: Vec::new(),
    };
    for first in (0..full).step_by(together as usize) {
        let n = together.min(full - first) as u32;
        ag.groups.push((first, full_record(n).to_vec()));
    }
    ag
}

/// All blocks of an AG are used but for `free` single ones in group `g`.
fn few_free(g: u64, free: u32) -> Ag {
    let mut bits = Bits::zeroed().unwrap();
    bits.set(0, GROUP_BLOCKS as u32);
    (0..free).for_each(|i| bits.clear(77 + 2 * i, 1));
    let mut record = kernel::prelude::KVec::new();
    assert_eq!(
        encode(&bits, GROUP_BLOCKS as u32, &mut record).unwrap(),
        Form::Own
    );
    let mut groups = vec![(0, full_record(g as u32).to_vec()), (g, record.to_vec())];
    if g + 1 < GROUPS {
        groups.push((g + 1, full_record((GROUPS - g - 1) as u32).to_vec()));
    }
    Ag {
        free: free.into(),
        longest: 1,
        groups,
    }
}

/// Space in a group that no search has come to yet is found, whatever is before it: single blocks, long
/// runs, nodes of commits.
#[test]
fn groups_that_turn_out_to_be_full_do_not_end_a_search() {
    for (full, together) in [(8, 8), (8, 1), (21, 21), (21, 1), (31, 31), (31, 2)] {
        for want in [1, 64] {
            let what = format!("{full} full, {together} together, {want} blocks");
            let o = open(&made(16, || full_before(full, together)));
            let (start, len) = o.take(want).unwrap_or_else(|e| panic!("{what}: {e:?}"));
            assert_eq!(len, want, "{what}");
            assert!(start % GIB / GROUP_BLOCKS >= full, "{what}");
        }
        let disk = made(16, || full_before(full, together));
        let fs = mount(&disk);
        let dev = disk.device();
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"f", &regular()).unwrap();
        write(&dev, &fs, &f, 0, &[1, 2, 3]).unwrap();
        fs.sync().unwrap();
        for i in 0..20 {
            write(&dev, &fs, &f, 3 + i, &[i]).unwrap();
            fs.sync().unwrap();
        }
        fs.iput(f);
        fs.iput(root);
        fs.unmount().unwrap();
    }
}

/// Each AG has a single free block. A search for one comes to it without looking into other AGs, down to
/// the last one; a search for more takes what it finds.
#[test]
fn the_last_block_of_each_allocation_group_is_found() {
    let ags = 300;
    let o = open(&made(ags, || few_free(30, 1)));
    for n in 0..ags {
        let want = [1, 64][(n % 2) as usize];
        let before = o.reads.load(Ordering::Relaxed);
        let (start, len) = o.take(want).unwrap_or_else(|e| panic!("block {n}: {e:?}"));
        assert_eq!((len, start % GROUP_BLOCKS), (1, 77));
        let reads = o.reads.load(Ordering::Relaxed) - before;
        assert!(reads <= 12, "{reads} reads for block {n}");
    }
    assert!(o.take(1).is_err());
}

/// A commit on a disk with no more space than that.
#[test]
fn a_commit_finds_the_last_blocks() {
    // Most of it is the pool.
    let disk = made(300, || few_free(31, 40));
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    for i in 0..20 {
        let name = format!("f{i}");
        let f = fs.create(&root, name.as_bytes(), &regular()).unwrap();
        write(&disk.device(), &fs, &f, 0, &[i; 20]).unwrap();
        fs.iput(f);
        fs.sync().unwrap();
    }
    fs.iput(root);
    fs.unmount().unwrap();
}
