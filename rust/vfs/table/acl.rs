// SPDX-License-Identifier: GPL-2.0

//! POSIX access control lists.
//!
//! # Model
//!
//! The VFS checks them, caches them with the inode, and forgets them with it. The filesystem stores them as
//! attributes in the form in which getxattr(2) shows them, with the numbers of users and groups
//! as on disk. What a new inode inherits is known before it is made, so that it is made with it.
//!
//! # Locking
//!
//! `i_rwsem` is held exclusively for changes: of the inode itself, or of the directory in which it is made.
//!
//! Tests: tests/vm/t/022-xattr.sh.

use core::{ptr, ptr::NonNull, slice};
use kernel::{
    error::{from_result, to_result},
    prelude::*,
};

use crate::bindings;
use crate::vfs::object::inode::{Inode, Locked};
use crate::vfs::object::types::Types;
use crate::vfs::os::NoFs;
use crate::vfs::traits::inode::InodeOperations;
use crate::vfs::traits::xattr::{Namespace, XattrOperations};

fn namespace(kind: c_int) -> Result<Namespace> {
    match u32::try_from(kind) {
        Ok(bindings::ACL_TYPE_ACCESS) => Ok(Namespace::AclAccess),
        Ok(bindings::ACL_TYPE_DEFAULT) => Ok(Namespace::AclDefault),
        _ => Err(EINVAL),
    }
}

/// A list in the form in which it is stored.
///
/// # Invariants
///
/// `ptr` comes from `kmalloc`, has `len` bytes, and is ours.
struct Encoded {
    ptr: NonNull<u8>,
    len: usize,
}

