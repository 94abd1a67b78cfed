// SPDX-License-Identifier: GPL-2.0

//! A map from disjoint, half-open ranges of blocks to values. Plain data without a lock; in an
//! inode it is under `Inode.maps`.
//!
//! Tests: `tools/engine/tests/writes_in_flight.rs`, `tools/engine/tests/state_machine.rs`,
//! `tools/engine/tests/cost.rs`.

use crate::engine::invariant::{check, Invariant};
use crate::os::Map;
use kernel::prelude::*;

/// A value whose range can be cut.
pub trait RangeValue: Copy {
    /// The value for the part of the range that begins `by` blocks after its start.
    fn advance(self, by: u64) -> Self;
}

impl RangeValue for () {
    fn advance(self, _by: u64) -> Self {}
}

/// A range and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<V> {
    /// First block.
    pub start: u64,
    /// Number of blocks.
    pub len: u64,
    /// Value.
    pub value: V,
}

impl<V> Range<V> {
    /// The first block after the range.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// Disjoint ranges in order.
///
/// # Invariants
///
/// No two ranges overlap; no range is empty.
pub struct RangeMap<V> {
    map: Map<u64, (u64, V)>,
    total: u64,
}

impl<V: RangeValue> RangeMap<V> {
    /// An empty map.
    pub fn new() -> Self {
        Self {
            map: Map::new(),
            total: 0,
        }
    }

    /// The sum of all lengths, in blocks.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The number of ranges.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// The first range that ends after `block`: it contains `block` or follows it.
    pub fn at_or_after(&self, block: u64) -> Option<Range<V>> {
        let here = self.map.last_le(block).map(|(start, (len, value))| Range {
            start,
            len: *len,
            value: *value,
        });
        if let Some(r) = here.filter(|r| r.end() > block) {
            return Some(r);
        }
        let (start, (len, value)) = self.map.first_ge(block)?;
        Some(Range {
            start,
            len: *len,
            value: *value,
        })
    }

    /// The range that contains `block`.
    pub fn at(&self, block: u64) -> Option<Range<V>> {
        self.at_or_after(block).filter(|r| r.start <= block)
    }

    /// Removes the parts of all ranges that are in `[start, start + len)` and calls `gone` with
    /// each part. Cuts ranges that reach beyond. On error (ENOMEM) nothing is changed.
    pub fn remove_range(&mut self, start: u64, len: u64, mut gone: impl FnMut(Range<V>)) -> Result {
        let end = start.saturating_add(len);
        if start >= end {
            return Ok(());
        }
        // The only step that may need memory comes first: the part beyond the end becomes a range
        // of its own.
        if let Some(r) = self.at(end).filter(|r| r.start < end) {
            self.map
                .insert(end, (r.end() - end, r.value.advance(end - r.start)))?;
            if let Some(e) = self.map.get_mut(&r.start) {
                e.0 = end - r.start;
            }
        }
        while let Some(r) = self.at_or_after(start).filter(|r| r.start < end) {
            let (from, to) = (r.start.max(start), r.end());
            if r.start < start {
                if let Some(e) = self.map.get_mut(&r.start) {
                    e.0 = start - r.start;
                }
            } else {
                self.map.remove(&r.start);
            }
            self.total -= to - from;
            gone(Range {
                start: from,
                len: to - from,
                value: r.value.advance(from - r.start),
            });
        }
        Ok(())
    }

    /// Adds a range that must not overlap another one. ENOMEM.
    pub fn insert(&mut self, r: Range<V>) -> Result {
        if r.len == 0 {
            return Ok(());
        }
        // INVARIANT: no overlap: the caller has emptied the range or looked. The look-up is for debug
        // builds only.
        if cfg!(debug_assertions) {
            let next = self.at_or_after(r.start);
            check(
                Invariant::Ranges,
                next.is_none_or(|o| o.start >= r.end()),
                format_args!("a range at block {} overlaps another", r.start),
            )?;
        }
        self.map.insert(r.start, (r.len, r.value))?;
        self.total += r.len;
        Ok(())
    }

    /// Makes the range that starts at `start` longer by `by` blocks, which no other range may
    /// cover.
    pub fn extend(&mut self, start: u64, by: u64) {
        if let Some(e) = self.map.get_mut(&start) {
            e.0 += by;
            self.total += by;
        }
    }

    /// Joins the range that starts at `start` to the one that ends there, if `same` returns true.
    /// `same` receives what the left value would be at `start`, and the right value. Needs no
    /// memory.
    pub fn join(&mut self, start: u64, same: impl FnOnce(&V, &V) -> bool) {
        let Some(left) = start.checked_sub(1).and_then(|b| self.at(b)) else {
            return;
        };
        let Some(right) = self.at(start).filter(|r| r.start == start) else {
            return;
        };
        if same(&left.value.advance(left.len), &right.value) {
            self.map.remove(&start);
            if let Some(e) = self.map.get_mut(&left.start) {
                e.0 += right.len;
            }
        }
    }

    /// The value of the range that starts at `start`, for changes.
    pub fn get_mut(&mut self, start: u64) -> Option<&mut V> {
        self.map.get_mut(&start).map(|e| &mut e.1)
    }
}

impl RangeMap<()> {
    /// Adds a range, or the missing parts of it, and joins it to the ranges that it touches. On
    /// error (ENOMEM) nothing is changed.
    pub fn cover(&mut self, start: u64, len: u64) -> Result {
        let end = start.saturating_add(len);
        if start >= end {
            return Ok(());
        }
        let left = self.map.last_le(start).map(|(s, (l, ()))| (s, *l));
        let (from, mut to, mut had) = match left.filter(|(s, l)| s.saturating_add(*l) >= start) {
            Some((s, l)) => (s, end.max(s.saturating_add(l)), l),
            None => {
                // The only step that may need memory. For a moment the range may overlap others.
                self.map.insert(start, (len, ()))?;
                (start, end, 0)
            }
        };
        // The ranges that it touches or covers become part of it.
        loop {
            let next = self.map.first_ge(from.saturating_add(1));
            let Some((s, l)) = next.map(|(s, (l, ()))| (s, *l)).filter(|(s, _)| *s <= to) else {
                break;
            };
            to = to.max(s.saturating_add(l));
            had += l;
            self.map.remove(&s);
        }
        if let Some(e) = self.map.get_mut(&from) {
            e.0 = to - from;
        }
        self.total = (self.total - had).saturating_add(to - from);
        Ok(())
    }
}
