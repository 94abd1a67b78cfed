// SPDX-License-Identifier: GPL-2.0

//! What is known about an inode's file blocks, in three layers.
//!
//! 1. The *extent tree*: completed mappings. Only completed I/O, preallocation and the operations on
//!    file space change it, in a transaction. Reads go by it.
//! 2. *Extent maps* ([`extent_map`]): mappings in flight or not committed yet, and a cache.
//! 3. *Delalloc*: ranges that are dirty in the page cache and have space reserved. They may lie
//!    over holes, over written extents (a copy-on-write overwrite to be) and over I/O in flight.
//!
//! Everything is under `Inode.maps`. R4: only [`DelallocGuard`], which exists on the write guard
//! alone, inserts delalloc, after it looked again.

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

/// Records that one look-up joins when they are neighbours on disk.
const JOIN: usize = 64;

/// Delalloc ranges. Anybody who holds `maps` may look and take away; only [`DelallocGuard`] adds (R4).
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

    /// The first range that ends after `block`: it contains `block` or lies behind it.
    pub fn at_or_after(&self, block: u64) -> Option<Range<()>> {
        self.0.at_or_after(block)
    }

    /// Takes `[start, start + len)` out; see [`RangeMap::carve`].
    pub fn carve(&mut self, start: u64, len: u64, gone: impl FnMut(Range<()>)) -> Result {
        self.0.carve(start, len, gone)
    }

    fn insert(&mut self, r: Range<()>) -> Result {
        self.0.insert(r)
    }

    fn extend(&mut self, start: u64, by: u64) {
        self.0.extend(start, by);
    }
}

/// The layers.
pub struct Maps {
    /// Completed mappings.
    pub tree: Tree,
    /// Extent maps.
    pub ems: ExtentMaps,
    /// Delalloc ranges; each block has one block reserved.
    pub delalloc: Delalloc,
    /// Allocated data blocks in the tree.
    pub blocks: u64,
    /// Holes of the tree that are about to be filled: dirty in the page cache, or in flight. Kept along, so
    /// that stat(2) costs the same whatever is dirty.
    new_blocks: RangeMap<()>,
    /// Free blocks behind the last one, kept for the next append.
    pub kept: Option<Kept>,
}

impl Maps {
    /// From an extent tree with `blocks` allocated data blocks.
    pub fn new(tree: Tree, blocks: u64) -> Self {
        Self {
            tree,
            ems: ExtentMaps::new(),
            delalloc: Delalloc(RangeMap::new()),
            blocks,
            new_blocks: RangeMap::new(),
            kept: None,
        }
    }

    /// The blocks of the tree and those that are about to be added.
    pub fn all_blocks(&self) -> u64 {
        self.blocks.saturating_add(self.new_blocks.total())
    }

