// SPDX-License-Identifier: GPL-2.0

//! Extent records: the values of extent trees. The key is the first file block.
//!
//! The record of written blocks contains their checksums; there is no tree of checksums by disk
//! block. Mapping and checksums change together under one inode's lock, so they cannot disagree.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | first disk block |
//! | 8 | 4 | number of blocks, n |
//! | 12 | 1 | flags: 1 = unwritten, 2 = has checksums, 4 = compressed, 8 = encrypted (reserved) |
//! | 13 | 1 | compression: zero |
//! | 14 | 2 | disk blocks if compressed: zero |
//! | 16 | 4 | epoch in which the record came to be |
//! | 20 | 4 | zero |
//! | 24 | 4 n | crc32c of each block, if flag 2 is set |
//!
//! A record is either unwritten or has checksums. Records with checksums are short, because a change
//! of one block copies all checksums of the record. Seven of [`MAX_CSUM_BLOCKS`] blocks fill a leaf.
//!
//! The *epoch* is a counter in the superblock that a snapshot raises. It says which snapshots have
//! the record: those that closed the epoch of the record or a later one. Two records are joined only
//! if their epochs are equal.
//!
//! Tests: `tools/engine/tests/records.rs`, `tools/engine/tests/impossible.rs`,
//! `tools/engine/tests/read_verify.rs`, `tools/engine/tests/state_machine.rs`.

use super::node::{LEAF_SPACE, MAX_VALUE, SLOT_LEN};
use super::superblock::MAX_AG_LOG2;
use super::{corrupt, le32, le64, Room};
use kernel::prelude::*;

/// The most blocks in a record with checksums: 512 KiB of data.
pub const MAX_CSUM_BLOCKS: u64 = 128;
/// The most blocks in a record without checksums: those of the largest AG.
pub const MAX_BLOCKS: u64 = 1 << MAX_AG_LOG2;
/// Bytes of a record before the checksums.
pub const HEADER: usize = 24;
const _: () = assert!(HEADER + 4 * MAX_CSUM_BLOCKS as usize <= MAX_VALUE);
const _: () = assert!(7 * (SLOT_LEN + HEADER + 4 * MAX_CSUM_BLOCKS as usize) <= LEAF_SPACE);

const F_UNWRITTEN: u8 = 1;
const F_CSUMS: u8 = 2;
const F_COMPRESSED: u8 = 4;
const F_ENCRYPTED: u8 = 8;

/// A decoded extent record without its checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First file block (the key).
    pub start: u64,
    /// First disk block.
    pub phys: u64,
    /// Number of blocks.
    pub len: u64,
    /// The blocks are allocated and were never written.
    pub unwritten: bool,
    /// The record has checksums.
    pub csums: bool,
    /// The epoch in which the record came to be.
    pub epoch: u32,
}

impl Extent {
    /// The first file block after the extent.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Decodes and checks the record `v` with the key `key`. `room` says where its blocks may be.
    /// EUCLEAN if it cannot be true.
    pub fn decode(key: u64, v: &[u8], room: impl Into<Room>) -> Result<Self> {
        Self::parse(key, v, room).map_err(|what| corrupt("extent", key, what))
    }

