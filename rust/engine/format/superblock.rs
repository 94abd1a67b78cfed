// SPDX-License-Identifier: GPL-2.0

//! The superblock: two slots of one block each, written alternately ([`super::find`],
//! [`super::slots`]). Lengths and addresses are in blocks.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic "OrdoFS", 0, 1 |
//! | 8 | 4 | crc32c of bytes 12..4096 |
//! | 12 | 4 | format version: 1 |
//! | 16 | 4 | log2 of the block size: 12 |
//! | 20 | 4 | number of AGs, 1..=32 |
//! | 24 | 8 | compat feature bits: may be ignored |
//! | 32 | 8 | ro_compat feature bits: unknown ones allow reading only |
//! | 40 | 8 | incompat feature bits: unknown ones forbid mounting |
//! | 48 | 16 | UUID; its first 8 bytes are the fsid in nodes |
//! | 64 | 64 | label, UTF-8, padded with zeros |
//! | 128 | 16 | SipHash key of directory hashes: two u64 |
//! | 144 | 8 | generation, from 1 |
//! | 152 | 8 | blocks of the filesystem |
//! | 160 | 8 | blocks of an AG (the last one may be shorter), a multiple of the next field |
//! | 168 | 4 | blocks of a group: 8192 |
//! | 172 | 4 | state: 1 = unmounted cleanly |
//! | 176 | 8 | first block of the log |
//! | 184 | 8 | blocks of the log |
//! | 192 | 8 | log position: where replay starts, in log blocks ever written |
//! | 200 | 8 | log sequence number: of the batch at that position |
//! | 208 | 8 | next inode number |
//! | 216 | 8 | inode number of the root directory |
//! | 224 | 8 | number of inodes |
//! | 232 | 8 | number of free blocks |
//! | 240 | 16 | time of creation: seconds i64, nanoseconds u32, zero u32 |
//! | 256 | 16 | time of the last mount |
//! | 272 | 16 | time of the last commit |
//! | 288 | 224 | zero |
//! | 512 | 32 | NodePtr: inode tree |
//! | 544 | 32 | NodePtr: orphan tree |
//! | 576 | 128 | 4 NodePtr, reserved |
//! | 704 | 320 | zero |
//! | 1024 | 1024 | 32 NodePtr: allocation trees of the AGs |
//! | 2048 | 2048 | zero |
//!
//! A NodePtr of zeros is an empty tree. All numbers are checked for possibility, also under a right
//! checksum.
//!
//! Tests: `tools/engine/tests/format.rs`, `tools/engine/tests/superblocks.rs`,
//! `tools/fsck/tests/forged_superblocks.rs`.

use super::{
    le32, le64, put, NodePtr, BLOCK_SHIFT, BLOCK_SIZE, GROUP_BLOCKS, LOG_MAX_BLOCKS,
    LOG_MIN_BLOCKS, MAX_AGS, MAX_BLOCKS, MAX_INO, MIN_BLOCKS, NODE_PTR_LEN, RESERVED_BLOCKS,
    VERSION,
};
use crate::os::{crc32c, Time};
use kernel::prelude::*;

/// The magic number.
pub const SB_MAGIC: [u8; 8] = *b"OrdoFS\0\x01";
/// The compat feature bits that this code knows.
pub const KNOWN_COMPAT: u64 = 0;
/// The ro_compat feature bits that this code knows.
pub const KNOWN_RO_COMPAT: u64 = 0;
/// The incompat feature bits that this code knows.
pub const KNOWN_INCOMPAT: u64 = 0;
/// State flag: the filesystem was unmounted cleanly.
pub const STATE_CLEAN: u32 = 1;
/// Bytes of the label.
pub const LABEL_LEN: usize = 64;
/// Reserved tree roots.
pub const SPARE_ROOTS: usize = 4;

pub(super) const NOT_OURS: &str = "there is no OrdoFS superblock";

