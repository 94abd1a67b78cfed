// SPDX-License-Identifier: GPL-2.0

//! Reads and writes as the VFS hands them to a file: `struct kiocb` and `struct iov_iter`.
//!
//! # Model
//!
//! An [`Iocb`] is one read or write in progress. Buffered I/O and direct I/O are iomap's; which of
//! them, with which locks, is the filesystem's choice ([`FileData::read_iter`],
//! [`FileData::write_iter`]). What needs `i_rwsem` is a method of [`LockedIocb`], which holds the lock of
//! the very inode that is read or written.
//!
//! Direct I/O always goes through bounce buffers: checksums must be of bytes that do not change, and
//! what was read must not be seen before it has been checked. That also means that the memory may be
//! of any alignment.

use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

use kernel::error::to_result;
use kernel::prelude::*;

use crate::bindings;
use crate::vfs::object::page_cache::{
    side::{Exclusive, Shared, Side},
    InodeLock, //
};
use crate::vfs::table::iomap::{offset, Tables};
use crate::vfs::traits::file_data::FileData;
use crate::vfs::{ioend, Inode, Locked};

/// From a C `ssize_t`.
pub(in crate::vfs) fn from_ssize(ret: isize) -> Result<usize> {
    if ret < 0 {
        to_result(ret as c_int)?;
    }
    usize::try_from(ret).map_err(|_| EIO)
}

/// To a C `ssize_t`.
pub(in crate::vfs) fn to_ssize(ret: Result<usize>) -> isize {
    match ret {
        Ok(n) => n as isize,
        Err(e) => e.to_errno() as isize,
    }
}

/// The memory that is written to a file.
///
/// # Invariants
///
/// A valid `struct iov_iter` of a write, during `'a`.
pub(crate) struct Source<'a>(NonNull<bindings::iov_iter>, PhantomData<&'a mut ()>);

/// The memory that a file is read into.
///
/// # Invariants
///
/// A valid `struct iov_iter` of a read, during `'a`.
pub(crate) struct Destination<'a>(NonNull<bindings::iov_iter>, PhantomData<&'a mut ()>);

impl Source<'_> {
    /// # Safety
    ///
    /// See the type invariants.
    pub(in crate::vfs) unsafe fn from_raw(ptr: *mut bindings::iov_iter) -> Self {
        // INVARIANT: The caller's promise.
        // SAFETY: Valid pointers are not null.
        Self(unsafe { NonNull::new_unchecked(ptr) }, PhantomData)
    }

    /// Bytes left.
    pub(crate) fn count(&self) -> u64 {
        // SAFETY: Valid by the type invariants.
        unsafe { bindings::ordofs_helper_iov_count(self.0.as_ptr()) as u64 }
    }
}

impl Destination<'_> {
    /// # Safety
    ///
    /// See the type invariants.
    pub(in crate::vfs) unsafe fn from_raw(ptr: *mut bindings::iov_iter) -> Self {
        // INVARIANT: The caller's promise.
        // SAFETY: Valid pointers are not null.
        Self(unsafe { NonNull::new_unchecked(ptr) }, PhantomData)
    }

    /// Bytes left.
    pub(crate) fn count(&self) -> u64 {
        // SAFETY: Valid by the type invariants.
        unsafe { bindings::ordofs_helper_iov_count(self.0.as_ptr()) as u64 }
    }
}

/// An open file.
///
/// # Invariants
///
/// References to it are to a valid `struct file` of an inode of `T`.
#[repr(transparent)]
pub(crate) struct OpenFile<T: FileData> {
    file: kernel::types::Opaque<bindings::file>,
    _inode: PhantomData<T>,
}

impl<T: FileData> OpenFile<T> {
    /// # Safety
    ///
    /// `file` is a valid open file of an inode of `T` during `'a`.
    pub(in crate::vfs) unsafe fn from_raw<'a>(file: *mut bindings::file) -> &'a Self {
        // SAFETY: The caller's promise; the type is transparent.
        unsafe { &*file.cast() }
    }

