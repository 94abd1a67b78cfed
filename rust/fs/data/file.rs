// SPDX-License-Identifier: GPL-2.0

//! `read(2)`, `write(2)` and `fsync(2)`.
//!
//! # Model
//!
//! Direct I/O that is aligned to blocks goes past the page cache; what is not aligned goes through
//! it, and is written and dropped from it before the call returns.
//!
//! # Locking
//!
//! | operation | `i_rwsem` |
//! |---|---|
//! | buffered read | none: folios |
//! | direct read | shared while it is submitted |
//! | direct write inside `i_size` | shared while it is submitted: start_write sorts out who gets what |
//! | direct write that goes beyond `i_size` | exclusively, until it has ended |
//! | buffered write | exclusively |
//!
//! # Rules
//!
//! R8: [`fsync`], and with it every synchronous write, returns only after the data is written, the
//! mappings are committed and the device has flushed; errors of writeback are reported to every open
//! file once.
//!
//! Tests: tests/vm/t/060-data-paths.sh, 049-lost-writes.sh, 025-sizes.sh.

use kernel::prelude::*;

use super::appended::write_appended;
use crate::{
    fs::{os::NoFs, with_space, OrdoFs, BLOCK},
    vfs::{
        object::iocb::{Destination, Iocb, LockedIocb, OpenFile, Source},
        object::page_cache::side::{Exclusive, Shared, Side},
        traits::file::SyncOf,
        DirectWrite, Locked,
    },
};

fn is_aligned(pos: u64, len: u64) -> bool {
    (pos | len) % BLOCK == 0
}

/// `read(2)`.
pub(super) fn read_iter(iocb: &mut Iocb<'_, OrdoFs>, to: &mut Destination<'_>) -> Result<usize> {
    if iocb.is_nowait() {
        return Err(EAGAIN);
    }
    iocb.inode().fs().engine().readable()?;
    if to.count() == 0 {
        return Ok(0);
    }
    if iocb.is_direct() && is_aligned(iocb.pos(), to.count()) {
        iocb.accessed();
        return iocb.lock_shared().direct_read(to);
    }
    iocb.buffered_read(to)
}

/// `write(2)`.
pub(super) fn write_iter(iocb: &mut Iocb<'_, OrdoFs>, from: &mut Source<'_>) -> Result<usize> {
    if iocb.is_nowait() {
        return Err(EAGAIN);
    }
    if from.count() == 0 {
        return Ok(0);
    }
    if iocb.is_direct() {
        match direct_write(iocb, from) {
            Err(e) if e == ENOTBLK => (),
            r => return r,
        }
    }
    let written = {
        let mut locked = iocb.lock_exclusive();
        if prepare_any_write(&mut locked, from)? == 0 {
            return Ok(0);
        }
        if locked.is_direct() {
            // As in `direct_write`.
            write_appended(locked.inode(), locked.pos())?;
        }
        let sb = locked.inode().sb();
        with_space(sb, || locked.buffered_write(from))?
    };
    if written == 0 {
        return Ok(0);
    }
    let written = if iocb.is_direct() {
        iocb.end_direct_fallback(from, written)?
    } else {
        written
    };
    if written == 0 {
        return Ok(0);
    }
    iocb.write_sync(written)
}

/// What comes before a write. Returns how many bytes may be written.
fn prepare_any_write(
    iocb: &mut LockedIocb<'_, '_, OrdoFs, Exclusive>,
    from: &mut Source<'_>,
) -> Result<usize> {
    let count = iocb.write_checks(from)?;
    if count == 0 {
        return Ok(0);
    }
    let (pos, size) = (iocb.pos(), iocb.inode().size());
    if pos > size {
        // What a memory mapping stored behind the end of the file must not appear in it.
        let inode = iocb.locked();
        inode.wait_direct_io();
        inode.lock_layout().zero(size, pos - size)?;
    }
    iocb.modified()?;
    Ok(count)
}

/// [`prepare_any_write`] for a write inside `i_size`.
fn prepare_write_inside(
    iocb: &mut LockedIocb<'_, '_, OrdoFs, Shared>,
    from: &mut Source<'_>,
) -> Result<usize> {
    let count = iocb.write_checks(from)?;
    if count > 0 {
        iocb.modified()?;
    }
    Ok(count)
}

/// A direct write; ENOTBLK when it has to go through the page cache.
fn direct_write(iocb: &mut Iocb<'_, OrdoFs>, from: &mut Source<'_>) -> Result<usize> {
    {
        let locked = iocb.lock_shared();
        let inode = locked.inode();
        let end = locked.pos().saturating_add(from.count());
        if !locked.is_append() && end <= inode.size() && inode.is_nosec() {
            return direct_write_locked(locked, from, prepare_write_inside);
        }
    }
    direct_write_locked(iocb.lock_exclusive(), from, prepare_any_write)
}

fn direct_write_locked<'l, 'a, S: Side>(
    mut iocb: LockedIocb<'l, 'a, OrdoFs, S>,
    from: &mut Source<'_>,
    prepare: fn(&mut LockedIocb<'l, 'a, OrdoFs, S>, &mut Source<'_>) -> Result<usize>,
) -> Result<usize> {
    // An append gets its position here, a limit may cut the length.
    let count = iocb.write_checks(from)? as u64;
    if count == 0 {
        return Ok(0);
    }
    if !is_aligned(iocb.pos(), count) {
        return Err(ENOTBLK);
    }
    if prepare(&mut iocb, from)? == 0 {
        return Ok(0);
    }
    // Its end sets `i_size`, under the lock. And the end of a synchronous write waits for a commit,
    // which is not for the queue of completions to do.
    let inode = iocb.inode();
    let extends = iocb.pos().saturating_add(count) > inode.size();
    let until = if extends || iocb.is_dsync() {
        DirectWrite::Wait
    } else {
        DirectWrite::MayGoOn
    };
    // Its end, or its failure, sets the size on disk.
    write_appended(inode, iocb.pos())?;
    iocb.direct_write(from, until)
}

/// All parts of a direct write that goes beyond `i_size` have ended; their mappings and the size on
/// disk are in place.
pub(super) fn direct_write_grew(inode: &Locked<'_, OrdoFs>, end: u64, status: Result) -> Result {
    if status.is_ok() {
        inode.set_size(end);
        return Ok(());
    }
    // Some parts may have been written, and the size on disk with them.
    let _layout = inode.lock_layout();
    let _nofs = NoFs::enter();
    let engine = inode.fs().engine();
    engine.set_size(&inode.data().engine, inode.size())
}

/// `fsync(2)` and `fdatasync(2)`: R8.
pub(super) fn fsync(file: &OpenFile<OrdoFs>, start: i64, end: i64, what: SyncOf) -> Result {
    let inode = file.inode();
    // A synchronous write brings the size on disk along. If that fails, this fsync reports it, and the
    // next one does not: its error is among those that the call below takes.
    let appended = write_appended(inode, u64::try_from(start).unwrap_or(0));
    // First the data, and the errors of earlier writeback.
    file.write_and_wait(start, end)?;
    appended?;
    // Then what only the VFS knows.
    inode.write_attributes(what == SyncOf::Data)?;
    // Then everything that belongs to the inode, to stable storage.
    let _nofs = NoFs::enter();
    inode.fs().engine().sync_inode(&inode.data().engine)
}
