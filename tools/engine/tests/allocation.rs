// SPDX-License-Identifier: GPL-2.0

//! Allocation groups that are nearly full, so that a search reads many groups of blocks before it
//! finds a free one; damaged ones, and what is counted as free then; and many at once.
//!
//! The devices are empty ones of which the AG records are changed. Most of the blocks have no
//! owner, so fsck has nothing to say of them.

#![allow(clippy::unwrap_used)]

#[path = "support/ags.rs"]
mod ags;
mod common;
#[path = "support/counting.rs"]
mod counting;

use ags::{rewrite, Ag};
use common::hooked::{hooked, Ask};
use common::{format_with, mount, regular, write};
use counting::{device, peak_of, sparse};
use kernel::prelude::{Result, EIO};
use ordofs_engine::engine::alloc::ag::Owner;
use ordofs_engine::engine::alloc::{Near, Space, AG_TREE};
use ordofs_engine::engine::btree::{NodeStore, WalkItem};
use ordofs_engine::engine::format::ag::AgRecord;
use ordofs_engine::engine::format::group::{encode, full_record, Form};
use ordofs_engine::engine::format::{bits::Bits, Superblock, GROUP_BLOCKS};
use ordofs_engine::engine::volume::mount::tree_of;
use ordofs_engine::os::map::steps;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Device, Shared};
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const GIB: u64 = 1 << 18;
const GROUPS: u64 = 32;

