// SPDX-License-Identifier: GPL-2.0

//! The operations of the page cache of regular files.
//!
//! # Model
//!
//! Thin: reading, writeback and the state of folios are iomap's; what is read is checked and what is
//! written gets its address in `ioend`.
//!
//! # Rules
//!
//! R2: [`release_folio`] lets the filesystem forget about mappings only where it says that it may;
//! that a folio goes is never a reason to forget a change that is not yet durable.
//!
//! R5 in writeback: the mapping that is kept from folio to folio says only "data" or "hole", and is
//! used for the next folio, which is locked, only if no mapping has changed since. A hole under a
//! dirty folio comes from a punch of part of a large folio; it is skipped. Data gets its blocks
//! later, when the ioend is submitted; from now to the end of the I/O the folio is under writeback,
//! and what takes blocks away waits for that.
//!
//! Tests: tests/vm/t/060-data-paths.sh, 042-r2.sh, 045-r5.sh, 091-reclaim.sh.

use core::marker::PhantomData;
use core::{mem, ptr};

use kernel::prelude::*;

use super::iomap::Tables;
use crate::bindings;
use crate::vfs::ioend::copy;
use crate::vfs::ioend::read;
use crate::vfs::ioend::write::{WriteFrom, WriteIoend};
use crate::vfs::object::inode::Inode;
use crate::vfs::object::memory::wait_for_memory;
use crate::vfs::object::number::offset;
use crate::vfs::object::probe::StaleIn;
use crate::vfs::os::NoFs;
use crate::vfs::traits::mapping::{ExtentKind, MappingOperations};

/// How far ahead writeback looks mappings up.
const LOOK_AHEAD: u64 = 8 << 20;

struct Ops<T>(PhantomData<T>);

impl<T: MappingOperations> Ops<T> {
    const READ: bindings::iomap_read_ops = bindings::iomap_read_ops {
        read_folio_range: Some(bindings::iomap_bio_read_folio_range),
        submit_read: Some(read::submit_read::<T>),
        bio_set: &raw mut bindings::iomap_ioend_bioset,
    };
    const REF_READ: &'static bindings::iomap_read_ops = &Self::READ;
    const WRITEBACK: &'static bindings::iomap_writeback_ops = &bindings::iomap_writeback_ops {
        writeback_range: Some(writeback_range::<T>),
        writeback_submit: Some(writeback_submit::<T>),
    };
    const ADDRESS_SPACE: &'static bindings::address_space_operations =
        &bindings::address_space_operations {
            read_folio: Some(read_folio::<T>),
            readahead: Some(readahead::<T>),
            writepages: Some(writepages::<T>),
            dirty_folio: Some(bindings::iomap_dirty_folio),
            release_folio: Some(release_folio::<T>),
            invalidate_folio: Some(bindings::iomap_invalidate_folio),
            migrate_folio: Some(bindings::filemap_migrate_folio),
            is_partially_uptodate: Some(bindings::iomap_is_partially_uptodate),
            error_remove_folio: Some(bindings::generic_error_remove_folio),
            ..pin_init::zeroed()
        };
}

/// The table for files of `T`.
pub(super) fn address_space_operations<T: MappingOperations>(
) -> &'static bindings::address_space_operations {
    Ops::<T>::ADDRESS_SPACE
}

/// A context of a read into the page cache, without a folio.
fn read_context<T: MappingOperations>() -> bindings::iomap_read_folio_ctx {
    // SAFETY: The context is numbers and pointers, for which zero is a value; it stands for an empty context.
    let mut ctx = unsafe { mem::zeroed::<bindings::iomap_read_folio_ctx>() };
    ctx.ops = Ops::<T>::REF_READ;
    ctx
}

/// `read_folio`.
///
/// # Safety
///
/// Called by the VFS with a locked folio of a file of `T`.
unsafe extern "C" fn read_folio<T: MappingOperations>(
    _file: *mut bindings::file,
    folio: *mut bindings::folio,
) -> c_int {
    let mut ctx = read_context::<T>();
    ctx.cur_folio = folio;
    // SAFETY: The folio is locked, as the VFS passes it; iomap unlocks it. The tables are static and of its `T`.
    unsafe { bindings::iomap_read_folio(Tables::<T>::READ, &raw mut ctx, ptr::null_mut()) };
    0
}

