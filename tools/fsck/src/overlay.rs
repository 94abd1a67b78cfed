// SPDX-License-Identifier: GPL-2.0

//! A device in front of another one that keeps all writes in memory, to try out what a mount would
//! do (replay the log, finish what a crash cut off) without changing anything.
//!
//! Tests: `tools/fsck/tests/forged_superblocks.rs`, `tools/fsck/tests/exit_status.rs`.

use kernel::prelude::Result;
use ordofs_engine::os::{Backend, Block, Device};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SIZE: usize = ordofs_engine::engine::BLOCK_SIZE;

struct Inner {
    base: Device,
    written: Mutex<BTreeMap<u64, Box<[u8; SIZE]>>>,
}

/// The overlay. Clones share the writes.
#[derive(Clone)]
pub struct Overlay(Arc<Inner>);

impl Overlay {
    /// An overlay of `base`, which may be read-only.
    pub fn new(base: Device) -> Self {
        let written = Mutex::new(BTreeMap::new());
        Self(Arc::new(Inner { base, written }))
    }

    /// A [`Device`] on the overlay.
    pub fn device(&self) -> Device {
        Device::new(self.clone())
    }

    /// Whether anything has been written.
    pub fn changed(&self) -> bool {
        !self.written().is_empty()
    }

    fn written(&self) -> MutexGuard<'_, BTreeMap<u64, Box<[u8; SIZE]>>> {
        self.0
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Overlay {
    fn blocks(&self) -> u64 {
        self.0.base.blocks()
    }

    fn readonly(&self) -> bool {
        false
    }

    fn read(&self, block: u64, buf: &mut [u8; SIZE]) -> Result {
        if let Some(data) = self.written().get(&block) {
            *buf = **data;
            return Ok(());
        }
        let mut b = Block::zeroed()?;
        self.0.base.read(block, &mut b)?;
        *buf = *b;
        Ok(())
    }

    fn write(&self, block: u64, data: &[u8; SIZE]) -> Result {
        self.written().insert(block, Box::new(*data));
        Ok(())
    }

    fn flush(&self) -> Result {
        Ok(())
    }

    fn write_fua(&self, block: u64, data: &[u8; SIZE]) -> Result {
        self.write(block, data)
    }

    fn discard(&self, _start: u64, _len: u64) -> Result {
        Ok(())
    }
}
