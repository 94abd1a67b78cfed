// SPDX-License-Identifier: GPL-2.0

//! A device in memory, for tests. Blocks that were never written read as zeroes and take no memory.

use super::block::SIZE;
use super::device::{Backend, Device};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use kernel::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The content of a device: the blocks that were written.
pub type Image = BTreeMap<u64, Arc<[u8; SIZE]>>;

struct Inner {
    blocks: AtomicU64,
    readonly: AtomicBool,
    fail_writes: AtomicBool,
    image: Mutex<Image>,
}

/// A device in memory; clones share the content.
#[derive(Clone)]
pub struct MemDisk(Arc<Inner>);

impl MemDisk {
    /// An empty device of `blocks` blocks.
    pub fn new(blocks: u64) -> Self {
        Self::from_image(blocks, Image::new())
    }

    /// A device of `blocks` blocks with the content `image`.
    pub fn from_image(blocks: u64, image: Image) -> Self {
        Self(Arc::new(Inner {
            blocks: AtomicU64::new(blocks),
            readonly: AtomicBool::new(false),
            fail_writes: AtomicBool::new(false),
            image: Mutex::new(image),
        }))
    }

    /// A [`Device`] on this content.
    pub fn device(&self) -> Device {
        Device::new(self.clone())
    }

    /// The present content. Cheap, because the blocks are shared.
    pub fn image(&self) -> Image {
        self.lock().clone()
    }

    /// A separate device with a copy of the present content.
    pub fn fork(&self) -> Self {
        Self::from_image(self.blocks(), self.image())
    }

    /// Gives the device another size. What is behind its end stays.
    pub fn resize(&self, blocks: u64) {
        self.0.blocks.store(blocks, Ordering::SeqCst);
    }

    /// Makes the device read-only, or writable again.
    pub fn set_readonly(&self, yes: bool) {
        self.0.readonly.store(yes, Ordering::SeqCst);
    }

    /// Makes writes and flushes fail with EIO, or work again.
    pub fn set_fail_writes(&self, yes: bool) {
        self.0.fail_writes.store(yes, Ordering::SeqCst);
    }

    /// Changes one byte without a write of the filesystem: damage.
    pub fn corrupt(&self, block: u64, at: usize, xor: u8) {
        let mut image = self.lock();
        let mut data = image.get(&block).map_or([0; SIZE], |b| **b);
        if let Some(b) = data.get_mut(at) {
            *b ^= xor;
        }
        image.insert(block, Arc::new(data));
    }

    fn lock(&self) -> MutexGuard<'_, Image> {
        self.0.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writable(&self) -> Result {
        if self.0.fail_writes.load(Ordering::SeqCst) {
            return Err(EIO);
        }
        Ok(())
    }
}

impl Backend for MemDisk {
    fn blocks(&self) -> u64 {
        self.0.blocks.load(Ordering::SeqCst)
    }

    fn readonly(&self) -> bool {
        self.0.readonly.load(Ordering::SeqCst)
    }

    fn read(&self, block: u64, buf: &mut [u8; SIZE]) -> Result {
        match self.lock().get(&block) {
            Some(b) => *buf = **b,
            None => buf.fill(0),
        }
        Ok(())
    }

    fn write(&self, block: u64, data: &[u8; SIZE]) -> Result {
        self.writable()?;
        self.lock().insert(block, Arc::new(*data));
        Ok(())
    }

    fn flush(&self) -> Result {
        self.writable()
    }

    fn write_fua(&self, block: u64, data: &[u8; SIZE]) -> Result {
        self.write(block, data)
    }

    fn discard(&self, start: u64, len: u64) -> Result {
        self.writable()?;
        let mut image = self.lock();
        let gone: std::vec::Vec<u64> = image
            .range(start..start.saturating_add(len))
            .map(|(b, _)| *b)
            .collect();
        for b in gone {
            image.remove(&b);
        }
        Ok(())
    }
}
