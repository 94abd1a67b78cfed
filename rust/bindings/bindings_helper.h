/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The C interfaces that OrdoFS binds itself, beyond what the kernel crate
 * offers. bindgen reads this with exactly the kernel build's flags.
 */
#include <linux/fs.h>
#include <linux/iomap.h>
#include <linux/blkdev.h>
#include <linux/pagemap.h>

/* The data path: rust/helpers_io.c */
#include "helpers_io.h"

/* rust/helpers.c */
unsigned long ordofs_helper_page_size(void);
