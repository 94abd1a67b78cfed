// SPDX-License-Identifier: GPL-2.0

//! The headers of a log, one after another, with what they say together: which batches were
//! acknowledged, how far the log once went, and which superblock it needs.
//!
//! A header is where the one before says that the next batch begins. If there is none, or it is
//! damaged, it is not known how long the damaged batch is, so the search goes on block by block, as
//! far as the longest possible batch reaches. Three facts rule out false finds there. A header
//! carries its position and number, and remains of earlier laps of the ring carry other positions.
//! Remains behind the end of an earlier log carry smaller numbers, because replay leaves a gap. Each
//! batch takes at least one block, so the number cannot be further ahead than the position.
//!
//! A scan reads as little as it can: a header more when the caller needs to know about one batch
//! more. No locks; positions are in blocks.
//!
//! Tests: tools/engine/tests/log_damage.rs, log_recovery.rs.

use super::ahead::Ahead;
use super::header::{blocks_of, Header, MAX_PAYLOAD};
use super::ring::{self, Area};
use crate::engine::btree::NodeStore;
use crate::engine::mutant::{self, Mutant};
use kernel::prelude::*;

/// The headers of a log from a position on.
pub struct Scan<'a> {
    node_store: &'a NodeStore,
    area: Area,
    /// Position and number of the next batch.
    next: (u64, u64),
    /// The position behind the last block of the ring.
    end: u64,
    over: bool,
    flushed: Option<u64>,
    newest: Option<u64>,
    generation: u64,
}

impl<'a> Scan<'a> {
    /// A scan that begins with the batch `next.1` at position `next.0`. Reads nothing.
    pub fn new(node_store: &'a NodeStore, area: Area, next: (u64, u64)) -> Self {
        Self {
            node_store,
            area,
            next,
            end: next.0.saturating_add(area.len),
            over: false,
            flushed: None,
            newest: None,
            generation: 0,
        }
    }

    /// The position behind the last block of the ring.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The number of the newest batch whose header was found.
    pub fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// The newest generation that a header calls durable.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes a header that the caller has read, if it is the next one.
    pub fn meet(&mut self, h: &Header) {
        if (h.batch.pos, h.batch.seq) == self.next && !self.over {
            self.take(h);
        }
    }

    /// Does a header say that batch `seq` was flushed? Reads as far as that takes. ENOMEM.
    pub fn flushed(&mut self, ahead: &mut Ahead<'_>, seq: u64) -> Result<bool> {
        if mutant::is(Mutant::DamageLog) {
            return Ok(false);
        }
        while self.flushed.is_none_or(|f| f < seq) {
            if !self.advance(ahead)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads all that is left. ENOMEM.
    pub fn finish(&mut self, ahead: &mut Ahead<'_>) -> Result {
        while self.advance(ahead)? {}
        Ok(())
    }

    /// Finds the next header. False at the end of the log.
    fn advance(&mut self, ahead: &mut Ahead<'_>) -> Result<bool> {
        if self.over {
            return Ok(false);
        }
        let Some(h) = self.find(ahead)? else {
            self.over = true;
            return Ok(false);
        };
        self.take(&h);
        Ok(true)
    }

    fn take(&mut self, h: &Header) {
        self.next = h.next();
        self.flushed = self.flushed.max(Some(h.batch.flushed));
        self.newest = Some(h.batch.seq);
        self.generation = self.generation.max(h.batch.generation);
    }

    fn find(&self, ahead: &mut Ahead<'_>) -> Result<Option<Header>> {
        let (pos, seq) = self.next;
        let until = pos
            .saturating_add(blocks_of(MAX_PAYLOAD))
            .min(self.end.saturating_sub(1));
        for at in pos..=until {
            let found = match ring::header_at(self.node_store, self.area, ahead, at) {
                // A block that cannot be read proves nothing.
                Err(e) if e != ENOMEM => None,
                r => r?,
            };
            // The first one is the expected batch itself, or nothing.
            let follows = |h: &Header| match h.batch.seq.checked_sub(seq) {
                Some(ahead) => ahead <= at - pos && (ahead > 0) == (at > pos),
                None => false,
            };
            if let Some(h) = found.filter(follows) {
                return Ok(Some(h));
            }
        }
        Ok(None)
    }
}
