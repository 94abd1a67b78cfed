// SPDX-License-Identifier: GPL-2.0

//! The checker finds what it must find: each test changes one thing, with all checksums right, and
//! names the complaint that must come.

mod support;

use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::XattrSet;
use ordofs_engine::os::mem::MemDisk;
use support::driver::Driver;
use support::forge::{forge, leaf, Item};
use support::ops::{Op, What};

const BLOCKS: u64 = 8192;
const INODE: u8 = 1;
const EXTENT: u8 = 3;
const DIR: u8 = 4;
const XATTR: u8 = 5;
const AG: u8 = 6;

/// Twenty files and two directories with long names, so that the trees are not inline.
fn disk() -> MemDisk {
    let disk = MemDisk::new(BLOCKS);
    let d2 = disk.clone();
    let mut d = Driver::new(move || d2.device());
    for i in 0..40u8 {
        let what = if i % 10 == 9 { What::Dir } else { What::File };
        d.step(&Op::Create {
            dir: 0,
            name: i,
            what,
        });
    }
    for i in 0..80u64 {
        d.step(&Op::Preallocate {
            file: 2,
            start: 2 * i,
            len: 1,
            keep: false,
        });
        d.step(&Op::Direct {
            file: 0,
            start: 2 * i,
            len: 1,
            fail: false,
            sync: false,
        });
        d.step(&Op::Direct {
            file: 1,
            start: 3 * i,
            len: 1,
            fail: false,
            sync: false,
        });
    }
    for name in 0..8 {
        d.step(&Op::SetXattr {
            target: 5,
            name,
            // Fills the pieces of the attributes `same` to the last byte.
            len: 1270 + 1280,
            how: XattrSet::Any,
        });
    }
    d.remount();
    drop(d);
    disk
}

fn complaints(disk: &MemDisk) -> Vec<String> {
    let r = ordofs_fsck::check(disk.device(), ordofs_fsck::Options::default()).expect("superblock");
    r.problems.iter().map(ToString::to_string).collect()
}

/// Blocks that the newest generation refers to and that have items of that kind.
fn leaves(disk: &MemDisk, kind: u8) -> Vec<(u64, [u8; 4096])> {
    let live = |b: &u64| {
        let copy = disk.fork();
        copy.corrupt(*b, 50, 1);
        !complaints(&copy).is_empty()
    };
    let all = disk.image();
    all.iter()
        .filter(|(_, d)| !leaf(d, kind).is_empty())
        .filter(|(b, _)| live(b))
        .map(|(b, d)| (*b, **d))
        .collect()
}

/// Passes the items of all leaves of a kind to `change` until it returns that it changed something; then
/// the complaints must contain `want`.
fn expect(kind: u8, want: &str, mut change: impl FnMut(&mut [u8; 4096], &Item) -> bool) {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = disk();
    assert_eq!(complaints(&disk), Vec::<String>::new());
    for (block, mut data) in leaves(&disk, kind) {
        for item in leaf(&data, kind) {
            if change(&mut data, &item) {
                forge(&disk, block, data);
                let all = complaints(&disk);
                assert!(
                    all.iter().any(|c| c.contains(want)),
                    "no complaint has {want:?}: {all:#?}"
                );
                return;
            }
        }
    }
    panic!("nothing to change");
}

fn add(data: &mut [u8; 4096], at: usize, by: u8) -> bool {
    data[at] = data[at].wrapping_add(by);
    true
}

fn is_file(data: &[u8; 4096], i: &Item) -> bool {
    data[i.at + 1] & 0xf0 == 0x80
}

fn is_dir(data: &[u8; 4096], i: &Item) -> bool {
    data[i.at + 1] & 0xf0 == 0x40
}

#[test]
fn a_wrong_link_count_of_a_file() {
    expect(INODE, "link count is 2, it has 1 names", |d, i| {
        is_file(d, i) && add(d, i.at + 4, 1)
    });
}

