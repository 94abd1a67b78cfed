// SPDX-License-Identifier: GPL-2.0

//! What a commit takes of an inode.

use crate::engine::btree::{Snapshot, Tree};
use crate::engine::format::inode::INLINE_TREE_MAX;
use crate::engine::types::Attrs;
use kernel::prelude::*;

/// A tree of an inode at the moment of the snapshot.
pub(crate) struct TreeSnap {
    pub(crate) snapshot: Snapshot,
    pub(crate) inline: Option<KVec<u8>>,
}

impl TreeSnap {
    /// The part of it that needs memory. The tree does not change between this and [`TreeSnap::fill`].
    pub(super) fn prepare(tree: &Tree) -> Result<Self> {
        Ok(Self {
            snapshot: Tree::empty(tree.id()).snapshot()?,
            inline: tree.inline_image(INLINE_TREE_MAX)?,
        })
    }

    /// Takes the snapshot, which needs no memory.
    pub(super) fn fill(&mut self, tree: &mut Tree) -> Result {
        self.snapshot = tree.snapshot()?;
        Ok(())
    }
}

/// An inode at the moment of the snapshot.
pub(crate) struct InodeSnap {
    pub(crate) attrs: Attrs,
    pub(crate) state: u32,
    pub(crate) parent: u64,
    pub(crate) deleted: bool,
    pub(crate) blocks: u64,
    pub(crate) extents: TreeSnap,
    pub(crate) dir: TreeSnap,
    pub(crate) xattr: TreeSnap,
}
