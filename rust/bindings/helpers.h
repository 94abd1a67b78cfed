/* SPDX-License-Identifier: GPL-2.0 */
/*
 * rust/helpers.c: inline functions and macros, callable from Rust.
 */
#ifndef ORDOFS_HELPERS_H
#define ORDOFS_HELPERS_H

#include <linux/fs.h>
#include <linux/fileattr.h>
#include <linux/fs_context.h>
#include <linux/lockdep.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/seq_file.h>
#include <linux/shrinker.h>
#include <linux/wait.h>

#ifdef __BINDGEN__
static const unsigned int RUST_CONST_HELPER_ORDOFS_SB_RDONLY = SB_RDONLY;
static const unsigned int RUST_CONST_HELPER_ORDOFS_SB_I_VERSION = SB_I_VERSION;
static const unsigned long RUST_CONST_HELPER_ORDOFS_SB_I_CGROUPWB = SB_I_CGROUPWB;
static const unsigned int RUST_CONST_HELPER_ORDOFS_S_SYNC = S_SYNC;
static const unsigned int RUST_CONST_HELPER_ORDOFS_S_NOATIME = S_NOATIME;
static const unsigned int RUST_CONST_HELPER_ORDOFS_S_APPEND = S_APPEND;
static const unsigned int RUST_CONST_HELPER_ORDOFS_S_IMMUTABLE = S_IMMUTABLE;
static const unsigned int RUST_CONST_HELPER_ORDOFS_S_DIRSYNC = S_DIRSYNC;
#endif

void ordofs_mutex_init(struct mutex *lock, const char *name, void *key);
void ordofs_mutex_lock(struct mutex *lock);
bool ordofs_mutex_trylock(struct mutex *lock);
void ordofs_rwsem_init(struct rw_semaphore *sem, const char *name, void *key);
void ordofs_lockmap_init(struct lockdep_map *map, const char *name, void *key);
void ordofs_lockmap_acquire(struct lockdep_map *map, bool exclusive, bool try);
void ordofs_lockmap_release(struct lockdep_map *map);
void ordofs_inode_assert_locked(struct inode *inode);
void ordofs_inode_assert_shared(struct inode *inode);
void ordofs_layout_assert_locked(struct inode *inode);
void ordofs_sb_assert_locked(struct super_block *sb, bool exclusive);
void ordofs_waitqueue_init(struct wait_queue_head *wq);
void ordofs_wake_all(struct wait_queue_head *wq);
void ordofs_wait_begin(struct wait_queue_head *wq,
		       struct wait_queue_entry *entry);
long ordofs_wait_once(struct wait_queue_entry *entry, long timeout, bool idle,
		      bool freezable);
long ordofs_ms_to_jiffies(u64 ms);
unsigned int ordofs_nofs_save(void);
void ordofs_nofs_restore(unsigned int flags);
u64 ordofs_siphash(u64 k0, u64 k1, const void *data, size_t len);
u64 ordofs_random_u64(void);
void ordofs_cond_resched(void);
bool ordofs_shrink_is_global(struct shrink_control *sc);
void *ordofs_page_alloc(void);
void ordofs_page_free(void *page);
struct task_struct *ordofs_kthread_create(int (*fn)(void *), void *data,
					  const char *name, const char *id);
bool ordofs_kthread_should_stop(void);
void ordofs_kthread_set_freezable(void);
void ordofs_kthread_try_to_freeze(void);
bool ordofs_freezing(void);
bool ordofs_fatal_signal_pending(void);
void ordofs_fc_error(struct fs_context *fc, const char *msg, int len);
void ordofs_fc_error_param(struct fs_context *fc, const char *key,
			   const char *msg, int len);
bool ordofs_sb_rdonly(struct super_block *sb);
void ordofs_sb_set_uuid(struct super_block *sb, const u8 *uuid);
void ordofs_sb_start_intwrite(struct super_block *sb);
void ordofs_sb_end_intwrite(struct super_block *sb);
int ordofs_register_filesystem(struct file_system_type *type);
void ordofs_unregister_filesystem(struct file_system_type *type);
struct kmem_cache *ordofs_inode_cache_create(const char *name, unsigned int size,
					     unsigned int align,
					     void (*ctor)(void *));
void *ordofs_inode_alloc(struct super_block *sb, struct kmem_cache *cache);
void ordofs_inode_set_owner(struct inode *inode, u32 uid, u32 gid);
u32 ordofs_inode_uid(struct inode *inode);
u32 ordofs_inode_gid(struct inode *inode);
loff_t ordofs_i_size_read(struct inode *inode);
void ordofs_i_size_write(struct inode *inode, loff_t size);
void ordofs_inode_set_atime(struct inode *inode, s64 sec, u32 nsec);
void ordofs_inode_set_mtime(struct inode *inode, s64 sec, u32 nsec);
void ordofs_inode_set_ctime(struct inode *inode, s64 sec, u32 nsec);
void ordofs_inode_times(struct inode *inode, struct timespec64 *a,
			struct timespec64 *m, struct timespec64 *c);
u64 ordofs_inode_change(struct inode *inode);
void ordofs_inode_set_change(struct inode *inode, u64 change);
void ordofs_inode_add_change(struct inode *inode, u64 by);
void ordofs_mark_inode_dirty(struct inode *inode);
bool ordofs_inode_is_new(struct inode *inode);
void ordofs_init_special_inode(struct inode *inode, umode_t mode, u64 rdev);
void ordofs_new_owner(struct mnt_idmap *idmap, struct inode *dir, umode_t *mode,
		      u32 *uid, u32 *gid);
u64 ordofs_encode_dev(dev_t dev);
int ordofs_write_and_wait(struct inode *inode);
bool ordofs_fileattr_has_fsx(const struct file_kattr *fa);
bool ordofs_is_dirsync(struct inode *inode);
bool ordofs_capable_sys_admin(void);
int ordofs_get_user_u32(unsigned long from, u32 *to);
int ordofs_put_user_u32(u32 value, unsigned long to);
struct inode *ordofs_d_inode(struct dentry *dentry);
const char *ordofs_d_name(struct dentry *dentry, u32 *len);
bool ordofs_dir_emit(struct dir_context *ctx, const char *name, int len,
		     u64 ino, unsigned int type);
bool ordofs_dir_emit_dots(struct file *file, struct dir_context *ctx);
bool ordofs_dir_shows_upper_bits(struct file *file);
int ordofs_finish_open_simple(struct file *file, int error);

#endif /* ORDOFS_HELPERS_H */
