// SPDX-License-Identifier: GPL-2.0

//! Hand-weakened, for mutants.
//!
//! For R1's: a fast fsync that believes its extent maps, as btrfs's does.
//!
//! The real one never looks at a mapping in flight: it logs what the extent tree says, and a write is
//! there only after it has ended. That is a third line of defence behind order and lock, and it would
//! hide that they are gone. This one relies on them: a mapping of a write that was in flight before
//! the wait must be complete after it. If it is not, what lies on the disk there is logged as the
//! file's data, checksum and all.

use super::record::Record;
use super::ring::{self, Batch};
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::maps::extent_map::Em;
use crate::engine::maps::range::Range;
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
