// SPDX-License-Identifier: GPL-2.0

//! `mkfs.ordofs`: makes an OrdoFS on a block device or in an image file.
//!
//! mkfs.ordofs respects the present content of the device. It overwrites another format only with
//! `-f`, an OrdoFS after a question (so `yes | mkfs.ordofs DEV` overwrites its own kind and nothing
//! else), and a device in use only with `-ff`.
//!
//! With a size, it discards and writes only that much of the device.
//!
//! | module | what is in it |
//! |---|---|
//! | [`probe`] | what is on the device already |
//! | [`remains`] | copies of superblocks that other filesystems leave behind |
//! | [`value`] | values on the command line |
//!
//! A loss of output does not keep a filesystem from being made. But a question that cannot be shown
//! counts as a no, and a dry run that cannot be shown fails.
//!
//! Tests: `tools/mkfs/tests/options_and_lost_output.rs`, `tests/vm/t/034-mkfs-over-others.sh`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod probe;
mod remains;
mod value;

use anyhow::{anyhow, bail, Context, Result};
use clap::Parser;
use ordofs_cli::{complain, say};
use ordofs_engine::engine::format::{places, superblock, MAX_BLOCKS, MIN_BLOCKS};
use ordofs_engine::engine::volume::mkfs::{default_copies, format, FormatOptions};
use ordofs_engine::engine::BLOCK_SIZE;
use ordofs_engine::os::file::{FileDisk, Open};
use ordofs_engine::os::Backend;
use probe::Content;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "mkfs.ordofs", version, about = "Make an OrdoFS filesystem")]
struct Cli {
    /// Label, at most 64 bytes
    #[arg(short = 'L', long, value_parser = value::label, default_value = "", hide_default_value = true)]
    label: [u8; value::LABEL_LEN],
    /// UUID, or `random` (the default), or `nil`
    #[arg(short = 'U', long, value_parser = value::uuid)]
    uuid: Option<[u8; 16]>,
    /// Overwrite another filesystem; given twice, also a device that is in use
    #[arg(short, long, action = clap::ArgAction::Count)]
    force: u8,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Do not discard the device's content first
    #[arg(short = 'K', long)]
    no_discard: bool,
    /// Print errors only
    #[arg(short, long)]
    quiet: bool,
    /// Owner of the root directory
    #[arg(long, value_name = "UID:GID", value_parser = value::owner, default_value = "0:0")]
    root_owner: (u32, u32),
    /// Copies of each node of metadata, 1 or 2; default: 2 if the filesystem has at least two whole
    /// allocation groups
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=2))]
    copies: Option<u8>,
    /// Block device or regular file
    device: PathBuf,
    /// Size in bytes (K, M, G, T, P, E may follow); default: all of the device. A file is extended to it
    #[arg(value_parser = value::size)]
    size: Option<u64>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain!("mkfs.ordofs: {}: {e:#}", cli.device.display());
            ExitCode::FAILURE
        }
    }
}

/// A size in words, e.g. "16 MiB".
fn show_size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut v, mut i) = (bytes as f64, 0);
    while v >= 1024.0 && i + 1 < units.len() {
        v /= 1024.0;
        i += 1;
    }
    let digits = usize::from(v.fract() != 0.0);
    format!("{v:.digits$} {}", units[i])
}

fn open(cli: &Cli) -> Result<FileDisk> {
    let how = Open {
        write: !cli.dry_run,
        exclusive: cli.force < 2,
    };
    FileDisk::open(&cli.device, how).map_err(|e| match e.kind() {
        io::ErrorKind::ResourceBusy => {
            anyhow!("the device is in use (mounted, or part of another device); -ff overrides this")
        }
        io::ErrorKind::NotFound => {
            anyhow!("no such device or file; make an image file with truncate(1)")
        }
        _ => anyhow!(e).context("cannot open"),
    })
}

/// Asks a question and reads the answer from standard input, terminal or not. Only y or Y is a yes.
fn yes(question: &str) -> Result<bool> {
    ordofs_cli::print(format_args!("{question} [y/N] "));
    if ordofs_cli::is_output_lost() {
        bail!("contains an OrdoFS, and the question cannot be shown; use -f to overwrite it");
    }
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .context("cannot read the answer from standard input")?;
    if !line.ends_with('\n') {
        say!("");
    }
    Ok(line.trim_start().starts_with(['y', 'Y']))
}

