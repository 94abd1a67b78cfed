// SPDX-License-Identifier: GPL-2.0

//! Group records: the values of the tree of an AG's groups. The key is the number of the group in
//! the AG.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | form: 1 = full, 2 = free runs, 3 = bitmap |
//! | 1 | 1 | form 1: the number of groups that the record is for, 1..=32; else 1 |
//! | 2 | 2 | free blocks |
//! | 4 | 12 | pair of groups, and reserved: zero |
//! | 16 | .. | form 2: 1..=64 times start u16, length u16, ascending, not touching |
//! | 16 | 1024 | form 3: a bit for each block, set = used; those past the end of the AG are clear |
//!
//! The form follows from the content, so equal groups have equal records. A group that is free as a
//! whole has no record. Full neighbours have one record together. A group of at most
//! [`MAX_RUNS`] free runs has form 2, any other has form 3.
//!
//! Ranges are half-open, in blocks of the group.
//!
//! Tests: `tools/engine/tests/space_records.rs`.

use super::bits::{Bits, BITMAP_BYTES};
use super::node::MAX_VALUE;
use super::{le16, le64, put, GROUP_BLOCKS};
use kernel::prelude::*;

/// Bytes before the content.
const HEADER: usize = 16;
/// Bytes of a free run.
const RUN_LEN: usize = 4;
/// The most free runs of a record of form 2.
pub const MAX_RUNS: usize = 64;
/// The most groups of an AG, and of one record of form 1.
pub const MAX_GROUPS: u32 = 32;
const _: () = assert!(HEADER + BITMAP_BYTES <= MAX_VALUE && RUN_LEN * MAX_RUNS < BITMAP_BYTES);
const _: () = assert!(GROUP_BLOCKS <= u16::MAX as u64);

const FULL: u8 = 1;
const RUNS: u8 = 2;
const BITMAP: u8 = 3;
const MIRROR: u8 = 4;

/// The blocks of group `g` of an AG of `ag_len` blocks; 0 past the last one.
pub fn group_len(ag_len: u64, g: u64) -> u32 {
    let before = g.saturating_mul(GROUP_BLOCKS);
    ag_len.saturating_sub(before).min(GROUP_BLOCKS) as u32
}

/// What a record says about its group, or about a number of full groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupRecord<'a> {
    /// So many groups have no free block.
    Full {
        /// The groups, from the key on.
        groups: u32,
    },
    /// The group has a few free runs.
    Runs {
        /// Free blocks.
        free: u32,
        /// The runs as they are on disk.
        runs: &'a [u8],
    },
    /// The group has a bitmap.
    Bitmap {
        /// Free blocks.
        free: u32,
        /// The bitmap as it is on disk.
        bits: &'a [u8],
    },
}

impl<'a> GroupRecord<'a> {
    /// Decodes and checks the record of group `g` of an AG of `ag_len` blocks. Says what is wrong
    /// with it if it cannot be true, or if it has not the form that its content must have.
    pub fn parse(ag_len: u64, g: u64, v: &'a [u8]) -> core::result::Result<Self, &'static str> {
        const CUT: &str = "the record is cut off";
        let len = group_len(ag_len, g);
        let head = v.get(..HEADER).ok_or(CUT)?;
        let body = v.get(HEADER..).ok_or(CUT)?;
        let [form, groups, ..] = *head else {
            return Err(CUT);
        };
        let groups = u32::from(groups);
        let free = u32::from(le16(head, 2).ok_or(CUT)?);
        if len == 0 {
            return Err("there is no such group");
        }
        if head.iter().skip(4).any(|b| *b != 0) {
            return Err("reserved bytes are not zero, or it is of a pair, which is not supported");
        }
        if form != FULL && groups != 1 {
            return Err("impossible number of groups");
        }
        let rec = match form {
            FULL => Self::parse_full(ag_len, g, groups, body)?,
            RUNS => Self::parse_runs(len, body)?,
            BITMAP => Self::parse_bitmap(len, body)?,
            MIRROR => return Err("mirrors are not supported"),
            _ => return Err("unknown form"),
        };
        if rec.free() != free {
            return Err("the number of free blocks is wrong");
        }
        Ok(rec)
    }

    fn parse_full(
        ag_len: u64,
        g: u64,
        groups: u32,
        body: &[u8],
    ) -> core::result::Result<Self, &'static str> {
        let last = g.saturating_add(groups.saturating_sub(1).into());
        if !(1..=MAX_GROUPS).contains(&groups) || group_len(ag_len, last) == 0 {
            return Err("impossible number of groups");
        }
        match body {
            [] => Ok(Self::Full { groups }),
            _ => Err("bytes behind the record"),
        }
    }

