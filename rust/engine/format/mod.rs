// SPDX-License-Identifier: GPL-2.0

//! The on-disk format, version 2: encoding, decoding and checking. docs/FORMAT.md describes it byte
//! by byte.
//!
//! All numbers are little-endian, and all reads go through bounded helpers that return `None` past
//! the end. No type is ever laid over bytes, and nothing here can panic on any input. Addresses and
//! lengths are in blocks unless a name or a comment says bytes; ranges are half-open. The functions
//! here take no locks.
//!
//! Tests: `tools/engine/tests/format.rs`, `tools/engine/tests/records.rs`,
//! `tools/engine/tests/space_records.rs`, `tools/engine/tests/inode_records.rs`,
//! `tools/engine/tests/superblocks.rs`, `tools/engine/tests/impossible.rs`, `tools/engine/tests/damage.rs`.

pub mod ag;
pub mod bits;
pub mod dead;
pub mod extent;
pub mod find;
pub mod group;
pub mod inode;
pub mod node;
pub mod places;
pub mod quota;
pub mod room;
pub mod section;
pub mod shared;
pub mod slots;
pub mod snapshot;
pub mod sums;
pub mod superblock;

pub use node::{NodePtr, TreeId, NODE_PTR_LEN};
pub use room::Room;
pub use superblock::Superblock;

use crate::engine::invariant::Limit;
use crate::engine::types;
use core::fmt::Arguments;
use kernel::prelude::*;

/// The version of the format that this code writes, and the only one that it reads.
pub const VERSION: u32 = 2;
/// Size of a block in bytes.
pub const BLOCK_SIZE: usize = 4096;
/// log2 of [`BLOCK_SIZE`].
pub const BLOCK_SHIFT: u32 = 12;
const _: () = assert!(BLOCK_SIZE == 1 << BLOCK_SHIFT && BLOCK_SIZE == types::BLOCK_SIZE);
/// Blocks in a group, which one bitmap (1 KiB) describes.
pub const GROUP_BLOCKS: u64 = 8192;
/// The smallest length of the log area in blocks.
pub const LOG_MIN_BLOCKS: u64 = 256;
/// The greatest length of the log area in blocks.
pub const LOG_MAX_BLOCKS: u64 = 16384;
/// A replay advances the sequence number of the next batch by this, so that no batch left in the
/// ring can follow the new ones.
pub const LOG_SEQ_GAP: u64 = 1 << 20;
/// The fewest blocks of a device: 16 MiB.
pub const MIN_BLOCKS: u64 = 4096;
/// The most blocks of a device (2 EiB): byte offsets stay below 2^63, and the numbers of AGs below
/// 2^32.
pub const MAX_BLOCKS: u64 = 1 << 49;
const _: () = assert!(MAX_BLOCKS <= (i64::MAX as u64) >> BLOCK_SHIFT);

/// The greatest generation. No filesystem ever reaches it.
pub const MAX_GENERATION: u64 = 1 << 62;

/// The greatest epoch: the keys of the dead tree have 26 bits for one. The first is 1.
pub const MAX_EPOCH: u32 = (1 << 26) - 1;

/// The limit of inode numbers, exclusive.
pub const MAX_INO: u64 = 1 << 62;

/// Generation, log position, log sequence number and next inode number must be below this if the
/// filesystem is to be written to. They only go up, and no mount uses up what is between this and 2^62.
pub const USED_UP: u64 = 3 << 60;

/// Reads the u16 at byte `off`; `None` if it does not lie within `b`.
#[inline]
pub fn le16(b: &[u8], off: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*b.get(off..)?.first_chunk()?))
}

/// Reads the u32 at byte `off`; `None` if it does not lie within `b`.
#[inline]
pub fn le32(b: &[u8], off: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*b.get(off..)?.first_chunk()?))
}

/// Reads the u64 at byte `off`; `None` if it does not lie within `b`.
#[inline]
pub fn le64(b: &[u8], off: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*b.get(off..)?.first_chunk()?))
}

/// Copies `src` to byte `off`. Returns `None` and changes nothing if `b` is too short.
#[inline]
pub fn put(b: &mut [u8], off: usize, src: &[u8]) -> Option<()> {
    b.get_mut(off..)?.get_mut(..src.len())?.copy_from_slice(src);
    Some(())
}

/// Reports damage in the kernel's log and returns EUCLEAN.
///
/// `room` names the structure, `key` says which one (inode, block address, AG, ...), `what` says
/// what is wrong with it. At most 10 lines a second are printed.
#[cold]
pub fn corrupt(room: &str, key: u64, what: &str) -> Error {
    corrupt_fmt(format_args!("{room} {key}: {what}"))
}

/// As [`corrupt`], with a free-form message.
#[cold]
pub fn corrupt_fmt(what: Arguments<'_>) -> Error {
    // Reads of a damaged device can fail a million times a second.
    static LIMIT: Limit = Limit::new();
    if LIMIT.allows() {
        pr_err!("corruption: {}\n", what);
    }
    EUCLEAN
}
