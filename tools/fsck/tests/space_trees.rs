// SPDX-License-Identifier: GPL-2.0

//! What the checker says about the trees of space. The filesystems are made here, record by record,
//! and not by the engine's allocator, so that both can be wrong only in different ways.

use kernel::prelude::{KVec, Result};
use ordofs_engine::engine::btree::{NodeSink, NodeStore, Tree, TreeId, TreeKind};
use ordofs_engine::engine::format::ag::{
    inline_groups_max, run_class, AgRecord, RootForm, NEVER_USED, NOT_TRUSTED,
};
use ordofs_engine::engine::format::bits::Bits;
use ordofs_engine::engine::format::dead::{self, DeadKey};
use ordofs_engine::engine::format::group::{encode, full_record, group_len, Form};
use ordofs_engine::engine::format::inode::InodeRecord;
use ordofs_engine::engine::format::places::{areas, log_place, AREA_BLOCKS};
use ordofs_engine::engine::format::quota::{Account, QuotaKey, QuotaRecord};
use ordofs_engine::engine::format::snapshot::{SnapshotRecord, ABANDONED, BOOKMARK};
use ordofs_engine::engine::format::superblock::{ag_geometry, SPARE_ROOTS, STATE_REPAIR};
use ordofs_engine::engine::format::{NodePtr, Superblock, GROUP_BLOCKS};
use ordofs_engine::engine::{Attrs, S_IFDIR};
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Block, Shared, Time};
use std::time::{Duration, Instant};

const NODE_ID: u64 = 0x1234_5678;

/// Writes nodes to consecutive blocks.
struct Sink<'a> {
    disk: &'a MemDisk,
    next: u64,
}

impl NodeSink for Sink<'_> {
    fn node_id(&self) -> u64 {
        NODE_ID
    }
    fn generation(&self) -> u64 {
        1
    }
    fn alloc(&mut self) -> Result<u64> {
        self.next += 1;
        Ok(self.next - 1)
    }
    fn write(&mut self, addr: u64, image: Block) -> Result {
        self.disk.device().write(&[(addr, &image)])
    }
}

type Items = Vec<(u64, Vec<u8>)>;

/// A filesystem that has an empty root directory, and what is asked for.
struct Make {
    blocks: u64,
    /// The first block of the nodes.
    nodes: u64,
    /// Entries of the deferred tree.
    deferred: Vec<u64>,
    /// Records of the snapshot, the dead and the quota tree.
    later: [Items; 3],
    /// The runs of blocks that the dead tree has.
    dead: Vec<(u64, u32)>,
    /// Changes the group records of an AG, ...
    groups: fn(u64, &mut Items),
    /// ... the record of an AG before it is encoded, ...
    ag: fn(u64, &mut AgRecord<'_>),
    /// ... all AG records, ...
    ags: Box<dyn Fn(&mut Items)>,
    /// ... and the superblock.
    sb: fn(&mut Superblock),
}

impl Make {
    fn new(blocks: u64) -> Self {
        Self {
            blocks,
            nodes: 1000,
            deferred: Vec::new(),
            later: [const { Items::new() }; 3],
            dead: Vec::new(),
            groups: |_, _| (),
            ag: |_, _| (),
            ags: Box::new(|_| ()),
            sb: |_| (),
        }
    }

    fn superblock(&self) -> Superblock {
        let (ag_count, ag_blocks) = ag_geometry(self.blocks);
        let (log_start, log_len) = log_place(self.blocks);
        Superblock {
            compat: 0,
            ro_compat: 0,
            incompat: 0,
            uuid: [7; 16],
            node_id: NODE_ID,
            backed_up: 0,
            label: [0; 64],
            hash_key: [1, 2],
            generation: 1,
            blocks: self.blocks,
            ag_count,
            ag_blocks,
            state: 1,
            log_start,
            log_len,
            log_pos: 0,
            log_seq: 1,
            next_ino: 3,
            root_ino: 2,
            inodes: 1,
            free: 0,
            created: Time::default(),
            mounted: Time::default(),
            mounts: 0,
            committed: Time::default(),
            inode_root: None,
            orphan_root: None,
            ag_root: None,
            deferred_root: None,
            spare_roots: [None; SPARE_ROOTS],
        }
    }

