// SPDX-License-Identifier: GPL-2.0

//! Changes of the trees of space: AG records and the groups in them, trees of groups, the deferred
//! tree.
//!
//! A record of a group is made anew, right by itself, and often the numbers of its AG follow: so what
//! is wrong is only that it does not fit the rest.
//!
//! Tests: tools/fuzz/tests/corpus.rs.

use crate::changes::Changes;
use crate::edit::{edit_items, field, number};
use crate::leaf::{self, Items};
use crate::structure::{self, Node, Structure, AG_SECTIONS, INLINE, POINTER};
use crate::Bytes;
use arbitrary::{Result, Unstructured};
use ordofs_crash::engine::format::node::{TreeKind, MAX_VALUE};
use ordofs_crash::engine::format::sums::run_class;
use ordofs_crash::engine::format::{le16, le32, le64, GROUP_BLOCKS, NODE_PTR_LEN};

/// Type of the section with the tree of the groups.
const GROUPS: u8 = 1;
const FULL: u8 = 1;
const RUNS: u8 = 2;
const BITMAP: u8 = 3;
/// Bytes of a group record before its content.
const HEAD: usize = 16;

/// The kinds of the trees of space.
const KINDS: [TreeKind; 3] = [TreeKind::Ag, TreeKind::Groups, TreeKind::Deferred];

/// Changes a leaf of the trees of space. False if there is none of the kind that was chosen.
pub fn change(c: &mut Changes<'_>, u: &mut Unstructured<'_>) -> Result<bool> {
    let s = c.structure();
    let want = *u.choose(&KINDS)? as u8;
    let of_kind = |n: &&Node| {
        let b = c.block(n.block);
        structure::kind(b) == want && structure::level(b) == 0
    };
    let all: Vec<&Node> = s.nodes.iter().filter(of_kind).collect();
    if all.is_empty() {
        return Ok(false);
    }
    let n = *u.choose(&all)?;
    let mut items = leaf::items(c.block(n.block));
    if items.is_empty() {
        return Ok(false);
    }
    let i = u.choose_index(items.len())?;
    let what = match want {
        k if k == TreeKind::Ag as u8 => ag(s, u, &mut items[i])?,
        k if k == TreeKind::Groups as u8 => groups(c, n, u, &mut items)?,
        _ => deferred(s, u, &mut items)?,
    };
    leaf::put(c.block_mut(n.block), &items);
    c.words
        .push(format!("leaf {} of kind {want}, item {i}: {what}", n.block));
    Ok(true)
}

/// Changes the record of an AG.
fn ag(s: &Structure, u: &mut Unstructured<'_>, item: &mut (u64, Vec<u8>)) -> Result<String> {
    let (ag, v) = (item.0, &mut item.1);
    let len = s.ag_len(ag);
    if v.len() < AG_SECTIONS {
        return Ok("nothing".to_owned());
    }
    Ok(match u.int_in_range(0..=7)? {
        0 => field(s, u, v, 0, AG_SECTIONS)?,
        1 => {
            let end = v.len();
            field(s, u, v, AG_SECTIONS, end)?
        }
        2..=4 => {
            let mut tree = inline(v);
            let what = match tree.is_empty() || u.ratio(2, 3)? {
                true => put_group(u, len, &mut tree)?,
                false => edit_items(s, u, &mut tree)?,
            };
            put_inline(v, &tree);
            let agree: bool = u.ratio(3, 4)?;
            if agree {
                count(v, len, &tree);
            }
            format!("AG {ag}, {what}, counted: {agree}")
        }
        5 => {
            // The tree of another AG, or no tree of groups at all.
            let other = u.choose(&s.nodes)?;
            v.truncate(AG_SECTIONS);
            v.extend([GROUPS, POINTER, NODE_PTR_LEN as u8, 0]);
            v.extend(other.ptr.to_bytes());
            format!("AG {ag}: groups at node {}", other.block)
        }
        6 => {
            let full: bool = u.arbitrary()?;
            let groups = len.div_ceil(GROUP_BLOCKS) as u8;
            let tree = match full {
                true => vec![(0, head(FULL, groups, 0))],
                false => Vec::new(),
            };
            put_inline(v, &tree);
            count(v, len, &tree);
            format!("AG {ag}: full: {full}")
        }
        _ => {
            let kind: u8 = u.arbitrary()?;
            let n = usize::from(u.arbitrary::<u16>()?) % (MAX_VALUE - v.len()).max(1);
            v.extend([kind, 3]);
            v.extend((n as u16).to_le_bytes());
            v.resize((v.len() + n).min(MAX_VALUE), 0x55);
            format!("AG {ag}: section {kind} of {n} bytes")
        }
    })
}

