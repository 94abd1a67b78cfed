// SPDX-License-Identifier: GPL-2.0

//! Inode records: the values of the inode tree. The key is the inode number.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | mode |
//! | 4 | 4 | number of links |
//! | 8 | 4 | user |
//! | 12 | 4 | group |
//! | 16 | 4 | project |
//! | 20 | 4 | generation number, for file handles |
//! | 24 | 8 | size in bytes |
//! | 32 | 8 | allocated data blocks |
//! | 40 | 8 | device number |
//! | 48 | 4 | `FS_*_FL` flags |
//! | 52 | 4 | state: 1 = truncation under way |
//! | 56 | 8 | inode number of the parent (directories), else 0 |
//! | 64 | 48 | atime, mtime, ctime, btime: seconds i64, nanoseconds u32 each |
//! | 112 | 8 | change counter |
//! | 120 | 8 | with state 1: the first file block to be freed, else 0 |
//! | 128 | 8 | generation of the commit that wrote the record |
//! | 136 | 4 | home AG |
//! | 140 | 4 | `FS_XFLAG_*` flags without an `FS_*_FL` flag |
//! | 144 | 4 | extent size hint in blocks |
//! | 148 | 12 | zero |
//! | 160 | .. | sections: type u8, form u8, length u16, content; types ascend |
//!
//! Section types: 1 extents, 2 directory (for a symbolic link: its target in pieces), 3 xattrs, 5
//! file data, 6 encryption, 7 verity, 0x88 compression. Forms: 1 = inline, the items of a tree that
//! is one small leaf; 2 = the NodePtr of the tree's root; 3 = bytes. A section with bit 7 set in
//! its type may be unknown: the engine ignores it and keeps it, byte by byte, in every later
//! record of the inode. All other unknown sections are refused.
//!
//! Tests: `tools/engine/tests/inode_records.rs`, `tools/engine/tests/impossible.rs`,
//! `tools/engine/tests/checker.rs`.

use super::node::MAX_VALUE;
use super::section::{
    bytes, each_section, put_bytes, put_root, root, Fault, Limits, MAY_IGNORE, SECTION_HEAD,
};
use super::{corrupt_fmt, le32, le64, put, MAX_INO, NODE_PTR_LEN};
use crate::engine::types::*;
use kernel::prelude::*;

pub use super::section::{RootForm, INLINE_TREE_MAX};

/// Bytes before the sections.
pub const HEADER: usize = 160;
/// The longest inode record in bytes.
pub const MAX_RECORD: usize = 1280;
const _: () = assert!(MAX_RECORD <= MAX_VALUE);
/// An inode has at most two trees with a section each: extents or a directory, and xattrs.
const TREES: usize = 2;
const _: () = assert!(HEADER + TREES * (SECTION_HEAD + INLINE_TREE_MAX) <= MAX_RECORD);
/// The most bytes of all sections that are not trees, with their heads: beside them there is room
/// for the pointers to the roots.
const MAX_OTHER: usize = MAX_RECORD - HEADER - TREES * (SECTION_HEAD + NODE_PTR_LEN);
const LIMITS: Limits = Limits {
    trees: 1..=3,
    max_other: MAX_OTHER,
};

/// The most bytes of an inline tree in a record that has `other` bytes of sections that are not
/// trees.
pub const fn inline_tree_max(other: usize) -> usize {
    let room = (MAX_RECORD - HEADER).saturating_sub(other) / TREES;
    let room = room.saturating_sub(SECTION_HEAD);
    if room < INLINE_TREE_MAX {
        room
    } else {
        INLINE_TREE_MAX
    }
}

/// State bit: a truncation is under way; mappings from the record's `cut` on are to be freed.
pub const STATE_TRUNCATE: u32 = 1;
/// The greatest change counter: the VFS has 63 bits for it.
pub const MAX_CHANGE: u64 = i64::MAX as u64;
/// The `FS_XFLAG_*` flags that have no `FS_*_FL` flag: REALTIME, PREALLOC, RTINHERIT, NOSYMLINKS,
/// EXTSIZE, EXTSZINHERIT, NODEFRAG, FILESTREAM, COWEXTSIZE.
pub const XFLAGS: u32 = 0x1_7d03;
/// The `FS_*_FL` flags of encrypted files, of files with verity, and of directories with
/// case-insensitive names.
const FL_ENCRYPT: u32 = 0x800;
const FL_VERITY: u32 = 0x10_0000;
const FL_CASEFOLD: u32 = 0x4000_0000;
/// Why this code cannot use an inode with such `FS_*_FL` flags.
pub fn unsupported_flags(flags: u32) -> Option<&'static str> {
    Some(if flags & FL_ENCRYPT != 0 {
        "encryption is not supported"
    } else if flags & FL_VERITY != 0 {
        "verity is not supported"
    } else if flags & FL_CASEFOLD != 0 {
        "case-insensitive names are not supported"
    } else {
        return None;
    })
}

