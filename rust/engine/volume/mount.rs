// SPDX-License-Identifier: GPL-2.0

//! Mounting: choose a superblock, load the allocation groups, clean up orphans.

use crate::engine::alloc::ag::Ag;
use crate::engine::alloc::Space;
use crate::engine::btree::NodeStore;
use crate::engine::btree::{Tree, TreeId, TreeKind, ValueBuf};
use crate::engine::format::find::Found;
use crate::engine::format::inode::STATE_TRUNCATE;
use crate::engine::format::slots::{self, Other};
use crate::engine::format::{corrupt, NodePtr, Superblock};
use crate::engine::fs::{Fs, Geometry, Parts};
use crate::engine::log::replayed::Replayed;
use crate::engine::state::commit::CommitState;
use crate::engine::types::*;
use crate::os::atomic::Ordering;
use crate::os::{cond_resched, Device, Shared};
use core::num::NonZeroU64;
use kernel::prelude::*;

/// Id of the inode tree.
pub const INODE_TREE: TreeId = TreeId {
    kind: TreeKind::Inode,
    owner: 0,
};
/// Id of the orphan tree.
pub const ORPHAN_TREE: TreeId = TreeId {
    kind: TreeKind::Orphan,
    owner: 0,
};

/// A tree from the root in a superblock.
pub fn tree_of(id: TreeId, root: Option<NodePtr>) -> Tree {
    match root {
        Some(p) => Tree::from_ptr(id, p),
        None => Tree::empty(id),
    }
}

/// The newest valid superblock that can be read, or why there is none.
pub fn read_superblock(dev: &Device) -> Result<KBox<Superblock>, MountError> {
    find_superblock(dev).map(|found| found.sb)
}

/// The newest superblock that is intact, and what is in the other slot.
pub fn find_superblock(dev: &Device) -> Result<Found, MountError> {
    Superblock::find(dev).map_err(|r| MountError::new(r.error, r.reason))
}

/// Why a filesystem must not be written to, whoever asks.
fn forbidden(found: &Found) -> Option<MountError> {
    if found.sb.read_only_features() {
        let reason = "unknown features allow reading only; mount with -o ro";
        return Some(MountError::new(EROFS, reason));
    }
    // Going on from the other one would undo what a commit had acknowledged.
    let (error, reason) = match (found.other, found.other_slot) {
        (Other::Unread, _) => (
            EIO,
            "a superblock cannot be read, which may be the newest; mount with -o ro to see the other",
        ),
        (Other::Damaged { .. }, 0) => (
            EUCLEAN,
            "superblock slot 0 (block 16) is damaged and may be the newest; run fsck.ordofs, mount with -o ro to see the other",
        ),
        (Other::Damaged { .. }, _) => (
            EUCLEAN,
            "superblock slot 1 (block 128) is damaged and may be the newest; run fsck.ordofs, mount with -o ro to see the other",
        ),
        _ => return None,
    };
    Some(MountError::new(error, reason))
}

/// Says what is wrong with the slot that does not count.
fn report_slot(dev: &Device, found: &Found) {
    let place = slots::place(found.other_slot);
    match found.other {
        Other::Unread => pr_warn!(
            "{}: {} cannot be read: the last commit may not be seen\n",
            dev.name(),
            place
        ),
        Other::Damaged { why } => pr_err!(
            "{}: {} is damaged: {}; the last commit may not be seen\n",
            dev.name(),
            place,
            why
        ),
        Other::Older { why, .. } => pr_warn!(
            "{}: {}, which is not the newest, is damaged: {}; the next commit replaces it\n",
            dev.name(),
            place,
            why
        ),
        Other::Torn { .. } => pr_info!("{}: the last write of {} was cut off\n", dev.name(), place),
        Other::Intact => {}
    }
}

fn mount_error(error: Error) -> MountError {
    MountError {
        error,
        reason: if error == ENOMEM {
            "out of memory"
        } else {
            "damaged metadata; see the kernel log, run fsck.ordofs"
        },
    }
}

/// Nodes (of 4 KiB) that the cache keeps while it is mounted: the kernel's shrinker does not work yet.
const MOUNTING: usize = 16384;

