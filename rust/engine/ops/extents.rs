// SPDX-License-Identifier: GPL-2.0

//! Changes of an inode's extent tree, and of the space that it refers to.
//!
//! All functions run inside a transaction and under `Inode.maps`, exclusively for changes.
//! Positions and lengths are in blocks, ranges are half-open; `start` is a file block and `phys` a
//! disk block. A record never crosses the border of an AG, so that the blocks of a record are in
//! one AG.
//!
//! Tests: tools/engine/tests/state_machine.rs, bulk.rs (fragmented files), full_disk.rs, cost.rs,
//! tools/engine/tests/memory/main.rs, tools/engine/tests/forecast/main.rs.

use crate::engine::alloc::ag::FreedBy;
use crate::engine::btree::ValueBuf;
use crate::engine::format::extent::Extent;
use crate::engine::format::GROUP_BLOCKS;
use crate::engine::fs::Fs;
use crate::engine::inode::maps::Maps;
use crate::engine::txn::Txn;
use kernel::prelude::*;

/// What happens to the disk blocks of removed extents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Old {
    /// They are freed.
    Free,
    /// Written blocks are freed. Unwritten ones are kept, because the caller maps them again as
    /// written (a write in place).
    KeepUnwritten,
}

/// How much one transaction may remove.
#[derive(Clone, Copy)]
pub struct Budget {
    /// Steps: each removes a leaf of the extent tree, or a single record.
    pub steps: usize,
    /// Groups in which blocks are freed. Each needs nodes for its record in the commit
    /// ([`GROUP_NODES`](crate::engine::alloc::ag::GROUP_NODES)), and a single extent can cover all
    /// groups of an AG.
    pub groups: u64,
}

impl Budget {
    /// No limit, for a caller that knows that there is little to remove.
    pub const ALL: Self = Self {
        steps: usize::MAX,
        groups: u64::MAX,
    };
}

/// The number of groups that `[phys, phys + len)` touches. A group never lies in two AGs.
pub(crate) fn groups_of(phys: u64, len: u64) -> u64 {
    match len.checked_sub(1) {
        Some(last) => phys.saturating_add(last) / GROUP_BLOCKS - phys / GROUP_BLOCKS + 1,
        None => 0,
    }
}

/// Counts groups. One in which neighbouring records lie counts once.
struct Groups {
    left: u64,
    last: Option<u64>,
}

impl Groups {
    /// The groups that `[phys, phys + len)` adds.
    fn more(&self, phys: u64, len: u64) -> u64 {
        let again = self.last.is_some_and(|g| g == phys / GROUP_BLOCKS);
        groups_of(phys, len).saturating_sub(again.into())
    }

    /// Takes the groups of the blocks; false if there are too few.
    fn take(&mut self, phys: u64, len: u64) -> bool {
        let Some(left) = self.left.checked_sub(self.more(phys, len)) else {
            return false;
        };
        self.left = left;
        self.last = Some(phys.saturating_add(len.saturating_sub(1)) / GROUP_BLOCKS);
        true
    }
}

impl Fs {
    /// Inserts or replaces an extent record.
    fn put_record(&self, txn: &mut Txn<'_>, maps: &mut Maps, e: &Extent, csums: &[u8]) -> Result {
        let mut v = KVec::new();
        e.encode(csums, &mut v)?;
        txn.charged(&mut maps.tree, |t| t.insert(&self.node_store, e.start, &v))
    }

