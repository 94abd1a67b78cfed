// SPDX-License-Identifier: GPL-2.0

//! The superblock: its fields, and how they lie in the eight sectors of a block. [`super::places`]
//! says where its copies are, [`super::slots`] and [`super::find`] which of them counts. Lengths and
//! addresses are in blocks.
//!
//! A device writes a sector of 512 bytes whole or not at all, so every sector proves itself: its
//! last 8 bytes are the low half of the generation, and a checksum of the 508 bytes before it, which
//! starts from the sector's number. A sector with a right checksum is what was once written there;
//! if all eight have the same generation, the copy is whole.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic "OrdoFS", 0, 0x82 |
//! | 8 | 4 | format version: 2 |
//! | 12 | 4 | log2 of the block size: 12 |
//! | 16 | 8 | compat feature bits: may be ignored |
//! | 24 | 8 | ro_compat feature bits: unknown ones allow reading only |
//! | 32 | 8 | incompat feature bits: unknown ones forbid mounting |
//! | 40 | 16 | UUID |
//! | 56 | 8 | node id, which every node and batch carries |
//! | 64 | 8 | time of the newest backups, in seconds; 0 = there are none |
//! | 72 | 64 | label, UTF-8, padded with zeros |
//! | 136 | 16 | SipHash key of directory hashes: two u64 |
//! | 152 | 12 | time of creation: seconds i64, nanoseconds u32 |
//! | 164 | 12 | time of the last mount that wrote |
//! | 176 | 12 | time of this commit |
//! | 188 | 4 | state: 1 = unmounted cleanly, 2 = a repair is wanted |
//! | 192 | 8 | generation, from 1 |
//! | 200 | 4 | copy: 0 = primary, 1 = twin, from 2 on backups |
//! | 204 | 4 | number of mounts that wrote |
//! | 208 | 1 | checksum of data: 1 = crc32c |
//! | 209 | 1 | checksum of nodes: 1 = crc32c |
//! | 210 | 1 | copies of nodes: 1 or 2 |
//! | 512 | 8 | blocks of the filesystem |
//! | 520 | 1 | log2 of the blocks of an AG, 15..=18; the last AG may be shorter |
//! | 528 | 8 | first block of the log |
//! | 536 | 8 | blocks of the log |
//! | 544 | 8 | log position: where replay starts, in log blocks ever written |
//! | 552 | 8 | log sequence number: of the batch at that position |
//! | 560 | 8 | first block of a second log of the same length; 0 = there is none (reserved) |
//! | 568 | 8 | next inode number |
//! | 576 | 8 | inode number of the root directory |
//! | 584 | 8 | number of inodes |
//! | 592 | 8 | number of free blocks |
//! | 600 | 8 | number of free slots in pairs of groups (reserved) |
//! | 608 | 8 | number of blocks in the dead tree (reserved) |
//! | 616 | 4 | current epoch, from 1 |
//! | 624 | 8 | block where the search for blocks of nodes starts |
//! | 632 | 8 | block where the search for blocks of data starts |
//! | 640 | 4 | encoding u16 and flags u16 of case-insensitive names (reserved) |
//! | 1024 | 480 | 15 NodePtr: inode, orphan, AG and deferred tree; snapshot, dead and quota tree (reserved); 8 without a use |
//!
//! All else is zero: checked in the first three sectors, ignored in the others. A NodePtr of zeros
//! is an empty tree. All numbers are checked for possibility, also under right checksums.
//!
//! What is reserved is decoded and checked as well, and makes a mount refuse the filesystem by the
//! name of the feature ([`Superblock::unsupported`]).
//!
//! Tests: `tools/engine/tests/format.rs`, `tools/engine/tests/superblocks.rs`,
//! `tools/fsck/tests/forged_superblocks.rs`.

use super::places::{areas, backups, meets_areas, AREA_BLOCKS};
use super::{
    le32, le64, put, NodePtr, BLOCK_SHIFT, BLOCK_SIZE, LOG_MAX_BLOCKS, LOG_MIN_BLOCKS, MAX_BLOCKS,
    MAX_EPOCH, MAX_GENERATION, MAX_INO, MIN_BLOCKS, NODE_PTR_LEN, USED_UP, VERSION,
};
use crate::os::{crc32c, Time};
use kernel::prelude::*;

