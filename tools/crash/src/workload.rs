// SPDX-License-Identifier: GPL-2.0

//! The operations, and their enumeration (after ACE, the automatic crash explorer of CrashMonkey).
//!
//! A workload starts with the directories `A` (with the file `f` and the empty directory `d`) and
//! `B` (with the file `g`). `A/f` has two and a half written blocks; `B/g` has a written block and
//! three preallocated ones. An operation that makes no sense where it comes, for example because
//! its file is gone, does nothing. The device is larger than the filesystem, which some workloads let
//! grow.
//!
//! Tests: tools/crash/tests/recovery.rs, attributes.rs, grow.rs.

use std::fmt;

/// A path from the root.
pub type Path = &'static str;

/// An operation. Positions and lengths are bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// creat(2)
    Create(Path),
    /// mkdir(2)
    Mkdir(Path),
    /// rmdir(2)
    Rmdir(Path),
    /// link(2): existing, new
    Link(Path, Path),
    /// unlink(2) of a file that no process has open
    Unlink(Path),
    /// unlink(2) of an open file
    UnlinkOpen(Path),
    /// rename(2)
    Rename(Path, Path),
    /// renameat2(2) with RENAME_EXCHANGE
    Exchange(Path, Path),
    /// renameat2(2) with RENAME_WHITEOUT
    Whiteout(Path, Path),
    /// symlink(2): path, bytes of the target
    Symlink(Path, usize),
    /// open(2) with O_TMPFILE, and a write
    Tmpfile,
    /// linkat(2) of the newest O_TMPFILE
    LinkTmp(Path),
    /// write(2) at the end
    Append(Path, u64),
    /// write(2): position, length
    Write(Path, u64, u64),
    /// write(2) with O_DIRECT
    Direct(Path, u64, u64),
    /// write(2) with O_DIRECT at the end, rounded up to a block
    DirectAppend(Path, u64),
    /// An asynchronous direct write is submitted and stays in flight: position, length
    Submit(Path, u64, u64),
    /// The writes in flight end
    Complete(Path),
    /// A store through a shared mapping: position, length
    Mmap(Path, u64, u64),
    /// fallocate(2): position, length, FALLOC_FL_KEEP_SIZE
    Allocate(Path, u64, u64, bool),
    /// fallocate(2) with FALLOC_FL_ZERO_RANGE
    Zero(Path, u64, u64, bool),
    /// fallocate(2) with FALLOC_FL_PUNCH_HOLE
    Punch(Path, u64, u64),
    /// truncate(2)
    Truncate(Path, u64),
    /// truncate(2) to a smaller size, which fails after the cut
    TruncateInVain(Path, u64),
    /// The kernel writes dirty pages back by itself
    Writeback(Path),
    /// chmod(2)
    Chmod(Path, u32),
    /// chown(2)
    Chown(Path, u32),
    /// utimensat(2): a modification time, which may be in the past
    Utimes(Path, i64),
    /// setfacl(1): an access control list, and the permissions that go with it
    SetAcl(Path, u32),
    /// The file is read, and the kernel writes its inode back by itself. While that waits for its
    /// transaction, the next operations happen, as far as they change attributes
    WriteInode(Path),
    /// An fsync of another file comes after this many appends of the next operations to the log
    FsyncInside(u32),
    /// setxattr(2): number of the name, bytes of the value
    SetXattr(Path, usize, usize),
    /// removexattr(2): number of the name
    RemoveXattr(Path, usize),
    /// fsync(2), of a directory too
    Fsync(Path),
    /// fdatasync(2)
    Fdatasync(Path),
    /// fsync(2) of two files at once
    FsyncBoth(Path, Path),
    /// sync(2)
    Sync,
    /// A commit of the commit thread. The next operation happens when it has issued this many
    /// writes
    Commit(usize),
    /// Memory is short: caches are dropped
    Reclaim,
    /// fstrim(8): all free space is discarded
    Trim,
    /// The filesystem grows by so many blocks, or to the end of the device. The next operation
    /// happens when the resize has issued this many writes
    Grow(u64, usize),
    /// The filesystem becomes smaller: it ends so many blocks earlier, or at the border of an AG before
    /// that
    Shrink(u64),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").replace('"', ""))
    }
}

