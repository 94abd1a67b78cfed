// SPDX-License-Identifier: GPL-2.0

//! `truncate(2)` and `fallocate(2)`.
//!
//! # Model
//!
//! Parts of blocks are made zero through the page cache. Whole blocks are dropped from the page cache
//! and then taken away, or replaced, by the engine.
//!
//! # Rules
//!
//! R3: all of this happens with the layout lock held, from before the first page is dropped until
//! the engine has returned. Otherwise a store through a memory mapping brings a page back, dirty, over
//! blocks that are just being freed.
//!
//! # Locking
//!
//! `i_rwsem` exclusively; then direct I/O is waited for; then the layout lock.
//!
//! Tests: tests/vm/t/043-r3.sh, 025-sizes.sh, 062-full-disk.sh, 064-fsx.sh.

use core::ops::Range;
use kernel::prelude::*;

use super::appended::{write_appended, write_range};
use super::file::fsync;
use crate::{
    fs::{os::NoFs, with_space, OrdoFs, BLOCK},
    vfs::{
        object::iocb::OpenFile,
        object::page_cache::LayoutLock,
        traits::file::{Allocate, SizeChange, SyncOf},
        Inode, Locked,
    },
};

/// `truncate(2)`.
pub(super) fn set_size(inode: &Locked<'_, OrdoFs>, size: u64) -> Result {
    let engine = inode.fs().engine();
    let target = &inode.data().engine;
    inode.wait_direct_io();
    let layout = inode.lock_layout();
    let old = inode.size();
    if size >= old {
        // Zeroes first: what has never been written needs no space for a copy.
        layout.zero(old, size - old)?;
        write_appended(inode, old)?;
        layout.set_size(size);
        let _nofs = NoFs::enter();
        if size > old {
            // What is preallocated behind the old end stays.
            return engine.raise_size(target, size);
        }
        return engine.set_size(target, size);
    }
    let zeroed = match layout.zero_tail(size) {
        // Nothing left for a copy of the last block: free the others first.
        Err(e) if e == ENOSPC => None,
        r => Some(r?),
    };
    layout.set_size(size);
    // The new tail must be zero on disk before the size is: or a crash in between would let what
    // was cut off come back when the file grows again. The pages behind it are gone already.
    let mut flushed = write_appended(inode, size);
    if zeroed == Some(true) {
        flushed = flushed.and(write_range(inode, size, size));
    }
    let cut = {
        let _nofs = NoFs::enter();
        engine.set_size(target, size)
    };
    if let Err(e) = cut {
        let on_disk = target.attrs().size;
        if on_disk > size {
            // It has not even begun: the file is as long as before, but for what was not written back.
            layout.set_size(on_disk);
            layout.lost(e);
        }
        return Err(e);
    }
    if zeroed.is_none() {
        layout.zero_tail(size)?;
        write_range(inode, size, size)?;
    }
    flushed
}

/// `fallocate(2)`.
pub(super) fn fallocate(
    file: &OpenFile<OrdoFs>,
    what: Allocate,
    size: SizeChange,
    pos: u64,
    len: u64,
) -> Result {
    let end = pos.checked_add(len).ok_or(EFBIG)?;
    {
        let locked = file.lock_exclusive();
        let inode = &locked.inode();
        inode.wait_direct_io();
        let new_size = (size == SizeChange::Grow && end > inode.size()).then_some(end);
        if let Some(size) = new_size {
            inode.check_new_size(size)?;
        }
        locked.modified()?;
        let layout = inode.lock_layout();
        match what {
            Allocate::Reserve => reserve(inode, &layout, pos..end, new_size)?,
            Allocate::Punch => punch(inode, &layout, pos..end)?,
            Allocate::Zero => zero(inode, &layout, pos..end, new_size)?,
        }
    }
    if file.is_sync() {
        fsync(file, 0, i64::MAX, SyncOf::All)?;
    }
    Ok(())
}