/// Nodes that the cache keeps when it is mounted. A filesystem of few blocks has few nodes.
fn cache_limit(opts: &MountOptions, blocks: u64) -> usize {
    usize::try_from(opts.cache_nodes.min(blocks / 8)).unwrap_or(usize::MAX)
}

impl Fs {
    /// Mounts the filesystem on `dev`. Writes nothing when `opts.read_only`.
    pub fn mount(dev: Device, opts: MountOptions) -> Result<Shared<Self>, MountError> {
        let found = find_superblock(&dev)?;
        report_slot(&dev, &found);
        let forbidden = forbidden(&found);
        if let (false, Some(why)) = (opts.read_only, forbidden) {
            return Err(why);
        }
        if dev.readonly() && !opts.read_only {
            return Err(MountError::new(
                EROFS,
                "the device is read-only; mount with -o ro",
            ));
        }
        let other = found.other;
        let fs = Self::from_superblock(dev, found.sb, opts, forbidden).map_err(mount_error)?;
        // What is written over a torn superblock has another generation than any part of it: cut off again,
        // it must still be told from one that is damaged.
        let next = fs
            .running_generation()
            .max(other.newest().saturating_add(2));
        fs.running.store(next, Ordering::Release);
        if opts.recovery {
            fs.recover(other.heals())?;
        }
        if !opts.read_only {
            fs.clean_orphans().map_err(mount_error)?;
        }
        fs.st.set_max(cache_limit(&opts, fs.geometry.total));
        Ok(fs)
    }

    /// Replays the log, and commits what it held unless the mount is read-only. `anyway`: commits even if
    /// there was nothing.
    fn recover(&self, anyway: bool) -> Result<(), MountError> {
        let (pos, seq) = {
            let c = self.commit.lock();
            (c.sb.log_pos, c.sb.log_seq)
        };
        self.replaying.store(true, Ordering::Release);
        let r = self.replay(pos, seq);
        self.replaying.store(false, Ordering::Release);
        let r = r.map_err(mount_error)?;
        self.report_replay(&r);
        let read_only = self.options().read_only;
        if let (Some(why), false) = (r.forbids(), read_only) {
            return Err(why);
        }
        if r.changes() || anyway {
            self.commit_upto(self.running_generation(), true)
                .map_err(mount_error)?;
            if read_only {
                // Nothing was committed: should the filesystem become writable, a batch behind those that
                // were replayed would be in no sequence with them.
                self.break_log();
            }
        }
        self.log.start();
        Ok(())
    }

    fn report_replay(&self, r: &Replayed) {
        let name = self.device_name();
        if r.disbelieved {
            pr_info!(
                "{}: the last log batch was cut off before it was acknowledged\n",
                name
            );
        }
        if r.batches > 0 && r.records > 0 {
            pr_info!(
                "{}: replayed {} records of {} log batches\n",
                name,
                r.records,
                r.batches
            );
        }
        match (r.lost, r.damaged) {
            (Some(lost), _) if lost.newest == lost.seq => pr_err!(
                "{}: log position {} cannot be read: batch {} may have been there, and what fsync acknowledged in it is in doubt\n",
                name,
                lost.pos,
                lost.seq
            ),
            (Some(lost), _) => pr_err!(
                "{}: log batch {} at position {} is damaged, and was flushed: what fsync acknowledged in it and up to batch {} ({} batches) is in doubt\n",
                name,
                lost.seq,
                lost.pos,
                lost.newest,
                lost.batches()
            ),
            (None, Some(seq)) => pr_warn!(
                "{}: log batch {} is cut off or damaged: the log ends before it\n",
                name,
                seq
            ),
            (None, None) => {}
        }
    }

