// SPDX-License-Identifier: GPL-2.0

//! Shared file mappings, used as arrays of atomic words.

use crate::stamp::{Stamp, Unit, UNIT, WORDS};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// A MAP_SHARED mapping of a whole file.
pub struct Mapping {
    ptr: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the memory is only touched through atomics and system calls and lives as long as the
// value.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

fn check(r: libc::c_int) -> io::Result<()> {
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl Mapping {
    /// Maps the first `len` bytes of `file`.
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                prot,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ptr = NonNull::new(p.cast()).ok_or_else(|| io::Error::other("mmap gave null"))?;
        Ok(Self { ptr, len })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `len` bytes and is page aligned. Other users of the file may
        // change it at any time, which atomics allow. A page that cannot be had raises SIGBUS,
        // which ends the program (sys::report_sigbus).
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len / 8) }
    }

    /// Stores the stamps of one store at `[offset, offset + len)` with plain stores.
    pub fn store(&self, offset: u64, len: usize, file: u32, writer: u16, seq: u64) {
        let first = offset as usize / 8;
        for u in 0..len / UNIT {
            let stamp = Stamp {
                file,
                writer,
                offset: offset + (u * UNIT) as u64,
                seq,
            };
            let at = first + u * WORDS;
            for (cell, w) in self.words()[at..at + WORDS].iter().zip(stamp.words()) {
                cell.store(w.to_le(), Ordering::Relaxed);
            }
        }
    }

    /// The unit at `offset`.
    pub fn load(&self, offset: u64) -> Unit {
        let at = offset as usize / 8;
        let mut w = [0; WORDS];
        for (w, cell) in w.iter_mut().zip(&self.words()[at..at + WORDS]) {
            *w = u64::from_le(cell.load(Ordering::Relaxed));
        }
        Unit::decode(w)
    }

    /// Copies the first `len` bytes of `src` to `offset` with pread(2): the kernel takes the page
    /// faults, and a page beyond the end of the file is EFAULT instead of SIGBUS.
    pub fn copy_in(&self, src: &File, offset: u64, len: usize) -> io::Result<usize> {
        assert!(offset as usize + len <= self.len, "copy beyond the mapping");
        // SAFETY: the destination lies within the mapping (checked above), which is only ever
        // looked at through atomics.
        let n = unsafe {
            let dst = self.ptr.as_ptr().cast::<u8>().add(offset as usize);
            libc::pread(src.as_raw_fd(), dst.cast(), len, 0)
        };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(n as usize)
    }

    /// Drops the page table entries of a range, so the next access faults again.
    pub fn refault(&self, offset: u64, len: usize) -> io::Result<()> {
        assert!(
            offset as usize + len <= self.len,
            "range beyond the mapping"
        );
        // SAFETY: the range is within the mapping; MADV_DONTNEED on a shared file mapping only
        // drops page table entries, the data stays in the page cache.
        check(unsafe {
            let p = self.ptr.as_ptr().cast::<u8>().add(offset as usize);
            libc::madvise(p.cast(), len, libc::MADV_DONTNEED)
        })
    }

    /// msync(MS_SYNC) of the whole mapping.
    pub fn msync(&self) -> io::Result<()> {
        // SAFETY: the range is the mapping.
        check(unsafe { libc::msync(self.ptr.as_ptr().cast(), self.len, libc::MS_SYNC) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made; no reference to it outlives the value.
        unsafe { libc::munmap(self.ptr.as_ptr().cast(), self.len) };
    }
}
