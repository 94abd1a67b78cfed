// SPDX-License-Identifier: GPL-2.0

//! Writes on their way to the device, from the page cache and direct.
//!
//! # Model
//!
//! A write comes as a run of file blocks whose content stands still. Their checksums are computed,
//! and the engine is asked to start the write: for as many blocks as lie together on disk it
//! answers with an address and an ordered extent. These are split off and submitted, the rest
//! asks again.
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

use kernel::prelude::*;

use super::{OrdoFs, BLOCK};
use crate::{os::crc32c, vfs::ioend::WriteIoend};

/// Blocks that one ordered extent covers at most: bounds its memory and the latency of its end.
const CHUNK: u64 = 2048;

fn checksum(block: &[u8]) -> u32 {
    crc32c(0, block)
}

/// Submits a write, in as many parts as it takes.
pub(super) fn submit(mut ioend: WriteIoend<'_, OrdoFs>) {
    let inode = ioend.inode();
    let engine = inode.fs().engine();
    let target = &inode.data().engine;
    let mut sums = KVec::new();
    loop {
        let want = ioend.blocks().min(CHUNK) as usize;
        // Everything that can fail for want of memory comes before the write is started.
        let started = ioend
            .checksums(&mut sums, want, checksum)
            .and_then(|()| ioend.prepare())
            .and_then(|prepared| {
                let s = engine.start_write(target, ioend.block(), &sums, ioend.is_direct())?;
                Ok((s, prepared))
            });
        let (started, prepared) = match started {
            Ok(started) => started,
            Err(e) => {
                // These pages will be clean without having been written, which the error says.
                // Nobody will ask for their reservation any more.
                if !ioend.is_direct() {
                    engine.release_delalloc(target, ioend.block(), ioend.blocks());
                }
                ioend.fail(e);
                return;
            }
        };
        let done = (started.len as usize).min(sums.len());
        sums.copy_within(done.., 0);
        sums.truncate(sums.len() - done);
        let addr = started.phys.saturating_mul(BLOCK);
        match ioend.submit(started.len, addr, started.ordered, prepared) {
            Some(rest) => ioend = rest,
            None => return,
        }
    }
}
