// SPDX-License-Identifier: GPL-2.0

//! A file as the kernel glue drives it: page cache, writeback, direct I/O, truncation, fallocate.
//!
//! The engine is called in the order of rust/fs/data and rust/vfs. What the kernel's iomap code
//! does in between (reading a page before a part of it is changed, zeroing behind the end of the
//! file at writeback) is done here in a few lines. Positions and lengths are in bytes, except for
//! runs of blocks.
//!
//! Tests: tools/crash/tests/recovery.rs.

use crate::disk::{Recorder, SIZE};
use crate::engine::alloc::Priority;
use crate::engine::{Fs, Inode, MapKind, Ordered, Started, Verdict};
use crate::os::{crc32c, Block, Device, Shared};
use kernel::fault;
use kernel::prelude::{Result, EIO};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of a block.
const BLOCK: u64 = SIZE as u64;

struct Page {
    data: Box<[u8; SIZE]>,
    dirty: bool,
}

/// A write that was submitted and has not ended.
struct Flight {
    ordered: crate::engine::Ordered,
    reach: u64,
    issued: Vec<usize>,
}

/// A regular file in use.
#[derive(Default)]
pub struct File {
    /// The size that stat shows; the on-disk size may be behind.
    pub size: u64,
    pages: BTreeMap<u64, Page>,
    flights: Vec<Flight>,
    /// The file was renamed over another one. The engine may still owe its data, and the call that
    /// pays the debt waits for all its writes in flight.
    renamed_over: bool,
}

/// What the operations on a file need.
pub struct Io<'a> {
    /// The filesystem.
    pub fs: &'a Fs,
    /// Its device.
    pub dev: &'a Device,
    /// The same, for writes that stay in flight.
    pub rec: &'a Recorder,
    /// The engine's inode of the file.
    pub inode: &'a Shared<Inode>,
    /// The change counter of the VFS inode.
    pub change: u64,
}

impl Io<'_> {
    /// The I/O of a write has ended, as rust/fs/data.rs has it.
    fn write_ended(&self, write: Ordered, reach: u64) -> Result {
        self.inode.note_change(|| self.change);
        self.fs.finish_write(write, reach, Ok(()))
    }
}

