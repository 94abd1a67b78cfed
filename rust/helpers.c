// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of the kernel, made callable from Rust. Nothing
 * here decides anything.
 */
#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/cred.h>
#include <linux/exportfs.h>
#include <linux/fs.h>
#include <linux/fileattr.h>
#include <linux/freezer.h>
#include <linux/fs_context.h>
#include <linux/iversion.h>
#include <linux/kthread.h>
#include <linux/lockdep.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mnt_idmapping.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/random.h>
#include <linux/rwsem.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/shrinker.h>
#include <linux/siphash.h>
#include <linux/slab.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "bindings/helpers.h"

/* ---- Locks, waiting, memory, clocks (rust/vfs/os) ---------------------- */

void ordofs_mutex_init(struct mutex *lock, const char *name, void *key)
{
	__mutex_init(lock, name, key);
}

void ordofs_mutex_lock(struct mutex *lock)
{
	mutex_lock(lock);
}

bool ordofs_mutex_trylock(struct mutex *lock)
{
	return mutex_trylock(lock);
}

void ordofs_rwsem_init(struct rw_semaphore *sem, const char *name, void *key)
{
	__init_rwsem(sem, name, key);
}

void ordofs_lockmap_init(struct lockdep_map *map, const char *name, void *key)
{
	lockdep_init_map(map, name, key, 0);
}

/* As a rwsem: a task that holds the shared side must not ask for it again. */
void ordofs_lockmap_acquire(struct lockdep_map *map, bool exclusive, bool try)
{
	if (exclusive)
		rwsem_acquire(map, 0, try, _RET_IP_);
	else
		rwsem_acquire_read(map, 0, try, _RET_IP_);
}

void ordofs_lockmap_release(struct lockdep_map *map)
{
	rwsem_release(map, _RET_IP_);
}

void ordofs_inode_assert_locked(struct inode *inode)
{
	lockdep_assert_held_write(&inode->i_rwsem);
}

void ordofs_inode_assert_shared(struct inode *inode)
{
	lockdep_assert_held(&inode->i_rwsem);
}

void ordofs_layout_assert_locked(struct inode *inode)
{
	lockdep_assert_held_write(&inode->i_mapping->invalidate_lock);
}

void ordofs_sb_assert_locked(struct super_block *sb, bool exclusive)
{
	if (exclusive)
		lockdep_assert_held_write(&sb->s_umount);
	else
		lockdep_assert_held(&sb->s_umount);
}

void ordofs_waitqueue_init(struct wait_queue_head *wq)
{
	init_waitqueue_head(wq);
}

void ordofs_wake_all(struct wait_queue_head *wq)
{
	wake_up_all(wq);
}

void ordofs_wait_begin(struct wait_queue_head *wq,
		       struct wait_queue_entry *entry)
{
	init_wait_func(entry, woken_wake_function);
	add_wait_queue(wq, entry);
}

/*
 * Sleeps until woken or until the timeout (in jiffies; what is left of it is
 * returned). wait_woken() does not sleep in a kernel thread that is to
 * stop: let time pass then, so that a waiting thread does not spin.
 */
long ordofs_wait_once(struct wait_queue_entry *entry, long timeout, bool idle,
		      bool freezable)
{
	unsigned int mode = idle ? TASK_IDLE : TASK_UNINTERRUPTIBLE;

	if (ordofs_kthread_should_stop())
		schedule_timeout_uninterruptible(1);
	return wait_woken(entry, freezable ? mode | TASK_FREEZABLE : mode,
			  timeout);
}

long ordofs_ms_to_jiffies(u64 ms)
{
	return min_t(u64, msecs_to_jiffies(min_t(u64, ms, UINT_MAX)),
		     MAX_SCHEDULE_TIMEOUT - 1);
}

unsigned int ordofs_nofs_save(void)
{
	/* Only the task itself writes its flags; the scheduler looks at other bits. */
	return data_race(memalloc_nofs_save());
}

void ordofs_nofs_restore(unsigned int flags)
{
	/* As above. */
	data_race(({ memalloc_nofs_restore(flags); 0; }));
}

u64 ordofs_siphash(u64 k0, u64 k1, const void *data, size_t len)
{
	siphash_key_t key = { .key = { k0, k1 } };

	return siphash(data, len, &key);
}

u64 ordofs_random_u64(void)
{
	return get_random_u64();
}

