// SPDX-License-Identifier: GPL-2.0

//! Records of the AG tree and of the trees of groups: their bytes, the one form that each content
//! has, what is refused, and flipped bits.

use kernel::prelude::KVec;
use ordofs_engine::engine::format::ag::{
    inline_groups_max, run_class, AgRecord, RootForm, Sums, NEVER_USED, NOT_TRUSTED, NO_ALLOCATION,
};
use ordofs_engine::engine::format::bits::Bits;
use ordofs_engine::engine::format::group::{
    encode, full_record, group_len, Form, GroupRecord, Order, MAX_RUNS,
};
use ordofs_engine::engine::format::NodePtr;

const GROUP: u32 = 8192;
const AG: u64 = 1 << 18;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let pairs = digits.chunks_exact(2);
    pairs.map(|p| (p[0] << 4 | p[1]) as u8).collect()
}

fn ag_bytes(rec: &AgRecord<'_>) -> Vec<u8> {
    let mut v = KVec::new();
    rec.encode(&mut v).unwrap();
    v.as_slice().to_vec()
}

/// A record in which every field has a value of its own.
fn full_ag() -> AgRecord<'static> {
    AgRecord {
        free: 0x0002_0304,
        longest: 11,
        flags: NO_ALLOCATION | NOT_TRUSTED,
        generation: 0x1716_1514_1312_1110,
        groups: RootForm::Ptr(NodePtr {
            addr: 0x0001_0000_0000_1234,
            addr2: 0x0001_0000_0000_5678,
            generation: 9,
            crc: 0xdead_beef,
            level: 1,
        }),
        shared: RootForm::Inline(b"more"),
        ignorable: &[0x88, 3, 2, 0, 0xaa, 0xbb, 0x90, 7, 1, 0, 0xcc],
    }
}

#[test]
fn every_field_of_an_ag_record_has_its_place() {
    let golden = hex("
        04030200 0b 05 0000 00000000 00000000 1011121314151617 0000000000000000
        01022000 3412000000000100 7856000000000100 0900000000000000 efbeadde 01000000
        02010400 6d6f7265
        88030200 aabb 90070100 cc");
    assert_eq!(ag_bytes(&full_ag()), golden);
    assert_eq!(AgRecord::parse(AG, &golden).unwrap(), full_ag());
    let inline = AgRecord {
        groups: RootForm::Inline(b"items"),
        ..full_ag()
    };
    let bytes = ag_bytes(&inline);
    assert_eq!(bytes[32..41], hex("01010500 6974656d73"));
    assert_eq!(AgRecord::parse(AG, &bytes).unwrap(), inline);
    let unused = AgRecord::unused(AG, 1);
    assert_eq!(
        ag_bytes(&unused),
        hex("00000400 0e 02 0000 00000000 00000000 0100000000000000 0000000000000000")
    );
    assert_eq!(AgRecord::parse(AG, &ag_bytes(&unused)).unwrap(), unused);
    // An AG of one block, and one that ends within a group.
    for len in [1, 8191, 8193, AG - 1] {
        let rec = AgRecord::unused(len, 3);
        assert_eq!(AgRecord::parse(len, &ag_bytes(&rec)).unwrap(), rec);
        assert!(AgRecord::parse(len + 1, &ag_bytes(&rec)).is_err());
        assert!(AgRecord::parse(len - 1, &ag_bytes(&rec)).is_err());
    }
    assert_eq!(
        full_ag().sums(),
        Sums::of_record(&ag_bytes(&full_ag())),
        "the sums of a record are read without decoding it"
    );
}

#[test]
fn an_impossible_ag_record_is_refused() {
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut v = ag_bytes(&full_ag());
        change(&mut v);
        AgRecord::parse(AG, &v).err().map(|f| f.to_string())
    };
    assert_eq!(refused(&|_| ()), None);
    // The tree may be as new as the record.
    let same = |v: &mut Vec<u8>| v[16..24].copy_from_slice(&9u64.to_le_bytes());
    assert_eq!(refused(&same), None);
    let changes: &[(&dyn Fn(&mut Vec<u8>), &str)] = &[
        (&|v| v.truncate(31), "cut off"),
        (&|v| v.clear(), "cut off"),
        (&|v| v[2] = 4, "more free blocks"),
        (&|v| v[4] = 0, "longest free run"),
        (&|v| v[4] = 15, "longest free run"),
        (&|v| v[0..3].fill(0), "longest free run"),
        (&|v| v[0..3].copy_from_slice(&[3, 0, 0]), "longest free run"),
        (&|v| v[5] = 8, "flags"),
        (&|v| v[5] = NEVER_USED, "never used"),
        (&|v| v[6] = 1, "pairs"),
        (&|v| v[11] = 1, "pairs"),
        (&|v| v[12] = 1, "reserved"),
        (&|v| v[31] = 1, "reserved"),
        (&|v| v[16..24].fill(0), "no commit"),
        (&|v| v[32] = 2, "twice"),
        (&|v| v[32 + 36] = 3, "unknown"),
        (&|v| drop(v.drain(32..68)), "does not fit"),
        (&|v| v[32] = 7, "unknown"),
        (&|v| v[33] = 3, "form"),
        (&|v| v[34] = 31, "section 1"),
        (&|v| v[36..44].fill(0), "root pointer"),
        (
            &|v| v[16..24].copy_from_slice(&8u64.to_le_bytes()),
            "newer than the record",
        ),
        (&|v| v.truncate(32), "does not fit"),
        (&|v| v.truncate(33), "cut off"),
        (&|v| v.extend([0x90, 0, 0, 0]), "twice"),
        (&|v| v.push(0x91), "cut off"),
        (&|v| v.extend([0x91, 0, 0xff, 0x0f]), "cut off"),
    ];
    for (i, (change, why)) in changes.iter().enumerate() {
        let reason = refused(change).unwrap_or_else(|| panic!("change {i} was accepted"));
        assert!(reason.contains(why), "change {i}: {reason}");
    }
    let all_free = AgRecord {
        groups: RootForm::Inline(b"items"),
        ..AgRecord::unused(AG, 1)
    };
    assert!(AgRecord::parse(AG, &ag_bytes(&all_free)).is_err());
    // The longest run of a free AG follows from its length.
    for len in [1, 100, 8191, 8192, 8193, AG] {
        let good = AgRecord::unused(len, 1);
        for longest in 0..=15 {
            let rec = AgRecord { longest, ..good };
            let accepted = AgRecord::parse(len, &ag_bytes(&rec)).is_ok();
            assert_eq!(accepted, longest == good.longest, "{len} {longest}");
        }
    }
}

