// SPDX-License-Identifier: GPL-2.0

//! The trees of space, built anew from the owners of all blocks.
//!
//! # Model
//!
//! The records say that the blocks of the trees themselves are in use. So a *pool* of free blocks is
//! taken first, all of which count as used, and the nodes go into it. If it is too small, the trees
//! are built once more, with a larger one. What is left of it goes into the deferred tree, from which
//! the next commit takes it.
//!
//! AGs are built one after another, and a group that is full or free as a whole costs nothing, so the
//! memory grows with the groups that are partly in use, and with the number of AGs.
//!
//! Tests: `tools/fsck/tests/repair.rs`, `tools/fuzz/tests/repair`.

use super::forest::Work;
use super::room::Room;
use crate::overlay::Blocks;
use crate::{Claim, Claims};
use kernel::prelude::{KVec, Result as Done, ENOSPC};
use ordofs_engine::engine::alloc::deferred::{shape, DEFERRED_TREE, ENTRY};
use ordofs_engine::engine::alloc::AG_TREE;
use ordofs_engine::engine::btree::{NodeSink, NodeStore, Places, Tree, TreeId, TreeKind, WalkItem};
use ordofs_engine::engine::format::ag::{
    inline_groups_max, run_class, AgRecord, RootForm, NEVER_USED,
};
use ordofs_engine::engine::format::bits::Bits;
use ordofs_engine::engine::format::group::{encode, full_record, group_len, Form, MAX_GROUPS};
use ordofs_engine::engine::format::{NodePtr, GROUP_BLOCKS};
use ordofs_engine::engine::volume::mount::tree_of;
use ordofs_engine::os::Block;
use std::collections::BTreeMap;

/// What is kept of an old AG record: whether it says that no block was ever used, and the sections
/// that a reader may ignore.
pub(super) type Kept = (bool, Vec<u8>);

/// Nodes that go into the pool.
struct Pool<'p> {
    node_id: u64,
    generation: u64,
    free: &'p [Places],
    blocks: Blocks,
}

impl NodeSink for Pool<'_> {
    fn node_id(&self) -> u64 {
        self.node_id
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn alloc(&mut self) -> Done<Places> {
        let (first, rest) = self.free.split_first().ok_or(ENOSPC)?;
        self.free = rest;
        Ok(*first)
    }

    fn write(&mut self, places: Places, image: Block) -> Done {
        for at in places.each() {
            self.blocks.insert(at, Box::new(*image));
        }
        Ok(())
    }
}

/// The roots of what was built, and the number of free blocks.
struct Built {
    ag_root: Option<NodePtr>,
    deferred_root: Option<NodePtr>,
    free: u64,
    blocks: Blocks,
}

impl Work<'_> {
    /// Reads the old trees of space: their nodes are not needed any more.
    pub fn read_space(&mut self) -> BTreeMap<u64, Kept> {
        let mut kept = BTreeMap::new();
        let mut groups = Vec::new();
        let (sb, tree) = (self.sb.clone(), tree_of(AG_TREE, self.sb.ag_root));
        let _ = tree.walk_tolerant(self.st, &mut |w| {
            let WalkItem::Item(ag, value) = w else {
                return Ok(());
            };
            let Some(i) = u32::try_from(ag).ok().filter(|i| *i < sb.ag_count) else {
                return Ok(());
            };
            let Ok(rec) = AgRecord::parse(sb.ag_len(i), value) else {
                return Ok(());
            };
            if let RootForm::Ptr(p) = rec.groups {
                groups.push(Tree::from_ptr(TreeId::new(TreeKind::Groups, ag), p));
            }
            let unused = rec.flags & NEVER_USED != 0;
            if unused || !rec.ignorable.is_empty() {
                kept.insert(ag, (unused, rec.ignorable.to_vec()));
            }
            Ok(())
        });
        let lost = self.lost;
        self.retire_tree(&tree);
        for g in groups {
            self.retire_tree(&g);
        }
        let deferred = tree_of(DEFERRED_TREE, self.sb.deferred_root);
        self.retire_tree(&deferred);
        let (mut addresses, end) = (Vec::new(), self.sb.blocks);
        let _ = deferred.walk_tolerant(self.st, &mut |w| {
            if let WalkItem::Item(address, _) = w {
                addresses.push(address);
            }
            Ok(())
        });
        for a in addresses.into_iter().filter(|a| *a < end) {
            if self.claims.owner(a).is_none() {
                self.old.add(a, 1, Claim::Deferred);
            }
        }
        // Nodes of space that are lost have nothing under them that is of use.
        self.lost = lost;
        kept
    }

    /// Builds the trees of space. With `hold`, blocks of the old filesystem count as used.
    pub fn write_space(
        &mut self,
        kept: &BTreeMap<u64, Kept>,
        room: &mut Room,
        blocks: &mut Blocks,
        generation: u64,
        hold: bool,
    ) -> Result<(), String> {
        let mut pool = Vec::new();
        let mut want = 8;
        let built = loop {
            while pool.len() < want {
                let places = room.places(self);
                let none = |_| "there is no room for the records of free space".to_owned();
                pool.push(places.map_err(none)?);
            }
            match build(self, kept, &pool, generation, hold) {
                Ok(built) => break built,
                Err(e) if e == ENOSPC => want = pool.len() + pool.len() / 2 + 1,
                Err(e) => return Err(format!("the trees of space: {e:?}")),
            }
        };
        blocks.extend(built.blocks);
        self.sb.ag_root = built.ag_root;
        self.sb.deferred_root = built.deferred_root;
        self.sb.free = built.free;
        Ok(())
    }
}

