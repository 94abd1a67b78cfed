// SPDX-License-Identifier: GPL-2.0

//! Counts of blocks and inodes, read without locks: each is exact by itself, and they may be of
//! different moments.
//!
//! Tests: tools/engine/tests/full_disk.rs, full_writes.rs; tests/vm/t/062-full-disk.sh.

use crate::engine::fs::Fs;
use crate::engine::types::StatFs;
use crate::os::atomic::Ordering;

impl Fs {
    /// The numbers for statfs(2), in blocks and inodes. Blocks that were freed and wait for a
    /// commit count as free, because an operation that needs them commits.
    pub fn statfs(&self) -> StatFs {
        let (free, freed, pool) = self.space.counts();
        // Of files that are being deleted: an operation that needs them waits.
        let doomed = self.reaper.blocks();
        let available = self.space.available().saturating_add(doomed);
        let used = self.inodes.load(Ordering::Relaxed).max(0) as u64;
        let blocks = self.space.total();
        // While a step frees them, some are counted twice; and a commit that makes the filesystem larger
        // has counted its blocks.
        let bfree = (free + freed + pool).saturating_add(doomed).min(blocks);
        // Groups that are used need records, so the blocks for these are not available.
        let bavail = available.saturating_sub(self.space.bitmaps_to_come(available));
        StatFs {
            blocks,
            bfree,
            bavail: bavail.min(bfree),
            files: used.saturating_add(free),
            ffree: free,
        }
    }

    /// Blocks that are reserved for the metadata of dirty data. Most are not needed, and writing
    /// the data back returns those.
    pub fn held_for_dirty_data(&self) -> u64 {
        self.delalloc_meta.load(Ordering::Relaxed).max(0) as u64
    }

    /// Blocks that were freed since the mount where the account of space is damaged, by operations or
    /// out of the deferred tree. They stay in use until the filesystem is repaired.
    pub fn leaked_blocks(&self) -> u64 {
        self.space.leaked()
    }

    /// Blocks that operations have reserved for the next commit. [`Fs::statfs`] does not count them
    /// as free.
    pub fn reserved_for_commit(&self) -> u64 {
        self.commit_reserved.load(Ordering::Relaxed).max(0) as u64
    }
}
