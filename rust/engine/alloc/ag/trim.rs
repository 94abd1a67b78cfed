// SPDX-License-Identifier: GPL-2.0

//! Free blocks that are being discarded: *withheld* from allocation meanwhile.
//!
//! Withheld blocks count as free everywhere, as kept blocks do; a search only passes over them.
//! Nothing else changes, so no sum can disagree with a record because of a trim. A run is free if it
//! is not in `used`. That has what the durable generation uses, what the running and the committing
//! transaction use or have freed (R7), and the blocks of data in flight. Blocks of which the records
//! of an fsync tell are in the running transaction or the committing one, until that one is durable.
//!
//! Everything is under the AG's mutex. Block numbers are relative to the AG, bits to a group.
//!
//! Tests: `tools/engine/tests/trim`, `tools/crash/tests/trim.rs`.

use super::{Ag, State};
use crate::engine::alloc::bits::Bits;
use crate::engine::btree::NodeStore;
use crate::engine::format::GROUP_BLOCKS;
use crate::engine::mutant::{self, Mutant};
use kernel::prelude::*;

/// The most runs of a piece: a freeze waits for their discards.
const MOST_RUNS: usize = 64;

/// What a trim looks for in an AG.
pub struct Span {
    /// The first block that may be discarded.
    pub start: u64,
    /// The first block that was not looked at yet.
    pub from: u64,
    /// The end.
    pub to: u64,
    /// The length of the shortest run that is discarded.
    pub least: u32,
    /// The most blocks to withhold.
    pub most: u32,
    /// Where a run is divided, the part in front ends at a multiple of this.
    pub unit: u32,
}

impl Ag {
    /// Looks for free runs in the next group of the span that may have some, and withholds those
    /// at the beginning. Adds them to `runs` as (block, length), and returns the first block that was
    /// not looked at. ENOMEM: nothing is withheld. A damaged group makes the AG bad, as for a search,
    /// and a bad AG has no free runs. Nor has one of which a group cannot be read: it is passed over.
    pub fn withhold(
        &mut self,
        node_store: &NodeStore,
        span: &Span,
        runs: &mut KVVec<(u64, u64)>,
    ) -> Result<u64> {
        let Some(g) = self.next_to_trim(span) else {
            return Ok(span.to);
        };
        let mut used = Bits::zeroed()?;
        match self.unavailable(node_store, g, &mut used) {
            Err(e) if e != ENOMEM => return Ok(span.to),
            r => r?,
        }
        let first = g * GROUP_BLOCKS;
        let bit = |block: u64| block.saturating_sub(first).min(GROUP_BLOCKS) as u32;
        let (from, to) = (bit(span.from), bit(span.to).min(self.group_len(g)));
        let mut limit = None;
        // The end of what is withheld, and of what was looked at.
        let (mut end, mut seen) = (to, to);
        let mut at = used.next_clear(bit(span.start), to);
        while at < to {
            let next = used.next_set(at, to);
            let begin = at.max(from);
            if next - at >= span.least && begin < next {
                let limit = *limit.get_or_insert_with(|| span.limit(begin));
                if begin >= limit || runs.len() == MOST_RUNS {
                    seen = end;
                    break;
                }
                end = next.min(limit);
                runs.push((first + u64::from(begin), (end - begin).into()), GFP_KERNEL)?;
                if end < next {
                    seen = end;
                    break;
                }
            }
            at = used.next_clear(next, to);
        }
        let Some((start, _)) = runs.first().copied() else {
            return Ok(first + u64::from(to));
        };
        if self.scratch.is_none() {
            self.scratch = Some(Bits::zeroed()?);
        }
        self.withheld = Some(start..first + u64::from(end));
        Ok(first + u64::from(seen))
    }

    /// Blocks that were withheld may be allocated again.
    pub fn give_back_withheld(&mut self) {
        self.withheld = None;
    }

    /// The first group of the span, as far as it was not looked at, that may have a run that is long
    /// enough.
    fn next_to_trim(&self, span: &Span) -> Option<u64> {
        if self.state != State::Good || span.from >= span.to {
            return None;
        }
        let may = |g: &u64| {
            self.info(*g).is_some_and(|i| match i.free {
                Some(free) => free.min(i.longest) >= span.least,
                None => true,
            })
        };
        (span.from / GROUP_BLOCKS..span.to.div_ceil(GROUP_BLOCKS)).find(may)
    }

    /// Sets `bits` to the blocks of group `g` that are not free; those past its end are among them.
    /// The group does not enter memory for that. If it is damaged, the AG becomes bad: EUCLEAN. EIO,
    /// ENOMEM.
    fn unavailable(&mut self, node_store: &NodeStore, g: u64, bits: &mut Bits) -> Result {
        if let Some(group) = self.groups.get(&g) {
            bits.copy(&group.used);
            if mutant::is(Mutant::TrimFreed) {
                for d in [&group.run, &group.commit].into_iter().flatten() {
                    bits.and_not(&d.clear);
                }
            }
            return Ok(());
        }
        let r = self.read_group(node_store, g, bits);
        if r == Err(EUCLEAN) {
            self.condemn();
        }
        r
    }
}

impl Span {
    /// Up to which bit of its group to withhold, from the bit `begin` on. Groups begin at multiples
    /// of all units that are powers of two and not above 32 MiB, if the filesystem does.
    fn limit(&self, begin: u32) -> u32 {
        let end = begin.saturating_add(self.most);
        let whole = end - end % self.unit.max(1);
        if whole > begin {
            whole
        } else {
            end
        }
    }
}
