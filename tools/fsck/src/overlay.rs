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

/// Blocks by their addresses.
pub(crate) type Blocks = BTreeMap<u64, Box<[u8; SIZE]>>;

struct Inner {
    base: Device,
    written: Mutex<Blocks>,
    /// What came after the first commit, if the overlay is to end there.
    later: Mutex<Option<Blocks>>,
    one_commit: bool,
}

/// The overlay. Clones share the writes.
#[derive(Clone)]
pub struct Overlay(Arc<Inner>);

impl Overlay {
    /// An overlay of `base`, which may be read-only.
    pub fn new(base: Device) -> Self {
        Self::with(base, false)
    }

    /// An overlay of `base` of which [`Self::into_commit`] returns what the first commit wrote.
    pub(crate) fn of_one_commit(base: Device) -> Self {
        Self::with(base, true)
    }

    fn with(base: Device, one_commit: bool) -> Self {
        Self(Arc::new(Inner {
            base,
            written: Mutex::new(BTreeMap::new()),
            later: Mutex::new(None),
            one_commit,
        }))
    }

    /// The blocks up to the first commit, its superblock included; `None` if there was none.
    pub(crate) fn into_commit(self) -> Option<Blocks> {
        self.later().take()?;
        Some(std::mem::take(&mut *self.written()))
    }

    /// A copy of all blocks that have been written.
    pub(crate) fn written_blocks(&self) -> Blocks {
        self.written().clone()
    }

    /// Writes a block, as a device would.
    pub(crate) fn put(&self, block: u64, data: &[u8; SIZE]) {
        match self.later().as_mut() {
            Some(later) => later.insert(block, Box::new(*data)),
            None => self.written().insert(block, Box::new(*data)),
        };
    }

    fn later(&self) -> MutexGuard<'_, Option<Blocks>> {
        self.0.later.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A [`Device`] on the overlay.
    pub fn device(&self) -> Device {
        Device::new(self.clone())
    }

    /// Whether anything has been written.
    pub fn changed(&self) -> bool {
        !self.written().is_empty()
    }

    fn written(&self) -> MutexGuard<'_, Blocks> {
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
        if let Some(data) = self.later().as_ref().and_then(|later| later.get(&block)) {
            *buf = **data;
            return Ok(());
        }
        if let Some(data) = self.written().get(&block) {
            *buf = **data;
            return Ok(());
        }
        let mut b = Block::zeroed()?;
        self.0.base.read(block, &mut b)?;
        *buf = *b;
        Ok(())
    }

    fn read_run(&self, start: u64, bufs: &mut [Block]) -> Result {
        let later = self.later();
        let written = self.written();
        let run = start..start.saturating_add(bufs.len() as u64);
        let ours = || {
            let later = later.iter().flat_map(|l| l.range(run.clone()));
            written.range(run.clone()).chain(later)
        };
        // What was written here may be unreadable below.
        if ours().next().is_some() {
            drop((written, later));
            let blocks = bufs.iter_mut().zip(start..);
            return blocks.into_iter().try_for_each(|(b, at)| self.read(at, b));
        }
        drop((written, later));
        self.0.base.read_run(start, bufs)
    }

    fn write(&self, block: u64, data: &[u8; SIZE]) -> Result {
        self.put(block, data);
        Ok(())
    }

    fn flush(&self) -> Result {
        Ok(())
    }

    fn write_fua(&self, block: u64, data: &[u8; SIZE]) -> Result {
        self.write(block, data)
    }

    /// Only a commit writes like this: its superblock.
    fn write_fua_all(&self, reqs: &[(u64, &Block)]) -> Result {
        reqs.iter().for_each(|(block, data)| self.put(*block, data));
        if self.0.one_commit {
            self.later().get_or_insert_default();
        }
        Ok(())
    }

    fn discard(&self, _start: u64, _len: u64) -> Result {
        Ok(())
    }
}
