// SPDX-License-Identifier: GPL-2.0

//! Operations on names.
//!
//! # Locking
//!
//! The VFS holds the directories' `i_rwsem`; the engine relies on that and locks only what it
//! changes in memory.
//!
//! Tests: tests/vm/t/020-names.sh, 062-full-disk.sh.

use kernel::prelude::*;

use super::{with_space, xattr::new_xattrs, InodeData, OrdoFs};
use crate::{
    engine::{self, NewId, NewXattr},
    fs::os::NoFs,
    vfs::{
        traits::directory::{DirectoryOperations, Emit, Identity, NewNode, Rename},
        Inode, Locked, SuperBlock,
    },
};

fn new_inode<'a>(new: &NewNode<'a>, xattrs: &'a [NewXattr<'a>]) -> engine::NewInode<'a> {
    engine::NewInode {
        mode: new.mode,
        uid: new.uid,
        gid: new.gid,
        rdev: new.rdev,
        flags: 0,
        project: 0,
        symlink: new.symlink,
        id: Some(NewId {
            ino: new.id.ino,
            born: new.id.born,
            generation: new.id.generation,
        }),
        xattrs,
    }
}

#[vtable]
impl DirectoryOperations for OrdoFs {
    fn lookup(dir: &Inode<Self>, name: &[u8]) -> Result<Option<u64>> {
        dir.fs().lookup_name(dir, name)
    }

    fn readdir(dir: &Inode<Self>, pos: u64, emit: Emit<'_>) -> Result {
        dir.fs().engine.readable()?;
        // `emit` copies to user memory and may fault, which may write back pages: no NOFS scope.
        dir.fs().engine.readdir(&dir.data().engine, pos, emit)
    }

    fn identity(sb: &SuperBlock<Self>) -> Identity {
        sb.fs().identity()
    }

    fn create(dir: &Locked<'_, Self>, name: &[u8], new: &NewNode<'_>) -> Result<InodeData> {
        with_space(dir.sb(), || dir.fs().create_name(dir, name, new))
    }

    fn tmpfile(sb: &SuperBlock<Self>, new: &NewNode<'_>) -> Result<InodeData> {
        with_space(sb, || sb.fs().create_tmpfile(new))
    }

    fn link(dir: &Locked<'_, Self>, name: &[u8], target: &Inode<Self>) -> Result {
        with_space(dir.sb(), || dir.fs().link_name(dir, name, target))
    }

    fn unlink(dir: &Locked<'_, Self>, name: &[u8], victim: &Inode<Self>) -> Result {
        dir.fs().unlink_name(dir, name, victim)
    }

    fn rename(rename: &Rename<'_, Self>) -> Result {
        with_space(rename.inode.sb(), || rename.inode.fs().rename_names(rename))
    }
}

impl OrdoFs {
    pub(super) fn lookup_name(&self, dir: &Inode<Self>, name: &[u8]) -> Result<Option<u64>> {
        let _nofs = NoFs::enter();
        self.engine.readable()?;
        let entry = self.engine.lookup(&dir.data().engine, name)?;
        Ok(entry.map(|e| e.ino))
    }

    pub(super) fn create_name(
        &self,
        dir: &Locked<'_, Self>,
        name: &[u8],
        new: &NewNode<'_>,
    ) -> Result<InodeData> {
        let _nofs = NoFs::enter();
        let xattrs = new_xattrs(new)?;
        let inode = self
            .engine
            .create(&dir.data().engine, name, &new_inode(new, &xattrs))?;
        Ok(InodeData { engine: inode })
    }

    pub(super) fn create_tmpfile(&self, new: &NewNode<'_>) -> Result<InodeData> {
        let _nofs = NoFs::enter();
        let xattrs = new_xattrs(new)?;
        let inode = self.engine.tmpfile(&new_inode(new, &xattrs))?;
        Ok(InodeData { engine: inode })
    }

    pub(super) fn link_name(
        &self,
        dir: &Locked<'_, Self>,
        name: &[u8],
        target: &Inode<Self>,
    ) -> Result {
        let _nofs = NoFs::enter();
        self.engine
            .link(&dir.data().engine, name, &target.data().engine)
    }

    pub(super) fn unlink_name(
        &self,
        dir: &Locked<'_, Self>,
        name: &[u8],
        victim: &Inode<Self>,
    ) -> Result {
        let _nofs = NoFs::enter();
        self.engine
            .unlink(&dir.data().engine, name, &victim.data().engine)
    }

    pub(super) fn rename_names(&self, r: &Rename<'_, Self>) -> Result {
        if r.target.is_some() && !r.exchange && r.inode.is_regular() {
            // Replace by rename without fsync: a power cut never leaves the new name with an empty file.
            // Everything is in flight before the engine renames, also what another task is just writing
            // back; nothing waits for the I/O here, under the directories' locks. The engine makes the
            // name durable with the data (rust/engine/state/owed.rs).
            r.inode.start_writeback();
            r.inode.data().engine.wait_submitted();
        }
        let _nofs = NoFs::enter();
        let xattrs = r.whiteout.as_ref().map(new_xattrs).transpose()?;
        let xattrs = xattrs.as_deref().unwrap_or(&[]);
        let whiteout = r.whiteout.as_ref().map(|w| new_inode(w, xattrs));
        self.engine.rename(&engine::Rename {
            old_dir: &r.old_dir.data().engine,
            old_name: r.old_name,
            inode: &r.inode.data().engine,
            new_dir: &r.new_dir.data().engine,
            new_name: r.new_name,
            target: r.target.map(|t| &t.data().engine),
            flags: engine::RenameFlags {
                noreplace: false,
                exchange: r.exchange,
            },
            whiteout: whiteout.as_ref(),
        })
    }
}
