// SPDX-License-Identifier: GPL-2.0

//! Scrub of an inode: its trees, and its data.
//!
//! # When data counts as damaged
//!
//! A record of the extent tree says where a block is and which checksum it has. If what the device
//! returns does not match, the block may have been written anew meanwhile: the mapping has moved, a
//! commit has freed the old block, and other data is there. So the scrub looks the mapping up again.
//! If the block is elsewhere, or matches the checksum of a newer record, nothing is wrong. If the
//! mapping is the same, and no transaction was frozen since the first look, the old block was not
//! free for a moment (R7: a block that was freed since then waits for a commit that has not begun),
//! and the data is damaged. If a transaction was frozen, the block is read once more.
//!
//! If the record cannot be read for the second look, the first half of that still proves damage. Else
//! the walk reads the record again, past the cache, and reports its node if it cannot.
//!
//! Blocks that were never written have no checksums, and are not read. Nor are dirty pages and
//! writes in flight, because they are in no extent tree.
//!
//! Locks: the shared side of `maps`, `dir` and `xattr`, for looks; none across a read of the device
//! by the scrub.
//!
//! Tests: those of [`super`].

use super::trees::{Place, INODE_TREE};
use super::{At, Scrub, LOSSES};
use crate::engine::btree::scrub::{Look, Reached, Walk};
use crate::engine::btree::{TreeId, TreeKind, ValueBuf};
use crate::engine::format::corrupt;
use crate::engine::format::extent::Extent;
use crate::engine::format::inode::InodeRecord;
use crate::engine::format::{BLOCK_SHIFT, BLOCK_SIZE};
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::mutant::{self, Mutant};
use crate::engine::ops::dir::decode;
use crate::engine::state::scrub::{Cursor, Damage, DamageKind, Stage};
use crate::engine::types::{bytes_to_blocks, Verdict, S_IFDIR};
use crate::os::{crc32c, Block, NoFs, Shared};
use kernel::prelude::*;

/// How often a block that does not match is read, if transactions are frozen meanwhile; and an inode
/// whose record can be read past the cache and not through it.
const LOOKS: usize = 8;

/// What a block that does not match its checksum is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judgement {
    /// Written anew meanwhile.
    Moved,
    /// Damaged.
    Damaged,
    /// Not known, because its record cannot be looked up any more. The walk must read the record
    /// again.
    Unknown,
}

/// Whether the device is only busy, or has no memory: the step is done again.
fn is_busy(e: Error) -> bool {
    e == ENOMEM || e == EAGAIN
}

impl Scrub {
    /// The stage after that of a tree of an inode.
    fn after_tree(&self) -> Cursor {
        let ino = self.cursor.owner;
        match self.cursor.stage {
            Stage::Extents => Cursor::at(Stage::Dir, ino),
            Stage::Dir => Cursor::at(Stage::Xattr, ino),
            _ => Self::after_inode(ino),
        }
    }

    /// The next inode.
    fn after_inode(ino: u64) -> Cursor {
        Cursor {
            key: ino.saturating_add(1),
            ..Cursor::at(Stage::Inodes, 0)
        }
    }

    /// The place of a block of the file at hand.
    fn before(&self, at: &At) -> Cursor {
        Cursor {
            key: at.record,
            done: at.block.saturating_sub(at.record),
            ..self.cursor
        }
    }
}

impl Fs {
    /// A step in an inode: a leaf of one of its trees, or data. Returns the number of data blocks
    /// read.
    pub(super) fn scrub_inode(&self, s: &mut Scrub) -> Result<u64> {
        let mut r = Ok(0);
        if let Some(inode) = self.inode_at_hand(s)? {
            // Trees that are in the record, or in memory, need no read, and no step of their own.
            loop {
                let stage = s.cursor.stage;
                r = match stage {
                    Stage::Extents => self.scrub_extents(s, &inode),
                    _ => self.scrub_items(s, &inode),
                };
                let turned = s.cursor.stage != stage && s.cursor.stage != Stage::Inodes;
                if r != Ok(0) || !turned || s.inner.has_read() {
                    break;
                }
            }
            self.iput(inode);
        }
        if s.cursor.stage == Stage::Inodes && core::mem::take(&mut s.bad_inode) {
            self.scrub.report.lock().status.bad_inodes += 1;
        }
        r
    }

