// SPDX-License-Identifier: GPL-2.0

//! Free blocks for the new nodes, and the writes.
//!
//! A block is free if neither the new filesystem nor the old one has it. If nodes of the old one could
//! not be read, the blocks below them are not known. Then what the records of space call used is left
//! alone, and in AGs whose records cannot be read each block that holds a node of this filesystem.
//!
//! Tests: `tools/fuzz/tests/repair`.

use super::forest::Work;
use super::peek::node_at;
use super::search::used;
use crate::overlay::Blocks;
use crate::{Claim, Claims};
use kernel::prelude::{Result, ENOSPC};
use ordofs_engine::engine::btree::{NodeSink, Places};
use ordofs_engine::os::Block;
use std::ops::Range;

/// The searches for free blocks, one for each copy of a node. They start half of the filesystem apart.
pub(super) struct Room {
    first: Cursor,
    /// `None` if nodes have one copy.
    second: Option<Cursor>,
    /// Whether the second copy may be in the AG of the first: no other has a free block.
    together: bool,
    /// A search has found nothing.
    full: bool,
    known: Known,
}

/// A search for free blocks: it goes once around the filesystem.
#[derive(Clone, Copy)]
struct Cursor {
    next: u64,
    left: u64,
}

/// What is known about blocks whose owner is not.
struct Known {
    /// Blocks that the records called used, if some of their owners are not known.
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

impl Cursor {
    fn at(goal: u64, blocks: u64) -> Self {
        Self {
            next: if goal < blocks { goal } else { 0 },
            left: blocks,
        }
    }

    /// A free block that is not in `except`.
    fn block(&mut self, work: &Work<'_>, known: &Known, except: Range<u64>) -> Result<u64> {
        while self.left > 0 {
            let at = self.next;
            let start = if except.contains(&at) { except.end } else { at };
            let free = [&work.claims, &work.old, &work.avoid, &known.used]
                .into_iter()
                .fold(start, |at, claims| at.max(behind(claims, at)));
            let step = (free - at).max(1).min(self.left);
            self.left -= step;
            self.next = at + step;
            if self.next >= work.sb.blocks {
                self.next = 0;
            }
            if free == at && at < work.sb.blocks && is_usable(work, known, at) {
                return Ok(at);
            }
        }
        Err(ENOSPC)
    }
}

impl Room {
    /// For nodes with `copies` copies.
    pub fn new(work: &Work<'_>, copies: u8) -> Self {
        let (mut all, unknown) = match work.lost {
            true => used(work),
            false => Default::default(),
        };
        for (start, len, _) in unknown.runs() {
            all.remove(start, len);
        }
        let (goal, blocks) = (work.sb.node_goal, work.sb.blocks);
        Self {
            first: Cursor::at(goal, blocks),
            second: (copies > 1).then(|| Cursor::at((goal + blocks / 2) % blocks.max(1), blocks)),
            together: false,
            full: false,
            known: Known { used: all, unknown },
        }
    }

    /// Whether there was no room for a node.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Free blocks for the copies of a node. They have an owner from now on.
    pub fn places(&mut self, work: &mut Work<'_>) -> Result<Places> {
        let places = self.find(work);
        self.full |= places.is_err();
        places
    }

    fn find(&mut self, work: &mut Work<'_>) -> Result<Places> {
        let mut places = Places::one(self.first.block(work, &self.known, 0..0)?);
        work.claims.add(places.first, 1, Claim::Deferred);
        let Some(second) = &mut self.second else {
            return Ok(places);
        };
        let ag = work.sb.ag_blocks;
        let start = places.first / ag * ag;
        let whole = *second;
        let mut found = Err(ENOSPC);
        if !self.together {
            found = second.block(work, &self.known, start..start + ag);
        }
        if found.is_err() {
            if !self.together {
                (self.together, *second) = (true, whole);
            }
            found = second.block(work, &self.known, 0..0);
        }
        places.second = found?;
        work.claims.add(places.second, 1, Claim::Deferred);
        Ok(places)
    }
}

/// Whether a new node can have a block that is free, for all that is known: it can be read, and if there
/// are no records of it, no copy of a node of this filesystem is there.
fn is_usable(work: &Work<'_>, known: &Known, block: u64) -> bool {
    let device = work.st.device();
    let readable = Block::zeroed().is_ok_and(|mut b| device.read(block, &mut b).is_ok());
    let unknown = known.unknown.owner(block).is_some();
    readable && !(unknown && node_at(device, work.sb.node_id, block).is_some())
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

    fn alloc(&mut self) -> Result<Places> {
        self.room.places(self.work)
    }

    fn write(&mut self, places: Places, image: Block) -> Result {
        for at in places.each() {
            self.blocks.insert(at, Box::new(*image));
        }
        Ok(())
    }
}
