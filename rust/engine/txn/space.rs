// SPDX-License-Identifier: GPL-2.0

//! The part of a commit that writes the space trees: records of groups and AGs, and the deferred
//! tree ([`crate::engine::alloc::deferred`]).
//!
//! The blocks for the nodes of these trees are taken before the nodes are written, because taking
//! them changes records. Most come from the last commit's deferred tree, and change none. If they
//! are not enough, the commit takes more, some of them in reserve, and puts the records that this
//! changed into the trees once more. If they are more than enough, it frees some, once, and puts the
//! records that this changed into the trees. So the records are put there three times at most, unless
//! the free space is so scattered that the reserve does not do. It ends in any case, because a record
//! that is put there again replaces itself.
//!
//! Locks: the commit mutex is held; those of [`crate::engine::alloc`], one at a time.
//!
//! Tests: tools/engine/tests/deferred.rs, crash.rs, full_disk.rs; tools/models/tests/rules/r7.rs;
//! tools/crash.

use super::sink::Sink;
use crate::engine::alloc::ag::FreedBy;
use crate::engine::alloc::deferred::{
    affordable, missing, pair, shape, sort, Deferred, DEFERRED_TREE, ENTRY, KEEP, SPARE,
};
use crate::engine::btree::{NodeSink, Places, Tree, WalkItem};
use crate::engine::format::{corrupt, Room, GROUP_BLOCKS};
use crate::engine::fs::Fs;
use crate::engine::invariant::{broken, check, Invariant};
use crate::engine::mutant::{self, Mutant};
use crate::engine::state::commit::CommitState;
use crate::os::Block;
use kernel::prelude::*;

/// How often the deferred tree is read, if reads fail.
const WALKS: usize = 3;

/// Gives nodes the places that were taken for them.
struct Given<'a, 'b, 'c> {
    sink: &'a mut Sink<'b>,
    first: &'c [u64],
    /// As many, or none.
    second: &'c [u64],
}

impl NodeSink for Given<'_, '_, '_> {
    fn node_id(&self) -> u64 {
        self.sink.node_id()
    }

    fn generation(&self) -> u64 {
        self.sink.generation()
    }

    fn alloc(&mut self) -> Result<Places> {
        let Some((first, rest)) = self.first.split_first() else {
            return Err(broken(
                Invariant::NodeBlocks,
                format_args!("a space tree has more nodes than were counted"),
            ));
        };
        self.first = rest;
        let mut places = Places::one(*first);
        if let Some((second, rest)) = self.second.split_first() {
            places.second = *second;
            self.second = rest;
        }
        Ok(places)
    }

    fn write(&mut self, places: Places, image: Block) -> Result {
        self.sink.write(places, image)
    }
}

impl Fs {
    /// Step 3 of a commit: writes the space trees.
    pub(super) fn commit_space(&self, c: &mut CommitState, sink: &mut Sink<'_>) -> Result {
        let Deferred {
            entries: mut spare,
            nodes: mut dead,
            held,
            ..
        } = self.take_deferred(c)?;
        append(&mut dead, &held)?;
        self.free_closed(c.drain, &mut spare, &mut dead)?;
        let need = self.settle(c, sink, &mut spare, &mut dead)?;
        if mutant::is(Mutant::DeferredForgotten) {
            dead.clear();
        }
        if !mutant::is(Mutant::DeferredAtOnce) {
            sort(&mut spare);
        }
        let short = || broken(Invariant::NodeBlocks, format_args!("too few blocks"));
        let copies = self.space.copies();
        let rest = (spare.len() as u64).checked_sub(need * copies);
        let shape = rest.and_then(|rest| shape(dead.len() as u64 + rest, copies));
        let shape = shape.ok_or_else(short)?;
        let nodes = (need + shape.nodes) as usize;
        let (first, second, unused) = pair(&spare, nodes, copies).ok_or_else(short)?;
        append(&mut dead, unused)?;
        sort(&mut dead);
        // The first ones are for the AG tree and the trees of groups.
        let for_nodes = need as usize;
        let parts = first.split_at_checked(for_nodes);
        let (first, first_deferred) = parts.ok_or_else(short)?;
        let parts = second.split_at_checked(for_nodes.min(second.len()));
        let (second, second_deferred) = parts.ok_or_else(short)?;
        let mut given = Given {
            sink,
            first,
            second,
        };
        c.sb.ag_root = self.space.write_out(&self.node_store, &mut given)?;
        let left = given.first.len() + given.second.len();
        (given.first, given.second) = (first_deferred, second_deferred);
        let mut tree = Tree::spread(DEFERRED_TREE, &dead, &ENTRY, shape.leaves as usize)?;
        c.sb.deferred_root = tree.snapshot()?.write_out(&mut given)?;
        let left = left + given.first.len() + given.second.len();
        check(
            Invariant::NodeBlocks,
            left == 0,
            format_args!("{left} blocks for nodes of the space trees are left"),
        )?;
        let (mut entries, mut nodes) = (KVVec::new(), KVVec::new());
        append(&mut nodes, first_deferred)?;
        append(&mut nodes, second_deferred)?;
        // Both are in ascending order.
        for addr in dead.iter().filter(|a| held.binary_search(a).is_err()) {
            entries.push(*addr, GFP_KERNEL)?;
        }
        c.deferred = Deferred {
            known: true,
            entries,
            nodes,
            held,
        };
        Ok(())
    }

