// SPDX-License-Identifier: GPL-2.0

//! Extent records, and what the format has and this version does not use: snapshots, dead and shared
//! blocks, quotas, four kinds of log records. Their bytes, what is refused and why, flipped bits;
//! and that a mount refuses a filesystem that uses them by name, and writes nothing.

mod common;

use common::log::*;
use common::make;
use kernel::error::code::{EINVAL, EOPNOTSUPP};
use kernel::prelude::{KVVec, KVec};
use ordofs_engine::engine::format::dead::{self, DeadKey, DeadRecord};
use ordofs_engine::engine::format::extent::{Extent, MAX_BLOCKS, MAX_CSUM_BLOCKS};
use ordofs_engine::engine::format::quota::{Account, QuotaKey, QuotaRecord};
use ordofs_engine::engine::format::shared::{Order, SharedRecord};
use ordofs_engine::engine::format::snapshot::{
    name_is_good, SnapshotRecord, ABANDONED, BOOKMARK, DELETED,
};
use ordofs_engine::engine::format::{NodePtr, Superblock, MAX_EPOCH};
use ordofs_engine::engine::log::record::{decode, FilePlace, Record, MAX_BYTES};
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Time;

/// Blocks of the device in these tests.
const DEVICE: u64 = 1 << 40;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let pairs = digits.chunks_exact(2);
    pairs.map(|p| (p[0] << 4 | p[1]) as u8).collect()
}

fn flipped(v: &[u8], bit: usize) -> Vec<u8> {
    let mut v = v.to_vec();
    v[bit / 8] ^= 1 << (bit % 8);
    v
}

/// What each of these changes of a record makes `parse` say.
fn refused(
    good: &[u8],
    parse: impl Fn(&[u8]) -> Option<&'static str>,
    changes: &[(&dyn Fn(&mut Vec<u8>), &str)],
) {
    assert_eq!(parse(good), None);
    for (i, (change, why)) in changes.iter().enumerate() {
        let mut v = good.to_vec();
        change(&mut v);
        let reason = parse(&v).unwrap_or_else(|| panic!("change {i} was accepted"));
        assert!(reason.contains(why), "change {i}: {reason}");
    }
    // Any length but its own, and nonsense, must not panic either.
    for n in 0..good.len() {
        assert!(parse(&good[..n]).is_some(), "{n} bytes");
    }
    let mut x = 88172645463325252u64;
    for _ in 0..20_000 {
        let mut v = good.to_vec();
        for _ in 0..4 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let at = x as usize % v.len();
            v[at] = (x >> 32) as u8;
        }
        parse(&v);
    }
}

fn extent_bytes(e: &Extent, csums: &[u8]) -> Vec<u8> {
    let mut v = KVec::new();
    e.encode(csums, &mut v).unwrap();
    v.to_vec()
}

const WRITTEN: Extent = Extent {
    start: 0x100,
    phys: 0x01_0203_0405,
    len: 2,
    unwritten: false,
    csums: true,
    epoch: 0x0304_0506 & MAX_EPOCH,
};

#[test]
fn the_bytes_of_an_extent() {
    let golden = hex("0504030201000000 02000000 02 00 0000 06050403 00000000 a1a2a3a4 b1b2b3b4");
    assert_eq!(extent_bytes(&WRITTEN, &golden[24..]), golden);
    assert_eq!(Extent::parse(0x100, &golden, DEVICE).unwrap(), WRITTEN);
    let unwritten = Extent {
        len: MAX_BLOCKS,
        unwritten: true,
        csums: false,
        epoch: 1,
        ..WRITTEN
    };
    let golden = hex("0504030201000000 00000400 01 00 0000 01000000 00000000");
    assert_eq!(extent_bytes(&unwritten, &[]), golden);
    assert_eq!(Extent::parse(0x100, &golden, DEVICE).unwrap(), unwritten);
    // The longest one with checksums, and one block more.
    for (len, good) in [(MAX_CSUM_BLOCKS, true), (MAX_CSUM_BLOCKS + 1, false)] {
        let e = Extent { len, ..WRITTEN };
        let v = extent_bytes(&e, &vec![7; 4 * len as usize]);
        assert_eq!(Extent::parse(0x100, &v, DEVICE).ok(), good.then_some(e));
    }
}