impl Op {
    /// May it happen during a commit, without waiting for it?
    pub fn beside_commit(&self) -> bool {
        !matches!(
            self,
            Op::Sync
                | Op::Commit(_)
                | Op::Grow(..)
                | Op::Shrink(..)
                | Op::FsyncBoth(..)
                | Op::Reclaim
                | Op::WriteInode(_)
        )
    }

    /// May it happen during a write-back of the inode? True for changes of attributes, and for
    /// appends.
    pub fn beside_write_back(&self) -> bool {
        matches!(
            self,
            Op::Chmod(..)
                | Op::Chown(..)
                | Op::Utimes(..)
                | Op::SetAcl(..)
                | Op::SetXattr(..)
                | Op::RemoveXattr(..)
                | Op::Append(..)
        )
    }
}

/// The operations on one file.
fn on_file(f: Path, out: &mut Vec<Op>) {
    out.extend([
        Op::Append(f, 5000),
        Op::Write(f, 0, 4096),
        Op::Write(f, 100, 5000),
        Op::Direct(f, 4096, 8192),
        Op::DirectAppend(f, 4096),
        Op::Submit(f, 0, 8192),
        Op::Complete(f),
        Op::Mmap(f, 4000, 200),
        Op::Allocate(f, 8192, 16384, false),
        Op::Allocate(f, 8192, 16384, true),
        Op::Zero(f, 1000, 9000, false),
        Op::Zero(f, 4096, 20480, true),
        Op::Punch(f, 0, 4096),
        Op::Punch(f, 2000, 7000),
        Op::Truncate(f, 0),
        Op::Truncate(f, 5000),
        Op::Truncate(f, 20000),
        Op::TruncateInVain(f, 0),
        Op::TruncateInVain(f, 5000),
        Op::Writeback(f),
        Op::Chmod(f, 0o600),
        Op::SetXattr(f, 0, 20),
        Op::SetXattr(f, 1, 5000),
        Op::RemoveXattr(f, 0),
        Op::Fsync(f),
        Op::Fdatasync(f),
    ]);
}

/// The operations of the exhaustive sequences.
pub fn alphabet() -> Vec<Op> {
    let mut v = vec![
        Op::Create("A/g"),
        Op::Create("A/d/h"),
        Op::Mkdir("B/d"),
        Op::Rmdir("A/d"),
        Op::Link("A/f", "B/f"),
        Op::Link("B/g", "A/g"),
        Op::Unlink("A/f"),
        Op::Unlink("B/g"),
        Op::UnlinkOpen("A/f"),
        Op::Rename("A/f", "A/g"),
        Op::Rename("A/f", "B/f"),
        Op::Rename("A/f", "B/g"),
        Op::Rename("B/g", "A/f"),
        Op::Rename("A/d", "B/d"),
        Op::Exchange("A/f", "B/g"),
        Op::Exchange("A/d", "B/g"),
        Op::Whiteout("A/f", "B/f"),
        Op::Whiteout("A/f", "B/g"),
        Op::Symlink("A/s", 10),
        Op::Symlink("B/s", 3000),
        Op::Tmpfile,
        Op::LinkTmp("B/f"),
        Op::Fsync("A"),
        Op::Fsync("B"),
        Op::FsyncBoth("A/f", "B/g"),
        Op::Sync,
        Op::Utimes("A/f", 1000),
        Op::SetAcl("A/f", 0o640),
        Op::WriteInode("A/f"),
        Op::FsyncInside(1),
        Op::FsyncInside(2),
        Op::Trim,
        Op::Grow(40_000, 4),
        Op::Shrink(70_000),
    ];
    on_file("A/f", &mut v);
    on_file("B/g", &mut v);
    v
}

const FILES: [Path; 6] = ["A/f", "A/g", "B/f", "B/g", "A/d/h", "B/d/h"];
const DIRS: [Path; 4] = ["A", "B", "A/d", "B/d"];