impl Encoded {
    /// Encodes a list; `None` for none.
    ///
    /// # Safety
    ///
    /// `acl` is null or a valid list that no task changes.
    unsafe fn new<T: Types>(
        inode: &Inode<T>,
        acl: *const bindings::posix_acl,
    ) -> Result<Option<Self>> {
        if acl.is_null() {
            return Ok(None);
        }
        let mut len = 0;
        // SAFETY: The inode is valid, and by this function's contract the list; the length is a local.
        let ptr = unsafe { bindings::ordofs_acl_encode(inode.as_ptr(), acl, &mut len) };
        let ptr = NonNull::new(ptr.cast()).ok_or(ENOMEM)?;
        // INVARIANT: As the call returns it.
        Ok(Some(Self { ptr, len }))
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariants so many bytes are there, and they are ours.
        unsafe { slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl Drop for Encoded {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the memory is ours and comes from `kmalloc`.
        unsafe { bindings::kfree(self.ptr.as_ptr().cast()) };
    }
}

/// The lists of a new inode.
pub(in crate::vfs) struct Inherited {
    access: Option<Encoded>,
    default: Option<Encoded>,
}

impl Inherited {
    /// What an inode of mode `mode` in `dir` inherits. Takes from the permissions what the directory's
    /// default list or, without one, the task's umask does not allow. Symbolic links inherit nothing.
    pub(in crate::vfs) fn new<T: Types>(dir: &Inode<T>, mode: &mut u32) -> Result<Self> {
        let (mut default, mut access) = (ptr::null_mut(), ptr::null_mut());
        let mut bits = *mode as u16;
        // SAFETY: The directory is valid, the others are local.
        to_result(unsafe {
            bindings::ordofs_acl_create(dir.as_ptr(), &mut bits, &mut default, &mut access)
        })?;
        *mode = u32::from(bits);
        // SAFETY: Null, or a reference of ours to a list that is shared and so never changed.
        let encoded_access = unsafe { Encoded::new(dir, access) };
        // SAFETY: Null, or a reference of ours to a list that is shared and so never changed.
        let encoded_default = unsafe { Encoded::new(dir, default) };
        for acl in [access, default] {
            // SAFETY: Null, which is allowed, or a reference of ours that is given up here.
            unsafe { bindings::ordofs_acl_release(acl) };
        }
        Ok(Self {
            access: encoded_access?,
            default: encoded_default?,
        })
    }

    /// The list that says who may do what.
    pub(in crate::vfs) fn access(&self) -> Option<&[u8]> {
        self.access.as_ref().map(Encoded::bytes)
    }

    /// For directories, the list that is inherited from them.
    pub(in crate::vfs) fn default(&self) -> Option<&[u8]> {
        self.default.as_ref().map(Encoded::bytes)
    }
}

/// The list of an inode whose permissions change, as it is afterwards.
pub(in crate::vfs) struct ChangedMode {
    /// A reference of ours.
    acl: NonNull<bindings::posix_acl>,
    encoded: Encoded,
}

impl ChangedMode {
    /// `None` if the inode has no list.
    pub(in crate::vfs) fn new<T: Types>(inode: &Locked<'_, T>, mode: u16) -> Result<Option<Self>> {
        let mut acl = ptr::null_mut();
        // SAFETY: The inode is valid, its lock is held, the list is local.
        to_result(unsafe { bindings::ordofs_acl_for_mode(inode.as_ptr(), mode, &mut acl) })?;
        let Some(acl) = NonNull::new(acl) else {
            return Ok(None);
        };
        // SAFETY: The list is ours alone.
        match unsafe { Encoded::new(inode, acl.as_ptr()) } {
            Ok(Some(encoded)) => Ok(Some(Self { acl, encoded })),
            other => {
                // SAFETY: The reference is ours, and given up here.
                unsafe { bindings::ordofs_acl_release(acl.as_ptr()) };
                Err(other.err().unwrap_or(ENOMEM))
            }
        }
    }

    /// As it is stored.
    pub(in crate::vfs) fn bytes(&self) -> &[u8] {
        self.encoded.bytes()
    }

    /// It is the inode's from now on.
    pub(in crate::vfs) fn cache<T: Types>(&self, inode: &Locked<'_, T>) {
        // SAFETY: `Locked` shows that `i_rwsem` is held, under which the cached list changes; the cache takes a
        // reference of its own.
        unsafe {
            bindings::ordofs_acl_cache(
                inode.as_ptr(),
                bindings::ACL_TYPE_ACCESS as c_int,
                self.acl.as_ptr(),
            );
        }
    }
}

impl Drop for ChangedMode {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { bindings::ordofs_acl_release(self.acl.as_ptr()) };
    }
}

/// `get_inode_acl`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of `T`.
pub(super) unsafe extern "C" fn get<T: XattrOperations>(
    inode: *mut bindings::inode,
    kind: c_int,
    rcu: bool,
) -> *mut bindings::posix_acl {
    let read = || -> Result<*mut bindings::posix_acl> {
        if rcu {
            // Reading may sleep.
            return Err(ECHILD);
        }
        // SAFETY: The VFS passes an inode of `T` that it holds.
        let this = unsafe { Inode::<T>::from_raw(inode) };
        let ns = namespace(kind)?;
        let _nofs = NoFs::enter();
        let value = loop {
            let Some(len) = T::get_xattr(this, ns, &[], &mut [])? else {
                return Ok(ptr::null_mut());
            };
            let mut v = KVVec::<u8>::from_elem(0, len, GFP_KERNEL)?;
            match T::get_xattr(this, ns, &[], &mut v) {
                // It has grown since.
                Err(e) if e == ERANGE => continue,
                Err(e) => return Err(e),
                Ok(None) => return Ok(ptr::null_mut()),
                Ok(Some(n)) => {
                    v.truncate(n);
                    break v;
                }
            }
        };
        // SAFETY: The inode and the value are valid. What comes back is a reference for the caller, null,
        // or an error pointer, as `get_inode_acl` returns it.
        Ok(unsafe { bindings::ordofs_acl_decode(inode, value.as_ptr().cast(), value.len()) })
    };
    match read() {
        Ok(acl) => acl,
        Err(e) => e.to_ptr(),
    }
}

/// `set_acl`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of `T`.
pub(super) unsafe extern "C" fn set<T: XattrOperations + InodeOperations>(
    idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    acl: *mut bindings::posix_acl,
    kind: c_int,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a positive dentry, which keeps its inode.
        let inode = unsafe { Inode::<T>::from_raw(bindings::ordofs_d_inode(dentry)) };
        // SAFETY: The VFS holds the inode's `i_rwsem` exclusively until this function has returned.
        let inode = unsafe { Locked::new(inode) };
        let ns = namespace(kind)?;
        let mut stored = acl;
        let mut mode = None;
        if ns == Namespace::AclAccess && !acl.is_null() {
            let mut bits = 0;
            // SAFETY: The VFS's idmapping, a valid inode, and locals. A list that says no more than the permissions becomes null.
            to_result(unsafe {
                bindings::ordofs_acl_update_mode(idmap, inode.as_ptr(), &mut bits, &mut stored)
            })?;
            mode = Some(u32::from(bits)).filter(|m| *m != inode.mode());
        }
        // SAFETY: Null, or the caller's list, which no task changes.
        let encoded = unsafe { Encoded::new(&inode, stored)? };
        T::set_acl(&inode, ns, encoded.as_ref().map(Encoded::bytes), mode)?;
        if let Some(m) = mode {
            // SAFETY: The field changes under `i_rwsem`, which is held exclusively.
            unsafe { (*inode.as_ptr()).i_mode = m as u16 };
        }
        // SAFETY: The cached list changes under `i_rwsem`, which is held exclusively; the cache takes a reference of
        // its own.
        unsafe { bindings::ordofs_acl_cache(inode.as_ptr(), kind, stored) };
        inode.refresh();
        Ok(0)
    })
}
