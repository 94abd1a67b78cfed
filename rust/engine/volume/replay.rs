// SPDX-License-Identifier: GPL-2.0

//! Replay at mount: from the newest superblock over the log behind it.
//!
//! 1. Find the end of the log: batches with consecutive numbers and right checksums. A batch that no
//!    header calls flushed counts only if the data that it names is on disk
//!    ([`crate::engine::log`]). Claim every block that a record maps, so that replay does not
//!    allocate it for something else.
//! 2. Carry out the records, in order, with the functions that did the operations in the first
//!    place: in memory, in one transaction. Each record is first checked against what is there,
//!    because its checksum proves only that it was written, not that it is true.
//! 3. Commit, unless the mount is read-only. Before the superblock of that commit is durable
//!    nothing on disk refers to what replay wrote, so a replay that a power cut ends is simply
//!    repeated.
//!
//! A batch that is not whole ended the log, or is damaged. If a header calls it flushed, it had been
//! acknowledged, so it is damaged ([`Lost`]): the mount is read-only, or the mount option
//! `rescue=log` gives up that batch and all behind it. A batch that was written when a newer
//! superblock than the one at hand was durable is not for this state of the filesystem: blocks that
//! it names may be in use here, and operations that it relies on are missing. So replay ends before
//! it, and the mount is read-only, or `rescue=older` goes on without the newer superblock.
//!
//! Replay is one transaction, so the memory that it takes grows with the records. A truncation
//! could touch any number of bitmaps, so it is only begun here, and finished with the orphans
//! ([`Fs::clean_orphans`]).
//!
//! Locks: none are needed, because nothing else uses the filesystem; operations take their own.
//! `Fs::replaying` makes them reserve by force and keeps commits away. Positions, starts and
//! lengths are in blocks, ranges are half-open.
//!
//! Tests: tools/engine/tests/log_recovery.rs, log_damage.rs, log_loss.rs, replay_cost.rs,
//! impossible.rs, crash.rs; tools/crash/tests/recovery.rs; tests/vm/t/067-damage.sh, 072-recovery.sh.

use crate::engine::format::extent::Extent;
use crate::engine::format::inode::{impossible, unsupported_flags};
use crate::engine::format::{corrupt, LOG_SEQ_GAP, USED_UP};
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::log::ahead::Ahead;
use crate::engine::log::header::blocks_of;
use crate::engine::log::record::{decode, Record, Stamped, SAME_SIZE};
use crate::engine::log::replayed::{Lost, Replayed};
use crate::engine::log::ring::{self, Area, Found};
use crate::engine::log::scan::Scan;
use crate::engine::mutant::{self, Mutant};
use crate::engine::ops::extents::{Budget, Old};
use crate::engine::ops::namei::{new_generation, Rename};
use crate::engine::ops::xattr::XattrSet;
use crate::engine::types::*;
use crate::engine::volume::mkfs::ROOT_INO;
use crate::os::atomic::Ordering;
use crate::os::{crc32c, Shared};
use kernel::prelude::*;

/// The error for a record that no operation can have logged (EUCLEAN).
fn refuse(ino: u64, what: &str) -> Error {
    corrupt("log, record of inode", ino, what)
}

/// What no inode of this code has among the attributes of a record.
fn unusable(a: &Attrs) -> Option<&'static str> {
    impossible(a).or_else(|| unsupported_flags(a.flags))
}

/// EOPNOTSUPP for a record of a kind that this code cannot replay.
fn supported(r: &Record<'_>) -> Result {
    let Some(kind) = r.unsupported() else {
        return Ok(());
    };
    pr_err!(
        "the log has a record of kind {}, which this version cannot replay\n",
        kind
    );
    Err(EOPNOTSUPP)
}

/// The data blocks that a batch names.
enum Data {
    /// All have the checksums that it names.
    There,
    /// One has not.
    Wrong,
    /// The device cannot read one.
    Unread,
}

