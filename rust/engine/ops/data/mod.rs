// SPDX-License-Identifier: GPL-2.0

//! Data writes: from a dirty range to a completed mapping.
//!
//! **R1 lives here.** [`Fs::start_write`] is the way by which a new on-disk mapping becomes visible while
//! its I/O is in flight: for writeback and direct I/O, into holes, preallocated extents and copy-on-write
//! targets alike. Only data that a shrink moves has another ([`moves`]), which ends in the same function. Under the shared side of `Inode.ordered_sem` it inserts
//! the ordered extent first and the extent map second. A fast fsync takes the exclusive side while
//! it collects both. The race that this rules out: fsync finds the mapping but not the ordered
//! extent, logs the mapping without waiting for the I/O, and after a power cut the log replays a
//! mapping of stale blocks. Types see to it that there is no other way: see
//! [`crate::engine::inode::starting`].
//!
//! A write in flight is in no extent tree and in no transaction. [`Fs::finish_write`] puts its
//! mapping, its checksums and the on-disk size there, in one transaction.
//!
//! Space, in blocks: delalloc reserved one block for each dirty block, plus `Space::meta_for` that many
//! for extent records. When a write starts, allocated = delalloc given up + `extra` reserved by
//! `start_write`; what is left over goes back.
//!
//! Locks: `ordered_sem`, `maps`, `meta`, `ordered`, in this order; AGs below them.
//! [`Fs::start_write`] may be called with folio locks held, and waits for overlapping writes;
//! completions run in process context and wait for no I/O of the file. Positions and lengths are
//! file blocks unless a name says `phys` or bytes; ranges are half-open.
//!
//! Tests: tools/engine/tests/writes_in_flight.rs, write_lost.rs, appends.rs, read_verify.rs,
//! full_writes.rs; tools/models/tests/rules/r1.rs, r2.rs, r4.rs, r5.rs, reads.rs;
//! tests/vm/t/041-r1.sh to 045-r5.sh, 049-lost-writes.sh, 060-data-paths.sh, 065-race.sh.

use crate::engine::alloc::ag::{Owner, GROUP_NODES, MIN_KEPT};
use crate::engine::alloc::{Near, Priority};
use crate::engine::btree::ValueBuf;
use crate::engine::format::extent::Extent;
use crate::engine::format::GROUP_BLOCKS;
use crate::engine::fs::Fs;
use crate::engine::inode::maps::{Maps, Writable};
use crate::engine::inode::ordered::NewWrite;
use crate::engine::inode::starting::{Ordered, Started, Starting};
use crate::engine::inode::Inode;
use crate::engine::ops::extents::{groups_of, Budget, Old};
use crate::engine::txn::{Drains, Wait};
use crate::engine::types::*;
use crate::os::atomic::Ordering;
use crate::os::{trace, NoFs, Shared, Window};
use kernel::prelude::*;

mod moves;
mod verify;

/// The most blocks that one buffered mapping covers (8 MiB).
const MAX_DELALLOC: u64 = 2048;

/// The most groups in which the blocks that one write replaces may lie, because its completion
/// frees them in one transaction.
const WRITE_GROUPS: u64 = 64;

/// Where a write goes: disk blocks `[phys, phys + len)`. Allocated under `maps`, unless the write
/// is in place.
struct Place {
    phys: u64,
    len: u64,
    in_place: bool,
}

impl Fs {
    /// The mapping, with the present sequence number of the maps (R5).
    fn with_cookie(inode: &Inode, m: Mapping) -> Mapping {
        Mapping {
            cookie: inode.cookie(),
            ..m
        }
    }

