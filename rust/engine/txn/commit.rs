// SPDX-License-Identifier: GPL-2.0

//! Commits: from the running transaction to a superblock on stable storage.
//!
//! 1. Under the commit mutex, and for a moment under the exclusive side of the barrier: take the list of
//!    dirty inodes, mark each as due for a snapshot, do the same for the running allocation deltas, and
//!    let the next transaction run. No lock of an inode or an AG is waited for there, because it may be
//!    held across a read from the device. No operation waits for I/O of a commit, but for the last resort
//!    of a full disk ([`Fs::commit_and_enter`]).
//!    Then, with the barrier open, take the snapshots. An operation of the next transaction that comes to
//!    a due inode first takes its snapshot before it changes anything ([`Txn::dirty`](crate::engine::txn::Txn::dirty)): either way it
//!    shows the inode as it was when the barrier was closed, since nothing but operations changes what is
//!    in it.
//! 2. Write out the inodes' trees, put their records into the inode tree, keep the orphan tree in step,
//!    write both out.
//! 3. The allocation trees describe their own nodes: apply deltas and give addresses until nothing
//!    changes any more, then write them out.
//! 4. Flush; superblock with FUA into the slot of this generation (R8: not before everything it points
//!    to is on stable storage). The other slot still has the generation before.
//! 5. What this generation freed may be used again (R7).
//!
//! An error before step 4 has put nothing on disk that anybody refers to; the filesystem then shuts
//! down, since its memory has moved on.

use crate::engine::alloc::ag::Owner;
use crate::engine::alloc::Priority;
use crate::engine::btree::{NodeSink, Snapshot};
use crate::engine::format::inode::{InodeRecord, RootForm, STATE_TRUNCATE};
use crate::engine::format::NodePtr;
use crate::engine::fs::Fs;
use crate::engine::inode::snapshot::{InodeSnap, TreeSnap};
use crate::engine::inode::Inode;
use crate::engine::state::commit::CommitState;
use crate::os::atomic::Ordering;
use crate::os::{now, trace, uptime, Block, NoFs, Shared};
use kernel::prelude::*;

/// Nodes written in one go.
const BATCH: usize = 256;
/// Promised nodes at which the commit thread is woken.
const SOFT_LIMIT: i64 = 4096;
/// Shortest discard in blocks.
const MIN_DISCARD: u64 = 16;

/// Gives addresses and gathers nodes for writing.
struct Sink<'a> {
    fs: &'a Fs,
    generation: u64,
    allocated: u64,
    goal: Option<u64>,
    batch: KVec<(u64, Block)>,
    /// Addresses taken beforehand, for trees whose lock the allocator needs.
    pool: KVVec<u64>,
}

impl Sink<'_> {
    fn take(&mut self) -> Result<u64> {
        let run = self
            .fs
            .space
            .alloc(&self.fs.st, 1, self.goal, Owner::Committing)?;
        self.allocated += 1;
        self.goal = Some(run.start + 1);
        Ok(run.start)
    }

    fn submit(&mut self) -> Result {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut refs = KVec::with_capacity(self.batch.len(), GFP_KERNEL)?;
        for (at, b) in self.batch.iter() {
            refs.push((*at, b), GFP_KERNEL)?;
        }
        self.fs.st.device().write(&refs)?;
        drop(refs);
        self.batch.clear();
        Ok(())
    }
}

impl NodeSink for Sink<'_> {
    fn fsid(&self) -> u64 {
        self.fs.st.fsid()
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn alloc(&mut self) -> Result<u64> {
        match self.pool.pop() {
            Some(a) => Ok(a),
            None => self.take(),
        }
    }

    fn write(&mut self, addr: u64, image: Block) -> Result {
        self.fs.st.forget(addr);
        self.batch.push((addr, image), GFP_KERNEL)?;
        if self.batch.len() >= BATCH {
            self.submit()?;
        }
        Ok(())
    }
}

/// What the barrier froze.
struct Frozen {
    generation: u64,
    /// Inodes that are due for a snapshot.
    due: KVVec<Shared<Inode>>,
    promised: i64,
    next_ino: u64,
    inodes: u64,
    /// Where the log stood: position and number.
    log: (u64, u64),
}

impl Fs {
    /// Makes everything that happened up to now durable.
    pub fn sync(&self) -> Result {
        let target = self.running_generation();
        self.commit_upto(target, false)
    }

