// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros for extended attributes, access control lists
 * and labels, made callable from Rust. A kernel without POSIX ACLs has only
 * inline stand-ins for some of them, and none for others.
 */
#include "bindings/helpers_xattr.h"

#include <linux/posix_acl_xattr.h>

bool ordofs_is_posixacl(struct inode *inode)
{
	return IS_POSIXACL(inode);
}

void ordofs_acl_release(struct posix_acl *acl)
{
	posix_acl_release(acl);
}

int ordofs_acl_create(struct inode *dir, umode_t *mode,
		      struct posix_acl **def, struct posix_acl **acl)
{
	return posix_acl_create(dir, mode, def, acl);
}

/*
 * The access list that goes with other permissions, or NULL if the inode has
 * none.
 */
int ordofs_acl_for_mode(struct inode *inode, umode_t mode,
			struct posix_acl **changed)
{
#ifdef CONFIG_FS_POSIX_ACL
	struct posix_acl *acl;
	int err;

	*changed = NULL;
	if (!IS_POSIXACL(inode))
		return 0;
	acl = get_inode_acl(inode, ACL_TYPE_ACCESS);
	if (IS_ERR_OR_NULL(acl))
		return acl == ERR_PTR(-EOPNOTSUPP) ? 0 : PTR_ERR_OR_ZERO(acl);
	err = __posix_acl_chmod(&acl, GFP_KERNEL, mode);
	if (!err)
		*changed = acl;
	return err;
#else
	*changed = NULL;
	return 0;
#endif
}

int ordofs_acl_update_mode(struct mnt_idmap *idmap, struct inode *inode,
			   umode_t *mode, struct posix_acl **acl)
{
#ifdef CONFIG_FS_POSIX_ACL
	return posix_acl_update_mode(idmap, inode, mode, acl);
#else
	return -EOPNOTSUPP;
#endif
}

void ordofs_acl_cache(struct inode *inode, int type, struct posix_acl *acl)
{
#ifdef CONFIG_FS_POSIX_ACL
	set_cached_acl(inode, type, acl);
#endif
}

struct posix_acl *ordofs_acl_decode(struct inode *inode, const void *value,
				    size_t size)
{
	return posix_acl_from_xattr(inode->i_sb->s_user_ns, value, size);
}

/* The caller frees it with kfree(); NULL without memory. */
void *ordofs_acl_encode(struct inode *inode, const struct posix_acl *acl,
			size_t *size)
{
#ifdef CONFIG_FS_POSIX_ACL
	return posix_acl_to_xattr(inode->i_sb->s_user_ns, acl, size, GFP_NOFS);
#else
	return NULL;
#endif
}

int ordofs_init_security(struct inode *inode, struct inode *dir,
			 struct dentry *dentry, initxattrs set, void *data)
{
	return security_inode_init_security(inode, dir, &dentry->d_name, set,
					    data);
}
