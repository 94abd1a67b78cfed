// SPDX-License-Identifier: GPL-2.0

//! The queue of inodes that are deleted in the background. The deletion itself is in
//! `engine/ops/reap.rs`.
//!
//! # Model
//!
//! An inode enters the queue when its last user is gone, with a reference of its own, if it has many
//! blocks and a thread *serves* the queue. It leaves it when everything that it had is free, or after
//! an error. The queue is bounded ([`MOST`]); behind that the evicting task deletes by itself, so it
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
//! Tests: `tools/engine/tests/reap.rs`, `tests/vm/t/069-background-deletion.sh`.

use crate::engine::inode::Inode;
use crate::engine::lock_class;
use crate::os::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::os::{Map, Mutex, Shared, WaitQueue};
use kernel::prelude::*;

/// The most inodes in the queue.
pub const MOST: usize = 1024;
/// An inode with fewer blocks than this is not queued, 4 MiB.
pub const MIN_BLOCKS: u64 = 1024;

/// The inodes to be deleted.
pub struct Reaper {
    /// By number.
    queue: Mutex<Map<u64, Shared<Inode>>>,
    /// How many there are.
    len: AtomicU64,
    /// The blocks that the inodes in the queue still have.
    blocks: AtomicU64,
    /// A thread takes inodes out of the queue.
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
        self.serving.store(on, Ordering::Release);
    }

    /// Whether inodes are queued.
    pub fn serves(&self) -> bool {
        self.serving.load(Ordering::Acquire)
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
        if !self.serves() {
            return Some(inode);
        }
        let mut queue = self.queue.lock();
        if queue.len() >= MOST || queue.insert(inode.ino(), inode.clone()).is_err() {
            return Some(inode);
        }
        self.blocks.fetch_add(blocks, Ordering::Relaxed);
        self.len.store(queue.len() as u64, Ordering::Release);
        drop(queue);
        self.work.wake_all();
        None
    }

    /// The inode to go on with.
    pub fn first(&self) -> Option<Shared<Inode>> {
        self.queue.lock().first().map(|(_, inode)| inode.clone())
    }

    /// A step has been done: the inode `ino` had `before` blocks, and has `after`; `None` if it leaves
    /// the queue.
    pub fn step_done(&self, ino: u64, before: u64, after: Option<u64>) {
        let less = before.saturating_sub(after.unwrap_or(0));
        self.blocks.fetch_sub(less, Ordering::Relaxed);
        let gone = match after {
            Some(_) => None,
            None => {
                let mut queue = self.queue.lock();
                let gone = queue.remove(&ino);
                self.len.store(queue.len() as u64, Ordering::Release);
                gone
            }
        };
        // The last reference may free the inode.
        drop(gone);
        self.steps.fetch_add(1, Ordering::Release);
        self.progress.wake_all();
    }

    /// Whether nothing is queued. Takes no lock.
    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    /// The blocks that the inodes in the queue still have.
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Waits until a step has been done. Returns false if none will be: nothing is queued, or the
    /// filesystem is frozen.
    pub fn wait_for_step(&self) -> bool {
        let before = self.steps.load(Ordering::Acquire);
        if self.is_empty() || self.is_paused() {
            return false;
        }
        self.progress.wait_until(|| {
            let done = self.steps.load(Ordering::Acquire) != before;
            done || self.is_empty() || self.is_paused()
        });
        self.steps.load(Ordering::Acquire) != before
    }
}
