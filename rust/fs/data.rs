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
//! | `appended` | writing back what was appended |
//! | `space` | `truncate`, `fallocate` (R3) |
//!
//! Tests: tests/vm/t/060-data-paths.sh, 064-fsx.sh, 065-race.sh.

mod appended;
mod file;
mod map;
mod read;
mod space;
mod writeback;

use kernel::prelude::*;

use super::OrdoFs;
use crate::{
    engine,
    fs::os::NoFs,
    vfs::{
        ioend::{IoendOperations, WriteIoend},
        object::iocb::{Destination, Iocb, OpenFile, Source},
        object::memory::{BlockData, PageSlice},
        os::workqueue::IoQueues,
        traits::file::{Allocate, FileOperations, SizeChange, SyncOf},
        traits::mapping::{Extent, MappingOperations, WriteExtent},
        Inode, Locked,
    },
};

impl IoendOperations for OrdoFs {
    type Write = engine::Ordered;

    fn io(&self) -> &IoQueues {
        &self.io
    }

    fn write_ended(
        inode: &Inode<Self>,
        write: engine::Ordered,
        reach: u64,
        status: Result,
    ) -> Result {
        let _nofs = NoFs::enter();
        inode.data().engine.note_change(|| inode.change());
        inode.fs().engine().finish_write(write, reach, status)
    }

    fn lose_dirty(inode: &Inode<Self>, pos: u64, len: u64, error: Error) {
        map::lose_dirty(inode, pos, len, error);
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
}

#[vtable]
impl MappingOperations for OrdoFs {
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
        // The mutant shows that the test of R5 can fail.
        cfg!(ordofs_mutant_r5) || inode.fs().engine().cookie(&inode.data().engine) == cookie
    }

    fn release_delalloc(inode: &Inode<Self>, pos: u64, len: u64) {
        map::release_delalloc(inode, pos, len);
    }

    fn release_maps(inode: &Inode<Self>, pos: u64, len: u64) {
        map::release_maps(inode, pos, len);
    }

    fn read_range(inode: &Inode<Self>, pos: u64, data: &mut PageSlice<'_>) -> Result {
        read::read_range(inode, pos, data)
    }

    fn while_submitting<R>(inode: &Inode<Self>, f: impl FnOnce() -> R) -> R {
        inode.data().engine.while_submitting(f)
    }

    fn submit_write(ioend: WriteIoend<'_, Self>) {
        writeback::submit(ioend);
    }
}

#[vtable]
impl FileOperations for OrdoFs {
    fn read_iter(iocb: &mut Iocb<'_, Self>, to: &mut Destination<'_>) -> Result<usize> {
        file::read_iter(iocb, to)
    }

    fn write_iter(iocb: &mut Iocb<'_, Self>, from: &mut Source<'_>) -> Result<usize> {
        file::write_iter(iocb, from)
    }

    fn direct_write_grew(inode: &Locked<'_, Self>, end: u64, status: Result) -> Result {
        file::direct_write_grew(inode, end, status)
    }

    fn fsync(file: &OpenFile<Self>, start: i64, end: i64, what: SyncOf) -> Result {
        file::fsync(file, start, end, what)
    }

    fn set_size(inode: &Locked<'_, Self>, size: u64) -> Result {
        space::set_size(inode, size)
    }

    fn fallocate(
        file: &OpenFile<Self>,
        what: Allocate,
        size: SizeChange,
        pos: u64,
        len: u64,
    ) -> Result {
        space::fallocate(file, what, size, pos, len)
    }
}
