// SPDX-License-Identifier: GPL-2.0

//! [`Device`]: the device under a filesystem. Lengths and addresses are in blocks of 4096 bytes.

use super::block::{Block, SIZE};
use super::window::Window;
use kernel::prelude::*;
use std::boxed::Box as StdBox;
use std::sync::atomic::{AtomicBool, Ordering};

/// The backend of a [`Device`]. Callers have checked the block numbers.
pub trait Backend: Send + Sync {
    /// The device's name, for messages.
    fn name(&self) -> &str {
        "image"
    }
    /// The size in blocks.
    fn blocks(&self) -> u64;
    /// Whether writes are impossible.
    fn readonly(&self) -> bool;
    /// Reads one block.
    fn read(&self, block: u64, buf: &mut [u8; SIZE]) -> Result;
    /// Writes one block. The write is durable after the next [`flush`](Self::flush).
    fn write(&self, block: u64, data: &[u8; SIZE]) -> Result;
    /// Reads consecutive blocks.
    fn read_run(&self, first: u64, bufs: &mut [Block]) -> Result {
        bufs.iter_mut()
            .zip(first..)
            .try_for_each(|(b, at)| self.read(at, b))
    }
    /// Writes consecutive blocks, all of them even if one fails.
    fn write_run(&self, run: &[(u64, &Block)]) -> Result {
        run.iter().fold(Ok(()), |result, (block, data)| {
            result.and(self.write(*block, data))
        })
    }
    /// Makes all writes that have returned durable.
    fn flush(&self) -> Result;
    /// Writes one block and makes this write durable, and no other.
    fn write_fua(&self, block: u64, data: &[u8; SIZE]) -> Result;
    /// [`write_fua`](Self::write_fua) for several blocks at the same time.
    fn write_fua_all(&self, reqs: &[(u64, &Block)]) -> Result {
        reqs.iter().fold(Ok(()), |result, (block, data)| {
            result.and(self.write_fua(*block, data))
        })
    }
    /// Discards a range: its content is no longer needed.
    fn discard(&self, start: u64, len: u64) -> Result;
    /// The unit in which the device discards, in bytes; 0 if it cannot.
    fn discard_unit(&self) -> u64 {
        SIZE as u64
    }
}

/// A block device.
pub struct Device(StdBox<dyn Backend>, AtomicBool);

impl Device {
    /// A device on `backend`.
    pub fn new(backend: impl Backend + 'static) -> Self {
        Self(StdBox::new(backend), AtomicBool::new(false))
    }

    /// The device's name, for messages.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The size in blocks of 4096 bytes.
    pub fn blocks(&self) -> u64 {
        self.0.blocks()
    }

    /// Whether writes are impossible.
    pub fn readonly(&self) -> bool {
        self.0.readonly()
    }

    /// Tells devices apart in the kernel's traces; here they have no number.
    pub fn id(&self) -> u32 {
        0
    }

    /// Called by a task that has come to a window of a race.
    #[inline(always)]
    pub fn pass(&self, window: Window) -> Result {
        super::window::pass(window)
    }

    fn check(&self, start: u64, len: u64) -> Result {
        match start.checked_add(len) {
            Some(end) if end <= self.blocks() => Ok(()),
            _ => Err(EIO),
        }
    }

    fn check_write(&self, start: u64, len: u64) -> Result {
        if self.readonly() {
            return Err(EROFS);
        }
        self.check(start, len)
    }

    /// Reads one block.
    pub fn read(&self, block: u64, buf: &mut Block) -> Result {
        self.check(block, 1)?;
        self.0.read(block, buf)
    }

    /// Reads consecutive blocks, from `first` on.
    pub fn read_run(&self, first: u64, bufs: &mut [Block]) -> Result {
        self.check(first, bufs.len() as u64)?;
        self.0.read_run(first, bufs)
    }

    /// [`Self::read_run`] with the lowest priority.
    pub fn read_background(&self, first: u64, bufs: &mut [Block]) -> Result {
        self.read_run(first, bufs)
    }

    /// Writes blocks and waits for all of them.
    pub fn write(&self, reqs: &[(u64, &Block)]) -> Result {
        let mut result = Ok(());
        for run in reqs.chunk_by(|a, b| a.0.checked_add(1) == Some(b.0)) {
            let first = run.first().map_or(0, |(block, _)| *block);
            let r = self
                .check_write(first, run.len() as u64)
                .and_then(|()| self.0.write_run(run));
            result = result.and(self.note(r));
        }
        result
    }

    /// Writes a block that nothing depends on: if that fails, nothing that was accepted before is lost
    /// (see [`Self::lost`]).
    pub fn write_spare(&self, block: u64, data: &Block) -> Result {
        self.check_write(block, 1)?;
        self.0.write(block, data)
    }

    /// Writes blocks as [`Self::write_spare`] does, and waits for all of them.
    pub fn write_spare_run(&self, reqs: &[(u64, &Block)]) -> Result {
        let mut result = Ok(());
        for run in reqs.chunk_by(|a, b| a.0.checked_add(1) == Some(b.0)) {
            let first = run.first().map_or(0, |(block, _)| *block);
            let r = self.check_write(first, run.len() as u64);
            result = result.and(r.and_then(|()| self.0.write_run(run)));
        }
        result
    }

    /// Makes all finished writes durable.
    pub fn flush(&self) -> Result {
        self.note(self.0.flush())
    }

    /// Whether a write or a flush has failed. Then the device may have dropped what it had accepted
    /// from any task, and a flush that succeeds later proves nothing.
    pub fn lost(&self) -> bool {
        self.1.load(Ordering::Acquire)
    }

    fn note(&self, r: Result) -> Result {
        if r.is_err() {
            self.1.store(true, Ordering::Release);
        }
        r
    }

    /// Writes blocks and makes all finished writes durable, including these.
    pub fn write_stable(&self, reqs: &[(u64, &Block)]) -> Result {
        self.write(reqs)?;
        self.flush()
    }

    /// Writes blocks, at the same time; they are durable when this returns.
    pub fn write_fua(&self, reqs: &[(u64, &Block)]) -> Result {
        let checked = reqs.iter().try_for_each(|(b, _)| self.check_write(*b, 1));
        self.note(checked.and_then(|()| self.0.write_fua_all(reqs)))
    }

    /// The unit in which the device discards, in bytes; 0 if it cannot.
    pub fn discard_unit(&self) -> u64 {
        self.0.discard_unit()
    }

    /// Discards a range.
    pub fn discard(&self, start: u64, len: u64) -> Result {
        self.check_write(start, len)?;
        self.0.discard(start, len)
    }
}