void ordofs_cond_resched(void)
{
	cond_resched();
}

/* ---- Kernel threads ----------------------------------------------------- */

struct task_struct *ordofs_kthread_create(int (*fn)(void *), void *data,
					  const char *name, const char *id)
{
	struct task_struct *task = kthread_create(fn, data, "%s/%s", name, id);

	if (!IS_ERR(task))
		get_task_struct(task);
	return task;
}

bool ordofs_kthread_should_stop(void)
{
	return (current->flags & PF_KTHREAD) && kthread_should_stop();
}

void ordofs_kthread_set_freezable(void)
{
	set_freezable();
}

void ordofs_kthread_try_to_freeze(void)
{
	try_to_freeze();
}

bool ordofs_freezing(void)
{
	return freezing(current);
}

bool ordofs_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

bool ordofs_shrink_is_global(struct shrink_control *sc)
{
	return mem_cgroup_shrink_is_root(sc);
}

void *ordofs_page_alloc(void)
{
	return (void *)get_zeroed_page(GFP_KERNEL);
}

/* Reclaim counts it as progress, as it does pages of the slab allocator. */
void ordofs_page_free(void *page)
{
	mm_account_reclaimed_pages(1);
	free_page((unsigned long)page);
}

/* ---- Superblocks and mounting ------------------------------------------- */

void ordofs_fc_error(struct fs_context *fc, const char *msg, int len)
{
	errorfc(fc, "%.*s", len, msg);
}

void ordofs_fc_error_param(struct fs_context *fc, const char *key,
			   const char *msg, int len)
{
	errorfc(fc, "%s: %.*s", key, len, msg);
}

bool ordofs_sb_rdonly(struct super_block *sb)
{
	return sb_rdonly(sb);
}

void ordofs_sb_set_uuid(struct super_block *sb, const u8 *uuid)
{
	super_set_uuid(sb, uuid, 16);
	super_set_sysfs_name_bdev(sb);
}

void ordofs_sb_start_intwrite(struct super_block *sb)
{
	sb_start_intwrite(sb);
}

void ordofs_sb_end_intwrite(struct super_block *sb)
{
	sb_end_intwrite(sb);
}

/* ---- Inodes ------------------------------------------------------------- */

struct kmem_cache *ordofs_inode_cache_create(const char *name, unsigned int size,
					     unsigned int align,
					     void (*ctor)(void *))
{
	return kmem_cache_create(name, size, align,
				 SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT, ctor);
}

void *ordofs_inode_alloc(struct super_block *sb, struct kmem_cache *cache)
{
	return alloc_inode_sb(sb, cache, GFP_KERNEL);
}

void ordofs_inode_set_owner(struct inode *inode, u32 uid, u32 gid)
{
	i_uid_write(inode, uid);
	i_gid_write(inode, gid);
}

u32 ordofs_inode_uid(struct inode *inode)
{
	return i_uid_read(inode);
}

u32 ordofs_inode_gid(struct inode *inode)
{
	return i_gid_read(inode);
}

loff_t ordofs_i_size_read(struct inode *inode)
{
	return i_size_read(inode);
}

void ordofs_i_size_write(struct inode *inode, loff_t size)
{
	i_size_write(inode, size);
}

void ordofs_inode_set_atime(struct inode *inode, s64 sec, u32 nsec)
{
	inode_set_atime(inode, sec, nsec);
}

void ordofs_inode_set_mtime(struct inode *inode, s64 sec, u32 nsec)
{
	inode_set_mtime(inode, sec, nsec);
}

void ordofs_inode_set_ctime(struct inode *inode, s64 sec, u32 nsec)
{
	inode_set_ctime(inode, sec, nsec);
}

void ordofs_inode_times(struct inode *inode, struct timespec64 *a,
			struct timespec64 *m, struct timespec64 *c)
{
	*a = inode_get_atime(inode);
	*m = inode_get_mtime(inode);
	*c = inode_get_ctime(inode);
}

u64 ordofs_inode_change(struct inode *inode)
{
	return inode_peek_iversion(inode);
}

/* For a new inode. A process may have seen the value: the next change raises it. */
void ordofs_inode_set_change(struct inode *inode, u64 change)
{
	inode_set_iversion_queried(inode, change);
}

void ordofs_inode_add_change(struct inode *inode, u64 by)
{
	atomic64_add(by << I_VERSION_QUERIED_SHIFT, &inode->i_version);
}

