// SPDX-License-Identifier: GPL-2.0

//! Compares the directories after a power cut with what was acknowledged.

use crate::model::{interrupted, Content, Dir, How, Op, Sequence, UNIT};
use crate::work::{directory, Work};
use anyhow::{bail, Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The last acknowledged operation of each thread.
fn acknowledged(journal: &Path, tag: &str) -> Result<BTreeMap<u32, u64>> {
    let text = fs::read_to_string(journal)
        .with_context(|| format!("cannot read {}", journal.display()))?;
    let mut last = BTreeMap::new();
    // A line without its end was cut off when the machine was.
    for line in text
        .split_inclusive('\n')
        .filter_map(|l| l.strip_suffix('\n'))
    {
        let words: Vec<&str> = line.split(' ').collect();
        let [t, thread, number] = words[..] else {
            bail!("{}: not a line of a journal: {line}", journal.display());
        };
        if t == tag {
            last.insert(thread.parse()?, number.parse()?);
        }
    }
    Ok(last)
}

/// Units that hold two writers' numbers: file, unit, the numbers.
type Mixed = Vec<(u64, usize, [u64; 2])>;

/// Reads a file as units. A unit of two numbers counts as the first of them, and is noted in
/// `mixed`.
fn read(path: &Path, number: u64, mixed: &mut Mixed) -> Result<Content> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 % UNIT != 0 {
        bail!("{} has {} bytes", path.display(), bytes.len());
    }
    let mut content = Content::new();
    for (i, unit) in bytes.chunks(UNIT as usize).enumerate() {
        let words = unit
            .chunks_exact(8)
            .map(|w| w.try_into().map(u64::from_le_bytes));
        let words = words.collect::<Result<Vec<u64>, _>>()?;
        let first = words[0];
        if let Some(other) = words.iter().find(|w| **w != first) {
            if words.iter().any(|w| w != other && *w != first) {
                bail!("{}: unit {i} is neither one thing nor two", path.display());
            }
            mixed.push((number, i, [first, *other]));
        }
        content.push(first);
    }
    Ok(content)
}

fn read_dir(dir: &Path, mixed: &mut Mixed) -> Result<Dir> {
    let mut found = Dir::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        let number = name.strip_prefix("file").and_then(|n| n.parse().ok());
        let Some(number) = number else {
            bail!("{} is not of this test", path.display());
        };
        if found.insert(number, read(&path, number, mixed)?).is_some() {
            bail!("{} is listed twice", path.display());
        }
    }
    Ok(found)
}

/// The sync of another thread may write out a page while stores through a mapping go on. The page
/// on disk then has some of these stores, in any order. Only in this case may a unit have two
/// writers.
fn torn_by_stores(mixed: &Mixed, before: &Dir, after: &Dir, op: &Op) -> Result<(), String> {
    for &(number, unit, found) in mixed {
        let at = |d: &Dir| d.get(&number).and_then(|c| c.get(unit)).copied();
        let (b, a) = (at(before), at(after));
        let stores = matches!(op, Op::Write { file, how: How::Msync, .. } if *file == number);
        let both = found.iter().all(|w| Some(*w) == b || Some(*w) == a);
        if !stores || !both {
            return Err(format!(
                "file {number}: unit {unit} holds {found:x?}, {op:?}"
            ));
        }
    }
    Ok(())
}

/// Checks the directories of all threads. Returns false if something is lost, and prints what.
pub fn run(work: &Work) -> Result<bool> {
    let last = acknowledged(&work.journal, &work.tag)?;
    let (mut operations, mut good) = (0, true);
    for t in 0..work.threads {
        // Without a line in the journal, not even the empty directory is promised.
        let Some(n) = last.get(&t) else { continue };
        operations += n;
        let mut sequence = Sequence::new(work.seed, t);
        for _ in 0..*n {
            let (op, stamp) = sequence.next();
            sequence.done(&op, stamp);
        }
        let before = sequence.dir.clone();
        let (op, stamp) = sequence.next();
        sequence.done(&op, stamp);
        let mut mixed = Mixed::new();
        let verdict = read_dir(&directory(&work.dir, t), &mut mixed)
            .map_err(|e| format!("{e:#}"))
            .and_then(|now| interrupted(&now, &before, &sequence.dir, &op))
            .and_then(|()| torn_by_stores(&mixed, &before, &sequence.dir, &op));
        if let Err(what) = verdict {
            ordofs_cli::say!("thread {t}, {n} operations acknowledged: {what}");
            good = false;
        }
    }
    ordofs_cli::say!(
        "verify: {operations} operations were acknowledged, {}",
        if good {
            "all are there"
        } else {
            "SOME ARE LOST"
        }
    );
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stores_may_tear_a_unit() {
        let op = |how| Op::Write {
            file: 1,
            start: 0,
            len: 2,
            how,
        };
        let (before, after) = (Dir::from([(1, vec![7, 7])]), Dir::from([(1, vec![9, 9])]));
        let check = |how, mixed| torn_by_stores(&mixed, &before, &after, &op(how));
        check(How::Msync, vec![(1, 1, [9, 7])]).expect("stores");
        check(How::Fsync, vec![(1, 1, [9, 7])]).expect_err("a write is whole in its page");
        check(How::Msync, vec![(1, 1, [9, 8])]).expect_err("from nowhere");
        check(How::Msync, vec![(2, 1, [9, 7])]).expect_err("another file");
        check(How::Msync, vec![(1, 2, [9, 7])]).expect_err("behind the end");
    }
}
