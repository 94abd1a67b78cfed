// SPDX-License-Identifier: GPL-2.0

//! Reading and writing one file.

use super::common::{open, Ready};
use crate::catalog::{Order, Path as IoPath};
use crate::sys::{self, Aligned, PAGE};
use anyhow::{ensure, Result};
use fastrand::Rng;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a request with which files are prepared.
const CHUNK: usize = 1 << 20;
/// Bytes of the file that random reads and writes work on, for each operation. So they hit every
/// second block only.
const SPREAD: u64 = 2;

fn flags(path: IoPath) -> i32 {
    match path {
        IoPath::Buffered => 0,
        IoPath::Direct => libc::O_DIRECT,
    }
}

/// A file with content.
pub fn filled(path: &Path, bytes: u64) -> Result<File> {
    let file = open(path, 0)?;
    let content = vec![0x5a; CHUNK];
    let mut at = 0;
    while at < bytes {
        let len = (bytes - at).min(CHUNK as u64);
        file.write_all_at(&content[..len as usize], at)?;
        at += len;
    }
    Ok(file)
}

/// The numbers below `count` in an order that is always the same.
pub fn shuffled(count: u64) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..count).collect();
    Rng::with_seed(17).shuffle(&mut numbers);
    numbers
}

/// The blocks of `ops` operations, and the number of blocks of their file.
fn places(order: Order, ops: u64) -> (Vec<u64>, u64) {
    match order {
        Order::Sequential => ((0..ops).collect(), ops),
        Order::Random => {
            let mut all = shuffled(ops * SPREAD);
            all.truncate(ops as usize);
            (all, ops * SPREAD)
        }
    }
}

/// Memory for a request, which is as long as the request.
fn buffer(block: usize, fill: u8) -> Aligned {
    Aligned::new(block.next_multiple_of(PAGE), fill)
}

/// Writes a new file.
pub fn write_new(dir: &Path, block: usize, path: IoPath, ops: u64) -> Result<Ready<'_>> {
    Ok(Box::new(move |meter| {
        let mut memory = buffer(block, 0xa5);
        let content = &memory.bytes()[..block];
        meter.time(|| {
            let file = open(&dir.join("file"), flags(path))?;
            for i in 0..ops {
                file.write_all_at(content, i * block as u64)?;
            }
            Ok(())
        })
    }))
}

/// Overwrites blocks of a file that is in the page cache (or, for direct I/O, on the disk).
pub fn rewrite(
    dir: &Path,
    block: usize,
    order: Order,
    path: IoPath,
    ops: u64,
) -> Result<Ready<'_>> {
    let name = dir.join("file");
    let (places, blocks) = places(order, ops);
    filled(&name, blocks * block as u64)?;
    Ok(Box::new(move |meter| {
        let mut memory = buffer(block, 0xa5);
        let content = &memory.bytes()[..block];
        let file = open(&name, flags(path))?;
        meter.time(|| {
            for at in places {
                file.write_all_at(content, at * block as u64)?;
            }
            Ok(())
        })
    }))
}

/// Reads blocks of a file. The file is opened afterwards: a mount may come in between.
pub fn read(dir: &Path, block: usize, order: Order, path: IoPath, ops: u64) -> Result<Ready<'_>> {
    let name = dir.join("file");
    let (places, blocks) = places(order, ops);
    filled(&name, blocks * block as u64)?;
    Ok(Box::new(move |meter| {
        let mut memory = buffer(block, 0);
        let content = &mut memory.bytes()[..block];
        let file = open(&name, flags(path))?;
        meter.time(|| {
            for at in places {
                file.read_exact_at(content, at * block as u64)?;
            }
            Ok(())
        })?;
        ensure!(content[0] == 0x5a, "wrong data");
        Ok(())
    }))
}

/// Half of the blocks are overwritten at random, in rounds that end with a sync; then all are read.
pub fn read_scattered(dir: &Path, ops: u64) -> Result<Ready<'_>> {
    const BLOCK: usize = 128 << 10;
    const SYNC_EVERY: usize = 256;
    let name = dir.join("file");
    let bytes = ops * BLOCK as u64;
    let file = filled(&name, bytes)?;
    sys::sync_filesystem(dir)?;
    let (places, _) = places(Order::Random, bytes / PAGE as u64 / SPREAD);
    for some in places.chunks(SYNC_EVERY) {
        for at in some {
            file.write_all_at(&[0x5a; PAGE], at * PAGE as u64)?;
        }
        file.sync_all()?;
    }
    drop(file);
    Ok(Box::new(move |meter| {
        let mut memory = buffer(BLOCK, 0);
        let content = memory.bytes();
        let file = open(&name, 0)?;
        meter.time(|| {
            for i in 0..ops {
                file.read_exact_at(content, i * BLOCK as u64)?;
            }
            Ok(())
        })?;
        ensure!(content.iter().all(|b| *b == 0x5a), "wrong data");
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_places_are_different_and_the_same_each_time() {
        let (some, blocks) = places(Order::Random, 100);
        assert_eq!(blocks, 200);
        assert_eq!(some.len(), 100);
        let mut sorted = some.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 100);
        assert_ne!(sorted, some);
        assert!(sorted[99] < 200);
        assert_eq!(places(Order::Random, 100).0, some);
    }
}
