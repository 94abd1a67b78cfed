// SPDX-License-Identifier: GPL-2.0

//! What the checker says about the trees of space.

mod make;

use make::*;
use ordofs_engine::engine::format::ag::{run_class, NEVER_USED, NOT_TRUSTED, NO_ALLOCATION};
use ordofs_engine::engine::format::group::full_record;
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