    /// The completed mapping at file block `block`, of at most `max` blocks, for a read from the
    /// device. Waits for direct writes in flight there first, because their data is in no page
    /// cache. Must not be called inside a transaction. EIO after a shutdown.
    pub fn map_read(&self, inode: &Inode, block: u64, max: u64) -> Result<Mapping> {
        let _nofs = NoFs::enter();
        self.readable()?;
        loop {
            if inode.direct.load(Ordering::Acquire) != 0 {
                let end = max.min(MAX_DELALLOC);
                self.ordered_until(inode, || !inode.ordered.lock().direct(block, end));
            }
            let m = inode.maps.read();
            let r = Self::with_cookie(inode, m.readable(&self.node_store, block, max)?);
            drop(m);
            if inode.direct.load(Ordering::Acquire) == 0
                || !inode.ordered.lock().direct(r.start, r.len)
            {
                let (kind, dev) = (r.kind as u32, self.dev());
                trace::map_read(dev, inode.ino(), r.start, r.len, kind, r.phys, r.cookie);
                return Ok(r);
            }
        }
    }

    /// The mapping at file block `block`, of at most `max` blocks, for fiemap and SEEK_HOLE:
    /// includes delalloc and writes in flight.
    pub fn map_report(&self, inode: &Inode, block: u64, max: u64) -> Result<Mapping> {
        let _nofs = NoFs::enter();
        let m = inode.maps.read();
        Ok(Self::with_cookie(
            inode,
            m.visible(&self.node_store, block, max)?,
        ))
    }

    /// Makes a range writable through the page cache, for a buffered write or a page fault. May
    /// cover less than `max` blocks. EFBIG, EROFS, ENOSPC, EIO. Must not be called inside a
    /// transaction.
    ///
    /// R4: looks with the lock shared, reserves space without any lock, and looks again with the
    /// lock exclusive. In between, another task may have filled the hole.
    pub fn map_write(&self, inode: &Shared<Inode>, block: u64, max: u64) -> Result<WriteMap> {
        let _nofs = NoFs::enter();
        self.writable()?;
        if block >= MAX_FILE_BLOCKS {
            return Err(EFBIG);
        }
        let max = max.clamp(1, MAX_DELALLOC).min(MAX_FILE_BLOCKS - block);
        self.finish_truncation(inode, block + max)?;
        if inode.direct.load(Ordering::Acquire) != 0 {
            self.ordered_until(inode, || !inode.ordered.lock().direct(block, max));
        }
        loop {
            let need = {
                let m = inode.maps.read();
                match m.writable(&self.node_store, block, max)? {
                    Writable::Delalloc(len, under) => {
                        return Ok(self.mapped(inode, Self::over(inode, block, len, under)))
                    }
                    Writable::Unwritten(u) => {
                        let w = WriteMap {
                            map: Self::with_cookie(inode, u),
                            src: None,
                            new: false,
                        };
                        return Ok(self.mapped(inode, w));
                    }
                    Writable::Needs(under) => under.len,
                }
            };
            self.throttle()?;
            let got = self.reserve_data(need)?;
            if let Err(e) = self.node_store.device().pass(Window::MapWrite) {
                self.space.unreserve(got + self.space.meta_for(got));
                return Err(e);
            }
            let (kept, meta) = {
                let mut m = inode.maps.write();
                let before = m.delalloc.total();
                let r = m.delalloc_guard().insert(&self.node_store, block, got);
                if matches!(r, Ok(n) if n > 0) {
                    inode.bump(&mut m);
                }
                let meta = self.space.meta_for(m.delalloc.total()) - self.space.meta_for(before);
                self.delalloc_meta.fetch_add(meta as i64, Ordering::Relaxed);
                (r, meta)
            };
            // If another task was faster, its delalloc stays, and this one's reservation goes back.
            let used = *kept.as_ref().unwrap_or(&0) + meta;
            trace::delalloc(
                self.dev(),
                inode.ino(),
                block,
                got + self.space.meta_for(got),
                used,
            );
            self.space
                .unreserve((got + self.space.meta_for(got)).saturating_sub(used));
            kept?;
        }
    }

    /// Traces the mapping that is returned to a write.
    fn mapped(&self, inode: &Inode, w: WriteMap) -> WriteMap {
        let (m, dev) = (&w.map, self.dev());
        let kind = m.kind as u32;
        trace::map_write(dev, inode.ino(), m.start, m.len, kind, m.phys, m.cookie);
        w
    }

