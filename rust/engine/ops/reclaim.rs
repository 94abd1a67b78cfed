// SPDX-License-Identifier: GPL-2.0

//! What the shrinker frees: clean extent maps and cached nodes.

use crate::engine::fs::Fs;
use crate::os::atomic::Ordering;
use crate::os::trace;

/// Inodes without a clean extent map that the shrinker looks at in one go.
const SWEEP: u64 = 1024;

impl Fs {
    /// Clean extent maps and cached nodes: what a shrinker could free.
    pub fn shrink_count(&self) -> u64 {
        self.clean_maps() + self.st.cached()
    }

    fn clean_maps(&self) -> u64 {
        self.em_count.clean.load(Ordering::Relaxed).max(0) as u64
    }

    /// Frees up to `n` cached nodes and clean extent maps (R2, R6: nothing that anybody needs), of both
    /// their share. Waits for no lock whose holder may be waiting for memory.
    pub fn shrink_scan(&self, n: u64) -> u64 {
        let maps = self.clean_maps();
        let all = maps.saturating_add(self.st.cached()).max(1);
        let share = if n < all {
            n.saturating_mul(maps).div_ceil(all)
        } else {
            maps
        };
        let done = self.shrink_maps(share);
        done + self.st.shrink(n.saturating_sub(done))
    }

    fn shrink_maps(&self, want: u64) -> u64 {
        // One at least: the count of the clean ones is not exact.
        let want = want.max(1);
        if self.em_count.all.load(Ordering::Relaxed) <= 0 {
            return 0;
        }
        let (mut done, mut seen) = (0, 0);
        self.itable.sweep(|i| {
            seen += 1;
            if let Some(mut m) = i.maps.try_write() {
                let (k, kept) = m.ems.shrink(want - done);
                m.ems.recount(&self.em_count);
                if k + kept > 0 {
                    let (dev, kept) = (self.dev(), kept as u64);
                    trace::release_maps(dev, i.ino(), 0, u64::MAX, k as u64, kept, true);
                }
                done += k as u64;
            }
            // Most inodes may have none: the next call goes on here.
            done < want && seen < want.saturating_add(SWEEP)
        });
        done
    }
}
