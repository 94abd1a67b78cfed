/* SPDX-License-Identifier: GPL-2.0 */
/*
 * rust/helpers_xattr.c: extended attributes, access control lists and labels.
 */
#ifndef ORDOFS_HELPERS_XATTR_H
#define ORDOFS_HELPERS_XATTR_H

#include <linux/fs.h>
#include <linux/posix_acl.h>
#include <linux/security.h>
#include <linux/xattr.h>

#ifdef __BINDGEN__
static const unsigned long RUST_CONST_HELPER_ORDOFS_SB_POSIXACL = SB_POSIXACL;
#endif

bool ordofs_is_posixacl(struct inode *inode);
void ordofs_acl_release(struct posix_acl *acl);
int ordofs_acl_create(struct inode *dir, umode_t *mode,
		      struct posix_acl **def, struct posix_acl **acl);
int ordofs_acl_for_mode(struct inode *inode, umode_t mode,
			struct posix_acl **changed);
int ordofs_acl_update_mode(struct mnt_idmap *idmap, struct inode *inode,
			   umode_t *mode, struct posix_acl **acl);
void ordofs_acl_cache(struct inode *inode, int type, struct posix_acl *acl);
struct posix_acl *ordofs_acl_decode(struct inode *inode, const void *value,
				    size_t size);
void *ordofs_acl_encode(struct inode *inode, const struct posix_acl *acl,
			size_t *size);
int ordofs_init_security(struct inode *inode, struct inode *dir,
			 struct dentry *dentry, initxattrs set, void *data);

#endif /* ORDOFS_HELPERS_XATTR_H */
