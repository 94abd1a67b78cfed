// SPDX-License-Identifier: GPL-2.0

//! What goes into the superblock beside what a transaction has changed: the mark of a clean unmount,
//! the label; and backups of it.
//!
//! # The clean mark
//!
//! While the superblock on disk says that the filesystem was unmounted cleanly, a mount does not
//! replay the log. So no transaction may begin before a commit without the mark is durable:
//! `Fs::enter_unmarked` looks at the mark inside the barrier, and a task that finds it leaves the
//! barrier and clears it ([`Fs::clear_clean_mark`]). A commit sets the mark where it freezes its
//! transaction, with the barrier closed, so every later task finds it. A remount to read-only sets
//! the mount's own state in the same moment.
//!
//! Locks: the commit mutex; `Fs::label` alone, or under it. Nothing here may be called inside a
//! transaction.
//!
//! Tests: tools/engine/tests/superblocks.rs, rename_data.rs; tools/engine/tests/memory/durable.rs;
//! `scripts/crash mutants` (CleanStays); tests/vm/t/021-mount.sh, 067-damage.sh.

use super::commit::IfIdle;
use crate::engine::format::superblock::{label_is_good, LABEL_LEN};
use crate::engine::fs::Fs;
use crate::engine::mutant::{self, Mutant};
use crate::os::atomic::Ordering;
use crate::os::{now, NoFs};
use kernel::prelude::*;

/// The age of the backups of the superblock, in seconds, at which an unmount writes them anew.
const BACKUP_SECONDS: u64 = 86_400;

/// Whether [`Fs::mark_clean`] writes the backups of the superblock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Backups {
    /// Yes.
    Now,
    /// If they are older than a day, by the wall clock, in either direction.
    Daily,
}

impl Fs {
    /// Commits if the superblock on disk has the clean mark. Nothing is dirty then; a rename that is
    /// about to begin may owe data, and the commit does not wait for that. EROFS if the mount has
    /// become read-only.
    pub(super) fn clear_clean_mark(&self) -> Result {
        if !self.marked_clean.load(Ordering::Acquire) || mutant::is(Mutant::CleanStays) {
            return Ok(());
        }
        let mut c = self.commit.lock();
        self.writable()?;
        if !self.marked_clean.load(Ordering::Acquire) {
            return Ok(());
        }
        let _nofs = NoFs::enter();
        let r = self.commit_locked(&mut c, IfIdle::Commit);
        if r.is_err() {
            self.abort("commit failed");
        }
        r.map(|_| ())
    }

    /// Makes everything durable and sets the clean mark, before an unmount. Writes backups of the
    /// superblock if `backups` says so. The next transaction clears the mark.
    pub fn mark_clean(&self, backups: Backups) -> Result {
        match self.marked_clean.load(Ordering::Acquire) {
            true => self.readable(),
            false => self.mark(backups, IfIdle::MarkClean),
        }
    }

    /// Makes a writable mount read-only: everything that has returned is durable, and the clean mark
    /// is set. Operations that come too late get EROFS. After an error the mount is shut down.
    pub fn go_read_only(&self) -> Result {
        self.mark(Backups::Daily, IfIdle::GoReadOnly)
    }

    fn mark(&self, backups: Backups, how: IfIdle) -> Result {
        if self.read_only.load(Ordering::Acquire) {
            return self.readable();
        }
        if !self.marked_clean.load(Ordering::Acquire) {
            self.sync()?;
        }
        let due = {
            let mut c = self.commit.lock();
            let age = seconds().abs_diff(c.sb.backed_up);
            let old = backups == Backups::Now || age >= BACKUP_SECONDS;
            let marked = self.marked_clean.load(Ordering::Acquire);
            let due = old && !marked && c.sb.has_backups();
            if due {
                c.sb.backed_up = seconds();
            }
            due
        };
        self.commit_upto(self.running_generation(), how)?;
        match due {
            true => self.write_backups(),
            false => Ok(()),
        }
    }

    /// Changes the label, by a commit. EINVAL for one that is not UTF-8, padded with zeros. EROFS.
    pub fn set_label(&self, label: [u8; LABEL_LEN]) -> Result {
        if !label_is_good(&label) {
            return Err(EINVAL);
        }
        self.writable()?;
        {
            let mut c = self.commit.lock();
            c.sb.label = label;
            if c.sb.has_backups() {
                c.sb.backed_up = seconds();
            }
            *self.label.lock() = label;
        }
        self.commit_upto(self.running_generation(), IfIdle::Commit)?;
        self.write_backups()
    }

    /// Writes the backups if a growth was cut off after its commit: then the superblock says that there are
    /// none, and those that are there have the old size. Does nothing on a read-only mount.
    pub(in crate::engine) fn make_up_backups(&self) -> Result {
        {
            let mut c = self.commit.lock();
            if !c.sb.has_backups() || c.sb.backed_up != 0 {
                return Ok(());
            }
            c.sb.backed_up = seconds();
        }
        self.write_backups()
    }

    /// Writes the backups of the superblock. As after any write that failed, an error shuts the
    /// filesystem down; the last commit is durable.
    fn write_backups(&self) -> Result {
        let c = self.commit.lock();
        self.readable()?;
        let r = c.sb.write_backups(self.node_store.device());
        if r.is_err() {
            self.abort("cannot write the backups of the superblock");
        }
        r
    }
}

/// The wall clock, in seconds since 1970; 0 before that.
pub(super) fn seconds() -> u64 {
    u64::try_from(now().sec).unwrap_or(0)
}
