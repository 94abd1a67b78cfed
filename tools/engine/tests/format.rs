// SPDX-License-Identifier: GPL-2.0

//! Superblocks: what is written is read, what is damaged is refused with a reason, the newest wins.

use kernel::prelude::{EINVAL, EUCLEAN};
use ordofs_engine::engine::format::superblock::{ag_geometry, log_length, SPARE_ROOTS};
use ordofs_engine::engine::format::{NodePtr, Superblock, MAX_AGS, MIN_BLOCKS, SB_SLOTS};
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{crc32c, Block, Time};

const BLOCKS: u64 = 300_000;

fn ptr(addr: u64) -> Option<NodePtr> {
    Some(NodePtr {
        addr,
        addr2: 0,
        generation: 1,
        crc: 7,
        level: 1,
    })
}

fn sample(generation: u64) -> Superblock {
    let (ag_count, ag_blocks) = ag_geometry(BLOCKS);
    let mut label = [0; 64];
    label[..7].copy_from_slice("Größe".as_bytes());
    let mut ag_roots = [None; MAX_AGS];
    ag_roots[0] = ptr(9_000);
    Superblock {
        compat: 5,
        ro_compat: 0,
        incompat: 0,
        uuid: *b"0123456789abcdef",
        label,
        hash_key: [1, 2],
        generation,
        blocks: BLOCKS,
        ag_count,
        ag_blocks,
        state: 1,
        log_start: 256,
        log_len: log_length(BLOCKS),
        log_pos: 0,
        log_seq: 0,
        next_ino: 10,
        root_ino: 2,
        inodes: 4,
        free: 100,
        created: Time {
            sec: -5,
            nsec: 999_999_999,
        },
        mounted: Time { sec: 1, nsec: 2 },
        committed: Time { sec: 3, nsec: 4 },
        inode_root: ptr(10_000),
        orphan_root: None,
        spare_roots: [None; SPARE_ROOTS],
        ag_roots,
    }
}

fn block(sb: &Superblock) -> Block {
    let mut b = Block::zeroed().unwrap();
    sb.encode(&mut b);
    b
}

