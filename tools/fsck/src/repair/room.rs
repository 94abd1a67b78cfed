// SPDX-License-Identifier: GPL-2.0

//! Free blocks for the new nodes, and the writes.
//!
//! A block is free if neither the new filesystem nor the old one has it. If nodes of the old one could
//! not be read, the blocks below them are not known. Then what the records of space call used is left
//! alone, and in AGs whose records cannot be read each block that holds a node of this filesystem.
//!
//! Tests: `tools/fuzz/tests/repair.rs`.

use super::forest::Work;
use super::search::used;
use crate::overlay::Blocks;
use crate::{Claim, Claims};
use kernel::prelude::{Result, ENOSPC};
use ordofs_engine::engine::btree::NodeSink;
use ordofs_engine::engine::format::node::NodeHeader;
use ordofs_engine::os::Block;

/// The search for free blocks: it goes once around the filesystem.
pub(super) struct Room {
    next: u64,
    left: u64,
    /// Blocks that the records call used, if some of their owners are not known.
    used: Claims,
    /// Blocks without records that can be read.
    unknown: Claims,
}

/// The first block from `at` on that has no claim in `of`.
fn behind(of: &Claims, at: u64) -> u64 {
    match of.at_or_after(at) {
        Some((s, l, _)) if s <= at => s + l,
        _ => at,
    }
}

impl Room {
    pub fn new(work: &Work<'_>) -> Self {
        let (mut all, unknown) = match work.lost {
            true => used(work),
            false => Default::default(),
        };
        for (start, len, _) in unknown.runs() {
            all.remove(start, len);
        }
        Self {
            next: work.sb.node_goal,
            left: work.sb.blocks,
            used: all,
            unknown,
        }
    }

    /// A free block, which belongs to nothing yet.
    pub fn block(&mut self, work: &Work<'_>) -> Result<u64> {
        while self.left > 0 {
            let at = self.next;
            let free = [&work.claims, &work.old, &work.avoid, &self.used]
                .into_iter()
                .fold(at, |at, claims| at.max(behind(claims, at)));
            let step = (free - at).max(1).min(self.left);
            self.left -= step;
            self.next = at + step;
            if self.next >= work.sb.blocks {
                self.next = 0;
            }
            if free == at
                && at < work.sb.blocks
                && !(self.unknown.owner(at).is_some() && holds_node(work, at))
            {
                return Ok(at);
            }
        }
        Err(ENOSPC)
    }
}

/// Whether a block may hold a node of this filesystem. One that cannot be read is not used either.
fn holds_node(work: &Work<'_>, block: u64) -> bool {
    let Ok(mut b) = Block::zeroed() else {
        return true;
    };
    match work.st.device().read(block, &mut b) {
        Err(_) => true,
        Ok(()) => NodeHeader::decode(&b)
            .is_ok_and(|(h, _)| h.node_id == work.sb.node_id && h.addr == block),
    }
}

/// Where the nodes of the new filesystem go.
pub(super) struct Out<'w, 'a> {
    pub work: &'w mut Work<'a>,
    pub room: &'w mut Room,
    pub blocks: &'w mut Blocks,
    pub generation: u64,
}

impl NodeSink for Out<'_, '_> {
    fn node_id(&self) -> u64 {
        self.work.sb.node_id
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn alloc(&mut self) -> Result<u64> {
        let block = self.room.block(self.work)?;
        self.work.claims.add(block, 1, Claim::Deferred);
        Ok(block)
    }

    fn write(&mut self, addr: u64, image: Block) -> Result {
        self.blocks.insert(addr, Box::new(*image));
        Ok(())
    }
}
