// SPDX-License-Identifier: GPL-2.0

//! The third pass: writing what has changed, into free blocks.
//!
//! Trees of inodes come first, then the inode tree and the orphan tree, then the trees of space
//! ([`super::space`]), because those say which blocks all others have taken.
//!
//! Tests: `tools/fuzz/tests/repair`.

use super::forest::{Pending, Work};
use super::record::other_bytes;
use super::room::{Out, Room};
use crate::overlay::Blocks;
use kernel::prelude::KVec;
use ordofs_engine::engine::btree::{Tree, WalkItem};
use ordofs_engine::engine::format::inode::{inline_tree_max, InodeRecord, RootForm};
use ordofs_engine::engine::format::NodePtr;
use ordofs_engine::engine::volume::mount::{tree_of, INODE_TREE, ORPHAN_TREE};
use ordofs_engine::engine::Attrs;

/// Where a tree was written.
enum Written {
    /// Nowhere: it has not changed.
    Same,
    Empty,
    Inline(KVec<u8>),
    Ptr(NodePtr),
}

impl Written {
    fn form<'a>(&'a self, old: RootForm<'a>) -> RootForm<'a> {
        match self {
            Self::Same => old,
            Self::Empty => RootForm::Empty,
            Self::Inline(items) => RootForm::Inline(items),
            Self::Ptr(p) => RootForm::Ptr(*p),
        }
    }
}

impl Work<'_> {
    /// Writes inodes and orphans. Afterwards `sb` has their roots and numbers.
    pub fn write_inodes(
        &mut self,
        room: &mut Room,
        blocks: &mut Blocks,
        generation: u64,
    ) -> Result<(), String> {
        let mut itree = std::mem::replace(&mut self.itree, Tree::empty(INODE_TREE));
        for (ino, mut p) in std::mem::take(&mut self.pending) {
            let failed = |e| format!("inode {ino}: {e:?}");
            if p.gone {
                itree.remove(self.st, ino).map_err(failed)?;
                continue;
            }
            let value = self.write_inode(ino, &mut p, room, blocks, generation)?;
            itree.insert(self.st, ino, &value).map_err(failed)?;
        }
        self.retire_dead(&mut itree);
        self.sb.inode_root = self.write_tree(itree, room, blocks, generation)?;
        self.sb.inodes = self.inodes.len() as u64;
        self.write_orphans(room, blocks, generation)
    }

    /// Writes a tree. Returns its root.
    pub fn write_tree(
        &mut self,
        mut tree: Tree,
        room: &mut Room,
        blocks: &mut Blocks,
        generation: u64,
    ) -> Result<Option<NodePtr>, String> {
        let what = format!("{} tree of {}", tree.id().kind.name(), tree.id().owner);
        let failed = |e| format!("{what} cannot be written: {e:?}");
        let snapshot = tree.snapshot().map_err(failed)?;
        let mut out = Out {
            work: self,
            room,
            blocks,
            generation,
        };
        snapshot.write_out(&mut out).map_err(failed)
    }

    /// Writes the trees of an inode that have changed. Returns its new record.
    fn write_inode(
        &mut self,
        ino: u64,
        p: &mut Pending,
        room: &mut Room,
        blocks: &mut Blocks,
        generation: u64,
    ) -> Result<Vec<u8>, String> {
        let rec = InodeRecord::parse(&p.record).map_err(|e| format!("inode {ino}: {e}"))?;
        let max = inline_tree_max(other_bytes(&rec));
        let mut write = |tree: Option<Tree>| -> Result<Written, String> {
            let Some(mut tree) = tree else {
                return Ok(Written::Same);
            };
            self.retire_dead(&mut tree);
            if tree.is_empty() {
                return Ok(Written::Empty);
            }
            let image = tree.inline_image(max).map_err(|e| format!("{e:?}"))?;
            if let Some(items) = image {
                return Ok(Written::Inline(items));
            }
            let root = self.write_tree(tree, room, blocks, generation)?;
            Ok(root.map_or(Written::Empty, Written::Ptr))
        };
        let extents = write(p.extents.take())?;
        let dir = write(p.dir.take())?;
        let xattr = write(p.xattr.take())?;
        let size = p.size.unwrap_or(rec.attrs.size);
        let new = InodeRecord {
            attrs: Attrs {
                nlink: p.nlink.unwrap_or(rec.attrs.nlink),
                size,
                ..rec.attrs
            },
            blocks: p.blocks.unwrap_or(rec.blocks),
            parent: p.parent.unwrap_or(rec.parent),
            generation,
            extents: extents.form(rec.extents),
            dir: dir.form(rec.dir),
            xattr: xattr.form(rec.xattr),
            ..rec
        };
        let mut v = KVec::new();
        new.encode(&mut v)
            .map_err(|e| format!("inode {ino}: {e:?}"))?;
        InodeRecord::parse(&v).map_err(|e| format!("inode {ino}: its new record: {e}"))?;
        Ok(v.to_vec())
    }

    /// Reads the orphan tree.
    pub fn read_orphans(&mut self) -> Result<(), String> {
        let tree = tree_of(ORPHAN_TREE, self.sb.orphan_root);
        let all = self.scan("orphan tree", tree, &mut |found: &mut Vec<u64>, ino, _| {
            found.push(ino);
        })?;
        self.orphans = all.found.into_iter().collect();
        self.orphans_odd = all.changed;
        Ok(())
    }

    /// Writes the orphan tree anew, if it is not as it must be.
    fn write_orphans(
        &mut self,
        room: &mut Room,
        blocks: &mut Blocks,
        generation: u64,
    ) -> Result<(), String> {
        let old = tree_of(ORPHAN_TREE, self.sb.orphan_root);
        let mut had = std::collections::BTreeSet::new();
        let mut good = true;
        let walked = old.walk_tolerant(self.st, &mut |w| {
            match w {
                WalkItem::Item(ino, value) => {
                    good &= value == [1];
                    had.insert(ino);
                }
                WalkItem::Bad(_) => good = false,
                WalkItem::Node(_) => {}
            }
            Ok(())
        });
        if walked.is_ok() && good && !self.orphans_odd && had == self.orphans {
            return Ok(());
        }
        self.retire_tree(&old);
        let mut tree = Tree::empty(ORPHAN_TREE);
        for ino in std::mem::take(&mut self.orphans) {
            tree.insert(self.st, ino, &[1])
                .map_err(|e| format!("orphan {ino}: {e:?}"))?;
        }
        self.sb.orphan_root = self.write_tree(tree, room, blocks, generation)?;
        Ok(())
    }
}
