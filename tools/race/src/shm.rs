// SPDX-License-Identifier: GPL-2.0

//! Words that threads and forked processes share.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Zeroed shared words; forked children see the same ones.
pub struct SharedWords {
    ptr: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the words are atomics in memory that lives as long as the value.
unsafe impl Send for SharedWords {}
// SAFETY: as above; atomics may be used from several threads.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// `len` words of zero.
    pub fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory
        // that is in use.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ptr = NonNull::new(p.cast()).ok_or_else(|| io::Error::other("mmap gave null"))?;
        Ok(Self { ptr, len })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `len` words, is page aligned, zero-initialised, and is unmapped
        // only when the value is dropped.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made; no reference to it outlives the value.
        unsafe { libc::munmap(self.ptr.as_ptr().cast(), self.len * 8) };
    }
}
