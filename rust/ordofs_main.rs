// SPDX-License-Identifier: GPL-2.0

//! OrdoFS: a checksummed copy-on-write filesystem.
//!
//! The crate's root: what is where is in docs/OVERVIEW.md.

use kernel::prelude::*;

#[allow(
    clippy::all,
    clippy::as_ptr_cast_mut,
    clippy::cast_lossless,
    clippy::ptr_cast_constness,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    improper_ctypes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unknown_lints
)]
mod bindings;

#[allow(missing_docs, unreachable_pub, dead_code)]
mod engine;
mod fs;
mod vfs;

use fs::os;

module! {
    type: OrdoFsModule,
    name: "ordofs",
    authors: ["The OrdoFS developers"],
    description: "OrdoFS, a checksummed copy-on-write filesystem",
    license: "GPL v2",
    alias: ["fs-ordofs"],
}

/// The loaded module.
struct OrdoFsModule {
    _registration: fs::Registration,
}

impl kernel::Module for OrdoFsModule {
    fn init(module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _registration: fs::register(module)?,
        })
    }
}
