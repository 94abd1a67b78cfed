/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The tracepoints of OrdoFS: /sys/kernel/tracing/events/ordofs.
 *
 * One event for each decision that the rules of order (docs/DESIGN.md) speak
 * of, so that a trace shows who did what first. Offsets and lengths are in
 * blocks of 4096 bytes; ranges are half-open, printed as start+len. The Rust
 * side is rust/fs/os/trace.rs, which looks at the static key itself: a disabled
 * event costs a no-op.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM ordofs

#if !defined(_TRACE_ORDOFS_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_ORDOFS_H

#include <linux/types.h>
#include <linux/kdev_t.h>
#include <linux/tracepoint.h>

#ifndef ORDOFS_TRACE_PRINT
#define ORDOFS_TRACE_PRINT
#define ORDOFS_DEV(e) MAJOR((e)->dev), MINOR((e)->dev)
/* Literal numbers, so that user space can read the format. */
#define ordofs_show_kind(kind) __print_symbolic(kind, \
	{ 0, "hole" }, { 1, "delalloc" }, { 2, "unwritten" }, { 3, "written" })
#define ordofs_show_window(window) __print_symbolic(window, \
	{ 0, "ordered_inserted" }, { 1, "data_io" }, { 2, "fsync_collect" }, \
	{ 3, "pages_dropped" }, { 4, "map_write" }, { 5, "mapped" }, \
	{ 6, "node_read" }, { 7, "node_cached" }, { 8, "log_batch" })
#endif

/* A mapping that was asked for, and the answer. */
DECLARE_EVENT_CLASS(ordofs_map_class,
	TP_PROTO(dev_t dev, u64 ino, u64 start, u64 len, u32 kind, u64 phys,
		 u64 cookie),
	TP_ARGS(dev, ino, start, len, kind, phys, cookie),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u32, kind)
		__field(u64, ino)
		__field(u64, start)
		__field(u64, len)
		__field(u64, phys)
		__field(u64, cookie)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->kind = kind;
		__entry->ino = ino;
		__entry->start = start;
		__entry->len = len;
		__entry->phys = phys;
		__entry->cookie = cookie;
	),
	TP_printk("dev %d:%d ino %llu blocks %llu+%llu %s phys %llu cookie %llu",
		  ORDOFS_DEV(__entry), __entry->ino, __entry->start,
		  __entry->len, ordofs_show_kind(__entry->kind),
		  __entry->phys, __entry->cookie)
);

/* For a read: completed mappings only. */
DEFINE_EVENT(ordofs_map_class, ordofs_map_read,
	TP_PROTO(dev_t dev, u64 ino, u64 start, u64 len, u32 kind, u64 phys,
		 u64 cookie),
	TP_ARGS(dev, ino, start, len, kind, phys, cookie));

/* For a write through the page cache: delalloc or preallocated (R4, R5). */
DEFINE_EVENT(ordofs_map_class, ordofs_map_write,
	TP_PROTO(dev_t dev, u64 ino, u64 start, u64 len, u32 kind, u64 phys,
		 u64 cookie),
	TP_ARGS(dev, ino, start, len, kind, phys, cookie));

/* R4: after the second look; what is not used of the reservation goes back. */
TRACE_EVENT(ordofs_delalloc,
	TP_PROTO(dev_t dev, u64 ino, u64 start, u64 reserved, u64 used),
	TP_ARGS(dev, ino, start, reserved, used),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, ino)
		__field(u64, start)
		__field(u64, reserved)
		__field(u64, used)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->ino = ino;
		__entry->start = start;
		__entry->reserved = reserved;
		__entry->used = used;
	),
	TP_printk("dev %d:%d ino %llu block %llu reserved %llu used %llu",
		  ORDOFS_DEV(__entry), __entry->ino, __entry->start,
		  __entry->reserved, __entry->used)
);

