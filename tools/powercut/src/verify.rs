// SPDX-License-Identifier: GPL-2.0

//! Compares what is there after a power cut with what was acknowledged.

use crate::load::directory;
use crate::model::{interrupted, Content, Dir, Sequence, UNIT};
use crate::Work;
use anyhow::{bail, Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The last acknowledged operation of each thread.
fn acknowledged(journal: &Path, tag: &str) -> Result<BTreeMap<u32, u64>> {
    let text = fs::read_to_string(journal)
        .with_context(|| format!("cannot read {}", journal.display()))?;
    let mut last = BTreeMap::new();
    // A line without its end was cut off with the machine.
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

/// Reads a file as units; a unit that holds more than one writer's number is an error.
fn read(path: &Path) -> Result<Content> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 % UNIT != 0 {
        bail!("{} has {} bytes", path.display(), bytes.len());
    }
    bytes
        .chunks(UNIT as usize)
        .enumerate()
        .map(|(i, unit)| {
            let (first, _) = unit.split_at(8);
            if unit.chunks(8).any(|w| w != first) {
                bail!("{}: unit {i} is mixed", path.display());
            }
            Ok(u64::from_le_bytes(first.try_into()?))
        })
        .collect()
}

fn read_dir(dir: &Path) -> Result<Dir> {
    let mut found = Dir::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        let number = name.strip_prefix("file").and_then(|n| n.parse().ok());
        let Some(number) = number else {
            bail!("{} is not of this test", path.display());
        };
        if found.insert(number, read(&path)?).is_some() {
            bail!("{} is listed twice", path.display());
        }
    }
    Ok(found)
}

/// Checks all threads' directories. False: something is lost; what, is printed.
pub fn run(work: &Work) -> Result<bool> {
    let last = acknowledged(&work.journal, &work.tag)?;
    let (mut operations, mut good) = (0, true);
    for t in 0..work.threads {
        // Without a line not even the empty directory is promised.
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
        let verdict = read_dir(&directory(&work.dir, t))
            .map_err(|e| format!("{e:#}"))
            .and_then(|now| interrupted(&now, &before, &sequence.dir, &op));
        if let Err(what) = verdict {
            println!("thread {t}, {n} operations acknowledged: {what}");
            good = false;
        }
    }
    println!(
        "verify: {operations} operations were acknowledged, {}",
        if good {
            "all are there"
        } else {
            "SOME ARE LOST"
        }
    );
    Ok(good)
}
