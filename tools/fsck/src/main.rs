// SPDX-License-Identifier: GPL-2.0

//! `fsck.ordofs`: checks an OrdoFS, with the options and exit codes of fsck(8).
//!
//! The device is opened once, exclusively, and stays open to the end, so it cannot be mounted in
//! between. With `-n` a mounted device is checked, too, in its present state.
//!
//! Tests: `tools/fsck/tests/exit_status.rs`, `tests/vm/t/033-tools-on-mounted.sh`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use ordofs_cli::{complain, say};
use ordofs_engine::engine::log::replayed::Replayed;
use ordofs_engine::engine::{Fs, MountOptions};
use ordofs_engine::os::file::{FileDisk, Open};
use ordofs_engine::os::Device;
use ordofs_fsck::{check, describe, Options, Overlay, Report};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit status: no errors.
const CLEAN: u8 = 0;
/// Exit status: errors were corrected.
const CORRECTED: u8 = 1;
/// Exit status: errors are left.
const ERRORS_LEFT: u8 = 4;
/// Exit status: the check could not be carried out, or its report could not be written.
const OPERATIONAL: u8 = 8;
/// Exit status: wrong arguments.
const USAGE: u8 = 16;

#[derive(Parser)]
#[command(
    name = "fsck.ordofs",
    version,
    about = "Check an OrdoFS filesystem",
    after_help = "Exit status: 0 no errors, 1 errors corrected, 4 errors left, 8 operational error, 16 usage.\n\
        Without -n, fsck.ordofs finishes what a crash left unfinished (log, orphans, truncations), as a mount does;\n\
        with -n it does so in memory only, and checks the outcome.\n\
        A mounted device is checked only with -n, in its present state, and may look damaged.\n\
        If the report cannot be written, 8 is added to the status.\n\
        Damaged metadata is reported, not repaired: restore from a backup."
)]
struct Cli {
    /// Change nothing
    #[arg(short = 'n', conflicts_with_all = ["yes", "auto", "preen"])]
    no: bool,
    /// Do all that can be done without asking
    #[arg(short = 'y')]
    yes: bool,
    /// The same as -p
    #[arg(short = 'a')]
    auto: bool,
    /// Do what is safe without asking
    #[arg(short = 'p')]
    preen: bool,
    /// Check even if the filesystem seems clean (it always is checked)
    #[arg(short = 'f', long)]
    force: bool,
    /// Say more
    #[arg(short, long)]
    verbose: bool,
    /// Read all data and compare it with its checksums
    #[arg(long)]
    data: bool,
    /// Progress information for fsck(8): accepted, without effect
    #[arg(short = 'C', value_name = "FD", num_args = 0..=1, require_equals = true, hide = true)]
    progress: Option<Option<String>>,
    /// Block device or image file
    device: PathBuf,
}

fn main() -> ExitCode {
    // fsck(8) would decode a panic's own status, 101, as four errors.
    ordofs_cli::run(OPERATIONAL, || {
        let cli = match Cli::try_parse() {
            Ok(c) => c,
            Err(e) => {
                let _ = e.print();
                return if e.use_stderr() { USAGE } else { CLEAN };
            }
        };
        // The engine prints messages that name the damage. They belong to the report.
        let status = run(&cli).unwrap_or_else(|e| {
            complain!("fsck.ordofs: {}: {e}", cli.device.display());
            OPERATIONAL
        });
        match ordofs_cli::output_error() {
            None => status,
            Some(e) => {
                complain!(
                    "fsck.ordofs: {}: standard output: {e}",
                    cli.device.display()
                );
                status | OPERATIONAL
            }
        }
    })
}

/// Opens the device, for writing only if that may be needed and is possible.
fn open(cli: &Cli) -> Result<FileDisk, String> {
    let open = |write, exclusive| FileDisk::open(&cli.device, Open { write, exclusive });
    let mut disk = open(!cli.no, true);
    if disk.as_ref().is_err_and(is_read_only) {
        disk = open(false, true);
    }
    match disk {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            if !cli.no {
                return Err("is mounted or in use; only -n is possible".into());
            }
            disk = open(false, false);
            complain!(
                "fsck.ordofs: {}: is mounted or in use; the report may be meaningless",
                cli.device.display()
            );
        }
        _ => {}
    }
    disk.map_err(|e| format!("cannot open: {e}"))
}

