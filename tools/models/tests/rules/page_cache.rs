// SPDX-License-Identifier: GPL-2.0

//! A small model of the page cache above the engine.
//!
//! # Model
//!
//! A file has folios of one block. Each has a lock and the flags that matter: up to date, dirty,
//! under writeback, mapped writably, gone from the cache. The file has `i_rwsem`, `invalidate_lock`
//! and `i_size`. The steps are those of the kernel's iomap code, of `rust/vfs` and of
//! `rust/fs/data`, in their order; each function names what it stands for. Data is counted in
//! halves of blocks, so that writes can be partial.
//!
//! Left out are large folios, errors, short copies, and how reclaim counts references: here a folio
//! that reclaim took is gone, and a task that waited for its lock looks again.
//!
//! The protections of R3 and R5 are here and not in the engine, so their mutants are, too.

use crate::bed::{block, Bed, Halves, HALF};
use kernel::prelude::Result;
use ordofs_models::engine::mutant::{is, Mutant};
use ordofs_models::engine::{MapKind, Mapping, WriteMap};
use ordofs_models::os::atomic::{AtomicU64, Ordering};
use ordofs_models::os::{crc32c, Block, LockClass, Mutex, RwLock, WaitQueue, WriteGuard};
use std::collections::BTreeMap;
use std::sync::Arc;

/// There is no lockdep here that would check it.
static CLASS: LockClass = LockClass::new(c"page cache");

/// The state of a folio.
#[derive(Clone, Copy, Default)]
pub struct State {
    pub data: Halves,
    pub uptodate: bool,
    pub dirty: bool,
    pub writeback: bool,
    /// Mapped writably in a page table, so stores take no fault.
    pub writable: bool,
    /// No longer in the page cache.
    pub gone: bool,
}

/// A folio of one block.
pub struct Folio {
    index: u64,
    lock: Mutex<()>,
    /// Never held where the schedule may switch to another task.
    state: std::sync::Mutex<State>,
    written: WaitQueue,
}

impl Folio {
    fn new(index: u64) -> Self {
        Self {
            index,
            lock: Mutex::new(&CLASS, ()).expect("memory"),
            state: Default::default(),
            written: WaitQueue::new().expect("memory"),
        }
    }

    fn state(&self) -> State {
        *self.state.lock().expect("state")
    }

    fn change<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock().expect("state"))
    }

    /// `folio_wait_writeback`, and `folio_wait_stable`: the mapping has stable pages.
    fn wait_written(&self) {
        self.written.wait_until(|| !self.state().writeback);
    }

    fn end_writeback(&self) {
        self.change(|s| s.writeback = false);
        self.written.wake_all();
    }
}

/// A file as the VFS sees it.
pub struct File {
    pub bed: Bed,
    i_rwsem: RwLock<()>,
    invalidate: RwLock<()>,
    /// `i_size` in halves.
    size: AtomicU64,
    pages: Mutex<BTreeMap<u64, Arc<Folio>>>,
    /// The page table of the one process that has mapped the file.
    table: std::sync::Mutex<BTreeMap<u64, Arc<Folio>>>,
}

/// The exclusive side of `invalidate_lock`; `rust/vfs/object/page_cache.rs`.
pub struct Layout<'a> {
    pub file: &'a File,
    /// `None` in a mutant only.
    _lock: Option<WriteGuard<'a, ()>>,
}

/// The mapping that writeback keeps from folio to folio.
struct Known {
    start: u64,
    end: u64,
    cookie: u64,
    hole: bool,
}

fn bytes(halves: u64) -> u64 {
    halves * HALF as u64
}

impl File {
    /// The file of a bed, with an empty page cache.
    pub fn new(bed: Bed) -> Self {
        let size = bed.file.attrs().size / HALF as u64;
        Self {
            bed,
            i_rwsem: RwLock::new(&CLASS, ()).expect("memory"),
            invalidate: RwLock::new(&CLASS, ()).expect("memory"),
            size: AtomicU64::new(size),
            pages: Mutex::new(&CLASS, BTreeMap::new()).expect("memory"),
            table: Default::default(),
        }
    }

