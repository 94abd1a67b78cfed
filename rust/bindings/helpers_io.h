/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Data path: what rust/vfs binds for page cache, iomap and block I/O.
 *
 * Prototypes of rust/helpers_io.c, and constants that bindgen cannot see because
 * their macros contain casts.
 */
#ifndef ORDOFS_HELPERS_IO_H
#define ORDOFS_HELPERS_IO_H

#include <linux/backing-dev.h>
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/filelock.h>
#include <linux/fs.h>
#include <linux/huge_mm.h>
#include <linux/iomap.h>
#include <linux/ioprio.h>
#include <linux/jump_label.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/splice.h>
#include <linux/swap.h>
#include <linux/uio.h>
#include <linux/workqueue.h>
#include <linux/writeback.h>

#ifdef __BINDGEN__
static const blk_opf_t RUST_CONST_HELPER_ORDOFS_OP_READ = REQ_OP_READ;
static const blk_opf_t RUST_CONST_HELPER_ORDOFS_OP_WRITE = REQ_OP_WRITE;
static const blk_opf_t RUST_CONST_HELPER_ORDOFS_REQ_META = REQ_META;
static const blk_opf_t RUST_CONST_HELPER_ORDOFS_REQ_SYNC = REQ_SYNC;
static const blk_opf_t RUST_CONST_HELPER_ORDOFS_REQ_FUA = REQ_FUA;
static const blk_opf_t RUST_CONST_HELPER_ORDOFS_REQ_PREFLUSH = REQ_PREFLUSH;
static const u16 RUST_CONST_HELPER_ORDOFS_IOPRIO_IDLE =
	IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT;
static const gfp_t RUST_CONST_HELPER_ORDOFS_GFP_NOFS = GFP_NOFS;
static const gfp_t RUST_CONST_HELPER_ORDOFS_GFP_FS = __GFP_FS;
static const fmode_t RUST_CONST_HELPER_ORDOFS_FMODE_CAN_ODIRECT = FMODE_CAN_ODIRECT;
static const fop_flags_t RUST_CONST_HELPER_ORDOFS_FOP_DIO_PARALLEL_WRITE =
	FOP_DIO_PARALLEL_WRITE;
static const vm_fault_t RUST_CONST_HELPER_ORDOFS_VM_FAULT_LOCKED = VM_FAULT_LOCKED;
#endif

typedef void (*ordofs_work_fn)(struct work_struct *work);

int ordofs_helper_iomap_iter_next(const struct iomap_iter *iter,
		struct iomap *iomap, struct iomap *srcmap,
		iomap_iter_begin_fn begin, iomap_iter_end_fn end);
loff_t ordofs_helper_last_written_block(struct inode *inode, loff_t pos,
		ssize_t written);
void ordofs_helper_mapping_init(struct address_space *mapping);
void ordofs_helper_wait_stable(struct page *page);
void ordofs_helper_lost(struct inode *inode, int error);
vm_fault_t ordofs_helper_fault_error(int err);
void ordofs_helper_start_pagefault(struct super_block *sb);
void ordofs_helper_end_pagefault(struct super_block *sb);
void ordofs_helper_file_accessed(struct file *file);
ssize_t ordofs_helper_write_sync(struct kiocb *iocb, ssize_t count);
bool ordofs_helper_iocb_is_dsync(const struct kiocb *iocb);
bool ordofs_helper_iocb_is_direct(const struct kiocb *iocb);
bool ordofs_helper_iocb_is_append(const struct kiocb *iocb);
bool ordofs_helper_iocb_is_nowait(const struct kiocb *iocb);
bool ordofs_helper_file_is_sync(struct file *file);
bool ordofs_helper_is_nosec(struct inode *inode);
bool ordofs_helper_inode_is_dirty(struct inode *inode, bool datasync);
size_t ordofs_helper_iov_count(const struct iov_iter *iter);
void ordofs_helper_bio_first_folio(struct folio_iter *fi, struct bio *bio);
void ordofs_helper_bio_next_folio(struct folio_iter *fi, struct bio *bio);
void *ordofs_helper_folio_address(struct folio *folio, size_t offset);
loff_t ordofs_helper_folio_pos(const struct folio *folio);
size_t ordofs_helper_folio_size(const struct folio *folio);
void *ordofs_helper_bvec_virt(struct bio_vec *bvec);
bool ordofs_helper_folio_is_shared(struct folio *folio);
void ordofs_helper_copy(void *to, const void *from, size_t len);
void ordofs_helper_bio_like(struct bio *bio, struct bio *of);
void ordofs_helper_wait_for_memory(void);
void ordofs_helper_bio_init_write(struct bio *bio, bio_end_io_t end_io);
void ordofs_helper_init_work(struct work_struct *work, ordofs_work_fn fn);
bool ordofs_helper_queue_work(struct workqueue_struct *wq,
		struct work_struct *work);
struct workqueue_struct *ordofs_helper_alloc_workqueue(const char *name,
						       bool freezable);
void ordofs_helper_flush_workqueue(struct workqueue_struct *wq);
bool ordofs_helper_message_allowed(void);
bool ordofs_helper_write_dirty_data(struct super_block *sb);
bool ordofs_helper_key_enabled(struct static_key *key);
u64 ordofs_helper_bdev_bytes(struct block_device *bdev);
bool ordofs_helper_bdev_readonly(struct block_device *bdev);
bool ordofs_helper_bdev_fua_flushes(struct block_device *bdev);
bool ordofs_helper_bdev_can_discard(struct block_device *bdev);
u64 ordofs_helper_bdev_discard_unit(struct block_device *bdev);

#endif /* ORDOFS_HELPERS_IO_H */
