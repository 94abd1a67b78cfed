// SPDX-License-Identifier: GPL-2.0

//! `ordofs-crash`: the command-line program of the crash simulator; the library says what it does.

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use ordofs_crash::bases::Bases;
use ordofs_crash::engine::mutant::{Mutant, ALL};
use ordofs_crash::run::{run, Effort, Violation};
use ordofs_crash::workload::{Plan, Workload};
use std::collections::{HashMap, HashSet};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

#[derive(Parser)]
#[command(
    name = "ordofs-crash",
    version,
    about = "Cut the power of an OrdoFS at every point and see what is left"
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Common {
    /// Seed of the random choices
    #[arg(long, default_value_t = 1, global = true)]
    seed: u64,
    /// Sampled workloads, beside all sequences of length 1 and 2
    #[arg(short = 'n', long, default_value_t = 24_000, global = true)]
    sampled: u64,
    /// The most crash states of one workload
    #[arg(long, default_value_t = 120, global = true)]
    states: usize,
    /// Mount every N-th state read-only too, and interrupt its recovery
    #[arg(long, value_name = "N", default_value_t = 16, global = true)]
    deep: usize,
    /// Threads
    #[arg(short, long, global = true)]
    jobs: Option<usize>,
    /// Stop after this many seconds
    #[arg(long, global = true)]
    seconds: Option<u64>,
    /// Run only this workload
    #[arg(long, global = true)]
    workload: Option<u64>,
    /// Check only this state of it
    #[arg(long, global = true, requires = "workload")]
    state: Option<usize>,
    /// Take this protection of the engine away
    #[arg(long, global = true)]
    mutant: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Show that the simulator notices when a protection is missing, for example of the log, of
    /// attributes or of resizes
    Mutants {
        /// Give up after this many states for each mutant
        #[arg(long, default_value_t = 300_000)]
        limit: u64,
    },
}

/// A workload takes milliseconds. One that has not ended after this time never will.
const STUCK: Duration = Duration::from_secs(120);

/// One run of the simulator, shared by its threads.
struct Run<'a> {
    bases: &'a Bases,
    plan: &'a Plan,
    effort: Effort,
    mutant: Option<Mutant>,
    only: Option<usize>,
    /// The next workload, in the order in which they are tried.
    next: AtomicU64,
    last: u64,
    shuffle: bool,
    /// Stop after this many states.
    limit: u64,
    /// Stop at this time.
    until: Option<Instant>,
    states: AtomicU64,
    recoveries: AtomicU64,
    damaged: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
    images: Mutex<HashSet<u64>>,
    found: Mutex<Option<(u64, Violation)>>,
}

impl Run<'_> {
    /// Runs workloads until none is left or one violates a promise.
    fn work(&self, bar: &ProgressBar, starts: impl Fn(u64)) {
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            if n >= self.last || self.stop.load(Ordering::Relaxed) {
                return;
            }
            // A fixed permutation, so that the first workloads are a fair sample of all.
            let number = match self.shuffle {
                true => (n.wrapping_mul(0x9e37_79b1)) % self.plan.len(),
                false => n,
            };
            starts(number);
            let w = self.plan.workload(number);
            let out = run(self.bases, &w, self.effort, self.mutant, self.only);
            let states = self.states.fetch_add(out.states, Ordering::Relaxed) + out.states;
            self.recoveries.fetch_add(out.recoveries, Ordering::Relaxed);
            self.damaged.fetch_add(out.damaged.0, Ordering::Relaxed);
            self.refused.fetch_add(out.damaged.1, Ordering::Relaxed);
            lock(&self.images).extend(out.images);
            if let Some(v) = out.violation {
                lock(&self.found).get_or_insert((number, v));
                self.stop.store(true, Ordering::Relaxed);
            }
            if states >= self.limit || self.until.is_some_and(|t| Instant::now() > t) {
                self.stop.store(true, Ordering::Relaxed);
            }
            bar.inc(1);
            bar.set_message(format!("{states} states"));
        }
    }
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The simulator damages states on purpose, so the engine's messages are of no use. Panics are
    // reported as violations.
    kernel::print::set_level(kernel::print::SILENT);
    std::panic::set_hook(Box::new(|_| ()));
    match simulate(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("ordofs-crash: {e}");
            ExitCode::from(2)
        }
    }
}

fn named(name: &str) -> Result<Mutant, String> {
    let found = ALL.iter().find(|m| m.1 == name).map(|m| m.0);
    found.ok_or_else(|| format!("unknown mutant {name}"))
}

fn simulate(cli: &Cli) -> Result<bool, String> {
    let bases = Bases::new()?;
    let plan = Plan::new(cli.common.seed, cli.common.sampled);
    match &cli.command {
        Some(Command::Mutants { limit }) => mutants(cli, &bases, &plan, *limit),
        None => {
            let m = cli.common.mutant.as_deref().map(named).transpose()?;
            if let (Some(n), Some(_)) = (cli.common.workload, cli.common.state) {
                println!("{}", plan.workload(n));
            }
            Ok(all(cli, &bases, &plan, m))
        }
    }
}

fn make<'a>(cli: &Cli, bases: &'a Bases, plan: &'a Plan, mutant: Option<Mutant>) -> Run<'a> {
    let one = cli.common.workload;
    Run {
        bases,
        plan,
        effort: Effort {
            states: cli.common.states,
            deep: cli.common.deep,
        },
        mutant,
        only: cli.common.state,
        next: AtomicU64::new(one.unwrap_or(0)),
        last: one.map_or(plan.len(), |n| n + 1),
        shuffle: one.is_none(),
        limit: u64::MAX,
        until: cli
            .common
            .seconds
            .map(|s| Instant::now() + Duration::from_secs(s)),
        states: AtomicU64::new(0),
        recoveries: AtomicU64::new(0),
        damaged: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        images: Mutex::new(HashSet::new()),
        found: Mutex::new(None),
    }
}

