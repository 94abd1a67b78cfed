// SPDX-License-Identifier: GPL-2.0

//! What happens at the places where the abstractions can be watched: tracepoints, the windows of races, and the
//! mutant of R3.
//!
//! Tests: tests/vm/t/041-r1.sh, 043-r3.sh, 045-r5.sh.

use kernel::prelude::*;

use super::os::{trace, Window};
use super::OrdoFs;
use crate::vfs::{
    object::probe::{Probes, StaleIn},
    Inode,
};

/// The current task has come to a place where tests may hold it.
#[inline(always)]
fn pass(inode: &Inode<OrdoFs>, window: Window) -> Result {
    inode.fs().tags.pass(inode.sb().dev(), window)
}

impl Probes for OrdoFs {
    const LAYOUT_LOCK: bool = cfg!(not(ordofs_mutant_r3));

    #[inline(always)]
    fn fault(inode: &Inode<Self>, block: u64) {
        trace::fault(inode.sb().dev(), inode.ino(), block, 1);
    }

    #[inline(always)]
    fn fault_done(inode: &Inode<Self>, block: u64) {
        trace::fault_done(inode.sb().dev(), inode.ino(), block, 1);
    }

    #[inline(always)]
    fn pages_dropped(inode: &Inode<Self>, first: u64, len: u64) {
        trace::drop_pages(inode.sb().dev(), inode.ino(), first, len);
        let _ = pass(inode, Window::PagesDropped);
    }

    #[inline(always)]
    fn layout_done(inode: &Inode<Self>) {
        trace::layout_done(inode.sb().dev(), inode.ino());
    }

    #[inline(always)]
    fn mapped(inode: &Inode<Self>) -> Result {
        pass(inode, Window::Mapped)
    }

    #[inline(always)]
    fn map_stale(inode: &Inode<Self>, first: u64, len: u64, cookie: u64, by: StaleIn) {
        let (dev, ino) = (inode.sb().dev(), inode.ino());
        trace::map_stale(dev, ino, first, len, cookie, by == StaleIn::Writeback);
    }

    #[inline(always)]
    fn data_io(inode: &Inode<Self>) -> Result {
        pass(inode, Window::DataIo)
    }
}
