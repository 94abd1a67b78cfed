// SPDX-License-Identifier: GPL-2.0

//! A device on a block device or an image file.

use super::block::SIZE;
use super::device::{Backend, Device};
use kernel::prelude::*;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

// From include/uapi/linux/fs.h; the libc crate does not have them.
const BLKDISCARD: libc::c_ulong = 0x1277;
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;

/// How to open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open {
    /// For writing too.
    pub write: bool,
    /// Of a block device: fail when somebody else has it open exclusively or mounted.
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
        if block_device && how.exclusive {
            flags |= libc::O_EXCL;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(how.write)
            .custom_flags(flags)
            .open(path)?;
        let bytes = if block_device {
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

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Is it a block device?
    pub fn is_block_device(&self) -> bool {
        self.block_device
    }

    /// Uses only the first `bytes` bytes.
    pub fn limit(&mut self, bytes: u64) {
        self.bytes = self.bytes.min(bytes);
    }

    /// Makes an image file larger if it is smaller than `bytes`.
    pub fn grow_file(&mut self, bytes: u64) -> io::Result<()> {
        if !self.block_device && self.bytes < bytes {
            self.file.set_len(bytes)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// The file, for ioctls and reads that are not of whole blocks.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// A [`Device`] on it.
    pub fn device(self) -> Device {
        Device::new(self)
    }
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
