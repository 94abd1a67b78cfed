// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of the kernel that the data path needs, made
 * callable from Rust. Nothing here decides anything: the rules are in
 * rust/vfs and rust/fs.
 */
#include "bindings/helpers_io.h"

#include <linux/ratelimit.h>
#include <linux/sched/mm.h>

int ordofs_helper_iomap_iter_next(const struct iomap_iter *iter,
		struct iomap *iomap, struct iomap *srcmap,
		iomap_iter_begin_fn begin, iomap_iter_end_fn end)
{
	return iomap_iter_next(iter, iomap, srcmap, begin, end);
}

loff_t ordofs_helper_last_written_block(struct inode *inode, loff_t pos,
		ssize_t written)
{
	return iomap_last_written_block(inode, pos, written);
}

/*
 * Checksums are computed when a folio is submitted, and the device reads it
 * later: the two must see the same bytes, hence stable writes.
 */
void ordofs_helper_mapping_init(struct address_space *mapping)
{
	mapping_set_large_folios(mapping);
	mapping_set_stable_writes(mapping);
}

void ordofs_helper_wait_stable(struct page *page)
{
	folio_wait_stable(page_folio(page));
}

void ordofs_helper_lost(struct inode *inode, int error)
{
	mapping_set_error(inode->i_mapping, error);
}

/*
 * Callers hold locks that come after s_umount, so it is only tried. False:
 * the filesystem is being mounted, unmounted or frozen.
 */
bool ordofs_helper_write_dirty_data(struct super_block *sb)
{
	if (!down_read_trylock(&sb->s_umount))
		return false;
	sync_inodes_sb(sb);
	up_read(&sb->s_umount);
	return true;
}

vm_fault_t ordofs_helper_fault_error(int err)
{
	return vmf_fs_error(err);
}

void ordofs_helper_start_pagefault(struct super_block *sb)
{
	sb_start_pagefault(sb);
}

void ordofs_helper_end_pagefault(struct super_block *sb)
{
	sb_end_pagefault(sb);
}

void ordofs_helper_file_accessed(struct file *file)
{
	file_accessed(file);
}

ssize_t ordofs_helper_write_sync(struct kiocb *iocb, ssize_t count)
{
	return generic_write_sync(iocb, count);
}

bool ordofs_helper_iocb_is_dsync(const struct kiocb *iocb)
{
	return iocb_is_dsync(iocb);
}

bool ordofs_helper_iocb_is_direct(const struct kiocb *iocb)
{
	return iocb->ki_flags & IOCB_DIRECT;
}

bool ordofs_helper_iocb_is_append(const struct kiocb *iocb)
{
	return iocb->ki_flags & IOCB_APPEND;
}

bool ordofs_helper_iocb_is_nowait(const struct kiocb *iocb)
{
	return iocb->ki_flags & IOCB_NOWAIT;
}

bool ordofs_helper_file_is_sync(struct file *file)
{
	return (file->f_flags & (__O_SYNC | O_DSYNC)) ||
		IS_SYNC(file_inode(file));
}

bool ordofs_helper_is_nosec(struct inode *inode)
{
	return IS_NOSEC(inode);
}

size_t ordofs_helper_iov_count(const struct iov_iter *iter)
{
	return iov_iter_count(iter);
}

bool ordofs_helper_inode_is_dirty(struct inode *inode, bool datasync)
{
	unsigned int state = inode_state_read_once(inode);

	/*
	 * An inode that is being written is not dirty any more, and the
	 * filesystem may not have got it yet: to be waited for. If none is
	 * under way, what the last one has stored is seen from here on.
	 */
	smp_rmb();
	if (state & (I_SYNC | I_METADATA_WRITEBACK))
		return true;
	return state & (datasync ? I_DIRTY_DATASYNC : I_DIRTY_ALL);
}

void ordofs_helper_bio_first_folio(struct folio_iter *fi, struct bio *bio)
{
	bio_first_folio(fi, bio, 0);
}

void ordofs_helper_bio_next_folio(struct folio_iter *fi, struct bio *bio)
{
	bio_next_folio(fi, bio);
}

/* Only 64-bit kernels: the whole folio is in the direct map. */
void *ordofs_helper_folio_address(struct folio *folio, size_t offset)
{
	BUILD_BUG_ON(IS_ENABLED(CONFIG_HIGHMEM));
	return folio_address(folio) + offset;
}

loff_t ordofs_helper_folio_pos(const struct folio *folio)
{
	return folio_pos(folio);
}

size_t ordofs_helper_folio_size(const struct folio *folio)
{
	return folio_size(folio);
}

