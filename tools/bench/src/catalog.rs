// SPDX-License-Identifier: GPL-2.0

//! The workloads.
//!
//! The number of operations of each is small: a measurement takes seconds in an emulated VM.
//!
//! Tests: below.

use crate::counters::Closing;

/// Whether the caches are empty when a workload begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caches {
    /// As the preparation leaves them.
    Warm,
    /// The filesystem has been unmounted and mounted again, and the kernel's caches were dropped.
    Cold,
}

/// The order of the blocks that are read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Sequential,
    /// Every block once, in an order that depends on nothing but their number.
    Random,
}

/// Through the page cache, or past it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    Buffered,
    Direct,
}

/// The content of new files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFiles {
    pub bytes: usize,
    pub directories: u64,
    /// Whether each file is followed by an fsync.
    pub fsync: bool,
}

/// What a workload does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Each thread appends 4 KiB to a file of its own and calls fsync.
    Append {
        threads: u64,
    },
    /// Each thread overwrites 4 KiB of a file of its own and calls fdatasync.
    Overwrite {
        threads: u64,
    },
    /// fio overwrites 4 KiB with O_DSYNC and O_DIRECT through io_uring.
    Dsync {
        depth: u32,
    },
    Create(NewFiles),
    Stat,
    Readdir,
    Unlink,
    Rename,
    Mkdir,
    Rmdir,
    /// Writes a new file of the given block size.
    WriteNew {
        block: usize,
        path: Path,
    },
    /// Overwrites a file block by block.
    Rewrite {
        block: usize,
        order: Order,
        path: Path,
    },
    Read {
        block: usize,
        order: Order,
        path: Path,
    },
    /// Reads in sequence a file that random writes have overwritten.
    ReadScattered,
    /// The first store to each page of a cached file.
    Fault {
        threads: u64,
    },
    /// Stores to every page of a file, and then msync, again and again.
    Msync,
    /// Punches every second block out of a file.
    Punch,
    /// Cuts a file, a block at a time.
    Truncate,
    Mount,
    Unmount,
    /// Mounts what a power cut after many fsyncs has left.
    Recover,
}

/// A workload.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    /// Number of operations, if it is not scaled.
    pub ops: u64,
    pub caches: Caches,
    pub closes: Closing,
    pub action: Action,
}

impl Workload {
    /// The number of operations at a scale: a multiple of the threads, and at least one each.
    pub fn scaled(&self, scale: f64) -> u64 {
        let threads = self.threads();
        let each = (self.ops as f64 * scale / threads as f64).round() as u64;
        each.max(1) * threads
    }

    fn threads(&self) -> u64 {
        match self.action {
            Action::Append { threads }
            | Action::Overwrite { threads }
            | Action::Fault { threads } => threads,
            _ => 1,
        }
    }
}

const fn new(name: &'static str, ops: u64, action: Action, about: &'static str) -> Workload {
    Workload {
        name,
        about,
        ops,
        caches: Caches::Warm,
        closes: Closing::Nothing,
        action,
    }
}

impl Workload {
    /// It ends with syncfs(2), which is measured.
    const fn synced(mut self) -> Self {
        self.closes = Closing::Sync;
        self
    }

    const fn cold(mut self) -> Self {
        self.caches = Caches::Cold;
        self
    }
}

const fn files(bytes: usize, directories: u64, fsync: bool) -> Action {
    Action::Create(NewFiles {
        bytes,
        directories,
        fsync,
    })
}

const fn write_new(path: Path) -> Action {
    Action::WriteNew { block: LARGE, path }
}

const fn rewrite(block: usize, order: Order, path: Path) -> Action {
    Action::Rewrite { block, order, path }
}

const fn read(block: usize, order: Order, path: Path) -> Action {
    Action::Read { block, order, path }
}

/// A request of sequential I/O.
const LARGE: usize = 128 << 10;
/// A request of random I/O.
const SMALL: usize = 4 << 10;

use Action::{Append, Dsync, Fault, Overwrite};
use Order::{Random, Sequential};
use Path::{Buffered, Direct};

