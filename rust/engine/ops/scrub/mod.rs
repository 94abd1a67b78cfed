// SPDX-License-Identifier: GPL-2.0

//! Scrub: reads everything that is in use from the device, past all caches, and compares it with
//! its checksums, while the filesystem is in use.
//!
//! # Model
//!
//! A [`Scrub`] goes through the AG tree and the trees of groups, the deferred tree, the orphan tree,
//! and the inode tree; for each inode it reads the extent tree with the data, the directory, and the
//! extended attributes. It does so in small steps ([`Fs::scrub_step`]). Between two steps it is a
//! [`Cursor`] and the nodes of two paths, whatever the size of the filesystem, and holds neither a
//! lock nor an inode. All copies of a node are read, and a bad one is written anew from a good one
//! ([`crate::engine::txn`], `heal`), unless the mount is read-only.
//!
//! What is in use when the scrub begins, and still is when it comes there, is read once; leaves of
//! the inode tree also through the cache, and paths again after the tree has changed above them. What
//! is written meanwhile may be left out: the scrub does not run after new inodes, or after files that
//! grow. Records of inodes, AGs, groups, extents and directories are decoded; those of the other
//! trees are covered by the checksums of their nodes. Superblocks and log are not read: each commit
//! writes the former anew, and the mount checks both.
//!
//! The trees that the superblock points to change only in commits. A look at one of them is a look
//! at the superblock of the newest commit, under the commit mutex, which no read happens under.
//!
//! | file | what is in it |
//! |---|---|
//! | [`trees`] | the trees that the superblock points to |
//! | [`files`] | the trees and the data of an inode |
//!
//! # When something counts as damaged
//!
//! Not before a second look. For nodes see [`crate::engine::btree::scrub`], for data [`files`].
//!
//! # Locks
//!
//! No lock is held across a read of the scrub, and it never enters the barrier. It takes the commit
//! mutex to write a bad copy of a node anew, and the shared side of `maps`, `dir` and `xattr`, for
//! looks at what is in memory. Reading an inode's record, the second look at data that does not match,
//! and the look whether a bad copy may be healed, may read a node through the cache, as every operation
//! does. Reads of the scrub's own have the lowest priority, because nothing
//! waits for them.
//!
//! Tests: `tools/engine/tests/scrub.rs`, `tools/engine/tests/scrub_errors.rs`,
//! `tools/crash/tests/scrub.rs`, `tests/vm/t/068-scrub.sh`.

mod files;
mod trees;

use crate::engine::alloc::AG_TREE;
use crate::engine::btree::heal::BadCopy;
use crate::engine::btree::scrub::{Unsound, Walk};
use crate::engine::btree::TreeKind;
use crate::engine::format::BLOCK_SIZE;
use crate::engine::fs::Fs;
use crate::engine::invariant::Limit;
use crate::engine::state::scrub::*;
use crate::os::atomic::Ordering;
use crate::os::{cond_resched, now, Block, NoFs, Time};
use kernel::prelude::*;

/// The most data blocks that a step reads (256 KiB).
const DATA_STEP: usize = 64;
// A step has a bit for each.
const _: () = assert!(DATA_STEP <= u64::BITS as usize);
/// The most inodes that a step passes that need no read.
const TURNS: usize = 64;
/// The shortest pause, in milliseconds. Shorter ones are saved up.
const MIN_PAUSE_MS: u64 = 20;
/// How long the scrub waits before it tries again what it had no memory for, and looks whether a
/// frozen filesystem is thawed, in milliseconds.
const RETRY_MS: u64 = 500;
/// For messages about what is lost; those about copies that can be healed must not take their place.
static LOSSES: Limit = Limit::new();
/// For messages about bad copies of nodes of which the other one is good.
static COPIES: Limit = Limit::new();

/// Where a scrub begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// At the beginning. What the last one has found is forgotten.
    Start,
    /// Where the last one was cancelled; at the beginning if none was.
    Cancelled,
}

