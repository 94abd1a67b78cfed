// SPDX-License-Identifier: GPL-2.0

//! Superblocks: what is written is read, what is damaged is refused with a reason, the newest wins.

use kernel::prelude::{EFBIG, EINVAL, EUCLEAN};
use ordofs_engine::engine::format::places::{areas, log_place, slot, AREA_BLOCKS};
use ordofs_engine::engine::format::superblock::{ag_geometry, seal, SPARE_ROOTS};
use ordofs_engine::engine::format::{NodePtr, Superblock, MAX_BLOCKS, MAX_EPOCH, MIN_BLOCKS};
use ordofs_engine::engine::volume::mkfs::{format, FormatOptions};
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Block, Time};

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
    Superblock {
        compat: 5,
        ro_compat: 0,
        incompat: 0,
        uuid: *b"0123456789abcdef",
        node_id: 0x0102_0304_0506_0708,
        backed_up: 1_700_000_000,
        label,
        hash_key: [1, 2],
        generation,
        copies: 2,
        blocks: BLOCKS,
        ag_count,
        ag_blocks,
        state: 1,
        log_start: log_place(BLOCKS).0,
        log_len: log_place(BLOCKS).1,
        log_pos: 0,
        log_seq: 0,
        log2_start: 0,
        next_ino: 10,
        root_ino: 2,
        inodes: 4,
        free: 100,
        free_slots: 6,
        dead_blocks: 0,
        epoch: 0x0304_0506 & MAX_EPOCH,
        node_goal: 9_001,
        data_goal: 9_002,
        casefold: 0x0002_000c,
        created: Time {
            sec: -5,
            nsec: 999_999_999,
        },
        mounted: Time { sec: 1, nsec: 2 },
        mounts: 77,
        committed: Time { sec: 3, nsec: 4 },
        inode_root: ptr(10_000),
        ag_root: ptr(9_100),
        deferred_root: ptr(9_200),
        orphan_root: ptr(9_300),
        snapshot_root: None,
        dead_root: None,
        quota_root: None,
        spare_roots: [None; SPARE_ROOTS],
    }
}

fn block(sb: &Superblock) -> Block {
    let mut b = Block::zeroed().unwrap();
    sb.encode(0, &mut b);
    b
}

/// Makes the checksums right again.
fn reseal(b: &mut Block) {
    let generation = u64::from_le_bytes(b[192..200].try_into().unwrap());
    seal(b, generation);
}

#[test]
fn what_is_written_is_read() {
    let sb = sample(5);
    let again = Superblock::decode(&block(&sb)).unwrap();
    assert_eq!(format!("{sb:?}"), format!("{again:?}"));
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
        &|s| s.ag_blocks = 1 << 14,
        &|s| s.ag_blocks = 1 << 19,
        // The number of AGs does not fit.
        &|s| {
            s.blocks = 1 << 47;
            s.ag_blocks = 1 << 15;
        },
        &|s| s.log_start = 255,
        &|s| s.log_start = 16384 + 255,
        &|s| s.log_start = 16384 - 100,
        &|s| s.log_start = BLOCKS - 256 - 2000,
        &|s| s.log_start = u64::MAX,
        &|s| s.log_start = BLOCKS - 10,
        &|s| s.log_len = 0,
        &|s| s.log_len = u64::MAX,
        &|s| s.free = BLOCKS + 1,
        &|s| s.root_ino = 0,
        &|s| s.root_ino = 10,
        &|s| s.inodes = 0,
        &|s| s.inodes = u64::MAX,
        &|s| s.state = 4,
        &|s| s.free_slots = BLOCKS / 2,
        &|s| s.dead_blocks = 1,
        &|s| (s.dead_root, s.dead_blocks) = (ptr(9_000), 1),
        &|s| (s.snapshot_root, s.dead_root) = (ptr(9_000), ptr(9_000)),
        &|s| {
            (s.snapshot_root, s.dead_root) = (ptr(9_000), ptr(9_000));
            s.dead_blocks = (1 << 62) + 1;
        },
        &|s| s.snapshot_root = ptr(BLOCKS),
        &|s| s.quota_root = ptr(BLOCKS),
        &|s| s.epoch = 0,
        &|s| s.epoch = 1 << 26,
        &|s| s.node_goal = BLOCKS,
        &|s| s.data_goal = u64::MAX,
        &|s| s.log2_start = 255,
        &|s| s.log2_start = s.log_start,
        &|s| s.log2_start = s.log_start + s.log_len - 1,
        &|s| s.log2_start = BLOCKS - 10,
        &|s| s.log2_start = u64::MAX,
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
        &|s| s.ag_root = None,
        &|s| s.ag_root = ptr(BLOCKS),
        &|s| s.ag_root.as_mut().unwrap().generation = 6,
        &|s| s.deferred_root = ptr(BLOCKS),
        &|s| s.incompat = 1 << 63,
    ];
    for (i, c) in changes.iter().enumerate() {
        assert!(check(c).is_some(), "change {i} was accepted");
    }
    for (at, what) in [
        (8, "version"),
        (12, "block size"),
        (208, "checksum"),
        (209, "checksum"),
        (210, "copies"),
        (300, "reserved"),
        (520, "size of the allocation groups"),
        (521, "reserved"),
        (620, "reserved"),
        (644, "reserved"),
        (560, "second log"),
        (1000, "reserved"),
    ] {
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
            let at = 8 + (rng() % 3_100) as usize;
            b[at] = rng() as u8;
        }
        reseal(&mut b);
        if let Ok(sb) = Superblock::decode(&b) {
            accepted += 1;
            let last = sb.ag_count - 1;
            assert_eq!(sb.ag_start(last) + sb.ag_len(last), sb.blocks);
            assert!(sb.fixed_areas().all(|(at, len)| at + len <= sb.blocks));
        }
    }
    assert!(accepted > 0);
}