/// A device of `gib` GiB on which each AG has the groups that `ag` gives.
fn made(gib: u64, ag: impl Fn() -> Ag) -> MemDisk {
    let disk = device(|| MemDisk::new(gib * GIB));
    format_with(sparse(&disk, |_| ()), 1);
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
    let reads = Arc::<AtomicU64>::default();
    let seen = reads.clone();
    let dev = sparse(disk, move |ask| {
        if let Ask::Read(_) = ask {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
    Opened {
        reads,
        ..open_on(disk, dev)
    }
}

/// `disk`, of which the blocks in `bad` cannot be read, each so often.
fn failing(disk: &MemDisk, bad: &Arc<Mutex<BTreeMap<u64, u32>>>) -> Opened {
    let bad = bad.clone();
    let dev = hooked(disk, move |ask| {
        let mut bad = bad.lock().unwrap();
        match ask {
            Ask::Read(block) => match bad.get_mut(&block).filter(|n| **n > 0) {
                Some(n) => {
                    *n -= 1;
                    Err(EIO)
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    });
    open_on(disk, dev)
}

fn open_on(disk: &MemDisk, dev: Device) -> Opened {
    let sb = Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason));
    let reads = Arc::default();
    let store = NodeStore::new(Shared::new(dev).unwrap(), sb.node_id, 4096).unwrap();
    let tree = tree_of(AG_TREE, sb.ag_root);
    let ag_blocks = NonZeroU64::new(sb.ag_blocks).unwrap();
    let space = Space::new(tree, ag_blocks, sb.blocks, sb.free, sb.copies).unwrap();
    space.read(&store).unwrap();
    Opened {
        space,
        store,
        reads,
    }
}

impl Opened {
    /// The number of free blocks.
    fn free(&self) -> u64 {
        let (free, freed, pool) = self.space.counts();
        free + freed + pool
    }

    /// Allocates a block in AG `ag` or behind it. Returns its AG.
    fn take_in(&self, ag: u64) -> u64 {
        self.space.reserve_forced(1);
        // The first block of an AG is the end of the one before it.
        let goal = Some(ag * GIB + 1);
        let run = self.space.alloc(&self.store, 1, goal, Owner::Busy);
        run.unwrap().start / GIB
    }

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

/// All blocks of an AG are used but for runs in some groups: the group, and for each run the first
/// bit and the length.
fn with_runs(runs: &BTreeMap<u64, Vec<(u32, u32)>>) -> Ag {
    let mut groups = Vec::new();
    let mut next = 0;
    for (&g, list) in runs {
        let mut bits = Bits::zeroed().unwrap();
        bits.set(0, GROUP_BLOCKS as u32);
        list.iter().for_each(|(at, len)| bits.clear(*at, *len));
        let mut record = kernel::prelude::KVec::new();
        assert_eq!(
            encode(&bits, GROUP_BLOCKS as u32, &mut record).unwrap(),
            Form::Own
        );
        if g > next {
            groups.push((next, full_record((g - next) as u32).to_vec()));
        }
        groups.push((g, record.to_vec()));
        next = g + 1;
    }
    if next < GROUPS {
        groups.push((next, full_record((GROUPS - next) as u32).to_vec()));
    }
    let lens = || runs.values().flatten().map(|(_, len)| u64::from(*len));
    Ag {
        free: lens().sum(),
        longest: lens().max().unwrap(),
        groups,
    }
}

/// All blocks of an AG are used but for `free` single ones in group `g`.
fn few_free(g: u64, free: u32) -> Ag {
    let list = (0..free).map(|i| (77 + 2 * i, 1)).collect();
    with_runs(&BTreeMap::from([(g, list)]))
}

/// Space in a group that no search has come to yet is found, whatever is before it: single blocks,
/// long runs, nodes of commits.
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

/// Each AG has a single free block. A search for one comes to it without looking into other AGs,
/// down to the last one; a search for more takes what it finds.
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

/// A file whose last block is the last one of an AG goes on in that AG, also in the last one.
#[test]
fn the_end_of_an_allocation_group_is_a_goal_in_it() {
    let o = open(&empty(40));
    for ag in [1, 39] {
        o.space.reserve_forced(1);
        let goal = Some((ag + 1) * GIB);
        let run = o.space.alloc(&o.store, 1, goal, Owner::Busy);
        assert_eq!(run.unwrap().start / GIB, ag);
    }
}

/// The records of most AGs promise too much. A search that has tried some of them in vain is not
/// the last one: the next one goes on behind them.
#[test]
fn searches_for_long_runs_go_on_behind_those_that_failed() {
    let short: Vec<(u32, u32)> = (0..128).map(|i| (64 * i, 32)).collect();
    let runs: BTreeMap<u64, _> = (0..8).map(|g| (g, short.clone())).collect();
    let disk = empty(40);
    rewrite(&disk, |i| {
        let mut runs = runs.clone();
        if i == 10 {
            runs.insert(8, vec![(4096, 2000)]);
        }
        let longest = 2000;
        Some(Ag {
            longest,
            ..with_runs(&runs)
        })
    });
    let o = open(&disk);
    let taken: Vec<u64> = (0..4).map(|_| o.take(64).unwrap().1).collect();
    assert!(taken.contains(&64), "{taken:?}");
}

/// When no AG has a long run any more, writes do not look for one again and again before a commit
/// has freed blocks.
#[test]
fn long_runs_are_not_looked_for_in_vain_twice() {
    let ags = 40;
    let short: Vec<(u32, u32)> = (0..128).map(|i| (64 * i, 32)).collect();
    let mut runs: BTreeMap<u64, _> = (0..8).map(|g| (g, short.clone())).collect();
    runs.insert(8, vec![(4096, 64)]);
    let o = open(&made(ags, || with_runs(&runs)));
    for n in 0..ags {
        assert_eq!(o.take(64).unwrap().1, 64, "take {n}");
    }
    let cost = || {
        let before = steps();
        assert_eq!(o.take(64).unwrap().1, 32);
        steps() - before
    };
    let first = cost();
    for _ in 1..4 {
        cost();
    }
    let later: Vec<u64> = (0..10).map(|_| cost()).collect();
    println!("look-ups: {first}, {later:?}");
    assert!(later.iter().all(|n| 3 * n < first), "{first}, {later:?}");
    // After a commit it may be worth while again.
    o.space.finish_commit(&o.store, (0, 0)).unwrap();
    let again = cost();
    assert!(2 * again > first, "{again} after {first}");
}

/// A run where the last search ended is not good enough for a file that will grow: that holds at
/// its goal only.
#[test]
fn a_file_that_moves_to_another_allocation_group_gets_room_to_grow() {
    let mut runs = BTreeMap::from([(0, vec![(0, 8), (4096, 1000)])]);
    // Each of them seems better than the one before.
    runs.extend((1..9).map(|g| (g, vec![(100, 8 + g as u32)])));
    let disk = device(|| MemDisk::new(16 * GIB));
    format_with(sparse(&disk, |_| ()), 1);
    rewrite(&disk, |ag| {
        Some(if ag == 0 {
            few_free(3, 1)
        } else {
            with_runs(&runs)
        })
    });
    let o = open(&disk);
    o.space.reserve_forced(4);
    let mut kept = None;
    let near = Near {
        goal: Some(5),
        home: 0,
    };
    let run = o
        .space
        .append(&o.store, 4, near, Owner::Busy, &mut kept, 60);
    let run = run.unwrap();
    assert_eq!((run.start, run.len), (GIB + 4096, 4));
    let kept = kept.map(|k| (k.start, k.len));
    assert_eq!(kept, Some((GIB + 4100, 60)));
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

/// The nodes of the AG tree at `level`: the address, the first AG under it, and the free blocks
/// there.
fn ag_nodes(disk: &MemDisk, level: u8) -> Vec<(u64, u64, u64)> {
    let sb = Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason));
    let store = NodeStore::new(Shared::new(disk.device()).unwrap(), sb.node_id, 64).unwrap();
    let mut found: Vec<(u64, u64, u64)> = Vec::new();
    let mut fresh = false;
    tree_of(AG_TREE, sb.ag_root)
        .walk(&store, &mut |item| {
            match item {
                WalkItem::Node(n) if n.level == level => {
                    found.push((n.addr, 0, 0));
                    fresh = true;
                }
                WalkItem::Item(ag, v) => {
                    let last = found.last_mut().unwrap();
                    if core::mem::take(&mut fresh) {
                        last.1 = ag;
                    }
                    let len = sb.ag_len(ag as u32);
                    last.2 += u64::from(AgRecord::decode(ag, len, v)?.free);
                }
                _ => {}
            }
            Ok(())
        })
        .unwrap();
    found
}

fn empty(gib: u64) -> MemDisk {
    let disk = device(|| MemDisk::new(gib * GIB));
    format_with(sparse(&disk, |_| ()), 1);
    disk
}

/// A node of the AG tree that cannot be read once costs nothing; one that never can be read costs
/// what is free under it, once, also if its parent cannot be read later.
#[test]
fn what_cannot_be_read_is_lost_once() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = empty(9000);
    let leaves = ag_nodes(&disk, 0);
    let parents = ag_nodes(&disk, 1);
    let (parent, first, under_parent) = parents[1];
    let (leaf, ag, under_leaf) = *leaves.iter().find(|l| l.1 > first).unwrap();
    // The root has no free blocks of its own, so these are not all.
    assert!(ag_nodes(&disk, 2).len() == 1 && under_leaf < under_parent);
    let bad = Arc::default();
    let o = failing(&disk, &bad);
    bad.lock().unwrap().insert(leaf, 1);
    let free = o.free();
    assert_eq!(o.take_in(ag), ag);
    assert_eq!(o.free(), free - 1);
    let bad = Arc::default();
    let o = failing(&disk, &bad);
    bad.lock().unwrap().insert(leaf, u32::MAX);
    let free = o.free();
    for i in 0..3 {
        assert_ne!(o.take_in(ag + i), ag + i);
    }
    assert_eq!(o.free(), free - 3 - under_leaf);
    o.store.shrink(u64::MAX);
    bad.lock().unwrap().insert(parent, u32::MAX);
    for i in 0..3 {
        assert_ne!(o.take_in(first + i), first + i);
        assert_ne!(o.take_in(ag + 3 + i), ag + 3 + i);
    }
    assert_eq!(o.free(), free - 9 - under_parent);
}

/// A device on which the first AGs are full.
fn with_full(gib: u64, full: u64) -> MemDisk {
    let disk = empty(gib);
    let mut bits = Bits::zeroed().unwrap();
    bits.set(0, GROUP_BLOCKS as u32);
    bits.clear(4, 1);
    let mut record = kernel::prelude::KVec::new();
    encode(&bits, GROUP_BLOCKS as u32, &mut record).unwrap();
    rewrite(&disk, |i| {
        (i < full).then(|| Ag {
            free: GROUPS,
            longest: 1,
            groups: (0..GROUPS).map(|g| (g, record.to_vec())).collect(),
        })
    });
    disk
}

impl Opened {
    fn homes(&self, n: u64) -> Vec<u64> {
        let next = |_| self.space.next_home(&self.store).into();
        (0..n).map(next).collect()
    }
}

fn different(homes: &[u64]) -> usize {
    homes
        .iter()
        .collect::<std::collections::BTreeSet<_>>()
        .len()
}

/// A few directories get as many AGs, and very many no more than a district has.
#[test]
fn many_directories_have_few_homes() {
    let o = open(&empty(9000));
    assert_eq!(different(&o.homes(16)), 16);
    o.reads.store(0, Ordering::Relaxed);
    let homes = o.homes(100_000);
    assert_eq!(different(&homes), 64);
    // The leaves of the district, and one before each.
    let reads = o.reads.load(Ordering::Relaxed);
    assert!(reads < 8, "{reads}");
}

/// Full AGs are passed over, however many there are.
#[test]
fn homes_are_not_looked_for_in_a_stretch_of_full_groups() {
    for full in [40, 70, 100, 2000, 8000] {
        let o = open(&with_full(9000, full));
        let homes = o.homes(1000);
        assert!(homes.iter().all(|i| *i >= full), "{full}: {homes:?}");
        assert!(different(&homes) >= 16, "{full}: {homes:?}");
        let reads = o.reads.load(Ordering::Relaxed);
        assert!(reads < 100, "{full}: {reads}");
    }
}

/// Tasks that make directories at once get different homes, also where AGs are passed over.
#[test]
fn tasks_get_different_homes() {
    let disk = with_full(9000, 70);
    for _ in 0..20 {
        let o = open(&disk);
        let start = std::sync::Barrier::new(32);
        let homes: Vec<u64> = std::thread::scope(|s| {
            let task = || {
                start.wait();
                o.homes(1)[0]
            };
            let tasks: Vec<_> = (0..32).map(|_| s.spawn(task)).collect();
            tasks.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(homes.iter().all(|i| *i >= 70), "{homes:?}");
        assert_eq!(different(&homes), 32, "{homes:?}");
    }
}

/// A leaf of the AG tree that cannot be read is not read again for hints, neither for homes nor for
/// data.
#[test]
fn hints_do_not_read_damaged_leaves_again() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = with_full(9000, 200);
    let leaves = ag_nodes(&disk, 0);
    let damaged = |o: &dyn Fn(&Opened), n: usize| {
        let bad = Arc::default();
        let opened = failing(&disk, &bad);
        let leaf = leaves[n].0;
        bad.lock().unwrap().insert(leaf, u32::MAX);
        o(&opened);
        let reads = u32::MAX - bad.lock().unwrap()[&leaf];
        assert!((1..8).contains(&reads), "{reads}");
    };
    let n = leaves.iter().position(|l| l.1 > 200).unwrap();
    let (lost, behind) = (leaves[n].1, leaves[n + 1].1);
    damaged(
        &|o| {
            o.space.start_searches(0, lost * GIB);
            let homes = o.homes(1000);
            let ok = |i: &u64| *i > 200 && !(lost..behind).contains(i);
            assert!(homes.iter().all(ok), "{homes:?}");
            assert!(different(&homes) >= 16);
        },
        n,
    );
    // There is nothing behind the last one.
    let n = leaves.len() - 1;
    let lost = leaves[n].1;
    damaged(
        &|o| {
            o.space.start_searches(0, lost * GIB);
            let homes = o.homes(1000);
            assert!(homes.iter().all(|i| (200..lost).contains(i)), "{homes:?}");
        },
        n,
    );
    // The AG in front of the leaf has no long run.
    let n = leaves.iter().position(|l| l.1 > 100).unwrap();
    let goal = Some(leaves[n].1 * GIB - 8);
    damaged(
        &|o| {
            for _ in 0..50 {
                o.space.reserve_forced(64);
                let run = o.space.alloc(&o.store, 64, goal, Owner::Busy);
                assert_eq!(run.unwrap().len, 64);
            }
        },
        n,
    );
}

/// Blocks that a replay claims in an AG that is damaged were lost with it.
#[test]
fn a_claim_in_a_damaged_allocation_group_is_not_counted_twice() {
    kernel::print::set_level(kernel::print::SILENT);
    let mut bits = Bits::zeroed().unwrap();
    bits.set(0, GROUP_BLOCKS as u32);
    (0..40).for_each(|i| bits.clear(2 * i, 1));
    let mut record = kernel::prelude::KVec::new();
    encode(&bits, GROUP_BLOCKS as u32, &mut record).unwrap();
    let disk = made(16, || Ag {
        free: 40 * GROUPS,
        longest: 1,
        groups: (0..GROUPS).map(|g| (g, record.to_vec())).collect(),
    });
    let image = disk.image();
    let of_groups = |owner: u64| {
        let leaf = move |d: &[u8]| {
            d.starts_with(b"ORDN") && d[40] == 7 && d[41] == 0 && d[32..40] == owner.to_le_bytes()
        };
        let found = image.iter().filter(move |(_, d)| leaf(&d[..]));
        found.map(|(b, _)| *b).collect::<Vec<u64>>()
    };
    let leaves = of_groups(3);
    assert!(leaves.len() > 1, "{leaves:?}");
    let bad: Arc<Mutex<BTreeMap<u64, u32>>> = Arc::default();
    let o = failing(&disk, &bad);
    assert_eq!(o.take_in(3), 3);
    let free = o.free();
    bad.lock()
        .unwrap()
        .extend(leaves.iter().map(|b| (*b, u32::MAX)));
    o.store.shrink(u64::MAX);
    // The first group is in memory, and the last one is not.
    assert!(o
        .space
        .claim(&o.store, 3 * GIB + 31 * GROUP_BLOCKS, 1)
        .is_err());
    let lost = 40 * GROUPS - 1;
    assert_eq!(o.free(), free - lost);
    o.space.claim(&o.store, 3 * GIB, 20).unwrap();
    assert_eq!(o.free(), free - lost);
}

/// AGs that nothing uses leave memory.
#[test]
fn idle_allocation_groups_leave_memory() {
    let ags = 4000;
    let disk = empty(ags);
    let o = open(&disk);
    let memory = peak_of(|| {
        for i in 0..ags {
            o.space.reserve_forced(1);
            let goal = Some(i * GIB + 5 * GROUP_BLOCKS);
            let run = o.space.alloc(&o.store, 1, goal, Owner::Busy).unwrap();
            assert_eq!(run.start / GIB, i);
            o.space.release_busy(&o.store, run.start, 1).unwrap();
        }
    });
    println!("{} AGs, {} KiB", o.space.ags_in_memory(), memory >> 10);
    assert!(o.space.ags_in_memory() <= 257);
    assert!(memory < 8 << 20, "{memory} bytes");
}
