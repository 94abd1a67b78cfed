// SPDX-License-Identifier: GPL-2.0

//! The kernel's allocators.

/// An allocation failed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct AllocError;

/// An allocator.
pub trait Allocator {
    /// The largest allocation that it can give, in bytes.
    const MAX: usize = i32::MAX as usize;
}

/// `kmalloc()`
pub struct Kmalloc;
/// `vmalloc()`
pub struct Vmalloc;
/// `kvmalloc()`
pub struct KVmalloc;

impl Allocator for Kmalloc {
    const MAX: usize = 4 << 20;
}
impl Allocator for Vmalloc {}
impl Allocator for KVmalloc {}