/* R5: a mapping that was kept is not true any more, and is asked for again. */
TRACE_EVENT(ordofs_map_stale,
	TP_PROTO(dev_t dev, u64 ino, u64 start, u64 len, u64 cookie,
		 bool writeback),
	TP_ARGS(dev, ino, start, len, cookie, writeback),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(bool, writeback)
		__field(u64, ino)
		__field(u64, start)
		__field(u64, len)
		__field(u64, cookie)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->writeback = writeback;
		__entry->ino = ino;
		__entry->start = start;
		__entry->len = len;
		__entry->cookie = cookie;
	),
	TP_printk("dev %d:%d ino %llu blocks %llu+%llu cookie %llu for %s",
		  ORDOFS_DEV(__entry), __entry->ino, __entry->start,
		  __entry->len, __entry->cookie,
		  __entry->writeback ? "writeback" : "write")
);

/* The life of an ordered extent: the I/O of a data write in flight (R1). */
DECLARE_EVENT_CLASS(ordofs_ordered_class,
	TP_PROTO(dev_t dev, u64 ino, u64 id, u64 start, u64 len, u64 phys,
		 bool in_place, bool direct),
	TP_ARGS(dev, ino, id, start, len, phys, in_place, direct),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(bool, in_place)
		__field(bool, direct)
		__field(u64, ino)
		__field(u64, id)
		__field(u64, start)
		__field(u64, len)
		__field(u64, phys)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->in_place = in_place;
		__entry->direct = direct;
		__entry->ino = ino;
		__entry->id = id;
		__entry->start = start;
		__entry->len = len;
		__entry->phys = phys;
	),
	TP_printk("dev %d:%d ino %llu id %llu blocks %llu+%llu phys %llu%s%s",
		  ORDOFS_DEV(__entry), __entry->ino, __entry->id,
		  __entry->start, __entry->len, __entry->phys,
		  __entry->in_place ? " in-place" : "",
		  __entry->direct ? " direct" : "")
);

/* It is in the inode's set. */
DEFINE_EVENT(ordofs_ordered_class, ordofs_ordered_insert,
	TP_PROTO(dev_t dev, u64 ino, u64 id, u64 start, u64 len, u64 phys,
		 bool in_place, bool direct),
	TP_ARGS(dev, ino, id, start, len, phys, in_place, direct));

/* Its extent map can be seen. */
DEFINE_EVENT(ordofs_ordered_class, ordofs_ordered_mapped,
	TP_PROTO(dev_t dev, u64 ino, u64 id, u64 start, u64 len, u64 phys,
		 bool in_place, bool direct),
	TP_ARGS(dev, ino, id, start, len, phys, in_place, direct));

/* The I/O has ended, and the mapping is completed (or, with an error, undone). */
TRACE_EVENT(ordofs_ordered_finish,
	TP_PROTO(dev_t dev, u64 ino, u64 id, u64 start, u64 len, int error),
	TP_ARGS(dev, ino, id, start, len, error),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(int, error)
		__field(u64, ino)
		__field(u64, id)
		__field(u64, start)
		__field(u64, len)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->error = error;
		__entry->ino = ino;
		__entry->id = id;
		__entry->start = start;
		__entry->len = len;
	),
	TP_printk("dev %d:%d ino %llu id %llu blocks %llu+%llu error %d",
		  ORDOFS_DEV(__entry), __entry->ino, __entry->id,
		  __entry->start, __entry->len, __entry->error)
);

/*
 * R2: extent maps are to be forgotten: release_folio, or the shrinker (the
 * whole file). Granted for `dropped` of them, refused for `kept`.
 */