/// Every byte of a superblock is what docs/FORMAT.md says it is.
#[test]
fn the_bytes_of_a_superblock() {
    let b = block(&sample(5));
    let u32_at = |at: usize| u32::from_le_bytes(b[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(b[at..at + 8].try_into().unwrap());
    assert_eq!(&b[..8], b"OrdoFS\0\x82");
    assert_eq!((u32_at(8), u32_at(12), u64_at(16)), (2, 12, 5));
    assert_eq!(&b[40..56], b"0123456789abcdef");
    assert_eq!(u64_at(56), 0x0102_0304_0506_0708);
    assert_eq!(u64_at(64), 1_700_000_000);
    assert_eq!(&b[72..80], "Größe\0".as_bytes());
    assert_eq!((u64_at(136), u64_at(144)), (1, 2));
    assert_eq!((u64_at(152) as i64, u32_at(160)), (-5, 999_999_999));
    assert_eq!((u64_at(164), u32_at(172)), (1, 2));
    assert_eq!((u64_at(176), u32_at(184)), (3, 4));
    assert_eq!((u32_at(188), u64_at(192)), (1, 5));
    assert_eq!((u32_at(200), u32_at(204)), (0, 77));
    assert_eq!(b[208..211], [1, 1, 2]);
    assert_eq!((u64_at(512), u64_at(568), u64_at(576)), (BLOCKS, 10, 2));
    assert_eq!((u64_at(584), u64_at(592)), (4, 100));
    assert_eq!((b[520], &b[521..528]), (15, &[0; 7][..]));
    assert_eq!((u64_at(560), u64_at(600), u64_at(608)), (0, 6, 0));
    assert_eq!((u32_at(616), u32_at(620)), (0x0304_0506, 0));
    assert_eq!((u64_at(624), u64_at(632)), (9_001, 9_002));
    assert_eq!((b[640], b[642], u32_at(644)), (12, 2, 0));
    assert_eq!((u64_at(1024), u64_at(1056)), (10_000, 9_300));
    assert_eq!((u64_at(1088), u64_at(1120)), (9_100, 9_200));
    let mut more = sample(5);
    (more.snapshot_root, more.dead_root) = (ptr(9_400), ptr(9_500));
    (more.quota_root, more.dead_blocks) = (ptr(9_600), 8);
    more.log2_start = 20_000;
    let more = block(&more);
    for (at, want) in [
        (1152, 9_400),
        (1184, 9_500),
        (1216, 9_600),
        (608, 8),
        (560, 20_000),
    ] {
        assert_eq!(
            u64::from_le_bytes(more[at..at + 8].try_into().unwrap()),
            want
        );
    }
    assert_eq!(more[1248..1528], [0; 280]);
    // Beside the ends of the sectors, the rest is zero.
    assert!(b[1152..1528].iter().all(|x| *x == 0));
    for k in 3..8 {
        assert_eq!(b[k * 512..][..504], [0; 504]);
    }
    for k in 0..8 {
        let sector = &b[k * 512..(k + 1) * 512];
        assert_eq!(sector[504..508], 5u32.to_le_bytes());
        let sum = ordofs_engine::os::crc32c(k as u32, &sector[..508]);
        assert_eq!(sector[508..], sum.to_le_bytes());
    }
}

#[test]
fn the_newest_superblock_wins() {
    let disk = MemDisk::new(BLOCKS);
    let dev = disk.device();
    let generation = || {
        Superblock::read(&dev)
            .map(|s| s.generation)
            .map_err(|r| r.reason)
    };
    let flip = |generation, copies: &[usize]| {
        for copy in copies {
            disk.corrupt(slot(generation, *copy, BLOCKS), 2_000, 1);
        }
    };
    assert_eq!(Superblock::read(&dev).err().unwrap().error, EINVAL);
    for g in 1..=6 {
        sample(g).write(&dev).unwrap();
        assert_eq!(generation(), Ok(g));
    }
    // One copy is enough.
    flip(6, &[0]);
    assert_eq!(generation(), Ok(6));
    flip(6, &[1]);
    assert_eq!(generation(), Ok(5));
    flip(5, &[0, 1]);
    assert_eq!(Superblock::read(&dev).err().unwrap().error, EUCLEAN);
    flip(6, &[1]);
    assert_eq!(generation(), Ok(6));
    flip(6, &[0]);
    flip(5, &[0, 1]);
    // Whole but not to be accepted: refused, the older one would undo a commit.
    let mut odd = sample(6);
    odd.incompat = 2;
    odd.write(&dev).unwrap();
    assert!(generation().is_err());
    // One in a place where it does not belong is not taken.
    sample(6).write(&dev).unwrap();
    let mut b = Block::zeroed().unwrap();
    sample(8).encode(0, &mut b);
    for at in [slot(1, 0, BLOCKS), slot(0, 1, BLOCKS)] {
        dev.write(&[(at, &b)]).unwrap();
        assert_eq!(generation(), Ok(6));
    }
    // A device that shrank.
    let small = MemDisk::from_image(BLOCKS - 1, disk.image());
    assert!(Superblock::read(&small.device()).is_err());
    assert!(Superblock::read(&MemDisk::new(10).device()).is_err());
}

/// A filesystem of format 1 is not taken for damage.
#[test]
fn format_1_is_refused_by_name() {
    let disk = MemDisk::new(BLOCKS);
    let mut b = Block::zeroed().unwrap();
    b[..8].copy_from_slice(b"OrdoFS\0\x01");
    disk.device().write(&[(16, &b)]).unwrap();
    let refused = Superblock::read(&disk.device()).err().unwrap();
    assert_eq!(refused.error, EINVAL);
    assert!(refused.reason.contains("version 1"), "{}", refused.reason);
}

/// Neither is one of an earlier layout of this version, which had no AG tree.
#[test]
fn an_unfinished_layout_is_refused_by_name() {
    let disk = MemDisk::new(BLOCKS);
    let mut b = block(&sample(5));
    b[520] = 0;
    // The roots of its AGs.
    b[2048..2052].fill(7);
    reseal(&mut b);
    disk.device().write(&[(slot(5, 0, BLOCKS), &b)]).unwrap();
    let before = disk.image();
    let refused = Superblock::read(&disk.device()).err().unwrap();
    assert_eq!(refused.error, EINVAL);
    assert!(refused.reason.contains("unfinished"), "{}", refused.reason);
    assert!(disk.image() == before);
}

/// What mkfs cannot make yet it refuses, and writes nothing.
#[test]
fn more_than_a_pebibyte_is_not_made() {
    let disk = MemDisk::new((1 << 38) + 1);
    let options = FormatOptions {
        uuid: [7; 16],
        label: [0; 64],
        blocks: 0,
        root_owner: (0, 0),
        copies: 0,
    };
    let refused = format(disk.device(), &options).err().unwrap();
    assert_eq!(refused.error, EFBIG);
    assert!(refused.reason.contains("1 PiB"), "{}", refused.reason);
    assert!(disk.image().is_empty());
}

#[test]
fn fixed_areas_lie_apart_at_every_size() {
    let sizes = (12..49).flat_map(|n| [(1u64 << n) - 1, 1 << n, (1 << n) + 300, 3 << n >> 1]);
    for blocks in sizes.filter(|b| *b >= MIN_BLOCKS) {
        let (log, len) = log_place(blocks);
        let mut all: Vec<_> = areas(blocks).map(|at| (at, AREA_BLOCKS)).collect();
        all.push((log, len));
        all.sort_unstable();
        for pair in all.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{blocks}: {all:?}");
        }
        assert!(all.iter().all(|(at, len)| at + len <= blocks));
        for (generation, copy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let at = slot(generation, copy, blocks);
            assert!(all.iter().any(|(a, len)| (*a..a + len).contains(&at)));
        }
    }
}

#[test]
fn geometry_covers_every_size() {
    let mut blocks = MIN_BLOCKS;
    while blocks < MAX_BLOCKS {
        for b in [blocks - 1, blocks, blocks + 1, blocks * 3 / 2]
            .into_iter()
            .filter(|b| *b >= MIN_BLOCKS)
        {
            let (n, each) = ag_geometry(b);
            assert_eq!(each, if b < 1 << 22 { 1 << 15 } else { 1 << 18 });
            assert_eq!(b.div_ceil(each), u64::from(n));
            let (start, len) = log_place(b);
            assert!(start + len < b);
        }
        blocks *= 2;
    }
}