#[test]
fn an_impossible_extent_is_refused() {
    let good = extent_bytes(&WRITTEN, &[1; 8]);
    let parse = |v: &[u8]| Extent::parse(0x100, v, DEVICE).err();
    let changes: &[(&dyn Fn(&mut Vec<u8>), &str)] = &[
        (&|v| v[7] = 1, "beyond the end"),
        (&|v| v[8] = 0, "length"),
        (&|v| v[8] = 1, "length of the record"),
        (&|v| v[8] = 3, "length of the record"),
        (&|v| v[11] = 1, "length"),
        (&|v| v[12] = 0, "neither"),
        (&|v| v[12] = 1, "length of the record"),
        (&|v| v[12] = 3, "both"),
        (&|v| v[12] |= 4, "compression"),
        (&|v| v[12] |= 8, "encryption"),
        (&|v| v[12] |= 16, "flags"),
        (&|v| v[13] = 1, "reserved"),
        (&|v| v[15] = 1, "reserved"),
        (&|v| v[16..20].fill(0), "epoch"),
        (&|v| v[19] = 4, "epoch"),
        (&|v| v[20] = 1, "reserved"),
        (&|v| v[23] = 1, "reserved"),
        (&|v| v.push(0), "length of the record"),
    ];
    refused(&good, parse, changes);
    let long = Extent {
        len: MAX_BLOCKS + 1,
        unwritten: true,
        csums: false,
        ..WRITTEN
    };
    assert!(Extent::parse(0, &extent_bytes(&long, &[]), DEVICE).is_err());
    assert!(Extent::parse((1 << 51) - 1, &good, DEVICE).is_err());
    for bit in 0..8 * good.len() {
        let again = Extent::parse(0x100, &flipped(&good, bit), DEVICE).ok();
        assert!(again != Some(WRITTEN) || bit >= 8 * 24, "bit {bit}");
    }
}

fn ptr(addr: u64) -> Option<NodePtr> {
    Some(NodePtr {
        addr,
        addr2: addr + 0x10_0000,
        generation: 9,
        crc: 0xdead_beef,
        level: 2,
    })
}

fn snapshot() -> SnapshotRecord<'static> {
    SnapshotRecord {
        generation: 0x1007_0605_0403_0201,
        time: Time {
            sec: -2,
            nsec: 0x0a0b_0c0d,
        },
        flags: 0,
        used: 0x0001_1415_1617_1819,
        inodes: 0x2021_2223_2425_2627,
        next_ino: 0x3031_3233_3435_3637,
        void: 0x0041_4243,
        back_to: 0,
        inode_root: ptr(0x1234),
        orphan_root: None,
        quota_root: ptr(0x5678),
        cursor: 0,
        name: b"before",
    }
}

fn snapshot_bytes(r: &SnapshotRecord<'_>) -> Vec<u8> {
    let mut v = KVec::new();
    r.encode(&mut v).unwrap();
    v.to_vec()
}

