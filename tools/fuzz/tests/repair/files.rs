// SPDX-License-Identifier: GPL-2.0

//! Orphans, truncations, and blocks with two owners.

use crate::album::*;
use crate::support::*;
use ordofs_engine::engine::btree::{TreeId, TreeKind};
use ordofs_engine::engine::format::extent::Extent;
use ordofs_engine::engine::format::inode::InodeRecord;
use ordofs_engine::engine::format::node::NodeHeader;
use ordofs_engine::engine::volume::mount::{tree_of, INODE_TREE};
use ordofs_engine::os::crc32c;
use ordofs_engine::os::mem::MemDisk;
use ordofs_fsck::repair::{self};
use ordofs_fuzz::base;
use ordofs_fuzz::changes::Changes;
use ordofs_fuzz::seal::{self, Agree};

/// Inodes that are being deleted are no files without a name, and a truncation goes on where it was.
#[test]
fn orphans_and_truncations_stay() {
    silent();
    let mut orphans = 0;
    for o in originals() {
        let of_interest = |p: &Portrait| p.attrs.nlink == 0 || p.truncation.0 != 0;
        for n in &o.structure.nodes {
            let header = NodeHeader::decode(&o.image[&n.block]).expect("a node").0;
            // The orphan tree, the AG tree, and interior nodes.
            if !matches!(header.id.kind as u8, 2 | 6) && header.level == 0 {
                continue;
            }
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            garbage(&disk, n.block, 0, 4096);
            let plan = repair::plan(disk.device()).unwrap_or_else(|e| panic!("{e}"));
            repair::apply(&plan, &disk.device()).expect("no error");
            let now = Reader::new(disk.device()).album();
            for (ino, was) in o.album.inodes.iter().filter(|(_, p)| of_interest(p)) {
                let place = format!("inode {ino}: had no name");
                assert!(
                    !plan.said.iter().any(|s| s.starts_with(&place)),
                    "{:#?}",
                    plan.said
                );
                let is = now
                    .inodes
                    .get(ino)
                    .unwrap_or_else(|| panic!("inode {ino} is gone"));
                assert_eq!(is.attrs.nlink, was.attrs.nlink, "inode {ino}");
                assert_eq!(is.truncation, was.truncation, "inode {ino}");
                orphans += u32::from(was.attrs.nlink == 0);
            }
        }
    }
    assert!(orphans > 0, "no image has an orphan");
}

/// Of two inodes with one block, the one whose checksum is right keeps it; else that of the later commit.
#[test]
fn a_block_with_two_owners_is_left_to_one() {
    silent();
    let bases = base::all();
    let o = &originals()[0];
    let files: Vec<(u64, u64)> = o
        .album
        .inodes
        .iter()
        .filter(|(_, p)| p.data.len() == 1 && p.data[0].1 == 1 && p.data[0].2 != 0)
        .map(|(ino, _)| (*ino, extent_of(o, *ino)))
        .collect();
    let [(first, a), .., (second, b)] = files[..] else {
        panic!("no files");
    };
    assert!(first < second);
    let sum_of = |block| crc32c(0, &o.image[&block][..]).to_le_bytes();
    // Whether the second one has the checksum of the content; whose record is of the first commit.
    for (same, older, loser) in [
        (false, first, second),
        (false, second, second),
        (true, first, first),
        (true, second, second),
    ] {
        let mut c = Changes::new(&bases[0]);
        forge(&mut c, o, second, |leaf, off, len| {
            let at = (off..off + len - 8).find(|at| leaf[*at..at + 8] == b.to_le_bytes());
            let at = at.expect("its extent");
            leaf[at..at + 8].copy_from_slice(&a.to_le_bytes());
            // Both have the same content.
            assert_eq!(leaf[at + 24..at + 28], sum_of(a));
            leaf[at + 24] ^= u8::from(!same);
        });
        forge(&mut c, o, older, |leaf, off, _| {
            leaf[off + 128..off + 136].copy_from_slice(&1u64.to_le_bytes());
        });
        let disk = MemDisk::from_image(c.blocks(), c.image());
        let report = verdict(&disk).expect("a superblock");
        assert!(
            report.1.iter().any(|p| p.contains("used by")),
            "{report:#?}"
        );
        let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
        let place = format!("inode {loser}: file blocks 0..=0: another owner");
        assert!(said.iter().any(|s| s.starts_with(&place)), "{said:#?}");
        assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
        let now = Reader::new(disk.device()).album();
        for ino in [first, second] {
            assert_eq!(
                now.inodes[&ino].data.is_empty(),
                ino == loser,
                "inode {ino}"
            );
        }
    }
}

