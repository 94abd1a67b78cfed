// SPDX-License-Identifier: GPL-2.0

//! The sequence of operations of a thread, and its directory after each of them.
//!
//! Everything follows from (seed, thread), so the host needs to know only how far a thread got.
//! Content is counted in units of 1 KiB. A unit repeats the number of its writer; 0 stands for a
//! hole.

use fastrand::Rng;
use std::collections::BTreeMap;

/// Bytes of a unit of content.
pub const UNIT: u64 = 1024;
/// Units of a block, the granularity of direct I/O and of holes.
pub const PER_BLOCK: u64 = 4;
/// The most units of a file.
const MAX_UNITS: u64 = 256;
const FILES: u64 = 10;

/// A file: the writer of each unit.
pub type Content = Vec<u64>;
/// A directory.
pub type Dir = BTreeMap<u64, Content>;

/// How a write is made, and what makes it durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// write(2), fsync(2)
    Fsync,
    /// write(2), fdatasync(2)
    Fdatasync,
    /// write(2) on a descriptor with O_DSYNC
    Dsync,
    /// write(2) with O_DIRECT, fdatasync(2)
    Direct,
    /// Stores to a mapping, msync(2)
    Msync,
    /// write(2), syncfs(2)
    Syncfs,
}

/// An operation; numbers of files are names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Writes units `[start, start + len)`; creates the file if it does not exist.
    Write {
        file: u64,
        start: u64,
        len: u64,
        how: How,
    },
    /// A new file replaces `file`: temporary name, content, fsync, rename, fsync of the directory.
    Replace { file: u64, len: u64 },
    /// The same without the first fsync. At the end `other` is synced, which makes all names
    /// durable.
    ReplaceUnsynced { file: u64, len: u64, other: u64 },
    /// Unlinks `file`, syncs the directory.
    Unlink { file: u64 },
    /// A new name, which may replace a file; fsync of the file.
    Rename { from: u64, to: u64 },
    /// Truncates or extends to `len` units, fsync.
    Truncate { file: u64, len: u64 },
    /// Punches blocks, fsync. In units.
    Punch { file: u64, start: u64, len: u64 },
    /// Zeroes blocks, fsync. In units.
    Zero { file: u64, start: u64, len: u64 },
}

/// Number of the temporary file of a replacement.
pub const TEMPORARY: u64 = 999;

/// A thread's sequence.
pub struct Sequence {
    rng: Rng,
    stamp: u64,
    /// Number of the next operation, from 1 on.
    pub number: u64,
    /// The directory after the operations so far.
    pub dir: Dir,
}

impl Sequence {
    /// The sequence of a thread, from its beginning: an empty directory.
    pub fn new(seed: u64, thread: u32) -> Self {
        Self {
            rng: Rng::with_seed(seed.wrapping_mul(1000) + u64::from(thread)),
            stamp: u64::from(thread + 1) << 40 | (seed & 0xff) << 32,
            number: 1,
            dir: Dir::new(),
        }
    }

    fn file(&mut self) -> Option<u64> {
        let n = self.dir.len() as u64;
        (n > 0).then(|| {
            *self
                .dir
                .keys()
                .nth(self.rng.u64(..n) as usize)
                .unwrap_or(&0)
        })
    }

