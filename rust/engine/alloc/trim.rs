// SPDX-License-Identifier: GPL-2.0

//! Discarding free space: which blocks, and how allocation gets along with it.
//!
//! # Model
//!
//! A trim goes through its range in *pieces*. A piece lies in one group and has at most 1/64 of the
//! filesystem, but no less than 512 KiB and no more than the group, 32 MiB, and at most 64 runs. Its
//! free runs are withheld from allocation ([`super::ag`]), discarded with no lock of an AG held, and given back.
//!
//! Withheld blocks count as free, so an operation may have reserved them. A search that finds no
//! other free block waits until they are given back, and is repeated. The trim withholds nothing
//! as long as such a task is *starving*, and gives a piece back after the discard under way, so this
//! search waits for one discard, or for two if the next piece was begun at the same moment. A number
//! that is odd while something is withheld goes up before and after; a search compares it with what
//! it was when it began.
//!
//! A trim reads the records that a search would read. Damage that it finds is treated as a search
//! treats it; from an error of the device it concludes nothing, and goes on with the next AG. AGs without a run that is long enough are
//! passed over by the sums of the AG tree, and so are parts of that tree that cannot be read.
//!
//! # Locks
//!
//! `turn` is held for a piece, across the reads and the discards, and is taken with no other lock of
//! the engine held. Those of [`super`] are taken under it. Nothing else waits for it but another
//! trim. A task that starves waits with its locks held, and possibly behind the closed barrier; the
//! trim needs only the device and the AG's mutex to end the piece.
//!
//! Tests: `tools/engine/tests/trim`, `tools/crash/tests/trim.rs`, `tests/vm/t/069-trim.sh`.

use super::ag::Span;
use super::trimmer::Trim;
use super::Space;
use crate::engine::btree::NodeStore;
use crate::engine::format::ag::run_class;
use crate::engine::format::GROUP_BLOCKS;
use crate::os::atomic::Ordering;
use kernel::prelude::*;

/// The part of a filesystem that a piece may have.
const PART: u64 = 64;
/// The least that a piece may have, unless the unit of the device is larger: 512 KiB.
const LEAST_PIECE: u64 = 128;

/// Blocks of one AG may be withheld. They are given back when this is dropped.
struct Withheld<'a> {
    space: &'a Space,
    ag: u64,
}

impl<'a> Withheld<'a> {
    /// To be called before blocks of the AG are withheld.
    fn new(space: &'a Space, ag: u64) -> Self {
        space.trimmer.number.fetch_add(1, Ordering::SeqCst);
        Self { space, ag }
    }
}

impl Drop for Withheld<'_> {
    fn drop(&mut self) {
        // An AG with withheld blocks is in memory.
        self.space
            .if_in_memory(self.ag, |ag| ag.give_back_withheld());
        self.space.trimmer.number.fetch_add(1, Ordering::SeqCst);
        self.space.trimmer.queue.wake_all();
    }
}

impl Space {
    /// Discards the next piece. Returns false if nothing is left. After an error, or if `stop`
    /// returned true between two runs, the rest of the piece is left and can be tried again. An
    /// error of the device; ENOMEM.
    pub fn trim_piece(
        &self,
        node_store: &NodeStore,
        trim: &mut Trim,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<bool> {
        if trim.at >= trim.end {
            return Ok(false);
        }
        let _turn = self.trimmer.turn.lock();
        // The filesystem may have become smaller.
        trim.end = trim.end.min(self.total());
        if trim.at >= trim.end {
            return Ok(false);
        }
        self.trimmer
            .queue
            .wait_until(|| self.trimmer.starving.load(Ordering::SeqCst) == 0);
        let class = run_class(trim.least.into());
        // What cannot be read is passed over, and nothing is concluded from it: a search that needs
        // the space reads it again.
        let from = trim.at / self.ag_blocks;
        let next = self.next_readable(node_store, from, class, &mut |_| ())?;
        let Some(i) = next.filter(|i| self.ag_start(*i) < trim.end) else {
            trim.at = trim.end;
            return Ok(false);
        };
        let ag_start = self.ag_start(i);
        trim.at = trim.at.max(ag_start);
        let span = Span {
            start: trim.start.saturating_sub(ag_start),
            from: trim.at - ag_start,
            to: (trim.end - ag_start).min(self.ag_len(i)),
            least: trim.least,
            most: self.piece(trim.unit),
            unit: trim.unit,
        };
        let mut runs = KVVec::new();
        let _withheld = Withheld::new(self, i);
        let next = self.with_ag(node_store, i, |ag| {
            ag.withhold(node_store, &span, &mut runs)
        })?;
        for (at, len) in runs {
            if stop() {
                return Ok(true);
            }
            node_store.device().discard(ag_start + at, len)?;
            trim.trimmed += len;
            trim.at = ag_start + at + len;
            if self.trimmer.starving.load(Ordering::SeqCst) != 0 {
                return Ok(true);
            }
        }
        trim.at = ag_start + next;
        Ok(trim.at < trim.end)
    }

    /// The most blocks of a piece.
    fn piece(&self, unit: u32) -> u32 {
        let least = LEAST_PIECE.max(u64::from(unit).saturating_mul(2));
        (self.total() / PART).max(least).min(GROUP_BLOCKS) as u32
    }

    /// Calls `search` until it finds something, or finds nothing although no block is withheld.
    pub(super) fn beside_trim<R>(
        &self,
        node_store: &NodeStore,
        mut search: impl FnMut() -> Result<Option<R>>,
    ) -> Result<Option<R>> {
        let t = &self.trimmer;
        let number = || t.number.load(Ordering::SeqCst);
        let before = number();
        if let Some(found) = search()? {
            return Ok(Some(found));
        }
        if before % 2 == 0 && number() == before {
            return Ok(None);
        }
        // A commit that waits for the operations inside the barrier lets others in meanwhile.
        let _reading = node_store.reads().begin();
        t.starving.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            t.queue.wait_until(|| number() % 2 == 0);
            let before = number();
            match search() {
                // A piece was begun before the trim could see that this task starves.
                Ok(None) if before % 2 != 0 || number() != before => {}
                r => break r,
            }
        };
        t.starving.fetch_sub(1, Ordering::SeqCst);
        t.queue.wake_all();
        found
    }
}
