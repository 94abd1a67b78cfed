// SPDX-License-Identifier: GPL-2.0

//! Nodes that are lost, and what a search finds.

use crate::album::*;
use crate::made;
use crate::support::*;
use ordofs_engine::engine::btree::{NodeStore, TreeId, TreeKind, WalkItem};
use ordofs_engine::engine::format::extent::Extent;
use ordofs_engine::engine::format::inode::InodeRecord;
use ordofs_engine::engine::format::node::NodeHeader;
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::volume::mount::{tree_of, INODE_TREE};
use ordofs_engine::engine::{S_IFDIR, S_IFMT, S_IFREG};
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Block, Shared};
use ordofs_fsck::{Claim, Claims};
use std::collections::BTreeSet;

/// Each node of each tree is destroyed once.
#[test]
fn each_node_is_rebuilt_or_its_items_are_lost() {
    silent();
    let mut seen = BTreeSet::new();
    for o in originals() {
        for n in &o.structure.nodes {
            let header = NodeHeader::decode(&o.image[&n.block]).expect("a node").0;
            let (kind, level) = (header.id.kind, header.level);
            let (first, second) = (n.ptr.addr, n.ptr.addr2);
            let each = [vec![first], vec![second], vec![first, second]];
            for bad in each.into_iter().filter(|bad| !bad.contains(&0)) {
                let disk = MemDisk::from_image(o.blocks, o.image.clone());
                bad.iter().for_each(|at| garbage(&disk, *at, 0, 4096));
                let what = format!("{} node of level {level} at {bad:?}", kind.name());
                let said = rebuilt(&o, &disk, &bad.iter().copied().collect(), &what);
                if second != 0 && bad.len() == 1 {
                    let copies = |s: &String| s.contains("copies of nodes are bad");
                    assert_eq!(
                        said.iter().filter(|s| !copies(s)).count(),
                        usize::from(o.name == "cut off"),
                        "{what}: {said:#?}"
                    );
                }
            }
            seen.insert((kind as u8, level));
        }
    }
    // Inodes, orphans, extents, directories, attributes, AGs, groups, deferred blocks.
    for (kind, level) in [
        (1, 0),
        (1, 1),
        (2, 0),
        (3, 0),
        (3, 1),
        (4, 0),
        (4, 1),
        (5, 0),
        (5, 1),
        (6, 0),
        (6, 1),
        (7, 0),
        (12, 0),
    ] {
        assert!(seen.contains(&(kind, level)), "kind {kind}, level {level}");
    }
}

/// Leaves without a parent are found by their second copies, too.
#[test]
fn second_copies_alone_are_found() {
    silent();
    let mut found = 0;
    for o in originals().iter().filter(|o| o.copies == 2) {
        let header = |b: u64| NodeHeader::decode(&o.image[&b]).expect("a node").0;
        for n in &o.structure.nodes {
            let h = header(n.block);
            let space = matches!(
                h.id.kind,
                TreeKind::Ag | TreeKind::Groups | TreeKind::Deferred
            );
            if h.level == 0 || space || h.id.kind == TreeKind::Orphan {
                continue;
            }
            let children = o.structure.nodes.iter().filter(|c| c.from == n.block);
            let children: Vec<u64> = children
                .filter(|c| header(c.block).id == h.id)
                .map(|c| c.ptr.addr)
                .collect();
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            for at in children.iter().chain(&[n.ptr.addr, n.ptr.addr2]) {
                garbage(&disk, *at, 0, 4096);
            }
            let what = format!("children of {}", n.block);
            let said = rebuilt(o, &disk, &BTreeSet::new(), &what);
            let all = format!("{} leaves of it were found", children.len());
            assert!(said.iter().any(|s| s.contains(&all)), "{what}: {said:#?}");
            found += children.len();
        }
    }
    assert!(found > 20, "{found}");
}

/// Deleted files do not come back, and take nothing from others.
#[test]
fn old_leaves_in_preallocated_blocks_are_left_out() {
    silent();
    [1, 2].into_iter().for_each(left_out);
}

