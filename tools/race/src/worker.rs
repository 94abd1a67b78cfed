// SPDX-License-Identifier: GPL-2.0

//! What the workers do.

use crate::check::judge_live;
use crate::mapping::Mapping;
use crate::plan::{Plan, Role, Zone, RUN};
use crate::stamp::{self, Unit, UNIT};
use crate::sys::{self, Aligned, Falloc, PAGE};
use crate::table::{Op, Table};
use anyhow::{bail, Context, Result};
use fastrand::Rng;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// One worker at work.
pub struct Worker<'a> {
    w: usize,
    plan: &'a Plan,
    table: &'a Table,
    rng: Rng,
    file: File,
    direct: Option<File>,
}

/// Runs worker `w` of the plan to its end; `shared` is a mapping to use instead of one of its own.
pub fn run(
    w: usize,
    plan: &Plan,
    table: &Table,
    path: &Path,
    shared: Option<&Mapping>,
) -> Result<()> {
    let role = plan.workers[w];
    let seed = plan.seed ^ (w as u64 + 1).wrapping_mul(0xa076_1d64_78bd_642f);
    let direct = plan.workers.contains(&Role::Direct);
    let mut me = Worker {
        w,
        plan,
        table,
        rng: Rng::with_seed(seed),
        file: sys::open(path, false, false)?,
        direct: if direct {
            Some(sys::open(path, false, true)?)
        } else {
            None
        },
    };
    table.rendezvous(plan.workers.len());
    let r = match role {
        Role::Fault | Role::CopyFault => match shared {
            Some(map) => me.fault(map, role == Role::CopyFault),
            None => {
                let map = Mapping::new(&me.file, plan.bytes() as usize).context("mmap")?;
                me.fault(&map, role == Role::CopyFault)
            }
        },
        Role::Write => me.write(),
        Role::Direct => me.direct(),
        Role::Punch => me.remove(Falloc::Punch),
        Role::Zero => me.remove(Falloc::Zero),
        Role::Truncate => me.truncate(),
        Role::Falloc => me.falloc(),
        Role::Sync => me.sync(),
        Role::Read => me.read(),
    };
    if role.writes() {
        table.pace(w, 0, u64::MAX);
        table.writer_done();
    }
    r.with_context(|| format!("worker {w} ({role:?})"))
}

