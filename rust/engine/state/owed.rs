// SPDX-License-Identifier: GPL-2.0

//! The debts of renames: data that must be durable no later than a name. A file that is renamed
//! over another one brings its data along (docs/GUARANTEES.md, 4), and rename(2) does not wait for
//! it.
//!
//! # Model
//!
//! The glue starts the writes of all that is dirty before the rename, so the data is in flight: its
//! ordered extents exist already. A rename that finds some notes a *debt* before its transaction
//! begins: the inode, and the number below which its ordered extents must have ended. Two things
//! make a rename durable, and both pay all debts first:
//!
//! - a commit, before it freezes its transaction. Under the closed barrier it looks again, and
//!   starts over if a rename has added a debt with data in flight.
//! - a batch of the log. It looks again under the lock under which it takes its records.
//!
//! To pay a debt is to wait for the ordered extents and to record the extents of the file in the
//! log; only then does the debt leave the list. So neither a batch nor a commit has a rename
//! without its data.
//!
//! A task that pays debts must hold no lock that the completion of a write needs. A completion
//! cannot pay, because it would wait for itself (`Fs::sync_unless_owed`). It may commit as soon
//! as the data has arrived, because the extents are in the tree then; the debt stays in the list,
//! for the log. Otherwise an unpaid debt would keep completions from committing on a full disk,
//! where they must.
//!
//! A stream of renames could add debts for ever. A commit or a batch that finds new debts after it
//! has paid makes renames *strict*: until it is done, they wait for their own data.
//!
//! # Locks
//!
//! The list is under [`lock_class::OWED`]; nothing is taken under it.
//!
//! Tests: `tools/engine/tests/rename_data.rs`, `tools/crash/tests/recovery.rs`.

use crate::engine::inode::Inode;
use crate::engine::lock_class;
use crate::os::atomic::{AtomicU64, Ordering};
use crate::os::{Map, Mutex, Shared};
use kernel::prelude::*;

/// How many debts [`Owed::in_flight`] looks at.
const LOOK_AT: usize = 256;

/// A debt: data that must be durable no later than a rename.
#[derive(Clone)]
pub(in crate::engine) struct Debt {
    pub(in crate::engine) inode: Shared<Inode>,
    /// Ordered extents with a smaller number must have ended.
    pub(in crate::engine) limit: u64,
}

/// The debts by number, and the next number.
struct List {
    next: u64,
    debts: Map<u64, Debt>,
}

/// The debts of a filesystem.
pub struct Owed {
    list: Mutex<List>,
    strict: AtomicU64,
}

/// While this exists, renames wait for their own data.
pub struct Strict<'a>(&'a Owed);

impl Drop for Strict<'_> {
    fn drop(&mut self) {
        self.0.strict.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Owed {
    /// An empty list.
    pub fn new() -> Result<Self> {
        let list = List {
            next: 0,
            debts: Map::new(),
        };
        Ok(Self {
            list: Mutex::new(&lock_class::OWED, list)?,
            strict: AtomicU64::new(0),
        })
    }

    /// Whether there is a debt.
    pub fn any(&self) -> bool {
        !self.list.lock().debts.is_empty()
    }

    /// Whether a debt may have data in flight. It looks at the first [`LOOK_AT`] debts only,
    /// because the barrier may be closed, and says yes if there are more.
    pub(crate) fn in_flight(&self) -> bool {
        let mut from = 0;
        for _ in 0..LOOK_AT {
            let Some((id, debt)) = self.first_from(from) else {
                return false;
            };
            if debt.inode.ordered.lock().count_before(debt.limit) != 0 {
                return true;
            }
            from = id + 1;
        }
        self.list.lock().debts.first_ge(from).is_some()
    }

    /// Whether renames must wait for their own data.
    pub(in crate::engine) fn is_strict(&self) -> bool {
        self.strict.load(Ordering::Acquire) != 0
    }

    /// The number that the next debt gets.
    pub(in crate::engine) fn next_id(&self) -> u64 {
        self.list.lock().next
    }

    /// The first debt with a number of at least `from`, and its number.
    pub(in crate::engine) fn first_from(&self, from: u64) -> Option<(u64, Debt)> {
        let list = self.list.lock();
        list.debts.first_ge(from).map(|(id, d)| (id, d.clone()))
    }

    /// Removes a debt that has been paid.
    pub(in crate::engine) fn remove(&self, id: u64) {
        self.list.lock().debts.remove(&id);
    }

    /// Makes renames strict until the result is dropped: they wait for their own data and add no
    /// debts.
    pub fn be_strict(&self) -> Strict<'_> {
        self.strict.fetch_add(1, Ordering::AcqRel);
        Strict(self)
    }

    /// Adds a debt: the ordered extents of `inode` with a number below `limit`. ENOMEM.
    pub(in crate::engine) fn add(&self, inode: &Shared<Inode>, limit: u64) -> Result {
        let mut list = self.list.lock();
        let id = list.next;
        let debt = Debt {
            inode: inode.clone(),
            limit,
        };
        list.debts.insert(id, debt)?;
        list.next = id + 1;
        Ok(())
    }
}