    /// The inode at hand. `None`: there is none any more, or it cannot be used, and the scrub has
    /// turned to the next one; or the caller must try again.
    fn inode_at_hand(&self, s: &mut Scrub) -> Result<Option<Shared<Inode>>> {
        let ino = s.cursor.owner;
        let e = match self.iget(ino) {
            Ok(inode) => return Ok(Some(inode)),
            Err(e) => e,
        };
        if is_busy(e) {
            return Err(ENOMEM);
        }
        self.readable()?;
        // The leaf with the record could be read before, past the cache. If it cannot be read any
        // more, the leaf is the damage, not this record. A device may fail now and then.
        let looks = match s.doubtful {
            (of, looks) if of == ino => looks,
            _ => 0,
        };
        let enough = match e {
            ESTALE => 0,
            EUCLEAN => 1,
            _ => LOOKS,
        };
        if looks < enough {
            s.outer.forget();
            match self.go_to(&mut s.outer, INODE_TREE, ino)? {
                Place::Again => return Ok(None),
                Place::Leaf(_) => {
                    s.doubtful = (ino, looks + 1);
                    return Ok(None);
                }
                Place::Nothing(_) => {}
            }
        } else if e == EUCLEAN {
            match self.unsupported(&s.outer, ino) {
                Some(what) => self.leave_out(ino, what),
                None => {
                    self.note_record(TreeKind::Inode, 0, ino);
                    s.bad_inode = true;
                }
            }
        } else if e != ESTALE {
            self.leave_out(ino, "its record can be read at one time and not at another");
        }
        s.cursor = Scrub::after_inode(ino);
        Ok(None)
    }

    /// Reports an inode that is not read, although nothing is known to be damaged.
    fn leave_out(&self, ino: u64, why: &str) {
        self.say(&LOSSES, format_args!("inode {ino} is left out: {why}"));
        self.scrub.report.lock().status.left_out += 1;
    }

