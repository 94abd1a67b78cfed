// SPDX-License-Identifier: GPL-2.0

//! Commits: from the running transaction to a superblock on stable storage.
//!
//! 1. Freeze, under the commit mutex and for a moment under the exclusive side of the barrier: take
//!    the list of dirty inodes and let the next transaction begin. Nothing is done for each inode
//!    or AG: that their snapshots and their deltas are *due* follows from numbers that go up
//!    ([`crate::engine::inode::listed`], [`Space::freeze`](crate::engine::alloc::Space::freeze)).
//!    The commit waits there for no lock that may be held across a read from the device, such as an
//!    inode's `maps` or the lock of an AG ([`crate::engine::state::barrier`]). So the barrier makes
//!    no operation wait for I/O of a commit, with one exception: the last resort of a full disk
//!    ([`Fs::commit_and_enter`]).
//!
//!    Then, with the barrier open again, take the snapshots. An operation of the next transaction
//!    that reaches a due inode first takes that inode's snapshot, before it changes anything
//!    ([`Txn::dirty`](crate::engine::txn::Txn::dirty)). Either way the snapshot shows the inode as
//!    it was when the barrier was closed, because only operations change what is in it.
//! 2. Write out the inodes' trees, put their records into the inode tree, bring the orphan tree up
//!    to date, and write out both.
//! 3. Write the space trees, which describe their own nodes ([`super::space`]).
//! 4. Flush, then write the superblock with FUA into the slot of this generation. R8: everything
//!    that the superblock points to is on stable storage before it. The other slot still has the
//!    generation before.
//! 5. Release the blocks that this generation freed (R7).
//!
//! After an error the filesystem shuts down, because its state in memory is ahead of the disk and
//! cannot be taken back. Before step 4 nothing on disk refers to what the commit wrote, so the next
//! mount finds the last generation intact.
//!
//! Locks: the commit mutex from step 1 to step 5, which makes commits follow each other; the
//! exclusive side of the barrier in step 1 only, but for that last resort; locks of inodes, AGs and
//! the inode tree one at a time. Debts of renames are paid before the mutex is taken. Addresses and
//! counts are in blocks; a node takes one for each of its copies.
//!
//! Tests: tools/engine/tests/crash.rs, abort.rs, slow_reads.rs (nothing waits behind the barrier),
//! full_disk.rs, commit_age.rs, tools/engine/tests/forecast/main.rs (reservations suffice);
//! tools/models/tests/rules/r7.rs, r8.rs; tools/crash; tests/vm/t/063-write-errors.sh.

use super::sink::Sink;
use crate::engine::alloc::ag::FreedBy;
use crate::engine::alloc::Priority;
use crate::engine::btree::{NodeSink, Snapshot};
use crate::engine::format::inode::{InodeRecord, RootForm, STATE_TRUNCATE};
use crate::engine::format::superblock::STATE_CLEAN;
use crate::engine::format::NodePtr;
use crate::engine::fs::Fs;
use crate::engine::inode::snapshot::{InodeSnap, TreeSnap};
use crate::engine::inode::Inode;
use crate::engine::invariant::{broken, check, Invariant};
use crate::engine::mutant::{self, Mutant};
use crate::engine::state::commit::CommitState;
use crate::engine::types::MAX_FILE_BLOCKS;
use crate::os::atomic::Ordering;
use crate::os::{now, trace, uptime, NoFs, Shared};
use kernel::prelude::*;

/// What a commit does when nothing is dirty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfIdle {
    /// Nothing: all is durable.
    Nothing,
    /// It writes a superblock all the same.
    Commit,
    /// The same, and the superblock says that the filesystem was unmounted cleanly.
    MarkClean,
    /// The same, and the mount is read-only from then on.
    GoReadOnly,
}

impl IfIdle {
    /// Does the superblock say that the filesystem was unmounted cleanly?
    fn marks(self) -> bool {
        matches!(self, Self::MarkClean | Self::GoReadOnly)
    }
}

