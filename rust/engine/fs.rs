// SPDX-License-Identifier: GPL-2.0

//! A mounted filesystem: the state that everything shares. The operations are methods of [`Fs`] in the
//! modules that they belong to.

use crate::engine::alloc::Space;
use crate::engine::btree::NodeStore;
use crate::engine::btree::{Tree, ValueBuf};
use crate::engine::format::corrupt;
use crate::engine::format::inode::InodeRecord;
use crate::engine::inode::maps::extent_map::Counts;
use crate::engine::inode::table::{InodeTable, Lookup};
use crate::engine::inode::Inode;
use crate::engine::lock_class;
use crate::engine::log::replayed::Replayed;
use crate::engine::log::Log;
use crate::engine::state::barrier::Barrier;
use crate::engine::state::commit::CommitState;
use crate::engine::state::owed::Owed;
use crate::engine::types::*;
use crate::os::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use crate::os::{trace, LockMap, Mutex, NoFs, RwLock, Shared, WaitQueue};
use core::num::NonZeroU64;
use kernel::prelude::*;

/// What never changes while mounted.
pub struct Geometry {
    /// Blocks of the filesystem.
    pub total: u64,
    /// Blocks of an AG.
    pub ag_blocks: NonZeroU64,
    /// Inode number of the root directory.
    pub root_ino: u64,
    /// UUID.
    pub uuid: [u8; 16],
    /// Label, NUL-padded.
    pub label: [u8; 64],
}

/// Inodes without a clean extent map that the shrinker looks at in one go.
const SWEEP: u64 = 1024;

/// A mounted filesystem.
pub struct Fs {
    pub(crate) st: NodeStore,
    pub(crate) geometry: Geometry,
    pub(crate) hash_key: [u64; 2],
    pub(crate) opts: Mutex<MountOptions>,
    pub(crate) space: Space,
    pub(crate) itable: InodeTable,
    /// The inode tree; only commits change it. True for inodes that are not in `itable`.
    pub(crate) itree: RwLock<Tree>,
    pub(crate) commit: Mutex<CommitState>,
    pub(crate) barrier: Barrier,
    /// What renames owe.
    pub(crate) owed: Owed,
    /// Had by those who complete ordered extents.
    pub(crate) ordered_map: LockMap,
    /// Inodes that the running transaction changed.
    pub(crate) dirty: Mutex<KVVec<Shared<Inode>>>,
    /// The generation that operations run in; the one before is committed or being committed.
    pub(crate) running: AtomicU64,
    /// The newest generation that is on stable storage.
    pub(crate) durable: AtomicU64,
    pub(crate) next_ino: AtomicU64,
    pub(crate) inodes: AtomicI64,
    /// Blocks that the next commit has been promised.
    pub(crate) commit_reserved: AtomicI64,
    /// Blocks reserved for the metadata of delalloc.
    pub(crate) delalloc_meta: AtomicI64,
    pub(crate) em_count: Counts,
    /// When the last commit began, by [`crate::os::uptime`].
    pub(crate) last_commit: AtomicU64,
    pub(crate) wake: WaitQueue,
    pub(crate) woken: AtomicBool,
    pub(crate) read_only: AtomicBool,
    forbidden: Option<MountError>,
    /// The fsync log.
    pub(crate) log: Log,
    pub(crate) replaying: AtomicBool,
    shutdown: AtomicBool,
}

/// The parts that mounting and mkfs put together.
pub struct Parts {
    /// Node store.
    pub st: NodeStore,
    /// Geometry.
    pub geometry: Geometry,
    /// Key of the name hash.
    pub hash_key: [u64; 2],
    /// Options.
    pub opts: MountOptions,
    /// Why it must stay read-only.
    pub forbidden: Option<MountError>,
    /// Space.
    pub space: Space,
    /// Inode tree.
    pub itree: Tree,
    /// What commits work on.
    pub commit: CommitState,
    /// Generation on disk.
    pub generation: u64,
    /// First inode number never used.
    pub next_ino: u64,
    /// Inodes in use.
    pub inodes: u64,
}

