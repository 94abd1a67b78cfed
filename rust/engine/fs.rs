// SPDX-License-Identifier: GPL-2.0

//! A mounted filesystem: the state that all operations share. The operations are methods of [`Fs`]
//! in the directories above this file (`txn/`, `ops/`, `volume/`).
//!
//! # Model
//!
//! [`Fs`] puts the parts together; each part has its own file and its own lock. The fields without
//! a lock are atomics. The lock order is in docs/DESIGN.md §7 and [`lock_class`]. Counts of space
//! are in blocks.
//!
//! Tests: `tools/engine/tests/smoke.rs` for the whole, `tools/engine/tests/abort.rs` for the
//! shutdown, `tests/vm/t/021-mount.sh` for remounts.

use crate::engine::alloc::Space;
use crate::engine::btree::NodeStore;
use crate::engine::btree::Tree;
use crate::engine::format::superblock::LABEL_LEN;
use crate::engine::inode::maps::extent_map::Counts;
use crate::engine::inode::table::InodeTable;
use crate::engine::lock_class;
use crate::engine::log::replayed::Replayed;
use crate::engine::log::Log;
use crate::engine::state::barrier::Barrier;
use crate::engine::state::commit::CommitState;
use crate::engine::state::dirty::DirtyLists;
use crate::engine::state::owed::Owed;
use crate::engine::state::reap::Reaper;
use crate::engine::state::scrub::ScrubState;
use crate::engine::types::*;
use crate::os::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use crate::os::{LockMap, Mutex, RwLock, Shared, WaitQueue};
use core::num::NonZeroU64;
use kernel::prelude::*;

/// The properties of a filesystem that never change while it is mounted.
pub struct Geometry {
    /// Blocks of the filesystem.
    pub total: u64,
    /// Blocks of an AG.
    pub ag_blocks: NonZeroU64,
    /// Inode number of the root directory.
    pub root_ino: u64,
    /// UUID.
    pub uuid: [u8; 16],
}

impl Geometry {
    /// The number of allocation groups.
    pub(crate) fn ag_count(&self) -> u64 {
        self.total.div_ceil(self.ag_blocks.get())
    }
}

/// A mounted filesystem.
pub struct Fs {
    /// The device, reads of nodes and the node cache.
    pub(crate) node_store: NodeStore,
    pub(crate) geometry: Geometry,
    /// The key of the SipHash of names.
    pub(crate) hash_key: [u64; 2],
    /// The mount options.
    pub(crate) opts: Mutex<MountOptions>,
    /// The label of the newest superblock, padded with zeros.
    pub(crate) label: Mutex<[u8; LABEL_LEN]>,
    /// Allocation groups and reservations.
    pub(crate) space: Space,
    /// The inodes in memory.
    pub(crate) itable: InodeTable,
    /// The inode tree. Only commits change it. It is up to date for inodes that are not in
    /// `itable`.
    pub(crate) itree: RwLock<Tree>,
    /// The commit mutex: one commit at a time.
    pub(crate) commit: Mutex<CommitState>,
    /// Stands between operations and the moment in which a commit freezes its transaction.
    pub(crate) barrier: Barrier,
    /// The debts of renames.
    pub(crate) owed: Owed,
    /// For lockdep: held while an ordered extent is being completed.
    pub(crate) ordered_map: LockMap,
    /// The list of inodes that the running transaction has changed.
    pub(crate) dirty: DirtyLists,
    /// The generation that operations run in. The one before is durable or being committed.
    pub(crate) running: AtomicU64,
    /// The newest generation that is on stable storage.
    pub(crate) durable: AtomicU64,
    /// The current epoch, which new extent records get. Only a snapshot would raise it, and this
    /// code takes none.
    pub(crate) epoch: u32,
    /// The next inode number to give out.
    pub(crate) next_ino: AtomicU64,
    /// The number of inodes in use.
    pub(crate) inodes: AtomicI64,
    /// Blocks reserved for the next commit: what the operations since the last one have used of
    /// their reservations.
    pub(crate) commit_reserved: AtomicI64,
    /// Blocks reserved for the metadata of delalloc.
    pub(crate) delalloc_meta: AtomicI64,
    /// The numbers of extent maps, for the shrinker.
    pub(crate) em_count: Counts,
    /// The time at which the last commit began, by [`crate::os::uptime`].
    pub(crate) last_commit: AtomicU64,
    /// The queue on which the commit thread sleeps.
    pub(crate) wake: WaitQueue,
    /// The commit thread has been woken, because there is much to write.
    pub(crate) woken: AtomicBool,
    /// The mount is read-only. Replay changes what is in memory all the same.
    pub(crate) read_only: AtomicBool,
    /// Why the mount must stay read-only, as found at mount.
    forbidden: Option<MountError>,
    /// The superblock on disk says that the filesystem was unmounted cleanly. Then a mount does
    /// not read the log, so no transaction begins before a commit has taken that back. Set inside
    /// the barrier, and cleared when such a commit is durable.
    pub(crate) marked_clean: AtomicBool,
    /// A copy of a superblock is not as it should be: a commit comes as soon as the mount may write.
    pub(crate) mend: AtomicBool,
    /// The fsync log.
    pub(crate) log: Log,
    /// The inodes that are deleted in the background.
    pub(crate) reaper: Reaper,
    /// What the scrub has found, and the request to end it.
    pub(crate) scrub: ScrubState,
    /// The filesystem is frozen, so no copy of a node is healed. Changed under the commit mutex.
    pub(crate) healing_paused: AtomicBool,
    /// The log is being replayed: all changes are one transaction.
    pub(crate) replaying: AtomicBool,
    /// The filesystem is shut down. Never cleared.
    shutdown: AtomicBool,
}

