// SPDX-License-Identifier: GPL-2.0

//! The root of the inode tree, where no superblock has one.
//!
//! # Model
//!
//! Each commit that changes the tree writes a new root, so the newest node is one. A commit that was cut
//! off has written only some of its nodes: one that refers to a node of its own commit that is not there
//! is no root. If only the first leaf is there, it looks like the root of a small tree; then an older
//! node has many more inodes, and nothing is repaired, because which of them is right is not known.
//!
//! Tests: `tools/fuzz/tests/repair`.

use ordofs_engine::engine::btree::{NodeStore, Tree, WalkItem};
use ordofs_engine::engine::format::NodePtr;
use ordofs_engine::engine::volume::mount::INODE_TREE;
use ordofs_engine::os::{Device, Shared};
use std::cmp::Reverse;

/// How many trees are read at most: of the roots of cut-off commits, and of the one before.
const TRIES: usize = 16;
/// So many more inodes are not deleted in one commit without a doubt.
const MORE: u64 = 16;

/// Chooses among nodes that begin where the tree does.
pub(super) fn choose(
    device: Device,
    node_id: u64,
    mut nodes: Vec<NodePtr>,
) -> Result<NodePtr, String> {
    nodes.sort_by_key(|p| Reverse((p.generation, p.level)));
    let shared = Shared::new(device).map_err(|e| format!("{e:?}"))?;
    let st = NodeStore::new(shared, node_id, 64).map_err(|e| format!("{e:?}"))?;
    let mut best: Option<(NodePtr, u64)> = None;
    for p in nodes.into_iter().take(TRIES) {
        let Some(inodes) = count(&st, &p) else {
            continue;
        };
        match best {
            None => best = Some((p, inodes)),
            // Those of the same commit are below it.
            Some((newest, _)) if newest.generation == p.generation => {}
            Some((newest, n)) if inodes > n.saturating_mul(2).saturating_add(MORE) => {
                return Err(format!(
                    "the root of the inode tree is lost; the newest node that may be one (block {}, generation {}) has {n} inodes, and an older one (block {}, generation {}) has {inodes}: a commit may have been cut off",
                    newest.addr, newest.generation, p.addr, p.generation
                ));
            }
            Some(_) => break,
        }
    }
    let best = best.map(|(p, _)| p);
    best.ok_or_else(|| "no node of the inode tree is left that may be its root".into())
}

/// The number of inodes below a node. `None` if a node of the same commit is missing.
fn count(st: &NodeStore, p: &NodePtr) -> Option<u64> {
    let (mut n, mut whole) = (0, true);
    let tree = Tree::from_ptr(INODE_TREE, *p);
    let walked = tree.walk_tolerant(st, &mut |w| {
        match w {
            WalkItem::Item(..) => n += 1,
            WalkItem::Bad(b) => {
                whole &= b.ptr.is_some_and(|b| b.generation < p.generation);
            }
            WalkItem::Node(_) => {}
        }
        Ok(())
    });
    (walked.is_ok() && whole).then_some(n)
}
