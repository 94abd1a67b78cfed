// SPDX-License-Identifier: GPL-2.0

//! Right checksums for changed blocks.
//!
//! A node's checksum is in its header and in the pointer to it, which changes the node that points,
//! and so on up to the superblock. Pointers that a recipe has changed beyond recognition stay as they
//! are. The sums of the AG tree go the same way, if the recipe says so.
//!
//! Tests: tools/fuzz/tests/corpus.rs.

use crate::changes::Changes;
use crate::structure::{self, Node};
use crate::Bytes;
use ordofs_crash::engine::format::node::{TreeKind, NODE_HEADER, NODE_PTR_LEN};
use ordofs_crash::engine::format::sums::Sums;
use ordofs_crash::engine::format::superblock;
use ordofs_crash::engine::format::{le32, NodePtr};
use ordofs_crash::engine::log::header;
use ordofs_engine::os::crc32c;

const SUM: usize = 4;
/// Bytes of a pointer by which it is recognised: both addresses and the generation.
const IDENTITY: usize = 24;
/// Where a pointer has the generation, the checksum and the level.
const P_GENERATION: usize = 16;
const P_SUM: usize = 24;
const P_LEVEL: usize = 28;
/// Where the header of a node has generation and level.
const N_GENERATION: usize = 24;
const N_LEVEL: usize = 41;
/// Where the header of a batch has the length of the payload, and its own checksum.
const B_LEN: usize = 40;
const B_OWN: usize = 56;

/// Where a superblock has the number of the copy, and that of free blocks.
const COPY: usize = 200;
const FREE: usize = 592;

/// What is made to agree, beside the checksums.
#[derive(Clone, Copy, Debug)]
pub struct Agree {
    /// Pointers with generation and level in the header of their node.
    pub pointers: bool,
    /// Sums with the content of the child.
    pub sums: bool,
    /// The number of free blocks in the superblock with the sums of the AG tree.
    pub free: bool,
}

/// The sums of a node of the AG tree.
fn sums(b: &Bytes) -> Sums {
    let part = |i| match structure::level(b) {
        0 => structure::value(b, i).map(|v| Sums::of_record(&b[v])),
        _ => Sums::decode(&b[NODE_HEADER + i * structure::entry_len(b) + 8 + NODE_PTR_LEN..]),
    };
    let all = (0..structure::entries(b)).filter_map(part);
    all.fold(Sums::default(), Sums::and)
}

fn put(b: &mut [u8], at: usize, v: &[u8]) {
    if let Some(to) = b.get_mut(at..at + v.len()) {
        to.copy_from_slice(v);
    }
}

/// All places in `b` that begin like the encoded pointer.
fn places(b: &Bytes, ptr: &NodePtr) -> Vec<usize> {
    let want = &ptr.to_bytes()[..IDENTITY];
    let like = |at: &usize| b[*at..].starts_with(want);
    (0..=b.len() - IDENTITY).filter(like).collect()
}

/// Seals a node, and the pointers to it where `from` has them.
fn node(c: &mut Changes<'_>, node: &Node, agree: Agree) {
    let b = c.block_mut(node.block);
    let sum = crc32c(0, &b[8..]);
    put(b, SUM, &sum.to_le_bytes());
    let generation: [u8; 8] = std::array::from_fn(|i| b[N_GENERATION + i]);
    let level = b[N_LEVEL];
    let total = (structure::kind(b) == TreeKind::Ag as u8).then(|| sums(b));
    let parent = c.block_mut(node.from);
    for at in places(parent, &node.ptr) {
        put(parent, at + P_SUM, &sum.to_le_bytes());
        if agree.pointers {
            put(parent, at + P_GENERATION, &generation);
            put(parent, at + P_LEVEL, &[level]);
        }
        let Some(total) = total else { continue };
        if parent.starts_with(b"OrdoFS") {
            if agree.free {
                put(parent, FREE, &total.free.to_le_bytes());
            }
        } else if agree.sums {
            put(parent, at + NODE_PTR_LEN, &total.to_bytes());
        }
    }
}

/// Seals a batch of the log.
fn batch(c: &mut Changes<'_>, blocks: &[u64]) {
    let mut all: Vec<u8> = Vec::new();
    for block in blocks {
        all.extend_from_slice(&c.block(*block)[..]);
    }
    let own = crc32c(0, &all[8..B_OWN]);
    put(&mut all, B_OWN, &own.to_le_bytes());
    let len = le32(&all, B_LEN).unwrap_or(0) as usize;
    let end = header::HEADER.saturating_add(len).min(all.len());
    let sum = crc32c(0, &all[8..end]);
    put(&mut all, SUM, &sum.to_le_bytes());
    for (block, bytes) in blocks.iter().zip(all.chunks_exact(4096)) {
        c.block_mut(*block).copy_from_slice(bytes);
    }
}

/// Makes the checksums of everything changed right.
pub fn all(c: &mut Changes<'_>, agree: Agree) {
    let s = c.structure();
    for n in s.nodes.iter().rev() {
        if c.changed(n.block) {
            node(c, n, agree);
        }
    }
    for b in &s.batches {
        if b.iter().any(|block| c.changed(*block)) {
            batch(c, b);
        }
    }
    let [first, twin] = s.superblocks;
    if c.changed(first) {
        let mut b = *c.block(first);
        superblock::seal(&mut b, s.generation);
        *c.block_mut(first) = b;
        // The copy says which one it is.
        b[COPY..COPY + 4].copy_from_slice(&1u32.to_le_bytes());
        superblock::seal(&mut b, s.generation);
        *c.block_mut(twin) = b;
    }
}
