// SPDX-License-Identifier: GPL-2.0

//! `fsck.ordofs`: checks and repairs an OrdoFS, with the options and exit codes of fsck(8).
//!
//! The device is opened once, exclusively, and stays open to the end, so it cannot be mounted in
//! between. With `-n` a mounted device is checked, too, in its present state.
//!
//! Only `--repair` and `-y` repair damage ([`ordofs_fsck::repair`]).
//!
//! Tests: `tools/fsck/tests/exit_status.rs`, `tools/fsck/tests/repair.rs`,
//! `tests/vm/t/033-tools-on-mounted.sh`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use ordofs_cli::{complain, say};
use ordofs_engine::engine::format::superblock::STATE_REPAIR;
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::log::replayed::Replayed;
use ordofs_engine::engine::{Fs, MountOptions};
use ordofs_engine::os::file::{FileDisk, Open};
use ordofs_engine::os::Device;
use ordofs_fsck::repair::undo::{self, Saving, Shared, Undo};
use ordofs_fsck::repair::{self, rescue, say_replayed};
use ordofs_fsck::{check, describe, Options, Overlay, Report};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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
    about = "Check and repair an OrdoFS filesystem",
    after_help = "Exit status: 0 no errors, 1 errors corrected, 4 errors left, 8 operational error, 16 usage.\n\
        Without -n, fsck.ordofs finishes what a crash left unfinished (log, orphans, truncations), as a mount does;\n\
        with -n it does so in memory only, and checks the outcome.\n\
        A mounted device is checked only with -n, in its present state, and may look damaged.\n\
        If the report cannot be written, 8 is added to the status.\n\
        Damaged metadata is only reported, unless --repair or -y is given. A repair writes into free blocks, and a new\n\
        superblock at the end. With --undo it can be taken back, as long as the filesystem has not been mounted since."
)]
struct Cli {
    /// Change nothing; with --repair, say what a repair would do
    #[arg(short = 'n', conflicts_with_all = ["yes", "auto", "preen"])]
    no: bool,
    /// The same as --repair
    #[arg(short = 'y')]
    yes: bool,
    /// Build anew what is damaged, from what is intact
    #[arg(long, conflicts_with_all = ["auto", "preen"])]
    repair: bool,
    /// Save what is overwritten in FILE, which must not exist, and not be on the device
    #[arg(long, value_name = "FILE", conflicts_with = "no")]
    undo: Option<PathBuf>,
    /// Write back what --undo saved in FILE, and do nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no", "yes", "auto", "preen", "repair", "undo"])]
    undo_from: Option<PathBuf>,
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
fn recover(dev: Device, how: MountOptions) -> Result<Replayed, String> {
    let fs = Fs::mount(dev, how).map_err(|e| describe(&e))?;
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

/// An opened device, and what is to be done with it.
struct Run<'a> {
    cli: &'a Cli,
    disk: &'a FileDisk,
    options: Options,
}

/// Does what the options say. Returns the exit status.
fn run(cli: &Cli) -> Result<u8, String> {
    let disk = open(cli)?;
    let run = Run {
        cli,
        disk: &disk,
        options: Options { data: cli.data },
    };
    match (&cli.undo_from, cli.repair || cli.yes) {
        (Some(file), _) => run.undo(file),
        (None, false) => run.check(),
        (None, true) => run.repair(),
    }
}

impl Run<'_> {
    fn device(&self) -> Result<Device, String> {
        match self.disk.try_clone() {
            Ok(again) => Ok(again.device()),
            Err(e) => Err(format!("cannot open again: {e}")),
        }
    }

    fn say(&self, what: impl std::fmt::Display) {
        say!("{}: {what}", self.cli.device.display());
    }

    fn judge(&self) -> Result<Report, String> {
        check(self.device()?, self.options).map_err(|e| describe(&e))
    }

    /// Checks the device, tries the recovery in memory, then does it for good unless `-n` forbids
    /// that. Returns the exit status.
    fn check(&self) -> Result<u8, String> {
        let report = self.judge()?;
        if !report.is_clean() {
            print(self.cli, &report);
            return Ok(ERRORS_LEFT);
        }
        self.finish(&report, &mut |why| {
            print(self.cli, &report);
            self.say(format_args!("recovery fails: {why}"));
            Ok(ERRORS_LEFT)
        })
    }

    /// Does what the next mount would do, first in memory. `fails` is called if that is impossible.
    fn finish(
        &self,
        report: &Report,
        fails: &mut dyn FnMut(String) -> Result<u8, String>,
    ) -> Result<u8, String> {
        let (cli, trial) = (self.cli, Overlay::new(self.device()?));
        let log = match recover(trial.device(), MountOptions::default()) {
            Ok(log) => log,
            Err(why) => return fails(why),
        };
        if let Some(end) = log_end(&log) {
            self.say(end);
        }
        if !trial.changed() {
            print(cli, report);
            return Ok(CLEAN);
        }
        let after = check(trial.device(), self.options).map_err(|e| describe(&e))?;
        for p in &report.mendable {
            self.say(format_args!("{p}; the next mount mends it"));
        }
        if !after.is_clean() && (cli.repair || cli.yes) {
            print(cli, &after);
            return fails("the state after it is damaged".into());
        }
        if cli.no || !after.is_clean() {
            self.say("the next mount has work to do; the state after it:");
            print(cli, &after);
            let good = after.is_clean() && report.mendable.is_empty();
            return Ok(if good { CLEAN } else { ERRORS_LEFT });
        }
        if !self.disk.is_writable() {
            return Err("a mount has work to do, but the device cannot be written".into());
        }
        let saving = self.saving()?;
        recover(saving.device(), MountOptions::default())?;
        saving.finish()?;
        self.say("finished the work of the next mount: log, removals, truncations, superblocks");
        self.verdict()
    }

