// SPDX-License-Identifier: GPL-2.0

//! Sums of AG records. An entry of an interior node of the AG tree has the sums of all records
//! under its child, so that a search for free space reads only nodes that lead to it.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | low 56 bits: free blocks; high 8 bits: class of the longest free run ([`run_class`]) |
//! | 8 | 8 | free slots in pairs |
//!
//! Tests: `tools/engine/tests/ag_tree.rs`, `tools/engine/tests/space_records.rs`.

use super::{le32, le64};

/// Bytes of sums on disk.
pub const SUMS_LEN: usize = 16;
/// The bits of the free blocks.
const FREE_BITS: u32 = 56;
const FREE_MASK: u64 = (1 << FREE_BITS) - 1;

/// Where an AG record has its free blocks, ...
pub(super) const O_FREE: usize = 0;
/// ... the class of its longest free run, ...
pub(super) const O_LONGEST: usize = 4;
/// ... and its free slots.
pub(super) const O_SLOTS: usize = 8;

/// The class of a run of `len` blocks: 0 for none, else 1 + log2 of the length, rounded down.
pub const fn run_class(len: u64) -> u8 {
    (u64::BITS - len.leading_zeros()) as u8
}

/// What a part of the AG tree has in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    /// Free blocks.
    pub free: u64,
    /// The class of the longest free run: no run is of a higher one.
    pub longest: u8,
    /// Free slots in pairs.
    pub slots: u64,
}

impl Sums {
    /// The sums of an AG record by itself. They are what the record says, whether or not it can be
    /// true; zeros if it is cut off.
    pub fn of_record(v: &[u8]) -> Self {
        Self::fields(v).unwrap_or_default()
    }

    fn fields(v: &[u8]) -> Option<Self> {
        Some(Self {
            free: le32(v, O_FREE)?.into(),
            longest: *v.get(O_LONGEST)?,
            slots: le32(v, O_SLOTS)?.into(),
        })
    }

    /// The sums of two parts together.
    pub fn and(self, other: Self) -> Self {
        Self {
            free: self.free.saturating_add(other.free).min(FREE_MASK),
            longest: self.longest.max(other.longest),
            slots: self.slots.saturating_add(other.slots),
        }
    }

    /// Decodes sums from the start of `b`; `None` if it is too short.
    pub fn decode(b: &[u8]) -> Option<Self> {
        Some(Self::from_words([le64(b, 0)?, le64(b, 8)?]))
    }

    /// The encoded sums.
    pub fn to_bytes(self) -> [u8; SUMS_LEN] {
        let mut b = [0; SUMS_LEN];
        for (to, word) in b.chunks_exact_mut(8).zip(self.to_words()) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        b
    }

    /// The sums as the two numbers that they have on disk.
    pub fn to_words(self) -> [u64; 2] {
        let longest = u64::from(self.longest) << FREE_BITS;
        [self.free.min(FREE_MASK) | longest, self.slots]
    }

    /// The sums that [`Self::to_words`] has made two numbers of.
    pub fn from_words([first, slots]: [u64; 2]) -> Self {
        Self {
            free: first & FREE_MASK,
            longest: (first >> FREE_BITS) as u8,
            slots,
        }
    }
}