    fn as_ptr(&self) -> *mut bindings::file {
        self.file.get()
    }

    /// The inode.
    pub(crate) fn inode(&self) -> &Inode<T> {
        // SAFETY: An open file's inode is valid and does not change.
        unsafe { Inode::from_raw((*self.as_ptr()).f_inode) }
    }

    /// Writes the dirty pages of bytes `start..=end`, waits, and returns an error of any write to the
    /// file's pages since this open file was told last (R8: every open file learns it once).
    pub(crate) fn write_and_wait(&self, start: i64, end: i64) -> Result {
        // SAFETY: The file is valid.
        to_result(unsafe { bindings::file_write_and_wait_range(self.as_ptr(), start, end) })
    }

    /// Takes `i_rwsem` exclusively for an operation on the file.
    pub(crate) fn lock_exclusive(&self) -> LockedFile<'_, T> {
        LockedFile {
            file: self,
            lock: self.inode().lock_exclusive(),
        }
    }

    /// Whether every operation on it is to be durable when it returns.
    pub(crate) fn is_sync(&self) -> bool {
        // SAFETY: The file is valid.
        unsafe { bindings::ordofs_helper_file_is_sync(self.as_ptr()) }
    }
}

/// An open file, with `i_rwsem` of its inode held exclusively until this is dropped.
pub(crate) struct LockedFile<'a, T: FileData> {
    file: &'a OpenFile<T>,
    lock: InodeLock<'a, T, Exclusive>,
}

impl<T: FileData> LockedFile<'_, T> {
    /// The inode, for what else needs the lock.
    pub(crate) fn inode(&self) -> Locked<'_, T> {
        self.lock.locked()
    }

    /// What every modification does: takes away setuid bits and the like, sets the times.
    pub(crate) fn modified(&self) -> Result {
        // SAFETY: The file is valid.
        to_result(unsafe { bindings::file_modified(self.file.as_ptr()) })
    }
}

/// A read or write in progress.
///
/// # Invariants
///
/// A valid `struct kiocb` of an open file of an inode of `T`, during `'a`, that nobody else changes.
pub(crate) struct Iocb<'a, T: FileData> {
    ptr: NonNull<bindings::kiocb>,
    _inode: PhantomData<&'a mut T>,
}

impl<'a, T: FileData> Iocb<'a, T> {
    /// # Safety
    ///
    /// See the type invariants.
    pub(in crate::vfs) unsafe fn from_raw(ptr: *mut bindings::kiocb) -> Self {
        // INVARIANT: The caller's promise.
        Self {
            // SAFETY: Valid pointers are not null.
            ptr: unsafe { NonNull::new_unchecked(ptr) },
            _inode: PhantomData,
        }
    }

