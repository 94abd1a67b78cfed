// SPDX-License-Identifier: GPL-2.0

//! Counts of blocks and inodes.

use crate::engine::fs::Fs;
use crate::engine::types::StatFs;
use crate::os::atomic::Ordering;

impl Fs {
    /// Numbers for statfs(2).
    pub fn statfs(&self) -> StatFs {
        let (free, pinned, pool) = self.space.counts();
        let used = self.inodes.load(Ordering::Relaxed).max(0) as u64;
        StatFs {
            blocks: self.geometry.total,
            bfree: free + pinned + pool,
            // What an operation that takes it all has to write besides is not available.
            bavail: (free + pinned).saturating_sub(self.space.bitmaps_to_come()),
            files: used.saturating_add(free),
            ffree: free,
        }
    }

    /// Blocks that are reserved for the metadata of dirty data. Most of them will not be needed: writing the
    /// data back gives them back.
    pub fn held_for_dirty_data(&self) -> u64 {
        self.delalloc_meta.load(Ordering::Relaxed).max(0) as u64
    }

    /// Blocks that operations have promised the next commit: they are reserved, and [`Fs::statfs`] does
    /// not count them as free.
    pub fn promised(&self) -> u64 {
        self.commit_reserved.load(Ordering::Relaxed).max(0) as u64
    }
}
