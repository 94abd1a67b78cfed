// SPDX-License-Identifier: GPL-2.0

//! File handles. Fills `struct export_operations`, together with
//! [`InodeOperations`](super::inode::InodeOperations).

use kernel::error::VTABLE_DEFAULT_ERROR;
use kernel::prelude::*;

use crate::vfs::object::inode::Inode;
use crate::vfs::object::types::Types;

/// What file handles need. A method with a default is a slot of the kernel's table that is NULL where it is left
/// out.
#[vtable]
pub(crate) trait ExportOperations: Types {
    /// `get_parent`: the inode number of a directory's parent; `None` if it is not a directory.
    fn parent(_inode: &Inode<Self>) -> Option<u64> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}
