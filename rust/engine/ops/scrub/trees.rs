// SPDX-License-Identifier: GPL-2.0

//! Scrub of the trees that the superblock points to, and of the trees of groups.
//!
//! Locks: the commit mutex, for looks at the superblock only.
//!
//! Tests: those of [`super`].

use super::Scrub;
use crate::engine::alloc::ag::Ag;
use crate::engine::alloc::deferred::DEFERRED_TREE;
use crate::engine::alloc::AG_TREE;
use crate::engine::btree::scrub::{Look, Reached, Walk};
use crate::engine::btree::{Tree, TreeId, TreeKind};
use crate::engine::format::ag::AgRecord;
use crate::engine::format::group::GroupRecord;
use crate::engine::format::inode::RootForm;
use crate::engine::fs::Fs;
use crate::engine::state::scrub::{Cursor, Stage};
use kernel::prelude::*;

/// The identity of the inode tree.
pub(super) const INODE_TREE: TreeId = TreeId::new(TreeKind::Inode, 0);

/// The tree of a stage of which the tree belongs to no inode and no AG.
fn tree_of(stage: Stage) -> TreeId {
    match stage {
        Stage::Ags | Stage::Groups => AG_TREE,
        Stage::Deferred => DEFERRED_TREE,
        Stage::Orphans => TreeId::new(TreeKind::Orphan, 0),
        _ => INODE_TREE,
    }
}

/// The stage after that of a whole tree.
fn after(stage: Stage) -> Stage {
    match stage {
        Stage::Ags | Stage::Groups => Stage::Deferred,
        Stage::Deferred => Stage::Orphans,
        Stage::Orphans => Stage::Inodes,
        _ => Stage::End,
    }
}

impl Cursor {
    /// The start of a stage with this owner.
    pub(super) fn at(stage: Stage, owner: u64) -> Self {
        Self {
            stage,
            owner,
            key: 0,
            done: 0,
        }
    }

    /// Behind key `last` of the tree, or at `next` if no key can follow.
    pub(super) fn behind(self, last: u64, next: Self) -> Self {
        match last.checked_add(1) {
            Some(key) => Self {
                key,
                done: 0,
                ..self
            },
            None => next,
        }
    }
}

impl Scrub {
    /// Turns to an inode.
    fn enter_inode(&mut self, ino: u64) {
        self.cursor = Cursor::at(Stage::Extents, ino);
        self.bad_inode = false;
        self.file_end = None;
        self.doubts = 0;
    }
}

/// What a step in a tree of the superblock has come to.
pub(super) enum Place {
    /// The leaf that would have the key, with keys up to this one.
    Leaf(u64),
    /// There is nothing more up to this key.
    Nothing(u64),
    /// To be tried again.
    Again,
}

impl Fs {
    /// The root of a tree of the superblock, as the newest commit has written it. EIO after a
    /// shutdown: a commit that failed may have left a root that is not on disk.
    fn committed_root(&self, tree: TreeId) -> Result<Look> {
        let c = self.commit.lock();
        self.readable()?;
        Ok(Look::root(match tree.kind {
            TreeKind::Ag => c.sb.ag_root,
            TreeKind::Deferred => c.sb.deferred_root,
            TreeKind::Orphan => c.sb.orphan_root,
            TreeKind::Inode => c.sb.inode_root,
            _ => None,
        }))
    }

    /// A step to `key` in a tree of the superblock.
    pub(super) fn go_to(&self, walk: &mut Walk, tree: TreeId, key: u64) -> Result<Place> {
        walk.enter(tree);
        let reached = walk.step(
            &self.node_store,
            key,
            &mut || match self.scrub.is_cancelled() {
                true => Err(EINTR),
                false => self.committed_root(tree),
            },
            &mut |u| self.note_node(u),
        )?;
        Ok(match reached {
            Reached::Empty => Place::Nothing(u64::MAX),
            Reached::Lost(last) => Place::Nothing(last),
            Reached::Leaf(last) => Place::Leaf(last),
            Reached::Moving => Place::Again,
        })
    }

