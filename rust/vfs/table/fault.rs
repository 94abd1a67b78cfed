// SPDX-License-Identifier: GPL-2.0

//! Page faults of memory-mapped files.
//!
//! # Rules
//!
//! R3: making a page writable holds `invalidate_lock` shared from before the folio is locked and
//! `i_size` is checked until it is dirty. Truncation, punching and zeroing hold the lock exclusively
//! from before they drop the pages until the blocks are gone. The race otherwise: a store dirties a
//! page over blocks that are being freed. Read faults hold the same side inside of `filemap_fault`.
//!
//! What is writable in a page table can be written to past it, too, by whoever takes a reference to the
//! page: the inode is marked first, and writeback looks for such references (`ioend`, "Stable data").
//!
//! # Locking
//!
//! `mmap_lock` of the faulting process, freeze protection, `invalidate_lock`, folio lock.

use kernel::error::to_result;
use kernel::prelude::*;

use crate::bindings;
use crate::vfs::table::iomap::Tables;
use crate::vfs::traits::file_data::FileData;
use crate::vfs::{trace, Inode};

/// `fault`: a page of the mapping is not there.
///
/// # Safety
///
/// Called by the fault handler for a mapping of a file of `T`.
unsafe extern "C" fn fault<T: FileData>(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: By the requirements the fault, its mapping and its file are valid.
    let inode = unsafe { Inode::<T>::from_raw((*(*(*vmf).__bindgen_anon_1.vma).vm_file).f_inode) };
    match inode.fs().readable() {
        // SAFETY: As above.
        Ok(()) => unsafe { bindings::filemap_fault(vmf) },
        // SAFETY: No requirements.
        Err(e) => unsafe { bindings::ordofs_helper_fault_error(e.to_errno()) },
    }
}

/// `map_pages`: maps what the page cache has around a fault.
///
/// # Safety
///
/// As for [`fault`], in a read-side critical section of RCU.
unsafe extern "C" fn map_pages<T: FileData>(
    vmf: *mut bindings::vm_fault,
    start: c_ulong,
    end: c_ulong,
) -> bindings::vm_fault_t {
    // SAFETY: By the requirements the fault, its mapping and its file are valid.
    let inode = unsafe { Inode::<T>::from_raw((*(*(*vmf).__bindgen_anon_1.vma).vm_file).f_inode) };
    match inode.fs().readable() {
        // SAFETY: The arguments are the fault handler's own.
        Ok(()) => unsafe { bindings::filemap_map_pages(vmf, start, end) },
        // Nothing mapped: `fault` comes next.
        Err(_) => 0,
    }
}

/// `page_mkwrite`.
///
/// # Safety
///
/// Called by the fault handler for a mapping of a file of `T`.
unsafe extern "C" fn page_mkwrite<T: FileData>(
    vmf: *mut bindings::vm_fault,
) -> bindings::vm_fault_t {
    // SAFETY: By the requirements the fault, its mapping and its file are valid. The page has a
    // reference, so that its folio stays the same.
    unsafe {
        let vma = (*vmf).__bindgen_anon_1.vma;
        let file = (*vma).vm_file;
        let inode = (*file).f_inode;
        let lock = &raw mut (*(*inode).i_mapping).invalidate_lock;
        let page = (*vmf).page;
        let (this, block) = (
            Inode::<T>::from_raw(inode),
            (*vmf).__bindgen_anon_1.pgoff as u64,
        );
        trace::fault(this.sb().dev(), this.ino(), block, 1);
        this.note_writable();

        bindings::ordofs_helper_start_pagefault((*inode).i_sb);
        let ret = match to_result(bindings::file_update_time(file)) {
            Ok(()) => {
                bindings::down_read(lock);
                // The page goes to `fault_next`, which waits for its writeback.
                let ret = bindings::iomap_page_mkwrite(vmf, Tables::<T>::FAULT, page.cast());
                trace::fault_done(this.sb().dev(), this.ino(), block, 1);
                bindings::up_read(lock);
                ret
            }
            Err(e) => bindings::ordofs_helper_fault_error(e.to_errno()),
        };
        bindings::ordofs_helper_end_pagefault((*inode).i_sb);
        ret
    }
}

/// `mmap_prepare`.
///
/// # Safety
///
/// Called by the VFS for an open file of `T`.
pub(in crate::vfs) unsafe extern "C" fn mmap_prepare<T: FileData>(
    desc: *mut bindings::vm_area_desc,
) -> c_int {
    struct Ops<T>(core::marker::PhantomData<T>);
    impl<T: FileData> Ops<T> {
        const REF: &'static bindings::vm_operations_struct = &bindings::vm_operations_struct {
            fault: Some(fault::<T>),
            map_pages: Some(map_pages::<T>),
            page_mkwrite: Some(page_mkwrite::<T>),
            ..pin_init::zeroed()
        };
    }
    // SAFETY: By the requirements.
    unsafe {
        bindings::ordofs_helper_file_accessed((*desc).file);
        (*desc).vm_ops = Ops::<T>::REF;
    }
    0
}