    /// Makes what happened to the inode durable: by the log, else by a commit.
    pub fn sync_inode(&self, inode: &Inode) -> Result {
        if self.read_only.load(Ordering::Acquire) {
            // Nothing can have changed but by replay in memory, which the log has.
            return self.readable();
        }
        let changed = inode.changed.load(Ordering::Acquire);
        if self.durable_generation() >= changed && !self.log_pending() {
            return self.readable();
        }
        self.writable()?;
        match self.log_sync(inode) {
            Ok(true) => Ok(()),
            // Full, or something that the log cannot say: a commit says it all.
            Ok(false) => self.sync(),
            Err(e) => {
                self.abort("writing the log");
                Err(e)
            }
        }
    }

    /// Commits unless generation `target` is durable; never during replay. Group commit: whoever waited
    /// for the mutex while somebody else's commit took its changes along finds that out here.
    pub(crate) fn commit_upto(&self, target: u64, even_if_clean: bool) -> Result {
        let mut strict = None;
        loop {
            // Not under the commit mutex: a completion may want to commit.
            self.pay_owed();
            if self.try_commit(target, even_if_clean)? {
                return Ok(());
            }
            strict.get_or_insert_with(|| self.owed.be_strict());
        }
    }

    /// [`Fs::sync`] for completions of I/O, which must not wait for data in flight: does nothing while a
    /// rename owes data that is.
    pub(crate) fn sync_unless_owed(&self) -> Result {
        self.try_commit(self.running_generation(), false)?;
        Ok(())
    }

    /// [`Fs::commit_upto`]; false if there are debts to pay first.
    fn try_commit(&self, target: u64, even_if_clean: bool) -> Result<bool> {
        self.readable()?;
        // Replay is one transaction: a commit in the middle of it would make half of the log
        // durable, and the rest look as if it were older.
        if self.read_only.load(Ordering::Acquire) || self.replaying.load(Ordering::Acquire) {
            return Ok(true);
        }
        let mut c = self.commit.lock();
        self.readable()?;
        if self.durable_generation() >= target {
            return Ok(true);
        }
        if self.dirty.lock().is_empty() && !even_if_clean {
            return Ok(true);
        }
        let _nofs = NoFs::enter();
        let r = self.commit_locked(&mut c);
        if r.is_err() {
            self.abort("commit failed");
        }
        r
    }

    /// Decides what belongs to the commit. Runs on the exclusive side of the barrier, so it waits for no
    /// lock of an inode or an AG that is held across a read. `None`: a rename owes data that is in flight,
    /// and has to be waited for first.
    fn freeze(&self) -> Result<Option<Frozen>> {
        // An operation that aborts does so before it leaves the barrier: what is half done may be here, and
        // stays here.
        self.readable()?;
        if self.owed.in_flight() {
            return Ok(None);
        }
        let due = core::mem::replace(&mut *self.dirty.lock(), KVVec::new());
        for inode in due.iter() {
            // Still "dirty" for the inode table until its record is in the inode tree.
            inode.committing.store(true, Ordering::Release);
            inode.dirty.store(false, Ordering::Release);
            inode.due.store(true, Ordering::Release);
        }
        self.space.freeze();
        let promised = self.commit_reserved.swap(0, Ordering::Relaxed);
        let next_ino = self.next_ino.load(Ordering::Relaxed);
        let inodes = self.inodes.load(Ordering::Relaxed).max(0) as u64;
        let generation = self.running.fetch_add(1, Ordering::AcqRel);
        let log = self.log.freeze();
        Ok(Some(Frozen {
            generation,
            due,
            promised,
            next_ino,
            inodes,
            log,
        }))
    }