TRACE_EVENT(ordofs_release_maps,
	TP_PROTO(dev_t dev, u64 ino, u64 start, u64 len, u64 dropped, u64 kept,
		 bool shrinker),
	TP_ARGS(dev, ino, start, len, dropped, kept, shrinker),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(bool, shrinker)
		__field(u64, ino)
		__field(u64, start)
		__field(u64, len)
		__field(u64, dropped)
		__field(u64, kept)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->shrinker = shrinker;
		__entry->ino = ino;
		__entry->start = start;
		__entry->len = len;
		__entry->dropped = dropped;
		__entry->kept = kept;
	),
	TP_printk("dev %d:%d ino %llu blocks %llu+%llu granted %llu refused %llu by %s",
		  ORDOFS_DEV(__entry), __entry->ino, __entry->start,
		  __entry->len, __entry->dropped, __entry->kept,
		  __entry->shrinker ? "shrinker" : "release_folio")
);

/* A fast fsync begins: it has not yet asked for ordered_sem. */
TRACE_EVENT(ordofs_fsync_start,
	TP_PROTO(dev_t dev, u64 ino),
	TP_ARGS(dev, ino),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, ino)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->ino = ino;
	),
	TP_printk("dev %d:%d ino %llu", ORDOFS_DEV(__entry), __entry->ino)
);

/* A fast fsync waits for the ordered extents that it found: those before `limit`. */
TRACE_EVENT(ordofs_fsync_wait,
	TP_PROTO(dev_t dev, u64 ino, u64 limit, u64 flying),
	TP_ARGS(dev, ino, limit, flying),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, ino)
		__field(u64, limit)
		__field(u64, flying)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->ino = ino;
		__entry->limit = limit;
		__entry->flying = flying;
	),
	TP_printk("dev %d:%d ino %llu limit %llu in flight %llu",
		  ORDOFS_DEV(__entry), __entry->ino, __entry->limit,
		  __entry->flying)
);

/* A fast fsync has collected: extent maps looked at, extents recorded. */
TRACE_EVENT(ordofs_fsync_collect,
	TP_PROTO(dev_t dev, u64 ino, u64 maps, u64 extents),
	TP_ARGS(dev, ino, maps, extents),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, ino)
		__field(u64, maps)
		__field(u64, extents)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->ino = ino;
		__entry->maps = maps;
		__entry->extents = extents;
	),
	TP_printk("dev %d:%d ino %llu maps %llu extents %llu",
		  ORDOFS_DEV(__entry), __entry->ino, __entry->maps,
		  __entry->extents)
);

/* A batch of the log was written and flushed. */
TRACE_EVENT(ordofs_log_batch,
	TP_PROTO(dev_t dev, u64 seq, u64 pos, u64 blocks, u64 bytes, int error),
	TP_ARGS(dev, seq, pos, blocks, bytes, error),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(int, error)
		__field(u64, seq)
		__field(u64, pos)
		__field(u64, blocks)
		__field(u64, bytes)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->error = error;
		__entry->seq = seq;
		__entry->pos = pos;
		__entry->blocks = blocks;
		__entry->bytes = bytes;
	),
	TP_printk("dev %d:%d seq %llu at %llu+%llu bytes %llu error %d",
		  ORDOFS_DEV(__entry), __entry->seq, __entry->pos,
		  __entry->blocks, __entry->bytes, __entry->error)
);

/* A transaction was frozen; its commit begins. */
TRACE_EVENT(ordofs_commit_start,
	TP_PROTO(dev_t dev, u64 generation, u64 inodes),
	TP_ARGS(dev, generation, inodes),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, generation)
		__field(u64, inodes)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->generation = generation;
		__entry->inodes = inodes;
	),
	TP_printk("dev %d:%d generation %llu inodes %llu",
		  ORDOFS_DEV(__entry), __entry->generation, __entry->inodes)
);

/* The superblock of a generation is on stable storage (R8). */
TRACE_EVENT(ordofs_commit_durable,
	TP_PROTO(dev_t dev, u64 generation, u64 blocks),
	TP_ARGS(dev, generation, blocks),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, generation)
		__field(u64, blocks)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->generation = generation;
		__entry->blocks = blocks;
	),
	TP_printk("dev %d:%d generation %llu blocks written %llu",
		  ORDOFS_DEV(__entry), __entry->generation, __entry->blocks)
);

