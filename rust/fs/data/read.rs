// SPDX-License-Identifier: GPL-2.0

//! Checking what was read.
//!
//! # Model
//!
//! A read was submitted for the disk blocks that were mapped at that time. When it has ended, its
//! blocks are judged by the checksums that their file blocks have *now*, in runs: one look-up for as
//! many blocks as an extent record has. What is not good is judged by itself. If it is mapped elsewhere by now
//! (an overwrite finished meanwhile, and the old block may have another owner already), it is mapped
//! and read again. A bad block is read once more, too, before it is called bad: while it was being
//! read it may have been given up and been taken into use again for the same file block. With
//! `rescue=data` a bad block is handed out as it is.
//!
//! # Locking
//!
//! Runs in the queue for reads, or with a folio locked. May wait for direct writes to end, which is
//! why those end in another queue.
//!
//! Tests: tests/vm/t/061-bad-block.sh, 066-dead-blocks.sh, 068-scrub.sh.

use kernel::prelude::*;

use crate::{
    engine::{MapKind, Verdict},
    fs::{
        os::{crc32c, NoFs},
        OrdoFs, BLOCK,
    },
    vfs::{
        ioend::check::check_blocks,
        object::memory::{message_allowed, PageSlice},
        Inode,
    },
};

/// How often a block is read again before giving up. Each time another write must have replaced it.
const ATTEMPTS: usize = 64;

/// How many blocks from the first on are good.
pub(super) fn check_run(inode: &Inode<OrdoFs>, pos: u64, addr: u64, sums: &[u32]) -> Result<usize> {
    let engine = inode.fs().engine();
    engine.verify_run(&inode.data().engine, pos / BLOCK, addr / BLOCK, sums)
}

/// Checks one block that was read from byte `addr` of the device for byte `pos` of the file.
pub(super) fn check_block(
    inode: &Inode<OrdoFs>,
    pos: u64,
    addr: u64,
    data: &mut PageSlice<'_>,
) -> Result {
    let _nofs = NoFs::enter();
    let engine = inode.fs().engine();
    let target = &inode.data().engine;
    let block = pos / BLOCK;
    let crc = crc32c(0, data.bytes());
    if engine.verify(target, block, addr / BLOCK, crc)? == Verdict::Good {
        return Ok(());
    }
    for _ in 0..ATTEMPTS {
        let m = engine.map_read(target, block, 1)?;
        if m.kind != MapKind::Written {
            data.bytes_mut().fill(0);
            return Ok(());
        }
        inode.read_device(m.phys.saturating_mul(BLOCK), data)?;
        let crc = crc32c(0, data.bytes());
        match engine.verify(target, block, m.phys, crc)? {
            Verdict::Good => return Ok(()),
            Verdict::Moved => continue,
            Verdict::Bad(want) => {
                if message_allowed() {
                    pr_err!(
                        "{}: inode {}, block {}: bad data in disk block {}: checksum {:#010x}, expected {:#010x}\n",
                        engine.device_name(),
                        inode.ino(),
                        block,
                        m.phys,
                        crc,
                        want
                    );
                }
                // Its pages cannot become dirty, so no new checksum is ever made of it.
                return match inode.fs().rescue_data {
                    true => Ok(()),
                    false => Err(EIO),
                };
            }
        }
    }
    Err(EIO)
}

/// Reads a range of whole blocks and waits.
pub(super) fn read_range(inode: &Inode<OrdoFs>, pos: u64, data: &mut PageSlice<'_>) -> Result {
    let _nofs = NoFs::enter();
    let engine = inode.fs().engine();
    let mut at = 0;
    while at < data.len() {
        let here = pos + at as u64;
        let left = (data.len() - at) as u64;
        let m = engine.map_read(&inode.data().engine, here / BLOCK, left.div_ceil(BLOCK))?;
        let len = m.len.saturating_mul(BLOCK).min(left) as usize;
        let mut run = data.part(at, len);
        if m.kind == MapKind::Written {
            let addr = m.phys.saturating_mul(BLOCK);
            inode.read_device(addr, &mut run)?;
            check_blocks(inode, here, addr, &mut run)?;
        } else {
            run.bytes_mut().fill(0);
        }
        at += len;
    }
    Ok(())
}
