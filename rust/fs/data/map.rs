// SPDX-License-Identifier: GPL-2.0

//! Mappings: from the bytes of iomap to the blocks of the engine and back.
//!
//! The rules are the engine's: R4 in `map_write` (look again under the write lock), R2 in
//! `release_maps`, R5 by the cookie that every mapping carries.
//!
//! Tests: tests/vm/t/042-r2.sh, 044-r4.sh, 045-r5.sh.

use kernel::prelude::*;

use crate::{
    engine::{MapKind, Mapping},
    fs::{os::NoFs, OrdoFs, BLOCK},
    vfs::{
        traits::mapping::{Extent, ExtentKind, WriteExtent},
        Inode,
    },
};

/// The blocks that contain the bytes `[pos, pos + len)`: first, and how many (at least one).
fn blocks(pos: u64, len: u64) -> (u64, u64) {
    let first = pos / BLOCK;
    let end = pos.saturating_add(len).div_ceil(BLOCK);
    (first, end.saturating_sub(first).max(1))
}

/// The blocks that lie in the bytes `[pos, pos + len)` as a whole.
fn whole_blocks(pos: u64, len: u64) -> (u64, u64) {
    let first = pos.div_ceil(BLOCK);
    let end = pos.saturating_add(len) / BLOCK;
    (first, end.saturating_sub(first))
}

fn extent(m: &Mapping) -> Extent {
    Extent {
        pos: m.start.saturating_mul(BLOCK),
        len: m.len.saturating_mul(BLOCK),
        kind: match m.kind {
            MapKind::Hole => ExtentKind::Hole,
            MapKind::Delalloc => ExtentKind::Delalloc,
            MapKind::Unwritten => ExtentKind::Unwritten,
            MapKind::Written => ExtentKind::Written,
        },
        addr: m.phys.saturating_mul(BLOCK),
        cookie: m.cookie,
    }
}

pub(super) fn read(inode: &Inode<OrdoFs>, pos: u64, len: u64) -> Result<Extent> {
    let _nofs = NoFs::enter();
    let (block, n) = blocks(pos, len);
    let engine = inode.fs().engine();
    Ok(extent(&engine.map_read(&inode.data().engine, block, n)?))
}

pub(super) fn report(inode: &Inode<OrdoFs>, pos: u64, len: u64) -> Result<Extent> {
    let _nofs = NoFs::enter();
    let (block, n) = blocks(pos, len);
    let engine = inode.fs().engine();
    Ok(extent(&engine.map_report(
        &inode.data().engine,
        block,
        n,
    )?))
}

pub(super) fn write(inode: &Inode<OrdoFs>, pos: u64, len: u64) -> Result<WriteExtent> {
    let _nofs = NoFs::enter();
    let (block, n) = blocks(pos, len);
    let engine = inode.fs().engine();
    let w = engine.map_write(&inode.data().engine, block, n)?;
    Ok(WriteExtent {
        map: extent(&w.map),
        source: w.src.as_ref().map(extent),
        new: w.new,
    })
}

pub(super) fn release_delalloc(inode: &Inode<OrdoFs>, pos: u64, len: u64) {
    let _nofs = NoFs::enter();
    let (block, n) = whole_blocks(pos, len);
    let engine = inode.fs().engine();
    engine.release_delalloc(&inode.data().engine, block, n);
}

/// The blocks of dirty pages that cannot be written.
pub(super) fn lose_dirty(inode: &Inode<OrdoFs>, pos: u64, len: u64, error: Error) {
    let _nofs = NoFs::enter();
    let (block, n) = blocks(pos, len);
    let engine = inode.fs().engine();
    engine.lose_dirty(&inode.data().engine, block, n, error);
}

/// R2: asks the engine to forget what it may. Some maps must stay, or all of them because another task holds
/// their lock; neither is a reason to keep the folio.
pub(super) fn release_maps(inode: &Inode<OrdoFs>, pos: u64, len: u64) {
    let _nofs = NoFs::enter();
    let (block, n) = whole_blocks(pos, len);
    let engine = inode.fs().engine();
    engine.release_maps(&inode.data().engine, block, n);
}
