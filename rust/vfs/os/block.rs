// SPDX-License-Identifier: GPL-2.0

//! Buffers for blocks of a device.
//!
//! Each is a page of its own rather than a piece of a slab: what reclaim frees are pages, and a slab is
//! free only when all its pieces are. The kernel crate's `Page` can be copied to and from, but not be lent as
//! a slice.

use core::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
};
use kernel::prelude::*;

use crate::bindings;

/// A page-aligned, physically contiguous buffer of `BYTES` bytes, at most a page, that devices can be given.
///
/// # Invariants
///
/// The pointer is to a page of the page allocator, which belongs to this alone.
pub struct Buffer<const BYTES: usize>(NonNull<[u8; BYTES]>);

// SAFETY: It owns its bytes, and any thread may free a page.
unsafe impl<const BYTES: usize> Send for Buffer<BYTES> {}
// SAFETY: A shared reference can only read.
unsafe impl<const BYTES: usize> Sync for Buffer<BYTES> {}

impl<const BYTES: usize> Buffer<BYTES> {
    /// Allocates a buffer of zeroes.
    pub fn zeroed() -> Result<Self> {
        const { assert!(BYTES <= kernel::page::PAGE_SIZE) };
        // SAFETY: No requirements; it may sleep, which the contract of this module allows.
        let page = unsafe { bindings::ordofs_page_alloc() };
        // INVARIANT: Just allocated, and known to no other task.
        Ok(Self(NonNull::new(page.cast()).ok_or(ENOMEM)?))
    }
}

impl<const BYTES: usize> Drop for Buffer<BYTES> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is ours, and comes from the page allocator.
        unsafe { bindings::ordofs_page_free(self.0.as_ptr().cast()) };
    }
}

impl<const BYTES: usize> Deref for Buffer<BYTES> {
    type Target = [u8; BYTES];

    fn deref(&self) -> &[u8; BYTES] {
        // SAFETY: By the type invariant a page of ours, and initialised: it was zeroed.
        unsafe { self.0.as_ref() }
    }
}

impl<const BYTES: usize> DerefMut for Buffer<BYTES> {
    fn deref_mut(&mut self) -> &mut [u8; BYTES] {
        // SAFETY: By the type invariant a page of ours, and initialised; this reference is exclusive.
        unsafe { self.0.as_mut() }
    }
}
