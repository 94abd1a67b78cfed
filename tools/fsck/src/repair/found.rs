// SPDX-License-Identifier: GPL-2.0

//! What a search for nodes has found: plain data that [`super::search`] fills in.
//!
//! Tests: `tools/fsck/src/repair/search.rs`.

use ordofs_engine::engine::format::NodePtr;
use std::collections::{BTreeMap, BTreeSet};

/// An error: the inode has to wait for a search.
pub(super) const POSTPONED: &str = "a search is needed first";

/// A node that was found.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub ptr: NodePtr,
    pub first: u64,
    pub last: u64,
    /// Of an interior node: the nodes that it names.
    pub children: Vec<NodePtr>,
}

/// What a search has found, by kind and owner of the tree.
#[derive(Default)]
pub(super) struct Search {
    pub wanted: BTreeSet<(u8, u64)>,
    pub found: BTreeMap<(u8, u64), Vec<Node>>,
    /// Leaves of the inode tree that were found.
    pub leaves: BTreeSet<u64>,
    /// Inodes whose record or extents were found: where an intact one has a block, it keeps it.
    pub doubtful: BTreeSet<u64>,
}
