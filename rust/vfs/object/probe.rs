// SPDX-License-Identifier: GPL-2.0

//! Places where a filesystem can watch the abstractions, and tests can interfere.
//!
//! # Model
//!
//! A function of [`Probes`] is called at each of these places. Without an implementation it is nothing. A
//! filesystem makes tracepoints of them, and, in builds for tests, places where a task waits or fails.
//!
//! Tests: tests/vm/t/035-observing.sh, 047-error-tags.sh.

use kernel::prelude::*;

use super::inode::Inode;
use super::types::Types;

/// What happens at the places. `first` and `len` are in blocks.
pub(crate) trait Probes: Types {
    /// R3: whether [`LayoutLock`](super::page_cache::LayoutLock) takes the lock that it stands for. Only a
    /// mutant, which shows that the test of R3 can fail, says no.
    const LAYOUT_LOCK: bool = true;

    /// R3: a store is about to make a page writable. No lock is held yet.
    #[inline(always)]
    fn fault(_inode: &Inode<Self>, _block: u64) {}

    /// R3: the page is dirty, the shared side of the layout lock is still held.
    #[inline(always)]
    fn fault_done(_inode: &Inode<Self>, _block: u64) {}

    /// R3: the pages of a range have been dropped, its blocks are still there. The layout lock is held.
    #[inline(always)]
    fn pages_dropped(_inode: &Inode<Self>, _first: u64, _len: u64) {}

    /// R3: a layout change is complete. The layout lock is still held.
    #[inline(always)]
    fn layout_done(_inode: &Inode<Self>) {}

    /// R5: a mapping for a write has been looked up, the folio is not yet locked. An error fails the write.
    #[inline(always)]
    fn mapped(_inode: &Inode<Self>) -> Result {
        Ok(())
    }

    /// R5: a mapping that was kept is not true any more; the folio is locked. `by` says where that was
    /// noticed.
    #[inline(always)]
    fn map_stale(_inode: &Inode<Self>, _first: u64, _len: u64, _cookie: u64, _by: StaleIn) {}

    /// R1: a data write has its blocks, its mapping can be seen, and nothing was sent to the device. An
    /// error becomes that of the I/O.
    #[inline(always)]
    fn data_io(_inode: &Inode<Self>) -> Result {
        Ok(())
    }
}

/// Where a stale mapping was noticed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum StaleIn {
    /// In a write to the page cache.
    Write,
    /// In writeback.
    Writeback,
}
