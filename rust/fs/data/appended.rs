// SPDX-License-Identifier: GPL-2.0

//! Writing back what was appended, before an operation that raises the size on disk.
//!
//! Tests: tests/vm/t/025-sizes.sh.

use kernel::prelude::*;

use crate::{
    fs::{OrdoFs, BLOCK},
    vfs::Inode,
};

/// Writes what was appended below byte `end` and has not been written back. An operation that raises
/// the size on disk comes after it: what the file has lost after a crash is its end, not its middle (XFS
/// calls it the problem of NULL files).
pub(super) fn write_appended(inode: &Inode<OrdoFs>, end: u64) -> Result {
    let on_disk = inode.data().engine.attrs().size;
    let end = end.min(inode.size());
    if on_disk < end {
        write_range(inode, on_disk, end - 1)?;
    }
    Ok(())
}

/// Writes the dirty pages of bytes `start..=end` and waits. Its error is that of this range and of this
/// time: an earlier one, or one of other pages, is for fsync to report, and no reason to refuse an
/// operation whose own I/O is well.
pub(super) fn write_range(inode: &Inode<OrdoFs>, start: u64, end: u64) -> Result {
    let (engine, target) = (inode.fs().engine(), &inode.data().engine);
    let lost = engine.losses(target);
    let started = inode.write_and_wait(start, end);
    let first = start / BLOCK;
    engine.lost_since(target, lost, first, end / BLOCK - first + 1)?;
    started
}
