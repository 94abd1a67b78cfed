// SPDX-License-Identifier: GPL-2.0

//! The list of the inodes that the running transaction has changed. The commit takes it whole, in
//! constant time, and the next transaction begins another one with the next number.
//! [`Listed`](crate::engine::inode::listed::Listed) says what an inode knows of it.
//!
//! Locks: the list has a mutex, [`lock_class::DIRTY`]. The number changes only under the exclusive
//! side of the barrier, so it stays the same inside a transaction.
//!
//! Tests: `tools/engine/tests/slow_reads.rs`, `tools/engine/tests/threads.rs`,
//! `tools/engine/tests/crash.rs`.

use crate::engine::inode::Inode;
use crate::engine::lock_class;
use crate::os::atomic::{AtomicU64, Ordering};
use crate::os::{Mutex, Shared};
use kernel::prelude::*;

/// The running list of dirty inodes.
pub(crate) struct DirtyLists {
    list: Mutex<KVVec<Shared<Inode>>>,
    number: AtomicU64,
}

impl DirtyLists {
    /// An empty list, which is the first one.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            list: Mutex::new(&lock_class::DIRTY, KVVec::new())?,
            number: AtomicU64::new(1),
        })
    }

    /// The number of the running list.
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Whether no inode is on the running list.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.lock().is_empty()
    }

    /// Puts an inode on the running list, inside a transaction; its snapshot is not due. Returns
    /// whether it was not there yet. ENOMEM.
    pub(crate) fn add(&self, inode: &Shared<Inode>) -> Result<bool> {
        let running = self.number();
        if inode.listed.is_on(running) {
            return Ok(false);
        }
        let mut list = self.list.lock();
        // The number is set under the lock, after the inode is on the list: a task that sees the
        // number may rely on the list.
        if inode.listed.is_on(running) {
            return Ok(false);
        }
        list.push(inode.clone(), GFP_KERNEL)?;
        inode.listed.put_on(running);
        Ok(true)
    }

    /// Takes the running list, and begins the next one. Under the exclusive side of the barrier, for
    /// a commit.
    pub(crate) fn freeze(&self) -> KVVec<Shared<Inode>> {
        let list = core::mem::replace(&mut *self.list.lock(), KVVec::new());
        self.number.fetch_add(1, Ordering::AcqRel);
        list
    }
}