/* A metadata node came from the device and is in the cache now (R6). */
TRACE_EVENT(ordofs_node_read,
	TP_PROTO(dev_t dev, u64 addr, u32 level, u64 owner, int error),
	TP_ARGS(dev, addr, level, owner, error),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u32, level)
		__field(u64, addr)
		__field(u64, owner)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->level = level;
		__entry->addr = addr;
		__entry->owner = owner;
		__entry->error = error;
	),
	TP_printk("dev %d:%d block %llu level %u owner %llu error %d",
		  ORDOFS_DEV(__entry), __entry->addr, __entry->level,
		  __entry->owner, __entry->error)
);

/*
 * R6: reclaim went through cached nodes: dropped, left because a task holds a
 * reference, left because they are being read.
 */
TRACE_EVENT(ordofs_node_shrink,
	TP_PROTO(dev_t dev, u64 dropped, u64 held, u64 reading),
	TP_ARGS(dev, dropped, held, reading),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, dropped)
		__field(u64, held)
		__field(u64, reading)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->dropped = dropped;
		__entry->held = held;
		__entry->reading = reading;
	),
	TP_printk("dev %d:%d dropped %llu held %llu reading %llu",
		  ORDOFS_DEV(__entry), __entry->dropped, __entry->held,
		  __entry->reading)
);

/* R3: steps of a page becoming writable, and of a layout change. */
DECLARE_EVENT_CLASS(ordofs_range_class,
	TP_PROTO(dev_t dev, u64 ino, u64 start, u64 len),
	TP_ARGS(dev, ino, start, len),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, ino)
		__field(u64, start)
		__field(u64, len)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->ino = ino;
		__entry->start = start;
		__entry->len = len;
	),
	TP_printk("dev %d:%d ino %llu blocks %llu+%llu", ORDOFS_DEV(__entry),
		  __entry->ino, __entry->start, __entry->len)
);

/* A store to a page that is not writable: before the layout lock is waited for. */
DEFINE_EVENT(ordofs_range_class, ordofs_fault,
	TP_PROTO(dev_t dev, u64 ino, u64 start, u64 len),
	TP_ARGS(dev, ino, start, len));

/* The page is writable and dirty; the layout lock is still held. */
DEFINE_EVENT(ordofs_range_class, ordofs_fault_done,
	TP_PROTO(dev_t dev, u64 ino, u64 start, u64 len),
	TP_ARGS(dev, ino, start, len));

/* The pages of a range are gone, its blocks are about to be. */
DEFINE_EVENT(ordofs_range_class, ordofs_drop_pages,
	TP_PROTO(dev_t dev, u64 ino, u64 start, u64 len),
	TP_ARGS(dev, ino, start, len));

/* The layout lock is let go: the layout change is complete. */
TRACE_EVENT(ordofs_layout_done,
	TP_PROTO(dev_t dev, u64 ino),
	TP_ARGS(dev, ino),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, ino)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->ino = ino;
	),
	TP_printk("dev %d:%d ino %llu", ORDOFS_DEV(__entry), __entry->ino)
);

#ifdef ordofs_debug
/* A task is held in a window (enter), or goes on (leave). */
TRACE_EVENT(ordofs_window,
	TP_PROTO(dev_t dev, u32 window, bool enter, int error),
	TP_ARGS(dev, window, enter, error),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u32, window)
		__field(bool, enter)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->window = window;
		__entry->enter = enter;
		__entry->error = error;
	),
	TP_printk("dev %d:%d %s %s error %d", ORDOFS_DEV(__entry),
		  ordofs_show_window(__entry->window),
		  __entry->enter ? "enter" : "leave", __entry->error)
);
#endif

#endif /* _TRACE_ORDOFS_H */

/* Outside of the guard: read again for each step of making the events. */
#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE ordofs
#include <trace/define_trace.h>