/// Makes the checksum right again.
fn reseal(b: &mut Block) {
    let crc = crc32c(0, &b[12..]);
    b[8..12].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn what_is_written_is_read() {
    let sb = sample(5);
    let again = Superblock::decode(&block(&sb)).unwrap();
    assert_eq!(format!("{sb:?}"), format!("{again:?}"));
    assert_eq!(sb.fsid(), u64::from_le_bytes(*b"01234567"));
    let last = sb.ag_count - 1;
    assert_eq!(sb.ag_start(last) + sb.ag_len(last), BLOCKS);
}

#[test]
fn every_flipped_bit_is_found() {
    let good = block(&sample(5));
    for bit in 0..4096 * 8 {
        let mut b = Block::zeroed().unwrap();
        b.copy_from_slice(&good[..]);
        b[bit / 8] ^= 1 << (bit % 8);
        let error = Superblock::decode(&b).err().expect("refused").error;
        assert_eq!(error, if bit < 64 { EINVAL } else { EUCLEAN });
    }
}

#[test]
fn impossible_fields_are_refused() {
    let check = |change: &dyn Fn(&mut Superblock)| {
        let mut sb = sample(5);
        change(&mut sb);
        Superblock::decode(&block(&sb)).err().map(|r| r.reason)
    };
    assert_eq!(check(&|_| ()), None);
    let changes: &[&dyn Fn(&mut Superblock)] = &[
        &|s| s.generation = 0,
        &|s| s.blocks = MIN_BLOCKS - 1,
        &|s| s.blocks = u64::MAX,
        &|s| s.ag_blocks = 0,
        &|s| s.ag_blocks = u64::MAX,
        &|s| s.ag_blocks += 1,
        &|s| s.ag_count = 0,
        &|s| s.ag_count += 1,
        &|s| s.ag_count = u32::MAX,
        &|s| s.log_start = 255,
        &|s| s.log_start = u64::MAX,
        &|s| s.log_start = BLOCKS - 10,
        &|s| s.log_len = 0,
        &|s| s.log_len = u64::MAX,
        &|s| s.free = BLOCKS + 1,
        &|s| s.root_ino = 0,
        &|s| s.root_ino = 10,
        &|s| s.inodes = 0,
        &|s| s.inodes = u64::MAX,
        &|s| s.state = 2,
        &|s| s.label[0] = 0xff,
        &|s| s.label[63] = b'x',
        &|s| s.created.nsec = 1_000_000_000,
        &|s| s.inode_root = None,
        &|s| s.inode_root = ptr(BLOCKS),
        &|s| s.inode_root = ptr(255),
        &|s| s.orphan_root = ptr(BLOCKS),
        &|s| s.inode_root.as_mut().unwrap().generation = 6,
        &|s| s.inode_root.as_mut().unwrap().level = 13,
        &|s| s.inode_root.as_mut().unwrap().addr2 = BLOCKS,
        &|s| s.spare_roots[3] = ptr(9_000),
        &|s| s.ag_roots[31] = ptr(9_000),
        &|s| s.incompat = 1 << 63,
    ];
    for (i, c) in changes.iter().enumerate() {
        assert!(check(c).is_some(), "change {i} was accepted");
    }
    for (at, what) in [(12, "version"), (16, "block size"), (168, "group size")] {
        let mut b = block(&sample(5));
        b[at] ^= 2;
        reseal(&mut b);
        let reason = Superblock::decode(&b).err().unwrap().reason;
        assert!(reason.contains(what), "{reason}");
    }
    let mut sb = sample(5);
    sb.ro_compat = 4;
    assert!(Superblock::decode(&block(&sb))
        .unwrap()
        .read_only_features());
}

#[test]
fn nonsense_never_panics() {
    let mut x = 1u64;
    let mut rng = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let mut accepted = 0;
    for _ in 0..200_000 {
        let mut b = block(&sample(5));
        for _ in 0..=rng() % 4 {
            let at = 12 + (rng() % 2_000) as usize;
            b[at] = rng() as u8;
        }
        reseal(&mut b);
        if let Ok(sb) = Superblock::decode(&b) {
            accepted += 1;
            let len: u64 = (0..sb.ag_count).map(|i| sb.ag_len(i)).sum();
            assert_eq!(len, sb.blocks);
            assert!(sb.first_free_block() <= sb.blocks);
        }
    }
    assert!(accepted > 0);
}

#[test]
fn the_newest_slot_wins() {
    let disk = MemDisk::new(BLOCKS);
    let dev = disk.device();
    let generation = || {
        Superblock::read(&dev)
            .map(|s| s.generation)
            .map_err(|r| r.reason)
    };
    assert_eq!(Superblock::read(&dev).err().unwrap().error, EINVAL);
    for g in 1..=6 {
        sample(g).write(&dev).unwrap();
        assert_eq!(generation(), Ok(g));
    }
    // Torn: the other one.
    let newest = SB_SLOTS[0];
    disk.corrupt(newest, 2_000, 1);
    assert_eq!(generation(), Ok(5));
    disk.corrupt(SB_SLOTS[1], 2_000, 1);
    assert_eq!(Superblock::read(&dev).err().unwrap().error, EUCLEAN);
    disk.corrupt(newest, 2_000, 1);
    assert_eq!(generation(), Ok(6));
    // Intact but not to be accepted: refused, the older one would undo a commit.
    disk.corrupt(SB_SLOTS[1], 2_000, 1);
    let mut odd = sample(6);
    odd.incompat = 2;
    odd.write(&dev).unwrap();
    assert!(generation().is_err());
    // A copy in the other slot is not taken.
    let mut b = Block::zeroed().unwrap();
    sample(8).encode(&mut b);
    dev.write(&[(SB_SLOTS[1], &b)]).unwrap();
    sample(6).write(&dev).unwrap();
    assert_eq!(generation(), Ok(6));
    // A device that shrank.
    let small = MemDisk::from_image(BLOCKS - 1, disk.image());
    assert!(Superblock::read(&small.device()).is_err());
    assert!(Superblock::read(&MemDisk::new(10).device()).is_err());
}

#[test]
fn geometry_covers_every_size() {
    let mut blocks = MIN_BLOCKS;
    while blocks < 1 << 50 {
        for b in [blocks - 1, blocks, blocks + 1, blocks * 3 / 2]
            .into_iter()
            .filter(|b| *b >= MIN_BLOCKS)
        {
            let (n, each) = ag_geometry(b);
            assert!((1..=MAX_AGS as u32).contains(&n) && each % 8192 == 0);
            assert_eq!(b.div_ceil(each), u64::from(n));
            assert!(256 + log_length(b) < b);
        }
        blocks *= 2;
    }
}
