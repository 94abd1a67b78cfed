// SPDX-License-Identifier: GPL-2.0

//! Quota records: the values of the quota tree. No code has quotas yet: see
//! [`super::Superblock::unsupported`].
//!
//! The key is the kind of owner (0 = user, 1 = group, 2 = project) in the upper and its id in the
//! lower 32 bits; or 3 in the upper bits and the kind in the lower ones, for the *settings* of this
//! kind.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 16 | in use: blocks, inodes |
//! | 16 | 16 | blocks: hard limit, soft limit; 0 = none |
//! | 32 | 16 | inodes: hard limit, soft limit; 0 = none |
//! | 48 | 16 | end of the grace period of blocks, of inodes: i64 seconds; 0 = not running |
//! | 64 | 4 | settings: flags, 1 = limits are enforced |
//! | 68 | 4 | settings: grace period of blocks in seconds |
//! | 72 | 4 | settings: grace period of inodes in seconds |
//! | 76 | 4 | zero |
//!
//! In a record of settings the first 64 bytes are zero, in any other the last 16.
//!
//! Tests: `tools/engine/tests/records.rs`.

use super::{le32, le64, put, MAX_INO};

/// Bytes of a record.
pub const LEN: usize = 80;
/// Bytes of the counts and limits of an owner.
const OWNER_LEN: usize = 64;
/// Kinds of owners.
const KINDS: u32 = 3;
/// The most blocks in use or as a limit: files may share blocks.
const MAX_BLOCKS: u64 = 1 << 62;
/// Settings flag: limits are enforced.
pub const ENFORCED: u32 = 1;

/// The key of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuotaKey {
    /// An owner.
    Owner {
        /// 0 = user, 1 = group, 2 = project.
        kind: u32,
        /// Its id.
        id: u32,
    },
    /// The settings of a kind of owners.
    Settings {
        /// As above.
        kind: u32,
    },
}

impl QuotaKey {
    /// Decodes a key; `None` if nothing has it.
    pub fn parse(key: u64) -> Option<Self> {
        match ((key >> 32) as u32, key as u32) {
            (kind @ 0..KINDS, id) if id != u32::MAX => Some(Self::Owner { kind, id }),
            (KINDS, kind @ 0..KINDS) => Some(Self::Settings { kind }),
            _ => None,
        }
    }

    /// The encoded key.
    pub fn to_u64(self) -> u64 {
        let (high, low) = match self {
            Self::Owner { kind, id } => (kind, id),
            Self::Settings { kind } => (KINDS, kind),
        };
        u64::from(high) << 32 | u64::from(low)
    }
}

/// The numbers for blocks or for inodes of an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// In use.
    pub used: u64,
    /// Hard limit; 0 if there is none.
    pub hard: u64,
    /// Soft limit; 0 if there is none.
    pub soft: u64,
    /// The end of the grace period, in seconds since 1970; 0 if it is not running.
    pub grace_end: u64,
}

/// A decoded record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuotaRecord {
    /// That of an owner.
    Owner {
        /// Blocks.
        blocks: Account,
        /// Inodes.
        inodes: Account,
    },
    /// That of a kind of owners.
    Settings {
        /// [`ENFORCED`].
        flags: u32,
        /// The grace period of blocks in seconds.
        block_grace: u32,
        /// The grace period of inodes in seconds.
        inode_grace: u32,
    },
}

impl QuotaRecord {
    /// Decodes and checks the record with this key. Says what is wrong with one that cannot be
    /// true.
    pub fn parse(key: u64, v: &[u8]) -> core::result::Result<Self, &'static str> {
        let key = QuotaKey::parse(key).ok_or("impossible key")?;
        if v.len() != LEN {
            return Err("wrong length of the record");
        }
        if le32(v, LEN - 4) != Some(0) {
            return Err("reserved bytes are not zero");
        }
        let (owner, settings) = v.split_at_checked(OWNER_LEN).ok_or("cut off")?;
        let (rec, rest) = match key {
            QuotaKey::Owner { .. } => (Self::owner(owner), settings),
            QuotaKey::Settings { .. } => (Self::settings(settings), owner),
        };
        if rest.iter().any(|b| *b != 0) {
            return Err("reserved bytes are not zero");
        }
        let rec = rec.ok_or("cut off")?;
        rec.contradiction().map_or(Ok(rec), Err)
    }

    fn owner(v: &[u8]) -> Option<Self> {
        let account = |used, limits, grace| {
            Some(Account {
                used: le64(v, used)?,
                hard: le64(v, limits)?,
                soft: le64(v, limits + 8)?,
                grace_end: le64(v, grace)?,
            })
        };
        Some(Self::Owner {
            blocks: account(0, 16, 48)?,
            inodes: account(8, 32, 56)?,
        })
    }

    fn settings(v: &[u8]) -> Option<Self> {
        Some(Self::Settings {
            flags: le32(v, 0)?,
            block_grace: le32(v, 4)?,
            inode_grace: le32(v, 8)?,
        })
    }

    fn contradiction(&self) -> Option<&'static str> {
        let beyond = |a: &Account, most| a.used.max(a.hard).max(a.soft) > most;
        match self {
            Self::Owner { blocks, inodes } => {
                if beyond(blocks, MAX_BLOCKS) || beyond(inodes, MAX_INO) {
                    return Some("impossible number of blocks or inodes");
                }
                let ends = blocks.grace_end.max(inodes.grace_end);
                (ends > i64::MAX as u64).then_some("impossible end of a grace period")
            }
            Self::Settings { flags, .. } => (flags & !ENFORCED != 0).then_some("unknown flags"),
        }
    }

    /// The encoded record.
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut v = [0; LEN];
        match self {
            Self::Owner { blocks, inodes } => {
                for (used, limits, grace, a) in [(0, 16, 48, blocks), (8, 32, 56, inodes)] {
                    put(&mut v, used, &a.used.to_le_bytes());
                    put(&mut v, limits, &a.hard.to_le_bytes());
                    put(&mut v, limits + 8, &a.soft.to_le_bytes());
                    put(&mut v, grace, &a.grace_end.to_le_bytes());
                }
            }
            Self::Settings {
                flags,
                block_grace,
                inode_grace,
            } => {
                for (at, word) in [(64, flags), (68, block_grace), (72, inode_grace)] {
                    put(&mut v, at, &word.to_le_bytes());
                }
            }
        }
        v
    }
}
