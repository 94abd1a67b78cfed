// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.
//!
//! # Model
//!
//! The VFS splits a name into a handler, which stands for a [`Namespace`], and the rest; permissions are
//! its business. Access control lists do not come this way: see [`crate::vfs::table::acl`].
//!
//! # Locking
//!
//! `i_rwsem` is held exclusively for changes, and not at all for reading and listing.
//!
//! Tests: tests/vm/t/022-xattr.sh.

use core::{ffi::CStr, marker::PhantomData, ptr, slice};
use kernel::{
    error::{from_result, to_result},
    prelude::*,
};

use crate::bindings;
use crate::vfs::object::dentry::Dentry;
use crate::vfs::object::inode::Inode;
use crate::vfs::object::types::Types;
use crate::vfs::traits::inode::InodeOperations;
use crate::vfs::traits::xattr::{Label, Namespace, XattrOperations, XattrSet};

/// The handlers: one for each namespace.
struct Tables<T>(PhantomData<T>);

impl<T: XattrOperations + InodeOperations> Tables<T> {
    #[expect(
        clippy::disallowed_methods,
        reason = "`as_char_ptr` is not for constants; the cast says that chars are bytes"
    )]
    const fn handler(ns: Namespace, prefix: &'static CStr) -> bindings::xattr_handler {
        bindings::xattr_handler {
            prefix: prefix.as_ptr().cast(),
            flags: ns as c_int,
            get: Some(get::<T>),
            set: if <T as XattrOperations>::HAS_SET_XATTR {
                Some(set::<T>)
            } else {
                None
            },
            ..pin_init::zeroed()
        }
    }
    const USER: bindings::xattr_handler = Self::handler(Namespace::User, c"user.");
    const TRUSTED: bindings::xattr_handler = Self::handler(Namespace::Trusted, c"trusted.");
    const SECURITY: bindings::xattr_handler = Self::handler(Namespace::Security, c"security.");
    const ALL: [*const bindings::xattr_handler; 4] =
        [&Self::USER, &Self::TRUSTED, &Self::SECURITY, ptr::null()];
}

/// For `s_xattr`.
pub(in crate::vfs) fn handlers<T: XattrOperations + InodeOperations>(
) -> *const *const bindings::xattr_handler {
    let all: &'static [*const bindings::xattr_handler; 4] = &Tables::<T>::ALL;
    all.as_ptr()
}

/// The namespace of a handler of [`handlers`].
fn namespace(flags: c_int) -> Result<Namespace> {
    [Namespace::User, Namespace::Trusted, Namespace::Security]
        .into_iter()
        .find(|ns| *ns as c_int == flags)
        .ok_or(EOPNOTSUPP)
}

/// The buffer of a system call, which may be of size 0.
///
/// # Safety
///
/// `buffer` is valid for writes of `size` bytes, and the caller's alone, during `'a`.
unsafe fn buffer<'a>(buffer: *mut u8, size: usize) -> &'a mut [u8] {
    if buffer.is_null() || size == 0 {
        return &mut [];
    }
    // SAFETY: By this function's contract the buffer is valid for writes of that many bytes.
    unsafe { ptr::write_bytes(buffer, 0, size) };
    // SAFETY: By this function's contract the buffer is the caller's alone; it is initialised now.
    unsafe { slice::from_raw_parts_mut(buffer, size) }
}

/// `get` of a handler.
///
/// # Safety
///
/// As the VFS calls it for an inode of `T`: `name` is a string, `value` is null or has `size` bytes.
unsafe extern "C" fn get<T: XattrOperations>(
    handler: *const bindings::xattr_handler,
    _dentry: *mut bindings::dentry,
    inode: *mut bindings::inode,
    name: *const c_char,
    value: *mut c_void,
    size: usize,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a handler of ours, which is static.
        let ns = namespace(unsafe { (*handler).flags })?;
        // SAFETY: The VFS passes an inode of a superblock that has the handler, which it holds.
        let inode = unsafe { Inode::<T>::from_raw(inode) };
        // SAFETY: The VFS passes a string that stays during the call.
        let name = unsafe { CStr::from_char_ptr(name) }.to_bytes();
        // SAFETY: The VFS passes null, or a buffer of the kernel's with its size.
        let out = unsafe { buffer(value.cast(), size) };
        let len = T::get_xattr(inode, ns, name, out)?.ok_or(ENODATA)?;
        c_int::try_from(len).map_err(|_| E2BIG)
    })
}

/// `set` of a handler.
///
/// # Safety
///
/// As the VFS calls it for an inode of `T` whose `i_rwsem` is held exclusively: `name` is a string, `value` is null
/// or has `size` bytes.
unsafe extern "C" fn set<T: XattrOperations + InodeOperations>(
    handler: *const bindings::xattr_handler,
    _idmap: *mut bindings::mnt_idmap,
    _dentry: *mut bindings::dentry,
    inode: *mut bindings::inode,
    name: *const c_char,
    value: *const c_void,
    size: usize,
    flags: c_int,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS passes a handler of ours, which is static.
        let ns = namespace(unsafe { (*handler).flags })?;
        // SAFETY: The VFS passes an inode of a superblock that has the handler, which it holds.
        let inode = unsafe { Inode::<T>::from_raw(inode) };
        // SAFETY: The VFS passes a string that stays during the call.
        let name = unsafe { CStr::from_char_ptr(name) }.to_bytes();
        // SAFETY: The VFS passes null, or a buffer of the kernel's with its size, which no task changes.
        let value = unsafe { bytes(value, size) };
        let create = flags & bindings::XATTR_CREATE as c_int != 0;
        let replace = flags & bindings::XATTR_REPLACE as c_int != 0;
        let how = match (create, replace) {
            (false, false) => XattrSet::Any,
            (true, false) => XattrSet::Create,
            (false, true) => XattrSet::Replace,
            (true, true) => return Err(EINVAL),
        };
        inode.assert_locked();
        T::set_xattr(inode, ns, name, value, how)?;
        inode.refresh();
        Ok(0)
    })
}

