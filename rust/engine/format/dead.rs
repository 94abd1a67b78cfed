// SPDX-License-Identifier: GPL-2.0

//! Dead records: the values of the dead tree, which has the blocks that snapshots hold and the live
//! filesystem has given up. No code takes snapshots yet: see [`super::Superblock::unsupported`].
//!
//! The key, from the highest bits down: the epoch in which the blocks died (26 bits), the epoch of
//! the oldest snapshot that has them (26 bits), and a sequence number (12 bits).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | blocks of all runs |
//! | 4 | 4 | number of runs, n: 1..=100 |
//! | 8 | 12 n | for each run: first block u64, number of blocks u32 |
//!
//! Tests: `tools/engine/tests/records.rs`.

use super::node::MAX_VALUE;
use super::{le32, le64, Room};
use kernel::prelude::*;

/// The most runs of a record.
pub const MAX_RUNS: usize = 100;
const HEADER: usize = 8;
const RUN_LEN: usize = 12;
const _: () = assert!(HEADER + MAX_RUNS * RUN_LEN <= MAX_VALUE);

const EPOCH_BITS: u32 = 26;
const SEQUENCE_BITS: u32 = 12;
const _: () = assert!(2 * EPOCH_BITS + SEQUENCE_BITS == u64::BITS);
const _: () = assert!(super::MAX_EPOCH == (1 << EPOCH_BITS) - 1);

/// A key of the dead tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeadKey {
    /// The epoch in which the blocks died.
    pub death: u32,
    /// The epoch of the oldest snapshot that has them.
    pub oldest: u32,
    /// Counts the records with these epochs.
    pub sequence: u16,
}

impl DeadKey {
    /// Decodes a key; `None` if the snapshot is not older than the death.
    pub fn parse(key: u64) -> Option<Self> {
        let epoch = |shift: u32| (key >> shift) as u32 & super::MAX_EPOCH;
        let parts = Self {
            death: epoch(EPOCH_BITS + SEQUENCE_BITS),
            oldest: epoch(SEQUENCE_BITS),
            sequence: key as u16 & ((1 << SEQUENCE_BITS) - 1),
        };
        (1..parts.death).contains(&parts.oldest).then_some(parts)
    }

    /// The encoded key.
    pub fn to_u64(self) -> u64 {
        u64::from(self.death) << (EPOCH_BITS + SEQUENCE_BITS)
            | u64::from(self.oldest) << SEQUENCE_BITS
            | u64::from(self.sequence)
    }
}

/// A decoded record. The runs borrow from its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeadRecord<'a> {
    /// The epochs, and the number among the records with these.
    pub key: DeadKey,
    /// Blocks of all runs.
    pub blocks: u32,
    runs: &'a [u8],
}

impl<'a> DeadRecord<'a> {
    /// Decodes and checks a record. `room` says where the blocks may be. Says what is wrong with a
    /// record that cannot be true.
    pub fn parse(
        key: u64,
        v: &'a [u8],
        room: impl Into<Room>,
    ) -> core::result::Result<Self, &'static str> {
        const CUT: &str = "the record is cut off";
        let rec = Self {
            key: DeadKey::parse(key).ok_or("impossible epochs")?,
            blocks: le32(v, 0).ok_or(CUT)?,
            runs: v.get(HEADER..).ok_or(CUT)?,
        };
        let runs = le32(v, 4).ok_or(CUT)? as usize;
        if !(1..=MAX_RUNS).contains(&runs) || rec.runs.len() != runs * RUN_LEN {
            return Err("impossible number of runs");
        }
        let room = room.into();
        let mut blocks = 0u64;
        for (start, len) in rec.runs() {
            if len == 0 {
                return Err("an empty run");
            }
            if let Some(what) = room.refuses(start, len.into()) {
                return Err(what);
            }
            blocks += u64::from(len);
        }
        match blocks == u64::from(rec.blocks) {
            true => Ok(rec),
            false => Err("the number of blocks is wrong"),
        }
    }

    /// The runs: first block, number of blocks.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u32)> + 'a {
        self.runs
            .chunks_exact(RUN_LEN)
            .filter_map(|r| Some((le64(r, 0)?, le32(r, 8)?)))
    }
}

/// Encodes the record of these runs into `out`. EINVAL if there are too many, or too many blocks;
/// ENOMEM.
pub fn encode(runs: &[(u64, u32)], out: &mut KVec<u8>) -> Result {
    out.clear();
    if !(1..=MAX_RUNS).contains(&runs.len()) {
        return Err(EINVAL);
    }
    let blocks = runs.iter().map(|(_, len)| u64::from(*len)).sum::<u64>();
    let blocks = u32::try_from(blocks).map_err(|_| EINVAL)?;
    out.extend_from_slice(&blocks.to_le_bytes(), GFP_KERNEL)?;
    out.extend_from_slice(&(runs.len() as u32).to_le_bytes(), GFP_KERNEL)?;
    for (start, len) in runs {
        out.extend_from_slice(&start.to_le_bytes(), GFP_KERNEL)?;
        out.extend_from_slice(&len.to_le_bytes(), GFP_KERNEL)?;
    }
    Ok(())
}
