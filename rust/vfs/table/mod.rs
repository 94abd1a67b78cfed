// SPDX-License-Identifier: GPL-2.0

//! The kernel's tables of callbacks, filled in from the traits.

/// `Some` of a callback if the filesystem has the method behind it: the slot is NULL otherwise.
macro_rules! if_has {
    ($has:expr, $callback:expr) => {
        if $has {
            Some($callback)
        } else {
            None
        }
    };
}

pub(super) mod acl;
mod address_space;
mod attributes;
mod dir;
mod direct_io;
mod evict;
pub(super) mod export;
mod fault;
mod file_ops;
mod fileattr;
mod install;
mod ioctl;
mod iomap;
pub(crate) mod iomap_io;
mod namei;
pub(super) mod new_inode;
mod prepared;
mod setattr;
pub(super) mod super_ops;
pub(super) mod xattr;
