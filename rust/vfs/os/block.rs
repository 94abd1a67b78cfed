// SPDX-License-Identifier: GPL-2.0

//! Buffers of one filesystem block.

use core::ops::{Deref, DerefMut};
use kernel::prelude::*;

/// Memory of one block; the alignment makes it exactly one page.
#[repr(C, align(4096))]
struct Buffer([u8; 4096]);

// SAFETY: All zeroes is a valid array of bytes, and the size is a multiple of the alignment, so
// that there is no padding.
unsafe impl Zeroable for Buffer {}

/// One 4096-byte, page-aligned, physically contiguous buffer that devices can be given.
pub struct Block(KBox<Buffer>);

impl Block {
    /// Allocates a buffer of zeroes.
    pub fn zeroed() -> Result<Self> {
        Ok(Self(KBox::init(
            pin_init::init_zeroed::<Buffer>(),
            GFP_KERNEL,
        )?))
    }
}

impl Deref for Block {
    type Target = [u8; 4096];

    fn deref(&self) -> &[u8; 4096] {
        &self.0 .0
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8; 4096] {
        &mut self.0 .0
    }
}
