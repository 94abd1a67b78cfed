// SPDX-License-Identifier: GPL-2.0

//! The device as the engine sees it: in blocks of OrdoFS, and with the windows of races.

use core::ops::Deref;
use kernel::prelude::*;

use super::window::Window;
use super::{Tags, BLOCK_BYTES};
use crate::vfs::{BlockDevice, OpenDevice};

/// The device of a mount.
pub struct Device {
    blocks: BlockDevice<BLOCK_BYTES>,
    tags: Tags,
}

impl Device {
    /// The device of a superblock that is being mounted; `tags` hold its windows open.
    pub(crate) fn new(open: OpenDevice, tags: Tags) -> Self {
        Self {
            blocks: BlockDevice::new(open),
            tags,
        }
    }

    /// The current task has come to a place where tests may hold it or make it fail. Nothing in normal
    /// builds; else it may sleep.
    #[inline(always)]
    pub fn pass(&self, window: Window) -> Result {
        self.tags.pass(self.id(), window)
    }
}

impl Deref for Device {
    type Target = BlockDevice<BLOCK_BYTES>;

    #[inline(always)]
    fn deref(&self) -> &BlockDevice<BLOCK_BYTES> {
        &self.blocks
    }
}