fn left_out(copies: u8) {
    let original = made::with_old_leaves(4096, 250, copies);
    let album = Reader::new(original.device()).album();
    let sb = Superblock::read(&original.device()).expect("one");
    let root = sb.inode_root.expect("a root");
    assert!(root.level > 0);
    assert_eq!(album.inodes.len(), 376);
    assert!(old_leaves(&original) > 0);
    let space = sb.ag_root.expect("a root");
    without_older_parents(&original);
    for bad in [&[root][..], &[root, space]] {
        let disk = original.fork();
        bad.iter().for_each(|p| lose(&disk, p));
        let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
        let now = Reader::new(disk.device()).album();
        for (ino, was) in &album.inodes {
            let is = now.inodes.get(ino);
            let said = (bad.len(), &said);
            if was.attrs.mode & S_IFMT == S_IFREG {
                assert_eq!(is.map(|p| &p.data), Some(&was.data), "{ino}: {said:#?}");
            }
            assert!(is.is_some(), "inode {ino}: {said:#?}");
        }
        if bad.len() == 1 {
            assert!(now.inodes.keys().eq(album.inodes.keys()), "{said:#?}");
        }
    }
}

/// The same if only the last part of the leaves has no parent: what the others map is known.
#[test]
fn old_leaves_of_a_lost_part_are_left_out() {
    silent();
    [1, 2].into_iter().for_each(left_out_of_a_part);
}

fn left_out_of_a_part(copies: u8) {
    let disk = made::with_old_leaves(1 << 15, 2500, copies);
    let album = Reader::new(disk.device()).album();
    assert!(old_leaves(&disk) > 0);
    let r = Reader::new(disk.device());
    assert_eq!(r.sb.inode_root.expect("a root").level, 2);
    let mut parents = Vec::new();
    let tree = tree_of(INODE_TREE, r.sb.inode_root);
    let walked = tree.walk(&r.st, &mut |w| {
        if let WalkItem::Node(n) = w {
            parents.extend((n.level == 1).then_some(n.ptr()));
        }
        Ok(())
    });
    walked.expect("a whole tree");
    let lost = *parents.last().expect("a parent of leaves");
    without_older_parents(&disk);
    lose(&disk, &lost);
    let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
    let now = Reader::new(disk.device()).album();
    for (ino, is) in &now.inodes {
        // A file without a name is in the new lost+found.
        let found = is.attrs.mode & S_IFMT == S_IFDIR;
        assert!(album.inodes.contains_key(ino) || found, "{ino}: {said:#?}");
    }
    for (ino, was) in &album.inodes {
        let is = now.inodes.get(ino).map(|p| &p.data);
        assert_eq!(is, Some(&was.data), "{ino}: {said:#?}");
    }
}

/// What a file has is not taken for a copy of a node.
#[test]
fn an_image_of_the_filesystem_in_a_file_is_no_part_of_it() {
    silent();
    for copies in [1, 2] {
        let disk = made::with_an_image_of_itself(8192, copies);
        let album = Reader::new(disk.device()).album();
        let root = Superblock::read(&disk.device()).expect("one").inode_root;
        let root = root.expect("a root");
        assert!(root.level > 0);
        without_older_parents(&disk);
        lose(&disk, &root);
        let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
        let now = Reader::new(disk.device()).album();
        assert!(now.inodes.keys().eq(album.inodes.keys()), "{said:#?}");
        for (ino, was) in &album.inodes {
            assert_eq!(now.inodes[ino].data, was.data, "inode {ino}: {said:#?}");
        }
    }
}

/// Older parents would tell which leaves were part of the tree; they have been overwritten.
fn without_older_parents(disk: &MemDisk) {
    let r = Reader::new(disk.device());
    let mut parents = BTreeSet::new();
    let tree = tree_of(INODE_TREE, r.sb.inode_root);
    let walked = tree.walk(&r.st, &mut |w| {
        if let WalkItem::Node(n) = w {
            parents.insert(n.addr);
        }
        Ok(())
    });
    walked.expect("a whole tree");
    for (at, b) in disk.image() {
        let inner = NodeHeader::decode(&b).is_ok_and(|(h, _)| {
            h.id.kind == TreeKind::Inode && h.level > 0 && h.addr == at && !parents.contains(&at)
        });
        if inner {
            garbage(disk, at, 0, 4096);
        }
    }
}

