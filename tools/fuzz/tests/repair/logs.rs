// SPDX-License-Identifier: GPL-2.0

//! The log, and what a repair must leave of it.

use crate::album::*;
use crate::files::{extent_of, forge};
use crate::made;
use crate::support::*;
use kernel::prelude::KVVec;
use ordofs_engine::engine::btree::{NodeStore, TreeId, TreeKind};
use ordofs_engine::engine::format::node::NodeHeader;
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::log::ahead::Ahead;
use ordofs_engine::engine::log::header::Batch;
use ordofs_engine::engine::log::record::{FilePlace, Record};
use ordofs_engine::engine::log::ring::{self, Area, Flush, Found};
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;
use ordofs_fsck::{check, Options};
use ordofs_fuzz::base;
use ordofs_fuzz::changes::Changes;

/// If the trees of space are lost, the log is replayed all the same, and its data is not overwritten.
#[test]
fn the_log_is_replayed() {
    silent();
    let mut tried = 0;
    for o in originals()
        .iter()
        .filter(|o| !o.structure.batches.is_empty())
    {
        let space = |kind| matches!(kind, 6 | 7 | 12);
        let nodes = o.structure.nodes.iter().map(|n| n.block);
        let kind = |b: &u64| NodeHeader::decode(&o.image[b]).expect("a node").0.id.kind as u8;
        let nodes: Vec<u64> = nodes.filter(|b| space(kind(b))).collect();
        for some in nodes.iter().map(|b| vec![*b]).chain([nodes.clone()]) {
            let disk = MemDisk::from_image(o.blocks, o.image.clone());
            search_from(&disk, o.named);
            some.iter().for_each(|b| garbage(&disk, *b, 0, 4096));
            let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
            let replayed = said.iter().any(|s| s.contains("batches were replayed"));
            assert!(replayed || o.name != "cut off", "{said:#?}");
            let report = check(disk.device(), Options { data: true }).expect("a superblock");
            assert_eq!(report.problems, []);
            let now = Reader::new(disk.device()).album().inodes;
            assert!(now.keys().eq(o.after.keys()));
            for (ino, mut was) in o.after.clone() {
                let mut is = now[&ino].clone();
                // The times of what a mount does.
                (was.attrs, is.attrs) = (no_times(&was.attrs), no_times(&is.attrs));
                assert_eq!(is, was, "inode {ino}");
            }
            tried += 1;
        }
    }
    assert!(tried >= 3, "{tried}");
}

/// A lost leaf of inodes or names does not take the log.
#[test]
fn a_lost_leaf_does_not_take_the_log() {
    silent();
    let (mut tried, mut found) = (0, 0);
    let all = originals();
    let o = all.iter().find(|o| o.name == "cut off").expect("an image");
    let only_logged: Vec<_> = o
        .after
        .iter()
        .filter(|(i, _)| !o.album.inodes.contains_key(*i))
        .collect();
    for n in &o.structure.nodes {
        let header = NodeHeader::decode(&o.image[&n.block]).expect("a node").0;
        if header.level > 0 || !matches!(header.id.kind, TreeKind::Inode | TreeKind::Dir) {
            continue;
        }
        let disk = MemDisk::from_image(o.blocks, o.image.clone());
        garbage(&disk, n.block, 0, 4096);
        let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
        let replayed = said.iter().any(|s| s.contains("batches were replayed"));
        assert!(replayed, "{said:#?}");
        let now = Reader::new(disk.device()).album().inodes;
        for (ino, was) in &only_logged {
            let is = now.get(*ino).map(|p| &p.data);
            assert_eq!(is, Some(&was.data), "{ino}: {said:#?}");
        }
        found += usize::from(said.iter().any(|s| s.contains("had no name")));
        assert!(said.len() > 1, "nothing is said of what is lost: {said:#?}");
        tried += 1;
    }
    assert!(tried > 5 && found > 0 && !only_logged.is_empty());
}

/// The new lost+found does not get the number of the first inode that the log makes.
#[test]
fn lost_and_found_has_a_number_that_the_log_does_not_use() {
    silent();
    [1, 2].into_iter().for_each(numbers_of_the_log);
}

fn numbers_of_the_log(copies: u8) {
    let disk = made::with_a_logged_file(4096, copies);
    let sb = Superblock::read(&disk.device()).expect("one");
    let names = TreeId::new(TreeKind::Dir, sb.root_ino);
    let mut lost = 0;
    for (at, b) in disk.image() {
        if NodeHeader::decode(&b).is_ok_and(|(h, _)| h.id == names) {
            garbage(&disk, at, 0, 4096);
            lost += 1;
        }
    }
    assert!(lost > 0);
    let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
    let now = Reader::new(disk.device()).album().inodes;
    let root = &now[&sb.root_ino];
    assert_eq!(
        root.entries.get(&b"new"[..]),
        Some(&sb.next_ino),
        "{said:#?}"
    );
    assert_eq!(now[&sb.next_ino].data.len(), 1);
    let found = root.entries[&b"lost+found"[..]];
    assert_eq!(now[&found].entries.len(), 100, "{said:#?}");
}