    /// The range is about to be written: its holes will be new blocks. Nothing is changed on error.
    pub fn expect_new(&mut self, st: &NodeStore, start: u64, len: u64) -> Result {
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
            let run = match self.completed(st, at, end - at) {
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

    /// Something in the range may no longer be dirty or in flight: what was to become new blocks, and is
    /// neither, is forgotten.
    pub fn recheck_new(&mut self, start: u64, len: u64) {
        let end = start.saturating_add(len);
        let mut at = start;
        // A range that reaches beyond the end is found again there.
        while at < end {
            let Some(r) = self.new_blocks.at_or_after(at).filter(|r| r.start < end) else {
                break;
            };
            at = at.max(r.start);
            let stop = r.end().min(end);
            while at < stop {
                let dirty = self.delalloc.at_or_after(at).map(|d| (d.start, d.end()));
                let flying = self.ems.first_pinned(at, stop).map(|f| (f.start, f.end()));
                // The first range that is still to come.
                let keep = [dirty, flying].into_iter().flatten().min();
                let (from, to) = keep.filter(|k| k.0 < stop).unwrap_or((stop, stop));
                let from = from.max(at);
                self.mapped(at, from - at);
                at = to.max(from);
            }
        }
    }

    /// The range has blocks of its own now.
    pub fn mapped(&mut self, start: u64, len: u64) {
        // Without memory to cut a range it stays, until what is around it goes: stat(2) shows too many.
        let _ = self.new_blocks.carve(start, len, |_| ());
    }

    /// The extent record that contains `block`; its bytes are left in `v`.
    pub fn extent_at(
        &self,
        st: &NodeStore,
        block: u64,
        v: &mut ValueBuf,
    ) -> Result<Option<Extent>> {
        let Some(key) = self.tree.find_le(st, block, v)? else {
            return Ok(None);
        };
        let e = Extent::decode(key, v.as_slice(), st.space())?;
        Ok((e.end() > block).then_some(e))
    }

    /// The first extent record that ends after `block`; its bytes are left in `v`.
    pub fn extent_at_or_after(
        &self,
        st: &NodeStore,
        block: u64,
        v: &mut ValueBuf,
    ) -> Result<Option<Extent>> {
        if let Some(e) = self.extent_at(st, block, v)? {
            return Ok(Some(e));
        }
        let Some(key) = self.tree.find_ge(st, block, v)? else {
            return Ok(None);
        };
        Ok(Some(Extent::decode(key, v.as_slice(), st.space())?))
    }

    /// The completed mapping at `block`, at most `max` blocks long.
    pub fn completed(&self, st: &NodeStore, block: u64, max: u64) -> Result<Mapping> {
        let max = max.min(MAX_FILE_BLOCKS.saturating_sub(block)).max(1);
        let mut v = ValueBuf::new();
        let hole = |len: u64| Mapping {
            start: block,
            len: len.min(max),
            kind: MapKind::Hole,
            phys: 0,
            cookie: 0,
        };
        let Some(e) = self.extent_at_or_after(st, block, &mut v)? else {
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
            let Some(n) = self.extent_at(st, m.start + m.len, &mut v)? else {
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

    /// What a reader sees at `block`: the cached clean or modified extent map, else the tree. A
    /// pinned map is no answer, since its blocks may not be written yet.
    pub fn readable(&self, st: &NodeStore, block: u64, max: u64) -> Result<Mapping> {
        if let Some(r) = self.ems.at(block).filter(|r| r.value.pinned == 0) {
            let off = block - r.start;
            return Ok(Mapping {
                start: block,
                len: (r.len - off).min(max.max(1)),
                kind: MapKind::Written,
                phys: r.value.phys + off,
                cookie: 0,
            });
        }
        self.completed(st, block, max)
    }

    /// What SEEK_DATA and fiemap see at `block`: delalloc, I/O in flight and the tree.
    pub fn visible(&self, st: &NodeStore, block: u64, max: u64) -> Result<Mapping> {
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
        match self.ems.at_or_after(block) {
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
        self.completed(st, block, max)
    }

    /// What a buffered write may rely on at `block`, without inserting anything.
    pub fn writable(&self, st: &NodeStore, block: u64, max: u64) -> Result<Writable> {
        let mut max = max.max(1);
        match self.delalloc.at_or_after(block) {
            Some(d) if d.start <= block => {
                let len = (d.end() - block).min(max);
                return Ok(Writable::Delalloc(len, self.completed(st, block, len)?));
            }
            Some(d) => max = max.min(d.start - block),
            None => (),
        }
        // I/O in flight into preallocated blocks: they will be written, so this write needs new ones.
        let under = self.completed(st, block, max)?;
        if under.kind != MapKind::Unwritten {
            return Ok(Writable::Needs(under));
        }
        let flight = self.ems.first_in_place(block, block + under.len);
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

    /// R4: the right to insert delalloc; made from the write guard only.
    pub fn delalloc_guard(&mut self) -> DelallocGuard<'_> {
        DelallocGuard { maps: self }
    }
}

/// See [`Maps::writable`].
pub enum Writable {
    /// Delalloc of so many blocks, over this completed mapping.
    Delalloc(u64, Mapping),
    /// Preallocated and not being written: no reservation needed.
    Unwritten(Mapping),
    /// Needs a delalloc reservation; what lies under it.
    Needs(Mapping),
}

/// R4 (look again under the lock): inserts delalloc only where a second look, under the write lock
/// that this guard stands for, still finds it needed.
pub struct DelallocGuard<'a> {
    maps: &'a mut Maps,
}

impl DelallocGuard<'_> {
    /// Inserts delalloc at `block` for at most `reserved` blocks. Returns how many blocks of the
    /// reservation are now owned by the inode; the caller gives the rest back. Zero: somebody else
    /// made the range writable in between.
    pub fn insert(&mut self, st: &NodeStore, block: u64, reserved: u64) -> Result<u64> {
        let mut hole = false;
        let len = match self.maps.writable(st, block, reserved)? {
            Writable::Needs(under) => {
                hole = under.kind == MapKind::Hole;
                under.len.min(reserved)
            }
            // The mutant goes by its first look.
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
