// SPDX-License-Identifier: GPL-2.0

//! Truncate, punch, zero and preallocate on the model of the page cache: the steps of
//! `rust/fs/data/space.rs`, in their order. Offsets are in halves of blocks.

use crate::page_cache::{File, Layout};
use kernel::prelude::Result;
use ordofs_models::engine::MapKind;
use std::ops::Range;

fn bytes(halves: u64) -> u64 {
    halves * crate::bed::HALF as u64
}

impl Layout<'_> {
    /// `drop_pages`: whole blocks.
    fn drop_pages(&self, from: u64, to: u64) {
        self.file.unmap(from, to);
        self.file.drop_folios(from, to);
        self.file.unmap(from, to);
    }

    /// `truncate_setsize`.
    fn set_size(&self, size: u64) {
        self.file.set_i_size(size);
        let whole = size.div_ceil(2);
        self.file.unmap(whole, u64::MAX);
        self.file.zero_cached_tail(size);
        self.file.drop_folios(whole, u64::MAX);
        self.file.unmap(whole, u64::MAX);
    }

    /// `iomap_zero_range`. Returns whether anything became dirty.
    fn zero(&self, range: Range<u64>) -> Result<bool> {
        let (file, fs, inode) = (self.file, &self.file.bed.fs, &self.file.bed.file);
        let mut dirty = file.needs_writeback(range.start / 2, range.end.div_ceil(2));
        let mut did = false;
        let mut at = range.start;
        while at < range.end {
            let block = at / 2;
            let n = range.end.div_ceil(2) - block;
            // zero_begin
            let now = fs.map_report(inode, block, n)?;
            let (mut kind, mut len) = (now.kind, now.len);
            if matches!(kind, MapKind::Delalloc | MapKind::Written) {
                let w = fs.map_write(inode, block, len.min(n))?;
                if w.map.kind == MapKind::Delalloc {
                    let to = file.use_mapping(&w, at, range.end, |_| 0, false)?;
                    did |= to > at;
                    at = to;
                    continue;
                }
                (kind, len) = (w.map.kind, w.map.len);
            }
            if kind == MapKind::Unwritten && dirty {
                dirty = false;
                file.write_and_wait(block, block + n)?;
            } else {
                at = (2 * (block + len)).min(range.end);
            }
        }
        Ok(did)
    }

    fn zero_tail(&self, size: u64) -> Result<bool> {
        self.zero(size..size.next_multiple_of(2))
    }
}

impl File {
    /// `truncate(2)`.
    pub fn truncate(&self, size: u64) -> Result {
        let _lock = self.lock();
        let layout = self.lock_layout();
        let old = self.size();
        if size > old {
            layout.zero(old..size)?;
            layout.set_size(size);
            return self.bed.fs.raise_size(&self.bed.file, bytes(size));
        }
        let zeroed = layout.zero_tail(size)?;
        layout.set_size(size);
        if zeroed {
            self.write_and_wait(size / 2, size / 2 + 1)?;
        }
        self.bed.fs.set_size(&self.bed.file, bytes(size))
    }

    fn zero_part(&self, layout: &Layout<'_>, part: Range<u64>) -> Result {
        let end = part.end.min(self.size());
        if part.start < end {
            layout.zero(part.start..end)?;
        }
        Ok(())
    }

    /// The whole blocks of a range, and the halves before and behind them.
    fn parts(range: &Range<u64>) -> (Range<u64>, Range<u64>, Range<u64>) {
        let (first, last) = (range.start.div_ceil(2), range.end / 2);
        if first > last {
            return (range.clone(), 0..0, 0..0);
        }
        (range.start..2 * first, first..last, 2 * last..range.end)
    }

    /// `fallocate(FALLOC_FL_PUNCH_HOLE)`.
    pub fn punch(&self, range: Range<u64>) -> Result {
        let _lock = self.lock();
        let layout = self.lock_layout();
        let (head, blocks, tail) = Self::parts(&range);
        if !blocks.is_empty() {
            layout.drop_pages(blocks.start, blocks.end);
            let n = blocks.end - blocks.start;
            self.bed.fs.punch(&self.bed.file, blocks.start, n)?;
        }
        self.zero_part(&layout, head)?;
        self.zero_part(&layout, tail)
    }

    /// `fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)`.
    pub fn zero_range(&self, range: Range<u64>) -> Result {
        let _lock = self.lock();
        let layout = self.lock_layout();
        let (head, blocks, tail) = Self::parts(&range);
        let fs = &self.bed.fs;
        if !blocks.is_empty() {
            layout.drop_pages(blocks.start, blocks.end);
            let n = blocks.end - blocks.start;
            fs.zero_range(&self.bed.file, blocks.start, n, None)?;
        }
        self.zero_part(&layout, head)?;
        self.zero_part(&layout, tail)?;
        let first = range.start / 2;
        fs.preallocate(&self.bed.file, first, range.end.div_ceil(2) - first, None)
    }

    /// `fallocate(FALLOC_FL_KEEP_SIZE)`, in blocks.
    pub fn preallocate(&self, start: u64, len: u64) -> Result {
        let _lock = self.lock();
        let _layout = self.lock_layout();
        self.bed.fs.preallocate(&self.bed.file, start, len, None)
    }
}
