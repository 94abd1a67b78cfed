// SPDX-License-Identifier: GPL-2.0

//! Inodes and attributes.

use kernel::prelude::*;

use super::{InodeData, OrdoFs};
use crate::{
    engine::{self, NewId},
    os::NoFs,
    vfs::{AttrChange, Attrs, Identity, Shown, Times, Timestamp},
};

/// Sectors of 512 bytes in a block.
const SECTORS: u64 = 8;

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
            generation: self.generation,
            flags: a.flags,
            atime: a.atime,
            mtime: a.mtime,
            btime: a.btime,
        }
    }

    pub(super) fn show(&self, ctime: &dyn Fn() -> Option<Timestamp>, show: &mut dyn FnMut(&Shown)) {
        self.engine.show(ctime, |a| {
            show(&Shown {
                nlink: a.nlink,
                ctime: a.ctime,
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

impl OrdoFs {
    pub(super) fn read_inode(&self, ino: u64) -> Result<InodeData> {
        let _nofs = NoFs::enter();
        self.engine.readable()?;
        let engine = self.engine.iget(ino)?;
        Ok(InodeData::new(&self.engine, engine))
    }

    pub(super) fn evict(&self, data: InodeData, delete: bool) {
        let _nofs = NoFs::enter();
        if !delete {
            self.engine.iput(data.engine);
            return;
        }
        let ino = data.engine.ino();
        if let Err(e) = self.engine.delete_inode(data.engine) {
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
        let NewId { ino, born } = self.engine.new_id();
        Identity {
            ino,
            born,
            generation: self.engine.generation(ino, born),
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
            }
        })
    }
}
