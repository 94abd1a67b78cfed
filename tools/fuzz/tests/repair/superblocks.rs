// SPDX-License-Identifier: GPL-2.0

//! Superblocks that are lost or that speak of something else.

use crate::album::*;
use crate::support::*;
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Block;
use ordofs_fsck::repair::{self};
use std::collections::BTreeSet;

/// Superblocks are put together from what is left, and nothing of the files is lost.
#[test]
fn superblocks_are_rebuilt() {
    silent();
    let all = |o: &Original| -> Vec<u64> {
        let twins = ordofs_engine::engine::format::places::twin_base(o.blocks);
        vec![16, 128, twins + 16, twins + 128]
    };
    let sector = |disk: &MemDisk, block, k: usize| garbage(disk, block, k * 512, k * 512 + 512);
    for o in originals() {
        let copies = all(&o);
        let newest = {
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            (Superblock::read(&disk.device()).expect("one").generation & 1) as usize
        };
        let with = |what: &str, damage: &dyn Fn(&MemDisk)| {
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            damage(&disk);
            rebuilt(&o, &disk, &BTreeSet::new(), what)
        };
        for k in 3..8 {
            with("an empty sector of all copies", &|d| {
                copies.iter().for_each(|b| sector(d, *b, k))
            });
            let slot = [copies[newest], copies[newest + 2]];
            let said = with("an empty sector of the newest", &|d| {
                slot.iter().for_each(|b| sector(d, *b, k))
            });
            assert!(!said.iter().any(|s| s.contains("may be lost")), "{said:#?}");
        }
        let said = with("the roots of all copies", &|d| {
            copies.iter().for_each(|b| sector(d, *b, 2))
        });
        assert!(
            said.iter()
                .any(|s| s.contains("root of the inode tree was lost")),
            "{said:#?}"
        );
        with("all but one copy", &|d| {
            copies.iter().skip(1).for_each(|b| garbage(d, *b, 0, 4096))
        });
        with("one sector left of each", &|d| {
            for (i, b) in copies.iter().enumerate() {
                (0..8).filter(|k| k % 4 != i).for_each(|k| sector(d, *b, k));
            }
        });
        if o.name == "large" {
            with("all copies", &|d| {
                copies.iter().for_each(|b| garbage(d, *b, 0, 4096))
            });
            for k in 0..2 {
                with("a sector of all copies", &|d| {
                    copies.iter().for_each(|b| sector(d, *b, k))
                });
            }
        }
    }
}

/// What a later version may have written is refused, and nothing is written.
#[test]
fn features_are_refused() {
    silent();
    for o in originals() {
        for bits in [(1u64 << 40, 0), (0, 1 << 40), (0, 0)] {
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            let mut sb = Superblock::read(&disk.device()).expect("one");
            (sb.incompat, sb.ro_compat) = bits;
            if bits == (0, 0) {
                sb.quota_root = sb.inode_root;
            }
            sb.write(&disk.device()).expect("a write");
            let n = o.structure.nodes.first().expect("a node");
            garbage(&disk, n.block, 0, 4096);
            let before = disk.image();
            let why = mended(&disk, None).expect_err("a refusal");
            assert!(why.contains("feature") || why.contains("quotas"), "{why}");
            assert!(same(&before, &disk.image()));
        }
    }
}

/// The new superblock is later than every sector that is there, so no two attempts to write one can
/// be taken for one superblock.
#[test]
fn the_new_generation_is_above_all_sectors() {
    silent();
    for o in originals() {
        for ahead in [2, 4, 1000] {
            for torn in [1, 7] {
                let disk = MemDisk::from_image(o.blocks, o.image.clone());
                let sb = Superblock::read(&disk.device()).expect("one");
                let mut later = sb.clone();
                later.generation += ahead;
                let at = ordofs_engine::engine::format::places::slot(later.generation, 0, o.blocks);
                let mut b = Block::zeroed().expect("memory");
                later.encode(0, &mut b);
                let old = disk.image()[&at].clone();
                // The later one is torn: only some of its sectors have arrived.
                b[..512 * torn].copy_from_slice(&old[..512 * torn]);
                disk.device().write(&[(at, &b)]).expect("a write");
                garbage(&disk, sb.ag_root.expect("a root").addr, 0, 4096);
                let plan = repair::plan(disk.device()).unwrap_or_else(|e| panic!("{e}"));
                assert!(
                    plan.superblock().generation > sb.generation + ahead,
                    "{}",
                    o.name
                );
            }
        }
    }
}

/// The backups of a filesystem that another one has replaced.
#[test]
fn another_filesystem_is_not_overwritten() {
    silent();
    let all = originals();
    let o = all.iter().find(|o| o.name == "large").expect("an image");
    for (block, at, magic, what) in [
        (0, 1080, &b"\x53\xef"[..], "ext2/3/4"),
        (16, 65600 - 65536, b"_BHRfS_M", "btrfs"),
        (16, 0, b"OrdoFS\0\x83", "another version"),
    ] {
        let disk = MemDisk::from_image(o.blocks, o.image.clone());
        for b in superblocks(o.blocks) {
            (0..4096).for_each(|i| disk.corrupt(b, i, o.image[&b][i]));
        }
        for (i, x) in magic.iter().enumerate() {
            disk.corrupt(block, at + i, *x);
        }
        let before = disk.image();
        let why = mended(&disk, None).expect_err("a refusal");
        assert!(why.contains(what), "{why}");
        assert!(same(&before, &disk.image()));
    }
}