    /// Removes the mappings in `[start, end)` as far as `budget` allows, a leaf of the tree at a time
    /// where all of it goes; the last record may be cut at the border of a group. Returns the first
    /// block that is left, or `end` if nothing is. On an error nothing of the record or leaf at hand
    /// has changed, or the filesystem has shut down.
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
        let mut groups = Groups {
            left: budget.groups,
            last: None,
        };
        for _ in 0..budget.steps {
            // No look-up behind the end: if it failed, all would be gone in spite of the error.
            if at >= end {
                return Ok(end);
            }
            if groups.left == 0 {
                return Ok(at);
            }
            let Some(e) = maps
                .extent_at_or_after(&self.node_store, at, &mut v)?
                .filter(|e| e.start < end)
            else {
                return Ok(end);
            };
            if e.start >= start {
                if let Some(to) = self.remove_leaf(txn, maps, e.start, end, &mut groups, old)? {
                    at = to;
                    continue;
                }
            }
            let mut cut = e.slice(start, end);
            // As far as the groups of the budget reach.
            let reach = groups.left.saturating_mul(GROUP_BLOCKS) - cut.phys % GROUP_BLOCKS;
            cut = cut.slice(cut.start, cut.start.saturating_add(reach));
            groups.take(cut.phys, cut.len);
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
                txn.charged(&mut maps.tree, |t| t.remove(&self.node_store, e.start))
                    .map(|_| ())
            };
            if let Err(err) = step {
                if right.len > 0 && right.start >= end && right.start != e.start {
                    // Undo, or two records would overlap.
                    maps.tree
                        .remove(&self.node_store, right.start)
                        .inspect_err(|_| self.abort("cannot undo the removal of an extent"))?;
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

    /// Removes all records of the leaf that begins with the record of file block `first`, if they end
    /// at or before `end` and their blocks lie in so many groups. Returns the end of the last one;
    /// `None` if nothing has changed.
    fn remove_leaf(
        &self,
        txn: &mut Txn<'_>,
        maps: &mut Maps,
        first: u64,
        end: u64,
        groups: &mut Groups,
        old: Old,
    ) -> Result<Option<u64>> {
        let mut gone: KVec<Extent> = KVec::new();
        let mut at = first;
        let mut left = Groups { ..*groups };
        let removed = txn.charged(&mut maps.tree, |t| {
            t.remove_leaf(&self.node_store, first, |key, v| {
                let e = Extent::decode(key, v, self.node_store.space())?;
                if key < at || e.end() > end || !left.take(e.phys, e.len) {
                    return Ok(false);
                }
                at = e.end();
                gone.push(e, GFP_KERNEL)?;
                Ok(true)
            })
        })?;
        if !removed {
            return Ok(None);
        }
        *groups = left;
        // For the group of its old place, which may be the first of its AG.
        txn.charge(2);
        for e in gone {
            maps.blocks = maps.blocks.saturating_sub(e.len);
            if old == Old::Free || !e.unwritten {
                self.free_extent(txn, e.phys, e.len)?;
            }
        }
        Ok(Some(at))
    }

    /// An upper bound of the groups in which the blocks mapped in `[start, end)` lie: a group that
    /// has blocks of two records may count twice.
    pub(crate) fn groups_under(&self, maps: &Maps, start: u64, end: u64) -> Result<u64> {
        let mut v = ValueBuf::new();
        let (mut at, mut n) = (start, 0u64);
        while at < end {
            let Some(e) = maps
                .extent_at_or_after(&self.node_store, at, &mut v)?
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

    /// Frees data blocks `[phys, phys + len)` in the running transaction; they may lie in several
    /// AGs. They stay unavailable until its commit is durable (R7). Shuts the filesystem down on an
    /// error.
    pub(crate) fn free_extent(&self, txn: &mut Txn<'_>, phys: u64, len: u64) -> Result {
        let touched = self
            .space
            .free(&self.node_store, phys, len, FreedBy::Running)
            .inspect_err(|_| self.abort("cannot free blocks"))?;
        txn.charge(touched);
        Ok(())
    }

    /// Adds a mapping where there is a hole, joined with the record on its left if the two are one
    /// run of one epoch. `csums` has 4 bytes for each block, or is empty.
    pub(crate) fn add_extent(
        &self,
        txn: &mut Txn<'_>,
        maps: &mut Maps,
        e: &Extent,
        csums: &[u8],
    ) -> Result {
        let mut v = ValueBuf::new();
        let left = match e.start.checked_sub(1) {
            Some(b) => maps.extent_at(&self.node_store, b, &mut v)?,
            None => None,
        };
        let max = e.max_blocks();
        if let Some(l) = left {
            let fits = l.end() == e.start
                && l.phys + l.len == e.phys
                && l.unwritten == e.unwritten
                && l.csums == e.csums
                && l.epoch == e.epoch
                && l.len + e.len <= max.min(self.space.to_border(l.phys));
            if fits {
                let mut all = KVec::new();
                all.extend_from_slice(l.csum_slice(v.as_slice(), l.start, l.end()), GFP_KERNEL)?;
                all.extend_from_slice(csums, GFP_KERNEL)?;
                let joined = Extent {
                    len: l.len + e.len,
                    ..l
                };
                self.put_record(txn, maps, &joined, &all)?;
                maps.blocks = maps.blocks.saturating_add(e.len);
                return Ok(());
            }
        }
        // Cut into records: one with checksums is short, and a write in place over two records may
        // cross from one AG into the next.
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
            self.put_record(txn, maps, &part, bytes)?;
            maps.blocks = maps.blocks.saturating_add(part.len);
            from = part.end();
        }
        Ok(())
    }
}