/// The items of the inline tree of groups of an AG record.
fn inline(v: &[u8]) -> Items {
    let mut items = Vec::new();
    let Some((at, len)) = structure::sections(v, AG_SECTIONS)
        .into_iter()
        .find(|(at, _)| v[*at..*at + 2] == [GROUPS, INLINE])
    else {
        return items;
    };
    let mut rest = v[at + 4..at + 4 + len].get(2..).unwrap_or_default();
    while let (Some(key), Some(len)) = (le64(rest, 0), le16(rest, 8)) {
        let end = (10 + usize::from(len)).min(rest.len());
        items.push((key, rest[10..end].to_vec()));
        rest = &rest[end..];
    }
    items
}

/// Puts an inline tree of groups into an AG record that has no other section, in place of its tree.
fn put_inline(v: &mut Vec<u8>, items: &Items) {
    v.truncate(AG_SECTIONS);
    if items.is_empty() {
        return;
    }
    let mut tree = (items.len() as u16).to_le_bytes().to_vec();
    for (key, value) in items {
        tree.extend(key.to_le_bytes());
        tree.extend((value.len() as u16).to_le_bytes());
        tree.extend(value);
    }
    tree.truncate(MAX_VALUE - AG_SECTIONS - 4);
    v.extend([GROUPS, INLINE]);
    v.extend((tree.len() as u16).to_le_bytes());
    v.extend(tree);
}

/// Lets the numbers of an AG record be those of its groups.
fn count(v: &mut [u8], len: u64, tree: &Items) {
    let mut used = 0;
    for (g, value) in tree {
        let groups = match value[..] {
            [FULL, groups, ..] => groups,
            _ => 1,
        };
        let of = |g| len.saturating_sub(g * GROUP_BLOCKS).min(GROUP_BLOCKS);
        let blocks = (0..u64::from(groups)).map(|i| of(g.saturating_add(i) % 64));
        let free = u64::from(le16(&value[..], 2).unwrap_or(0));
        used += blocks.sum::<u64>().saturating_sub(free);
    }
    let free = len.saturating_sub(used);
    v[..4].copy_from_slice(&(free as u32).to_le_bytes());
    v[4] = run_class(free.min(GROUP_BLOCKS));
    // It was used.
    v[5] &= !2;
}

/// The first bytes of a group record.
fn head(form: u8, groups: u8, free: u16) -> Vec<u8> {
    let mut v = vec![form, groups];
    v.extend(free.to_le_bytes());
    v.resize(HEAD, 0);
    v
}