#[test]
fn sections_that_are_kept_leave_room_for_the_trees() {
    assert_eq!(inline_groups_max(0), 320);
    for kept in [600usize, 700, 1000] {
        let mut ignorable = vec![0x99, 3];
        ignorable.extend(((kept - 4) as u16).to_le_bytes());
        ignorable.resize(kept, 7);
        let items = vec![1; inline_groups_max(kept)];
        let rec = AgRecord {
            groups: RootForm::Inline(&items),
            ignorable: &ignorable,
            ..full_ag()
        };
        let bytes = ag_bytes(&rec);
        assert!(bytes.len() <= 1280);
        assert_eq!(AgRecord::parse(AG, &bytes).unwrap(), rec);
    }
    let mut bytes = ag_bytes(&full_ag());
    bytes.extend([0x99, 3, 0x00, 0x05]);
    bytes.resize(bytes.len() + 0x500, 7);
    assert!(AgRecord::parse(AG, &bytes).is_err());
}

#[test]
fn sums_in_two_numbers() {
    let a = Sums {
        free: (1 << 50) + 5,
        longest: 14,
        slots: 77,
    };
    let b = Sums {
        free: 10,
        longest: 3,
        slots: 1,
    };
    let both = a.and(b);
    assert_eq!(
        (both.free, both.longest, both.slots),
        ((1 << 50) + 15, 14, 78)
    );
    assert_eq!(b.and(a), both);
    assert_eq!(a.and(Sums::default()), a);
    let bytes = both.to_bytes();
    assert_eq!(bytes.to_vec(), hex("0f0000000000040e 4e00000000000000"));
    assert_eq!(Sums::decode(&bytes), Some(both));
    assert_eq!(Sums::decode(&bytes[..15]), None);
    assert_eq!(Sums::from_words(both.to_words()), both);
    // Sums that are too great for their place stay at the end of it.
    let huge = Sums {
        free: (1 << 56) - 1,
        longest: 255,
        slots: u64::MAX,
    };
    assert_eq!(huge.and(huge), huge);
    assert_eq!(Sums::from_words(huge.to_words()), huge);
    assert_eq!(Sums::of_record(&[1; 11]), Sums::default());
    let classes = [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 2),
        (4, 3),
        (8191, 13),
        (8192, 14),
    ];
    for (len, class) in classes {
        assert_eq!(run_class(len), class);
    }
}