void *ordofs_helper_bvec_virt(struct bio_vec *bvec)
{
	return bvec_virt(bvec);
}

/*
 * Whether others may have references for writing to the pages of a folio that
 * is locked, write-protected and under writeback: any reference that is neither
 * the page cache's, nor a page table's, nor the writeback batch's. References
 * of readers count as well: better one copy too many.
 *
 * The mapcount changes meanwhile, although faults map locked folios only: page
 * tables are torn down, and fork copies those of a private mapping that has
 * pages of its own. A task that changes it has a reference at that moment, so a
 * reference can be missed only where the mapcount is too high: the smaller of
 * those before and after the reference count is taken.
 */
bool ordofs_helper_folio_is_shared(struct folio *folio)
{
	int before, refs, after;

	/* Pairs with gup_fast: see rust/vfs/ioend/mod.rs, "Stable data". */
	smp_mb();
	before = folio_expected_ref_count(folio);
	/* Pairs with fork: reference count, then mapcount. */
	smp_rmb();
	refs = folio_ref_count(folio);
	/* Pairs with the unmapping side: mapcount, then reference count. */
	smp_rmb();
	after = folio_expected_ref_count(folio);
	return folio_maybe_dma_pinned(folio) || refs > min(before, after) + 1;
}

/* Others may be writing to @from. */
void ordofs_helper_copy(void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
}

/* Flags, priority, hint and cgroup of @bio become those of @of. */
void ordofs_helper_bio_like(struct bio *bio, struct bio *of)
{
	bio->bi_opf = of->bi_opf;
	bio->bi_ioprio = of->bi_ioprio;
	bio->bi_write_hint = of->bi_write_hint;
	bio_clone_blkg_association(bio, of);
}

/* An allocation in writeback failed that must not. */
void ordofs_helper_wait_for_memory(void)
{
	memalloc_retry_wait(GFP_NOFS);
}

/*
 * The completion always goes to a workqueue of the filesystem, so the block
 * layer need not bring it into task context as well.
 */
void ordofs_helper_bio_init_write(struct bio *bio, bio_end_io_t end_io)
{
	bio->bi_end_io = end_io;
	bio_clear_flag(bio, BIO_COMPLETE_IN_TASK);
}

void ordofs_helper_init_work(struct work_struct *work, ordofs_work_fn fn)
{
	INIT_WORK(work, fn);
}

bool ordofs_helper_queue_work(struct workqueue_struct *wq,
		struct work_struct *work)
{
	return queue_work(wq, work);
}

/*
 * Unbound, so that checksumming spreads over the CPUs; with a rescuer, because
 * writeback under memory pressure waits for these works.
 */
struct workqueue_struct *ordofs_helper_alloc_workqueue(const char *name,
						       bool freezable)
{
	return alloc_workqueue("%s", WQ_UNBOUND | WQ_MEM_RECLAIM | WQ_HIGHPRI |
			       (freezable ? WQ_FREEZABLE : 0), 0, name);
}

void ordofs_helper_flush_workqueue(struct workqueue_struct *wq)
{
	flush_workqueue(wq);
}

bool ordofs_helper_message_allowed(void)
{
	static DEFINE_RATELIMIT_STATE(state, DEFAULT_RATELIMIT_INTERVAL,
				      DEFAULT_RATELIMIT_BURST);

	return __ratelimit(&state);
}

u64 ordofs_helper_bdev_bytes(struct block_device *bdev)
{
	return bdev_nr_bytes(bdev);
}

bool ordofs_helper_bdev_readonly(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

/*
 * Whether the block layer makes FUA of a write and a flush of the whole cache
 * after it. Drivers that get bios, not requests, see to FUA themselves.
 */
bool ordofs_helper_bdev_fua_flushes(struct block_device *bdev)
{
	return bdev_write_cache(bdev) && !bdev_fua(bdev) &&
	       queue_is_mq(bdev_get_queue(bdev));
}

bool ordofs_helper_bdev_can_discard(struct block_device *bdev)
{
	return bdev_max_discard_sectors(bdev) > 0;
}

u64 ordofs_helper_bdev_discard_unit(struct block_device *bdev)
{
	if (!bdev_max_discard_sectors(bdev))
		return 0;
	return max_t(u64, bdev_discard_granularity(bdev), SECTOR_SIZE);
}

/* For kernels without jump labels: elsewhere Rust looks at the key in place. */
bool ordofs_helper_key_enabled(struct static_key *key)
{
	return static_key_count(key) > 0;
}
