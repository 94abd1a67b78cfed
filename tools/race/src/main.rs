// SPDX-License-Identifier: GPL-2.0

//! `ordofs-race`: races page faults against everything else that touches the pages of a file, and
//! checks every byte.
//!
//! | module | what is in it |
//! |---|---|
//! | [`plan`] | the phases; which worker works where in a file |
//! | [`worker`] | what the workers do |
//! | [`table`] | what must be in the file |
//! | [`stamp`], [`check`] | self-describing data, and the errors found in it |
//! | [`round`], [`manifest`] | one round; the check after a remount |
//!
//! Tests: tests/vm/t/065-race.sh runs it; `check` and `stamp` have tests of their own.

mod check;
mod manifest;
mod mapping;
mod plan;
mod round;
mod shm;
mod stamp;
mod sys;
mod table;
mod worker;

use anyhow::{bail, Context, Result};
use clap::{Args, Parser, Subcommand};
use fastrand::Rng;
use manifest::Manifest;
use plan::{Phase, Plan, Role, PHASES};
use round::Flavour;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use sys::{Falloc, PAGE};
use table::OPS;

#[derive(Parser)]
#[command(
    version,
    about = "Races page faults against writes, direct I/O, layout changes and syncs, and checks every byte",
    after_help = "Exit status: 0 all data is right, 1 wrong data or a failed operation, 2 the test could not run.\n\
        Check after a remount: ordofs-race DIR; umount; mount; ordofs-race verify DIR",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<Run>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the phases in a directory; the same as without a command
    Run(Run),
    /// Check the files that `run` left in a directory, after a remount
    Verify {
        /// The directory that was given to `run`
        dir: PathBuf,
    },
    /// List the phases
    List,
}

#[derive(Args)]
struct Run {
    /// Directory on the filesystem under test
    dir: PathBuf,
    /// Only these phases (may be repeated; see `list`)
    #[arg(short, long = "phase", value_name = "NAME")]
    phases: Vec<String>,
    /// Only threads or only processes
    #[arg(short, long, value_enum)]
    flavour: Option<Flavour>,
    /// Seconds for each phase, divided among its variants (threads and processes, holes and
    /// preallocated files)
    #[arg(short, long, default_value_t = 10)]
    seconds: u64,
    /// Size of a file, e.g. 8M; direct I/O next to cached I/O is told apart best with 8M or more
    #[arg(long, default_value = "8M", value_parser = parse_size)]
    size: u64,
    /// Writers at the same time
    #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    writers: u8,
    /// Seed of the pseudo-random choices (default: from the clock)
    #[arg(long)]
    seed: Option<u64>,
    /// Remove the files at the end: no check after a remount
    #[arg(long)]
    cleanup: bool,
}

fn parse_size(s: &str) -> Result<u64, String> {
    let (digits, shift) = match s.trim_end_matches(|c: char| c.is_ascii_alphabetic()) {
        d if d.len() == s.len() => (d, 0),
        d => match s[d.len()..].to_ascii_lowercase().as_str() {
            "k" | "kib" => (d, 10),
            "m" | "mib" => (d, 20),
            "g" | "gib" => (d, 30),
            u => return Err(format!("unknown unit '{u}' (k, m or g)")),
        },
    };
    let n: u64 = digits
        .parse()
        .map_err(|_| format!("'{digits}' is not a number"))?;
    let bytes = n.checked_mul(1 << shift).ok_or("too large")?;
    if !(64 * PAGE as u64..=1 << 32).contains(&bytes) {
        return Err("must be between 256K and 4G".into());
    }
    Ok(bytes / PAGE as u64 * PAGE as u64)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match (cli.command, cli.run) {
        (Some(Command::Run(opts)), _) | (None, Some(opts)) => run(&opts),
        (None, None) => Err(anyhow::anyhow!("no directory given; see --help")),
        (Some(Command::Verify { dir }), _) => verify(&dir),
        (Some(Command::List), _) => {
            for p in PHASES {
                ordofs_cli::say!("{:<15} {}", p.name, p.about);
            }
            Ok(true)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            ordofs_cli::complain!("ordofs-race: {e:#}");
            ExitCode::from(2)
        }
    }
}

/// What the filesystem under test can do.
struct Support {
    direct: bool,
    reserve: bool,
    punch: bool,
    zero: bool,
}

impl Support {
    fn probe(dir: &Path) -> Result<Self> {
        Ok(Self {
            direct: sys::direct_works(dir)?,
            reserve: sys::falloc_works(dir, Falloc::Reserve)?,
            punch: sys::falloc_works(dir, Falloc::Punch)?,
            zero: sys::falloc_works(dir, Falloc::Zero)?,
        })
    }

    /// What `phase` needs and the filesystem lacks.
    fn missing(&self, phase: &Phase) -> Option<&'static str> {
        let needs = [
            (Role::Direct, self.direct, "O_DIRECT"),
            (Role::Punch, self.punch, "FALLOC_FL_PUNCH_HOLE"),
            (Role::Zero, self.zero, "FALLOC_FL_ZERO_RANGE"),
            (Role::Falloc, self.reserve, "fallocate"),
        ];
        needs
            .iter()
            .find(|(role, ok, _)| phase.has(*role) && !ok)
            .map(|(_, _, what)| *what)
    }
}

/// Stamps free space and frees it again, so that a stale block is recognised as that of another
/// file.
fn stain(dir: &Path, bytes: u64, id: u32) -> Result<()> {
    let path = dir.join("ordofs-race.stain");
    let write = || -> Result<()> {
        use std::os::unix::fs::FileExt;
        let file = sys::open(&path, true, false)?;
        let mut buf = vec![0; 1 << 20];
        for at in (0..bytes).step_by(buf.len()) {
            stamp::fill(&mut buf, id, u16::MAX, at, 1);
            file.write_all_at(&buf, at)?;
        }
        Ok(file.sync_all()?)
    };
    let r = write().with_context(|| format!("cannot write {}", path.display()));
    let _ = std::fs::remove_file(&path);
    r
}

