// SPDX-License-Identifier: GPL-2.0

//! Inodes and attributes.

use kernel::prelude::*;

use super::{InodeData, OrdoFs};
use crate::{
    engine,
    os::NoFs,
    vfs::{AttrChange, Attrs},
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
            // Inode numbers are never used again, so that handles need no generation.
            generation: 0,
            flags: a.flags,
            atime: a.atime,
            mtime: a.mtime,
            ctime: a.ctime,
            btime: a.btime,
        }
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
        Ok(InodeData { engine })
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

    pub(super) fn set_attrs(&self, data: &InodeData, change: &AttrChange) -> Result {
        let _nofs = NoFs::enter();
        self.engine.set_attrs(
            &data.engine,
            &engine::AttrChange {
                mode: change.mode,
                uid: change.uid,
                gid: change.gid,
                atime: change.atime,
                mtime: change.mtime,
                ctime: change.ctime,
                flags: change.flags,
            },
        )
    }
}
