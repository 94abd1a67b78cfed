// SPDX-License-Identifier: GPL-2.0

//! The last AG becomes longer, as a part of a commit.
//!
//! On disk the new blocks are free at once. In memory they are *used* and freed by the commit, as all
//! that a commit frees (R7): so no operation can have one before the commit is durable, whose
//! superblock is the first one with the new size.
//!
//! Everything is under the AG's mutex. Block numbers are relative to the AG, bits to a group.
//!
//! Tests: `tools/engine/tests/resize.rs`.

use super::{delta, Ag, Info, Owner, State, UNKNOWN};
use crate::engine::alloc::bits::Bits;
use crate::engine::btree::NodeStore;
use crate::engine::format::group::group_len;
use crate::engine::format::GROUP_BLOCKS;
use kernel::prelude::*;

impl Ag {
    /// Whether the AG can become longer: it is good, and so is its last group, which enters memory if
    /// it is shorter than others. EUCLEAN if not; ENOMEM.
    pub fn may_extend(&mut self, node_store: &NodeStore) -> Result {
        let short = self.len % GROUP_BLOCKS != 0;
        match short {
            _ if self.state != State::Good => Err(EUCLEAN),
            true => self.group(node_store, self.len / GROUP_BLOCKS).map(|_| ()),
            false => Ok(()),
        }
    }

    /// Makes the AG `len` blocks long, which is more than it has. The runs `areas`, all of them in the
    /// new part, stay in use. Returns how many blocks the commit frees.
    pub fn extend(
        &mut self,
        node_store: &NodeStore,
        len: u64,
        areas: &[(u64, u64)],
    ) -> Result<u64> {
        self.may_extend(node_store)?;
        let old = self.len;
        let (last, cut) = (old / GROUP_BLOCKS, (old % GROUP_BLOCKS) as u32);
        let mut bits = Bits::zeroed()?;
        if cut > 0 {
            // With another length the record says something else. So it goes, and comes again.
            self.disk_bits(node_store, last, &mut bits)?;
            self.put_group(node_store, last, &Bits::zeroed()?)?;
        }
        self.len = len;
        self.on_disk = self.on_disk.saturating_add(len - old);
        if cut > 0 {
            let cap = self.group_len(last);
            bits.clear(cut, cap.saturating_sub(cut));
            self.put_group(node_store, last, &bits)?;
        }
        for g in self.info.len() as u64..len.div_ceil(GROUP_BLOCKS) {
            let new = Info {
                free: Some(0),
                longest: 0,
                class: UNKNOWN,
            };
            self.info.push(new, GFP_KERNEL)?;
            let mut used = Bits::zeroed()?;
            used.set(0, GROUP_BLOCKS as u32);
            self.add_group(g, used)?;
        }
        let mut freed = 0;
        for g in last..len.div_ceil(GROUP_BLOCKS) {
            freed += self.free_new(g, old, areas)?;
        }
        Ok(freed)
    }

    /// The commit frees the blocks of group `g` from block `from` of the AG on, but for `areas`. Returns
    /// how many there are.
    fn free_new(&mut self, g: u64, from: u64, areas: &[(u64, u64)]) -> Result<u64> {
        let first = g * GROUP_BLOCKS;
        let cap = group_len(self.len, g);
        let bit = |block: u64| (block.saturating_sub(first) as u32).min(cap);
        let Some(group) = self.groups.get_mut(&g) else {
            return Ok(0);
        };
        let d = delta(&mut group.commit, &mut 0)?;
        let from = bit(from);
        let before = d.clear.count();
        d.clear.set(from, cap - from);
        for (at, n) in areas {
            let (at, end) = (bit(*at), bit(at.saturating_add(*n)));
            d.clear.clear(at, end.saturating_sub(at));
            d.set.set(at, end.saturating_sub(at));
        }
        group.stale = true;
        Ok(u64::from(d.clear.count().saturating_sub(before)))
    }

    /// The commit takes these blocks, in an AG that is new, or that ends the filesystem from now on.
    pub fn take_area(&mut self, node_store: &NodeStore, block: u64, len: u64) -> Result {
        self.parts(block, len, |ag, g, at, n| {
            if ag.groups.get(&g).is_none() {
                ag.load_new_group(node_store, g)?;
            }
            ag.take(node_store, g, at, n, Owner::Committing)
        })
    }
}
