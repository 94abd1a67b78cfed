// SPDX-License-Identifier: GPL-2.0

//! Small trees, stored inside the record of an inode or of an AG.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | number of items, n >= 1 |
//! | 2 | .. | n times: key u64, length u16, value |
//!
//! Locks are those of the tree. Sizes are in bytes.
//!
//! Tests: `tools/engine/tests/btree.rs`, `tools/engine/tests/impossible.rs`,
//! `tools/engine/tests/smoke.rs`.

use super::{Link, Node, Snapshot, Tree, TreeId, MAX_VALUE};
use crate::engine::format::node::{LEAF_SPACE, SLOT_LEN};
use crate::engine::format::{corrupt_fmt, le16, le64};
use crate::engine::invariant::{broken, Invariant};
use crate::os::Shared;
use kernel::prelude::*;

/// Bytes before the items.
const HEADER: usize = 2;
/// Bytes of an item before its value.
const ITEM: usize = 10;

/// See [`Tree::inline_image`].
fn image(root: Option<&Link>, max: usize) -> Result<Option<KVec<u8>>> {
    let Some(Link::Mem(leaf)) = root else {
        return Ok(None);
    };
    // The length of the image. A leaf has larger slots than the image has item headers.
    let len = HEADER + leaf.used().saturating_sub(leaf.len() * (SLOT_LEN - ITEM));
    if leaf.level() != 0 || leaf.is_empty() || leaf.is_written() || len > max {
        return Ok(None);
    }
    let mut out = KVec::with_capacity(len, GFP_KERNEL)?;
    out.extend_from_slice(&(leaf.len() as u16).to_le_bytes(), GFP_KERNEL)?;
    for i in 0..leaf.len() {
        let v = leaf.value(i);
        out.extend_from_slice(&leaf.key(i).to_le_bytes(), GFP_KERNEL)?;
        out.extend_from_slice(&(v.len() as u16).to_le_bytes(), GFP_KERNEL)?;
        out.extend_from_slice(v, GFP_KERNEL)?;
    }
    Ok(Some(out))
}

impl Snapshot {
    /// As [`Tree::inline_image`].
    pub fn inline_image(&self, max: usize) -> Result<Option<KVec<u8>>> {
        image(self.root(), max)
    }
}

impl Tree {
    /// The image of the tree in at most `max` bytes, if the tree is one leaf that is small enough
    /// and not written. Otherwise, and for an empty tree, `None`. ENOMEM.
    pub fn inline_image(&self, max: usize) -> Result<Option<KVec<u8>>> {
        image(self.root.as_ref(), max)
    }

    /// The tree with the image `items` ([`Self::inline_image`]). Its leaf counts as dirty from the
    /// first change on. EUCLEAN if the image cannot be true.
    pub fn from_inline(id: TreeId, items: &[u8]) -> Result<Self> {
        let bad = |what| {
            corrupt_fmt(format_args!(
                "{} tree of {}, inline: {what}",
                id.kind.name(),
                id.owner
            ))
        };
        let nr = le16(items, 0).ok_or_else(|| bad("cut off"))?;
        let mut rest = items.get(HEADER..).unwrap_or(&[]);
        if nr == 0 || rest.len() > LEAF_SPACE {
            return Err(bad("impossible number of items"));
        }
        let mut leaf = Node::new(id, 0)?;
        for i in 0..usize::from(nr) {
            let key = le64(rest, 0).ok_or_else(|| bad("cut off"))?;
            let len = usize::from(le16(rest, 8).ok_or_else(|| bad("cut off"))?);
            let value = rest.get(ITEM..ITEM + len).ok_or_else(|| bad("cut off"))?;
            if len == 0 || len > MAX_VALUE {
                return Err(bad("impossible length of a value"));
            }
            if i > 0 && leaf.key(i - 1) >= key {
                return Err(bad("keys are out of order"));
            }
            if !leaf.insert_item(i, key, value) {
                return Err(bad("too many items"));
            }
            rest = rest.get(ITEM + len..).unwrap_or(&[]);
        }
        if !rest.is_empty() {
            return Err(bad("bytes after the last item"));
        }
        if leaf.is_empty() {
            return Err(broken(
                Invariant::TreeShape,
                format_args!("inline tree without items"),
            ));
        }
        let mut tree = Self::empty(id);
        tree.root = Some(Link::Mem(Shared::new(leaf)?));
        Ok(tree)
    }
}
