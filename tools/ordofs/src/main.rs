// SPDX-License-Identifier: GPL-2.0

//! `ordofs`: shows the content of an OrdoFS on a device or in an image file, without mounting it
//! and without writing; starts, watches and cancels the scrub of a mounted one, and makes it larger.
//!
//! | module | what is in it |
//! |---|---|
//! | [`dump`] | superblock, trees and inodes, as they are on disk |
//! | [`files`] | files by path: ls, stat, cat |
//! | [`error`] | errors with their place, for messages |
//! | [`resize`] | a mounted filesystem becomes larger |
//! | [`scrub`] | the scrub of a mounted filesystem |
//! | [`show`] | structured values, printed while they are made, as text or JSON |
//!
//! Tests: `tools/ordofs/tests/lost_output.rs`, `tests/vm/t/033-tools-on-mounted.sh`, `tests/vm/t/071-scale.sh`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod dump;
mod error;
mod files;
mod resize;
mod scrub;
mod show;

use anyhow::{anyhow, Context, Result};
use clap::{Parser, Subcommand};
use ordofs_cli::complain;
use ordofs_engine::engine::{Fs, MountOptions};
use ordofs_engine::os::file::{FileDisk, Open};
use ordofs_engine::os::{Device, Shared};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    version,
    about = "Look into an OrdoFS without mounting it, or scrub or resize a mounted one"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Show what is on disk
    #[command(subcommand)]
    Dump(Dump),
    /// List a directory
    Ls {
        /// Device or image file
        device: PathBuf,
        /// Path in it
        #[arg(default_value = "/")]
        path: String,
    },
    /// Write a file's content, checked against its checksums, to standard output
    Cat {
        /// Device or image file
        device: PathBuf,
        /// Path in it
        path: String,
        /// Write zeros for blocks that cannot be read or are damaged, and list them on standard
        /// error; then the status is 1
        #[arg(long)]
        keep_going: bool,
    },
    /// Check everything that is in use on a mounted filesystem
    #[command(subcommand)]
    Scrub(scrub::Scrub),
    /// Make a mounted filesystem larger, up to the size of its device
    Resize(resize::Resize),
    /// Show the attributes of a file
    Stat {
        /// Device or image file
        device: PathBuf,
        /// Path in it
        path: String,
    },
}

#[derive(Subcommand)]
enum Dump {
    /// The newest superblock, or the one in a slot
    Superblock {
        /// Device or image file
        device: PathBuf,
        /// Slot: 0 or 1, or their twins, 2 and 3
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..4))]
        slot: Option<u8>,
    },
    /// A tree: its nodes and records
    Tree {
        /// Device or image file
        device: PathBuf,
        /// inode, orphan, ag, deferred, snapshot, dead, quota, or the number of an allocation group
        tree: String,
    },
    /// An inode with its extents, entries and attributes
    Inode {
        /// Device or image file
        device: PathBuf,
        /// Inode number
        ino: u64,
    },
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(status) => status,
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            complain!("ordofs: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// Opens a device that may be mounted.
fn open(path: &Path) -> Result<Device> {
    let exclusive = Open {
        write: false,
        exclusive: true,
    };
    // The exclusive open only finds out whether the device is in use. It must not last, or a mount
    // would fail.
    let mut disk = FileDisk::open(path, exclusive);
    if disk.as_ref().is_ok_and(FileDisk::is_block_device) {
        disk = FileDisk::open(path, Open::default());
    }
    if disk
        .as_ref()
        .is_err_and(|e| e.kind() == ErrorKind::ResourceBusy)
    {
        complain!(
            "ordofs: {} is mounted or in use; the output may be meaningless",
            path.display()
        );
        disk = FileDisk::open(path, Open::default());
    }
    Ok(disk
        .with_context(|| format!("cannot open {}", path.display()))?
        .device())
}

fn mount(path: &Path) -> Result<Shared<Fs>> {
    let options = MountOptions {
        read_only: true,
        ..MountOptions::default()
    };
    Fs::mount(open(path)?, options)
        .map_err(|e| anyhow!("{}: {} ({:?})", path.display(), e.reason, e.error))
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let doc = match &cli.command {
        Command::Dump(Dump::Superblock { device, slot }) => {
            dump::superblock(&open(device)?, *slot)?.into()
        }
        Command::Dump(Dump::Tree { device, tree }) => dump::tree(open(device)?, tree)?,
        Command::Dump(Dump::Inode { device, ino }) => dump::inode(open(device)?, *ino)?,
        Command::Stat { device, path } => files::stat(&*mount(device)?, path)?.into(),
        Command::Ls { device, path } => {
            let list = files::list(&*mount(device)?, path)?;
            if !cli.json {
                files::print_list(&list)?;
                return Ok(ExitCode::SUCCESS);
            }
            list.into()
        }
        Command::Cat {
            device,
            path,
            keep_going,
        } => {
            let damage = match keep_going {
                true => files::Damage::KeepGoing,
                false => files::Damage::Fail,
            };
            files::cat(&*mount(device)?, path, damage)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Resize(command) => return resize::run(command, cli.json),
        Command::Scrub(command) => return scrub::run(command, cli.json),
    };
    show::print(&doc, cli.json)?;
    Ok(ExitCode::SUCCESS)
}