#[test]
fn a_wrong_link_count_of_a_directory() {
    expect(INODE, "link count is", |d, i| {
        is_dir(d, i) && add(d, i.at + 4, 1)
    });
}

#[test]
fn a_wrong_count_of_blocks() {
    expect(INODE, "blocks, its extents have", |d, i| {
        is_file(d, i) && add(d, i.at + 32, 1)
    });
}

#[test]
fn data_past_the_size() {
    expect(INODE, "past its size", |d, i| {
        let has_data = is_file(d, i) && d[i.at + 32] != 0;
        if has_data {
            d[i.at + 24..i.at + 32].fill(0);
        }
        has_data
    });
}

#[test]
fn a_wrong_parent() {
    expect(INODE, "its parent is", |d, i| {
        is_dir(d, i) && i.key != 2 && add(d, i.at + 56, 1)
    });
}

#[test]
fn data_before_the_cut_of_a_truncation_and_past_the_size() {
    expect(INODE, "past its size", |d, i| {
        let has_data = is_file(d, i) && d[i.at + 32] != 0;
        if has_data {
            d[i.at + 24..i.at + 32].fill(0);
            d[i.at + 52] = 1;
            d[i.at + 120] = 1;
        }
        has_data
    });
}

/// A home is a hint. A shrink leaves homes behind that are cut off, so they are no damage.
#[test]
fn a_home_that_is_not_there_counts_as_none() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = disk();
    let (block, mut data) = leaves(&disk, INODE).swap_remove(0);
    for item in leaf(&data, INODE) {
        assert!(add(&mut data, item.at + 136, 9));
    }
    forge(&disk, block, data);
    assert_eq!(complaints(&disk), Vec::<String>::new());
}

#[test]
fn a_record_that_cannot_be() {
    let fields = [
        (12, "not a valid id"),
        (20, "no generation number"),
        (52, "unknown state bits"),
        (75, "impossible time"),
        (119, "impossible change counter"),
        (120, "no truncation under way"),
        (147, "impossible extent size hint"),
        (159, "reserved bytes"),
        (160, "section 127: it is unknown"),
    ];
    for (at, want) in fields {
        expect(INODE, want, |d, i| {
            let (from, to) = match at {
                12 | 20 => (at, at + 4),
                _ => (at, at + 1),
            };
            let changed = is_file(d, i) && i.len > at;
            if changed {
                let byte = match at {
                    20 => 0,
                    160 => 0x7f,
                    _ => 0xff,
                };
                d[i.at + from..i.at + to].fill(byte);
            }
            changed
        });
    }
}

#[test]
fn an_entry_that_points_nowhere() {
    expect(DIR, "which does not exist", |d, i| {
        d[i.at..i.at + 8].copy_from_slice(&999_999u64.to_le_bytes());
        true
    });
}

#[test]
fn an_entry_that_points_to_another_inode() {
    expect(DIR, "names", |d, i| add(d, i.at, 1));
}

#[test]
fn an_entry_of_the_wrong_type() {
    expect(DIR, "says type", |d, i| add(d, i.at + 8, 1));
}

#[test]
fn a_name_at_the_wrong_hash() {
    expect(DIR, "does not belong at this hash", |d, i| {
        add(d, i.at + 9, 1)
    });
}

#[test]
fn two_owners_of_a_block() {
    // The first block of the log becomes data.
    expect(EXTENT, "used by", |d, i| {
        d[i.at..i.at + 8].copy_from_slice(&256u64.to_le_bytes());
        true
    });
}

#[test]
fn extents_that_overlap() {
    // A record of one preallocated block becomes one of six.
    expect(EXTENT, "overlaps", |d, i| {
        i.len == 24 && d[i.at + 8] == 1 && add(d, i.at + 8, 5)
    });
}

/// Where the record of the first group is in that of its AG: the tree of groups is inline.
const GROUP: usize = 32 + 4 + 2 + 10;

/// Adds to a u16.
fn add16(data: &mut [u8; 4096], at: usize, by: i16) {
    let old = u16::from_le_bytes([data[at], data[at + 1]]);
    let new = old.wrapping_add_signed(by);
    data[at..at + 2].copy_from_slice(&new.to_le_bytes());
}