/// The runs of used blocks, in ascending order, cut at the borders of AGs.
fn runs(of: &Claims, ag_blocks: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
    of.runs().flat_map(move |(start, len, _)| {
        let end = start + len;
        let first = start / ag_blocks;
        let last = (end - 1) / ag_blocks;
        (first..=last).map(move |ag| {
            let from = start.max(ag * ag_blocks);
            (from, end.min((ag + 1) * ag_blocks))
        })
    })
}

/// Builds all with these blocks as the pool. ENOSPC if they are too few.
fn build(
    work: &Work<'_>,
    kept: &BTreeMap<u64, Kept>,
    pool: &[Places],
    generation: u64,
    hold: bool,
) -> Done<Built> {
    let sb = &work.sb;
    let mut sink = Pool {
        node_id: sb.node_id,
        generation,
        free: pool,
        blocks: Blocks::new(),
    };
    let mut new = runs(&work.claims, sb.ag_blocks).peekable();
    let nothing = Claims::default();
    let old = if hold { &work.old } else { &nothing };
    let mut old = runs(old, sb.ag_blocks).peekable();
    let mut tree = Tree::empty(AG_TREE);
    let mut free = 0;
    for ag in 0..sb.ag_count {
        let end = sb.ag_start(ag) + sb.ag_len(ag);
        let mut used = Vec::new();
        while let Some(r) = new.next_if(|r| r.0 < end) {
            used.push(r);
        }
        while let Some(r) = old.next_if(|r| r.0 < end) {
            used.push(r);
        }
        used.sort_unstable();
        let kept = kept.get(&ag.into());
        let (value, n) = ag_record(work, ag, &used, kept, &mut sink)?;
        free += n;
        tree.insert(work.st, ag.into(), &value)?;
    }
    let ag_root = tree.snapshot()?.write_out(&mut sink)?;
    let left = sink.free.to_vec();
    let deferred_root = deferred(&left, &mut sink)?;
    Ok(Built {
        ag_root,
        deferred_root,
        free,
        blocks: sink.blocks,
    })
}

/// Writes the deferred tree: of the blocks that are left, some are for its nodes, the others are its
/// entries.
fn deferred(left: &[Places], sink: &mut Pool<'_>) -> Done<Option<NodePtr>> {
    let copies = left.first().map_or(1, |p| p.each().count() as u64);
    let shape = shape(left.len() as u64 * copies, copies).ok_or(ENOSPC)?;
    if shape.nodes == 0 {
        return Ok(None);
    }
    let entries = left.get(shape.nodes as usize..).unwrap_or(&[]).iter();
    let mut entries: Vec<u64> = entries.flat_map(|p| p.each()).collect();
    entries.sort_unstable();
    let mut tree = Tree::spread(DEFERRED_TREE, &entries, &ENTRY, shape.leaves as usize)?;
    tree.snapshot()?.write_out(sink)
}

