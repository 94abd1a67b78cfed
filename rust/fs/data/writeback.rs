// SPDX-License-Identifier: GPL-2.0

//! Writes on their way to the device, from the page cache and direct.
//!
//! # Model
//!
//! A write comes as a run of file blocks whose content does not change. Their checksums are computed, and
//! the engine starts the write: for as many blocks as lie together on disk it returns an address and an
//! ordered extent. These blocks are split off and submitted, and the rest starts again. Writeback that lacks
//! memory waits for some and starts again: failing would lose what was written.
//!
//! # Rules
//!
//! R1: `start_write` of the engine is the only way to an address here. It has the ordered extent in place
//! before the mapping can be seen, so that a sync that finds the mapping also finds that it has to
//! wait for the I/O.
//!
//! # Locking
//!
//! Folios of the write may be locked; the engine takes none.
//!
//! Tests: tests/vm/t/041-r1.sh, 060-data-paths.sh, 090-memory.sh.

use crate::{
    fs::{OrdoFs, BLOCK},
    vfs::ioend::WriteIoend,
};

/// Blocks that one ordered extent covers at most: bounds its memory and the latency of its end.
const CHUNK: u64 = 2048;

/// Submits a write, in as many parts as it takes.
pub(super) fn submit(mut ioend: WriteIoend<'_, OrdoFs>) {
    let inode = ioend.inode();
    let engine = inode.fs().engine();
    let target = &inode.data().engine;
    loop {
        let (block, direct) = (ioend.block(), ioend.is_direct());
        let want = ioend.blocks().min(CHUNK);
        // Everything that can fail for want of memory comes before the write is started.
        let started = ioend.prepare().and_then(|prepared| {
            let sums = ioend.checksums(want)?;
            Ok((engine.start_write(target, block, sums, direct)?, prepared))
        });
        let (started, prepared) = match started {
            Ok(started) => started,
            Err(e) if ioend.retry(e) => continue,
            Err(e) => return ioend.fail(e),
        };
        let addr = started.phys.saturating_mul(BLOCK);
        match ioend.submit(started.len, addr, started.ordered, prepared) {
            Some(rest) => ioend = rest,
            None => return,
        }
    }
}
