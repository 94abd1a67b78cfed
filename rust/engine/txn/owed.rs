// SPDX-License-Identifier: GPL-2.0

//! Noting and paying the debts of renames. [`crate::engine::state::owed`] says what a debt is, and
//! why it can be paid nowhere else.
//!
//! Paying waits for ordered extents, so none of these functions may be called inside a transaction,
//! from a completion, or with a lock that a completion needs.
//!
//! Tests: tools/engine/tests/rename_data.rs, tools/crash (promise 4 of docs/GUARANTEES.md),
//! tests/vm/t/020-names.sh.

use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::mutant::{self, Mutant};
use crate::os::Shared;

impl Fs {
    /// The caller is about to rename `inode` over another inode. Notes a debt if its data is in
    /// flight. If there is nothing to wait for, if debts are strict, or if the debt cannot be noted
    /// for lack of memory, waits for the data and records it in the log at once. Must not be called
    /// inside a transaction.
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

    /// Waits until the ordered extents with numbers below `limit` have ended.
    fn ordered_before(&self, inode: &Inode, limit: u64) {
        self.ordered_until(inode, || inode.ordered.lock().count_before(limit) == 0);
    }

    /// Pays the debts that exist now, and not those that are added meanwhile. Must not be called
    /// inside a transaction or from a completion, nor with a lock held that a completion needs.
    pub(crate) fn pay_owed(&self) {
        let end = self.owed.next_id();
        let mut from = 0;
        loop {
            let found = self.owed.first_from(from);
            let Some((id, debt)) = found.filter(|(id, _)| *id < end) else {
                return;
            };
            self.ordered_before(&debt.inode, debt.limit);
            // Before the debt leaves the list, or a batch could contain the rename without the
            // data. Of an inode that is gone the log needs no data.
            let gone = debt.inode.meta.lock().is_gone();
            if !gone {
                self.log_data(&debt.inode);
            }
            self.owed.remove(id);
            from = id + 1;
        }
    }
}
