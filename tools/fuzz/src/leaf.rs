// SPDX-License-Identifier: GPL-2.0

//! The items of a leaf, taken apart and put together.
//!
//! Tests: tools/fuzz/tests/corpus.rs.

use crate::structure::{entries, value};
use crate::Bytes;
use ordofs_crash::engine::format::le64;
use ordofs_crash::engine::format::node::{NODE_HEADER, SLOT_LEN};

/// Keys and values.
pub type Items = Vec<(u64, Vec<u8>)>;

/// The items of a leaf.
pub fn items(b: &Bytes) -> Items {
    let item = |i: usize| {
        let key = le64(b, NODE_HEADER + i * SLOT_LEN)?;
        Some((key, b[value(b, i)?].to_vec()))
    };
    (0..entries(b)).filter_map(item).collect()
}

/// Puts items into a leaf, in the order given, as long as they fit. The header but for the count stays.
pub fn put(b: &mut Bytes, items: &Items) {
    b[NODE_HEADER..].fill(0);
    let (mut n, mut end) = (0, b.len());
    for (key, v) in items {
        let slot = NODE_HEADER + n * SLOT_LEN;
        if slot + SLOT_LEN + v.len() > end {
            break;
        }
        end -= v.len();
        b[end..end + v.len()].copy_from_slice(v);
        b[slot..slot + 8].copy_from_slice(&key.to_le_bytes());
        b[slot + 8..slot + 10].copy_from_slice(&(end as u16).to_le_bytes());
        b[slot + 10..slot + 12].copy_from_slice(&(v.len() as u16).to_le_bytes());
        n += 1;
    }
    b[42..44].copy_from_slice(&(n as u16).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_comes_back() {
        let mut b: Bytes = [0; 4096];
        let some: Items = vec![(1, vec![1; 5]), (7, vec![2; 1280]), (u64::MAX, vec![3])];
        put(&mut b, &some);
        assert_eq!(items(&b), some);
        put(&mut b, &vec![(0, vec![0; 1280]); 9]);
        assert_eq!(items(&b).len(), 3);
    }
}