    /// The result of [`Fs::map_write`] for delalloc that lies over `under`.
    fn over(inode: &Inode, start: u64, len: u64, under: Mapping) -> WriteMap {
        let map = Mapping {
            start,
            len: len.min(under.len),
            kind: MapKind::Delalloc,
            phys: 0,
            cookie: 0,
        };
        let src = (under.kind == MapKind::Written).then_some(under);
        WriteMap {
            map: Self::with_cookie(inode, map),
            src,
            new: src.is_none(),
        }
    }

    /// Reserves `want` data blocks plus `Space::meta_for` that many; less when space is short, but at
    /// least one. Returns how many data blocks. ENOSPC.
    fn reserve_data(&self, want: u64) -> Result<u64> {
        let want = want.max(1);
        if self
            .space
            .reserve(want + self.space.meta_for(want), Priority::Normal)
            .is_ok()
        {
            return Ok(want);
        }
        let mut n = want;
        let mut drains = Drains::new();
        loop {
            match self.reserve_within(n + self.space.meta_for(n), &mut drains, Wait::ForDeletions) {
                Ok(()) => return Ok(n),
                Err(e) if n == 1 => return Err(e),
                Err(_) => n = (n / 8).max(1),
            }
        }
    }

    /// Returns the blocks reserved for metadata when the delalloc of an inode shrinks from `before`
    /// to `after` blocks.
    pub(crate) fn shrink_delalloc_meta(&self, before: u64, after: u64) {
        let n = self
            .space
            .meta_for(before)
            .saturating_sub(self.space.meta_for(after));
        self.delalloc_meta.fetch_sub(n as i64, Ordering::Relaxed);
        self.space.unreserve(n);
    }

    /// Drops the delalloc in a range and returns its reservation: after a write that failed or came
    /// up short, or before the range is cut off. The caller has dealt with the pages.
    pub fn release_delalloc(&self, inode: &Inode, start: u64, len: u64) {
        let _nofs = NoFs::enter();
        let mut m = inode.maps.write();
        let before = m.delalloc.total();
        let mut n = 0;
        if m.delalloc.remove_range(start, len, |r| n += r.len).is_err() {
            pr_warn!(
                "{}: inode {}: no memory to release a reservation\n",
                self.device_name(),
                inode.ino()
            );
        }
        self.shrink_delalloc_meta(before, before - n);
        if n > 0 {
            m.recheck_new(start, len);
            inode.bump(&mut m);
        }
        drop(m);
        self.space.unreserve(n);
    }

    /// Notes that dirty pages of the range cannot be written and are about to be clean: returns
    /// their reservation, and remembers the loss for [`Fs::lost_since`].
    pub fn lose_dirty(&self, inode: &Inode, start: u64, len: u64, error: Error) {
        self.release_delalloc(inode, start, len);
        inode.ordered.lock().set_lost(start, len, error);
    }

    /// The number of losses of the inode so far, for [`Fs::lost_since`].
    pub fn losses(&self, inode: &Inode) -> u64 {
        inode.ordered.lock().lost()
    }

    /// Returns the error of a loss of buffered data in the range since [`Fs::losses`] returned
    /// `count`. The caller has waited for the writeback of the range. If too many losses came since
    /// to remember their ranges, returns an error too.
    pub fn lost_since(&self, inode: &Inode, count: u64, start: u64, len: u64) -> Result {
        inode.ordered.lock().lost_since(count, start, len)
    }

    /// Can a direct write to the range do with `i_rwsem` shared? True if the range is below the
    /// on-disk size and has no holes: then the write changes no size, and leaves nothing behind if
    /// it fails half-way.
    pub fn reserve_direct(&self, inode: &Inode, start: u64, len: u64) -> Result<bool> {
        let _nofs = NoFs::enter();
        let size = inode.meta.lock().attrs.size;
        if block_to_bytes(start.saturating_add(len)) > size {
            return Ok(false);
        }
        let end = start.saturating_add(len);
        let m = inode.maps.read();
        let mut at = start;
        while at < end {
            let e = m.completed(&self.node_store, at, end - at)?;
            if e.kind == MapKind::Hole {
                return Ok(false);
            }
            at += e.len;
        }
        Ok(true)
    }

