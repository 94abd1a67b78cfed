// SPDX-License-Identifier: GPL-2.0

//! Sections: the parts of an inode record or an AG record that follow its fields.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | type; bit 7: a reader that does not know the type ignores the section |
//! | 1 | 1 | form: 1 = inline tree, 2 = NodePtr of the tree's root, 3 = bytes |
//! | 2 | 2 | length of the content |
//! | 4 | .. | content |
//!
//! The types ascend. A section that may be ignored is kept, byte by byte, in every later record of
//! the same object. All other unknown sections are refused.
//!
//! Tests: `tools/engine/tests/inode_records.rs`, `tools/engine/tests/space_records.rs`.

use super::{le16, NodePtr, NODE_PTR_LEN};
use core::fmt;
use core::ops::RangeInclusive;
use kernel::prelude::*;

/// A tree is inlined if its image ([`crate::engine::btree::Tree::inline_image`]) has at most this
/// many bytes; fewer if the sections that are kept need the room.
pub const INLINE_TREE_MAX: usize = 320;
/// Bytes of a section before its content.
pub(super) const SECTION_HEAD: usize = 4;

/// Bit of a section's type: a reader that does not know the type ignores the section, and keeps it.
pub(super) const MAY_IGNORE: u8 = 0x80;

const FORM_INLINE: u8 = 1;
const FORM_PTR: u8 = 2;
const FORM_BYTES: u8 = 3;

/// The root of a tree, as a record has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RootForm<'a> {
    /// The tree is empty.
    Empty,
    /// The items of the only leaf, inline.
    Inline(&'a [u8]),
    /// The pointer to the root node.
    Ptr(NodePtr),
}

impl RootForm<'_> {
    /// Whether the tree is empty.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

/// What is wrong with a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The type of the section that it is about.
    section: Option<u8>,
    what: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.section {
            Some(kind) => write!(f, "section {kind}: {}", self.what),
            None => f.write_str(self.what),
        }
    }
}

impl From<&'static str> for Fault {
    fn from(what: &'static str) -> Self {
        Self {
            section: None,
            what,
        }
    }
}

/// What a record allows in its sections.
pub(super) struct Limits {
    /// The types of sections with trees.
    pub(super) trees: RangeInclusive<u8>,
    /// The most bytes of all other sections, with their heads: beside them there is room for the
    /// pointers to the roots of the trees.
    pub(super) max_other: usize,
}

/// Calls `f(type, form, content)` for each section of `v`; the sections start at byte `start`.
/// Returns the sections that a reader may ignore, from the head of the first one on.
pub(super) fn each_section<'a>(
    v: &'a [u8],
    start: usize,
    limits: &Limits,
    mut f: impl FnMut(u8, u8, &'a [u8]) -> core::result::Result<(), &'static str>,
) -> core::result::Result<&'a [u8], Fault> {
    let mut ignorable: &[u8] = &[];
    let (mut at, mut last, mut other) = (start, 0, 0);
    while let Some(kind) = v.get(at).copied() {
        let fault = |what| Fault {
            section: Some(kind),
            what,
        };
        let cut = || fault("it is cut off");
        let form = *v.get(at + 1).ok_or_else(cut)?;
        let len = usize::from(le16(v, at + 2).ok_or_else(cut)?);
        let end = at + SECTION_HEAD + len;
        let body = v.get(at + SECTION_HEAD..end).ok_or_else(cut)?;
        if kind <= last {
            return Err(fault("it is there twice, or in the wrong place"));
        }
        last = kind;
        if kind & MAY_IGNORE != 0 && ignorable.is_empty() {
            ignorable = v.get(at..).unwrap_or(&[]);
        }
        if !limits.trees.contains(&kind) {
            other += SECTION_HEAD + len;
        }
        f(kind, form, body).map_err(fault)?;
        if other > limits.max_other {
            return Err(fault("the sections are too long together"));
        }
        at = end;
    }
    Ok(ignorable)
}

/// The root of a tree in the content of a section.
pub(super) fn root(form: u8, body: &[u8]) -> core::result::Result<RootForm<'_>, &'static str> {
    match form {
        FORM_INLINE if body.is_empty() => Err("it is empty"),
        FORM_INLINE if body.len() > INLINE_TREE_MAX => Err("it is too long"),
        FORM_INLINE => Ok(RootForm::Inline(body)),
        FORM_PTR if body.len() != NODE_PTR_LEN => Err("it has not the length of a pointer"),
        FORM_PTR => NodePtr::decode(body)
            .map(RootForm::Ptr)
            .ok_or("malformed root pointer"),
        _ => Err("it has an unknown form"),
    }
}

/// The bytes in the content of a section.
pub(super) fn bytes(
    form: u8,
    body: &[u8],
    max: usize,
) -> core::result::Result<&[u8], &'static str> {
    match form {
        FORM_BYTES if body.is_empty() => Err("it is empty"),
        FORM_BYTES if body.len() > max => Err("it is too long"),
        FORM_BYTES => Ok(body),
        _ => Err("it has an unknown form"),
    }
}

fn put_section(out: &mut KVec<u8>, kind: u8, form: u8, body: &[u8]) -> Result {
    out.extend_from_slice(&[kind, form], GFP_KERNEL)?;
    out.extend_from_slice(&(body.len() as u16).to_le_bytes(), GFP_KERNEL)?;
    out.extend_from_slice(body, GFP_KERNEL)?;
    Ok(())
}

/// Appends the section of a tree; none if the tree is empty.
pub(super) fn put_root(out: &mut KVec<u8>, kind: u8, root: &RootForm<'_>) -> Result {
    match root {
        RootForm::Empty => Ok(()),
        RootForm::Inline(items) => put_section(out, kind, FORM_INLINE, items),
        RootForm::Ptr(p) => put_section(out, kind, FORM_PTR, &p.to_bytes()),
    }
}

/// Appends a section of bytes; none if there are no bytes.
pub(super) fn put_bytes(out: &mut KVec<u8>, kind: u8, body: &[u8]) -> Result {
    match body {
        [] => Ok(()),
        body => put_section(out, kind, FORM_BYTES, body),
    }
}