/// The magic number. Its last byte is that of an unfinished format.
pub const SB_MAGIC: [u8; 8] = *b"OrdoFS\0\x82";
/// The magic number of format 1, which this code does not read.
pub const SB_MAGIC_1: [u8; 8] = *b"OrdoFS\0\x01";
/// The compat feature bits that this code knows.
pub const KNOWN_COMPAT: u64 = 0;
/// The ro_compat feature bits that this code knows.
pub const KNOWN_RO_COMPAT: u64 = 0;
/// The incompat feature bits that this code knows.
pub const KNOWN_INCOMPAT: u64 = 0;
/// The incompat feature bits that are taken, by the number of the bit: this code knows none.
const INCOMPAT_NAMES: [&str; 9] = [
    "compression",
    "encryption",
    "casefold",
    "data checksum",
    "node checksum",
    "shared nodes",
    "filesets",
    "data in the log",
    "second log",
];
/// The ro_compat bit that will say that AGs may have shared blocks. This code does not know it.
pub const RO_COMPAT_SHARED: u64 = 1 << 2;
/// State flag: the filesystem was unmounted cleanly, so the log has nothing to replay.
pub const STATE_CLEAN: u32 = 1;
/// State flag: damage was found, and a repair is wanted. Commits keep it.
pub const STATE_REPAIR: u32 = 2;
/// Bytes of the label.
pub const LABEL_LEN: usize = 64;
/// Reserved tree roots.
pub const SPARE_ROOTS: usize = 8;
/// The most copies of a node.
pub const MAX_COPIES: u8 = 2;
/// log2 of the fewest and of the most blocks of an AG.
pub const MIN_AG_LOG2: u8 = 15;
/// See [`MIN_AG_LOG2`].
pub const MAX_AG_LOG2: u8 = 18;
/// Filesystems with fewer blocks (16 GiB) get the small AGs.
const SMALL_AGS: u64 = 1 << 22;
/// Tree roots in use.
const USED_ROOTS: usize = 7;
/// Bytes of a sector, which a device writes whole or not at all.
pub const SECTOR: usize = 512;
/// Sectors of a superblock.
pub const SECTORS: usize = BLOCK_SIZE / SECTOR;
/// Bytes of a sector that hold fields.
pub const SECTOR_FIELDS: usize = SECTOR - 8;
/// Roots that fit into a sector.
const ROOTS: usize = SECTOR_FIELDS / NODE_PTR_LEN;
/// crc32c as the checksum of data or of nodes.
const CRC32C: u8 = 1;
/// The other checksums that have a number, from 2 on.
const CHECKSUMS: [&str; 3] = ["xxh3-64", "BLAKE3", "SHA-256"];

pub(super) const NOT_OURS: &str = "there is no OrdoFS superblock";

const UNFINISHED: &str = "an unfinished layout of version 2, which is not read any more";

