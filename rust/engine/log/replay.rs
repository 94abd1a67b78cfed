// SPDX-License-Identifier: GPL-2.0

//! Replay at mount: from the newest superblock over the log behind it.
//!
//! 1. Find the end: batches in sequence with right checksums, and of the last one only if the data it
//!    names is there (see [`super`]). Claim every block that a record maps, so that nothing of the
//!    replay allocates it.
//! 2. Carry out the records, in order, through the functions that did the operations in the first
//!    place, all in memory and in one transaction.
//! 3. Commit (unless the mount is read-only). Until that is durable nothing on disk has changed, so a
//!    replay that is cut off is simply done again.

use super::ahead::Ahead;
use super::record::{decode, Record, Stamped, SAME_SIZE};
use super::ring::{self, Area, Found};
use crate::engine::extents::Old;
use crate::engine::format::{corrupt, LOG_SEQ_GAP};
use crate::engine::format::extent::Extent;
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::mutant::{self, Mutant};
use crate::engine::namei::Rename;
use crate::engine::types::*;
use crate::engine::xattr::XattrSet;
use crate::os::atomic::Ordering;
use crate::os::{crc32c, Shared};
use kernel::prelude::*;

/// What a replay did.
#[derive(Clone, Copy, Default, Debug)]
pub struct Replayed {
    /// Batches believed.
    pub batches: u64,
    /// Records carried out.
    pub records: u64,
    /// A last batch was there whose data was not.
    pub disbelieved: bool,
    /// After the last batch believed comes one that was cut off, or damaged: number of it.
    pub damaged: Option<u64>,
}

impl Replayed {
    /// Must the log go on elsewhere? Also behind a batch that was only damaged: one of the same number
    /// would make what follows it there part of the new log.
    pub fn changes(&self) -> bool {
        self.batches > 0 || self.disbelieved || self.damaged.is_some()
    }
}

impl Fs {
    fn area(&self) -> Area {
        self.log.area
    }

    /// Calls `f` for each record of a batch that is newer than `generation`.
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

    /// Is the data of a batch's write records on disk? Reads at most [`super::MAX_UNFLUSHED`] blocks of
    /// a batch that was written by this code.
    fn data_is_there(&self, payload: &[u8], generation: u64) -> Result<bool> {
        if mutant::is(Mutant::LogTrustData) {
            return Ok(true);
        }
        let mut good = true;
        let mut ahead = Ahead::new(self.st.device())?;
        Self::each(payload, generation, |r| {
            let Record::Write { phys, csums, .. } = r.record else {
                return Ok(());
            };
            let end = phys.saturating_add(csums.len() as u64 / 4);
            good &= end <= self.geometry.total;
            for (at, c) in (phys..end).zip(csums.chunks_exact(4)) {
                // What cannot be read is not there.
                good = good
                    && ahead
                        .get(at, end)
                        .is_ok_and(|b| crc32c(0, &b[..]).to_le_bytes() == c);
            }
            Ok(())
        })?;
        Ok(good)
    }

    fn batch(
        &self,
        ahead: &mut Ahead<'_>,
        pos: u64,
        seq: u64,
        payload: &mut KVVec<u8>,
    ) -> Result<Found> {
        ring::read(&self.st, self.area(), ahead, (pos, seq), payload)
    }

    /// Is there a batch behind a first one that is not there? It has lost its head, then, and what
    /// follows it would follow the next batch that is written in its place. Looks as far as the longest
    /// batch goes.
    fn ghosts(&self, ahead: &mut Ahead<'_>, pos: u64, seq: u64) -> bool {
        let n = ring::blocks_of(ring::MAX_PAYLOAD).min(self.area().len.saturating_sub(1));
        (pos + 1..=pos + n).any(|p| {
            // Each batch between the two takes a block at least.
            ring::begins(&self.st, self.area(), ahead, p)
                .ok()
                .flatten()
                .is_some_and(|s| s > seq && s - seq <= p - pos)
        })
    }

    /// Replays the log. `durable` is the generation of the superblock.
    pub(crate) fn replay(&self, pos: u64, seq: u64) -> Result<Replayed> {
        let durable = self.durable_generation();
        let mut done = Replayed::default();
        let mut payload = KVVec::new();
        let mut ahead = Ahead::new(self.st.device())?;
        // 1: how far.
        let (mut p, mut s) = (pos, seq);
        let mut newest = durable;
        let mut next = KVVec::new();
        let mut have = self.batch(&mut ahead, p, s, &mut payload)?;
        while let Found::Whole { data_durable } = have {
            if p - pos >= self.area().len {
                break;
            }
            let len = ring::blocks_of(payload.len());
            let follows = self.batch(&mut ahead, p + len, s + 1, &mut next)?;
            let flushed = data_durable || matches!(follows, Found::Whole { .. });
            if !flushed && !self.data_is_there(&payload, durable)? {
                done.disbelieved = true;
                break;
            }
            let mut top = newest;
            Self::each(&payload, durable, |r| {
                top = top.max(r.generation);
                Ok(())
            })?;
            // Nobody logs for a transaction after the one that runs beside a commit.
            if top > durable.saturating_add(2) {
                have = Found::Damaged;
                break;
            }
            newest = top;
            Self::each(&payload, durable, |r| self.claim(&r.record))?;
            done.batches += 1;
            p += len;
            s += 1;
            core::mem::swap(&mut payload, &mut next);
            have = follows;
        }
        let cut = done.batches == 0 && have == Found::Nothing && self.ghosts(&mut ahead, pos, seq);
        if (have == Found::Damaged || cut) && !done.disbelieved {
            done.damaged = Some(s);
        }
        let end = p;
        // 2. What is replayed belongs to a generation after all that the log knows, and to one whose
        // superblock goes to the other slot: a power cut in the middle of writing it must leave the one
        // that is there now.
        let gap = (newest - durable) & 1;
        // Not below what it is: a torn superblock may have parts of a later one.
        let next = (newest + 1 + gap).max(self.running_generation());
        self.running.store(next, Ordering::Release);
        (p, s) = (pos, seq);
        while p < end {
            if !matches!(
                self.batch(&mut ahead, p, s, &mut payload)?,
                Found::Whole { .. }
            ) {
                return Err(corrupt("log", p, "a batch changed while it was replayed"));
            }
            Self::each(&payload, durable, |r| {
                done.records += 1;
                *self.log.replay_time.lock() = Some(r.time);
                self.apply(&r.record)
            })?;
            p += ring::blocks_of(payload.len());
            s += 1;
        }
        *self.log.replay_time.lock() = None;
        *self.log.replayed.lock() = done;
        if done.changes() {
            self.log.resume(end, s.saturating_add(LOG_SEQ_GAP));
        }
        Ok(done)
    }

