// SPDX-License-Identifier: GPL-2.0

//! Checkpoints: several changes of a tree as one. A checkpoint holds a reference to the root, so
//! that the changes copy nodes and leave the nodes of the checkpoint as they are. Going back puts
//! the old root in place, which cannot fail.
//!
//! From the checkpoint to [`Tree::settle`] or [`Tree::roll_back`] the caller holds the exclusive
//! side of the tree's lock, so that no snapshot comes in between.
//!
//! Tests: `tools/engine/tests/btree.rs`, `tools/engine/tests/xattr.rs`,
//! `tools/engine/tests/abort.rs`.

use super::{Dead, Link, Places, Tree};
use crate::os::Shared;

/// The state of a tree at one moment. Pass it to [`Tree::settle`] or [`Tree::roll_back`] under the
/// same lock.
#[must_use]
pub struct Checkpoint {
    root: Option<Link>,
    dead: usize,
    fresh: u64,
}

impl Tree {
    /// Keeps the present state of the tree.
    pub fn checkpoint(&mut self) -> Checkpoint {
        let fresh = self.fresh;
        if let (0, Some(Link::Mem(root))) = (fresh, &self.root) {
            // A leaf that was inline so far counts from its first change on, and that change is
            // about to come.
            self.fresh = u64::from(!root.is_written() && root.addr() == 0);
        }
        Checkpoint {
            root: self.root.clone(),
            dead: self.dead.len(),
            fresh,
        }
    }

    /// Puts the tree back into the state of the checkpoint. Cannot fail.
    pub fn roll_back(&mut self, c: Checkpoint) {
        self.root = c.root;
        self.dead.truncate(c.dead);
        self.fresh = c.fresh;
    }

    /// Keeps the changes: drops the replaced nodes of which no snapshot holds a reference.
    pub fn settle(&mut self, c: Checkpoint) {
        drop(c.root);
        let (mut at, mut gone) = (0, 0);
        // A replaced node is on the list before those of its children that were replaced, and is
        // dropped before the loop comes to them.
        self.dead.retain(|d| {
            at += 1;
            let Dead::Node(node) = &mut *d else {
                return true;
            };
            let unseen = at > c.dead
                && Shared::get_mut(node).is_some_and(|n| !n.is_written() && n.addr() == 0);
            if unseen {
                *d = Dead::At(Places::default());
                gone += 1;
            }
            !unseen
        });
        self.fresh = self.fresh.saturating_sub(gone);
    }
}
