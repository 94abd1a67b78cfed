// SPDX-License-Identifier: GPL-2.0

//! Judging the four copies of superblocks: which one counts, and whether a newer one may be lost.
//!
//! # Model
//!
//! A commit of generation g writes both copies of slot g & 1, and is acknowledged when both writes
//! have ended. Sectors are written whole or not at all, and each proves itself by its checksum. So:
//!
//! - A copy of which all sectors are good and of one generation is *whole*. It can be used even if
//!   its commit was not acknowledged, because all that it refers to was durable before. Two copies
//!   with damage in different sectors make one whole copy.
//! - A mixture of good sectors was *torn* by a power cut. A sector with a wrong checksum is
//!   *damaged*: no power cut leaves one.
//! - Let g be the greatest generation of which there is a whole copy. If the other slot has none, a
//!   later generation may have been there, and been acknowledged. It was not if any good sector of
//!   either copy is older than g, or if good sectors are of two later generations: then a write of
//!   this slot never ended. Otherwise every sector that still says something is of one later
//!   generation, and only damage keeps it from being whole: [`Doubt`].
//!
//! Two attempts to write a generation must not be taken for one, so a commit after a mount has a
//! generation that no sector of any copy carries ([`Verdict::next`]).
//!
//! docs/FORMAT.md §2 has the table of what a mount does.
//!
//! Tests: `tools/engine/tests/superblocks.rs`, `tests/vm/t/067-damage.sh`.

use super::places::COPIES;
use super::superblock::{
    blocks_of, has_magic, identity, same_filesystem, sector_generation, SB_MAGIC, SECTOR, SECTORS,
};
use super::BLOCK_SIZE;
use crate::os::Block;
use kernel::prelude::*;

/// Slots with their copies: the two primary superblocks, then their twins.
pub const ALL_SLOTS: usize = 2 * COPIES;
/// Sectors whose generation differs from the newest whole one by more count as damaged.
const MAX_STEP: u32 = 1 << 20;

/// A place where a superblock is written, with the number that messages and tools use: 0 and 1 for
/// the primary superblocks of even and odd generations, 2 and 3 for their twins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// The number.
    pub number: usize,
    /// The address of the block.
    pub block: u64,
}

/// The state of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Whole, and the newest one of its slot.
    Intact,
    /// The last write of it was cut off, or never began.
    Torn,
    /// Damaged, in words.
    Damaged(&'static str),
    /// The device cannot read it.
    Unread,
}

/// Why a superblock that is newer than the newest whole one may have been lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// Neither copy can be read.
    Unread,
    /// Both copies are damaged in the same sectors, or one is and the other cannot be read.
    Damaged,
}

/// A copy as read from the device.
pub(super) struct Copy {
    pub(super) place: Place,
    pub(super) bytes: Block,
    pub(super) unread: bool,
    /// The low half of the generation of each good sector.
    sectors: [Option<u32>; SECTORS],
    /// The sectors that are all zero.
    zero: [bool; SECTORS],
    /// The generation, if the copy is whole.
    whole: Option<u64>,
    /// The damage, if the copy is whole but does not belong here.
    foreign: Option<&'static str>,
}

impl Copy {
    /// Judges a block by itself.
    pub(super) fn new(place: Place, bytes: Block, unread: bool) -> Self {
        let mut sectors = [None; SECTORS];
        if !unread {
            for (k, low) in sectors.iter_mut().enumerate() {
                *low = sector_generation(&bytes, k);
            }
        }
        let mut zero = [false; SECTORS];
        for (zero, sector) in zero.iter_mut().zip(bytes.chunks_exact(SECTOR)) {
            *zero = !unread && sector.iter().all(|x| *x == 0);
        }
        let mut copy = Self {
            place,
            bytes,
            unread,
            sectors,
            zero,
            whole: None,
            foreign: None,
        };
        copy.whole = copy.generation();
        copy
    }

    fn slot(&self) -> usize {
        self.place.number % 2
    }

    /// The generation of a whole copy. One that belongs elsewhere is marked as foreign.
    fn generation(&mut self) -> Option<u64> {
        let low = self.sectors[0]?;
        if !has_magic(&self.bytes, &SB_MAGIC) {
            self.reject("there is no superblock in it");
            return None;
        }
        let (generation, copy) = identity(&self.bytes)?;
        if generation as u32 != low || self.sectors.iter().any(|s| *s != Some(low)) {
            return None;
        }
        if (generation & 1) as usize != self.slot() || copy as usize != self.place.number / 2 {
            self.reject("it holds a superblock that belongs elsewhere");
            return None;
        }
        Some(generation)
    }

    /// Nothing in this copy counts.
    fn reject(&mut self, why: &'static str) {
        self.foreign = Some(why);
        self.sectors = [None; SECTORS];
        self.whole = None;
    }

    /// The blocks of the filesystem, if this copy has a good sector that says so.
    pub(super) fn blocks(&self) -> Option<u64> {
        blocks_of(&self.bytes).filter(|_| !self.unread)
    }

    /// Whether a sector is as mkfs left it before the first superblock was written here, where `g`
    /// is the newest generation.
    fn never_written(&self, k: usize, g: u64) -> bool {
        g == 1 && self.foreign.is_none() && self.zero.get(k) == Some(&true)
    }

    /// The state of the copy, where the newest whole one of its slot has generation `expected`, and
    /// that of all slots `g`.
    fn state(&self, expected: Option<u64>, g: u64) -> State {
        let bad = |(k, low): (usize, &Option<u32>)| low.is_none() && !self.never_written(k, g);
        if self.unread {
            State::Unread
        } else if let Some(why) = self.foreign {
            State::Damaged(why)
        } else if self.sectors.iter().enumerate().any(bad) {
            State::Damaged("the checksum of a sector is wrong")
        } else if self.whole.is_some() && self.whole == expected {
            State::Intact
        } else {
            State::Torn
        }
    }
}