/// What the surroundings say between two steps of a scrub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Go {
    /// Go on.
    On,
    /// Pause, and ask again.
    Pause,
    /// End.
    Stop,
}

/// A block of a file that is to be compared.
#[derive(Clone, Copy)]
struct At {
    /// The key of its record.
    record: u64,
    /// In the file.
    block: u64,
    /// On the device.
    phys: u64,
    /// Its checksum, by the record.
    want: u32,
}

/// A scrub under way. There is one at a time.
pub struct Scrub {
    cursor: Cursor,
    /// The AG tree, then the deferred tree, the orphan tree and the inode tree.
    outer: Walk,
    /// The tree of an AG or of an inode.
    inner: Walk,
    /// The data that is being compared, and where it is from.
    data: KVec<Block>,
    blocks: KVec<At>,
    /// How many blocks of data a step reads.
    data_step: usize,
    /// The inode at hand has damage.
    bad_inode: bool,
    /// The first block behind the file at hand, when the scrub came to it; once it has come there,
    /// the first block behind the last record. It does not run after a file that grows.
    file_end: Option<u64>,
    /// It has come there.
    is_beyond: bool,
    /// How many blocks are read one by one, because a read of many has failed.
    careful: u64,
    /// How often the record of the block at the cursor could not be looked up for a second time.
    doubts: usize,
    /// The inode that could not be used although its leaf can be read, and how often that was so.
    doubtful: (u64, usize),
    /// The next inode number when the scrub began: it does not run after new inodes.
    next_ino: u64,
}

impl Fs {
    /// Begins a scrub that reads at most `rate` bytes in a second, or as fast as it can if that is 0.
    /// The caller passes it to [`Fs::scrub_run`]. EBUSY if one runs, EIO after a shutdown, ENOMEM.
    pub fn scrub_start(&self, from: From, rate: u64) -> Result<Scrub> {
        self.readable()?;
        let _nofs = NoFs::enter();
        // With a low rate the steps are small, so that it does not read in bursts.
        let data_step = match rate {
            0 => DATA_STEP,
            rate => (rate / (10 * BLOCK_SIZE as u64)).clamp(1, DATA_STEP as u64) as usize,
        };
        let mut data = KVec::with_capacity(data_step, GFP_KERNEL)?;
        for _ in 0..data_step {
            data.push(Block::zeroed()?, GFP_KERNEL)?;
        }
        let blocks = KVec::with_capacity(data_step, GFP_KERNEL)?;
        // All of it now: nothing is allocated under the lock of the report.
        let mut list = KVVec::with_capacity(MAX_LISTED, GFP_KERNEL)?;
        let s = self.statfs();
        let mut report = self.scrub.report.lock();
        let status = &mut report.status;
        if status.phase == Phase::Running {
            return Err(EBUSY);
        }
        let resumes = status.phase == Phase::Cancelled && from == From::Cancelled;
        if !resumes {
            *status = ScrubStatus {
                total_blocks: s.blocks.saturating_sub(s.bfree),
                started: now(),
                next_ino: self.next_ino.load(Ordering::Relaxed),
                run: status.run + 1,
                ..ScrubStatus::default()
            };
        }
        (status.phase, status.rate, status.ended) = (Phase::Running, rate, Time::default());
        let (cursor, next_ino) = (status.cursor, status.next_ino);
        let bad_inode = status.bad_inode_at_hand;
        if !resumes {
            core::mem::swap(&mut report.list, &mut list);
        }
        self.scrub.cancel.store(false, Ordering::Release);
        drop(report);
        Ok(Scrub {
            cursor,
            outer: Walk::new(AG_TREE),
            inner: Walk::new(AG_TREE),
            data,
            blocks,
            data_step,
            bad_inode,
            file_end: None,
            is_beyond: false,
            careful: 0,
            doubts: 0,
            doubtful: (0, 0),
            next_ino,
        })
    }

