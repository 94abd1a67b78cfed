// SPDX-License-Identifier: GPL-2.0

//! Extended attributes and access control lists.
//!
//! # Locking
//!
//! The VFS holds `i_rwsem` exclusively for changes; the engine's lock orders them with readers.
//!
//! Tests: tests/vm/t/022-xattr.sh, 062-full-disk.sh.

use kernel::prelude::*;

use super::{with_space, InodeData, OrdoFs};
use crate::{
    engine::{self, ops::xattr, NewXattr},
    fs::os::NoFs,
    vfs::{
        traits::directory::NewNode,
        traits::xattr::{Namespace, XattrOperations, XattrSet},
        Inode, Locked,
    },
};

/// The byte of a namespace on disk.
fn index(ns: Namespace) -> u8 {
    match ns {
        Namespace::User => xattr::USER,
        Namespace::Trusted => xattr::TRUSTED,
        Namespace::Security => xattr::SECURITY,
        Namespace::AclAccess => xattr::ACL_ACCESS,
        Namespace::AclDefault => xattr::ACL_DEFAULT,
    }
}

/// The attributes that a new inode is made with: access control lists and labels.
pub(super) fn new_xattrs<'a>(node: &NewNode<'a>) -> Result<KVec<NewXattr<'a>>> {
    let acls = [
        (xattr::ACL_ACCESS, node.access_acl),
        (xattr::ACL_DEFAULT, node.default_acl),
    ];
    let mut all = KVec::with_capacity(acls.len() + node.labels.len(), GFP_KERNEL)?;
    for (index, value) in acls {
        if let Some(value) = value {
            let acl = NewXattr {
                index,
                name: &[],
                value,
            };
            all.push(acl, GFP_KERNEL)?;
        }
    }
    for label in node.labels {
        let label = NewXattr {
            index: xattr::SECURITY,
            name: &label.name,
            value: &label.value,
        };
        all.push(label, GFP_KERNEL)?;
    }
    Ok(all)
}

#[vtable]
impl XattrOperations for OrdoFs {
    fn get_xattr(
        inode: &Inode<Self>,
        ns: Namespace,
        name: &[u8],
        out: &mut [u8],
    ) -> Result<Option<usize>> {
        inode.fs().get_attribute(inode.data(), ns, name, out)
    }

    fn list_xattr(inode: &Inode<Self>, emit: &mut dyn FnMut(Namespace, &[u8]) -> Result) -> Result {
        inode.fs().list_attributes(inode.data(), emit)
    }

    fn set_xattr(
        inode: &Inode<Self>,
        ns: Namespace,
        name: &[u8],
        value: Option<&[u8]>,
        how: XattrSet,
    ) -> Result {
        with_space(inode.sb(), || {
            inode.fs().set_attribute(inode.data(), ns, name, value, how)
        })
    }

    fn set_acl(
        inode: &Locked<'_, Self>,
        ns: Namespace,
        value: Option<&[u8]>,
        mode: Option<u32>,
    ) -> Result {
        with_space(inode.sb(), || {
            inode.fs().set_list(inode.data(), ns, value, mode)
        })
    }
}

impl OrdoFs {
    pub(super) fn get_attribute(
        &self,
        data: &InodeData,
        ns: Namespace,
        name: &[u8],
        out: &mut [u8],
    ) -> Result<Option<usize>> {
        self.engine.readable()?;
        self.engine.get_xattr(&data.engine, index(ns), name, out)
    }

    pub(super) fn set_attribute(
        &self,
        data: &InodeData,
        ns: Namespace,
        name: &[u8],
        value: Option<&[u8]>,
        how: XattrSet,
    ) -> Result {
        let how = match how {
            XattrSet::Any => engine::XattrSet::Any,
            XattrSet::Create => engine::XattrSet::Create,
            XattrSet::Replace => engine::XattrSet::Replace,
        };
        let _nofs = NoFs::enter();
        self.engine
            .set_xattr(&data.engine, index(ns), name, value, how)
    }

    pub(super) fn list_attributes(
        &self,
        data: &InodeData,
        emit: &mut dyn FnMut(Namespace, &[u8]) -> Result,
    ) -> Result {
        self.engine.readable()?;
        self.engine.list_xattr(&data.engine, &mut |index, name, _| {
            let ns = match index {
                xattr::USER => Namespace::User,
                xattr::TRUSTED => Namespace::Trusted,
                xattr::SECURITY => Namespace::Security,
                xattr::ACL_ACCESS => Namespace::AclAccess,
                _ => Namespace::AclDefault,
            };
            emit(ns, name)
        })
    }

    pub(super) fn set_list(
        &self,
        data: &InodeData,
        ns: Namespace,
        value: Option<&[u8]>,
        mode: Option<u32>,
    ) -> Result {
        let _nofs = NoFs::enter();
        self.engine.set_acl(&data.engine, index(ns), value, mode)
    }
}
