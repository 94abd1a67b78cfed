// SPDX-License-Identifier: GPL-2.0

//! Hand-weakened, for R6's mutant: a reader that leaves its only reference to the cache.
//!
//! The real reader keeps a reference of its own. Without it the borrow checker does not let the
//! reader go on with a node that it has given away, so this one looks the node up again, and may
//! find that reclaim was faster. In C it would go on with freed memory; here it finds nothing, and
//! the read fails.
//!
//! Tests: `tools/models/tests/rules/r6.rs` and `tests/vm/t/046-r6.sh` must fail with it (`make
//! mutants`).

use super::{Entry, Node, NodeStore, Room};
use crate::os::{Shared, Window};
use kernel::prelude::*;

impl NodeStore {
    /// Puts a node that was just read into the cache and takes it from there. EIO if reclaim has
    /// dropped it meanwhile.
    pub(super) fn hand_over(&self, room: &Room, node: Shared<Node>) -> Result<Shared<Node>> {
        let addr = node.addr();
        {
            let mut shard = self.lock(room);
            if let Some(Entry::Reading) = shard.nodes.get_mut(&addr) {
                shard.nodes.remove(&addr);
            }
            shard.put(node, self.max_per_shard());
        }
        let _ = self.dev.pass(Window::NodeCached);
        match self.lock(room).nodes.get_mut(&addr) {
            Some(Entry::Ready(node, _)) => Ok(node.clone()),
            _ => {
                pr_err!("node at block {}: released under its reader\n", addr);
                Err(EIO)
            }
        }
    }
}