    /// The inode; it stays as long as the file is open.
    pub(crate) fn inode(&self) -> &'a Inode<T> {
        // SAFETY: By the type invariants.
        unsafe { Inode::from_raw((*(*self.ptr.as_ptr()).ki_filp).f_inode) }
    }

    /// The position in the file.
    pub(crate) fn pos(&self) -> u64 {
        // SAFETY: By the type invariants.
        offset(unsafe { (*self.ptr.as_ptr()).ki_pos })
    }

    /// Whether direct I/O was asked for.
    pub(crate) fn is_direct(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::ordofs_helper_iocb_is_direct(self.ptr.as_ptr()) }
    }

    /// Whether the write goes to the end of the file.
    pub(crate) fn is_append(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::ordofs_helper_iocb_is_append(self.ptr.as_ptr()) }
    }

    /// Whether the caller must not be made to wait.
    pub(crate) fn is_nowait(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::ordofs_helper_iocb_is_nowait(self.ptr.as_ptr()) }
    }

    /// Whether the data is to be durable when the write has ended.
    pub(crate) fn is_dsync(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::ordofs_helper_iocb_is_dsync(self.ptr.as_ptr()) }
    }

    /// Takes `i_rwsem` shared.
    pub(crate) fn lock_shared(&mut self) -> LockedIocb<'_, 'a, T, Shared> {
        self.with_lock()
    }

    /// Takes `i_rwsem` exclusively.
    pub(crate) fn lock_exclusive(&mut self) -> LockedIocb<'_, 'a, T, Exclusive> {
        self.with_lock()
    }

    fn with_lock<S: Side>(&mut self) -> LockedIocb<'_, 'a, T, S> {
        let lock = InodeLock::take(self.inode());
        LockedIocb { iocb: self, lock }
    }

    /// Notes the access time.
    pub(crate) fn accessed(&self) {
        // SAFETY: Valid by the type invariants.
        unsafe { bindings::ordofs_helper_file_accessed((*self.ptr.as_ptr()).ki_filp) };
    }

    /// Reads through the page cache.
    pub(crate) fn buffered_read(&mut self, to: &mut Destination<'_>) -> Result<usize> {
        // SAFETY: Both are valid by their invariants.
        from_ssize(unsafe { bindings::filemap_read(self.ptr.as_ptr(), to.0.as_ptr(), 0) })
    }

    /// After a direct write went through the page cache: writes the pages and drops them.
    pub(crate) fn end_direct_fallback(
        &mut self,
        from: &mut Source<'_>,
        written: usize,
    ) -> Result<usize> {
        // SAFETY: Both are valid by their invariants.
        from_ssize(unsafe {
            bindings::direct_write_fallback(
                self.ptr.as_ptr(),
                from.0.as_ptr(),
                0,
                isize::try_from(written).unwrap_or(isize::MAX),
            )
        })
    }

    /// Makes the `written` bytes before the position durable, if the file or the caller wants that. No
    /// lock may be held.
    pub(crate) fn write_sync(&mut self, written: usize) -> Result<usize> {
        // SAFETY: Valid by the type invariants.
        from_ssize(unsafe {
            bindings::ordofs_helper_write_sync(
                self.ptr.as_ptr(),
                isize::try_from(written).unwrap_or(isize::MAX),
            )
        })
    }
}

/// A read or write in progress, with `i_rwsem` of its inode held until this is dropped.
pub(crate) struct LockedIocb<'l, 'a, T: FileData, S: Side> {
    iocb: &'l mut Iocb<'a, T>,
    lock: InodeLock<'a, T, S>,
}

impl<'a, T: FileData, S: Side> Deref for LockedIocb<'_, 'a, T, S> {
    type Target = Iocb<'a, T>;

    fn deref(&self) -> &Iocb<'a, T> {
        self.iocb
    }
}

impl<T: FileData, S: Side> LockedIocb<'_, '_, T, S> {
    /// The checks before a write: limits, and the position of an append. Cuts `from` to what may be
    /// written; returns how much that is.
    pub(crate) fn write_checks(&mut self, from: &mut Source<'_>) -> Result<usize> {
        let iocb = self.iocb.ptr.as_ptr();
        // SAFETY: Both are valid by their invariants.
        from_ssize(unsafe { bindings::generic_write_checks(iocb, from.0.as_ptr()) })
    }

    /// What every write does: takes away setuid bits and the like, which needs the lock exclusively
    /// ([`Inode::is_nosec`] says that there are none), and sets the times.
    pub(crate) fn modified(&self) -> Result {
        // SAFETY: Valid by the type invariants.
        to_result(unsafe { bindings::kiocb_modified(self.iocb.ptr.as_ptr()) })
    }

    /// Reads directly. Position and length are block aligned. `Err(EIOCBQUEUED)`: it goes on without us.
    pub(crate) fn direct_read(&mut self, to: &mut Destination<'_>) -> Result<usize> {
        let flags = bindings::IOMAP_DIO_BOUNCE | bindings::IOMAP_DIO_FSBLOCK_ALIGNED;
        // SAFETY: All are valid by their invariants; the tables are static.
        from_ssize(unsafe {
            bindings::iomap_dio_rw(
                self.iocb.ptr.as_ptr(),
                to.0.as_ptr(),
                Tables::<T>::READ,
                direct_read_ops::<T>(),
                flags,
                core::ptr::null_mut(),
                0,
            )
        })
    }