impl Fs {
    fn area(&self) -> Area {
        self.log.area
    }

    /// Calls `f` for each record of a payload with a generation above `generation`, in order. Ends
    /// with the first error.
    fn each(payload: &[u8], generation: u64, mut f: impl FnMut(Stamped<'_>) -> Result) -> Result {
        let mut rest = payload;
        while !rest.is_empty() {
            let (r, next) = decode(rest).ok_or_else(|| corrupt("log", 0, "malformed record"))?;
            if r.generation > generation {
                f(r)?;
            }
            rest = next;
        }
        Ok(())
    }

    /// Do the data blocks that a payload names have the checksums that it names? Reads at most
    /// [`crate::engine::log::state::MAX_UNFLUSHED`] blocks of a batch that this code wrote.
    fn data_of(&self, payload: &[u8], generation: u64) -> Result<Data> {
        if mutant::is(Mutant::LogTrustData) {
            return Ok(Data::There);
        }
        let mut good = true;
        let mut unread = false;
        let mut ahead = Ahead::new(self.node_store.device())?;
        Self::each(payload, generation, |r| {
            let Record::Write { phys, csums, .. } = r.record else {
                return Ok(());
            };
            let end = phys.saturating_add(csums.len() as u64 / 4);
            good &= end <= self.space.total();
            for (at, c) in (phys..end).zip(csums.chunks_exact(4)) {
                if !good || unread {
                    break;
                }
                match ahead.get(at, end) {
                    Ok(b) => good = crc32c(0, &b[..]).to_le_bytes() == c,
                    Err(e) if e == ENOMEM => return Err(e),
                    Err(_) => unread = true,
                }
            }
            Ok(())
        })?;
        Ok(match (good, unread) {
            (false, _) => Data::Wrong,
            (true, true) => Data::Unread,
            (true, false) => Data::There,
        })
    }

    /// Reads the batch `seq` at `pos` into `payload`.
    fn batch(
        &self,
        ahead: &mut Ahead<'_>,
        pos: u64,
        seq: u64,
        payload: &mut KVVec<u8>,
    ) -> Result<Found> {
        ring::read(&self.node_store, self.area(), ahead, (pos, seq), payload)
    }

    /// Replays the log from position `pos` and number `seq`, those in the superblock. Returns
    /// without changing anything if acknowledged batches are damaged, or belong to a newer
    /// superblock, and the mount is to be writable. EUCLEAN for a record that cannot be true; the
    /// mount fails then.
    pub(crate) fn replay(&self, pos: u64, seq: u64) -> Result<Replayed> {
        let mut ahead = Ahead::new(self.node_store.device())?;
        let (mut done, end, newest) = self.find_end(&mut ahead, pos, seq)?;
        let options = self.options();
        done.older = done.newer.is_some() && options.rescue_older;
        done.given_up = done.lost.is_some() && (options.rescue_log || done.older);
        *self.log.replayed.lock() = done;
        if done.forbids().is_some() && !self.options().read_only {
            return Ok(done);
        }
        let durable = self.durable_generation();
        // The generation of the replay is above all that the log names. Its superblock goes to
        // the other slot than the present one, which must survive a power cut while the new one
        // is written; so it has the other parity.
        let gap = (newest - durable) & 1;
        // `running` may be higher already: a torn superblock may have parts of a later generation.
        let next = (newest + 1 + gap).max(self.running_generation());
        // And above that of a superblock that is lost.
        let lost = done
            .newer
            .map_or(0, |g| g.saturating_add(1 + ((g ^ durable) & 1)));
        self.skip_to(next.max(lost));
        let next_seq = self.carry_out(&mut ahead, (pos, seq), end, &mut done)?;
        *self.log.replay_time.lock() = None;
        *self.log.replayed.lock() = done;
        if done.changes() {
            // A log that is given up for an older superblock may be given up once more, so the gap
            // is another one each time.
            let more = match done.older {
                true => (crate::os::random_u64() >> 48) * LOG_SEQ_GAP,
                false => 0,
            };
            let next = next_seq.saturating_add(LOG_SEQ_GAP).saturating_add(more);
            self.log.resume(end, next);
        }
        Ok(done)
    }

    /// In place of a replay, after a clean unmount: the next batch goes behind a gap of numbers, and
    /// a header there that names a newer superblock is reported as by [`Fs::replay`].
    pub(super) fn skip_log(&self, pos: u64, seq: u64) -> Result<Replayed> {
        let durable = self.durable_generation();
        let mut ahead = Ahead::new(self.node_store.device())?;
        let header = match ring::header_at(&self.node_store, self.area(), &mut ahead, pos) {
            // The log holds nothing that this block could have.
            Err(e) if e != ENOMEM => None,
            header => header?,
        };
        let behind = header.filter(|h| h.batch.seq >= seq && h.batch.generation > durable);
        let mut done = Replayed {
            newer: behind.map(|h| h.batch.generation),
            ..Replayed::default()
        };
        done.older = done.newer.is_some() && self.options().rescue_older;
        *self.log.replayed.lock() = done;
        self.log.resume(pos, seq.saturating_add(LOG_SEQ_GAP));
        Ok(done)
    }

    /// Step 1: finds the end of the log, and claims the blocks that its records map. Returns the
    /// result so far, the position of the end, and the newest generation of a record.
    fn find_end(&self, ahead: &mut Ahead<'_>, pos: u64, seq: u64) -> Result<(Replayed, u64, u64)> {
        let durable = self.durable_generation();
        let mut done = Replayed::default();
        let (mut p, mut s) = (pos, seq);
        let mut newest = durable;
        let mut payload = KVVec::new();
        let mut scan = Scan::new(&self.node_store, self.area(), (pos, seq));
        // What is in place of the next batch, if that is no whole one of this superblock.
        let mut bad = None;
        // Behind the last block of a full ring comes this log's first batch again.
        while p < scan.end() {
            let h = match self.batch(ahead, p, s, &mut payload)? {
                Found::Whole(h) => h,
                found => {
                    bad = Some(found);
                    break;
                }
            };
            scan.meet(&h);
            if h.batch.generation > durable {
                break;
            }
            let vouched = h.batch.data_durable || scan.flushed(ahead, s)?;
            let data = match vouched {
                true => Data::There,
                false => self.data_of(&payload, durable)?,
            };
            match data {
                Data::There => {}
                Data::Wrong => {
                    done.disbelieved = true;
                    break;
                }
                // A power cut leaves no such block.
                Data::Unread => {
                    bad = Some(Found::Unreadable);
                    break;
                }
            }
            let mut top = 0;
            Self::each(&payload, durable, |r| {
                top = top.max(r.generation);
                supported(&r.record)
            })?;
            // No transaction is later than the one that runs beside a commit.
            if top > h.batch.generation.saturating_add(2) {
                bad = Some(Found::Damaged);
                break;
            }
            newest = newest.max(top);
            if done.batches == 0 {
                self.read_space()?;
            }
            Self::each(&payload, durable, |r| {
                self.give_up_space(self.claim(&r.record))
            })?;
            done.batches += 1;
            (p, s) = h.next();
        }
        scan.finish(ahead)?;
        done.newer = Some(scan.generation()).filter(|g| *g > durable);
        if let Some(found) = bad {
            self.judge_end(ahead, &mut scan, (p, s), found, &mut done)?;
        }
        Ok((done, p, newest))
    }

    /// Judges what was found in place of the batch `seq` at `pos`: the end of the log, or damage.
    fn judge_end(
        &self,
        ahead: &mut Ahead<'_>,
        scan: &mut Scan<'_>,
        (pos, seq): (u64, u64),
        found: Found,
        done: &mut Replayed,
    ) -> Result {
        let newest = scan.newest().filter(|n| *n >= seq);
        // A power cut leaves no block that cannot be read, so there may have been a batch.
        let doubtful = found == Found::Unreadable && !mutant::is(Mutant::DamageLog);
        if doubtful || scan.flushed(ahead, seq)? {
            let newest = newest.unwrap_or(seq);
            done.lost = Some(Lost { pos, seq, newest });
        }
        // Headers that nothing vouches for must not become part of the next log either.
        let begun = found == Found::Damaged || newest.is_some();
        done.damaged = (begun || done.lost.is_some()).then_some(seq);
        Ok(())
    }

    /// Step 2: carries out the records of the batches from `(pos, seq)` to position `end`. Returns
    /// the number of the batch behind them.
    fn carry_out(
        &self,
        ahead: &mut Ahead<'_>,
        (pos, seq): (u64, u64),
        end: u64,
        done: &mut Replayed,
    ) -> Result<u64> {
        let durable = self.durable_generation();
        let mut payload = KVVec::new();
        let (mut p, mut s) = (pos, seq);
        while p < end {
            if !matches!(self.batch(ahead, p, s, &mut payload)?, Found::Whole(_)) {
                return Err(corrupt("log", p, "a batch changed while it was replayed"));
            }
            Self::each(&payload, durable, |r| {
                *self.log.replay_time.lock() = Some(r.time);
                match self.check_and_apply(&r.record) {
                    Ok(true) => done.records += 1,
                    Ok(false) => done.skipped += 1,
                    Err(e) => return Err(e),
                }
                Ok(())
            })?;
            p += blocks_of(payload.len());
            s += 1;
        }
        Ok(s)
    }

    /// Carries out a record. False if it does not fit, and may be left out.
    fn check_and_apply(&self, r: &Record<'_>) -> Result<bool> {
        let rescue = self.options().rescue_records;
        match self.check(r) {
            Err(e) if rescue && e == EUCLEAN => return Ok(false),
            done => done?,
        }
        match self.apply(r) {
            // The operation has found before it changed anything that it is impossible.
            Err(EEXIST | ENOENT | ENOTEMPTY | EMLINK | ESTALE | ENODATA) if rescue => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Claims the disk blocks that a record maps.
    fn claim(&self, r: &Record<'_>) -> Result {
        match r {
            Record::Write { phys, csums, .. } => {
                self.space
                    .claim(&self.node_store, *phys, csums.len() as u64 / 4)
            }
            Record::Preallocate { phys, len, .. } => {
                self.space.claim(&self.node_store, *phys, *len)
            }
            _ => Ok(()),
        }
    }

    /// Can the record have been logged, as far as the state before it shows? EUCLEAN if not.
    fn check(&self, r: &Record<'_>) -> Result {
        if mutant::is(Mutant::ForgedRecord) {
            return Ok(());
        }
        match *r {
            Record::Create {
                dir,
                ino,
                attrs,
                target,
                ..
            } => self.check_create(dir, ino, &attrs, target),
            Record::Link { dir, ino, .. } => {
                self.must_be(dir, S_IFDIR)?;
                match self.kind_of(ino)? {
                    S_IFDIR => Err(refuse(ino, "links a directory")),
                    _ => Ok(()),
                }
            }
            Record::Unlink { dir, ino, name } => self.must_name(dir, name, ino),
            Record::Rename {
                old_dir,
                new_dir,
                ino,
                target,
                old_name,
                new_name,
                ..
            } => {
                self.must_name(old_dir, old_name, ino)?;
                self.must_name(new_dir, new_name, target)
            }
            Record::Attrs { ino, attrs } => {
                let kind = self.kind_of(ino)?;
                if kind != attrs.mode & S_IFMT {
                    return Err(refuse(ino, "changes the type of the inode"));
                }
                self.check_attrs(ino, &attrs)
            }
            Record::Size { ino, bytes } | Record::Grow { ino, bytes } => {
                self.must_be(ino, S_IFREG)?;
                match bytes > i64::MAX as u64 {
                    true => Err(refuse(ino, "impossible size")),
                    false => Ok(()),
                }
            }
            Record::Punch { ino, .. } => self.must_be(ino, S_IFREG),
            Record::Preallocate {
                ino,
                start,
                phys,
                len,
            } => self.check_extent(ino, start, phys, len),
            Record::Write {
                ino,
                start,
                phys,
                csums,
            } => {
                let len = csums.len() as u64 / 4;
                self.check_extent(ino, start, phys, len)?;
                // The record of the size comes first.
                let end = self.with(ino, |i| Ok(bytes_to_blocks(i.attrs().size)))?;
                match start.saturating_add(len) > end {
                    true => Err(refuse(ino, "data behind the end of the file")),
                    false => Ok(()),
                }
            }
            Record::Xattr { ino, .. } => self.kind_of(ino).map(|_| ()),
            Record::Bytes { .. }
            | Record::Share { .. }
            | Record::Shift { .. }
            | Record::Swap { .. } => supported(r),
        }
    }

    /// [`Fs::check`] for a creation. The number may be one that the superblock counts: numbers are
    /// chosen before the transaction that uses them ([`Fs::new_id`]), and a commit may come between.
    fn check_create(&self, dir: u64, ino: u64, attrs: &Attrs, target: &[u8]) -> Result {
        let kind = attrs.mode & S_IFMT;
        if !(ROOT_INO + 1..USED_UP).contains(&ino) {
            return Err(refuse(ino, "creates an impossible inode number"));
        }
        match self.iget(ino) {
            Err(e) if e == ESTALE => {}
            Err(e) => return Err(e),
            Ok(inode) => {
                self.iput(inode);
                return Err(refuse(ino, "creates an inode that exists"));
            }
        }
        if let Some(what) = unusable(attrs) {
            return Err(refuse(ino, what));
        }
        if (kind == S_IFLNK) == target.is_empty() || (kind == S_IFDIR && dir == 0) {
            return Err(refuse(ino, "impossible file type"));
        }
        if dir != 0 {
            self.must_be(dir, S_IFDIR)?;
        }
        Ok(())
    }

    /// [`Fs::check`] for a record of attributes.
    fn check_attrs(&self, ino: u64, a: &Attrs) -> Result {
        let size = if a.size == SAME_SIZE { 0 } else { a.size };
        let whole = Attrs {
            size,
            // The record does not have it; the inode's is not 0.
            handle_generation: 1,
            ..*a
        };
        if let Some(what) = unusable(&whole) {
            return Err(refuse(ino, what));
        }
        // A truncation has a record of its own, which unmaps what is behind the new size.
        if a.size != SAME_SIZE && a.size < self.with(ino, |i| Ok(i.attrs().size))? {
            return Err(refuse(ino, "attributes with a smaller size"));
        }
        Ok(())
    }

    /// Checks that file blocks `[start, start + len)` of a regular file can be mapped to disk
    /// blocks from `phys` on.
    fn check_extent(&self, ino: u64, start: u64, phys: u64, len: u64) -> Result {
        self.must_be(ino, S_IFREG)?;
        if let Some(what) = self.node_store.space().refuses(phys, len) {
            return Err(refuse(ino, what));
        }
        let end = start.checked_add(len).filter(|e| *e <= MAX_FILE_BLOCKS);
        if len == 0 || end.is_none() {
            return Err(refuse(ino, "impossible range of file blocks"));
        }
        Ok(())
    }

    /// The type bits of an inode. EUCLEAN if there is no such inode.
    fn kind_of(&self, ino: u64) -> Result<u32> {
        self.with(ino, |i| Ok(i.kind())).map_err(|e| match e {
            ESTALE => refuse(ino, "no such inode"),
            e => e,
        })
    }

    /// EUCLEAN unless the inode is of this type.
    fn must_be(&self, ino: u64, kind: u32) -> Result {
        match self.kind_of(ino)? == kind {
            true => Ok(()),
            false => Err(refuse(ino, "the inode has another type")),
        }
    }

    /// EUCLEAN unless the name is that of inode `ino`, or is free if `ino` is 0.
    fn must_name(&self, dir: u64, name: &[u8], ino: u64) -> Result {
        self.must_be(dir, S_IFDIR)?;
        let found = self.with(dir, |d| self.lookup(d, name))?;
        if found.map_or(0, |e| e.ino) != ino {
            return Err(refuse(ino, "the name belongs to another inode"));
        }
        Ok(())
    }

    /// Runs `f` with a reference to an inode.
    fn with<R>(&self, ino: u64, f: impl FnOnce(&Shared<Inode>) -> Result<R>) -> Result<R> {
        let inode = self.iget(ino)?;
        let r = f(&inode);
        self.iput(inode);
        r
    }

    /// Carries out a record that was checked.
    fn apply(&self, r: &Record<'_>) -> Result {
        match *r {
            Record::Create {
                dir,
                ino,
                attrs,
                name,
                target,
            } => self.apply_create(dir, ino, &attrs, name, target),
            Record::Link { dir, ino, name } => {
                self.with(dir, |d| self.with(ino, |i| self.link(d, name, i)))
            }
            Record::Unlink { dir, ino, name } => {
                self.with(dir, |d| self.with(ino, |i| self.unlink(d, name, i)))
            }
            Record::Rename { .. } => self.apply_rename(r),
            Record::Attrs { ino, attrs } => self.with(ino, |i| self.apply_attrs(i, &attrs)),
            Record::Size { ino, bytes } => self.with(ino, |i| self.begin_truncate(i, bytes)),
            Record::Grow { ino, bytes } => self.with(ino, |i| self.raise_size(i, bytes)),
            Record::Punch { ino, start, len } => self.with(ino, |i| self.punch(i, start, len)),
            Record::Preallocate {
                ino,
                start,
                phys,
                len,
            } => self.with(ino, |i| self.replay_extent(i, start, phys, len, &[])),
            Record::Write {
                ino,
                start,
                phys,
                csums,
            } => self.with(ino, |i| {
                self.replay_extent(i, start, phys, csums.len() as u64 / 4, csums)
            }),
            Record::Xattr {
                ino,
                index,
                name,
                value,
            } => self.with(ino, |i| {
                self.set_xattr(i, index, name, value, XattrSet::Any)
            }),
            Record::Bytes { .. }
            | Record::Share { .. }
            | Record::Shift { .. }
            | Record::Swap { .. } => supported(r),
        }
    }

    fn apply_create(
        &self,
        dir: u64,
        ino: u64,
        attrs: &Attrs,
        name: &[u8],
        target: &[u8],
    ) -> Result {
        let new = NewInode {
            mode: attrs.mode,
            uid: attrs.uid,
            gid: attrs.gid,
            rdev: attrs.rdev,
            flags: attrs.flags,
            project: attrs.project,
            symlink: (!target.is_empty()).then_some(target),
            id: Some(NewId {
                ino,
                born: self.time(),
                generation: match mutant::is(Mutant::NewGeneration) {
                    true => new_generation(),
                    false => attrs.handle_generation,
                },
            }),
            xattrs: &[],
        };
        let made = if dir == 0 {
            self.tmpfile(&new)
        } else {
            self.with(dir, |d| self.create(d, name, &new))
        };
        self.next_ino
            .fetch_max(ino.saturating_add(1), Ordering::Relaxed);
        self.iput(made?);
        Ok(())
    }

    fn apply_rename(&self, r: &Record<'_>) -> Result {
        let Record::Rename {
            old_dir,
            new_dir,
            ino,
            target,
            exchange,
            old_name,
            new_name,
        } = *r
        else {
            return Ok(());
        };
        let old_dir = self.iget(old_dir)?;
        let done = self.with(new_dir, |new_dir| {
            self.with(ino, |inode| {
                let target = match target {
                    0 => None,
                    ino => Some(self.iget(ino)?),
                };
                let flags = RenameFlags {
                    noreplace: false,
                    exchange,
                };
                let done = self.rename(&Rename {
                    old_dir: &old_dir,
                    old_name,
                    inode,
                    new_dir,
                    new_name,
                    target: target.as_ref(),
                    flags,
                    whiteout: None,
                });
                if let Some(t) = target {
                    self.iput(t);
                }
                done
            })
        });
        self.iput(old_dir);
        done
    }

    fn apply_attrs(&self, inode: &Shared<Inode>, a: &Attrs) -> Result {
        let change = AttrChange {
            mode: Some(a.mode),
            uid: Some(a.uid),
            gid: Some(a.gid),
            atime: Some(a.atime),
            mtime: Some(a.mtime),
            ctime: Some(a.ctime),
            flags: Some(a.flags),
            change: None,
        };
        let before = inode.attrs().change;
        self.set_attrs(inode, &change)?;
        {
            let mut m = inode.meta.lock();
            m.attrs.project = a.project;
            m.attrs.xflags = a.xflags;
            // The counter as it was then, and not one more: this is no change.
            m.attrs.change = match mutant::is(Mutant::ChangeBack) {
                true => before,
                false => before.max(a.change),
            };
        }
        if a.size != SAME_SIZE {
            self.finish_truncation(inode, bytes_to_blocks(a.size))?;
            inode.meta.lock().attrs.size = a.size;
        }
        Ok(())
    }

    /// Maps file blocks `[start, start + len)` to disk blocks from `phys` on, written if there are
    /// checksums and unwritten otherwise. Blocks that are mapped there already only change their
    /// state; others must be claimed.
    fn replay_extent(
        &self,
        inode: &Shared<Inode>,
        start: u64,
        phys: u64,
        len: u64,
        csums: &[u8],
    ) -> Result {
        self.finish_truncation(inode, start.saturating_add(len))?;
        let mut txn = self.begin_forced(16)?;
        txn.dirty(inode)?;
        let mut m = inode.maps.write();
        let end = start
            .checked_add(len)
            .filter(|e| *e <= MAX_FILE_BLOCKS)
            .ok_or(EINVAL)?;
        let written = !csums.is_empty();
        let mut at = start;
        while at < end {
            let under = m.completed(&self.node_store, at, end - at)?;
            let to = at + under.len;
            let (from, p) = (at, phys + (at - start));
            at = to;
            let same = under.kind != MapKind::Hole && under.phys == p;
            if same && (under.kind == MapKind::Written || !written) {
                continue;
            }
            // A write in place keeps the preallocated blocks; otherwise the old blocks are freed.
            let old = if same { Old::KeepUnwritten } else { Old::Free };
            let mut gone = from;
            while gone < to {
                gone = self.remove_extents(&mut txn, &mut m, gone, to, Budget::ALL, old)?;
            }
            if !same {
                if !self.space.is_claimed(&self.node_store, p, to - from)? {
                    return Err(refuse(inode.ino(), "maps blocks that are in use"));
                }
                txn.charge(self.space.commit_busy(&self.node_store, p, to - from)?);
            }
            let e = Extent {
                start: from,
                phys: p,
                len: to - from,
                unwritten: !written,
                csums: written,
                epoch: txn.epoch(),
            };
            let a = 4 * (from - start) as usize;
            let part = if written {
                csums.get(a..a + 4 * (to - from) as usize).ok_or(EINVAL)?
            } else {
                &[]
            };
            self.add_extent(&mut txn, &mut m, &e, part)?;
        }
        inode.bump(&mut m);
        Ok(())
    }
}
