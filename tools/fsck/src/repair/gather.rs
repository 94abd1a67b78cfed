// SPDX-License-Identifier: GPL-2.0

//! Putting the copies of nodes together that a search has found.
//!
//! A copy of a node is a first copy if it lies where its header says. A copy that lies anywhere else is
//! either the second one or part of a file, for example of an image of this filesystem. The module
//! [`super::stale`] separates the two.
//!
//! Both copies are freed together. So a second copy is left out if another node lies where its first copy
//! was, and of several nodes with one first address only the newest is kept.
//!
//! Tests: `tools/fuzz/tests/repair`.

use super::peek::node_at;
use ordofs_engine::engine::format::NodePtr;
use ordofs_engine::os::Device;
use std::collections::btree_map::{BTreeMap, Entry};

/// A node of which at least one copy was found.
pub(super) struct Gathered<T> {
    /// What the caller knows of it.
    pub what: T,
    /// The pointer to it, without a second address.
    pub ptr: NodePtr,
    /// Whether its first copy was found.
    pub first: bool,
    /// The other places where it was found.
    pub others: Vec<u64>,
}

impl<T> Gathered<T> {
    /// The pointer to it with what is known of its second copy. None is named if there are several and
    /// the first copy is enough.
    pub fn pointer(&self) -> NodePtr {
        let addr2 = match (&self.others[..], self.first) {
            ([one], _) | ([one, ..], false) => *one,
            _ => 0,
        };
        NodePtr { addr2, ..self.ptr }
    }
}

/// Puts copies together, of which each has the pointer that [`super::search::each_node`] gives.
pub(super) fn gather<T>(
    device: &Device,
    node_id: u64,
    copies: Vec<(T, NodePtr)>,
) -> Vec<Gathered<T>> {
    let mut all: BTreeMap<u64, Gathered<T>> = BTreeMap::new();
    for (what, p) in copies {
        let ptr = NodePtr { addr2: 0, ..p };
        let new = Gathered {
            what,
            ptr,
            first: false,
            others: Vec::new(),
        };
        let known = match all.entry(p.addr) {
            Entry::Vacant(vacant) => vacant.insert(new),
            Entry::Occupied(there) => {
                let known = there.into_mut();
                if known.ptr.generation < ptr.generation {
                    *known = new;
                }
                known
            }
        };
        if known.ptr == ptr {
            match p.addr2 {
                0 => known.first = true,
                other => known.others.push(other),
            }
        }
    }
    let made_way = |at| node_at(device, node_id, at).is_some();
    all.retain(|at, n| n.first || !made_way(*at));
    all.into_values().collect()
}
