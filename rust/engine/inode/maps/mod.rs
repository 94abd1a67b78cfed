// SPDX-License-Identifier: GPL-2.0

//! The mappings of an inode's file blocks, in three layers.
//!
//! 1. The *extent tree*: completed mappings. Only completed I/O, preallocation and other operations
//!    on file space change it, in a transaction. Reads follow it.
//! 2. *Extent maps* ([`extent_map`]): mappings in flight or not durable yet, and a cache.
//! 3. *Delalloc*: ranges that are dirty in the page cache and have space reserved. They may be over
//!    holes, over written extents (which will be overwritten by copy-on-write) and over I/O in
//!    flight.
//!
//! Everything is under `Inode.maps`: `&self` methods need the shared side, `&mut self` methods the
//! exclusive side. Look-ups in the tree may sleep in a read from the device. R4: only
//! [`DelallocGuard`] inserts delalloc, after a second look, and it exists on the exclusive side
//! only. Offsets and lengths are in blocks, and ranges are half-open.
//!
//! Tests: `tools/models/tests/rules/r4.rs`, `tools/models/tests/types.rs`,
//! `tools/engine/tests/writes_in_flight.rs`, `tools/engine/tests/full_writes.rs`,
//! `tests/vm/t/044-r4.sh`.

pub mod extent_map;
pub mod range;

use crate::engine::alloc::ag::Kept;
use crate::engine::btree::NodeStore;
use crate::engine::btree::{Tree, ValueBuf};
use crate::engine::format::extent::Extent;
use crate::engine::mutant::{self, Mutant};
use crate::engine::types::{MapKind, Mapping, MAX_FILE_BLOCKS};
use extent_map::ExtentMaps;
use kernel::prelude::*;
use range::{Range, RangeMap};

/// How many records one look-up joins, if they are neighbours on disk.
const JOIN: usize = 64;

/// Delalloc ranges. All holders of `maps` may read and remove them; only [`DelallocGuard`] adds
/// some (R4).
pub struct Delalloc(RangeMap<()>);

impl Delalloc {
    /// The number of blocks.
    pub fn total(&self) -> u64 {
        self.0.total()
    }

    /// The range that contains `block`.
    pub fn at(&self, block: u64) -> Option<Range<()>> {
        self.0.at(block)
    }

    /// The first range that ends after `block`: it contains `block` or follows it.
    pub fn at_or_after(&self, block: u64) -> Option<Range<()>> {
        self.0.at_or_after(block)
    }

    /// Removes `[start, start + len)`; see [`RangeMap::remove_range`].
    pub fn remove_range(&mut self, start: u64, len: u64, gone: impl FnMut(Range<()>)) -> Result {
        self.0.remove_range(start, len, gone)
    }

    fn insert(&mut self, r: Range<()>) -> Result {
        self.0.insert(r)
    }

    fn extend(&mut self, start: u64, by: u64) {
        self.0.extend(start, by);
    }
}

/// The three layers of an inode's mappings.
pub struct Maps {
    /// Completed mappings.
    pub tree: Tree,
    /// Extent maps.
    pub extent_maps: ExtentMaps,
    /// Delalloc ranges. Each of their blocks has one block reserved.
    pub delalloc: Delalloc,
    /// The number of allocated data blocks in the tree.
    pub blocks: u64,
    /// Holes of the tree that will be filled: dirty in the page cache, or in flight. Kept up to
    /// date with each change, so that stat(2) costs the same however much is dirty.
    new_blocks: RangeMap<()>,
    /// Free blocks behind the last one, which are kept for the next append.
    pub kept: Option<Kept>,
}

impl Maps {
    /// The layers of an extent tree with `blocks` allocated data blocks, and nothing else.
    pub fn new(tree: Tree, blocks: u64) -> Self {
        Self {
            tree,
            extent_maps: ExtentMaps::new(),
            delalloc: Delalloc(RangeMap::new()),
            blocks,
            new_blocks: RangeMap::new(),
            kept: None,
        }
    }

    /// The number of data blocks: those of the tree, and those that will be added.
    pub fn all_blocks(&self) -> u64 {
        self.blocks.saturating_add(self.new_blocks.total())
    }

