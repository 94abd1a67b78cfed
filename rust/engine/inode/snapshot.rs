// SPDX-License-Identifier: GPL-2.0

//! The snapshot that a commit takes of an inode. It is plain data that belongs to the commit; until
//! the commit takes it, it is under `Inode.snap`.
//!
//! Tests: `tools/engine/tests/abort.rs`, `tools/engine/tests/crash.rs`,
//! `tools/engine/tests/slow_reads.rs`.

use crate::engine::btree::{Snapshot, Tree};
use crate::engine::types::Attrs;
use kernel::prelude::*;

/// A tree of an inode at the moment of the snapshot.
pub(crate) struct TreeSnap {
    pub(crate) snapshot: Snapshot,
    pub(crate) inline: Option<KVec<u8>>,
}

impl TreeSnap {
    /// Makes the parts that need memory. The tree is stored inline if it takes at most `inline_max`
    /// bytes. It must not change between this and [`TreeSnap::fill`].
    pub(super) fn prepare(tree: &Tree, inline_max: usize) -> Result<Self> {
        Ok(Self {
            snapshot: Tree::empty(tree.id()).snapshot()?,
            inline: tree.inline_image(inline_max)?,
        })
    }

    /// Takes the snapshot. Needs no memory.
    pub(super) fn fill(&mut self, tree: &mut Tree) -> Result {
        self.snapshot = tree.snapshot()?;
        Ok(())
    }
}

/// An inode at the moment of the snapshot.
pub(crate) struct InodeSnap {
    pub(crate) attrs: Attrs,
    pub(crate) state: u32,
    pub(crate) cut: u64,
    pub(crate) parent: u64,
    pub(crate) deleted: bool,
    pub(crate) blocks: u64,
    pub(crate) extents: TreeSnap,
    pub(crate) dir: TreeSnap,
    pub(crate) xattr: TreeSnap,
}
