// SPDX-License-Identifier: GPL-2.0

//! C's signed numbers as Rust has them.

use kernel::error::to_result;
use kernel::prelude::*;

use crate::bindings;

/// A C file offset; the VFS passes no negative ones where this is used.
pub(in crate::vfs) fn offset(pos: bindings::loff_t) -> u64 {
    u64::try_from(pos).unwrap_or(0)
}

/// From a C `ssize_t`.
pub(in crate::vfs) fn from_ssize(ret: isize) -> Result<usize> {
    if ret < 0 {
        to_result(ret as c_int)?;
    }
    usize::try_from(ret).map_err(|_| EIO)
}

/// To a C `ssize_t`.
pub(in crate::vfs) fn to_ssize(ret: Result<usize>) -> isize {
    match ret {
        Ok(n) => n as isize,
        Err(e) => e.to_errno() as isize,
    }
}
