// SPDX-License-Identifier: GPL-2.0

//! System calls that `std` lacks, and small helpers.

use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Size of a page, which is also the block size.
pub const PAGE: usize = 4096;

/// Memory that direct I/O can use.
pub struct Aligned {
    pages: Vec<Page>,
}

#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

impl Aligned {
    /// `pages` pages of zeroes.
    pub fn new(pages: usize) -> Self {
        Self {
            pages: vec![Page([0; PAGE]); pages],
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `Page` is exactly its array (repr C, alignment equal to size), so the vector is
        // one run of initialised bytes.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast(), self.pages.len() * PAGE) }
    }

    /// The bytes, mutably.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.pages.len() * PAGE;
        // SAFETY: as in `bytes`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), len) }
    }
}

/// What fallocate(2) does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Falloc {
    /// Preallocates, and keeps the content.
    Reserve,
    /// Makes a hole.
    Punch,
    /// Zeroes.
    Zero,
}

/// fallocate(2) within the file's size.
pub fn fallocate(file: &File, what: Falloc, offset: u64, len: u64) -> io::Result<()> {
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    let mode = match what {
        Falloc::Reserve => 0,
        Falloc::Punch => libc::FALLOC_FL_PUNCH_HOLE | keep,
        Falloc::Zero => libc::FALLOC_FL_ZERO_RANGE | keep,
    };
    loop {
        // SAFETY: fallocate takes no pointers; the descriptor is open.
        let r = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, len as i64) };
        if r == 0 {
            return Ok(());
        }
        let e = io::Error::last_os_error();
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
    }
}

/// Asks the kernel to drop clean cached pages of the file.
pub fn drop_cache(file: &File) {
    // SAFETY: posix_fadvise takes no pointers; the descriptor is open. It is advice only.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// An anonymous file in memory.
pub fn memfd() -> io::Result<File> {
    // SAFETY: the name is a C string with static lifetime.
    let fd = unsafe { libc::memfd_create(c"ordofs-race".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and this is its only owner.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Opens for reading and writing, optionally with O_DIRECT.
pub fn open(path: &Path, create: bool, direct: bool) -> io::Result<File> {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .custom_flags(flags)
        .open(path)
}

/// Can files in `dir` be written with O_DIRECT?
pub fn direct_works(dir: &Path) -> Result<bool> {
    let path = dir.join("ordofs-race.probe");
    let works = open(&path, true, true)
        .and_then(|f| f.write_all_at(Aligned::new(1).bytes(), 0))
        .map(|()| true);
    let _ = std::fs::remove_file(&path);
    match works {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        r => r.with_context(|| format!("cannot write {} with O_DIRECT", path.display())),
    }
}

/// Does this kind of fallocate work in `dir`?
pub fn falloc_works(dir: &Path, what: Falloc) -> Result<bool> {
    let path = dir.join("ordofs-race.probe");
    let works = open(&path, true, false).and_then(|f| {
        f.set_len(4 * PAGE as u64)?;
        fallocate(&f, what, 0, PAGE as u64)
    });
    let _ = std::fs::remove_file(&path);
    match works {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        r => r
            .map(|()| true)
            .with_context(|| format!("fallocate of {}", path.display())),
    }
}

extern "C" fn on_sigbus(_: libc::c_int) {
    const TEXT: &[u8] = b"ordofs-race: SIGBUS: a store into a mapped page within the file failed \
        (ENOSPC, EIO, or the file is shorter than it must be)\n";
    // SAFETY: write and _exit may be called in a signal handler; the text is static.
    unsafe {
        libc::write(2, TEXT.as_ptr().cast(), TEXT.len());
        libc::_exit(3);
    }
}

/// Makes a page fault that the filesystem refuses end the process, with a message and status 3.
pub fn report_sigbus() {
    let handler: extern "C" fn(libc::c_int) = on_sigbus;
    // SAFETY: the handler only makes calls that are allowed in a signal handler.
    unsafe { libc::signal(libc::SIGBUS, handler as *const () as libc::sighandler_t) };
}
