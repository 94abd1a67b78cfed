// SPDX-License-Identifier: GPL-2.0

//! The queue of inodes that are deleted in the background. The deletion itself is in
//! `engine/ops/reap.rs`.
//!
//! # Model
//!
//! An inode enters the queue when its last user is gone, with a reference of its own, if it has many
//! blocks and a thread *serves* the queue. It leaves it when everything that it had is free. After an
//! error it *rests* for a while; what rests does not count as available. The queue is bounded ([`MOST`]); behind that the evicting task deletes by itself, so it
//! is slowed down to what the device can do.
//!
//! The queue is in memory only. An inode without names is in the orphan tree as well, so after a
//! crash the next mount deletes it.
//!
//! # Locks
//!
//! `stepper` is held by the task that frees something, across a transaction and the commit that it
//! may wait for, so it comes before all locks that these need. `queue` is innermost.
//!
//! Tests: `tools/engine/tests/reap.rs`, `tests/vm/t/059-background-deletion.sh`.

use crate::engine::inode::Inode;
use crate::engine::lock_class;
use crate::os::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::os::{Map, Mutex, Shared, WaitQueue};
use kernel::prelude::*;

/// The most inodes in the queue.
pub const MOST: usize = 1024;
/// An inode with fewer blocks than this is not queued, 4 MiB.
pub const MIN_BLOCKS: u64 = 1024;

/// How often the deletion of an inode may fail before it is left to the next mount.
const MAX_FAILURES: u32 = 20;

/// An inode in the queue.
struct Entry {
    inode: Shared<Inode>,
    /// How often a step has failed.
    failures: u32,
    /// It is not tried again before [`Reaper::retry`].
    rests: bool,
}

/// What a step has done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Something is left.
    More,
    /// The inode leaves the queue.
    Done,
    /// An error that may be gone later.
    Failed,
}

/// The inodes to be deleted.
pub struct Reaper {
    /// By number.
    queue: Mutex<Map<u64, Entry>>,
    /// How many of them do not rest.
    len: AtomicU64,
    /// The blocks that those still have.
    blocks: AtomicU64,
    /// A thread takes inodes out of the queue. Changed under `queue`.
    serving: AtomicBool,
    /// The filesystem is frozen: nothing is freed.
    paused: AtomicBool,
    /// How many steps have been done.
    steps: AtomicU64,
    /// One task frees something at a time.
    pub stepper: Mutex<()>,
    /// On this the thread sleeps.
    pub work: WaitQueue,
    /// On this tasks sleep that need space.
    progress: WaitQueue,
}

impl Reaper {
    /// An empty queue that no thread serves. ENOMEM.
    pub fn new() -> Result<Self> {
        Ok(Self {
            queue: Mutex::new(&lock_class::REAP_QUEUE, Map::new())?,
            len: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            serving: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            steps: AtomicU64::new(0),
            stepper: Mutex::new(&lock_class::REAPER, ())?,
            work: WaitQueue::new()?,
            progress: WaitQueue::new()?,
        })
    }

    /// From now on inodes are queued, or they are not.
    pub fn serve(&self, on: bool) {
        let _queue = self.queue.lock();
        self.serving.store(on, Ordering::Release);
    }

    /// From now on no step begins, or steps go on.
    pub fn pause(&self, on: bool) {
        self.paused.store(on, Ordering::Release);
        match on {
            // A step that is under way ends.
            true => {
                drop(self.stepper.lock());
                self.progress.wake_all();
            }
            false => self.work.wake_all(),
        }
    }

    /// Whether no step may begin.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Queues an inode that has `blocks` blocks. Returns it if it is not queued.
    pub fn add(&self, inode: Shared<Inode>, blocks: u64) -> Option<Shared<Inode>> {
        let entry = Entry {
            inode: inode.clone(),
            failures: 0,
            rests: false,
        };
        let mut queue = self.queue.lock();
        let room = self.serving.load(Ordering::Acquire) && queue.len() < MOST;
        if !room || queue.insert(inode.ino(), entry).is_err() {
            return Some(inode);
        }
        self.blocks.fetch_add(blocks, Ordering::Relaxed);
        self.len.fetch_add(1, Ordering::Release);
        drop(queue);
        self.work.wake_all();
        None
    }

    /// The inode to go on with.
    pub fn first(&self) -> Option<Shared<Inode>> {
        let queue = self.queue.lock();
        let mut from = 0;
        while let Some((ino, entry)) = queue.first_ge(from) {
            if !entry.rests {
                return Some(entry.inode.clone());
            }
            from = ino.checked_add(1)?;
        }
        None
    }

    /// A step has been done: the inode `ino` had `before` blocks, and has `after`. Returns whether the
    /// inode has left the queue, which it does after too many failures as well.
    pub fn step_done(&self, ino: u64, before: u64, after: u64, outcome: Outcome) -> bool {
        let mut queue = self.queue.lock();
        let (mut leaves, mut rests) = (outcome == Outcome::Done, false);
        if let Some(entry) = queue.get_mut(&ino).filter(|_| outcome == Outcome::Failed) {
            entry.failures += 1;
            rests = entry.failures < MAX_FAILURES;
            entry.rests = rests;
            leaves = !rests;
        }
        let gone = match leaves {
            true => queue.remove(&ino),
            false => None,
        };
        let left = match leaves || rests {
            true => 0,
            false => after,
        };
        let less = before.saturating_sub(left);
        self.blocks.fetch_sub(less, Ordering::Relaxed);
        if leaves || rests {
            self.len.fetch_sub(1, Ordering::Release);
        }
        drop(queue);
        // The last reference may free the inode.
        drop(gone);
        self.steps.fetch_add(1, Ordering::Release);
        self.progress.wake_all();
        leaves
    }

    /// What failed is tried again. `blocks` returns how many an inode has; it may take locks of the
    /// inode, so it is called with none held.
    pub fn retry(&self, blocks: impl Fn(&Inode) -> u64) {
        let mut from = 0;
        loop {
            let next = {
                let queue = self.queue.lock();
                let next = queue.first_ge(from);
                next.map(|(ino, e)| (ino, e.inode.clone(), e.rests))
            };
            let Some((ino, inode, rests)) = next else {
                return;
            };
            if rests {
                let n = blocks(&inode);
                let mut queue = self.queue.lock();
                if let Some(entry) = queue.get_mut(&ino).filter(|e| e.rests) {
                    entry.rests = false;
                    self.blocks.fetch_add(n, Ordering::Relaxed);
                    self.len.fetch_add(1, Ordering::Release);
                }
            }
            match ino.checked_add(1) {
                Some(next) => from = next,
                None => return,
            }
        }
    }

    /// Whether nothing is queued that does not rest. Takes no lock.
    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    /// The blocks that the inodes in the queue still have, but for those that rest.
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// How many steps have been done.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Acquire)
    }

    /// Waits until more than `seen` steps have been done. Returns false if none will be: nothing is
    /// queued, or the filesystem is frozen.
    pub fn wait_for_step(&self, seen: u64) -> bool {
        let idle = || self.is_empty() || self.is_paused();
        if self.steps() == seen && !idle() {
            self.progress.wait_until(|| self.steps() != seen || idle());
        }
        self.steps() != seen
    }
}