    /// R1: the function that starts a data write. Decides where a prefix of file blocks
    /// `[start, start + csums.len())` goes, takes the space, inserts the ordered extent and then
    /// the extent map. `csums` has the crc32c of each block.
    ///
    /// Sleeps, and may be called with folio locks held; must not be called inside a transaction.
    /// Waits for a write in flight to the same blocks. ENOSPC for direct writes only: buffered data
    /// has its reservation, and where it has none the free counter is overdrawn, because the data
    /// would be lost otherwise.
    pub fn start_write(
        &self,
        inode: &Shared<Inode>,
        start: u64,
        csums: &[u32],
        direct: bool,
    ) -> Result<Started> {
        let _nofs = NoFs::enter();
        self.writable()?;
        let n = csums.len() as u64;
        if n == 0 || start.checked_add(n).is_none_or(|e| e > MAX_FILE_BLOCKS) {
            return Err(EINVAL);
        }
        let mut bytes = KVec::with_capacity(csums.len().saturating_mul(4), GFP_KERNEL)?;
        for c in csums {
            bytes.extend_from_slice(&c.to_le_bytes(), GFP_KERNEL)?;
        }
        // The on-disk size grows when this write ends, so nothing of a truncation may be left
        // behind it.
        self.finish_truncation(inode, start + n)?;
        loop {
            // Blocks without a reservation are reserved here, where no lock is held, since this may
            // commit.
            let extra = self.uncovered(inode, start, n, direct);
            if extra > 0 {
                let wait = match direct {
                    true => Wait::ForDeletions,
                    false => Wait::ForCommits,
                };
                let r = self.reserve_within(extra, &mut Drains::new(), wait);
                if direct {
                    r?;
                } else if r.is_err() {
                    // Without a reservation the data of a dirty folio would be lost, so overdraw.
                    self.space.reserve_forced(extra);
                }
            }
            let r = self.start_locked(inode, start, n, &bytes, direct, extra);
            match r {
                Ok(Some(s)) => return Ok(s),
                Ok(None) => {
                    // A write to the same blocks is in flight. Two of them would complete in any
                    // order: new blocks of the earlier one would be freed while they are mapped,
                    // and in place the checksum would match neither.
                    self.space.unreserve(extra);
                    self.ordered_until(inode, || !inode.ordered.lock().overlaps(start, 1));
                }
                Err(e) => {
                    self.space.unreserve(extra);
                    return Err(e);
                }
            }
        }
    }

    /// How many blocks of a write have no reservation yet. Delalloc is one for writes from the page
    /// cache, and not for direct writes. Preallocated blocks are written in place and need none.
    fn uncovered(&self, inode: &Inode, start: u64, n: u64, direct: bool) -> u64 {
        let m = inode.maps.read();
        let end = start.saturating_add(n);
        let mut missing = 0;
        let mut at = start;
        while at < end {
            let gap = match m.delalloc.at_or_after(at) {
                Some(r) if r.start <= at => {
                    if direct {
                        missing += r.end().min(end) - at;
                    }
                    at = r.end();
                    continue;
                }
                Some(r) => r.start.min(end) - at,
                None => end - at,
            };
            let len = match m.completed(&self.node_store, at, gap) {
                // Written in place: nothing is allocated.
                Ok(u) if u.kind == MapKind::Unwritten => u.len,
                Ok(u) => {
                    missing += u.len;
                    u.len
                }
                Err(_) => {
                    missing += gap;
                    gap
                }
            };
            at += len.max(1);
        }
        missing
    }

    /// Starts a write under the locks. `None`: another one is in flight there.
    fn start_locked(
        &self,
        inode: &Shared<Inode>,
        start: u64,
        n: u64,
        csums: &KVec<u8>,
        direct: bool,
        extra: u64,
    ) -> Result<Option<Started>> {
        let starting = Starting::enter(inode, self.node_store.device());
        let mut m = inode.maps.write();
        // Ordered extents are inserted with `maps` held exclusively, so this stays true while it is
        // held.
        let n = match inode.ordered.lock().next(start) {
            Some(at) if at <= start => return Ok(None),
            Some(at) => n.min(at - start),
            None => n,
        };
        let place = self.place_write(inode, &mut m, start, n)?;
        self.publish(&starting, &mut m, start, place, csums, direct, extra, None)
            .map(Some)
    }