    /// The next operation and the number that marks what it writes. [`Sequence::done`] must follow.
    pub fn next(&mut self) -> (Op, u64) {
        self.stamp += 1;
        let stamp = self.stamp;
        let any = self.rng.u64(..FILES);
        let old = self.file();
        let size = |f: u64, d: &Dir| d.get(&f).map_or(0, |c| c.len() as u64);
        let op = match (self.rng.u64(..20), old) {
            (0..=4, Some(file)) if size(file, &self.dir) < MAX_UNITS - 16 => Op::Write {
                file,
                start: size(file, &self.dir),
                len: 1 + self.rng.u64(..16),
                how: How::Fsync,
            },
            (5..=9, Some(file)) => {
                let hows = [
                    How::Fsync,
                    How::Fdatasync,
                    How::Dsync,
                    How::Direct,
                    How::Msync,
                    How::Syncfs,
                ];
                let how = hows[self.rng.u64(..hows.len() as u64) as usize];
                let (mut start, mut len) = (self.rng.u64(..128), 1 + self.rng.u64(..24));
                if how == How::Direct {
                    start -= start % PER_BLOCK;
                    len = len.next_multiple_of(PER_BLOCK);
                }
                let size = size(file, &self.dir);
                if how == How::Msync {
                    // A mapping does not make a file longer.
                    start = start.min(size.saturating_sub(1));
                    len = len.min(size - start);
                }
                Op::Write {
                    file,
                    start,
                    len,
                    how,
                }
            }
            (10 | 11, Some(file)) => Op::Replace {
                file,
                len: 1 + self.rng.u64(..32),
            },
            (12, Some(file)) => Op::ReplaceUnsynced {
                file,
                len: 1 + self.rng.u64(..32),
                other: self.file().unwrap_or(file),
            },
            (13, Some(file)) if self.dir.len() > 3 => Op::Unlink { file },
            (14 | 15, Some(from)) if from != any => Op::Rename { from, to: any },
            (16, Some(file)) => Op::Truncate {
                file,
                len: self.rng.u64(..MAX_UNITS),
            },
            (17 | 18, Some(file)) => {
                let start = self.rng.u64(..24) * PER_BLOCK;
                let len = (1 + self.rng.u64(..6)) * PER_BLOCK;
                if self.rng.u64(..2) == 0 {
                    Op::Punch { file, start, len }
                } else {
                    Op::Zero { file, start, len }
                }
            }
            _ => Op::Write {
                file: any,
                start: 0,
                len: 1 + self.rng.u64(..16),
                how: How::Fsync,
            },
        };
        (op, stamp)
    }

    /// Notes that the operation has been carried out.
    pub fn done(&mut self, op: &Op, stamp: u64) {
        apply(&mut self.dir, op, stamp);
        self.number += 1;
    }
}

fn blank(content: &mut Content, start: u64, len: u64) {
    for u in content.iter_mut().skip(start as usize).take(len as usize) {
        *u = 0;
    }
}

/// Applies an operation to a directory.
pub fn apply(dir: &mut Dir, op: &Op, stamp: u64) {
    match *op {
        Op::Write {
            file, start, len, ..
        } => {
            let c = dir.entry(file).or_default();
            let end = (start + len) as usize;
            if len > 0 && c.len() < end {
                c.resize(end, 0);
            }
            c.iter_mut()
                .skip(start as usize)
                .take(len as usize)
                .for_each(|u| *u = stamp);
        }
        Op::Replace { file, len } | Op::ReplaceUnsynced { file, len, .. } => {
            dir.insert(file, vec![stamp; len as usize]);
        }
        Op::Unlink { file } => {
            dir.remove(&file);
        }
        Op::Rename { from, to } => {
            if let Some(c) = dir.remove(&from) {
                dir.insert(to, c);
            }
        }
        Op::Truncate { file, len } => {
            if let Some(c) = dir.get_mut(&file) {
                c.resize(len as usize, 0);
            }
        }
        Op::Punch { file, start, len } | Op::Zero { file, start, len } => {
            if let Some(c) = dir.get_mut(&file) {
                blank(c, start, len);
            }
        }
    }
}