    /// Puts the filesystem that a superblock describes together.
    #[inline(never)]
    pub(crate) fn from_superblock(
        dev: Device,
        sb: KBox<Superblock>,
        opts: MountOptions,
        forbidden: Option<MountError>,
    ) -> Result<Shared<Self>> {
        let nodes = cache_limit(&opts, sb.blocks);
        let st = NodeStore::new(Shared::new(dev)?, sb.fsid(), nodes.min(MOUNTING))?.confine(&sb);
        let ag_blocks = NonZeroU64::new(sb.ag_blocks).ok_or(EUCLEAN)?;
        let mut ags = KVec::new();
        for (i, root) in (0..sb.ag_count).zip(sb.ag_roots.iter()) {
            let tree = tree_of(Ag::tree_id(i), *root);
            ags.push(Ag::new(tree, sb.ag_len(i)), GFP_KERNEL)?;
        }
        let parts = Parts {
            geometry: Geometry {
                total: sb.blocks,
                ag_blocks,
                root_ino: sb.root_ino,
                uuid: sb.uuid,
                label: sb.label,
            },
            hash_key: sb.hash_key,
            opts,
            forbidden,
            space: Space::new(ags, ag_blocks, sb.blocks, sb.free)?,
            itree: tree_of(INODE_TREE, sb.inode_root),
            generation: sb.generation,
            next_ino: sb.next_ino,
            inodes: sb.inodes,
            commit: CommitState {
                orphans: tree_of(ORPHAN_TREE, sb.orphan_root),
                sb,
            },
            st,
        };
        let fs = Self::assemble(parts)?;
        if !opts.read_only {
            fs.space.read(&fs.st)?;
            // A number that is in use must not be given out.
            let last = fs
                .itree
                .read()
                .find_le(&fs.st, u64::MAX, &mut ValueBuf::new())?;
            if let Some(ino) = last.filter(|ino| *ino >= fs.next_ino.load(Ordering::Relaxed)) {
                return Err(corrupt(
                    "inode",
                    ino,
                    "not below the next number of the superblock",
                ));
            }
        }
        Ok(fs)
    }

    /// Before a replay changes anything: the space it takes and frees has to be kept account of. For reading
    /// only that can be done without, should the allocation trees be damaged; writing is forbidden then.
    pub(crate) fn read_space(&self) -> Result {
        self.give_up_space(self.space.read(&self.st))
    }

    /// On a mount that only reads, an error with the allocation trees costs nothing but the account of space.
    pub(crate) fn give_up_space(&self, r: Result) -> Result {
        match r {
            Err(e) if e != ENOMEM && self.options().read_only => {
                pr_err!(
                    "{}: an allocation tree is damaged: only reading is possible\n",
                    self.device_name()
                );
                self.space.give_up();
                Ok(())
            }
            r => r,
        }
    }

    /// Frees inodes that had no name left and finishes truncations that a crash cut off.
    pub fn clean_orphans(&self) -> Result {
        // Mounted for reading only, it has not been needed so far.
        self.space.read(&self.st)?;
        let mut at = 0;
        let mut v = ValueBuf::new();
        loop {
            let next = self.commit.lock().orphans.find_ge(&self.st, at, &mut v)?;
            let Some(ino) = next else { return Ok(()) };
            let inode = self.iget(ino).map_err(|e| match e {
                ESTALE => corrupt("orphan", ino, "there is no such inode"),
                e => e,
            })?;
            let (attrs, state) = {
                let m = inode.meta.lock();
                (m.attrs, m.state)
            };
            if attrs.nlink == 0 {
                self.delete_inode(inode)?;
            } else {
                let r = if state & STATE_TRUNCATE != 0 {
                    self.set_size(&inode, attrs.size)
                } else {
                    Ok(())
                };
                self.iput(inode);
                r?;
            }
            let Some(after) = ino.checked_add(1) else {
                return Ok(());
            };
            at = after;
        }
    }

    /// Before an unmount, during which no shrinker works: drops what is cached, and keeps little from now on.
    pub fn stop_caching(&self) {
        self.st
            .set_max(cache_limit(&self.options(), self.geometry.total).min(MOUNTING));
        // Some at a time: others may run.
        while self.shrink_scan(8192) > 0 {
            cond_resched();
        }
    }

    /// The last commit; afterwards everything may be dropped. The caller evicted all inodes. Returns an
    /// error if something could not be made durable.
    pub fn unmount(&self) -> Result {
        let r = self.sync();
        let users = self.itable.clear();
        if users > 0 {
            pr_warn!(
                "{}: {} inodes still in use at unmount\n",
                self.device_name(),
                users
            );
        }
        r
    }
}