fn jobs(cli: &Cli) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    cli.common.jobs.unwrap_or(cpus).max(1)
}

fn go(cli: &Cli, r: &Run<'_>) {
    let bar = ProgressBar::new(r.last - r.next.load(Ordering::Relaxed));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} workloads, {msg}, {eta}")
    {
        bar.set_style(style);
    }
    let ends: Vec<AtomicBool> = (0..jobs(cli)).map(|_| AtomicBool::new(false)).collect();
    let under_way: Mutex<HashMap<usize, (u64, Instant)>> = Mutex::default();
    std::thread::scope(|s| {
        for (thread, ended) in ends.iter().enumerate() {
            let (under_way, bar) = (&under_way, &bar);
            s.spawn(move || {
                r.work(bar, |workload| {
                    lock(under_way).insert(thread, (workload, Instant::now()));
                });
                lock(under_way).remove(&thread);
                ended.store(true, Ordering::Release);
            });
        }
        while !ends.iter().all(|e| e.load(Ordering::Acquire)) {
            std::thread::sleep(Duration::from_millis(50));
            if let Some((n, _)) = lock(&under_way).values().find(|(_, t)| t.elapsed() > STUCK) {
                stuck(cli, *n);
            }
        }
    });
    bar.finish_and_clear();
}

/// Reports a workload that does not end as a violation, and exits, because its threads cannot be
/// stopped.
fn stuck(cli: &Cli, number: u64) -> ! {
    let v = Violation {
        state: None,
        what: "the workload".to_owned(),
        text: format!("it has not ended after {} s", STUCK.as_secs()),
    };
    let plan = Plan::new(cli.common.seed, cli.common.sampled);
    show(cli, number, &plan.workload(number), &v);
    std::process::exit(1)
}

fn show(cli: &Cli, number: u64, w: &Workload, v: &Violation) {
    println!("VIOLATION in workload {number}");
    println!("  {w}");
    println!("  {}", v.what);
    println!("  {}", v.text);
    let c = &cli.common;
    let state = v.state.map_or(String::new(), |s| format!(" --state {s}"));
    println!(
        "  reproduce: ordofs-crash --seed {} --sampled {} --states {} --deep {} --workload {number}{state}",
        c.seed, c.sampled, c.states, c.deep
    );
}

fn all(cli: &Cli, bases: &Bases, plan: &Plan, mutant: Option<Mutant>) -> bool {
    let r = make(cli, bases, plan, mutant);
    let start = Instant::now();
    go(cli, &r);
    let done = r.next.load(Ordering::Relaxed).min(r.last);
    if done < r.last {
        println!("stopped after {done} of {} workloads", r.last);
    }
    let seconds = start.elapsed().as_secs_f64();
    let states = r.states.load(Ordering::Relaxed);
    if cli.common.workload.is_none() {
        println!(
            "sequences: {} of length 1, {} of length 2 (each with two ends), {} sampled; seed {}",
            plan.sequences(1),
            plan.sequences(2),
            plan.sampled,
            cli.common.seed
        );
    }
    println!(
        "{states} crash states, {} distinct media, {} interrupted recoveries; {seconds:.0} s, {:.0} states/s",
        lock(&r.images).len(),
        r.recoveries.load(Ordering::Relaxed),
        states as f64 / seconds.max(0.001)
    );
    println!(
        "{} states damaged; the mount refused to write to {} of them",
        r.damaged.load(Ordering::Relaxed),
        r.refused.load(Ordering::Relaxed)
    );
    let found = lock(&r.found).take();
    if let Some((number, v)) = &found {
        show(cli, *number, &plan.workload(*number), v);
    } else {
        println!("no state violates docs/GUARANTEES.md");
    }
    found.is_none()
}

/// Runs the mutants of the log, of truncation, attributes, inode records, superblocks, trims and resizes,
/// each until it is caught.
fn mutants(cli: &Cli, bases: &Bases, plan: &Plan, limit: u64) -> Result<bool, String> {
    let mut good = true;
    let wanted = ALL.iter().filter(|m| match &cli.common.mutant {
        Some(name) => m.1 == name,
        None => [
            "Log",
            "Damage",
            "LeftBehind",
            "AttrsEarly",
            "NewGeneration",
            "ChangeBack",
            "CutForgotten",
            "OneCopy",
            "NodeOneCopy",
            "CleanStays",
            "TrimFreed",
            "GrowOldBackup",
            "Shrink",
        ]
        .iter()
        .any(|n| m.1.starts_with(n)),
    });
    for (m, name, what) in wanted {
        let mut r = make(cli, bases, plan, Some(*m));
        r.limit = limit;
        go(cli, &r);
        let states = r.states.load(Ordering::Relaxed);
        let found = lock(&r.found).take();
        match found {
            Some((number, v)) => {
                println!("{name} ({what}): caught after {states} states");
                println!("    {}", plan.workload(number));
                println!("    {}", v.what);
                println!("    {}", v.text.lines().next().unwrap_or(""));
            }
            None => {
                println!("{name} ({what}): NOT CAUGHT in {states} states");
                good = false;
            }
        }
    }
    Ok(good)
}