    /// R1: makes a write to `place` visible, whose blocks are given back after an error.
    #[allow(clippy::too_many_arguments)]
    fn publish(
        &self,
        starting: &Starting<'_>,
        m: &mut Maps,
        start: u64,
        place: Place,
        csums: &KVec<u8>,
        direct: bool,
        extra: u64,
        source: Option<u64>,
    ) -> Result<Started> {
        let inode = starting.inode();
        let mut own = KVec::new();
        let bytes = csums
            .as_slice()
            .get(..4 * place.len as usize)
            .ok_or(EINVAL)?;
        own.extend_from_slice(bytes, GFP_KERNEL)
            .map_err(|e| self.give_back(&place, e.into()))?;

        let write = NewWrite {
            start,
            len: place.len,
            phys: place.phys,
            csums: own,
            in_place: place.in_place,
            direct,
            source,
        };
        if !place.in_place {
            m.expect_new(&self.node_store, start, place.len)
                .map_err(|e| self.give_back(&place, e))?;
        }
        let ordered = starting.publish(m, write).map_err(|e| {
            m.recheck_new(start, place.len);
            // Modified extent maps may be gone, and a fast fsync would miss them.
            self.break_log();
            self.give_back(&place, e)
        })?;
        if direct {
            inode.direct.fetch_add(1, Ordering::AcqRel);
        }
        self.pay_for_write(inode, m, start, &place, direct, extra);
        m.extent_maps.recount(&self.em_count);
        Ok(Started {
            phys: place.phys,
            len: place.len,
            ordered,
        })
    }

    /// Decides where a prefix of `[start, start + n)` goes: to the preallocated blocks that are
    /// mapped there, or else to new blocks, which it allocates as busy.
    fn place_write(&self, inode: &Inode, m: &mut Maps, start: u64, n: u64) -> Result<Place> {
        let under = m.completed(&self.node_store, start, n)?;
        if under.kind == MapKind::Unwritten && m.delalloc.at(start).is_none() {
            let len = m
                .delalloc
                .at_or_after(start)
                .map_or(under.len, |d| under.len.min(d.start - start));
            return Ok(Place {
                phys: under.phys,
                len,
                in_place: true,
            });
        }
        let want = self.same_kind(m, start, n)?;
        let goal = self.goal(m, start)?;
        // At the end of the file and behind other data: the file may grow further.
        let (size, home) = inode.size_and_home();
        let appends = goal.is_some() && bytes_to_blocks(size) <= start;
        let keep = if appends {
            // As many as it has, as far as the AG keeps so many.
            m.blocks.clamp(MIN_KEPT, GROUP_BLOCKS) as u32
        } else {
            0
        };
        // Other writes leave alone what is kept behind the end.
        let kept = match appends {
            true => &mut m.kept,
            false => &mut None,
        };
        let run = self.space.append(
            &self.node_store,
            want,
            Near { goal, home },
            Owner::Busy,
            kept,
            keep,
        )?;
        Ok(Place {
            phys: run.start,
            len: run.len,
            in_place: false,
        })
    }

    /// Undoes [`Fs::place_write`] after `error`, which it returns: frees the new blocks and
    /// reserves them again, because the caller gives back its whole reservation.
    fn give_back(&self, place: &Place, error: Error) -> Error {
        let released = !place.in_place
            && self
                .space
                .release_busy(&self.node_store, place.phys, place.len)
                .is_ok();
        if released {
            self.space.reserve_forced(place.len);
        }
        error
    }

