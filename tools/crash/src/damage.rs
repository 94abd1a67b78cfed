// SPDX-License-Identifier: GPL-2.0

//! Damage on top of a power cut: to a copy of a superblock, to the same sectors of both copies, to a
//! batch of the log that was acknowledged, or to one copy of a node.
//!
//! Damage to one copy of a node must not be noticed, and is gone after a scrub.
//!
//! A batch was certainly acknowledged if the header of a later one says that it was flushed. A batch
//! of which no header says that is left alone, because damage to it cannot be told apart from a
//! power cut (docs/FORMAT.md §11). The damage is a flipped bit, a lost sector or a lost block. Of the
//! bits that are flipped in the log, half are in headers.
//!
//! Tests: tools/crash/tests/recovery.rs; `scripts/crash mutants` (DamageSlot, DamageLog,
//! NodeOneCopy).

use crate::disk::{Blocks, Image, SECTOR, SIZE};
use crate::engine::format::places;
use crate::engine::format::{le32, le64, Superblock};
use crate::engine::{Fs, MountOptions};
use crate::observe;
use crate::oracle::View;
use kernel::prelude::EUCLEAN;
use std::ops::Range;
use std::sync::Arc;

/// The blocks of the log.
fn log(image: &Image) -> Option<Range<u64>> {
    let slots = [(0, 0), (0, 1), (1, 0), (1, 1)];
    let found = slots.into_iter().find_map(|(slot, n)| {
        let d = image.get(copy(image, slot, n))?;
        Superblock::decode(d).ok()
    });
    found.map(|sb| sb.log_start..sb.log_start + sb.log_len)
}

/// A damaged medium.
pub struct Damage {
    /// The medium.
    pub image: Image,
    /// What was done to it.
    pub what: String,
    /// A copy of a node is damaged.
    pub node: bool,
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

fn headers(image: &Image, log: &Range<u64>) -> Vec<Header> {
    let len = log.end - log.start;
    let header = |block: u64| {
        let d = image.get(block).filter(|d| d.starts_with(b"ORDL"))?;
        let (seq, pos) = (le64(&d[..], 16)?, le64(&d[..], 24)?);
        let flushed = le64(&d[..], 32)?;
        let blocks = (HEADER as u64 + u64::from(le32(&d[..], 40)?)).div_ceil(SIZE as u64);
        let good = log.start + pos % len == block && blocks < len;
        good.then_some(Header {
            pos,
            seq,
            flushed,
            blocks,
        })
    };
    log.clone().filter_map(header).collect()
}

/// The block of a copy of the superblock.
fn copy(image: &Image, slot: u64, copy: usize) -> u64 {
    places::slot(slot, copy, image.blocks)
}

/// What to damage.
struct Target {
    /// A block that holds something acknowledged by an fsync or a commit, or something older.
    block: u64,
    /// Its other copy, to be damaged in the same place, or 0.
    twin: u64,
    /// The number of bytes in use.
    used: usize,
    /// It is a copy of a node.
    node: bool,
}

/// A block with a node, or with what was one, on a filesystem with two copies of each.
fn node(image: &Image, r: &mut fastrand::Rng) -> Option<Target> {
    let sb = image
        .get(copy(image, 0, 0))
        .or(image.get(copy(image, 1, 0)))?;
    if sb.get(COPIES) != Some(&2) {
        return None;
    }
    let nodes: Vec<u64> = (log(image)?.end..image.blocks)
        .filter(|b| image.get(*b).is_some_and(|d| d.starts_with(b"ORDN")))
        .collect();
    let block = *nodes.get(r.usize(..nodes.len().max(1)))?;
    Some(Target {
        block,
        twin: 0,
        used: SIZE,
        node: true,
    })
}

/// Where a superblock says how many copies nodes have.
const COPIES: usize = 210;

/// Chooses what to damage.
///
/// Headers of earlier laps, and of an earlier log, vouch for nothing here: their numbers are too far
/// from those of the batches before them.
fn target(image: &Image, r: &mut fastrand::Rng) -> Option<Target> {
    if r.bool() {
        if let Some(target) = node(image, r) {
            return Some(target);
        }
    }
    if r.bool() {
        let (slot, first) = (r.u64(..2), r.usize(..2));
        return Some(Target {
            block: copy(image, slot, first),
            twin: if r.bool() {
                copy(image, slot, 1 - first)
            } else {
                0
            },
            used: SIZE,
            node: false,
        });
    }
    let log = log(image)?;
    let all = headers(image, &log);
    let len = log.end - log.start;
    let vouches = |b: &Header, a: &Header| {
        let near = b.pos > a.pos && b.pos - a.pos < len;
        near && b.seq > a.seq && b.seq - a.seq <= b.pos - a.pos && b.flushed >= a.seq
    };
    let flushed: Vec<&Header> = all
        .iter()
        .filter(|a| all.iter().any(|b| vouches(b, a)))
        .collect();
    let h = flushed.get(r.usize(..flushed.len().max(1)))?;
    let (block, used) = match r.bool() {
        true => (h.pos, HEADER),
        false => (h.pos + r.u64(..h.blocks), SIZE),
    };
    Some(Target {
        block: log.start + block % len,
        twin: 0,
        used,
        node: false,
    })
}

/// Damages the medium, or returns `None` if the chosen place has nothing to damage.
pub fn one(image: &Image, salt: u64) -> Option<Damage> {
    let mut r = fastrand::Rng::with_seed(salt);
    let Target {
        block,
        twin,
        used,
        node,
    } = target(image, &mut r)?;
    let old = image.get(block)?;
    let mut data = **old;
    let mut harmed = 0..SIZE;
    let what = match r.u8(..4) {
        0 => {
            data.fill(0);
            format!("block {block} lost")
        }
        1 => {
            let k = r.usize(..used.div_ceil(SECTOR));
            harmed = k * SECTOR..(k + 1) * SECTOR;
            data[harmed.clone()].fill(0);
            format!("block {block}, sector {k} lost")
        }
        _ => {
            // Every second time within the bytes that are not zero at the end.
            let end = old.iter().rposition(|b| *b != 0).map_or(used, |e| e + 1);
            let end = if r.bool() { end.min(used) } else { used };
            let (at, bit) = (r.usize(..end), r.u8(..8));
            data[at] ^= 1 << bit;
            harmed = at..at + 1;
            format!("block {block}, byte {at}, bit {bit} flipped")
        }
    };
    if data == **old {
        return None;
    }
    let mut over = Blocks::default();
    let mut what = what;
    if let Some(other) = image.get(twin).filter(|_| twin != 0) {
        let mut other = **other;
        other[harmed.clone()].copy_from_slice(&data[harmed]);
        over.insert(twin, Arc::new(other));
        what += &format!(", and block {twin} like it");
    }
    over.insert(block, Arc::new(data));
    Some(Damage {
        image: image.with(over),
        what,
        node,
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
    let intact = |slot: u64| {
        let whole = |c| {
            let d = image.get(copy(image, slot, c));
            d.is_some_and(|d| Superblock::decode(d).is_ok())
        };
        whole(0) || whole(1)
    };
    match Fs::mount(disk.device(), options) {
        Err(e) if intact(0) || intact(1) => Err(format!("read-only: {}", e.reason)),
        _ => Ok(None),
    }
}
