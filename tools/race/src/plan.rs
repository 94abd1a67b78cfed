// SPDX-License-Identifier: GPL-2.0

//! The phases, and the plan of one round: which worker works where in the file.

use crate::sys::PAGE;
use fastrand::Rng;

/// What a worker does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Stores into a mapping of its own.
    Fault,
    /// Lets the kernel store into its mapping (EFAULT beyond the end of the file).
    CopyFault,
    /// write(2) of parts of pages.
    Write,
    /// write(2) of whole pages with O_DIRECT.
    Direct,
    /// Punches holes.
    Punch,
    /// Zeroes ranges.
    Zero,
    /// Truncates and extends again.
    Truncate,
    /// Preallocates ranges.
    Falloc,
    /// fsync, fdatasync, msync.
    Sync,
    /// Reads and checks while the others write.
    Read,
}

impl Role {
    /// Does it store data?
    pub fn writes(self) -> bool {
        matches!(
            self,
            Self::Fault | Self::CopyFault | Self::Write | Self::Direct
        )
    }

    /// Does it remove data?
    pub fn removes(self) -> bool {
        matches!(self, Self::Punch | Self::Zero | Self::Truncate)
    }
}

/// A kind of race.
pub struct Phase {
    /// Name on the command line.
    pub name: &'static str,
    /// What races with what.
    pub about: &'static str,
    /// Writers, repeated until there are enough.
    pub writers: &'static [Role],
    /// The others, one worker each.
    pub others: &'static [Role],
}

use Role::*;

/// All phases.
pub const PHASES: &[Phase] = &[
    Phase {
        name: "fault-fault",
        about: "page faults of several writers on the same pages",
        writers: &[Fault],
        others: &[Read],
    },
    Phase {
        name: "fault-write",
        about: "page faults against write(2) on the same pages",
        writers: &[Fault, Write],
        others: &[Read],
    },
    Phase {
        name: "fault-direct",
        about: "page faults against direct I/O, on the same pages and next to each other",
        writers: &[Fault, Direct],
        others: &[Read],
    },
    Phase {
        name: "fault-fsync",
        about: "page faults and write(2) against fsync, fdatasync and msync",
        writers: &[Fault, Write],
        others: &[Sync, Sync, Read],
    },
    Phase {
        name: "fault-punch",
        about: "page faults and write(2) against hole punching",
        writers: &[Fault, Write],
        others: &[Punch, Punch, Read],
    },
    Phase {
        name: "fault-zero",
        about: "page faults and write(2) against zeroing and syncing",
        writers: &[Fault, Write],
        others: &[Zero, Sync],
    },
    Phase {
        name: "fault-truncate",
        about: "page faults and write(2) against truncation and extension",
        writers: &[CopyFault, Write],
        others: &[Truncate, Read],
    },
    Phase {
        name: "fault-falloc",
        about: "page faults against preallocation of the same ranges",
        writers: &[Fault, CopyFault],
        others: &[Falloc, Falloc, Read],
    },
    Phase {
        name: "direct-direct",
        about: "direct writes next to each other, against fsync",
        writers: &[Direct],
        others: &[Sync, Read],
    },
    Phase {
        name: "direct-punch",
        about: "direct writes against hole punching and fsync",
        writers: &[Direct],
        others: &[Punch, Sync],
    },
    Phase {
        name: "mixed",
        about: "everything at once",
        writers: &[Fault, Direct, Write, CopyFault],
        others: &[Punch, Zero, Falloc, Sync, Read],
    },
];

impl Phase {
    /// Does any of its workers have that role?
    pub fn has(&self, role: Role) -> bool {
        self.writers.contains(&role) || self.others.contains(&role)
    }

    /// The workers of a round, writers first.
    pub fn workers(&self, writers: usize) -> Vec<Role> {
        let writers = writers.max(self.writers.len());
        self.writers
            .iter()
            .cycle()
            .take(writers)
            .chain(self.others)
            .copied()
            .collect()
    }
}

