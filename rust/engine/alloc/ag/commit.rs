// SPDX-License-Identifier: GPL-2.0

//! Changes by commits: the deltas go into the tree, and when the commit is durable, the blocks that
//! it freed become free. Everything is under the AG's mutex, and only commits call it.
//!
//! Tests: `tools/models/tests/rules/r7.rs`, `tools/engine/tests/crash.rs`,
//! `tools/engine/tests/full_disk.rs`.

use super::{Ag, SUMMARY_GROUPS, SUMMARY_KEY};
use crate::engine::alloc::bits::Bits;
use crate::engine::btree::{NodeStore, ValueBuf};
use crate::engine::format::{corrupt, GROUP_BLOCKS};
use kernel::prelude::*;

impl Ag {
    /// Freezes the running transaction: its deltas become the commit's. Needs no memory; see
    /// [`super::super::Space::ag`].
    pub fn freeze(&mut self) {
        self.running = 0;
        let mut g = 0;
        while let Some((key, _)) = self.groups.first_ge(g) {
            if let Some(group) = self.groups.get_mut(&key) {
                group.commit = group.run.take();
                group.stale = group.commit.is_some();
            }
            g = key + 1;
        }
    }

    /// Puts the commit's deltas into the tree. Returns whether something changed, and by how many
    /// blocks the free space on disk did.
    pub fn apply(&mut self, node_store: &NodeStore) -> Result<(bool, i64)> {
        let mut changed = false;
        let mut by = 0i64;
        let mut from = 0;
        let mut value = KVec::new();
        let mut bits = Bits::zeroed()?;
        while let Some((g, stale)) = self.groups.first_ge(from).map(|(g, x)| (g, x.stale)) {
            from = g + 1;
            if !stale {
                continue;
            }
            bits.clear(0, GROUP_BLOCKS as u32);
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
            let free = cap - bits.count_range(0, cap);
            by += i64::from(free) - i64::from(cap - used);
            // No record means the same as the record of an empty group, so a disk that is emptied
            // needs no nodes for its former bitmaps. A removal may need neighbouring nodes, and
            // they may be damaged; then the record stays.
            let removed = free == cap
                && match self.tree.remove(node_store, g) {
                    Err(e) if e == ENOMEM => return Err(e),
                    r => r.is_ok(),
                };
            if !removed {
                value.clear();
                value.extend_from_slice(&free.to_le_bytes(), GFP_KERNEL)?;
                bits.store(&mut value)?;
                self.tree.insert(node_store, g, &value)?;
            }
            self.put_summary(node_store, g, free as u16)?;
            changed = true;
        }
        self.on_disk = self.on_disk.saturating_add_signed(by);
        Ok((changed, by))
    }

    /// Writes the free count of group `g` to its summary record. A record in which all groups are
    /// empty is removed.
    fn put_summary(&mut self, node_store: &NodeStore, g: u64, free: u16) -> Result {
        let key = SUMMARY_KEY + g / SUMMARY_GROUPS;
        let first = g - g % SUMMARY_GROUPS;
        let mut v = ValueBuf::new();
        let mut out = KVec::new();
        if self.tree.get(node_store, key, &mut v)? {
            out.extend_from_slice(v.as_slice(), GFP_KERNEL)?;
        } else {
            for i in 0..SUMMARY_GROUPS {
                let n = self.group_len(first + i) as u16;
                out.extend_from_slice(&n.to_le_bytes(), GFP_KERNEL)?;
            }
        }
        let at = 2 * (g - first) as usize;
        let slot = out
            .get_mut(at..at + 2)
            .ok_or_else(|| corrupt("free counts", key, "wrong length of the record"))?;
        slot.copy_from_slice(&free.to_le_bytes());
        let all_free = (first..)
            .zip(out.chunks_exact(2))
            .all(|(g, n)| n == (self.group_len(g) as u16).to_le_bytes());
        if all_free {
            return self.tree.remove(node_store, key).map(|_| ());
        }
        self.tree.insert(node_store, key, &out)
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

    /// The commit is durable: the blocks that it freed are free (R7). Returns how many there are.
    pub fn finish_commit(&mut self) -> Result<u64> {
        let mut total = 0u64;
        let mut from = 0;
        while let Some((g, _)) = self.groups.first_ge(from) {
            from = g + 1;
            let Some(group) = self.groups.get_mut(&g) else {
                continue;
            };
            let Some(d) = group.commit.take() else {
                continue;
            };
            group.used.and_not(&d.clear);
            group.longest = GROUP_BLOCKS as u32;
            let n = d.clear.count();
            let idle = group.idle();
            self.add_free(g, n as i32);
            total += u64::from(n);
            if idle {
                self.park(g);
            }
        }
        self.check_free()?;
        Ok(total)
    }
}