/// `readahead`.
///
/// # Safety
///
/// Called by the VFS for a file of `T`.
unsafe extern "C" fn readahead<T: MappingOperations>(rac: *mut bindings::readahead_control) {
    let mut ctx = read_context::<T>();
    ctx.rac = rac;
    // SAFETY: The VFS passes a control block with locked folios of a file of `T`; the tables are static and of that.
    unsafe { bindings::iomap_readahead(Tables::<T>::READ, &raw mut ctx, ptr::null_mut()) };
}

/// `writepages`.
///
/// # Safety
///
/// Called by the VFS for a file of `T`.
unsafe extern "C" fn writepages<T: MappingOperations>(
    mapping: *mut bindings::address_space,
    wbc: *mut bindings::writeback_control,
) -> c_int {
    // SAFETY: The VFS passes the mapping of an inode of `T`.
    let host = unsafe { (*mapping).host };
    // SAFETY: The VFS keeps the inode during writeback.
    let inode = unsafe { Inode::<T>::from_raw(host) };
    // All that it adds to ioends it has submitted when it returns.
    T::while_submitting(inode, || {
        // SAFETY: The context is numbers and pointers, for which zero is a value; it stands for an empty context.
        let mut wpc = unsafe { mem::zeroed::<bindings::iomap_writepage_ctx>() };
        wpc.inode = host;
        wpc.wbc = wbc;
        wpc.ops = Ops::<T>::WRITEBACK;
        // SAFETY: The context is complete; inode and control block are the VFS's, the table is static.
        unsafe { bindings::iomap_writepages(&raw mut wpc) }
    })
}

/// `writeback_range`: adds a dirty range of a folio to the ioend.
///
/// # Safety
///
/// Called by iomap for an inode of `T` with the folio locked and under writeback.
unsafe extern "C" fn writeback_range<T: MappingOperations>(
    wpc: *mut bindings::iomap_writepage_ctx,
    folio: *mut bindings::folio,
    pos: u64,
    len: c_uint,
    end: u64,
) -> isize {
    // SAFETY: iomap passes the context that `writepages` made, with the inode of the folio.
    let inode = unsafe { Inode::<T>::from_raw((*wpc).inode) };
    // SAFETY: The context is this task's, and iomap does not look at its mapping before this has returned, but in
    // `iomap_add_to_ioend` below, where the reference has ended.
    let iomap = unsafe { &mut (*wpc).iomap };
    if !is_kept(inode, iomap, pos) {
        if let Err(e) = look_up(inode, iomap, pos, u64::from(len)) {
            // The folio will be clean and its data lost, which the error says: also that of its dirty
            // blocks behind these, for which iomap does not ask any more.
            // SAFETY: iomap passes a locked folio.
            let start = offset(unsafe { bindings::ordofs_helper_folio_pos(folio) });
            // SAFETY: iomap passes a locked folio.
            let end = start + unsafe { bindings::ordofs_helper_folio_size(folio) } as u64;
            T::lose_dirty(inode, pos, end.saturating_sub(pos), e);
            return e.to_errno() as isize;
        }
    }
    let data = iomap.type_ == bindings::IOMAP_MAPPED as u16;
    let (start, end) = (pos as bindings::loff_t, end as bindings::loff_t);
    // SAFETY: The arguments are iomap's own; the context has a mapping that covers `pos`.
    let added = unsafe { bindings::iomap_add_to_ioend(wpc, folio, start, end, len) };
    if data && added > 0 {
        // SAFETY: The call above has left an ioend there, to which it added the range.
        let ioend = unsafe { (*wpc).wb_ctx.cast() };
        // SAFETY: The ioend is not submitted. iomap passes the folio locked, write-protected and under writeback;
        // writeback has one reference to it, in its batch.
        unsafe { copy::mark_if_shared(inode, ioend, folio) };
    }
    added
}

