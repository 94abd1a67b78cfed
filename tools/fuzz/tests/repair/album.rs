// SPDX-License-Identifier: GPL-2.0

//! What is in a filesystem, to be compared before and after a repair.

use ordofs_engine::engine::btree::{NodeStore, Tree, TreeId, TreeKind, WalkItem};
use ordofs_engine::engine::format::extent::Extent;
use ordofs_engine::engine::format::inode::{InodeRecord, RootForm};
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::ops::dir::decode;
use ordofs_engine::engine::volume::mount::{tree_of, INODE_TREE};
use ordofs_engine::engine::{Attrs, Fs, MountOptions, S_IFDIR, S_IFMT, S_IFREG};
use ordofs_engine::os::mem::{Image, MemDisk};
use ordofs_engine::os::{crc32c, Block, Device, Shared};
use ordofs_fsck::{check, Options};
use ordofs_fuzz::base;
use ordofs_fuzz::structure::Structure;
use std::collections::{BTreeMap, BTreeSet};

/// What is known about an inode, and the blocks that this lies in.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Portrait {
    pub attrs: Attrs,
    pub parent: u64,
    /// Whether a truncation is under way, and from where on.
    pub truncation: (u32, u64),
    /// Mappings: file block, length, whether it is written, and the checksum of the data.
    pub data: Vec<(u64, u64, u32)>,
    pub xattrs: Vec<(u64, Vec<u8>)>,
    pub entries: BTreeMap<Vec<u8>, u64>,
    pub target: Vec<u8>,
}

/// A filesystem: its inodes, and for each the blocks that it depends on.
pub struct Album {
    pub inodes: BTreeMap<u64, Portrait>,
    pub blocks: BTreeMap<u64, BTreeSet<u64>>,
}

pub struct Reader {
    pub st: NodeStore,
    pub sb: Superblock,
}

impl Reader {
    pub fn new(device: Device) -> Self {
        let sb = Superblock::read(&device).unwrap_or_else(|e| panic!("{}", e.reason));
        let st = NodeStore::new(Shared::new(device).unwrap(), sb.node_id, 256).unwrap();
        Self { st, sb }
    }

    /// The items of a tree, and its leaves.
    pub fn items(&self, id: TreeId, root: &RootForm<'_>) -> (Vec<(u64, Vec<u8>)>, BTreeSet<u64>) {
        let tree = match root {
            RootForm::Empty => Tree::empty(id),
            RootForm::Inline(items) => Tree::from_inline(id, items).expect("an inline tree"),
            RootForm::Ptr(p) => Tree::from_ptr(id, *p),
        };
        let (mut items, mut nodes) = (Vec::new(), BTreeSet::new());
        let walked = tree.walk(&self.st, &mut |w| {
            match w {
                WalkItem::Item(key, value) => items.push((key, value.to_vec())),
                // Interior nodes are built anew.
                WalkItem::Node(n) if n.addr != 0 && n.level == 0 => drop(nodes.insert(n.addr)),
                _ => {}
            }
            Ok(())
        });
        walked.expect("a whole tree");
        (items, nodes)
    }

    pub fn portrait(&self, ino: u64, value: &[u8], with_data: bool) -> (Portrait, BTreeSet<u64>) {
        let rec = InodeRecord::decode(ino, value).expect("a record");
        let kind = rec.attrs.mode & S_IFMT;
        let mut p = Portrait {
            attrs: rec.attrs,
            parent: rec.parent,
            truncation: (rec.state, rec.cut),
            ..Portrait::default()
        };
        let id = |kind| TreeId::new(kind, ino);
        let (extents, mut blocks) = self.items(id(TreeKind::Extent), &rec.extents);
        for (key, v) in extents {
            let e = Extent::decode(key, &v, self.sb.blocks).expect("an extent");
            let mut sum = 0;
            if !e.unwritten && with_data {
                for b in e.phys..e.phys + e.len {
                    let mut data = Block::zeroed().unwrap();
                    self.st.device().read(b, &mut data).expect("a block");
                    sum = crc32c(sum, &data[..]);
                    blocks.insert(b);
                }
            }
            p.data.push((e.start, e.len, sum));
        }
        let (entries, nodes) = self.items(id(TreeKind::Dir), &rec.dir);
        blocks.extend(nodes);
        for (_, v) in entries {
            if kind == S_IFDIR {
                let e = decode(ino, &v).expect("an entry");
                p.entries.insert(e.name.to_vec(), e.ino);
            } else {
                p.target.extend(v);
            }
        }
        let (xattrs, nodes) = self.items(id(TreeKind::Xattr), &rec.xattr);
        blocks.extend(nodes);
        p.xattrs = xattrs;
        if kind != S_IFREG {
            p.attrs.size = 0;
        }
        (p, blocks)
    }

