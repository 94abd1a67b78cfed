// SPDX-License-Identifier: GPL-2.0

//! Shared records: the values of the tree of an AG's shared blocks, which counts the references of
//! extent records beyond the first. The key is the first block in the AG. No code shares blocks
//! yet: an AG with such a tree is out of use.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | blocks |
//! | 4 | 4 | extra references, at least 1 |
//!
//! Ranges do not overlap, and neighbours with equal numbers have one record ([`Order`]).
//!
//! Tests: `tools/engine/tests/records.rs`.

use super::{le32, put};

/// Bytes of a record.
pub const LEN: usize = 8;

/// A decoded record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedRecord {
    /// Number of blocks.
    pub blocks: u32,
    /// References beyond the first.
    pub extra: u32,
}

impl SharedRecord {
    /// Decodes and checks the record of the blocks from `key` on of an AG of `ag_len` blocks. Says
    /// what is wrong with a record that cannot be true.
    pub fn parse(ag_len: u64, key: u64, v: &[u8]) -> core::result::Result<Self, &'static str> {
        const LENGTH: &str = "wrong length of the record";
        if v.len() != LEN {
            return Err(LENGTH);
        }
        let rec = Self {
            blocks: le32(v, 0).ok_or(LENGTH)?,
            extra: le32(v, 4).ok_or(LENGTH)?,
        };
        if rec.blocks == 0 || rec.end(key).is_none_or(|end| end > ag_len) {
            return Err("impossible number of blocks");
        }
        match rec.extra {
            0 => Err("no extra reference"),
            _ => Ok(rec),
        }
    }

    /// The block behind the range that starts at `key`.
    pub fn end(&self, key: u64) -> Option<u64> {
        key.checked_add(self.blocks.into())
    }

    /// The encoded record.
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut v = [0; LEN];
        put(&mut v, 0, &self.blocks.to_le_bytes());
        put(&mut v, 4, &self.extra.to_le_bytes());
        v
    }
}

/// Checks the records of an AG against each other. They are passed in the order of their keys.
#[derive(Default)]
pub struct Order {
    /// The end of the last range.
    next: u64,
    /// Its extra references; 0 before the first.
    extra: u32,
}

impl Order {
    /// Checks the next record, `rec` at `key`. Says what is wrong with it.
    pub fn check(&mut self, key: u64, rec: SharedRecord) -> core::result::Result<(), &'static str> {
        if key < self.next {
            return Err("it overlaps with the record before");
        }
        if key == self.next && rec.extra == self.extra {
            return Err("neighbours with as many references have two records");
        }
        self.next = rec.end(key).unwrap_or(u64::MAX);
        self.extra = rec.extra;
        Ok(())
    }
}
