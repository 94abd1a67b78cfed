// SPDX-License-Identifier: GPL-2.0

//! What the shrinker frees: clean extent maps (R2) and cached nodes (R6).
//!
//! Reclaim runs in any task that allocates memory, also in one that holds locks of inodes or of the
//! node cache. So nothing here waits for a lock: an inode or a shard whose lock is taken is passed
//! over.
//!
//! Tests: tools/engine/tests/threads.rs, slow_reads.rs, inode_cache.rs;
//! tools/models/tests/rules/r2.rs, r6.rs; tests/vm/t/091-reclaim.sh.

use crate::engine::fs::Fs;
use crate::os::atomic::Ordering;
use crate::os::trace;

/// The most inodes that one call looks at beyond the number of maps that it frees: many have no
/// clean map.
const SWEEP: u64 = 1024;

impl Fs {
    /// The number of objects that the shrinker could free: clean extent maps and cached nodes.
    pub fn shrink_count(&self) -> u64 {
        self.clean_maps() + self.node_store.cached()
    }

    /// The approximate number of clean extent maps.
    fn clean_maps(&self) -> u64 {
        self.em_count.clean.load(Ordering::Relaxed).max(0) as u64
    }

    /// Frees up to `n` clean extent maps and cached nodes, of each kind in proportion, and returns
    /// how many. Frees only what nothing needs (R2, R6), and waits for no lock, because the holder
    /// may be waiting for memory.
    pub fn shrink_scan(&self, n: u64) -> u64 {
        let maps = self.clean_maps();
        let all = maps.saturating_add(self.node_store.cached()).max(1);
        let share = if n < all {
            n.saturating_mul(maps).div_ceil(all)
        } else {
            maps
        };
        let done = self.shrink_maps(share);
        done + self.node_store.shrink(n.saturating_sub(done))
    }

    /// Frees about `want` clean extent maps, and returns how many.
    fn shrink_maps(&self, want: u64) -> u64 {
        // At least one, because the count of clean maps is not exact.
        let want = want.max(1);
        if self.em_count.all.load(Ordering::Relaxed) <= 0 {
            return 0;
        }
        let (mut done, mut seen) = (0, 0);
        self.itable.sweep(|i| {
            seen += 1;
            if let Some(mut m) = i.maps.try_write() {
                let (k, kept) = m.extent_maps.shrink(want - done);
                m.extent_maps.recount(&self.em_count);
                if k + kept > 0 {
                    let (dev, kept) = (self.dev(), kept as u64);
                    trace::release_maps(dev, i.ino(), 0, u64::MAX, k as u64, kept, true);
                }
                done += k as u64;
            }
            // Stop here if many inodes have none; the next call continues at this one.
            done < want && seen < want.saturating_add(SWEEP)
        });
        done
    }
}
