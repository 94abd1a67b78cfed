// SPDX-License-Identifier: GPL-2.0

//! Operations on the bytes of one node. [`crate::engine::format::node`] has the layout.
//!
//! The number of entries is kept outside of the page, because the header of a page in memory is not
//! valid. All functions are bounded: given a malformed page they return zeros, empty slices or
//! false. Offsets are in bytes within the page, and ranges are half-open. The caller holds the
//! tree's lock, or the only reference to the node.
//!
//! Tests: `tools/engine/tests/btree.rs`, `tools/engine/tests/btree_damage.rs`.

use crate::engine::format::node::{ENTRY_LEN, LEAF_SPACE, NODE_HEADER, SLOT_LEN};
use crate::engine::format::sums::Sums;
use crate::engine::format::{le16, le64, put, NodePtr, BLOCK_SIZE, NODE_PTR_LEN};

/// The bytes of a node.
pub(super) type Page = [u8; BLOCK_SIZE];

/// Moves bytes `start..end` within the page to `to`. Returns false and changes nothing if they
/// would leave the page.
fn shift(p: &mut Page, start: usize, end: usize, to: usize) -> bool {
    let good = start <= end && end <= p.len() && to <= p.len() && end - start <= p.len() - to;
    if good {
        p.copy_within(start..end, to);
    }
    good
}

/// The byte offset of element `i` of an array of elements of `len` bytes.
fn at(base: usize, i: usize, len: usize) -> usize {
    base.saturating_add(i.saturating_mul(len))
}