/// A bitmap with these used runs, as (start, length).
fn used(runs: impl IntoIterator<Item = (u32, u32)>) -> Bits {
    let mut bits = Bits::zeroed().unwrap();
    runs.into_iter().for_each(|(at, n)| bits.set(at, n));
    bits
}

fn group_bytes(used: &Bits, len: u32) -> (Form, Vec<u8>) {
    let mut v = KVec::new();
    let form = encode(used, len, &mut v).unwrap();
    (form, v.as_slice().to_vec())
}

fn same(a: &Bits, b: &Bits) -> bool {
    (0..GROUP).all(|i| a.count_range(i, 1) == b.count_range(i, 1))
}

/// Encodes the group, which must be in the AG at group `g`, and checks that it comes back.
fn round(used: &Bits, ag_len: u64, g: u64) -> (Form, Vec<u8>) {
    let len = group_len(ag_len, g);
    let (form, v) = group_bytes(used, len);
    if form != Form::Own {
        assert!(v.is_empty());
        return (form, v);
    }
    let rec = GroupRecord::parse(ag_len, g, &v).unwrap();
    assert_eq!(
        (rec.free(), rec.groups()),
        (len - used.count_range(0, len), 1)
    );
    let mut again = Bits::zeroed().unwrap();
    again.set(77, 5);
    rec.load(len, &mut again);
    let mut whole = Bits::zeroed().unwrap();
    whole.copy(used);
    whole.set(len, GROUP - len);
    assert!(same(&again, &whole));
    // What is past the end does not show on disk.
    assert_eq!(group_bytes(&whole, len), (form, v.clone()));
    (form, v)
}

#[test]
fn a_group_has_the_form_that_its_content_must_have() {
    assert_eq!(round(&used([]), AG, 0).0, Form::Free);
    assert_eq!(round(&used([(0, GROUP)]), AG, 31).0, Form::Full);
    let (_, v) = round(&used([(0, 3), (10, GROUP - 10)]), AG, 5);
    assert_eq!(v, hex("02010700 00000000 0000000000000000 03000700"));
    let (_, v) = round(&used([(5, GROUP - 6)]), AG, 5);
    assert_eq!(
        v,
        hex("02010600 00000000 0000000000000000 00000500 ff1f0100")
    );
    // As many runs as a record has, and one more.
    let n = MAX_RUNS as u32;
    let every = |n: u32| {
        used(
            (0..n)
                .map(|i| (2 * i + 1, 1))
                .chain([(2 * n, GROUP - 2 * n)]),
        )
    };
    let (_, v) = round(&every(n), AG, 5);
    assert_eq!((v[0], v.len()), (2, 16 + 4 * 64));
    let (_, v) = round(&every(n + 1), AG, 5);
    assert_eq!((v[0], v.len()), (3, 16 + 1024));
    assert_eq!(v[..4], [3, 1, 65, 0]);
    assert_eq!(v[16..34], hex("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa feff"));
    // The last group of an AG may be short.
    let short = 3 * u64::from(GROUP) + 100;
    assert_eq!(group_len(short, 3), 100);
    assert_eq!((group_len(short, 4), group_len(short, u64::MAX)), (0, 0));
    assert_eq!(round(&used([]), short, 3).0, Form::Free);
    assert_eq!(round(&used([(0, 100)]), short, 3).0, Form::Full);
    let (_, v) = round(&used([(0, 99)]), short, 3);
    assert_eq!(v, hex("02010100 00000000 0000000000000000 63000100"));
    let long = 3 * u64::from(GROUP) + 140;
    let (_, v) = round(&used((0..70).map(|i| (2 * i, 1))), long, 3);
    assert_eq!(v[0], 3);
    assert_eq!(v[16..], [&[0x55; 17][..], &[5], &[0; 1024 - 18]].concat());
}

