// SPDX-License-Identifier: GPL-2.0

//! The kernel's tables of callbacks, filled in from the traits.

pub(crate) mod acl;
pub(crate) mod address_space;
pub(crate) mod dir;
pub(crate) mod export;
pub(crate) mod fault;
pub(crate) mod file_ops;
pub(crate) mod fileattr;
pub(crate) mod ioctl;
pub(crate) mod iomap;
pub(crate) mod namei;
pub(crate) mod prepared;
pub(crate) mod setattr;
pub(crate) mod super_ops;
pub(crate) mod xattr;
