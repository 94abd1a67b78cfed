// SPDX-License-Identifier: GPL-2.0

//! The bitmap of one group, on the heap, because 1 KiB is much for a kernel stack. Ranges are
//! half-open, in bits. It has no lock of its own: an AG's bitmaps are under the AG's mutex.
//!
//! Tests: `tools/engine/tests/space_records.rs`, `tools/engine/tests/state_machine.rs`,
//! `tools/engine/tests/bulk.rs`, `tools/engine/tests/impossible.rs`.

use super::GROUP_BLOCKS;
use kernel::prelude::*;

const WORDS: usize = (GROUP_BLOCKS / 64) as usize;
/// Bytes of a bitmap on disk.
pub const BITMAP_BYTES: usize = WORDS * 8;
const _: () = assert!(BITMAP_BYTES as u64 * 8 == GROUP_BLOCKS);

/// One bit for each block of a group. In an AG's `used`, a set bit is a used block.
pub struct Bits(KVec<u64>);

impl Bits {
    /// A bitmap with all bits clear.
    pub fn zeroed() -> Result<Self> {
        Ok(Self(KVec::from_elem(0u64, WORDS, GFP_KERNEL)?))
    }

    /// Calls `f(word, mask)` for every word that `[start, start + len)` touches.
    fn each(&mut self, start: u32, len: u32, mut f: impl FnMut(&mut u64, u64)) {
        let end = start.saturating_add(len).min(GROUP_BLOCKS as u32);
        let mut i = start;
        while i < end {
            let bit = i % 64;
            let n = (64 - bit).min(end - i);
            let mask = (u64::MAX >> (64 - n)) << bit;
            if let Some(w) = self.0.get_mut((i / 64) as usize) {
                f(w, mask);
            }
            i += n;
        }
    }

    /// Sets the bits of a range.
    pub fn set(&mut self, start: u32, len: u32) {
        self.each(start, len, |w, m| *w |= m);
    }

    /// Clears the bits of a range.
    pub fn clear(&mut self, start: u32, len: u32) {
        self.each(start, len, |w, m| *w &= !m);
    }

    /// The number of set bits in a range.
    pub fn count_range(&self, start: u32, len: u32) -> u32 {
        let end = start.saturating_add(len).min(GROUP_BLOCKS as u32);
        let mut i = start;
        let mut n = 0;
        while i < end {
            let bit = i % 64;
            let k = (64 - bit).min(end - i);
            let mask = (u64::MAX >> (64 - k)) << bit;
            n += self
                .0
                .get((i / 64) as usize)
                .map_or(0, |w| (w & mask).count_ones());
            i += k;
        }
        n
    }

    /// The number of set bits.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|w| w.count_ones()).sum()
    }

    /// `self = other`
    pub fn copy(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(other.0.iter())
            .for_each(|(a, b)| *a = *b);
    }

    /// `self |= other`
    pub fn or(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(other.0.iter())
            .for_each(|(a, b)| *a |= b);
    }

    /// `self &= !other`
    pub fn and_not(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(other.0.iter())
            .for_each(|(a, b)| *a &= !b);
    }

    /// Replaces the bits by those of a bitmap on disk; `None` if that is too short.
    pub fn load(&mut self, v: &[u8]) -> Option<()> {
        let v = v.get(..BITMAP_BYTES)?;
        for (w, b) in self.0.iter_mut().zip(v.chunks_exact(8)) {
            *w = u64::from_le_bytes(b.try_into().ok()?);
        }
        Some(())
    }

    /// Appends the bits to `out`, in the form that they have on disk.
    pub fn store(&self, out: &mut KVec<u8>) -> Result {
        for w in self.0.iter() {
            out.extend_from_slice(&w.to_le_bytes(), GFP_KERNEL)?;
        }
        Ok(())
    }

    /// The first set bit at or after `from`, or `limit`.
    pub fn next_set(&self, from: u32, limit: u32) -> u32 {
        self.next(from, limit, |w| w)
    }

    /// The first clear bit at or after `from`, or `limit`.
    pub fn next_clear(&self, from: u32, limit: u32) -> u32 {
        self.next(from, limit, |w| !w)
    }

    /// The first bit at or after `from` that is set in what `f` makes of its word, or `limit`.
    fn next(&self, from: u32, limit: u32, f: impl Fn(u64) -> u64) -> u32 {
        let mut i = from;
        while i < limit {
            let w = self.0.get((i / 64) as usize).copied().unwrap_or(u64::MAX);
            let w = f(w) >> (i % 64);
            if w != 0 {
                return (i + w.trailing_zeros()).min(limit);
            }
            i += 64 - i % 64;
        }
        limit
    }

    /// A clear run of `[from, limit)`, as (first bit, length): the first one of at least `want`
    /// bits, cut to `want`, else the longest one. `None` if no bit is clear.
    pub fn find_clear(&self, from: u32, limit: u32, want: u32) -> Option<(u32, u32)> {
        let mut best: Option<(u32, u32)> = None;
        let mut i = self.next_clear(from, limit);
        while i < limit {
            let end = self.next_set(i, limit);
            let len = end - i;
            if len >= want {
                return Some((i, want));
            }
            if best.is_none_or(|(_, b)| b < len) {
                best = Some((i, len));
            }
            i = self.next_clear(end, limit);
        }
        best
    }
}