/// The parts of a filesystem, which mount and mkfs put together.
pub struct Parts {
    /// Node store.
    pub node_store: NodeStore,
    /// Geometry.
    pub geometry: Geometry,
    /// Key of the name hash.
    pub hash_key: [u64; 2],
    /// Options.
    pub opts: MountOptions,
    /// Why the filesystem must stay read-only, if it must.
    pub forbidden: Option<MountError>,
    /// Space.
    pub space: Space,
    /// Inode tree.
    pub itree: Tree,
    /// The state that only commits use.
    pub commit: CommitState,
    /// Generation on disk.
    pub generation: u64,
    /// The next inode number to give out.
    pub next_ino: u64,
    /// Inodes in use.
    pub inodes: u64,
}

impl Fs {
    /// Makes an [`Fs`] of its parts. ENOMEM.
    #[inline(never)]
    pub(crate) fn assemble(p: Parts) -> Result<Shared<Self>> {
        let barrier = Barrier::new(p.node_store.reads().clone())?;
        let fs = Self {
            node_store: p.node_store,
            geometry: p.geometry,
            hash_key: p.hash_key,
            read_only: AtomicBool::new(p.opts.read_only),
            forbidden: p.forbidden,
            marked_clean: AtomicBool::new(p.commit.sb.is_clean()),
            mend: AtomicBool::new(false),
            epoch: p.commit.sb.epoch,
            log: Log::new(&p.commit.sb)?,
            replaying: AtomicBool::new(false),
            opts: Mutex::new(&lock_class::OPTIONS, p.opts)?,
            label: Mutex::new(&lock_class::LABEL, p.commit.sb.label)?,
            space: p.space,
            itable: InodeTable::new()?,
            itree: RwLock::new(&lock_class::INODE_TREE, p.itree)?,
            commit: Mutex::new(&lock_class::COMMIT, p.commit)?,
            barrier,
            owed: Owed::new()?,
            ordered_map: LockMap::new(&lock_class::ORDERED_WAIT)?,
            dirty: DirtyLists::new()?,
            running: AtomicU64::new(p.generation + 1),
            durable: AtomicU64::new(p.generation),
            next_ino: AtomicU64::new(p.next_ino),
            inodes: AtomicI64::new(p.inodes as i64),
            commit_reserved: AtomicI64::new(0),
            delalloc_meta: AtomicI64::new(0),
            em_count: Counts::new(),
            last_commit: AtomicU64::new(crate::os::uptime()),
            wake: WaitQueue::new()?,
            woken: AtomicBool::new(false),
            reaper: Reaper::new()?,
            scrub: ScrubState::new()?,
            healing_paused: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
        };
        Shared::new(fs)
    }