/// Moves the start of the last free run of the only group, and changes all counts.
fn move_free_run(d: &mut [u8; 4096], i: &Item, by: i16) -> bool {
    assert_eq!((d[i.at + 33], d[i.at + GROUP]), (1, 2), "inline, free runs");
    let run = i.at + i.len - 4;
    add16(d, run, by);
    for at in [run + 2, i.at + GROUP + 2, i.at] {
        add16(d, at, -by);
    }
    true
}

#[test]
fn a_block_that_is_marked_free_and_in_use() {
    expect(AG, "are marked free", |d, i| move_free_run(d, i, -1));
}

#[test]
fn a_block_that_is_lost() {
    expect(AG, "nothing refers to them", |d, i| move_free_run(d, i, 1));
}

#[test]
fn wrong_free_counts() {
    expect(AG, "free count is", |d, i| add(d, i.at, 0xff));
    expect(AG, "the number of free blocks is wrong", |d, i| {
        add(d, i.at + GROUP + 2, 1)
    });
    expect(AG, "no free run is above class 1,", |d, i| {
        d[i.at + 4] = 1;
        true
    });
}

/// Groups that no device can have: a complaint, and nothing is computed from them.
#[test]
fn impossible_groups() {
    for g in [1, 1 << 32, u64::MAX - 1, u64::MAX] {
        expect(AG, "there is no such group", |d, i| {
            d[i.at + GROUP - 10..i.at + GROUP - 2].copy_from_slice(&g.to_le_bytes());
            true
        });
    }
}

#[test]
fn wrong_counts_in_the_superblock() {
    kernel::print::set_level(kernel::print::SILENT);
    let change = |f: fn(&mut Superblock), want: &str| {
        let disk = disk();
        let mut sb = Superblock::read(&disk.device()).expect("superblock");
        f(&mut sb);
        sb.write(&disk.device()).expect("written");
        let all = complaints(&disk);
        assert!(
            all.iter().any(|c| c.contains(want)),
            "no complaint has {want:?}: {all:#?}"
        );
    };
    change(|sb| sb.free -= 1, "free blocks, there are");
    change(|sb| sb.inodes += 1, "inodes, there are");
    change(|sb| sb.orphan_root = sb.inode_root, "unreadable");
    change(|sb| sb.ag_root = sb.inode_root, "unreadable");
}

/// The name of the attribute whose head this is.
fn xattr_name<'a>(d: &'a [u8; 4096], i: &Item) -> Option<&'a [u8]> {
    let head = i.key & 0xff == 0;
    head.then(|| &d[i.at + 6..i.at + 6 + usize::from(d[i.at + 1])])
}

#[test]
fn an_attribute_at_the_wrong_hash() {
    expect(XATTR, "does not belong at this hash", |d, i| {
        xattr_name(d, i).is_some_and(|n| !n.is_empty()) && add(d, i.at + 6, 1)
    });
}

#[test]
fn an_attribute_without_its_last_piece() {
    expect(XATTR, "missing; 1 bytes of a value are lost", |d, i| {
        xattr_name(d, i) == Some(b"same") && add(d, i.at + 2, 1)
    });
}

#[test]
fn an_attribute_with_a_piece_too_many() {
    expect(XATTR, "a piece that does not belong there", |d, i| {
        // Half the length: the second piece has too much.
        xattr_name(d, i) == Some(b"same") && add(d, i.at + 3, 0xff)
    });
}

#[test]
fn an_attribute_of_an_unknown_namespace() {
    expect(XATTR, "malformed", |d, i| {
        xattr_name(d, i).is_some() && add(d, i.at, 100)
    });
}

#[test]
fn a_default_list_of_a_file() {
    expect(XATTR, "a default ACL, but no directory", |d, i| {
        xattr_name(d, i) == Some(b"") && add(d, i.at, 1)
    });
}
