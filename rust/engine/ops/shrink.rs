// SPDX-License-Identifier: GPL-2.0

//! A mounted filesystem becomes smaller: what lies behind the new end is moved, and the end cut off.
//!
//! # Model
//!
//! [`Fs::shrink_begin`] closes the end for allocation, or refuses if what is in use there has no room
//! elsewhere. Then [`Fs::shrink_step`] goes through all inodes, and behind them through the inode tree,
//! the orphan tree and the AGs. A step is bounded, and between two of them the shrink is a cursor: it
//! holds no lock and no inode, and nothing on disk shows it. It may end anywhere; what was moved
//! stays moved, and the end is open again.
//!
//! Written data is moved as a direct write of the same content ([`super::data`]): an ordered extent
//! keeps all else from the blocks, then the old ones are read, compared with their checksums,
//! and written to the new ones, and the completion changes the mapping in a transaction. So the
//! rules of writes in flight hold for it, and a read from the device that is under way meanwhile
//! finds, as beside any overwrite, that the mapping is another one (R5, [`Fs::verify`]). If the file has
//! lost the data meanwhile, nothing changes, and the shrink looks again (`data/moves.rs`). Data that does
//! not match its checksum ends the shrink: it stays where it is, and is named. So does a write that
//! fails, which shuts nothing down. Preallocated blocks get new ones in a transaction and stay unwritten.
//! The writes in flight of an inode are waited for before it is looked at. Nodes of an inode's trees are
//! made dirty, and all others by commits ([`crate::engine::txn::shrink`]).
//!
//! What a pass leaves behind is small: what was in flight, what a deletion in the background still
//! has, and the old blocks of space trees, which only commits free. The space behind the
//! limit knows by a number whether anything is in use there. After a pass commits follow, one a step, as
//! long as that number falls; then comes the next pass. The shrink gives up after a few passes in which
//! it did not fall ([`IN_VAIN`]), but not before a time has gone by if something is being deleted.
//!
//! Locks: those of direct writes and of transactions; the shared side of `maps`, `dir`, `xattr`, the inode tree,
//! or the commit mutex, for looks that read a bounded number of nodes.
//!
//! Tests: tools/engine/tests/shrink.rs, shrink_races.rs, shrink_space.rs, memory/shrinks.rs;
//! tools/crash/tests/shrink.rs; tests/vm/t/074-shrink.sh.

use crate::engine::alloc::ag::{Owner, GROUP_NODES};
use crate::engine::alloc::{Near, Priority};
use crate::engine::btree::{Behind, TreeKind, ValueBuf};
use crate::engine::format::ag::{AgRecord, RootForm, NOT_TRUSTED};
use crate::engine::format::extent::Extent;
use crate::engine::format::{BLOCK_SIZE, GROUP_BLOCKS};
use crate::engine::fs::Fs;
use crate::engine::inode::starting::{Ordered, Started};
use crate::engine::inode::table::Lookup;
use crate::engine::inode::Inode;
use crate::engine::ops::extents::{Budget, Old};
use crate::engine::state::commit::Touch;
use crate::engine::txn::grow::Resize;
use crate::engine::txn::{Drains, Wait};
use crate::engine::types::MAX_FILE_BLOCKS;
use crate::os::{cond_resched, crc32c, uptime, Block, NoFs, Shared};
use kernel::prelude::*;

/// How many passes may be in vain, one after the other.
const IN_VAIN: usize = 3;
/// For so many seconds they may be while tasks delete inodes: one may get no turn for a while.
const DELETING: u64 = 30;
/// And while deletions in the background make steps, which may free other blocks first.
const REAPING: u64 = 600;
/// How often a shrink that has no room looks again while deletions in the background make some.
const TRIES: u32 = 64;
/// How many inodes a step looks at.
const INODES: usize = 64;
/// How many looks and moves a step makes in one inode.
const MOVES: usize = 16;
/// How many keys a commit gets whose nodes it writes anew, if there is little space, and if not.
const KEYS: [usize; 2] = [16, 512];
/// How many looks of a step, each at up to about a hundred nodes, may find nothing.
const LOOKS: usize = 4;
/// So many commits in which no closed block becomes free end a pass: what a commit frees of the deferred
/// tree is in use until the next one.
const DRAINS: usize = 4;
/// If the deferred tree has so many blocks behind the limit, they are freed before more nodes are moved.
const MANY_DEFERRED: u64 = 8192;
/// The most nodes that changing an inode's tree at one place dirties: a path.
const PATH_NODES: u64 = 16;
/// The most nodes that moving a run of preallocated blocks dirties.
const MOVE_NODES: u64 = 40 + 4 * GROUP_NODES;