    /// Runs a scrub to its end, or until `go` says [`Go::Stop`], [`Fs::scrub_cancel`] is called, or
    /// the filesystem shuts down. `go` is called with no lock held. Waits between the steps as the
    /// rate demands. Must not be called inside a transaction.
    pub fn scrub_run(&self, mut scrub: Scrub, go: &mut dyn FnMut() -> Go) {
        let rate = self.scrub_status().rate;
        let mut owed = 0u64;
        let phase = loop {
            let next = go();
            if next == Go::Stop || self.scrub.is_cancelled() {
                break Phase::Cancelled;
            }
            if next == Go::Pause {
                self.scrub_wait(RETRY_MS);
                continue;
            }
            match self.scrub_step(&mut scrub) {
                Ok(blocks) => owed = owed.saturating_add(blocks),
                Err(e) if e == ENOMEM || e == EAGAIN => self.scrub_wait(RETRY_MS),
                Err(_) if self.scrub.is_cancelled() => break Phase::Cancelled,
                Err(_) => break Phase::Failed,
            }
            if scrub.cursor.stage == Stage::End {
                break Phase::Finished;
            }
            let bytes = owed.saturating_mul(BLOCK_SIZE as u64);
            let pause = bytes.saturating_mul(1000).checked_div(rate).unwrap_or(0);
            if pause >= MIN_PAUSE_MS {
                self.scrub_wait(pause);
                owed = 0;
            }
            cond_resched();
        };
        self.scrub_ended(phase);
    }

    /// Waits, for less time if the scrub is cancelled.
    fn scrub_wait(&self, ms: u64) {
        let scrub = &self.scrub;
        scrub.pause.wait_freezable(ms, || scrub.is_cancelled());
    }

    /// The scrub has ended.
    fn scrub_ended(&self, phase: Phase) {
        let mut report = self.scrub.report.lock();
        report.status.phase = phase;
        report.status.ended = now();
        let s = report.status;
        drop(report);
        if s.bad_copies + s.bad_records + s.bad_blocks > 0 {
            pr_err!(
                "{}: scrub: {} bad copies of nodes, {} nodes lost, {} bad records, {} bad data blocks, {} inodes\n",
                self.device_name(),
                s.bad_copies,
                s.lost_nodes,
                s.bad_records,
                s.bad_blocks,
                s.bad_inodes
            );
        }
    }

    /// The task that was to run the scrub is gone, and may never have begun: none runs now.
    pub fn scrub_abandoned(&self) {
        let mut report = self.scrub.report.lock();
        if report.status.phase == Phase::Running {
            (report.status.phase, report.status.ended) = (Phase::Cancelled, now());
        }
    }

    /// Makes the scrub end soon. ENOTCONN if none runs.
    pub fn scrub_cancel(&self) -> Result {
        if self.scrub_status().phase != Phase::Running {
            return Err(ENOTCONN);
        }
        self.scrub.cancel.store(true, Ordering::Release);
        self.scrub.pause.wake_all();
        Ok(())
    }

    /// The numbers of the scrub that runs, or of the last one.
    pub fn scrub_status(&self) -> ScrubStatus {
        self.scrub.report.lock().status
    }

    /// Passes the entries of the list of damage, from entry `first` on, to `f` until it returns
    /// false. `f` must not sleep. Returns the number of the scrub that they are of.
    pub fn scrub_damage(&self, first: u64, f: &mut dyn FnMut(&Damage) -> bool) -> u64 {
        let report = self.scrub.report.lock();
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        for d in report.list.get(first..).unwrap_or(&[]) {
            if !f(d) {
                break;
            }
        }
        report.status.run
    }

