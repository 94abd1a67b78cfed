// SPDX-License-Identifier: GPL-2.0

//! An object of a workload (file, directory or link), and what it was at each time.

use crate::disk::Data;
use crate::os::Time;
use std::collections::BTreeMap;

/// Number of an object (file, directory, link) of a workload.
pub type Id = usize;
/// Number of an operation; 0 is before the first.
pub type When = u32;
/// The time of something that has not happened yet.
pub const NEVER: When = When::MAX;

/// The content of a file's block from some time on.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) time: When,
    /// Until this operation it may be missing in spite of promises, because the write was still in
    /// flight.
    pub(super) sure: When,
    pub(super) data: Data,
}

/// The size of a file from some time on.
#[derive(Clone)]
pub(super) struct Size {
    pub(super) time: When,
    pub(super) sure: When,
    pub(super) bytes: u64,
    /// The size before, if a write of data made the file grow: parts of that write may be there.
    pub(super) grew_from: Option<u64>,
    /// Did a truncation make the file shorter?
    pub(super) cut: bool,
}

/// An object with its history.
#[derive(Clone)]
pub struct Object {
    /// Inode number.
    pub ino: u64,
    /// Generation number.
    pub generation: u32,
    /// Type and permission bits.
    pub mode: u32,
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Size in bytes.
    pub size: u64,
    /// Is there a handle that keeps it alive without a name?
    pub open: bool,
    pub(super) blocks: BTreeMap<u64, Vec<Version>>,
    pub(super) sizes: Vec<Size>,
    pub(super) modes: Vec<(When, u32)>,
    pub(super) owners: Vec<(When, u32)>,
    pub(super) mtimes: Vec<(When, Time)>,
    pub(super) xattrs: Vec<(When, Xattrs)>,
    /// The change counter that a user sees after an operation.
    pub(super) changes: Vec<(When, u64)>,
    /// The times at which it replaced another file by rename. From then on its data is at least as
    /// new.
    pub(super) brought: Vec<When>,
}

/// The name of the access control list among the extended attributes. The workloads' lists begin with the
/// permissions that go with them: [`acl`].
pub const ACL: &str = "";

/// The access control list that goes with these permissions.
pub fn acl(mode: u32) -> Vec<u8> {
    [&(mode & 0o777).to_le_bytes()[..], b"list"].concat()
}

/// Extended attributes: name to value.
pub type Xattrs = BTreeMap<&'static str, Vec<u8>>;