#[test]
fn groups_at_random() {
    let mut x = 88_172_645_463_325_252u64;
    let mut rng = move |n: u32| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x % u64::from(n)) as u32
    };
    let (mut runs, mut bitmaps) = (0, 0);
    for _ in 0..2_000 {
        let ag_len = u64::from(GROUP) + 64 + u64::from(rng(GROUP - 64));
        let mut bits = Bits::zeroed().unwrap();
        for _ in 0..=rng(200) {
            bits.set(rng(GROUP), 1 + rng(50));
        }
        if let (Form::Own, v) = round(&bits, ag_len, u64::from(rng(2))) {
            runs += u32::from(v[0] == 2);
            bitmaps += u32::from(v[0] == 3);
        }
    }
    assert!(runs > 100 && bitmaps > 100, "{runs} {bitmaps}");
}

#[test]
fn full_groups_share_a_record() {
    let v = full_record(32);
    assert_eq!(v.to_vec(), hex("01200000 00000000 0000000000000000"));
    let rec = GroupRecord::parse(AG, 0, &v).unwrap();
    assert_eq!(
        (rec, rec.free(), rec.groups()),
        (GroupRecord::Full { groups: 32 }, 0, 32)
    );
    assert!(GroupRecord::parse(AG, 1, &v).is_err());
    assert!(GroupRecord::parse(AG - u64::from(GROUP), 0, &v).is_err());
    let mut bits = Bits::zeroed().unwrap();
    rec.load(GROUP, &mut bits);
    assert_eq!(bits.count(), GROUP);

    let full = |n| GroupRecord::Full { groups: n };
    let (_, own) = group_bytes(&used([(0, 1)]), GROUP);
    let own = GroupRecord::parse(AG, 0, &own).unwrap();
    let mut order = Order::default();
    for (g, rec) in [(0, full(3)), (3, own), (4, full(1)), (6, full(26))] {
        assert_eq!(order.check(g, &rec), Ok(()));
    }
    for (g, rec) in [(1, own), (2, full(3)), (3, full(1))] {
        let mut order = Order::default();
        assert_eq!(order.check(0, &full(3)), Ok(()));
        assert!(order.check(g, &rec).is_err(), "{g} {rec:?}");
    }
}

#[test]
fn an_impossible_group_record_is_refused() {
    let short = u64::from(GROUP) + 100;
    let refused = |v: &[u8], ag_len, g| GroupRecord::parse(ag_len, g, v).err();
    let runs = |free: u16, runs: &[(u16, u16)]| {
        let mut v = vec![2, 1];
        v.extend(free.to_le_bytes());
        v.resize(16, 0);
        for (at, n) in runs {
            v.extend(at.to_le_bytes());
            v.extend(n.to_le_bytes());
        }
        v
    };
    assert_eq!(refused(&runs(3, &[(0, 1), (2, 2)]), AG, 0), None);
    let bad: &[(Vec<u8>, u64, u64, &str)] = &[
        (runs(3, &[(0, 1), (2, 2)]), AG, 32, "no such group"),
        (runs(2, &[(0, 1), (2, 2)]), AG, 0, "number of free blocks"),
        (runs(3, &[(0, 1), (1, 2)]), AG, 0, "free run"),
        (runs(3, &[(2, 2), (0, 1)]), AG, 0, "free run"),
        (runs(0, &[(2, 0)]), AG, 0, "free run"),
        (runs(2, &[(99, 2)]), short, 1, "free run"),
        (runs(2, &[(u16::MAX, 2)]), AG, 0, "free run"),
        (
            runs(100, &[(0, 100)]),
            short,
            1,
            "a free group has a record",
        ),
        (runs(8192, &[(0, 8192)]), AG, 0, "a free group has a record"),
        (runs(0, &[]), AG, 0, "number of free runs"),
        (
            runs(3, &[(0, 3)])[..19].to_vec(),
            AG,
            0,
            "number of free runs",
        ),
        (runs(0, &[])[..15].to_vec(), AG, 0, "cut off"),
        (Vec::new(), AG, 0, "cut off"),
        (vec![0; 16], AG, 0, "number of groups"),
        (full_record(1)[..].repeat(2), AG, 0, "bytes behind"),
        (
            runs(65, &core::array::from_fn::<_, 65, _>(|i| (2 * i as u16, 1))),
            AG,
            0,
            "number of free runs",
        ),
    ];
    for (v, ag_len, g, why) in bad {
        let reason = refused(v, *ag_len, *g).unwrap_or_else(|| panic!("{why}: accepted"));
        assert!(reason.contains(why), "{why}: {reason}");
    }
    let bitmap = |n: u32| group_bytes(&used((0..n).map(|i| (2 * i + 1, 1))), GROUP).1;
    let good = bitmap(64);
    assert_eq!(refused(&good, AG, 0), None);
    let change = |f: &dyn Fn(&mut Vec<u8>), why: &str| {
        let mut v = good.clone();
        f(&mut v);
        let reason = refused(&v, AG, 0).unwrap_or_else(|| panic!("{why}: accepted"));
        assert!(reason.contains(why), "{why}: {reason}");
    };
    change(&|v| v[0] = 4, "mirrors");
    change(&|v| v[0] = 5, "unknown form");
    change(&|v| v[1] = 2, "number of groups");
    change(&|v| v[4] = 1, "reserved");
    change(&|v| v[8] = 1, "reserved");
    change(&|v| v[9] = 1, "reserved");
    change(&|v| v[15] = 1, "reserved");
    change(&|v| v[16] ^= 2, "few free runs");
    change(&|v| v[1000] ^= 1, "number of free blocks");
    change(&|v| v.truncate(1039), "length of the bitmap");
    change(&|v| v.push(0), "length of the bitmap");
    change(&|v| v[16..].fill(0xff), "few free runs");
    // Bits past the end of a short group.
    let mut v = group_bytes(&used((0..70).map(|i| (2 * i + 1, 1))), GROUP).1;
    let len = u64::from(GROUP) + 141;
    v[2..4].copy_from_slice(&71u16.to_le_bytes());
    assert_eq!(refused(&v, len, 1), None);
    v[16 + 141 / 8] |= 1 << (141 % 8);
    assert!(refused(&v, len, 1).unwrap().contains("past the end"));
}