void ordofs_mark_inode_dirty(struct inode *inode)
{
	mark_inode_dirty_sync(inode);
}

bool ordofs_inode_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

void ordofs_init_special_inode(struct inode *inode, umode_t mode, u64 rdev)
{
	init_special_inode(inode, mode, new_decode_dev((u32)rdev));
}

/*
 * Owner and mode that a new node in @dir gets, by the rules of
 * inode_init_owner().
 */
void ordofs_new_owner(struct mnt_idmap *idmap, struct inode *dir, umode_t *mode,
		      u32 *uid, u32 *gid)
{
	struct user_namespace *ns = dir->i_sb->s_user_ns;

	*uid = from_kuid(ns, mapped_fsuid(idmap, ns));
	if (dir->i_mode & S_ISGID) {
		*gid = from_kgid(ns, dir->i_gid);
		if (S_ISDIR(*mode))
			*mode |= S_ISGID;
	} else {
		*gid = from_kgid(ns, mapped_fsgid(idmap, ns));
	}
}

u64 ordofs_encode_dev(dev_t dev)
{
	return new_encode_dev(dev);
}

int ordofs_write_and_wait(struct inode *inode)
{
	inode_dio_wait(inode);
	return filemap_write_and_wait(inode->i_mapping);
}

bool ordofs_fileattr_has_fsx(const struct file_kattr *fa)
{
	return fileattr_has_fsx(fa);
}

bool ordofs_is_dirsync(struct inode *inode)
{
	return IS_DIRSYNC(inode);
}

bool ordofs_capable_sys_admin(void)
{
	return capable(CAP_SYS_ADMIN);
}

int ordofs_get_user_u32(unsigned long from, u32 *to)
{
	return get_user(*to, (u32 __user *)from);
}

int ordofs_put_user_u32(u32 value, unsigned long to)
{
	return put_user(value, (u32 __user *)to);
}

/* ---- Filesystem types --------------------------------------------------- */

/*
 * Lockdep knows the keys of static types by their address; a type that lies in
 * allocated memory has to announce its keys.
 */
static void with_each_key(struct file_system_type *type,
			 void (*f)(struct lock_class_key *))
{
	int i;

	f(&type->s_lock_key);
	f(&type->s_umount_key);
	f(&type->s_vfs_rename_key);
	for (i = 0; i < SB_FREEZE_LEVELS; i++)
		f(&type->s_writers_key[i]);
	f(&type->i_lock_key);
	f(&type->i_mutex_key);
	f(&type->invalidate_lock_key);
	f(&type->i_mutex_dir_key);
}

static void register_key(struct lock_class_key *key)
{
	lockdep_register_key(key);
}

static void unregister_key(struct lock_class_key *key)
{
	lockdep_unregister_key(key);
}

int ordofs_register_filesystem(struct file_system_type *type)
{
	int error;

	with_each_key(type, register_key);
	error = register_filesystem(type);
	if (error)
		with_each_key(type, unregister_key);
	return error;
}

void ordofs_unregister_filesystem(struct file_system_type *type)
{
	unregister_filesystem(type);
	with_each_key(type, unregister_key);
}

/* ---- Names -------------------------------------------------------------- */

struct inode *ordofs_d_inode(struct dentry *dentry)
{
	return d_inode(dentry);
}

const char *ordofs_d_name(struct dentry *dentry, u32 *len)
{
	*len = dentry->d_name.len;
	return dentry->d_name.name;
}

bool ordofs_dir_emit(struct dir_context *ctx, const char *name, int len,
		     u64 ino, unsigned int type)
{
	return dir_emit(ctx, name, len, ino, type);
}

bool ordofs_dir_emit_dots(struct file *file, struct dir_context *ctx)
{
	return dir_emit_dots(file, ctx);
}

/* The reader of the directory keeps positions in 32 bits. */
bool ordofs_dir_shows_upper_bits(struct file *file)
{
	if (file->f_mode & (FMODE_32BITHASH | FMODE_64BITHASH))
		return file->f_mode & FMODE_32BITHASH;
#ifdef CONFIG_COMPAT
	return in_compat_syscall();
#else
	return BITS_PER_LONG == 32;
#endif
}

int ordofs_finish_open_simple(struct file *file, int error)
{
	return finish_open_simple(file, error);
}