/// Growing within the last AG, by the least number of blocks, over the border of an AG, or by any
/// number; from the beginning or in the middle of what follows.
fn grow(r: &mut fastrand::Rng) -> Op {
    let by = match r.u8(..4) {
        0 => 256,
        1 => 257 + r.u64(..2000),
        2 => 30_000 + r.u64(..6000),
        _ => 1 << r.u32(8..17),
    };
    Op::Grow(by, if r.bool() { r.usize(..24) } else { usize::MAX })
}

/// Growing, or becoming smaller by any number of AGs.
fn resize(r: &mut fastrand::Rng) -> Op {
    match r.bool() {
        true => grow(r),
        false => Op::Shrink(1 << r.u32(8..17)),
    }
}

/// A random operation. It may be of more kinds, and have other arguments, than those of the
/// alphabet.
fn random(r: &mut fastrand::Rng) -> Op {
    let many = if r.u8(..4) == 0 { 6 } else { 4 };
    let f = FILES[r.usize(..many)];
    let g = FILES[r.usize(..FILES.len())];
    let pos = if r.bool() {
        r.u64(..8) * 4096
    } else {
        r.u64(..30000)
    };
    let len = if r.bool() {
        r.u64(1..5) * 4096
    } else {
        r.u64(1..12000)
    };
    let (bpos, blen) = (r.u64(..8) * 4096, r.u64(1..5) * 4096);
    match r.u8(..64) {
        0 | 1 => Op::Create(f),
        2 => Op::Mkdir(DIRS[r.usize(2..4)]),
        3 => Op::Rmdir(DIRS[r.usize(2..4)]),
        4 | 5 => Op::Link(f, g),
        6 | 7 => Op::Unlink(f),
        8 => Op::UnlinkOpen(f),
        9 | 10 => Op::Rename(f, g),
        11 => Op::Rename(DIRS[r.usize(2..4)], DIRS[r.usize(2..4)]),
        12 => Op::Exchange(f, g),
        13 => Op::Exchange(DIRS[r.usize(2..4)], f),
        14 => Op::Whiteout(f, g),
        15 => Op::Symlink(["A/s", "B/s", "A/g"][r.usize(..3)], r.usize(1..4096)),
        16 => Op::Tmpfile,
        17 => Op::LinkTmp(f),
        18 | 19 => Op::Append(f, len),
        20..=22 => Op::Write(f, pos, len),
        23 | 24 => Op::Direct(f, bpos, blen),
        25 => Op::DirectAppend(f, blen),
        26 => Op::Submit(f, bpos, blen),
        27 => Op::Complete(f),
        28 => Op::Mmap(f, pos, len.min(300)),
        29 => Op::Allocate(f, pos, len, r.bool()),
        30 => Op::Zero(f, pos, len, r.bool()),
        31 => Op::Punch(f, pos, len),
        32 => Op::Truncate(f, pos),
        33 => Op::Truncate(f, bpos),
        34 | 35 => Op::Writeback(f),
        36 => Op::Chmod(f, 0o400 | r.u32(..0o400)),
        37..=40 => Op::Fsync(f),
        41 => Op::Fdatasync(f),
        42 => Op::Fsync(DIRS[r.usize(..4)]),
        43 => Op::FsyncBoth(f, g),
        44 => Op::Sync,
        45 | 46 => Op::Commit(r.usize(..12)),
        47 | 48 => Op::SetXattr(f, r.usize(..4), r.usize(..3000)),
        49 => Op::SetXattr(DIRS[r.usize(..4)], r.usize(..4), r.usize(..300)),
        50 => Op::RemoveXattr(f, r.usize(..4)),
        51 => Op::TruncateInVain(f, pos),
        59 => Op::Chown(f, r.u32(..1000)),
        52 => Op::Utimes(f, r.i64(0..2_000_000_000)),
        53 => Op::Utimes(DIRS[r.usize(..4)], r.i64(0..2_000_000_000)),
        54 => Op::SetAcl(f, r.u32(..0o1000)),
        55 => Op::SetAcl(DIRS[r.usize(..4)], r.u32(..0o1000)),
        56 | 57 => Op::WriteInode(f),
        58 => Op::FsyncInside(r.u32(1..5)),
        63 if r.bool() => resize(r),
        61..=63 => Op::Trim,
        _ => Op::Reclaim,
    }
}

