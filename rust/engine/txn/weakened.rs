// SPDX-License-Identifier: GPL-2.0

//! Hand-weakened, for mutants, and an fsync of another task at a moment of the crash simulator's choice.
//!
//! For R1's: a fast fsync that believes its extent maps, as btrfs's does.
//!
//! The real one never looks at a mapping in flight: it logs what the extent tree says, and a write is
//! there only after it has ended. That is a third line of defence behind order and lock, and it would
//! hide that they are gone. This one relies on them: a mapping of a write that was in flight before
//! the wait must be complete after it. If it is not, what lies on the disk there is logged as the
//! file's data, checksum and all.

use super::Txn;
use crate::engine::fs::Fs;
use crate::engine::inode::maps::extent_map::Em;
use crate::engine::inode::maps::range::Range;
use crate::engine::inode::Inode;
use crate::engine::log::record::Record;
use crate::engine::log::ring::{self, Batch};
#[cfg(ordofs_mutants)]
use crate::engine::mutant;
use crate::os::atomic::Ordering;
use crate::os::{crc32c, now, Block};
use kernel::prelude::*;

impl Fs {
    /// Logs a mapping in flight as if its write had ended.
    pub(super) fn log_on_trust(
        &self,
        inode: &Inode,
        r: &Range<Em>,
        writes: &mut KVVec<u8>,
    ) -> Result {
        let mut csums = KVec::new();
        let mut b = Block::zeroed()?;
        for i in 0..r.len {
            self.st.device().read(r.value.phys + i, &mut b)?;
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

    /// LogNoWait: a batch makes room for the next one before it is flushed.
    pub(super) fn flush_late(
        &self,
        writer: impl Sized,
        batch: &KVVec<u8>,
        at: Batch,
        upto: u64,
    ) -> Result {
        ring::write(&self.st, self.log.area, at, batch, false)?;
        {
            let mut s = self.log.state.lock();
            s.pos = at.pos + ring::blocks_of(batch.len());
            s.seq = at.seq + 1;
        }
        drop(writer);
        self.st.device().flush()?;
        self.log.durable.fetch_max(upto, Ordering::AcqRel);
        Ok(())
    }
}

impl Txn<'_> {
    /// LogSplit: the records of one change are added one by one.
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
    /// Writes what is pending, as the fsync of another file would at this moment, if it comes now. If the
    /// log cannot take it, that fsync waits for a commit, and so for the operation that is under way. If a
    /// rename owes data, it waits for that, and does not get this far meanwhile.
    pub(super) fn fsync_beside(&self) {
        let off = self.log.off.load(Ordering::Acquire);
        if mutant::fsync_comes() && !off && !self.owed.any() {
            let ticket = self.log.state.lock().ticket;
            let _ = self.log_flush(ticket);
        }
    }
}
