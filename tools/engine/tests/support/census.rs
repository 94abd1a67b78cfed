// SPDX-License-Identifier: GPL-2.0

//! What is on a device, block by block, and a device with some of everything.

use crate::common::*;
use ordofs_engine::engine::btree::{NodeStore, Tree, TreeId, TreeKind, WalkItem};
use ordofs_engine::engine::format::ag::AgRecord;
use ordofs_engine::engine::format::extent::Extent;
use ordofs_engine::engine::format::inode::{InodeRecord, RootForm};
use ordofs_engine::engine::format::{NodePtr, Superblock};
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;
use std::collections::BTreeMap;
use std::vec::Vec;

/// A node on disk.
#[derive(Clone, Copy, Debug)]
pub struct OnDisk {
    pub id: TreeId,
    pub level: u8,
    pub addr: u64,
    /// The second copy; 0 if there is none.
    pub addr2: u64,
}

impl OnDisk {
    /// The blocks of its copies.
    pub fn copies(&self) -> impl Iterator<Item = u64> {
        [self.addr, self.addr2].into_iter().filter(|a| *a != 0)
    }
}

/// What is on a device: nodes by block, and data blocks by inode and file block.
#[derive(Default)]
pub struct Census {
    pub nodes: BTreeMap<u64, OnDisk>,
    pub data: BTreeMap<(u64, u64), u64>,
    /// The extent leaf with a data block.
    pub leaf_of: BTreeMap<(u64, u64), u64>,
}

impl Census {
    fn tree(
        &mut self,
        store: &NodeStore,
        id: TreeId,
        root: Option<NodePtr>,
    ) -> Vec<(u64, u64, Vec<u8>)> {
        let Some(root) = root else { return Vec::new() };
        let mut items = Vec::new();
        let mut leaf = 0;
        Tree::from_ptr(id, root)
            .walk(store, &mut |w| {
                match w {
                    WalkItem::Node(n) => {
                        let (level, addr, addr2) = (n.level, n.addr, n.addr2);
                        let node = OnDisk {
                            id,
                            level,
                            addr,
                            addr2,
                        };
                        self.nodes.insert(addr, node);
                        leaf = addr;
                    }
                    WalkItem::Item(k, v) => items.push((leaf, k, v.to_vec())),
                    WalkItem::Bad(_) => unreachable!(),
                }
                Ok(())
            })
            .unwrap();
        items
    }

    fn owned(
        &mut self,
        store: &NodeStore,
        kind: TreeKind,
        owner: u64,
        root: &RootForm<'_>,
    ) -> Vec<(u64, u64, Vec<u8>)> {
        let id = TreeId { kind, owner };
        match root {
            RootForm::Empty => Vec::new(),
            RootForm::Ptr(p) => self.tree(store, id, Some(*p)),
            RootForm::Inline(i) => {
                let mut items = Vec::new();
                let tree = Tree::from_inline(id, i).unwrap();
                tree.walk(store, &mut |w| {
                    if let WalkItem::Item(k, v) = w {
                        items.push((0, k, v.to_vec()));
                    }
                    Ok(())
                })
                .unwrap();
                items
            }
        }
    }

    /// How many blocks the nodes have.
    pub fn copies(&self) -> u64 {
        self.nodes.values().map(|n| n.copies().count() as u64).sum()
    }

    pub fn of(disk: &MemDisk) -> Self {
        let dev = disk.device();
        let sb = Superblock::read(&dev).unwrap_or_else(|r| panic!("{}", r.reason));
        let store = NodeStore::new(Shared::new(dev).unwrap(), sb.node_id, 4096).unwrap();
        let mut c = Self::default();
        let id = |kind| TreeId { kind, owner: 0 };
        c.tree(&store, id(TreeKind::Orphan), sb.orphan_root);
        c.tree(&store, id(TreeKind::Deferred), sb.deferred_root);
        for (_, ag, v) in c.tree(&store, id(TreeKind::Ag), sb.ag_root) {
            let rec = AgRecord::parse(sb.ag_len(ag as u32), &v).unwrap();
            c.owned(&store, TreeKind::Groups, ag, &rec.groups);
        }
        for (_, ino, v) in c.tree(&store, id(TreeKind::Inode), sb.inode_root) {
            let rec = InodeRecord::decode(ino, &v).unwrap();
            c.owned(&store, TreeKind::Dir, ino, &rec.dir);
            c.owned(&store, TreeKind::Xattr, ino, &rec.xattr);
            for (leaf, key, v) in c.owned(&store, TreeKind::Extent, ino, &rec.extents) {
                let e = Extent::decode(key, &v, sb.blocks).unwrap();
                for i in (0..e.len).filter(|_| !e.unwritten) {
                    c.data.insert((ino, key + i), e.phys + i);
                    c.leaf_of.insert((ino, key + i), leaf);
                }
            }
        }
        c
    }
}

/// A device with some of everything: 60 files of many extents, long directories, attributes.
pub fn furnished() -> MemDisk {
    let disk = make(1 << 16);
    let fs = mount(&disk);
    let dev = disk.device();
    let root = fs.iget(fs.root_ino()).unwrap();
    let mut seed = 1;
    for d in 0..6u64 {
        let dir = fs
            .create(&root, format!("dir{d}").as_bytes(), &file(S_IFDIR | 0o755))
            .unwrap();
        for n in 0..120u64 {
            let name = format!("a file with a rather long name, number {n}");
            let f = fs.create(&dir, name.as_bytes(), &regular()).unwrap();
            if n < 10 {
                for i in 0..60 {
                    seed += 3;
                    write(&dev, &fs, &f, i * 5, &[seed, seed + 1, seed + 2]).unwrap();
                }
                write(&dev, &fs, &f, 1 << 40, &[seed; 40]).unwrap();
                fs.preallocate(&f, 5000, 100, None).unwrap();
                for x in 0..8u8 {
                    let how = XattrSet::Any;
                    fs.set_xattr(&f, 1, &[b'x', b'a' + x], Some(&[x; 900]), how)
                        .unwrap();
                }
            }
            fs.iput(f);
        }
        fs.iput(dir);
        fs.sync().unwrap();
    }
    fs.iput(root);
    fs.unmount().unwrap();
    disk
}