impl Fs {
    /// Puts a filesystem together.
    #[inline(never)]
    pub(crate) fn assemble(p: Parts) -> Result<Shared<Self>> {
        let barrier = Barrier::new(p.st.reads().clone())?;
        let fs = Self {
            st: p.st,
            geometry: p.geometry,
            hash_key: p.hash_key,
            read_only: AtomicBool::new(p.opts.read_only),
            forbidden: p.forbidden,
            log: Log::new(&p.commit.sb)?,
            replaying: AtomicBool::new(false),
            opts: Mutex::new(&lock_class::OPTIONS, p.opts)?,
            space: p.space,
            itable: InodeTable::new()?,
            itree: RwLock::new(&lock_class::INODE_TREE, p.itree)?,
            commit: Mutex::new(&lock_class::COMMIT, p.commit)?,
            barrier,
            owed: Owed::new()?,
            ordered_map: LockMap::new(&lock_class::ORDERED_WAIT)?,
            dirty: Mutex::new(&lock_class::DIRTY, KVVec::new())?,
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

    /// Label, without padding.
    pub fn label(&self) -> &[u8] {
        let l = &self.geometry.label;
        let n = l.iter().position(|b| *b == 0).unwrap_or(l.len());
        l.get(..n).unwrap_or(&[])
    }

    /// The node store, for tools that look at trees.
    pub fn node_store(&self) -> &NodeStore {
        &self.st
    }

    /// The device's number, for traces.
    #[inline]
    pub(crate) fn dev(&self) -> u32 {
        self.st.device().id()
    }

    /// Generation that operations run in.
    pub fn running_generation(&self) -> u64 {
        self.running.load(Ordering::Acquire)
    }

    /// Newest generation on stable storage.
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

    /// Remount: nothing is written any more, or again. The caller synced before going read-only.
    pub fn set_read_only(&self, ro: bool) {
        self.read_only.store(ro, Ordering::Release);
    }

    /// Why it must not be made writable, if so.
    pub fn forbidden(&self) -> Option<MountError> {
        let given_up = || {
            let reason = "an allocation tree is damaged; run fsck.ordofs";
            self.space
                .given_up()
                .then(|| MountError::new(EUCLEAN, reason))
        };
        self.forbidden
            .or_else(|| self.replayed().forbids())
            .or_else(given_up)
    }

    /// What the replay of this mount did.
    pub fn replayed(&self) -> Replayed {
        *self.log.replayed.lock()
    }

    /// Seconds between commits.
    pub fn set_commit_secs(&self, secs: u32) {
        self.opts.lock().commit_secs = secs.max(1);
    }

    /// Whether freed blocks are discarded.
    pub fn set_discard(&self, on: bool) {
        self.opts.lock().discard = on;
    }

    /// The options in force.
    pub fn options(&self) -> MountOptions {
        *self.opts.lock()
    }

    /// Did the filesystem stop after an error that it cannot go on from?
    pub fn is_shutdown(&self) -> bool {
        self.shutdown.load(Ordering::Acquire)
    }

    /// What messages call the device.
    pub fn device_name(&self) -> &str {
        self.st.device().name()
    }

    /// Something failed half-way that must not be committed: nothing is written from now on; what is
    /// on disk stays as the last commit left it.
    pub fn abort(&self, what: &str) {
        if !self.shutdown.swap(true, Ordering::AcqRel) {
            pr_err!("{}: shutting down: {}\n", self.device_name(), what);
        }
    }

    /// EIO if the device may have dropped something that it had taken: asked after a flush, whose
    /// success says nothing of what an earlier one, of another task, has lost.
    pub(crate) fn nothing_lost(&self) -> Result {
        if self.st.device().lost() {
            return Err(EIO);
        }
        Ok(())
    }

    /// Numbers for statfs(2).
    pub fn statfs(&self) -> StatFs {
        let (free, pinned, pool) = self.space.counts();
        let used = self.inodes.load(Ordering::Relaxed).max(0) as u64;
        StatFs {
            blocks: self.geometry.total,
            bfree: free + pinned + pool,
            // What an operation that takes it all has to write besides is not available.
            bavail: (free + pinned).saturating_sub(self.space.bitmaps_to_come()),
            files: used.saturating_add(free),
            ffree: free,
        }
    }

    /// Blocks that are reserved for the metadata of dirty data. Most of them will not be needed: writing the
    /// data back gives them back.
    pub fn held_for_dirty_data(&self) -> u64 {
        self.delalloc_meta.load(Ordering::Relaxed).max(0) as u64
    }

    /// Blocks that operations have promised the next commit: they are reserved, and [`Fs::statfs`] does
    /// not count them as free.
    pub fn promised(&self) -> u64 {
        self.commit_reserved.load(Ordering::Relaxed).max(0) as u64
    }

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

    /// Clean extent maps and cached nodes: what a shrinker could free.
    pub fn shrink_count(&self) -> u64 {
        self.clean_maps() + self.st.cached()
    }

    fn clean_maps(&self) -> u64 {
        self.em_count.clean.load(Ordering::Relaxed).max(0) as u64
    }

    /// Frees up to `n` cached nodes and clean extent maps (R2, R6: nothing that anybody needs), of both
    /// their share. Waits for no lock whose holder may be waiting for memory.
    pub fn shrink_scan(&self, n: u64) -> u64 {
        let maps = self.clean_maps();
        let all = maps.saturating_add(self.st.cached()).max(1);
        let share = if n < all {
            n.saturating_mul(maps).div_ceil(all)
        } else {
            maps
        };
        let done = self.shrink_maps(share);
        done + self.st.shrink(n.saturating_sub(done))
    }

    fn shrink_maps(&self, want: u64) -> u64 {
        // One at least: the count of the clean ones is not exact.
        let want = want.max(1);
        if self.em_count.all.load(Ordering::Relaxed) <= 0 {
            return 0;
        }
        let (mut done, mut seen) = (0, 0);
        self.itable.sweep(|i| {
            seen += 1;
            if let Some(mut m) = i.maps.try_write() {
                let (k, kept) = m.ems.shrink(want - done);
                m.ems.recount(&self.em_count);
                if k + kept > 0 {
                    let (dev, kept) = (self.dev(), kept as u64);
                    trace::release_maps(dev, i.ino(), 0, u64::MAX, k as u64, kept, true);
                }
                done += k as u64;
            }
            // Most inodes may have none: the next call goes on here.
            done < want && seen < want.saturating_add(SWEEP)
        });
        done
    }
}