const O_VERSION: usize = 8;
const O_SHIFT: usize = 12;
const O_COMPAT: usize = 16;
const O_RO_COMPAT: usize = 24;
const O_INCOMPAT: usize = 32;
const O_UUID: usize = 40;
const O_NODE_ID: usize = 56;
const O_BACKED_UP: usize = 64;
const O_LABEL: usize = 72;
const O_HASH_KEY: usize = 136;
const O_CREATED: usize = 152;
const O_MOUNTED: usize = 164;
const O_COMMITTED: usize = 176;
const O_STATE: usize = 188;
const O_GENERATION: usize = 192;
const O_COPY: usize = 200;
const O_MOUNTS: usize = 204;
const O_DATA_CSUM: usize = 208;
const O_NODE_CSUM: usize = 209;
const O_COPIES: usize = 210;
const END_0: usize = O_COPIES + 1;
const O_BLOCKS: usize = SECTOR;
const O_AG_LOG2: usize = 520;
const O_LOG_START: usize = 528;
const O_LOG_LEN: usize = 536;
const O_LOG_POS: usize = 544;
const O_LOG_SEQ: usize = 552;
const O_LOG2_START: usize = 560;
const O_NEXT_INO: usize = 568;
const O_ROOT_INO: usize = 576;
const O_INODES: usize = 584;
const O_FREE: usize = 592;
const O_SLOTS: usize = 600;
const O_DEAD: usize = 608;
const O_EPOCH: usize = 616;
const O_NODE_GOAL: usize = 624;
const O_DATA_GOAL: usize = 632;
const O_CASEFOLD: usize = 640;
const END_1: usize = O_CASEFOLD + 4;
const O_ROOTS: usize = 2 * SECTOR;
/// What must be zero in the first three sectors.
const ZEROS: [core::ops::Range<usize>; 5] = [
    END_0..SECTOR_FIELDS,
    O_AG_LOG2 + 1..O_LOG_START,
    O_EPOCH + 4..O_NODE_GOAL,
    END_1..SECTOR + SECTOR_FIELDS,
    O_ROOTS + ROOTS * NODE_PTR_LEN..2 * SECTOR + SECTOR_FIELDS,
];
const _: () = assert!(O_LABEL + LABEL_LEN == O_HASH_KEY && O_COMMITTED + 12 == O_STATE);
const _: () = assert!(USED_ROOTS + SPARE_ROOTS == ROOTS);
const _: () = assert!(O_BLOCKS + 8 == O_AG_LOG2);
const _: () = assert!(O_LOG_SEQ + 8 == O_LOG2_START && O_LOG2_START + 8 == O_NEXT_INO);
const _: () = assert!(MAX_BLOCKS >> MAX_AG_LOG2 < u32::MAX as u64);

/// The offset of root `i`.
const fn root_at(i: usize) -> usize {
    O_ROOTS + i * NODE_PTR_LEN
}

/// Why a superblock was refused.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// EINVAL: not OrdoFS, or not supported. EUCLEAN: damaged. Otherwise the error of the device,
    /// or ENOMEM.
    pub error: Error,
    /// A sentence for the user.
    pub reason: &'static str,
}

pub(super) const fn refuse(error: Error, reason: &'static str) -> Refusal {
    Refusal { error, reason }
}

/// A decoded superblock. Addresses and lengths are in blocks.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// Feature bits that may be ignored.
    pub compat: u64,
    /// Feature bits of which unknown ones forbid writing.
    pub ro_compat: u64,
    /// Feature bits of which unknown ones forbid mounting.
    pub incompat: u64,
    /// UUID.
    pub uuid: [u8; 16],
    /// The number that every node and batch of this filesystem carries.
    pub node_id: u64,
    /// The time at which backups were last written, in seconds since 1970; 0 if never.
    pub backed_up: u64,
    /// Label, padded with zeros.
    pub label: [u8; LABEL_LEN],
    /// SipHash key of directory hashes.
    pub hash_key: [u64; 2],
    /// Generation of the commit that wrote it.
    pub generation: u64,
    /// How many copies of each node a commit writes: 1 or 2.
    pub copies: u8,
    /// Blocks of the filesystem.
    pub blocks: u64,
    /// Number of allocation groups.
    pub ag_count: u32,
    /// Blocks of each AG but the last one, which may be shorter.
    pub ag_blocks: u64,
    /// `STATE_*`.
    pub state: u32,
    /// First block of the log.
    pub log_start: u64,
    /// Blocks of the log.
    pub log_len: u64,
    /// The log position at this commit, in log blocks ever written; replay starts there.
    pub log_pos: u64,
    /// The sequence number of the batch at that position.
    pub log_seq: u64,
    /// First block of a second log; 0 if there is none.
    pub log2_start: u64,
    /// The next inode number to give out.
    pub next_ino: u64,
    /// The root directory.
    pub root_ino: u64,
    /// Number of inodes.
    pub inodes: u64,
    /// Number of free blocks.
    pub free: u64,
    /// Number of free slots in pairs of groups.
    pub free_slots: u64,
    /// Number of blocks in the dead tree.
    pub dead_blocks: u64,
    /// The current epoch.
    pub epoch: u32,
    /// The block where the search for blocks of nodes starts.
    pub node_goal: u64,
    /// A block of the allocation group whose turn it was to be a home.
    pub data_goal: u64,
    /// Encoding (low half) and flags of case-insensitive names; 0 if there are none.
    pub casefold: u32,
    /// The time at which mkfs made the filesystem.
    pub created: Time,
    /// The time of the last mount that wrote.
    pub mounted: Time,
    /// The number of mounts that wrote.
    pub mounts: u32,
    /// The time at which this superblock was written.
    pub committed: Time,
    /// Root of the inode tree.
    pub inode_root: Option<NodePtr>,
    /// Root of the orphan tree.
    pub orphan_root: Option<NodePtr>,
    /// Root of the AG tree.
    pub ag_root: Option<NodePtr>,
    /// Root of the deferred tree.
    pub deferred_root: Option<NodePtr>,
    /// Root of the snapshot tree.
    pub snapshot_root: Option<NodePtr>,
    /// Root of the dead tree.
    pub dead_root: Option<NodePtr>,
    /// Root of the quota tree.
    pub quota_root: Option<NodePtr>,
    /// Reserved roots.
    pub spare_roots: [Option<NodePtr>; SPARE_ROOTS],
}

