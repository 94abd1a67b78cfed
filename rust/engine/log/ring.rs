// SPDX-License-Identifier: GPL-2.0

//! The log area as a ring of batches.
//!
//! Positions are counted in blocks from the day the filesystem was made and taken modulo the length
//! of the area. A batch begins at a block and takes as many as it needs:
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

use super::ahead::Ahead;
use crate::engine::btree::NodeStore;
use crate::engine::format::{le32, le64, put, BLOCK_SIZE};
use crate::engine::mutant::{self, Mutant};
use crate::os::{crc32c, Block};
use kernel::prelude::*;

/// Bytes before the payload.
pub const HEADER: usize = 64;
/// The longest payload: what does not fit is for a full commit.
pub const MAX_PAYLOAD: usize = 4 << 20;
const MAGIC: u32 = u32::from_le_bytes(*b"ORDL");
/// Flag of a batch: its data had been flushed when it was written.
const DATA_DURABLE: u32 = 1;

/// Which batch, where, and what is true of it.
#[derive(Clone, Copy)]
pub struct Batch {
    /// Position of its first block.
    pub pos: u64,
    /// Its number.
    pub seq: u64,
    /// The data that its records name was durable before it was written.
    pub data_durable: bool,
}

/// Where the log is.
#[derive(Clone, Copy)]
pub struct Area {
    /// First block.
    pub start: u64,
    /// Blocks.
    pub len: u64,
}

impl Area {
    fn block(&self, pos: u64) -> u64 {
        self.start + pos % self.len.max(1)
    }
}

/// The blocks of a batch with this payload.
pub fn blocks_of(payload: usize) -> u64 {
    (HEADER + payload).div_ceil(BLOCK_SIZE) as u64
}

/// Writes a batch; `stable`: and flushes, so that it is durable, with the data that had been written
/// before. Errors of the device are EIO, whatever it calls them: after a failed flush it may have
/// dropped what it had taken, and a flush that works later says nothing of that.
pub fn write(st: &NodeStore, area: Area, batch: Batch, payload: &[u8], stable: bool) -> Result {
    let n = blocks_of(payload.len()) as usize;
    let mut blocks = KVec::with_capacity(n, GFP_KERNEL)?;
    let mut rest = payload;
    for i in 0..n {
        let mut b = Block::zeroed()?;
        let at = if i == 0 { HEADER } else { 0 };
        let (now, later) = rest.split_at(rest.len().min(BLOCK_SIZE - at));
        put(&mut b[..], at, now).ok_or(EIO)?;
        rest = later;
        blocks.push(b, GFP_KERNEL)?;
    }
    let first = blocks.first_mut().ok_or(EIO)?;
    for (at, v) in [(8, st.fsid()), (16, batch.seq), (24, batch.pos)] {
        put(&mut first[..], at, &v.to_le_bytes()).ok_or(EIO)?;
    }
    put(&mut first[..], 0, &MAGIC.to_le_bytes()).ok_or(EIO)?;
    put(&mut first[..], 32, &(payload.len() as u32).to_le_bytes()).ok_or(EIO)?;
    let flags = if batch.data_durable { DATA_DURABLE } else { 0 };
    put(&mut first[..], 36, &flags.to_le_bytes()).ok_or(EIO)?;
    let crc = crc32c(crc32c(0, first.get(8..HEADER).unwrap_or(&[])), payload);
    put(&mut first[..], 4, &crc.to_le_bytes()).ok_or(EIO)?;
    let mut reqs = KVec::with_capacity(n, GFP_KERNEL)?;
    for (i, b) in blocks.iter().enumerate() {
        reqs.push((area.block(batch.pos + i as u64), b), GFP_KERNEL)?;
    }
    // One sequential write; the wrap-around makes it two.
    if !stable || mutant::is(Mutant::LogSkipFlush) {
        return st.device().write(&reqs).map_err(|_| EIO);
    }
    st.device().write_stable(&reqs).map_err(|_| EIO)
}

/// What is at a position of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// No batch of that number: the log has ended.
    Nothing,
    /// A batch that was cut off, or damaged.
    Damaged,
    /// The device does not say.
    Unreadable,
    /// A batch.
    Whole {
        /// As [`Batch::data_durable`].
        data_durable: bool,
    },
}

/// The number of the batch whose header is at `pos`, if there is one.
pub fn begins(st: &NodeStore, area: Area, ahead: &mut Ahead<'_>, pos: u64) -> Result<Option<u64>> {
    let b = ahead.get(area.block(pos), area.start + area.len)?;
    let ours = le32(&b[..], 0) == Some(MAGIC)
        && le64(&b[..], 8) == Some(st.fsid())
        && le64(&b[..], 24) == Some(pos);
    Ok(le64(&b[..], 16).filter(|_| ours))
}

/// Reads the batch at `pos` with number `seq` into `payload`. Fails for want of memory only.
pub fn read(
    st: &NodeStore,
    area: Area,
    ahead: &mut Ahead<'_>,
    at: (u64, u64),
    payload: &mut KVVec<u8>,
) -> Result<Found> {
    match read_whole(st, area, ahead, at, payload) {
        Err(e) if e != ENOMEM => Ok(Found::Unreadable),
        found => found,
    }
}

/// The number of the newest batch whose header is behind `pos` and before `end`, if it can only have been
/// written after a batch at `pos` with the number `seq`, and hence after the flush of that one.
///
/// How long the batch at `pos` was, its header may not say any more: the next one begins within the length
/// of the longest, and so on from each that is found. A header says its position and number. What is left of
/// older laps has other positions, what is left behind the end of an older log has smaller numbers (replay leaves
/// a gap), and each batch in between takes a block at least.
pub fn newest_behind(
    st: &NodeStore,
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
        // What cannot be read is no evidence.
        let found = begins(st, area, ahead, at).ok().flatten();
        let follows = |s: &u64| *s > newest.unwrap_or(seq) && *s - seq <= at - pos;
        if let Some(s) = found.filter(follows) {
            newest = Some(s);
            until = at.saturating_add(reach);
        }
        at += 1;
    }
    newest
}

fn read_whole(
    st: &NodeStore,
    area: Area,
    ahead: &mut Ahead<'_>,
    (pos, seq): (u64, u64),
    payload: &mut KVVec<u8>,
) -> Result<Found> {
    payload.clear();
    if begins(st, area, ahead, pos)? != Some(seq) {
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
    // What cannot be decoded would not be carried out whole.
    Ok(if right && decodes(payload) {
        Found::Whole { data_durable }
    } else {
        Found::Damaged
    })
}

/// Is it all records?
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