/// R5: whether the mapping that was kept covers `pos`, and nothing has changed since.
fn is_kept<T: MappingOperations>(inode: &Inode<T>, iomap: &bindings::iomap, pos: u64) -> bool {
    let start = offset(iomap.offset);
    if iomap.length == 0 || pos < start || pos >= start.saturating_add(iomap.length) {
        return false;
    }
    let cookie = iomap.validity_cookie;
    if T::is_current(inode, cookie) {
        return true;
    }
    let (first, len) = (start / T::BLOCK_SIZE, iomap.length / T::BLOCK_SIZE);
    T::map_stale(inode, first, len, cookie, StaleIn::Writeback);
    false
}

/// Looks up what writeback has to do at `pos`: write, or skip a hole.
fn look_up<T: MappingOperations>(
    inode: &Inode<T>,
    iomap: &mut bindings::iomap,
    pos: u64,
    len: u64,
) -> Result {
    let extent = loop {
        match T::map_report(inode, pos, LOOK_AHEAD.max(len)) {
            Ok(extent) => break extent,
            Err(e) if wait_for_memory(e) => (),
            Err(e) => return Err(e),
        }
    };
    let (kind, flags) = if extent.kind == ExtentKind::Hole {
        (bindings::IOMAP_HOLE, 0)
    } else {
        (bindings::IOMAP_MAPPED, bindings::IOMAP_F_ANON_WRITE)
    };
    iomap.type_ = kind as u16;
    iomap.flags = flags as u16;
    iomap.addr = u64::MAX;
    iomap.offset = extent.pos as bindings::loff_t;
    iomap.length = extent.len;
    iomap.validity_cookie = extent.cookie;
    // SAFETY: The superblock outlives its inodes, and its device is open as long as there are inodes.
    iomap.bdev = unsafe { (*inode.sb().as_ptr()).s_bdev };
    Ok(())
}

/// `writeback_submit`: the context's ioend is complete. `error` is what ended writeback after it.
///
/// # Safety
///
/// Called by iomap with a context whose ioend was built by `iomap_add_to_ioend` for an inode of `T`.
unsafe extern "C" fn writeback_submit<T: MappingOperations>(
    wpc: *mut bindings::iomap_writepage_ctx,
    error: c_int,
) -> c_int {
    // SAFETY: iomap passes a context with an ioend, and forgets that afterwards.
    let ioend = unsafe { (*wpc).wb_ctx.cast::<bindings::iomap_ioend>() };
    // SAFETY: The ioend is unsubmitted, for an inode of `T`, and becomes ours. Dirty ranges are whole blocks.
    let ioend = unsafe { WriteIoend::<T>::new(ioend, WriteFrom::PageCache) };
    let _nofs = NoFs::enter();
    // An error is that of a folio which could not be added. What was added before is written.
    T::submit_write(ioend);
    // An error of this ioend is in its folios and in the mapping; it is none of the next one's.
    error
}

/// `release_folio`: R2.
///
/// # Safety
///
/// Called by the VFS with a locked folio of a file of `T`.
unsafe extern "C" fn release_folio<T: MappingOperations>(
    folio: *mut bindings::folio,
    gfp: bindings::gfp_t,
) -> bool {
    // In a scope without filesystem reclaim, locks of the filesystem may be held: leave its mappings
    // alone.
    if <T as MappingOperations>::HAS_RELEASE_MAPS && gfp & bindings::ORDOFS_GFP_FS != 0 {
        // SAFETY: The VFS passes a locked folio in the page cache, so its mapping stays.
        let host = unsafe { (*(*folio).__bindgen_anon_1.__bindgen_anon_1.mapping).host };
        // SAFETY: The mapping is that of an inode of `T`, which stays as long as it has pages.
        let inode = unsafe { Inode::<T>::from_raw(host) };
        // SAFETY: The VFS passes a locked folio.
        let pos = offset(unsafe { bindings::ordofs_helper_folio_pos(folio) });
        // SAFETY: The VFS passes a locked folio.
        let len = unsafe { bindings::ordofs_helper_folio_size(folio) } as u64;
        T::release_maps(inode, pos, len);
    }
    // SAFETY: The VFS passes a locked folio of a file whose page cache is iomap's.
    unsafe { bindings::iomap_release_folio(folio, gfp) }
}