    /// Writes directly. Position and length are block aligned. A write that goes beyond `i_size` needs
    /// the lock exclusively and `wait`, with which the write has ended when this returns.
    /// `Err(EIOCBQUEUED)`: it goes on without us; `Err(ENOTBLK)`: pages of the range could not
    /// be dropped from the page cache, write through it.
    pub(crate) fn direct_write(&mut self, from: &mut Source<'_>, wait: bool) -> Result<usize> {
        let mut flags = bindings::IOMAP_DIO_BOUNCE | bindings::IOMAP_DIO_FSBLOCK_ALIGNED;
        if wait {
            flags |= bindings::IOMAP_DIO_FORCE_WAIT;
        }
        // SAFETY: All are valid by their invariants; the tables are static.
        from_ssize(unsafe {
            bindings::iomap_dio_rw(
                self.iocb.ptr.as_ptr(),
                from.0.as_ptr(),
                Tables::<T>::DIRECT_WRITE,
                direct_write_ops::<T>(),
                flags,
                core::ptr::null_mut(),
                0,
            )
        })
    }
}

impl<T: FileData> LockedIocb<'_, '_, T, Exclusive> {
    /// The inode, for what else needs the lock.
    pub(crate) fn locked(&self) -> Locked<'_, T> {
        self.lock.locked()
    }

    /// Writes into the page cache.
    pub(crate) fn buffered_write(&mut self, from: &mut Source<'_>) -> Result<usize> {
        // SAFETY: All are valid by their invariants; the tables are static.
        from_ssize(unsafe {
            bindings::iomap_file_buffered_write(
                self.iocb.ptr.as_ptr(),
                from.0.as_ptr(),
                Tables::<T>::WRITE,
                Tables::<T>::WRITE_OPS,
                core::ptr::null_mut(),
            )
        })
    }
}

/// `end_io` of direct writes: all parts have been finished.
///
/// # Safety
///
/// Called by iomap for a direct write to a file of `T`.
unsafe extern "C" fn direct_write_end<T: FileData>(
    iocb: *mut bindings::kiocb,
    size: isize,
    error: c_int,
    _flags: c_uint,
) -> c_int {
    // SAFETY: By the requirements the iocb and its open file are valid.
    let (inode, pos) = unsafe {
        (
            Inode::<T>::from_raw((*(*iocb).ki_filp).f_inode),
            offset((*iocb).ki_pos),
        )
    };
    let end = pos.saturating_add(u64::try_from(size).unwrap_or(0));
    let result = to_result(error);
    if size <= 0 || end <= inode.size() {
        return error;
    }
    // SAFETY: Only a writer that waits for its end, with the lock held exclusively, goes beyond
    // `i_size`; iomap calls this in that task then.
    let inode = unsafe { Locked::new(inode) };
    match T::direct_write_grew(&inode, end, result).and(result) {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}

struct Ops<T>(PhantomData<T>);

impl<T: FileData> Ops<T> {
    const READ: &'static bindings::iomap_dio_ops = &bindings::iomap_dio_ops {
        end_io: None,
        submit_io: Some(ioend::direct_read_submit::<T>),
        bio_set: &raw mut bindings::iomap_ioend_bioset,
    };
    const WRITE: &'static bindings::iomap_dio_ops = &bindings::iomap_dio_ops {
        end_io: Some(direct_write_end::<T>),
        submit_io: Some(ioend::direct_write_submit::<T>),
        bio_set: &raw mut bindings::iomap_ioend_bioset,
    };
}

fn direct_read_ops<T: FileData>() -> *const bindings::iomap_dio_ops {
    Ops::<T>::READ
}

fn direct_write_ops<T: FileData>() -> *const bindings::iomap_dio_ops {
    Ops::<T>::WRITE
}