    /// Makes it. The AG tree must say where its own nodes are, so it is made again until their number
    /// is the one that it says.
    fn on_disk(&self) -> MemDisk {
        let mut nodes = 1;
        loop {
            let disk = MemDisk::new(self.blocks);
            let made = self.try_with(&disk, nodes);
            if made == nodes {
                return disk;
            }
            nodes = made;
        }
    }

    /// Makes it with so many nodes marked as used. Returns how many there are.
    fn try_with(&self, disk: &MemDisk, nodes: u64) -> u64 {
        let st = NodeStore::new(Shared::new(disk.device()).unwrap(), NODE_ID, 4096).unwrap();
        let mut sink = Sink {
            disk,
            next: self.nodes,
        };
        let mut sb = self.superblock();
        let write = |id: TreeId, items: &Items, sink: &mut Sink<'_>| {
            let mut tree = Tree::empty(id);
            for (key, v) in items {
                tree.insert(&st, *key, v).unwrap();
            }
            tree.snapshot().unwrap().write_out(sink).unwrap()
        };
        let root = vec![(2, root_directory())];
        sb.inode_root = write(TreeId::new(TreeKind::Inode, 0), &root, &mut sink);
        let deferred: Items = self.deferred.iter().map(|a| (*a, vec![1])).collect();
        sb.deferred_root = write(TreeId::new(TreeKind::Deferred, 0), &deferred, &mut sink);
        let [snapshots, dead, quota] = &self.later;
        sb.snapshot_root = write(TreeId::new(TreeKind::Snapshots, 0), snapshots, &mut sink);
        sb.dead_root = write(TreeId::new(TreeKind::Dead, 0), dead, &mut sink);
        sb.quota_root = write(TreeId::new(TreeKind::Quota, 0), quota, &mut sink);
        sb.dead_blocks = self.dead.iter().map(|(_, n)| u64::from(*n)).sum();
        let mut used: Vec<(u64, u64)> = areas(self.blocks).map(|a| (a, AREA_BLOCKS)).collect();
        used.push((sb.log_start, sb.log_len));
        used.push((self.nodes, nodes));
        used.extend(self.deferred.iter().map(|a| (*a, 1)));
        used.extend(self.dead.iter().map(|(a, n)| (*a, u64::from(*n))));
        let mut by_ag = vec![Vec::new(); sb.ag_count as usize];
        for (start, len) in used {
            let mut at = start;
            while at < start + len {
                let n = (sb.ag_blocks - at % sb.ag_blocks).min(start + len - at);
                by_ag[(at / sb.ag_blocks) as usize].push((at % sb.ag_blocks, n));
                at += n;
            }
        }
        let mut ags = Items::new();
        for (i, used) in by_ag.iter().enumerate() {
            let len = sb.ag_len(i as u32);
            let (v, free) = self.ag_record(i as u64, len, used, &write, &mut sink);
            sb.free += free;
            ags.push((i as u64, v));
        }
        (self.ags)(&mut ags);
        sb.ag_root = write(TreeId::new(TreeKind::Ag, 0), &ags, &mut sink);
        (self.sb)(&mut sb);
        for generation in [1, 2] {
            sb.generation = generation;
            sb.write(&disk.device()).unwrap();
        }
        sink.next - self.nodes
    }