    /// One step of a scrub: reads two paths of nodes, or some times that if the trees change
    /// meanwhile, and at most 256 KiB of data; where the device cannot read data, one block. Data that
    /// does not match is read up to 8 times more if commits begin meanwhile. Returns the number of
    /// blocks read, those to heal what it has found included. ENOMEM, EAGAIN if a tree changes all the time, EINTR if the scrub is cancelled, or
    /// EIO after a shutdown; the step may be done again. At the end the stage of the cursor is [`Stage::End`].
    pub fn scrub_step(&self, s: &mut Scrub) -> Result<u64> {
        let _nofs = NoFs::enter();
        let mut read = 0;
        for _ in 0..TURNS {
            self.readable()?;
            let turned = match s.cursor.stage {
                Stage::Ags | Stage::Deferred | Stage::Orphans | Stage::Inodes => {
                    self.scrub_outer(s)
                }
                Stage::Groups => self.scrub_groups(s),
                Stage::Extents | Stage::Dir | Stage::Xattr => self.scrub_inode(s),
                Stage::End => Ok(0),
            };
            let nodes = s.outer.take_reads() + s.inner.take_reads();
            let data = turned.unwrap_or(0);
            read += nodes + data + self.scrub.healing.swap(0, Ordering::Relaxed);
            let mut report = self.scrub.report.lock();
            report.status.cursor = s.cursor;
            report.status.bad_inode_at_hand = s.bad_inode;
            report.status.nodes += nodes;
            report.status.data_blocks += data;
            drop(report);
            turned?;
            if read > 0 || s.cursor.stage == Stage::End {
                break;
            }
        }
        Ok(read)
    }

    /// Reports a node with a damaged copy, and writes that copy anew if the other one is good.
    fn note_node(&self, u: &Unsound<'_>) {
        let [first, second] = u.examined.faults;
        let bad = |fault: bool, bit| if fault { bit } else { 0 };
        let copies = bad(first.is_some(), Damage::FIRST)
            | bad(second.is_some(), Damage::SECOND)
            | bad(u.lost, Damage::LOST);
        for (fault, block) in [(first, u.ptr.addr), (second, u.ptr.addr2)] {
            let Some(fault) = fault else { continue };
            let limit = if u.lost { &LOSSES } else { &COPIES };
            self.say(
                limit,
                format_args!(
                    "{} tree of {}: copy of a node at block {block} (level {}, generation {}): {fault}",
                    u.id.kind.name(),
                    u.id.owner,
                    u.ptr.level,
                    u.ptr.generation,
                ),
            );
        }
        let mut report = self.scrub.report.lock();
        report.status.bad_copies += u64::from(first.is_some()) + u64::from(second.is_some());
        report.status.lost_nodes += u64::from(u.lost);
        report.add(Damage {
            kind: DamageKind::Node,
            tree: u.id.kind as u8,
            level: u.ptr.level,
            copies,
            owner: u.id.owner,
            block: u.ptr.addr,
            start: u.first_key,
            end: u.last_key,
        });
        drop(report);
        if !u.lost {
            let bad = BadCopy {
                ptr: u.ptr,
                id: u.id,
                key: u.first_key,
            };
            let (healed, blocks) = self.heal_scrubbed(&bad, u.examined);
            self.scrub.healing.fetch_add(blocks, Ordering::Relaxed);
            self.scrub.report.lock().status.healed += healed;
        }
    }

    /// Reports a record that cannot be true.
    fn note_record(&self, tree: TreeKind, owner: u64, key: u64) {
        let mut report = self.scrub.report.lock();
        report.status.bad_records += 1;
        report.add(Damage {
            kind: DamageKind::Record,
            tree: tree as u8,
            owner,
            start: key,
            end: key,
            ..Damage::default()
        });
    }

    /// Prints a message, if there were not too many.
    fn say(&self, limit: &Limit, what: core::fmt::Arguments<'_>) {
        if limit.allows() {
            pr_err!("{}: scrub: {}\n", self.device_name(), what);
        }
    }
}