/// The greatest extent size hint: the blocks of the largest allocation group.
pub const MAX_EXTENT_HINT: u32 = 1 << 18;

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
    /// Content of a small file.
    Data = 5,
    /// Encryption context.
    Crypt = 6,
    /// Verity.
    Verity = 7,
    /// Compression.
    Compression = 0x88,
}

/// The most bytes of file data in a record.
pub const MAX_DATA: usize = 640;
/// The most bytes of an encryption context.
pub const MAX_CRYPT: usize = 64;
/// The most bytes about verity.
pub const MAX_VERITY: usize = 64;
/// The most bytes about compression.
pub const MAX_COMPRESSION: usize = 16;
const _: () = assert!(MAX_DATA + MAX_CRYPT + MAX_VERITY + MAX_COMPRESSION <= MAX_OTHER);

/// A decoded record. Roots and sections borrow from its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InodeRecord<'a> {
    /// Attributes.
    pub attrs: Attrs,
    /// Allocated data blocks.
    pub blocks: u64,
    /// `STATE_*`.
    pub state: u32,
    /// With [`STATE_TRUNCATE`]: the first file block to be freed; else 0.
    pub cut: u64,
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
    /// Content of a small file; empty if there is no such section.
    pub data: &'a [u8],
    /// Encryption context; empty if there is no such section.
    pub crypt: &'a [u8],
    /// Verity; empty if there is no such section.
    pub verity: &'a [u8],
    /// The sections that a reader may ignore, from the head of the first one on.
    pub ignorable: &'a [u8],
}

fn time(v: &[u8], at: usize) -> Option<Time> {
    Some(Time {
        sec: le64(v, at)? as i64,
        nsec: le32(v, at + 8)?,
    })
}

/// Why an inode cannot have these attributes; `None` if it can. For records of the log, too.
pub(crate) fn impossible(a: &Attrs) -> Option<&'static str> {
    let kind = a.mode & S_IFMT;
    Some(if !is_kind(a.mode) {
        "impossible file type"
    } else if a.nlink > LINK_MAX {
        "impossible number of links"
    } else if [a.uid, a.gid, a.project].contains(&u32::MAX) {
        "its owner, group or project is 4294967295, which is not a valid id"
    } else if a.handle_generation == 0 {
        "it has no generation number"
    } else if a.size > i64::MAX as u64 {
        "impossible size"
    } else if kind == S_IFLNK && a.size > SYMLINK_MAX as u64 {
        "the target is too long"
    } else if a.rdev > u64::from(u32::MAX) || (a.rdev != 0 && !is_device(kind)) {
        "impossible device number"
    } else if a.change > MAX_CHANGE {
        "impossible change counter"
    } else if a.xflags & !XFLAGS != 0 {
        "unknown FS_XFLAG flags"
    } else if a.extent_hint > MAX_EXTENT_HINT {
        "impossible extent size hint"
    } else if [a.atime, a.mtime, a.ctime, a.btime]
        .iter()
        .any(|t| t.nsec >= 1_000_000_000)
    {
        "impossible time"
    } else {
        return None;
    })
}

impl<'a> InodeRecord<'a> {
    /// Decodes and checks the record `v` of inode `ino`. EUCLEAN if it cannot be true.
    pub fn decode(ino: u64, v: &'a [u8]) -> Result<Self> {
        Self::parse(v).map_err(|fault| corrupt_fmt(format_args!("inode {ino}: {fault}")))
    }

    /// Decodes and checks a record, and says what is wrong with it if it cannot be true.
    pub fn parse(v: &'a [u8]) -> core::result::Result<Self, Fault> {
        if v.len() > MAX_RECORD {
            return Err("the record is too long".into());
        }
        let mut rec = Self::fields(v).ok_or("the record is cut off")?;
        rec.sections(v)?;
        match rec.contradiction(v) {
            Some(what) => Err(what.into()),
            None => Ok(rec),
        }
    }

    /// Decodes the fields before the sections.
    fn fields(v: &[u8]) -> Option<Self> {
        if v.len() < HEADER {
            return None;
        }
        let attrs = Attrs {
            mode: le32(v, 0)?,
            nlink: le32(v, 4)?,
            uid: le32(v, 8)?,
            gid: le32(v, 12)?,
            project: le32(v, 16)?,
            handle_generation: le32(v, 20)?,
            size: le64(v, 24)?,
            rdev: le64(v, 40)?,
            flags: le32(v, 48)?,
            atime: time(v, 64)?,
            mtime: time(v, 76)?,
            ctime: time(v, 88)?,
            btime: time(v, 100)?,
            change: le64(v, 112)?,
            home_ag: le32(v, 136)?,
            xflags: le32(v, 140)?,
            extent_hint: le32(v, 144)?,
        };
        Some(Self {
            attrs,
            blocks: le64(v, 32)?,
            state: le32(v, 52)?,
            parent: le64(v, 56)?,
            cut: le64(v, 120)?,
            generation: le64(v, 128)?,
            extents: RootForm::Empty,
            dir: RootForm::Empty,
            xattr: RootForm::Empty,
            data: &[],
            crypt: &[],
            verity: &[],
            ignorable: &[],
        })
    }

