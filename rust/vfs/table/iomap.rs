// SPDX-License-Identifier: GPL-2.0

//! The iomap callbacks: from [`Extent`]s to `struct iomap`.
//!
//! # Model
//!
//! iomap walks a file range: it asks for the next mapping, works on it without any lock of ours, and
//! asks again. There is one table for each purpose: reads, reports, buffered writes, zeroing, page
//! faults and direct writes.
//!
//! # Rules
//!
//! R5: a mapping that iomap keeps is a guess as soon as it is returned. Buffered writes and zeroing
//! check it with the folio locked ([`iomap_valid`]); a mapping that is no longer true is dropped
//! (`IOMAP_F_STALE`) and asked for again. The race: between the look-up and the folio lock, writeback
//! turns a preallocated block into a written one and reclaim drops its clean page; without the check
//! the write would zero the rest of the block instead of reading it.
//!
//! A page fault needs no such check, because it asks with the folio locked. But it first waits for
//! writeback of that folio ([`fault_next`]): until the write has been started, the blocks' delayed
//! allocation is still there, a fault would rely on it, and then the write would use it up and leave
//! a dirty page without reservation. Buffered writes get this by the stable-page wait and R5.
//!
//! Tests: tests/vm/t/045-r5.sh, 060-data-paths.sh, 064-fsx.sh, 065-race.sh.

use core::ffi::c_uint;
use core::marker::PhantomData;

use kernel::error::{from_result, to_result};
use kernel::prelude::*;

use crate::bindings;
use crate::vfs::object::inode::Inode;
use crate::vfs::object::memory::PageSlice;
use crate::vfs::object::number::offset;
use crate::vfs::object::page_cache::{side::Shared, InodeLock};
use crate::vfs::object::probe::StaleIn;
use crate::vfs::traits::mapping::{Extent, ExtentKind, MappingOperations};
use crate::vfs::traits::super_block::SuperOperations;

/// Writes an extent into a `struct iomap`.
fn fill<T: MappingOperations>(iomap: &mut bindings::iomap, inode: &Inode<T>, e: &Extent) {
    let (kind, addr) = match e.kind {
        ExtentKind::Hole => (bindings::IOMAP_HOLE, u64::MAX),
        ExtentKind::Delalloc => (bindings::IOMAP_DELALLOC, u64::MAX),
        ExtentKind::Unwritten => (bindings::IOMAP_UNWRITTEN, e.addr),
        ExtentKind::Written => (bindings::IOMAP_MAPPED, e.addr),
    };
    iomap.type_ = kind as u16;
    iomap.addr = addr;
    iomap.offset = e.pos as bindings::loff_t;
    iomap.length = e.len;
    iomap.flags = 0;
    iomap.validity_cookie = e.cookie;
    // SAFETY: The superblock outlives its inodes, and its device is open as long as there are inodes.
    iomap.bdev = unsafe { (*inode.sb().as_ptr()).s_bdev };
}