    pub fn album(&self) -> Album {
        let mut album = Album {
            inodes: BTreeMap::new(),
            blocks: BTreeMap::new(),
        };
        let mut leaf = 0;
        let tree = tree_of(INODE_TREE, self.sb.inode_root);
        let walked = tree.walk(&self.st, &mut |w| {
            match w {
                WalkItem::Node(n) => leaf = n.addr,
                WalkItem::Item(ino, value) => {
                    let (p, mut blocks) = self.portrait(ino, value, true);
                    blocks.insert(leaf);
                    album.inodes.insert(ino, p);
                    album.blocks.insert(ino, blocks);
                }
                WalkItem::Bad(_) => {}
            }
            Ok(())
        });
        walked.expect("a whole tree");
        album
    }
}

/// An image and what is in it, with and without its log.
pub struct Original {
    pub name: &'static str,
    /// How many copies its nodes have.
    pub copies: u8,
    pub blocks: u64,
    pub image: Image,
    pub structure: Structure,
    pub album: Album,
    /// The inodes that the log changes.
    pub logged: BTreeSet<u64>,
    /// What they are after a mount.
    pub after: BTreeMap<u64, Portrait>,
    /// A block of data that only the log names.
    pub named: u64,
}

pub fn originals() -> Vec<Original> {
    let both = [1, 2].into_iter().flat_map(base::with_copies);
    let all = both.map(|b| {
        let disk = MemDisk::from_image(b.blocks, b.image.clone());
        let album = Reader::new(disk.device()).album();
        let fs = Fs::mount(disk.device(), MountOptions::default());
        let fs = fs.unwrap_or_else(|e| panic!("{}", e.reason));
        fs.unmount().expect("an unmount");
        drop(fs);
        let after = Reader::new(disk.device()).album();
        let all: BTreeSet<u64> = album
            .inodes
            .keys()
            .chain(after.inodes.keys())
            .copied()
            .collect();
        let logged = all
            .into_iter()
            .filter(|i| album.inodes.get(i) != after.inodes.get(i));
        Original {
            name: b.name,
            copies: Reader::new(disk.device()).sb.copies,
            blocks: b.blocks,
            image: b.image,
            structure: b.structure,
            logged: logged.collect(),
            named: named(&disk),
            after: after.inodes.clone(),
            album,
        }
    });
    all.collect()
}

/// The first block of the newest file with data.
pub fn named(disk: &MemDisk) -> u64 {
    let r = Reader::new(disk.device());
    let mut found = 256;
    let tree = tree_of(INODE_TREE, r.sb.inode_root);
    let walked = tree.walk(&r.st, &mut |w| {
        if let WalkItem::Item(ino, value) = w {
            let rec = InodeRecord::decode(ino, value).expect("a record");
            let (items, _) = r.items(TreeId::new(TreeKind::Extent, ino), &rec.extents);
            if let Some((key, v)) = items.first() {
                found = Extent::decode(*key, v, r.sb.blocks)
                    .expect("an extent")
                    .phys;
            }
        }
        Ok(())
    });
    walked.expect("a whole tree");
    found
}

/// The blocks of which there is no other copy.
pub fn lost(o: &Original, bad: &BTreeSet<u64>) -> BTreeSet<u64> {
    let mut lost = bad.clone();
    for p in o.structure.nodes.iter().map(|n| n.ptr) {
        if p.addr2 != 0 && !bad.contains(&p.addr2) {
            lost.remove(&p.addr);
        }
    }
    lost
}

/// What is wrong with the outcome.
pub fn judged(
    o: &Original,
    disk: &MemDisk,
    bad: &BTreeSet<u64>,
) -> std::result::Result<(), String> {
    let report = check(disk.device(), Options::default()).map_err(|e| e.reason.to_owned())?;
    if let Some(p) = report.problems.first() {
        return Err(format!("after the repair: {p}"));
    }
    let now = Reader::new(disk.device()).album();
    let bad = &lost(o, bad);
    let intact = |ino: &u64| {
        let blocks = &o.album.blocks[ino];
        !o.logged.contains(ino) && blocks.is_disjoint(bad)
    };
    for (ino, was) in &o.album.inodes {
        if !intact(ino) {
            continue;
        }
        let Some(is) = now.inodes.get(ino) else {
            return Err(format!("inode {ino} is gone"));
        };
        let (mut was, mut is) = (was.clone(), is.clone());
        // Names: those whose inodes are intact stay. Others may have come, and links with them.
        for (name, child) in std::mem::take(&mut was.entries) {
            let there = is.entries.get(&name) == Some(&child);
            if !there && o.album.inodes.contains_key(&child) && intact(&child) {
                let name = String::from_utf8_lossy(&name).into_owned();
                return Err(format!("inode {ino} has lost its entry {name:?}"));
            }
        }
        is.entries.clear();
        if was.parent != is.parent && intact(&was.parent) {
            return Err(format!("inode {ino} has another parent"));
        }
        (was.parent, is.parent) = (0, 0);
        (was.attrs.nlink, is.attrs.nlink) = (0, 0);
        if was != is {
            return Err(format!("inode {ino} is not as it was: {was:?} {is:?}"));
        }
    }
    Ok(())
}

pub fn no_times(a: &Attrs) -> Attrs {
    Attrs {
        atime: Default::default(),
        mtime: Default::default(),
        ctime: Default::default(),
        btime: Default::default(),
        change: 0,
        ..*a
    }
}
