// SPDX-License-Identifier: GPL-2.0

//! AG records: the values of the AG tree. The key is the number of the AG, and every AG has a
//! record.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | free blocks |
//! | 4 | 1 | class of the longest free run: 0 = none, else 1 + log2 of its length |
//! | 5 | 1 | flags: 1 = nothing is to be allocated, 2 = never used, 4 = not trusted |
//! | 6 | 2 | first groups of pairs: zero |
//! | 8 | 4 | free slots in pairs: zero |
//! | 12 | 4 | zero |
//! | 16 | 8 | generation of the commit that wrote the record |
//! | 24 | 8 | zero |
//! | 32 | .. | sections ([`super::section`]): 1 = tree of the groups, 2 = tree of the shared blocks (reserved) |
//!
//! A free run ends at the border of its group. The class of the longest run may be too high, never
//! too low: to lower it, the allocator would have to read all groups of the AG.
//!
//! An AG without a tree of groups is free as a whole: the class of its longest run is known, and it
//! has no tree of shared blocks.
//!
//! Tests: `tools/engine/tests/space_records.rs`.

use super::node::MAX_VALUE;
use super::section::{each_section, put_root, root, Fault, Limits, SECTION_HEAD};
use super::sums::{O_FREE, O_LONGEST, O_SLOTS};
use super::{corrupt_fmt, le32, le64, put, GROUP_BLOCKS, NODE_PTR_LEN};
use kernel::prelude::*;

pub use super::section::{RootForm, INLINE_TREE_MAX};
pub use super::sums::{run_class, Sums};

/// Bytes before the sections.
const HEADER: usize = 32;
/// The sections that are trees: groups, and shared blocks.
const TREES: usize = 2;
const MAX_OTHER: usize = MAX_VALUE - HEADER - TREES * (SECTION_HEAD + NODE_PTR_LEN);
const LIMITS: Limits = Limits {
    trees: 1..=2,
    max_other: MAX_OTHER,
};
const _: () = assert!(HEADER + TREES * (SECTION_HEAD + INLINE_TREE_MAX) <= MAX_VALUE);

/// Where the flags are.
const O_FLAGS: usize = O_LONGEST + 1;

/// The section with the tree of the groups.
const SECTION_GROUPS: u8 = 1;
/// The section with the tree of the shared blocks.
const SECTION_SHARED: u8 = 2;

/// Flag: nothing is to be allocated in the AG.
pub const NO_ALLOCATION: u8 = 1;
/// Flag: no block of the AG was ever used.
pub const NEVER_USED: u8 = 2;
/// Flag: the record or its groups are not to be trusted.
pub const NOT_TRUSTED: u8 = 4;

/// The most bytes of the inline tree of the groups in a record with `ignorable` bytes of sections
/// that may be ignored.
pub const fn inline_groups_max(ignorable: usize) -> usize {
    let room = (MAX_VALUE - HEADER).saturating_sub(ignorable) / TREES;
    let room = room.saturating_sub(SECTION_HEAD);
    if room < INLINE_TREE_MAX {
        room
    } else {
        INLINE_TREE_MAX
    }
}

/// Whether the record `v` says that the AG was written before and nothing keeps blocks from being
/// allocated there.
pub fn is_in_use(v: &[u8]) -> bool {
    v.get(O_FLAGS) == Some(&0)
}

/// Whether nothing in the record `v` keeps blocks from being allocated in the AG.
pub fn allocates(v: &[u8]) -> bool {
    v.get(O_FLAGS)
        .is_some_and(|f| f & (NO_ALLOCATION | NOT_TRUSTED) == 0)
}

/// A decoded record. Roots and sections borrow from its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgRecord<'a> {
    /// Free blocks.
    pub free: u32,
    /// The class of the longest free run within a group, or a higher one.
    pub longest: u8,
    /// [`NO_ALLOCATION`], [`NEVER_USED`], [`NOT_TRUSTED`].
    pub flags: u8,
    /// Generation of the commit that wrote the record.
    pub generation: u64,
    /// The tree of the groups.
    pub groups: RootForm<'a>,
    /// The tree of the shared blocks.
    pub shared: RootForm<'a>,
    /// The sections that a reader may ignore, from the head of the first one on.
    pub ignorable: &'a [u8],
}

impl<'a> AgRecord<'a> {
    /// The record of an AG of `ag_len` blocks that was never used.
    pub fn unused(ag_len: u64, generation: u64) -> Self {
        Self {
            free: ag_len as u32,
            longest: run_class(ag_len.min(GROUP_BLOCKS)),
            flags: NEVER_USED,
            generation,
            groups: RootForm::Empty,
            shared: RootForm::Empty,
            ignorable: &[],
        }
    }

