// SPDX-License-Identifier: GPL-2.0

//! What a block holds, whatever the trees say of it.
//!
//! Tests: `tools/fuzz/tests/repair`.

use ordofs_engine::engine::format::node::NodeHeader;
use ordofs_engine::os::{Block, Device};

/// The header of the node of a filesystem of which a copy is in a block.
pub(super) fn node_at(device: &Device, node_id: u64, block: u64) -> Option<NodeHeader> {
    let mut b = Block::zeroed().ok()?;
    device.read(block, &mut b).ok()?;
    let (h, _) = NodeHeader::decode(&b).ok()?;
    (h.node_id == node_id).then_some(h)
}
