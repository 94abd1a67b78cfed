// SPDX-License-Identifier: GPL-2.0

//! Trees made at once.
//!
//! Tests: `tools/engine/tests/deferred.rs`, `tools/fuzz/tests/repair`.

use super::{Link, Node, Tree, TreeId, MAX_LEVEL};
use crate::engine::format::NodePtr;
use crate::engine::invariant::{broken, Invariant};
use crate::os::Shared;
use kernel::prelude::*;

/// The nodes of a level, each with its first key.
type Level = KVVec<(u64, Link)>;

impl Tree {
    /// A tree with the keys `keys`, ascending, each with the value `value`, in exactly `leaves`
    /// leaves and as few other nodes as possible. They must fit; there are no more leaves than keys.
    pub fn spread(id: TreeId, keys: &[u64], value: &[u8], leaves: usize) -> Result<Self> {
        let unfit = |what| broken(Invariant::TreeShape, format_args!("spread: {what}"));
        let mut tree = Self::empty(id);
        let mut level = Level::new();
        let mut rest = keys;
        for left in (1..=leaves).rev() {
            let n = rest.len().div_ceil(left);
            let (some, behind) = rest.split_at_checked(n).ok_or_else(|| unfit("keys"))?;
            let mut leaf = Node::new(id, 0)?;
            for (i, key) in some.iter().enumerate() {
                if !leaf.insert_item(i, *key, value) {
                    return Err(unfit("a leaf is full"));
                }
            }
            let first = some.first().ok_or_else(|| unfit("a leaf without keys"))?;
            level.push((*first, Link::Mem(Shared::new(leaf)?)), GFP_KERNEL)?;
            rest = behind;
        }
        if !rest.is_empty() {
            return Err(unfit("no leaves"));
        }
        tree.fresh = level.len() as u64;
        tree.raise(level)?;
        Ok(tree)
    }

    /// A tree with these leaves, which are on disk: for a repair, where the nodes above them are
    /// lost. Each has its first key, and their keys ascend. The tree must not be one with sums.
    /// EINVAL; ENOMEM.
    #[allow(dead_code)] // Only fsck repairs trees.
    pub fn from_leaves(id: TreeId, leaves: &[(u64, NodePtr)]) -> Result<Self> {
        let ascend = leaves.windows(2).all(|w| match w {
            [a, b] => a.0 < b.0,
            _ => false,
        });
        if id.kind.has_sums() || !ascend || leaves.iter().any(|(_, p)| p.level != 0) {
            return Err(EINVAL);
        }
        let mut level = Level::with_capacity(leaves.len(), GFP_KERNEL)?;
        for (key, ptr) in leaves {
            level.push((*key, Link::Disk(*ptr)), GFP_KERNEL)?;
        }
        let mut tree = Self::empty(id);
        tree.raise(level)?;
        Ok(tree)
    }

    /// Builds the levels above the leaves.
    fn raise(&mut self, mut level: Level) -> Result {
        for height in 1..=MAX_LEVEL {
            if level.len() <= 1 {
                break;
            }
            level = parents(self.id, height, level)?;
            self.fresh += level.len() as u64;
        }
        self.root = level.into_iter().next().map(|(_, root)| root);
        Ok(())
    }
}

/// The parents of a level's nodes, as few as possible.
fn parents(id: TreeId, height: u8, children: Level) -> Result<Level> {
    let mut out = Level::new();
    let mut left = children.len().div_ceil(id.kind.max_children());
    let mut of_parent = children.len().div_ceil(left.max(1));
    let mut behind = children.len();
    let mut node = Node::new(id, height)?;
    let mut first = None;
    for (key, kid) in children {
        first.get_or_insert(key);
        let at = node.len();
        if !node.insert_link(at, key, kid) {
            return Err(broken(
                Invariant::TreeShape,
                format_args!("spread: a node is full"),
            ));
        }
        behind -= 1;
        if node.len() == of_parent {
            let full = core::mem::replace(&mut node, Node::new(id, height)?);
            let full = Link::Mem(Shared::new(full)?);
            out.push((first.take().unwrap_or(0), full), GFP_KERNEL)?;
            left = left.saturating_sub(1);
            of_parent = behind.div_ceil(left.max(1));
        }
    }
    Ok(out)
}
