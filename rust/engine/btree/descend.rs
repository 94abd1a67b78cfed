// SPDX-License-Identifier: GPL-2.0

//! Is a node still part of its tree? A descent on disk that looks for a pointer.
//!
//! A pointer has the generation of its node, so it never comes back to a tree after it was replaced.
//!
//! Locks: none. The tree must not change meanwhile, or the answer says nothing: see
//! `engine/txn/heal.rs`.
//!
//! Tests: `tools/engine/tests/copies.rs`, `tools/crash/tests/copies.rs`.

use super::scrub::Examined;
use super::{Node, NodeStore, TreeId};
use crate::engine::format::NodePtr;
use crate::os::Block;
use kernel::prelude::*;

/// The end of a descent.
pub(crate) enum Found {
    /// The node that was looked for, with what is wrong with its copies.
    Node(Examined),
    /// The leaf that would have the key.
    Leaf(Node),
    /// Neither: another node is in its place, or a node above cannot be read now.
    Nothing,
}

impl NodeStore {
    /// Goes from `root` down to the leaf for `key`, or to the node at `stop` if it comes to that pointer.
    /// Reads past the cache, reports nothing, and takes no lock: if a commit comes meanwhile, it may end
    /// anywhere. ENOMEM.
    pub(crate) fn descend(
        &self,
        root: Option<NodePtr>,
        id: &TreeId,
        key: u64,
        stop: Option<&NodePtr>,
    ) -> Result<Found> {
        let Some(mut at) = root else {
            return Ok(Found::Nothing);
        };
        loop {
            let examined = self.examine(&at, id)?;
            if stop == Some(&at) {
                return Ok(Found::Node(examined));
            }
            let Some(node) = examined.node else {
                return Ok(Found::Nothing);
            };
            if node.level() == 0 {
                return Ok(Found::Leaf(node));
            }
            // One level lower each time, which reading it has checked.
            at = node.child_on_disk(key)?;
        }
    }
}

impl Node {
    /// The value of `key` in a leaf.
    pub(crate) fn item(&self, key: u64) -> Option<&[u8]> {
        let i = self.lower_bound(key);
        (self.level() == 0 && i < self.len() && self.key(i) == key).then(|| self.value(i))
    }
}

impl Examined {
    /// The content of the good copy, if there is one.
    pub(crate) fn image(&self) -> Option<&Block> {
        self.node.as_ref().map(Node::disk_image)
    }
}
