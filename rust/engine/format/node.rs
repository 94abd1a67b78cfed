// SPDX-License-Identifier: GPL-2.0

//! Tree nodes and pointers to them. A node is one block.
//!
//! Node header, 64 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic "ORDN" |
//! | 4 | 4 | crc32c of bytes 8..4096 |
//! | 8 | 8 | node id, as in the superblock |
//! | 16 | 8 | address of this node (of its first copy) |
//! | 24 | 8 | generation of the commit that wrote it |
//! | 32 | 8 | owner of the tree |
//! | 40 | 1 | kind of the tree |
//! | 41 | 1 | level, 0 = leaf |
//! | 42 | 2 | number of entries, n >= 1 |
//! | 44 | 2 | bytes of an entry of an interior node; 0 in leaves |
//! | 46 | 18 | zero |
//!
//! Leaf: n slots of 12 bytes (key u64, offset u16, length u16) follow, keys ascending. The values
//! are at the end of the block without gaps, downwards in the order of the keys: the value of slot
//! 0 ends at 4096, that of slot i + 1 ends where that of slot i starts. The rest is zero.
//!
//! Interior node: n entries of 40 bytes (key u64, [`NodePtr`]). The key is a lower bound of the keys
//! under that child and greater than every key under the child before it. The rest is zero. In the
//! AG tree, entries have 56 bytes: the [`Sums`](super::sums::Sums) of the child follow the pointer.
//!
//! [`NodePtr`], 32 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | address (block number) |
//! | 8 | 8 | address of a second, identical copy; 0 = none |
//! | 16 | 8 | generation in the node's header |
//! | 24 | 4 | crc32c in the node's header |
//! | 28 | 1 | level of the node |
//! | 29 | 3 | zero |
//!
//! Tests: `tools/engine/tests/btree.rs`, `tools/engine/tests/btree_damage.rs`,
//! `tools/engine/tests/damage.rs`.

use super::places::AREA_BLOCKS;
use super::sums::SUMS_LEN;
use super::{le16, le32, le64, put, BLOCK_SIZE, MAX_BLOCKS};
use crate::os::crc32c;

/// Magic number of a node: "ORDN".
pub const NODE_MAGIC: u32 = u32::from_le_bytes(*b"ORDN");
/// Bytes of a node's header.
pub const NODE_HEADER: usize = 64;
/// Bytes of a leaf's slot.
pub const SLOT_LEN: usize = 12;
/// Bytes of an entry of an interior node, without sums.
pub const ENTRY_LEN: usize = 40;
/// Bytes for slots and values in a leaf.
pub const LEAF_SPACE: usize = BLOCK_SIZE - NODE_HEADER;
/// The longest value in bytes. Three items of this length fit in a leaf, so a split always
/// succeeds.
pub const MAX_VALUE: usize = 1280;
const _: () = assert!(3 * (SLOT_LEN + MAX_VALUE) <= LEAF_SPACE);
/// The greatest level of a node.
pub const MAX_LEVEL: u8 = 12;

const H_CSUM: usize = 4;
const H_NODE_ID: usize = 8;
const H_ADDR: usize = 16;
const H_GENERATION: usize = 24;
const H_OWNER: usize = 32;
const H_KIND: usize = 40;
const H_LEVEL: usize = 41;
const H_NR: usize = 42;
const H_ENTRY: usize = 44;
const H_END: usize = H_ENTRY + 2;
const _: () = assert!(H_END <= NODE_HEADER);

/// The purpose of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum TreeKind {
    /// Inode records by inode number. Owner 0.
    Inode = 1,
    /// Orphans (inodes without a name, or with a truncation under way), by inode number. Owner 0.
    Orphan = 2,
    /// Extents of a file by file block. Owner: the inode number.
    Extent = 3,
    /// Directory entries by cookie. Owner: the inode number.
    Dir = 4,
    /// Extended attributes, by a hash of the name. Owner: the inode number.
    Xattr = 5,
    /// AG records by AG number. Owner 0.
    Ag = 6,
    /// Group records of an allocation group, by group in the AG. Owner: the number of the AG.
    Groups = 7,
    /// Snapshots by the epoch that they closed. Owner 0.
    Snapshots = 8,
    /// Blocks that only snapshots have, by the epochs of their death and of the oldest snapshot that
    /// has them. Owner 0.
    Dead = 9,
    /// Blocks with several references, by block in the AG. Owner: the number of the AG.
    Shared = 10,
    /// Quotas by kind and id of the owner. Owner 0.
    Quota = 11,
    /// Blocks to be freed by the next commit, by address. Owner 0.
    Deferred = 12,
}

