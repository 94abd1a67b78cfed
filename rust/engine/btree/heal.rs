// SPDX-License-Identifier: GPL-2.0

//! Bad copies of nodes: what readers have found.
//!
//! # Model
//!
//! A reader that finds the first copy of a node bad uses the second one and leaves a note. It writes
//! nothing, because it may hold locks that others wait for, and reclaim may wait for it. The commit
//! thread takes the notes and writes the copies anew (`engine/txn/heal.rs`).
//!
//! A note is no more than a hint: by the time it is taken, the node may have been replaced and its
//! blocks may have another owner. So the commit thread looks whether the pointer is part of the newest
//! durable tree (`btree/descend.rs`).
//!
//! # Bounds
//!
//! There are at most [`MAX_NOTES`] notes; a bad copy for which there is no room is noted again when it
//! is read again. A copy is written anew once in a mount, whether that succeeds or not ([`State::tried`]),
//! and at most [`MAX_TRIED`] copies are: a device that takes no writes, or forgets them, must not get
//! one for each read. A scrub asks for all that it finds, once for each.
//!
//! Locks: the list has a mutex, innermost; nothing is allocated under it by readers.
//!
//! Tests: `tools/engine/tests/copies`.

use crate::engine::format::{NodePtr, TreeId};
use crate::engine::lock_class;
use crate::os::atomic::{AtomicU64, Ordering};
use crate::os::{Map, Mutex};
use kernel::prelude::*;

/// The most notes.
const MAX_NOTES: usize = 64;
/// The most copies that are written anew in a mount because a reader has found them bad.
const MAX_TRIED: usize = 4096;

/// A node of which a copy was found bad.
#[derive(Clone, Copy)]
pub(crate) struct BadCopy {
    /// The pointer to it.
    pub ptr: NodePtr,
    /// The tree.
    pub id: TreeId,
    /// A key that leads to it.
    pub key: u64,
}

struct State {
    /// Made with its room.
    notes: KVec<BadCopy>,
    /// The copies that were written anew: the address of the node, and its generation.
    tried: Map<u64, u64>,
}

/// The bad copies of a mount.
pub struct BadCopies {
    state: Mutex<State>,
    /// The number of notes, for a look without the lock.
    noted: AtomicU64,
    read: AtomicU64,
    healed: AtomicU64,
    failed: AtomicU64,
    /// Until then nothing is healed, by [`crate::os::uptime`].
    rests_until: AtomicU64,
}

impl BadCopies {
    /// None. ENOMEM.
    pub(super) fn new() -> Result<Self> {
        let state = State {
            notes: KVec::with_capacity(MAX_NOTES, GFP_KERNEL)?,
            tried: Map::new(),
        };
        Ok(Self {
            state: Mutex::new(&lock_class::BAD_COPIES, state)?,
            noted: AtomicU64::new(0),
            read: AtomicU64::new(0),
            healed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rests_until: AtomicU64::new(0),
        })
    }

    /// A reader has found a copy bad. Returns whether that is noted for the first time. Allocates nothing.
    pub(super) fn found(&self, bad: BadCopy) -> bool {
        self.read.fetch_add(1, Ordering::Relaxed);
        let mut s = self.state.lock();
        let tried = s.tried.get(&bad.ptr.addr) == Some(&bad.ptr.generation);
        let noted = s.notes.iter().any(|n| n.ptr == bad.ptr);
        // Without room, a later reader notes it. Not after the last try: the look would be in vain.
        let room = s.notes.len() < MAX_NOTES && s.tried.len() < MAX_TRIED;
        let new = !tried && !noted && room && s.notes.push(bad, GFP_KERNEL).is_ok();
        if new {
            self.noted.store(s.notes.len() as u64, Ordering::Relaxed);
        }
        new
    }

    /// Takes a note, if there is one.
    pub(crate) fn take(&self) -> Option<BadCopy> {
        if self.noted.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut s = self.state.lock();
        let note = s.notes.pop();
        self.noted.store(s.notes.len() as u64, Ordering::Relaxed);
        note
    }

    /// A copy of this node is about to be written anew because of a note. False if it must not be.
    pub(crate) fn may_try(&self, ptr: &NodePtr) -> bool {
        let mut s = self.state.lock();
        s.tried.len() < MAX_TRIED
            && s.tried.get(&ptr.addr) != Some(&ptr.generation)
            && s.tried.insert(ptr.addr, ptr.generation).is_ok()
    }

    /// Nothing is healed before this time, but by a scrub.
    pub(crate) fn rests_until(&self) -> u64 {
        self.rests_until.load(Ordering::Relaxed)
    }

    /// The device is slow: nothing is healed before this time.
    pub(crate) fn rest_until(&self, time: u64) {
        self.rests_until.store(time, Ordering::Relaxed);
    }

    /// A copy was written anew, or that failed.
    pub(crate) fn written(&self, r: Result) {
        let count = if r.is_ok() {
            &self.healed
        } else {
            &self.failed
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a node was read from its second copy.
    pub fn reads(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// How many copies were written anew.
    pub fn healed(&self) -> u64 {
        self.healed.load(Ordering::Relaxed)
    }

    /// How many copies could not be written anew.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}