    fn parse_runs(len: u32, runs: &'a [u8]) -> core::result::Result<Self, &'static str> {
        if runs.len() % RUN_LEN != 0 || !(1..=MAX_RUNS).contains(&(runs.len() / RUN_LEN)) {
            return Err("impossible number of free runs");
        }
        let (mut free, mut last_end) = (0, None);
        for (start, n) in each_run(runs) {
            let end = start.saturating_add(n);
            if n == 0 || end > len || last_end.is_some_and(|last| start <= last) {
                return Err("impossible free run");
            }
            free += n;
            last_end = Some(end);
        }
        match free < len {
            true => Ok(Self::Runs { free, runs }),
            false => Err("a free group has a record"),
        }
    }

    fn parse_bitmap(len: u32, bits: &'a [u8]) -> core::result::Result<Self, &'static str> {
        if bits.len() != BITMAP_BYTES {
            return Err("wrong length of the bitmap");
        }
        let (mut free, mut runs, mut past_end) = (0, 0, 0);
        let mut before = 0;
        for (i, used) in words(bits).enumerate() {
            let inside = mask(len, i);
            past_end |= used & !inside;
            let clear = !used & inside;
            free += clear.count_ones();
            // The first bit of each run: clear, and the bit before it is not.
            runs += (clear & !(clear << 1 | before)).count_ones() as usize;
            before = clear >> 63;
        }
        if past_end != 0 {
            return Err("blocks past the end of the group are marked");
        }
        match runs > MAX_RUNS {
            true => Ok(Self::Bitmap { free, bits }),
            false => Err("a bitmap for a group with few free runs"),
        }
    }

    /// Free blocks.
    pub fn free(&self) -> u32 {
        match self {
            Self::Full { .. } => 0,
            Self::Runs { free, .. } | Self::Bitmap { free, .. } => *free,
        }
    }

    /// The groups that the record is for.
    pub fn groups(&self) -> u32 {
        match self {
            Self::Full { groups } => *groups,
            _ => 1,
        }
    }

    /// Sets `used` to the blocks in use of the group, or of each of the groups. `len` is the number
    /// of blocks of the group; the bits past the end are set.
    pub fn load(&self, len: u32, used: &mut Bits) {
        match self {
            Self::Full { .. } => used.set(0, GROUP_BLOCKS as u32),
            Self::Runs { runs, .. } => {
                used.set(0, GROUP_BLOCKS as u32);
                for (start, n) in each_run(runs) {
                    used.clear(start, n);
                }
            }
            // A decoded record has a whole bitmap.
            Self::Bitmap { bits, .. } => drop(used.load(bits)),
        }
        used.set(len, GROUP_BLOCKS as u32 - len.min(GROUP_BLOCKS as u32));
    }
}

/// The runs of a record of form 2, as (start, length).
fn each_run(runs: &[u8]) -> impl Iterator<Item = (u32, u32)> + '_ {
    runs.chunks_exact(RUN_LEN)
        .filter_map(|r| Some((le16(r, 0)?.into(), le16(r, 2)?.into())))
}

/// The words of a bitmap.
fn words(bits: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bits.chunks_exact(8).filter_map(|w| le64(w, 0))
}

/// The bits of word `i` that are for the first `len` blocks.
fn mask(len: u32, i: usize) -> u64 {
    let before = u32::try_from(i).map_or(u32::MAX, |i| i.saturating_mul(64));
    match len.saturating_sub(before) {
        0 => 0,
        n @ 1..=63 => (1 << n) - 1,
        _ => u64::MAX,
    }
}

/// How a group is represented on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// By no record: it is free as a whole.
    Free,
    /// By a record that it shares with full neighbours: [`full_record`].
    Full,
    /// By a record of its own.
    Own,
}

/// Encodes the record of a group of `len` blocks of which `used` are in use, in the form that the
/// content must have. `out` stays empty unless the group has a record of its own. ENOMEM.
pub fn encode(used: &Bits, len: u32, out: &mut KVec<u8>) -> Result<Form> {
    out.clear();
    let free = len - used.count_range(0, len).min(len);
    if free == len {
        return Ok(Form::Free);
    }
    if free == 0 {
        return Ok(Form::Full);
    }
    let mut head = [0; HEADER];
    put(&mut head, 2, &(free as u16).to_le_bytes());
    out.extend_from_slice(&head, GFP_KERNEL)?;
    let form = match put_runs(used, len, out)? {
        true => RUNS,
        false => {
            out.truncate(HEADER);
            put_bitmap(used, len, out)?;
            BITMAP
        }
    };
    put(out, 0, &[form, 1]);
    Ok(Form::Own)
}

/// Appends the free runs; false if there are too many.
fn put_runs(used: &Bits, len: u32, out: &mut KVec<u8>) -> Result<bool> {
    let mut at = used.next_clear(0, len);
    let mut runs = 0;
    while at < len {
        if runs == MAX_RUNS {
            return Ok(false);
        }
        runs += 1;
        let end = used.next_set(at, len);
        out.extend_from_slice(&(at as u16).to_le_bytes(), GFP_KERNEL)?;
        out.extend_from_slice(&((end - at) as u16).to_le_bytes(), GFP_KERNEL)?;
        at = used.next_clear(end, len);
    }
    Ok(true)
}

/// Appends the bitmap.
fn put_bitmap(used: &Bits, len: u32, out: &mut KVec<u8>) -> Result {
    let start = out.len();
    used.store(out)?;
    let bits = out.get_mut(start..).unwrap_or(&mut []);
    for (i, word) in bits.chunks_exact_mut(8).enumerate() {
        let mask = mask(len, i).to_le_bytes();
        word.iter_mut().zip(mask).for_each(|(w, m)| *w &= m);
    }
    Ok(())
}

/// The record of `groups` full neighbours.
pub fn full_record(groups: u32) -> [u8; HEADER] {
    let mut v = [0; HEADER];
    put(&mut v, 0, &[FULL, groups.clamp(1, MAX_GROUPS) as u8]);
    v
}

/// Checks the records of an AG against each other. They are passed in the order of their keys.
#[derive(Default)]
pub struct Order {
    /// The group behind the last record.
    next: u64,
    /// The last record was of full groups.
    full: bool,
}

impl Order {
    /// Checks the next record, `rec` of group `g`. Says what is wrong with it.
    pub fn check(
        &mut self,
        g: u64,
        rec: &GroupRecord<'_>,
    ) -> core::result::Result<(), &'static str> {
        let full = matches!(rec, GroupRecord::Full { .. });
        if g < self.next {
            return Err("it is in the record before, too");
        }
        if full && self.full && g == self.next {
            return Err("full neighbours have two records");
        }
        self.next = g.saturating_add(rec.groups().into());
        self.full = full;
        Ok(())
    }
}
