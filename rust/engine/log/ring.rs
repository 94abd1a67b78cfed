// SPDX-License-Identifier: GPL-2.0

//! The log area as a ring of batches.
//!
//! A position counts the log blocks that were ever written; modulo the length of the area it is a
//! place in the ring. A batch starts at a block and takes as many blocks as it needs:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `ORDL` |
//! | 4 | 4 | crc32c of the rest of the batch (header from 8 on, payload) |
//! | 8 | 8 | fsid |
//! | 16 | 8 | sequence number |
//! | 24 | 8 | position |
//! | 32 | 4 | bytes of payload |
//! | 36 | 4 | flags: 1: the data that the records name was durable before |
//! | 40 | 24 | zero |
//! | 64 | .. | payload: records |
//!
//! Positions and lengths of areas are in blocks, lengths of payloads in bytes. The functions take
//! no locks. The caller of [`write()`] holds the lock of the log's writer, which keeps batches in
//! order; readers run at mount, before anything is written.
//!
//! Tests: tools/engine/tests/log_recovery.rs (damaged, forged and unreadable batches, flushes that
//! fail), tools/engine/tests/log_flushes.rs, tools/crash/tests/recovery.rs,
//! tests/vm/t/067-damage.sh.

use super::ahead::Ahead;
use crate::engine::btree::NodeStore;
use crate::engine::format::{le32, le64, put, BLOCK_SIZE};
use crate::engine::invariant::{broken, Invariant};
use crate::engine::mutant::{self, Mutant};
use crate::os::{crc32c, Block};
use kernel::prelude::*;

/// Bytes of a batch before its payload.
pub const HEADER: usize = 64;
/// The longest payload in bytes (4 MiB). If more is pending, fsync falls back to a commit.
pub const MAX_PAYLOAD: usize = 4 << 20;
const _: () = assert!(MAX_PAYLOAD <= u32::MAX as usize);
const MAGIC: u32 = u32::from_le_bytes(*b"ORDL");
/// Flag of a batch: its data was flushed before the batch was written.
const DATA_DURABLE: u32 = 1;

/// Identity and place of a batch.
#[derive(Clone, Copy)]
pub struct Batch {
    /// Position of its first block.
    pub pos: u64,
    /// Its sequence number.
    pub seq: u64,
    /// The data that its records name was durable before the batch was written, so replay need not
    /// read that data.
    pub data_durable: bool,
}

/// Is a batch flushed along with its write?
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Yes, with everything that was written before.
    Now,
    /// No. Only a mutant leaves that to later.
    #[allow(dead_code)]
    Later,
}

/// The part of the device that the log takes: blocks `[start, start + len)`.
#[derive(Clone, Copy)]
pub struct Area {
    /// First block.
    pub start: u64,
    /// Length in blocks.
    pub len: u64,
}

impl Area {
    /// The disk block of a position.
    fn block(&self, pos: u64) -> u64 {
        self.start + pos % self.len.max(1)
    }
}

/// The length in blocks of a batch whose payload has `payload` bytes.
pub fn blocks_of(payload: usize) -> u64 {
    (HEADER + payload).div_ceil(BLOCK_SIZE) as u64
}

/// Writes a batch. With [`Flush::Now`], also flushes, which makes the batch and all data written before it
/// durable.
///
/// Returns ENOMEM before anything is written, and EIO for every error of the device, whatever the
/// device calls it: after a failed flush the device may have dropped what it had accepted, and a
/// later flush that succeeds does not say so. The caller must not fall back to a commit after EIO.
pub fn write(
    node_store: &NodeStore,
    area: Area,
    batch: Batch,
    payload: &[u8],
    flush: Flush,
) -> Result {
    let n = blocks_of(payload.len()) as usize;
    let small = || broken(Invariant::LogBlock, format_args!("no room for a field"));
    let mut blocks = KVec::with_capacity(n, GFP_KERNEL)?;
    let mut rest = payload;
    for i in 0..n {
        let mut b = Block::zeroed()?;
        let at = if i == 0 { HEADER } else { 0 };
        let (now, later) = rest.split_at(rest.len().min(BLOCK_SIZE - at));
        put(&mut b[..], at, now).ok_or_else(small)?;
        rest = later;
        blocks.push(b, GFP_KERNEL)?;
    }
    let first = blocks.first_mut().ok_or_else(small)?;
    for (at, v) in [(8, node_store.fsid()), (16, batch.seq), (24, batch.pos)] {
        put(&mut first[..], at, &v.to_le_bytes()).ok_or_else(small)?;
    }
    put(&mut first[..], 0, &MAGIC.to_le_bytes()).ok_or_else(small)?;
    put(&mut first[..], 32, &(payload.len() as u32).to_le_bytes()).ok_or_else(small)?;
    let flags = if batch.data_durable { DATA_DURABLE } else { 0 };
    put(&mut first[..], 36, &flags.to_le_bytes()).ok_or_else(small)?;
    let crc = crc32c(crc32c(0, first.get(8..HEADER).unwrap_or(&[])), payload);
    put(&mut first[..], 4, &crc.to_le_bytes()).ok_or_else(small)?;
    let mut reqs = KVec::with_capacity(n, GFP_KERNEL)?;
    for (i, b) in blocks.iter().enumerate() {
        reqs.push((area.block(batch.pos + i as u64), b), GFP_KERNEL)?;
    }
    // One sequential write, or two where the ring wraps around.
    if flush == Flush::Later || mutant::is(Mutant::LogSkipFlush) {
        return node_store.device().write(&reqs).map_err(|_| EIO);
    }
    node_store.device().write_stable(&reqs).map_err(|_| EIO)
}