fn is_read_only(e: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(e.kind(), PermissionDenied | ReadOnlyFilesystem)
}

/// Mounts and unmounts, which replays the log and finishes what a crash left unfinished. Returns
/// the report of the replay.
fn recover(dev: Device) -> Result<Replayed, String> {
    let fs = Fs::mount(dev, MountOptions::default()).map_err(|e| describe(&e))?;
    let log = fs.replayed();
    fs.unmount().map_err(|e| format!("cannot write: {e:?}"))?;
    Ok(log)
}

/// Describes the end of the log, if it is not as usual.
fn log_end(log: &Replayed) -> Option<String> {
    let n = log.batches;
    if let Some(seq) = log.damaged {
        return Some(format!(
            "the log ends after {n} batches: number {seq} is cut off or damaged, and is left out"
        ));
    }
    log.disbelieved.then(|| {
        format!("the log ends after {n} batches: the data of the next one is not there, and it is left out")
    })
}

/// Checks the device, tries the recovery in memory, then does it for good unless `-n` forbids that.
/// Returns the exit status.
fn run(cli: &Cli) -> Result<u8, String> {
    let name = cli.device.display();
    let options = Options { data: cli.data };
    let disk = open(cli)?;
    let device = || match disk.try_clone() {
        Ok(again) => Ok(again.device()),
        Err(e) => Err(format!("cannot open again: {e}")),
    };
    let report = check(device()?, options).map_err(|e| describe(&e))?;
    if !report.is_clean() {
        print(cli, &report);
        return Ok(ERRORS_LEFT);
    }
    // Try out in memory first what the next mount would do.
    let trial = Overlay::new(device()?);
    let log = match recover(trial.device()) {
        Ok(log) => log,
        Err(e) => {
            print(cli, &report);
            say!("{name}: recovery fails: {e}");
            return Ok(ERRORS_LEFT);
        }
    };
    if let Some(end) = log_end(&log) {
        say!("{name}: {end}");
    }
    if !trial.changed() {
        print(cli, &report);
        return Ok(CLEAN);
    }
    let after = check(trial.device(), options).map_err(|e| describe(&e))?;
    for p in &report.mendable {
        say!("{name}: {p}; the next mount mends it");
    }
    if cli.no || !after.is_clean() {
        say!("{name}: the next mount has work to do; the state after it:");
        print(cli, &after);
        let good = after.is_clean() && report.mendable.is_empty();
        return Ok(if good { CLEAN } else { ERRORS_LEFT });
    }
    if !disk.is_writable() {
        return Err("a mount has work to do, but the device cannot be written".into());
    }
    recover(device()?)?;
    say!("{name}: finished the work of the next mount: log, removals, truncations, superblocks");
    let report = check(device()?, options).map_err(|e| describe(&e))?;
    print(cli, &report);
    Ok(if report.is_clean() {
        CORRECTED
    } else {
        ERRORS_LEFT
    })
}

fn print(cli: &Cli, r: &Report) {
    let name = cli.device.display();
    for p in &r.problems {
        say!("{name}: {p}");
    }
    if r.count > r.problems.len() as u64 {
        say!(
            "{name}: {} more problems",
            r.count - r.problems.len() as u64
        );
    }
    let s = &r.stats;
    if cli.verbose {
        for n in &r.notes {
            say!("{name}: note: {n}");
        }
        say!(
            "{name}: generation {}, {} tree nodes, {} extents, {} xattrs, {} data blocks ({} read and compared), {} orphans",
            r.generation, s.nodes, s.extents, s.xattrs, s.data_blocks, s.verified_blocks, s.orphans
        );
    }
    let verdict = match r.count {
        0 => "clean".to_owned(),
        n => format!("{n} PROBLEMS"),
    };
    say!(
        "{name}: {verdict}, {} inodes ({} directories), {} of {} blocks used",
        s.inodes,
        s.directories,
        s.blocks - s.free_blocks.min(s.blocks),
        s.blocks
    );
}
