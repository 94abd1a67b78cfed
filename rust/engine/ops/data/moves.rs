// SPDX-License-Identifier: GPL-2.0

//! Moving data to other blocks: as a direct write of the same content.
//!
//! # Model
//!
//! Unlike a write, a move does not hold `i_rwsem`. A punch, a truncation or a deletion waits for what is in
//! flight before it begins, and takes `maps` later, in one transaction after the other. So a move may
//! begin in between, and what it writes may be gone when it completes. Its ordered extent
//! therefore has its source, and its completion counts only if the extent tree still has that there, with
//! the same checksums, under the same exclusive hold of `maps` under which it would change the mapping
//! ([`Fs::maps_source`]). If not, it ends as a write that failed: its blocks are free again and nothing
//! has changed.
//!
//! The source may be given to others while it is read: then the checksums differ, or the read fails, and
//! that says nothing of the file. So the task that reads it looks at the mapping again before it judges.
//!
//! Locks: those of [`super`].
//!
//! Tests: tools/engine/tests/shrink.rs, shrink_races.rs.

use super::Place;
use crate::engine::alloc::ag::Owner;
use crate::engine::alloc::Near;
use crate::engine::btree::ValueBuf;
use crate::engine::format::extent::Extent;
use crate::engine::fs::Fs;
use crate::engine::inode::maps::Maps;
use crate::engine::inode::starting::{Ordered, Started, Starting};
use crate::engine::inode::Inode;
use crate::engine::types::MAX_FILE_BLOCKS;
use crate::os::Shared;
use kernel::prelude::*;

impl Fs {
    /// Whether the inode is deleted or being deleted, or a truncation has left something that is to go.
    /// What it has is not moved then. Under the exclusive side of `maps` this also sees each truncation that
    /// has removed something before.
    pub(in crate::engine::ops) fn is_going(inode: &Inode) -> bool {
        inode.meta.lock().is_gone() || inode.left_behind(MAX_FILE_BLOCKS).is_some()
    }

    /// Whether the extent tree has what a write in flight was copied from. Holds for all that are no
    /// moves.
    pub(super) fn maps_source(&self, m: &Maps, o: &Ordered) -> Result<bool> {
        let Some(source) = o.source() else {
            return Ok(true);
        };
        let (mut at, mut v) = (o.start(), ValueBuf::new());
        let mut csums = o.csums();
        while at < o.end() {
            let Some(e) = m.extent_at(&self.node_store, at, &mut v)? else {
                return Ok(false);
            };
            let part = e.slice(at, o.end());
            let there = e.csum_slice(v.as_slice(), part.start, part.end());
            let Some(rest) = csums.strip_prefix(there) else {
                return Ok(false);
            };
            if e.unwritten || !e.csums || part.phys != source.saturating_add(at - o.start()) {
                return Ok(false);
            }
            (at, csums) = (part.end(), rest);
        }
        Ok(true)
    }

    /// [`Self::maps_source`], for the task that copies.
    pub(in crate::engine::ops) fn has_source(&self, o: &Ordered) -> Result<bool> {
        self.maps_source(&o.inode().maps.read(), o)
    }

    /// Starts to move the data of the extent `e`, or the first part of it, to new blocks: as a direct write of
    /// the same content, with the checksums `csums`. `None` if a write is in flight there, the
    /// file has another mapping by now, or all of it is going ([`Self::is_going`]). The caller has reserved
    /// `e.len` blocks; those that are not used are given back, and all of them after an error or `None`.
    pub(in crate::engine::ops) fn start_move(
        &self,
        inode: &Shared<Inode>,
        e: &Extent,
        csums: &KVec<u8>,
    ) -> Result<Option<Started>> {
        let r = self.try_start_move(inode, e, csums);
        if !matches!(r, Ok(Some(_))) {
            self.space.unreserve(e.len);
        }
        r
    }

    fn try_start_move(
        &self,
        inode: &Shared<Inode>,
        e: &Extent,
        csums: &KVec<u8>,
    ) -> Result<Option<Started>> {
        let starting = Starting::enter(inode, self.node_store.device());
        let mut m = inode.maps.write();
        let mut v = ValueBuf::new();
        if inode.ordered.lock().overlaps(e.start, e.len) || Self::is_going(inode) {
            return Ok(None);
        }
        let now = m.extent_at(&self.node_store, e.start, &mut v)?;
        if now != Some(*e) || e.csum_slice(v.as_slice(), e.start, e.end()) != csums.as_slice() {
            return Ok(None);
        }
        let goal = self.goal(&m, e.start)?;
        let (_, home) = inode.size_and_home();
        let (store, near) = (&self.node_store, Near { goal, home });
        let run = self
            .space
            .append(store, e.len, near, Owner::Busy, &mut None, 0)?;
        let place = Place {
            phys: run.start,
            len: run.len,
            in_place: false,
        };
        let source = Some(e.phys);
        self.publish(
            &starting, &mut m, e.start, place, csums, true, e.len, source,
        )
        .map(Some)
    }
}
