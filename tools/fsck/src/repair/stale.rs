// SPDX-License-Identifier: GPL-2.0

//! Nodes that a search finds where there is data now.
//!
//! # Model
//!
//! A block that was a node, then free, and then allocated to a file without being written, still has
//! the node. The records of space call it used, so a search finds it, and what it says would come back:
//! deleted files, with blocks that others have by now. So a node is left out if a leaf that is newer, and
//! that the search has found, too, maps one of its blocks without having written it: that leaf belongs to
//! a state of the filesystem in which the block was data, so the node is of no state since. (One block is
//! enough: both copies are freed together.) While inodes are searched for, the search finds the intact
//! leaves with the lost ones: nothing has been claimed for inodes yet.
//!
//! A block that such a leaf has written holds what the file has. If that looks like a copy of a node, the
//! file is an image of a filesystem, and the copy is none.
//!
//! Tests: `tools/fuzz/tests/repair`.

use super::forest::{open, Work};
use super::found::Node;
use super::gather::Gathered;
use crate::{Claim, Claims};
use ordofs_engine::engine::btree::{Tree, TreeId, TreeKind, WalkItem};
use ordofs_engine::engine::format::extent::Extent;
use ordofs_engine::engine::format::inode::InodeRecord;
use ordofs_engine::engine::{S_IFMT, S_IFREG};
use std::cmp::Reverse;

/// Blocks that leaves map.
#[derive(Default)]
struct Mapped {
    written: Claims,
    unwritten: Claims,
}

impl Mapped {
    /// Leaves out the copies of a node that are part of a file. Returns whether the node is left.
    fn leave<T>(&self, n: &mut Gathered<T>) -> bool {
        let is_file = |at| self.written.owner(at).is_some();
        let is_old = |at| self.unwritten.owner(at).is_some();
        if is_old(n.ptr.addr) || is_file(n.ptr.addr) || n.others.iter().any(|at| is_old(*at)) {
            return false;
        }
        n.others.retain(|at| !is_file(*at));
        n.first || !n.others.is_empty()
    }
}

impl Work<'_> {
    /// Adds the data blocks that a tree of inodes or of extents maps, as far as it can be read.
    fn data_of(&self, tree: &Tree, taken: &mut Mapped) {
        // What cannot be read maps nothing that is known.
        let _ = tree.walk_tolerant(self.st, &mut |w| {
            let WalkItem::Item(key, value) = w else {
                return Ok(());
            };
            if tree.id().kind == TreeKind::Extent {
                if let Ok(e) = Extent::parse(key, value, &self.sb) {
                    let runs = match e.unwritten {
                        true => &mut taken.unwritten,
                        false => &mut taken.written,
                    };
                    runs.add(e.phys, e.len, Claim::Data(tree.id().owner));
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

    /// Leaves out the nodes in blocks that a newer leaf maps, and copies that are part of a file. The
    /// pointers of those that are left name what copies were found.
    pub fn without_stale(&self, mut nodes: Vec<Gathered<(TreeId, Node)>>) -> Vec<(TreeId, Node)> {
        nodes.sort_by_key(|n| Reverse(n.ptr.generation));
        let (mut mapped, mut kept) = (Mapped::default(), Vec::new());
        let mut nodes = nodes.into_iter().peekable();
        while let Some(generation) = nodes.peek().map(|n| n.ptr.generation) {
            let before = kept.len();
            while let Some(mut n) = nodes.next_if(|n| n.ptr.generation == generation) {
                if mapped.leave(&mut n) {
                    let ptr = n.pointer();
                    let (id, node) = n.what;
                    kept.push((id, Node { ptr, ..node }));
                }
            }
            for (id, n) in kept.get(before..).unwrap_or(&[]) {
                if n.ptr.level == 0 && matches!(id.kind, TreeKind::Inode | TreeKind::Extent) {
                    self.data_of(&Tree::from_ptr(*id, n.ptr), &mut mapped);
                }
            }
        }
        kept
    }
}