/// Where a workload starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// The log is empty, at the beginning of its area.
    Fresh,
    /// The log is empty, a few blocks before the end of its area.
    Wrap,
    /// The log is full but for a few blocks.
    Full,
    /// A filesystem of more than one AG, with backups, on a larger device. Its free blocks lie alone,
    /// so what needs several goes to where there are more.
    Crowded,
    /// The same filesystem after it has grown to the end of the device: much is free, and what is in
    /// use lies behind the first AG.
    Roomy,
}

impl Start {
    /// Where a workload with these operations starts that has no need of anything else.
    fn of(ops: &[Op]) -> Self {
        let resize = |op: &&Op| matches!(op, Op::Grow(..) | Op::Shrink(..));
        match ops.iter().find(resize) {
            Some(Op::Shrink(..)) => Start::Roomy,
            Some(_) => Start::Crowded,
            None => Start::Fresh,
        }
    }
}

/// How a workload ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The commit thread commits.
    Commit,
    /// fsync of `A/f`, then of `B/g`.
    Fsync,
}

/// A workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workload {
    /// The seed of its random choices.
    pub seed: u64,
    /// Where it starts.
    pub start: Start,
    /// What it does.
    pub ops: Vec<Op>,
    /// How it ends.
    pub end: End,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:", self.start)?;
        for (i, op) in (1..).zip(&self.ops) {
            write!(f, " {i}:{op}")?;
        }
        write!(f, "; {:?}", self.end)
    }
}

/// All workloads of a run, by number: those of length 1, those of length 2, each with both ends, then
/// sampled ones.
pub struct Plan {
    alphabet: Vec<Op>,
    seed: u64,
    /// Sampled workloads.
    pub sampled: u64,
}

impl Plan {
    /// The plan for a seed and a number of sampled workloads.
    pub fn new(seed: u64, sampled: u64) -> Self {
        Self {
            alphabet: alphabet(),
            seed,
            sampled,
        }
    }

    /// The number of sequences of exactly this length (1 or 2).
    pub fn sequences(&self, len: u32) -> u64 {
        (self.alphabet.len() as u64).pow(len)
    }

    /// The number of workloads that are not sampled.
    pub fn exhaustive(&self) -> u64 {
        2 * (self.sequences(1) + self.sequences(2))
    }

    /// The number of all workloads.
    pub fn len(&self) -> u64 {
        self.exhaustive() + self.sampled
    }

    /// Is there no workload?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The workload of this number.
    pub fn workload(&self, number: u64) -> Workload {
        let seed = self
            .seed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(number);
        if number >= self.exhaustive() {
            return self.sample(seed);
        }
        let end = [End::Commit, End::Fsync][(number % 2) as usize];
        let n = self.sequences(1);
        let mut at = number / 2;
        let op = |i: u64| self.alphabet[i as usize];
        let ops = if at < n {
            vec![op(at)]
        } else {
            at -= n;
            vec![op(at / n), op(at % n)]
        };
        Workload {
            seed,
            start: Start::of(&ops),
            ops,
            end,
        }
    }

    /// A sampled workload: three operations of the alphabet, or 4 to 30 of all kinds. Into every 16th come
    /// a write, a resize and an fsync.
    fn sample(&self, seed: u64) -> Workload {
        let mut r = fastrand::Rng::with_seed(seed);
        let mut ops: Vec<_> = if r.u8(..4) != 0 {
            (0..3)
                .map(|_| self.alphabet[r.usize(..self.alphabet.len())])
                .collect()
        } else {
            let n = r.usize(4..=30);
            (0..n).map(|_| random(&mut r)).collect()
        };
        if r.u8(..16) == 0 {
            let (at, f) = (r.usize(..=ops.len()), ["A/f", "B/g"][usize::from(r.bool())]);
            let more = [Op::Append(f, 9000), resize(&mut r), Op::Fsync(f)];
            ops.splice(at..at, more);
        }
        let start = match r.u8(..32) {
            0 => Start::Full,
            1..=5 => Start::Wrap,
            6 | 7 => Start::Fresh,
            _ => Start::of(&ops),
        };
        Workload {
            seed,
            start,
            ops,
            end: [End::Commit, End::Fsync][usize::from(r.bool())],
        }
    }
}
