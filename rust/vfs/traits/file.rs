// SPDX-License-Identifier: GPL-2.0

//! Open regular files. Fills `struct file_operations`.

use kernel::error::VTABLE_DEFAULT_ERROR;
use kernel::prelude::*;

use crate::vfs::object::inode::Locked;
use crate::vfs::object::iocb::{Destination, Iocb, OpenFile, Source};
use crate::vfs::object::types::Types;

/// What fallocate is asked for. Offset and length are in bytes, of any alignment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Allocate {
    /// Allocate what is a hole.
    Reserve,
    /// Make a hole; the size stays.
    Punch,
    /// Make the range read as zeroes, and allocate it.
    Zero,
}

/// Which of an inode's state fsync(2) and fdatasync(2) make durable, besides its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SyncOf {
    /// What is needed to find the data.
    Data,
    /// All attributes, too.
    All,
}

/// What fallocate(2) does to the size of a file when the range reaches beyond it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SizeChange {
    /// It stays.
    Keep,
    /// It grows to the end of the range.
    Grow,
}

/// Reads, writes and the space of regular files. No lock is held but where the type of an argument says so. A
/// method with a default is a slot of the kernel's table that is NULL where it is left out.
#[vtable]
pub(crate) trait FileOperations: Types {
    /// `read(2)`. `Err(EIOCBQUEUED)`: the result comes later.
    fn read_iter(iocb: &mut Iocb<'_, Self>, to: &mut Destination<'_>) -> Result<usize>;
    /// `write(2)`. `Err(EIOCBQUEUED)`: the result comes later.
    fn write_iter(iocb: &mut Iocb<'_, Self>, from: &mut Source<'_>) -> Result<usize>;
    /// A direct write that goes beyond `i_size`, to `end`, has ended, with this status; `i_size` has to
    /// grow if it is good.
    fn direct_write_grew(inode: &Locked<'_, Self>, end: u64, status: Result) -> Result;
    /// `fsync(2)`, for bytes `start..=end`.
    fn fsync(file: &OpenFile<Self>, start: i64, end: i64, what: SyncOf) -> Result;
    /// `truncate(2)`: `setattr_prepare` was called.
    fn set_size(inode: &Locked<'_, Self>, size: u64) -> Result;
    /// `fallocate(2)`.
    fn fallocate(
        _file: &OpenFile<Self>,
        _what: Allocate,
        _size: SizeChange,
        _pos: u64,
        _len: u64,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}