/// Nodes reserved for the next commit at which the commit thread is woken.
pub(super) const SOFT_LIMIT: i64 = 4096;
/// How many more commits a sync makes to free blocks of the deferred tree.
const MORE_COMMITS: usize = 2;
/// The shortest run of blocks that is discarded.
const MIN_DISCARD: u64 = 16;

/// What belongs to a commit, noted while the barrier was closed.
struct Frozen {
    /// The superblock says that the filesystem was unmounted cleanly.
    mark: bool,
    generation: u64,
    /// Inodes of the frozen transaction; each was due for a snapshot.
    due: KVVec<Shared<Inode>>,
    reserved: i64,
    next_ino: u64,
    inodes: u64,
    /// Position and sequence number of the next batch at that moment.
    log: (u64, u64),
    /// The AG that was next in turn as a home: a replay makes the directories that came afterwards.
    data_goal: u64,
}

impl Fs {
    /// Makes all operations that have returned durable, by a commit. Must not be called inside a
    /// transaction. EIO after a shutdown. Any other error is that of the commit, and has shut the
    /// filesystem down.
    pub fn sync(&self) -> Result {
        self.commit_all()?;
        // A commit that has replaced many nodes of space trees leaves their blocks to the next ones.
        for _ in 0..MORE_COMMITS {
            if !self.commit_deferred()? {
                break;
            }
        }
        Ok(())
    }

    /// If the deferred tree has blocks to be freed: commits, which frees some of them. Returns whether
    /// it did. Must not be called inside a transaction.
    pub(super) fn commit_deferred(&self) -> Result<bool> {
        if self.space.deferred() == 0
            || self.space.given_up()
            || self.read_only.load(Ordering::Acquire)
        {
            return Ok(false);
        }
        self.commit_upto(self.running_generation(), IfIdle::Commit)?;
        Ok(true)
    }

    /// As [`Fs::sync`], but blocks that more commits could free may be left, and if nothing is dirty,
    /// nothing is written.
    pub fn commit_all(&self) -> Result {
        self.commit_upto(self.running_generation(), IfIdle::Nothing)
    }

    /// Makes an inode durable: its data, attributes and names, and with them every earlier
    /// operation. Appends to the log if possible, and commits otherwise. The caller has waited for
    /// the writeback of the inode's pages. Must not be called inside a transaction. EIO if
    /// something may not be durable.
    pub fn sync_inode(&self, inode: &Inode) -> Result {
        if self.read_only.load(Ordering::Acquire) {
            // The only changes were made by a replay in memory, and the log on disk has those; or
            // before a remount, whose commit may still be under way.
            drop(self.commit.lock());
            return self.readable();
        }
        let changed = inode.changed.load(Ordering::Acquire);
        if self.durable_generation() >= changed && !self.log_pending() {
            return self.readable();
        }
        self.writable()?;
        match self.log_sync(inode) {
            Ok(true) => Ok(()),
            // The log is full, or records were dropped: only a commit can make this durable.
            Ok(false) => self.commit_all(),
            Err(e) => {
                self.abort("cannot write the log");
                Err(e)
            }
        }
    }

    /// Commits unless generation `target` is durable already; does nothing during replay and on a
    /// read-only mount. Group commit: a task that waited for the mutex while another commit
    /// included its changes finds generation `target` durable and returns. `if_idle` says what to do
    /// if no inode is dirty. Must not be called inside a transaction.
    pub(crate) fn commit_upto(&self, target: u64, if_idle: IfIdle) -> Result {
        let mut strict = None;
        loop {
            // Before the commit mutex is taken: paying waits for writes in flight, and a completion
            // that is short of space commits.
            self.pay_owed();
            if self.try_commit(target, if_idle)? {
                return Ok(());
            }
            strict.get_or_insert_with(|| self.owed.be_strict());
        }
    }

    /// [`Fs::sync`] for completions of I/O. A completion must not wait for data in flight, which
    /// may be its own, so this does nothing while a rename owes data that is in flight.
    pub(crate) fn sync_unless_owed(&self) -> Result {
        self.try_commit(self.running_generation(), IfIdle::Nothing)?;
        Ok(())
    }