    /// `i_size`, in halves.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::SeqCst)
    }

    pub(super) fn set_i_size(&self, size: u64) {
        self.size.store(size, Ordering::SeqCst);
    }

    /// `i_rwsem`, exclusively.
    pub fn lock(&self) -> WriteGuard<'_, ()> {
        self.i_rwsem.write()
    }

    /// R3: `lock_layout`.
    pub fn lock_layout(&self) -> Layout<'_> {
        Layout {
            file: self,
            _lock: (!is(Mutant::R3)).then(|| self.invalidate.write()),
        }
    }

    fn cached(&self, index: u64) -> Option<Arc<Folio>> {
        self.pages.lock().get(&index).cloned()
    }

    fn indices(&self, from: u64, to: u64) -> Vec<u64> {
        let pages = self.pages.lock();
        pages.range(from..to).map(|(i, _)| *i).collect()
    }

    /// Runs `f` with the folio locked. `None` if there is none and none is to be made.
    fn locked<R>(&self, index: u64, make: bool, f: impl FnOnce(&Folio) -> R) -> Option<R> {
        loop {
            let folio = {
                let mut pages = self.pages.lock();
                match pages.get(&index) {
                    Some(f) => f.clone(),
                    None if make => {
                        let f = Arc::new(Folio::new(index));
                        pages.insert(index, f.clone());
                        f
                    }
                    None => return None,
                }
            };
            let _lock = folio.lock.lock();
            if !folio.state().gone {
                return Some(f(&folio));
            }
        }
    }

    /// `read_folio`, with the folio locked.
    fn read_folio(&self, folio: &Folio) -> Result {
        if !folio.state().uptodate {
            let data = self.bed.read(folio.index)?;
            folio.change(|s| (s.data, s.uptodate) = (data, true));
        }
        Ok(())
    }

    /// A buffered read of one block.
    pub fn read(&self, index: u64) -> Result<Halves> {
        let all = self.locked(index, true, |folio| {
            self.read_folio(folio).map(|()| folio.state().data)
        });
        let mut data = all.expect("a folio")?;
        let size = self.size();
        for (i, half) in data.iter_mut().enumerate() {
            if 2 * index + i as u64 >= size {
                *half = 0;
            }
        }
        Ok(data)
    }

    /// R5: `iomap_valid`, with a folio locked.
    fn valid(&self, cookie: u64) -> bool {
        is(Mutant::R5) || self.bed.fs.cookie(&self.bed.file) == cookie
    }

    /// `write(2)` of `[pos, pos + data.len())` in halves, inside `i_size`:
    /// `iomap_file_buffered_write` under `i_rwsem`.
    pub fn write(&self, pos: u64, data: &[u8]) -> Result {
        let _lock = self.lock();
        let end = pos + data.len() as u64;
        let mut at = pos;
        while at < end {
            let first = at / 2;
            let w = (self.bed.fs).map_write(&self.bed.file, first, end.div_ceil(2) - first)?;
            at = self.use_mapping(&w, at, end, |h| data[(h - pos) as usize], true)?;
        }
        Ok(())
    }

    /// `iomap_write_iter`: uses a mapping for `[at, end)` as far as it reaches and is valid, folio
    /// by folio, and then ends it. Returns how far it came.
    pub(super) fn use_mapping(
        &self,
        w: &WriteMap,
        begin: u64,
        end: u64,
        data: impl Fn(u64) -> u8,
        take: bool,
    ) -> Result<u64> {
        let end = end.min(2 * (w.map.start + w.map.len));
        let mut at = begin;
        while at < end {
            let to = end.min(2 * (at / 2) + 2);
            let done = self.locked(at / 2, true, |folio| {
                folio.wait_written();
                if !self.valid(w.map.cookie) {
                    return Ok(false);
                }
                self.fill(folio, w, at, to, &data).map(|()| true)
            });
            // IOMAP_F_STALE
            if !done.expect("a folio")? {
                break;
            }
            at = to;
        }
        self.write_end(w, begin, at, end, take);
        Ok(at)
    }

    /// `__iomap_write_begin` and the copy.
    fn fill(
        &self,
        folio: &Folio,
        w: &WriteMap,
        at: u64,
        to: u64,
        data: &impl Fn(u64) -> u8,
    ) -> Result {
        let index = folio.index;
        if to - at < 2 && !folio.state().uptodate {
            // iomap_block_needs_zeroing
            let zeroes = w.src.is_none() || 2 * index >= self.size();
            let rest = if zeroes {
                [0, 0]
            } else {
                self.bed.read(index)?
            };
            folio.change(|s| s.data = rest);
        }
        folio.change(|s| {
            for h in at..to {
                s.data[(h % 2) as usize] = data(h);
            }
            (s.uptodate, s.dirty) = (true, true);
        });
        Ok(())
    }

    /// `write_end`: returns reservations that were not used, except under dirty folios. `take` if
    /// the caller does not hold the layout lock.
    fn write_end(&self, w: &WriteMap, begin: u64, at: u64, end: u64, take: bool) {
        let unused = if at > begin {
            at.div_ceil(2)
        } else {
            begin / 2
        };
        if w.map.kind != MapKind::Delalloc || unused >= end.div_ceil(2) {
            return;
        }
        let _layout = take.then(|| self.lock_layout());
        for b in unused..end.div_ceil(2) {
            let dirty = self.locked(b, false, |f| f.state().dirty);
            if dirty != Some(true) {
                self.bed.fs.release_delalloc(&self.bed.file, b, 1);
            }
        }
    }

    /// A store to one half, by the process that has mapped the file. Returns false for SIGBUS.
    pub fn store(&self, half: u64, byte: u8) -> Result<bool> {
        let index = half / 2;
        loop {
            let folio = self.table.lock().expect("table").get(&index).cloned();
            if let Some(folio) = folio {
                let done = folio.change(|s| {
                    if s.writable {
                        s.data[(half % 2) as usize] = byte;
                    }
                    s.writable
                });
                if done {
                    return Ok(true);
                }
            }
            if !self.fault(index)? {
                return Ok(false);
            }
        }
    }

    /// A write fault: `filemap_fault`, then `page_mkwrite`. Returns false for SIGBUS.
    fn fault(&self, index: u64) -> Result<bool> {
        let folio = match self.cached(index) {
            Some(f) if f.state().uptodate => f,
            _ => {
                let _shared = self.invalidate.read();
                if 2 * index >= self.size() {
                    return Ok(false);
                }
                let read = self.locked(index, true, |f| self.read_folio(f));
                read.expect("a folio")?;
                match self.cached(index) {
                    Some(f) => f,
                    None => return Ok(true),
                }
            }
        };
        // page_mkwrite: R3.
        let shared = self.invalidate.read();
        let _lock = folio.lock.lock();
        if folio.state().gone {
            return Ok(true);
        }
        if 2 * index >= self.size() {
            return Ok(false);
        }
        // fault_next
        folio.wait_written();
        self.bed.fs.map_write(&self.bed.file, index, 1)?;
        folio.change(|s| s.dirty = true);
        drop(shared);
        // The page table is changed before the folio is unlocked.
        let mut table = self.table.lock().expect("table");
        folio.change(|s| s.writable = true);
        table.insert(index, folio.clone());
        Ok(true)
    }

    /// `writepages` of blocks `[from, to)`, with the wait for the I/O.
    pub fn writeback(&self, from: u64, to: u64) -> Result {
        let mut known = None;
        let mut batch: Vec<(Arc<Folio>, u64)> = Vec::new();
        for index in self.indices(from, to) {
            let Some(folio) = self.cached(index) else {
                continue;
            };
            let _lock = folio.lock.lock();
            folio.wait_written();
            let s = folio.state();
            if s.gone || !s.dirty {
                continue;
            }
            // folio_clear_dirty_for_io, with the page tables.
            folio.change(|s| (s.dirty, s.writable) = (false, false));
            // iomap_writeback_handle_eof
            let size = self.size();
            if 2 * index >= size {
                continue;
            }
            if 2 * index + 1 >= size {
                folio.change(|s| s.data[1] = 0);
            }
            folio.change(|s| s.writeback = true);
            if self.is_hole(&mut known, index)? {
                folio.end_writeback();
                continue;
            }
            if batch.last().is_some_and(|(f, _)| f.index + 1 != index) {
                self.submit(std::mem::take(&mut batch))?;
            }
            batch.push((folio.clone(), bytes(size.min(2 * index + 2))));
        }
        self.submit(batch)
    }

    /// `writeback_range`: returns whether there is nothing to write. R5: a mapping that was kept
    /// counts only if nothing has changed.
    fn is_hole(&self, known: &mut Option<Known>, index: u64) -> Result<bool> {
        let good = known
            .as_ref()
            .is_some_and(|k| (k.start..k.end).contains(&index) && self.valid(k.cookie));
        if !good {
            let m: Mapping = self.bed.fs.map_report(&self.bed.file, index, 64)?;
            *known = Some(Known {
                start: m.start,
                end: m.start + m.len,
                cookie: m.cookie,
                hole: m.kind == MapKind::Hole,
            });
        }
        Ok(known.as_ref().is_some_and(|k| k.hole))
    }

    /// `writeback_submit`, the device, and the worker that completes the I/O. Only then do the
    /// folios leave writeback.
    fn submit(&self, batch: Vec<(Arc<Folio>, u64)>) -> Result {
        let blocks: Vec<Block> = batch.iter().map(|(f, _)| block(f.state().data)).collect();
        let sums: Vec<u32> = blocks.iter().map(|b| crc32c(0, &b[..])).collect();
        let fs = &self.bed.fs;
        let mut done = 0;
        while let Some((first, _)) = batch.get(done) {
            let s = fs.start_write(&self.bed.file, first.index, &sums[done..], false)?;
            let n = s.len as usize;
            let io = (0..n).try_for_each(|i| {
                let device = fs.node_store().device();
                device.write(&[(s.phys + i as u64, &blocks[done + i])])
            });
            done += n;
            fs.finish_write(s.ordered, batch[done - 1].1, io)?;
        }
        batch.iter().for_each(|(f, _)| f.end_writeback());
        Ok(())
    }

    /// `filemap_write_and_wait_range`.
    pub fn write_and_wait(&self, from: u64, to: u64) -> Result {
        self.writeback(from, to)?;
        for index in self.indices(from, to) {
            if let Some(f) = self.cached(index) {
                f.wait_written();
            }
        }
        Ok(())
    }

    /// `fsync(2)`.
    pub fn fsync(&self) -> Result {
        self.write_and_wait(0, u64::MAX)?;
        self.bed.fs.sync_inode(&self.bed.file)
    }

    /// Reclaim: takes a clean folio, and asks the engine to release its maps (R2).
    pub fn reclaim(&self, index: u64) {
        let Some(folio) = self.cached(index) else {
            return;
        };
        let _lock = folio.lock.lock();
        let s = folio.state();
        if s.gone || s.dirty || s.writeback || s.writable {
            return;
        }
        self.bed.fs.release_maps(&self.bed.file, index, 1);
        folio.change(|s| s.gone = true);
        self.pages.lock().remove(&index);
    }

    /// `unmap_mapping_range`.
    pub(super) fn unmap(&self, from: u64, to: u64) {
        let table = self.table.lock().expect("table");
        for (_, folio) in table.range(from..to) {
            folio.change(|s| s.writable = false);
        }
    }

    /// `truncate_inode_pages_range` of whole blocks.
    pub(super) fn drop_folios(&self, from: u64, to: u64) {
        for index in self.indices(from, to) {
            self.locked(index, false, |folio| {
                folio.wait_written();
                folio.change(|s| {
                    *s = State {
                        gone: true,
                        ..State::default()
                    }
                });
                self.pages.lock().remove(&index);
            });
        }
    }

    /// `truncate_inode_partial_folio`: zeroes what follows half `size` in its block.
    pub(super) fn zero_cached_tail(&self, size: u64) {
        if size % 2 != 0 {
            self.locked(size / 2, false, |folio| {
                folio.wait_written();
                folio.change(|s| s.data[1] = 0);
            });
        }
    }

    /// Is any folio of the range dirty or under writeback?
    pub(super) fn needs_writeback(&self, from: u64, to: u64) -> bool {
        self.indices(from, to).into_iter().any(|i| {
            let state = self.cached(i).map(|f| f.state());
            state.is_some_and(|s| s.dirty || s.writeback)
        })
    }

    /// At a moment when no task runs, checks that every dirty folio has the space that its data
    /// needs, and every reservation has a dirty folio.
    pub fn check_quiet(&self) {
        for index in 0..16 {
            let m = (self.bed.fs)
                .map_report(&self.bed.file, index, 1)
                .expect("map_report");
            let s = self.cached(index).map(|f| f.state()).unwrap_or_default();
            assert!(!s.writeback, "block {index} is still under writeback");
            let dirty = s.dirty && 2 * index < self.size();
            let backed = matches!(m.kind, MapKind::Delalloc | MapKind::Unwritten);
            assert!(
                !dirty || backed,
                "block {index}: a dirty folio over {:?}",
                m.kind
            );
            assert!(
                m.kind != MapKind::Delalloc || s.dirty,
                "block {index}: a reservation without a dirty folio"
            );
        }
    }

    /// At a moment when no task runs, checks that readers find the same before and after writeback
    /// and reclaim. Returns it.
    pub fn settle(&self, blocks: u64) -> Vec<Halves> {
        let before: Vec<Halves> = (0..blocks).map(|i| self.read(i).expect("read")).collect();
        self.write_and_wait(0, u64::MAX).expect("writeback");
        (0..blocks).for_each(|i| self.reclaim(i));
        let after: Vec<Halves> = (0..blocks).map(|i| self.read(i).expect("read")).collect();
        assert_eq!(before, after, "writeback and reclaim changed the data");
        after
    }
}
