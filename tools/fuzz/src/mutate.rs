// SPDX-License-Identifier: GPL-2.0

//! Recipes: bytes that say how to change an image.
//!
//! Bytes that end early stand for zeroes, so every string of bytes is a recipe, and a part of one is
//! often a simpler recipe of the same kind.
//!
//! Tests: tools/fuzz/tests/corpus.rs.

use crate::base::Base;
use crate::changes::Changes;
use crate::edit::{edit_items, field};
use crate::leaf;
use crate::seal::{self, Agree};
use crate::space;
use crate::structure::{self, Node};
use crate::Bytes;
use arbitrary::{Result, Unstructured};
use ordofs_crash::engine::format::node::{NODE_HEADER, SLOT_LEN};

/// How many changes a recipe makes: mostly one, because of several the first one that is noticed hides
/// the others.
const CHANGES: [usize; 8] = [1, 1, 1, 1, 2, 2, 3, 6];

/// Reads a recipe, and changes `base` as it says.
pub fn mutate<'a>(base: &'a Base, u: &mut Unstructured<'_>) -> Result<Changes<'a>> {
    let mut c = Changes::new(base);
    let agree = Agree {
        pointers: u.arbitrary()?,
        sums: u.ratio(3, 4)?,
        free: u.ratio(3, 4)?,
    };
    for _ in 0..*u.choose(&CHANGES)? {
        match u.int_in_range(0..=11)? {
            0 => superblock(&mut c, u)?,
            1 | 2 => batch(&mut c, u)?,
            3..=5 if space::change(&mut c, u)? => {}
            _ => node(&mut c, u)?,
        }
        if u.is_empty() {
            break;
        }
    }
    seal::all(&mut c, agree);
    if u.ratio(1, 8)? {
        damage(&mut c, u)?;
    }
    Ok(c)
}

/// Changes a superblock: both copies will say the same.
fn superblock(c: &mut Changes<'_>, u: &mut Unstructured<'_>) -> Result<()> {
    let s = c.structure();
    let b = c.block_mut(s.superblocks[0]);
    // Most of it is in use up to the roots; after them everything is reserved.
    let end = if u.ratio(7, 8)? { 2560 } else { b.len() };
    let what = field(s, u, b, 0, end)?;
    c.words.push(format!("superblock: {what}"));
    Ok(())
}

/// Changes a batch of the log, or puts the records of another one behind its header.
fn batch(c: &mut Changes<'_>, u: &mut Unstructured<'_>) -> Result<()> {
    let s = c.structure();
    if s.batches.is_empty() {
        return node(c, u);
    }
    let i = u.choose_index(s.batches.len())?;
    let blocks = &s.batches[i];
    let first = blocks[0];
    let len = |b: &Bytes| {
        let n = u32::from_le_bytes([b[40], b[41], b[42], b[43]]) as usize;
        (64 + n).min(b.len())
    };
    let what = match u.int_in_range(0..=7)? {
        0 => field(s, u, c.block_mut(first), 0, 64)?,
        1 => {
            let from = s.batches[u.choose_index(s.batches.len())?][0];
            let other = *c.block(from);
            let b = c.block_mut(first);
            b[40..44].copy_from_slice(&other[40..44]);
            b[64..].copy_from_slice(&other[64..]);
            format!("records of the batch at {from}")
        }
        // The records of the first block, one of which is removed or comes twice.
        2 => {
            let b = c.block_mut(first);
            let end = len(b);
            let mut all = records(&b[64..end]);
            if all.is_empty() {
                return Ok(());
            }
            let k = u.choose_index(all.len())?;
            let to = u.choose_index(all.len())?;
            let r = all[k].clone();
            let twice: bool = u.arbitrary()?;
            if !twice {
                all.remove(k);
            }
            all.insert(to.min(all.len()), r);
            let bytes = all.concat();
            let n = bytes.len().min(b.len() - 64);
            b[64..].fill(0);
            b[64..64 + n].copy_from_slice(&bytes[..n]);
            b[40..44].copy_from_slice(&(n as u32).to_le_bytes());
            format!("record {k} at {to}, twice: {twice}")
        }
        // A field of a record.
        3..=5 => {
            let b = c.block_mut(first);
            let end = len(b);
            let n = records(&b[64..end]).len();
            let k = u.choose_index(n.max(1))?;
            let from = 64 + records(&b[64..end])[..k.min(n)].concat().len();
            let to = records(&b[from..end])
                .first()
                .map_or(end, |r| from + r.len());
            field(s, u, b, from, to)?
        }
        _ => {
            let at = blocks[u.choose_index(blocks.len())?];
            let b = c.block_mut(at);
            let end = if at == first { len(b) } else { b.len() };
            field(s, u, b, 0, end)?
        }
    };
    c.words.push(format!("batch {i} at {first}: {what}"));
    Ok(())
}

/// The records of a payload, by their lengths.
fn records(mut b: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while b.len() >= 4 {
        let len = u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize;
        if len < 4 || len > b.len() {
            break;
        }
        all.push(b[..len].to_vec());
        b = &b[len..];
    }
    all
}