    /// Takes the snapshot of an inode that is due for one; it waits in the inode for the commit.
    pub(crate) fn take_due(&self, inode: &Inode) -> Result {
        if !inode.due.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut snap = inode.snap.lock();
        if inode.due.load(Ordering::Acquire) {
            *snap = Some(inode.take_snapshot()?);
            inode.due.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// The snapshots of the inodes that are due, those among them that operations took.
    fn snapshots(
        &self,
        due: KVVec<Shared<Inode>>,
    ) -> Result<KVVec<(Shared<Inode>, KBox<InodeSnap>)>> {
        let mut snaps = KVVec::with_capacity(due.len(), GFP_KERNEL)?;
        for inode in due {
            self.take_due(&inode)?;
            // INVARIANT: it was due, so one has been taken, and only a commit takes it from there.
            let snap = inode.snap.lock().take().ok_or(EIO)?;
            snaps.push((inode, snap), GFP_KERNEL)?;
        }
        Ok(snaps)
    }

    /// Commits with operations locked out all the while, and enters the barrier with `n` blocks reserved
    /// before they come back: for operations that make room and must not be refused because of what
    /// others may need, have promised, or have freed and not committed. Answers whether there was enough.
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

    fn try_commit_and_enter(&self, n: u64) -> Result<Option<bool>> {
        let mut c = self.commit.lock();
        self.writable()?;
        let _nofs = NoFs::enter();
        let r = self.barrier.exclusive_then(
            || {
                let Some(f) = self.freeze()? else {
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

    fn commit_locked(&self, c: &mut CommitState) -> Result<bool> {
        match self.barrier.exclusive(|| self.freeze())? {
            Some(f) => self.commit_frozen(c, f).map(|()| true),
            None => Ok(false),
        }
    }

    fn commit_frozen(&self, c: &mut CommitState, f: Frozen) -> Result {
        self.last_commit.store(uptime(), Ordering::Relaxed);
        trace::commit_start(self.dev(), f.generation, f.due.len() as u64);
        let snaps = self.snapshots(f.due)?;
        let mut sink = Sink {
            fs: self,
            generation: f.generation,
            allocated: 0,
            goal: None,
            batch: KVec::new(),
            pool: KVVec::new(),
        };
        for (inode, s) in snaps.iter() {
            self.commit_inode(c, &mut sink, inode.ino(), s)?;
        }
        c.sb.inode_root = {
            let snap = self.itree.write().snapshot()?;
            self.free_dead(&snap)?;
            snap.write_out(&mut sink)?
        };
        c.sb.orphan_root = {
            let snap = c.orphans.snapshot()?;
            self.free_dead(&snap)?;
            snap.write_out(&mut sink)?
        };
        self.commit_alloc(c, &mut sink)?;
        sink.submit()?;
        let allocated = sink.allocated;
        drop(sink);

        c.sb.generation = f.generation;
        c.sb.next_ino = f.next_ino;
        c.sb.inodes = f.inodes;
        (c.sb.log_pos, c.sb.log_seq) = f.log;
        c.sb.committed = now();
        // R8: data and nodes first, then the superblock that refers to them.
        self.st.device().flush()?;
        self.nothing_lost()?;
        c.sb.write(self.st.device())?;
        // A device without FUA of its own had it in its cache: the flush behind it is one like any other.
        self.nothing_lost()?;

        if self.opts.lock().discard {
            // Advice only: what fails here fails nobody.
            let _ = self.space.freed_runs(|at, len| {
                if len >= MIN_DISCARD {
                    let _ = self.st.device().discard(at, len);
                }
            });
        }
        self.space.finish_commit();
        // The commit paid with what operations promised it; the difference was forecast badly.
        let diff = f.promised - allocated as i64;
        if diff >= 0 {
            self.space.unreserve(diff as u64);
        } else {
            self.space.reserve_forced(diff.unsigned_abs());
        }
        self.durable.store(f.generation, Ordering::Release);
        trace::commit_durable(self.dev(), f.generation, allocated);
        self.log.committed(f.log.0);
        self.thaw(c, f.generation, snaps)
    }

    /// After the commit: written nodes go to the cache, committed extent maps are clean, inodes that
    /// nobody uses leave the table.
    fn thaw(
        &self,
        c: &mut CommitState,
        durable: u64,
        snaps: KVVec<(Shared<Inode>, KBox<InodeSnap>)>,
    ) -> Result {
        for (inode, snap) in snaps {
            // The snapshots hold the nodes; they must go before the trees can let go of them.
            drop(snap);
            {
                let mut m = inode.maps.write();
                m.tree.demote(&self.st)?;
                m.ems.committed(durable);
                m.ems.recount(&self.em_count);
            }
            inode.dir.write().demote(&self.st)?;
            inode.xattr.write().demote(&self.st)?;
            inode.committing.store(false, Ordering::Release);
            let ino = inode.ino();
            drop(inode);
            self.let_go(self.itable.reap(ino));
        }
        self.itree.write().demote(&self.st)?;
        c.orphans.demote(&self.st)?;
        for i in 0..self.space.ag_count() {
            self.space.ag(i)?.tree.demote(&self.st)?;
        }
        Ok(())
    }

    fn free_dead(&self, snap: &Snapshot) -> Result {
        for addr in snap.dead() {
            // Nobody asks for it any more.
            self.st.forget(addr);
            self.space.free(&self.st, addr, 1, true)?;
        }
        Ok(())
    }

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

    fn commit_inode(
        &self,
        c: &mut CommitState,
        sink: &mut Sink<'_>,
        ino: u64,
        s: &InodeSnap,
    ) -> Result {
        let extents = self.commit_tree(sink, &s.extents, !s.deleted)?;
        let dir = self.commit_tree(sink, &s.dir, !s.deleted)?;
        let xattr = self.commit_tree(sink, &s.xattr, !s.deleted)?;
        let orphan = !s.deleted && (s.attrs.nlink == 0 || s.state & STATE_TRUNCATE != 0);
        if orphan {
            c.orphans.insert(&self.st, ino, &[1])?;
        } else {
            c.orphans.remove(&self.st, ino)?;
        }
        if s.deleted {
            self.itree.write().remove(&self.st, ino)?;
            return Ok(());
        }
        let rec = InodeRecord {
            attrs: s.attrs,
            blocks: s.blocks,
            state: s.state,
            parent: s.parent,
            generation: sink.generation,
            extents: root_form(&s.extents, extents),
            dir: root_form(&s.dir, dir),
            xattr: root_form(&s.xattr, xattr),
        };
        let mut v = KVec::new();
        rec.encode(&mut v)?;
        self.itree.write().insert(&self.st, ino, &v)
    }

    /// Step 3. Terminates: a round changes something only if it touched a bitmap or dirtied a node that
    /// no earlier round did, and bitmaps are replaced in place.
    fn commit_alloc(&self, c: &mut CommitState, sink: &mut Sink<'_>) -> Result {
        let n = self.space.ag_count();
        loop {
            let mut changed = false;
            for i in 0..n {
                let (dead, need) = {
                    let mut ag = self.space.ag(i)?;
                    let (ch, by) = ag.apply(&self.st)?;
                    changed |= ch;
                    c.sb.free = c.sb.free.saturating_add_signed(by);
                    (ag.tree.take_dead(), ag.tree.dirty_nodes())
                };
                for addr in dead.iter().filter_map(|d| d.addr()) {
                    self.st.forget(addr);
                    self.space.free(&self.st, addr, 1, true)?;
                    changed = true;
                }
                if need > 0 {
                    sink.goal.get_or_insert(self.space.ag_start(i));
                    for _ in 0..need {
                        let a = sink.take()?;
                        sink.pool.push(a, GFP_KERNEL)?;
                    }
                    self.space.ag(i)?.tree.assign(sink)?;
                    changed = true;
                    if !sink.pool.is_empty() {
                        return Err(EIO);
                    }
                }
            }
            if !changed {
                break;
            }
        }
        for i in 0..n {
            let snap = self.space.ag(i)?.tree.snapshot()?;
            let root = snap.write_out(sink)?;
            if let Some(slot) = c.sb.ag_roots.get_mut(i) {
                *slot = root;
            }
        }
        Ok(())
    }

    /// Called at the end of each operation: a lot to write wakes the commit thread.
    pub(crate) fn poke_commit(&self) {
        let much = self.commit_reserved.load(Ordering::Relaxed) > SOFT_LIMIT;
        if much && !self.woken.swap(true, Ordering::AcqRel) {
            self.wake.wake_all();
        }
    }

    /// The commit thread sleeps here, at most `ms` milliseconds, and as long as the system is frozen.
    pub fn commit_wait(&self, ms: u64) {
        self.wake
            .wait_freezable(ms, || self.woken.load(Ordering::Acquire));
    }

    /// The commit thread's work: commits when it is time or when there is much to write.
    pub fn commit_tick(&self) -> Result {
        let woken = self.woken.swap(false, Ordering::AcqRel);
        let secs = u64::from(self.opts.lock().commit_secs.max(1));
        let age = uptime().saturating_sub(self.last_commit.load(Ordering::Relaxed));
        if (woken || age >= secs) && !self.dirty.lock().is_empty() {
            return self.sync();
        }
        Ok(())
    }
}

fn root_form(t: &TreeSnap, root: Option<NodePtr>) -> RootForm<'_> {
    match (&t.inline, root) {
        (Some(items), _) if !items.is_empty() => RootForm::Inline(items),
        (None, Some(p)) => RootForm::Ptr(p),
        _ => RootForm::Empty,
    }
}
