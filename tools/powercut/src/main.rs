// SPDX-License-Identifier: GPL-2.0

//! `ordofs-powercut`: power cuts, and whether everything acknowledged is still there.
//!
//! `load` runs in the guest. Each thread works in its own directory, through a sequence of
//! operations that a seed determines. Each operation ends in a call that makes it durable; when
//! that has returned, the numbers of the thread and the operation go to a journal outside of the
//! machine.
//!
//! `cut` runs on the host, on the recorded writes of the disk. It makes the disk that a power cut
//! would have left, on which only flushed writes are certain.
//!
//! `verify` runs in the guest again, on that disk. The directory of a thread must be what its
//! sequence makes of it up to the last operation in the journal. The operation after that may be
//! there, be missing, or be there in part where it is not atomic.
//!
//! | module | what is in it |
//! |---|---|
//! | [`model`] | the sequence: operations, and the directory after each |
//! | [`load`] | carries the operations out |
//! | [`verify`] | compares a directory with the sequence |
//! | [`work`] | what load and verify must agree on |
//! | [`cut`] | the disk after a power cut |
//!
//! Tests: `scripts/powercut` runs it; `model` and `verify` have tests of their own.

mod cut;
mod load;
mod model;
mod verify;
mod work;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use work::Work;

#[derive(Parser)]
#[command(
    version,
    about = "Power cuts: load, the disk that is left, and what must be on it",
    after_help = "Exit status: 0 all is as it must be, 1 something acknowledged is lost, 2 the test could not run."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Work until killed (or for a number of seconds) and journal what is durable
    Load {
        #[command(flatten)]
        work: Work,
        /// Stop after this many seconds
        #[arg(long)]
        seconds: Option<u64>,
    },
    /// Check a directory after a power cut
    Verify {
        #[command(flatten)]
        work: Work,
    },
    /// Apply recorded writes (QEMU's blklogwrites) to an image, as a power cut would have left them
    Cut {
        /// The log
        log: PathBuf,
        /// The disk as it was when the recording began; changed in place
        image: PathBuf,
        /// Seed of the choice which unflushed writes reach the image
        #[arg(long)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    let run = || -> Result<bool> {
        match Cli::parse().command {
            Command::Load { work, seconds } => load::run(&work, seconds).map(|()| true),
            Command::Verify { work } => verify::run(&work),
            Command::Cut { log, image, seed } => cut::run(&log, &image, seed).map(|()| true),
        }
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            ordofs_cli::complain!("ordofs-powercut: {e:#}");
            ExitCode::from(2)
        }
    }
}
