// SPDX-License-Identifier: GPL-2.0

//! A device on a block device or an image file.
//!
//! # Model
//!
//! A mounted filesystem bypasses the page cache of its block device, so that cache may be stale for
//! as long as any process keeps the device open. Block devices are therefore read and written
//! directly (`O_DIRECT`), which needs aligned buffers: a [`Block`] is aligned, and
//! [`FileDisk::read_at`] and [`FileDisk::zero`] use a buffer of their own. An image file has one
//! page cache for all its users, and is accessed through it.
//!
//! Tests: `tests/vm/t/033-tools-on-mounted.sh`, `tests/vm/t/034-mkfs-over-others.sh`,
//! `tools/mkfs/tests/nothing_remains.rs`.

use super::block::{Block, SIZE};
use super::device::{Backend, Device};
use core::ffi::c_int;
use kernel::prelude::*;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::vec::Vec;

// From include/uapi/linux/fs.h. The libc crate lacks them.
const BLKDISCARD: libc::c_ulong = 0x1277;
const BLKSSZGET: libc::c_ulong = 0x1268;
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;

/// Blocks of one system call: the most vectors that the kernel takes (UIO_MAXIOV).
const RUN: usize = 1024;

/// How to open a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open {
    /// For writing as well as reading.
    pub write: bool,
    /// Fail if the device is a block device that is mounted or that another process has open
    /// exclusively.
    pub exclusive: bool,
}

/// A block device or image file.
pub struct FileDisk {
    file: File,
    bytes: u64,
    block_device: bool,
    write: bool,
}

fn error(e: io::Error) -> Error {
    e.raw_os_error().map_or(EIO, |n| Error::from_errno(-n))
}

impl FileDisk {
    /// Opens a block device or a regular file.
    pub fn open(path: &Path, how: Open) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        let block_device = meta.file_type().is_block_device();
        if !block_device && !meta.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a block device nor a regular file",
            ));
        }
        let mut flags = libc::O_CLOEXEC;
        if block_device {
            flags |= libc::O_DIRECT;
        }
        if block_device && how.exclusive {
            flags |= libc::O_EXCL;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(how.write)
            .custom_flags(flags)
            .open(path)?;
        let bytes = if block_device {
            check_sectors(&file)?;
            device_size(&file)?
        } else {
            file.metadata()?.len()
        };
        Ok(Self {
            file,
            bytes,
            block_device,
            write: how.write,
        })
    }

    /// Another handle of the same open file. An exclusive open lasts until the last handle is
    /// dropped.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            ..*self
        })
    }

    /// The size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether this is a block device.
    pub fn is_block_device(&self) -> bool {
        self.block_device
    }

    /// Whether it is open for writing.
    pub fn is_writable(&self) -> bool {
        self.write
    }

    /// Extends an image file that is smaller than `bytes`.
    pub fn grow_file(&mut self, bytes: u64) -> io::Result<()> {
        if !self.block_device && self.bytes < bytes {
            self.file.set_len(bytes)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Reads bytes at any offset. Returns how many there were before the end of the device.
    pub fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut block = memory()?;
        let mut done = 0;
        while done < buf.len() {
            let at = at.saturating_add(done as u64);
            let skip = (at % SIZE as u64) as usize;
            let there = self.read_some(&mut block[..], at - skip as u64)?;
            let part = block.get(skip..there).unwrap_or(&[]);
            let n = part.len().min(buf.len() - done);
            if n == 0 {
                break;
            }
            buf[done..done + n].copy_from_slice(&part[..n]);
            done += n;
        }
        Ok(done)
    }

    /// Fills `buf` from `at` on, or up to the end of the device.
    fn read_some(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        // A direct read that ends at the end of a device cannot go on from there, because the
        // offset is not aligned.
        while done < buf.len() && at.saturating_add(done as u64) < self.bytes {
            match self.file.read_at(&mut buf[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// Writes zeroes from byte `start` to byte `end`. Both are multiples of 4096, or the end of the
    /// device.
    pub fn zero(&self, start: u64, end: u64) -> io::Result<()> {
        let block = memory()?;
        let many = [&block[..]; 256].map(IoSlice::new);
        let mut at = start;
        while at < end {
            let n = (end - at).min(SIZE as u64);
            let whole = many.len().min(((end - at) / SIZE as u64) as usize);
            match self.write_vectored_at(&many[..whole], at) {
                // The end of the device, or an error: the second attempt returns it.
                0 => {
                    self.file.write_all_at(&block[..n as usize], at)?;
                    at += n;
                }
                n => at += n as u64,
            }
        }
        Ok(())
    }

    /// A [`Device`] on this file.
    pub fn device(self) -> Device {
        Device::new(self)
    }

    /// Reads into `bufs` with one system call. Returns the number of bytes read, 0 if it failed.
    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], at: u64) -> usize {
        let (fd, n) = (self.file.as_raw_fd(), bufs.len() as c_int);
        // SAFETY: An IoSliceMut is an iovec; these are `n`, of buffers that are borrowed mutably for as
        // long as the call takes, and the descriptor is open all that time.
        let read = unsafe { libc::preadv64(fd, bufs.as_ptr().cast(), n, at as libc::off64_t) };
        usize::try_from(read).unwrap_or(0)
    }

    /// Writes `bufs` with one system call. Returns the number of bytes written, 0 if it failed.
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], at: u64) -> usize {
        let (fd, n) = (self.file.as_raw_fd(), bufs.len() as c_int);
        // SAFETY: An IoSlice is an iovec; these are `n`, of buffers that are borrowed for as long as the
        // call takes, and the descriptor is open all that time.
        let written = unsafe { libc::pwritev64(fd, bufs.as_ptr().cast(), n, at as libc::off64_t) };
        usize::try_from(written).unwrap_or(0)
    }
}