#[test]
fn the_bytes_of_a_snapshot() {
    let golden = hex("
        0102030405060710 feffffffffffffff 0d0c0b0a 00000000
        1918171615140100 2726252423222120 3736353433323130 43424100 00000000
        3412000000000000 3412100000000000 0900000000000000 efbeadde 02000000
        0000000000000000 0000000000000000 0000000000000000 00000000 00000000
        7856000000000000 7856100000000000 0900000000000000 efbeadde 02000000
        0000000000000000 0000000000000000 06 6265666f7265");
    assert_eq!(snapshot_bytes(&snapshot()), golden);
    assert_eq!(
        SnapshotRecord::parse(7, &golden, DEVICE).unwrap(),
        snapshot()
    );
    let others = [
        SnapshotRecord {
            flags: DELETED,
            cursor: 0x5152_5354_5556_5758,
            ..snapshot()
        },
        SnapshotRecord {
            flags: ABANDONED,
            back_to: 6,
            void: 0,
            cursor: 1,
            name: &[b'x'; 255],
            ..snapshot()
        },
        SnapshotRecord {
            flags: BOOKMARK,
            void: 0,
            inode_root: None,
            quota_root: None,
            ..snapshot()
        },
    ];
    for rec in others {
        let v = snapshot_bytes(&rec);
        assert_eq!(SnapshotRecord::parse(7, &v, DEVICE).unwrap(), rec);
    }
    let v = snapshot_bytes(&others[0]);
    assert_eq!(v[152..160], hex("5857565554535251"));
    assert_eq!(snapshot_bytes(&others[1])[52..56], [6, 0, 0, 0]);
}

#[test]
fn an_impossible_snapshot_is_refused() {
    let good = snapshot_bytes(&snapshot());
    let parse = |v: &[u8]| SnapshotRecord::parse(7, v, DEVICE).err();
    let changes: &[(&dyn Fn(&mut Vec<u8>), &str)] = &[
        (&|v| v[..8].fill(0), "generation"),
        (&|v| v[7] = 0x80, "generation"),
        (&|v| v[19] = 0xff, "time"),
        (&|v| v[20] = 3, "flags"),
        (&|v| v[20] = 8, "flags"),
        (&|v| v[31] = 1, "number of blocks"),
        (&|v| v[32..40].fill(0), "number of inodes"),
        (&|v| v[47] = 1, "number of inodes"),
        (&|v| v[47] = 0xff, "number of inodes"),
        (&|v| v[48..52].copy_from_slice(&[7, 0, 0, 0]), "void"),
        (&|v| v[51] = 4, "void"),
        (&|v| v[52] = 1, "rollback"),
        (&|v| v[20] = 4, "void"),
        (
            &|v| {
                v[48..52].fill(0);
                (v[20], v[52]) = (4, 7);
            },
            "rollback",
        ),
        (&|v| v[56..88].fill(0), "without an inode tree"),
        (&|v| v[20] = 2, "void"),
        (
            &|v| {
                v[20] = 2;
                v[48..52].fill(0);
            },
            "bookmark with one",
        ),
        (
            &|v| {
                v[20] = 2;
                v[48..52].fill(0);
                v[56..88].fill(0);
            },
            "bookmark with a tree",
        ),
        (&|v| v[56..58].fill(0), "malformed root"),
        (&|v| v[61] = 2, "impossible root"),
        (&|v| v[69] = 2, "impossible root"),
        (&|v| v[79] = 0x11, "impossible root"),
        (&|v| v[85] = 1, "malformed root"),
        (&|v| v[152] = 1, "nothing has begun"),
        (&|v| v[160] = 1, "filesets"),
        (&|v| v[168] = 5, "length of the name"),
        (&|v| v[170] = b'/', "name"),
        (&|v| v[170] = 0, "name"),
        (&|v| v[170] = 0xff, "name"),
    ];
    refused(&good, parse, changes);
    for key in [0, u64::from(MAX_EPOCH) + 1, u64::MAX] {
        assert!(SnapshotRecord::parse(key, &good, DEVICE).is_err());
    }
    for bit in 0..8 * good.len() {
        let v = flipped(&good, bit);
        let again = SnapshotRecord::parse(7, &v, DEVICE).ok();
        assert!(again != Some(snapshot()), "bit {bit}");
    }
    assert!(!name_is_good(b"") && !name_is_good(&[b'x'; 256]));
}

const DEATH: DeadKey = DeadKey {
    death: 0x03f1_f2f3,
    oldest: 0x0142_4344,
    sequence: 0x0567,
};

#[test]
fn the_bytes_of_a_dead_record() {
    assert_eq!(DEATH.to_u64(), 0xfc7c_bcd4_2434_4567);
    assert_eq!(DeadKey::parse(DEATH.to_u64()), Some(DEATH));
    let mut v = KVec::new();
    let runs = [(0x01_0203_0405, 0x11), (0x2000, 0x0203_0400)];
    dead::encode(&runs, &mut v).unwrap();
    let golden = hex("11040302 02000000 0504030201000000 11000000 0020000000000000 00040302");
    assert_eq!(v.to_vec(), golden);
    let rec = DeadRecord::parse(DEATH.to_u64(), &golden, DEVICE).unwrap();
    assert_eq!((rec.key, rec.blocks), (DEATH, 0x0203_0411));
    assert!(rec.runs().eq(runs));
    for (n, good) in [(0, false), (100, true), (101, false)] {
        let runs = vec![(300, 1); n];
        assert_eq!(dead::encode(&runs, &mut v).is_ok(), good, "{n} runs");
    }
    assert!(dead::encode(&[(300, u32::MAX), (300, 1)], &mut v).is_err());
}

#[test]
fn an_impossible_dead_record_is_refused() {
    let mut v = KVec::new();
    dead::encode(&[(1000, 5), (2000, 6)], &mut v).unwrap();
    let good = v.to_vec();
    let key = DEATH.to_u64();
    let parse = |v: &[u8]| DeadRecord::parse(key, v, DEVICE).err();
    let changes: &[(&dyn Fn(&mut Vec<u8>), &str)] = &[
        (&|v| v[0] = 12, "number of blocks"),
        (&|v| v[4] = 0, "number of runs"),
        (&|v| v[4] = 1, "number of runs"),
        (&|v| v[4] = 3, "number of runs"),
        (&|v| v[7] = 0xff, "number of runs"),
        (&|v| v[15] = 1, "beyond the end"),
        (&|v| (v[0], v[16]) = (6, 0), "empty"),
        (&|v| v[28] = 7, "number of blocks"),
        (&|v| v.push(0), "number of runs"),
    ];
    refused(&good, parse, changes);
    let with = |death, oldest| DeadKey {
        death,
        oldest,
        sequence: 0,
    };
    for (death, oldest) in [(0, 0), (1, 0), (1, 1), (5, 5), (5, 6)] {
        let key = with(death, oldest).to_u64();
        assert!(DeadRecord::parse(key, &good, DEVICE).is_err());
    }
    for bit in 0..64 {
        let other = DeadKey::parse(key ^ 1 << bit);
        assert!(other != Some(DEATH), "bit {bit}");
        assert!(other.is_none_or(|k| k.to_u64() == key ^ 1 << bit));
    }
}

#[test]
fn shared_records() {
    const AG: u64 = 1 << 18;
    let rec = SharedRecord {
        blocks: 0x0102_0304 & 0x3ffff,
        extra: 0x1112_1314,
    };
    let golden = hex("04030200 14131211");
    assert_eq!(rec.to_bytes(), golden[..]);
    assert_eq!(SharedRecord::parse(AG, 5, &golden), Ok(rec));
    let changes: &[(&dyn Fn(&mut Vec<u8>), &str)] = &[
        (&|v| v[..3].fill(0), "number of blocks"),
        (&|v| v[2] = 4, "number of blocks"),
        (&|v| v[3] = 1, "number of blocks"),
        (&|v| v[4..].fill(0), "no extra"),
        (&|v| v.push(0), "length"),
    ];
    let parse = |v: &[u8]| SharedRecord::parse(AG, 5, v).err();
    refused(&golden, parse, changes);
    for (key, good) in [
        (AG - 0x2_0304, true),
        (AG - 0x2_0303, false),
        (u64::MAX, false),
    ] {
        assert_eq!(SharedRecord::parse(AG, key, &golden).is_ok(), good);
    }
    let run = |blocks, extra| SharedRecord { blocks, extra };
    let all = |records: &[(u64, SharedRecord)]| {
        let mut order = Order::default();
        records.iter().try_for_each(|(k, r)| order.check(*k, *r))
    };
    let good = [
        (0, run(3, 1)),
        (3, run(1, 2)),
        (5, run(2, 2)),
        (7, run(9, 1)),
    ];
    assert_eq!(all(&good), Ok(()));
    assert!(all(&[(0, run(3, 1)), (2, run(3, 2))]).is_err());
    assert!(all(&[(0, run(3, 1)), (3, run(3, 1))]).is_err());
}

#[test]
fn quota_records() {
    let owner = QuotaKey::Owner {
        kind: 2,
        id: 0x0102_0304,
    };
    let settings = QuotaKey::Settings { kind: 1 };
    assert_eq!(owner.to_u64(), 0x0000_0002_0102_0304);
    assert_eq!(settings.to_u64(), 0x0000_0003_0000_0001);
    for key in [owner, settings] {
        assert_eq!(QuotaKey::parse(key.to_u64()), Some(key));
    }
    for key in [
        0xffff_ffff,
        3 << 32 | 3,
        4 << 32,
        3 << 32 | 1 << 31,
        u64::MAX,
    ] {
        assert_eq!(QuotaKey::parse(key), None, "{key:#x}");
    }
    let account = |n: u64| Account {
        used: 0x0001_0203_0405_0600 + n,
        hard: 0x0001_0203_0405_1600 + n,
        soft: 0x0001_0203_0405_2600 + n,
        grace_end: 0x0001_0203_0405_3600 + n,
    };
    let rec = QuotaRecord::Owner {
        blocks: account(1),
        inodes: account(2),
    };
    let golden = hex("
        0106050403020100 0206050403020100 0116050403020100 0126050403020100
        0216050403020100 0226050403020100 0136050403020100 0236050403020100
        00000000000000000000000000000000");
    assert_eq!(rec.to_bytes(), golden[..]);
    assert_eq!(QuotaRecord::parse(owner.to_u64(), &golden), Ok(rec));
    let parse = |v: &[u8]| QuotaRecord::parse(owner.to_u64(), v).err();
    let changes: &[(&dyn Fn(&mut Vec<u8>), &str)] = &[
        (&|v| v[7] = 0x41, "number of blocks"),
        (&|v| v[15] = 0x7f, "number of blocks"),
        (&|v| v[23] = 0x41, "number of blocks"),
        (&|v| v[55] = 0x80, "grace"),
        (&|v| v[64] = 1, "reserved"),
        (&|v| v[79] = 1, "reserved"),
        (&|v| v.push(0), "length"),
    ];
    refused(&golden, parse, changes);
    for bit in 0..8 * golden.len() {
        let v = flipped(&golden, bit);
        assert!(
            QuotaRecord::parse(owner.to_u64(), &v) != Ok(rec),
            "bit {bit}"
        );
    }
    let rec = QuotaRecord::Settings {
        flags: 1,
        block_grace: 0x1112_1314,
        inode_grace: 0x2122_2324,
    };
    let mut golden = vec![0; 64];
    golden.extend(hex("01000000 14131211 24232221 00000000"));
    assert_eq!(rec.to_bytes(), golden[..]);
    assert_eq!(QuotaRecord::parse(settings.to_u64(), &golden), Ok(rec));
    let parse = |v: &[u8]| QuotaRecord::parse(settings.to_u64(), v).err();
    let changes: &[(&dyn Fn(&mut Vec<u8>), &str)] = &[
        (&|v| v[0] = 1, "reserved"),
        (&|v| v[63] = 1, "reserved"),
        (&|v| v[64] = 2, "flags"),
        (&|v| v[76] = 1, "reserved"),
    ];
    refused(&golden, parse, changes);
}

fn place(ino: u64, start: u64) -> FilePlace {
    FilePlace { ino, start }
}

/// One record of each kind that this version does not write.
fn later_records() -> [(Record<'static>, &'static str); 4] {
    let bytes = Record::Bytes {
        ino: 0x0102,
        offset: 0x1112,
        size: 0x2122,
        data: b"data",
    };
    let share = Record::Share {
        from: place(0x0102, 0x1112),
        to: place(0x2122, 0x3132),
        len: 0x4142,
        size: 0x5152,
    };
    let shift = Record::Shift {
        ino: 0x0102,
        start: 0x1112,
        len: 0x2122,
        insert: true,
    };
    let swap = Record::Swap {
        one: place(0x0102, 0x1112),
        other: place(0x2122, 0x3132),
        len: 0x4142,
    };
    [
        (
            bytes,
            "0c 0201000000000000 1211000000000000 2221000000000000 64617461",
        ),
        (
            share,
            "0d 0201000000000000 1211000000000000 2221000000000000 3231000000000000
            4241000000000000 5251000000000000",
        ),
        (
            shift,
            "0e 0201000000000000 1211000000000000 2221000000000000 01000000",
        ),
        (
            swap,
            "0f 0201000000000000 1211000000000000 2221000000000000 3231000000000000
            4241000000000000",
        ),
    ]
}

fn log_bytes(r: &Record<'_>, generation: u64) -> Vec<u8> {
    let mut v = KVVec::new();
    let time = Time { sec: -2, nsec: 5 };
    r.append(&mut v, generation, time).unwrap();
    v.as_slice().to_vec()
}

#[test]
fn the_bytes_of_later_log_records() {
    for (rec, golden) in later_records() {
        let golden = hex(golden);
        let (kind, body) = (golden[0], &golden[1..]);
        let mut want = hex("00000000 00000000 0807060504030201 feffffffffffffff 05000000 00000000");
        want.extend(body);
        want[0] = want.len() as u8;
        want[4] = kind;
        let bytes = log_bytes(&rec, 0x0102_0304_0506_0708);
        assert_eq!(bytes, want, "kind {kind}");
        let (again, rest) = decode(&bytes).expect("it can be decoded");
        assert!(rest.is_empty() && again.record.unsupported().is_some());
        assert_eq!(log_bytes(&again.record, again.generation), bytes);
        // A byte more is no body of any of these; bytes has its length from the record.
        let mut long = bytes.clone();
        long.push(0);
        long[0] += 1;
        assert_eq!(decode(&long).is_some(), kind == 12);
        for n in 0..bytes.len() {
            assert!(decode(&bytes[..n]).is_none());
            let mut short = bytes[..n].to_vec();
            if n >= 32 {
                short[0] = n as u8;
                assert_eq!(decode(&short).is_some(), kind == 12 && n > bytes.len() - 4);
            }
        }
    }
    let mut unknown = log_bytes(&later_records()[3].0, 1);
    unknown[4] = 16;
    assert!(decode(&unknown).is_none());
}

#[test]
fn impossible_later_log_records() {
    let far = 1 << 51;
    let bytes = |ino, offset, size, data| Record::Bytes {
        ino,
        offset,
        size,
        data,
    };
    let share = |from, to, len, size| Record::Share {
        from,
        to,
        len,
        size,
    };
    let shift = |ino, start, len| Record::Shift {
        ino,
        start,
        len,
        insert: false,
    };
    let swap = |one, other, len| Record::Swap { one, other, len };
    let long = [0; MAX_BYTES + 1];
    let cases = [
        (bytes(1, 5, 8, &long[..3]), true),
        (bytes(1, 5, 8, &long[..4]), false),
        (bytes(1, 0, 1 << 20, &long[1..]), true),
        (bytes(1, 0, 1 << 20, &long), false),
        (bytes(1, 0, 1 << 20, &[]), false),
        (bytes(0, 0, 8, &long[..3]), false),
        (bytes(1 << 62, 0, 8, &long[..3]), false),
        (bytes(1, u64::MAX, 8, &long[..3]), false),
        (bytes(1, 0, 1 << 63, &long[..3]), false),
        (share(place(1, 0), place(2, far - 5), 5, 0), true),
        (share(place(1, 0), place(2, far - 4), 5, 0), false),
        (share(place(1, far - 4), place(2, 0), 5, 0), false),
        (share(place(1, 0), place(2, 0), 0, 0), false),
        (share(place(1, 0), place(2, 0), 5, 1 << 63), false),
        (share(place(0, 0), place(2, 0), 5, 0), false),
        (share(place(1, 0), place(1, 5), 5, 0), true),
        (share(place(1, 0), place(1, 4), 5, 0), false),
        (share(place(1, 4), place(1, 0), 5, 0), false),
        (shift(1, far - 5, 5), true),
        (shift(1, far - 4, 5), false),
        (shift(1, 0, 0), false),
        (shift(0, 0, 5), false),
        (shift(1, u64::MAX, u64::MAX), false),
        (swap(place(1, 5), place(1, 0), 5), true),
        (swap(place(1, 5), place(1, 1), 5), false),
        (swap(place(1, far), place(2, 0), 5), false),
        (swap(place(1, 0), place(1 << 62, 0), 5), false),
    ];
    for (i, (rec, good)) in cases.iter().enumerate() {
        assert_eq!(decode(&log_bytes(rec, 1)).is_some(), *good, "case {i}");
    }
    let mut direction = log_bytes(&shift(1, 0, 5), 1);
    direction[56] = 2;
    assert!(decode(&direction).is_none());
}

/// The mount is refused for this reason, for reading too, and writes nothing.
fn refuses(disk: &MemDisk, error: kernel::error::Error, why: &str) {
    kernel::print::set_level(kernel::print::SILENT);
    let before = disk.image();
    for opts in [MountOptions::default(), read_only(true)] {
        let e = Fs::mount(disk.device(), opts).err();
        let e = e.unwrap_or_else(|| panic!("{why}: mounted"));
        assert_eq!(e.error, error, "{why}");
        assert!(e.reason.contains(why), "{}", e.reason);
    }
    assert!(disk.image() == before, "{why}: something was written");
}

#[test]
fn a_filesystem_that_uses_more_is_refused_by_name() {
    let disk = make(1 << 14);
    type Change = fn(&mut Superblock);
    let cases: [(Change, &str); 6] = [
        (
            |sb| sb.snapshot_root = sb.orphan_root.or(sb.inode_root),
            "snapshots",
        ),
        (
            |sb| {
                sb.snapshot_root = sb.inode_root;
                sb.dead_root = sb.inode_root;
                sb.dead_blocks = 1;
            },
            "snapshots",
        ),
        (|sb| sb.quota_root = sb.inode_root, "quotas"),
        (|sb| sb.free_slots = 1, "pairs of groups"),
        (|sb| sb.log2_start = 5000, "second log"),
        (|sb| sb.casefold = 0x0002_0001, "case-insensitive"),
    ];
    for (change, why) in cases {
        let disk = disk.fork();
        let mut sb = (*superblock(&disk)).clone();
        change(&mut sb);
        sb.write(&disk.device()).unwrap();
        refuses(&disk, EINVAL, why);
    }
}

#[test]
fn a_log_that_has_more_is_refused_by_name() {
    let disk = make(1 << 14);
    let fs = common::mount(&disk);
    synced(&disk, &fs, b"f", 1);
    let at = batches(&disk)[0];
    for (rec, _) in later_records() {
        let d = disk.fork();
        forge(&d, at, at, |b| {
            b[FLAGS] = 1;
            let records = log_bytes(&rec, superblock(&disk).generation + 1);
            let end = HEADER + u32_at(b, LEN) as usize;
            b[end..end + records.len()].copy_from_slice(&records);
            let len = (end - HEADER + records.len()) as u32;
            b[LEN..LEN + 4].copy_from_slice(&len.to_le_bytes());
        });
        refuses(&d, EOPNOTSUPP, "cannot replay");
        // Without the log it can be read.
        let fs = Fs::mount(d.device(), read_only(false)).expect("norecovery");
        assert!(names(&fs).is_empty());
    }
}

/// A record from an epoch to come belongs to no snapshot: no filesystem has one.
#[test]
fn an_epoch_to_come_is_refused() {
    let disk = make(1 << 14);
    let sb = superblock(&disk);
    let e = Extent {
        phys: 10_000,
        epoch: sb.epoch,
        ..WRITTEN
    };
    let later = Extent {
        epoch: sb.epoch + 1,
        ..e
    };
    let parse = |e| Extent::parse(0x100, &extent_bytes(e, &[1; 8]), &*sb);
    assert_eq!(parse(&e), Ok(e));
    assert_eq!(parse(&later), Err("impossible epoch"));
}

/// What a mount keeps: the epoch of new records, the places of the searches, the wish for a repair.
#[test]
fn the_superblock_is_carried_on() {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(1 << 17);
    let mut sb = (*superblock(&disk)).clone();
    (sb.epoch, sb.state) = (77, sb.state | 2);
    sb.data_goal = sb.ag_blocks;
    sb.write(&disk.device()).unwrap();
    let fs = common::mount(&disk);
    synced(&disk, &fs, b"f", 1);
    let root = fs.iget(fs.root_ino()).unwrap();
    let new = common::file(S_IFDIR | 0o755);
    let d = fs.create(&root, b"d", &new).unwrap();
    assert_eq!(d.attrs().home_ag, 1, "its home is where the search starts");
    fs.iput(d);
    fs.iput(root);
    fs.unmount().unwrap();
    let again = superblock(&disk);
    assert_eq!((again.epoch, again.state & 2), (77, 2));
    assert_eq!(again.data_goal, 2 * sb.ag_blocks);
    assert!(again.node_goal > 0 && again.node_goal < again.blocks);
}