    /// The record of AG `ag`, in which these blocks are used, and how many are not.
    fn ag_record<'a>(
        &self,
        ag: u64,
        len: u64,
        used: &[(u64, u64)],
        write: &impl Fn(TreeId, &Items, &mut Sink<'a>) -> Option<NodePtr>,
        sink: &mut Sink<'a>,
    ) -> (Vec<u8>, u64) {
        let mut rec = AgRecord::unused(len, 1);
        let (mut items, mut free, mut longest) = (Items::new(), 0, 0);
        let mut full = None;
        let groups = if used.is_empty() {
            0
        } else {
            len.div_ceil(GROUP_BLOCKS)
        };
        for g in 0..groups {
            let cap = group_len(len, g);
            let mut bits = Bits::zeroed().unwrap();
            for (at, n) in used {
                let from = (*at).max(g * GROUP_BLOCKS);
                let to = (at + n).min((g + 1) * GROUP_BLOCKS);
                if from < to {
                    bits.set((from - g * GROUP_BLOCKS) as u32, (to - from) as u32);
                }
            }
            free += u64::from(cap - bits.count_range(0, cap));
            longest = longest.max(bits.find_clear(0, cap, cap).map_or(0, |r| r.1));
            let mut v = KVec::new();
            match (encode(&bits, cap, &mut v).unwrap(), &mut full) {
                (Form::Full, Some((_, n))) => *n += 1,
                (Form::Full, none) => *none = Some((g, 1)),
                (form, _) => {
                    items.extend(full.take().map(|(g, n)| (g, full_record(n).to_vec())));
                    if form == Form::Own {
                        items.push((g, v.to_vec()));
                    }
                }
            }
        }
        items.extend(full.take().map(|(g, n)| (g, full_record(n).to_vec())));
        let image;
        if groups > 0 {
            (self.groups)(ag, &mut items);
            (rec.free, rec.longest) = (free as u32, run_class(longest.into()));
            rec.flags = 0;
            let id = TreeId::new(TreeKind::Groups, ag);
            let mut tree = Tree::empty(id);
            let st = NodeStore::new(Shared::new(sink.disk.device()).unwrap(), NODE_ID, 64).unwrap();
            for (key, v) in &items {
                tree.insert(&st, *key, v).unwrap();
            }
            image = tree.inline_image(inline_groups_max(0)).unwrap();
            rec.groups = match &image {
                Some(items) => RootForm::Inline(items),
                None => RootForm::Ptr(write(id, &items, sink).unwrap()),
            };
        } else {
            free = len;
        }
        (self.ag)(ag, &mut rec);
        let mut v = KVec::new();
        rec.encode(&mut v).unwrap();
        (v.to_vec(), free)
    }
}

fn root_directory() -> Vec<u8> {
    let rec = InodeRecord {
        attrs: Attrs {
            mode: S_IFDIR | 0o755,
            nlink: 2,
            handle_generation: 1,
            ..Attrs::default()
        },
        blocks: 0,
        state: 0,
        cut: 0,
        parent: 2,
        generation: 1,
        extents: RootForm::Empty,
        dir: RootForm::Empty,
        xattr: RootForm::Empty,
        data: &[],
        crypt: &[],
        verity: &[],
        ignorable: &[],
    };
    let mut v = KVec::new();
    rec.encode(&mut v).unwrap();
    v.to_vec()
}

fn complaints(disk: &MemDisk) -> Vec<String> {
    kernel::print::set_level(kernel::print::SILENT);
    let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options::default())
        .unwrap_or_else(|e| panic!("{}", e.reason));
    report.problems.iter().map(|p| p.to_string()).collect()
}

/// The complaints about what is made must have these words, one line each.
fn expect(make: &Make, want: &[&str]) {
    let all = complaints(&make.on_disk());
    assert_eq!(all.len(), want.len(), "{all:#?}");
    for (line, words) in all.iter().zip(want) {
        assert!(line.contains(words), "{words:?} is not in {all:#?}");
    }
}

/// The filesystem of most tests: groups of every form.
fn of_all_forms() -> Make {
    let mut make = Make::new(100_000);
    make.nodes = 20_000;
    // AG 1 begins at block 32768, AG 2 at 65536, AG 3, which is short, at 98304.
    make.deferred.extend((0..200).map(|i| 33_000 + 3 * i));
    make.deferred.extend((0..8192).map(|i| 65_536 + i));
    make.deferred.extend((0..8192).map(|i| 65_536 + 8192 + i));
    make.deferred
        .extend((0..100).map(|i| 65_536 + 3 * 8192 + 2 * i));
    make.deferred.extend(98_304..98_310);
    make
}

#[test]
fn sizes_and_forms_without_a_complaint() {
    for blocks in [
        4096,
        5000,
        1 << 15,
        (1 << 15) + 1,
        1 << 22,
        (1 << 22) + 77_777,
        1 << 28,
    ] {
        let mut make = Make::new(blocks);
        make.nodes = match blocks {
            ..=32_767 => 2500,
            ..=4_194_303 => 20_000,
            _ => 40_000,
        };
        expect(&make, &[]);
    }
    expect(&of_all_forms(), &[]);
}

