// SPDX-License-Identifier: GPL-2.0

//! The ioctl that makes a mounted filesystem larger.
//!
//! # Model
//!
//! A resize is a number of commits, each of which has write access to the mount of its own. So a
//! freeze waits for one of them only; the rest goes on after the thaw. A filesystem that is frozen at
//! the beginning is refused. A task that is to be killed ends the resize between two commits, with a
//! size in between.
//!
//! Locks: `frozen` for a moment, alone.
//!
//! Tests: tests/vm/t/073-grow.sh.

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

/// Whether the call is this ioctl.
pub(super) fn is_meant(call: &Ioctl) -> bool {
    call.cmd() == ORDOFS_IOC_RESIZE
}

/// The call.
pub(super) fn ioctl(sb: &SuperBlock<OrdoFs>, call: &Ioctl) -> Result {
    call.needs_admin()?;
    let [_, flags, size, rest @ ..] = read::<WORDS>(call)?;
    // No flag is known; one will allow the filesystem to become smaller.
    if flags != 0 || rest.iter().any(|w| *w != 0) {
        return Err(EINVAL);
    }
    let blocks = size / BLOCK_SIZE as u64;
    if size != 0 && blocks == 0 {
        return Err(EOPNOTSUPP);
    }
    let fs = sb.fs();
    if *fs.frozen.lock() {
        return Err(EBUSY);
    }
    let mut resize = fs.engine.resize_begin(blocks)?;
    while call.writer().part(|| {
        let _nofs = NoFs::enter();
        fs.engine.resize_step(&mut resize)
    })? {}
    let (from, to) = (block_to_bytes(resize.from), block_to_bytes(resize.to));
    write(call, &[VERSION, flags, size, from, to, 0, 0, 0])
}