    /// One attempt of [`Fs::commit_upto`]. Returns false if the caller must pay debts of renames
    /// first.
    fn try_commit(&self, target: u64, if_idle: IfIdle) -> Result<bool> {
        self.readable()?;
        // Replay is one transaction. A commit in the middle of it would make a part of the log
        // durable under a new superblock, and the next replay would skip the rest as older than
        // that.
        if self.read_only.load(Ordering::Acquire) || self.replaying.load(Ordering::Acquire) {
            return Ok(true);
        }
        let mut c = self.commit.lock();
        self.readable()?;
        let done = match if_idle.marks() {
            true => self.marked_clean.load(Ordering::Acquire),
            false => self.durable_generation() >= target,
        };
        if done && if_idle == IfIdle::GoReadOnly {
            // No transaction runs, and one that is to begin waits for the mutex.
            self.set_read_only(true);
        }
        if done || (self.dirty.is_empty() && if_idle == IfIdle::Nothing) {
            return Ok(true);
        }
        let _nofs = NoFs::enter();
        let r = self.commit_locked(&mut c, if_idle);
        if r.is_err() {
            self.abort("commit failed");
        }
        r
    }

    /// Decides what belongs to the commit. Runs under the exclusive side of the barrier, so it does
    /// nothing for each dirty inode or AG, and takes no lock that may be held across a read: of an
    /// inode only `ordered`, for the debts of renames, and of an AG none.
    /// Returns `None` if a rename owes data that is in flight, which the caller must wait for
    /// first.
    fn freeze(&self, if_idle: IfIdle) -> Result<Option<Frozen>> {
        // An operation that aborts does so before it leaves the barrier. So if it left a change
        // half done, this check finds the shutdown, and no commit includes that change.
        self.readable()?;
        // While the superblock is marked as clean, a rename that owes data has not begun, and waits
        // for this commit.
        if !self.marked_clean.load(Ordering::Acquire) && self.owed.in_flight() {
            return Ok(None);
        }
        let due = self.dirty.freeze();
        self.space.freeze();
        let reserved = self.commit_reserved.swap(0, Ordering::Relaxed);
        let next_ino = self.next_ino.load(Ordering::Relaxed);
        let inodes = self.inodes.load(Ordering::Relaxed).max(0) as u64;
        let data_goal = self.space.data_goal();
        let generation = self.running.fetch_add(1, Ordering::AcqRel);
        let log = self.log.freeze();
        if if_idle.marks() {
            // Inside the barrier: a task that enters it from now on sees this, and has to clear the
            // mark first.
            self.marked_clean.store(true, Ordering::Release);
            if if_idle == IfIdle::GoReadOnly {
                self.set_read_only(true);
            }
        }
        Ok(Some(Frozen {
            mark: if_idle.marks(),
            generation,
            due,
            reserved,
            next_ino,
            inodes,
            log,
            data_goal,
        }))
    }

    /// If the inode is due, takes its snapshot, which stays in `Inode::snap` until the commit
    /// fetches it. Called by the commit, and by operations before they change the inode, with none
    /// of its locks held.
    pub(crate) fn take_due(&self, inode: &Inode) -> Result {
        let running = self.dirty.number();
        if !inode.listed.is_due(running) {
            return Ok(());
        }
        let mut snap = inode.snap.lock();
        if inode.listed.is_due(running) {
            *snap = Some(inode.take_snapshot()?);
            inode.listed.set_taken();
        }
        Ok(())
    }

    /// Collects the snapshots of the due inodes, including those that operations took.
    fn snapshots(
        &self,
        due: KVVec<Shared<Inode>>,
    ) -> Result<KVVec<(Shared<Inode>, KBox<InodeSnap>)>> {
        let mut snaps = KVVec::with_capacity(due.len(), GFP_KERNEL)?;
        for inode in due {
            self.take_due(&inode)?;
            // INVARIANT: the inode was due, so its snapshot has been taken, and only a commit
            // removes it.
            let snap = inode.snap.lock().take().ok_or_else(|| {
                broken(
                    Invariant::Snapshot,
                    format_args!("inode {} has none", inode.ino()),
                )
            })?;
            snaps.push((inode, snap), GFP_KERNEL)?;
        }
        Ok(snaps)
    }