const O_CSUM: usize = 8;
const O_VERSION: usize = 12;
const O_SHIFT: usize = 16;
const O_AGS: usize = 20;
const O_COMPAT: usize = 24;
const O_RO_COMPAT: usize = 32;
const O_INCOMPAT: usize = 40;
const O_UUID: usize = 48;
const O_LABEL: usize = 64;
const O_HASH_KEY: usize = 128;
pub(super) const O_GENERATION: usize = 144;
const O_BLOCKS: usize = 152;
const O_AG_BLOCKS: usize = 160;
const O_GROUP: usize = 168;
const O_STATE: usize = 172;
const O_LOG_START: usize = 176;
const O_LOG_LEN: usize = 184;
const O_LOG_POS: usize = 192;
const O_LOG_SEQ: usize = 200;
const O_NEXT_INO: usize = 208;
const O_ROOT_INO: usize = 216;
const O_INODES: usize = 224;
const O_FREE: usize = 232;
const O_CREATED: usize = 240;
const O_MOUNTED: usize = 256;
const O_COMMITTED: usize = 272;
pub(super) const O_ROOT_INODE: usize = 512;
const O_ROOT_ORPHAN: usize = 544;
pub(super) const O_ROOT_SPARE: usize = 576;
pub(super) const O_ROOT_AGS: usize = 1024;
const _: () = assert!(O_LABEL + LABEL_LEN == O_HASH_KEY && O_COMMITTED + 16 <= O_ROOT_INODE);
const _: () = assert!(O_ROOT_ORPHAN == O_ROOT_INODE + NODE_PTR_LEN);
const _: () = assert!(O_ROOT_SPARE == O_ROOT_ORPHAN + NODE_PTR_LEN);
const _: () = assert!(O_ROOT_SPARE + SPARE_ROOTS * NODE_PTR_LEN <= O_ROOT_AGS);
const _: () = assert!(O_ROOT_AGS + MAX_AGS * NODE_PTR_LEN <= BLOCK_SIZE);

/// Why a superblock was refused.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// EINVAL: not OrdoFS, or not supported. EUCLEAN: damaged. Otherwise the error of the device,
    /// or ENOMEM.
    pub error: Error,
    /// A sentence for the user.
    pub reason: &'static str,
}

/// The fields of sector 0 that differ from commit to commit.
pub(super) struct Variable {
    pub(super) generation: u64,
    pub(super) log_pos: u64,
    pub(super) log_seq: u64,
    pub(super) next_ino: u64,
    pub(super) inodes: u64,
    pub(super) free: u64,
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
    /// Label, padded with zeros.
    pub label: [u8; LABEL_LEN],
    /// SipHash key of directory hashes.
    pub hash_key: [u64; 2],
    /// Generation of the commit that wrote it.
    pub generation: u64,
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
    /// The next inode number to give out.
    pub next_ino: u64,
    /// The root directory.
    pub root_ino: u64,
    /// Number of inodes.
    pub inodes: u64,
    /// Number of free blocks.
    pub free: u64,
    /// The time at which mkfs made the filesystem.
    pub created: Time,
    /// The time of the last mount.
    pub mounted: Time,
    /// The time at which this superblock was written.
    pub committed: Time,
    /// Root of the inode tree.
    pub inode_root: Option<NodePtr>,
    /// Root of the orphan tree.
    pub orphan_root: Option<NodePtr>,
    /// Reserved roots.
    pub spare_roots: [Option<NodePtr>; SPARE_ROOTS],
    /// Roots of the allocation trees; those from `ag_count` on are `None`.
    pub ag_roots: [Option<NodePtr>; MAX_AGS],
}

/// The division of a device of `blocks` blocks: the number of AGs and the blocks of each but the
/// last.
pub fn ag_geometry(blocks: u64) -> (u32, u64) {
    // Up to 32 AGs of at least 8 groups (256 MiB).
    let groups = blocks.div_ceil(GROUP_BLOCKS).max(1);
    let each = groups.div_ceil(MAX_AGS as u64).max(8);
    (groups.div_ceil(each) as u32, each * GROUP_BLOCKS)
}

