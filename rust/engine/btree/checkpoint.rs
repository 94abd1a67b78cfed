// SPDX-License-Identifier: GPL-2.0

//! Several changes of a tree as one: a checkpoint keeps the nodes as they are now by holding on to the
//! root, so that the changes copy them instead of changing them in place.

use super::{Dead, Link, Tree};
use crate::os::Shared;

/// What a tree was; give it to [`Tree::settle`] or [`Tree::roll_back`] under the same lock.
#[must_use]
pub struct Checkpoint {
    root: Option<Link>,
    dead: usize,
    fresh: u64,
}

impl Tree {
    /// Keeps the present state.
    pub fn checkpoint(&mut self) -> Checkpoint {
        let fresh = self.fresh;
        if let (0, Some(Link::Mem(root))) = (fresh, &self.root) {
            // A leaf that has been inline so far is counted from its first change on, which is to come.
            self.fresh = u64::from(!root.is_written() && root.addr() == 0);
        }
        Checkpoint {
            root: self.root.clone(),
            dead: self.dead.len(),
            fresh,
        }
    }

    /// Makes the tree what it was. Cannot fail.
    pub fn roll_back(&mut self, c: Checkpoint) {
        self.root = c.root;
        self.dead.truncate(c.dead);
        self.fresh = c.fresh;
    }

    /// The changes are to stay: lets go of the replaced nodes that nobody else has seen.
    pub fn settle(&mut self, c: Checkpoint) {
        drop(c.root);
        let (mut at, mut gone) = (0, 0);
        // A replaced node is on the list before the children that were replaced under it, and is dropped
        // before they are looked at.
        self.dead.retain(|d| {
            at += 1;
            let Dead::Node(node) = &mut *d else {
                return true;
            };
            let unseen = at > c.dead
                && Shared::get_mut(node).is_some_and(|n| !n.is_written() && n.addr() == 0);
            if unseen {
                *d = Dead::Addr(0);
                gone += 1;
            }
            !unseen
        });
        self.fresh = self.fresh.saturating_sub(gone);
    }
}
