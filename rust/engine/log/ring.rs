// SPDX-License-Identifier: GPL-2.0

//! The log area as a ring of batches: writing one, and reading one.
//!
//! A position counts the log blocks that were ever written; modulo the length of the area it is a
//! place in the ring. A batch starts at a block with its [`super::header`] and takes as many
//! blocks as it needs; the rest of the last one is zero.
//!
//! Positions and lengths of areas are in blocks, lengths of payloads in bytes. The functions take
//! no locks. The caller of [`write()`] holds the lock of the log's writer, which keeps batches in
//! order; readers run at mount, before anything is written.
//!
//! Tests: tools/engine/tests/log_recovery.rs (damaged, forged and unreadable batches, flushes that
//! fail), tools/engine/tests/log_damage.rs, log_flushes.rs, tools/crash/tests/recovery.rs,
//! tests/vm/t/067-damage.sh.

use super::ahead::Ahead;
use super::header::{self, blocks_of, Batch, Header, HEADER};
use crate::engine::btree::NodeStore;
use crate::engine::format::{put, BLOCK_SIZE};
use crate::engine::invariant::{broken, Invariant};
use crate::engine::mutant::{self, Mutant};
use crate::os::Block;
use kernel::prelude::*;

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
    let head = header::encode(batch, node_store.node_id(), payload).ok_or_else(small)?;
    let mut blocks = KVec::with_capacity(n, GFP_KERNEL)?;
    let mut rest = payload;
    for i in 0..n {
        let mut b = Block::zeroed()?;
        let mut at = 0;
        if i == 0 {
            put(&mut b[..], 0, &head).ok_or_else(small)?;
            at = HEADER;
        }
        let (now, later) = rest.split_at(rest.len().min(BLOCK_SIZE - at));
        put(&mut b[..], at, now).ok_or_else(small)?;
        rest = later;
        blocks.push(b, GFP_KERNEL)?;
    }
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
    /// The header of the expected batch, or one that differs from it in a single bit; but the batch
    /// was cut off or damaged.
    Damaged,
    /// The device cannot read a block of the batch.
    Unreadable,
    /// The whole batch, with the right checksum and only valid records.
    Whole(Header),
}

/// The header at `pos`. `None` if no whole header of this log is there, EIO if the block cannot be
/// read.
pub fn header_at(
    node_store: &NodeStore,
    area: Area,
    ahead: &mut Ahead<'_>,
    pos: u64,
) -> Result<Option<Header>> {
    let b = ahead.get(area.block(pos), area.start + area.len)?;
    let header = header::decode(&b[..], node_store.node_id(), pos);
    Ok(header.filter(|h| blocks_of(h.len) <= area.len))
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

/// [`read()`], with errors of the device as errors.
fn read_whole(
    node_store: &NodeStore,
    area: Area,
    ahead: &mut Ahead<'_>,
    (pos, seq): (u64, u64),
    payload: &mut KVVec<u8>,
) -> Result<Found> {
    payload.clear();
    let end = area.start + area.len;
    let header = header_at(node_store, area, ahead, pos)?;
    let Some(header) = header.filter(|h| h.batch.seq == seq) else {
        let b = ahead.get(area.block(pos), end)?;
        return Ok(
            match header::nearly(&b[..], node_store.node_id(), pos, seq) {
                true => Found::Damaged,
                false => Found::Nothing,
            },
        );
    };
    let mut at = HEADER;
    for i in 0..blocks_of(header.len) {
        let b = ahead.get(area.block(pos + i), end)?;
        let n = (header.len - payload.len()).min(BLOCK_SIZE - at);
        payload.extend_from_slice(b.get(at..at + n).unwrap_or(&[]), GFP_KERNEL)?;
        at = 0;
    }
    let right = header.fits(payload) || mutant::is(Mutant::LogSkipCsum);
    // A batch with a malformed record cannot be carried out as a whole, so it counts as damaged.
    Ok(if right && decodes(payload) {
        Found::Whole(header)
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