    /// As [`Extent::decode`], and says what is wrong with a record that cannot be true.
    pub fn parse(
        key: u64,
        v: &[u8],
        room: impl Into<Room>,
    ) -> core::result::Result<Self, &'static str> {
        const SHORT: &str = "short record";
        let flags = *v.get(12).ok_or(SHORT)?;
        if flags & F_COMPRESSED != 0 {
            return Err("compression is not supported");
        }
        if flags & F_ENCRYPTED != 0 {
            return Err("encryption is not supported");
        }
        if flags & !(F_UNWRITTEN | F_CSUMS) != 0 {
            return Err("unknown flags");
        }
        let e = Self {
            start: key,
            phys: le64(v, 0).ok_or(SHORT)?,
            len: le32(v, 8).ok_or(SHORT)?.into(),
            unwritten: flags & F_UNWRITTEN != 0,
            csums: flags & F_CSUMS != 0,
            epoch: le32(v, 16).ok_or(SHORT)?,
        };
        if v.get(13..16) != Some(&[0; 3]) || v.get(20..HEADER) != Some(&[0; 4]) {
            return Err("reserved bytes are not zero");
        }
        e.check(v.len(), room.into()).map_or(Ok(e), Err)
    }

    /// What cannot be true of the fields of a record of `bytes` bytes.
    fn check(&self, bytes: usize, room: Room) -> Option<&'static str> {
        if self.csums == self.unwritten {
            return Some("neither unwritten nor with checksums, or both");
        }
        if !(1..=self.max_blocks()).contains(&self.len) {
            return Some("impossible length");
        }
        let sums = if self.csums { 4 * self.len as usize } else { 0 };
        if bytes != HEADER + sums {
            return Some("wrong length of the record");
        }
        if !(1..=room.epoch()).contains(&self.epoch) {
            return Some("impossible epoch");
        }
        let end = self.start.checked_add(self.len);
        if end.is_none_or(|e| e > crate::engine::types::MAX_FILE_BLOCKS) {
            return Some("file blocks beyond the largest file");
        }
        room.refuses(self.phys, self.len)
    }

    /// The most blocks of a record of this kind.
    pub fn max_blocks(&self) -> u64 {
        match self.csums {
            true => MAX_CSUM_BLOCKS,
            false => MAX_BLOCKS,
        }
    }

    /// Encodes the record into `out`. `csums` are the checksums of its blocks, 4 little-endian
    /// bytes each, and empty if it has none. ENOMEM.
    pub fn encode(&self, csums: &[u8], out: &mut KVec<u8>) -> Result {
        out.clear();
        let mut flags = 0;
        if self.unwritten {
            flags |= F_UNWRITTEN;
        }
        if self.csums {
            flags |= F_CSUMS;
        }
        out.extend_from_slice(&self.phys.to_le_bytes(), GFP_KERNEL)?;
        out.extend_from_slice(&(self.len as u32).to_le_bytes(), GFP_KERNEL)?;
        out.extend_from_slice(&[flags, 0, 0, 0], GFP_KERNEL)?;
        out.extend_from_slice(&self.epoch.to_le_bytes(), GFP_KERNEL)?;
        out.extend_from_slice(&[0; 4], GFP_KERNEL)?;
        if self.csums {
            out.extend_from_slice(csums, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// The part of this extent in the file blocks `[from, to)`. Its length is 0 if the two do not
    /// overlap.
    pub fn slice(&self, from: u64, to: u64) -> Self {
        let from = from.max(self.start);
        let to = to.min(self.end());
        Self {
            start: from,
            phys: self.phys + (from - self.start),
            len: to.saturating_sub(from),
            ..*self
        }
    }

    /// The checksums, 4 little-endian bytes each, of the file blocks `[from, to)` in the encoded
    /// record `v`.
    pub fn csum_slice<'a>(&self, v: &'a [u8], from: u64, to: u64) -> &'a [u8] {
        if !self.csums {
            return &[];
        }
        let a = HEADER + 4 * from.max(self.start).saturating_sub(self.start) as usize;
        let b = HEADER + 4 * to.min(self.end()).saturating_sub(self.start) as usize;
        v.get(a..b).unwrap_or(&[])
    }

    /// The checksum of the block `off` blocks after the first one, from the encoded record `v`.
    /// `Ok(None)` if the record has no checksums, EIO if `off` is past its end.
    pub fn csum(&self, v: &[u8], off: u64) -> Result<Option<u32>> {
        if !self.csums {
            return Ok(None);
        }
        le32(v, HEADER + 4 * off as usize).map(Some).ok_or(EIO)
    }
}
