// SPDX-License-Identifier: GPL-2.0

//! Runs a workload: makes the calls of the VFS, in the order of rust/fs, and reports to the oracle
//! what happened.
//!
//! One thread runs, except for four operations in which two calls meet: a commit, or a resize, with
//! something else happening during its I/O, two fsyncs at once, and an fsync that waits for a write in
//! flight. The two threads take turns at points that the device defines, so a workload gives the
//! same record every time.
//!
//! Tests: tools/crash/tests/attributes.rs, recovery.rs.

use crate::base::Base;
use crate::disk::Recorder;
use crate::engine::mutant::{self, Mutant};
use crate::engine::ops::trim::TrimRange;
use crate::engine::ops::xattr::{XattrSet, ACL_ACCESS, USER};
use crate::engine::*;
use crate::oracle::{acl, Id, Oracle, When, ACL, NEVER};
use crate::os::{now, Device, Shared};
use crate::pages::{File, Io};
use crate::workload::{End, Op, Path, Start, Workload};
use kernel::prelude::{Result, EIO};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod attrs;
mod names;
mod sync;

/// Names of extended attributes.
const XATTRS: [&str; 4] = ["a", "bc", "long-name-of-an-attribute", "x"];

/// An inode that the VFS has in memory.
struct Handle {
    inode: Shared<Inode>,
    file: Option<File>,
    /// The times of the VFS inode. Its write-back reads them while other tasks change them.
    times: Arc<Mutex<Times>>,
    /// The VFS has changed the times by itself.
    dirty: bool,
}

