// SPDX-License-Identifier: GPL-2.0

//! Changes by commits: the deltas go into the tree, and when the commit is durable, the blocks that
//! it freed become free. Everything is under the AG's mutex, and only commits call it.
//!
//! Tests: `tools/models/tests/rules/r7.rs`, `tools/engine/tests/crash.rs`,
//! `tools/engine/tests/full_disk.rs`.

use super::{Ag, UNKNOWN};
use crate::engine::alloc::bits::Bits;
use crate::engine::btree::{Dead, NodeStore, Snapshot, ValueBuf};
use crate::engine::format::ag::{inline_groups_max, run_class, AgRecord, RootForm, NEVER_USED};
use crate::engine::format::group::{encode, full_record, Form, GroupRecord};
use crate::engine::format::{corrupt_fmt, NodePtr, GROUP_BLOCKS};
use kernel::prelude::*;

/// Full groups that share a record: the first one, and their number.
#[derive(Clone, Copy)]
struct Full {
    first: u64,
    groups: u64,
}

impl Ag {
    /// Freezes the running transaction: its deltas become the commit's. Needs no memory; see
    /// [`super::super::Space::freeze`].
    pub fn freeze(&mut self) {
        self.running = 0;
        self.run_groups = 0;
        let mut g = 0;
        while let Some((key, _)) = self.groups.first_ge(g) {
            if let Some(group) = self.groups.get_mut(&key) {
                group.commit = group.run.take();
                group.stale = group.commit.is_some();
            }
            g = key + 1;
        }
    }

    /// Puts those of the commit's deltas into the tree that are not there yet. Returns by how many
    /// blocks the free space on disk changes.
    pub fn apply(&mut self, node_store: &NodeStore) -> Result<i64> {
        let mut by = 0i64;
        let mut from = 0;
        let mut bits = Bits::zeroed()?;
        while let Some((g, stale)) = self.groups.first_ge(from).map(|(g, x)| (g, x.stale)) {
            from = g + 1;
            if !stale {
                continue;
            }
            self.disk_bits(node_store, g, &mut bits)?;
            let cap = self.group_len(g);
            let Some(group) = self.groups.get_mut(&g) else {
                continue;
            };
            group.stale = false;
            let Some(d) = &group.commit else { continue };
            let used = bits.count_range(0, cap);
            bits.or(&d.set);
            bits.and_not(&d.clear);
            let run = bits.find_clear(0, cap, cap).map_or(0, |f| f.1);
            by += i64::from(used) - i64::from(bits.count_range(0, cap));
            self.put_group(node_store, g, &bits)?;
            if let Some(info) = self.info_mut(g) {
                info.class = run_class(run.into());
            }
            self.longest = self.longest.max(run_class(run.into()));
            self.changed = true;
        }
        self.on_disk = self.on_disk.saturating_add_signed(by);
        if self.changed {
            self.flags &= !NEVER_USED;
            if self.info.iter().all(|i| i.class != UNKNOWN) {
                self.longest = self.info.iter().map(|i| i.class).max().unwrap_or(0);
            }
            let most = run_class(self.on_disk.min(GROUP_BLOCKS));
            self.longest = self.longest.min(most);
        }
        Ok(by)
    }

    /// The record of full groups that covers group `g`, if there is one.
    fn full_at(&self, node_store: &NodeStore, g: u64) -> Result<Option<Full>> {
        let mut v = ValueBuf::new();
        let Some(first) = self.tree.find_le(node_store, g, &mut v)? else {
            return Ok(None);
        };
        match GroupRecord::parse(self.len, first, v.as_slice()) {
            Ok(GroupRecord::Full { groups }) => {
                let groups = u64::from(groups);
                Ok((g < first + groups).then_some(Full { first, groups }))
            }
            Ok(_) => Ok(None),
            Err(what) => Err(corrupt_fmt(format_args!(
                "allocation group {}: record of group {first}: {what}",
                self.number
            ))),
        }
    }

    /// As [`Ag::full_at`] for a neighbour, of which nothing may have been read yet. If that cannot be
    /// read, the AG becomes bad, and the records are not joined.
    fn full_beside(&mut self, node_store: &NodeStore, g: Option<u64>) -> Result<Option<Full>> {
        let Some(g) = g else { return Ok(None) };
        // Two full neighbours with records of their own are damage, so a read that fails once must not
        // make them.
        for _ in 0..2 {
            match self.full_at(node_store, g) {
                Err(e) if e != ENOMEM => {}
                r => return r,
            }
        }
        self.condemn();
        Ok(None)
    }

