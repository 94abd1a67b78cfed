// SPDX-License-Identifier: GPL-2.0

//! A consistency check that knows the format only: every block has exactly one owner, and the
//! bitmaps, counts, links and orphans agree with what is found.

use super::blocks::seed_of;
use kernel::prelude::KBox;
use ordofs_engine::engine::btree::NodeStore;
use ordofs_engine::engine::btree::{Tree, TreeId, TreeKind, WalkItem};
use ordofs_engine::engine::format::ag::{run_class, AgRecord};
use ordofs_engine::engine::format::bits::Bits;
use ordofs_engine::engine::format::extent::{Extent, HEADER};
use ordofs_engine::engine::format::group::{group_len, GroupRecord, Order};
use ordofs_engine::engine::format::inode::{InodeRecord, RootForm, STATE_TRUNCATE};
use ordofs_engine::engine::format::{Superblock, GROUP_BLOCKS};
use ordofs_engine::engine::ops::dir;
use ordofs_engine::engine::volume::mount::{read_superblock, tree_of, INODE_TREE, ORPHAN_TREE};
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{crc32c, Block, Shared};
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

/// A file or directory that the walker found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub size: u64,
    pub nlink: u32,
    pub mode: u32,
    /// The next mount has something to free.
    pub orphan: bool,
    /// Seeds of the written blocks.
    pub blocks: BTreeMap<u64, u64>,
    /// Names and inode numbers.
    pub names: BTreeMap<Vec<u8>, u64>,
}

struct Walker<'a> {
    disk: &'a MemDisk,
    sb: KBox<Superblock>,
    store: NodeStore,
    owner: BTreeMap<u64, String>,
    found: BTreeMap<u64, Found>,
    /// How many links each inode must have, by the names.
    linked: BTreeMap<u64, u32>,
    must_be_orphans: BTreeSet<u64>,
}

fn open(kind: TreeKind, owner: u64, root: &RootForm<'_>) -> Tree {
    let id = TreeId { kind, owner };
    match root {
        RootForm::Empty => Tree::empty(id),
        RootForm::Inline(i) => Tree::from_inline(id, i).unwrap(),
        RootForm::Ptr(p) => Tree::from_ptr(id, *p),
    }
}