    /// Decodes and checks the record `v` of AG `ag`, which has `ag_len` blocks. EUCLEAN if it
    /// cannot be true.
    pub fn decode(ag: u64, ag_len: u64, v: &'a [u8]) -> Result<Self> {
        Self::parse(ag_len, v)
            .map_err(|fault| corrupt_fmt(format_args!("allocation group {ag}: {fault}")))
    }

    /// Decodes and checks the record of an AG of `ag_len` blocks, and says what is wrong with it if
    /// it cannot be true.
    pub fn parse(ag_len: u64, v: &'a [u8]) -> core::result::Result<Self, Fault> {
        let mut rec = Self::fields(v).ok_or("the record is cut off")?;
        let (groups, shared) = (&mut rec.groups, &mut rec.shared);
        rec.ignorable = each_section(v, HEADER, &LIMITS, |kind, form, body| {
            match kind {
                SECTION_GROUPS => *groups = root(form, body)?,
                SECTION_SHARED => *shared = root(form, body)?,
                // Any other that may be ignored.
                0x80.. => {}
                _ => return Err("it is unknown, and must not be ignored"),
            }
            Ok(())
        })?;
        match rec.contradiction(ag_len, v) {
            Some(what) => Err(what.into()),
            None => Ok(rec),
        }
    }

    /// Decodes the fields before the sections.
    fn fields(v: &[u8]) -> Option<Self> {
        if v.len() < HEADER {
            return None;
        }
        Some(Self {
            free: le32(v, O_FREE)?,
            longest: *v.get(O_LONGEST)?,
            flags: *v.get(O_FLAGS)?,
            generation: le64(v, 16)?,
            groups: RootForm::Empty,
            shared: RootForm::Empty,
            ignorable: &[],
        })
    }

    /// What cannot be true of the fields, and of fields and sections together.
    fn contradiction(&self, ag_len: u64, v: &[u8]) -> Option<&'static str> {
        let free = u64::from(self.free);
        let most = run_class(free.min(GROUP_BLOCKS));
        let zero = |from, to| {
            v.get(from..to)
                .is_some_and(|z: &[u8]| z.iter().all(|b| *b == 0))
        };
        Some(if free > ag_len {
            "more free blocks than blocks"
        } else if self.longest > most || (self.longest == 0) != (free == 0) {
            "impossible longest free run"
        } else if self.flags & !(NO_ALLOCATION | NEVER_USED | NOT_TRUSTED) != 0 {
            "unknown flags"
        } else if self.groups.is_empty() != (free == ag_len) {
            "the number of free blocks does not fit the tree of the groups"
        } else if self.groups.is_empty() && self.longest != most {
            "the longest free run does not fit the number of free blocks"
        } else if self.groups.is_empty() && !self.shared.is_empty() {
            "free blocks are shared"
        } else if self.flags & NEVER_USED != 0 && free != ag_len {
            "blocks are in use, but it was never used"
        } else if !zero(6, 8) || !zero(O_SLOTS, 12) {
            "pairs of groups are not supported"
        } else if self.generation == 0 {
            "no commit wrote it"
        } else if matches!(self.groups, RootForm::Ptr(p) if p.generation > self.generation) {
            "the tree of the groups is newer than the record"
        } else if !zero(12, 16) || !zero(24, HEADER) {
            "reserved bytes are not zero"
        } else {
            return None;
        })
    }

    /// What the record contributes to the sums of its tree.
    pub fn sums(&self) -> Sums {
        Sums {
            free: self.free.into(),
            longest: self.longest,
            slots: 0,
        }
    }

    /// Encodes the record into `out`. ENOMEM.
    pub fn encode(&self, out: &mut KVec<u8>) -> Result {
        out.clear();
        let mut head = [0; HEADER];
        put(&mut head, O_FREE, &self.free.to_le_bytes());
        put(&mut head, O_LONGEST, &[self.longest, self.flags]);
        put(&mut head, 16, &self.generation.to_le_bytes());
        out.extend_from_slice(&head, GFP_KERNEL)?;
        put_root(out, SECTION_GROUPS, &self.groups)?;
        put_root(out, SECTION_SHARED, &self.shared)?;
        out.extend_from_slice(self.ignorable, GFP_KERNEL)?;
        Ok(())
    }
}
