// SPDX-License-Identifier: GPL-2.0

//! Buffers of one filesystem block.
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

/// One 4096-byte, page-aligned, physically contiguous buffer that devices can be given.
///
/// # Invariants
///
/// The pointer is to a page of the page allocator, which belongs to this alone.
pub struct Block(NonNull<[u8; 4096]>);

// SAFETY: It owns its bytes, and any thread may free a page.
unsafe impl Send for Block {}
// SAFETY: A shared reference can only read.
unsafe impl Sync for Block {}

impl Block {
    /// Allocates a buffer of zeroes.
    pub fn zeroed() -> Result<Self> {
        // SAFETY: No requirements; it may sleep, which the contract of this module allows.
        let page = unsafe { bindings::ordofs_page_alloc() };
        // INVARIANT: Just allocated, and known to nobody else.
        Ok(Self(NonNull::new(page.cast()).ok_or(ENOMEM)?))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is ours, and comes from the page allocator.
        unsafe { bindings::ordofs_page_free(self.0.as_ptr().cast()) };
    }
}

impl Deref for Block {
    type Target = [u8; 4096];

    fn deref(&self) -> &[u8; 4096] {
        // SAFETY: By the type invariant a page of ours, and initialised: it was zeroed.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8; 4096] {
        // SAFETY: As above; this reference is exclusive.
        unsafe { self.0.as_mut() }
    }
}
