// SPDX-License-Identifier: GPL-2.0

//! Runs of blocks against their checksums.
//!
//! Tests: tests/vm/t/061-bad-block.sh, 066-dead-blocks.sh.

use kernel::prelude::*;

use super::operations::IoendOperations;
use crate::vfs::object::inode::Inode;
use crate::vfs::object::memory::PageSlice;

/// Blocks that are checked together, whatever bio they came in. Their checksums, a KiB, are on the stack.
pub(super) const RUN: usize = 256;

/// Judges blocks by their checksums: the good ones together, the others one by one with `slow`. `ended`
/// gets a number of blocks and their result, in order, and can stop it with an error.
pub(super) fn judge<T: IoendOperations>(
    inode: &Inode<T>,
    pos: u64,
    addr: u64,
    sums: &[u32],
    mut slow: impl FnMut(usize, u64, u64) -> Result,
    mut ended: impl FnMut(usize, Result) -> Result,
) -> Result {
    let mut at = 0;
    while let Some(rest) = sums.get(at..).filter(|r| !r.is_empty()) {
        let off = at as u64 * T::BLOCK_SIZE;
        // What could not be looked up is for the slow way to say.
        let good = T::check_run(inode, pos + off, addr + off, rest).unwrap_or(0);
        let good = good.min(rest.len());
        if good > 0 {
            ended(good, Ok(()))?;
        }
        at += good;
        if good < rest.len() {
            let off = at as u64 * T::BLOCK_SIZE;
            let result = slow(at, pos + off, addr + off);
            ended(1, result)?;
            at += 1;
        }
    }
    Ok(())
}

/// Checks contiguous blocks that were read from byte `addr` of the device for byte `pos` of the file;
/// returns the first error.
pub(crate) fn check_blocks<T: IoendOperations>(
    inode: &Inode<T>,
    pos: u64,
    addr: u64,
    data: &mut PageSlice<'_>,
) -> Result {
    let size = T::BLOCK_SIZE as usize;
    let mut sums = [0; RUN];
    let mut at = 0;
    while at < data.len() {
        let mut run = data.part(at, RUN * size);
        let mut n = 0;
        for (sum, block) in sums.iter_mut().zip(run.blocks(size)) {
            *sum = T::checksum(block);
            n += 1;
        }
        let (pos, addr) = (pos + at as u64, addr + at as u64);
        judge(
            inode,
            pos,
            addr,
            sums.get(..n).unwrap_or(&[]),
            |i, pos, addr| {
                let mut block = run.part(i * size, size);
                T::check_block(inode, pos, addr, &mut block)
            },
            |_, result| result,
        )?;
        at += RUN * size;
    }
    Ok(())
}
