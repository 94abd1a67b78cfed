// SPDX-License-Identifier: GPL-2.0

//! Changes of bytes, and of the items of a leaf or of an inline tree.
//!
//! Tests: tools/fuzz/tests/corpus.rs.

use crate::leaf;
use crate::structure::Structure;
use arbitrary::{Result, Unstructured};

/// A number that may be interesting.
pub(crate) fn number(s: &Structure, u: &mut Unstructured<'_>) -> Result<u64> {
    let known = |u: &mut Unstructured<'_>| u.choose(&s.numbers).copied();
    Ok(match u.int_in_range(0..=7)? {
        0 => u64::from(u.arbitrary::<u8>()?),
        1 => 1 << u.int_in_range(0..=63)?,
        2 => (1 << u.int_in_range(0..=63)?) - 1,
        3 => !u64::from(u.arbitrary::<u8>()?),
        4 => known(u)?,
        5 => known(u)?.wrapping_add_signed(u.int_in_range(-3..=3)?),
        6 => u.arbitrary()?,
        _ => u64::from(u.arbitrary::<u16>()?),
    })
}

/// Changes a field of 1, 2, 4 or 8 bytes in `b[from..to]`.
pub(crate) fn field(
    s: &Structure,
    u: &mut Unstructured<'_>,
    b: &mut [u8],
    from: usize,
    to: usize,
) -> Result<String> {
    let to = to.min(b.len());
    let width = 1usize << u.int_in_range(0..=3)?;
    if from + width > to {
        return Ok("nothing".to_owned());
    }
    let mut at = u.int_in_range(from..=to - width)?;
    // Three of four fields are aligned to the beginning of their record.
    if u.ratio(3, 4)? {
        at -= (at - from) % width;
    }
    let mut bytes = [0; 8];
    bytes[..width].copy_from_slice(&b[at..at + width]);
    let old = u64::from_le_bytes(bytes);
    let new = match u.int_in_range(0..=3)? {
        0 => old.wrapping_add_signed(u.int_in_range(-16..=16)?),
        1 => old ^ (1 << u.int_in_range(0..=8 * width - 1)?),
        _ => number(s, u)?,
    };
    b[at..at + width].copy_from_slice(&new.to_le_bytes()[..width]);
    Ok(format!("bytes {at}+{width}: {old:#x} to {new:#x}"))
}

/// Removes, repeats, renames, cuts or exchanges items.
pub(crate) fn edit_items(
    s: &Structure,
    u: &mut Unstructured<'_>,
    items: &mut leaf::Items,
) -> Result<String> {
    if items.is_empty() {
        return Ok("nothing".to_owned());
    }
    let i = u.choose_index(items.len())?;
    Ok(match u.int_in_range(0..=5)? {
        0 => {
            items.remove(i);
            format!("item {i} removed")
        }
        1 => {
            let key = number(s, u)?;
            let item = (key, items[i].1.clone());
            items.push(item);
            items.sort_unstable_by_key(|(k, _)| *k);
            items.dedup_by_key(|(k, _)| *k);
            format!("item {i} again, with key {key:#x}")
        }
        2 => {
            let by = u.int_in_range(-2..=2)?;
            items[i].0 = items[i].0.wrapping_add_signed(by);
            format!("key of item {i} {by:+}")
        }
        3 => {
            let len = u.int_in_range(0..=items[i].1.len())?;
            items[i].1.truncate(len);
            format!("value {i} cut to {len}")
        }
        4 => {
            let more = u.int_in_range(1..=64)?;
            let len = (items[i].1.len() + more).min(1280);
            items[i].1.resize(len, 0);
            format!("value {i} extended to {len}")
        }
        _ => {
            let k = u.choose_index(items.len())?;
            let v = items[i].1.clone();
            items[i].1 = std::mem::replace(&mut items[k].1, v);
            format!("values {i} and {k} exchanged")
        }
    })
}
