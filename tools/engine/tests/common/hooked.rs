// SPDX-License-Identifier: GPL-2.0

//! A device in memory that calls a hook before each read and write.

use kernel::prelude::Result;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Backend, Device};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// A request to the device.
pub enum Ask {
    /// A read of this block.
    Read(u64),
    /// A write.
    Write,
    /// A write through the cache: a superblock.
    Fua,
}

struct Hooked<F> {
    disk: MemDisk,
    hook: F,
}

/// `disk`, behind a hook. An error of the hook is the device's.
pub fn hooked(disk: &MemDisk, hook: impl Fn(Ask) -> Result + Send + Sync + 'static) -> Device {
    Device::new(Hooked {
        disk: disk.clone(),
        hook,
    })
}

impl<F: Fn(Ask) -> Result + Send + Sync> Backend for Hooked<F> {
    fn blocks(&self) -> u64 {
        self.disk.blocks()
    }
    fn readonly(&self) -> bool {
        false
    }
    fn read(&self, block: u64, buf: &mut [u8; 4096]) -> Result {
        (self.hook)(Ask::Read(block))?;
        self.disk.read(block, buf)
    }
    fn write(&self, block: u64, data: &[u8; 4096]) -> Result {
        (self.hook)(Ask::Write)?;
        self.disk.write(block, data)
    }
    fn flush(&self) -> Result {
        self.disk.flush()
    }
    fn write_fua(&self, block: u64, data: &[u8; 4096]) -> Result {
        (self.hook)(Ask::Fua)?;
        self.disk.write_fua(block, data)
    }
    fn discard(&self, start: u64, len: u64) -> Result {
        self.disk.discard(start, len)
    }
}

/// A gate in front of superblocks: while it is shut, their writes wait.
#[derive(Clone, Default)]
pub struct Gate {
    shut: Arc<AtomicBool>,
    waiting: Arc<AtomicBool>,
}

impl Gate {
    /// Shuts the gate, or opens it.
    pub fn shut(&self, shut: bool) {
        self.shut.store(shut, Ordering::SeqCst);
    }

    /// Waits until the write of a superblock waits.
    pub fn wait(&self) {
        while !self.waiting.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The device, with this gate.
    pub fn device(&self, disk: &MemDisk) -> Device {
        let gate = self.clone();
        hooked(disk, move |ask| {
            while matches!(ask, Ask::Fua) && gate.shut.load(Ordering::SeqCst) {
                gate.waiting.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })
    }
}
