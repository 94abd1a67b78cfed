// SPDX-License-Identifier: GPL-2.0

//! What a filesystem implements: a trait for each of the kernel's tables of callbacks.

pub(crate) mod directory;
pub(crate) mod export;
pub(crate) mod file;
pub(crate) mod file_system;
pub(crate) mod inode;
pub(crate) mod mapping;
pub(crate) mod mount;
pub(crate) mod super_block;
pub(crate) mod xattr;