/// How far a shrink has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is no room yet, but deletions in the background make some.
    Close,
    /// The next inode.
    Inodes(u64),
    /// A tree of an inode, from this key on.
    Of(u64, TreeKind, u64),
    /// The inode tree, from this key on.
    InodeTree(u64),
    /// The orphan tree.
    Orphans(u64),
    /// AGs.
    Ags(u64),
    /// The pass is over, and so many commits since have freed nothing.
    End(usize),
    /// Nothing is left to be moved.
    Cut,
}

/// A shrink under way. When it is dropped, what was closed is open again.
pub struct Shrink<'a> {
    fs: &'a Fs,
    resize: Resize<'a>,
    stage: Stage,
    /// How many passes were in vain since one was not.
    in_vain: usize,
    /// The time of the last pass that was not, in seconds.
    since: u64,
    /// The blocks behind the limit that were free when it was looked last.
    closed: i64,
    /// The steps of deletions in the background before this pass.
    reaped: u64,
    /// What they had to free when the shrink looked for room last, and how often it has.
    queued: u64,
    tries: u32,
    /// In this pass: such a block has become free; an inode was being deleted; the last error of one that
    /// could not be used; a record of an AG that is not to be trusted.
    progress: bool,
    deleting: bool,
    unusable: Option<(u64, Error)>,
    distrust: bool,
}

impl Drop for Shrink<'_> {
    fn drop(&mut self) {
        self.fs.space.reopen();
    }
}

impl Shrink<'_> {
    /// The number of blocks before.
    pub fn from(&self) -> u64 {
        self.resize.from
    }

    /// The number of blocks that it ends with.
    pub fn to(&self) -> u64 {
        self.resize.to
    }
}

