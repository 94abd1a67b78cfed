// SPDX-License-Identifier: GPL-2.0

//! Mounting and unmounting.
//!
//! Mounting chooses a superblock, reads the root of the AG tree unless the mount is read-only,
//! replays the log, commits what that brought, and cleans up orphans. A superblock or log that is
//! damaged, and not just cut off by a power cut, allows read-only mounts only, because going on
//! from an older state would undo what was acknowledged (docs/FORMAT.md §2 and §11). Damage that
//! left one copy of a superblock whole is mended by a commit.
//!
//! Locks: none are needed before the mount returns and after unmount begins, because no operation
//! runs then. Sizes are in blocks unless a name says otherwise.
//!
//! Tests: tools/engine/tests/superblocks.rs, log_recovery.rs, damage.rs, impossible.rs,
//! truncation.rs (orphans); tests/vm/t/021-mount.sh, 066-dead-blocks.sh, 067-damage.sh.

use crate::engine::alloc::deferred::Deferred;
use crate::engine::alloc::{unused_ags, Space, AG_TREE};
use crate::engine::btree::NodeStore;
use crate::engine::btree::{Tree, TreeId, TreeKind, ValueBuf};
use crate::engine::format::find::Found;
use crate::engine::format::slots::{Doubt, State};
use crate::engine::format::superblock::STATE_REPAIR;
use crate::engine::format::{corrupt, NodePtr, Superblock};
use crate::engine::fs::{Fs, Geometry, Parts};
use crate::engine::log::replayed::Replayed;
use crate::engine::state::commit::CommitState;
use crate::engine::txn::commit::IfIdle;
use crate::engine::txn::marks::Backups;
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

/// The tree with this root, as a superblock has it.
pub fn tree_of(id: TreeId, root: Option<NodePtr>) -> Tree {
    match root {
        Some(p) => Tree::from_ptr(id, p),
        None => Tree::empty(id),
    }
}

/// The newest valid superblock, or the reason why there is none.
pub fn read_superblock(dev: &Device) -> Result<KBox<Superblock>, MountError> {
    find_superblock(dev).map(|found| found.sb)
}

/// The newest valid superblock, with what was found in the other slot.
pub fn find_superblock(dev: &Device) -> Result<Found, MountError> {
    Superblock::find(dev).map_err(|r| MountError::new(r.error, r.reason))
}

/// The reason why a filesystem must not be written to, if there is one.
fn forbidden(found: &Found) -> Option<MountError> {
    if found.sb.read_only_features() {
        let reason = "unknown features allow reading only; mount with -o ro";
        return Some(MountError::new(EROFS, reason));
    }
    if found.sb.used_up() {
        let reason = "the numbers in the superblock are used up, which use does not explain; mount with -o ro";
        return Some(MountError::new(EUCLEAN, reason));
    }
    // Going on from the older superblock would undo a commit that was acknowledged.
    found.doubt.map(|doubt| match doubt {
        Doubt::Unread => MountError::new(
            EIO,
            "neither copy of a superblock that may be the newest can be read; mount with -o ro to see the state before, or with -o rescue=older to go on from it",
        ),
        Doubt::Damaged => MountError::new(
            EUCLEAN,
            "both copies of a superblock that may be the newest are damaged; mount with -o ro to see the state before, or with -o rescue=older to go on from it",
        ),
    })
}

/// Reports the copies of superblocks that are not as they should be.
fn report_copies(dev: &Device, found: &Found) {
    for (place, state) in &found.copies {
        let (what, why) = match *state {
            State::Intact => continue,
            State::Torn => ("was not written to its end", ""),
            State::Damaged(why) => ("is damaged: ", why),
            State::Unread => ("cannot be read", ""),
        };
        pr_warn!(
            "{}: superblock slot {} (block {}) {}{}\n",
            dev.name(),
            place.number,
            place.block,
            what,
            why
        );
    }
    if found.doubt.is_some() {
        pr_err!(
            "{}: a superblock newer than generation {} may be lost, and the last commit with it\n",
            dev.name(),
            found.sb.generation
        );
    }
}

