// SPDX-License-Identifier: GPL-2.0

//! Giving an ioend back to iomap.
//!
//! Tests: tests/vm/t/060-data-paths.sh, 063-write-errors.sh.

use core::mem::offset_of;

use kernel::prelude::*;

use crate::bindings;

/// Finishes an ioend: its folios leave writeback or are unlocked, a direct I/O completes.
///
/// # Safety
///
/// `ioend` is a valid ioend of ours that is not in flight, in process context. It is not used afterwards.
pub(super) unsafe fn finish(ioend: *mut bindings::iomap_ioend, result: Result) {
    let error = result.err().map_or(0, |e| e.to_errno());
    // SAFETY: By this function's contract the ioend is valid and ours to give back.
    unsafe { bindings::iomap_finish_ioends(ioend, error) };
}

/// The ioend that a bio is embedded in.
///
/// # Safety
///
/// `bio` is the `io_bio` of a valid ioend, as all bios of `iomap_ioend_bioset` are.
pub(super) unsafe fn of_bio(bio: *mut bindings::bio) -> *mut bindings::iomap_ioend {
    // SAFETY: By this function's contract the bio lies at that offset in an ioend.
    unsafe { bio.byte_sub(offset_of!(bindings::iomap_ioend, io_bio)) }.cast()
}

/// The result of an ioend's I/O.
///
/// # Safety
///
/// `ioend` is a valid ioend that has ended.
pub(super) unsafe fn status(ioend: *mut bindings::iomap_ioend) -> Result {
    // SAFETY: By this function's contract the ioend is valid, and the device does not write its status any more.
    let status = unsafe { (*ioend).io_bio.bi_status };
    // SAFETY: No requirements: only computes.
    kernel::error::to_result(unsafe { bindings::blk_status_to_errno(status) })
}