#[test]
fn a_hundred_tebibytes_are_checked_at_once() {
    let mut make = Make::new(25 << 30);
    make.nodes = 40_000;
    let disk = make.on_disk();
    let begin = Instant::now();
    assert_eq!(complaints(&disk), [""; 0]);
    let took = begin.elapsed();
    println!("{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn wrong_numbers() {
    let mut make = of_all_forms();
    make.ag = |ag, rec| rec.free -= u32::from(ag == 1);
    expect(&make, &["allocation group 1: free count is"]);
    let mut make = of_all_forms();
    make.ag = |ag, rec| rec.longest -= u8::from(ag == 2);
    expect(
        &make,
        &["allocation group 2: no free run is above class 13"],
    );
    // Too high is allowed.
    let mut make = Make::new(4096);
    make.nodes = 2500;
    make.ag = |_, rec| rec.longest = run_class(rec.free.into());
    expect(&make, &[]);
    let mut make = of_all_forms();
    make.ag = |ag, rec| rec.generation += 2 * u64::from(ag == 1);
    expect(&make, &["allocation group 1: generation 3 is newer"]);
    let mut make = of_all_forms();
    make.sb = |sb| sb.free += 1;
    expect(&make, &["free blocks, there are"]);
    // A used AG is not a free one.
    let mut make = of_all_forms();
    make.ag = |ag, rec| rec.flags = if ag == 1 { NEVER_USED } else { 0 };
    let all = complaints(&make.on_disk());
    assert!(
        all[0].contains("allocation group 1: blocks are in use, but"),
        "{all:#?}"
    );
    // Flags that are no problem.
    let mut make = of_all_forms();
    make.ag = |ag, rec| rec.flags |= if ag == 1 { NOT_TRUSTED } else { 0 };
    expect(&make, &[]);
}

#[test]
fn blocks_that_are_lost_or_marked_free() {
    // The deferred tree does not have what the groups mark.
    let mut make = of_all_forms();
    make.sb = |sb| sb.deferred_root = None;
    let all = complaints(&make.on_disk());
    assert!(all
        .iter()
        .any(|l| l.contains("33000..33001: are marked used but nothing")));
    // It has something twice.
    let mut make = of_all_forms();
    make.deferred.insert(0, 300);
    expect(
        &make,
        &["block 300: used by the deferred tree and by the log"],
    );
    // A group without its record is free.
    let mut make = of_all_forms();
    make.groups = |ag, items| items.retain(|(g, _)| ag != 2 || *g != 3);
    let all = complaints(&make.on_disk());
    assert!(
        all[0].contains("allocation group 2: free count is"),
        "{all:#?}"
    );
    assert!(all
        .iter()
        .any(|l| l.contains("belong to the deferred tree but are marked free")));
}

#[test]
fn records_of_groups_that_cannot_be() {
    let with = |groups| {
        let mut make = of_all_forms();
        make.groups = groups;
        complaints(&make.on_disk())
    };
    let all = with(|ag, items| {
        if ag == 2 {
            // Full neighbours apart.
            items[0].1 = full_record(1).to_vec();
            items.insert(1, (1, full_record(1).to_vec()));
        }
    });
    assert!(
        all[0].contains("allocation group 2, group 1: full neighbours"),
        "{all:#?}"
    );
    let all = with(|ag, items| {
        if ag == 2 {
            items[0].1 = full_record(4).to_vec();
        }
    });
    assert!(
        all[0].contains("allocation group 2, group 3: it is in the record before"),
        "{all:#?}"
    );
    let all = with(|ag, items| {
        if ag == 1 {
            items[0].1[2] ^= 1;
        }
    });
    assert!(
        all[0].contains("group 0: the number of free blocks is wrong"),
        "{all:#?}"
    );
    let all = with(|ag, items| {
        if ag == 1 {
            items.push((4, full_record(1).to_vec()));
        }
    });
    assert!(
        all[0].contains("allocation group 1, group 4: there is no such group"),
        "{all:#?}"
    );
}

#[test]
fn records_of_ags_that_are_missing_or_too_many() {
    let mut make = of_all_forms();
    make.ags = Box::new(|ags| drop(ags.remove(2)));
    let all = complaints(&make.on_disk());
    assert!(
        all[0].contains("allocation groups 2..3: have no record"),
        "{all:#?}"
    );
    let mut make = of_all_forms();
    make.ags = Box::new(|ags| drop(ags.pop()));
    let all = complaints(&make.on_disk());
    assert!(
        all[0].contains("allocation groups 3..4: have no record"),
        "{all:#?}"
    );
    let mut make = of_all_forms();
    make.ags = Box::new(|ags| ags.push((4, ags[3].1.clone())));
    expect(
        &make,
        &["allocation group 4: it has a record, but does not exist"],
    );
    let mut make = of_all_forms();
    make.ags = Box::new(|ags| ags.push((u64::MAX, vec![1])));
    expect(&make, &["it has a record, but does not exist"]);
    let mut make = of_all_forms();
    make.ags = Box::new(|ags| ags[1].1.truncate(20));
    let all = complaints(&make.on_disk());
    assert!(
        all[0].contains("allocation group 1: the record is cut off"),
        "{all:#?}"
    );
}

/// A damaged leaf of the AG tree is one complaint about the tree, and one about the AGs in it.
#[test]
fn a_damaged_leaf_of_the_ag_tree() {
    let mut make = Make::new(1 << 28);
    make.nodes = 40_000;
    let disk = make.on_disk();
    // The inode leaf, ..., then the leaves of the AG tree in order; the last node is its root.
    let image = disk.image();
    let leaf = image
        .iter()
        .filter(|(_, d)| d.starts_with(b"ORDN") && d[40..42] == [6, 0])
        .map(|(b, _)| *b)
        .max()
        .unwrap();
    disk.corrupt(leaf, 2000, 1);
    let all = complaints(&disk);
    assert!(all[0].contains("AG tree of 0, node at block"), "{all:#?}");
    assert!(all[1].contains("..1024: have no record"), "{all:#?}");
}

const SNAPSHOT: SnapshotRecord<'static> = SnapshotRecord {
    generation: 1,
    time: Time { sec: 1, nsec: 2 },
    flags: 0,
    used: 10,
    inodes: 1,
    next_ino: 3,
    void: 0,
    back_to: 0,
    inode_root: Some(NodePtr {
        addr: 30_000,
        addr2: 0,
        generation: 1,
        crc: 0,
        level: 0,
    }),
    orphan_root: None,
    quota_root: None,
    cursor: 0,
    name: b"first",
};