    /// The root directory's inode number.
    pub fn root_ino(&self) -> u64 {
        self.geometry.root_ino
    }

    /// UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.geometry.uuid
    }

    /// The label, padded with zeros.
    pub fn label(&self) -> [u8; LABEL_LEN] {
        *self.label.lock()
    }

    /// The node store, for the tools that walk trees.
    pub fn node_store(&self) -> &NodeStore {
        &self.node_store
    }

    /// The device's number, for traces.
    #[inline]
    pub(crate) fn dev(&self) -> u32 {
        self.node_store.device().id()
    }

    /// The generation that operations run in.
    pub fn running_generation(&self) -> u64 {
        self.running.load(Ordering::Acquire)
    }

    /// The newest generation that is durable.
    pub fn durable_generation(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// EIO after a shutdown, EROFS on a read-only mount.
    pub(crate) fn writable(&self) -> Result {
        self.readable()?;
        if self.read_only.load(Ordering::Acquire) && !self.replaying.load(Ordering::Acquire) {
            return Err(EROFS);
        }
        Ok(())
    }

    /// EIO after a shutdown.
    pub(crate) fn readable(&self) -> Result {
        if self.is_shutdown() {
            return Err(EIO);
        }
        Ok(())
    }

    /// Makes the mount read-only or writable. Before it goes read-only, the caller syncs.
    pub fn set_read_only(&self, ro: bool) {
        self.read_only.store(ro, Ordering::Release);
    }

    /// Why the filesystem must not be made writable, if it must not.
    pub fn forbidden(&self) -> Option<MountError> {
        let given_up = || {
            let reason = "the AG tree is damaged; run fsck.ordofs";
            self.space
                .given_up()
                .then(|| MountError::new(EUCLEAN, reason))
        };
        self.forbidden
            .or_else(|| self.replayed().forbids())
            .or_else(given_up)
    }

    /// The report of this mount's replay.
    pub fn replayed(&self) -> Replayed {
        *self.log.replayed.lock()
    }

    /// Sets the time between commits, in seconds, at least 1.
    pub fn set_commit_secs(&self, secs: u32) {
        self.opts.lock().commit_secs = secs.max(1);
    }

    /// Sets whether freed blocks are discarded.
    pub fn set_discard(&self, on: bool) {
        self.opts.lock().discard = on;
    }

    /// The options in force.
    pub fn options(&self) -> MountOptions {
        *self.opts.lock()
    }

    /// Whether the filesystem is shut down: by an error that it cannot go on from, or by the
    /// shutdown ioctl.
    pub fn is_shutdown(&self) -> bool {
        self.shutdown.load(Ordering::Acquire)
    }

    /// The device's name, for messages.
    pub fn device_name(&self) -> &str {
        self.node_store.device().name()
    }

    /// Shuts the filesystem down, because something failed half-way and must not be committed. From
    /// now on nothing is written, and the disk stays as the last commit left it. `what` names the
    /// failed step in the kernel's log.
    pub fn abort(&self, what: &str) {
        if !self.shutdown.swap(true, Ordering::AcqRel) {
            pr_err!("{}: shutting down: {}\n", self.device_name(), what);
        }
    }

    /// EIO if the device may have dropped something that it had accepted. Called after a flush:
    /// that a flush succeeds says nothing of what an earlier one, of another task, has lost.
    pub(crate) fn check_device(&self) -> Result {
        if self.node_store.device().lost() {
            return Err(EIO);
        }
        Ok(())
    }
}