impl Worker<'_> {
    fn steps(&self) -> u64 {
        self.plan.pages * self.plan.passes
    }

    fn page_of(&self, step: u64) -> u64 {
        (step % self.plan.pages).wrapping_mul(self.plan.stride) % self.plan.pages
    }

    fn pace(&self, step: u64) {
        if self.plan.paced {
            self.table.pace(self.w, self.plan.writers(), step);
        }
    }

    /// Should this worker end? Workers other than writers run as long as a writer does.
    fn over(&self) -> bool {
        self.table.stopped() || self.table.writers_done() == self.plan.writers()
    }

    /// Leaves the processor to the writers for a random time.
    fn rest(&mut self) {
        std::thread::sleep(std::time::Duration::from_micros(self.rng.u64(..400)));
    }

    fn offset(&self, page: u64, slot: usize) -> u64 {
        page * PAGE as u64 + (slot * self.plan.cell()) as u64
    }

    /// The cell of this worker in the pages of cached writers.
    fn slot(&self) -> usize {
        self.plan
            .rank(self.w, |r| r.writes() && r != Role::Direct)
            .0
            % self.plan.per_page
    }

    fn fault(&mut self, map: &Mapping, copy: bool) -> Result<()> {
        let (slot, cell) = (self.slot(), self.plan.cell());
        let source = if copy {
            Some(sys::memfd().context("memfd")?)
        } else {
            None
        };
        let mut buf = vec![0; cell];
        for step in 0..self.steps() {
            self.pace(step);
            let page = self.page_of(step);
            if self.table.stopped() {
                break;
            }
            if self.plan.zone(page) == Zone::Direct {
                continue;
            }
            let (at, i) = (self.offset(page, slot), self.table.index(page, slot));
            let (id, me) = (self.plan.file, self.w as u16);
            if let Some(source) = &source {
                let seq = self.table.begin(i);
                stamp::fill(&mut buf, id, me, at, seq);
                source.write_all_at(&buf, 0).context("memfd")?;
                match map.copy_in(source, at, cell) {
                    Ok(n) if n == cell => self.table.end(i, seq),
                    // The page is beyond the end of the file at the moment.
                    Ok(_) if self.truncating() => {}
                    Err(e) if e.raw_os_error() == Some(libc::EFAULT) && self.truncating() => {}
                    Ok(n) => bail!("page {page}: only {n} of {cell} bytes could be stored"),
                    Err(e) => return Err(e).with_context(|| format!("storing to page {page}")),
                }
                self.table.count(Op::CopyFault);
            } else {
                // Sometimes map the page for reading before it is mapped for writing.
                if self.rng.u64(..2) == 0 {
                    std::hint::black_box(map.load(at));
                }
                let seq = self.table.begin(i);
                map.store(at, cell, id, me, seq);
                self.table.end(i, seq);
                self.table.count(Op::Fault);
            }
            if self.rng.u64(..16) == 0 {
                let n = self.rng.u64(..16).min(self.plan.pages - page - 1) + 1;
                map.refault(page * PAGE as u64, n as usize * PAGE)
                    .context("madvise")?;
            }
        }
        Ok(())
    }

    fn truncating(&self) -> bool {
        self.plan.workers.contains(&Role::Truncate)
    }

    fn write(&mut self) -> Result<()> {
        let (slot, cell) = (self.slot(), self.plan.cell());
        let mut buf = vec![0; cell];
        for step in 0..self.steps() {
            self.pace(step);
            let page = self.page_of(step);
            if self.table.stopped() {
                break;
            }
            if self.plan.zone(page) == Zone::Direct {
                continue;
            }
            let (at, i) = (self.offset(page, slot), self.table.index(page, slot));
            let seq = self.table.begin(i);
            stamp::fill(&mut buf, self.plan.file, self.w as u16, at, seq);
            self.file
                .write_all_at(&buf, at)
                .with_context(|| format!("write at byte {at}"))?;
            self.table.end(i, seq);
            self.table.count(Op::Write);
        }
        Ok(())
    }

    fn direct(&mut self) -> Result<()> {
        let (me, of) = self.plan.rank(self.w, |r| r == Role::Direct);
        let mut buf = Aligned::new(RUN as usize);
        for step in 0..self.steps() {
            self.pace(step);
            if self.table.stopped() {
                break;
            }
            // A run is written when its first page is due, in one or two pieces.
            let page = self.page_of(step);
            if page % RUN != 0 || (page / RUN) as usize % of != me {
                continue;
            }
            if self.plan.zone(page) == Zone::Cached {
                continue;
            }
            let end = (page + RUN).min(self.plan.pages);
            let cut = page + self.rng.u64(..end - page);
            for (from, to) in [(cut, end), (page, cut)] {
                if from < to {
                    self.direct_write(&mut buf, from, to)?;
                }
            }
        }
        Ok(())
    }

    fn direct_write(&mut self, buf: &mut Aligned, from: u64, to: u64) -> Result<()> {
        let cell = self.plan.cell();
        let cells = self.table.index(from, 0)..self.table.index(to, 0);
        let mut seqs = Vec::with_capacity(cells.len());
        for (n, i) in cells.clone().enumerate() {
            let seq = self.table.begin(i);
            let at = self.offset(from, 0) + (n * cell) as u64;
            let part = &mut buf.bytes_mut()[n * cell..(n + 1) * cell];
            stamp::fill(part, self.plan.file, self.w as u16, at, seq);
            seqs.push(seq);
        }
        let at = self.offset(from, 0);
        let len = (to - from) as usize * PAGE;
        let file = self.direct.as_ref().context("no O_DIRECT descriptor")?;
        file.write_all_at(&buf.bytes()[..len], at)
            .with_context(|| format!("direct write of {len} bytes at byte {at}"))?;
        for (i, seq) in cells.zip(seqs) {
            self.table.end(i, seq);
        }
        self.table.count(Op::Direct);
        Ok(())
    }

    /// Removes ranges of cells, not always of whole pages, in the runs of this worker.
    fn remove(&mut self, how: Falloc) -> Result<()> {
        let (me, of) = self.plan.rank(self.w, Role::removes);
        let runs = self.plan.pages.div_ceil(RUN);
        while !self.over() {
            let run = self.rng.u64(..runs) / of as u64 * of as u64 + me as u64;
            if run >= runs {
                continue;
            }
            let first = self.table.index(run * RUN, 0);
            let end = self.table.index(((run + 1) * RUN).min(self.plan.pages), 0);
            let (from, to) = if self.rng.u64(..2) == 0 {
                (first, end)
            } else {
                let from = first + self.rng.u64(..(end - first) as u64) as usize;
                (
                    from,
                    from + 1 + self.rng.u64(..(end - from) as u64) as usize,
                )
            };
            let cell = self.plan.cell() as u64;
            let floors = self.table.removing(from..to);
            sys::fallocate(
                &self.file,
                how,
                from as u64 * cell,
                (to - from) as u64 * cell,
            )
            .with_context(|| format!("{how:?} of cells {from}..{to} of {cell} bytes"))?;
            self.table.removed(from..to, &floors);
            self.table.count(if how == Falloc::Punch {
                Op::Punch
            } else {
                Op::Zero
            });
            self.rest();
        }
        Ok(())
    }

    fn truncate(&mut self) -> Result<()> {
        let all = self.table.index(self.plan.pages, 0);
        while !self.over() {
            let from = self.rng.u64(..all as u64) as usize;
            let floors = self.table.removing(from..all);
            self.file
                .set_len(from as u64 * self.plan.cell() as u64)
                .context("truncate")?;
            if self.rng.u64(..2) == 0 {
                std::thread::yield_now();
            }
            self.file.set_len(self.plan.bytes()).context("extend")?;
            self.table.removed(from..all, &floors);
            self.table.count(Op::Truncate);
            self.rest();
        }
        Ok(())
    }

    fn falloc(&mut self) -> Result<()> {
        while !self.over() {
            let page = self.rng.u64(..self.plan.pages);
            let n = 1 + self.rng.u64(..(self.plan.pages - page).min(64));
            sys::fallocate(
                &self.file,
                Falloc::Reserve,
                page * PAGE as u64,
                n * PAGE as u64,
            )
            .with_context(|| format!("preallocation of {n} pages at page {page}"))?;
            self.table.count(Op::Falloc);
            self.rest();
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let map = Mapping::new(&self.file, self.plan.bytes() as usize).context("mmap")?;
        while !self.over() {
            match self.rng.u64(..3) {
                0 => self.plan.sync(|| self.file.sync_all()).context("fsync")?,
                1 => self
                    .plan
                    .sync(|| self.file.sync_data())
                    .context("fdatasync")?,
                _ => self.plan.sync(|| map.msync()).context("msync")?,
            }
            self.table.count(Op::Sync);
            self.rest();
        }
        Ok(())
    }

    /// Reads pages, and checks that nothing is older than what was done before the read.
    fn read(&mut self) -> Result<()> {
        let mut buf = Aligned::new(1);
        let removes = self.plan.removes();
        while !self.over() {
            let page = self.rng.u64(..self.plan.pages);
            let at = page * PAGE as u64;
            let cells = self.table.index(page, 0)..self.table.index(page + 1, 0);
            let before: Vec<_> = cells.clone().map(|c| self.table.cell(c)).collect();
            let direct = self.direct.as_ref().filter(|_| self.rng.u64(..2) == 0);
            let n = direct
                .unwrap_or(&self.file)
                .read_at(buf.bytes_mut(), at)
                .with_context(|| format!("read at byte {at}"))?;
            if n != PAGE {
                if self.truncating() {
                    continue;
                }
                bail!(
                    "read at byte {at}: {n} bytes, the file has {}",
                    self.plan.bytes()
                );
            }
            let after: Vec<_> = cells.map(|c| self.table.cell(c)).collect();
            let strict = !removes && self.plan.zone(page) != Zone::Contested;
            for (i, unit) in buf.bytes().chunks_exact(UNIT).enumerate() {
                let (offset, slot) = (at + (i * UNIT) as u64, i * UNIT / self.plan.cell());
                let unit = Unit::from_bytes(unit);
                let id = self.plan.file;
                let (b, a) = (before[slot], after[slot]);
                if matches!(unit, Unit::Garbage(_)) && b.done < a.started {
                    continue; // a store was under way: a unit may be half new
                }
                if let Some(fault) = judge_live(unit, offset, id, b, a, strict) {
                    let how = if direct.is_some() {
                        "direct read"
                    } else {
                        "read"
                    };
                    bail!("{how} while others write: page {page} byte {offset}: {fault}\n  found {unit:?}, before {b:?}, after {a:?}");
                }
            }
            self.table.count(Op::Read);
            self.rest();
        }
        Ok(())
    }
}
