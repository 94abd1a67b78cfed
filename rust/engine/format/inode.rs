// SPDX-License-Identifier: GPL-2.0

//! Inode records: the values of the inode tree. The key is the inode number.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | mode |
//! | 4 | 4 | nlink |
//! | 8 | 4 | uid |
//! | 12 | 4 | gid |
//! | 16 | 8 | size in bytes |
//! | 24 | 8 | allocated data blocks |
//! | 32 | 8 | rdev |
//! | 40 | 4 | `FS_*_FL` flags |
//! | 44 | 4 | state: 1 = truncation under way: blocks past size are to be freed |
//! | 48 | 8 | inode number of the parent (directories), else 0 |
//! | 56 | 48 | atime, mtime, ctime, btime: seconds i64, nanoseconds u32 each |
//! | 104 | 8 | generation that wrote the record |
//! | 112 | .. | sections: type u8, form u8, length u16, payload |
//!
//! Section types: 1 extents, 2 directory (for a symbolic link: its target in pieces), 3 xattrs, 5
//! file data (reserved). Forms: 1 = inline, the items of a tree that is one small leaf; 2 = the
//! NodePtr of the tree's root. Sizes are in bytes, `blocks` in blocks.
//!
//! Tests: `tools/engine/tests/impossible.rs`, `tools/engine/tests/attrs.rs`,
//! `tools/engine/tests/checker.rs`.

use super::node::MAX_VALUE;
use super::{corrupt, le16, le32, le64, NodePtr, NODE_PTR_LEN};
use crate::engine::types::Attrs;
use crate::os::Time;
use kernel::prelude::*;

/// Bytes before the sections.
pub const HEADER: usize = 112;
/// The longest inode record in bytes.
pub const MAX_RECORD: usize = 1280;
/// A tree is inlined if its image ([`crate::engine::btree::Tree::inline_image`]) has at most this
/// many bytes.
pub const INLINE_TREE_MAX: usize = 320;
const _: () = assert!(HEADER + 3 * INLINE_TREE_MAX <= MAX_RECORD && MAX_RECORD <= MAX_VALUE);

/// State bit: a truncation is under way; blocks past the size are still to be freed.
pub const STATE_TRUNCATE: u32 = 1;

/// Section types.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Section {
    /// Extent tree.
    Extents = 1,
    /// Directory tree.
    Dir = 2,
    /// Xattr tree.
    Xattr = 3,
}

const FORM_INLINE: u8 = 1;
const FORM_PTR: u8 = 2;

/// The root of one of an inode's trees, as the record has it.
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

/// A decoded record. The roots borrow from its bytes.
pub struct InodeRecord<'a> {
    /// Attributes.
    pub attrs: Attrs,
    /// Allocated data blocks.
    pub blocks: u64,
    /// `STATE_*`.
    pub state: u32,
    /// Parent directory, for directories.
    pub parent: u64,
    /// Generation of the commit that wrote the record.
    pub generation: u64,
    /// Extent tree.
    pub extents: RootForm<'a>,
    /// Directory tree.
    pub dir: RootForm<'a>,
    /// Xattr tree.
    pub xattr: RootForm<'a>,
}

fn time(v: &[u8], at: usize) -> Option<Time> {
    let nsec = le32(v, at + 8)?;
    (nsec < 1_000_000_000).then_some(Time {
        sec: le64(v, at)? as i64,
        nsec,
    })
}

fn put_time(out: &mut KVec<u8>, t: Time) -> Result {
    out.extend_from_slice(&t.sec.to_le_bytes(), GFP_KERNEL)?;
    out.extend_from_slice(&t.nsec.to_le_bytes(), GFP_KERNEL)?;
    Ok(())
}

impl<'a> InodeRecord<'a> {
    /// Decodes and checks the record `v` of inode `ino`. EUCLEAN if it cannot be true.
    pub fn decode(ino: u64, v: &'a [u8]) -> Result<Self> {
        let bad = |what| corrupt("inode", ino, what);
        Self::parse(v)
            .ok_or_else(|| bad("malformed header"))?
            .sections(v)
            .map_err(bad)
    }

