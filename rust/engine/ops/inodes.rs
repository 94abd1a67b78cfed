// SPDX-License-Identifier: GPL-2.0

//! Getting inodes and letting go of them.

use crate::engine::btree::ValueBuf;
use crate::engine::format::corrupt;
use crate::engine::format::inode::InodeRecord;
use crate::engine::fs::Fs;
use crate::engine::inode::table::Lookup;
use crate::engine::inode::Inode;
use crate::engine::types::*;
use crate::os::atomic::Ordering;
use crate::os::{NoFs, Shared};
use kernel::prelude::*;

impl Fs {
    /// The inode, for one user; pairs with [`Fs::iput`]. ESTALE if there is none.
    pub fn iget(&self, ino: u64) -> Result<Shared<Inode>> {
        let _nofs = NoFs::enter();
        let mut v = ValueBuf::new();
        loop {
            let ticket = match self.itable.get(ino)? {
                Lookup::Here(i) => {
                    // Deleted, and only waiting for the commit that says so.
                    if i.meta.lock().deleted {
                        self.iput(i);
                        return Err(ESTALE);
                    }
                    return Ok(i);
                }
                Lookup::Not(ticket) => ticket,
            };
            if !self.itree.read().get(&self.st, ino, &mut v)? {
                return Err(ESTALE);
            }
            let rec = InodeRecord::decode(ino, v.as_slice())?;
            if let Some(what) = self.impossible(ino, &rec) {
                return Err(corrupt("inode", ino, what));
            }
            let inode = Shared::new(Inode::from_record(ino, &rec)?)?;
            if let Some(i) = self.itable.add_loaded(inode, ticket)? {
                return Ok(i);
            }
        }
    }

    /// What is wrong with a record that could be decoded.
    fn impossible(&self, ino: u64, rec: &InodeRecord<'_>) -> Option<&'static str> {
        let kind = rec.attrs.mode & S_IFMT;
        Some(if ino >= self.next_ino.load(Ordering::Relaxed) {
            "its number was never given out"
        } else if rec.generation > self.running_generation() {
            "of a generation that there was not"
        } else if rec.blocks > self.geometry.total {
            "more blocks than the filesystem"
        } else if kind != S_IFREG && (rec.blocks != 0 || !rec.extents.is_empty()) {
            "blocks, and no regular file"
        } else if kind != S_IFDIR && kind != S_IFLNK && !rec.dir.is_empty() {
            "entries, and no directory"
        } else if kind == S_IFLNK && rec.attrs.size > SYMLINK_MAX as u64 {
            "a target that is too long"
        } else {
            return None;
        })
    }

    /// The inode has one user less.
    pub fn iput(&self, inode: Shared<Inode>) {
        let _nofs = NoFs::enter();
        let ino = inode.ino();
        drop(inode);
        let gone = self.itable.put(ino);
        self.let_go(gone);
    }

    /// An inode left the table: nobody uses it, and what is on disk is what it says.
    pub(crate) fn let_go(&self, inode: Option<Shared<Inode>>) {
        let Some(inode) = inode else { return };
        let mut m = inode.maps.write();
        if let Some(kept) = m.kept.take() {
            self.space.release_kept(kept);
        }
        m.ems.forget_all();
        m.ems.recount(&self.em_count);
        let n = m.delalloc.total();
        if n != 0 {
            // R4: every reservation has found its end by now.
            pr_warn!(
                "{}: inode {}: {} reserved blocks at eviction\n",
                self.device_name(),
                inode.ino(),
                n
            );
            if m.delalloc.carve(0, u64::MAX, |_| ()).is_ok() {
                self.space.unreserve(n);
                self.shrink_delalloc_meta(n, 0);
            }
        }
    }
}
