// SPDX-License-Identifier: GPL-2.0

//! The structures of the ioctls: u64 words in the byte order of the processor, so they are the same
//! for 32-bit programs. The first word is [`VERSION`]. No locks.
//!
//! Tests: tests/vm/t/068-scrub.sh, tests/vm/t/073-grow.sh.

use kernel::prelude::*;

use crate::vfs::traits::super_block::Ioctl;

/// The version of the structures.
pub(super) const VERSION: u64 = 1;

/// Whether a command has the size of a structure of so many words.
macro_rules! has_words {
    ($cmd:ident, $words:ident) => {
        const _: () = assert!($cmd >> 16 & 0x3fff == 8 * $words as c_uint);
    };
}
pub(super) use has_words;

/// Words of a structure that is read.
pub(super) fn read<const N: usize>(call: &Ioctl) -> Result<[u64; N]> {
    let mut words = [0; N];
    let mut bytes = KVec::from_elem(0u8, 8 * N, GFP_KERNEL)?;
    call.read(&mut bytes)?;
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_ne_bytes(*bytes.first_chunk().ok_or(EINVAL)?);
    }
    // A newer program must not think that an old module has understood it.
    match words.first() {
        Some(&VERSION) => Ok(words),
        _ => Err(EINVAL),
    }
}

/// Writes a structure.
pub(super) fn write(call: &Ioctl, words: &[u64]) -> Result {
    let mut bytes = KVec::with_capacity(8 * words.len(), GFP_KERNEL)?;
    for word in words {
        bytes.extend_from_slice(&word.to_ne_bytes(), GFP_KERNEL)?;
    }
    call.write(&bytes)
}
