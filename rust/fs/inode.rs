// SPDX-License-Identifier: GPL-2.0

//! Inodes and attributes.
//!
//! Tests: tests/vm/t/053-attrs.sh, 031-handles.sh.

use kernel::prelude::*;

use super::{InodeData, OrdoFs};
use crate::{
    engine::{self, NewId},
    fs::os::{NoFs, Time},
    vfs::{
        traits::directory::Identity,
        traits::export::ExportOperations,
        traits::inode::{AttrChange, Attrs, Evict, InodeOperations, Shown},
        Inode, Locked, SuperBlock, Times,
    },
};

/// Sectors of 512 bytes in a block.
const SECTORS: u64 = super::BLOCK / 512;

impl InodeData {
    /// The attributes now. Space that is reserved for dirty pages counts.
    pub(super) fn attrs(&self) -> Attrs {
        let _nofs = NoFs::enter();
        let a = self.engine.attrs();
        Attrs {
            mode: a.mode,
            nlink: a.nlink,
            uid: a.uid,
            gid: a.gid,
            rdev: a.rdev,
            size: a.size,
            sectors: self.engine.blocks().saturating_mul(SECTORS),
            generation: a.handle_generation,
            flags: a.flags,
            atime: a.atime,
            mtime: a.mtime,
            btime: a.btime,
        }
    }

    pub(super) fn show(&self, ctime: &dyn Fn() -> Option<Time>, show: &mut dyn FnMut(&Shown)) {
        self.engine.show(ctime, |a, raised| {
            show(&Shown {
                nlink: a.nlink,
                ctime: a.ctime,
                change: a.change,
                raised,
                mtime: a.mtime,
                size: a.size,
            });
        });
    }

    /// The parent, for directories.
    pub(super) fn parent(&self) -> Option<u64> {
        if self.engine.attrs().is_dir() {
            Some(self.engine.meta.lock().parent)
        } else {
            None
        }
    }
}

impl InodeOperations for OrdoFs {
    fn read_inode(sb: &SuperBlock<Self>, ino: u64) -> Result<InodeData> {
        sb.fs().read_inode(ino)
    }

    fn attrs(data: &InodeData) -> Attrs {
        data.attrs()
    }

    fn read_link(sb: &SuperBlock<Self>, data: &InodeData) -> Result<KVec<u8>> {
        let _nofs = NoFs::enter();
        sb.fs().engine.readlink(&data.engine)
    }

    fn evict(sb: &SuperBlock<Self>, data: InodeData, why: Evict) {
        sb.fs().evict(data, why);
    }

    fn show(data: &InodeData, ctime: &dyn Fn() -> Option<Time>, show: &mut dyn FnMut(&Shown)) {
        data.show(ctime, show);
    }

    fn set_attrs(
        inode: &Locked<'_, Self>,
        acl: Option<&[u8]>,
        change: &mut dyn FnMut() -> AttrChange,
    ) -> Result {
        inode.fs().set_attrs(inode.data(), acl, change)
    }

    fn push_times(inode: &Inode<Self>, times: &dyn Fn() -> Times) -> Result {
        inode.fs().push_times(inode.data(), times)
    }

    fn sync_inode(inode: &Inode<Self>) -> Result {
        let _nofs = NoFs::enter();
        inode.fs().engine.sync_inode(&inode.data().engine)
    }
}

#[vtable]
impl ExportOperations for OrdoFs {
    fn parent(inode: &Inode<Self>) -> Option<u64> {
        inode.data().parent()
    }
}

impl OrdoFs {
    pub(super) fn read_inode(&self, ino: u64) -> Result<InodeData> {
        let _nofs = NoFs::enter();
        self.engine.readable()?;
        let engine = self.engine.iget(ino)?;
        Ok(InodeData { engine })
    }

    pub(super) fn evict(&self, data: InodeData, why: Evict) {
        let _nofs = NoFs::enter();
        if why == Evict::Forget {
            self.engine.iput(data.engine);
            return;
        }
        let ino = data.engine.ino();
        if let Err(e) = self.engine.delete_later(data.engine) {
            // It stays on the list of orphans, from which the next mount deletes it. After a
            // shutdown that is so for all, and nothing to talk about.
            if self.engine.is_shutdown() {
                return;
            }
            pr_warn!(
                "{}: inode {}: could not be deleted: {:?}\n",
                self.engine.device_name(),
                ino,
                e
            );
        }
    }

    pub(super) fn identity(&self) -> Identity {
        let NewId {
            ino,
            born,
            generation,
        } = self.engine.new_id();
        Identity {
            ino,
            born,
            generation,
        }
    }

    pub(super) fn set_attrs(
        &self,
        data: &InodeData,
        acl: Option<&[u8]>,
        change: &mut dyn FnMut() -> AttrChange,
    ) -> Result {
        let _nofs = NoFs::enter();
        let change = || {
            let c = change();
            engine::AttrChange {
                mode: c.mode,
                uid: c.uid,
                gid: c.gid,
                atime: c.atime,
                mtime: c.mtime,
                ctime: c.ctime,
                flags: c.flags,
                change: None,
            }
        };
        match acl {
            Some(acl) => self.engine.set_attrs_and_acl(&data.engine, acl, change),
            None => self.engine.set_attrs_with(&data.engine, change),
        }
    }

    pub(super) fn push_times(&self, data: &InodeData, times: &dyn Fn() -> Times) -> Result {
        let _nofs = NoFs::enter();
        self.engine.push_times(&data.engine, || {
            let t = times();
            engine::Times {
                atime: t.atime,
                mtime: t.mtime,
                ctime: t.ctime,
                change: t.change,
            }
        })
    }
}
