// SPDX-License-Identifier: GPL-2.0

//! Snapshot records: the values of the snapshot tree. The key is the epoch that the snapshot has
//! closed. No code takes snapshots yet: see [`super::Superblock::unsupported`].
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | generation |
//! | 8 | 12 | time: seconds i64, nanoseconds u32 |
//! | 20 | 4 | flags: 1 = being deleted, 2 = bookmark, 4 = abandoned by a rollback; at most one |
//! | 24 | 8 | blocks in use then |
//! | 32 | 8 | inodes |
//! | 40 | 8 | next inode number |
//! | 48 | 4 | void: deaths in the epochs after the key up to this one are none; 0 = there are none, and with flags 2 and 4 |
//! | 52 | 4 | with flag 4: the epoch of the snapshot that a rollback went back to; else 0 |
//! | 56 | 96 | NodePtr: roots of the inode, orphan and quota tree |
//! | 152 | 8 | with flag 1 or 4: where the work goes on; else 0 |
//! | 160 | 8 | fileset: 0 |
//! | 168 | 1 | bytes of the name, n: 1..=255 |
//! | 169 | n | name, UTF-8 |
//!
//! A *bookmark* has no roots: it only says what a later snapshot can be compared with.
//!
//! Tests: `tools/engine/tests/records.rs`.

use super::node::MAX_VALUE;
use super::{
    le32, le64, put, NodePtr, Room, MAX_BLOCKS, MAX_EPOCH, MAX_GENERATION, MAX_INO, NODE_PTR_LEN,
};
use crate::os::Time;
use kernel::prelude::*;

/// Bytes before the name.
const HEADER: usize = 169;
const O_ROOTS: usize = 56;
const O_NAME_LEN: usize = HEADER - 1;
/// The longest name in bytes.
pub const MAX_NAME: usize = 255;
const _: () = assert!(HEADER + MAX_NAME <= MAX_VALUE);

/// Flag: the snapshot is being deleted, and counts as gone.
pub const DELETED: u32 = 1;
/// Flag: a bookmark.
pub const BOOKMARK: u32 = 2;
/// Flag: what a rollback has abandoned, which is no snapshot.
pub const ABANDONED: u32 = 4;

/// A decoded record. The name borrows from its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotRecord<'a> {
    /// Generation of the commit that took the snapshot.
    pub generation: u64,
    /// The time of that commit.
    pub time: Time,
    /// At most one of [`DELETED`], [`BOOKMARK`], [`ABANDONED`].
    pub flags: u32,
    /// Blocks in use then.
    pub used: u64,
    /// Number of inodes.
    pub inodes: u64,
    /// The next inode number.
    pub next_ino: u64,
    /// The last epoch whose deaths are none; 0 if there is no such epoch.
    pub void: u32,
    /// The epoch of the snapshot that a rollback went back to, or 0.
    pub back_to: u32,
    /// Root of the inode tree.
    pub inode_root: Option<NodePtr>,
    /// Root of the orphan tree.
    pub orphan_root: Option<NodePtr>,
    /// Root of the quota tree.
    pub quota_root: Option<NodePtr>,
    /// Where a deletion or walk goes on.
    pub cursor: u64,
    /// Name.
    pub name: &'a [u8],
}

/// A pointer to a root: zeros are an empty tree.
fn root(v: &[u8], i: usize) -> core::result::Result<Option<NodePtr>, &'static str> {
    let at = O_ROOTS + i * NODE_PTR_LEN;
    let p = v.get(at..at + NODE_PTR_LEN).ok_or(CUT)?;
    if p.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    NodePtr::decode(p).map(Some).ok_or("malformed root pointer")
}

const CUT: &str = "the record is cut off";

/// Whether a snapshot may have this name.
pub fn name_is_good(name: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.iter().any(|c| *c == 0 || *c == b'/')
        && core::str::from_utf8(name).is_ok()
}