/// The workers that store in a part of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zone {
    /// Cached writers, each in its own cell of every page.
    Cached,
    /// Cached writers in their cells and direct writers in whole pages. Linux promises no order
    /// between them, so either's data may be there, but nothing else.
    Contested,
    /// Direct writers, each in runs of pages of its own.
    Direct,
}

/// Pages of a run, the unit that direct writers and removers divide the file by.
pub const RUN: u64 = 8;

/// The plan of one round.
pub struct Plan {
    /// Random number of the file.
    pub file: u32,
    /// Pages of the file.
    pub pages: u64,
    /// Cells of a page.
    pub per_page: usize,
    /// All workers, writers first.
    pub workers: Vec<Role>,
    /// Preallocate the file first?
    pub prealloc: bool,
    /// Writers wait for each other before every step.
    pub paced: bool,
    /// Step between pages, coprime to the number of pages.
    pub stride: u64,
    /// Passes of each writer over its pages.
    pub passes: u64,
    /// Seed of the workers' generators.
    pub seed: u64,
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        gcd(b, a % b)
    }
}

impl Plan {
    /// Plans a round.
    pub fn new(phase: &Phase, writers: usize, pages: u64, prealloc: bool, rng: &mut Rng) -> Self {
        let workers = phase.workers(writers);
        let cached = workers
            .iter()
            .filter(|r| r.writes() && **r != Direct)
            .count();
        let mut stride = if rng.u64(..2) == 0 {
            1
        } else {
            1 + rng.u64(..pages)
        };
        while gcd(stride, pages) != 1 {
            stride += 1;
        }
        Self {
            file: rng.u64(..) as u32,
            pages,
            per_page: cached.max(2).next_power_of_two().min(PAGE / 64),
            workers,
            prealloc,
            paced: rng.u64(..3) != 0,
            stride,
            passes: 2,
            seed: rng.u64(..),
        }
    }

    /// Size of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE as u64
    }

    /// Bytes of a cell.
    pub fn cell(&self) -> usize {
        PAGE / self.per_page
    }

    /// The workers that store in that page. Zones are quarters of the file, so that with 8 MiB or more a folio
    /// of the page cache never reaches across.
    pub fn zone(&self, page: u64) -> Zone {
        let direct = self.workers.contains(&Direct);
        let cached = self.workers.iter().any(|r| r.writes() && *r != Direct);
        match (cached, direct) {
            (true, false) => Zone::Cached,
            (false, _) => Zone::Direct,
            (true, true) => match page * 4 / self.pages {
                0 => Zone::Cached,
                3 => Zone::Direct,
                _ => Zone::Contested,
            },
        }
    }

    /// Index of worker `w` among the workers for which `which` is true, and how many there are.
    pub fn rank(&self, w: usize, which: impl Fn(Role) -> bool) -> (usize, usize) {
        let count = |part: &[Role]| part.iter().filter(|r| which(**r)).count();
        (count(&self.workers[..w]), count(&self.workers))
    }

    /// Number of writers.
    pub fn writers(&self) -> usize {
        self.workers.iter().filter(|r| r.writes()).count()
    }

    /// Runs an fsync. Where page faults and direct I/O meet on a page, Linux may be unable to drop
    /// the cached page after the direct write, and reports that as EIO
    /// (`dio_warn_stale_pagecache`). This is right there, and nowhere else.
    pub fn sync(&self, mut f: impl FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
        let contested = self.zone(self.pages / 2) == Zone::Contested;
        for _ in 0..100 {
            match f() {
                Err(e) if contested && e.raw_os_error() == Some(libc::EIO) => {}
                r => return r,
            }
        }
        f()
    }

    /// Is anything removed in this round?
    pub fn removes(&self) -> bool {
        self.workers.iter().any(|r| r.removes())
    }
}
