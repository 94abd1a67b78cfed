// SPDX-License-Identifier: GPL-2.0

//! File data: the page cache, direct I/O and the space of files.
//!
//! # Model
//!
//! This is the table of methods; the other files of the directory implement them:
//!
//! | file | what |
//! |---|---|
//! | `map` | mappings: bytes of the VFS, blocks of the engine (R2, R4, R5) |
//! | `writeback` | from dirty folios and direct writes to started writes, and their end (R1) |
//! | `read` | checking what was read |
//! | `file` | `read`, `write`, `fsync` (R8) |
//! | `space` | `truncate`, `fallocate` (R3) |

mod file;
mod map;
mod read;
mod space;
mod writeback;

use kernel::prelude::*;

use super::OrdoFs;
use crate::{
    engine,
    os::NoFs,
    vfs::{
        ioend::{BlockData, PageSlice, WriteIoend},
        object::iocb::{Destination, Iocb, OpenFile, Source},
        os::workqueue::IoQueues,
        traits::file_data::{Allocate, Extent, FileData, WriteExtent},
        Inode, Locked,
    },
};

/// Bytes of a block.
const BLOCK: u64 = engine::BLOCK_SIZE as u64;

impl FileData for OrdoFs {
    type Write = engine::Ordered;

    fn io(&self) -> &IoQueues {
        &self.io
    }

    fn map_read(inode: &Inode<Self>, pos: u64, len: u64) -> Result<Extent> {
        map::read(inode, pos, len)
    }

    fn map_report(inode: &Inode<Self>, pos: u64, len: u64) -> Result<Extent> {
        map::report(inode, pos, len)
    }

    fn map_write(inode: &Inode<Self>, pos: u64, len: u64) -> Result<WriteExtent> {
        map::write(inode, pos, len)
    }

    fn is_current(inode: &Inode<Self>, cookie: u64) -> bool {
        inode.fs().engine().cookie(&inode.data().engine) == cookie
    }

    fn release_delalloc(inode: &Inode<Self>, pos: u64, len: u64) {
        map::release_delalloc(inode, pos, len);
    }

    fn lose_dirty(inode: &Inode<Self>, pos: u64, len: u64, error: Error) {
        map::lose_dirty(inode, pos, len, error);
    }

    fn release_maps(inode: &Inode<Self>, pos: u64, len: u64) {
        map::release_maps(inode, pos, len);
    }

    fn while_submitting<R>(inode: &Inode<Self>, f: impl FnOnce() -> R) -> R {
        inode.data().engine.while_submitting(f)
    }

    fn submit_write(ioend: WriteIoend<'_, Self>) {
        writeback::submit(ioend);
    }

    fn write_ended(
        inode: &Inode<Self>,
        write: engine::Ordered,
        reach: u64,
        status: Result,
    ) -> Result {
        let _nofs = NoFs::enter();
        inode.fs().engine().finish_write(write, reach, status)
    }

    fn checksum(block: BlockData<'_>) -> u32 {
        block.crc32c()
    }

    fn check_run(inode: &Inode<Self>, pos: u64, addr: u64, sums: &[u32]) -> Result<usize> {
        read::check_run(inode, pos, addr, sums)
    }

    fn check_block(inode: &Inode<Self>, pos: u64, addr: u64, data: &mut PageSlice<'_>) -> Result {
        read::check_block(inode, pos, addr, data)
    }

    fn read_range(inode: &Inode<Self>, pos: u64, data: &mut PageSlice<'_>) -> Result {
        read::read_range(inode, pos, data)
    }

    fn read_iter(iocb: &mut Iocb<'_, Self>, to: &mut Destination<'_>) -> Result<usize> {
        file::read_iter(iocb, to)
    }

    fn write_iter(iocb: &mut Iocb<'_, Self>, from: &mut Source<'_>) -> Result<usize> {
        file::write_iter(iocb, from)
    }

    fn direct_write_grew(inode: &Locked<'_, Self>, end: u64, status: Result) -> Result {
        file::direct_write_grew(inode, end, status)
    }

    fn fsync(file: &OpenFile<Self>, start: i64, end: i64, datasync: bool) -> Result {
        file::fsync(file, start, end, datasync)
    }

    fn fallocate(
        file: &OpenFile<Self>,
        what: Allocate,
        keep_size: bool,
        pos: u64,
        len: u64,
    ) -> Result {
        space::fallocate(file, what, keep_size, pos, len)
    }

    fn set_size(inode: &Locked<'_, Self>, size: u64) -> Result {
        space::set_size(inode, size)
    }
}