fn memory() -> io::Result<Block> {
    Block::zeroed().map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))
}

/// Refuses a device with sectors of more than 4096 bytes, because OrdoFS reads and writes 4096
/// bytes at a time.
fn check_sectors(file: &File) -> io::Result<()> {
    let mut bytes: c_int = 0;
    // SAFETY: BLKSSZGET stores one int at the address that it is given, which is that of `bytes`; the
    // descriptor is open for the whole call.
    let r = unsafe { libc::ioctl(file.as_raw_fd(), BLKSSZGET as _, &mut bytes as *mut c_int) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    if bytes > SIZE as c_int {
        let what = std::format!("has sectors of {bytes} bytes; an OrdoFS needs at most {SIZE}");
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(())
}

fn device_size(file: &File) -> io::Result<u64> {
    let mut bytes = 0u64;
    // SAFETY: BLKGETSIZE64 stores one u64 at the address that it is given, which is that of
    // `bytes`; the descriptor is open for the whole call.
    let r = unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64 as _, &mut bytes as *mut u64) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(bytes)
}

impl Backend for FileDisk {
    fn blocks(&self) -> u64 {
        self.bytes / SIZE as u64
    }

    fn readonly(&self) -> bool {
        !self.write
    }

    fn read(&self, block: u64, buf: &mut [u8; SIZE]) -> Result {
        self.file
            .read_exact_at(buf, block * SIZE as u64)
            .map_err(error)
    }

    fn write(&self, block: u64, data: &[u8; SIZE]) -> Result {
        self.file
            .write_all_at(data, block * SIZE as u64)
            .map_err(error)
    }

    // The blocks that the system call of a run did not finish are done one by one, which shows the
    // error.

    fn read_run(&self, first: u64, bufs: &mut [Block]) -> Result {
        for (i, part) in bufs.chunks_mut(RUN).enumerate() {
            let first = first + (i * RUN) as u64;
            let mut vectors: Vec<_> = part
                .iter_mut()
                .map(|b| IoSliceMut::new(&mut b[..]))
                .collect();
            let done = self.read_vectored_at(&mut vectors, first * SIZE as u64) / SIZE;
            let left = part.iter_mut().zip(first..).skip(done);
            for (buf, block) in left {
                self.read(block, buf)?;
            }
        }
        Ok(())
    }

    fn write_run(&self, run: &[(u64, &Block)]) -> Result {
        let mut result = Ok(());
        for part in run.chunks(RUN) {
            let Some((first, _)) = part.first() else {
                break;
            };
            let vectors: Vec<_> = part.iter().map(|(_, b)| IoSlice::new(&b[..])).collect();
            let done = self.write_vectored_at(&vectors, first * SIZE as u64) / SIZE;
            for (block, data) in part.iter().skip(done) {
                result = result.and(self.write(*block, data));
            }
        }
        result
    }

    fn flush(&self) -> Result {
        self.file.sync_data().map_err(error)
    }

    fn write_fua(&self, block: u64, data: &[u8; SIZE]) -> Result {
        self.write(block, data)?;
        self.flush()
    }

    fn discard(&self, start: u64, len: u64) -> Result {
        let (at, bytes) = (start * SIZE as u64, len * SIZE as u64);
        let fd = self.file.as_raw_fd();
        let r = if self.block_device {
            let range = [at, bytes];
            // SAFETY: BLKDISCARD reads two u64 at the address that it is given, which is that of
            // `range`; the descriptor is open for the whole call.
            unsafe { libc::ioctl(fd, BLKDISCARD as _, range.as_ptr()) }
        } else {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            // SAFETY: fallocate takes no pointers; the descriptor is open for the whole call.
            unsafe { libc::fallocate(fd, mode, at as libc::off_t, bytes as libc::off_t) }
        };
        if r < 0 {
            return Err(error(io::Error::last_os_error()));
        }
        Ok(())
    }
}