/// What a read at a position of the log finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// No header of the expected batch: the log ends here.
    Nothing,
    /// The header of the expected batch, but the batch was cut off or damaged.
    Damaged,
    /// The device cannot read the block.
    Unreadable,
    /// The whole batch, with the right checksum and only valid records.
    Whole {
        /// See [`Batch::data_durable`].
        data_durable: bool,
    },
}

/// The sequence number of the batch whose header is at `pos`; `None` if no header of this log is
/// there.
pub fn begins(
    node_store: &NodeStore,
    area: Area,
    ahead: &mut Ahead<'_>,
    pos: u64,
) -> Result<Option<u64>> {
    let b = ahead.get(area.block(pos), area.start + area.len)?;
    let ours = le32(&b[..], 0) == Some(MAGIC)
        && le64(&b[..], 8) == Some(node_store.fsid())
        && le64(&b[..], 24) == Some(pos);
    Ok(le64(&b[..], 16).filter(|_| ours))
}

/// Reads the payload of the batch at position `at.0` with number `at.1`. ENOMEM is the only error;
/// errors of the device are [`Found::Unreadable`].
pub fn read(
    node_store: &NodeStore,
    area: Area,
    ahead: &mut Ahead<'_>,
    at: (u64, u64),
    payload: &mut KVVec<u8>,
) -> Result<Found> {
    match read_whole(node_store, area, ahead, at, payload) {
        Err(e) if e != ENOMEM => Ok(Found::Unreadable),
        found => found,
    }
}

/// The number of the newest batch whose header lies in `[pos + 1, end)` and can only have been
/// written after the batch `seq` at `pos` was flushed. `None` if there is no such header.
///
/// The header at `pos` is damaged and does not say how long its batch is, so the search reaches as
/// far as the longest possible batch, and again as far from each batch that it finds. Three facts
/// rule out false finds. A header carries its position and number, and remains of earlier laps of
/// the ring carry other positions. Remains behind the end of an earlier log carry smaller numbers,
/// because replay leaves a gap. Each batch takes at least one block, so the number cannot be
/// further ahead than the position.
pub fn newest_behind(
    node_store: &NodeStore,
    area: Area,
    ahead: &mut Ahead<'_>,
    (pos, seq): (u64, u64),
    end: u64,
) -> Option<u64> {
    let reach = blocks_of(MAX_PAYLOAD);
    let mut newest = None;
    let mut until = pos.saturating_add(reach);
    let mut at = pos + 1;
    while at <= until && at < end {
        // A block that cannot be read proves nothing.
        let found = begins(node_store, area, ahead, at).ok().flatten();
        let follows = |s: &u64| *s > newest.unwrap_or(seq) && *s - seq <= at - pos;
        if let Some(s) = found.filter(follows) {
            newest = Some(s);
            until = at.saturating_add(reach);
        }
        at += 1;
    }
    newest
}

/// [`read()`], with errors of the device as errors.
fn read_whole(
    node_store: &NodeStore,
    area: Area,
    ahead: &mut Ahead<'_>,
    (pos, seq): (u64, u64),
    payload: &mut KVVec<u8>,
) -> Result<Found> {
    payload.clear();
    if begins(node_store, area, ahead, pos)? != Some(seq) {
        return Ok(Found::Nothing);
    }
    let end = area.start + area.len;
    let b = ahead.get(area.block(pos), end)?;
    let len = le32(&b[..], 32).unwrap_or(0) as usize;
    if len > MAX_PAYLOAD || blocks_of(len) > area.len {
        return Ok(Found::Damaged);
    }
    let want = le32(&b[..], 4);
    let data_durable = le32(&b[..], 36).unwrap_or(0) & DATA_DURABLE != 0;
    let head = crc32c(0, b.get(8..HEADER).unwrap_or(&[]));
    let mut at = HEADER;
    for i in 0..blocks_of(len) {
        let b = ahead.get(area.block(pos + i), end)?;
        let n = (len - payload.len()).min(BLOCK_SIZE - at);
        payload.extend_from_slice(b.get(at..at + n).unwrap_or(&[]), GFP_KERNEL)?;
        at = 0;
    }
    let right = want == Some(crc32c(head, payload)) || mutant::is(Mutant::LogSkipCsum);
    // A batch with a malformed record cannot be carried out as a whole, so it counts as damaged.
    Ok(if right && decodes(payload) {
        Found::Whole { data_durable }
    } else {
        Found::Damaged
    })
}

/// Does the payload consist of valid records, to its end?
fn decodes(payload: &[u8]) -> bool {
    let mut rest = payload;
    while !rest.is_empty() {
        let Some((_, next)) = super::record::decode(rest) else {
            return false;
        };
        rest = next;
    }
    true
}
