// SPDX-License-Identifier: GPL-2.0

//! The bytes of a batch's header, what decoding refuses, and each single bit of it; and what is no
//! record.

mod common;

use common::log::*;
use kernel::prelude::KVVec;
use ordofs_engine::engine::log::header::{self, blocks_of, decode, encode, nearly, Batch};
use ordofs_engine::engine::log::record::{self, Record};
use ordofs_engine::engine::Attrs;
use ordofs_engine::os::Time;

const NODE_ID: u64 = 0x1122_3344_5566_7788;

const BATCH: Batch = Batch {
    pos: 0x0102_0304_0506,
    seq: 0x0a0b_0c0d_0e0f,
    flushed: 0x0a0b_0c0d_0e0e,
    generation: 0x2122_2324,
    data_durable: true,
};

const PAYLOAD: &[u8] = b"123456789";

/// docs/FORMAT.md §11, byte by byte: each checksum is that of CRC-32C over the bytes that it covers.
const GOLDEN: &str = "\
    4f52444c c9590e82 8877665544332211 0f0e0d0c0b0a0000 \
    0605040302010000 0e0e0d0c0b0a0000 09000000 01000000 \
    2423222100000000 f658fe22 00000000";

fn hex(b: &[u8]) -> String {
    b.iter().map(|x| format!("{x:02x}")).collect()
}

#[test]
fn a_header_has_these_bytes() {
    let h = encode(BATCH, NODE_ID, PAYLOAD).expect("it fits");
    assert_eq!(hex(&h), GOLDEN.replace(' ', ""));
    let read = decode(&h, NODE_ID, BATCH.pos).expect("whole");
    assert_eq!((read.batch, read.len), (BATCH, PAYLOAD.len()));
    assert!(read.fits(PAYLOAD) && !read.fits(b"123456788") && !read.fits(b""));
    assert_eq!(read.next(), (BATCH.pos + 1, BATCH.seq + 1));
}

/// Every bit but those of the payload's checksum matters for the header itself; each of those makes
/// the payload wrong.
#[test]
fn each_bit_of_a_header_counts() {
    let h = encode(BATCH, NODE_ID, PAYLOAD).unwrap();
    assert!(nearly(&h, NODE_ID, BATCH.pos, BATCH.seq));
    for bit in 0..8 * HEADER {
        let mut bad = h;
        bad[bit / 8] ^= 1 << (bit % 8);
        let read = decode(&bad, NODE_ID, BATCH.pos);
        if (SUM..SUM + 4).contains(&(bit / 8)) {
            assert!(!read.expect("whole").fits(PAYLOAD), "bit {bit}");
        } else {
            assert!(read.is_none(), "bit {bit}");
        }
        assert!(nearly(&bad, NODE_ID, BATCH.pos, BATCH.seq), "bit {bit}");
        // Another batch, or another place, is not nearly this one.
        assert!(
            !nearly(&bad, NODE_ID, BATCH.pos, BATCH.seq + 2),
            "bit {bit}"
        );
        assert!(
            !nearly(&bad, NODE_ID, BATCH.pos + 256, BATCH.seq),
            "bit {bit}"
        );
        for second in 0..8 * HEADER {
            if second == bit || (32..64).contains(&second) || (32..64).contains(&bit) {
                continue;
            }
            let mut worse = bad;
            worse[second / 8] ^= 1 << (second % 8);
            let read = decode(&worse, NODE_ID, BATCH.pos);
            assert!(read.is_none(), "bits {bit} and {second}");
            assert!(!nearly(&worse, NODE_ID, BATCH.pos, BATCH.seq));
        }
    }
    for n in 0..HEADER {
        assert!(decode(&h[..n], NODE_ID, BATCH.pos).is_none());
        assert!(!nearly(&h[..n], NODE_ID, BATCH.pos, BATCH.seq));
    }
}

