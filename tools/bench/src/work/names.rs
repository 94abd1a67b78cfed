// SPDX-License-Identifier: GPL-2.0

//! Many files: creating, looking up, removing.

use super::common::Ready;
use crate::catalog::NewFiles;
use anyhow::{ensure, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Files of a directory where they are looked up.
const PER_DIRECTORY: u64 = 100;

fn directory(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("dir{number:03}"))
}

/// Name of the file with a number, in one of `directories` in turns.
fn file(dir: &Path, number: u64, directories: u64) -> PathBuf {
    directory(dir, number % directories).join(format!("file{number:06}"))
}

fn make_directories(dir: &Path, count: u64) -> Result<()> {
    (0..count).try_for_each(|n| Ok(fs::create_dir(directory(dir, n))?))
}

fn make_file(path: &Path, bytes: usize, fsync: bool) -> Result<()> {
    let mut file = File::create_new(path)?;
    if bytes > 0 {
        file.write_all(&vec![0x5a; bytes])?;
    }
    if fsync {
        file.sync_all()?;
    }
    Ok(())
}

/// Files of 4 KiB, in directories that are made, too; their names.
fn populate(dir: &Path, count: u64, directories: u64) -> Result<Vec<PathBuf>> {
    make_directories(dir, directories)?;
    let names: Vec<_> = (0..count).map(|n| file(dir, n, directories)).collect();
    for name in &names {
        make_file(name, 4096, false)?;
    }
    Ok(names)
}

/// A filesystem with some files, for mounting.
pub fn some_files(dir: &Path, count: u64) -> Result<()> {
    populate(dir, count, 10).map(drop)
}

/// Creates files.
pub fn create(dir: &Path, new: NewFiles, ops: u64) -> Result<Ready<'_>> {
    make_directories(dir, new.directories)?;
    let names: Vec<_> = (0..ops).map(|n| file(dir, n, new.directories)).collect();
    Ok(Box::new(move |meter| {
        meter.time(|| {
            names
                .iter()
                .try_for_each(|name| make_file(name, new.bytes, new.fsync))
        })
    }))
}

/// stat of each file, in the order in which they were made.
pub fn stat(dir: &Path, ops: u64) -> Result<Ready<'_>> {
    let names = populate(dir, ops, ops.div_ceil(PER_DIRECTORY))?;
    Ok(Box::new(move |meter| {
        meter.time(|| {
            for name in &names {
                ensure!(fs::symlink_metadata(name)?.len() == 4096, "a wrong size");
            }
            Ok(())
        })
    }))
}

/// The entries of all directories.
pub fn readdir(dir: &Path, ops: u64) -> Result<Ready<'_>> {
    let directories = ops.div_ceil(PER_DIRECTORY);
    populate(dir, ops, directories)?;
    Ok(Box::new(move |meter| {
        meter.time(|| {
            let mut seen = 0;
            for number in 0..directories {
                for entry in fs::read_dir(directory(dir, number))? {
                    entry?;
                    seen += 1;
                }
            }
            ensure!(seen == ops, "{seen} of {ops} entries");
            Ok(())
        })
    }))
}

/// Removes files.
pub fn unlink(dir: &Path, ops: u64) -> Result<Ready<'_>> {
    let names = populate(dir, ops, 1)?;
    Ok(Box::new(move |meter| {
        meter.time(|| names.iter().try_for_each(|name| Ok(fs::remove_file(name)?)))
    }))
}

/// Moves files into another directory.
pub fn rename(dir: &Path, ops: u64) -> Result<Ready<'_>> {
    let names = populate(dir, ops, 1)?;
    let to = dir.join("to");
    fs::create_dir(&to)?;
    let pairs: Vec<_> = names
        .into_iter()
        .enumerate()
        .map(|(i, from)| (from, to.join(format!("new{i:06}"))))
        .collect();
    Ok(Box::new(move |meter| {
        meter.time(|| {
            pairs
                .iter()
                .try_for_each(|(from, to)| Ok(fs::rename(from, to)?))
        })
    }))
}

/// Makes directories.
pub fn mkdir(dir: &Path, ops: u64) -> Result<Ready<'_>> {
    Ok(Box::new(move |meter| {
        meter.time(|| make_directories(dir, ops))
    }))
}

/// Removes directories.
pub fn rmdir(dir: &Path, ops: u64) -> Result<Ready<'_>> {
    make_directories(dir, ops)?;
    Ok(Box::new(move |meter| {
        meter.time(|| (0..ops).try_for_each(|n| Ok(fs::remove_dir(directory(dir, n))?)))
    }))
}
