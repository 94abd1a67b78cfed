// SPDX-License-Identifier: GPL-2.0

//! `ordofs-fuzz`: random recipes; the library says what they are.

use anyhow::{bail, Context, Result};
use clap::{Parser, Subcommand};
use ordofs_fuzz::base::{self, Base};
use ordofs_fuzz::judge::{changes, judge, kind, quiet, shrink};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

#[derive(Parser)]
#[command(
    name = "ordofs-fuzz",
    version,
    about = "Structure-aware fuzzing of OrdoFS images"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Try random recipes
    Run {
        /// How many
        #[arg(short = 'n', long, default_value_t = 100_000)]
        recipes: u64,
        /// Seed of the first one
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Threads
        #[arg(short, long)]
        jobs: Option<usize>,
        /// Directory for recipes that fail
        #[arg(long, default_value = ".")]
        save: PathBuf,
    },
    /// Try recipes from files
    Replay { files: Vec<PathBuf> },
    /// Write the image of a recipe, and say what was changed
    Image { recipe: PathBuf, image: PathBuf },
    /// Write images of random recipes, named by their seeds
    Images {
        /// How many
        #[arg(short = 'n', long, default_value_t = 1)]
        recipes: u64,
        /// Seed of the first one
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where to
        directory: PathBuf,
    },
}

/// An image that takes so long never ends.
const STUCK: Duration = Duration::from_secs(60);
/// The longest random recipe in bytes.
const LONGEST: usize = 96;

fn random(seed: u64) -> Vec<u8> {
    let mut r = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; r.usize(8..=LONGEST)];
    r.fill(&mut bytes);
    bytes
}

/// What the threads share.
struct Shared {
    next: AtomicU64,
    /// How often each outcome was.
    outcomes: Mutex<BTreeMap<String, u64>>,
    /// The first failure of each kind.
    failures: Mutex<BTreeMap<String, (u64, String)>>,
}

fn work(bases: &[Base], s: &Shared, end: u64, busy: &Mutex<Option<(u64, Instant)>>) {
    loop {
        let seed = s.next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            break;
        }
        let now = Some((seed, Instant::now()));
        *busy.lock().expect("no panic") = now;
        let Some(r) = judge(bases, &random(seed)) else {
            continue;
        };
        let name = match &r {
            Ok(how) => format!("{how:?}"),
            Err(_) => "Failed".to_owned(),
        };
        *s.outcomes
            .lock()
            .expect("no panic")
            .entry(name)
            .or_default() += 1;
        if let Err(text) = r {
            let mut all = s.failures.lock().expect("no panic");
            all.entry(kind(&text)).or_insert((seed, text));
        }
    }
    *busy.lock().expect("no panic") = None;
}

fn run(bases: &[Base], first: u64, recipes: u64, jobs: usize, save: PathBuf) -> Result<()> {
    let s = Shared {
        next: AtomicU64::new(first),
        outcomes: Mutex::default(),
        failures: Mutex::default(),
    };
    let busy: Vec<Mutex<Option<(u64, Instant)>>> = (0..jobs).map(|_| Mutex::new(None)).collect();
    let end = first + recipes;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for b in &busy {
            let s = &s;
            scope.spawn(move || work(bases, s, end, b));
        }
        let mut told = Instant::now();
        while s.next.load(Ordering::Relaxed) < end + jobs as u64 {
            std::thread::sleep(Duration::from_millis(100));
            for b in &busy {
                let stuck = b
                    .lock()
                    .expect("no panic")
                    .filter(|(_, t)| t.elapsed() > STUCK);
                if let Some((seed, _)) = stuck {
                    eprintln!("recipe {seed} does not end");
                    std::process::exit(1);
                }
            }
            if told.elapsed() > Duration::from_secs(30) {
                told = Instant::now();
                eprintln!("{} recipes", s.next.load(Ordering::Relaxed) - first);
            }
        }
    });
    let outcomes = s.outcomes.into_inner().expect("no panic");
    for (name, n) in &outcomes {
        println!("{n:>10} {name}");
    }
    println!("{recipes} recipes in {} s", begin.elapsed().as_secs());
    let failures = s.failures.into_inner().expect("no panic");
    for (seed, text) in failures.values() {
        let small = shrink(bases, &random(*seed), text);
        let path = save.join(format!("recipe-{seed}"));
        fs::write(&path, &small).with_context(|| path.display().to_string())?;
        println!("recipe {seed}: {text}\n  {}", path.display());
        for w in changes(bases, &small).map(|c| c.words).unwrap_or_default() {
            println!("  {w}");
        }
    }
    match failures.len() {
        0 => Ok(()),
        n => bail!("{n} kinds of failures"),
    }
}

fn replay(bases: &[Base], files: &[PathBuf]) -> Result<()> {
    let mut failed = 0;
    for f in files {
        let recipe = fs::read(f).with_context(|| f.display().to_string())?;
        for w in changes(bases, &recipe).map(|c| c.words).unwrap_or_default() {
            println!("  {w}");
        }
        let r = judge(bases, &recipe);
        println!("{}: {r:?}", f.display());
        failed += u32::from(matches!(r, Some(Err(_))));
    }
    match failed {
        0 => Ok(()),
        n => bail!("{n} failed"),
    }
}

fn image(bases: &[Base], recipe: &[u8], to: &Path) -> Result<Vec<String>> {
    let mut c = changes(bases, recipe).context("no recipe")?;
    let words = std::mem::take(&mut c.words);
    let f = File::create(to).with_context(|| to.display().to_string())?;
    f.set_len(c.blocks() * 4096)?;
    for (at, b) in c.image() {
        f.write_all_at(&b[..], at * 4096)?;
    }
    Ok(words)
}

fn one_image(bases: &[Base], recipe: &Path, to: &Path) -> Result<()> {
    let recipe = fs::read(recipe).with_context(|| recipe.display().to_string())?;
    for w in image(bases, &recipe, to)? {
        println!("{w}");
    }
    Ok(())
}

/// Recipes that change nothing make no image.
fn images(bases: &[Base], first: u64, recipes: u64, directory: &Path) -> Result<()> {
    for seed in first..first.saturating_add(recipes) {
        let recipe = random(seed);
        if changes(bases, &recipe).is_some() {
            image(bases, &recipe, &directory.join(seed.to_string()))?;
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    kernel::print::set_level(match std::env::var_os("ORDOFS_LOGLEVEL") {
        Some(l) => l.to_str().and_then(|l| l.parse().ok()).unwrap_or(4),
        None => kernel::print::SILENT,
    });
    let cli = Cli::parse();
    let bases = base::all();
    quiet();
    match cli.command {
        Command::Run {
            recipes,
            seed,
            jobs,
            save,
        } => {
            let all = std::thread::available_parallelism().map_or(1, usize::from);
            run(&bases, seed, recipes, jobs.unwrap_or(all).max(1), save)
        }
        Command::Replay { files } => replay(&bases, &files),
        Command::Image { recipe, image } => one_image(&bases, &recipe, &image),
        Command::Images {
            recipes,
            seed,
            directory,
        } => images(&bases, seed, recipes, &directory),
    }
}