    /// Puts the record of group `g` with the used blocks `bits` into the tree, in the form that the
    /// content must have.
    pub(super) fn put_group(&mut self, node_store: &NodeStore, g: u64, bits: &Bits) -> Result {
        let mut value = KVec::new();
        let form = encode(bits, self.group_len(g), &mut value)?;
        let was = self.full_at(node_store, g)?;
        if form == Form::Full {
            if was.is_some() {
                return Ok(());
            }
            let left = self.full_beside(node_store, g.checked_sub(1))?;
            let right = self.full_beside(node_store, g.checked_add(1))?;
            let right = right.filter(|r| r.first == g + 1);
            let first = left.map_or(g, |l| l.first);
            let groups = 1 + left.map_or(0, |l| l.groups) + right.map_or(0, |r| r.groups);
            if right.is_some() {
                self.tree.remove(node_store, g + 1)?;
            }
            if left.is_some() {
                self.tree.remove(node_store, g)?;
            }
            return self.put_full(node_store, Full { first, groups });
        }
        if let Some(was) = was {
            let end = was.first + was.groups;
            if was.first < g {
                let (first, groups) = (was.first, g - was.first);
                self.put_full(node_store, Full { first, groups })?;
            }
            if g + 1 < end {
                let (first, groups) = (g + 1, end - g - 1);
                self.put_full(node_store, Full { first, groups })?;
            }
        }
        match form {
            Form::Own => self.tree.insert(node_store, g, &value),
            _ => self.tree.remove(node_store, g).map(|_| ()),
        }
    }

    fn put_full(&mut self, node_store: &NodeStore, full: Full) -> Result {
        let record = full_record(full.groups as u32);
        self.tree.insert(node_store, full.first, &record)
    }

    /// Whether the commit has changed the AG, so that its record must be written.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// Encodes the record into `out`. `root` is where the tree of the groups was written; before
    /// that the record has its length, and another content.
    pub fn encode(&self, generation: u64, root: Option<NodePtr>, out: &mut KVec<u8>) -> Result {
        let inline = self.inline()?;
        let groups = match &inline {
            _ if self.tree.is_empty() => RootForm::Empty,
            Some(items) => RootForm::Inline(items),
            None => RootForm::Ptr(root.or(self.tree.root_ptr()).unwrap_or_default()),
        };
        let rec = AgRecord {
            free: self.on_disk as u32,
            longest: self.longest,
            flags: self.flags,
            generation,
            groups,
            shared: RootForm::Empty,
            ignorable: &self.ignorable,
        };
        rec.encode(out)
    }

    /// The image of the tree of the groups, if it is stored in the record.
    fn inline(&self) -> Result<Option<KVec<u8>>> {
        self.tree
            .inline_image(inline_groups_max(self.ignorable.len()))
    }

    /// How many nodes of the tree of the groups need an address.
    pub fn nodes_to_write(&self) -> Result<u64> {
        Ok(match self.inline()? {
            Some(_) => 0,
            None => self.tree.unassigned_nodes(),
        })
    }

    /// The nodes that the tree has replaced since the last call.
    pub fn take_dead(&mut self) -> KVVec<Dead> {
        self.tree.take_dead()
    }

    /// The tree of the groups, to be written; nothing if it is stored in the record.
    pub fn groups_to_write(&mut self) -> Result<Option<Snapshot>> {
        match self.inline()? {
            Some(_) => Ok(None),
            None => self.tree.snapshot().map(Some),
        }
    }

    /// The tree of the groups was written, with its root at `root`: encodes the record of
    /// `generation`.
    pub fn written(
        &mut self,
        generation: u64,
        root: Option<NodePtr>,
        out: &mut KVec<u8>,
    ) -> Result {
        self.encode(generation, root, out)?;
        self.changed = false;
        Ok(())
    }

    /// Calls `f(block, len)` for the runs that the commit frees.
    pub fn freed_runs(&self, mut f: impl FnMut(u64, u64)) {
        let lim = GROUP_BLOCKS as u32;
        self.groups.for_each(|g, group| {
            let Some(d) = &group.commit else { return };
            let mut i = d.clear.next_set(0, lim);
            while i < lim {
                let end = d.clear.next_clear(i, lim);
                f(g * GROUP_BLOCKS + u64::from(i), u64::from(end - i));
                i = d.clear.next_set(end, lim);
            }
        });
    }

    /// The commit is durable: the blocks that it freed are free (R7), and the nodes that it wrote go
    /// to the cache. Returns how many blocks there are, and how many of them are not closed.
    pub fn finish_commit(&mut self, node_store: &NodeStore) -> Result<(u64, u64)> {
        self.tree.demote(node_store)?;
        let (mut total, mut open) = (0u64, 0u64);
        let mut from = 0;
        while let Some((g, _)) = self.groups.first_ge(from) {
            from = g + 1;
            let (closed, behind) = self.closed_bits(g);
            let Some(group) = self.groups.get_mut(&g) else {
                continue;
            };
            let Some(d) = group.commit.take() else {
                continue;
            };
            group.used.and_not(&d.clear);
            let n = d.clear.count();
            let gain = d.clear.count_range(closed, behind);
            let idle = group.idle();
            self.end_closed(gain);
            let gain = self.gain_closed(gain);
            if n > 0 {
                self.forget_longest(g);
            }
            self.add_free(g, n as i32);
            total += u64::from(n);
            open += u64::from(n).saturating_sub(gain);
            if idle {
                self.park(g);
            }
        }
        self.check_free()?;
        Ok((total, open))
    }
}