/// Whether a label is UTF-8, padded with zeros.
pub fn label_is_good(label: &[u8; LABEL_LEN]) -> bool {
    let end = label.iter().position(|&c| c == 0).unwrap_or(LABEL_LEN);
    label.split_at_checked(end).is_some_and(|(text, padding)| {
        core::str::from_utf8(text).is_ok() && padding.iter().all(|&c| c == 0)
    })
}

/// The division of a device of `blocks` blocks: the number of AGs and the blocks of each but the
/// last.
pub fn ag_geometry(blocks: u64) -> (u32, u64) {
    let log2 = match blocks < SMALL_AGS {
        true => MIN_AG_LOG2,
        false => MAX_AG_LOG2,
    };
    (ag_count(blocks, 1 << log2), 1 << log2)
}

/// The number of AGs; 0 if there can be no such number.
fn ag_count(blocks: u64, ag_blocks: u64) -> u32 {
    match ag_blocks {
        0 => 0,
        n => u32::try_from(blocks.div_ceil(n)).unwrap_or(0),
    }
}

fn time(b: &[u8], off: usize) -> Option<Time> {
    let nsec = le32(b, off + 8)?;
    (nsec < 1_000_000_000).then_some(Time {
        sec: le64(b, off)? as i64,
        nsec,
    })
}

fn put_time(b: &mut [u8], off: usize, t: Time) {
    let _ = put(b, off, &t.sec.to_le_bytes());
    let _ = put(b, off + 8, &t.nsec.to_le_bytes());
}

fn put_root(b: &mut [u8], off: usize, p: &Option<NodePtr>) {
    let bytes = p.map_or([0; NODE_PTR_LEN], |p| p.to_bytes());
    let _ = put(b, off, &bytes);
}

/// The checksum of sector `k` of a superblock.
fn sector_sum(k: usize, sector: &[u8]) -> u32 {
    crc32c(k as u32, sector.get(..SECTOR - 4).unwrap_or(&[]))
}

/// The low half of the generation that sector `k` of a block carries; `None` if its checksum is
/// wrong.
pub fn sector_generation(b: &[u8; BLOCK_SIZE], k: usize) -> Option<u32> {
    let sector = b.get(k * SECTOR..)?.get(..SECTOR)?;
    (le32(sector, SECTOR - 4)? == sector_sum(k, sector)).then_some(())?;
    le32(sector, SECTOR_FIELDS)
}

/// Gives all sectors of a block the generation and their checksums.
pub fn seal(b: &mut [u8; BLOCK_SIZE], generation: u64) {
    for (k, sector) in b.chunks_exact_mut(SECTOR).enumerate() {
        let _ = put(sector, SECTOR_FIELDS, &(generation as u32).to_le_bytes());
        let sum = sector_sum(k, sector);
        let _ = put(sector, SECTOR - 4, &sum.to_le_bytes());
    }
}

/// The generation and the number of the copy in sector 0.
pub(super) fn identity(b: &[u8; BLOCK_SIZE]) -> Option<(u64, u32)> {
    Some((le64(b, O_GENERATION)?, le32(b, O_COPY)?))
}

