// SPDX-License-Identifier: GPL-2.0

//! Extent records: the values of extent trees. The key is the first file block.
//!
//! The record of written blocks contains their checksums; there is no tree of checksums by disk
//! block. Mapping and checksums change together under one inode's lock, so they cannot disagree. A
//! record with checksums has at most [`MAX_CSUM_BLOCKS`] blocks.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | first disk block |
//! | 8 | 4 | number of blocks, n |
//! | 12 | 1 | flags: 1 = unwritten, 2 = has checksums |
//! | 13 | 3 | zero |
//! | 16 | 8 | generation of the transaction that wrote it |
//! | 24 | 4 n | crc32c of each block, if flag 2 is set |
//!
//! Tests: `tools/engine/tests/impossible.rs`, `tools/engine/tests/read_verify.rs`,
//! `tools/engine/tests/state_machine.rs`.

use super::node::MAX_VALUE;
use super::{corrupt, le32, le64, Room};
use kernel::prelude::*;

/// The most blocks in a record with checksums: 1 MiB of data.
pub const MAX_CSUM_BLOCKS: u64 = 256;
/// The most blocks in a record without checksums.
pub const MAX_BLOCKS: u64 = 1 << 31;
/// Bytes of a record before the checksums.
pub const HEADER: usize = 24;
const _: () = assert!(HEADER + 4 * MAX_CSUM_BLOCKS as usize <= MAX_VALUE);

const F_UNWRITTEN: u8 = 1;
const F_CSUMS: u8 = 2;

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
    /// Generation of the transaction that wrote the record.
    pub generation: u64,
}

impl Extent {
    /// The first file block after the extent.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Decodes and checks the record `v` with the key `key`. `room` says where its blocks may be.
    /// EUCLEAN if it cannot be true.
    pub fn decode(key: u64, v: &[u8], room: impl Into<Room>) -> Result<Self> {
        let bad = |what| corrupt("extent", key, what);
        let phys = le64(v, 0).ok_or_else(|| bad("short record"))?;
        let len = u64::from(le32(v, 8).ok_or_else(|| bad("short record"))?);
        let flags = *v.get(12).ok_or_else(|| bad("short record"))?;
        let generation = le64(v, 16).ok_or_else(|| bad("short record"))?;
        if flags & !(F_UNWRITTEN | F_CSUMS) != 0 {
            return Err(bad("unknown flags"));
        }
        if v.get(13..16) != Some(&[0; 3]) {
            return Err(bad("reserved bytes are not zero"));
        }
        let csums = flags & F_CSUMS != 0;
        let unwritten = flags & F_UNWRITTEN != 0;
        if len == 0 || len > MAX_BLOCKS || (csums && (len > MAX_CSUM_BLOCKS || unwritten)) {
            return Err(bad("impossible length"));
        }
        let want = if csums {
            HEADER + 4 * len as usize
        } else {
            HEADER
        };
        if v.len() != want {
            return Err(bad("wrong length of the record"));
        }
        if let Some(what) = room.into().refuses(phys, len) {
            return Err(bad(what));
        }
        if key
            .checked_add(len)
            .is_none_or(|e| e > crate::engine::types::MAX_FILE_BLOCKS)
        {
            return Err(bad("file blocks beyond the largest file"));
        }
        Ok(Self {
            start: key,
            phys,
            len,
            unwritten,
            csums,
            generation,
        })
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
        out.extend_from_slice(&self.generation.to_le_bytes(), GFP_KERNEL)?;
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
