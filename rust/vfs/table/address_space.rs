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

use kernel::prelude::*;

use crate::bindings;
use crate::vfs::table::iomap::{offset, Tables, BLOCK};
use crate::vfs::traits::file_data::{ExtentKind, FileData};
use crate::vfs::{ioend, trace, Inode};

/// How far ahead writeback looks mappings up.
const LOOK_AHEAD: u64 = 8 << 20;

/// `read_folio`.
///
/// # Safety
///
/// Called by the VFS with a locked folio of a file of `T`.
unsafe extern "C" fn read_folio<T: FileData>(
    _file: *mut bindings::file,
    folio: *mut bindings::folio,
) -> c_int {
    // SAFETY: All zeroes is an empty context. The folio is locked, iomap unlocks it.
    unsafe {
        let mut ctx = core::mem::zeroed::<bindings::iomap_read_folio_ctx>();
        ctx.ops = read_ops::<T>();
        ctx.cur_folio = folio;
        bindings::iomap_read_folio(Tables::<T>::READ, &raw mut ctx, core::ptr::null_mut());
    }
    0
}

/// `readahead`.
///
/// # Safety
///
/// Called by the VFS for a file of `T`.
unsafe extern "C" fn readahead<T: FileData>(rac: *mut bindings::readahead_control) {
    // SAFETY: As above.
    unsafe {
        let mut ctx = core::mem::zeroed::<bindings::iomap_read_folio_ctx>();
        ctx.ops = read_ops::<T>();
        ctx.rac = rac;
        bindings::iomap_readahead(Tables::<T>::READ, &raw mut ctx, core::ptr::null_mut());
    }
}

/// The read operations of `T`: a bio that ends in [`ioend::submit_read`]'s worker.
fn read_ops<T: FileData>() -> *const bindings::iomap_read_ops {
    struct Ops<T>(core::marker::PhantomData<T>);
    impl<T: FileData> Ops<T> {
        const OPS: bindings::iomap_read_ops = bindings::iomap_read_ops {
            read_folio_range: Some(bindings::iomap_bio_read_folio_range),
            submit_read: Some(ioend::submit_read::<T>),
            bio_set: &raw mut bindings::iomap_ioend_bioset,
        };
        const REF: &'static bindings::iomap_read_ops = &Self::OPS;
    }
    Ops::<T>::REF
}

/// `writepages`.
///
/// # Safety
///
/// Called by the VFS for a file of `T`.
unsafe extern "C" fn writepages<T: FileData>(
    mapping: *mut bindings::address_space,
    wbc: *mut bindings::writeback_control,
) -> c_int {
    struct Ops<T>(core::marker::PhantomData<T>);
    impl<T: FileData> Ops<T> {
        const REF: &'static bindings::iomap_writeback_ops = &bindings::iomap_writeback_ops {
            writeback_range: Some(writeback_range::<T>),
            writeback_submit: Some(ioend::writeback_submit::<T>),
        };
    }
    // SAFETY: By the requirements, the mapping is that of an inode of `T`.
    let inode = unsafe { Inode::<T>::from_raw((*mapping).host) };
    // All that it adds to ioends it has submitted when it returns.
    T::while_submitting(inode, || {
        // SAFETY: All zeroes is an empty context. The mapping and `wbc` are the VFS's.
        unsafe {
            let mut wpc = core::mem::zeroed::<bindings::iomap_writepage_ctx>();
            wpc.inode = (*mapping).host;
            wpc.wbc = wbc;
            wpc.ops = Ops::<T>::REF;
            bindings::iomap_writepages(&raw mut wpc)
        }
    })
}