    /// Commits while the barrier is closed, then enters the barrier with `n` blocks reserved before
    /// any other operation can enter. For operations that make room on a full disk: they must not
    /// fail because of blocks that other operations have reserved, or have freed without a commit.
    /// Returns whether there was enough space; if not, the caller is outside of the barrier. Must
    /// not be called inside a transaction.
    pub(crate) fn commit_and_enter(&self, n: u64) -> Result<bool> {
        let mut strict = None;
        loop {
            self.pay_owed();
            if let Some(enough) = self.try_commit_and_enter(n)? {
                return Ok(enough);
            }
            strict.get_or_insert_with(|| self.owed.be_strict());
        }
    }

    /// One attempt of [`Fs::commit_and_enter`]. Returns `None` if the caller must pay debts of
    /// renames first.
    fn try_commit_and_enter(&self, n: u64) -> Result<Option<bool>> {
        let mut c = self.commit.lock();
        self.writable()?;
        let _nofs = NoFs::enter();
        let r = self.barrier.exclusive_then(
            || {
                let Some(f) = self.freeze(IfIdle::Commit)? else {
                    return Ok(None);
                };
                self.commit_frozen(&mut c, f)?;
                Ok(Some(self.space.reserve(n, Priority::Reclaim).is_ok()))
            },
            |r| *r == Ok(Some(true)),
        );
        if r.is_err() {
            self.abort("commit failed");
        }
        r
    }

    /// Freezes the running transaction and commits it. Returns false if the caller must pay debts
    /// of renames first. After an error the caller shuts the filesystem down.
    pub(super) fn commit_locked(&self, c: &mut CommitState, if_idle: IfIdle) -> Result<bool> {
        match self.barrier.exclusive(|| self.freeze(if_idle))? {
            Some(f) => self.commit_frozen(c, f).map(|()| true),
            None => Ok(false),
        }
    }

    /// Commits a frozen transaction: the snapshots of step 1, and steps 2 to 5. The caller holds
    /// the commit mutex, and shuts the filesystem down after an error.
    fn commit_frozen(&self, c: &mut CommitState, mut f: Frozen) -> Result {
        self.last_commit.store(uptime(), Ordering::Relaxed);
        trace::commit_start(self.dev(), f.generation, f.due.len() as u64);
        self.check_generation(c, f.generation)?;
        let due = core::mem::replace(&mut f.due, KVVec::new());
        let resized = self.begin_job(c, f.generation)?;
        let snaps = self.snapshots(due)?;
        let mut sink = Sink::new(self, f.generation);
        sink.foresee(snaps.iter().map(|(_, s)| nodes_of(s)).sum());
        for (inode, s) in snaps.iter() {
            self.commit_inode(c, &mut sink, inode, s)?;
        }
        c.sb.inode_root = {
            let snap = self.itree.write().snapshot()?;
            self.free_dead(&snap)?;
            sink.foresee(snap.unassigned_nodes());
            snap.write_out(&mut sink)?
        };
        c.sb.orphan_root = {
            let snap = c.orphans.snapshot()?;
            self.free_dead(&snap)?;
            sink.foresee(snap.unassigned_nodes());
            snap.write_out(&mut sink)?
        };
        self.commit_space(c, &mut sink)?;
        sink.finish()?;
        let allocated = sink.allocated();
        drop(sink);

        self.space.check_free(&self.node_store, c.sb.free)?;
        self.fill_superblock(c, &f);
        // R8: data and nodes are on stable storage before the superblock refers to them.
        self.node_store.device().flush()?;
        self.check_device()?;
        c.sb.write(self.node_store.device())?;
        // A device without FUA cached the superblock, and the block layer flushed behind it. That
        // flush can fail like any other.
        self.check_device()?;

        if let Some(resized) = resized {
            self.finish_resize(c, &resized)?;
        }
        if self.opts.lock().discard {
            // Discard is advisory, so errors are ignored.
            let _ = self.space.freed_runs(|at, len| {
                if len >= MIN_DISCARD {
                    let _ = self.node_store.device().discard(at, len);
                }
            });
        }
        self.space
            .finish_commit(&self.node_store, self.surplus(c))?;
        // reserved = allocated + returned: operations have reserved so many blocks for this commit,
        // and it allocated `allocated`. If it needed more than was reserved, the difference is
        // taken by force.
        let diff = f.reserved - allocated as i64;
        if diff >= 0 {
            self.space.unreserve(diff as u64);
        } else {
            self.space.reserve_forced(diff.unsigned_abs());
        }
        if !f.mark {
            self.marked_clean.store(false, Ordering::Release);
        }
        self.durable.store(f.generation, Ordering::Release);
        trace::commit_durable(self.dev(), f.generation, allocated);
        self.log.committed(f.log.0);
        self.thaw(c, f.generation, snaps)
    }

