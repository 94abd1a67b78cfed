// SPDX-License-Identifier: GPL-2.0

//! The counters of the disk and of the CPUs, and the cost of a workload.
//!
//! # Model
//!
//! - The disk's counters are those of `/sys/block/DISK/stat` (Documentation/block/stat.rst): requests
//!   that were completed, and sectors.
//! - CPU time of the system is the time that all tasks have run, kernel threads among them, in
//!   nanoseconds, from `/proc/schedstat`. `/proc/stat` counts in hundredths of a second. The kernel
//!   adds a task's time when another task or the idle task follows it, so a snapshot sleeps first.
//!   Interrupts that arrive while a CPU is idle are not in it, except on a kernel that was booted with
//!   `threadirqs`, where tasks handle them.
//! - CPU time of the workload is the time of this process, its threads included (getrusage).
//!
//! With QEMU's `-icount shift=0` on one CPU, the clock advances by a nanosecond for each instruction.
//! CPU time of the system is then the number of instructions that the guest has executed, idle time
//! left out (scripts/bench).
//!
//! Tests: below.

use crate::sys;
use crate::volume::Volume;
use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::ops::{AddAssign, Sub};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Bytes of a sector in the kernel's statistics, whatever the disk's own are.
const SECTOR: u64 = 512;

/// What a disk has completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    pub discards: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

impl Disk {
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<u64> = text
            .split_whitespace()
            .map(|f| f.parse().ok())
            .collect::<Option<_>>()?;
        Some(Self {
            reads: *fields.first()?,
            writes: *fields.get(4)?,
            flushes: *fields.get(15)?,
            discards: *fields.get(11)?,
            read_bytes: fields.get(2)? * SECTOR,
            written_bytes: fields.get(6)? * SECTOR,
        })
    }
}

impl Sub for Disk {
    type Output = Self;
    fn sub(self, before: Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            writes: self.writes - before.writes,
            flushes: self.flushes - before.flushes,
            discards: self.discards - before.discards,
            read_bytes: self.read_bytes - before.read_bytes,
            written_bytes: self.written_bytes - before.written_bytes,
        }
    }
}

impl AddAssign for Disk {
    fn add_assign(&mut self, more: Self) {
        self.reads += more.reads;
        self.writes += more.writes;
        self.flushes += more.flushes;
        self.discards += more.discards;
        self.read_bytes += more.read_bytes;
        self.written_bytes += more.written_bytes;
    }
}

/// The time that all tasks have run, of all CPUs, in nanoseconds: the seventh number of each line
/// `cpuN` of `/proc/schedstat`.
fn parse_schedstat(text: &str) -> Option<u64> {
    let mut sum = None;
    for line in text.lines().filter(|l| l.starts_with("cpu")) {
        let time: u64 = line.split_whitespace().nth(7)?.parse().ok()?;
        sum = Some(sum.unwrap_or(0) + time);
    }
    sum
}

/// The counters at a time.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Snapshot {
    disk: Disk,
    cpu_ns: u64,
}

impl Snapshot {
    /// Reads the counters. What this costs is not in the difference of two of them, except for a
    /// few system calls.
    pub fn take(disk: &str) -> Result<Self> {
        thread::sleep(Duration::from_millis(1));
        let path = format!("/sys/block/{disk}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let disk = Disk::parse(&text).with_context(|| format!("{path} has another form"))?;
        let text = fs::read_to_string("/proc/schedstat").context("cannot read /proc/schedstat")?;
        let cpu_ns = parse_schedstat(&text).context("/proc/schedstat has another form")?;
        Ok(Self { disk, cpu_ns })
    }

    /// Reads what `ordofs-bench snapshot` has written.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// What a workload cost in all, and not each of its operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    #[serde(flatten)]
    pub disk: Disk,
    /// Time of the CPUs, for all tasks.
    pub cpu_ns: u64,
    /// The part of it that this program had.
    pub task_ns: u64,
    /// Time of the clock.
    pub wall_ns: u64,
}

/// Whether a workload ends with syncfs(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// It leaves nothing behind, or says itself when its work is durable.
    Nothing,
    /// What it leaves behind is written before the clock stops.
    Sync,
}