/// The first index in `0..nr` with a key (at `NODE_HEADER + i * stride`) not below `key`.
fn lower_bound(p: &Page, nr: usize, stride: usize, key: u64) -> usize {
    let (mut lo, mut hi) = (0, nr);
    while lo < hi {
        let mid = lo + (hi - lo) / 2;
        if le64(p, at(NODE_HEADER, mid, stride)).unwrap_or(u64::MAX) < key {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    lo
}

// Leaves.

/// Key of slot `i`.
#[inline]
pub(super) fn slot_key(p: &Page, i: usize) -> u64 {
    le64(p, at(NODE_HEADER, i, SLOT_LEN)).unwrap_or(0)
}

/// Offset of the value of slot `i`.
pub(super) fn slot_off(p: &Page, i: usize) -> usize {
    usize::from(le16(p, at(NODE_HEADER + 8, i, SLOT_LEN)).unwrap_or(0))
}

/// Length of the value of slot `i`.
pub(super) fn slot_len(p: &Page, i: usize) -> usize {
    usize::from(le16(p, at(NODE_HEADER + 10, i, SLOT_LEN)).unwrap_or(0))
}

fn set_slot(p: &mut Page, i: usize, key: u64, off: usize, len: usize) {
    let s = at(NODE_HEADER, i, SLOT_LEN);
    let _ = put(p, s, &key.to_le_bytes());
    let _ = put(p, s + 8, &(off as u16).to_le_bytes());
    let _ = put(p, s + 10, &(len as u16).to_le_bytes());
}

/// Value of slot `i`.
pub(super) fn value(p: &Page, i: usize) -> &[u8] {
    let off = slot_off(p, i);
    p.get(off..off + slot_len(p, i)).unwrap_or(&[])
}

/// The first slot in `0..nr` with a key not below `key`.
pub(super) fn leaf_lower_bound(p: &Page, nr: usize, key: u64) -> usize {
    lower_bound(p, nr, SLOT_LEN, key)
}

/// The end of the value of slot `i`, which is the start of that of slot `i - 1`.
fn value_end(p: &Page, i: usize) -> usize {
    match i.checked_sub(1) {
        None => BLOCK_SIZE,
        Some(before) => slot_off(p, before),
    }
}

/// The bytes that slots and values take in a leaf with `nr` slots.
pub(super) fn leaf_used(p: &Page, nr: usize) -> usize {
    nr * SLOT_LEN + BLOCK_SIZE.saturating_sub(value_end(p, nr))
}

/// Adds `delta` (two's complement) to the offsets of slots `from..to`.
fn move_offsets(p: &mut Page, from: usize, to: usize, delta: u16) {
    for i in from..to {
        let o = slot_off(p, i) as u16;
        let _ = put(
            p,
            at(NODE_HEADER + 8, i, SLOT_LEN),
            &o.wrapping_add(delta).to_le_bytes(),
        );
    }
}

/// Inserts an item as slot `i` of `nr`; false if it does not fit.
pub(super) fn leaf_insert(p: &mut Page, nr: usize, i: usize, key: u64, v: &[u8]) -> bool {
    let slots_end = at(NODE_HEADER, nr, SLOT_LEN);
    let low = value_end(p, nr);
    let end = value_end(p, i);
    if i > nr || slots_end + SLOT_LEN + v.len() > low || low > end {
        return false;
    }
    let s = at(NODE_HEADER, i, SLOT_LEN);
    let good = shift(p, low, end, low - v.len()) && shift(p, s, slots_end, s + SLOT_LEN);
    if good {
        move_offsets(p, i + 1, nr + 1, (v.len() as u16).wrapping_neg());
        set_slot(p, i, key, end - v.len(), v.len());
        let _ = put(p, end - v.len(), v);
    }
    good
}

/// Removes slot `i` of `nr`.
pub(super) fn leaf_remove(p: &mut Page, nr: usize, i: usize) -> bool {
    let low = value_end(p, nr);
    let (off, len) = (slot_off(p, i), slot_len(p, i));
    let s = at(NODE_HEADER, i, SLOT_LEN);
    let good = i < nr
        && shift(p, low, off, low.saturating_add(len))
        && shift(p, s + SLOT_LEN, at(NODE_HEADER, nr, SLOT_LEN), s);
    if good {
        move_offsets(p, i, nr - 1, len as u16);
    }
    good
}

/// Overwrites the value of slot `i` with one of the same length; false if the length differs.
pub(super) fn leaf_overwrite(p: &mut Page, i: usize, v: &[u8]) -> bool {
    let off = slot_off(p, i);
    slot_len(p, i) == v.len() && put(p, off, v).is_some()
}

/// Appends slots `from..to` of `src` to a leaf with `nr` slots; false if they do not fit.
pub(super) fn leaf_append(p: &mut Page, nr: usize, src: &Page, from: usize, to: usize) -> bool {
    if from >= to {
        return from == to;
    }
    let (src_low, src_end) = (value_end(src, to), value_end(src, from));
    let low = value_end(p, nr);
    let len = src_end.saturating_sub(src_low);
    if at(NODE_HEADER, nr + (to - from), SLOT_LEN).saturating_add(len) > low {
        return false;
    }
    let Some(values) = src.get(src_low..src_end) else {
        return false;
    };
    if put(p, low - len, values).is_none() {
        return false;
    }
    for (n, i) in (from..to).enumerate() {
        let off = slot_off(src, i).wrapping_sub(src_end).wrapping_add(low);
        set_slot(p, nr + n, slot_key(src, i), off, slot_len(src, i));
    }
    true
}

// Interior nodes. `stride` is the size of an entry: `TreeKind::entry_len`.

/// Key of entry `i`.
#[inline]
pub(super) fn entry_key(p: &Page, stride: usize, i: usize) -> u64 {
    le64(p, at(NODE_HEADER, i, stride)).unwrap_or(0)
}

/// Changes the key of entry `i`.
pub(super) fn set_entry_key(p: &mut Page, stride: usize, i: usize, key: u64) {
    let _ = put(p, at(NODE_HEADER, i, stride), &key.to_le_bytes());
}

/// Pointer of entry `i`; `None` if no pointer can have these bytes.
pub(super) fn entry_ptr(p: &Page, stride: usize, i: usize) -> Option<NodePtr> {
    let o = at(NODE_HEADER + 8, i, stride);
    NodePtr::decode(p.get(o..)?.get(..NODE_PTR_LEN)?)
}

/// Changes the pointer of entry `i`.
pub(super) fn set_entry_ptr(p: &mut Page, stride: usize, i: usize, ptr: &NodePtr) {
    let _ = put(p, at(NODE_HEADER + 8, i, stride), &ptr.to_bytes());
}

/// Sums of entry `i` of a node whose entries have sums.
pub(super) fn entry_sums(p: &Page, stride: usize, i: usize) -> Sums {
    let o = at(NODE_HEADER + ENTRY_LEN, i, stride);
    p.get(o..).and_then(Sums::decode).unwrap_or_default()
}

/// Changes the sums of entry `i` of a node whose entries have sums.
pub(super) fn set_entry_sums(p: &mut Page, stride: usize, i: usize, sums: Sums) {
    let o = at(NODE_HEADER + ENTRY_LEN, i, stride);
    let _ = put(p, o, &sums.to_bytes());
}

/// The entry to follow for `key`: the last one with a key of at most `key`, or else the first.
pub(super) fn entry_for(p: &Page, nr: usize, stride: usize, key: u64) -> usize {
    match key.checked_add(1) {
        None => nr,
        Some(above) => lower_bound(p, nr, stride, above),
    }
    .saturating_sub(1)
}

/// Makes room for entry `i` of `nr`, with `key`, and zeros behind it; false if the node is full.
pub(super) fn entry_insert(p: &mut Page, nr: usize, stride: usize, i: usize, key: u64) -> bool {
    let s = at(NODE_HEADER, i, stride);
    let good = i <= nr
        && at(0, nr.saturating_add(1), stride) <= LEAF_SPACE
        && shift(p, s, at(NODE_HEADER, nr, stride), s + stride);
    if good {
        if let Some(entry) = p.get_mut(s..s + stride) {
            entry.fill(0);
        }
        set_entry_key(p, stride, i, key);
    }
    good
}

/// Removes entry `i` of `nr`.
pub(super) fn entry_remove(p: &mut Page, nr: usize, stride: usize, i: usize) -> bool {
    let s = at(NODE_HEADER, i, stride);
    i < nr && shift(p, s + stride, at(NODE_HEADER, nr, stride), s)
}

/// Appends entries `from..to` of `src` to a node with `nr` entries; false if they do not fit.
pub(super) fn entry_append(
    p: &mut Page,
    nr: usize,
    stride: usize,
    src: &Page,
    from: usize,
    to: usize,
) -> bool {
    let n = to.saturating_sub(from);
    if at(0, nr.saturating_add(n), stride) > LEAF_SPACE {
        return false;
    }
    match src.get(at(NODE_HEADER, from, stride)..at(NODE_HEADER, from + n, stride)) {
        Some(s) => put(p, at(NODE_HEADER, nr, stride), s).is_some(),
        None => false,
    }
}

/// Zeroes the unused bytes behind the entries.
pub(super) fn zero_behind_entries(p: &mut Page, nr: usize, stride: usize) {
    zero(p, at(NODE_HEADER, nr, stride), BLOCK_SIZE);
}

/// Zeroes the unused bytes between the slots and the values.
pub(super) fn zero_behind_slots(p: &mut Page, nr: usize) {
    let end = value_end(p, nr);
    zero(p, at(NODE_HEADER, nr, SLOT_LEN), end);
}

fn zero(p: &mut Page, start: usize, end: usize) {
    if let Some(gap) = p.get_mut(start..end) {
        gap.fill(0);
    }
}
