// SPDX-License-Identifier: GPL-2.0

//! The `kernel` prelude: `use kernel::prelude::*`.

pub use core::{
    mem::{align_of, align_of_val, size_of, size_of_val},
    pin::Pin,
};

pub use core::ffi::{
    c_char, c_int, c_long, c_longlong, c_schar, c_short, c_uchar, c_uint, c_ulong, c_ulonglong,
    c_ushort, c_void, CStr,
};

pub use core::format_args as fmt;

pub use crate::alloc::{flags::*, Box, KBox, KVBox, KVVec, KVec, VBox, VVec, Vec, Zeroable};
pub use crate::error::{code::*, Error, Result};
pub use crate::{
    pr_alert, pr_crit, pr_debug, pr_emerg, pr_err, pr_info, pr_notice, pr_warn, static_assert,
};