    /// Notes that the range is about to be written, so its holes will be new blocks. On error
    /// nothing is changed.
    pub fn expect_new(&mut self, node_store: &NodeStore, start: u64, len: u64) -> Result {
        let end = start.saturating_add(len);
        let mut at = start;
        let r = loop {
            // A page that is written back was counted when it became dirty.
            if let Some(r) = self.new_blocks.at(at) {
                at = r.end();
            }
            if at >= end {
                return Ok(());
            }
            let run = match self.completed(node_store, at, end - at) {
                Ok(run) => run,
                Err(e) => break e,
            };
            if run.kind == MapKind::Hole {
                if let Err(e) = self.new_blocks.cover(at, run.len) {
                    break e;
                }
            }
            at += run.len.max(1);
        };
        self.recheck_new(start, len);
        Err(r)
    }

    /// Something in the range may no longer be dirty or in flight. Drops the expected new blocks
    /// that are neither.
    pub fn recheck_new(&mut self, start: u64, len: u64) {
        let end = start.saturating_add(len);
        let mut at = start;
        // A range that reaches beyond the end is found again by its next call.
        while at < end {
            let Some(r) = self.new_blocks.at_or_after(at).filter(|r| r.start < end) else {
                break;
            };
            at = at.max(r.start);
            let stop = r.end().min(end);
            while at < stop {
                let dirty = self.delalloc.at_or_after(at).map(|d| (d.start, d.end()));
                let flying = self
                    .extent_maps
                    .first_in_flight(at, stop)
                    .map(|f| (f.start, f.end()));
                // The first range that is still to be written.
                let keep = [dirty, flying].into_iter().flatten().min();
                let (from, to) = keep.filter(|k| k.0 < stop).unwrap_or((stop, stop));
                let from = from.max(at);
                self.mapped(at, from - at);
                at = to.max(from);
            }
        }
    }

    /// The range has blocks in the tree now, so none are expected any more.
    pub fn mapped(&mut self, start: u64, len: u64) {
        // Without memory to cut a range, the range stays until its surroundings go. Meanwhile
        // stat(2) shows too many blocks.
        let _ = self.new_blocks.remove_range(start, len, |_| ());
    }

    /// The extent record that contains `block`. Its bytes are left in `v`.
    pub fn extent_at(
        &self,
        node_store: &NodeStore,
        block: u64,
        v: &mut ValueBuf,
    ) -> Result<Option<Extent>> {
        let Some(key) = self.tree.find_le(node_store, block, v)? else {
            return Ok(None);
        };
        let e = Extent::decode(key, v.as_slice(), node_store.space())?;
        Ok((e.end() > block).then_some(e))
    }

    /// The first extent record that ends after `block`. Its bytes are left in `v`.
    pub fn extent_at_or_after(
        &self,
        node_store: &NodeStore,
        block: u64,
        v: &mut ValueBuf,
    ) -> Result<Option<Extent>> {
        if let Some(e) = self.extent_at(node_store, block, v)? {
            return Ok(Some(e));
        }
        let Some(key) = self.tree.find_ge(node_store, block, v)? else {
            return Ok(None);
        };
        Ok(Some(Extent::decode(key, v.as_slice(), node_store.space())?))
    }

    /// The completed mapping at `block`, at most `max` blocks long.
    pub fn completed(&self, node_store: &NodeStore, block: u64, max: u64) -> Result<Mapping> {
        let max = max.min(MAX_FILE_BLOCKS.saturating_sub(block)).max(1);
        let mut v = ValueBuf::new();
        let hole = |len: u64| Mapping {
            start: block,
            len: len.min(max),
            kind: MapKind::Hole,
            phys: 0,
            cookie: 0,
        };
        let Some(e) = self.extent_at_or_after(node_store, block, &mut v)? else {
            return Ok(hole(max));
        };
        if e.start > block {
            return Ok(hole(e.start - block));
        }
        let e = e.slice(block, u64::MAX);
        let mut m = Mapping {
            start: block,
            len: e.len,
            kind: if e.unwritten {
                MapKind::Unwritten
            } else {
                MapKind::Written
            },
            phys: e.phys,
            cookie: 0,
        };
        for _ in 0..JOIN {
            if m.len >= max {
                break;
            }
            let Some(n) = self.extent_at(node_store, m.start + m.len, &mut v)? else {
                break;
            };
            if n.start != m.start + m.len || n.phys != m.phys + m.len || n.unwritten != e.unwritten
            {
                break;
            }
            m.len += n.len;
        }
        m.len = m.len.min(max);
        Ok(m)
    }

    /// The mapping for a read at `block`: a clean or modified extent map, else the tree. Pinned
    /// maps are ignored, because their blocks may not be written yet.
    pub fn readable(&self, node_store: &NodeStore, block: u64, max: u64) -> Result<Mapping> {
        if let Some(r) = self
            .extent_maps
            .at(block)
            .filter(|r| r.value.in_flight == 0)
        {
            let off = block - r.start;
            return Ok(Mapping {
                start: block,
                len: (r.len - off).min(max.max(1)),
                kind: MapKind::Written,
                phys: r.value.phys + off,
                cookie: 0,
            });
        }
        self.completed(node_store, block, max)
    }

