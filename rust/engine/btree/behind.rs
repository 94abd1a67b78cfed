// SPDX-License-Identifier: GPL-2.0

//! Nodes behind a block of the device: finding them, and making them dirty so that the next commit
//! writes them elsewhere. For a filesystem that becomes smaller.
//!
//! A search needs the shared side of the tree's lock, and may sleep in a read from the device with it
//! held. It reads no leaves unless it is to look at items, because a parent has the places of its
//! children, and a bounded number of nodes in one call.
//!
//! Tests: `tools/engine/tests/shrink.rs`.

use super::edit::Edit;
use super::{KeyRange, Link, Node, Places, Tree, MAX_LEVEL};
use crate::engine::btree::NodeStore;
use crate::os::{cond_resched, Shared};
use kernel::prelude::*;

/// How many nodes one search reads.
const MOST: usize = 64;
const _: () = assert!(MOST > MAX_LEVEL as usize + 1);

/// What a search has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behind {
    /// A node that has a copy behind the block is on the path to this key.
    Node(u64),
    /// The item with this key was accepted.
    Item(u64),
    /// Enough nodes were read; it goes on at this key.
    More(u64),
    /// Nothing is left.
    Nothing,
}

/// The function that judges an item.
pub type Judge<'a> = dyn FnMut(u64, &[u8]) -> Result<bool> + 'a;

/// A search under way.
struct Hunt<'a, 'j> {
    node_store: &'a NodeStore,
    from: u64,
    block: u64,
    /// How many more nodes may be read.
    left: usize,
    item: Option<&'a mut Judge<'j>>,
    /// Nodes on the path to `from` do not count.
    behind_path: bool,
}

impl Hunt<'_, '_> {
    fn is_behind(&self, places: Places) -> bool {
        places.first >= self.block || places.second >= self.block
    }

    /// Whether the node of a link is on disk behind the block.
    fn link_is_behind(&self, link: &Link) -> bool {
        match link {
            Link::Disk(ptr) => self.is_behind(ptr.places()),
            Link::Mem(node) => node.is_written() && self.is_behind(node.places()),
        }
    }

    /// Looks for something under `node`, which does not count itself. `on_path`: it is on the path to
    /// `from`.
    fn under(
        &mut self,
        node: &Shared<Node>,
        range: KeyRange,
        on_path: bool,
    ) -> Result<Option<Behind>> {
        cond_resched();
        if node.level() == 0 {
            let Some(item) = self.item.as_mut() else {
                return Ok(None);
            };
            for i in node.lower_bound(self.from)..node.len() {
                if item(node.key(i), node.value(i))? {
                    return Ok(Some(Behind::Item(node.key(i))));
                }
            }
            return Ok(None);
        }
        let first = node.child_for(self.from);
        for i in first..node.len() {
            let on_path = on_path && i == first;
            let at = range.child(node, i).lo.max(self.from);
            let counts = !(on_path && self.behind_path);
            if counts && self.link_is_behind(&node.link(i)?) {
                return Ok(Some(Behind::Node(at)));
            }
            if node.level() == 1 && self.item.is_none() {
                continue;
            }
            let Some(left) = self.left.checked_sub(1) else {
                return Ok(Some(Behind::More(at)));
            };
            self.left = left;
            let (kid, r) = node.open_child(self.node_store, i, range)?;
            if let Some(found) = self.under(&kid, r, on_path)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl Tree {
    /// The first thing from key `from` on that has to go because the blocks from `block` on are cut off:
    /// a node with a copy there, or an item that `item` accepts. Nodes that the next commit writes
    /// anyway do not count. EUCLEAN or EIO if a node cannot be read, ENOMEM.
    pub fn first_behind<'j>(
        &self,
        node_store: &NodeStore,
        from: u64,
        block: u64,
        item: Option<&mut Judge<'j>>,
    ) -> Result<Behind> {
        self.hunt(Hunt {
            node_store,
            from,
            block,
            left: MOST,
            item,
            behind_path: false,
        })
    }

    /// The next node with a copy behind `block` that is not on the path to key `from`: [`Tree::touch`] with
    /// that key will do for these. EUCLEAN or EIO if a node cannot be read, ENOMEM.
    pub fn next_behind(&self, node_store: &NodeStore, from: u64, block: u64) -> Result<Behind> {
        self.hunt(Hunt {
            node_store,
            from,
            block,
            left: MOST,
            item: None,
            behind_path: true,
        })
    }

    fn hunt(&self, mut hunt: Hunt<'_, '_>) -> Result<Behind> {
        match &self.root {
            None => return Ok(Behind::Nothing),
            Some(link) if !hunt.behind_path && hunt.link_is_behind(link) => {
                return Ok(Behind::Node(hunt.from))
            }
            Some(_) => {}
        }
        let Some(root) = self.open_root(hunt.node_store)? else {
            return Ok(Behind::Nothing);
        };
        let found = hunt.under(&root, KeyRange::ALL, true)?;
        Ok(found.unwrap_or(Behind::Nothing))
    }

    /// Makes the nodes on the path to `key` dirty, so that the next commit writes them anew. The content
    /// stays. EUCLEAN, EIO, ENOMEM.
    pub fn touch(&mut self, node_store: &NodeStore, key: u64) -> Result {
        let id = self.id;
        if self.root.is_none() {
            return Ok(());
        }
        let mut edit = Edit {
            node_store,
            dead: &mut self.dead,
            fresh: &mut self.fresh,
        };
        let mut range = KeyRange::ALL;
        let mut node = edit.root(&mut self.root, &id)?;
        while node.level() > 0 {
            let i = node.child_for(key);
            (node, range) = edit.child(node, i, range)?;
        }
        Ok(())
    }
}
