// SPDX-License-Identifier: GPL-2.0

//! Searches in a tree with sums: a descent that skips the parts in which no record can fit.
//!
//! They need the shared side of the tree's lock, and may sleep in a read from the device with it
//! held.
//!
//! Tests: `tools/engine/tests/ag_tree.rs`.

use super::{KeyRange, Node, Tree, ValueBuf};
use crate::engine::btree::NodeStore;
use crate::engine::format::sums::Sums;
use crate::os::{cond_resched, Shared};
use kernel::prelude::*;

/// A part of a tree that a search could not read, and skipped.
#[derive(Clone, Copy, Debug)]
pub struct Unread {
    /// The lowest key that may be there.
    pub first_key: u64,
    /// The greatest key that may be there.
    pub last_key: u64,
    /// What is there, by the sums that the parent gives.
    pub sums: Sums,
    /// EUCLEAN if a node is damaged, or the error of the device.
    pub error: Error,
}

/// How often a child is read, if reads of it fail.
const READS: usize = 2;

/// A search in progress.
struct Search<'a, W> {
    node_store: &'a NodeStore,
    from: u64,
    want: W,
    skip: &'a dyn Fn(u64, u64) -> bool,
    unread: &'a mut dyn FnMut(Unread),
}

impl<W: Fn(&Sums) -> bool> Search<'_, W> {
    /// The first fitting record under `node`: its leaf and slot.
    fn under(
        &mut self,
        node: &Shared<Node>,
        range: KeyRange,
    ) -> Result<Option<(Shared<Node>, usize)>> {
        cond_resched();
        if node.level() == 0 {
            let fits = |i: &usize| (self.want)(&Sums::of_record(node.value(*i)));
            let found = (node.lower_bound(self.from)..node.len()).find(fits);
            return Ok(found.map(|i| (node.clone(), i)));
        }
        for i in node.child_for(self.from)..node.len() {
            // A node in memory that is not written has no sums yet.
            let sums = node.sums_under(i);
            if sums.is_some_and(|s| !(self.want)(&s)) {
                continue;
            }
            let keys = range.child(node, i);
            if node.kid(i).is_none() && (self.skip)(keys.lo, keys.hi) {
                continue;
            }
            match self.open(node, i, range) {
                Ok((kid, r)) => {
                    if let Some(found) = self.under(&kid, r)? {
                        return Ok(Some(found));
                    }
                }
                Err(e) if e == ENOMEM => return Err(e),
                Err(error) => (self.unread)(Unread {
                    first_key: keys.lo,
                    last_key: keys.hi,
                    sums: sums.unwrap_or_default(),
                    error,
                }),
            }
        }
        Ok(None)
    }

    /// Child `i` of `node`, which is read again if that fails: what a search skips is not used
    /// afterwards, so a read that fails once must not do that.
    fn open(&self, node: &Node, i: usize, range: KeyRange) -> Result<(Shared<Node>, KeyRange)> {
        let mut r = node.open_child(self.node_store, i, range);
        for _ in 1..READS {
            if r.is_ok() {
                break;
            }
            r = node.open_child(self.node_store, i, range);
        }
        r
    }
}

/// The sums of the records under a node, in a tree that may have been changed since it was written.
fn sums_of(node: &Node) -> Sums {
    if let Some(sums) = node.sums() {
        return sums;
    }
    (0..node.len())
        .map(|i| match (node.level(), node.kid(i)) {
            (0, _) => Sums::of_record(node.value(i)),
            (_, Some(kid)) => sums_of(kid),
            (_, None) => node.sums_under(i).unwrap_or_default(),
        })
        .fold(Sums::default(), Sums::and)
}

impl Tree {
    /// In a tree with sums: the first record with a key of at least `from` that `want` accepts by
    /// its own sums: its key, and its value in `out`. `want` must accept the sums of several records
    /// if it accepts those of one of them. Nothing is read of parts, from a key to another, that
    /// `skip` accepts. Other parts that cannot be read are passed to `unread` and skipped. EUCLEAN or
    /// EIO if the root cannot be read, ENOMEM.
    pub fn first_where(
        &self,
        node_store: &NodeStore,
        from: u64,
        want: impl Fn(&Sums) -> bool,
        skip: &dyn Fn(u64, u64) -> bool,
        unread: &mut dyn FnMut(Unread),
        out: &mut ValueBuf,
    ) -> Result<Option<u64>> {
        out.clear();
        let Some(root) = self.open_root(node_store)? else {
            return Ok(None);
        };
        let mut search = Search {
            node_store,
            from,
            want,
            skip,
            unread,
        };
        let Some((leaf, i)) = search.under(&root, KeyRange::ALL)? else {
            return Ok(None);
        };
        out.extend_from_slice(leaf.value(i), GFP_KERNEL)?;
        Ok(Some(leaf.key(i)))
    }

    /// The sums of the records with keys from `from` on, in a tree with sums. Reads a path of nodes. The
    /// cost grows with the number of nodes in memory that are not written.
    pub fn sums_from(&self, node_store: &NodeStore, from: u64) -> Result<Sums> {
        let mut all = Sums::default();
        let Some(mut node) = self.open_root(node_store)? else {
            return Ok(all);
        };
        let mut range = KeyRange::ALL;
        while node.level() > 0 {
            let at = node.child_for(from);
            for i in at + 1..node.len() {
                all = all.and(match node.kid(i) {
                    Some(kid) => sums_of(kid),
                    None => node.sums_under(i).unwrap_or_default(),
                });
            }
            let (kid, r) = node.open_child(node_store, at, range)?;
            (node, range) = (kid, r);
        }
        for i in node.lower_bound(from)..node.len() {
            all = all.and(Sums::of_record(node.value(i)));
        }
        Ok(all)
    }

    /// The sums of all records of a tree with sums. Reads no more than the root. The cost grows with
    /// the number of nodes in memory that are not written.
    pub fn sums(&self, node_store: &NodeStore) -> Result<Sums> {
        let root = self.open_root(node_store)?;
        Ok(root.map_or(Sums::default(), |root| sums_of(&root)))
    }
}