/// Whether two superblocks are of the same filesystem, by UUID and node id.
pub(super) fn same_filesystem(a: &[u8; BLOCK_SIZE], b: &[u8; BLOCK_SIZE]) -> bool {
    a.get(O_UUID..O_BACKED_UP) == b.get(O_UUID..O_BACKED_UP)
}

/// The magic number of a block.
pub(super) fn has_magic(b: &[u8; BLOCK_SIZE], magic: &[u8; 8]) -> bool {
    b.starts_with(magic)
}

/// The blocks of the filesystem, if sector 1 of a block proves itself.
pub(super) fn blocks_of(b: &[u8; BLOCK_SIZE]) -> Option<u64> {
    sector_generation(b, 1).and_then(|_| le64(b, O_BLOCKS))
}

/// Reports unknown incompat features, by the names of those that are taken.
#[cold]
fn name_features(unknown: u64) {
    pr_err!(
        "superblock has unknown incompatible features {:#x}\n",
        unknown
    );
    for (bit, name) in INCOMPAT_NAMES.iter().enumerate() {
        if unknown & 1 << bit != 0 {
            pr_err!("this version does not support {}\n", name);
        }
    }
}

/// Refuses all checksums but crc32c, by name.
fn check_algorithm(b: &[u8], at: usize, of: &str) -> Result<(), Refusal> {
    let number = b.get(at).copied().unwrap_or(0);
    if number == CRC32C {
        return Ok(());
    }
    let other = usize::from(number).checked_sub(2);
    let name = other.and_then(|i| CHECKSUMS.get(i));
    pr_err!(
        "the checksum of {} is number {} ({})\n",
        of,
        number,
        name.unwrap_or(&"unknown")
    );
    Err(refuse(EINVAL, "unsupported checksum: see the log"))
}

/// Refuses numbers of copies of nodes that this code does not write, and names the number.
fn check_copies(b: &[u8]) -> Result<(), Refusal> {
    let copies = b.get(O_COPIES).copied().unwrap_or(0);
    if (1..=MAX_COPIES).contains(&copies) {
        return Ok(());
    }
    pr_err!("nodes have {} copies; this version knows 1 and 2\n", copies);
    Err(refuse(
        EINVAL,
        "unsupported number of copies of nodes: see the log",
    ))
}

impl Superblock {
    /// Decodes a whole copy and checks all that does not need the device.
    pub fn decode(b: &[u8; BLOCK_SIZE]) -> Result<Self, Refusal> {
        Ok((*Self::decode_boxed(b)?).clone())
    }

    /// As `decode`, into the heap, because a superblock is too large for a kernel stack with much
    /// else on it.
    pub(super) fn decode_boxed(b: &[u8; BLOCK_SIZE]) -> Result<KBox<Self>, Refusal> {
        if !has_magic(b, &SB_MAGIC) {
            return Err(refuse(EINVAL, NOT_OURS));
        }
        let low = identity(b).map(|(generation, _)| generation as u32);
        if (0..SECTORS).any(|k| sector_generation(b, k) != low) {
            return Err(refuse(EUCLEAN, "a sector of the superblock is damaged"));
        }
        // These fields say whether the rest can be understood.
        if le32(b, O_VERSION) != Some(VERSION) {
            return Err(refuse(EINVAL, "unsupported format version"));
        }
        let unknown = le64(b, O_INCOMPAT).unwrap_or(u64::MAX) & !KNOWN_INCOMPAT;
        if unknown != 0 {
            name_features(unknown);
            return Err(refuse(EINVAL, "unknown incompatible features: see the log"));
        }
        if le32(b, O_SHIFT) != Some(BLOCK_SHIFT) {
            return Err(refuse(EINVAL, "unsupported block size"));
        }
        // Before there was an AG tree, the number of AGs followed from the size alone.
        // Before extent records had an epoch, the superblock had none.
        if b.get(O_AG_LOG2) == Some(&0) || le32(b, O_EPOCH) == Some(0) {
            return Err(refuse(EINVAL, UNFINISHED));
        }
        check_algorithm(b, O_DATA_CSUM, "data")?;
        check_algorithm(b, O_NODE_CSUM, "nodes")?;
        check_copies(b)?;
        let zeros = |r: &core::ops::Range<usize>| {
            b.get(r.clone()).is_some_and(|z| z.iter().all(|x| *x == 0))
        };
        if !ZEROS.iter().all(zeros) {
            return Err(refuse(
                EUCLEAN,
                "a reserved field of the superblock is in use",
            ));
        }
        let sb = Self::parse(b)
            .ok_or_else(|| refuse(EUCLEAN, "malformed field in the superblock"))?
            .map_err(|e| refuse(e, "out of memory"))?;
        match sb.check() {
            None => Ok(sb),
            Some(reason) => Err(refuse(EUCLEAN, reason)),
        }
    }

