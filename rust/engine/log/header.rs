// SPDX-License-Identifier: GPL-2.0

//! The header of a batch: 64 bytes at the start of a block, before the records.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `ORDL` |
//! | 4 | 4 | crc32c of bytes 8 to 63 and of the payload |
//! | 8 | 8 | node id |
//! | 16 | 8 | number |
//! | 24 | 8 | position |
//! | 32 | 8 | flushed: batches up to this number, and their data, were durable |
//! | 40 | 4 | bytes of payload, 1 to 4 MiB |
//! | 44 | 4 | flags: 1: the data that the records name was durable before |
//! | 48 | 8 | generation of the newest durable superblock |
//! | 56 | 4 | crc32c of bytes 8 to 55 |
//! | 60 | 4 | zero |
//!
//! All fields describe the moment before the batch was written. The header has a checksum of its
//! own, so that replay can use a header without its payload: the header says where the next batch
//! begins, and which batches before it were acknowledged.
//!
//! A device writes a sector as a whole, so after a power cut a header is either there or not there.
//! A header with a single wrong bit is damage ([`nearly`]). No locks.
//!
//! Tests: tools/engine/tests/log_format.rs (bytes, every bit), log_damage.rs, log_recovery.rs.

use crate::engine::format::{le32, le64, put, BLOCK_SIZE, MAX_GENERATION};
use crate::engine::mutant::{self, Mutant};
use crate::os::crc32c;

/// Bytes of a batch before its payload.
pub const HEADER: usize = 64;
/// The longest payload in bytes (4 MiB). If more is pending, fsync falls back to a commit.
pub const MAX_PAYLOAD: usize = 4 << 20;
const _: () = assert!(MAX_PAYLOAD <= u32::MAX as usize);
const MAGIC: u32 = u32::from_le_bytes(*b"ORDL");
/// Flag: the data was flushed before the batch was written.
const DATA_DURABLE: u32 = 1;
/// Where the header's own checksum is. It covers the bytes from 8 to here.
const OWN_SUM: usize = 56;

/// The length in blocks of a batch whose payload has `payload` bytes.
pub fn blocks_of(payload: usize) -> u64 {
    (HEADER + payload).div_ceil(BLOCK_SIZE) as u64
}

/// Identity and place of a batch, and what was durable before it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Position of its first block.
    pub pos: u64,
    /// Its number.
    pub seq: u64,
    /// Batches up to this number, and the data that they name, were durable. Below `seq`.
    pub flushed: u64,
    /// Generation of the newest durable superblock.
    pub generation: u64,
    /// The data that its records name was durable before the batch was written, so replay need not
    /// read that data.
    pub data_durable: bool,
}

/// A header that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What it says about the batch.
    pub batch: Batch,
    /// Bytes of payload.
    pub len: usize,
    /// The checksum that payload and header must have.
    sum: u32,
    /// The checksum so far, of the header's bytes.
    begun: u32,
}

/// The header of a batch with this payload. `None` for a payload that is too long.
pub fn encode(batch: Batch, node_id: u64, payload: &[u8]) -> Option<[u8; HEADER]> {
    let len = u32::try_from(payload.len()).ok()?;
    let flags = if batch.data_durable { DATA_DURABLE } else { 0 };
    let mut h = [0; HEADER];
    for (at, v) in [(0, MAGIC), (40, len), (44, flags)] {
        put(&mut h, at, &v.to_le_bytes())?;
    }
    for (at, v) in [
        (8, node_id),
        (16, batch.seq),
        (24, batch.pos),
        (32, batch.flushed),
        (48, batch.generation),
    ] {
        put(&mut h, at, &v.to_le_bytes())?;
    }
    let own = crc32c(0, h.get(8..OWN_SUM)?);
    put(&mut h, OWN_SUM, &own.to_le_bytes())?;
    let sum = crc32c(crc32c(0, h.get(8..)?), payload);
    put(&mut h, 4, &sum.to_le_bytes())?;
    Some(h)
}

/// Decodes the header at the start of `b`, the block at position `pos`. `None` if there is no whole
/// header of the filesystem `node_id` for this position.
pub fn decode(b: &[u8], node_id: u64, pos: u64) -> Option<Header> {
    let ours = le32(b, 0)? == MAGIC && le64(b, 8)? == node_id && le64(b, 24)? == pos;
    if !ours || le32(b, OWN_SUM)? != crc32c(0, b.get(8..OWN_SUM)?) || le32(b, 60)? != 0 {
        return None;
    }
    let (seq, flushed, flags) = (le64(b, 16)?, le64(b, 32)?, le32(b, 44)?);
    let len = le32(b, 40)? as usize;
    let itself = flushed == seq && mutant::is(Mutant::LogFlushedOwn);
    let generation = le64(b, 48)?;
    let possible = (flushed < seq || itself)
        && (1..=MAX_PAYLOAD).contains(&len)
        && generation <= MAX_GENERATION;
    if !possible || flags & !DATA_DURABLE != 0 {
        return None;
    }
    Some(Header {
        batch: Batch {
            pos,
            seq,
            flushed,
            generation,
            data_durable: flags & DATA_DURABLE != 0,
        },
        len,
        sum: le32(b, 4)?,
        begun: crc32c(0, b.get(8..HEADER)?),
    })
}

/// Is there a header of the batch `seq` at the start of `b`, but for one wrong bit? Only damage
/// leaves that: an old header of this place differs from a whole one in more bits.
pub fn nearly(b: &[u8], node_id: u64, pos: u64, seq: u64) -> bool {
    let Some(mut h) = b.first_chunk::<HEADER>().copied() else {
        return false;
    };
    (0..8 * HEADER).any(|bit| {
        let flip = |h: &mut [u8; HEADER]| {
            if let Some(byte) = h.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        };
        flip(&mut h);
        let found = decode(&h, node_id, pos).is_some_and(|h| h.batch.seq == seq);
        flip(&mut h);
        found
    })
}

impl Header {
    /// Position and number of the batch that follows.
    pub fn next(&self) -> (u64, u64) {
        let Batch { pos, seq, .. } = self.batch;
        (
            pos.saturating_add(blocks_of(self.len)),
            seq.saturating_add(1),
        )
    }

    /// Is this the payload that was written with the header?
    pub fn fits(&self, payload: &[u8]) -> bool {
        self.len == payload.len() && self.sum == crc32c(self.begun, payload)
    }
}