    fn claim(&self, r: &Record<'_>) -> Result {
        match r {
            Record::Write { phys, csums, .. } => {
                self.space.claim(&self.st, *phys, csums.len() as u64 / 4)
            }
            Record::Preallocate { phys, len, .. } => self.space.claim(&self.st, *phys, *len),
            _ => Ok(()),
        }
    }

    /// Runs `f` with an inode.
    fn with<R>(&self, ino: u64, f: impl FnOnce(&Shared<Inode>) -> Result<R>) -> Result<R> {
        let inode = self.iget(ino)?;
        let r = f(&inode);
        self.iput(inode);
        r
    }

    fn apply(&self, r: &Record<'_>) -> Result {
        match *r {
            Record::Create {
                dir,
                ino,
                attrs,
                name,
                target,
            } => {
                let new = NewInode {
                    mode: attrs.mode,
                    uid: attrs.uid,
                    gid: attrs.gid,
                    rdev: attrs.rdev,
                    flags: attrs.flags,
                    symlink: (!target.is_empty()).then_some(target),
                };
                let next = self.next_ino.swap(ino, Ordering::Relaxed);
                let made = if dir == 0 {
                    self.tmpfile(&new)
                } else {
                    self.with(dir, |d| self.create(d, name, &new))
                };
                self.next_ino
                    .store(next.max(ino.saturating_add(1)), Ordering::Relaxed);
                self.iput(made?);
                Ok(())
            }
            Record::Link { dir, ino, name } => {
                self.with(dir, |d| self.with(ino, |i| self.link(d, name, i)))
            }
            Record::Unlink { dir, ino, name } => {
                self.with(dir, |d| self.with(ino, |i| self.unlink(d, name, i)))
            }
            Record::Rename {
                old_dir,
                new_dir,
                ino,
                target,
                exchange,
                old_name,
                new_name,
            } => {
                let old_dir = self.iget(old_dir)?;
                let done = self.with(new_dir, |new_dir| {
                    self.with(ino, |inode| {
                        let t = if target == 0 {
                            None
                        } else {
                            Some(self.iget(target)?)
                        };
                        let flags = RenameFlags {
                            noreplace: false,
                            exchange,
                        };
                        let r = self.rename(&Rename {
                            old_dir: &old_dir,
                            old_name,
                            inode,
                            new_dir,
                            new_name,
                            target: t.as_ref(),
                            flags,
                            whiteout: None,
                        });
                        if let Some(t) = t {
                            self.iput(t);
                        }
                        r
                    })
                });
                self.iput(old_dir);
                done
            }
            Record::Attrs { ino, attrs: a } => self.with(ino, |i| {
                self.set_attrs(
                    i,
                    &AttrChange {
                        mode: Some(a.mode),
                        uid: Some(a.uid),
                        gid: Some(a.gid),
                        atime: Some(a.atime),
                        mtime: Some(a.mtime),
                        ctime: Some(a.ctime),
                        flags: Some(a.flags),
                    },
                )?;
                if a.size != SAME_SIZE {
                    i.meta.lock().attrs.size = a.size;
                }
                Ok(())
            }),
            Record::Size { ino, bytes } => self.with(ino, |i| self.set_size(i, bytes)),
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
        }
    }

    /// Maps `[start, start + len)` to `phys` as the record says: written when there are checksums. Parts
    /// that are mapped there already only change their state.
    fn replay_extent(
        &self,
        inode: &Shared<Inode>,
        start: u64,
        phys: u64,
        len: u64,
        csums: &[u8],
    ) -> Result {
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
            let under = m.completed(&self.st, at, end - at)?;
            let to = at + under.len;
            let (from, p) = (at, phys + (at - start));
            at = to;
            let same = under.kind != MapKind::Hole && under.phys == p;
            if same && (under.kind == MapKind::Written || !written) {
                continue;
            }
            // A write into preallocated blocks keeps them; everything else frees what was there.
            let old = if same { Old::KeepUnwritten } else { Old::Free };
            let mut gone = from;
            while gone < to {
                gone = self.remove_extents(&mut txn, &mut m, gone, to, usize::MAX, old)?;
            }
            if !same {
                self.space.commit_busy(&self.st, p, to - from)?;
            }
            let e = Extent {
                start: from,
                phys: p,
                len: to - from,
                unwritten: !written,
                csums: written,
                generation: txn.generation(),
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
