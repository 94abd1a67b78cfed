// SPDX-License-Identifier: GPL-2.0

//! All of a filesystem.

use super::directory::DirectoryOperations;
use super::export::ExportOperations;
use super::file::FileOperations;
use super::inode::InodeOperations;
use super::mapping::MappingOperations;
use super::mount::MountOperations;
use super::super_block::SuperOperations;
use super::xattr::XattrOperations;

/// What can be registered: a type that implements all of the traits.
pub(crate) trait FileSystem:
    MountOperations
    + SuperOperations
    + InodeOperations
    + XattrOperations
    + DirectoryOperations
    + ExportOperations
    + FileOperations
    + MappingOperations
{
}

impl<T> FileSystem for T where
    T: MountOperations
        + SuperOperations
        + InodeOperations
        + XattrOperations
        + DirectoryOperations
        + ExportOperations
        + FileOperations
        + MappingOperations
{
}
