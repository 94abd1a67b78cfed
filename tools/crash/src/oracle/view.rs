// SPDX-License-Identifier: GPL-2.0

//! What a reader finds after a power cut.

use crate::disk::SIZE;
use crate::os::Time;
use std::collections::BTreeMap;

/// An inode as it was found after a power cut.
#[derive(Default)]
pub struct Seen {
    /// Type and permission bits.
    pub mode: u32,
    /// Generation number.
    pub generation: u32,
    /// Change counter.
    pub change: u64,
    /// Owner.
    pub uid: u32,
    /// Bytes.
    pub size: u64,
    /// Last change.
    pub mtime: Time,
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Blocks with data; others are zero.
    pub blocks: Vec<(u64, [u8; SIZE])>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The whole filesystem as it was found after a power cut.
#[derive(Default)]
pub struct View {
    /// Names: directory, name, inode.
    pub names: Vec<(u64, String, u64)>,
    /// Inodes by number.
    pub inodes: BTreeMap<u64, Seen>,
    /// The number of blocks of the filesystem.
    pub blocks: u64,
    /// The number of blocks that it must have for the data that was read.
    pub used: u64,
}
