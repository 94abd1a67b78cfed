// SPDX-License-Identifier: GPL-2.0

//! The disk after a power cut, made from a log of its writes as QEMU's `blklogwrites` (and
//! dm-log-writes) record them: sectors, flags and data, in the order of the writes.
//!
//! Model: all that was written before the last completed flush is there, and so is a write with
//! FUA. Each write after that flush may be missing, or be torn between sectors of 512 bytes.
//!
//! Tests: `scripts/powercut`.

use anyhow::{bail, ensure, Context, Result};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const SECTOR: u64 = 512;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
    data: Vec<u8>,
}

fn word(b: &[u8], at: usize) -> u64 {
    let mut w = [0; 8];
    w.copy_from_slice(&b[at..at + 8]);
    u64::from_le_bytes(w)
}

/// The entry at the reader's position. `None` at the end of the log, which may be in the middle of
/// an entry, because the machine was killed.
fn next(r: &mut impl Read, unit: u64) -> Result<Option<Entry>> {
    let full = |r: &mut dyn Read, b: &mut [u8]| match r.read_exact(b) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
        Ok(()) => Ok(true),
    };
    let mut head = vec![0; unit as usize];
    if !full(r, &mut head)? {
        return Ok(None);
    }
    let (sector, sectors, flags) = (word(&head, 0), word(&head, 8), word(&head, 16));
    if sectors == 0 && flags == 0 {
        return Ok(None);
    }
    let bytes = if flags & DISCARD != 0 {
        0
    } else {
        sectors * unit
    };
    ensure!(bytes <= 1 << 30, "an entry of {bytes} bytes");
    let mut data = vec![0; bytes as usize];
    Ok(full(r, &mut data)?.then_some(Entry {
        sector: sector * (unit / SECTOR),
        sectors: sectors * (unit / SECTOR),
        flags,
        data,
    }))
}

fn apply(image: &File, e: &Entry, mut arrives: impl FnMut() -> bool) -> Result<()> {
    if e.flags & DISCARD != 0 {
        let zeroes = vec![0; 1 << 20];
        let (mut at, end) = (e.sector * SECTOR, (e.sector + e.sectors) * SECTOR);
        while at < end {
            let n = (end - at).min(zeroes.len() as u64);
            image.write_all_at(&zeroes[..n as usize], at)?;
            at += n;
        }
        return Ok(());
    }
    for (i, s) in e.data.chunks(SECTOR as usize).enumerate() {
        if arrives() {
            image.write_all_at(s, (e.sector + i as u64) * SECTOR)?;
        }
    }
    Ok(())
}

/// Applies the log to the image, and of the unflushed writes those that `seed` chooses.
pub fn run(log: &Path, image: &Path, seed: u64) -> Result<()> {
    let mut r = BufReader::with_capacity(
        1 << 20,
        File::open(log).with_context(|| format!("cannot open {}", log.display()))?,
    );
    let mut head = [0; 512];
    r.read_exact(&mut head).context("no log")?;
    if word(&head, 0) != MAGIC {
        bail!("{} is no log of writes", log.display());
    }
    let unit = word(&head, 24) & 0xffff_ffff;
    ensure!(
        unit == SECTOR,
        "a log with sectors of {unit} bytes, not 512"
    );
    let image = OpenOptions::new()
        .write(true)
        .open(image)
        .with_context(|| format!("cannot open {}", image.display()))?;

    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut flushed, mut lost, mut torn) = (0u64, 0u64, 0u64);
    let mut open: Vec<Entry> = Vec::new();
    while let Some(e) = next(&mut r, unit)? {
        if e.flags & FLUSH != 0 {
            flushed += open.len() as u64;
            for o in open.drain(..) {
                apply(&image, &o, || true)?;
            }
        }
        if e.sectors == 0 {
            continue;
        }
        if e.flags & FUA != 0 {
            // A FUA write is durable; the writes before it are not.
            apply(&image, &e, || true)?;
        } else {
            open.push(e);
        }
    }
    let unflushed = open.len();
    // None is there, all are there, or each by chance.
    let mode = rng.u64(..4);
    for e in &open {
        match (mode, rng.u64(..8)) {
            (0, _) | (2.., 0..=2) => lost += 1,
            (3, 3) => {
                torn += 1;
                apply(&image, e, || rng.u64(..2) == 0)?;
            }
            _ => apply(&image, e, || true)?,
        }
    }
    image.sync_data()?;
    ordofs_cli::say!(
        "power cut: {flushed} writes flushed, {unflushed} not: {lost} lost, {torn} torn"
    );
    Ok(())
}
