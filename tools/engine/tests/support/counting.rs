// SPDX-License-Identifier: GPL-2.0

//! The memory in use, without that of the devices.

use super::common::hooked::Ask;
use kernel::prelude::Result;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Backend, Block, Device};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts the bytes that each thread has in use, but for those of the devices. The engine starts no
/// threads here, so what a test measures does not depend on the tests that run beside it.
struct Counting;

std::thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
    static IN_DEVICE: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, l: Layout) -> *mut u8 {
        if !IN_DEVICE.get() {
            let now = LIVE.get() + l.size() as i64;
            LIVE.set(now);
            PEAK.set(PEAK.get().max(now));
        }
        // SAFETY: the caller fulfils the contract of the system's allocator, which is the same.
        unsafe { System.alloc(l) }
    }

    unsafe fn dealloc(&self, p: *mut u8, l: Layout) {
        if !IN_DEVICE.get() {
            LIVE.set(LIVE.get() - l.size() as i64);
        }
        // SAFETY: `p` came from the system's allocator, with this layout.
        unsafe { System.dealloc(p, l) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `f`, whose memory is the device's.
pub fn device<R>(f: impl FnOnce() -> R) -> R {
    let outer = IN_DEVICE.replace(true);
    let r = f();
    IN_DEVICE.set(outer);
    r
}

/// The most bytes that this thread had in use while `f` ran, more than before.
pub fn peak_of(f: impl FnOnce()) -> i64 {
    let before = LIVE.get();
    PEAK.set(before);
    f();
    PEAK.get() - before
}

/// A sparse device whose content does not count as memory in use.
struct Sparse<F> {
    disk: MemDisk,
    hook: F,
}

/// `disk`, with a hook that is called before each write, and before each read of consecutive blocks.
pub fn sparse(disk: &MemDisk, hook: impl Fn(Ask) + Send + Sync + 'static) -> Device {
    Device::new(Sparse {
        disk: disk.clone(),
        hook,
    })
}

impl<F: Fn(Ask) + Send + Sync> Backend for Sparse<F> {
    fn blocks(&self) -> u64 {
        self.disk.blocks()
    }
    fn readonly(&self) -> bool {
        false
    }
    fn read(&self, block: u64, buf: &mut [u8; 4096]) -> Result {
        (self.hook)(Ask::Read(block));
        device(|| self.disk.read(block, buf))
    }
    fn read_run(&self, first: u64, bufs: &mut [Block]) -> Result {
        (self.hook)(Ask::Read(first));
        device(|| self.disk.read_run(first, bufs))
    }
    fn write(&self, block: u64, data: &[u8; 4096]) -> Result {
        (self.hook)(Ask::Write);
        device(|| self.disk.write(block, data))
    }
    fn flush(&self) -> Result {
        self.disk.flush()
    }
    fn write_fua(&self, block: u64, data: &[u8; 4096]) -> Result {
        (self.hook)(Ask::Fua);
        device(|| self.disk.write_fua(block, data))
    }
    fn discard(&self, start: u64, len: u64) -> Result {
        device(|| self.disk.discard(start, len))
    }
}