impl Fs {
    /// Begins to make the filesystem smaller, so that it has at most `blocks` blocks: it ends at the
    /// border of an AG. Nothing is moved yet. Must not be called inside a transaction.
    ///
    /// If deletions in the background make room, that is waited for by [`Fs::shrink_step`].
    ///
    /// EALREADY while another resize is under way; EINVAL if it has no more than that; EDOM if its superblocks or
    /// its log have no place in so few; ENOSPC if what is in use behind the new end has no room in
    /// the rest; EUCLEAN if an AG is damaged; EROFS; EIO; ENOMEM.
    pub fn shrink_begin(&self, blocks: u64) -> Result<Shrink<'_>> {
        let mut resize = self.resize_enter()?;
        let to = self.smaller_size(blocks)?;
        let _nofs = NoFs::enter();
        let reaped = self.reaper.steps();
        let stage = match self.close_end(to) {
            Ok(()) => Stage::Inodes(0),
            Err(ENOSPC) if !self.reaper.is_empty() || self.reaper.steps() != reaped => Stage::Close,
            Err(e) => return Err(e),
        };
        resize.to = to;
        Ok(Shrink {
            fs: self,
            resize,
            stage,
            in_vain: 0,
            since: uptime(),
            closed: self.space.closed_blocks(),
            progress: false,
            deleting: false,
            reaped,
            queued: self.reaper.blocks(),
            tries: 0,
            unusable: None,
            distrust: false,
        })
    }

    /// Does the next step. Returns whether more are to come. After an error the size is the old one, or
    /// one in between that is valid: ENOSPC if others have taken the space that was there; EIO or EUCLEAN for data
    /// or nodes that cannot be read, which are named; EBUSY if something is in use behind the end that
    /// cannot be moved now; EROFS; ENOMEM.
    pub fn shrink_step(&self, s: &mut Shrink<'_>) -> Result<bool> {
        self.writable()?;
        let _nofs = NoFs::enter();
        let limit = self.space.limit();
        let moves = !matches!(s.stage, Stage::Close | Stage::End(_) | Stage::Cut);
        if moves && self.space.is_lost_from(limit / self.space.ag_blocks()) {
            return Err(self.say_damaged());
        }
        if moves && self.space.deferred_closed() > MANY_DEFERRED {
            self.commit_touched(Touch::default())?;
            return Ok(true);
        }
        s.stage = match s.stage {
            Stage::Close => self.close_later(s)?,
            Stage::Inodes(from) => self.next_inode(s, from)?,
            Stage::Of(ino, kind, from) => self.evacuate_inode(ino, kind, from, limit)?,
            Stage::InodeTree(from) => self.evacuate_inode_tree(from, limit)?,
            Stage::Orphans(from) => self.evacuate_orphans(from, limit)?,
            Stage::Ags(from) => self.evacuate_ags(s, from, limit)?,
            Stage::End(idle) => self.drain(s, idle)?,
            Stage::Cut => return self.cut_off(s.resize.to),
        };
        Ok(true)
    }

    /// Tries again to close the end, after a step of the deletions in the background.
    fn close_later(&self, s: &mut Shrink<'_>) -> Result<Stage> {
        let more = self.reaper.wait_for_step(s.reaped);
        s.reaped = self.reaper.steps();
        let left = self.reaper.blocks();
        // Each look is a commit.
        if more && left > 0 && left.saturating_add(left / 8) > s.queued {
            return Ok(Stage::Close);
        }
        s.queued = left;
        s.tries += 1;
        match self.close_end(s.resize.to) {
            Ok(()) => {
                (s.closed, s.since) = (self.space.closed_blocks(), uptime());
                Ok(Stage::Inodes(0))
            }
            Err(ENOSPC) if more && s.tries < TRIES => Ok(Stage::Close),
            Err(e) => Err(e),
        }
    }

    /// After a pass: a commit, and as long as they free blocks behind the limit, more of them.
    fn drain(&self, s: &mut Shrink<'_>, idle: usize) -> Result<Stage> {
        self.commit_touched(Touch::default())?;
        if self.space.is_evacuated() {
            return self.evacuated(s);
        }
        let closed = self.space.closed_blocks();
        if closed > s.closed {
            (s.closed, s.progress) = (closed, true);
            return Ok(Stage::End(0));
        }
        match idle + 1 < DRAINS {
            true => Ok(Stage::End(idle + 1)),
            false => self.end_pass(s),
        }
    }

    /// Nothing is in use behind the limit, by the records of AGs. If an inode could not be looked at, that
    /// alone is not believed when some of them are damaged.
    fn evacuated(&self, s: &Shrink<'_>) -> Result<Stage> {
        match s.unusable {
            Some((ino, e)) if s.distrust || self.space.is_damaged_from(0) => {
                self.say_stays(Some(ino));
                Err(e)
            }
            _ => Ok(Stage::Cut),
        }
    }

    fn say_damaged(&self) -> Error {
        pr_err!(
            "{}: cannot become smaller: an allocation group is damaged\n",
            self.device_name()
        );
        EUCLEAN
    }

    fn say_stays(&self, ino: Option<u64>) {
        let dev = self.device_name();
        let what = "cannot become smaller: blocks behind the new end stay in use";
        match ino {
            Some(ino) => pr_err!("{dev}: {what}; inode {ino} cannot be looked at\n"),
            None => pr_err!("{dev}: {what}\n"),
        }
    }

    /// Something is left after a pass: the next one, unless too many were in vain.
    fn end_pass(&self, s: &mut Shrink<'_>) -> Result<Stage> {
        let first = self.space.limit() / self.space.ag_blocks();
        if self.space.is_damaged_from(first) {
            // What is freed there does not become free.
            return Err(self.say_damaged());
        }
        if s.progress {
            (s.in_vain, s.since) = (0, uptime());
        } else {
            s.in_vain += 1;
        }
        // Deletions in the background have blocks that no walk finds, and may free others first.
        let patience = match s.unusable {
            None if self.reaper.steps() != s.reaped => REAPING,
            _ if s.deleting => DELETING,
            _ => 0,
        };
        let patient = uptime().saturating_sub(s.since) < patience;
        if s.in_vain >= IN_VAIN && !patient {
            return Err(match s.unusable {
                Some((ino, e)) => {
                    self.say_stays(Some(ino));
                    e
                }
                None if s.distrust || self.space.is_damaged_from(0) => self.say_damaged(),
                None => {
                    self.say_stays(None);
                    EBUSY
                }
            });
        }
        let seen = self.reaper.steps();
        if !self.reaper.is_empty() {
            self.reaper.wait_for_step(seen);
        }
        s.reaped = self.reaper.steps();
        (s.progress, s.deleting) = (false, false);
        (s.unusable, s.distrust) = (None, false);
        Ok(Stage::Inodes(0))
    }

    /// Looks for the next inode that has something behind the limit.
    fn next_inode(&self, s: &mut Shrink<'_>, from: u64) -> Result<Stage> {
        let mut at = from;
        for _ in 0..INODES {
            let in_memory = self.itable.first_from(at);
            let mut v = ValueBuf::new();
            let on_disk = self.itree.read().find_ge(&self.node_store, at, &mut v)?;
            let Some(ino) = [in_memory, on_disk].into_iter().flatten().min() else {
                return Ok(Stage::InodeTree(0));
            };
            match self.inode_to_move(ino) {
                Ok(Some(inode)) => {
                    self.iput(inode);
                    return Ok(Stage::Of(ino, TreeKind::Extent, 0));
                }
                Ok(None) => s.deleting |= in_memory == Some(ino),
                Err(e) if e == ENOMEM => return Err(e),
                Err(e) => s.unusable = Some((ino, e)),
            }
            let Some(next) = ino.checked_add(1) else {
                return Ok(Stage::InodeTree(0));
            };
            at = next;
        }
        Ok(Stage::Inodes(at))
    }

    /// An inode, with a reference; `None` if it is gone.
    fn inode_to_move(&self, ino: u64) -> Result<Option<Shared<Inode>>> {
        if let Lookup::Here(inode) = self.itable.get(ino)? {
            let gone = inode.meta.lock().is_gone();
            if gone {
                self.iput(inode);
                return Ok(None);
            }
            return Ok(Some(inode));
        }
        match self.iget(ino) {
            Err(e) if e == ESTALE => Ok(None),
            r => r.map(Some),
        }
    }

    /// Moves a bounded number of things of a tree of an inode, from key `from` on.
    fn evacuate_inode(&self, ino: u64, kind: TreeKind, from: u64, limit: u64) -> Result<Stage> {
        let next = match kind {
            TreeKind::Extent => Stage::Of(ino, TreeKind::Dir, 0),
            TreeKind::Dir => Stage::Of(ino, TreeKind::Xattr, 0),
            _ => Stage::Inodes(ino.saturating_add(1)),
        };
        let Some(inode) = self.inode_to_move(ino)? else {
            return Ok(Stage::Inodes(ino.saturating_add(1)));
        };
        if kind == TreeKind::Extent && from == 0 {
            // Writes that began before the end was closed are in no tree yet.
            let next_id = inode.ordered.lock().next_id();
            self.ordered_until(&inode, || inode.ordered.lock().count_before(next_id) == 0);
        }
        let mut at = from;
        let mut r = Ok(false);
        for _ in 0..MOVES {
            r = self.evacuate_next(&inode, kind, &mut at, limit);
            if r != Ok(false) {
                break;
            }
        }
        self.iput(inode);
        Ok(match r? {
            true => next,
            false => Stage::Of(ino, kind, at),
        })
    }

    /// Moves the next thing of a tree of an inode. Returns whether nothing is left.
    fn evacuate_next(
        &self,
        inode: &Shared<Inode>,
        kind: TreeKind,
        at: &mut u64,
        limit: u64,
    ) -> Result<bool> {
        let store = &self.node_store;
        let found = match kind {
            TreeKind::Extent => {
                let room = store.space();
                let mut judge = |start: u64, v: &[u8]| {
                    let e = Extent::decode(start, v, room)?;
                    Ok(e.phys.saturating_add(e.len) > limit)
                };
                let m = inode.maps.read();
                m.tree.first_behind(store, *at, limit, Some(&mut judge))?
            }
            TreeKind::Dir => inode.dir.read().first_behind(store, *at, limit, None)?,
            _ => inode.xattr.read().first_behind(store, *at, limit, None)?,
        };
        match found {
            Behind::Nothing => return Ok(true),
            Behind::More(key) => *at = key,
            Behind::Node(key) => self.touch_path(inode, kind, key)?,
            Behind::Item(start) => {
                *at = start;
                if inode.left_behind(MAX_FILE_BLOCKS).is_some() {
                    // The rest of a truncation: it is cut off.
                    self.finish_truncation(inode, MAX_FILE_BLOCKS)?;
                } else {
                    self.move_extent(inode, start)?;
                }
            }
        }
        Ok(false)
    }

    /// The next commit writes the nodes on the path to `key` anew.
    fn touch_path(&self, inode: &Shared<Inode>, kind: TreeKind, key: u64) -> Result {
        let mut txn = self.begin(PATH_NODES, Priority::Reclaim)?;
        txn.dirty(inode)?;
        let store = &self.node_store;
        match kind {
            TreeKind::Extent => {
                let mut m = inode.maps.write();
                txn.charged(&mut m.tree, |t| t.touch(store, key))
            }
            TreeKind::Dir => txn.charged(&mut inode.dir.write(), |t| t.touch(store, key)),
            _ => txn.charged(&mut inode.xattr.write(), |t| t.touch(store, key)),
        }
    }

    /// Moves the extent whose record begins at file block `start`, or the first part of it, if it is
    /// still there.
    fn move_extent(&self, inode: &Shared<Inode>, start: u64) -> Result {
        let mut v = ValueBuf::new();
        let found = {
            let m = inode.maps.read();
            m.extent_at(&self.node_store, start, &mut v)?
        };
        // Another task may have given the file other blocks there.
        let limit = self.space.limit();
        let behind = |e: &Extent| e.start == start && e.phys.saturating_add(e.len) > limit;
        let Some(e) = found.filter(behind) else {
            return Ok(());
        };
        let moved = match e.unwritten {
            true => self.move_unwritten(inode, &e)?,
            false => self.move_written(inode, &e, &v)?,
        };
        if !moved {
            // A write in flight, which ends, or another mapping by now.
            self.wait_ordered(inode, e.start, e.len);
        }
        Ok(())
    }

    /// Moves written data. False if a write is in flight there, or the mapping has changed.
    fn move_written(&self, inode: &Shared<Inode>, e: &Extent, record: &ValueBuf) -> Result<bool> {
        let mut csums = KVec::new();
        csums.extend_from_slice(e.csum_slice(record, e.start, e.end()), GFP_KERNEL)?;
        self.throttle()?;
        self.reserve_within(e.len, &mut Drains::new(), Wait::ForDeletions)?;
        let Some(started) = self.start_move(inode, e, &csums)? else {
            return Ok(false);
        };
        let io = self.copy_blocks(&started, e.phys);
        match self.finish_write(started.ordered, 0, io) {
            Err(err) if err == EAGAIN => Ok(false),
            r => r.map(|()| true),
        }
    }

    /// Copies what is moved, from block `from` on, if it matches its checksums. EAGAIN if the file does not
    /// have it there any more; EUCLEAN or EIO, which are printed, if it cannot be read; EIO if it cannot
    /// be written.
    fn copy_blocks(&self, started: &Started, from: u64) -> Result {
        let o = &started.ordered;
        let device = self.node_store.device();
        let mut blocks = KVVec::with_capacity(started.len as usize, GFP_KERNEL)?;
        for _ in 0..started.len {
            blocks.push(Block::zeroed()?, GFP_KERNEL)?;
        }
        if let Err((i, e)) = self.read_source(o, from, &mut blocks) {
            // If the file has lost these blocks, they may be another one's by now.
            if !self.has_source(o)? {
                return Err(EAGAIN);
            }
            let at = o.start().saturating_add(i as u64);
            pr_err!(
                "{}: cannot become smaller: inode {}, data at byte {} cannot be moved: error {}\n",
                self.device_name(),
                o.inode().ino(),
                at.saturating_mul(BLOCK_SIZE as u64),
                e.to_errno()
            );
            return Err(e);
        }
        let mut reqs = KVVec::with_capacity(blocks.len(), GFP_KERNEL)?;
        for (at, block) in (started.phys..).zip(blocks.iter()) {
            reqs.push((at, block), GFP_KERNEL)?;
        }
        // If this fails, the file has its old blocks, and nothing else depends on it.
        device.write_spare_run(&reqs).inspect_err(|e| {
            pr_err!(
                "{}: cannot become smaller: data of inode {} cannot be written to block {}: error {}\n",
                self.device_name(),
                o.inode().ino(),
                started.phys,
                e.to_errno()
            );
        })
    }

    /// Reads the blocks from `from` on. An error comes with the number of the block.
    fn read_source(
        &self,
        o: &Ordered,
        from: u64,
        blocks: &mut KVVec<Block>,
    ) -> core::result::Result<(), (usize, Error)> {
        let device = self.node_store.device();
        if device.read_run(from, blocks).is_err() {
            // Which one is it?
            for (i, block) in blocks.iter_mut().enumerate() {
                let at = from.saturating_add(i as u64);
                device.read(at, block).map_err(|e| (i, e))?;
            }
        }
        let pairs = blocks.iter().zip(o.csums().chunks_exact(4));
        for (i, (block, want)) in pairs.enumerate() {
            if crc32c(0, &block[..]).to_le_bytes() != *want {
                return Err((i, EUCLEAN));
            }
        }
        Ok(())
    }

    /// Moves preallocated blocks, at most a group of them. False if a write is in flight there, or the
    /// mapping has changed.
    fn move_unwritten(&self, inode: &Shared<Inode>, e: &Extent) -> Result<bool> {
        // What lies before the limit stays.
        let from = e
            .start
            .saturating_add(self.space.limit().saturating_sub(e.phys));
        let want = e.end().saturating_sub(from).min(GROUP_BLOCKS);
        if want == 0 {
            return Ok(true);
        }
        self.reserve_within(want, &mut Drains::new(), Wait::ForDeletions)?;
        let moved = self.move_unwritten_run(inode, e, from, want);
        let used = *moved.as_ref().unwrap_or(&0);
        self.space.unreserve(want.saturating_sub(used));
        Ok(moved? > 0)
    }

    /// One transaction of [`Fs::move_unwritten`], for `want` blocks of `e` from file block `from` on. Returns
    /// how many blocks it has allocated.
    fn move_unwritten_run(
        &self,
        inode: &Shared<Inode>,
        e: &Extent,
        from: u64,
        want: u64,
    ) -> Result<u64> {
        let mut txn = self.begin(MOVE_NODES, Priority::Reclaim)?;
        txn.dirty(inode)?;
        let mut m = inode.maps.write();
        let (store, mut v) = (&self.node_store, ValueBuf::new());
        if inode.ordered.lock().overlaps(from, want)
            || Self::is_going(inode)
            || m.extent_at(store, e.start, &mut v)? != Some(*e)
        {
            return Ok(0);
        }
        let goal = self.goal(&m, from)?;
        let (_, home) = inode.size_and_home();
        let near = Near { goal, home };
        let run = self
            .space
            .append(store, want, near, Owner::Running, &mut None, 0)?;
        txn.charge(run.touched);
        let end = from.saturating_add(run.len);
        let removed = self.remove_extents(&mut txn, &mut m, from, end, Budget::ALL, Old::Free);
        if let Err(err) = removed {
            // The next commit frees these blocks. Until then they count as allocated.
            self.space.reserve_forced(run.len);
            self.free_extent(&mut txn, run.start, run.len)?;
            return Err(err);
        }
        let new = Extent {
            start: from,
            phys: run.start,
            len: run.len,
            epoch: txn.epoch(),
            ..*e
        };
        self.add_extent(&mut txn, &mut m, &new, &[])
            .inspect_err(|_| self.abort("cannot map preallocated blocks that were moved"))?;
        inode.bump(&mut m);
        Ok(run.len)
    }

    /// How many keys the next commit gets.
    fn keys(&self) -> usize {
        let [few, many] = KEYS;
        match self.space.available() > 256 * many as u64 {
            true => many,
            false => few,
        }
    }

    /// Collects keys from `from` on, on the paths to which are all nodes of a tree behind the limit, in a
    /// bounded number of looks. `look` gets the key to begin with, and whether the path to that is done
    /// with. Returns where to go on, or `None` at the end.
    fn keys_behind(
        &self,
        look: &dyn Fn(u64, bool) -> Result<Behind>,
        from: u64,
        keys: &mut KVec<u64>,
    ) -> Result<Option<u64>> {
        let (mut at, mut done) = (from, false);
        let most = self.keys();
        let mut in_vain = 0;
        while keys.len() < most && in_vain < LOOKS {
            match look(at, done)? {
                Behind::Node(key) => {
                    keys.push(key, GFP_KERNEL)?;
                    (at, done) = (key, true);
                }
                Behind::More(key) | Behind::Item(key) => {
                    (at, done) = (key, false);
                    in_vain += 1;
                }
                Behind::Nothing => return Ok(None),
            }
        }
        Ok(match done {
            true => at.checked_add(1),
            false => Some(at),
        })
    }

    fn evacuate_inode_tree(&self, from: u64, limit: u64) -> Result<Stage> {
        let mut touch = Touch::default();
        let store = &self.node_store;
        let look = |at, done| match done {
            true => self.itree.read().next_behind(store, at, limit),
            false => self.itree.read().first_behind(store, at, limit, None),
        };
        let next = self.keys_behind(&look, from, &mut touch.inodes)?;
        // So the commit finds them in the cache, and what cannot be read ends the shrink here.
        for key in touch.inodes.iter() {
            self.itree.read().contains(store, *key)?;
        }
        if !touch.inodes.is_empty() {
            self.commit_touched(touch)?;
        }
        Ok(next.map_or(Stage::Orphans(0), Stage::InodeTree))
    }

    fn evacuate_orphans(&self, from: u64, limit: u64) -> Result<Stage> {
        let mut touch = Touch::default();
        let store = &self.node_store;
        let look = |at, done| {
            let c = self.commit.lock();
            match done {
                true => c.orphans.next_behind(store, at, limit),
                false => c.orphans.first_behind(store, at, limit, None),
            }
        };
        let next = self.keys_behind(&look, from, &mut touch.orphans)?;
        for key in touch.orphans.iter() {
            self.commit.lock().orphans.contains(store, *key)?;
        }
        if !touch.orphans.is_empty() {
            self.commit_touched(touch)?;
        }
        Ok(next.map_or(Stage::Ags(0), Stage::Orphans))
    }

    /// Looks at the next AGs: nodes of the AG tree and of the trees of groups.
    fn evacuate_ags(&self, s: &mut Shrink<'_>, from: u64, limit: u64) -> Result<Stage> {
        let mut touch = Touch::default();
        let next = self.ags_behind(s, from, limit, &mut touch.ags)?;
        if !touch.ags.is_empty() {
            self.commit_touched(touch)?;
        }
        cond_resched();
        Ok(next.map_or(Stage::End(0), Stage::Ags))
    }

    /// AGs from `from` on that a commit has to write anew. Returns where to go on.
    fn ags_behind(
        &self,
        s: &mut Shrink<'_>,
        from: u64,
        limit: u64,
        ags: &mut KVec<u64>,
    ) -> Result<Option<u64>> {
        let store = &self.node_store;
        let most = self.keys();
        let tail = limit / self.space.ag_blocks();
        let mut at = from;
        for _ in 0..LOOKS {
            if at >= self.space.ag_count() || ags.len() >= most {
                break;
            }
            // The records of a leaf, as far as they have trees of nodes.
            let mut with_tree = KVec::new();
            let mut last = at;
            let whole = self.space.scan_records(store, at, &mut |i, v| {
                let rec = AgRecord::decode(i, self.space.ag_len(i), v)?;
                let distrust = rec.flags & NOT_TRUSTED != 0;
                if distrust && i >= tail {
                    return Err(self.say_damaged());
                }
                s.distrust |= distrust;
                if matches!(rec.groups, RootForm::Ptr(_)) {
                    with_tree.push(i, GFP_KERNEL)?;
                }
                last = i;
                Ok(true)
            })?;
            if whole {
                ags.push(at, GFP_KERNEL)?;
            }
            for i in with_tree.iter() {
                if self.space.has_groups_behind(store, *i)? {
                    ags.push(*i, GFP_KERNEL)?;
                }
            }
            at = last.saturating_add(1);
        }
        Ok((at < self.space.ag_count()).then_some(at))
    }
}
