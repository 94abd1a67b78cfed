// SPDX-License-Identifier: GPL-2.0

//! What a load and its check must agree on: arguments, and the names of directories and files.

use clap::Args;
use std::path::{Path, PathBuf};

/// The arguments of both.
#[derive(Args)]
pub struct Work {
    /// Directory on the filesystem under test; `load` empties it first
    pub dir: PathBuf,
    /// Seed of the sequences
    #[arg(long)]
    pub seed: u64,
    /// File or character device with a line per acknowledged operation; `load` may have - for the output
    #[arg(long)]
    pub journal: PathBuf,
    /// First word of each line, for several loads with one journal
    #[arg(long, default_value = "0")]
    pub tag: String,
    /// Threads, each with its own directory
    #[arg(long, default_value_t = 4)]
    pub threads: u32,
}

/// Name of a thread's directory.
pub fn directory(dir: &Path, thread: u32) -> PathBuf {
    dir.join(format!("thread{thread}"))
}

/// Name of a file.
pub fn name(dir: &Path, file: u64) -> PathBuf {
    dir.join(format!("file{file}"))
}