/// Fields with right checksums that no batch has.
#[test]
fn impossible_headers_are_none() {
    type Change = fn(&mut [u8; SIZE]);
    let cases: [(&str, Change); 8] = [
        ("no payload", |b| b[LEN..LEN + 4].fill(0)),
        ("more than 4 MiB", |b| {
            b[LEN..LEN + 4].copy_from_slice(&(header::MAX_PAYLOAD as u32 + 1).to_le_bytes());
        }),
        ("2^32 - 1 bytes", |b| b[LEN..LEN + 4].fill(0xff)),
        ("unknown flag 2", |b| b[FLAGS] |= 2),
        ("unknown flag 2^31", |b| b[FLAGS + 3] |= 0x80),
        ("flushed itself", |b| {
            b.copy_within(NUMBER..NUMBER + 8, FLUSHED)
        }),
        ("flushed a later one", |b| b[FLUSHED + 7] = 0xff),
        ("not zero", |b| b[ZERO + 3] = 1),
    ];
    let mut good = [0; SIZE];
    good[..HEADER].copy_from_slice(&encode(BATCH, NODE_ID, PAYLOAD).unwrap());
    good[HEADER..HEADER + PAYLOAD.len()].copy_from_slice(PAYLOAD);
    for (what, change) in cases {
        let mut b = good;
        change(&mut b);
        seal(&mut b);
        assert!(decode(&b, NODE_ID, BATCH.pos).is_none(), "{what}");
    }
    seal(&mut good);
    assert!(decode(&good, NODE_ID, BATCH.pos).is_some());
    let full = vec![0; header::MAX_PAYLOAD];
    let h = encode(BATCH, NODE_ID, &full).expect("just fits");
    let read = decode(&h, NODE_ID, BATCH.pos).expect("whole");
    assert!(read.fits(&full));
    assert_eq!(blocks_of(read.len), 1025);
}

/// Bytes that a record does not have, in it or behind it, make it none.
#[test]
fn a_record_is_its_fields_and_no_more() {
    let attrs = Attrs::default();
    let (name, target) = (&b"name"[..], &[][..]);
    let (ino, dir, bytes) = (7, 2, 4096);
    let all = [
        Record::Create {
            dir,
            ino,
            attrs,
            name,
            target,
        },
        Record::Link { dir, ino, name },
        Record::Unlink { dir, ino, name },
        Record::Rename {
            old_dir: dir,
            new_dir: dir,
            ino,
            target: 0,
            exchange: true,
            old_name: name,
            new_name: name,
        },
        Record::Attrs { ino, attrs },
        Record::Size { ino, bytes },
        Record::Grow { ino, bytes },
        Record::Punch {
            ino,
            start: 1,
            len: 2,
        },
        Record::Preallocate {
            ino,
            start: 1,
            phys: 600,
            len: 2,
        },
        Record::Write {
            ino,
            start: 1,
            phys: 600,
            csums: &[0; 8],
        },
        Record::Xattr {
            ino,
            index: 1,
            name,
            value: Some(b"value"),
        },
        Record::Xattr {
            ino,
            index: 1,
            name,
            value: None,
        },
    ];
    for (n, r) in all.iter().enumerate() {
        let mut out = KVVec::new();
        let time = Time { sec: 5, nsec: 6 };
        r.append(&mut out, 9, time).unwrap();
        let good = out.to_vec();
        let decoded = record::decode(&good).expect("a record");
        assert!(decoded.1.is_empty());
        assert_eq!((decoded.0.generation, decoded.0.time), (9, time), "{n}");
        for at in [5, 6, 7, 28, 29, 30, 31] {
            let mut bad = good.clone();
            bad[at] = 1;
            assert!(record::decode(&bad).is_none(), "record {n}, byte {at}");
        }
        for more in [1, 2, 3] {
            let mut bad = good.clone();
            bad.resize(good.len() + more, 0);
            let len = bad.len() as u32;
            bad[..4].copy_from_slice(&len.to_le_bytes());
            assert!(record::decode(&bad).is_none(), "record {n}, {more} more");
        }
        for len in 0..good.len() {
            let mut bad = good.clone();
            bad[..4].copy_from_slice(&(len as u32).to_le_bytes());
            // A record of a write is shorter with fewer checksums.
            let fewer = matches!(r, Record::Write { .. }) && len + 4 == good.len();
            assert_eq!(record::decode(&bad).is_some(), fewer, "record {n}, {len}");
        }
        if matches!(r, Record::Rename { .. }) {
            let mut bad = good;
            bad[64] = 2;
            assert!(record::decode(&bad).is_none(), "exchange");
        }
    }
}
