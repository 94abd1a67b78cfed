// SPDX-License-Identifier: GPL-2.0

//! [`Block`]: one page-aligned buffer of 4096 bytes.

use core::ops::{Deref, DerefMut};
use kernel::prelude::*;

/// Bytes of a block.
pub const SIZE: usize = 4096;

#[repr(C, align(4096))]
struct Page([u8; SIZE]);

/// A buffer of one block, aligned so that direct I/O can use it.
pub struct Block(KBox<Page>);

impl Block {
    /// A buffer of zeroes.
    pub fn zeroed() -> Result<Self> {
        Ok(Self(KBox::new(Page([0; SIZE]), GFP_KERNEL)?))
    }
}

impl Deref for Block {
    type Target = [u8; SIZE];
    fn deref(&self) -> &Self::Target {
        &self.0 .0
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0 .0
    }
}