    /// Decodes all fields; `None` if one is malformed.
    #[inline(never)]
    fn parse(b: &[u8]) -> Option<Result<KBox<Self>>> {
        // Zeros are an empty tree. Anything else must be a pointer.
        let root = |off: usize| -> Option<Option<NodePtr>> {
            let p = b.get(off..off + NODE_PTR_LEN)?;
            if p.iter().all(|&x| x == 0) {
                return Some(None);
            }
            NodePtr::decode(p).map(Some)
        };
        let mut spare_roots = [None; SPARE_ROOTS];
        for (i, r) in spare_roots.iter_mut().enumerate() {
            *r = root(root_at(USED_ROOTS + i))?;
        }
        let blocks = le64(b, O_BLOCKS)?;
        let ag_log2 = *b.get(O_AG_LOG2)?;
        let ag_blocks = match ag_log2 {
            MIN_AG_LOG2..=MAX_AG_LOG2 => 1 << ag_log2,
            _ => 0,
        };
        let sb = Self {
            compat: le64(b, O_COMPAT)?,
            ro_compat: le64(b, O_RO_COMPAT)?,
            incompat: le64(b, O_INCOMPAT)?,
            uuid: *b.get(O_UUID..)?.first_chunk()?,
            node_id: le64(b, O_NODE_ID)?,
            backed_up: le64(b, O_BACKED_UP)?,
            label: *b.get(O_LABEL..)?.first_chunk()?,
            hash_key: [le64(b, O_HASH_KEY)?, le64(b, O_HASH_KEY + 8)?],
            generation: le64(b, O_GENERATION)?,
            copies: *b.get(O_COPIES)?,
            blocks,
            ag_count: ag_count(blocks, ag_blocks),
            ag_blocks,
            state: le32(b, O_STATE)?,
            log_start: le64(b, O_LOG_START)?,
            log_len: le64(b, O_LOG_LEN)?,
            log_pos: le64(b, O_LOG_POS)?,
            log_seq: le64(b, O_LOG_SEQ)?,
            log2_start: le64(b, O_LOG2_START)?,
            next_ino: le64(b, O_NEXT_INO)?,
            root_ino: le64(b, O_ROOT_INO)?,
            inodes: le64(b, O_INODES)?,
            free: le64(b, O_FREE)?,
            free_slots: le64(b, O_SLOTS)?,
            dead_blocks: le64(b, O_DEAD)?,
            epoch: le32(b, O_EPOCH)?,
            node_goal: le64(b, O_NODE_GOAL)?,
            data_goal: le64(b, O_DATA_GOAL)?,
            casefold: le32(b, O_CASEFOLD)?,
            created: time(b, O_CREATED)?,
            mounted: time(b, O_MOUNTED)?,
            mounts: le32(b, O_MOUNTS)?,
            committed: time(b, O_COMMITTED)?,
            inode_root: root(root_at(0))?,
            orphan_root: root(root_at(1))?,
            ag_root: root(root_at(2))?,
            deferred_root: root(root_at(3))?,
            snapshot_root: root(root_at(4))?,
            dead_root: root(root_at(5))?,
            quota_root: root(root_at(6))?,
            spare_roots,
        };
        Some(KBox::new(sb, GFP_KERNEL).map_err(Error::from))
    }