impl Walker<'_> {
    fn claim(&mut self, at: u64, who: &str) {
        if let Some(other) = self.owner.insert(at, who.into()) {
            panic!("block {at} is used twice: by {other} and by {who}");
        }
    }

    fn items(&mut self, tree: &Tree, who: &str) -> Vec<(u64, Vec<u8>)> {
        let mut items = Vec::new();
        let mut nodes = Vec::new();
        tree.walk(&self.store, &mut |w| {
            match w {
                WalkItem::Node(n) => {
                    nodes.extend([n.addr, n.addr2].into_iter().filter(|a| *a != 0))
                }
                WalkItem::Item(k, v) => items.push((k, v.to_vec())),
                WalkItem::Bad(_) => unreachable!(),
            }
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{who}: {e:?}"));
        nodes.into_iter().for_each(|a| self.claim(a, who));
        items
    }

    fn inode(&mut self, ino: u64, v: &[u8]) {
        assert!(ino < self.sb.next_ino);
        let rec = InodeRecord::decode(ino, v).unwrap();
        let mut f = Found {
            size: rec.attrs.size,
            nlink: rec.attrs.nlink,
            mode: rec.attrs.mode,
            ..Default::default()
        };
        if rec.attrs.nlink == 0 || rec.state & STATE_TRUNCATE != 0 {
            self.must_be_orphans.insert(ino);
            f.orphan = true;
        }
        let who = format!("inode {ino}");
        self.extents(ino, &rec, &who, &mut f);
        let dir = open(TreeKind::Dir, ino, &rec.dir);
        for (_, v) in self.items(&dir, &format!("{who} dir tree")) {
            if rec.attrs.mode & S_IFMT == S_IFDIR {
                self.name(ino, &v, &mut f);
            }
        }
        let xattr = open(TreeKind::Xattr, ino, &rec.xattr);
        self.items(&xattr, &format!("{who} xattr tree"));
        self.found.insert(ino, f);
    }

    fn extents(&mut self, ino: u64, rec: &InodeRecord<'_>, who: &str, f: &mut Found) {
        let (mut end, mut sum) = (0, 0);
        let tree = open(TreeKind::Extent, ino, &rec.extents);
        for (k, v) in self.items(&tree, &format!("{who} extent tree")) {
            let e = Extent::decode(k, &v, self.sb.blocks).unwrap();
            assert!(e.start >= end, "{who}: extents overlap at {k}");
            let ag = self.sb.ag_blocks;
            assert_eq!(e.phys / ag, (e.phys + e.len - 1) / ag);
            end = e.end();
            sum += e.len;
            for i in 0..e.len {
                let place = format!("{who} block {}", e.start + i);
                self.claim(e.phys + i, &place);
                if e.unwritten {
                    continue;
                }
                let mut b = Block::zeroed().unwrap();
                self.disk.device().read(e.phys + i, &mut b).unwrap();
                let at = HEADER + 4 * i as usize;
                let want = u32::from_le_bytes(v[at..at + 4].try_into().unwrap());
                assert_eq!(crc32c(0, &b[..]), want, "{place}: checksum");
                let seed = seed_of(&b).expect("not a block of ours");
                f.blocks.insert(e.start + i, seed);
            }
        }
        assert_eq!(sum, rec.blocks, "{who}: count of blocks");
    }

    fn name(&mut self, dir: u64, v: &[u8], f: &mut Found) {
        let e = dir::decode(dir, v).unwrap();
        if e.kind == mode_to_kind(S_IFDIR) {
            *self.linked.entry(dir).or_default() += 1;
            *self.linked.entry(e.ino).or_default() += 2;
        } else {
            *self.linked.entry(e.ino).or_default() += 1;
        }
        let old = f.names.insert(e.name.to_vec(), e.ino);
        assert!(old.is_none(), "inode {dir}: a name twice");
    }

    fn check_links(&mut self) {
        assert_eq!(self.found.len() as u64, self.sb.inodes, "count of inodes");
        for (ino, f) in &self.found {
            let names = self.linked.remove(ino).unwrap_or(0);
            assert_eq!(f.nlink, names, "inode {ino}: link count");
        }
        let rest = &self.linked;
        assert!(
            rest.is_empty(),
            "names of inodes that do not exist: {rest:?}"
        );
        let orphans = tree_of(ORPHAN_TREE, self.sb.orphan_root);
        let orphans = self.items(&orphans, "orphan tree");
        let orphans: BTreeSet<u64> = orphans.iter().map(|o| o.0).collect();
        assert_eq!(orphans, self.must_be_orphans, "orphans");
    }

    /// Adds the used blocks of an AG. Returns how many are free.
    fn ag(&mut self, ag: u32, v: &[u8], used: &mut BTreeSet<u64>) -> u64 {
        let (start, len) = (self.sb.ag_start(ag), self.sb.ag_len(ag));
        let rec = AgRecord::parse(len, v).unwrap_or_else(|f| panic!("ag {ag}: {f}"));
        let tree = open(TreeKind::Groups, ag.into(), &rec.groups);
        let (mut order, mut free) = (Order::default(), 0);
        let (mut longest, mut next) = (0, 0);
        for (g, v) in self.items(&tree, &format!("groups of ag {ag}")) {
            let place = format!("group {g} of ag {ag}");
            let rec = GroupRecord::parse(len, g, &v).unwrap_or_else(|e| panic!("{place}: {e}"));
            order
                .check(g, &rec)
                .unwrap_or_else(|e| panic!("{place}: {e}"));
            // Groups without a record are free.
            let unused = (next..g).map(|g| group_len(len, g)).collect::<Vec<_>>();
            free += unused.iter().map(|n| u64::from(*n)).sum::<u64>();
            longest = longest.max(unused.into_iter().max().unwrap_or(0));
            next = g + u64::from(rec.groups());
            for g in g..next {
                let cap = group_len(len, g);
                let mut bits = Bits::zeroed().unwrap();
                rec.load(cap, &mut bits);
                for i in (0..cap).filter(|i| bits.count_range(*i, 1) == 1) {
                    used.insert(start + g * GROUP_BLOCKS + u64::from(i));
                }
                free += u64::from(cap - bits.count_range(0, cap));
                longest = longest.max(bits.find_clear(0, cap, cap).map_or(0, |r| r.1));
            }
        }
        let rest = (next..len.div_ceil(GROUP_BLOCKS)).map(|g| group_len(len, g));
        for n in rest {
            free += u64::from(n);
            longest = longest.max(n);
        }
        assert_eq!(u64::from(rec.free), free, "free blocks of ag {ag}");
        assert!(
            rec.longest >= run_class(longest.into()),
            "longest run of ag {ag}"
        );
        free
    }

    fn check_space(&mut self) {
        let deferred = tree_of(TreeId::new(TreeKind::Deferred, 0), self.sb.deferred_root);
        for (addr, v) in self.items(&deferred, "deferred tree") {
            assert_eq!(v, [1]);
            self.claim(addr, "deferred");
        }
        let ags = tree_of(TreeId::new(TreeKind::Ag, 0), self.sb.ag_root);
        let ags = self.items(&ags, "ag tree");
        let all = (0..u64::from(self.sb.ag_count)).collect::<Vec<_>>();
        assert_eq!(ags.iter().map(|(k, _)| *k).collect::<Vec<_>>(), all);
        // The nodes of the trees themselves have owners before any bitmap is judged.
        let (mut used, mut free) = (BTreeSet::new(), 0);
        for (ag, v) in ags {
            free += self.ag(ag as u32, &v, &mut used);
        }
        for b in &used {
            assert!(self.owner.contains_key(b), "block {b} is leaked");
        }
        for (b, who) in &self.owner {
            assert!(used.contains(b), "block {b} of {who} is free on disk");
        }
        assert_eq!(free, self.sb.free, "count of free blocks");
    }
}

/// Checks everything that is on the device: every block has exactly one owner and the bitmaps say so,
/// free counts, link counts, orphans, and the checksum of every written block.
pub fn fsck(disk: &MemDisk) -> BTreeMap<u64, Found> {
    let sb = read_superblock(&disk.device()).unwrap_or_else(|e| panic!("superblock: {}", e.reason));
    let device = Shared::new(disk.device()).unwrap();
    let mut w = Walker {
        disk,
        store: NodeStore::new(device, sb.node_id, 1024).unwrap(),
        owner: BTreeMap::new(),
        found: BTreeMap::new(),
        linked: BTreeMap::from([(sb.root_ino, 2)]),
        must_be_orphans: BTreeSet::new(),
        sb,
    };
    let areas: Vec<_> = w.sb.fixed_areas().collect();
    for (start, len) in areas {
        for b in start..start + len {
            w.claim(b, "superblocks or log");
        }
    }
    let inodes = tree_of(INODE_TREE, w.sb.inode_root);
    for (ino, v) in w.items(&inodes, "inode tree") {
        w.inode(ino, &v);
    }
    w.check_links();
    w.check_space();
    w.found
}
