// SPDX-License-Identifier: GPL-2.0

//! Extended attributes and access control lists. Fills `struct xattr_handler`, and the slots of
//! `struct inode_operations` for lists.

use core::ffi::CStr;

use kernel::error::VTABLE_DEFAULT_ERROR;
use kernel::prelude::*;

use crate::vfs::object::inode::{Inode, Locked};
use crate::vfs::object::types::Types;

/// What an attribute is for, and who may see it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// `user.`
    User,
    /// `trusted.`
    Trusted,
    /// `security.`
    Security,
    /// `system.posix_acl_access`, which has no further name.
    AclAccess,
    /// `system.posix_acl_default`, which has no further name.
    AclDefault,
}

impl Namespace {
    /// What stands before the names.
    pub(in crate::vfs) fn prefix(self) -> &'static CStr {
        match self {
            Self::User => c"user.",
            Self::Trusted => c"trusted.",
            Self::Security => c"security.",
            Self::AclAccess => c"system.posix_acl_access",
            Self::AclDefault => c"system.posix_acl_default",
        }
    }
}

/// Whether an attribute that is set may or must exist.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum XattrSet {
    /// As it may be.
    Any,
    /// EEXIST if it exists.
    Create,
    /// ENODATA if it does not.
    Replace,
}

/// An attribute that a security module gives to a new inode.
pub(crate) struct Label {
    /// Name without the namespace's prefix.
    pub(crate) name: KVec<u8>,
    /// Value.
    pub(crate) value: KVec<u8>,
}

/// Attributes of inodes. Names are without the namespace's prefix. A method with a default is a slot of the
/// kernel's table that is NULL where it is left out.
#[vtable]
pub(crate) trait XattrOperations: Types {
    /// Copies a value to `out`; returns its size, `None` if there is no such attribute. With an empty
    /// `out` only that; ERANGE if it is too short. No lock is held.
    fn get_xattr(
        inode: &Inode<Self>,
        ns: Namespace,
        name: &[u8],
        out: &mut [u8],
    ) -> Result<Option<usize>>;
    /// Calls `emit` for each attribute until it returns an error, which becomes the result. No lock is held.
    fn list_xattr(inode: &Inode<Self>, emit: &mut dyn FnMut(Namespace, &[u8]) -> Result) -> Result;
    /// Sets an attribute, or removes it. `i_rwsem` is held exclusively.
    fn set_xattr(
        _inode: &Inode<Self>,
        _ns: Namespace,
        _name: &[u8],
        _value: Option<&[u8]>,
        _how: XattrSet,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
    /// Sets an access control list, or removes it if it is there, together with the permissions.
    fn set_acl(
        _inode: &Locked<'_, Self>,
        _ns: Namespace,
        _value: Option<&[u8]>,
        _mode: Option<u32>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}