impl Handle {
    fn lock_times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mounted filesystem and its users.
pub struct World {
    fs: Shared<Fs>,
    dev: Device,
    rec: Recorder,
    /// What is expected of the filesystem.
    pub oracle: Oracle,
    handles: BTreeMap<Id, Handle>,
    /// The newest O_TMPFILE, as long as it has no name.
    tmp: Option<Id>,
    /// The number of the next new inode. The VFS chooses a number before the operation that uses
    /// it, and here everything can come between the two.
    next: NewId,
    /// The number from which the content of the last write was made.
    stamp: u64,
    mutant: Option<Mutant>,
    start: Start,
}

/// The content of a write. No two writes have the same.
fn fill(stamp: u64, at: u64, bytes: &mut [u8]) {
    for (i, b) in bytes.iter_mut().enumerate() {
        let at = at + i as u64;
        let word = (stamp << 32 | at >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Never zero, which stands for a hole.
        *b = (word >> (8 * (at & 7))) as u8 | 1;
    }
}

impl World {
    /// Mounts the filesystem of `base` on `rec`.
    pub fn new(base: &Base, rec: &Recorder, mutant: Option<Mutant>) -> Result<Self, String> {
        let fs = Fs::mount(rec.device(), MountOptions::default())
            .map_err(|e| format!("mount before the workload: {}", e.reason))?;
        mutant::fsync_at(0);
        let mut w = Self {
            next: fs.new_id(),
            fs,
            dev: rec.device(),
            rec: rec.clone(),
            oracle: base.oracle.clone(),
            handles: BTreeMap::new(),
            tmp: None,
            stamp: base.stamp,
            mutant,
            start: Start::Fresh,
        };
        for id in 0..w.oracle.objects.len() {
            let inode = w.fs.iget(w.oracle.objects[id].ino);
            w.hold(id, inode.map_err(|e| format!("iget: {e:?}"))?);
        }
        Ok(w)
    }

    /// The number from which the content of the last write was made.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// The inode that has this name now.
    pub fn inode_of(&self, path: Path) -> Option<Shared<Inode>> {
        self.find(path).map(|id| self.inode(id))
    }

    /// The filesystem.
    pub fn fs(&self) -> &Shared<Fs> {
        &self.fs
    }

    fn hold(&mut self, id: Id, inode: Shared<Inode>) {
        let a = inode.attrs();
        let file = (a.mode & S_IFMT == S_IFREG).then(|| File::new(a.size));
        // The VFS inode is new.
        let mut times = Times {
            atime: a.atime,
            mtime: a.mtime,
            ..Times::default()
        };
        inode.show(
            || None,
            |a, _| {
                times.ctime = a.ctime;
                times.change = a.change;
            },
        );
        self.oracle.set_change(id, times.change);
        self.handles.insert(
            id,
            Handle {
                inode,
                file,
                times: Arc::new(Mutex::new(times)),
                dirty: false,
            },
        );
    }

    /// Runs a workload, with its end.
    pub fn run(&mut self, w: &Workload) -> Result<(), String> {
        self.start = w.start;
        if w.start == Start::Full {
            self.fill_log()?;
        }
        let end: &[Op] = match w.end {
            End::Commit => &[Op::Commit(usize::MAX)],
            End::Fsync => &[Op::Fsync("A/f"), Op::Fsync("B/g")],
        };
        let ops: Vec<Op> = w.ops.iter().chain(end).copied().collect();
        self.steps(&ops)
    }

    /// Runs operations.
    pub fn steps(&mut self, ops: &[Op]) -> Result<(), String> {
        let mut at = 0;
        while at < ops.len() {
            at += self
                .step(ops, at)
                .map_err(|e| format!("operation {} ({}): {e:?}", self.oracle.now(), ops[at]))?;
        }
        Ok(())
    }

    /// Calls fsync until only a few blocks of the log are left, and makes that the beginning.
    fn fill_log(&mut self) -> Result<(), String> {
        for i in 0..1000 {
            let (used, len) = self.fs.log_space();
            if used + 4 >= len {
                break;
            }
            let ops = [Op::Chmod("A/f", 0o400 | i % 0o400), Op::Fsync("A/f")];
            self.steps(&ops)?;
        }
        self.rec.rebase();
        self.oracle.settle();
        Ok(())
    }

    /// Runs the operation at `at`, and those that happen during it. Returns how many.
    fn step(&mut self, ops: &[Op], at: usize) -> Result<usize> {
        let n = self.carry_out(ops, at)?;
        self.refresh();
        Ok(n)
    }

    /// Copies what an operation has changed in the engine to the VFS inodes, as rust/vfs does at its
    /// end, and notes the change counters that users see.
    fn refresh(&mut self) {
        for (id, h) in &self.handles {
            let ctime = || Some(h.lock_times().ctime);
            h.inode.show(ctime, |a, raised| {
                let mut times = h.lock_times();
                times.ctime = a.ctime;
                times.change += raised;
            });
            self.oracle.set_change(*id, h.lock_times().change);
        }
    }

    fn carry_out(&mut self, ops: &[Op], at: usize) -> Result<usize> {
        let op = ops[at];
        self.oracle.begin(self.rec.ticks());
        match op {
            Op::Commit(reach) => {
                let beside = self.beside_commit(&ops[at + 1..]);
                return Ok(1 + self.commit(reach, beside)?);
            }
            Op::Grow(by, reach) => {
                let beside = self.beside_commit(&ops[at + 1..]);
                return Ok(1 + self.grow(by, reach, beside)?);
            }
            Op::Shrink(by) => self.shrink(by)?,
            Op::Create(p) => self.create(p, S_IFREG | 0o644, None)?,
            Op::Mkdir(p) => self.create(p, S_IFDIR | 0o755, None)?,
            Op::Symlink(p, n) => {
                self.stamp += 1;
                let mut target = vec![0; n];
                fill(self.stamp, 0, &mut target);
                target.iter_mut().for_each(|b| *b = b'a' + *b % 26);
                self.create(p, S_IFLNK | 0o777, Some(target))?;
            }
            Op::Link(a, b) => self.link(a, b)?,
            Op::Unlink(p) => self.unlink(p, false, false)?,
            Op::UnlinkOpen(p) => self.unlink(p, true, false)?,
            Op::Rmdir(p) => self.unlink(p, false, true)?,
            Op::Rename(a, b) => self.rename(a, b, false)?,
            Op::Whiteout(a, b) => self.rename(a, b, true)?,
            Op::Exchange(a, b) => self.exchange(a, b)?,
            Op::Tmpfile => self.tmpfile()?,
            Op::LinkTmp(p) => self.link_tmp(p)?,
            Op::Fsync(p) => self.fsync(p, true)?,
            Op::Fdatasync(p) => self.fsync(p, false)?,
            Op::FsyncBoth(a, b) => self.fsync_both(a, b)?,
            Op::Sync => self.sync()?,
            Op::Chmod(p, mode) => self.chmod(p, mode)?,
            Op::Chown(p, uid) => self.chown(p, uid)?,
            Op::Utimes(p, sec) => self.utimes(p, sec)?,
            Op::SetAcl(p, mode) => self.set_acl(p, mode)?,
            Op::WriteInode(p) => {
                let beside = ops[at + 1..].iter().take(2);
                let n = beside.take_while(|o| o.beside_write_back()).count();
                return Ok(1 + self.write_inode(p, &ops[at + 1..at + 1 + n])?);
            }
            Op::FsyncInside(n) => mutant::fsync_at(n),
            Op::Reclaim => self.reclaim()?,
            Op::Trim => self.trim()?,
            Op::SetXattr(p, name, len) => self.set_xattr(p, name, Some(len))?,
            Op::RemoveXattr(p, name) => self.set_xattr(p, name, None)?,
            _ => self.data(op)?,
        }
        Ok(1)
    }

    /// The next operations that may happen during a commit.
    fn beside_commit<'a>(&self, next: &'a [Op]) -> &'a [Op] {
        let beside = next.iter().take(2);
        let n = beside.take_while(|o| o.beside_commit()).count();
        // With a log that is full, or has lost records, an fsync would wait for the commit.
        let full = self.start == Start::Full || self.fs.log_broken();
        // The first transaction waits, too, if the filesystem was unmounted cleanly.
        let waits = full || self.fs.marked_clean.load(Ordering::Acquire);
        &next[..if waits { 0 } else { n }]
    }

