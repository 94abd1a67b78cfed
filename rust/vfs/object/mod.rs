// SPDX-License-Identifier: GPL-2.0

//! Objects of the kernel: each file wraps one.

#[allow(unreachable_pub)]
pub(crate) mod block;
pub(crate) mod dentry;
pub(crate) mod fs_type;
pub(crate) mod inode;
pub(crate) mod iocb;
pub(crate) mod memory;
pub(crate) mod number;
pub(crate) mod page_cache;
pub(crate) mod probe;
pub(crate) mod super_block;
pub(crate) mod sysfs;
pub(crate) mod types;