fn snapshot(rec: &SnapshotRecord<'_>) -> Vec<u8> {
    let mut v = KVec::new();
    rec.encode(&mut v).unwrap();
    v.to_vec()
}

fn dead_record(death: u32, oldest: u32, runs: &[(u64, u32)]) -> (u64, Vec<u8>) {
    let mut v = KVec::new();
    dead::encode(runs, &mut v).unwrap();
    let key = DeadKey {
        death,
        oldest,
        sequence: 0,
    };
    (key.to_u64(), v.to_vec())
}

/// Two snapshots, a bookmark and what a rollback abandoned, blocks that only snapshots have, and
/// quotas, in epoch 9.
fn with_snapshots() -> Make {
    let mut make = of_all_forms();
    make.sb = |sb| sb.epoch = 9;
    let second = SnapshotRecord {
        name: b"second",
        void: 6,
        ..SNAPSHOT
    };
    let mark = SnapshotRecord {
        name: b"mark",
        flags: BOOKMARK,
        inode_root: None,
        ..SNAPSHOT
    };
    let abandoned = SnapshotRecord {
        name: b"abandoned",
        flags: ABANDONED,
        back_to: 4,
        cursor: 7,
        ..SNAPSHOT
    };
    let runs = [(40_000, 7), (66_000 + 3 * 8192, 9)];
    make.dead.extend(runs);
    make.later = [
        vec![
            (2, snapshot(&SNAPSHOT)),
            (4, snapshot(&second)),
            (5, snapshot(&mark)),
            (6, snapshot(&abandoned)),
        ],
        vec![
            dead_record(3, 2, &runs[..1]),
            dead_record(9, 4, &runs[1..]),
        ],
        vec![
            (
                QuotaKey::Owner { kind: 0, id: 5 }.to_u64(),
                QuotaRecord::Owner {
                    blocks: Account::default(),
                    inodes: Account::default(),
                }
                .to_bytes()
                .to_vec(),
            ),
            (
                QuotaKey::Settings { kind: 0 }.to_u64(),
                QuotaRecord::Settings {
                    flags: 1,
                    block_grace: 1,
                    inode_grace: 1,
                }
                .to_bytes()
                .to_vec(),
            ),
        ],
    ];
    make
}

const NOT_YET: &str = "superblock: it has snapshots, which this version does not support";

