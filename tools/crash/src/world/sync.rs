// SPDX-License-Identifier: GPL-2.0

//! fsync, sync, commits and resizes, and what happens beside them.
//!
//! Tests: tools/crash/tests/recovery.rs; `scripts/crash mutants` (the mutants of the log).

use super::World;
use crate::base::AG;
use crate::engine::format::places::AREA_BLOCKS;
use crate::engine::mutant;
use crate::engine::*;
use crate::oracle::Id;
use crate::os::{self, now};
use crate::pages::File;
use crate::workload::{Op, Path};
use kernel::prelude::{Result, EDOM, EIO, ENOSPC};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long an fsync or a commit gets to show that it overtakes what it must wait for. Only mutants
/// do.
const OVERTAKE: Duration = Duration::from_micros(300);

/// A message of the other thread.
pub(super) enum Beside {
    /// It has reached the point and waits there.
    Reached,
    Ended,
}

/// The channels of [`World::pause_at`].
pub(super) struct Pause {
    say: mpsc::Sender<Beside>,
    hear: mpsc::Receiver<Beside>,
    go: mpsc::Sender<()>,
}

impl World {
    pub(super) fn fsync(&mut self, path: Path, times: bool) -> Result {
        let Some(id) = self.find(path) else {
            return Ok(());
        };
        // The promise covers everything that happened before the call.
        let time = self.oracle.now();
        self.with_file(id, |f, io| f.writeback(io, 0..u64::MAX))?;
        let flying = self.flying(id);
        if times || flying {
            self.push_times(id)?;
        }
        let h = &self.handles[&id];
        if flying {
            // The fsync must see that the inode has changed, whichever thread is faster.
            self.fs.set_attrs(
                &h.inode,
                &AttrChange {
                    ctime: Some(now()),
                    ..AttrChange::default()
                },
            )?;
            // It waits for the write in flight, which ends meanwhile.
            let (fs, inode) = (self.fs.clone(), h.inode.clone());
            let r = std::thread::scope(|s| {
                let other = self.beside(s, None, move || fs.sync_inode(&inode));
                let r = self.with_file(id, |f, io| f.finish_flights(io));
                let r = r.and(self.pay());
                other.join().unwrap_or(Err(EIO)).and(r)
            });
            r?;
        } else {
            let (fs, inode) = (self.fs.clone(), h.inode.clone());
            self.while_paying(move || fs.sync_inode(&inode))?;
        }
        self.oracle.ack(self.rec.ticks(), time, Some(id), times);
        Ok(())
    }

    /// Ends the writes for which a call waits when it pays debts. Ending the writes of the rename
    /// itself is not enough, because the call also waits for those that were started since.
    fn pay(&mut self) -> Result {
        self.owing()
            .iter()
            .try_for_each(|id| self.with_file(*id, |f, io| f.finish_flights(io)))
    }

    /// The files with writes in flight for which a call may wait when it pays debts.
    fn owing(&self) -> Vec<Id> {
        if !self.fs.owed.any() {
            return Vec::new();
        }
        let owes = |f: &Option<File>| f.as_ref().is_some_and(File::owes);
        let files = self.handles.iter().filter(|(_, h)| owes(&h.file));
        let mut ids: Vec<Id> = files.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    fn owes(&self) -> bool {
        !self.owing().is_empty()
    }

    /// Runs `f`, which must wait for the debts of renames. The writes end during the call, and not
    /// at once.
    fn while_paying(&mut self, f: impl FnOnce() -> Result + Send) -> Result {
        if !self.owes() {
            return f();
        }
        std::thread::scope(|s| {
            let other = self.beside(s, None, f);
            let until = Instant::now() + OVERTAKE;
            while !other.is_finished() && Instant::now() < until {
                std::thread::yield_now();
            }
            let r = self.pay();
            other.join().unwrap_or(Err(EIO)).and(r)
        })
    }

    /// Runs `f` in a thread with the same clock and random numbers; sends a message when it has ended.
    pub(super) fn beside<'s, R: Send + 's>(
        &self,
        s: &'s std::thread::Scope<'s, '_>,
        say: Option<mpsc::Sender<Beside>>,
        f: impl FnOnce() -> Result<R> + Send + 's,
    ) -> std::thread::ScopedJoinHandle<'s, Result<R>> {
        let (m, clock) = (self.mutant, os::clock());
        s.spawn(move || {
            mutant::choose(m);
            os::set_clock(clock);
            let r = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            if let Some(say) = say {
                let _ = say.send(Beside::Ended);
            }
            r.unwrap_or_else(|p| std::panic::resume_unwind(p))
        })
    }

    /// Makes the next operation of the device for which `point` is true wait, once, after it was
    /// issued. The receiver gets a message, and the operation continues when the last sender is
    /// dropped.
    pub(super) fn pause_at(&self, mut point: impl FnMut(bool) -> bool + Send + 'static) -> Pause {
        let (say, hear) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let said = say.clone();
        self.rec.set_hook(Some(Box::new(move |flush| {
            if point(flush) && said.send(Beside::Reached).is_ok() {
                let _ = wait.recv();
            }
        })));
        Pause { say, hear, go }
    }