fn blocks(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

impl File {
    /// A file of this size with an empty page cache.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            ..Self::default()
        }
    }

    /// Reads a page into the cache.
    fn page(&mut self, io: &Io<'_>, b: u64) -> Result<&mut Page> {
        if !self.pages.contains_key(&b) {
            let m = io.fs.map_read(io.inode, b, 1)?;
            let mut data = Block::zeroed()?;
            if m.kind == MapKind::Written {
                io.dev.read(m.phys, &mut data)?;
                let crc = crc32c(0, &data[..]);
                if io.fs.verify(io.inode, b, m.phys, crc)? != Verdict::Good {
                    return Err(EIO);
                }
            }
            let page = Page {
                data: Box::new(*data),
                dirty: false,
            };
            self.pages.insert(b, page);
        }
        self.pages.get_mut(&b).ok_or(EIO)
    }

    /// Changes bytes through the page cache.
    fn modify(
        &mut self,
        io: &Io<'_>,
        range: Range<u64>,
        f: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result {
        let all = blocks(&range);
        let mut at = all.start;
        while at < all.end {
            at += io.fs.map_write(io.inode, at, all.end - at)?.map.len;
        }
        for b in all {
            let start = (b * BLOCK).max(range.start);
            let end = ((b + 1) * BLOCK).min(range.end);
            let page = self.page(io, b)?;
            let from = (start - b * BLOCK) as usize;
            f(start, &mut page.data[from..from + (end - start) as usize]);
            page.dirty = true;
        }
        Ok(())
    }

    /// Zeroes bytes through the page cache. Holes and preallocated blocks stay as they are. Returns
    /// whether anything changed.
    fn zero(&mut self, io: &Io<'_>, range: Range<u64>) -> Result<bool> {
        let mut any = false;
        for b in blocks(&range) {
            let dirty = self.pages.get(&b).is_some_and(|p| p.dirty);
            let kind = io.fs.map_report(io.inode, b, 1)?.kind;
            if dirty || matches!(kind, MapKind::Written | MapKind::Delalloc) {
                let part = (b * BLOCK).max(range.start)..((b + 1) * BLOCK).min(range.end);
                self.modify(io, part, &mut |_, bytes| bytes.fill(0))?;
                any = true;
            }
        }
        Ok(any)
    }

    /// write(2) without O_DIRECT.
    pub fn write(
        &mut self,
        io: &Io<'_>,
        pos: u64,
        len: u64,
        f: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result {
        self.finish_flights(io)?;
        if pos > self.size {
            self.zero(io, self.size..pos)?;
        }
        self.modify(io, pos..pos + len, f)?;
        self.size = self.size.max(pos + len);
        Ok(())
    }

    /// A store through a shared mapping, inside the file.
    pub fn store(
        &mut self,
        io: &Io<'_>,
        pos: u64,
        len: u64,
        f: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result {
        self.finish_flights(io)?;
        self.modify(io, pos..pos + len, f)
    }

    /// Writes back the dirty pages of a range of blocks and waits.
    pub fn writeback(&mut self, io: &Io<'_>, range: Range<u64>) -> Result {
        self.each_dirty(range, |file, first, data| {
            file.submit(io, first, data, false)
        })
    }

    /// Before a rename over another file: starts the writes of all dirty pages.
    pub fn start_writeback(&mut self, io: &Io<'_>) -> Result {
        self.each_dirty(0..u64::MAX, |file, first, data| {
            file.renamed_over = true;
            file.launch(io, first, data, false)
        })
    }

    /// Passes the dirty pages of a range of blocks to `f`, run by run.
    fn each_dirty(
        &mut self,
        range: Range<u64>,
        mut f: impl FnMut(&mut Self, u64, &[[u8; SIZE]]) -> Result,
    ) -> Result {
        let mut at = range.start;
        while let Some(first) = self.dirty_from(at).filter(|b| *b < range.end) {
            let mut data = Vec::new();
            while let Some(p) = self.pages.get_mut(&(first + data.len() as u64)) {
                let b = first + data.len() as u64;
                if !p.dirty || b >= range.end {
                    break;
                }
                // Nothing behind the end of the file reaches the disk.
                let inside = self.size.saturating_sub(b * BLOCK).min(BLOCK) as usize;
                p.data[inside..].fill(0);
                p.dirty = false;
                data.push(*p.data);
            }
            at = first + data.len() as u64;
            f(self, first, &data)?;
        }
        Ok(())
    }

    fn dirty_from(&self, at: u64) -> Option<u64> {
        self.pages.range(at..).find(|(_, p)| p.dirty).map(|p| *p.0)
    }

    /// Starts the write of a run of blocks, in as many parts as the engine needs. `issue` receives
    /// each part, its blocks, and the byte of the file at which it ends.
    fn start(
        io: &Io<'_>,
        first: u64,
        data: &[[u8; SIZE]],
        direct: bool,
        mut issue: impl FnMut(Started, &[[u8; SIZE]], u64) -> Result,
    ) -> Result {
        let mut done = 0;
        while done < data.len() {
            let rest = &data[done..];
            let crcs: Vec<u32> = rest.iter().map(|d| crc32c(0, d)).collect();
            let at = first + done as u64;
            let s = io.fs.start_write(io.inode, at, &crcs, direct)?;
            let part = &rest[..s.len as usize];
            done += part.len();
            issue(s, part, (first + done as u64) * BLOCK)?;
        }
        Ok(())
    }

    /// Writes a run of blocks, from start to completion.
    fn submit(&self, io: &Io<'_>, first: u64, data: &[[u8; SIZE]], direct: bool) -> Result {
        Self::start(io, first, data, direct, |s, part, end| {
            for (i, d) in part.iter().enumerate() {
                let mut b = Block::zeroed()?;
                *b = *d;
                io.dev.write(&[(s.phys + i as u64, &b)])?;
            }
            let reach = if direct { end } else { end.min(self.size) };
            io.write_ended(s.ordered, reach)
        })
    }

    fn direct_data(pos: u64, len: u64, f: &mut dyn FnMut(u64, &mut [u8])) -> Vec<[u8; SIZE]> {
        let mut data = vec![[0; SIZE]; (len / BLOCK) as usize];
        for (i, d) in data.iter_mut().enumerate() {
            f(pos + i as u64 * BLOCK, d);
        }
        data
    }

    /// Before a direct write: drops all pages of the range.
    fn prepare_direct(&mut self, io: &Io<'_>, pos: u64, len: u64) -> Result {
        if pos > self.size {
            self.zero(io, self.size..pos)?;
        }
        let range = blocks(&(pos..pos + len));
        self.writeback(io, range.clone())?;
        self.drop_pages(range);
        Ok(())
    }

    /// write(2) with O_DIRECT; position and length in whole blocks.
    pub fn direct(
        &mut self,
        io: &Io<'_>,
        pos: u64,
        len: u64,
        f: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result {
        self.finish_flights(io)?;
        self.prepare_direct(io, pos, len)?;
        self.submit(io, pos / BLOCK, &Self::direct_data(pos, len, f), true)?;
        self.size = self.size.max(pos + len);
        Ok(())
    }

    /// The first half of an asynchronous direct write inside the file, which stays in flight.
    pub fn start_direct(
        &mut self,
        io: &Io<'_>,
        pos: u64,
        len: u64,
        f: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result {
        self.finish_flights(io)?;
        self.prepare_direct(io, pos, len)?;
        self.launch(io, pos / BLOCK, &Self::direct_data(pos, len, f), true)
    }

    /// Starts the write of a run of blocks, which stays in flight.
    fn launch(&mut self, io: &Io<'_>, first: u64, data: &[[u8; SIZE]], direct: bool) -> Result {
        let size = self.size;
        Self::start(io, first, data, direct, |s, part, end| {
            let reach = if direct { end } else { end.min(size) };
            let issue = |(i, d): (usize, &[u8; SIZE])| io.rec.issue(s.phys + i as u64, d, false);
            self.flights.push(Flight {
                issued: part.iter().enumerate().map(issue).collect(),
                ordered: s.ordered,
                reach,
            });
            Ok(())
        })
    }

    /// Are writes in flight?
    pub fn in_flight(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Are writes in flight for which a call may wait when it pays debts?
    pub fn owes(&self) -> bool {
        self.renamed_over && self.in_flight()
    }

    /// Ends the writes in flight.
    pub fn finish_flights(&mut self, io: &Io<'_>) -> Result {
        for f in std::mem::take(&mut self.flights) {
            f.issued.iter().for_each(|i| io.rec.done(*i));
            io.write_ended(f.ordered, f.reach)?;
        }
        Ok(())
    }

    /// Drops pages, dirty or not.
    fn drop_pages(&mut self, range: Range<u64>) {
        self.pages.retain(|b, _| !range.contains(b));
    }

    /// Drops clean pages.
    pub fn drop_clean(&mut self) {
        if self.owes() {
            // The pages are being written.
            return;
        }
        self.pages.retain(|_, p| p.dirty);
    }

    /// Does the disk have everything that the page cache has?
    pub fn is_clean(&self) -> bool {
        self.flights.is_empty() && self.pages.values().all(|p| !p.dirty)
    }

    fn set_size_pages(&mut self, size: u64) {
        let keep = size.div_ceil(BLOCK);
        self.pages.retain(|b, _| *b < keep);
        if size < self.size {
            // truncate_setsize zeroes the rest of the page.
            if let Some(p) = self.pages.get_mut(&(size / BLOCK)) {
                p.data[(size % BLOCK) as usize..].fill(0);
            }
        }
        self.size = size;
    }

    /// truncate(2), as in rust/fs/data/space.rs.
    pub fn truncate(&mut self, io: &Io<'_>, size: u64) -> Result {
        self.finish_flights(io)?;
        if size > self.size {
            self.zero(io, self.size..size)?;
            self.set_size_pages(size);
            return io.fs.raise_size(io.inode, size);
        }
        self.cut(io, size, |io| io.fs.set_size(io.inode, size))
    }

    /// truncate(2) to a smaller size that runs out of memory after the cut: it returns an error,
    /// and all the blocks are still there.
    pub fn truncate_in_vain(&mut self, io: &Io<'_>, size: u64) -> Result {
        self.finish_flights(io)?;
        self.writeback(io, 0..u64::MAX)?;
        // The first transaction of a mount waits for a commit, which must not run out of memory.
        drop(io.fs.begin(0, Priority::Reclaim)?);
        self.cut(io, size, |io| {
            for n in 0.. {
                let armed = fault::nth(n, fault::Mode::Once);
                let r = io.fs.set_size(io.inode, size);
                drop(armed);
                if r.is_ok() || io.fs.is_shutdown() {
                    return r;
                }
                if io.inode.attrs().size == size {
                    break;
                }
            }
            Ok(())
        })
    }

    fn cut(&mut self, io: &Io<'_>, size: u64, set_size: impl FnOnce(&Io<'_>) -> Result) -> Result {
        let tail = size..size.next_multiple_of(BLOCK);
        let zeroed = !tail.is_empty() && self.zero(io, tail)?;
        self.set_size_pages(size);
        if zeroed {
            self.writeback(io, blocks(&(size..size + 1)))?;
        }
        set_size(io)
    }

    /// fallocate(2) without a mode, or with FALLOC_FL_KEEP_SIZE.
    pub fn allocate(&mut self, io: &Io<'_>, range: Range<u64>, keep_size: bool) -> Result {
        self.finish_flights(io)?;
        self.reserve(io, range.clone(), new_size(&range, keep_size, self.size))
    }

    fn reserve(&mut self, io: &Io<'_>, range: Range<u64>, new_size: Option<u64>) -> Result {
        if new_size.is_some() {
            let size = self.size;
            self.zero(io, size..size.next_multiple_of(BLOCK))?;
        }
        let b = blocks(&range);
        io.fs
            .preallocate(io.inode, b.start, b.end - b.start, new_size)?;
        self.size = new_size.unwrap_or(self.size);
        Ok(())
    }

    /// FALLOC_FL_PUNCH_HOLE.
    pub fn punch(&mut self, io: &Io<'_>, range: Range<u64>) -> Result {
        self.finish_flights(io)?;
        let mut range = range;
        if range.end >= self.size {
            range.end = range.end.next_multiple_of(BLOCK);
        }
        let (head, whole, tail) = parts(&range);
        if !whole.is_empty() {
            io.fs.raise_size(io.inode, self.size)?;
            self.drop_pages(whole.clone());
            io.fs
                .punch(io.inode, whole.start, whole.end - whole.start)?;
        }
        self.zero_part(io, head)?;
        self.zero_part(io, tail)
    }

    /// FALLOC_FL_ZERO_RANGE.
    pub fn zero_range(&mut self, io: &Io<'_>, range: Range<u64>, keep_size: bool) -> Result {
        self.finish_flights(io)?;
        let new_size = new_size(&range, keep_size, self.size);
        let (head, whole, tail) = parts(&range);
        if !whole.is_empty() {
            io.fs.raise_size(io.inode, self.size)?;
            self.drop_pages(whole.clone());
            io.fs
                .zero_range(io.inode, whole.start, whole.end - whole.start, None)?;
        }
        self.zero_part(io, head)?;
        self.zero_part(io, tail)?;
        self.reserve(io, range, new_size)
    }

    fn zero_part(&mut self, io: &Io<'_>, part: Range<u64>) -> Result {
        let end = part.end.min(self.size);
        if part.start < end {
            self.zero(io, part.start..end)?;
        }
        Ok(())
    }
}

fn new_size(range: &Range<u64>, keep_size: bool, size: u64) -> Option<u64> {
    (!keep_size && range.end > size).then_some(range.end)
}

/// The part of a block before, the whole blocks, and the part of a block after.
fn parts(r: &Range<u64>) -> (Range<u64>, Range<u64>, Range<u64>) {
    let (first, last) = (r.start.div_ceil(BLOCK), r.end / BLOCK);
    if first > last {
        return (r.clone(), 0..0, 0..0);
    }
    (r.start..first * BLOCK, first..last, last * BLOCK..r.end)
}
