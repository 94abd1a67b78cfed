// SPDX-License-Identifier: GPL-2.0

//! Finding the superblock to mount, and writing the next one.
//!
//! Of the two slots, the intact one with the greater generation counts. [`slots`] judges the other
//! slot: whether a power cut tore it, which is normal, or whether it is damaged and may have been
//! newer. No lock is taken; mount and commits call this one at a time.
//!
//! Tests: `tools/engine/tests/superblocks.rs`, `tests/vm/t/067-damage.sh`.

use super::slots::{self, Other};
use super::superblock::{is_intact, refuse, Refusal, NOT_OURS, O_GENERATION};
use super::{le64, Superblock, MIN_BLOCKS, SB_SLOTS};
use crate::engine::mutant::{self, Mutant};
use crate::os::{Block, Device};
use kernel::prelude::*;

const WRONG_SLOT: &str = "each superblock is in the wrong slot";

/// The result of [`Superblock::find`].
pub struct Found {
    /// The newest intact superblock.
    pub sb: KBox<Superblock>,
    /// The slot that `sb` is not in (0 or 1).
    pub other_slot: usize,
    /// The state of that slot.
    pub other: Other,
}

/// A slot as read from the device.
struct Slot {
    slot: usize,
    bytes: Block,
    /// Why the slot is not intact; `None` if it is.
    why: Option<Refusal>,
    unread: bool,
}

impl Slot {
    /// The generation of the superblock, if it is intact and in the slot where it belongs.
    fn newest(&self) -> Option<u64> {
        let generation = le64(&self.bytes[..], O_GENERATION)?;
        (self.why.is_none() && generation & 1 == self.slot as u64).then_some(generation)
    }
}

impl Superblock {
    /// The newest intact superblock alone, for callers that only read. Errors as
    /// [`Superblock::find`].
    pub fn read(dev: &Device) -> Result<Self, Refusal> {
        Ok((*Self::find(dev)?.sb).clone())
    }

    /// Reads the intact superblock with the greater generation, and judges the other slot
    /// ([`slots`]).
    ///
    /// The newest intact superblock is refused if it cannot be accepted, because going back to the
    /// older one would undo a commit: EINVAL if it is not OrdoFS, not supported or too large for
    /// the device, EUCLEAN if a field is impossible. The other slot is reported and not refused: if
    /// it is unreadable, or damaged and perhaps newer, the mount must not write, for the same
    /// reason.
    pub fn find(dev: &Device) -> Result<Found, Refusal> {
        if dev.blocks() < MIN_BLOCKS {
            return Err(refuse(EINVAL, "the device is too small to hold an OrdoFS"));
        }
        let [mut first, mut second] = [Self::read_slot(dev, 0)?, Self::read_slot(dev, 1)?];
        let first_counts = match (first.newest(), second.newest()) {
            (None, None) => {
                // A slot that was never written says less than what is wrong with the other one.
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

    /// Reads a slot. An error of the device is a state of the slot; ENOMEM is an error.
    fn read_slot(dev: &Device, slot: usize) -> Result<Slot, Refusal> {
        let addr = SB_SLOTS.get(slot).copied().unwrap_or(0);
        let mut bytes = Block::zeroed().map_err(|e| refuse(e, "out of memory"))?;
        let read = dev.read(addr, &mut bytes);
        let why = match read {
            Ok(()) => is_intact(&bytes[..]).err(),
            // A lack of memory says nothing about the device.
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

    /// Writes the superblock to its slot with FUA. All blocks that it refers to must be durable
    /// (R8).
    pub fn write(&self, dev: &Device) -> Result {
        let mut b = Block::zeroed()?;
        self.encode(&mut b);
        let slot = SB_SLOTS.get((self.generation & 1) as usize).ok_or(EINVAL)?;
        dev.write_fua(*slot, &b)
    }
}
