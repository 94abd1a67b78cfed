// SPDX-License-Identifier: GPL-2.0

//! Where a commit puts its nodes: blocks for the copies of each, and the requests that write them.
//!
//! # Model
//!
//! There is a cursor for first copies and one for second copies, which start about half of the
//! filesystem apart. A cursor takes a run of free blocks, as long as the commit still needs that many
//! nodes, and uses it up before it takes the next one behind it: so the number of searches is that of
//! the runs, and each search begins where the last one ended. A run for second copies is never longer
//! than what is left of the run for first copies, so it can be looked for outside of that one's AG.
//!
//! The commit says how many nodes come ([`Sink::foresee`]), counted exactly, so that nothing is left of
//! the runs at its end.
//!
//! If no other AG has a free block, or all that are free are being discarded, or none can be got there
//! because of an error, the second copy goes behind the second cursor, whatever AG that is in; the rest
//! of the commit does not look again.
//!
//! Both copies of a node are written by one request, from one buffer.
//!
//! Locks: the commit mutex is held; those of [`crate::engine::alloc`], one at a time.
//!
//! Tests: tools/engine/tests/copies, cost.rs, crash.rs; tools/crash.

use crate::engine::btree::{NodeSink, Places};
use crate::engine::fs::Fs;
use crate::engine::invariant::{check, Invariant};
use crate::engine::mutant::{self, Mutant};
use crate::os::Block;
use kernel::prelude::*;

/// The most nodes that one write request holds.
const BATCH: usize = 256;

/// Free blocks that the commit has taken, from `next` on, and where it looks for the next ones.
#[derive(Clone, Copy)]
struct Cursor {
    next: u64,
    left: u64,
}

impl Cursor {
    fn at(goal: u64) -> Self {
        Self {
            next: goal,
            left: 0,
        }
    }

    /// The next block of the run.
    fn pop(&mut self) -> u64 {
        let block = self.next;
        self.next += 1;
        self.left = self.left.saturating_sub(1);
        block
    }
}

/// Assigns places to nodes, and gathers the nodes into write requests.
pub(super) struct Sink<'a> {
    fs: &'a Fs,
    generation: u64,
    /// Blocks taken so far.
    allocated: u64,
    /// Nodes that are still to come.
    expected: u64,
    first: Cursor,
    second: Cursor,
    /// No AG but that of the first copies has a free block.
    together: bool,
    batch: KVec<(Places, Block)>,
}

impl<'a> Sink<'a> {
    /// For the nodes of `generation`.
    pub(super) fn new(fs: &'a Fs, generation: u64) -> Self {
        let (first, second) = fs.space.node_goals();
        Self {
            fs,
            generation,
            allocated: 0,
            expected: 0,
            first: Cursor::at(first),
            second: Cursor::at(second),
            together: false,
            batch: KVec::new(),
        }
    }

    /// `n` more nodes will ask for places.
    pub(super) fn foresee(&mut self, n: u64) {
        self.expected += n;
    }

    /// How many blocks were taken.
    pub(super) fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Takes at least `n` blocks for copies of nodes, and adds them to `blocks`.
    pub(super) fn take(&mut self, n: u64, blocks: &mut KVVec<u64>) -> Result {
        let nodes = n.div_ceil(self.fs.space.copies());
        self.foresee(nodes);
        for _ in 0..nodes {
            for block in self.places()?.each() {
                blocks.push(block, GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    /// Takes a run of up to `up_to` free blocks behind block `goal`, outside of AG `apart`. `None` if
    /// there are none outside of it.
    fn run(&mut self, up_to: u64, goal: u64, apart: Option<u64>) -> Result<Option<Cursor>> {
        let fs = self.fs;
        let run = fs.space.alloc_nodes(&fs.node_store, up_to, goal, apart)?;
        Ok(run.map(|run| {
            self.allocated += run.len;
            Cursor {
                next: run.start,
                left: run.len,
            }
        }))
    }

    /// Blocks for the copies of a node.
    fn places(&mut self) -> Result<Places> {
        if self.first.left == 0 {
            let (n, goal) = (self.expected.max(1), self.first.next);
            self.first = self.run(n, goal, None)?.ok_or(ENOSPC)?;
        }
        self.expected = self.expected.saturating_sub(1);
        let up_to = self.first.left;
        let mut places = Places::one(self.first.pop());
        if self.fs.space.copies() > 1 {
            if self.second.left == 0 {
                self.second = self.second_run(up_to, places.first)?;
            }
            places.second = self.second.pop();
        }
        Ok(places)
    }

    /// A run for second copies, the first of which is that of a node at block `first`.
    fn second_run(&mut self, up_to: u64, first: u64) -> Result<Cursor> {
        let goal = self.second.next;
        if !self.together {
            let ag = first / self.fs.geometry.ag_blocks;
            match self.run(up_to, goal, Some(ag)) {
                Ok(Some(run)) => return Ok(run),
                Err(e) if e == ENOMEM => return Err(e),
                // No place elsewhere, or one that cannot be used: that is worth no shutdown.
                Ok(None) | Err(_) => self.together = true,
            }
        }
        self.run(up_to, goal, None)?.ok_or(ENOSPC)
    }

    /// Writes the gathered nodes, without a flush: all copies in one request, the first ones in front,
    /// so that neighbours can be joined.
    fn submit(&mut self) -> Result {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut refs = KVVec::with_capacity(2 * self.batch.len(), GFP_KERNEL)?;
        for (at, b) in self.batch.iter() {
            refs.push((at.first, b), GFP_KERNEL)?;
        }
        for (at, b) in self.batch.iter().filter(|(at, _)| at.second != 0) {
            if !mutant::is(Mutant::NodeOneCopy) {
                refs.push((at.second, b), GFP_KERNEL)?;
            }
        }
        self.fs.node_store.device().write(&refs)?;
        drop(refs);
        self.batch.clear();
        Ok(())
    }

    /// All nodes have been passed to the sink: writes the last ones. The next commit goes on behind
    /// them, or begins a new round.
    pub(super) fn finish(&mut self) -> Result {
        self.submit()?;
        let left = self.first.left + self.second.left;
        check(
            Invariant::NodeBlocks,
            left == 0,
            format_args!("{left} blocks that were taken for nodes are left"),
        )?;
        let (first, second) = (self.first.next, self.second.next);
        let space = &self.fs.space;
        space.nodes_written(self.allocated, first, second);
        Ok(())
    }
}

impl NodeSink for Sink<'_> {
    fn node_id(&self) -> u64 {
        self.fs.node_store.node_id()
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn alloc(&mut self) -> Result<Places> {
        self.places()
    }

    fn write(&mut self, places: Places, image: Block) -> Result {
        self.fs.node_store.forget(places.first);
        self.batch.push((places, image), GFP_KERNEL)?;
        if self.batch.len() >= BATCH {
            self.submit()?;
        }
        Ok(())
    }
}