/// Right records lead to one complaint: that the engine cannot mount them.
#[test]
fn trees_of_later_versions() {
    expect(&with_snapshots(), &[NOT_YET]);
    let mut make = of_all_forms();
    make.sb = |sb| sb.state |= STATE_REPAIR;
    expect(&make, &[]);
    let mut make = of_all_forms();
    make.later[2] = with_snapshots().later[2].clone();
    expect(&make, &["superblock: it has quotas, which this version"]);
}

#[test]
fn records_of_later_versions_that_cannot_be() {
    let with = |change: &dyn Fn(&mut Make), want: &str| {
        let mut make = with_snapshots();
        change(&mut make);
        expect(&make, &[NOT_YET, want]);
    };
    with(
        &|m| m.later[0][0].1[20] = 3,
        "snapshot of epoch 2: unknown flags",
    );
    with(&|m| m.later[0][1].1[0] = 3, "epoch 4: generation 3 is newer");
    with(&|m| m.later[0][1].1[48] = 10, "epoch 4: an epoch that is not before");
    with(&|m| m.later[0][2].0 = 9, "epoch 9: an epoch that is not before");
    with(&|m| m.later[0][3].1[52] = 3, "epoch 6: there is no snapshot of epoch 3");
    with(
        &|m| {
            let name = m.later[0][0].1.split_off(168);
            m.later[0][3].1.truncate(168);
            m.later[0][0].1.extend(&name);
            m.later[0][3].1.extend(name);
        },
        "epoch 6: its name exists twice",
    );
    with(&|m| m.later[1][0].1[4] = 2, "impossible number of runs");
    with(
        &|m| m.later[1][1].0 = dead_record(10, 4, &[(1, 1)]).0,
        "an epoch to come",
    );
    with(
        &|m| m.later[1][1].0 = dead_record(9, 5, &[(1, 1)]).0,
        "no snapshot has its blocks",
    );
    with(
        &|m| {
            let run = [(300, 9)];
            m.later[1].push(dead_record(8, 4, &run));
            m.dead.extend(run);
        },
        "block 300: used by the dead tree and by the log",
    );
    with(&|m| m.later[2][1].1[64] = 2, "quota 0x300000000: unknown flags");
    // The blocks of a death that a rollback made void are alive again.
    let mut make = with_snapshots();
    let run = [(300, 9)];
    make.later[1].push(dead_record(6, 4, &run));
    make.dead.extend(run);
    expect(&make, &[NOT_YET]);
    let mut make = with_snapshots();
    make.sb = |sb| (sb.epoch, sb.dead_blocks) = (9, 17);
    expect(
        &make,
        &[NOT_YET, "counts 17 blocks in the dead tree, there are 16"],
    );
}

/// An inline tree of shared blocks: first block, blocks, extra references.
fn shared_image(items: &[(u64, u32, u32)]) -> Vec<u8> {
    let mut v = (items.len() as u16).to_le_bytes().to_vec();
    for (key, blocks, extra) in items {
        v.extend(key.to_le_bytes());
        v.extend(8u16.to_le_bytes());
        v.extend(blocks.to_le_bytes());
        v.extend(extra.to_le_bytes());
    }
    v
}

#[test]
fn shared_blocks() {
    let with = |items: &[(u64, u32, u32)], want: &[&str]| {
        let mut make = of_all_forms();
        // AG 2 begins with two full groups.
        let image = shared_image(items);
        make.ags = Box::new(move |ags| {
            let v = &mut ags[2].1;
            v.extend([2, 1]);
            v.extend((image.len() as u16).to_le_bytes());
            v.extend(&image);
        });
        let all = complaints(&make.on_disk());
        assert_eq!(all.len(), 1 + want.len(), "{all:#?}");
        assert!(all[0].contains("allocation group 2: it has shared blocks, which"));
        for (line, words) in all[1..].iter().zip(want) {
            assert!(line.contains(words), "{words:?} is not in {all:#?}");
        }
    };
    with(&[(100, 4, 1), (104, 1, 2), (106, 16_278, 1)], &[]);
    with(&[(100, 4, 1), (103, 1, 2)], &["from 103 on: it overlaps"]);
    with(&[(100, 4, 1), (104, 1, 1)], &["from 104 on: neighbours"]);
    with(&[(100, 0, 1)], &["impossible number of blocks"]);
    with(&[(32_767, 2, 1)], &["impossible number of blocks"]);
    with(&[(100, 1, 0)], &["no extra reference"]);
    with(&[(16_000, 385, 1)], &["from 16000 on: some are free"]);
}