/// Whether the mount goes on from a superblock although a newer one may be lost.
fn rescued(found: &Found, opts: &MountOptions) -> bool {
    let mends = !found.sb.read_only_features() && !found.sb.used_up();
    found.doubt.is_some() && mends && opts.rescue_older
}

/// An error of the engine with a sentence for the user.
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

/// A superblock or a backup could not be written.
fn unwritten(error: Error) -> MountError {
    MountError::new(error, "a superblock cannot be written; mount with -o ro")
}

/// The most nodes (of 4 KiB) in the node cache while the shrinker does not work: during mount and
/// unmount.
const MOUNTING: usize = 16384;

impl Fs {
    /// Mounts the filesystem on `dev`. Writes nothing if `opts.read_only`. The error has a sentence
    /// for the user.
    pub fn mount(dev: Device, opts: MountOptions) -> Result<Shared<Self>, MountError> {
        let found = find_superblock(&dev)?;
        report_copies(&dev, &found);
        if let Some(what) = found.sb.unsupported() {
            return Err(MountError::new(EINVAL, what));
        }
        if found.sb.state & STATE_REPAIR != 0 {
            pr_warn!("{}: damage was found; run fsck.ordofs\n", dev.name());
        }
        let forbidden = forbidden(&found).filter(|_| !rescued(&found, &opts));
        if let (false, Some(why)) = (opts.read_only, forbidden) {
            return Err(why);
        }
        if dev.readonly() && !opts.read_only {
            return Err(MountError::new(
                EROFS,
                "the device is read-only; mount with -o ro",
            ));
        }
        let (clean, next, mend) = (found.sb.is_clean(), found.next, found.needs_commit());
        let fs = Self::from_superblock(dev, found.sb, opts, forbidden).map_err(mount_error)?;
        // No copy of a superblock has a sector of this generation, so a later mount cannot take two
        // attempts to write it for one.
        fs.skip_to(fs.running_generation().max(next));
        fs.commit.lock().count_mount = true;
        fs.mend.store(mend, Ordering::Release);
        if !opts.read_only {
            // After a crash without a loss of power, what was found may still be in the device's
            // cache.
            fs.node_store
                .device()
                .flush()
                .map_err(|e| MountError::new(e, "the device cannot flush"))?;
        }
        if opts.recovery {
            fs.recover(clean)?;
        }
        if !opts.read_only {
            fs.mend_superblocks().map_err(unwritten)?;
            fs.serve_reaper(opts.reaper);
            fs.clean_orphans().map_err(mount_error)?;
        }
        fs.node_store.set_max(opts.cache_limit(fs.space.total()));
        Ok(fs)
    }

    /// Before anything runs: the next commit has this generation.
    pub(super) fn skip_to(&self, generation: u64) {
        self.commit.lock().next = generation;
        self.running.store(generation, Ordering::Release);
    }

    /// Writes backups that a growth could not write any more. Commits if a copy of a superblock was not as
    /// it should be at mount: the next one replaces it. Before that the log cannot be used, because the commit may skip generations. Does nothing
    /// on a read-only mount; called again when it becomes writable. Must not be called inside a
    /// transaction.
    pub fn mend_superblocks(&self) -> Result {
        if self.read_only.load(Ordering::Acquire) {
            return Ok(());
        }
        self.make_up_backups()?;
        if !self.mend.load(Ordering::Acquire) {
            return Ok(());
        }
        // A mount that was read-only until now has not read the AG tree.
        self.space.read(&self.node_store)?;
        self.commit_upto(self.running_generation(), IfIdle::Commit)?;
        self.mend.store(false, Ordering::Release);
        Ok(())
    }

