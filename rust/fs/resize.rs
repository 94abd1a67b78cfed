// SPDX-License-Identifier: GPL-2.0

//! The ioctl that makes a mounted filesystem larger or smaller.
//!
//! # Model
//!
//! A resize is a number of commits, each of which has write access to the mount of its own. So a
//! freeze waits for one of them only; the rest goes on after the thaw. A shrink also has steps without a
//! commit, which move data. It must be asked for by a flag, so that a number with a wrong unit does not begin one. A filesystem that is frozen at
//! the beginning is refused. A task that is to be killed ends the resize between two commits, with a
//! size in between: of a shrink, what it has moved stays moved.
//!
//! Locks: `frozen` for a moment, alone.
//!
//! Tests: tests/vm/t/073-grow.sh, tests/vm/t/074-shrink.sh.

use kernel::prelude::*;

use super::words::{has_words, read, write, VERSION};
use super::OrdoFs;
use crate::{
    engine::{block_to_bytes, BLOCK_SIZE},
    fs::os::NoFs,
    vfs::{traits::super_block::Ioctl, SuperBlock},
};

/// `_IOWR('O', 0x84, u64[8])`: changes the size of the filesystem.
const ORDOFS_IOC_RESIZE: c_uint = 0xc040_4f84;
/// Words of the structure.
const WORDS: usize = 8;
has_words!(ORDOFS_IOC_RESIZE, WORDS);

/// Flag: the filesystem is to become smaller.
const SHRINK: u64 = 1;

/// Whether the call is this ioctl.
pub(super) fn is_meant(call: &Ioctl) -> bool {
    call.cmd() == ORDOFS_IOC_RESIZE
}

/// The call.
pub(super) fn ioctl(sb: &SuperBlock<OrdoFs>, call: &Ioctl) -> Result {
    call.needs_admin()?;
    let [_, flags, size, rest @ ..] = read::<WORDS>(call)?;
    if flags & !SHRINK != 0 || rest.iter().any(|w| *w != 0) {
        return Err(EINVAL);
    }
    let blocks = size / BLOCK_SIZE as u64;
    let fs = sb.fs();
    if *fs.frozen.lock() {
        return Err(EBUSY);
    }
    if flags == SHRINK {
        let mut shrink = call.writer().part(|| {
            let _nofs = NoFs::enter();
            fs.engine.shrink_begin(blocks)
        })?;
        while call.writer().part(|| {
            let _nofs = NoFs::enter();
            fs.engine.shrink_step(&mut shrink)
        })? {}
        let (from, to) = (block_to_bytes(shrink.from()), block_to_bytes(shrink.to()));
        return write(call, &[VERSION, flags, size, from, to, 0, 0, 0]);
    }
    if size != 0 && blocks == 0 {
        return Err(EOPNOTSUPP);
    }
    let mut resize = fs.engine.resize_begin(blocks)?;
    while call.writer().part(|| {
        let _nofs = NoFs::enter();
        fs.engine.resize_step(&mut resize)
    })? {}
    let (from, to) = (block_to_bytes(resize.from), block_to_bytes(resize.to));
    write(call, &[VERSION, flags, size, from, to, 0, 0, 0])
}