/// The length of the log, in blocks, that mkfs chooses for a device of `blocks` blocks.
pub fn log_length(blocks: u64) -> u64 {
    (blocks / 128).clamp(LOG_MIN_BLOCKS, LOG_MAX_BLOCKS)
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

/// Checks magic number and checksum: if both are right, the content is what was once written.
pub(super) fn is_intact(b: &[u8]) -> Result<(), Refusal> {
    if b.get(..SB_MAGIC.len()) != Some(&SB_MAGIC[..]) {
        return Err(refuse(EINVAL, NOT_OURS));
    }
    if le32(b, O_CSUM) != b.get(O_VERSION..BLOCK_SIZE).map(|rest| crc32c(0, rest)) {
        return Err(refuse(EUCLEAN, "bad superblock checksum"));
    }
    Ok(())
}

impl Superblock {
    /// Decodes a superblock and checks all that does not need the device.
    pub fn decode(b: &[u8; BLOCK_SIZE]) -> Result<Self, Refusal> {
        Ok((*Self::decode_boxed(b)?).clone())
    }

    /// As `decode`, into the heap, because a superblock is too large for a kernel stack with much
    /// else on it.
    pub(super) fn decode_boxed(b: &[u8; BLOCK_SIZE]) -> Result<KBox<Self>, Refusal> {
        is_intact(b)?;
        // These fields say whether the rest can be understood.
        if le32(b, O_VERSION) != Some(VERSION) {
            return Err(refuse(EINVAL, "unsupported format version"));
        }
        let unknown = le64(b, O_INCOMPAT).unwrap_or(u64::MAX) & !KNOWN_INCOMPAT;
        if unknown != 0 {
            pr_err!(
                "superblock has unknown incompatible features {:#x}\n",
                unknown
            );
            return Err(refuse(EINVAL, "unknown incompatible features: see the log"));
        }
        if le32(b, O_SHIFT) != Some(BLOCK_SHIFT) {
            return Err(refuse(EINVAL, "unsupported block size"));
        }
        if le32(b, O_GROUP).map(u64::from) != Some(GROUP_BLOCKS) {
            return Err(refuse(EINVAL, "unsupported group size"));
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
            *r = root(O_ROOT_SPARE + i * NODE_PTR_LEN)?;
        }
        let mut ag_roots = [None; MAX_AGS];
        for (i, r) in ag_roots.iter_mut().enumerate() {
            *r = root(O_ROOT_AGS + i * NODE_PTR_LEN)?;
        }
        let sb = Self {
            compat: le64(b, O_COMPAT)?,
            ro_compat: le64(b, O_RO_COMPAT)?,
            incompat: le64(b, O_INCOMPAT)?,
            uuid: *b.get(O_UUID..)?.first_chunk()?,
            label: *b.get(O_LABEL..)?.first_chunk()?,
            hash_key: [le64(b, O_HASH_KEY)?, le64(b, O_HASH_KEY + 8)?],
            generation: le64(b, O_GENERATION)?,
            blocks: le64(b, O_BLOCKS)?,
            ag_count: le32(b, O_AGS)?,
            ag_blocks: le64(b, O_AG_BLOCKS)?,
            state: le32(b, O_STATE)?,
            log_start: le64(b, O_LOG_START)?,
            log_len: le64(b, O_LOG_LEN)?,
            log_pos: le64(b, O_LOG_POS)?,
            log_seq: le64(b, O_LOG_SEQ)?,
            next_ino: le64(b, O_NEXT_INO)?,
            root_ino: le64(b, O_ROOT_INO)?,
            inodes: le64(b, O_INODES)?,
            free: le64(b, O_FREE)?,
            created: time(b, O_CREATED)?,
            mounted: time(b, O_MOUNTED)?,
            committed: time(b, O_COMMITTED)?,
            inode_root: root(O_ROOT_INODE)?,
            orphan_root: root(O_ROOT_ORPHAN)?,
            spare_roots,
            ag_roots,
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
        let used_ags = usize::try_from(self.ag_count).unwrap_or(usize::MAX);
        let label_end = self.label.iter().position(|&c| c == 0).unwrap_or(LABEL_LEN);
        let (label, padding) = self.label.split_at_checked(label_end)?;
        Some(if self.generation == 0 || self.generation > 1 << 62 {
            "impossible generation"
        } else if self.log_pos > 1 << 62 || self.log_seq > 1 << 62 {
            "impossible position of the log"
        } else if self.blocks < MIN_BLOCKS || self.blocks > MAX_BLOCKS {
            "impossible size of the filesystem"
        } else if self.ag_blocks == 0 || self.ag_blocks % GROUP_BLOCKS != 0 {
            "impossible size of the allocation groups"
        } else if used_ags == 0
            || used_ags > MAX_AGS
            || self.blocks.div_ceil(self.ag_blocks) != u64::from(self.ag_count)
        {
            "impossible number of allocation groups"
        } else if self.log_start < RESERVED_BLOCKS
            || !(LOG_MIN_BLOCKS..=LOG_MAX_BLOCKS).contains(&self.log_len)
            || self
                .log_start
                .checked_add(self.log_len)
                .is_none_or(|end| end > self.blocks)
        {
            "impossible place of the log"
        } else if self.free > self.blocks {
            "more free blocks than blocks"
        } else if self.next_ino > MAX_INO {
            "impossible next inode number"
        } else if self.root_ino == 0 || self.root_ino >= self.next_ino {
            "impossible inode number of the root directory"
        } else if self.inodes == 0 || self.inodes >= self.next_ino {
            "impossible number of inodes"
        } else if self.state & !STATE_CLEAN != 0 {
            "unknown state flags"
        } else if core::str::from_utf8(label).is_err() || padding.iter().any(|&c| c != 0) {
            "malformed label"
        } else if self.inode_root.is_none() {
            "no inode tree"
        } else if bad_root(&self.inode_root) || bad_root(&self.orphan_root) {
            "impossible root of a tree"
        } else if self.spare_roots.iter().any(|r| r.is_some()) {
            "a reserved root is in use"
        } else if self.ag_roots.iter().any(bad_root)
            || self.ag_roots.iter().skip(used_ags).any(|r| r.is_some())
        {
            "impossible root of an allocation tree"
        } else {
            return None;
        })
    }

    /// Encodes the superblock.
    pub fn encode(&self, b: &mut [u8; BLOCK_SIZE]) {
        b.fill(0);
        let _ = put(b, 0, &SB_MAGIC);
        for (off, v) in [
            (O_VERSION, VERSION),
            (O_SHIFT, BLOCK_SHIFT),
            (O_AGS, self.ag_count),
            (O_GROUP, GROUP_BLOCKS as u32),
            (O_STATE, self.state),
        ] {
            let _ = put(b, off, &v.to_le_bytes());
        }
        for (off, v) in [
            (O_COMPAT, self.compat),
            (O_RO_COMPAT, self.ro_compat),
            (O_INCOMPAT, self.incompat),
            (O_HASH_KEY, self.hash_key[0]),
            (O_HASH_KEY + 8, self.hash_key[1]),
            (O_GENERATION, self.generation),
            (O_BLOCKS, self.blocks),
            (O_AG_BLOCKS, self.ag_blocks),
            (O_LOG_START, self.log_start),
            (O_LOG_LEN, self.log_len),
            (O_LOG_POS, self.log_pos),
            (O_LOG_SEQ, self.log_seq),
            (O_NEXT_INO, self.next_ino),
            (O_ROOT_INO, self.root_ino),
            (O_INODES, self.inodes),
            (O_FREE, self.free),
        ] {
            let _ = put(b, off, &v.to_le_bytes());
        }
        let _ = put(b, O_UUID, &self.uuid);
        let _ = put(b, O_LABEL, &self.label);
        put_time(b, O_CREATED, self.created);
        put_time(b, O_MOUNTED, self.mounted);
        put_time(b, O_COMMITTED, self.committed);
        put_root(b, O_ROOT_INODE, &self.inode_root);
        put_root(b, O_ROOT_ORPHAN, &self.orphan_root);
        for (i, r) in self.spare_roots.iter().enumerate() {
            put_root(b, O_ROOT_SPARE + i * NODE_PTR_LEN, r);
        }
        for (i, r) in self.ag_roots.iter().enumerate() {
            put_root(b, O_ROOT_AGS + i * NODE_PTR_LEN, r);
        }
        let crc = crc32c(0, b.get(O_VERSION..).unwrap_or(&[]));
        let _ = put(b, O_CSUM, &crc.to_le_bytes());
    }

    /// Decodes the fields that differ from commit to commit, of bytes that need not be a
    /// superblock.
    pub(super) fn variable_fields(b: &[u8]) -> Option<Variable> {
        let state = le32(b, O_STATE)?;
        time(b, O_COMMITTED)?;
        let v = Variable {
            generation: le64(b, O_GENERATION)?,
            log_pos: le64(b, O_LOG_POS)?,
            log_seq: le64(b, O_LOG_SEQ)?,
            next_ino: le64(b, O_NEXT_INO)?,
            inodes: le64(b, O_INODES)?,
            free: le64(b, O_FREE)?,
        };
        (state & !STATE_CLEAN == 0 && le32(b, O_COMMITTED + 12)? == 0).then_some(v)
    }

    /// Whether features that this code does not know forbid writing.
    pub fn read_only_features(&self) -> bool {
        self.ro_compat & !KNOWN_RO_COMPAT != 0
    }

    /// The fsid, which every node and batch of this filesystem carries.
    pub fn fsid(&self) -> u64 {
        le64(&self.uuid, 0).unwrap_or(0)
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

    /// The first block that is neither reserved nor part of the log.
    pub fn first_free_block(&self) -> u64 {
        self.log_start.saturating_add(self.log_len)
    }
}
