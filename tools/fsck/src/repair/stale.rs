// SPDX-License-Identifier: GPL-2.0

//! Nodes that a search finds where there is data now.
//!
//! # Model
//!
//! A block that was a node, then free, and then allocated to a file without being written, still has
//! the node. The records of space call it used, so a search finds it, and what it says would come back:
//! deleted files, with blocks that others have by now. So a node is left out if a leaf that is newer, and
//! that the search has found, too, maps its block: that leaf belongs to a state of the filesystem in
//! which the block was data, so the node is of no state since. (That one of its copies is there is enough: they are freed
//! together.) While inodes are searched for, the
//! search finds the intact leaves with the lost ones: nothing has been claimed for inodes yet.
//!
//! Tests: `tools/fuzz/tests/repair`.

use super::forest::{open, Work};
use super::found::Node;
use crate::{Claim, Claims};
use ordofs_engine::engine::btree::{Tree, TreeId, TreeKind, WalkItem};
use ordofs_engine::engine::format::extent::Extent;
use ordofs_engine::engine::format::inode::InodeRecord;
use ordofs_engine::engine::{S_IFMT, S_IFREG};
use std::cmp::Reverse;

impl Work<'_> {
    /// Adds the data blocks that a tree of inodes or of extents maps, as far as it can be read.
    fn data_of(&self, tree: &Tree, taken: &mut Claims) {
        // What cannot be read maps nothing that is known.
        let _ = tree.walk_tolerant(self.st, &mut |w| {
            let WalkItem::Item(key, value) = w else {
                return Ok(());
            };
            if tree.id().kind == TreeKind::Extent {
                if let Ok(e) = Extent::parse(key, value, &self.sb) {
                    taken.add(e.phys, e.len, Claim::Data(tree.id().owner));
                }
                return Ok(());
            }
            let rec = InodeRecord::parse(value).ok();
            let file = rec.filter(|rec| rec.attrs.mode & S_IFMT == S_IFREG);
            let extents =
                file.and_then(|rec| open(TreeId::new(TreeKind::Extent, key), &rec.extents));
            if let Some(extents) = extents {
                self.data_of(&extents, taken);
            }
            Ok(())
        });
    }

    /// Leaves out the nodes in blocks that a newer leaf maps.
    pub fn without_stale(&self, mut nodes: Vec<(TreeId, Node)>) -> Vec<(TreeId, Node)> {
        nodes.sort_by_key(|(_, n)| Reverse(n.ptr.generation));
        let (mut taken, mut kept) = (Claims::default(), Vec::new());
        for same in nodes.chunk_by(|a, b| a.1.ptr.generation == b.1.ptr.generation) {
            let before = kept.len();
            let fresh = same
                .iter()
                .filter(|(_, n)| n.ptr.places().each().all(|a| taken.owner(a).is_none()));
            kept.extend(fresh.cloned());
            for (id, n) in kept.get(before..).unwrap_or(&[]) {
                if n.ptr.level == 0 && matches!(id.kind, TreeKind::Inode | TreeKind::Extent) {
                    self.data_of(&Tree::from_ptr(*id, n.ptr), &mut taken);
                }
            }
        }
        kept
    }
}