/// How many old leaves with inodes that are not there any more lie in blocks that a file has.
fn old_leaves(disk: &MemDisk) -> usize {
    let r = Reader::new(disk.device());
    let tree = tree_of(INODE_TREE, r.sb.inode_root);
    let (mut inodes, mut data) = (BTreeSet::new(), Claims::default());
    let walked = tree.walk(&r.st, &mut |w| {
        if let WalkItem::Item(ino, value) = w {
            inodes.insert(ino);
            let rec = InodeRecord::decode(ino, value).expect("a record");
            for (key, v) in r.items(TreeId::new(TreeKind::Extent, ino), &rec.extents).0 {
                let e = Extent::decode(key, &v, r.sb.blocks).expect("an extent");
                data.add(e.phys, e.len, Claim::Data(ino));
            }
        }
        Ok(())
    });
    walked.expect("a whole tree");
    let image = disk.image();
    let old = image.iter().filter(|(at, b)| {
        let leaf = NodeHeader::decode(b).ok().map(|(h, _)| h);
        let leaf = leaf.filter(|h| h.id.kind == TreeKind::Inode && h.level == 0);
        let first = || u64::from_le_bytes(*b[64..].first_chunk().expect("8 bytes"));
        leaf.is_some_and(|h| h.addr == **at)
            && data.owner(**at).is_some()
            && !inodes.contains(&first())
    });
    old.count()
}

/// A leaf of a commit that was cut off is not taken for the root of a small tree.
#[test]
fn a_leaf_of_a_commit_that_was_cut_off_is_no_root() {
    silent();
    let disk = made::with_old_leaves((1 << 15) * 100 + 100, 250, 1);
    let sb = Superblock::read(&disk.device()).expect("one");
    let tree = tree_of(INODE_TREE, sb.inode_root);
    let st = NodeStore::new(Shared::new(disk.device()).unwrap(), sb.node_id, 256).unwrap();
    let mut leaf = None;
    let walked = tree.walk(&st, &mut |w| {
        if let WalkItem::Node(n) = w {
            leaf = leaf.or((n.level == 0).then_some(n.addr));
        }
        Ok(())
    });
    walked.expect("a whole tree");
    let mut b = Block::zeroed().expect("memory");
    disk.device()
        .read(leaf.expect("a leaf"), &mut b)
        .expect("a read");
    let mut h = NodeHeader::decode(&b).expect("a node").0;
    (h.addr, h.generation) = (sb.blocks - 5000, sb.generation + 1);
    h.seal(&mut b);
    disk.device().write(&[(h.addr, &b)]).expect("a write");
    for c in superblocks(sb.blocks) {
        garbage(&disk, c, 0, 4096);
    }
    let why = mended(&disk, None).expect_err("a refusal");
    assert!(why.contains("may have been cut off"), "{why}");
}

/// Where each free block has an old node, there is room for new ones.
#[test]
fn blocks_with_old_nodes_are_room() {
    silent();
    let all = originals();
    let o = all.iter().find(|o| o.name == "clean").expect("an image");
    let disk = MemDisk::from_image(o.blocks, o.image.clone());
    let used = o.structure.nodes.iter().find(|n| {
        let h = NodeHeader::decode(&o.image[&n.block]).expect("a node").0;
        h.id.kind == TreeKind::Dir && h.level == 0
    });
    let used = used.expect("a leaf").block;
    let mut h = NodeHeader::decode(&o.image[&used]).expect("a node").0;
    h.generation = 1;
    for at in (256..o.blocks).filter(|at| !o.image.contains_key(at)) {
        let mut b = Block::zeroed().expect("memory");
        b.copy_from_slice(&o.image[&used][..]);
        h.addr = at;
        h.seal(&mut b);
        disk.device().write(&[(at, &b)]).expect("a write");
    }
    garbage(&disk, used, 0, 4096);
    rebuilt(o, &disk, &BTreeSet::from([used]), "old nodes everywhere");
}