    /// How many blocks of the deferred tree the next commits free: those that are not closed, and those
    /// that are.
    pub(super) fn surplus(&self, c: &CommitState) -> (u64, u64) {
        let (copies, limit) = (self.space.copies(), self.space.limit());
        c.deferred.surplus(copies, limit)
    }

    /// Puts what a transaction has changed, beside the roots of trees, into the superblock.
    fn fill_superblock(&self, c: &mut CommitState, f: &Frozen) {
        c.next = f.generation.saturating_add(1);
        let count_mount = core::mem::take(&mut c.count_mount);
        let sb = &mut *c.sb;
        sb.generation = f.generation;
        sb.next_ino = f.next_ino;
        sb.inodes = f.inodes;
        (sb.log_pos, sb.log_seq) = f.log;
        sb.committed = now();
        sb.node_goal = self.space.node_goals().0;
        sb.data_goal = f.data_goal.min(sb.blocks.saturating_sub(1));
        sb.state &= !STATE_CLEAN;
        if f.mark {
            sb.state |= STATE_CLEAN;
        }
        if count_mount {
            sb.mounts = sb.mounts.saturating_add(1);
            sb.mounted = sb.committed;
        }
    }

    /// The generation of a commit is the one that was to come, and its superblock goes to the other slot.
    fn check_generation(&self, c: &CommitState, generation: u64) -> Result {
        check(
            Invariant::Generation,
            generation == c.next,
            format_args!("{generation} is committed, {} was to come", c.next),
        )?;
        check(
            Invariant::Slot,
            (generation ^ c.sb.generation) & 1 == 1,
            format_args!("{generation} would replace {}", c.sb.generation),
        )
    }

    /// After the commit: moves written nodes to the node cache, marks committed extent maps clean,
    /// and drops unused inodes from the table.
    fn thaw(
        &self,
        c: &mut CommitState,
        durable: u64,
        snaps: KVVec<(Shared<Inode>, KBox<InodeSnap>)>,
    ) -> Result {
        for (inode, snap) in snaps {
            // A snapshot shares the nodes of its tree, and a tree gives up only nodes that it owns
            // alone.
            drop(snap);
            {
                let mut m = inode.maps.write();
                m.tree.demote(&self.node_store)?;
                m.extent_maps.committed(durable);
                m.extent_maps.recount(&self.em_count);
            }
            inode.dir.write().demote(&self.node_store)?;
            inode.xattr.write().demote(&self.node_store)?;
            inode.listed.set_done();
            let ino = inode.ino();
            drop(inode);
            self.evict(self.itable.reap(ino));
        }
        self.itree.write().demote(&self.node_store)?;
        c.orphans.demote(&self.node_store)?;
        Ok(())
    }

    /// Frees the blocks of the nodes that a tree has replaced since its last snapshot.
    fn free_dead(&self, snap: &Snapshot) -> Result {
        for addr in snap.dead() {
            // Nothing refers to the node any more. A stale entry would only take memory, because
            // the cache checks generation and checksum.
            self.node_store.forget(addr);
            self.space
                .free(&self.node_store, addr, 1, FreedBy::Commit)?;
        }
        Ok(())
    }