    /// Why this code cannot use an inode with a true record in this leaf.
    fn unsupported(&self, leaf: &Walk, ino: u64) -> Option<&'static str> {
        let (_, v) = leaf.item(ino).filter(|(key, _)| *key == ino)?;
        let rec = InodeRecord::parse(v).ok()?;
        match self.impossible(ino, &rec) {
            Some(_) => None,
            None => rec.unsupported(),
        }
    }

    /// A step to the key of the cursor in the tree of that kind.
    fn step_in(&self, s: &mut Scrub, inode: &Inode, kind: TreeKind) -> Result<Reached> {
        s.inner.enter(TreeId::new(kind, inode.ino()));
        let key = s.cursor.key;
        let bad = &mut s.bad_inode;
        let mut look = || -> Result<Look> {
            // After a shutdown reads fail, and prove nothing.
            self.readable()?;
            if self.scrub.is_cancelled() {
                return Err(EINTR);
            }
            match kind {
                TreeKind::Extent => inode.maps.read().tree.look(key),
                TreeKind::Dir => inode.dir.read().look(key),
                _ => inode.xattr.read().look(key),
            }
        };
        s.inner.step(&self.node_store, key, &mut look, &mut |u| {
            *bad = true;
            self.note_node(u);
        })
    }

    /// A step in the directory or the extended attributes of an inode.
    fn scrub_items(&self, s: &mut Scrub, inode: &Inode) -> Result<u64> {
        let kind = match s.cursor.stage {
            Stage::Dir => TreeKind::Dir,
            _ => TreeKind::Xattr,
        };
        let next = s.after_tree();
        s.cursor = match self.step_in(s, inode, kind)? {
            Reached::Empty => next,
            Reached::Lost(last) => s.cursor.behind(last, next),
            Reached::Leaf(last) => {
                if kind == TreeKind::Dir && inode.kind() == S_IFDIR {
                    self.check_entries(s, inode.ino());
                }
                s.cursor.behind(last, next)
            }
            Reached::Moving => s.cursor,
        };
        Ok(0)
    }

    /// Decodes the entries of a directory in the leaf that the scrub has come to.
    fn check_entries(&self, s: &mut Scrub, dir: u64) {
        let mut from = Some(s.cursor.key);
        while let Some((cookie, v)) = from.and_then(|at| s.inner.item(at)) {
            if decode(dir, v).is_err() {
                self.note_record(TreeKind::Dir, dir, cookie);
                s.bad_inode = true;
            }
            from = cookie.checked_add(1);
        }
    }

    /// A step in the extent tree of an inode: a leaf, or data of its records. Returns the number of
    /// data blocks read.
    fn scrub_extents(&self, s: &mut Scrub, inode: &Inode) -> Result<u64> {
        let next = s.after_tree();
        // Before the look: what it finds was not freed by an earlier transaction.
        let generation = self.running_generation();
        if s.file_end.is_none() {
            s.file_end = Some(bytes_to_blocks(inode.attrs().size));
            s.is_beyond = false;
        }
        let last = match self.step_in(s, inode, TreeKind::Extent)? {
            Reached::Moving => return Ok(0),
            Reached::Empty => {
                s.doubts = 0;
                s.cursor = next;
                return Ok(0);
            }
            Reached::Lost(last) => {
                s.doubts = 0;
                s.cursor = s.cursor.behind(last, next);
                return Ok(0);
            }
            Reached::Leaf(last) => last,
        };
        let mut after = self.gather(s, inode, last)?;
        let alone = s.blocks.len() == 1;
        if !alone {
            let n = self.read_gathered(s)?;
            if let Some(unread) = s.blocks.get(n) {
                after = s.before(unread);
                s.blocks.truncate(n);
            }
        }
        let n = s.blocks.len();
        let (mut bad, mut moved, mut compared) = (0u64, 0, 0);
        for i in 0..n {
            let (Some(at), Some(buf)) = (s.blocks.get(i), s.data.get_mut(i)) else {
                break;
            };
            let got = match alone {
                true => self.read_sum(at, buf)?,
                false => Some(crc32c(0, &buf[..])),
            };
            if got != Some(at.want) {
                match self.judge(inode, at, buf, got, generation)? {
                    Judgement::Moved => moved += 1,
                    Judgement::Unknown if s.doubts < LOOKS => {
                        s.doubts += 1;
                        s.inner.forget();
                        after = s.before(at);
                        break;
                    }
                    Judgement::Damaged | Judgement::Unknown => bad |= 1 << i,
                }
            }
            s.doubts = 0;
            compared += 1;
        }
        // Nothing fails from here on, so nothing is counted twice.
        if alone {
            s.careful = s.careful.saturating_sub(compared);
        }
        for (i, at) in s.blocks.iter().enumerate() {
            if bad >> i & 1 == 1 {
                s.bad_inode = true;
                self.note_data(inode.ino(), at);
            }
        }
        self.scrub.report.lock().status.moved_blocks += moved;
        s.cursor = after;
        Ok(compared)
    }

    /// Whether the extent tree has a record that can be read for file block `start`, or none.
    fn is_record_good(&self, inode: &Inode, start: u64) -> bool {
        let mut v = ValueBuf::new();
        let m = inode.maps.read();
        m.extent_at(&self.node_store, start, &mut v).is_ok()
    }

    /// Notes which blocks the next step of [`Fs::scrub_extents`] compares, from the cursor on: of
    /// records of the leaf that the scrub has come to, which has keys up to `last`. Returns the place
    /// behind them.
    fn gather(&self, s: &mut Scrub, inode: &Inode, last: u64) -> Result<Cursor> {
        let next = s.after_tree();
        let most = match s.careful {
            0 => s.data_step,
            _ => 1,
        };
        s.blocks.clear();
        let mut at = s.cursor;
        while s.blocks.len() < most && at.stage == Stage::Extents {
            let Some((start, v)) = s.inner.item(at.key) else {
                at = at.behind(last, next);
                break;
            };
            if start != at.key {
                // The record that was at hand is gone, or this is the next one.
                (at.key, at.done) = (start, 0);
            }
            if s.file_end.is_some_and(|end| start >= end) {
                if s.is_beyond {
                    at = next;
                    break;
                }
                s.file_end = Some(self.end_of_records(inode)?);
                s.is_beyond = true;
                continue;
            }
            let e = match Extent::parse(start, v, self.node_store.space()) {
                Ok(e) => e,
                // The blocks before it are compared first, so that it is not noted twice.
                Err(_) if !s.blocks.is_empty() => break,
                // An old leaf may name blocks behind an end that was cut off meanwhile.
                Err(_) if s.doubts < LOOKS && self.is_record_good(inode, start) => {
                    s.doubts += 1;
                    s.inner.forget();
                    break;
                }
                Err(what) => {
                    corrupt("extent", start, what);
                    self.note_record(TreeKind::Extent, inode.ino(), start);
                    s.bad_inode = true;
                    at = at.behind(start, next);
                    s.cursor = at;
                    continue;
                }
            };
            if e.unwritten || at.done >= e.len {
                s.doubts = 0;
                at = at.behind(start, next);
                continue;
            }
            let left = most.saturating_sub(s.blocks.len()) as u64;
            let end = e.len.min(at.done.saturating_add(left));
            for i in at.done..end {
                let block = At {
                    record: start,
                    block: start.saturating_add(i),
                    phys: e.phys.saturating_add(i),
                    want: e.csum(v, i)?.unwrap_or(0),
                };
                s.blocks.push(block, GFP_KERNEL)?;
            }
            at.done = end;
        }
        Ok(at)
    }

    /// The first file block behind the last extent record of an inode.
    fn end_of_records(&self, inode: &Inode) -> Result<u64> {
        let mut v = ValueBuf::new();
        let maps = inode.maps.read();
        match maps.tree.find_le(&self.node_store, u64::MAX, &mut v) {
            Ok(last) => Ok(last.map_or(0, |key| key.saturating_add(1))),
            Err(e) if is_busy(e) => Err(ENOMEM),
            // The walk comes to what cannot be read.
            Err(_) => Ok(u64::MAX),
        }
    }

    /// Reads the blocks that [`Fs::gather`] has noted. Returns how many could be read before the
    /// first that could not: the next ones are read one by one. EINTR if the scrub is cancelled.
    fn read_gathered(&self, s: &mut Scrub) -> Result<usize> {
        let mut n = 0;
        let next_to = |a: &At, b: &At| a.phys.checked_add(1) == Some(b.phys);
        for run in s.blocks.chunk_by(next_to) {
            let end = n + run.len();
            let (Some(first), Some(bufs)) = (run.first(), s.data.get_mut(n..end)) else {
                break;
            };
            let dev = self.node_store.device();
            // Beside a load that keeps the device busy, each of them may take long.
            if self.scrub.is_cancelled() {
                return Err(EINTR);
            }
            if dev.read_background(first.phys, bufs).is_err() {
                // A device may take very long for a block that it cannot read.
                s.careful = run.len() as u64;
                break;
            }
            n = end;
        }
        Ok(n)
    }

    /// The checksum of a block as it is on the device; `None` if it cannot be read. ENOMEM, or EIO
    /// after a shutdown.
    fn read_sum(&self, at: &At, buf: &mut Block) -> Result<Option<u32>> {
        let dev = self.node_store.device();
        match dev.read_background(at.phys, core::slice::from_mut(buf)) {
            Ok(()) => Ok(Some(crc32c(0, &buf[..]))),
            Err(e) if is_busy(e) => Err(ENOMEM),
            Err(_) => {
                self.readable()?;
                Ok(None)
            }
        }
    }

    /// Judges a block that did not match: see the header of this file. Its content had the checksum
    /// `got`, or could not be read. The record was looked up while the transaction `generation` was
    /// running or later. ENOMEM, EINTR if the scrub is cancelled, EIO after a shutdown.
    fn judge(
        &self,
        inode: &Inode,
        at: &At,
        buf: &mut Block,
        mut got: Option<u32>,
        mut generation: u64,
    ) -> Result<Judgement> {
        if mutant::is(Mutant::ScrubOneLook) {
            return Ok(Judgement::Damaged);
        }
        for _ in 0..LOOKS {
            if self.scrub.is_cancelled() {
                return Err(EINTR);
            }
            let now = self.running_generation();
            match self.verify(inode, at.block, at.phys, got.unwrap_or(0)) {
                Ok(Verdict::Moved) => return Ok(Judgement::Moved),
                Ok(Verdict::Good) if got.is_some() => return Ok(Judgement::Moved),
                Ok(_) => {}
                Err(e) if is_busy(e) => return Err(ENOMEM),
                Err(_) => {
                    self.readable()?;
                    if now != generation {
                        return Ok(Judgement::Unknown);
                    }
                }
            }
            if now == generation {
                return Ok(Judgement::Damaged);
            }
            // This look was the second one for the last read, and is the first one for the next.
            generation = now;
            got = self.read_sum(at, buf)?;
        }
        Ok(Judgement::Damaged)
    }

    /// If the extent record of a file block cannot be read, because a node on the way to it is
    /// damaged: the last file block of which the same is true.
    pub fn lost_records(&self, inode: &Inode, block: u64) -> Result<Option<u64>> {
        let _nofs = NoFs::enter();
        let mut walk = Walk::new(TreeId::new(TreeKind::Extent, inode.ino()));
        let mut look = || inode.maps.read().tree.look(block);
        let reached = walk.step(&self.node_store, block, &mut look, &mut |_| ())?;
        Ok(match reached {
            Reached::Lost(last) => Some(last),
            _ => None,
        })
    }

    /// Reports a damaged block of data.
    fn note_data(&self, ino: u64, at: &At) {
        self.say(
            &LOSSES,
            format_args!(
                "inode {ino}, block {}: bad data in disk block {}",
                at.block, at.phys
            ),
        );
        let start = at.block << BLOCK_SHIFT;
        let mut report = self.scrub.report.lock();
        report.status.bad_blocks += 1;
        report.add(Damage {
            kind: DamageKind::Data,
            owner: ino,
            block: at.phys,
            start,
            end: start.saturating_add(BLOCK_SIZE as u64),
            ..Damage::default()
        });
    }
}
