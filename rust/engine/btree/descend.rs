// SPDX-License-Identifier: GPL-2.0

//! Is a node still part of its tree? A descent from a root on disk that looks for a pointer.
//!
//! A pointer has the generation of its node, so it never comes back to a tree after it was replaced.
//! The node itself is not read, and the nodes above come from the cache, or else from their first good
//! copy, and go into the cache. So a second descent on the same way mostly reads nothing.
//!
//! Locks: none but that of a shard of the cache. Nodes on disk never change, so the answer holds for
//! the root that the caller gives, as long as the blocks below it are not reused; if they are, a node
//! does not match its pointer, and there is no answer. See `engine/txn/heal.rs`.
//!
//! Tests: `tools/engine/tests/copies`, `tools/crash/tests/copies.rs`.

use super::reader::Reader;
use super::scrub::Examined;
use super::{Node, NodeStore, TreeId};
use crate::engine::format::NodePtr;
use crate::os::{Block, Shared};
use kernel::prelude::*;

/// The end of a descent.
pub(crate) enum Found {
    /// The pointer that was looked for.
    Node,
    /// The leaf that would have the key.
    Leaf(Shared<Node>),
    /// The tree has no such leaf.
    Nothing,
    /// A node above cannot be read, or is not in the cache and must not be read.
    Unread,
}

impl NodeStore {
    /// Goes from `root` down to the leaf for `key`, or to the pointer `goal` if it comes to that. With
    /// a `reader` it reads what is not in the cache; it reports nothing. ENOMEM, EINTR if the reader
    /// is to stop.
    pub(crate) fn descend(
        &self,
        root: Option<NodePtr>,
        id: &TreeId,
        key: u64,
        goal: Option<&NodePtr>,
        reader: Option<&Reader<'_>>,
    ) -> Result<Found> {
        let Some(mut at) = root else {
            return Ok(Found::Nothing);
        };
        loop {
            if goal == Some(&at) {
                return Ok(Found::Node);
            }
            let node = match (self.cached_node(&at, id), reader) {
                (None, Some(reader)) => self.read_quietly(&at, id, reader)?,
                (cached, _) => cached,
            };
            let Some(node) = node else {
                return Ok(Found::Unread);
            };
            if node.level() == 0 {
                return Ok(Found::Leaf(node));
            }
            // One level lower each time, which reading it has checked.
            at = node.child_on_disk(key)?;
        }
    }

    /// Reads a node from its first good copy into the cache. `None` if there is none.
    fn read_quietly(
        &self,
        ptr: &NodePtr,
        id: &TreeId,
        reader: &Reader<'_>,
    ) -> Result<Option<Shared<Node>>> {
        if self.misplaced(ptr).is_some() {
            return Ok(None);
        }
        for addr in ptr.places().each() {
            reader.begin()?;
            match self.read_at(addr, ptr, id, reader.urgency) {
                Ok(node) => {
                    let node = Shared::new(node)?;
                    self.insert(node.clone());
                    return Ok(Some(node));
                }
                Err(f) if f.is_passing() => return Err(ENOMEM),
                Err(_) => {}
            }
        }
        Ok(None)
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