    /// Writes out a tree of an inode. Returns its root, or `None` if the tree is inline, empty or
    /// not to be written.
    fn commit_tree(
        &self,
        sink: &mut Sink<'_>,
        t: &TreeSnap,
        write: bool,
    ) -> Result<Option<NodePtr>> {
        self.free_dead(&t.snapshot)?;
        if !write || t.inline.is_some() {
            return Ok(None);
        }
        t.snapshot.write_out(sink)
    }

    /// Step 2 for one inode: writes out its trees, and updates its records in the inode tree and
    /// the orphan tree.
    fn commit_inode(
        &self,
        c: &mut CommitState,
        sink: &mut Sink<'_>,
        inode: &Inode,
        s: &InodeSnap,
    ) -> Result {
        let ino = inode.ino();
        let extents = self.commit_tree(sink, &s.extents, !s.deleted)?;
        let dir = self.commit_tree(sink, &s.dir, !s.deleted)?;
        let xattr = self.commit_tree(sink, &s.xattr, !s.deleted)?;
        let orphan = !s.deleted && (s.attrs.nlink == 0 || s.state & STATE_TRUNCATE != 0);
        if orphan {
            c.orphans.insert(&self.node_store, ino, &[1])?;
        } else {
            c.orphans.remove(&self.node_store, ino)?;
        }
        if s.deleted {
            self.itree.write().remove(&self.node_store, ino)?;
            return Ok(());
        }
        let rec = InodeRecord {
            attrs: s.attrs,
            blocks: s.blocks,
            state: s.state,
            cut: match mutant::is(Mutant::CutForgotten) {
                true if s.state & STATE_TRUNCATE != 0 => MAX_FILE_BLOCKS - 1,
                _ => s.cut,
            },
            parent: s.parent,
            generation: sink.generation(),
            extents: root_form(&s.extents, extents),
            dir: root_form(&s.dir, dir),
            xattr: root_form(&s.xattr, xattr),
            data: &[],
            crypt: &[],
            verity: &[],
            ignorable: inode.ignorable(),
        };
        let mut v = KVec::new();
        rec.encode(&mut v)?;
        self.itree.write().insert(&self.node_store, ino, &v)
    }

    /// Called at the end of each operation: wakes the commit thread if much is to be written.
    pub(crate) fn wake_commit_thread(&self) {
        let much = self.nodes_for_commit() > SOFT_LIMIT;
        if much && !self.woken.swap(true, Ordering::AcqRel) {
            self.wake.wake_all();
        }
    }

    /// The commit thread sleeps here: for at most `ms` milliseconds, or longer while the system is
    /// frozen.
    pub fn commit_wait(&self, ms: u64) {
        self.wake
            .wait_freezable(ms, || self.woken.load(Ordering::Acquire));
    }

    /// One round of the commit thread: commits if an inode is dirty, and the thread was woken or the
    /// commit interval has passed.
    pub fn commit_tick(&self) -> Result {
        let woken = self.woken.swap(false, Ordering::AcqRel);
        let secs = u64::from(self.opts.lock().commit_secs.max(1));
        let age = uptime().saturating_sub(self.last_commit.load(Ordering::Relaxed));
        if (woken || age >= secs) && !self.dirty.is_empty() {
            return self.commit_all();
        }
        Ok(())
    }
}

/// How many nodes of an inode's trees a commit will write.
fn nodes_of(s: &InodeSnap) -> u64 {
    let written = |t: &TreeSnap| match t.inline {
        None if !s.deleted => t.snapshot.unassigned_nodes(),
        _ => 0,
    };
    written(&s.extents) + written(&s.dir) + written(&s.xattr)
}

/// How an inode record stores the root of a tree.
fn root_form(t: &TreeSnap, root: Option<NodePtr>) -> RootForm<'_> {
    match (&t.inline, root) {
        (Some(items), _) if !items.is_empty() => RootForm::Inline(items),
        (None, Some(p)) => RootForm::Ptr(p),
        _ => RootForm::Empty,
    }
}
