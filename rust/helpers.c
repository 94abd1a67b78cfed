// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of the kernel, made callable from Rust.
 */
#include <linux/mm.h>

unsigned long ordofs_helper_page_size(void);

unsigned long ordofs_helper_page_size(void)
{
	return PAGE_SIZE;
}
