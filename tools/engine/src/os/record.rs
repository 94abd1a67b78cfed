// SPDX-License-Identifier: GPL-2.0

//! A device that records every write, flush and discard, for crash simulation.
//!
//! [`Recorder::stop_after`] makes the device fail everything after a number of recorded operations,
//! as if the power had gone. [`Recorder::crash_image`] builds a content that the medium may have
//! after a power cut: all writes that a completed flush covers, and of the later ones those that
//! the caller chooses.

use super::block::SIZE;
use super::device::{Backend, Device};
use super::mem::{Image, MemDisk};
use kernel::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One recorded operation.
#[derive(Clone, Debug)]
pub enum Op {
    /// A block was written.
    Write {
        /// Its number.
        block: u64,
        /// The content.
        data: Arc<[u8; SIZE]>,
        /// With FUA: durable when it returns.
        fua: bool,
    },
    /// All earlier writes are durable.
    Flush,
    /// A range was discarded.
    Discard {
        /// First block.
        start: u64,
        /// Number of blocks.
        len: u64,
    },
}

struct Log {
    ops: std::vec::Vec<Op>,
    stop: Option<usize>,
}

struct Inner {
    disk: MemDisk,
    base: Image,
    log: Mutex<Log>,
}

/// A recording device over a [`MemDisk`]; clones share the record.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

impl Recorder {
    /// A recorder that begins with the disk's present content.
    pub fn new(disk: MemDisk) -> Self {
        let base = disk.image();
        let log = Mutex::new(Log {
            ops: std::vec::Vec::new(),
            stop: None,
        });
        Self(Arc::new(Inner { disk, base, log }))
    }

    /// A [`Device`] with all of its operations recorded here.
    pub fn device(&self) -> Device {
        Device::new(self.clone())
    }

    /// Cuts the power after `n` recorded operations: everything after them fails with EIO.
    pub fn stop_after(&self, n: usize) {
        self.lock().stop = Some(n);
    }

    /// The operations so far.
    pub fn ops(&self) -> std::vec::Vec<Op> {
        self.lock().ops.clone()
    }

    /// The number of operations so far.
    pub fn len(&self) -> usize {
        self.lock().ops.len()
    }

    /// Whether nothing has been recorded yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The medium after a power cut right after the first `n` operations. Of the writes and
    /// discards that no flush covers, those for which `keep(index)` is true have arrived.
    pub fn crash_image(&self, n: usize, mut keep: impl FnMut(usize) -> bool) -> MemDisk {
        let log = self.lock();
        let ops = log.ops.get(..n.min(log.ops.len())).unwrap_or(&[]);
        let flushed = ops
            .iter()
            .rposition(|op| matches!(op, Op::Flush))
            .unwrap_or(0);
        let mut image = self.0.base.clone();
        for (i, op) in ops.iter().enumerate() {
            match op {
                Op::Write { block, data, fua } => {
                    if i < flushed || *fua || keep(i) {
                        image.insert(*block, data.clone());
                    }
                }
                Op::Flush => {}
                Op::Discard { start, len } => {
                    if i < flushed || keep(i) {
                        image.retain(|b, _| !(*start..start.saturating_add(*len)).contains(b));
                    }
                }
            }
        }
        MemDisk::from_image(self.0.disk.blocks(), image)
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, op: Op, go: impl FnOnce() -> Result) -> Result {
        let mut log = self.lock();
        if log.stop.is_some_and(|n| log.ops.len() >= n) {
            return Err(EIO);
        }
        go()?;
        log.ops.push(op);
        Ok(())
    }
}

impl Backend for Recorder {
    fn blocks(&self) -> u64 {
        self.0.disk.blocks()
    }

    fn readonly(&self) -> bool {
        self.0.disk.readonly()
    }

    fn read(&self, block: u64, buf: &mut [u8; SIZE]) -> Result {
        self.0.disk.read(block, buf)
    }

    fn write(&self, block: u64, data: &[u8; SIZE]) -> Result {
        let op = Op::Write {
            block,
            data: Arc::new(*data),
            fua: false,
        };
        self.record(op, || self.0.disk.write(block, data))
    }

    fn flush(&self) -> Result {
        self.record(Op::Flush, || self.0.disk.flush())
    }

    fn write_fua(&self, block: u64, data: &[u8; SIZE]) -> Result {
        let op = Op::Write {
            block,
            data: Arc::new(*data),
            fua: true,
        };
        self.record(op, || self.0.disk.write_fua(block, data))
    }

    fn discard(&self, start: u64, len: u64) -> Result {
        self.record(Op::Discard { start, len }, || {
            self.0.disk.discard(start, len)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unflushed_writes_may_be_lost_and_flushed_ones_not() {
        let rec = Recorder::new(MemDisk::new(8));
        rec.write(1, &[1; SIZE]).unwrap();
        rec.flush().unwrap();
        rec.write(2, &[2; SIZE]).unwrap();
        rec.write_fua(3, &[3; SIZE]).unwrap();
        let none = rec.crash_image(rec.len(), |_| false).image();
        assert_eq!(none.keys().copied().collect::<std::vec::Vec<_>>(), [1, 3]);
        let all = rec.crash_image(rec.len(), |_| true).image();
        assert_eq!(all.len(), 3);
        rec.stop_after(rec.len());
        assert_eq!(rec.write(4, &[4; SIZE]), Err(EIO));
    }
}