impl TreeKind {
    /// The kind with this number on disk.
    pub const fn from_u8(v: u8) -> Option<Self> {
        Some(match v {
            1 => Self::Inode,
            2 => Self::Orphan,
            3 => Self::Extent,
            4 => Self::Dir,
            5 => Self::Xattr,
            6 => Self::Ag,
            7 => Self::Groups,
            8 => Self::Snapshots,
            9 => Self::Dead,
            10 => Self::Shared,
            11 => Self::Quota,
            12 => Self::Deferred,
            _ => return None,
        })
    }

    /// Whether the interior nodes have the sums of their children.
    pub const fn has_sums(self) -> bool {
        matches!(self, Self::Ag)
    }

    /// Bytes of an entry of an interior node.
    pub const fn entry_len(self) -> usize {
        match self.has_sums() {
            true => ENTRY_LEN + SUMS_LEN,
            false => ENTRY_LEN,
        }
    }

    /// The most entries of an interior node.
    pub const fn max_children(self) -> usize {
        match self.has_sums() {
            true => LEAF_SPACE / (ENTRY_LEN + SUMS_LEN),
            false => LEAF_SPACE / ENTRY_LEN,
        }
    }

    /// Its name, for messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inode => "inode",
            Self::Orphan => "orphan",
            Self::Extent => "extent",
            Self::Dir => "directory",
            Self::Xattr => "xattr",
            Self::Ag => "AG",
            Self::Groups => "group",
            Self::Snapshots => "snapshot",
            Self::Dead => "dead",
            Self::Shared => "shared",
            Self::Quota => "quota",
            Self::Deferred => "deferred",
        }
    }
}

/// The identity of a tree. Each node carries that of its tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeId {
    /// The purpose of the tree.
    pub kind: TreeKind,
    /// The owner of the tree: see [`TreeKind`].
    pub owner: u64,
}

impl TreeId {
    /// The identity of a tree.
    pub const fn new(kind: TreeKind, owner: u64) -> Self {
        Self { kind, owner }
    }
}

/// Bytes of a [`NodePtr`].
pub const NODE_PTR_LEN: usize = 32;
const _: () = assert!(ENTRY_LEN == 8 + NODE_PTR_LEN);

/// Pointer to a node on disk. It fixes the content: a node is accepted only with this address,
/// generation and checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodePtr {
    /// Block address.
    pub addr: u64,
    /// Block address of a second copy; 0 if there is none.
    pub addr2: u64,
    /// Generation of the commit that wrote the node.
    pub generation: u64,
    /// crc32c in the node's header.
    pub crc: u32,
    /// Level of the node, 0 = leaf.
    pub level: u8,
}

impl NodePtr {
    /// Decodes a pointer; `None` if no pointer can have these bytes.
    pub fn decode(b: &[u8]) -> Option<Self> {
        let p = Self {
            addr: le64(b, 0)?,
            addr2: le64(b, 8)?,
            generation: le64(b, 16)?,
            crc: le32(b, 24)?,
            level: *b.get(28)?,
        };
        let possible = |a| (AREA_BLOCKS..MAX_BLOCKS).contains(&a);
        let good = possible(p.addr)
            && (p.addr2 == 0 || (possible(p.addr2) && p.addr2 != p.addr))
            && p.generation != 0
            && p.level <= MAX_LEVEL
            && b.get(29..NODE_PTR_LEN)? == [0; 3];
        good.then_some(p)
    }

    /// Where the copies are.
    pub fn places(&self) -> Places {
        Places {
            first: self.addr,
            second: self.addr2,
        }
    }

    /// Encodes the pointer.
    pub fn encode(&self, b: &mut [u8; NODE_PTR_LEN]) {
        *b = self.to_bytes();
    }