impl<'a> SnapshotRecord<'a> {
    /// Decodes and checks the record of the snapshot that closed epoch `key`. `room` says where
    /// nodes may be. Says what is wrong with a record that cannot be true.
    pub fn parse(
        key: u64,
        v: &'a [u8],
        room: impl Into<Room>,
    ) -> core::result::Result<Self, &'static str> {
        let fileset = le64(v, 160).ok_or(CUT)?;
        if fileset != 0 {
            return Err("filesets are not supported");
        }
        let rec = Self {
            generation: le64(v, 0).ok_or(CUT)?,
            time: Time {
                sec: le64(v, 8).ok_or(CUT)? as i64,
                nsec: le32(v, 16).ok_or(CUT)?,
            },
            flags: le32(v, 20).ok_or(CUT)?,
            used: le64(v, 24).ok_or(CUT)?,
            inodes: le64(v, 32).ok_or(CUT)?,
            next_ino: le64(v, 40).ok_or(CUT)?,
            void: le32(v, 48).ok_or(CUT)?,
            back_to: le32(v, 52).ok_or(CUT)?,
            inode_root: root(v, 0)?,
            orphan_root: root(v, 1)?,
            quota_root: root(v, 2)?,
            cursor: le64(v, 152).ok_or(CUT)?,
            name: v.get(HEADER..).ok_or(CUT)?,
        };
        if v.get(O_NAME_LEN).map(|n| usize::from(*n)) != Some(rec.name.len()) {
            return Err("wrong length of the name");
        }
        rec.contradiction(key, room.into()).map_or(Ok(rec), Err)
    }

    /// The roots that are there.
    pub fn roots(&self) -> impl Iterator<Item = NodePtr> {
        let all = [self.inode_root, self.orphan_root, self.quota_root];
        all.into_iter().flatten()
    }

    /// What cannot be true of the fields.
    fn contradiction(&self, key: u64, room: Room) -> Option<&'static str> {
        let epochs = 1..=u64::from(MAX_EPOCH);
        let (void, back_to) = (u64::from(self.void), u64::from(self.back_to));
        let bad = |p: NodePtr| {
            p.generation > self.generation
                || room.refuses(p.addr, 1).is_some()
                || (p.addr2 != 0 && room.refuses(p.addr2, 1).is_some())
        };
        Some(if !epochs.contains(&key) {
            "impossible epoch"
        } else if self.generation == 0 || self.generation > MAX_GENERATION {
            "impossible generation"
        } else if self.time.nsec >= 1_000_000_000 {
            "impossible time"
        } else if ![0, DELETED, BOOKMARK, ABANDONED].contains(&self.flags) {
            "unknown flags, or flags that exclude each other"
        } else if self.used > MAX_BLOCKS {
            "impossible number of blocks"
        } else if self.next_ino > MAX_INO || self.inodes == 0 || self.inodes >= self.next_ino {
            "impossible number of inodes"
        } else if void != 0
            && (!epochs.contains(&void) || void <= key || self.flags & (BOOKMARK | ABANDONED) != 0)
        {
            "impossible end of the void deaths"
        } else if (self.flags == ABANDONED) != (back_to != 0) || back_to >= key {
            "impossible snapshot that a rollback went back to"
        } else if (self.flags == BOOKMARK) != self.inode_root.is_none() {
            "a snapshot without an inode tree, or a bookmark with one"
        } else if self.flags == BOOKMARK && self.roots().next().is_some() {
            "a bookmark with a tree"
        } else if self.roots().any(bad) {
            "impossible root of a tree"
        } else if self.cursor != 0 && self.flags & (DELETED | ABANDONED) == 0 {
            "work that nothing has begun"
        } else if !name_is_good(self.name) {
            "impossible name"
        } else {
            return None;
        })
    }

    /// Encodes the record into `out`. ENOMEM.
    pub fn encode(&self, out: &mut KVec<u8>) -> Result {
        out.clear();
        let mut head = [0; HEADER];
        for (at, v) in [
            (0, self.generation),
            (8, self.time.sec as u64),
            (24, self.used),
            (32, self.inodes),
            (40, self.next_ino),
            (152, self.cursor),
        ] {
            put(&mut head, at, &v.to_le_bytes());
        }
        for (at, v) in [
            (16, self.time.nsec),
            (20, self.flags),
            (48, self.void),
            (52, self.back_to),
        ] {
            put(&mut head, at, &v.to_le_bytes());
        }
        let roots = [self.inode_root, self.orphan_root, self.quota_root];
        for (i, p) in roots.iter().enumerate() {
            let bytes = p.map_or([0; NODE_PTR_LEN], NodePtr::to_bytes);
            put(&mut head, O_ROOTS + i * NODE_PTR_LEN, &bytes);
        }
        put(&mut head, O_NAME_LEN, &[self.name.len() as u8]);
        out.extend_from_slice(&head, GFP_KERNEL)?;
        out.extend_from_slice(self.name, GFP_KERNEL)?;
        Ok(())
    }
}