/// A block that a node has by its pointer, and in which a file has its data, is the file's; the node has
/// another copy.
#[test]
fn a_file_keeps_a_block_in_which_no_node_is() {
    silent();
    let bases = base::with_copies(2);
    let o = &originals()[bases.len()];
    assert_eq!((o.name, o.copies), (bases[0].name, 2));
    let file = o
        .album
        .inodes
        .iter()
        .find(|(_, p)| p.data.len() == 1 && p.data[0].1 == 1 && p.data[0].2 != 0);
    let ino = *file.expect("a file").0;
    let was = extent_of(o, ino);
    let mut tried = 0;
    for n in &o.structure.nodes {
        let kind = NodeHeader::decode(&o.image[&n.block])
            .expect("a node")
            .0
            .id
            .kind;
        // The file's own leaf is written anew, and the trees of space are built anew.
        let own = o.album.blocks[&ino].contains(&n.block) || n.from == n.ptr.addr;
        if own || !matches!(kind, TreeKind::Extent | TreeKind::Dir | TreeKind::Xattr) {
            continue;
        }
        for at in [n.ptr.addr, n.ptr.addr2] {
            let mut c = Changes::new(&bases[0]);
            forge(&mut c, o, ino, |leaf, off, len| {
                let place = (off..off + len - 8).find(|i| leaf[*i..i + 8] == was.to_le_bytes());
                let place = place.expect("its extent");
                leaf[place..place + 8].copy_from_slice(&at.to_le_bytes());
            });
            *c.block_mut(at) = *o.image[&was].clone();
            let disk = MemDisk::from_image(c.blocks(), c.image());
            let said = mended(&disk, None).unwrap_or_else(|e| panic!("{n:?}, block {at}: {e}"));
            assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
            let now = Reader::new(disk.device()).album();
            let what = format!("{n:?}, block {at}: {said:#?}");
            assert_eq!(now.inodes[&ino].data, o.album.inodes[&ino].data, "{what}");
            assert!(disk.image()[&at] == o.image[&was], "{what}");
            // Of a leaf whose first block is gone, the pointer was forged: its items are lost.
            if at == n.ptr.addr2 {
                for (i, p) in o.album.inodes.iter().filter(|(i, _)| **i != ino) {
                    assert_eq!(now.inodes[i].data, p.data, "inode {i}, {what}");
                    assert_eq!(now.inodes[i].entries, p.entries, "inode {i}, {what}");
                }
            }
            tried += 1;
        }
    }
    assert!(tried >= 10, "{tried}");
}

/// The disk block of the only extent of an inode.
pub fn extent_of(o: &Original, ino: u64) -> u64 {
    let disk = MemDisk::from_image(o.blocks, o.image.clone());
    let r = Reader::new(disk.device());
    let tree = tree_of(INODE_TREE, r.sb.inode_root);
    let value = tree
        .get_with(&r.st, ino, <[u8]>::to_vec)
        .expect("a read")
        .expect("a record");
    let rec = InodeRecord::decode(ino, &value).expect("a record");
    let (items, _) = r.items(TreeId::new(TreeKind::Extent, ino), &rec.extents);
    Extent::decode(items[0].0, &items[0].1, o.blocks)
        .expect("an extent")
        .phys
}

/// Calls `f` with the leaf that has the record of an inode, and where the record is in it. The leaf is
/// sealed again.
pub fn forge(
    c: &mut Changes<'_>,
    o: &Original,
    ino: u64,
    f: impl FnOnce(&mut [u8; 4096], usize, usize),
) {
    let leaf = o.structure.nodes.iter().map(|n| n.block).find(|b| {
        let node = &o.image[b];
        let h = NodeHeader::decode(node).expect("a node").0;
        h.id.kind == TreeKind::Inode && h.level == 0 && o.album.blocks[&ino].contains(b)
    });
    let b = c.block_mut(leaf.expect("the leaf of the inode"));
    let n = u16::from_le_bytes([b[42], b[43]]) as usize;
    let slots = (0..n).map(|i| 64 + 12 * i);
    let slot = slots
        .into_iter()
        .find(|at| b[*at..at + 8] == ino.to_le_bytes());
    let slot = slot.expect("its slot");
    let word = |at: usize| u16::from_le_bytes([b[at], b[at + 1]]) as usize;
    let (off, len) = (word(slot + 8), word(slot + 10));
    f(b, off, len);
    let agree = Agree {
        pointers: true,
        sums: true,
        free: true,
    };
    seal::all(c, agree);
}

/// A truncation that is under way, and that the orphan tree has forgotten.
#[test]
fn a_truncation_under_way_keeps_its_place() {
    silent();
    let (bases, o) = (base::all(), &originals()[0]);
    let file = o
        .album
        .inodes
        .iter()
        .find(|(_, p)| p.data.len() == 1 && p.data[0].2 != 0);
    let ino = *file.expect("a file").0;
    let mut c = Changes::new(&bases[0]);
    forge(&mut c, o, ino, |b, off, _| {
        b[off + 52] = 1;
        // So the record has to be written anew.
        b[off + 4] += 1;
        b[off + 120..off + 128].copy_from_slice(&1234u64.to_le_bytes());
    });
    let disk = MemDisk::from_image(c.blocks(), c.image());
    let plan = repair::plan(disk.device()).unwrap_or_else(|e| panic!("{e}"));
    repair::apply(&plan, &disk.device()).expect("no error");
    assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
    let now = Reader::new(disk.device()).album();
    assert_eq!(now.inodes[&ino].truncation, (1, 1234));
}
