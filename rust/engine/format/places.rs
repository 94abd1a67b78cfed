// SPDX-License-Identifier: GPL-2.0

//! The fixed places of a filesystem: superblocks and their backups, which follow from its size, and
//! where mkfs puts the log. Addresses and lengths are in blocks.
//!
//! | area | place |
//! |---|---|
//! | primary superblocks | blocks 0..256 |
//! | twins of the superblocks | 256 blocks from the *twin base* on: block 16384, or 2048 on filesystems of less than 128 MiB |
//! | log | behind the primary superblocks if it fits there, else behind the twins |
//! | backups | the last 256 blocks, and 256 blocks from 2^22, 2^26 and 2^30 on where they exist; none on filesystems of less than 128 MiB |
//!
//! The superblock of generation g is written to block 16 (even g) or 128 (odd g) of the first two
//! areas, so the generation before stays intact meanwhile. A backup is in block 16 of its area. The
//! rest of the areas stays zero: other programs look for signatures at the start and at the end of a
//! device.
//!
//! Tests: `tools/engine/tests/format.rs`.

use super::{LOG_MAX_BLOCKS, LOG_MIN_BLOCKS, MIN_BLOCKS};

/// Blocks of an area of superblocks.
pub const AREA_BLOCKS: u64 = 256;
/// Where superblocks are in an area: those of even and of odd generations.
pub const SLOTS: [u64; 2] = [16, 128];
/// Copies of a superblock that each commit writes.
pub const COPIES: usize = 2;
/// The most backups.
pub const MAX_BACKUPS: usize = 4;
/// Filesystems with fewer blocks have no backups, and their twins are nearer to the start.
const SMALL: u64 = 1 << 15;
/// The two bases of twins, of large and of small filesystems.
pub const TWIN_BASES: [u64; 2] = [1 << 14, 1 << 11];

/// Where backups are besides those at the end.
pub const INNER: [u64; 3] = [1 << 22, 1 << 26, 1 << 30];

const _: () = assert!(SLOTS[0] < SLOTS[1] && SLOTS[1] < AREA_BLOCKS);
const _: () = assert!(AREA_BLOCKS + LOG_MIN_BLOCKS <= TWIN_BASES[1]);
const _: () = assert!(TWIN_BASES[1] + AREA_BLOCKS <= MIN_BLOCKS);
const _: () = assert!(TWIN_BASES[0] + 2 * AREA_BLOCKS <= SMALL);

/// The first block of the area of twins.
pub fn twin_base(blocks: u64) -> u64 {
    let [large, small] = TWIN_BASES;
    match blocks < SMALL {
        true => small,
        false => large,
    }
}

/// The block of the superblock of a generation: copy 0, or the twin.
pub fn slot(generation: u64, copy: usize, blocks: u64) -> u64 {
    let [even, odd] = SLOTS;
    let base = match copy {
        0 => 0,
        _ => twin_base(blocks),
    };
    base + if generation & 1 == 0 { even } else { odd }
}

/// The first block and the length of the log that mkfs makes.
pub fn log_place(blocks: u64) -> (u64, u64) {
    let len = (blocks / 128).clamp(LOG_MIN_BLOCKS, LOG_MAX_BLOCKS);
    let twin = twin_base(blocks);
    match AREA_BLOCKS + len <= twin {
        true => (AREA_BLOCKS, len),
        false => (twin + AREA_BLOCKS, len),
    }
}

/// The first blocks of the areas of backups, at most [`MAX_BACKUPS`].
pub fn backups(blocks: u64) -> impl Iterator<Item = u64> {
    let end = blocks.saturating_sub(AREA_BLOCKS);
    let inner = INNER.into_iter();
    // The last area is the one at the end, and areas do not overlap.
    inner
        .filter(move |at| at + AREA_BLOCKS <= end)
        .chain(core::iter::once(end))
        .filter(move |_| blocks >= SMALL)
}

/// The first blocks of all areas of superblocks, of [`AREA_BLOCKS`] each. They do not overlap.
pub fn areas(blocks: u64) -> impl Iterator<Item = u64> {
    [0, twin_base(blocks)].into_iter().chain(backups(blocks))
}

/// The greatest size up to `blocks` with which a filesystem can grow later. Behind the place of an inner
/// area of backups there are sizes that have no room for it, but data where it would be.
pub fn usable(blocks: u64) -> u64 {
    for at in INNER {
        if blocks > at + AREA_BLOCKS && blocks < at + 2 * AREA_BLOCKS {
            return at + AREA_BLOCKS;
        }
    }
    blocks
}

/// Whether a filesystem of `from` blocks that grows to `to` blocks keeps its twins where they are.
pub fn same_twins(from: u64, to: u64) -> bool {
    twin_base(from) == twin_base(to)
}

/// The parts of the areas of a filesystem of `to` blocks that are behind its end as long as it has
/// `from` blocks, as first block and length.
pub fn areas_behind(from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
    areas(to)
        .map(move |at| (at.max(from), at + AREA_BLOCKS))
        .filter(|(at, end)| at < end)
        .map(|(at, end)| (at, end - at))
}

/// The part of the last area of a filesystem of `from` blocks that is in no area when it has `to`
/// blocks, which are more by at least [`AREA_BLOCKS`]; both sizes are [`usable`].
pub fn last_area_before(from: u64, to: u64) -> Option<(u64, u64)> {
    let at = backups(from).last()?;
    let next = backups(to).find(|next| *next >= at).unwrap_or(from);
    let end = next.min(from);
    (at < end).then_some((at, end - at))
}

/// Whether `[start, end)` has a block of an area of superblocks.
pub fn meets_areas(blocks: u64, start: u64, end: u64) -> bool {
    areas(blocks).any(|at| start < at + AREA_BLOCKS && end > at)
}
