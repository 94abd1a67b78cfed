// SPDX-License-Identifier: GPL-2.0

//! File handles (`name_to_handle_at`, NFS): inode number and generation.
//!
//! Tests: tests/vm/t/031-handles.sh.

use core::{marker::PhantomData, mem::size_of, ptr};
use kernel::{
    error::{from_result, to_result},
    prelude::*,
};

use super::new_inode::InstallTables;
use crate::bindings;
use crate::vfs::object::inode::Inode;
use crate::vfs::object::super_block::SuperBlock;
use crate::vfs::traits::export::ExportOperations;
use crate::vfs::traits::inode::InodeOperations;

/// What is in a handle of type `FILEID_INO64_GEN`, in 32-bit words.
const WORDS: usize = 3;
/// The handle's type.
const FILEID_INO64_GEN: c_int = 0x81;
/// The result of encoding into too little space.
const FILEID_INVALID: c_int = 0xff;

struct Tables<T>(PhantomData<T>);

impl<T: ExportOperations + InstallTables> Tables<T> {
    const EXPORT: &'static bindings::export_operations = &bindings::export_operations {
        encode_fh: Some(encode_fh),
        fh_to_dentry: Some(fh_to_dentry::<T>),
        get_parent: if <T as ExportOperations>::HAS_PARENT {
            Some(get_parent::<T>)
        } else {
            None
        },
        commit_metadata: Some(commit_metadata::<T>),
        ..pin_init::zeroed()
    };
}

/// Operations for file handles.
pub(in crate::vfs) fn export_ops<T: ExportOperations + InstallTables>(
) -> *const bindings::export_operations {
    Tables::<T>::EXPORT
}

/// `encode_fh`.
///
/// # Safety
///
/// As exportfs calls it: `inode` is valid, `fh` has `*max_len` words.
unsafe extern "C" fn encode_fh(
    inode: *mut bindings::inode,
    fh: *mut u32,
    max_len: *mut c_int,
    _parent: *mut bindings::inode,
) -> c_int {
    // SAFETY: exportfs passes the length of its buffer, for this call to change.
    let len = unsafe { &mut *max_len };
    let room = usize::try_from(*len).unwrap_or(0);
    *len = WORDS as c_int;
    if room < WORDS {
        return FILEID_INVALID;
    }
    // SAFETY: exportfs passes an inode that it holds; its number does not change.
    let ino = unsafe { (*inode).i_ino };
    // SAFETY: exportfs passes an inode that it holds; its generation does not change.
    let generation = unsafe { (*inode).i_generation };
    let words = [ino as u32, (ino >> 32) as u32, generation];
    // SAFETY: The buffer has room for so many words, as checked above.
    unsafe { ptr::copy_nonoverlapping(words.as_ptr(), fh, WORDS) };
    FILEID_INO64_GEN
}

/// `fh_to_dentry`.
///
/// # Safety
///
/// As exportfs calls it, for a mounted superblock of `T`; `fid` has `fh_len` words.
unsafe extern "C" fn fh_to_dentry<T: InstallTables>(
    sb: *mut bindings::super_block,
    fid: *mut bindings::fid,
    fh_len: c_int,
    fh_type: c_int,
) -> *mut bindings::dentry {
    let find = || -> Result<*mut bindings::inode> {
        if fh_type != FILEID_INO64_GEN || usize::try_from(fh_len).unwrap_or(0) < WORDS {
            return Err(ESTALE);
        }
        let mut words = [0u32; WORDS];
        // SAFETY: exportfs passes a handle of `fh_len` words, which are enough, as checked above.
        unsafe {
            ptr::copy_nonoverlapping(
                fid.cast::<u8>(),
                words.as_mut_ptr().cast(),
                WORDS * size_of::<u32>(),
            );
        }
        let [low, high, generation] = words;
        // SAFETY: exportfs passes a mounted superblock of `T`.
        let sb = unsafe { SuperBlock::<T>::from_raw(sb) };
        let inode = Inode::get(sb, u64::from(high) << 32 | u64::from(low))?;
        // SAFETY: The reference keeps the inode; its generation never changes.
        if unsafe { (*inode.as_ptr()).i_generation } != generation {
            return Err(ESTALE);
        }
        Ok(inode.into_raw())
    };
    match find() {
        // SAFETY: The inode comes with a reference, which the call consumes.
        Ok(inode) => unsafe { bindings::d_obtain_alias(inode) },
        Err(e) => e.to_ptr(),
    }
}

/// `get_parent`.
///
/// # Safety
///
/// As exportfs calls it, for the dentry of a directory of `T`.
unsafe extern "C" fn get_parent<T: ExportOperations + InstallTables>(
    child: *mut bindings::dentry,
) -> *mut bindings::dentry {
    // SAFETY: exportfs passes a positive dentry of a mounted superblock of `T`, which keeps its inode.
    let inode = unsafe { Inode::<T>::from_raw(bindings::ordofs_d_inode(child)) };
    let find = || -> Result<*mut bindings::inode> {
        let parent = Inode::get(inode.sb(), T::parent(inode).ok_or(ENOTDIR)?)?;
        Ok(parent.into_raw())
    };
    match find() {
        // SAFETY: The inode comes with a reference, which the call consumes.
        Ok(parent) => unsafe { bindings::d_obtain_alias(parent) },
        Err(e) => e.to_ptr(),
    }
}

/// `commit_metadata`.
///
/// # Safety
///
/// As nfsd calls it, for an inode of `T`.
unsafe extern "C" fn commit_metadata<T: InodeOperations>(inode: *mut bindings::inode) -> c_int {
    from_result(|| {
        // SAFETY: nfsd passes an inode that it holds; this may sleep.
        to_result(unsafe { bindings::sync_inode_metadata(inode, 1) })?;
        // SAFETY: nfsd passes an inode of `T` that it holds.
        T::sync_inode(unsafe { Inode::<T>::from_raw(inode) })?;
        Ok(0)
    })
}
