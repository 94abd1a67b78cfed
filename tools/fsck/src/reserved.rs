// SPDX-License-Identifier: GPL-2.0

//! Trees that the format has and this version of the engine does not write: snapshots, the blocks
//! that only snapshots have, and quotas. A filesystem with one of them is reported as not supported,
//! and the records are checked all the same. But then a block may have more than one owner, or one
//! that this version does not see, like the trees of a snapshot. So the owners of blocks are not
//! compared.
//!
//! Tests: `tools/fsck/tests/space_trees.rs`.

use crate::Checker;
use ordofs_engine::engine::btree::{TreeId, TreeKind};
use ordofs_engine::engine::format::dead::DeadRecord;
use ordofs_engine::engine::format::quota::QuotaRecord;
use ordofs_engine::engine::format::snapshot::{SnapshotRecord, ABANDONED, BOOKMARK};
use ordofs_engine::engine::format::superblock::{RO_COMPAT_SHARED, STATE_REPAIR};
use ordofs_engine::engine::volume::mount::tree_of;
use std::collections::BTreeSet;

/// The snapshots by their epochs.
#[derive(Default)]
struct Snapshots {
    /// Those that hold blocks.
    holding: BTreeSet<u64>,
    names: BTreeSet<Vec<u8>>,
    generation: u64,
}

impl Checker<'_> {
    /// Checks these trees. The inodes have been claimed.
    pub(crate) fn check_reserved(&mut self) {
        if let Some(what) = self.sb.unsupported() {
            self.problem("superblock", what);
        }
        if self.sb.ro_compat & RO_COMPAT_SHARED != 0 {
            let what = "it has shared blocks, which this version does not support";
            self.problem("superblock", what);
        }
        if !self.owners {
            let note = "the owners of blocks are not compared".to_owned();
            self.report.notes.push(note);
        }
        if self.sb.state & STATE_REPAIR != 0 {
            let note = "damage was found on a mounted filesystem".to_owned();
            self.report.notes.push(note);
        }
        let snapshots = self.check_snapshots();
        self.check_dead(&snapshots);
        self.check_quotas();
    }

    /// Walks the snapshot tree.
    fn check_snapshots(&mut self) -> Snapshots {
        let mut seen = Snapshots::default();
        let id = TreeId::new(TreeKind::Snapshots, 0);
        let tree = tree_of(id, self.sb.snapshot_root);
        self.walk(&tree, |c, key, value| {
            c.check_snapshot(key, value, &mut seen)
        });
        seen
    }

    fn check_snapshot(&mut self, key: u64, value: &[u8], seen: &mut Snapshots) {
        let place = format!("snapshot of epoch {key}");
        let rec = match SnapshotRecord::parse(key, value, self.sb) {
            Ok(rec) => rec,
            Err(what) => return self.problem(place, what),
        };
        self.generation(&place, rec.generation);
        let epoch = u64::from(self.sb.epoch);
        if key >= epoch || u64::from(rec.void) > epoch {
            self.problem(
                &place,
                format_args!("an epoch that is not before the current one, {epoch}"),
            );
        }
        if rec.generation < seen.generation {
            self.problem(&place, "it is older than the one before");
        }
        if rec.back_to != 0 && !seen.holding.contains(&rec.back_to.into()) {
            self.problem(
                &place,
                format_args!("there is no snapshot of epoch {}", rec.back_to),
            );
        }
        if !seen.names.insert(rec.name.to_vec()) {
            self.problem(&place, "its name exists twice");
        }
        seen.generation = rec.generation;
        if rec.flags & (BOOKMARK | ABANDONED) == 0 {
            seen.holding.insert(key);
        }
    }

    /// Walks the dead tree.
    fn check_dead(&mut self, snapshots: &Snapshots) {
        let mut blocks = 0u64;
        let tree = tree_of(TreeId::new(TreeKind::Dead, 0), self.sb.dead_root);
        self.walk(&tree, |c, key, value| {
            let place = format!("dead record {key:#x}");
            let rec = match DeadRecord::parse(key, value, c.sb) {
                Ok(rec) => rec,
                Err(what) => return c.problem(place, what),
            };
            blocks += u64::from(rec.blocks);
            let (death, oldest) = (u64::from(rec.key.death), u64::from(rec.key.oldest));
            if rec.key.death > c.sb.epoch {
                c.problem(&place, "it died in an epoch to come");
            }
            if snapshots.holding.range(oldest..death).next().is_none() {
                c.problem(&place, "no snapshot has its blocks");
            }
        });
        if blocks != self.sb.dead_blocks {
            let said = self.sb.dead_blocks;
            self.problem(
                "superblock",
                format_args!("counts {said} blocks in the dead tree, there are {blocks}"),
            );
        }
    }

    /// Walks the quota tree.
    fn check_quotas(&mut self) {
        let tree = tree_of(TreeId::new(TreeKind::Quota, 0), self.sb.quota_root);
        self.walk(&tree, |c, key, value| {
            if let Err(what) = QuotaRecord::parse(key, value) {
                c.problem(format_args!("quota {key:#x}"), what);
            }
        });
    }
}
