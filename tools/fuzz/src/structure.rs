// SPDX-License-Identifier: GPL-2.0

//! What is where in an image.
//!
//! The bytes are taken apart here as docs/FORMAT.md has them. The engine's decoders judge them, and
//! they would hide what a recipe has changed.
//!
//! Tests: tools/fuzz/tests/corpus.rs.

use crate::Bytes;
use ordofs_crash::engine::format::inode::HEADER as INODE_SECTIONS;
use ordofs_crash::engine::format::node::{TreeKind, ENTRY_LEN, NODE_HEADER, NODE_MAGIC, SLOT_LEN};
use ordofs_crash::engine::format::sums::SUMS_LEN;
use ordofs_crash::engine::format::{le16, le32, le64, places, NodePtr, Superblock, NODE_PTR_LEN};
use ordofs_crash::engine::log::header;
use ordofs_engine::os::mem::Image;

const KIND: usize = 40;
const LEVEL: usize = 41;
const COUNT: usize = 42;
/// Where the sections of an AG record begin.
pub const AG_SECTIONS: usize = 32;
/// Form of a section that is an inline tree.
pub const INLINE: u8 = 1;
/// Form of a section that is a pointer.
pub const POINTER: u8 = 2;

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its block.
    pub block: u64,
    /// The block that points to it.
    pub from: u64,
    /// The pointer.
    pub ptr: NodePtr,
}

/// What is where in an image.
pub struct Structure {
    /// Both copies of the newest superblock.
    pub superblocks: [u64; 2],
    /// Its generation.
    pub generation: u64,
    /// Blocks of the filesystem, and of each AG but the last.
    pub blocks: u64,
    /// See `blocks`.
    pub ag_blocks: u64,
    /// All nodes, parents before their children.
    pub nodes: Vec<Node>,
    /// The blocks of each batch of the log, in the order of their numbers.
    pub batches: Vec<Vec<u64>>,
    /// Numbers that mean something in this image.
    pub numbers: Vec<u64>,
}

/// The level of a node.
pub fn level(b: &Bytes) -> u8 {
    b[LEVEL]
}

/// The kind of a node.
pub fn kind(b: &Bytes) -> u8 {
    b[KIND]
}

/// Bytes of an entry of an interior node. In the AG tree they end with the sums of the child.
pub fn entry_len(b: &Bytes) -> usize {
    match kind(b) == TreeKind::Ag as u8 {
        true => ENTRY_LEN + SUMS_LEN,
        false => ENTRY_LEN,
    }
}

/// The number of entries in a node, as many as have room.
pub fn entries(b: &Bytes) -> usize {
    let size = match level(b) {
        0 => SLOT_LEN,
        _ => entry_len(b),
    };
    let room = (b.len() - NODE_HEADER) / size;
    usize::from(le16(b, COUNT).unwrap_or(0)).min(room)
}

/// The place of the value of item `i` of a leaf, if it is within the block.
pub fn value(b: &Bytes, i: usize) -> Option<std::ops::Range<usize>> {
    let slot = NODE_HEADER + i * SLOT_LEN;
    let at = usize::from(le16(b, slot + 8)?);
    let end = at + usize::from(le16(b, slot + 10)?);
    (end <= b.len()).then_some(at..end)
}

/// Where the sections of a leaf's records begin, if they have any.
fn sections_at(b: &Bytes) -> Option<usize> {
    match kind(b) {
        k if k == TreeKind::Inode as u8 => Some(INODE_SECTIONS),
        k if k == TreeKind::Ag as u8 => Some(AG_SECTIONS),
        _ => None,
    }
}

/// The sections of the record in `v`, from byte `start` of it on: where each begins in the record,
/// and the length of its content.
pub fn sections(v: &[u8], start: usize) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = start;
    while let Some(len) = le16(v, at + 2).map(usize::from) {
        if at + 4 + len > v.len() {
            break;
        }
        found.push((at, len));
        at += 4 + len;
    }
    found
}