    /// Two fsyncs: the second arrives while the first waits for its flush.
    pub(super) fn fsync_both(&mut self, a: Path, b: Path) -> Result {
        let (Some(ia), Some(ib)) = (self.find(a), self.find(b)) else {
            return Ok(());
        };
        if ia == ib || self.flying(ia) || self.flying(ib) {
            return Ok(());
        }
        self.pay()?;
        let time = self.oracle.now();
        for id in [ia, ib] {
            self.with_file(id, |f, io| f.writeback(io, 0..u64::MAX))?;
            self.push_times(id)?;
        }
        let (first, second) = (self.inode(ia), self.inode(ib));
        let (fs1, fs2) = (self.fs.clone(), self.fs.clone());
        let mut flushes = 0;
        let Pause { say, hear, go } = self.pause_at(move |flush| {
            flushes += usize::from(flush);
            flush && flushes == 1
        });
        let (r1, r2) = std::thread::scope(|s| {
            let one = self.beside(s, Some(say), move || fs1.sync_inode(&first));
            let reached = matches!(hear.recv(), Ok(Beside::Reached));
            let before = self.rec.ticks();
            let two = self.beside(s, None, move || fs2.sync_inode(&second));
            let until = Instant::now() + OVERTAKE;
            while reached
                && self.rec.ticks() == before
                && !two.is_finished()
                && Instant::now() < until
            {
                std::thread::yield_now();
            }
            drop(go);
            (one.join(), two.join())
        });
        self.rec.set_hook(None);
        r1.unwrap_or(Err(EIO))?;
        r2.unwrap_or(Err(EIO))?;
        let tick = self.rec.ticks();
        self.oracle.ack(tick, time, Some(ia), true);
        self.oracle.ack(tick, time, Some(ib), true);
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result {
        let time = self.oracle.now();
        let ids: Vec<Id> = self.handles.keys().copied().collect();
        let owing = self.owing();
        for id in ids {
            self.with_file(id, |f, io| {
                if !owing.contains(&id) {
                    f.finish_flights(io)?;
                }
                f.writeback(io, 0..u64::MAX)
            })?;
            self.push_times(id)?;
        }
        let fs = self.fs.clone();
        self.while_paying(move || fs.sync())?;
        self.oracle.ack(self.rec.ticks(), time, None, true);
        Ok(())
    }

    /// A commit of the commit thread, and `ops` as in [`World::during`].
    pub(super) fn commit(&mut self, reach: usize, ops: &[Op]) -> Result<usize> {
        let fs = self.fs.clone();
        self.during(reach, ops, move || fs.sync())
    }

    /// The filesystem grows by `by` blocks, or to the end of the device, and `ops` as in
    /// [`World::during`]. Does nothing if there are too few blocks.
    pub(super) fn grow(&mut self, by: u64, reach: usize, ops: &[Op]) -> Result<usize> {
        let from = self.fs.blocks();
        let to = from.saturating_add(by).min(self.dev.blocks());
        if to - from < AREA_BLOCKS {
            return Ok(0);
        }
        self.oracle.resize_fs(to);
        let fs = self.fs.clone();
        let n = self.during(reach, ops, move || {
            let mut resize = fs.resize_begin(to)?;
            while fs.resize_step(&mut resize)? {}
            Ok(())
        })?;
        self.oracle.ack_size(self.rec.ticks());
        Ok(n)
    }

    /// The filesystem becomes smaller by at least `by` blocks. Does nothing if it cannot be so small, or if
    /// there is no room for what is moved.
    pub(super) fn shrink(&mut self, by: u64) -> Result {
        let from = self.fs.blocks();
        let to = from.saturating_sub(by) / AG * AG;
        if to == 0 || to == from {
            return Ok(());
        }
        // It waits for writes in flight.
        let ids: Vec<Id> = self.handles.keys().copied().collect();
        for id in ids {
            self.with_file(id, |f, io| f.finish_flights(io))?;
        }
        self.oracle.resize_fs(to);
        let done = self.fs.shrink_begin(to).and_then(|mut shrink| {
            while self.fs.shrink_step(&mut shrink)? {}
            Ok(())
        });
        match done {
            Ok(()) => self.oracle.ack_size(self.rec.ticks()),
            Err(ENOSPC | EDOM) if self.fs.blocks() == from => self.oracle.unresized(),
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Carries out operations until the log has lost a record. Returns how many.
    fn all_of(&mut self, ops: &[Op]) -> Result<usize> {
        for i in 0..ops.len() {
            self.step(ops, i)?;
            if self.fs.log_broken() {
                return Ok(i + 1);
            }
        }
        Ok(ops.len())
    }

    /// Runs `f`, which commits. When it has issued `reach` writes or flushes, `ops` happen. Returns how
    /// many did: if one leaves the log without a record, an fsync behind it would wait for `f`.
    fn during(
        &mut self,
        reach: usize,
        ops: &[Op],
        f: impl FnOnce() -> Result + Send,
    ) -> Result<usize> {
        let mut left = reach;
        let Pause { say, hear, go } = self.pause_at(move |_| {
            let here = left == 0;
            left = left.wrapping_sub(1);
            here
        });
        let (r, n) = std::thread::scope(|s| {
            let other = self.beside(s, Some(say), f);
            let until = Instant::now() + OVERTAKE;
            while self.owes() && !other.is_finished() && Instant::now() < until {
                std::thread::yield_now();
            }
            let mut n = self.pay().map(|()| 0);
            if matches!(hear.recv(), Ok(Beside::Reached)) && n.is_ok() {
                n = self.all_of(ops);
            }
            drop(go);
            (other.join(), n)
        });
        self.rec.set_hook(None);
        r.unwrap_or(Err(EIO))?;
        n
    }
}
