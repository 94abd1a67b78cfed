// SPDX-License-Identifier: GPL-2.0

//! References to inodes: looking them up, reading them from the inode tree, dropping them.
//!
//! An inode is in the table while it has a user or a commit needs it. The inode tree is true only
//! for inodes that are not in the table.
//!
//! Locks: a shard of the table and the inode tree, one after the other and with no lock of an inode
//! held. A task that reads an inode from the tree gets a ticket before it reads, so that an inode
//! which entered and left the table meanwhile makes it read again
//! ([`crate::engine::inode::table`]).
//!
//! Tests: tools/engine/tests/inode_cache.rs, threads.rs, stress.rs, impossible.rs (records that
//! cannot be true); tests/vm/t/031-handles.sh.

use crate::engine::btree::ValueBuf;
use crate::engine::format::corrupt;
use crate::engine::format::inode::InodeRecord;
use crate::engine::fs::Fs;
use crate::engine::inode::table::Lookup;
use crate::engine::inode::Inode;
use crate::os::atomic::Ordering;
use crate::os::{NoFs, Shared};
use kernel::prelude::*;

impl Fs {
    /// Returns inode `ino` with a reference that [`Fs::iput`] drops. ESTALE if there is none,
    /// EUCLEAN if its record cannot be true. May read from the device.
    pub fn iget(&self, ino: u64) -> Result<Shared<Inode>> {
        let _nofs = NoFs::enter();
        let mut v = ValueBuf::new();
        loop {
            let ticket = match self.itable.get(ino)? {
                Lookup::Here(i) => {
                    // It was deleted, and stays only until that is committed, or it will be.
                    let gone = i.meta.lock().is_gone();
                    if gone {
                        self.iput(i);
                        return Err(ESTALE);
                    }
                    return Ok(i);
                }
                Lookup::Not(ticket) => ticket,
            };
            if !self.itree.read().get(&self.node_store, ino, &mut v)? {
                return Err(ESTALE);
            }
            let rec = InodeRecord::decode(ino, v.as_slice())?;
            let unusable = self.impossible(ino, &rec).or(rec.unsupported());
            if let Some(what) = unusable {
                return Err(corrupt("inode", ino, what));
            }
            let inode = Shared::new(Inode::from_record(ino, &rec)?)?;
            if let Some(i) = self.itable.add_loaded(inode, ticket)? {
                return Ok(i);
            }
        }
    }

    /// The reason why a record cannot be true in this filesystem.
    pub(super) fn impossible(&self, ino: u64, rec: &InodeRecord<'_>) -> Option<&'static str> {
        Some(if ino >= self.next_ino.load(Ordering::Relaxed) {
            "its number was never allocated"
        } else if rec.generation > self.running_generation() {
            "its generation is newer than the filesystem"
        } else {
            return None;
        })
    }

    /// Drops a reference that [`Fs::iget`] or a creation returned. Must be called with none of the
    /// inode's locks held.
    pub fn iput(&self, inode: Shared<Inode>) {
        let _nofs = NoFs::enter();
        let ino = inode.ino();
        drop(inode);
        let gone = self.itable.put(ino);
        self.evict(gone);
    }

    /// Tears down an inode that left the table. It has no users, and its record on disk is up to
    /// date or it was deleted.
    pub(crate) fn evict(&self, inode: Option<Shared<Inode>>) {
        let Some(inode) = inode else { return };
        let mut m = inode.maps.write();
        if let Some(kept) = m.kept.take() {
            self.space.release_kept(kept);
        }
        m.extent_maps.forget_all();
        m.extent_maps.recount(&self.em_count);
        let n = m.delalloc.total();
        if n != 0 {
            // R4: every reservation should have been used or given back by now.
            pr_warn!(
                "{}: inode {}: {} reserved blocks at eviction\n",
                self.device_name(),
                inode.ino(),
                n
            );
            if m.delalloc.remove_range(0, u64::MAX, |_| ()).is_ok() {
                self.space.unreserve(n);
                self.shrink_delalloc_meta(n, 0);
            }
        }
    }
}