    // --- data --------------------------------------------------------------

    fn with_file(&mut self, id: Id, f: impl FnOnce(&mut File, &Io<'_>) -> Result) -> Result {
        let Some(h) = self.handles.get_mut(&id) else {
            return Ok(());
        };
        let io = Io {
            fs: &self.fs,
            dev: &self.dev,
            rec: &self.rec,
            inode: &h.inode,
            change: h.lock_times().change,
        };
        let Some(file) = &mut h.file else {
            return Ok(());
        };
        let before = file.in_flight();
        f(file, &io)?;
        if before && !file.in_flight() {
            self.oracle.landed(id);
        }
        Ok(())
    }

    /// Are writes to the object in flight?
    fn flying(&self, id: Id) -> bool {
        let file = self.handles.get(&id).and_then(|h| h.file.as_ref());
        file.is_some_and(File::in_flight)
    }

    fn size(&self, id: Id) -> u64 {
        self.oracle.objects[id].size
    }

    /// Notes a new modification time in the VFS inode, and raises its change counter; the engine gets
    /// both later.
    fn modified(&mut self, id: Id) {
        let t = now();
        self.oracle.set_mtime(id, t);
        if let Some(h) = self.handles.get_mut(&id) {
            let mut times = h.lock_times();
            times.mtime = t;
            times.ctime = t;
            times.change += 1;
            drop(times);
            h.dirty = true;
        }
    }

    /// Makes the content of a write to a range, which no other write has, and reports it to the
    /// oracle. For `sure` see [`Oracle::change`].
    fn stamped(&mut self, id: Id, pos: u64, len: u64, sure: When) -> impl FnMut(u64, &mut [u8]) {
        self.stamp += 1;
        let stamp = self.stamp;
        self.modified(id);
        let content = move |at: u64, b: &mut [u8]| fill(stamp, at, b);
        self.oracle.change(id, pos, len, sure, content);
        self.oracle.grow(id, pos + len);
        content
    }

    fn write(&mut self, id: Id, pos: u64, len: u64) -> Result {
        let mut f = self.stamped(id, pos, len, self.oracle.now());
        self.with_file(id, |file, io| file.write(io, pos, len, &mut f))
    }

    /// Runs an operation on the data of one file.
    fn data(&mut self, op: Op) -> Result {
        let path = match op {
            Op::Append(p, ..)
            | Op::Write(p, ..)
            | Op::Direct(p, ..)
            | Op::DirectAppend(p, ..)
            | Op::Submit(p, ..)
            | Op::Complete(p)
            | Op::Mmap(p, ..)
            | Op::Allocate(p, ..)
            | Op::Zero(p, ..)
            | Op::Punch(p, ..)
            | Op::Truncate(p, ..)
            | Op::TruncateInVain(p, ..)
            | Op::Writeback(p) => p,
            _ => return Ok(()),
        };
        let Some(id) = self.find(path) else {
            return Ok(());
        };
        if self.handles.get(&id).is_none_or(|h| h.file.is_none()) {
            return Ok(());
        }
        let size = self.size(id);
        match op {
            Op::Append(_, len) => self.write(id, size, len),
            Op::Write(_, pos, len) => self.write(id, pos, len),
            Op::Direct(_, pos, len) => self.direct(id, pos, len),
            Op::DirectAppend(_, len) => self.direct(id, size.next_multiple_of(4096), len),
            Op::Submit(_, pos, len) if pos + len <= size => self.submit(id, pos, len),
            Op::Complete(_) => self.with_file(id, |f, io| f.finish_flights(io)),
            Op::Mmap(_, pos, len) if pos < size => self.store(id, pos, len.min(size - pos)),
            Op::Writeback(_) => self.with_file(id, |f, io| {
                f.finish_flights(io)?;
                f.writeback(io, 0..u64::MAX)
            }),
            Op::Allocate(_, pos, len, keep) => {
                self.modified(id);
                if !keep && pos + len > size {
                    self.oracle.resize(id, pos + len);
                }
                self.with_file(id, |f, io| f.allocate(io, pos..pos + len, keep))
            }
            Op::Zero(_, pos, len, keep) => {
                self.modified(id);
                self.zeroed(id, pos, len);
                if !keep && pos + len > size {
                    self.oracle.resize(id, pos + len);
                }
                self.with_file(id, |f, io| f.zero_range(io, pos..pos + len, keep))
            }
            Op::Punch(_, pos, len) => {
                self.modified(id);
                self.zeroed(id, pos, len);
                self.with_file(id, |f, io| f.punch(io, pos..pos + len))
            }
            Op::Truncate(_, to) => {
                self.modified(id);
                self.oracle.resize(id, to);
                self.with_file(id, |f, io| f.truncate(io, to))?;
                self.truncated(id)
            }
            // The error comes after the file has been cut.
            Op::TruncateInVain(_, to) if to < size => {
                self.modified(id);
                self.oracle.resize(id, to);
                self.with_file(id, |f, io| f.truncate_in_vain(io, to))?;
                self.push_times(id)
            }
            _ => Ok(()),
        }
    }

    /// Reports to the oracle that bytes inside the file become zero.
    fn zeroed(&mut self, id: Id, pos: u64, len: u64) {
        let (now, end) = (self.oracle.now(), (pos + len).min(self.size(id)));
        if pos < end {
            self.oracle
                .change(id, pos, end - pos, now, |_, b| b.fill(0));
        }
    }

    fn direct(&mut self, id: Id, pos: u64, len: u64) -> Result {
        let mut f = self.stamped(id, pos, len, self.oracle.now());
        self.with_file(id, |file, io| file.direct(io, pos, len, &mut f))
    }

    fn submit(&mut self, id: Id, pos: u64, len: u64) -> Result {
        self.with_file(id, |file, io| file.finish_flights(io))?;
        let mut f = self.stamped(id, pos, len, NEVER);
        self.with_file(id, |file, io| file.start_direct(io, pos, len, &mut f))
    }

    fn store(&mut self, id: Id, pos: u64, len: u64) -> Result {
        let mut f = self.stamped(id, pos, len, self.oracle.now());
        self.with_file(id, |file, io| file.store(io, pos, len, &mut f))
    }

    fn trim(&mut self) -> Result {
        let mut all = TrimRange {
            start: 0,
            len: u64::MAX,
            // Thousands of free blocks lie alone: they would be most of what the crash states differ in.
            min_len: if self.start == Start::Crowded {
                8 * 4096
            } else {
                0
            },
        };
        let mut trim = self.fs.trim_begin(&mut all)?;
        while self.fs.trim_step(&mut trim, &mut || false)? {}
        Ok(())
    }

    fn reclaim(&mut self) -> Result {
        let ids: Vec<Id> = self.handles.keys().copied().collect();
        for id in ids {
            let Some(h) = self.handles.get_mut(&id) else {
                continue;
            };
            if let Some(f) = &mut h.file {
                f.drop_clean();
            }
            self.fs.release_maps(&h.inode, 0, u64::MAX);
            let idle = h.file.as_ref().is_none_or(File::is_clean);
            if idle && self.oracle.links(id) > 0 {
                self.push_times(id)?;
                if let Some(h) = self.handles.remove(&id) {
                    self.fs.iput(h.inode);
                    let inode = self.fs.iget(self.oracle.objects[id].ino)?;
                    let size = self.size(id);
                    self.hold(id, inode);
                    if let Some(f) = self.handles.get_mut(&id).and_then(|h| h.file.as_mut()) {
                        f.size = size;
                    }
                }
            }
        }
        self.fs.shrink_scan(1 << 20);
        Ok(())
    }
}
