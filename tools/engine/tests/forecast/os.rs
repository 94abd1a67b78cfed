// SPDX-License-Identifier: GPL-2.0

//! The OS contract (docs/DESIGN.md §1) of `ordofs-engine`, which notes the number of free blocks
//! at every lock that a transaction takes, and compares it when the transaction has ended.
//!
//! A transaction reserves before it takes its first lock, and when it ends it gives back what it did not
//! use. So there must not be less free then than there was in between: less means that it used more nodes
//! than it had reserved. A transaction is known by its [`NoFs`], which it holds longer than its
//! reservation.

pub use ordofs_engine::os::*;

use crate::engine::Fs;
use kernel::prelude::Result;
use std::cell::{Cell, RefCell};

/// One [`NoFs`].
#[derive(Clone, Copy)]
struct Scope {
    before: i64,
    inside: Option<i64>,
    /// It is a commit's, which spends what others have reserved.
    commit: bool,
}

std::thread_local! {
    static WATCHED: RefCell<Option<Shared<Fs>>> = const { RefCell::new(None) };
    static SCOPES: RefCell<std::vec::Vec<Scope>> = const { RefCell::new(std::vec::Vec::new()) };
    static COMMITTED: Cell<Option<u64>> = const { Cell::new(None) };
    static TIGHTEST: Cell<Option<(i64, i64)>> = const { Cell::new(None) };
}

/// From now on this filesystem is watched, on this thread.
pub fn watch(fs: Option<Shared<Fs>>) {
    let old = WATCHED.replace(fs);
    drop(old);
    TIGHTEST.set(None);
}

/// Of the transactions since [`watch`]: the one that left the fewest nodes of its reservation, as (nodes
/// used, nodes reserved).
pub fn tightest() -> Option<(i64, i64)> {
    TIGHTEST.get()
}

/// Blocks that are not reserved, down to the last of those that are kept for urgent needs.
fn free() -> Option<i64> {
    WATCHED.with_borrow(|fs| {
        let (free, _, pool) = fs.as_ref()?.space.counts();
        Some((free + pool) as i64)
    })
}

fn weigh() {
    let Some(now) = free() else { return };
    SCOPES.with_borrow_mut(|s| {
        if let Some(scope) = s.last_mut() {
            scope.inside = Some(now);
        }
    });
}

/// No events but one.
pub mod trace {
    pub use ordofs_engine::os::trace::*;

    /// A commit has written so many nodes.
    pub fn commit_durable(_device: u32, _generation: u64, nodes: u64) {
        super::COMMITTED.set(Some(nodes));
        super::SCOPES.with_borrow_mut(|s| s.last_mut().map(|scope| scope.commit = true));
    }
}

/// Nodes that the last commit has written, if there was one since the call before.
pub fn committed() -> Option<u64> {
    COMMITTED.take()
}

/// As that of `ordofs-engine`.
pub struct NoFs(());

impl NoFs {
    /// Begins such a scope.
    pub fn enter() -> Self {
        let before = free().unwrap_or(0);
        SCOPES.with_borrow_mut(|s| {
            s.push(Scope {
                before,
                inside: None,
                commit: false,
            })
        });
        Self(())
    }
}

impl Drop for NoFs {
    fn drop(&mut self) {
        let Some(scope) = SCOPES.with_borrow_mut(|s| s.pop()) else {
            return;
        };
        let (Some(after), Some(inside)) = (free(), scope.inside) else {
            return;
        };
        // A commit may have come before the reservation: then only the difference says something.
        let (used, reserved) = (scope.before - after, scope.before - inside);
        // Other scopes reserve nothing.
        if !scope.commit
            && (reserved > 0 || used > reserved)
            && TIGHTEST.get().is_none_or(|(u, r)| r - u > reserved - used)
        {
            TIGHTEST.set(Some((used, reserved)));
        }
    }
}

/// A mutex that notes the free blocks.
pub struct Mutex<T>(ordofs_engine::os::Mutex<T>);

impl<T> Mutex<T> {
    /// A mutex that protects `v`.
    pub fn new(class: &'static LockClass, v: T) -> Result<Self> {
        ordofs_engine::os::Mutex::new(class, v).map(Self)
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        weigh();
        self.0.lock()
    }

    /// Takes the lock if it is free; nothing that a transaction does.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock()
    }
}

/// A readers-writer lock that notes the free blocks.
pub struct RwLock<T>(ordofs_engine::os::RwLock<T>);

impl<T> RwLock<T> {
    /// A lock that protects `v`.
    pub fn new(class: &'static LockClass, v: T) -> Result<Self> {
        ordofs_engine::os::RwLock::new(class, v).map(Self)
    }

    /// Waits for shared access.
    pub fn read(&self) -> ReadGuard<'_, T> {
        self.0.read()
    }

    /// Waits for exclusive access.
    pub fn write(&self) -> WriteGuard<'_, T> {
        weigh();
        self.0.write()
    }

    /// Takes the lock exclusively if it is free. Transactions do not call this.
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        self.0.try_write()
    }
}