/// Every flipped bit of a record is refused, or says something else.
#[test]
fn every_flipped_bit_shows() {
    let ag = ag_bytes(&AgRecord {
        groups: RootForm::Inline(b"items"),
        // With a section behind it, another length of the first one may be right.
        shared: RootForm::Empty,
        ..full_ag()
    });
    let groups = [
        full_record(7).to_vec(),
        group_bytes(&used([(0, 3), (10, 100), (5000, 9)]), GROUP).1,
        group_bytes(&used((0..90).map(|i| (3 * i + 1, 1))), GROUP).1,
    ];
    let flipped = |v: &[u8], bit: usize| {
        let mut v = v.to_vec();
        v[bit / 8] ^= 1 << (bit % 8);
        v
    };
    let good = AgRecord::parse(AG, &ag).unwrap();
    let mut accepted = Vec::new();
    for bit in 0..8 * ag.len() {
        let v = flipped(&ag, bit);
        let read = AgRecord::parse(AG, &v).ok();
        assert!(read != Some(good), "bit {bit}");
        accepted.extend(read.map(|_| bit));
    }
    // What can also be true: numbers of free blocks, classes up to that of a group, flags, generations,
    // the items of the tree, and sections that are kept. All else is refused.
    let can = |bit: &usize| match bit / 8 {
        0..=4 => true,
        5 => [1, 4].contains(&(1 << (bit % 8))),
        16..=23 => true,
        // The items of the inline tree, and what a section has that is kept.
        36..=40 => true,
        41.. => true,
        _ => false,
    };
    let wrong: Vec<&usize> = accepted.iter().filter(|b| !can(b)).collect();
    assert_eq!(wrong, [&0; 0]);
    // Of full groups the number can be another one, and of runs the start. All else changes the number of
    // free blocks.
    let can: [fn(usize) -> bool; 3] = [|at| at == 1, |at| at >= 16 && at % 4 < 2, |_| false];
    for (g, can) in groups.iter().zip(can) {
        let good = GroupRecord::parse(AG, 4, g).unwrap();
        for bit in 0..8 * g.len() {
            let v = flipped(g, bit);
            let read = GroupRecord::parse(AG, 4, &v).ok();
            assert!(read != Some(good), "bit {bit}");
            assert!(read.is_none() || can(bit / 8), "bit {bit}: {read:?}");
        }
    }
}