    /// While the end of the filesystem is closed, no node goes there: frees blocks in `spare` that are
    /// behind the limit, in at most `groups` groups, the nodes of which are reserved. The others become
    /// entries again.
    fn free_closed(&self, groups: u64, spare: &mut KVVec<u64>, dead: &mut KVVec<u64>) -> Result {
        let limit = self.space.limit();
        if !spare.iter().any(|a| *a >= limit) {
            return Ok(());
        }
        let (mut open, mut closed) = (KVVec::new(), KVVec::new());
        let (mut left, mut last) = (groups, None);
        sort(spare);
        for addr in spare.iter().copied() {
            if addr < limit {
                open.push(addr, GFP_KERNEL)?;
                continue;
            }
            let group = Some(addr / GROUP_BLOCKS);
            if last != group && left > 0 {
                (left, last) = (left - 1, group);
            }
            match last == group {
                true => closed.push(addr, GFP_KERNEL)?,
                false => dead.push(addr, GFP_KERNEL)?,
            }
        }
        *spare = open;
        self.space.take_deferred_closed(closed.len() as u64);
        self.free_deferred(&closed)
    }

    /// Puts the changes of the commit into the space trees, until there are blocks in `spare` for
    /// all nodes. Adds the addresses of replaced nodes to `dead`. Returns the number of nodes of the
    /// AG tree and the trees of groups.
    fn settle(
        &self,
        c: &mut CommitState,
        sink: &mut Sink<'_>,
        spare: &mut KVVec<u64>,
        dead: &mut KVVec<u64>,
    ) -> Result<u64> {
        let mut may_free = true;
        let copies = self.space.copies();
        loop {
            let applied = self.space.apply(&self.node_store, sink.generation())?;
            c.sb.free = c.sb.free.saturating_add_signed(applied.by);
            self.space.take_dead(&self.node_store, dead)?;
            if mutant::is(Mutant::DeferredAtOnce) {
                let now = core::mem::replace(dead, KVVec::new());
                for addr in core::mem::replace(spare, now) {
                    spare.push(addr, GFP_KERNEL)?;
                }
            }
            let (have, need) = (spare.len() as u64, applied.nodes);
            let more = missing(need, have, dead.len() as u64, copies);
            if more > 0 {
                sink.take(more + SPARE, spare)?;
                continue;
            }
            if may_free && have > (need + KEEP) * copies {
                may_free = false;
                sort(spare);
                let ag_blocks = self.space.ag_blocks();
                let out = affordable(spare, need, dead.len() as u64, ag_blocks, copies);
                self.space.take_deferred(out.len() as u64);
                self.free_deferred(spare.get(out.clone()).unwrap_or(&[]))?;
                // Those behind move down.
                spare.copy_within(out.end.., out.start);
                spare.truncate(spare.len() - out.len());
                if !out.is_empty() {
                    continue;
                }
            }
            return Ok(need);
        }
    }

