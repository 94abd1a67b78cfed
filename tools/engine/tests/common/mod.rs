// SPDX-License-Identifier: GPL-2.0

//! What the tests share: a filesystem on a device in memory, writes as the glue does them, and a
//! consistency walker that compares the allocation trees with every reference there is.
#![allow(dead_code)]

pub mod hooked;

use kernel::prelude::Result;
use ordofs_engine::engine::alloc::ag::{Ag, SUMMARY_GROUPS, SUMMARY_KEY};
use ordofs_engine::engine::btree::NodeStore;
use ordofs_engine::engine::btree::{Tree, TreeId, TreeKind, WalkItem};
use ordofs_engine::engine::format::extent::{Extent, HEADER};
use ordofs_engine::engine::format::inode::{InodeRecord, RootForm, STATE_TRUNCATE};
use ordofs_engine::engine::format::{GROUP_BLOCKS, RESERVED_BLOCKS};
use ordofs_engine::engine::ops::dir;
use ordofs_engine::engine::volume::mkfs::{format, FormatOptions};
use ordofs_engine::engine::volume::mount::{read_superblock, tree_of, INODE_TREE, ORPHAN_TREE};
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{crc32c, Block, Device, Shared};
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

pub fn format_on(dev: Device) {
    let o = FormatOptions {
        uuid: [7; 16],
        label: [0; 64],
        blocks: 0,
        root_owner: (0, 0),
    };
    format(dev, &o).unwrap_or_else(|e| panic!("format: {}", e.reason));
}

pub fn make(blocks: u64) -> MemDisk {
    let disk = MemDisk::new(blocks);
    format_on(disk.device());
    disk
}

pub fn mount_on(dev: Device) -> Shared<Fs> {
    Fs::mount(dev, MountOptions::default()).unwrap_or_else(|e| panic!("mount: {}", e.reason))
}

pub fn mount(disk: &MemDisk) -> Shared<Fs> {
    mount_on(disk.device())
}

pub fn file(mode: u32) -> NewInode<'static> {
    NewInode {
        mode,
        uid: 1,
        gid: 2,
        ..Default::default()
    }
}

pub fn regular() -> NewInode<'static> {
    file(S_IFREG | 0o644)
}

/// A block that says what it is.
pub fn data(seed: u64) -> Block {
    try_data(seed).unwrap()
}

/// As [`data`], for when allocations are made to fail.
pub fn try_data(seed: u64) -> Result<Block> {
    let mut b = Block::zeroed()?;
    for (i, c) in b.chunks_exact_mut(8).enumerate() {
        let v = if i == 0 {
            seed
        } else {
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i as u64
        };
        c.copy_from_slice(&v.to_le_bytes());
    }
    Ok(b)
}

/// The seed of a block that [`data`] made; `None` when it is not one.
pub fn seed_of(b: &Block) -> Option<u64> {
    let seed = u64::from_le_bytes(b[..8].try_into().unwrap());
    (b[..] == data(seed)[..]).then_some(seed)
}

/// Reserves the range, as a buffered write does.
pub fn dirty(fs: &Fs, inode: &Shared<Inode>, start: u64, len: u64) -> Result {
    let mut at = start;
    while at < start + len {
        at += fs.map_write(inode, at, start + len - at)?.map.len;
    }
    Ok(())
}

/// A buffered write of whole blocks, as writeback would do it.
pub fn write(dev: &Device, fs: &Fs, inode: &Shared<Inode>, start: u64, seeds: &[u64]) -> Result {
    dirty(fs, inode, start, seeds.len() as u64)?;
    flush(dev, fs, inode, start, seeds, false)
}

/// Writeback or a direct write.
pub fn flush(
    dev: &Device,
    fs: &Fs,
    inode: &Shared<Inode>,
    start: u64,
    seeds: &[u64],
    direct: bool,
) -> Result {
    let blocks: Vec<Block> = seeds.iter().map(|s| try_data(*s)).collect::<Result<_>>()?;
    let crcs: Vec<u32> = blocks.iter().map(|b| crc32c(0, &b[..])).collect();
    let mut i = 0;
    while i < seeds.len() {
        let s = fs.start_write(inode, start + i as u64, &crcs[i..], direct)?;
        let io = (0..s.len).try_for_each(|k| dev.write(&[(s.phys + k, &blocks[i + k as usize])]));
        i += s.len as usize;
        fs.finish_write(s.ordered, block_to_bytes(start + i as u64), io)?;
    }
    Ok(())
}