/// Checks that what is on the device may be overwritten.
fn permitted(cli: &Cli, disk: &FileDisk) -> Result<()> {
    match probe::probe(disk).context("cannot read")? {
        _ if cli.force > 0 => Ok(()),
        Content::Nothing => Ok(()),
        Content::Foreign(what) => bail!("contains: {what}; use -f to overwrite it"),
        Content::Ours if cli.dry_run => Ok(()),
        Content::Ours => {
            let q = format!("{} contains an OrdoFS; overwrite?", cli.device.display());
            if yes(&q)? {
                return Ok(());
            }
            bail!("contains an OrdoFS, left alone; use -f to overwrite it")
        }
    }
}

/// The number of blocks of the filesystem to be made.
fn blocks(cli: &Cli, disk: &FileDisk) -> Result<u64> {
    let bytes = cli.size.unwrap_or(disk.bytes());
    if bytes > disk.bytes() && disk.is_block_device() {
        bail!(
            "the device has {}, less than the {} asked for",
            show_size(disk.bytes()),
            show_size(bytes)
        );
    }
    let blocks = bytes / BLOCK_SIZE as u64;
    if !(MIN_BLOCKS..=MAX_BLOCKS).contains(&blocks) {
        let (min, max) = (
            MIN_BLOCKS * BLOCK_SIZE as u64,
            MAX_BLOCKS as f64 * BLOCK_SIZE as f64,
        );
        bail!(
            "{} is not a possible size: the limits are {} and {}",
            show_size(bytes),
            show_size(min),
            show_size(max as u64)
        );
    }
    Ok(blocks)
}

/// Prints what is made.
fn announce(cli: &Cli, blocks: u64, uuid: &[u8; 16]) {
    let (ags, ag_blocks) = superblock::ag_geometry(blocks);
    let end = cli
        .label
        .iter()
        .position(|b| *b == 0)
        .unwrap_or(cli.label.len());
    let nothing = match cli.dry_run {
        true => " (nothing is written)",
        false => "",
    };
    say!("{}{nothing}", cli.device.display());
    say!("  label   {:?}", String::from_utf8_lossy(&cli.label[..end]));
    say!("  UUID    {}", value::show_uuid(uuid));
    say!(
        "  size    {}, {blocks} blocks of {BLOCK_SIZE} bytes",
        show_size(blocks * BLOCK_SIZE as u64)
    );
    say!(
        "  groups  {ags} of up to {}",
        show_size(ag_blocks * BLOCK_SIZE as u64)
    );
    match cli.copies.unwrap_or(default_copies(blocks)) {
        1 => say!("  nodes   one copy of each"),
        n => say!("  nodes   {n} copies of each"),
    }
    let (start, len) = places::log_place(blocks);
    say!("  log     {len} blocks from block {start} on");
}

fn run(cli: &Cli) -> Result<()> {
    let mut disk = open(cli)?;
    let blocks = blocks(cli, &disk)?;
    permitted(cli, &disk)?;
    let uuid = cli.uuid.unwrap_or_else(value::random_uuid);
    if !cli.quiet {
        announce(cli, blocks, &uuid);
    }
    if cli.dry_run {
        return match ordofs_cli::output_error() {
            Some(e) => Err(e).context("standard output"),
            None => Ok(()),
        };
    }
    if let Some(size) = cli.size {
        disk.grow_file(size).context("cannot extend the file")?;
    }
    make(cli, disk, blocks, uuid)?;
    if let Some(e) = ordofs_cli::output_error() {
        complain!(
            "mkfs.ordofs: {}: the filesystem is made; standard output: {e}",
            cli.device.display()
        );
    }
    Ok(())
}

/// Makes the filesystem in the first `blocks` blocks.
fn make(cli: &Cli, disk: FileDisk, blocks: u64, uuid: [u8; 16]) -> Result<()> {
    // Without a size, the incomplete block at the end belongs to the filesystem as well.
    let bytes = match cli.size {
        Some(size) if size < disk.bytes() => blocks * BLOCK_SIZE as u64,
        _ => disk.bytes(),
    };
    let remains = remains::find(&disk, bytes).context("cannot read")?;
    if !cli.no_discard {
        // Discarding is advice: a device that cannot discard is fine.
        let _ = disk.discard(0, blocks);
    }
    remains.wipe(&disk, bytes).context("cannot write")?;
    if bytes < disk.bytes() {
        if let Some(what) = probe::probe_end(&disk).context("cannot read")? {
            complain!(
                "mkfs.ordofs: {}: the end of the device, beyond the new filesystem, still contains: {what}",
                cli.device.display()
            );
        }
    }
    let options = FormatOptions {
        uuid,
        label: cli.label,
        blocks,
        root_owner: cli.root_owner,
        copies: cli.copies.unwrap_or(0),
    };
    format(disk.device(), &options).map_err(|e| anyhow!("{} ({:?})", e.reason, e.error))
}
