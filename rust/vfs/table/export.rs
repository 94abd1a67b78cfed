// SPDX-License-Identifier: GPL-2.0

//! File handles (`name_to_handle_at`, NFS): inode number and generation.

use core::{marker::PhantomData, mem::size_of, ptr};
use kernel::{
    error::{from_result, to_result},
    prelude::*,
};

use crate::vfs::{Inode, SuperBlock};
use crate::{bindings, vfs::traits::file_data::FileData};

/// What is in a handle of type `FILEID_INO64_GEN`, in 32-bit words.
const WORDS: usize = 3;
/// The handle's type.
const FILEID_INO64_GEN: c_int = 0x81;
/// The answer to an attempt to encode into too little space.
const FILEID_INVALID: c_int = 0xff;

struct Tables<T: FileData>(PhantomData<T>);

impl<T: FileData> Tables<T> {
    const EXPORT: bindings::export_operations = bindings::export_operations {
        encode_fh: Some(encode_fh::<T>),
        fh_to_dentry: Some(fh_to_dentry::<T>),
        get_parent: Some(get_parent::<T>),
        commit_metadata: Some(commit_metadata::<T>),
        ..pin_init::zeroed()
    };
}

/// Operations for file handles.
pub(crate) fn export_ops<T: FileData>() -> *const bindings::export_operations {
    &Tables::<T>::EXPORT
}

/// `encode_fh`.
///
/// # Safety
///
/// As exportfs calls it: `inode` is of `T`, `fh` has `*max_len` words.
unsafe extern "C" fn encode_fh<T: FileData>(
    inode: *mut bindings::inode,
    fh: *mut u32,
    max_len: *mut c_int,
    _parent: *mut bindings::inode,
) -> c_int {
    // SAFETY: The VFS passes a buffer of `*max_len` words and an inode of `T`.
    unsafe {
        let room = usize::try_from(*max_len).unwrap_or(0);
        *max_len = WORDS as c_int;
        if room < WORDS {
            return FILEID_INVALID;
        }
        let ino = (*inode).i_ino;
        let words = [ino as u32, (ino >> 32) as u32, (*inode).i_generation];
        ptr::copy_nonoverlapping(words.as_ptr(), fh, WORDS);
    }
    FILEID_INO64_GEN
}

/// `fh_to_dentry`.
///
/// # Safety
///
/// As exportfs calls it, for a mounted superblock of `T`; `fid` has `fh_len` words.
unsafe extern "C" fn fh_to_dentry<T: FileData>(
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
        // SAFETY: The VFS passes a handle of `fh_len` words.
        unsafe {
            ptr::copy_nonoverlapping(
                fid.cast::<u8>(),
                words.as_mut_ptr().cast(),
                WORDS * size_of::<u32>(),
            );
        }
        let [low, high, generation] = words;
        // SAFETY: The VFS passes a mounted superblock of `T`.
        let sb = unsafe { SuperBlock::<T>::from_raw(sb) };
        let inode = Inode::get(sb, u64::from(high) << 32 | u64::from(low))?;
        // SAFETY: The inode is valid; its generation never changes.
        if unsafe { (*inode.as_ptr()).i_generation } != generation {
            return Err(ESTALE);
        }
        Ok(inode.into_raw())
    };
    match find() {
        // SAFETY: The reference goes to the call.
        Ok(inode) => unsafe { bindings::d_obtain_alias(inode) },
        Err(e) => e.to_ptr(),
    }
}

/// `get_parent`.
///
/// # Safety
///
/// As exportfs calls it, for the dentry of a directory of `T`.
unsafe extern "C" fn get_parent<T: FileData>(
    child: *mut bindings::dentry,
) -> *mut bindings::dentry {
    // SAFETY: The VFS passes a positive dentry of a mounted superblock of `T`.
    let inode = unsafe { Inode::<T>::from_raw(bindings::ordofs_d_inode(child)) };
    let find = || -> Result<*mut bindings::inode> {
        let parent = Inode::get(inode.sb(), T::parent(inode).ok_or(ENOTDIR)?)?;
        Ok(parent.into_raw())
    };
    match find() {
        // SAFETY: The reference goes to the call.
        Ok(parent) => unsafe { bindings::d_obtain_alias(parent) },
        Err(e) => e.to_ptr(),
    }
}

/// `commit_metadata`.
///
/// # Safety
///
/// As nfsd calls it, for an inode of `T`.
unsafe extern "C" fn commit_metadata<T: FileData>(inode: *mut bindings::inode) -> c_int {
    from_result(|| {
        // SAFETY: The NFS server passes an inode that it holds.
        to_result(unsafe { bindings::sync_inode_metadata(inode, 1) })?;
        // SAFETY: As above.
        T::sync_inode(unsafe { Inode::<T>::from_raw(inode) })?;
        Ok(0)
    })
}
