// SPDX-License-Identifier: GPL-2.0

//! Filesystems made record by record, and not by the engine's allocator, so that both can be wrong
//! only in different ways.
#![allow(dead_code)]

use kernel::prelude::{KVec, Result};
use ordofs_engine::engine::btree::{NodeSink, NodeStore, Places, Tree, TreeId, TreeKind};
use ordofs_engine::engine::format::ag::{inline_groups_max, run_class, AgRecord, RootForm};
use ordofs_engine::engine::format::bits::Bits;
use ordofs_engine::engine::format::group::{encode, full_record, group_len, Form};
use ordofs_engine::engine::format::inode::InodeRecord;
use ordofs_engine::engine::format::places::{areas, log_place, AREA_BLOCKS};
use ordofs_engine::engine::format::superblock::{ag_geometry, SPARE_ROOTS};
use ordofs_engine::engine::format::{Superblock, GROUP_BLOCKS};
use ordofs_engine::engine::{Attrs, S_IFDIR};
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Block, Shared, Time};

pub const NODE_ID: u64 = 0x1234_5678;

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
    fn alloc(&mut self) -> Result<Places> {
        self.next += 1;
        Ok(Places::one(self.next - 1))
    }
    fn write(&mut self, places: Places, image: Block) -> Result {
        self.disk.device().write(&[(places.first, &image)])
    }
}

pub type Items = Vec<(u64, Vec<u8>)>;

/// A filesystem that has an empty root directory, and what is asked for.
pub struct Make {
    pub blocks: u64,
    /// The first block of the nodes.
    pub nodes: u64,
    /// Entries of the deferred tree.
    pub deferred: Vec<u64>,
    /// Records of the snapshot, the dead and the quota tree.
    pub later: [Items; 3],
    /// The runs of blocks that the dead tree has.
    pub dead: Vec<(u64, u32)>,
    /// A section that the record of an AG has at its end.
    pub section: Option<(usize, Vec<u8>)>,
    /// Changes the group records of an AG, ...
    pub groups: fn(u64, &mut Items),
    /// ... the record of an AG before it is encoded, ...
    pub ag: fn(u64, &mut AgRecord<'_>),
    /// ... all AG records, ...
    pub ags: fn(&mut Items),
    /// ... and the superblock.
    pub sb: fn(&mut Superblock),
}

impl Make {
    pub fn new(blocks: u64) -> Self {
        Self {
            blocks,
            nodes: 1000,
            deferred: Vec::new(),
            later: [const { Items::new() }; 3],
            dead: Vec::new(),
            section: None,
            groups: |_, _| (),
            ag: |_, _| (),
            ags: |_| (),
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
            copies: 1,
            blocks: self.blocks,
            ag_count,
            ag_blocks,
            state: 1,
            log_start,
            log_len,
            log_pos: 0,
            log_seq: 1,
            log2_start: 0,
            next_ino: 3,
            root_ino: 2,
            inodes: 1,
            free: 0,
            free_slots: 0,
            dead_blocks: 0,
            epoch: 1,
            node_goal: 0,
            data_goal: 0,
            casefold: 0,
            created: Time::default(),
            mounted: Time::default(),
            mounts: 0,
            committed: Time::default(),
            inode_root: None,
            orphan_root: None,
            ag_root: None,
            deferred_root: None,
            snapshot_root: None,
            dead_root: None,
            quota_root: None,
            spare_roots: [None; SPARE_ROOTS],
        }
    }

    /// Makes it. The AG tree must say where its own nodes are, so it is made again until their number
    /// is the one that it says.
    pub fn on_disk(&self) -> MemDisk {
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
        if let Some((ag, section)) = &self.section {
            ags[*ag].1.extend(section);
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
        write: &impl Fn(TreeId, &Items, &mut Sink<'a>) -> Option<ordofs_engine::engine::format::NodePtr>,
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

pub fn complaints(disk: &MemDisk) -> Vec<String> {
    kernel::print::set_level(kernel::print::SILENT);
    let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options::default())
        .unwrap_or_else(|e| panic!("{}", e.reason));
    report.problems.iter().map(|p| p.to_string()).collect()
}

/// The complaints about what is made must have these words, one line each.
pub fn expect(make: &Make, want: &[&str]) {
    let all = complaints(&make.on_disk());
    assert_eq!(all.len(), want.len(), "{all:#?}");
    for (line, words) in all.iter().zip(want) {
        assert!(line.contains(words), "{words:?} is not in {all:#?}");
    }
}

/// The filesystem of most tests: groups of every form.
pub fn of_all_forms() -> Make {
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
