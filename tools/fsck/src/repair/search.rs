// SPDX-License-Identifier: GPL-2.0

//! Looking for the leaves of a tree whose interior nodes are lost.

use super::forest::Work;
use ordofs_engine::engine::btree::{BadNode, TreeId};
use ordofs_engine::engine::format::NodePtr;

/// What a search has found.
#[derive(Default)]
pub(super) struct Search {}

impl Work<'_> {
    /// The leaves of a lost part of a tree.
    pub fn found_for(&mut self, _id: TreeId, _bad: &BadNode) -> Vec<(u64, NodePtr)> {
        Vec::new()
    }
}