    /// Decodes the sections.
    fn sections(&mut self, v: &'a [u8]) -> core::result::Result<(), Fault> {
        let ignorable = each_section(v, HEADER, &LIMITS, |kind, form, body| {
            self.section(kind, form, body)
        })?;
        self.ignorable = ignorable;
        Ok(())
    }

    /// Decodes the content of one section.
    fn section(
        &mut self,
        kind: u8,
        form: u8,
        body: &'a [u8],
    ) -> core::result::Result<(), &'static str> {
        match kind {
            1 => self.extents = root(form, body)?,
            2 => self.dir = root(form, body)?,
            3 => self.xattr = root(form, body)?,
            5 => self.data = bytes(form, body, MAX_DATA)?,
            6 => self.crypt = bytes(form, body, MAX_CRYPT)?,
            7 => self.verity = bytes(form, body, MAX_VERITY)?,
            0x88 => drop(bytes(form, body, MAX_COMPRESSION)?),
            _ if kind & MAY_IGNORE != 0 => {}
            _ => return Err("it is unknown, and must not be ignored"),
        }
        Ok(())
    }

    /// What cannot be true of the fields, and of fields and sections together.
    fn contradiction(&self, v: &[u8]) -> Option<&'static str> {
        if let Some(what) = impossible(&self.attrs) {
            return Some(what);
        }
        let kind = self.attrs.mode & S_IFMT;
        let file = kind == S_IFREG;
        let truncated = self.state & STATE_TRUNCATE != 0;
        let cuts = bytes_to_blocks(self.attrs.size)..MAX_FILE_BLOCKS;
        let parents = if kind == S_IFDIR { 1..MAX_INO } else { 0..1 };
        let reserved = v.get(148..HEADER).unwrap_or(&[]);
        Some(if self.state & !STATE_TRUNCATE != 0 {
            "unknown state bits"
        } else if truncated && (!file || !cuts.contains(&self.cut)) {
            "impossible truncation under way"
        } else if !truncated && self.cut != 0 {
            "blocks to be freed, and no truncation under way"
        } else if self.blocks > MAX_FILE_BLOCKS {
            "impossible number of blocks"
        } else if !file && (self.blocks != 0 || !self.extents.is_empty() || !self.data.is_empty()) {
            "it has blocks or data and is not a regular file"
        } else if self.blocks != 0 && self.extents.is_empty() {
            "it has blocks and no extents"
        } else if !self.data.is_empty() && (self.blocks != 0 || !self.extents.is_empty()) {
            "it has blocks and data of a small file"
        } else if kind != S_IFDIR && kind != S_IFLNK && !self.dir.is_empty() {
            "it has entries and is not a directory"
        } else if !parents.contains(&self.parent) {
            "impossible parent"
        } else if self.generation == 0 {
            "no commit wrote it"
        } else if reserved.iter().any(|b| *b != 0) {
            "reserved bytes are not zero"
        } else {
            return None;
        })
    }

    /// Why this code cannot use an inode with such a record, although the record may be true.
    pub fn unsupported(&self) -> Option<&'static str> {
        Some(if !self.data.is_empty() {
            "file data in the inode record is not supported"
        } else if !self.crypt.is_empty() {
            "encryption is not supported"
        } else if !self.verity.is_empty() {
            "verity is not supported"
        } else {
            return unsupported_flags(self.attrs.flags);
        })
    }

    /// Encodes the record into `out`. ENOMEM.
    pub fn encode(&self, out: &mut KVec<u8>) -> Result {
        out.clear();
        let a = &self.attrs;
        let mut head = [0; HEADER];
        let words = [
            (0, a.mode),
            (4, a.nlink),
            (8, a.uid),
            (12, a.gid),
            (16, a.project),
            (20, a.handle_generation),
            (48, a.flags),
            (52, self.state),
            (136, a.home_ag),
            (140, a.xflags),
            (144, a.extent_hint),
        ];
        for (at, word) in words {
            put(&mut head, at, &word.to_le_bytes());
        }
        let long = [
            (24, a.size),
            (32, self.blocks),
            (40, a.rdev),
            (56, self.parent),
            (112, a.change),
            (120, self.cut),
            (128, self.generation),
        ];
        for (at, word) in long {
            put(&mut head, at, &word.to_le_bytes());
        }
        for (at, t) in [(64, a.atime), (76, a.mtime), (88, a.ctime), (100, a.btime)] {
            put(&mut head, at, &t.sec.to_le_bytes());
            put(&mut head, at + 8, &t.nsec.to_le_bytes());
        }
        out.extend_from_slice(&head, GFP_KERNEL)?;
        put_root(out, Section::Extents as u8, &self.extents)?;
        put_root(out, Section::Dir as u8, &self.dir)?;
        put_root(out, Section::Xattr as u8, &self.xattr)?;
        put_bytes(out, Section::Data as u8, self.data)?;
        put_bytes(out, Section::Crypt as u8, self.crypt)?;
        put_bytes(out, Section::Verity as u8, self.verity)?;
        out.extend_from_slice(self.ignorable, GFP_KERNEL)?;
        Ok(())
    }
}