    /// Replays the log, and commits what it held unless the mount is read-only. After a clean
    /// unmount it holds nothing.
    fn recover(&self, clean: bool) -> Result<(), MountError> {
        let (pos, seq) = {
            let c = self.commit.lock();
            (c.sb.log_pos, c.sb.log_seq)
        };
        let r = if clean {
            self.skip_log(pos, seq)
        } else {
            self.replaying.store(true, Ordering::Release);
            let r = self.replay(pos, seq);
            self.replaying.store(false, Ordering::Release);
            r
        };
        let r = r.map_err(|error| match error {
            EOPNOTSUPP => MountError {
                error,
                reason:
                    "the log has records that this version cannot replay; mount with a later one",
            },
            _ => mount_error(error),
        })?;
        self.report_replay(&r);
        let read_only = self.options().read_only;
        if let (Some(why), false) = (r.forbids(), read_only) {
            return Err(why);
        }
        if r.changes() {
            if !read_only {
                // The commit may use blocks behind the old end, which an old backup would cut off.
                self.make_up_backups().map_err(unwritten)?;
            }
            self.commit_upto(self.running_generation(), IfIdle::Commit)
                .map_err(mount_error)?;
            if read_only {
                // Nothing was committed. If the filesystem is remounted writable, a new batch would
                // not continue the replayed ones, so fsync must commit first.
                self.break_log();
            }
        }
        self.log.start();
        Ok(())
    }

