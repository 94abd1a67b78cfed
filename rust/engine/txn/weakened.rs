// SPDX-License-Identifier: GPL-2.0

//! Code for mutants, with a protection taken away by hand, and an fsync of another task at a moment
//! that the crash simulator chooses.
//!
//! For the mutant of R1: a fast fsync that trusts its extent maps, as the one of btrfs does. The
//! real fast fsync never looks at a mapping in flight. It logs what the extent tree has, and a
//! write is there only after it has ended. That is a third line of defence behind order and lock,
//! and would hide that these two are missing. The weakened one relies on them: a mapping that was
//! in flight before the wait must be complete after it. If it is not, whatever lies in those disk
//! blocks is logged as data of the file, with a matching checksum.
//!
//! Nothing of this is in a build without mutants.
//!
//! Tests: tools/models/tests/rules/r1.rs and r8.rs, tools/crash, tests/vm/t/041-r1.sh (through
//! `make mutants`).

use super::fsync::Taken;
use super::Txn;
use crate::engine::fs::Fs;
use crate::engine::inode::maps::extent_map::ExtentMap;
use crate::engine::inode::maps::range::Range;
use crate::engine::inode::Inode;
use crate::engine::log::header::blocks_of;
use crate::engine::log::record::Record;
use crate::engine::log::ring::{self, Flush};
#[cfg(ordofs_mutants)]
use crate::engine::mutant;
use crate::os::atomic::Ordering;
use crate::os::{crc32c, now, Block};
use kernel::prelude::*;

impl Fs {
    /// Logs a mapping in flight as if its write had ended. The caller holds `maps`.
    pub(super) fn log_on_trust(
        &self,
        inode: &Inode,
        r: &Range<ExtentMap>,
        writes: &mut KVVec<u8>,
    ) -> Result {
        let mut csums = KVec::new();
        let mut b = Block::zeroed()?;
        for i in 0..r.len {
            self.node_store.device().read(r.value.phys + i, &mut b)?;
            csums.extend_from_slice(&crc32c(0, &b[..]).to_le_bytes(), GFP_KERNEL)?;
        }
        let w = Record::Write {
            ino: inode.ino(),
            start: r.start,
            phys: r.value.phys,
            csums: &csums,
        };
        w.append(writes, self.running_generation(), now())
    }

    /// LogNoWait: lets the next batch be written before this one is flushed, and say that it was.
    pub(super) fn flush_late(&self, writer: impl Sized, taken: &Taken) -> Result {
        let (batch, records) = (self.batch_of(taken, false), &taken.records);
        ring::write(
            &self.node_store,
            self.log.area,
            batch,
            records,
            Flush::Later,
        )?;
        {
            let mut s = self.log.state.lock();
            s.pos = batch.pos + blocks_of(records.len());
            s.seq = batch.seq + 1;
            s.flushed = batch.seq;
        }
        drop(writer);
        self.node_store.device().flush()?;
        self.log.durable.fetch_max(taken.upto, Ordering::AcqRel);
        Ok(())
    }
}

impl Txn<'_> {
    /// LogSplit: appends the records of one change one by one, so that a batch may end between
    /// them.
    pub(super) fn log_each<'r>(
        &self,
        first: &Record<'_>,
        more: impl IntoIterator<Item = Record<'r>>,
    ) {
        let (generation, t) = (self.generation(), self.time());
        let add = |r: &Record<'_>| {
            self.fs()
                .log
                .append_with(generation, |out| r.append(out, generation, t));
            #[cfg(ordofs_mutants)]
            self.fs().fsync_beside();
        };
        add(first);
        more.into_iter().for_each(|r| add(&r));
    }
}

#[cfg(ordofs_mutants)]
impl Fs {
    /// Writes what is pending, as an fsync of another file would at this moment, if the simulator
    /// chose this moment. If the log cannot take it, that fsync would wait for a commit, and so for
    /// the operation under way; if a rename owes data, it would wait for that data. In neither case
    /// does it get this far.
    pub(super) fn fsync_beside(&self) {
        let off = self.log.off.load(Ordering::Acquire);
        if mutant::fsync_comes() && !off && !self.owed.any() {
            let ticket = self.log.state.lock().ticket;
            let _ = self.log_flush(ticket);
        }
    }
}