/// A record of a group of `len` blocks, which is right by itself.
fn group_record(u: &mut Unstructured<'_>, len: u64) -> Result<Vec<u8>> {
    if u.ratio(1, 3)? {
        return Ok(head(FULL, u.int_in_range(1..=5)?, 0));
    }
    let mut random = fastrand::Rng::with_seed(u.arbitrary()?);
    // One of `rare` blocks is the first of a free run.
    let rare = 1 << u.int_in_range(1..=12)?;
    let mut bits = vec![0xff; GROUP_BLOCKS as usize / 8];
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < len {
        let end = (at + random.u64(1..=8)).min(len);
        if random.u64(..rare) == 0 {
            runs.push((at, end));
            (at..end).for_each(|i| bits[i as usize / 8] &= !(1 << (i % 8)));
        }
        // They do not touch.
        at = end + 1;
    }
    let free = runs.iter().map(|(from, to)| to - from).sum::<u64>() as u16;
    Ok(match runs.len() {
        0 => head(FULL, 1, 0),
        1..=64 => {
            let mut v = head(RUNS, 1, free);
            for (from, to) in runs {
                v.extend((from as u16).to_le_bytes());
                v.extend(((to - from) as u16).to_le_bytes());
            }
            v
        }
        _ => {
            let past_end = len as usize..GROUP_BLOCKS as usize;
            past_end.for_each(|i| bits[i / 8] &= !(1 << (i % 8)));
            let mut v = head(BITMAP, 1, free);
            v.extend(bits);
            v
        }
    })
}

/// Puts a record for one of the groups of an AG of `len` blocks.
fn put_group(u: &mut Unstructured<'_>, len: u64, items: &mut Items) -> Result<String> {
    let groups = len.div_ceil(GROUP_BLOCKS).max(1);
    let g = u.int_in_range(0..=groups - 1)?;
    let of_group = len.saturating_sub(g * GROUP_BLOCKS).min(GROUP_BLOCKS);
    let record = group_record(u, of_group)?;
    let what = format!("group {g} of form {} for {}", record[0], record[1]);
    items.retain(|(key, _)| *key != g);
    items.push((g, record));
    items.sort_unstable_by_key(|(key, _)| *key);
    Ok(what)
}

/// Changes the groups in a leaf, and often the numbers of the AG as well.
fn groups(
    c: &mut Changes<'_>,
    n: &Node,
    u: &mut Unstructured<'_>,
    items: &mut Items,
) -> Result<String> {
    let s = c.structure();
    let free = |items: &Items| -> u64 {
        let of = |v: &Vec<u8>| u64::from(le16(&v[..], 2).unwrap_or(0));
        items.iter().map(|(_, v)| of(v)).sum()
    };
    let before = free(items);
    let what = match u.ratio(2, 3)? {
        true => put_group(u, s.ag_blocks, items)?,
        false => edit_items(s, u, items)?,
    };
    let by = free(items).wrapping_sub(before) as u32;
    let agree: bool = u.ratio(3, 4)?;
    if agree {
        add_free(c, n, by);
    }
    Ok(format!("{what}, counted: {agree}"))
}

/// Adds to the free blocks in the record of the AG with node `n`.
fn add_free(c: &mut Changes<'_>, n: &Node, by: u32) {
    let s = c.structure();
    let mut top = n;
    while let Some(parent) = s.parent(top) {
        let b: &Bytes = c.block(parent.block);
        if structure::kind(b) == TreeKind::Ag as u8 {
            let ptr = top.ptr.to_bytes();
            let has =
                |v: &std::ops::Range<usize>| b[v.clone()].windows(16).any(|w| w == &ptr[..16]);
            let values = (0..structure::entries(b)).filter_map(|i| structure::value(b, i));
            let Some(at) = values.into_iter().find(has).map(|v| v.start) else {
                return;
            };
            let free = le32(b, at).unwrap_or(0).wrapping_add(by);
            let b = c.block_mut(parent.block);
            b[at..at + 4].copy_from_slice(&free.to_le_bytes());
            return;
        }
        top = parent;
    }
}

/// Changes the entries of the deferred tree.
fn deferred(s: &Structure, u: &mut Unstructured<'_>, items: &mut Items) -> Result<String> {
    if u.ratio(1, 3)? {
        return edit_items(s, u, items);
    }
    let address = number(s, u)?;
    if u.arbitrary()? {
        items.remove(u.choose_index(items.len())?);
    }
    items.retain(|(key, _)| *key != address);
    items.push((address, vec![1]));
    items.sort_unstable_by_key(|(key, _)| *key);
    Ok(format!("address {address:#x}"))
}