fn run(o: &Run) -> Result<bool> {
    let phases: Vec<&Phase> = if o.phases.is_empty() {
        PHASES.iter().collect()
    } else {
        let find = |n: &String| {
            PHASES
                .iter()
                .find(|p| p.name == n)
                .with_context(|| format!("no phase '{n}'; see `ordofs-race list`"))
        };
        o.phases.iter().map(find).collect::<Result<_>>()?
    };
    if !o.dir.is_dir() {
        bail!("{} is not a directory", o.dir.display());
    }
    sys::report_sigbus();
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = o
        .seed
        .unwrap_or_else(|| clock.map_or(1, |d| d.as_nanos() as u64));
    let mut rng = Rng::with_seed(seed);
    let support = Support::probe(&o.dir)?;
    ordofs_cli::say!(
        "ordofs-race: {} | {} writers, files of {} KiB, {} s per phase | seed {seed}",
        o.dir.display(),
        o.writers,
        o.size / 1024,
        o.seconds
    );
    stain(&o.dir, 2 * o.size, rng.u64(..) as u32)?;
    let mut manifest = Manifest::new();
    let mut good = true;
    let flavours = match o.flavour {
        Some(f) => vec![f],
        None => vec![Flavour::Thread, Flavour::Process],
    };
    for phase in phases {
        if let Some(what) = support.missing(phase) {
            ordofs_cli::say!("{:<15} skipped: no {what} here", phase.name);
            continue;
        }
        for flavour in &flavours {
            for prealloc in [false, true] {
                if prealloc && !support.reserve {
                    ordofs_cli::say!(
                        "{:<15} {:<7} prealloc skipped: no fallocate here",
                        phase.name,
                        flavour.name()
                    );
                    continue;
                }
                good &= variant(
                    o,
                    phase,
                    *flavour,
                    prealloc,
                    support.direct,
                    &mut rng,
                    &mut manifest,
                )?;
            }
        }
    }
    if !o.cleanup {
        manifest.save(&o.dir)?;
    }
    ordofs_cli::say!(
        "ordofs-race: {}",
        if good {
            "all data is right"
        } else {
            "WRONG DATA OR FAILURES, see above"
        }
    );
    Ok(good)
}

/// Rounds of one phase in one flavour, until the time is over. The last file is kept.
fn variant(
    o: &Run,
    phase: &Phase,
    flavour: Flavour,
    prealloc: bool,
    direct: bool,
    rng: &mut Rng,
    manifest: &mut Manifest,
) -> Result<bool> {
    let kind = if prealloc { "prealloc" } else { "hole" };
    let path = o
        .dir
        .join(format!("race.{}.{}.{kind}", phase.name, flavour.name()));
    let begin = Instant::now();
    let variants = if o.flavour.is_some() { 2 } else { 4 };
    let deadline = begin + Duration::from_secs(o.seconds) / variants;
    let (mut rounds, mut bad, mut failed) = (0u64, 0, false);
    let mut counts = [0u64; OPS.len()];
    let last = loop {
        let _ = std::fs::remove_file(&path);
        let plan = Plan::new(phase, o.writers.into(), o.size / PAGE as u64, prealloc, rng);
        let out = round::run(&path, &plan, flavour, rounds % 2 == 0, deadline)
            .with_context(|| format!("{} {} {kind}, round {rounds}", phase.name, flavour.name()))?;
        rounds += 1;
        bad += out.bad;
        failed |= out.failed;
        counts.iter_mut().zip(out.counts).for_each(|(a, b)| *a += b);
        if bad > 0 || failed || Instant::now() >= deadline {
            break plan;
        }
    };
    let ops: Vec<String> = OPS
        .iter()
        .zip(counts)
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    let good = bad == 0 && !failed;
    ordofs_cli::say!(
        "{:<15} {:<7} {kind:<8} {} {rounds:>4} rounds {:>5.1} s  {}",
        phase.name,
        flavour.name(),
        if good { "ok  " } else { "FAIL" },
        begin.elapsed().as_secs_f64(),
        ops.join(", ")
    );
    if !good {
        ordofs_cli::complain!(
            "{} {} {kind}: {bad} bad units{}; file kept: {}",
            phase.name,
            flavour.name(),
            if failed { ", a worker failed" } else { "" },
            path.display()
        );
    } else if o.cleanup {
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    } else {
        manifest.add(&path, &last, direct)?;
    }
    Ok(good)
}

fn verify(dir: &Path) -> Result<bool> {
    let manifest = Manifest::load(dir)?;
    let mut bad = 0;
    let together = std::thread::available_parallelism().map_or(1, |n| n.get());
    for files in manifest.files.chunks(together) {
        let found: Vec<_> = std::thread::scope(|s| {
            let all: Vec<_> = files
                .iter()
                .map(|e| s.spawn(|| manifest::verify(dir, e)))
                .collect();
            all.into_iter().map(|t| t.join()).collect()
        });
        for (e, n) in files.iter().zip(found) {
            let n = n.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            let verdict = if n == 0 { "ok" } else { "FAIL" };
            ordofs_cli::say!("{:<40} {} pages {verdict}", e.name, e.pages.len());
            bad += n;
        }
    }
    ordofs_cli::say!(
        "ordofs-race: {} files, {bad} pages differ",
        manifest.files.len()
    );
    Ok(bad == 0)
}
