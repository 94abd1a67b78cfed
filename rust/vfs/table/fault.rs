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
//! What is writable in a page table can be written to past it, too, by a task that takes a reference to the
//! page: the inode is marked first, and writeback looks for such references (`ioend`, "Stable data").
//!
//! # Locking
//!
//! `mmap_lock` of the faulting process, freeze protection, `invalidate_lock`, folio lock.
//!
//! Tests: tests/vm/t/043-r3.sh, 065-race.sh, 027-after-shutdown.sh.

use core::marker::PhantomData;

use kernel::error::to_result;
use kernel::prelude::*;

use super::iomap::Tables;
use crate::bindings;
use crate::vfs::object::inode::Inode;
use crate::vfs::traits::mapping::MappingOperations;
use crate::vfs::traits::super_block::SuperOperations;

/// The file of a fault.
///
/// # Safety
///
/// `vmf` is a fault in a mapping of a file, as the fault handler passes it to the functions of a
/// `vm_operations_struct`.
unsafe fn file_of(vmf: *mut bindings::vm_fault) -> *mut bindings::file {
    // SAFETY: By this function's contract the fault is valid, and its mapping is locked or in RCU.
    unsafe { (*(*vmf).__bindgen_anon_1.vma).vm_file }
}

/// The inode of a fault.
///
/// # Safety
///
/// As for [`file_of`], and the file is one of `T`, for `'a`: until the callback returns.
unsafe fn inode_of<'a, T: MappingOperations>(vmf: *mut bindings::vm_fault) -> &'a Inode<T> {
    // SAFETY: By this function's contract.
    let file = unsafe { file_of(vmf) };
    // SAFETY: A mapping keeps its file open, and an open file its inode, which by this function's contract is one of
    // `T`.
    unsafe { Inode::from_raw((*file).f_inode) }
}

/// `fault`: a page of the mapping is not there.
///
/// # Safety
///
/// Called by the fault handler for a mapping of a file of `T`.
unsafe extern "C" fn fault<T: MappingOperations + SuperOperations>(
    vmf: *mut bindings::vm_fault,
) -> bindings::vm_fault_t {
    // SAFETY: The fault handler passes a fault in a mapping of a file of `T`.
    let inode = unsafe { inode_of::<T>(vmf) };
    match inode.fs().readable() {
        // SAFETY: The argument is the fault handler's own.
        Ok(()) => unsafe { bindings::filemap_fault(vmf) },
        // SAFETY: No requirements: only computes.
        Err(e) => unsafe { bindings::ordofs_helper_fault_error(e.to_errno()) },
    }
}

/// `map_pages`: maps what the page cache has around a fault.
///
/// # Safety
///
/// As for [`fault`], in a read-side critical section of RCU.
unsafe extern "C" fn map_pages<T: MappingOperations + SuperOperations>(
    vmf: *mut bindings::vm_fault,
    start: c_ulong,
    end: c_ulong,
) -> bindings::vm_fault_t {
    // SAFETY: The fault handler passes a fault in a mapping of a file of `T`.
    let inode = unsafe { inode_of::<T>(vmf) };
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
/// Called by the fault handler for a mapping of a file of `T`. The page has a reference, so that its folio stays
/// the same.
unsafe extern "C" fn page_mkwrite<T: MappingOperations>(
    vmf: *mut bindings::vm_fault,
) -> bindings::vm_fault_t {
    // SAFETY: The fault handler passes a fault in a mapping of a file of `T`.
    let inode = unsafe { inode_of::<T>(vmf) };
    // SAFETY: The fault handler passes a fault in a mapping of a file.
    let file = unsafe { file_of(vmf) };
    // SAFETY: The fault is valid, and this task's.
    let block = unsafe { (*vmf).__bindgen_anon_1.pgoff } as u64;
    T::fault(inode, block);
    inode.note_writable();

    let sb = inode.sb().as_ptr();
    // SAFETY: The superblock is valid; faults come before all other levels of freeze protection that this task will
    // take.
    unsafe { bindings::ordofs_helper_start_pagefault(sb) };
    // SAFETY: The mapping keeps the file open.
    let ret = match to_result(unsafe { bindings::file_update_time(file) }) {
        // SAFETY: The fault handler's own fault.
        Ok(()) => unsafe { make_writable(vmf, inode, block) },
        // SAFETY: No requirements: only computes.
        Err(e) => unsafe { bindings::ordofs_helper_fault_error(e.to_errno()) },
    };
    // SAFETY: Taken above, by this task.
    unsafe { bindings::ordofs_helper_end_pagefault(sb) };
    ret
}

/// R3: makes the page of a fault writable under the shared side of the layout lock.
///
/// # Safety
///
/// As for [`page_mkwrite`]; `inode` is the file's.
unsafe fn make_writable<T: MappingOperations>(
    vmf: *mut bindings::vm_fault,
    inode: &Inode<T>,
    block: u64,
) -> bindings::vm_fault_t {
    // SAFETY: The inode is valid, and so is its mapping.
    let lock = unsafe { &raw mut (*inode.mapping()).invalidate_lock };
    // SAFETY: By this function's contract the fault is valid.
    let page = unsafe { (*vmf).page };
    // SAFETY: The lock is initialised; the fault holds nothing that comes after it.
    unsafe { bindings::down_read(lock) };
    // The page goes to `fault_next`, which waits for its writeback.
    // SAFETY: The fault is the fault handler's own; the table is static, and of the inode's `T`.
    let ret = unsafe { bindings::iomap_page_mkwrite(vmf, Tables::<T>::FAULT, page.cast()) };
    T::fault_done(inode, block);
    // SAFETY: Taken above, by this task.
    unsafe { bindings::up_read(lock) };
    ret
}

struct Ops<T>(PhantomData<T>);

impl<T: MappingOperations + SuperOperations> Ops<T> {
    const REF: &'static bindings::vm_operations_struct = &bindings::vm_operations_struct {
        fault: Some(fault::<T>),
        map_pages: Some(map_pages::<T>),
        page_mkwrite: Some(page_mkwrite::<T>),
        ..pin_init::zeroed()
    };
}

/// `mmap_prepare`.
///
/// # Safety
///
/// Called by the VFS for an open file of `T`.
pub(super) unsafe extern "C" fn mmap_prepare<T: MappingOperations + SuperOperations>(
    desc: *mut bindings::vm_area_desc,
) -> c_int {
    // SAFETY: The VFS passes a description with the open file.
    unsafe { bindings::ordofs_helper_file_accessed((*desc).file) };
    // SAFETY: The description is this call's to complete.
    unsafe { (*desc).vm_ops = Ops::<T>::REF };
    0
}
