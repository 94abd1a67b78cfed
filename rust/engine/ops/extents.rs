// SPDX-License-Identifier: GPL-2.0

//! Changes of an inode's extent tree, inside a transaction and under `Inode.maps`.

use crate::engine::btree::ValueBuf;
use crate::engine::format::extent::{Extent, MAX_BLOCKS, MAX_CSUM_BLOCKS};
use crate::engine::format::GROUP_BLOCKS;
use crate::engine::fs::Fs;
use crate::engine::inode::maps::Maps;
use crate::engine::txn::Txn;
use kernel::prelude::*;

/// What happens to the blocks of removed extents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Old {
    /// They are freed.
    Free,
    /// They are freed, but for unwritten blocks: those are about to be mapped again as written
    /// (a write in place).
    KeepUnwritten,
}

/// How much a transaction may remove.
#[derive(Clone, Copy)]
pub struct Budget {
    /// Records of the extent tree.
    pub records: usize,
    /// Groups that blocks are freed in, each of which needs a node for its bitmap at the commit. A single
    /// record can cover all groups of an AG.
    pub groups: u64,
}

impl Budget {
    /// The caller knows that there is little.
    pub const ALL: Self = Self {
        records: usize::MAX,
        groups: u64::MAX,
    };
}

/// The number of groups that `[phys, phys + len)` lies in. Every AG begins with a group of its own.
pub(crate) fn groups_of(phys: u64, len: u64) -> u64 {
    match len.checked_sub(1) {
        Some(last) => phys.saturating_add(last) / GROUP_BLOCKS - phys / GROUP_BLOCKS + 1,
        None => 0,
    }
}

impl Fs {
    fn put_record(&self, txn: &mut Txn<'_>, maps: &mut Maps, e: &Extent, csums: &[u8]) -> Result {
        let mut v = KVec::new();
        e.encode(csums, &mut v)?;
        txn.charged(
            &mut maps.tree,
            |t| t.dirty_nodes(),
            |t| t.insert(&self.st, e.start, &v),
        )
    }

    /// Removes mappings in `[start, end)`, as far as `budget` goes: the last record may be cut at the
    /// border of a group. Returns the first block that was not dealt with: `end` when all is done.
    pub(crate) fn remove_extents(
        &self,
        txn: &mut Txn<'_>,
        maps: &mut Maps,
        start: u64,
        end: u64,
        budget: Budget,
        old: Old,
    ) -> Result<u64> {
        let mut v = ValueBuf::new();
        let mut at = start;
        let mut groups = budget.groups;
        for _ in 0..budget.records {
            if groups == 0 {
                return Ok(at);
            }
            let Some(e) = maps
                .extent_at_or_after(&self.st, at, &mut v)?
                .filter(|e| e.start < end)
            else {
                return Ok(end);
            };
            let mut cut = e.slice(start, end);
            // The blocks up to the end of the last group that the budget has.
            let reach = groups.saturating_mul(GROUP_BLOCKS) - cut.phys % GROUP_BLOCKS;
            cut = cut.slice(cut.start, cut.start.saturating_add(reach));
            groups -= groups_of(cut.phys, cut.len);
            let end = cut.end();
            let (left, right) = (e.slice(e.start, start), e.slice(end, e.end()));
            if right.len > 0 && right.start >= end {
                self.put_record(
                    txn,
                    maps,
                    &right,
                    e.csum_slice(v.as_slice(), right.start, right.end()),
                )?;
            }
            let step = if left.len > 0 && e.start < start {
                self.put_record(
                    txn,
                    maps,
                    &left,
                    e.csum_slice(v.as_slice(), left.start, left.end()),
                )
            } else {
                txn.charged(
                    &mut maps.tree,
                    |t| t.dirty_nodes(),
                    |t| t.remove(&self.st, e.start),
                )
                .map(|_| ())
            };
            if let Err(err) = step {
                if right.len > 0 && right.start >= end && right.start != e.start {
                    // Undo, so that no two records overlap.
                    maps.tree
                        .remove(&self.st, right.start)
                        .inspect_err(|_| self.abort("extent undo"))?;
                }
                return Err(err);
            }
            maps.blocks = maps.blocks.saturating_sub(cut.len);
            if old == Old::Free || !e.unwritten {
                self.free_extent(txn, cut.phys, cut.len)?;
            }
            at = cut.end();
        }
        Ok(at)
    }

    /// How many groups the blocks that are mapped in `[start, end)` lie in; a group that two records have
    /// blocks in may count twice.
    pub(crate) fn groups_under(&self, maps: &Maps, start: u64, end: u64) -> Result<u64> {
        let mut v = ValueBuf::new();
        let (mut at, mut n) = (start, 0u64);
        while at < end {
            let Some(e) = maps
                .extent_at_or_after(&self.st, at, &mut v)?
                .filter(|e| e.start < end)
            else {
                break;
            };
            let part = e.slice(at, end);
            n = n.saturating_add(groups_of(part.phys, part.len));
            at = part.end();
        }
        Ok(n)
    }

    /// Frees data blocks in the running transaction; they may lie in several AGs.
    pub(crate) fn free_extent(&self, txn: &mut Txn<'_>, phys: u64, len: u64) -> Result {
        let touched = self
            .space
            .free(&self.st, phys, len, false)
            .inspect_err(|_| self.abort("freeing blocks"))?;
        txn.charge(touched);
        Ok(())
    }

    /// Adds a mapping where there is a hole, joined to its left neighbour when they are one run.
    pub(crate) fn add_extent(
        &self,
        txn: &mut Txn<'_>,
        maps: &mut Maps,
        e: &Extent,
        csums: &[u8],
    ) -> Result {
        let mut v = ValueBuf::new();
        let left = match e.start.checked_sub(1) {
            Some(b) => maps.extent_at(&self.st, b, &mut v)?,
            None => None,
        };
        let max = if e.csums { MAX_CSUM_BLOCKS } else { MAX_BLOCKS };
        if let Some(l) = left {
            let fits = l.end() == e.start
                && l.phys + l.len == e.phys
                && l.unwritten == e.unwritten
                && l.csums == e.csums
                && l.len + e.len <= max.min(self.space.to_border(l.phys));
            if fits {
                let mut all = KVec::new();
                all.extend_from_slice(l.csum_slice(v.as_slice(), l.start, l.end()), GFP_KERNEL)?;
                all.extend_from_slice(csums, GFP_KERNEL)?;
                let joined = Extent {
                    len: l.len + e.len,
                    generation: txn.generation(),
                    ..l
                };
                self.put_record(txn, maps, &joined, &all)?;
                maps.blocks = maps.blocks.saturating_add(e.len);
                return Ok(());
            }
        }
        // Records with checksums are short, and blocks next to each other may lie in two AGs (a write in
        // place over two records): cut.
        let mut from = e.start;
        while from < e.end() {
            let rest = e.slice(from, e.end());
            let part = e.slice(
                from,
                from.saturating_add(max.min(self.space.to_border(rest.phys))),
            );
            let a = 4 * (from - e.start) as usize;
            let bytes = if e.csums {
                csums.get(a..a + 4 * part.len as usize).ok_or(EINVAL)?
            } else {
                &[]
            };
            self.put_record(
                txn,
                maps,
                &Extent {
                    generation: txn.generation(),
                    ..part
                },
                bytes,
            )?;
            maps.blocks = maps.blocks.saturating_add(part.len);
            from = part.end();
        }
        Ok(())
    }
}