    /// Checks once more what has been written.
    fn verdict(&self) -> Result<u8, String> {
        let report = self.judge()?;
        print(self.cli, &report);
        Ok(if report.is_clean() {
            CORRECTED
        } else {
            ERRORS_LEFT
        })
    }

    /// Repairs the filesystem if it is damaged. Returns the exit status.
    fn repair(&self) -> Result<u8, String> {
        // Data that is damaged is no reason to build anything anew: there is nothing to build it from.
        let structure = check(self.device()?, Options::default());
        let good = structure.as_ref().is_ok_and(Report::is_clean);
        if good && Superblock::read(&self.device()?).is_ok_and(|sb| sb.state & STATE_REPAIR != 0) {
            self.say("damage was found on the mounted filesystem");
            return self.rebuild();
        }
        if good && self.options.data {
            let report = self.judge()?;
            if !report.is_clean() {
                print(self.cli, &report);
                self.say("data that is damaged cannot be repaired");
                return Ok(ERRORS_LEFT);
            }
        }
        match structure {
            Ok(report) if report.is_clean() => self.finish(&report, &mut |why| {
                self.say(format_args!("recovery fails: {why}"));
                self.rebuild()
            }),
            Ok(report) => {
                print(self.cli, &report);
                self.rebuild()
            }
            Err(e) => {
                self.say(describe(&e));
                self.rebuild()
            }
        }
    }

    /// Builds anew what is damaged.
    fn rebuild(&self) -> Result<u8, String> {
        let plan = match repair::plan(self.device()?) {
            Ok(plan) => plan,
            Err(why) => {
                self.say(format_args!(
                    "cannot be repaired, nothing was written: {why}"
                ));
                return Ok(ERRORS_LEFT);
            }
        };
        for line in &plan.said {
            self.say(line);
        }
        if self.cli.no {
            self.say("this is what a repair would do; nothing was written");
            return Ok(ERRORS_LEFT);
        }
        if !self.disk.is_writable() {
            return Err("the device cannot be written".into());
        }
        let saving = self.saving_for(plan.superblock())?;
        for line in repair::apply(&plan, &saving.device())? {
            self.say(line);
        }
        let log = recover(saving.device(), rescue())?;
        saving.finish()?;
        let mut said = Vec::new();
        say_replayed(&log, &mut said);
        said.iter().for_each(|line| self.say(line));
        self.say("repaired; the filesystem now:");
        self.verdict()
    }

    /// Writes back what an undo file has.
    fn undo(&self, file: &Path) -> Result<u8, String> {
        if !self.disk.is_writable() {
            return Err("the device cannot be written".into());
        }
        let done = undo::restore(file, &self.device()?)?;
        self.say(format_args!(
            "{} blocks have their old content again",
            done.blocks
        ));
        if done.unread > 0 {
            self.say(format_args!(
                "{} blocks could not be read before the repair, and stay as they are",
                done.unread
            ));
        }
        if done.cut_off {
            self.say("the undo file ends where the repair was cut off");
        }
        Ok(CORRECTED)
    }

    /// The device for writing, which saves what it overwrites if `--undo` says so.
    fn saving(&self) -> Result<Shared, String> {
        let sb = Superblock::read(&self.device()?).map_err(|e| e.reason.to_owned())?;
        self.saving_for(&sb)
    }

    /// As [`Self::saving`], for the filesystem with this superblock.
    fn saving_for(&self, sb: &Superblock) -> Result<Shared, String> {
        let device = self.device()?;
        let undo = match &self.cli.undo {
            None => None,
            Some(path) => {
                elsewhere(path, &self.cli.device)?;
                let made = Undo::create(path, device.blocks(), sb);
                Some(made.map_err(|e| format!("undo file {}: {e}", path.display()))?)
            }
        };
        Ok(Shared::new(Saving::new(device, undo)))
    }
}

/// Refuses an undo file that is on the device itself.
fn elsewhere(undo: &Path, device: &Path) -> Result<(), String> {
    let dir = match undo.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let failed = |e: io::Error| format!("undo file {}: {e}", undo.display());
    let (dir, device) = (
        std::fs::metadata(dir).map_err(failed)?,
        std::fs::metadata(device).map_err(failed)?,
    );
    match dir.dev() == device.rdev() && device.rdev() != 0 {
        true => Err("the undo file must not be on the device itself".into()),
        false => Ok(()),
    }
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