/// Changes a node.
fn node(c: &mut Changes<'_>, u: &mut Unstructured<'_>) -> Result<()> {
    let s = c.structure();
    let n = u.choose(&s.nodes)?;
    let b = c.block_mut(n.block);
    let what = match structure::level(b) {
        0 => in_leaf(c, n, u)?,
        _ => in_interior(c, n, u)?,
    };
    let b = c.block(n.block);
    let (kind, level) = (structure::kind(b), structure::level(b));
    let words = format!("node {} (kind {kind}, level {level}): {what}", n.block);
    c.words.push(words);
    Ok(())
}

fn in_leaf(c: &mut Changes<'_>, n: &Node, u: &mut Unstructured<'_>) -> Result<String> {
    let s = c.structure();
    let count = structure::entries(c.block(n.block));
    let i = u.choose_index(count.max(1))?;
    let b = c.block_mut(n.block);
    Ok(match u.int_in_range(0..=9)? {
        0 => field(s, u, b, 8, NODE_HEADER)?,
        1 => {
            let slot = NODE_HEADER + i * SLOT_LEN;
            format!("slot {i}, {}", field(s, u, b, slot, slot + SLOT_LEN)?)
        }
        2..=6 => match structure::value(b, i) {
            // Records begin with what matters; of long ones the rest is often a name or checksums.
            Some(v) => {
                let end = match u.ratio(3, 4)? {
                    true => v.end.min(v.start + 64),
                    false => v.end,
                };
                let at = v.start;
                format!("value {i} at {at}, {}", field(s, u, b, at, end)?)
            }
            None => "nothing".to_owned(),
        },
        7 => {
            let from = u.choose(&s.nodes)?;
            let other = leaf::items(c.block(from.block));
            let b = c.block_mut(n.block);
            let mut items = leaf::items(b);
            if other.is_empty() || items.is_empty() {
                return Ok("nothing".to_owned());
            }
            let k = u.choose_index(other.len())?;
            let i = i.min(items.len() - 1);
            items[i].1.clone_from(&other[k].1);
            leaf::put(b, &items);
            format!("value {i} is value {k} of node {}", from.block)
        }
        _ => {
            let mut items = leaf::items(b);
            let what = edit_items(s, u, &mut items)?;
            leaf::put(b, &items);
            what
        }
    })
}

fn in_interior(c: &mut Changes<'_>, n: &Node, u: &mut Unstructured<'_>) -> Result<String> {
    let s = c.structure();
    let count = structure::entries(c.block(n.block));
    let i = u.choose_index(count.max(1))?;
    let other = u.choose(&s.nodes)?;
    let b = c.block_mut(n.block);
    let size = structure::entry_len(b);
    let at = NODE_HEADER + i * size;
    Ok(match u.int_in_range(0..=5)? {
        0 => field(s, u, b, 8, NODE_HEADER)?,
        1 => format!("entry {i}, {}", field(s, u, b, at, at + 8)?),
        2 => format!("entry {i}, {}", field(s, u, b, at + 8, at + size)?),
        3 => {
            b[at + 8..at + 8 + 32].copy_from_slice(&other.ptr.to_bytes());
            format!("entry {i} points to node {}", other.block)
        }
        // One entry less, or one twice.
        k if count > 0 => {
            let end = NODE_HEADER + count * size;
            let (n, words) = match k {
                4 => {
                    b.copy_within(at + size..end, at);
                    (count.saturating_sub(1), "removed")
                }
                _ if end + size <= b.len() => {
                    b.copy_within(at..end, at + size);
                    (count + 1, "twice")
                }
                _ => (count, "full"),
            };
            b[42..44].copy_from_slice(&(n as u16).to_le_bytes());
            b.get_mut(NODE_HEADER + n * size..)
                .unwrap_or_default()
                .fill(0);
            format!("entry {i} {words}")
        }
        _ => "nothing".to_owned(),
    })
}

/// Damages a few blocks, whose checksums are wrong then.
fn damage(c: &mut Changes<'_>, u: &mut Unstructured<'_>) -> Result<()> {
    let all: Vec<u64> = c.image_blocks().copied().collect();
    for _ in 0..u.int_in_range(1..=3)? {
        let at = *u.choose(&all)?;
        let b = c.block_mut(at);
        let words = match u.int_in_range(0..=2)? {
            0 => {
                let k = u.int_in_range(0..=7)?;
                b[k * 512..(k + 1) * 512].fill(0);
                format!("sector {k} lost")
            }
            1 => {
                b.fill(0);
                "lost".to_owned()
            }
            _ => {
                let (i, bit) = (u.int_in_range(0..=4095)?, u.int_in_range(0..=7)?);
                b[i] ^= 1 << bit;
                format!("byte {i}, bit {bit} flipped")
            }
        };
        c.words.push(format!("block {at}: {words}"));
    }
    Ok(())
}
