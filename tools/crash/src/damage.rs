// SPDX-License-Identifier: GPL-2.0

//! Damage on top of a power cut: to a superblock slot, or to a batch of the log that was
//! acknowledged.
//!
//! A batch was certainly acknowledged if the header of a later one says that it was flushed. A batch
//! of which no header says that is left alone, because damage to it cannot be told apart from a
//! power cut (docs/FORMAT.md §11). The damage is a flipped bit, a lost sector or a lost block. Of the
//! bits that are flipped in the log, half are in headers.
//!
//! Tests: tools/crash/tests/recovery.rs; `scripts/crash mutants` (DamageSlot, DamageLog).

use crate::disk::{Blocks, Image, SECTOR, SIZE};
use crate::engine::format::{le32, le64, SB_SLOTS};
use crate::engine::{Fs, MountOptions};
use crate::observe;
use crate::oracle::View;
use kernel::prelude::EUCLEAN;
use std::sync::Arc;

/// The log of the smallest filesystem, in blocks.
const LOG: std::ops::Range<u64> = 256..512;

/// A damaged medium.
pub struct Damage {
    /// The medium.
    pub image: Image,
    /// What was done to it.
    pub what: String,
}

/// The header of a batch.
struct Header {
    pos: u64,
    seq: u64,
    flushed: u64,
    blocks: u64,
}

/// Bytes of a header.
const HEADER: usize = 64;

fn headers(image: &Image) -> Vec<Header> {
    let len = LOG.end - LOG.start;
    let header = |block: u64| {
        let d = image.get(block).filter(|d| d.starts_with(b"ORDL"))?;
        let (seq, pos) = (le64(&d[..], 16)?, le64(&d[..], 24)?);
        let flushed = le64(&d[..], 32)?;
        let blocks = (HEADER as u64 + u64::from(le32(&d[..], 40)?)).div_ceil(SIZE as u64);
        let good = LOG.start + pos % len == block && blocks < len;
        good.then_some(Header {
            pos,
            seq,
            flushed,
            blocks,
        })
    };
    LOG.filter_map(header).collect()
}

/// Chooses a block that holds something acknowledged by an fsync or a commit, or something older.
/// Returns it with the number of bytes in use.
///
/// Headers of earlier laps, and of an earlier log, vouch for nothing here: their numbers are too far
/// from those of the batches before them.
fn target(image: &Image, r: &mut fastrand::Rng) -> Option<(u64, usize)> {
    if r.bool() {
        // The rest of a slot is always zero.
        return Some((SB_SLOTS[r.usize(..2)], 4 * SECTOR));
    }
    let all = headers(image);
    let len = LOG.end - LOG.start;
    let vouches = |b: &Header, a: &Header| {
        let near = b.pos > a.pos && b.pos - a.pos < len;
        near && b.seq > a.seq && b.seq - a.seq <= b.pos - a.pos && b.flushed >= a.seq
    };
    let flushed: Vec<&Header> = all
        .iter()
        .filter(|a| all.iter().any(|b| vouches(b, a)))
        .collect();
    let h = flushed.get(r.usize(..flushed.len().max(1)))?;
    if r.bool() {
        return Some((LOG.start + h.pos % len, HEADER));
    }
    Some((LOG.start + (h.pos + r.u64(..h.blocks)) % len, SIZE))
}

/// Damages the medium, or returns `None` if the chosen place has nothing to damage.
pub fn one(image: &Image, salt: u64) -> Option<Damage> {
    let mut r = fastrand::Rng::with_seed(salt);
    let (block, used) = target(image, &mut r)?;
    let old = image.get(block)?;
    let mut data = **old;
    let what = match r.u8(..4) {
        0 => {
            data.fill(0);
            format!("block {block} lost")
        }
        1 => {
            let k = r.usize(..used.div_ceil(SECTOR));
            data[k * SECTOR..(k + 1) * SECTOR].fill(0);
            format!("block {block}, sector {k} lost")
        }
        _ => {
            // Every second time within the bytes that are not zero at the end.
            let end = old.iter().rposition(|b| *b != 0).map_or(used, |e| e + 1);
            let end = if r.bool() { end.min(used) } else { used };
            let (at, bit) = (r.usize(..end), r.u8(..8));
            data[at] ^= 1 << bit;
            format!("block {block}, byte {at}, bit {bit} flipped")
        }
    };
    if data == **old {
        return None;
    }
    let mut over = Blocks::default();
    over.insert(block, Arc::new(data));
    Some(Damage {
        image: image.with(over),
        what,
    })
}

/// Mounts a damaged medium. Returns what a reader finds, or `None` if the mount refuses to write.
/// In that case it must have written nothing, and a read-only mount without recovery must work,
/// unless no superblock is left.
pub fn mounted(image: &Image) -> Result<Option<View>, String> {
    let disk = crate::disk::Scratch::new(image.clone());
    let refused = match Fs::mount(disk.device(), MountOptions::default()) {
        Err(e) if e.error == EUCLEAN => e.reason,
        Err(e) => return Err(format!("mount: {} ({:?})", e.reason, e.error)),
        Ok(fs) => {
            drop(fs);
            return observe::recovered(image).map(|(view, _)| Some(view));
        }
    };
    if disk.changed() {
        return Err(format!("a refused mount wrote: {refused}"));
    }
    let options = MountOptions {
        read_only: true,
        recovery: false,
        ..MountOptions::default()
    };
    let intact = |slot: &u64| {
        let Some(d) = image.get(*slot) else {
            return false;
        };
        crate::engine::format::Superblock::decode(d).is_ok()
    };
    match Fs::mount(disk.device(), options) {
        Err(e) if SB_SLOTS.iter().any(intact) => Err(format!("read-only: {}", e.reason)),
        _ => Ok(None),
    }
}
