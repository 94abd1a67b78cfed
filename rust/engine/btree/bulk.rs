// SPDX-License-Identifier: GPL-2.0

//! Trees made at once.
//!
//! Tests: `tools/engine/tests/deferred.rs`.

use super::{Link, Node, Tree, TreeId, MAX_LEVEL};
use crate::engine::invariant::{broken, Invariant};
use crate::os::Shared;
use kernel::prelude::*;

/// The nodes of a level, each with its first key.
type Level = KVVec<(u64, Shared<Node>)>;

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
            level.push((*first, Shared::new(leaf)?), GFP_KERNEL)?;
            rest = behind;
        }
        if !rest.is_empty() {
            return Err(unfit("no leaves"));
        }
        tree.fresh = level.len() as u64;
        for height in 1..=MAX_LEVEL {
            if level.len() <= 1 {
                break;
            }
            level = parents(id, height, level)?;
            tree.fresh += level.len() as u64;
        }
        tree.root = level.into_iter().next().map(|(_, root)| Link::Mem(root));
        Ok(tree)
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
        if !node.insert_link(at, key, Link::Mem(kid)) {
            return Err(broken(
                Invariant::TreeShape,
                format_args!("spread: a node is full"),
            ));
        }
        behind -= 1;
        if node.len() == of_parent {
            let full = core::mem::replace(&mut node, Node::new(id, height)?);
            out.push((first.take().unwrap_or(0), Shared::new(full)?), GFP_KERNEL)?;
            left = left.saturating_sub(1);
            of_parent = behind.div_ceil(left.max(1));
        }
    }
    Ok(out)
}
