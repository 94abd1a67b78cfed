// SPDX-License-Identifier: GPL-2.0

//! Verifying what was read, by the checksums in the extent records.
//!
//! # Cost
//!
//! Blocks are verified in runs. One look-up finds the record of the first block, the checksums are
//! compared where they lie in the leaf, and the walk continues with the following records of that
//! leaf. Nothing is allocated or copied. Only the first block that does not match is looked up by
//! itself ([`Fs::verify`]).
//!
//! # Locks
//!
//! `Inode.maps`, shared, once for a run. The caller computes the checksums of what it read before
//! it calls, so the lock is not held meanwhile.
//!
//! Tests: tools/engine/tests/read_verify.rs; tools/models/tests/rules/reads.rs;
//! tests/vm/t/061-bad-block.sh.

use crate::engine::format::extent::Extent;
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::types::Verdict;
use crate::os::NoFs;
use kernel::prelude::*;

/// What a record says about file block `block` being at disk block `phys`.
enum Says {
    /// It is elsewhere, or not mapped.
    Moved,
    /// It is there, this many blocks behind the start of the record.
    Here(u64),
}

/// What the record `e` says about `block` being at `phys`.
fn says(e: &Extent, block: u64, phys: u64) -> Says {
    match block.checked_sub(e.start) {
        Some(off) if off < e.len && !e.unwritten && e.phys.checked_add(off) == Some(phys) => {
            Says::Here(off)
        }
        _ => Says::Moved,
    }
}

impl Fs {
    /// Verifies a block that was read from disk block `phys` for file block `block` and has the
    /// checksum `crc`.
    pub fn verify(&self, inode: &Inode, block: u64, phys: u64, crc: u32) -> Result<Verdict> {
        let _nofs = NoFs::enter();
        let m = inode.maps.read();
        let mut verdict = Verdict::Moved;
        m.tree.scan_le(&self.node_store, block, |key, v| {
            let e = Extent::decode(key, v, self.node_store.space())?;
            if let Says::Here(off) = says(&e, block, phys) {
                verdict = match e.csum(v, off)? {
                    Some(want) if want != crc => Verdict::Bad(want),
                    _ => Verdict::Good,
                };
            }
            Ok(false)
        })?;
        Ok(verdict)
    }

    /// Verifies blocks that were read from disk block `phys` on for file blocks from `block` on,
    /// with the checksums `crcs`. Returns how many are good before the first that is not; the
    /// caller passes that one to [`Self::verify`].
    pub fn verify_run(&self, inode: &Inode, block: u64, phys: u64, crcs: &[u32]) -> Result<usize> {
        let _nofs = NoFs::enter();
        let m = inode.maps.read();
        let mut good = 0;
        while good < crcs.len() {
            let before = good;
            let start = block.saturating_add(good as u64);
            m.tree.scan_le(&self.node_store, start, |key, v| {
                let e = Extent::decode(key, v, self.node_store.space())?;
                let at = block.saturating_add(good as u64);
                let Says::Here(off) = says(&e, at, phys.saturating_add(good as u64)) else {
                    return Ok(false);
                };
                let left = crcs.get(good..).unwrap_or(&[]);
                let here = left.len().min((e.len - off) as usize);
                for (i, crc) in left.iter().take(here).enumerate() {
                    if e.csum(v, off + i as u64)?.is_some_and(|want| want != *crc) {
                        return Ok(false);
                    }
                    good += 1;
                }
                Ok(good < crcs.len())
            })?;
            if good == before {
                break;
            }
        }
        Ok(good)
    }
}