    /// Frees blocks of the deferred tree, which are in ascending order.
    fn free_deferred(&self, blocks: &[u64]) -> Result {
        let mut rest = blocks;
        while let Some(first) = rest.first() {
            let run = (*first..).zip(rest).take_while(|(a, b)| a == *b).count();
            let (start, len) = (*first, run as u64);
            let r = self
                .space
                .free(&self.node_store, start, len, FreedBy::Commit);
            match r {
                Err(e) if e == EUCLEAN => pr_err!(
                    "{}: {} blocks from {} on are in the deferred tree and cannot be freed\n",
                    self.device_name(),
                    len,
                    start
                ),
                r => drop(r?),
            }
            rest = rest.get(run..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// What the last commit has put into the deferred tree. The first commit of a mount reads the
    /// tree.
    fn take_deferred(&self, c: &mut CommitState) -> Result<Deferred> {
        let last = core::mem::replace(&mut c.deferred, Deferred::unread());
        if last.known {
            return Ok(last);
        }
        let tree = match c.sb.deferred_root {
            Some(root) => Tree::from_ptr(DEFERRED_TREE, root),
            None => Tree::empty(DEFERRED_TREE),
        };
        let mut attempt = 1;
        let (entries, mut nodes) = loop {
            let (mut entries, mut nodes) = (KVVec::new(), KVVec::new());
            let (mut bad, mut again) = (0u64, false);
            tree.walk_tolerant(&self.node_store, &mut |item| {
                match item {
                    WalkItem::Node(n) => {
                        nodes.push(n.addr, GFP_KERNEL)?;
                        if n.addr2 != 0 {
                            nodes.push(n.addr2, GFP_KERNEL)?;
                        }
                    }
                    WalkItem::Item(addr, v) if v == ENTRY => entries.push(addr, GFP_KERNEL)?,
                    WalkItem::Item(addr, _) => self.leave(addr, "the entry has another value"),
                    WalkItem::Bad(bad) if bad.error == ENOMEM => return Err(ENOMEM),
                    WalkItem::Bad(node) => {
                        bad += 1;
                        again |= node.error != EUCLEAN;
                    }
                }
                Ok(())
            })?;
            if again && attempt < WALKS {
                attempt += 1;
                continue;
            }
            if bad > 0 {
                // Nothing proves that the blocks that the pointers name are the tree's.
                pr_err!(
                    "{}: {} nodes of the deferred tree cannot be read: they and the blocks that they have stay in use until the filesystem is repaired\n",
                    self.device_name(),
                    bad
                );
            }
            break (entries, nodes);
        };
        sort(&mut nodes);
        let room = Room::from(&*c.sb);
        let mut held = KVVec::new();
        let usable = self.reusable(&room, &nodes, &[], &mut held)?;
        let entries = self.reusable(&room, &entries, &nodes, &mut held)?;
        sort(&mut held);
        Ok(Deferred {
            known: true,
            entries,
            nodes: usable,
            held,
        })
    }

    /// Those of the addresses `list`, which are in ascending order, that can be the deferred tree's
    /// and are not in `other`, which is in ascending order too. Adds those to `held` of which that
    /// cannot be said, because the AG is bad.
    fn reusable(
        &self,
        room: &Room,
        list: &[u64],
        other: &[u64],
        held: &mut KVVec<u64>,
    ) -> Result<KVVec<u64>> {
        let mut good = KVVec::with_capacity(list.len(), GFP_KERNEL)?;
        let mut last = None;
        for addr in list.iter().copied() {
            let twice = last.replace(addr) == Some(addr) || other.binary_search(&addr).is_ok();
            match room.refuses(addr, 1) {
                Some(what) => self.leave(addr, what),
                None if twice => self.leave(addr, "it is there twice"),
                None => match self.space.is_used(&self.node_store, addr, 1)? {
                    Some(true) => good.push(addr, GFP_KERNEL)?,
                    Some(false) => self.leave(addr, "it is free"),
                    None => held.push(addr, GFP_KERNEL)?,
                },
            }
        }
        Ok(good)
    }

    /// The deferred tree on disk names a block that cannot be its own: nothing is done with it.
    fn leave(&self, addr: u64, why: &str) {
        let _ = corrupt("deferred block", addr, why);
    }
}

/// Adds the addresses `more` to `list`.
fn append(list: &mut KVVec<u64>, more: &[u64]) -> Result {
    list.reserve(more.len(), GFP_KERNEL)?;
    for addr in more {
        list.push(*addr, GFP_KERNEL)?;
    }
    Ok(())
}