    /// Accounts for a started write: allocated = delalloc given up + taken from `extra`, and what
    /// is left of both is returned. Direct writes use `extra` alone.
    fn pay_for_write(
        &self,
        inode: &Inode,
        m: &mut Maps,
        start: u64,
        place: &Place,
        direct: bool,
        extra: u64,
    ) {
        let before = m.delalloc.total();
        let mut paid = 0;
        if !direct {
            let r = m.delalloc.remove_range(start, place.len, |r| paid += r.len);
            if r.is_err() {
                pr_warn!(
                    "{}: inode {}: no memory to drop the delalloc of a started write\n",
                    self.device_name(),
                    inode.ino()
                );
            }
            self.shrink_delalloc_meta(before, before - paid);
        }
        inode.bump(m);
        let spent = if place.in_place {
            0
        } else {
            place.len.saturating_sub(paid)
        };
        if place.in_place {
            self.space.unreserve(paid);
        }
        if extra >= spent {
            self.space.unreserve(extra - spent);
        } else {
            self.space.reserve_forced(spent - extra);
        }
    }

    /// How many blocks from `start` on can be written to new blocks in one go: up to the next
    /// preallocated extent, and replacing blocks of at most [`WRITE_GROUPS`] groups.
    fn same_kind(&self, m: &Maps, start: u64, n: u64) -> Result<u64> {
        let mut at = start;
        let mut groups = 0;
        while at < start + n {
            let e = m.completed(&self.node_store, at, start + n - at)?;
            if e.kind == MapKind::Unwritten && m.delalloc.at(at).is_none() && at > start {
                break;
            }
            if e.kind != MapKind::Hole {
                groups += groups_of(e.phys, e.len);
            }
            if groups > WRITE_GROUPS && at > start {
                break;
            }
            at += e.len;
        }
        Ok((at - start).min(n).max(1))
    }

    /// The preferred disk block for a write: behind the block before it in the file.
    pub(in crate::engine::ops) fn goal(&self, m: &Maps, start: u64) -> Result<Option<u64>> {
        let Some(before) = start.checked_sub(1) else {
            return Ok(None);
        };
        if let Some(r) = m.extent_maps.at(before) {
            return Ok(Some(r.value.phys + (before - r.start) + 1));
        }
        let mut v = ValueBuf::new();
        let e = m.extent_at(&self.node_store, before, &mut v)?;
        Ok(e.map(|e| e.phys + (before - e.start) + 1))
    }

    /// Completes the write `o`, with `status` as its I/O ended. On success its mapping, checksums
    /// and size enter the running transaction; on failure its blocks are free again and the old
    /// content stays. `new_size` says, in bytes, how far the data of this I/O reaches into the
    /// file.
    ///
    /// Runs in process context, and may wait for space, but never for I/O of the file. Returns the
    /// error of the I/O, or that of completing it: EAGAIN for a move of what is no longer there.
    pub fn finish_write(&self, o: Ordered, new_size: u64, status: Result) -> Result {
        let _nofs = NoFs::enter();
        self.ordered_map.acquired(false);
        let r = match status {
            Ok(()) => self.complete(&o, new_size),
            Err(e) => Err(e),
        };
        let inode = o.inode().clone();
        if r.is_err() {
            let mut m = inode.maps.write();
            if m.extent_maps.failed(&o).is_err() {
                self.abort("no memory to undo a failed write");
            }
            m.recheck_new(o.start(), o.len());
            inode.bump(&mut m);
            // The map of this write may have replaced a modified one, which a fast fsync would
            // miss.
            self.break_log();
            drop(m);
            if !o.in_place() {
                let freed = self.space.release_busy(&self.node_store, o.phys(), o.len());
                freed.unwrap_or_else(|_| self.abort("cannot release the blocks of a failed write"));
            }
        }
        let direct = o.direct();
        let error = r.as_ref().err().map_or(0, |e| e.to_errno());
        let (dev, ino) = (self.dev(), inode.ino());
        trace::ordered_finish(dev, ino, o.id(), o.start(), o.len(), error);
        {
            let mut ordered = inode.ordered.lock();
            if let (false, Err(e)) = (direct, &r) {
                ordered.set_lost(o.start(), o.len(), *e);
            }
            ordered.remove(o.into_extent());
        }
        if direct {
            inode.direct.fetch_sub(1, Ordering::AcqRel);
        }
        inode.ordered_wait.wake_all();
        self.ordered_map.release();
        r
    }