    /// Decodes the fields before the sections.
    fn parse(v: &[u8]) -> Option<Self> {
        let attrs = Attrs {
            mode: le32(v, 0)?,
            nlink: le32(v, 4)?,
            uid: le32(v, 8)?,
            gid: le32(v, 12)?,
            size: le64(v, 16)?,
            rdev: le64(v, 32)?,
            flags: le32(v, 40)?,
            atime: time(v, 56)?,
            mtime: time(v, 68)?,
            ctime: time(v, 80)?,
            btime: time(v, 92)?,
        };
        Some(Self {
            attrs,
            blocks: le64(v, 24)?,
            state: le32(v, 44)?,
            parent: le64(v, 48)?,
            generation: le64(v, 104)?,
            extents: RootForm::Empty,
            dir: RootForm::Empty,
            xattr: RootForm::Empty,
        })
    }

    /// Checks the fields and decodes the sections.
    fn sections(mut self, v: &'a [u8]) -> core::result::Result<Self, &'static str> {
        if !matches!(self.attrs.mode >> 12, 1 | 2 | 4 | 6 | 8 | 10 | 12) {
            return Err("impossible file type");
        }
        if self.attrs.size > i64::MAX as u64 {
            return Err("impossible size");
        }
        if self.state & !STATE_TRUNCATE != 0 {
            return Err("unknown state bits");
        }
        let mut at = HEADER;
        while at < v.len() {
            let kind = *v.get(at).ok_or("section is missing")?;
            let form = *v.get(at + 1).ok_or("section header is cut off")?;
            let len = usize::from(le16(v, at + 2).ok_or("section header is cut off")?);
            let body = v.get(at + 4..at + 4 + len).ok_or("section is cut off")?;
            at += 4 + len;
            let root = match form {
                FORM_INLINE => RootForm::Inline(body),
                FORM_PTR => RootForm::Ptr(NodePtr::decode(body).ok_or("malformed root pointer")?),
                _ => return Err("unknown form of a section"),
            };
            match kind {
                1 => self.extents = root,
                2 => self.dir = root,
                3 => self.xattr = root,
                _ => return Err("unknown section"),
            }
        }
        Ok(self)
    }

    /// Encodes the record into `out`. ENOMEM.
    pub fn encode(&self, out: &mut KVec<u8>) -> Result {
        out.clear();
        let a = &self.attrs;
        for w in [a.mode, a.nlink, a.uid, a.gid] {
            out.extend_from_slice(&w.to_le_bytes(), GFP_KERNEL)?;
        }
        for d in [a.size, self.blocks, a.rdev] {
            out.extend_from_slice(&d.to_le_bytes(), GFP_KERNEL)?;
        }
        out.extend_from_slice(&a.flags.to_le_bytes(), GFP_KERNEL)?;
        out.extend_from_slice(&self.state.to_le_bytes(), GFP_KERNEL)?;
        out.extend_from_slice(&self.parent.to_le_bytes(), GFP_KERNEL)?;
        for t in [a.atime, a.mtime, a.ctime, a.btime] {
            put_time(out, t)?;
        }
        out.extend_from_slice(&self.generation.to_le_bytes(), GFP_KERNEL)?;
        put_root(out, Section::Extents, &self.extents)?;
        put_root(out, Section::Dir, &self.dir)?;
        put_root(out, Section::Xattr, &self.xattr)?;
        Ok(())
    }
}

fn put_section(out: &mut KVec<u8>, kind: Section, form: u8, body: &[u8]) -> Result {
    out.extend_from_slice(&[kind as u8, form], GFP_KERNEL)?;
    out.extend_from_slice(&(body.len() as u16).to_le_bytes(), GFP_KERNEL)?;
    out.extend_from_slice(body, GFP_KERNEL)?;
    Ok(())
}

fn put_root(out: &mut KVec<u8>, kind: Section, root: &RootForm<'_>) -> Result {
    match root {
        RootForm::Empty => Ok(()),
        RootForm::Inline(items) => put_section(out, kind, FORM_INLINE, items),
        RootForm::Ptr(p) => {
            let mut b = [0u8; NODE_PTR_LEN];
            p.encode(&mut b);
            put_section(out, kind, FORM_PTR, &b)
        }
    }
}
