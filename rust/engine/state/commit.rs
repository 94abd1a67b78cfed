// SPDX-License-Identifier: GPL-2.0

//! What commits work on.

use crate::engine::btree::Tree;
use crate::engine::format::Superblock;
use kernel::prelude::*;

/// What only commits touch, under the commit mutex.
pub struct CommitState {
    /// Inodes without names and truncations under way.
    pub orphans: Tree,
    /// The newest superblock.
    pub sb: KBox<Superblock>,
}
