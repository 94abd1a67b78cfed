/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The C interfaces that OrdoFS binds itself, beyond what the kernel crate
 * offers. bindgen reads this with exactly the kernel build's flags.
 */
#include <linux/fs.h>
#include <linux/iomap.h>
#include <linux/blkdev.h>
#include <linux/crc32c.h>
#include <linux/exportfs.h>
#include <linux/fs_context.h>
#include <linux/kthread.h>
#include <linux/pagemap.h>
#include <linux/posix_acl.h>
#include <linux/seq_file.h>
#include <linux/shrinker.h>
#include <linux/statfs.h>
#include <linux/timekeeping.h>
#include <linux/wait.h>
#include <linux/writeback.h>
#include <linux/xattr.h>

/* rust/helpers.c */
#include "helpers.h"

/* The data path: rust/helpers_io.c */
#include "helpers_io.h"

/* The tracepoints: rust/trace/points.c */
#include "../trace/ordofs.h"

/* Extended attributes: rust/helpers_xattr.c */
#include "helpers_xattr.h"
