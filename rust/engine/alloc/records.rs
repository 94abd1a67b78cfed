// SPDX-License-Identifier: GPL-2.0

//! What commits do with the AGs that a transaction has changed: their groups' records, their own
//! records in the AG tree, and, when all is durable, the blocks that became free (R7).
//!
//! Only the commit calls these functions, under the commit mutex.
//!
//! Locks: those of [`super`]; no AG's lock is held while nodes are written.
//!
//! Tests: `tools/engine/tests/crash.rs`, `tools/engine/tests/full_disk.rs`,
//! `tools/models/tests/rules/r7.rs`.

use super::{Space, AG_TREE, NOT_IN_VAIN};
use crate::engine::btree::{Dead, NodeSink, NodeStore, Tree};
use crate::engine::format::ag::AgRecord;
use crate::engine::format::NodePtr;
use crate::engine::invariant::{check, Invariant};
use crate::os::atomic::Ordering;
use core::num::NonZeroU64;
use kernel::prelude::*;

/// What [`Space::apply`] has done.
pub struct Applied {
    /// By how many blocks the free space on disk changes.
    pub by: i64,
    /// How many nodes of the space trees need an address.
    pub nodes: u64,
}

/// The AG tree of a new filesystem of `total` blocks, with a record for each AG.
pub fn unused_ags(node_store: &NodeStore, ag_blocks: NonZeroU64, total: u64) -> Result<Tree> {
    let mut tree = Tree::empty(AG_TREE);
    let mut v = KVec::new();
    for i in 0..total.div_ceil(ag_blocks.get()) {
        let len = (total - i * ag_blocks.get()).min(ag_blocks.get());
        // The first commit writes it.
        AgRecord::unused(len, 1).encode(&mut v)?;
        tree.insert(node_store, i, &v)?;
    }
    Ok(tree)
}

impl Space {
    /// Puts the commit's changes into the trees, as far as they are not there yet. Until
    /// [`Space::write_out`] the records of AGs do not have the roots of the trees of their groups,
    /// but they have their lengths.
    pub fn apply(&self, node_store: &NodeStore, generation: u64) -> Result<Applied> {
        self.look_ahead(node_store)?;
        let mut done = Applied { by: 0, nodes: 0 };
        let mut v = KVec::new();
        self.each_in_memory(|i, ag| {
            done.by += ag.apply(node_store)?;
            if ag.is_changed() {
                done.nodes += ag.nodes_to_write()?;
                ag.encode(generation, None, &mut v)?;
                self.tree.write().insert(node_store, i, &v)?;
            }
            Ok(())
        })?;
        done.nodes += self.tree.read().unassigned_nodes();
        Ok(done)
    }

    /// Adds to `dead` the addresses of the nodes of the space trees that have been replaced since
    /// the last call.
    pub fn take_dead(&self, node_store: &NodeStore, dead: &mut KVVec<u64>) -> Result {
        let mut add = |list: KVVec<Dead>| -> Result {
            for addr in list.iter().flat_map(Dead::addrs) {
                node_store.forget(addr);
                dead.push(addr, GFP_KERNEL)?;
            }
            Ok(())
        };
        self.each_in_memory(|_, ag| match ag.is_changed() {
            true => add(ag.take_dead()),
            false => Ok(()),
        })?;
        let list = self.tree.write().take_dead();
        add(list)
    }

    /// Writes the space trees. Returns the root of the AG tree.
    pub fn write_out(
        &self,
        node_store: &NodeStore,
        sink: &mut dyn NodeSink,
    ) -> Result<Option<NodePtr>> {
        let generation = sink.generation();
        let mut v = KVec::new();
        let mut from = 0;
        while let Some(i) = self.next_in_memory(from) {
            from = i + 1;
            let changed = self.if_in_memory(i, |ag| match ag.is_changed() {
                true => ag.groups_to_write().map(Some),
                false => Ok(None),
            });
            let Some(groups) = changed.transpose()?.flatten() else {
                continue;
            };
            let root = match groups {
                Some(snapshot) => snapshot.write_out(sink)?,
                None => None,
            };
            self.if_in_memory(i, |ag| ag.written(generation, root, &mut v))
                .unwrap_or(Ok(()))?;
            self.tree.write().insert(node_store, i, &v)?;
        }
        let snapshot = self.tree.write().snapshot()?;
        snapshot.write_out(sink)
    }