    /// Puts the mapping of a write that succeeded into the running transaction, with its checksums
    /// and the size.
    fn complete(&self, o: &Ordered, new_size: u64) -> Result {
        let inode = o.inode();
        // The groups in which the old blocks are freed; `start_write` kept them few. While a
        // write is in flight nothing else changes the mapping there, so the number stays true. If it
        // was changed beside a move, that ends here (`maps_source`).
        let groups = match o.in_place() {
            true => 0,
            false => self.groups_under(&inode.maps.read(), o.start(), o.end())?,
        };
        // One leaf for each old record in the range, the paths to them, and the group of the new
        // blocks.
        let mut txn = self.begin_forced(12 + o.len() / 8 + GROUP_NODES * (groups + 1))?;
        txn.dirty(inode)?;
        let mut m = inode.maps.write();
        if !self.maps_source(&m, o)? {
            return Err(EAGAIN);
        }
        let (start, end) = (o.start(), o.end());
        let old = if o.in_place() {
            Old::KeepUnwritten
        } else {
            Old::Free
        };
        let mut at = start;
        while at < end {
            at = self
                .remove_extents(&mut txn, &mut m, at, end, Budget::ALL, old)
                .inspect_err(|_| self.abort("cannot unmap what a completed write replaces"))?;
        }
        if !o.in_place() {
            let touched = self
                .space
                .commit_busy(&self.node_store, o.phys(), o.len())
                .inspect_err(|_| self.abort("cannot complete a write"))?;
            txn.charge(touched);
        }
        let e = Extent {
            start,
            phys: o.phys(),
            len: o.len(),
            unwritten: false,
            csums: true,
            epoch: txn.epoch(),
        };
        // The old mapping is gone, so an error from here on must not be treated as a failed write,
        // which keeps the old content.
        self.add_extent(&mut txn, &mut m, &e, o.csums())
            .inspect_err(|_| self.abort("cannot map a completed write"))?;
        m.extent_maps.completed(o, txn.generation());
        m.mapped(start, o.len());
        inode.bump(&mut m);
        // Under `maps`, so that an fsync that finds the extents finds the size, too.
        let mut meta = inode.meta.lock();
        meta.attrs.size = meta.attrs.size.max(new_size);
        // The counter that the VFS had when the I/O ended gets to the disk with the data.
        meta.take_noted_change();
        Ok(())
    }

    /// Waits until `cond` is true of the inode's ordered extents. Must not be called inside a
    /// transaction, nor with a lock held that [`Fs::finish_write`] takes, or it waits for itself.
    pub(crate) fn ordered_until(&self, inode: &Inode, cond: impl FnMut() -> bool) {
        self.ordered_map.might_wait();
        inode.ordered_wait.wait_until(cond);
    }

    /// Waits until no write is in flight in the range. Must not be called inside a transaction or
    /// with a lock of the inode held.
    pub fn wait_ordered(&self, inode: &Inode, start: u64, len: u64) {
        self.ordered_until(inode, || !inode.ordered.lock().overlaps(start, len));
    }

    /// R5: the current sequence number of the inode's maps.
    pub fn cookie(&self, inode: &Inode) -> u64 {
        inode.cookie()
    }

    /// R2: drops the clean extent maps of a range, for `release_folio`. True if the range has no
    /// maps any more. Maps that are in flight, logged or modified stay, or a fast fsync would miss
    /// them.
    ///
    /// Reclaim calls this, so it does not wait for `maps`: the holder may be reading a node from
    /// the device, or waiting for the very memory that reclaim is to free. If the lock is taken,
    /// drops nothing.
    pub fn release_maps(&self, inode: &Inode, start: u64, len: u64) -> bool {
        let _nofs = NoFs::enter();
        let Some(mut m) = inode.maps.try_write() else {
            return false;
        };
        let (dropped, kept) = m.extent_maps.release(start, len, usize::MAX);
        m.extent_maps.recount(&self.em_count);
        if dropped + kept > 0 {
            let (dropped, kept) = (dropped as u64, kept as u64);
            trace::release_maps(self.dev(), inode.ino(), start, len, dropped, kept, false);
        }
        kept == 0
    }
}