    /// The encoded pointer.
    pub fn to_bytes(self) -> [u8; NODE_PTR_LEN] {
        let mut b = [0; NODE_PTR_LEN];
        let _ = put(&mut b, 0, &self.addr.to_le_bytes());
        let _ = put(&mut b, 8, &self.addr2.to_le_bytes());
        let _ = put(&mut b, 16, &self.generation.to_le_bytes());
        let _ = put(&mut b, 24, &self.crc.to_le_bytes());
        let _ = put(&mut b, 28, &[self.level]);
        b
    }
}

/// The blocks of the copies of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Places {
    /// The first copy, whose address both copies have in their headers; 0 = none yet.
    pub first: u64,
    /// The second copy; 0 = there is none.
    pub second: u64,
}

impl Places {
    /// One copy.
    pub const fn one(first: u64) -> Self {
        Self { first, second: 0 }
    }

    /// The blocks.
    pub fn each(self) -> impl Iterator<Item = u64> {
        [self.first, self.second].into_iter().filter(|a| *a != 0)
    }
}

/// A node's header without magic and checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeHeader {
    /// The node id of the superblock.
    pub node_id: u64,
    /// Address of the node's first copy.
    pub addr: u64,
    /// Generation of the commit that wrote it.
    pub generation: u64,
    /// The tree that the node belongs to.
    pub id: TreeId,
    /// Level, 0 = leaf.
    pub level: u8,
    /// Number of entries.
    pub nr: u16,
}

impl NodeHeader {
    /// Decodes the header and verifies magic number and checksum. Returns the checksum as well.
    pub fn decode(b: &[u8; BLOCK_SIZE]) -> core::result::Result<(Self, u32), &'static str> {
        const SHORT: &str = "short node";
        let magic = le32(b, 0).ok_or(SHORT)?;
        let crc = le32(b, H_CSUM).ok_or(SHORT)?;
        if magic != NODE_MAGIC {
            return Err("bad magic: not a tree node");
        }
        if crc != crc32c(0, b.get(H_NODE_ID..).ok_or(SHORT)?) {
            return Err("bad checksum");
        }
        let kind = b
            .get(H_KIND)
            .copied()
            .and_then(TreeKind::from_u8)
            .ok_or("unknown tree kind")?;
        let header = Self {
            node_id: le64(b, H_NODE_ID).ok_or(SHORT)?,
            addr: le64(b, H_ADDR).ok_or(SHORT)?,
            generation: le64(b, H_GENERATION).ok_or(SHORT)?,
            id: TreeId {
                kind,
                owner: le64(b, H_OWNER).ok_or(SHORT)?,
            },
            level: b.get(H_LEVEL).copied().ok_or(SHORT)?,
            nr: le16(b, H_NR).ok_or(SHORT)?,
        };
        if le16(b, H_ENTRY) != Some(header.entry_len()) {
            return Err("wrong size of its entries");
        }
        let reserved = b.get(H_END..NODE_HEADER).ok_or(SHORT)?;
        if reserved.iter().any(|x| *x != 0) {
            return Err("reserved bytes of its header are in use");
        }
        Ok((header, crc))
    }

    /// Bytes of an entry, as the header has them.
    fn entry_len(&self) -> u16 {
        match self.level {
            0 => 0,
            _ => self.id.kind.entry_len() as u16,
        }
    }

    /// Writes the header, with magic number and checksum, into a node with a complete body. Returns
    /// the checksum.
    pub fn seal(&self, b: &mut [u8; BLOCK_SIZE]) -> u32 {
        b.iter_mut().take(NODE_HEADER).for_each(|x| *x = 0);
        let _ = put(b, 0, &NODE_MAGIC.to_le_bytes());
        let _ = put(b, H_NODE_ID, &self.node_id.to_le_bytes());
        let _ = put(b, H_ADDR, &self.addr.to_le_bytes());
        let _ = put(b, H_GENERATION, &self.generation.to_le_bytes());
        let _ = put(b, H_OWNER, &self.id.owner.to_le_bytes());
        let _ = put(b, H_KIND, &[self.id.kind as u8, self.level]);
        let _ = put(b, H_NR, &self.nr.to_le_bytes());
        let _ = put(b, H_ENTRY, &self.entry_len().to_le_bytes());
        let crc = crc32c(0, b.get(H_NODE_ID..).unwrap_or(&[]));
        let _ = put(b, H_CSUM, &crc.to_le_bytes());
        crc
    }
}