/// A block that the log maps is not that of another inode, whatever its extents say: the log is replayed.
#[test]
fn the_log_has_what_it_maps() {
    silent();
    let (bases, all) = (base::all(), originals());
    let (base, o) = (&bases[1], &all[1]);
    assert_eq!((o.name, o.copies), ("cut off", 1));
    let file = o.album.inodes.iter().find(|(ino, p)| {
        let one = p.data.len() == 1 && p.data[0].1 == 1 && p.data[0].2 != 0;
        one && !o.logged.contains(*ino)
    });
    let ino = *file.expect("a file").0;
    let (was, of_log) = (extent_of(o, ino), o.named);
    let mut c = Changes::new(base);
    forge(&mut c, o, ino, |leaf, off, len| {
        let at = (off..off + len - 8).find(|at| leaf[*at..at + 8] == was.to_le_bytes());
        let at = at.expect("its extent");
        leaf[at..at + 8].copy_from_slice(&of_log.to_le_bytes());
    });
    let disk = MemDisk::from_image(c.blocks(), c.image());
    let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
    assert!(
        said.iter().any(|s| s.contains("batches were replayed")),
        "{said:#?}"
    );
    assert_eq!(verdict(&disk).expect("a superblock").1, [""; 0]);
    let now = Reader::new(disk.device()).album().inodes;
    for (i, was) in &o.after {
        let data = if *i == ino { &vec![] } else { &was.data };
        assert_eq!(&now[i].data, data, "inode {i}: {said:#?}");
    }
}

/// An operation on an inode that is lost is left out of the log, and the others are not.
#[test]
fn a_record_that_does_not_fit_does_not_take_the_log() {
    silent();
    let all = originals();
    let o = all.iter().find(|o| o.name == "cut off").expect("an image");
    let disk = MemDisk::from_image(o.blocks, o.image.clone());
    let record = Record::Grow {
        ino: 1 << 40,
        bytes: 1,
    };
    append(&disk, &record);
    let sb = Superblock::read(&disk.device()).expect("one");
    garbage(&disk, sb.ag_root.expect("a root").addr, 0, 4096);
    let said = mended(&disk, None).unwrap_or_else(|e| panic!("{e}"));
    let with = |what: &str| said.iter().any(|s| s.contains(what));
    assert!(
        with("batches were replayed") && with("1 operations"),
        "{said:#?}"
    );
    let now = Reader::new(disk.device()).album().inodes;
    assert!(now.keys().eq(o.after.keys()));
}

/// Appends a record to the log, in a batch of its own.
fn append(disk: &MemDisk, record: &Record<'_>) {
    let sb = Superblock::read(&disk.device()).expect("one");
    let device = Shared::new(disk.device()).expect("memory");
    let st = NodeStore::new(device, sb.node_id, 0).expect("memory");
    let area = Area {
        start: sb.log_start,
        len: sb.log_len,
    };
    let (mut at, mut payload) = ((sb.log_pos, sb.log_seq), KVVec::new());
    loop {
        let mut ahead = Ahead::new(st.device()).expect("memory");
        match ring::read(&st, area, &mut ahead, at, &mut payload).expect("memory") {
            Found::Whole(h) => at = h.next(),
            _ => break,
        }
    }
    payload.clear();
    let appended = record.append(&mut payload, sb.generation + 1, Default::default());
    appended.expect("memory");
    let batch = Batch {
        pos: at.0,
        seq: at.1,
        flushed: at.1 - 1,
        generation: sb.generation,
        data_durable: true,
    };
    ring::write(&st, area, batch, &payload, Flush::Now).expect("a write");
}

/// A record of a later version in the log is no damage, and is not thrown away.
#[test]
fn a_log_of_a_later_version_is_refused() {
    silent();
    let all = originals();
    let o = all.iter().find(|o| o.name == "cut off").expect("an image");
    let disk = MemDisk::from_image(o.blocks, o.image.clone());
    let sb = Superblock::read(&disk.device()).expect("one");
    let record = Record::Swap {
        one: FilePlace { ino: 5, start: 0 },
        other: FilePlace { ino: 6, start: 0 },
        len: 1,
    };
    append(&disk, &record);
    for damaged in [false, true] {
        if damaged {
            garbage(&disk, sb.ag_root.expect("a root").addr, 0, 4096);
        }
        let before = disk.image();
        let why = mended(&disk, None).expect_err("a refusal");
        assert!(why.contains("later"), "{why}");
        assert!(same(&before, &disk.image()));
    }
}