/// Adds up the cost of the pieces of a workload.
pub struct Meter<'a> {
    volume: &'a Volume,
    closing: Closing,
    cost: Option<Cost>,
}

/// A piece that is being measured.
pub struct Running {
    snapshot: Snapshot,
    task_ns: u64,
    begin_ns: u64,
}

impl<'a> Meter<'a> {
    /// A meter that has measured nothing.
    pub fn new(volume: &'a Volume, closing: Closing) -> Self {
        Self {
            volume,
            closing,
            cost: None,
        }
    }

    /// Starts to measure a piece.
    pub fn start(&self) -> Result<Running> {
        let snapshot = Snapshot::take(self.volume.disk())?;
        Ok(Running {
            snapshot,
            task_ns: sys::process_time_ns()?,
            begin_ns: sys::now_ns()?,
        })
    }

    /// Ends the piece, with its closing sync.
    pub fn stop(&mut self, running: Running) -> Result<()> {
        if self.closing == Closing::Sync {
            sys::sync_filesystem(&self.volume.dir)?;
        }
        let wall_ns = sys::now_ns()? - running.begin_ns;
        let task_ns = sys::process_time_ns()? - running.task_ns;
        let after = Snapshot::take(self.volume.disk())?;
        self.add(running.snapshot, after, task_ns, wall_ns)
    }

    /// Measures one piece that this thread does alone.
    pub fn time(&mut self, piece: impl FnOnce() -> Result<()>) -> Result<()> {
        let running = self.start()?;
        piece()?;
        self.stop(running)
    }

    /// Adds a piece that another program has measured.
    pub fn add(
        &mut self,
        before: Snapshot,
        after: Snapshot,
        task_ns: u64,
        wall_ns: u64,
    ) -> Result<()> {
        ensure!(
            after.disk.reads >= before.disk.reads && after.cpu_ns >= before.cpu_ns,
            "the counters ran backwards"
        );
        let cost = self.cost.get_or_insert_default();
        cost.disk += after.disk - before.disk;
        cost.cpu_ns += after.cpu_ns - before.cpu_ns;
        cost.task_ns += task_ns;
        cost.wall_ns += wall_ns;
        Ok(())
    }

    /// What all pieces together have cost.
    pub fn cost(&self) -> Option<Cost> {
        self.cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "  101   1  2048  3  205  4  8192  5  0  6  7  309  0  99  8  410  9\n";

    #[test]
    fn fields_of_a_disk() {
        let disk = Disk {
            reads: 101,
            writes: 205,
            flushes: 410,
            discards: 309,
            read_bytes: 1 << 20,
            written_bytes: 4 << 20,
        };
        assert_eq!(Disk::parse(STAT), Some(disk));
        let mut sum = Disk::default();
        sum += disk - Disk::default();
        sum += disk - disk;
        assert_eq!(sum, disk);
    }

    #[test]
    fn a_disk_without_flushes_is_refused() {
        assert_eq!(Disk::parse("1 2 3 4 5 6 7 8 9 10 11"), None);
        assert_eq!(Disk::parse("1 2 x"), None);
    }

    #[test]
    fn time_of_all_cpus() {
        let text = "version 17\ntimestamp 4294\ncpu0 0 0 0 0 0 0 1500 7 3\ndomain0 3 1 2\n\
            cpu1 0 0 0 0 0 0 500 7 3\n";
        assert_eq!(parse_schedstat(text), Some(2000));
        assert_eq!(parse_schedstat("version 17\n"), None);
        assert_eq!(parse_schedstat("cpu0 0 0\n"), None);
    }
}