/// Where the pointers in a node are.
fn pointers(b: &Bytes) -> Vec<usize> {
    if level(b) > 0 {
        return (0..entries(b))
            .map(|i| NODE_HEADER + i * entry_len(b) + 8)
            .collect();
    }
    let mut found = Vec::new();
    let Some(start) = sections_at(b) else {
        return found;
    };
    for v in (0..entries(b)).filter_map(|i| value(b, i)) {
        for (at, len) in sections(&b[v.clone()], start) {
            if b[v.start + at + 1] == POINTER && len == NODE_PTR_LEN {
                found.push(v.start + at + 4);
            }
        }
    }
    found
}

impl Structure {
    /// Takes an image apart. It must be in order.
    pub fn of(image: &Image, sb: &Superblock) -> Self {
        let copy = |c| places::slot(sb.generation, c, sb.blocks);
        let mut s = Self {
            superblocks: [copy(0), copy(1)],
            generation: sb.generation,
            blocks: sb.blocks,
            ag_blocks: sb.ag_blocks,
            nodes: Vec::new(),
            batches: Vec::new(),
            numbers: vec![
                sb.blocks,
                sb.free,
                sb.log_start,
                sb.log_start + sb.log_len,
                sb.log_pos,
                sb.log_seq,
                sb.next_ino,
                sb.root_ino,
                sb.generation,
                sb.ag_blocks,
                ordofs_crash::engine::format::GROUP_BLOCKS,
                ordofs_crash::engine::MAX_FILE_BLOCKS,
                u64::from(NODE_MAGIC),
            ],
        };
        let roots = [sb.inode_root, sb.orphan_root, sb.ag_root, sb.deferred_root];
        for ptr in roots.into_iter().flatten() {
            s.add(image, s.superblocks[0], ptr);
        }
        // Grows while it is walked.
        let mut next = 0;
        while let Some(node) = s.nodes.get(next).cloned() {
            next += 1;
            let Some(b) = image.get(&node.block) else {
                continue;
            };
            for at in pointers(b) {
                if let Some(ptr) = NodePtr::decode(&b[at..at + NODE_PTR_LEN]) {
                    s.add(image, node.block, ptr);
                }
            }
        }
        s.find_batches(image, sb);
        s
    }

    fn add(&mut self, image: &Image, from: u64, ptr: NodePtr) {
        assert!(image.contains_key(&ptr.addr), "{ptr:?}: nothing is there");
        self.numbers.push(ptr.addr);
        self.nodes.push(Node {
            block: ptr.addr,
            from,
            ptr,
        });
    }

    /// The node that points to a node; `None` if that is the superblock.
    pub fn parent(&self, n: &Node) -> Option<&Node> {
        self.nodes.iter().find(|p| p.block == n.from)
    }

    /// Blocks of an AG.
    pub fn ag_len(&self, ag: u64) -> u64 {
        let start = ag.saturating_mul(self.ag_blocks);
        self.blocks.saturating_sub(start).min(self.ag_blocks)
    }

    fn find_batches(&mut self, image: &Image, sb: &Superblock) {
        let log = sb.log_start..sb.log_start + sb.log_len;
        let mut found = Vec::new();
        for (at, b) in image.range(log.clone()) {
            if !b.starts_with(b"ORDL") {
                continue;
            }
            let (Some(seq), Some(len)) = (le64(&b[..], 16), le32(&b[..], 40)) else {
                continue;
            };
            let n = header::blocks_of(len as usize);
            let wrap = |i: u64| log.start + (at - log.start + i) % sb.log_len;
            // Those before are part of the superblock's commit.
            if seq >= sb.log_seq {
                found.push((seq, (0..n).map(wrap).collect()));
            }
        }
        found.sort_unstable();
        self.batches = found.into_iter().map(|(_, blocks)| blocks).collect();
    }
}
