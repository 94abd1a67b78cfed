// SPDX-License-Identifier: GPL-2.0

//! I/O that iomap does with our tables: methods of the guards that hold the locks for it.
//!
//! Tests: tests/vm/t/060-data-paths.sh, 064-fsx.sh.

use core::ptr;

use kernel::error::to_result;
use kernel::prelude::*;

use super::direct_io;
use super::iomap::Tables;
use crate::bindings;
use crate::vfs::object::iocb::{Destination, LockedIocb, Source};
use crate::vfs::object::number::from_ssize;
use crate::vfs::object::page_cache::side::{Exclusive, Side};
use crate::vfs::object::page_cache::LayoutLock;
use crate::vfs::traits::file::FileOperations;
use crate::vfs::traits::mapping::MappingOperations;

/// Whether a direct write has ended when the call returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectWrite {
    /// It may go on without the caller.
    MayGoOn,
    /// It has ended.
    Wait,
}

impl<T: FileOperations + MappingOperations, S: Side> LockedIocb<'_, '_, T, S> {
    /// Reads directly. Position and length are block aligned. `Err(EIOCBQUEUED)`: it goes on without us.
    pub(crate) fn direct_read(&mut self, to: &mut Destination<'_>) -> Result<usize> {
        let flags = bindings::IOMAP_DIO_BOUNCE | bindings::IOMAP_DIO_FSBLOCK_ALIGNED;
        // SAFETY: Iocb and iterator are valid by their invariants; the tables are static, and of the inode's `T`.
        from_ssize(unsafe {
            bindings::iomap_dio_rw(
                self.as_ptr(),
                to.as_ptr(),
                Tables::<T>::READ,
                direct_io::read_ops::<T>(),
                flags,
                ptr::null_mut(),
                0,
            )
        })
    }

    /// Writes directly. Position and length are block aligned. A write that goes beyond `i_size` needs
    /// the lock exclusively and [`DirectWrite::Wait`].
    /// `Err(EIOCBQUEUED)`: it goes on without us; `Err(ENOTBLK)`: pages of the range could not
    /// be dropped from the page cache, write through it.
    pub(crate) fn direct_write(
        &mut self,
        from: &mut Source<'_>,
        until: DirectWrite,
    ) -> Result<usize> {
        let mut flags = bindings::IOMAP_DIO_BOUNCE | bindings::IOMAP_DIO_FSBLOCK_ALIGNED;
        if until == DirectWrite::Wait {
            flags |= bindings::IOMAP_DIO_FORCE_WAIT;
        }
        // SAFETY: Iocb and iterator are valid by their invariants; the tables are static, and of the inode's `T`.
        from_ssize(unsafe {
            bindings::iomap_dio_rw(
                self.as_ptr(),
                from.as_ptr(),
                Tables::<T>::DIRECT_WRITE,
                direct_io::write_ops::<T>(),
                flags,
                ptr::null_mut(),
                0,
            )
        })
    }
}

impl<T: MappingOperations> LockedIocb<'_, '_, T, Exclusive> {
    /// Writes into the page cache.
    pub(crate) fn buffered_write(&mut self, from: &mut Source<'_>) -> Result<usize> {
        // SAFETY: Iocb and iterator are valid by their invariants; the tables are static, and of the inode's `T`.
        // `i_rwsem` is held exclusively.
        from_ssize(unsafe {
            bindings::iomap_file_buffered_write(
                self.as_ptr(),
                from.as_ptr(),
                Tables::<T>::WRITE,
                Tables::<T>::WRITE_OPS,
                ptr::null_mut(),
            )
        })
    }
}

impl<T: MappingOperations> LayoutLock<'_, T> {
    /// Makes the bytes `[pos, pos + len)` zero through the page cache. Holes and preallocated blocks
    /// stay what they are. Returns whether anything became dirty.
    pub(crate) fn zero(&self, pos: u64, len: u64) -> Result<bool> {
        if len == 0 {
            return Ok(false);
        }
        let mut did_zero = false;
        // SAFETY: The inode is valid, and the tables are static and of its `T`. By the lock's invariant no page is
        // faulted in meanwhile; `i_rwsem`, through which the lock was taken, is held exclusively.
        to_result(unsafe {
            bindings::iomap_zero_range(
                self.inode().as_ptr(),
                pos as i64,
                len as i64,
                &raw mut did_zero,
                Tables::<T>::ZERO,
                Tables::<T>::WRITE_OPS,
                ptr::null_mut(),
            )
        })?;
        Ok(did_zero)
    }

    /// Makes zero what follows `size` in its block. Returns whether anything became dirty.
    pub(crate) fn zero_tail(&self, size: u64) -> Result<bool> {
        self.zero(size, size.next_multiple_of(T::BLOCK_SIZE) - size)
    }
}