/// A value, which may be of size 0; null stands for the removal of the attribute.
///
/// # Safety
///
/// `value` is null or valid for reads of `size` bytes, which no task changes, during `'a`.
unsafe fn bytes<'a>(value: *const c_void, size: usize) -> Option<&'a [u8]> {
    if value.is_null() {
        return None;
    }
    // SAFETY: By this function's contract so many bytes are there, and no task changes them.
    Some(unsafe { slice::from_raw_parts(value.cast(), size) })
}

/// `listxattr`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of `T`.
pub(super) unsafe extern "C" fn list<T: XattrOperations>(
    dentry: *mut bindings::dentry,
    list: *mut c_char,
    size: usize,
) -> isize {
    let fill = || -> Result<isize> {
        // SAFETY: The VFS passes a positive dentry that it holds.
        let ptr = unsafe { bindings::ordofs_d_inode(dentry) };
        // SAFETY: The VFS passes null, or a buffer of the kernel's with its size.
        let out = unsafe { buffer(list.cast(), size) };
        // SAFETY: The dentry keeps its inode, which is one of `T`.
        let inode = unsafe { Inode::<T>::from_raw(ptr) };
        // SAFETY: The dentry keeps the inode; reads a flag of its superblock.
        let acls = unsafe { bindings::ordofs_is_posixacl(ptr) };
        // SAFETY: Looks at the credentials of the current task, in process context.
        let trusted = unsafe { bindings::ordofs_capable_sys_admin() };
        let mut at = 0usize;
        T::list_xattr(inode, &mut |ns, name| {
            let shown = match ns {
                Namespace::Trusted => trusted,
                Namespace::AclAccess | Namespace::AclDefault => acls,
                Namespace::User | Namespace::Security => true,
            };
            if !shown {
                return Ok(());
            }
            for part in [ns.prefix().to_bytes(), name, &[0]] {
                let end = at.checked_add(part.len()).ok_or(E2BIG)?;
                if size != 0 {
                    out.get_mut(at..end).ok_or(ERANGE)?.copy_from_slice(part);
                }
                at = end;
            }
            Ok(())
        })?;
        isize::try_from(at).map_err(|_| E2BIG)
    };
    match fill() {
        Ok(n) => n,
        Err(e) => e.to_errno() as isize,
    }
}

/// The labels that the security modules give to an inode that is about to be made in `dir` under the name
/// of `dentry`. They also note them in the inode.
///
/// # Safety
///
/// `inode` is a new one of `T`, with its number, generation, type, permissions and owner.
pub(in crate::vfs) unsafe fn labels_of<T: Types>(
    inode: *mut bindings::inode,
    dir: &Inode<T>,
    dentry: &Dentry<T>,
) -> Result<KVec<Label>> {
    let mut labels = KVec::new();
    // SAFETY: By this function's contract the inode is complete; directory and dentry are valid by their types. The
    // callback gets the list that it takes its data for.
    to_result(unsafe {
        bindings::ordofs_init_security(
            inode,
            dir.as_ptr(),
            dentry.as_ptr(),
            Some(collect_labels),
            ptr::from_mut(&mut labels).cast(),
        )
    })?;
    Ok(labels)
}

/// Copies what security modules give to a new inode.
///
/// # Safety
///
/// As `security_inode_init_security` calls it for [`labels_of`]: `labels` ends with an entry without a name,
/// `list` is a `KVec<Label>` that no other task uses.
unsafe extern "C" fn collect_labels(
    _inode: *mut bindings::inode,
    labels: *const bindings::xattr,
    list: *mut c_void,
) -> c_int {
    from_result(|| {
        // SAFETY: `labels_of` passes its list, which no other task uses meanwhile.
        let list = unsafe { &mut *list.cast::<KVec<Label>>() };
        let mut at = labels;
        loop {
            // SAFETY: The array ends with an entry without a name, which was not passed yet.
            let label = unsafe { &*at };
            if label.name.is_null() {
                return Ok(0);
            }
            // SAFETY: The name of an entry is a string.
            let from = unsafe { CStr::from_char_ptr(label.name) }.to_bytes();
            // SAFETY: The value of an entry has its size.
            let value = unsafe { bytes(label.value, label.value_len) }.unwrap_or(&[]);
            let mut copy = Label {
                name: KVec::new(),
                value: KVec::new(),
            };
            copy.name.extend_from_slice(from, GFP_KERNEL)?;
            copy.value.extend_from_slice(value, GFP_KERNEL)?;
            list.push(copy, GFP_KERNEL)?;
            // SAFETY: This was not the last entry.
            at = unsafe { at.add(1) };
        }
    })
}