/// `writeback_range`: adds a dirty range of a folio to the ioend.
///
/// # Safety
///
/// Called by iomap for an inode of `T` with the folio locked and under writeback.
unsafe extern "C" fn writeback_range<T: FileData>(
    wpc: *mut bindings::iomap_writepage_ctx,
    folio: *mut bindings::folio,
    pos: u64,
    len: c_uint,
    end: u64,
) -> isize {
    // SAFETY: By the requirements, the context is valid and ours.
    let (inode, iomap) = unsafe {
        let inode = (*wpc).inode;
        (Inode::<T>::from_raw(inode), &mut (*wpc).iomap)
    };
    let start = offset(iomap.offset);
    // R5: the look-up that was kept is good if it covers this and nothing has changed.
    let known = iomap.length != 0 && start <= pos && pos < start.saturating_add(iomap.length);
    let stale =
        known && cfg!(not(ordofs_mutant_r5)) && !T::is_current(inode, iomap.validity_cookie);
    if stale {
        let (start, len) = (start / BLOCK, iomap.length / BLOCK);
        trace::map_stale(
            inode.sb().dev(),
            inode.ino(),
            start,
            len,
            iomap.validity_cookie,
            true,
        );
    }
    if !known || stale {
        let report = || T::map_report(inode, pos, LOOK_AHEAD.max(u64::from(len)));
        let mut found = report();
        while let Err(e) = found {
            if !ioend::wait_for_memory(e) {
                break;
            }
            found = report();
        }
        match found {
            Ok(e) => {
                let hole = e.kind == ExtentKind::Hole;
                iomap.type_ = if hole {
                    bindings::IOMAP_HOLE as u16
                } else {
                    bindings::IOMAP_MAPPED as u16
                };
                iomap.flags = if hole {
                    0
                } else {
                    bindings::IOMAP_F_ANON_WRITE as u16
                };
                iomap.addr = u64::MAX;
                iomap.offset = e.pos as bindings::loff_t;
                iomap.length = e.len;
                iomap.validity_cookie = e.cookie;
                // SAFETY: The inode's superblock has a block device.
                iomap.bdev = unsafe { (*(*inode.as_ptr()).i_sb).s_bdev };
            }
            Err(e) => {
                // The folio will be clean and its data lost, which the error says: also that of its dirty
                // blocks behind these, for which iomap does not ask any more.
                // SAFETY: By the requirements.
                let end = unsafe {
                    offset(bindings::ordofs_helper_folio_pos(folio))
                        + bindings::ordofs_helper_folio_size(folio) as u64
                };
                T::lose_dirty(inode, pos, end.saturating_sub(pos), e);
                return e.to_errno() as isize;
            }
        }
    }
    let data = iomap.type_ == bindings::IOMAP_MAPPED as u16;
    // SAFETY: The arguments are iomap's own; the context has a mapping that covers `pos`.
    let added = unsafe {
        bindings::iomap_add_to_ioend(
            wpc,
            folio,
            pos as bindings::loff_t,
            end as bindings::loff_t,
            len,
        )
    };
    if data && added > 0 {
        // SAFETY: The range was added to the context's ioend, which is not submitted. By the requirements
        // for the folio; writeback has one reference to it, in its batch.
        unsafe { ioend::bounce_if_shared(inode, (*wpc).wb_ctx.cast(), folio) };
    }
    added
}

/// `release_folio`: R2.
///
/// # Safety
///
/// Called by the VFS with a locked folio of a file of `T`.
unsafe extern "C" fn release_folio<T: FileData>(
    folio: *mut bindings::folio,
    gfp: bindings::gfp_t,
) -> bool {
    // In a scope without filesystem reclaim, locks of the filesystem may be held: leave its mappings
    // alone.
    if gfp & bindings::ORDOFS_GFP_FS != 0 {
        // SAFETY: The folio is locked and in the page cache of an inode of `T`.
        let (inode, pos, len) = unsafe {
            (
                Inode::<T>::from_raw((*(*folio).__bindgen_anon_1.__bindgen_anon_1.mapping).host),
                offset(bindings::ordofs_helper_folio_pos(folio)),
                bindings::ordofs_helper_folio_size(folio) as u64,
            )
        };
        T::release_maps(inode, pos, len);
    }
    // SAFETY: By the requirements.
    unsafe { bindings::iomap_release_folio(folio, gfp) }
}

/// The table for files of `T`.
pub(in crate::vfs) fn address_space_operations<T: FileData>(
) -> &'static bindings::address_space_operations {
    struct Ops<T>(core::marker::PhantomData<T>);
    impl<T: FileData> Ops<T> {
        const REF: &'static bindings::address_space_operations =
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
    Ops::<T>::REF
}