    /// Reports the result of a replay in the kernel log.
    fn report_replay(&self, r: &Replayed) {
        let name = self.device_name();
        if r.disbelieved {
            pr_info!(
                "{}: the last log batch was cut off before it was acknowledged, or its data is damaged\n",
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
        if let Some(generation) = r.newer {
            pr_err!(
                "{}: the log says that superblock {} was durable, and the newest one is {}: what came after that is missing\n",
                name,
                generation,
                self.durable_generation()
            );
        }
        if r.given_up {
            pr_warn!("{}: rescue: the log ends before the damage\n", name);
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

    /// Makes the [`Fs`] that a superblock describes. Reads the root of the AG tree unless the mount
    /// is read-only.
    #[inline(never)]
    pub(crate) fn from_superblock(
        dev: Device,
        sb: KBox<Superblock>,
        opts: MountOptions,
        forbidden: Option<MountError>,
    ) -> Result<Shared<Self>> {
        let nodes = opts.cache_limit(sb.blocks);
        let node_store =
            NodeStore::new(Shared::new(dev)?, sb.node_id, nodes.min(MOUNTING))?.confine(&sb);
        let ag_blocks = NonZeroU64::new(sb.ag_blocks).ok_or(EUCLEAN)?;
        let ag_tree = match sb.ag_root {
            Some(root) => Tree::from_ptr(AG_TREE, root),
            // Only mkfs has such a superblock.
            None => unused_ags(&node_store, ag_blocks, sb.blocks)?,
        };
        let parts = Parts {
            geometry: Geometry {
                ag_blocks,
                root_ino: sb.root_ino,
                uuid: sb.uuid,
            },
            hash_key: sb.hash_key,
            opts,
            forbidden,
            space: Space::new(ag_tree, ag_blocks, sb.blocks, sb.free, sb.copies)?,
            itree: tree_of(INODE_TREE, sb.inode_root),
            generation: sb.generation,
            next_ino: sb.next_ino,
            inodes: sb.inodes,
            commit: CommitState {
                orphans: tree_of(ORPHAN_TREE, sb.orphan_root),
                deferred: Deferred::unread(),
                next: sb.generation.saturating_add(1),
                job: None,
                refused: None,
                drain: 0,
                count_mount: false,
                sb,
            },
            node_store,
        };
        parts
            .space
            .start_searches(parts.commit.sb.node_goal, parts.commit.sb.data_goal);
        let fs = Self::assemble(parts)?;
        if !opts.read_only {
            fs.space.read(&fs.node_store)?;
            // The next inode number must be above all that are in use, or one would be given out
            // twice.
            let last = fs
                .itree
                .read()
                .find_le(&fs.node_store, u64::MAX, &mut ValueBuf::new())?;
            if let Some(ino) = last.filter(|ino| *ino >= fs.next_ino.load(Ordering::Relaxed)) {
                return Err(corrupt(
                    "inode",
                    ino,
                    "its number is not below the next one of the superblock",
                ));
            }
        }
        Ok(fs)
    }

    /// Reads the root of the AG tree before a replay changes anything, because the space that it
    /// takes and frees must be accounted for. A read-only mount does without if the allocation
    /// trees are damaged, and must then stay read-only.
    pub(crate) fn read_space(&self) -> Result {
        self.give_up_space(self.space.read(&self.node_store))
    }

    /// On a read-only mount, turns an error of the AG tree into a warning, and gives up
    /// the accounting of space.
    pub(crate) fn give_up_space(&self, r: Result) -> Result {
        match r {
            Err(e) if e != ENOMEM && self.options().read_only => {
                pr_err!(
                    "{}: the AG tree is damaged: the mount must stay read-only\n",
                    self.device_name()
                );
                self.space.give_up();
                Ok(())
            }
            r => r,
        }
    }

    /// Frees inodes that have no name, and finishes truncations that a crash interrupted. Takes
    /// several transactions; must not be called inside one. Large inodes are queued if a thread serves
    /// the queue.
    ///
    /// One that is damaged stays, and the others go on: its blocks stay in use, which is no reason
    /// to refuse the mount.
    pub fn clean_orphans(&self) -> Result {
        // A mount that was read-only until now has not read the AG tree.
        self.space.read(&self.node_store)?;
        let (mut at, mut left) = (0, 0u64);
        let mut v = ValueBuf::new();
        loop {
            let next = self
                .commit
                .lock()
                .orphans
                .find_ge(&self.node_store, at, &mut v)?;
            let Some(ino) = next else { break };
            match self.clean_orphan(ino) {
                Err(e) if (e == EUCLEAN || e == EIO) && !self.is_shutdown() => left += 1,
                r => r?,
            }
            let Some(after) = ino.checked_add(1) else {
                break;
            };
            at = after;
        }
        if left > 0 {
            pr_err!(
                "{}: {} unlinked or truncated inodes are damaged: what they have stays in use\n",
                self.device_name(),
                left
            );
        }
        Ok(())
    }

    /// [`Fs::clean_orphans`] for one inode.
    fn clean_orphan(&self, ino: u64) -> Result {
        let inode = self.iget(ino).map_err(|e| match e {
            ESTALE => corrupt("orphan", ino, "no such inode"),
            e => e,
        })?;
        if inode.attrs().nlink == 0 {
            return self.delete_later(inode);
        }
        let r = self.finish_truncation(&inode, MAX_FILE_BLOCKS);
        self.iput(inode);
        r
    }

    /// Drops the caches before an unmount, during which the shrinker does not work, and keeps them
    /// small from now on.
    pub fn stop_caching(&self) {
        self.node_store
            .set_max(self.options().cache_limit(self.space.total()).min(MOUNTING));
        // In pieces, so that other tasks can run.
        while self.shrink_scan(8192) > 0 {
            cond_resched();
        }
    }

    /// Makes everything durable, by the last commit; the [`Fs`] may be dropped afterwards. The
    /// caller has evicted all inodes. Returns an error if something could not be made durable, or if
    /// reservations are left over, which is a bug and loses nothing.
    pub fn unmount(&self) -> Result {
        self.serve_reaper(false);
        self.reap_all();
        let r = self.mark_clean(Backups::Daily);
        let idle = r.is_ok() && !self.is_shutdown() && self.held_for_dirty_data() == 0;
        let users = self.itable.clear();
        if users > 0 {
            pr_warn!(
                "{}: {} inodes still in use at unmount\n",
                self.device_name(),
                users
            );
        } else if idle && self.dirty.is_empty() {
            self.space.check_reserved(self.reserved_for_commit())?;
        }
        r
    }
}
