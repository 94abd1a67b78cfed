// SPDX-License-Identifier: GPL-2.0

//! What the checker says about the trees of space.

mod make;

use kernel::prelude::KVec;
use make::*;
use ordofs_engine::engine::format::ag::{run_class, NEVER_USED, NOT_TRUSTED, NO_ALLOCATION};
use ordofs_engine::engine::format::dead::{self, DeadKey};
use ordofs_engine::engine::format::group::full_record;
use ordofs_engine::engine::format::quota::{Account, QuotaKey, QuotaRecord};
use ordofs_engine::engine::format::snapshot::{SnapshotRecord, ABANDONED, BOOKMARK};
use ordofs_engine::engine::format::superblock::STATE_REPAIR;
use ordofs_engine::engine::format::NodePtr;
use ordofs_engine::os::Time;
use std::time::{Duration, Instant};

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
    // Space that is counted and that nothing can be allocated from.
    let mut make = of_all_forms();
    make.ag = |ag, rec| rec.flags |= if ag == 1 { NOT_TRUSTED } else { 0 };
    expect(
        &make,
        &["allocation group 1: it is marked: its groups are not"],
    );
    let mut make = of_all_forms();
    make.ag = |ag, rec| rec.flags |= if ag == 2 { NO_ALLOCATION } else { 0 };
    expect(
        &make,
        &["allocation group 2: it is marked: nothing is to be"],
    );
    // The longest run of a free AG.
    let mut make = Make::new(1 << 28);
    make.nodes = 40_000;
    make.ag = |ag, rec| rec.longest -= u8::from(ag == 77);
    let all = complaints(&make.on_disk());
    assert!(
        all[0].contains("allocation group 77: the longest free run does not fit"),
        "{all:#?}"
    );
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
    make.ags = |ags| drop(ags.remove(2));
    let all = complaints(&make.on_disk());
    assert!(
        all[0].contains("allocation groups 2..3: have no record"),
        "{all:#?}"
    );
    let mut make = of_all_forms();
    make.ags = |ags| drop(ags.pop());
    let all = complaints(&make.on_disk());
    assert!(
        all[0].contains("allocation groups 3..4: have no record"),
        "{all:#?}"
    );
    let mut make = of_all_forms();
    make.ags = |ags| ags.push((4, ags[3].1.clone()));
    expect(
        &make,
        &["allocation group 4: it has a record, but does not exist"],
    );
    let mut make = of_all_forms();
    make.ags = |ags| ags.push((u64::MAX, vec![1]));
    expect(&make, &["it has a record, but does not exist"]);
    let mut make = of_all_forms();
    make.ags = |ags| ags[1].1.truncate(20);
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
        vec![dead_record(3, 2, &runs[..1]), dead_record(9, 4, &runs[1..])],
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
        let all = complaints(&make.on_disk());
        assert!(all[0].contains(NOT_YET), "{all:#?}");
        assert!(all[1].contains(want), "{want:?} is not in {all:#?}");
    };
    with(
        &|m| m.later[0][0].1[20] = 3,
        "snapshot of epoch 2: unknown flags",
    );
    with(
        &|m| m.later[0][1].1[0] = 3,
        "epoch 4: generation 3 is newer",
    );
    with(
        &|m| m.later[0][1].1[48] = 10,
        "epoch 4: an epoch that is not before",
    );
    with(
        &|m| m.later[0][2].0 = 9,
        "epoch 9: an epoch that is not before",
    );
    with(
        &|m| m.later[0][3].1[52] = 3,
        "epoch 6: there is no snapshot of epoch 3",
    );
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
        &|m| m.later[2][1].1[64] = 2,
        "quota 0x300000000: unknown flags",
    );
    // Blocks of the dead tree may have other owners, and those of snapshots are not known.
    let mut make = with_snapshots();
    let run = [(33_000, 1)];
    make.later[1].push(dead_record(6, 4, &run));
    make.dead.extend(run);
    make.groups = |ag, items| items.retain(|(g, _)| ag != 2 || *g != 3);
    make.ag = |ag, rec| rec.free += if ag == 2 { 109 } else { 0 };
    let all = complaints(&make.on_disk());
    assert!(
        !all.iter()
            .any(|l| l.contains("used by") || l.contains("belong")),
        "{all:#?}"
    );
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
        let mut section = vec![2, 1];
        section.extend((image.len() as u16).to_le_bytes());
        section.extend(image);
        make.section = Some((2, section));
        for (ro_compat, first) in [
            (0, "allocation group 2: it has shared blocks, and"),
            (4, "superblock: it has shared blocks, which this version"),
        ] {
            make.sb = match ro_compat {
                0 => |_| (),
                _ => |sb| sb.ro_compat = 4,
            };
            let all = complaints(&make.on_disk());
            assert_eq!(all.len(), 1 + want.len(), "{all:#?}");
            assert!(all[0].contains(first), "{all:#?}");
            for (line, words) in all[1..].iter().zip(want) {
                assert!(line.contains(words), "{words:?} is not in {all:#?}");
            }
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
