// SPDX-License-Identifier: GPL-2.0

//! What the objects of one filesystem have in common.

/// The types and numbers that the wrappers of this directory are made with. A filesystem is a type that
/// implements this, and then the traits of [`crate::vfs::traits`].
pub(crate) trait Types: Sized + Send + Sync + 'static {
    /// What the filesystem keeps with every VFS inode; reached by
    /// [`Inode::data`](super::inode::Inode::data).
    type InodeData: Send + Sync + 'static;

    /// Bytes of a block: a power of two, at most a page.
    const BLOCK_SIZE: u64;
}