/// The record of an AG with these runs of used blocks, and how many of its blocks are free.
fn ag_record(
    work: &Work<'_>,
    ag: u32,
    used: &[(u64, u64)],
    kept: Option<&Kept>,
    sink: &mut Pool<'_>,
) -> Done<(Vec<u8>, u64)> {
    let (start, len) = (work.sb.ag_start(ag), work.sb.ag_len(ag));
    let mut rec = AgRecord::unused(len, sink.generation);
    let (unused, ignorable) = kept.map_or((false, &[][..]), |(u, i)| (*u, i));
    rec.ignorable = ignorable;
    let mut v = KVec::new();
    if used.is_empty() {
        rec.flags = if unused { NEVER_USED } else { 0 };
        rec.encode(&mut v)?;
        return Ok((v.to_vec(), len));
    }
    let mut groups = Groups {
        tree: Tree::empty(TreeId::new(TreeKind::Groups, ag.into())),
        full: None,
        free: 0,
        longest: 0,
    };
    let mut at = 0;
    for g in 0..len.div_ceil(GROUP_BLOCKS) {
        let first = start + g * GROUP_BLOCKS;
        let n = group_len(len, g);
        let end = first + u64::from(n);
        while used.get(at).is_some_and(|(_, e)| *e <= first) {
            at += 1;
        }
        let here = used.get(at..).unwrap_or(&[]).iter();
        groups.add(work.st, g, n, first, here.take_while(|(s, _)| *s < end))?;
    }
    groups.flush(work.st)?;
    rec.flags = 0;
    (rec.free, rec.longest) = (groups.free as u32, run_class(groups.longest.into()));
    let image = groups
        .tree
        .inline_image(inline_groups_max(ignorable.len()))?;
    rec.groups = match &image {
        Some(items) => RootForm::Inline(items),
        None => match groups.tree.snapshot()?.write_out(sink)? {
            Some(p) => RootForm::Ptr(p),
            None => RootForm::Empty,
        },
    };
    rec.encode(&mut v)?;
    Ok((v.to_vec(), groups.free))
}

/// The tree of the groups of an AG, in the making.
struct Groups {
    tree: Tree,
    /// Full neighbours that have no record yet: the first one, and how many.
    full: Option<(u64, u32)>,
    free: u64,
    longest: u32,
}

impl Groups {
    /// Adds group `g` of `len` blocks from block `first` on.
    fn add<'r>(
        &mut self,
        st: &NodeStore,
        g: u64,
        len: u32,
        first: u64,
        used: impl Iterator<Item = &'r (u64, u64)>,
    ) -> Done {
        let end = first + u64::from(len);
        let mut used = used.peekable();
        let whole = match used.peek() {
            None => {
                self.free += u64::from(len);
                self.longest = self.longest.max(len);
                return self.flush(st);
            }
            Some((s, e)) => *s <= first && *e >= end,
        };
        let mut v = KVec::new();
        let form = if whole {
            Form::Full
        } else {
            let mut bits = Bits::zeroed()?;
            for (s, e) in used {
                let (from, to) = ((*s).max(first), (*e).min(end));
                bits.set((from - first) as u32, to.saturating_sub(from) as u32);
            }
            self.free += u64::from(len - bits.count_range(0, len));
            let longest = bits.find_clear(0, len, len).map_or(0, |(_, n)| n);
            self.longest = self.longest.max(longest);
            encode(&bits, len, &mut v)?
        };
        match (form, &mut self.full) {
            (Form::Full, Some((_, n))) if *n < MAX_GROUPS => *n += 1,
            (Form::Full, _) => {
                self.flush(st)?;
                self.full = Some((g, 1));
            }
            (Form::Own, _) => {
                self.flush(st)?;
                self.tree.insert(st, g, &v)?;
            }
            (Form::Free, _) => self.flush(st)?,
        }
        Ok(())
    }

    /// Writes the record of the full groups so far.
    fn flush(&mut self, st: &NodeStore) -> Done {
        match self.full.take() {
            Some((g, n)) => self.tree.insert(st, g, &full_record(n)),
            None => Ok(()),
        }
    }
}