/// Checks that a directory may look like `now` when `op`, which was to turn `before` into `after`,
/// was interrupted. The error says what is wrong.
pub fn interrupted(now: &Dir, before: &Dir, after: &Dir, op: &Op) -> Result<(), String> {
    let known = |f: &u64| before.contains_key(f) || after.contains_key(f);
    for f in before.keys().chain(after.keys()).chain(now.keys()) {
        let (n, b, a) = (now.get(f), before.get(f), after.get(f));
        let fine = match (n, op) {
            // The temporary file has a part of its write.
            (Some(_), Op::Replace { .. } | Op::ReplaceUnsynced { .. }) if *f == TEMPORARY => true,
            _ if n == b || n == a => true,
            // A write takes effect unit by unit; names and replacements do not.
            (
                Some(n),
                Op::Write { file, .. }
                | Op::Punch { file, .. }
                | Op::Zero { file, .. }
                | Op::Truncate { file, .. },
            ) if file == f => {
                let cut = matches!(op, Op::Truncate { .. });
                let sizes = [b, a].map(|c| c.map_or(0, Vec::len));
                partly(n, b.map_or(&[], |b| b), a.map_or(&[], |a| a))
                    && (!cut || sizes.contains(&n.len()))
            }
            _ => false,
        };
        if !fine || (!known(f) && *f != TEMPORARY) {
            return Err(format!(
                "file {f} is {}, neither {} nor {} of {op:?}",
                show(n),
                show(b),
                show(a)
            ));
        }
    }
    Ok(())
}

/// Is each unit the one of before or of after, and the length between the two?
fn partly(now: &[u64], before: &[u64], after: &[u64]) -> bool {
    let (short, long) = (before.len().min(after.len()), before.len().max(after.len()));
    let at = |c: &[u64], i: usize| c.get(i).copied().unwrap_or(0);
    (short..=long).contains(&now.len())
        && now
            .iter()
            .enumerate()
            .all(|(i, u)| *u == at(before, i) || *u == at(after, i))
}

/// A file in a few words: runs of units.
pub fn show(c: Option<&Content>) -> String {
    let Some(c) = c else {
        return "missing".into();
    };
    let mut text = format!("{} units [", c.len());
    let mut i = 0;
    while i < c.len() {
        let n = c[i..].iter().take_while(|u| **u == c[i]).count();
        text += &format!("{n}x{:x} ", c[i]);
        i += n;
    }
    text.trim_end().to_string() + "]"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_determined() {
        let run = |seed| {
            let mut s = Sequence::new(seed, 1);
            for _ in 0..2000 {
                let (op, stamp) = s.next();
                s.done(&op, stamp);
            }
            s.dir
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(1).len() > 2);
    }

    #[test]
    fn an_interrupted_write_may_be_there_in_part() {
        let op = Op::Write {
            file: 1,
            start: 1,
            len: 3,
            how: How::Fsync,
        };
        let before = Dir::from([(1, vec![7, 7])]);
        let mut after = before.clone();
        apply(&mut after, &op, 9);
        let check = |c: &[u64]| interrupted(&Dir::from([(1, c.to_vec())]), &before, &after, &op);
        for good in [&[7, 7][..], &[7, 9, 9, 9], &[7, 7, 0, 9], &[7, 9]] {
            check(good).expect("allowed");
        }
        for bad in [&[7][..], &[9, 7], &[7, 9, 9, 9, 9], &[7, 8]] {
            check(bad).expect_err("not allowed");
        }
        interrupted(&Dir::new(), &before, &after, &op).expect_err("the file is gone");
    }

    #[test]
    fn a_replacement_is_all_or_nothing() {
        let op = Op::Replace { file: 1, len: 2 };
        let before = Dir::from([(1, vec![7, 7, 7])]);
        let mut after = before.clone();
        apply(&mut after, &op, 9);
        let check = |d: Dir| interrupted(&d, &before, &after, &op);
        check(Dir::from([(1, vec![9, 9])])).expect("new");
        check(Dir::from([(1, vec![7, 7, 7]), (TEMPORARY, vec![9])])).expect("old");
        check(Dir::from([(1, vec![9, 0])])).expect_err("mixed");
        check(Dir::from([(1, vec![])])).expect_err("empty");
        check(Dir::from([(TEMPORARY, vec![9, 9])])).expect_err("neither");
        check(Dir::from([(1, vec![9, 9]), (2, vec![])])).expect_err("from nowhere");
    }
}