/// Maps blocks with these checksums, as a write does, but writes no data.
pub fn map_only(fs: &Fs, f: &Shared<Inode>, start: u64, csums: &[u32]) {
    dirty(fs, f, start, csums.len() as u64).unwrap();
    let mut i = 0;
    while i < csums.len() {
        let s = fs
            .start_write(f, start + i as u64, &csums[i..], false)
            .unwrap();
        i += s.len as usize;
        fs.finish_write(s.ordered, block_to_bytes(start + i as u64), Ok(()))
            .unwrap();
    }
}

/// Reads a block as the glue does: until its checksum has been judged. `None` is a hole.
pub fn read(dev: &Device, fs: &Fs, inode: &Inode, block: u64) -> Result<Option<u64>> {
    for _ in 0..1000 {
        let m = fs.map_read(inode, block, 1)?;
        assert_eq!(m.start, block);
        if m.kind != MapKind::Written {
            return Ok(None);
        }
        let mut b = Block::zeroed().unwrap();
        dev.read(m.phys, &mut b)?;
        match fs.verify(inode, block, m.phys, crc32c(0, &b[..]))? {
            Verdict::Good => return Ok(Some(seed_of(&b).expect("not a block of ours"))),
            Verdict::Bad(want) => panic!(
                "inode {} block {block} at {}: bad, want {want:x}",
                inode.ino(),
                m.phys
            ),
            Verdict::Moved => {}
        }
    }
    panic!(
        "inode {} block {block}: map_read and verify never agree",
        inode.ino()
    );
}

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

struct Walker {
    st: NodeStore,
    owner: BTreeMap<u64, String>,
}

impl Walker {
    fn claim(&mut self, at: u64, who: &str) {
        if let Some(other) = self.owner.insert(at, who.into()) {
            panic!("block {at} is used twice: by {other} and by {who}");
        }
    }

