// SPDX-License-Identifier: GPL-2.0

//! Finding the superblock that counts, and writing the next one.

use super::slots::{self, Other};
use super::superblock::{is_intact, refuse, Refusal, NOT_OURS, O_GENERATION};
use super::{le64, Superblock, MIN_BLOCKS, SB_SLOTS};
use crate::engine::mutant::{self, Mutant};
use crate::os::{Block, Device};
use kernel::prelude::*;

const WRONG_SLOT: &str = "a superblock is in the wrong slot";

/// What [`Superblock::find`] has found.
pub struct Found {
    /// The newest that is intact.
    pub sb: KBox<Superblock>,
    /// The slot that it is not in (0 or 1).
    pub other_slot: usize,
    /// What is in that one.
    pub other: Other,
}

/// A slot as it was read.
struct Slot {
    slot: usize,
    bytes: Block,
    /// Why it is not intact.
    why: Option<Refusal>,
    unread: bool,
}

impl Slot {
    /// The generation of the superblock in it, if it is intact and in its place.
    fn newest(&self) -> Option<u64> {
        let generation = le64(&self.bytes[..], O_GENERATION)?;
        (self.why.is_none() && generation & 1 == self.slot as u64).then_some(generation)
    }
}

impl Superblock {
    /// As [`Superblock::find`], for those who only look.
    pub fn read(dev: &Device) -> Result<Self, Refusal> {
        Ok((*Self::find(dev)?.sb).clone())
    }

    /// Reads the superblock with the greatest generation among the slots that are intact, and judges the
    /// other slot: [`slots`].
    ///
    /// An intact one that cannot be accepted is refused: going back to the older one would undo a commit. So
    /// would writing when the other slot cannot be read, or is damaged.
    pub fn find(dev: &Device) -> Result<Found, Refusal> {
        if dev.blocks() < MIN_BLOCKS {
            return Err(refuse(EINVAL, "the device is too small to hold an OrdoFS"));
        }
        let [mut first, mut second] = [Self::read_slot(dev, 0)?, Self::read_slot(dev, 1)?];
        let first_counts = match (first.newest(), second.newest()) {
            (None, None) => {
                // That a slot was never written says less than what is wrong with the other.
                let why = [first.why, second.why].into_iter().flatten();
                let why = why.fold(None, |old: Option<Refusal>, new| {
                    old.filter(|_| new.reason == NOT_OURS).or(Some(new))
                });
                return Err(why.unwrap_or_else(|| refuse(EUCLEAN, WRONG_SLOT)));
            }
            (a, b) => a > b,
        };
        let (best, other) = match first_counts {
            true => (&first, &mut second),
            false => (&second, &mut first),
        };
        let sb = Self::decode_boxed(&best.bytes)?;
        if sb.blocks > dev.blocks() {
            let reason = "the device is smaller than the filesystem on it";
            return Err(refuse(EINVAL, reason));
        }
        let (a, b) = (&best.bytes, &mut other.bytes);
        let judged = match other.why {
            None => slots::judge_intact(other.slot, &sb, &a[..], &b[..]),
            Some(_) if other.unread => Other::Unread,
            Some(_) => slots::judge(&sb, a, b),
        };
        Ok(Found {
            sb,
            other_slot: other.slot,
            other: match judged {
                Other::Damaged { why } if mutant::is(Mutant::DamageSlot) => {
                    Other::Older { newest: 0, why }
                }
                judged => judged,
            },
        })
    }

    fn read_slot(dev: &Device, slot: usize) -> Result<Slot, Refusal> {
        let addr = SB_SLOTS.get(slot).copied().unwrap_or(0);
        let mut bytes = Block::zeroed().map_err(|e| refuse(e, "out of memory"))?;
        let read = dev.read(addr, &mut bytes);
        let why = match read {
            Ok(()) => is_intact(&bytes[..]).err(),
            // It says nothing of the device.
            Err(e) if e == ENOMEM => return Err(refuse(e, "out of memory")),
            Err(e) => Some(refuse(e, "cannot read a superblock")),
        };
        Ok(Slot {
            slot,
            bytes,
            why,
            unread: read.is_err(),
        })
    }

    /// Writes the superblock to its slot, durably. Everything it refers to must be durable.
    pub fn write(&self, dev: &Device) -> Result {
        let mut b = Block::zeroed()?;
        self.encode(&mut b);
        let slot = SB_SLOTS.get((self.generation & 1) as usize).ok_or(EINVAL)?;
        dev.write_fua(*slot, &b)
    }
}