/// The newest whole superblock.
pub(super) struct Newest {
    pub(super) generation: u64,
    pub(super) bytes: Block,
}

/// What the four copies say together.
pub(super) struct Verdict {
    pub(super) states: [State; ALL_SLOTS],
    pub(super) doubt: Option<Doubt>,
    /// The least generation that the next commit may have.
    pub(super) next: u64,
}

/// The two copies of a slot that make one whole superblock, one filling the gaps of the other.
fn assembled(copies: &[Copy; ALL_SLOTS], slot: usize) -> Result<Option<Newest>> {
    let (Some(a), Some(b)) = (copies.get(slot), copies.get(slot + 2)) else {
        return Ok(None);
    };
    let mut best: Option<Newest> = None;
    for low in a.sectors.iter().flatten() {
        if best.as_ref().is_some_and(|n| n.generation as u32 == *low) {
            continue;
        }
        let mut bytes = Block::zeroed()?;
        let mut complete = true;
        for (k, to) in bytes.chunks_exact_mut(SECTOR).enumerate() {
            let from = [a, b]
                .into_iter()
                .find(|c| c.sectors.get(k) == Some(&Some(*low)));
            let range = k * SECTOR..(k + 1) * SECTOR;
            match from.and_then(|c| c.bytes.get(range)) {
                Some(sector) => to.copy_from_slice(sector),
                None => complete = false,
            }
        }
        let generation = identity(&bytes).map_or(0, |(generation, _)| generation);
        let good = complete && generation as u32 == *low && (generation & 1) as usize == slot;
        if good && best.as_ref().is_none_or(|n| generation > n.generation) {
            best = Some(Newest { generation, bytes });
        }
    }
    Ok(best)
}

/// The newest whole superblock of a slot.
fn newest_of(copies: &[Copy; ALL_SLOTS], slot: usize) -> Result<Option<Newest>> {
    let pair = copies.iter().filter(|c| c.slot() == slot);
    let best = pair
        .max_by_key(|c| c.whole)
        .and_then(|c| Some((c.whole?, c)));
    let Some((generation, copy)) = best else {
        return assembled(copies, slot);
    };
    let mut bytes = Block::zeroed()?;
    bytes.copy_from_slice(&copy.bytes[..]);
    Ok(Some(Newest { generation, bytes }))
}

/// The newest whole superblock of all, and of the other slot. Copies of another filesystem than the
/// first whole one do not count: primary superblocks come first.
pub(super) fn newest(copies: &mut [Copy; ALL_SLOTS]) -> Result<(Option<Newest>, Option<u64>)> {
    if let Some(first) = copies.iter().position(|c| c.whole.is_some()) {
        let (before, rest) = copies.split_at_mut(first + 1);
        let Some(first) = before.last() else {
            return Ok((None, None));
        };
        for c in rest {
            if c.whole.is_some() && !same_filesystem(&first.bytes, &c.bytes) {
                c.reject("it belongs to another filesystem");
            }
        }
    }
    let (even, odd) = (newest_of(copies, 0)?, newest_of(copies, 1)?);
    let of = |n: &Option<Newest>| n.as_ref().map(|n| n.generation);
    Ok(match of(&even) > of(&odd) {
        true => (even, of(&odd)),
        false => (odd, of(&even)),
    })
}

/// The generation that a sector with this low half has, beside `g`. `None` if it is too far away, or
/// not one of this slot.
fn full(g: u64, low: u32, slot: usize) -> Option<u64> {
    let step = low.wrapping_sub(g as u32) as i32;
    (step.unsigned_abs() <= MAX_STEP).then_some(())?;
    g.checked_add_signed(step.into())
        .filter(|f| (f & 1) as usize == slot)
}

/// Judges the copies, where the newest whole superblock has generation `g`, and that of the other
/// slot `other`.
pub(super) fn judge(copies: &[Copy; ALL_SLOTS], g: u64, other: Option<u64>) -> Verdict {
    let mut states = [State::Intact; ALL_SLOTS];
    // The newest generation that a sector carries, and whether that of some is unknown.
    let (mut newest, mut unknown) = (g, false);
    // Of the other slot: the later generations of good sectors, and whether there is an older one.
    let (mut later, mut two, mut older) = (None, false, other.is_some());
    for (state, c) in states.iter_mut().zip(copies) {
        let ours = c.slot() == (g & 1) as usize;
        *state = c.state(if ours { Some(g) } else { other }, g);
        for (k, low) in c.sectors.into_iter().enumerate() {
            if c.never_written(k, g) {
                // mkfs, or the first commit after it, was cut off.
                older |= !ours;
                continue;
            }
            let Some(f) = low.and_then(|low| full(g, low, c.slot())) else {
                unknown = true;
                continue;
            };
            newest = newest.max(f);
            if !ours {
                older |= f < g;
                two |= later.is_some_and(|l| l != f);
                later = Some(f);
            }
        }
    }
    let mut others = copies.iter().filter(|c| c.slot() != (g & 1) as usize);
    let doubt = match older || two {
        true => None,
        false if others.all(|c| c.unread) => Some(Doubt::Unread),
        false => Some(Doubt::Damaged),
    };
    let next = newest.saturating_add(if unknown { 2 } else { 1 });
    // The next commit goes to the other slot.
    let next = next.saturating_add(1 ^ ((next ^ g) & 1));
    Verdict {
        states,
        doubt,
        next,
    }
}

const _: () = assert!(SECTOR * SECTORS == BLOCK_SIZE);
