// SPDX-License-Identifier: GPL-2.0

//! `ordofs-bench`: runs workloads on several filesystems in turns, and counts what each costs.
//!
//! # Model
//!
//! A *measurement* is one workload on one filesystem in one round. It begins with a new filesystem,
//! so that no measurement depends on another one. The workload prepares its files; they are synced,
//! and for a cold workload the filesystem is unmounted and mounted again, with empty caches. Only
//! then the counters are read, the workload runs, and the counters are read again ([`counters`]).
//! Where a workload leaves work behind, a closing syncfs(2) is part of what is measured.
//!
//! In each round, all filesystems run the workload one after the other. Whatever else the machine
//! does meanwhile slows all of them alike.
//!
//! | module | what is in it |
//! |---|---|
//! | [`catalog`] | the workloads: names, sizes, which are cold |
//! | [`work`] | what they do |
//! | [`volume`] | making, mounting, crashing a filesystem |
//! | [`counters`] | the counters of the disk and of the CPUs; the cost of a workload |
//! | [`sample`] | the result of a measurement, as a line of JSON and as text |
//! | [`sys`] | system calls that `std` lacks |
//!
//! `make bench` runs this program in the VM (scripts/bench); tests/vm/bench/report.py makes the
//! table. Tests: tests/vm/t/075-bench.sh; `catalog`, `counters` and `volume` have tests of their
//! own.

mod catalog;
mod counters;
mod sample;
mod sys;
mod volume;
mod work;

use anyhow::{bail, ensure, Context, Result};
use catalog::Workload;
use clap::{Args, Parser, Subcommand};
use counters::{Meter, Snapshot};
use sample::Sample;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use volume::Volume;

#[derive(Parser)]
#[command(
    version,
    about = "Run workloads on several filesystems in turns, and count what each costs",
    after_help = "Exit status: 0 all workloads ran, 1 a workload failed, 2 nothing could run."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run workloads; the disks are formatted again and again
    Run(Run),
    /// List the workloads
    List,
    /// Write the counters to a file (fio runs this before and after its job)
    #[command(hide = true)]
    Snapshot {
        /// The disk, as in /sys/block
        disk: String,
        /// The file
        file: PathBuf,
    },
}

#[derive(Args)]
struct Run {
    /// A filesystem and its disk, as in ext4:/dev/vdc; may be repeated. Two may share a disk
    #[arg(long = "volume", value_name = "TYPE:DEVICE", required = true)]
    volumes: Vec<Volume>,
    /// Only the workloads with these names; * and ? are wildcards
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    only: Vec<String>,
    /// Rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Multiplies the number of operations of each workload
    #[arg(long, default_value_t = 1.0, value_parser = parse_scale)]
    scale: f64,
    /// Append each result to this file, as a line of JSON
    #[arg(long)]
    output: Option<PathBuf>,
}

fn parse_scale(s: &str) -> Result<f64, String> {
    match s.parse::<f64>() {
        Ok(scale) if scale.is_finite() && scale > 0.0 => Ok(scale),
        _ => Err("must be a number above 0".into()),
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(options) => run(&options),
        Command::List => {
            for w in catalog::ALL {
                ordofs_cli::say!("{:<26} {:>5}  {}", w.name, w.ops, w.about);
            }
            Ok(true)
        }
        Command::Snapshot { disk, file } => Snapshot::take(&disk)
            .and_then(|s| Ok(serde_json::to_writer(File::create(file)?, &s)?))
            .map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            ordofs_cli::complain!("ordofs-bench: {e:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs the chosen workloads; whether none has failed.
fn run(options: &Run) -> Result<bool> {
    let chosen: Vec<&Workload> = catalog::ALL
        .iter()
        .filter(|w| {
            options.only.is_empty() || options.only.iter().any(|p| catalog::matches(p, w.name))
        })
        .collect();
    ensure!(!chosen.is_empty(), "no workload has such a name; see list");
    let mut output = match &options.output {
        Some(path) => Some(
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("cannot write {}", path.display()))?,
        ),
        None => None,
    };
    let mut good = true;
    for workload in chosen {
        for round in 1..=options.rounds {
            for volume in &options.volumes {
                let ops = workload.scaled(options.scale);
                let mut sample = Sample::new(workload.name, volume.kind.name(), round, ops);
                match measure(workload, volume, ops) {
                    Ok(cost) => sample.cost = Some(cost),
                    Err(e) => {
                        sample.error = Some(format!("{e:#}"));
                        good = false;
                    }
                }
                ordofs_cli::say!("{sample}");
                if let Some(file) = &mut output {
                    writeln!(file, "{}", serde_json::to_string(&sample)?)?;
                }
            }
        }
    }
    Ok(good)
}

/// One measurement.
fn measure(workload: &Workload, volume: &Volume, ops: u64) -> Result<counters::Cost> {
    let mut meter = Meter::new(volume, workload.closes);
    let result = work::carry_out(workload, volume, ops, &mut meter);
    // A failed workload may have left the filesystem mounted or not, and a device on top of the disk.
    let tidied = volume.tidy();
    result?;
    tidied?;
    match meter.cost() {
        Some(cost) => Ok(cost),
        None => bail!("the workload measured nothing"),
    }
}