    fn items(&mut self, tree: &Tree, who: &str) -> Vec<(u64, Vec<u8>)> {
        let mut items = Vec::new();
        let mut nodes = Vec::new();
        tree.walk(&self.st, &mut |w| {
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
}

fn open(kind: TreeKind, owner: u64, root: &RootForm<'_>) -> Tree {
    let id = TreeId { kind, owner };
    match root {
        RootForm::Empty => Tree::empty(id),
        RootForm::Inline(i) => Tree::from_inline(id, i).unwrap(),
        RootForm::Ptr(p) => Tree::from_ptr(id, *p),
    }
}

/// Checks everything that is on the device: every block has exactly one owner and the bitmaps say so,
/// free counts, link counts, orphans, and the checksum of every written block.
pub fn fsck(disk: &MemDisk) -> BTreeMap<u64, Found> {
    let sb = read_superblock(&disk.device()).unwrap_or_else(|e| panic!("superblock: {}", e.reason));
    let st = NodeStore::new(Shared::new(disk.device()).unwrap(), sb.fsid(), 1024).unwrap();
    let mut w = Walker {
        st,
        owner: BTreeMap::new(),
    };
    let mut found: BTreeMap<u64, Found> = BTreeMap::new();
    let mut linked: BTreeMap<u64, u32> = BTreeMap::from([(sb.root_ino, 2)]);
    let mut must_be_orphans = BTreeSet::new();
    for b in 0..RESERVED_BLOCKS {
        w.claim(b, "reserved");
    }
    for b in sb.log_start..sb.log_start + sb.log_len {
        w.claim(b, "log");
    }
    for (ino, v) in w.items(&tree_of(INODE_TREE, sb.inode_root), "inode tree") {
        assert!(ino < sb.next_ino);
        let rec = InodeRecord::decode(ino, &v).unwrap();
        let mut f = Found {
            size: rec.attrs.size,
            nlink: rec.attrs.nlink,
            mode: rec.attrs.mode,
            ..Default::default()
        };
        if rec.attrs.nlink == 0 || rec.state & STATE_TRUNCATE != 0 {
            must_be_orphans.insert(ino);
            f.orphan = true;
        }
        let mut end = 0;
        let mut sum = 0;
        let who = format!("inode {ino}");
        for (k, v) in w.items(
            &open(TreeKind::Extent, ino, &rec.extents),
            &format!("{who} extent tree"),
        ) {
            let e = Extent::decode(k, &v, sb.blocks).unwrap();
            assert!(e.start >= end, "{who}: extents overlap at {k}");
            assert_eq!(e.phys / sb.ag_blocks, (e.phys + e.len - 1) / sb.ag_blocks);
            end = e.end();
            sum += e.len;
            for i in 0..e.len {
                w.claim(e.phys + i, &format!("{who} block {}", e.start + i));
                if e.unwritten {
                    continue;
                }
                let mut b = Block::zeroed().unwrap();
                disk.device().read(e.phys + i, &mut b).unwrap();
                let at = HEADER + 4 * i as usize;
                let want = u32::from_le_bytes(v[at..at + 4].try_into().unwrap());
                assert_eq!(
                    crc32c(0, &b[..]),
                    want,
                    "{who} block {}: checksum",
                    e.start + i
                );
                f.blocks
                    .insert(e.start + i, seed_of(&b).expect("not a block of ours"));
            }
        }
        assert_eq!(sum, rec.blocks, "{who}: count of blocks");
        for (_, v) in w.items(
            &open(TreeKind::Dir, ino, &rec.dir),
            &format!("{who} dir tree"),
        ) {
            if rec.attrs.mode & S_IFMT != S_IFDIR {
                continue;
            }
            let e = dir::decode(ino, &v).unwrap();
            if e.kind == mode_to_kind(S_IFDIR) {
                *linked.entry(ino).or_default() += 1;
                *linked.entry(e.ino).or_default() += 2;
            } else {
                *linked.entry(e.ino).or_default() += 1;
            }
            assert!(
                f.names.insert(e.name.to_vec(), e.ino).is_none(),
                "{who}: a name twice"
            );
        }
        w.items(
            &open(TreeKind::Xattr, ino, &rec.xattr),
            &format!("{who} xattr tree"),
        );
        found.insert(ino, f);
    }
    assert_eq!(found.len() as u64, sb.inodes, "count of inodes");
    for (ino, f) in &found {
        assert_eq!(
            f.nlink,
            linked.remove(ino).unwrap_or(0),
            "inode {ino}: link count"
        );
    }
    assert!(
        linked.is_empty(),
        "names of inodes that do not exist: {linked:?}"
    );
    let orphans = w.items(&tree_of(ORPHAN_TREE, sb.orphan_root), "orphan tree");
    assert_eq!(
        orphans.iter().map(|o| o.0).collect::<BTreeSet<_>>(),
        must_be_orphans,
        "orphans"
    );

    let mut bitmaps = Vec::new();
    for i in 0..sb.ag_count {
        let items = w.items(
            &tree_of(Ag::tree_id(i), sb.ag_roots[i as usize]),
            &format!("ag {i}"),
        );
        bitmaps.push(items);
    }
    let mut used = BTreeSet::new();
    let mut free = 0;
    for (i, items) in bitmaps.into_iter().enumerate() {
        let (start, len) = (sb.ag_start(i as u32), sb.ag_len(i as u32));
        let cap = |g: u64| len.saturating_sub(g * GROUP_BLOCKS).min(GROUP_BLOCKS);
        let mut count: BTreeMap<u64, u64> = (0..len.div_ceil(GROUP_BLOCKS))
            .map(|g| (g, cap(g)))
            .collect();
        let mut summary = count.clone();
        for (k, v) in items {
            if k >= SUMMARY_KEY {
                for (n, c) in v.chunks_exact(2).enumerate() {
                    let g = (k - SUMMARY_KEY) * SUMMARY_GROUPS + n as u64;
                    if let Some(s) = summary.get_mut(&g) {
                        *s = u16::from_le_bytes(c.try_into().unwrap()).into();
                    }
                }
                continue;
            }
            let mut n = 0;
            for b in 0..GROUP_BLOCKS {
                if v[4 + (b / 8) as usize] >> (b % 8) & 1 != 0 {
                    assert!(b < cap(k));
                    used.insert(start + k * GROUP_BLOCKS + b);
                    n += 1;
                }
            }
            count.insert(k, cap(k) - n);
            assert_eq!(
                u64::from(u32::from_le_bytes(v[..4].try_into().unwrap())),
                cap(k) - n
            );
        }
        assert_eq!(count, summary, "summary of ag {i}");
        free += count.values().sum::<u64>();
    }
    for b in &used {
        assert!(w.owner.contains_key(b), "block {b} is leaked");
    }
    for (b, who) in &w.owner {
        assert!(used.contains(b), "block {b} of {who} is free on disk");
    }
    assert_eq!(free, sb.free, "count of free blocks");
    found
}

/// After everything has come to rest: no reservation is left over, and the disk is consistent.
pub fn at_rest(disk: &MemDisk, fs: &Fs) -> BTreeMap<u64, Found> {
    fs.sync().unwrap();
    let now = fs.statfs();
    let found = fsck(disk);
    let again = mount(&disk.fork());
    let fresh = again.statfs();
    // Orphans that the second mount removed are not free yet there.
    if !found.values().any(|f| f.orphan) {
        assert_eq!(now.bfree, fresh.bfree, "reservations leaked");
        assert_eq!(now.bavail, fresh.bavail, "reservations leaked");
    }
    found
}
