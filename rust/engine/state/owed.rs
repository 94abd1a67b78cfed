// SPDX-License-Identifier: GPL-2.0

//! Data that must be durable no later than a name: a file that is renamed over another one brings its data
//! along (docs/GUARANTEES.md, 4), and rename(2) does not wait for it.
//!
//! The glue starts the writes of all that is dirty before the rename, so the data is in flight: ordered
//! extents that exist already. A rename that finds some notes a *debt* before its transaction begins: the
//! inode, and the number below which its ordered extents must have ended. Whatever makes the rename
//! durable pays all debts first:
//!
//! - a commit, before it freezes its transaction. Under the closed barrier it looks again, and starts anew
//!   if a rename has added one whose data is in flight.
//! - a batch of the log. Under the lock under which it takes the records it looks again.
//!
//! Paying means waiting for the ordered extents, and recording the extents of the file in the log; only
//! then does the debt leave the list. So no record of a rename gets into the log, and no rename into a
//! commit, without its data.
//!
//! Who pays holds no lock that the completion of a write needs. In a completion itself nothing can be
//! paid: it would wait for itself ([`Fs::sync_unless_owed`]). It can commit all the same once the data has
//! arrived: the extents are in the tree then. The debt stays in the list, for the log. Otherwise a debt that
//! nobody has come to pay would keep completions from committing on a full disk, where they must.
//!
//! A stream of renames could add debts for ever. Whoever finds new ones after having paid asks for
//! *strictness*: renames that come meanwhile wait for their data themselves.

use crate::engine::inode::Inode;
use crate::engine::lock_class;
use crate::os::atomic::{AtomicU64, Ordering};
use crate::os::{Map, Mutex, Shared};
use kernel::prelude::*;

/// Debts that [`Owed::in_flight`] looks at.
const LOOK_AT: usize = 256;

/// Data that must be durable before a rename is.
#[derive(Clone)]
pub(in crate::engine) struct Debt {
    pub(in crate::engine) inode: Shared<Inode>,
    /// Ordered extents with a smaller number must have ended.
    pub(in crate::engine) limit: u64,
}

struct List {
    next: u64,
    debts: Map<u64, Debt>,
}

/// The debts of a filesystem.
pub struct Owed {
    list: Mutex<List>,
    strict: AtomicU64,
}

/// While it exists, renames wait for their data themselves.
pub struct Strict<'a>(&'a Owed);

impl Drop for Strict<'_> {
    fn drop(&mut self) {
        self.0.strict.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Owed {
    /// None.
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

    /// Is there a debt?
    pub fn any(&self) -> bool {
        !self.list.lock().debts.is_empty()
    }

    /// Is there a debt whose data may be in flight? Of many debts it looks only at the first ones, because
    /// the barrier may be closed.
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

    /// Must renames wait for their data themselves?
    pub(in crate::engine) fn is_strict(&self) -> bool {
        self.strict.load(Ordering::Acquire) != 0
    }

    /// Later debts have at least this number.
    pub(in crate::engine) fn next_id(&self) -> u64 {
        self.list.lock().next
    }

    /// The first debt with a number of at least `from`, and its number.
    pub(in crate::engine) fn first_from(&self, from: u64) -> Option<(u64, Debt)> {
        let list = self.list.lock();
        list.debts.first_ge(from).map(|(id, d)| (id, d.clone()))
    }

    /// The debt is paid.
    pub(in crate::engine) fn remove(&self, id: u64) {
        self.list.lock().debts.remove(&id);
    }

    /// From now on renames add none.
    pub fn be_strict(&self) -> Strict<'_> {
        self.strict.fetch_add(1, Ordering::AcqRel);
        Strict(self)
    }

    /// Notes a debt.
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