    /// The mapping that SEEK_DATA and fiemap see at `block`: delalloc, I/O in flight, then the
    /// tree.
    pub fn visible(&self, node_store: &NodeStore, block: u64, max: u64) -> Result<Mapping> {
        let mut max = max.max(1);
        match self.delalloc.at_or_after(block) {
            Some(d) if d.start <= block => {
                return Ok(Mapping {
                    start: block,
                    len: (d.end() - block).min(max),
                    kind: MapKind::Delalloc,
                    phys: 0,
                    cookie: 0,
                })
            }
            Some(d) => max = max.min(d.start - block),
            None => (),
        }
        match self.extent_maps.at_or_after(block) {
            Some(r) if r.start <= block => {
                let off = block - r.start;
                return Ok(Mapping {
                    start: block,
                    len: (r.len - off).min(max),
                    kind: MapKind::Written,
                    phys: r.value.phys + off,
                    cookie: 0,
                });
            }
            Some(r) => max = max.min(r.start - block),
            None => (),
        }
        self.completed(node_store, block, max)
    }

    /// The state that a buffered write finds at `block`. Inserts nothing.
    pub fn writable(&self, node_store: &NodeStore, block: u64, max: u64) -> Result<Writable> {
        let mut max = max.max(1);
        match self.delalloc.at_or_after(block) {
            Some(d) if d.start <= block => {
                let len = (d.end() - block).min(max);
                return Ok(Writable::Delalloc(
                    len,
                    self.completed(node_store, block, len)?,
                ));
            }
            Some(d) => max = max.min(d.start - block),
            None => (),
        }
        // Preallocated blocks with I/O in flight will be written, so this write needs new blocks.
        let under = self.completed(node_store, block, max)?;
        if under.kind != MapKind::Unwritten {
            return Ok(Writable::Needs(under));
        }
        let flight = self.extent_maps.first_in_place(block, block + under.len);
        match flight {
            Some(r) if r.start <= block => {
                let len = under.len.min(r.end() - block);
                Ok(Writable::Needs(Mapping { len, ..under }))
            }
            Some(r) => Ok(Writable::Unwritten(Mapping {
                len: under.len.min(r.start - block),
                ..under
            })),
            None => Ok(Writable::Unwritten(under)),
        }
    }

    /// R4: the right to insert delalloc, which only a holder of the write guard can get.
    pub fn delalloc_guard(&mut self) -> DelallocGuard<'_> {
        DelallocGuard { maps: self }
    }
}

/// The result of [`Maps::writable`].
pub enum Writable {
    /// Delalloc of this many blocks, over this completed mapping.
    Delalloc(u64, Mapping),
    /// Preallocated and not being written: needs no reservation.
    Unwritten(Mapping),
    /// Needs a delalloc reservation. The mapping is what is under it.
    Needs(Mapping),
}

/// R4 (look again under the lock): inserts delalloc only if a second look, under the write lock
/// that this guard stands for, finds it still needed.
pub struct DelallocGuard<'a> {
    maps: &'a mut Maps,
}

impl DelallocGuard<'_> {
    /// Inserts delalloc at `block` for at most `reserved` blocks. Returns how many blocks of the
    /// reservation the inode owns now; the caller gives the rest back. Zero: another task has made
    /// the range writable in between.
    pub fn insert(&mut self, node_store: &NodeStore, block: u64, reserved: u64) -> Result<u64> {
        let mut hole = false;
        let len = match self.maps.writable(node_store, block, reserved)? {
            Writable::Needs(under) => {
                hole = under.kind == MapKind::Hole;
                under.len.min(reserved)
            }
            // The mutant relies on the first look.
            _ if mutant::is(Mutant::R4) => reserved,
            _ => return Ok(0),
        };
        if hole {
            self.maps.new_blocks.cover(block, len)?;
        }
        let d = &mut self.maps.delalloc;
        // Join with the neighbour on the left, so that a sequential write stays one range.
        let left = block.checked_sub(1).and_then(|b| d.at(b));
        match left {
            Some(l) => d.extend(l.start, len),
            None => {
                let r = d.insert(Range {
                    start: block,
                    len,
                    value: (),
                });
                if let Err(e) = r {
                    self.maps.recheck_new(block, len);
                    return Err(e);
                }
            }
        }
        Ok(len)
    }
}