/// Allocates what is a hole. Pages that are dirty have their space reserved already.
fn reserve(
    inode: &Inode<OrdoFs>,
    layout: &LayoutLock<'_, OrdoFs>,
    range: Range<u64>,
    new_size: Option<u64>,
) -> Result {
    if new_size.is_some() {
        layout.zero_tail(inode.size())?;
        write_appended(inode, inode.size())?;
    }
    let first = range.start / BLOCK;
    let last = range.end.div_ceil(BLOCK);
    let engine = inode.fs().engine();
    with_space(inode.sb(), || {
        let _nofs = NoFs::enter();
        engine.preallocate(&inode.data().engine, first, last - first, new_size)
    })?;
    if let Some(size) = new_size {
        layout.set_size(size);
    }
    Ok(())
}

/// The whole blocks of a range, and the parts of blocks before and behind them.
struct Parts {
    head: Range<u64>,
    blocks: Range<u64>,
    tail: Range<u64>,
}

fn parts(range: &Range<u64>) -> Parts {
    let first = range.start.div_ceil(BLOCK);
    let last = range.end / BLOCK;
    if first > last {
        // Inside of one block.
        return Parts {
            head: range.clone(),
            blocks: 0..0,
            tail: 0..0,
        };
    }
    Parts {
        head: range.start..first * BLOCK,
        blocks: first..last,
        tail: last * BLOCK..range.end,
    }
}

/// Makes a part of a block zero, as far as it is inside the file.
fn zero_part(inode: &Inode<OrdoFs>, layout: &LayoutLock<'_, OrdoFs>, part: Range<u64>) -> Result {
    let end = part.end.min(inode.size());
    if part.start < end {
        layout.zero(part.start, end - part.start)?;
    }
    Ok(())
}

/// Drops the pages of blocks `[first, last)`. Among them may be pages of an append that was not written
/// back yet: the size on disk, which their writeback would have raised, is raised now, after the others of
/// that append have been written.
fn drop_blocks(
    inode: &Inode<OrdoFs>,
    layout: &LayoutLock<'_, OrdoFs>,
    first: u64,
    last: u64,
) -> Result {
    let (on_disk, size) = (inode.data().engine.attrs().size, inode.size());
    if on_disk < size {
        write_appended(inode, first * BLOCK)?;
        if last * BLOCK < size {
            write_range(inode, (last * BLOCK).max(on_disk), size - 1)?;
        }
    }
    {
        let _nofs = NoFs::enter();
        inode
            .fs()
            .engine()
            .raise_size(&inode.data().engine, inode.size())?;
    }
    layout.drop_pages(first * BLOCK, last * BLOCK - 1);
    Ok(())
}

/// Makes a hole.
fn punch(inode: &Inode<OrdoFs>, layout: &LayoutLock<'_, OrdoFs>, range: Range<u64>) -> Result {
    let mut range = range;
    if range.end >= inode.size() {
        // Behind the end of the file all is zero: the last block can go as a whole.
        range.end = range.end.div_ceil(BLOCK).saturating_mul(BLOCK);
    }
    let parts = parts(&range);
    // The whole blocks first: on a full disk they make room for copies of the others.
    if !parts.blocks.is_empty() {
        let (first, last) = (parts.blocks.start, parts.blocks.end);
        drop_blocks(inode, layout, first, last)?;
        let _nofs = NoFs::enter();
        inode
            .fs()
            .engine()
            .punch(&inode.data().engine, first, last - first)?;
    }
    zero_part(inode, layout, parts.head)?;
    zero_part(inode, layout, parts.tail)
}

/// Makes a range zero and allocates it.
fn zero(
    inode: &Inode<OrdoFs>,
    layout: &LayoutLock<'_, OrdoFs>,
    range: Range<u64>,
    new_size: Option<u64>,
) -> Result {
    let parts = parts(&range);
    if !parts.blocks.is_empty() {
        let (first, last) = (parts.blocks.start, parts.blocks.end);
        drop_blocks(inode, layout, first, last)?;
        let _nofs = NoFs::enter();
        inode
            .fs()
            .engine()
            .zero_range(&inode.data().engine, first, last - first, None)?;
    }
    zero_part(inode, layout, parts.head)?;
    zero_part(inode, layout, parts.tail)?;
    // What is a hole at the edges, and the size.
    reserve(inode, layout, range, new_size)
}
