// SPDX-License-Identifier: GPL-2.0

//! Noting and paying what renames owe: see [`crate::engine::state::owed`].

use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::mutant::{self, Mutant};
use crate::os::Shared;

impl Fs {
    /// The inode is about to be renamed over another one. Its data is in the log afterwards, or it is noted
    /// that it has to be. Must not be called inside a transaction.
    pub(crate) fn owe(&self, inode: &Shared<Inode>) {
        let (limit, flying) = {
            let ordered = inode.ordered.lock();
            (ordered.next_id(), !ordered.is_empty())
        };
        if flying && mutant::is(Mutant::LogRenameAhead) {
            return;
        }
        let noted = flying && !self.owed.is_strict() && self.owed.add(inode, limit).is_ok();
        if !noted {
            self.ordered_before(inode, limit);
            self.log_data(inode);
        }
    }

    fn ordered_before(&self, inode: &Inode, limit: u64) {
        self.ordered_until(inode, || inode.ordered.lock().count_before(limit) == 0);
    }

    /// Pays the debts that there are. Must not be called inside a transaction or from a completion, nor with
    /// a lock that a completion needs.
    pub(crate) fn pay_owed(&self) {
        let end = self.owed.next_id();
        let mut from = 0;
        loop {
            let found = self.owed.first_from(from);
            let Some((id, debt)) = found.filter(|(id, _)| *id < end) else {
                return;
            };
            self.ordered_before(&debt.inode, debt.limit);
            // Before it leaves the list: else a batch could carry the rename without it.
            if !debt.inode.meta.lock().deleted {
                self.log_data(&debt.inode);
            }
            self.owed.remove(id);
            from = id + 1;
        }
    }
}