    /// Calls `f(block, len)` for the runs that the commit frees, with no lock held.
    pub fn freed_runs(&self, mut f: impl FnMut(u64, u64)) -> Result {
        let mut runs = KVVec::new();
        let mut from = 0;
        while let Some(i) = self.next_in_memory(from) {
            from = i + 1;
            let start = self.ag_start(i);
            let mut failed = false;
            self.if_in_memory(i, |ag| {
                ag.freed_runs(|at, len| {
                    failed |= runs.push((start + at, len), GFP_KERNEL).is_err();
                });
            });
            if failed {
                return Err(ENOMEM);
            }
            runs.iter().for_each(|r: &(u64, u64)| f(r.0, r.1));
            runs.clear();
        }
        Ok(())
    }

    /// The commit is durable: the blocks that it freed may be used again (R7), if they are not closed. The
    /// next ones free `deferred` more: of those that are not closed, and of those that are.
    pub fn finish_commit(&self, node_store: &NodeStore, deferred: (u64, u64)) -> Result {
        let (mut n, mut open) = (0, 0);
        self.each_in_memory(|_, ag| {
            let (all, more) = ag.finish_commit(node_store)?;
            (n, open) = (n + all, open + more);
            Ok(())
        })?;
        self.tree.write().demote(node_store)?;
        // In this order, so that no task finds neither free blocks nor blocks about to be freed.
        self.unreserve(open);
        self.freed.fetch_sub(n as i64, Ordering::Relaxed);
        self.set_deferred(deferred);
        self.failed.store(0, Ordering::Relaxed);
        self.in_vain.store(NOT_IN_VAIN, Ordering::Relaxed);
        self.trim();
        Ok(())
    }

    /// Where a commit starts to look for blocks for its nodes, and for their second copies.
    pub fn node_goals(&self) -> (u64, u64) {
        self.nodes.goals()
    }

    /// At mount: the searches for nodes go on where that of the last commit ended, and those for
    /// second copies half of the filesystem away; and it is the turn of the AG of `data_goal` to be
    /// a home.
    pub fn start_searches(&self, node_goal: u64, data_goal: u64) {
        let total = self.total().max(1);
        let second = node_goal.saturating_add(total / 2) % total;
        self.nodes.start(node_goal, second);
        let ag = data_goal / self.ag_blocks;
        self.rotor.store(ag, Ordering::Relaxed);
        self.start_homes(ag);
    }

    /// A commit has taken `blocks` blocks for nodes, the last ones before block `first` and, for
    /// second copies, before block `second`.
    pub fn nodes_written(&self, blocks: u64, first: u64, second: u64) {
        let total = self.total();
        let place = |goal: u64| if goal < total { goal } else { 0 };
        let nodes = blocks / self.copies.max(1);
        self.nodes.written(nodes, place(first), place(second));
    }

    /// A commit is about to say that `free` blocks are free: so does the AG tree that it has
    /// written. If the two differed when the tree was first read, the superblock is wrong and this
    /// proves nothing: a number that is too small stays at 0 when blocks are allocated.
    pub fn check_free(&self, node_store: &NodeStore, free: u64) -> Result {
        if self.off.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        let sum = self.tree.read().sums(node_store)?.free;
        check(
            Invariant::FreeCount,
            free == sum,
            format_args!("the superblock would count {free} free blocks, the AG tree {sum}"),
        )
    }
}
