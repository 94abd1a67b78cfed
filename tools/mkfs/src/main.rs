// SPDX-License-Identifier: GPL-2.0

//! `mkfs.ordofs`: makes an OrdoFS on a block device or in an image file.
//!
//! What is on the device already is respected: another format is only overwritten with `-f`, an
//! OrdoFS after a question (so `yes | mkfs.ordofs DEV` overwrites its own kind and nothing else), a
//! device in use only with `-ff`.

mod probe;
mod value;

use anyhow::{anyhow, bail, Context, Result};
use clap::Parser;
use ordofs_engine::engine::format::{superblock, MAX_BLOCKS, MIN_BLOCKS};
use ordofs_engine::engine::mkfs::{format, FormatOptions};
use ordofs_engine::engine::BLOCK_SIZE;
use ordofs_engine::os::file::{FileDisk, Open};
use ordofs_engine::os::Backend;
use probe::Content;
use std::io::{self, Write};
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
    /// Block device or regular file
    device: PathBuf,
    /// Size in bytes (K, M, G, T may follow); default: all of the device. A file is extended to it
    #[arg(value_parser = value::size)]
    size: Option<u64>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mkfs.ordofs: {}: {e:#}", cli.device.display());
            ExitCode::FAILURE
        }
    }
}

/// Bytes in words, e.g. "16 MiB".
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

/// Reads the answer to a question from standard input, terminal or not.
fn yes(question: &str) -> Result<bool> {
    print!("{question} [y/N] ");
    io::stdout().flush().context("standard output")?;
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .context("cannot read the answer from standard input")?;
    if !line.ends_with('\n') {
        println!();
    }
    Ok(line.trim_start().starts_with(['y', 'Y']))
}

/// May what is on the device be overwritten?
fn permitted(cli: &Cli, disk: &FileDisk) -> Result<()> {
    match probe::probe(disk.file(), disk.bytes()).context("cannot read")? {
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

fn run(cli: &Cli) -> Result<()> {
    let mut disk = open(cli)?;
    if let Some(size) = cli.size {
        if size > disk.bytes() && disk.is_block_device() {
            bail!(
                "the device has {}, {} were asked for",
                show_size(disk.bytes()),
                show_size(size)
            );
        }
    }
    let bytes = cli.size.unwrap_or(disk.bytes());
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
    permitted(cli, &disk)?;
    let uuid = cli.uuid.unwrap_or_else(value::random_uuid);
    if !cli.quiet {
        let (ags, ag_blocks) = superblock::ag_geometry(blocks);
        let end = cli
            .label
            .iter()
            .position(|b| *b == 0)
            .unwrap_or(cli.label.len());
        println!(
            "{}{}",
            cli.device.display(),
            if cli.dry_run {
                " (nothing is written)"
            } else {
                ""
            }
        );
        println!("  label   {:?}", String::from_utf8_lossy(&cli.label[..end]));
        println!("  UUID    {}", value::show_uuid(&uuid));
        println!(
            "  size    {}, {blocks} blocks of {BLOCK_SIZE} bytes",
            show_size(blocks * BLOCK_SIZE as u64)
        );
        println!(
            "  groups  {ags} of up to {}",
            show_size(ag_blocks * BLOCK_SIZE as u64)
        );
        println!("  log     {} blocks", superblock::log_length(blocks));
    }
    if cli.dry_run {
        return Ok(());
    }
    disk.grow_file(bytes).context("cannot extend the file")?;
    if !cli.no_discard {
        // Advice: a device that cannot discard is fine.
        let _ = disk.discard(0, disk.blocks());
    }
    probe::wipe_foreign(disk.file(), disk.bytes()).context("cannot write")?;
    let options = FormatOptions {
        uuid,
        label: cli.label,
        blocks,
        root_owner: cli.root_owner,
    };
    format(disk.device(), &options).map_err(|e| anyhow!("{} ({:?})", e.reason, e.error))
}
