// SPDX-License-Identifier: GPL-2.0

//! Finding the superblock to mount, and writing the next one.
//!
//! All four copies are read, and [`slots`] judges them. No lock is taken; mount and commits call
//! this one at a time.
//!
//! Tests: `tools/engine/tests/superblocks.rs`, `tests/vm/t/067-damage.sh`.

use super::places::{backups, slot, twin_base, AREA_BLOCKS, COPIES, SLOTS, TWIN_BASES};
use super::slots::{self, Copy, Doubt, Place, State, ALL_SLOTS};
use super::superblock::{has_magic, refuse, Refusal, NOT_OURS, SB_MAGIC, SB_MAGIC_1};
use super::{Superblock, MIN_BLOCKS};
use crate::engine::mutant::{self, Mutant};
use crate::os::{Block, Device};
use kernel::prelude::*;

/// The result of [`Superblock::find`].
pub struct Found {
    /// The newest whole superblock.
    pub sb: KBox<Superblock>,
    /// The state of each copy.
    pub copies: [(Place, State); ALL_SLOTS],
    /// Why a newer superblock may have been lost, if it may.
    pub doubt: Option<Doubt>,
    /// The least generation that the next commit may have.
    pub next: u64,
}

impl Found {
    /// Whether a commit should come soon, because a copy is not as it should be.
    pub fn needs_commit(&self) -> bool {
        self.copies.iter().any(|(_, state)| *state != State::Intact)
            || self.next > self.sb.generation.saturating_add(1)
    }
}

/// Reads a copy. An error of the device is a state of the copy; ENOMEM is an error.
fn read_copy(dev: &Device, number: usize, base: u64) -> Result<Copy, Refusal> {
    let offset = SLOTS.get(number % 2).copied().unwrap_or(0);
    let place = Place {
        number,
        block: base.saturating_add(offset),
    };
    let mut bytes = Block::zeroed().map_err(|e| refuse(e, "out of memory"))?;
    let read = dev.read(place.block, &mut bytes);
    match read {
        // A lack of memory says nothing about the device.
        Err(e) if e == ENOMEM => Err(refuse(e, "out of memory")),
        _ => Ok(Copy::new(place, bytes, read.is_err())),
    }
}

/// Reads the twins. Where they are follows from the size of the filesystem, which the primary
/// superblocks say; without them, they are at the base that fits the size that they say themselves.
fn read_twins(dev: &Device, primary: &[Copy; 2]) -> Result<[Copy; 2], Refusal> {
    let twins = |base| Ok([read_copy(dev, 2, base)?, read_copy(dev, 3, base)?]);
    if let Some(blocks) = primary.iter().find_map(Copy::blocks) {
        return twins(twin_base(blocks));
    }
    let mut found = None;
    for base in TWIN_BASES {
        let here = twins(base)?;
        // A file, or what is left of an older filesystem, may look like twins.
        let fits = |c: &Copy| c.blocks().is_some_and(|blocks| twin_base(blocks) == base);
        if here.iter().any(fits) && found.replace(here).is_some() {
            let reason = "there are twins of two superblocks and no primary one";
            return Err(refuse(EUCLEAN, reason));
        }
    }
    match found {
        Some(found) => Ok(found),
        None => twins(twin_base(dev.blocks())),
    }
}

/// Why there is no superblock in any copy.
fn nothing(copies: &[Copy; ALL_SLOTS]) -> Refusal {
    let any = |f: fn(&Copy) -> bool| copies.iter().any(f);
    if any(|c| has_magic(&c.bytes, &SB_MAGIC_1)) {
        refuse(EINVAL, "format version 1, which is not supported any more")
    } else if any(|c| has_magic(&c.bytes, &SB_MAGIC)) {
        refuse(EUCLEAN, "no copy of a superblock is whole; run fsck.ordofs")
    } else if any(|c| c.unread) {
        refuse(EIO, "cannot read a superblock")
    } else {
        refuse(EINVAL, NOT_OURS)
    }
}

/// Overwrites blocks of areas of superblocks with zeros.
pub fn wipe(dev: &Device, first: u64, n: u64) -> Result {
    let zero = Block::zeroed()?;
    let mut reqs = KVec::with_capacity(n.min(AREA_BLOCKS) as usize, GFP_KERNEL)?;
    for b in 0..n.min(AREA_BLOCKS) {
        reqs.push((first + b, &zero), GFP_KERNEL)?;
    }
    dev.write(&reqs)
}

impl Superblock {
    /// The newest whole superblock alone, for callers that only read. Errors as
    /// [`Superblock::find`].
    pub fn read(dev: &Device) -> Result<Self, Refusal> {
        Ok((*Self::find(dev)?.sb).clone())
    }

    /// Reads the whole superblock with the greatest generation, and judges all copies
    /// ([`slots`]).
    ///
    /// It is refused if it cannot be accepted, because going back to an older one would undo a
    /// commit: EINVAL if it is not OrdoFS, not supported or too large for the device, EUCLEAN if a
    /// field is impossible. If a newer one may have been lost ([`Found::doubt`]), the mount must not
    /// write, for the same reason.
    pub fn find(dev: &Device) -> Result<Found, Refusal> {
        if dev.blocks() < MIN_BLOCKS {
            return Err(refuse(EINVAL, "the device is too small to hold an OrdoFS"));
        }
        let primary = [read_copy(dev, 0, 0)?, read_copy(dev, 1, 0)?];
        let twins = read_twins(dev, &primary)?;
        let ([a, b], [c, d]) = (primary, twins);
        let mut copies = [a, b, c, d];
        let memory = |e| refuse(e, "out of memory");
        let (newest, other) = slots::newest(&mut copies).map_err(memory)?;
        let Some(newest) = newest else {
            return Err(nothing(&copies));
        };
        let sb = Self::decode_boxed(&newest.bytes)?;
        if sb.blocks > dev.blocks() {
            let reason = "the device is smaller than the filesystem on it";
            return Err(refuse(EINVAL, reason));
        }
        let verdict = slots::judge(&copies, newest.generation, other);
        let mut of = [(Place::default(), State::Intact); ALL_SLOTS];
        for ((to, c), state) in of.iter_mut().zip(&copies).zip(verdict.states) {
            *to = (c.place, state);
        }
        Ok(Found {
            sb,
            copies: of,
            doubt: verdict.doubt.filter(|_| !mutant::is(Mutant::DamageSlot)),
            next: verdict.next,
        })
    }

    /// Writes both copies of the superblock with FUA, at the same time. All blocks that it refers
    /// to must be durable (R8).
    pub fn write(&self, dev: &Device) -> Result {
        let (mut primary, mut twin) = (Block::zeroed()?, Block::zeroed()?);
        self.encode(0, &mut primary);
        self.encode(1, &mut twin);
        let at = |copy| slot(self.generation, copy, self.blocks);
        const _: () = assert!(COPIES == 2);
        let both = [(at(0), &primary), (at(1), &twin)];
        let some = if mutant::is(Mutant::OneCopy) {
            1
        } else {
            COPIES
        };
        dev.write_fua(both.get(..some).unwrap_or(&both))
    }

    /// Writes the backups, and flushes.
    pub fn write_backups(&self, dev: &Device) -> Result {
        for (copy, base) in (2..).zip(backups(self.blocks)) {
            let mut b = Block::zeroed()?;
            self.encode(copy, &mut b);
            dev.write(&[(base + SLOTS[0], &b)])?;
        }
        dev.flush()
    }
}