    /// Why the fields are impossible together; `None` if they are not.
    fn check(&self) -> Option<&'static str> {
        let bad_root = |p: &Option<NodePtr>| {
            p.is_some_and(|p| {
                p.addr >= self.blocks || p.addr2 >= self.blocks || p.generation > self.generation
            })
        };
        Some(
            if self.generation == 0 || self.generation > MAX_GENERATION {
                "impossible generation"
            } else if self.log_pos > 1 << 62 || self.log_seq > 1 << 62 {
                "impossible position of the log"
            } else if self.blocks < MIN_BLOCKS || self.blocks > MAX_BLOCKS {
                "impossible size of the filesystem"
            } else if self.ag_blocks == 0 {
                "impossible size of the allocation groups"
            } else if self.ag_count == 0 {
                "impossible number of allocation groups"
            } else if !(LOG_MIN_BLOCKS..=LOG_MAX_BLOCKS).contains(&self.log_len)
                || !self.is_place(self.log_start, self.log_len)
            {
                "impossible place of the log"
            } else if self.log2_start != 0
                && (!self.is_place(self.log2_start, self.log_len)
                    || self.log2_start.abs_diff(self.log_start) < self.log_len)
            {
                "impossible place of the second log"
            } else if self.free > self.blocks {
                "more free blocks than blocks"
            } else if self.free_slots > self.blocks.saturating_sub(self.free) / 2 {
                "impossible number of free slots"
            } else if self.dead_blocks > 1 << 62
                || (self.dead_blocks == 0) != self.dead_root.is_none()
            {
                "impossible number of blocks in the dead tree"
            } else if self.epoch == 0 || self.epoch > MAX_EPOCH {
                "impossible epoch"
            } else if self.node_goal >= self.blocks || self.data_goal >= self.blocks {
                "impossible start of a search"
            } else if self.next_ino > MAX_INO {
                "impossible next inode number"
            } else if self.root_ino == 0 || self.root_ino >= self.next_ino {
                "impossible inode number of the root directory"
            } else if self.inodes == 0 || self.inodes >= self.next_ino {
                "impossible number of inodes"
            } else if self.state & !(STATE_CLEAN | STATE_REPAIR) != 0 {
                "unknown state flags"
            } else if !label_is_good(&self.label) {
                "malformed label"
            } else if self.inode_root.is_none() {
                "no inode tree"
            } else if self.ag_root.is_none() {
                "no AG tree"
            } else if self.dead_root.is_some() && self.snapshot_root.is_none() {
                "a dead tree without a snapshot"
            } else if self.roots().into_iter().any(bad_root) {
                "impossible root of a tree"
            } else if self.spare_roots.iter().any(|r| r.is_some()) {
                "a reserved root is in use"
            } else {
                return None;
            },
        )
    }

    /// Whether `[start, start + len)` lies in the filesystem and outside of the areas of
    /// superblocks.
    fn is_place(&self, start: u64, len: u64) -> bool {
        start
            .checked_add(len)
            .is_some_and(|end| end <= self.blocks && !meets_areas(self.blocks, start, end))
    }

    /// The roots in use, in the order in which they are on disk.
    fn roots(&self) -> [&Option<NodePtr>; USED_ROOTS] {
        [
            &self.inode_root,
            &self.orphan_root,
            &self.ag_root,
            &self.deferred_root,
            &self.snapshot_root,
            &self.dead_root,
            &self.quota_root,
        ]
    }

    /// Why this code cannot mount the filesystem although the superblock is right; `None` if it can.
    /// The format has these features, and they need no feature bit: what says that they are in use
    /// says it here.
    pub fn unsupported(&self) -> Option<&'static str> {
        Some(if self.snapshot_root.is_some() {
            "it has snapshots, which this version does not support"
        } else if self.quota_root.is_some() {
            "it has quotas, which this version does not support"
        } else if self.free_slots != 0 {
            "it has pairs of groups, which this version does not support"
        } else if self.log2_start != 0 {
            "it has a second log, which this version does not support"
        } else if self.casefold != 0 {
            "it has case-insensitive names, which this version does not support"
        } else {
            return None;
        })
    }

    /// Encodes a copy of the superblock: 0 is the primary one, 1 the twin, and backups follow.
    pub fn encode(&self, copy: u32, b: &mut [u8; BLOCK_SIZE]) {
        b.fill(0);
        let _ = put(b, 0, &SB_MAGIC);
        for (off, v) in [
            (O_VERSION, VERSION),
            (O_SHIFT, BLOCK_SHIFT),
            (O_STATE, self.state),
            (O_COPY, copy),
            (O_MOUNTS, self.mounts),
            (O_EPOCH, self.epoch),
            (O_CASEFOLD, self.casefold),
        ] {
            let _ = put(b, off, &v.to_le_bytes());
        }
        for (off, v) in [
            (O_COMPAT, self.compat),
            (O_RO_COMPAT, self.ro_compat),
            (O_INCOMPAT, self.incompat),
            (O_NODE_ID, self.node_id),
            (O_BACKED_UP, self.backed_up),
            (O_HASH_KEY, self.hash_key[0]),
            (O_HASH_KEY + 8, self.hash_key[1]),
            (O_GENERATION, self.generation),
            (O_BLOCKS, self.blocks),
            (O_LOG_START, self.log_start),
            (O_LOG_LEN, self.log_len),
            (O_LOG_POS, self.log_pos),
            (O_LOG_SEQ, self.log_seq),
            (O_LOG2_START, self.log2_start),
            (O_NEXT_INO, self.next_ino),
            (O_ROOT_INO, self.root_ino),
            (O_INODES, self.inodes),
            (O_FREE, self.free),
            (O_SLOTS, self.free_slots),
            (O_DEAD, self.dead_blocks),
            (O_NODE_GOAL, self.node_goal),
            (O_DATA_GOAL, self.data_goal),
        ] {
            let _ = put(b, off, &v.to_le_bytes());
        }
        let _ = put(b, O_UUID, &self.uuid);
        let _ = put(b, O_LABEL, &self.label);
        let _ = put(b, O_AG_LOG2, &[self.ag_blocks.trailing_zeros() as u8]);
        let _ = put(b, O_DATA_CSUM, &[CRC32C, CRC32C, self.copies]);
        put_time(b, O_CREATED, self.created);
        put_time(b, O_MOUNTED, self.mounted);
        put_time(b, O_COMMITTED, self.committed);
        let roots = self.roots().into_iter();
        for (i, r) in Iterator::chain(roots, &self.spare_roots).enumerate() {
            put_root(b, root_at(i), r);
        }
        seal(b, self.generation);
    }

    /// Whether a number that only goes up is so near to its limit that the filesystem must not be
    /// written to. None gets there by use.
    pub fn used_up(&self) -> bool {
        [self.generation, self.log_pos, self.log_seq, self.next_ino]
            .iter()
            .any(|n| *n >= USED_UP)
    }

    /// Whether features that this code does not know forbid writing.
    pub fn read_only_features(&self) -> bool {
        self.ro_compat & !KNOWN_RO_COMPAT != 0
    }

    /// The first block of an AG; the end of the filesystem for AGs that do not exist.
    pub fn ag_start(&self, ag: u32) -> u64 {
        u64::from(ag)
            .saturating_mul(self.ag_blocks)
            .min(self.blocks)
    }

    /// The number of blocks of an AG.
    pub fn ag_len(&self, ag: u32) -> u64 {
        self.blocks
            .saturating_sub(self.ag_start(ag))
            .min(self.ag_blocks)
    }

    /// The ranges where neither nodes nor data can be, as first block and length: the areas of
    /// superblocks, and the log. They do not overlap.
    pub fn fixed_areas(&self) -> impl Iterator<Item = (u64, u64)> {
        let log = (self.log_start, self.log_len);
        // The prelude has another `chain`.
        Iterator::chain(
            areas(self.blocks).map(|start| (start, AREA_BLOCKS)),
            core::iter::once(log),
        )
    }

    /// From now on the filesystem has `blocks` blocks.
    pub fn set_blocks(&mut self, blocks: u64) {
        self.blocks = blocks;
        self.ag_count = ag_count(blocks, self.ag_blocks);
    }

    /// Whether the filesystem is large enough for backups.
    pub fn has_backups(&self) -> bool {
        backups(self.blocks).next().is_some()
    }

    /// Whether the filesystem was unmounted cleanly.
    pub fn is_clean(&self) -> bool {
        self.state & STATE_CLEAN != 0
    }
}
