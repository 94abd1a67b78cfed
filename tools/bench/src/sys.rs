// SPDX-License-Identifier: GPL-2.0

//! System calls that `std` lacks.

use anyhow::{Context, Result};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

/// Size of a page, which is also the block size of the filesystems here.
pub const PAGE: usize = 4096;

/// The result of a system call that returns -1 on failure.
fn checked(r: libc::c_int) -> io::Result<()> {
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).context("a path with a zero byte")
}

/// The monotonic clock.
pub fn now_ns() -> Result<u64> {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` is a valid place for the result.
    checked(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) })?;
    Ok(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

/// CPU time of this process so far, in user mode and in the kernel; its threads included.
pub fn process_time_ns() -> Result<u64> {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` is a valid place for the result.
    checked(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut t) })?;
    Ok(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

/// syncfs(2) on the filesystem of a directory.
pub fn sync_filesystem(dir: &Path) -> Result<()> {
    let file = File::open(dir)?;
    // SAFETY: no pointers; the descriptor is open.
    checked(unsafe { libc::syncfs(file.as_raw_fd()) }).context("syncfs")
}

/// mount(2) with the default options.
pub fn mount(device: &Path, dir: &Path, kind: &str) -> Result<()> {
    let (from, to, kind) = (c_path(device)?, c_path(dir)?, CString::new(kind)?);
    // SAFETY: three C strings that outlive the call; no options.
    checked(unsafe {
        libc::mount(
            from.as_ptr(),
            to.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    })
    .with_context(|| format!("mount {}", device.display()))
}

/// umount2(2).
pub fn unmount(dir: &Path) -> Result<()> {
    let dir = c_path(dir)?;
    // SAFETY: a C string that outlives the call.
    checked(unsafe { libc::umount2(dir.as_ptr(), 0) }).context("umount")
}

/// Makes a hole.
pub fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: no pointers; the descriptor is open.
    checked(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, len as i64) })
}

/// Memory that direct I/O can use.
pub struct Aligned {
    pages: Vec<Page>,
}

#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

impl Aligned {
    /// At least `len` bytes, in whole pages, all of them `fill`.
    pub fn new(len: usize, fill: u8) -> Self {
        Self {
            pages: vec![Page([fill; PAGE]); len.div_ceil(PAGE)],
        }
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        let len = self.pages.len() * PAGE;
        // SAFETY: `Page` is exactly its array (repr C, alignment equal to size), so the vector is
        // one run of initialised bytes; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), len) }
    }
}

/// A shared, writable mapping of a whole file.
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: all accesses go through `store`, which writes a byte atomically.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of a file, which must be that long.
    pub fn new(file: &File, len: usize) -> Result<Self> {
        // SAFETY: a new mapping of an open file, at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("mmap");
        }
        let start = NonNull::new(start.cast()).context("mmap at address 0")?;
        Ok(Self { start, len })
    }

    /// Stores one byte of a page.
    pub fn store(&self, page: usize, value: u8) {
        assert!(page < self.len / PAGE, "a page behind the mapping");
        // SAFETY: the byte lies in the mapping, which lives as long as `self`; an atomic has the size
        // and the alignment of its byte, and all accesses of it are atomic.
        let byte = unsafe {
            &*self
                .start
                .as_ptr()
                .add(page * PAGE)
                .cast::<std::sync::atomic::AtomicU8>()
        };
        byte.store(value, std::sync::atomic::Ordering::Relaxed);
    }

    /// msync(2) of all of it.
    pub fn sync(&self) -> Result<()> {
        // SAFETY: the range is exactly the mapping.
        checked(unsafe { libc::msync(self.start.as_ptr().cast(), self.len, libc::MS_SYNC) })
            .context("msync")
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is exactly the mapping, and no reference into it is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