/// Defines an `iomap_begin` callback.
macro_rules! begin {
    ($(#[$doc:meta])* fn $name:ident($inode:ident, $pos:ident, $len:ident, $iomap:ident, $srcmap:ident) $body:block) => {
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// Called by iomap: the inode is a valid inode of `T`, the maps are valid and ours to fill.
        unsafe extern "C" fn $name<T: MappingOperations>(
            inode: *mut bindings::inode,
            pos: bindings::loff_t,
            length: bindings::loff_t,
            _flags: c_uint,
            iomap: *mut bindings::iomap,
            srcmap: *mut bindings::iomap,
        ) -> c_int {
            // SAFETY: iomap passes the inode of its iterator, which the operation keeps.
            let $inode = unsafe { Inode::<T>::from_raw(inode) };
            // SAFETY: iomap passes a map of its iterator, for this call to fill.
            let $iomap = unsafe { &mut *iomap };
            // SAFETY: iomap passes the other map of its iterator, for this call to fill.
            let $srcmap = unsafe { &mut *srcmap };
            let ($pos, $len) = (offset(pos), offset(length));
            let _ = &$srcmap;
            from_result(|| {
                $body
                Ok(0)
            })
        }
    };
}

begin! {
    /// Mapping for reads.
    fn read_begin(inode, pos, len, iomap, srcmap) {
        fill(iomap, inode, &T::map_read(inode, pos, len)?);
    }
}

begin! {
    /// Mapping for reports.
    fn report_begin(inode, pos, len, iomap, srcmap) {
        fill(iomap, inode, &T::map_report(inode, pos, len)?);
    }
}

begin! {
    /// Mapping for writes through the page cache.
    fn write_begin(inode, pos, len, iomap, srcmap) {
        fill_write::<T>(inode, pos, len, iomap, srcmap)?;
    }
}

begin! {
    /// Mapping for zeroing: what reads as zeroes anyway stays as it is.
    fn zero_begin(inode, pos, len, iomap, srcmap) {
        let now = T::map_report(inode, pos, len)?;
        match now.kind {
            ExtentKind::Hole | ExtentKind::Unwritten => fill(iomap, inode, &now),
            ExtentKind::Delalloc | ExtentKind::Written => {
                // Not beyond what was looked at: a hole must not be filled.
                let len = len.min(now.len.saturating_sub(pos - now.pos));
                fill_write::<T>(inode, pos, len, iomap, srcmap)?;
            }
        }
    }
}

begin! {
    /// Mapping for direct writes. The blocks get their addresses when the bio is submitted; completion
    /// changes metadata (`IOMAP_F_DIRTY`), so a synchronous write needs more than FUA.
    fn direct_write_begin(inode, pos, len, iomap, srcmap) {
        let extent = Extent {
            pos,
            len,
            kind: ExtentKind::Written,
            addr: u64::MAX,
            cookie: 0,
        };
        fill(iomap, inode, &extent);
        iomap.flags = (bindings::IOMAP_F_ANON_WRITE | bindings::IOMAP_F_DIRTY) as u16;
    }
}

/// Asks for a writable range and fills both maps.
fn fill_write<T: MappingOperations>(
    inode: &Inode<T>,
    pos: u64,
    len: u64,
    iomap: &mut bindings::iomap,
    srcmap: &mut bindings::iomap,
) -> Result {
    let w = T::map_write(inode, pos, len)?;
    fill(iomap, inode, &w.map);
    if let Some(source) = &w.source {
        fill(srcmap, inode, source);
        iomap.flags |= bindings::IOMAP_F_SHARED as u16;
    }
    if w.new {
        iomap.flags |= bindings::IOMAP_F_NEW as u16;
    }
    T::mapped(inode)
}

/// Punches a range out of the delayed allocations.
///
/// # Safety
///
/// Called by iomap: the inode is a valid inode of `T`.
unsafe extern "C" fn punch<T: MappingOperations>(
    inode: *mut bindings::inode,
    pos: bindings::loff_t,
    length: bindings::loff_t,
    _iomap: *mut bindings::iomap,
) {
    // SAFETY: iomap passes the inode that `write_end` passed to it.
    let inode = unsafe { Inode::<T>::from_raw(inode) };
    T::release_delalloc(inode, offset(pos), offset(length));
}

/// Ends a mapping for writes: what the write did not use of a delayed allocation is given back,
/// except where dirty pages are (they may be another writer's, through a memory mapping).
///
/// # Safety
///
/// Called by iomap: the inode is a valid inode of `T`, the map is the one that is ending.
unsafe extern "C" fn write_end<T: MappingOperations>(
    inode: *mut bindings::inode,
    pos: bindings::loff_t,
    length: bindings::loff_t,
    written: isize,
    flags: c_uint,
    iomap: *mut bindings::iomap,
) -> c_int {
    // SAFETY: iomap passes the map of its iterator that is ending.
    let kind = unsafe { (*iomap).type_ };
    if u32::from(kind) != bindings::IOMAP_DELALLOC {
        return 0;
    }
    // SAFETY: iomap passes the inode of its iterator, which the operation keeps.
    let start = unsafe { bindings::ordofs_helper_last_written_block(inode, pos, written) };
    let end = offset(pos).saturating_add(offset(length));
    let end = end.div_ceil(T::BLOCK_SIZE).saturating_mul(T::BLOCK_SIZE) as i64;
    if start >= end {
        return 0;
    }
    // SAFETY: The inode is valid, and so is its mapping.
    let lock = unsafe { &raw mut (*(*inode).i_mapping).invalidate_lock };
    // R3: no page of the range may become dirty while dirty pages are looked for. The zeroing path already
    // holds the lock.
    let take = flags & bindings::IOMAP_ZERO == 0;
    if take {
        // SAFETY: The lock is initialised, and may be waited for: only `i_rwsem` is held.
        unsafe { bindings::down_write(lock) };
    } else {
        // SAFETY: iomap passes an inode of `T`.
        unsafe { Inode::<T>::from_raw(inode) }.assert_layout_locked();
    }
    let punch = Some(punch::<T> as unsafe extern "C" fn(_, _, _, _));
    // SAFETY: The inode is valid, and its layout lock is held exclusively.
    unsafe { bindings::iomap_write_delalloc_release(inode, start, end, flags, iomap, punch) };
    if take {
        // SAFETY: Taken above, by this task.
        unsafe { bindings::up_write(lock) };
    }
    0
}

/// Defines an `iomap_next` callback from a `begin` and perhaps an `end`.
macro_rules! next {
    ($name:ident, $begin:ident, $end:expr) => {
        /// # Safety
        ///
        /// Called by iomap.
        unsafe extern "C" fn $name<T: MappingOperations>(
            iter: *const bindings::iomap_iter,
            iomap: *mut bindings::iomap,
            srcmap: *mut bindings::iomap,
        ) -> c_int {
            // SAFETY: The arguments are iomap's own; the callbacks are of `T`, as is the inode.
            unsafe {
                bindings::ordofs_helper_iomap_iter_next(
                    iter,
                    iomap,
                    srcmap,
                    Some($begin::<T>),
                    $end,
                )
            }
        }
    };
}

next!(read_next, read_begin, None);
next!(report_next, report_begin, None);
next!(write_next, write_begin, Some(write_end::<T>));
next!(zero_next, zero_begin, Some(write_end::<T>));
next!(direct_write_next, direct_write_begin, None);
next!(fault_map_next, write_begin, None);

/// Next mapping for a page fault: first waits until the folio is not under writeback.
///
/// # Safety
///
/// Called by `iomap_page_mkwrite` with the page that is being made writable as `private`, whose folio
/// is locked.
unsafe extern "C" fn fault_next<T: MappingOperations>(
    iter: *const bindings::iomap_iter,
    iomap: *mut bindings::iomap,
    srcmap: *mut bindings::iomap,
) -> c_int {
    // SAFETY: `page_mkwrite` passes the page as `private`.
    let page = unsafe { (*iter).private.cast() };
    // SAFETY: The fault has a reference to the page. Its folio is locked, so no new writeback starts before
    // `iomap_page_mkwrite` has made it dirty.
    unsafe { bindings::ordofs_helper_wait_stable(page) };
    // SAFETY: The arguments are iomap's own.
    unsafe { fault_map_next::<T>(iter, iomap, srcmap) }
}

/// R5: whether iomap may go on to use a mapping that it kept.
///
/// # Safety
///
/// Called by iomap: the inode is a valid inode of `T`, the folio that is to be written is locked.
unsafe extern "C" fn iomap_valid<T: MappingOperations>(
    inode: *mut bindings::inode,
    iomap: *const bindings::iomap,
) -> bool {
    // SAFETY: iomap passes the inode of its iterator, which the operation keeps.
    let inode = unsafe { Inode::<T>::from_raw(inode) };
    // SAFETY: iomap passes the map of its iterator, which only this task uses.
    let iomap = unsafe { &*iomap };
    let cookie = iomap.validity_cookie;
    if T::is_current(inode, cookie) {
        return true;
    }
    let (first, len) = (
        offset(iomap.offset) / T::BLOCK_SIZE,
        iomap.length / T::BLOCK_SIZE,
    );
    T::map_stale(inode, first, len, cookie, StaleIn::Write);
    false
}

/// Reads what a write does not cover of its blocks.
///
/// # Safety
///
/// Called by iomap: the iterator's inode is of `T`, the folio is locked, the range is not up to date.
unsafe extern "C" fn read_folio_range<T: MappingOperations>(
    iter: *const bindings::iomap_iter,
    folio: *mut bindings::folio,
    pos: bindings::loff_t,
    len: usize,
) -> c_int {
    // SAFETY: iomap passes its iterator, with an inode of `T` that the operation keeps.
    let inode = unsafe { Inode::<T>::from_raw((*iter).inode) };
    let pos = offset(pos);
    // SAFETY: iomap passes a locked folio, which stays.
    let start = offset(unsafe { bindings::ordofs_helper_folio_pos(folio) });
    // SAFETY: The position lies inside of the folio, which is contiguous in the direct map.
    let address = unsafe { bindings::ordofs_helper_folio_address(folio, (pos - start) as usize) };
    // SAFETY: The folio is locked and the range in it is not up to date: no task reads or writes it,
    // and it stays until we return.
    let mut data = unsafe { PageSlice::from_raw(address.cast(), len) };
    match T::read_range(inode, pos, &mut data) {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}

/// The tables for files of `T`.
pub(super) struct Tables<T>(PhantomData<T>);

const fn ops(
    next: unsafe extern "C" fn(
        *const bindings::iomap_iter,
        *mut bindings::iomap,
        *mut bindings::iomap,
    ) -> c_int,
) -> bindings::iomap_ops {
    bindings::iomap_ops {
        iomap_begin: None,
        iomap_end: None,
        iomap_next: Some(next),
    }
}

impl<T: MappingOperations> Tables<T> {
    pub(super) const READ: &'static bindings::iomap_ops = &ops(read_next::<T>);
    pub(super) const REPORT: &'static bindings::iomap_ops = &ops(report_next::<T>);
    pub(super) const WRITE: &'static bindings::iomap_ops = &ops(write_next::<T>);
    pub(super) const ZERO: &'static bindings::iomap_ops = &ops(zero_next::<T>);
    pub(super) const FAULT: &'static bindings::iomap_ops = &ops(fault_next::<T>);
    pub(super) const DIRECT_WRITE: &'static bindings::iomap_ops = &ops(direct_write_next::<T>);
    pub(super) const WRITE_OPS: &'static bindings::iomap_write_ops = &bindings::iomap_write_ops {
        get_folio: None,
        put_folio: None,
        iomap_valid: Some(iomap_valid::<T>),
        read_folio_range: Some(read_folio_range::<T>),
    };
}

/// `fiemap` of the inode operations. The flush that the caller may ask for is done by iomap.
///
/// # Safety
///
/// Called by the VFS for an inode of `T`.
pub(super) unsafe extern "C" fn fiemap<T: MappingOperations + SuperOperations>(
    inode: *mut bindings::inode,
    info: *mut bindings::fiemap_extent_info,
    start: u64,
    len: u64,
) -> c_int {
    // SAFETY: The VFS passes an inode of `T`, which the open file keeps.
    let this = unsafe { Inode::<T>::from_raw(inode) };
    if let Err(e) = this.fs().readable() {
        return e.to_errno();
    }
    // Keeps truncation and punching out; writeback may go on, each mapping is true for itself.
    let _lock = InodeLock::<T, Shared>::take(this);
    // SAFETY: Inode and request are the VFS's; the table is static, and of the inode's `T`.
    unsafe { bindings::iomap_fiemap(inode, info, start, len, Tables::<T>::REPORT) }
}

/// What lseek(2) looks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Seek {
    /// `SEEK_DATA`
    Data,
    /// `SEEK_HOLE`
    Hole,
}

/// `SEEK_HOLE` and `SEEK_DATA`.
pub(super) fn seek<T: MappingOperations + SuperOperations>(
    inode: &Inode<T>,
    pos: i64,
    what: Seek,
) -> Result<i64> {
    inode.fs().readable()?;
    let raw = inode.as_ptr();
    // As for `fiemap`.
    let _lock = InodeLock::<T, Shared>::take(inode);
    let at = match what {
        // SAFETY: The inode is valid; the table is static, and of its `T`.
        Seek::Data => unsafe { bindings::iomap_seek_data(raw, pos, Tables::<T>::REPORT) },
        // SAFETY: The inode is valid; the table is static, and of its `T`.
        Seek::Hole => unsafe { bindings::iomap_seek_hole(raw, pos, Tables::<T>::REPORT) },
    };
    if at < 0 {
        to_result(at as c_int)?;
    }
    Ok(at)
}