/// All of them, in the order in which they run.
#[rustfmt::skip]
pub const ALL: &[Workload] = &[
    new("append-fsync-1", 512, Append { threads: 1 }, "append 4 KiB + fsync, 1 thread"),
    new("append-fsync-4", 512, Append { threads: 4 }, "the same, 4 threads with a file each"),
    new("append-fsync-16", 512, Append { threads: 16 }, "the same, 16 threads"),
    new("append-fsync-64", 512, Append { threads: 64 }, "the same, 64 threads"),
    new("overwrite-fdatasync-1", 512, Overwrite { threads: 1 }, "overwrite 4 KiB + fdatasync, 1 thread"),
    new("overwrite-fdatasync-16", 512, Overwrite { threads: 16 }, "the same, 16 threads with a file each"),
    new("dsync-direct-qd1", 512, Dsync { depth: 1 }, "O_DSYNC direct overwrite of 4 KiB, io_uring, 1 in flight").cold(),
    new("dsync-direct-qd32", 512, Dsync { depth: 32 }, "the same, 32 in flight").cold(),
    new("create-0k-1dir", 1000, files(0, 1, false), "create empty files in 1 directory").synced(),
    new("create-0k-100dirs", 1000, files(0, 100, false), "create empty files in 100 directories").synced(),
    new("create-4k-1dir", 1000, files(4096, 1, false), "create files of 4 KiB in 1 directory").synced(),
    new("create-4k-100dirs", 1000, files(4096, 100, false), "create files of 4 KiB in 100 directories").synced(),
    new("create-fsync-0k-1dir", 256, files(0, 1, true), "create an empty file + fsync, 1 directory"),
    new("create-fsync-0k-100dirs", 256, files(0, 100, true), "the same, 100 directories"),
    new("create-fsync-4k-1dir", 256, files(4096, 1, true), "create a file of 4 KiB + fsync, 1 directory"),
    new("create-fsync-4k-100dirs", 256, files(4096, 100, true), "the same, 100 directories"),
    new("stat-warm", 2000, Action::Stat, "stat of files in 20 directories, cached"),
    new("stat-cold", 2000, Action::Stat, "the same after a mount").cold(),
    new("readdir-warm", 2000, Action::Readdir, "entries of 20 directories, cached"),
    new("readdir-cold", 2000, Action::Readdir, "the same after a mount").cold(),
    new("unlink", 1000, Action::Unlink, "unlink files of 4 KiB").synced(),
    new("rename", 1000, Action::Rename, "rename files into another directory").synced(),
    new("mkdir", 1000, Action::Mkdir, "make directories").synced(),
    new("rmdir", 1000, Action::Rmdir, "remove empty directories").synced(),
    new("seq-write", 256, write_new(Buffered), "write a new file, 128 KiB at a time").synced(),
    new("seq-write-direct", 256, write_new(Direct), "the same, O_DIRECT").synced(),
    new("seq-read-cold", 256, read(LARGE, Sequential, Buffered), "read it after a mount").cold(),
    new("seq-read-warm", 256, read(LARGE, Sequential, Buffered), "read it from the page cache"),
    new("seq-read-direct", 256, read(LARGE, Sequential, Direct), "read it, O_DIRECT").cold(),
    new("rand-write", 2048, rewrite(SMALL, Random, Buffered), "overwrite 4 KiB at random").synced(),
    new("rand-write-direct", 2048, rewrite(SMALL, Random, Direct), "the same, O_DIRECT").synced().cold(),
    new("rand-read-cold", 2048, read(SMALL, Random, Buffered), "read 4 KiB at random after a mount").cold(),
    new("rand-read-direct", 2048, read(SMALL, Random, Direct), "the same, O_DIRECT").cold(),
    new("seq-read-scattered", 128, Action::ReadScattered, "cold sequential read of what random writes left").cold(),
    new("rewrite-1k-cached", 4096, rewrite(1024, Sequential, Buffered), "overwrite 1 KiB of a cached page").synced(),
    new("fault-1", 4096, Fault { threads: 1 }, "first store to the pages of a cached file, 1 thread").synced(),
    new("fault-2", 4096, Fault { threads: 2 }, "the same, 2 threads with a part each").synced(),
    new("fault-3", 4096, Fault { threads: 3 }, "the same, 3 threads").synced(),
    new("fault-4", 4096, Fault { threads: 4 }, "the same, 4 threads").synced(),
    new("msync", 2048, Action::Msync, "store to 256 pages, msync, again and again"),
    new("punch", 1024, Action::Punch, "punch every second block out of a file").synced(),
    new("truncate", 1024, Action::Truncate, "cut a file, a block at a time").synced(),
    new("mount", 5, Action::Mount, "mount a filesystem with 1,000 files"),
    new("unmount", 5, Action::Unmount, "unmount after 100 files were written"),
    new("recover", 1, Action::Recover, "mount after a power cut that followed 512 fsyncs"),
];

/// Whether a name matches a pattern in which `*` stands for any text and `?` for any character.
pub fn matches(pattern: &str, name: &str) -> bool {
    fn bytes(p: &[u8], n: &[u8]) -> bool {
        match (p, n) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=n.len()).any(|i| bytes(rest, &n[i..])),
            ([b'?', p @ ..], [_, n @ ..]) => bytes(p, n),
            ([a, p @ ..], [b, n @ ..]) if a == b => bytes(p, n),
            _ => false,
        }
    }
    bytes(pattern.as_bytes(), name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_different() {
        let names: HashSet<_> = ALL.iter().map(|w| w.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn patterns() {
        assert!(matches("append-fsync-1", "append-fsync-1"));
        assert!(!matches("append-fsync-1", "append-fsync-16"));
        assert!(matches("append-fsync-?", "append-fsync-1"));
        assert!(!matches("append-fsync-?", "append-fsync-16"));
        assert!(matches("*", "mount"));
        assert!(matches("*-fsync-*", "create-fsync-4k-1dir"));
        assert!(matches("a*1*6", "append-fsync-16"));
        assert!(!matches("*x", "mount"));
        assert!(!matches("", "mount"));
    }

    #[test]
    fn each_thread_has_as_many_operations() {
        for w in ALL {
            for scale in [0.001, 0.3, 1.0, 2.5] {
                let ops = w.scaled(scale);
                assert!(ops >= w.threads() && ops % w.threads() == 0, "{}", w.name);
            }
            assert!(w.scaled(1.0).abs_diff(w.ops) <= w.threads(), "{}", w.name);
        }
    }
}
