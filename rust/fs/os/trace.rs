// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of OrdoFS, as `rust/trace/ordofs.h` declares them.
//!
//! Tests: tests/vm/t/035-observing.sh.

use crate::vfs::os::trace::tracepoints;

tracepoints! {
    in ordofs;

    /// A mapping was looked up for a read. `kind` is that of the engine's `MapKind`.
    fn map_read(dev: u32, ino: u64, start: u64, len: u64, kind: u32, phys: u64, cookie: u64);
    /// A range was made writable through the page cache.
    fn map_write(dev: u32, ino: u64, start: u64, len: u64, kind: u32, phys: u64, cookie: u64);
    /// R4: after the second look, `used` of `reserved` blocks are kept.
    fn delalloc(dev: u32, ino: u64, start: u64, reserved: u64, used: u64);
    /// R5: a mapping that was kept is not true any more.
    fn map_stale(dev: u32, ino: u64, start: u64, len: u64, cookie: u64, writeback: bool);
    /// An ordered extent is in its inode's set.
    fn ordered_insert(dev: u32, ino: u64, id: u64, start: u64, len: u64, phys: u64, in_place: bool, direct: bool);
    /// The extent map of an ordered extent can be seen.
    fn ordered_mapped(dev: u32, ino: u64, id: u64, start: u64, len: u64, phys: u64, in_place: bool, direct: bool);
    /// The I/O of an ordered extent has ended, and what follows from that is done.
    fn ordered_finish(dev: u32, ino: u64, id: u64, start: u64, len: u64, error: i32);
    /// R2: extent maps were to be forgotten; so many were, so many had to stay.
    fn release_maps(dev: u32, ino: u64, start: u64, len: u64, dropped: u64, kept: u64, shrinker: bool);
    /// A fast fsync begins.
    fn fsync_start(dev: u32, ino: u64);
    /// A fast fsync waits for the ordered extents before `limit`.
    fn fsync_wait(dev: u32, ino: u64, limit: u64, flying: u64);
    /// A fast fsync has collected.
    fn fsync_collect(dev: u32, ino: u64, maps: u64, extents: u64);
    /// A batch of the log was written and flushed.
    fn log_batch(dev: u32, seq: u64, pos: u64, blocks: u64, bytes: u64, error: i32);
    /// A commit begins to write a frozen transaction.
    fn commit_start(dev: u32, generation: u64, inodes: u64);
    /// A generation is durable.
    fn commit_durable(dev: u32, generation: u64, blocks: u64);
    /// A node came from the device.
    fn node_read(dev: u32, addr: u64, level: u32, owner: u64, error: i32);
    /// R6: reclaim went through cached nodes.
    fn node_shrink(dev: u32, dropped: u64, held: u64, reading: u64);
    /// R3: a store is about to make a page writable.
    fn fault(dev: u32, ino: u64, start: u64, len: u64);
    /// R3: the page is dirty, the layout lock is still held.
    fn fault_done(dev: u32, ino: u64, start: u64, len: u64);
    /// R3: the pages of a range are gone, its blocks are about to be.
    fn drop_pages(dev: u32, ino: u64, start: u64, len: u64);
    /// R3: a layout change is complete.
    fn layout_done(dev: u32, ino: u64);
}

#[cfg(ordofs_debug)]
tracepoints! {
    in ordofs;

    /// A task is held in a window, or goes on.
    fn window(dev: u32, window: u32, enter: bool, error: i32);
}