    /// A step in a tree of the superblock. In the inode tree and the AG tree it goes as far as the
    /// next inode, or the next AG with a tree of its own.
    pub(super) fn scrub_outer(&self, s: &mut Scrub) -> Result<u64> {
        let at = s.cursor;
        let next_stage = Cursor::at(after(at.stage), 0);
        // Inodes that are new, or that a replay on a read-only mount has made, are in memory only.
        // Looked up before the tree: an inode leaves the table after the commit that has put it into
        // the tree.
        let in_memory = match at.stage {
            Stage::Inodes => self.itable.first_from(at.key),
            _ => None,
        };
        let (last, is_leaf) = match self.go_to(&mut s.outer, tree_of(at.stage), at.key)? {
            Place::Again => return Ok(0),
            Place::Nothing(last) => (last, false),
            Place::Leaf(last) => (last, true),
        };
        match at.stage {
            Stage::Inodes => {
                let committed = s.outer.item(at.key).filter(|_| is_leaf).map(|(ino, _)| ino);
                let in_memory = in_memory.filter(|ino| *ino <= last);
                if let Some(ino) = [committed, in_memory].into_iter().flatten().min() {
                    if ino >= s.next_ino {
                        s.cursor = next_stage;
                        return Ok(0);
                    }
                    s.enter_inode(ino);
                    self.scrub.report.lock().status.inodes += 1;
                    return Ok(0);
                }
            }
            Stage::Ags if is_leaf => {
                while let Some((ag, v)) = s.outer.item(s.cursor.key) {
                    match self.groups_look(ag, v)? {
                        // A shrink has cut it off since the root was read.
                        None if self.space.was_cut_off(ag) => {}
                        None => self.note_record(TreeKind::Ag, 0, ag),
                        Some(Look::Empty) => {}
                        Some(_) => {
                            s.cursor = Cursor::at(Stage::Groups, ag);
                            return Ok(0);
                        }
                    }
                    let Some(key) = ag.checked_add(1) else { break };
                    s.cursor.key = key;
                }
            }
            _ => {}
        }
        s.cursor = at.behind(last, next_stage);
        Ok(0)
    }

    /// The numbers of blocks that an AG may have according to the records that the scrub has: the
    /// filesystem may have been resized since. 0 if there is no such AG.
    fn ag_lens(&self, ag: u64) -> [u64; 2] {
        [self.space.ag_len(ag), self.space.ag_len_before(ag)]
    }

    /// A look at the tree of groups that the record of an AG has; `None` if the record cannot be
    /// true. ENOMEM.
    fn groups_look(&self, ag: u64, record: &[u8]) -> Result<Option<Look>> {
        let [now, before] = self.ag_lens(ag);
        let rec = AgRecord::parse(now, record).or_else(|_| AgRecord::parse(before, record));
        let Ok(rec) = rec else {
            return Ok(None);
        };
        let items = match rec.groups {
            RootForm::Ptr(p) => return Ok(Some(Look::root(Some(p)))),
            RootForm::Empty => return Ok(Some(Look::Empty)),
            RootForm::Inline(items) => items,
        };
        match Tree::from_inline(Ag::tree_id(ag), items) {
            Ok(tree) => tree.look(0).map(Some),
            Err(e) if e == ENOMEM => Err(e),
            Err(_) => Ok(None),
        }
    }

    /// Decodes the records of groups in the leaf that the scrub has come to.
    fn check_groups(&self, leaf: &Walk, ag: u64, from: u64) {
        let mut from = Some(from);
        while let Some((group, v)) = from.and_then(|at| leaf.item(at)) {
            let bad = |len| GroupRecord::parse(len, group, v).is_err();
            if self.ag_lens(ag).into_iter().all(bad) && !self.space.was_cut_off(ag) {
                self.note_record(TreeKind::Groups, ag, group);
            }
            from = group.checked_add(1);
        }
    }

    /// A step in the tree of the groups of an AG. A look at it is a step in the AG tree.
    pub(super) fn scrub_groups(&self, s: &mut Scrub) -> Result<u64> {
        let at = s.cursor;
        let ag = at.owner;
        let next_ag = Cursor {
            key: ag.saturating_add(1),
            ..Cursor::at(Stage::Ags, 0)
        };
        s.inner.enter(Ag::tree_id(ag));
        let outer = &mut s.outer;
        let mut look = || {
            match self.go_to(outer, AG_TREE, ag)? {
                Place::Again => return Err(EAGAIN),
                // The node that had the record is lost now.
                Place::Nothing(_) => return Ok(Look::Empty),
                Place::Leaf(_) => {}
            }
            match outer.item(ag).filter(|(key, _)| *key == ag) {
                Some((_, v)) => Ok(self.groups_look(ag, v)?.unwrap_or(Look::Empty)),
                None => Ok(Look::Empty),
            }
        };
        let reached = s
            .inner
            .step(&self.node_store, at.key, &mut look, &mut |u| {
                self.note_node(u);
            })?;
        if let Reached::Leaf(_) = reached {
            self.check_groups(&s.inner, ag, at.key);
        }
        s.cursor = match reached {
            Reached::Empty => next_ag,
            Reached::Leaf(last) | Reached::Lost(last) => at.behind(last, next_ag),
            Reached::Moving => at,
        };
        Ok(0)
    }
}
