// SPDX-License-Identifier: GPL-2.0

//! Runs scenarios under many schedules, on the real engine and on its mutants.
//!
//! # Model
//!
//! A [`Rule`] is one scenario with a few cases. Each case runs under schedules that are drawn at
//! random, and under as many that PCT makes: few, well-placed switches between threads of random
//! priorities. Nothing else of a run is random (the clock of the models stands still, and their
//! random numbers are constant), so a failed schedule can be run again.
//!
//! | variable | meaning |
//! |---|---|
//! | `ORDOFS_MODEL_ITER` | schedules of a rule, divided among its cases (default: 20,000 for each case) |
//! | `ORDOFS_MODEL_CASE` | only this case |
//! | `ORDOFS_MODEL_SCHEDULE` | run this schedule and nothing else |

use ordofs_models::engine::mutant::{choose_all, Mutant};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};
use std::cell::Cell;
use std::panic::{catch_unwind, resume_unwind, set_hook, take_hook, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Instant;

/// The schedules of each kind under which a case runs.
const SCHEDULES: usize = 10_000;
/// The schedules of a kind within which a mutant must be caught.
const WITHIN: usize = 20_000;
/// The schedules of each kind for mutants that must be harmless.
const HARMLESS: usize = 1_000;
/// The number of change points of PCT.
const DEPTH: usize = 3;

/// A rule of order and its scenario.
pub struct Rule {
    pub name: &'static str,
    pub cases: &'static [&'static str],
    /// Runs once inside a schedule. The argument is the number of the case.
    pub run: fn(usize),
    /// Runs before, outside of any schedule.
    pub prepare: fn(),
}

/// How a scenario runs.
pub fn config() -> Config {
    let mut c = Config::new();
    c.stack_size = 1 << 20;
    c.silence_warnings = true;
    c.failure_persistence = FailurePersistence::Print;
    c
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

thread_local! {
    /// Are panics of this thread expected, and not to be printed?
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Chooses mutants of this thread's engine until it is dropped. The model checker runs all threads
/// of a scenario on the thread that started it.
struct Chosen;

impl Chosen {
    /// `quiet` if panics are expected.
    fn new(mutants: &[Mutant], quiet: bool) -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let hook = take_hook();
            set_hook(Box::new(move |info| {
                if !QUIET.get() {
                    hook(info);
                }
            }));
        });
        choose_all(mutants);
        QUIET.set(quiet);
        Self
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        choose_all(&[]);
        QUIET.set(false);
    }
}

/// Runs one case under the schedules of a scheduler. Returns how many it ran, and the panic that
/// ended them.
fn run(
    rule: &Rule,
    case: usize,
    scheduler: impl Scheduler + 'static,
    config: Config,
) -> (usize, std::thread::Result<()>) {
    let count = Arc::new(AtomicUsize::new(0));
    let (counter, f) = (count.clone(), rule.run);
    let result = catch_unwind(AssertUnwindSafe(|| {
        Runner::new(scheduler, config).run(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            f(case);
        });
    }));
    (count.load(Ordering::Relaxed), result)
}

/// Checks that the rule holds: no schedule fails.
pub fn holds(rule: &Rule) {
    (rule.prepare)();
    let only = setting("ORDOFS_MODEL_CASE");
    let cases: Vec<usize> = (0..rule.cases.len())
        .filter(|i| only.as_ref().is_none_or(|o| o == rule.cases[*i]))
        .collect();
    assert!(!cases.is_empty(), "{} has no such case", rule.name);
    if let Some(s) = setting("ORDOFS_MODEL_SCHEDULE") {
        if let Err(panic) = replay(rule, cases[0], &s) {
            resume_unwind(panic);
        }
        println!("{} {}: passes", rule.name, rule.cases[cases[0]]);
        return;
    }
    let n = setting("ORDOFS_MODEL_ITER")
        .map(|v| v.parse::<usize>().expect("ORDOFS_MODEL_ITER is a number"))
        .map_or(SCHEDULES, |n| n.div_ceil(2 * cases.len()));
    for case in cases {
        let start = Instant::now();
        let mut ran = [0; 2];
        for (kind, ran) in ran.iter_mut().enumerate() {
            let (k, result) = if kind == 0 {
                run(rule, case, RandomScheduler::new(n), config())
            } else {
                run(rule, case, PctScheduler::new(DEPTH, n), config())
            };
            *ran = k;
            if let Err(panic) = result {
                let name = rule.cases[case];
                eprintln!(
                    "{}, case {name}, failed in schedule {k}. The schedule is above; again:\n\
                     make model RULE={} CASE={name} SCHEDULE=...",
                    rule.name, rule.name
                );
                resume_unwind(panic);
            }
        }
        println!(
            "{} {}: {} random and {} PCT schedules in {:.1} s",
            rule.name,
            rule.cases[case],
            ran[0],
            ran[1],
            start.elapsed().as_secs_f64()
        );
    }
}

fn replay(rule: &Rule, case: usize, schedule: &str) -> std::thread::Result<()> {
    let text: String = schedule.chars().filter(char::is_ascii_hexdigit).collect();
    run(
        rule,
        case,
        ReplayScheduler::new_from_encoded(&text),
        config(),
    )
    .1
}

/// Checks that a failed schedule fails again, for the same reason.
pub fn fails_again(rule: &Rule, case: usize, mutants: &[Mutant]) {
    (rule.prepare)();
    let chosen = Chosen::new(mutants, true);
    let pct = PctScheduler::new(DEPTH, WITHIN);
    let first = run(rule, case, pct, config()).1;
    let text = |r: std::thread::Result<()>| {
        let panic = r.expect_err("a failure");
        panic.downcast_ref::<String>().cloned().expect("a message")
    };
    let first = text(first);
    // The panic's text has the schedule in quotation marks.
    let schedule = first.split('"').nth(1).expect("a schedule").to_string();
    let again = text(replay(rule, case, &schedule));
    drop(chosen);
    let why = |s: &str| s.rsplit("original panic: ").next().map(str::to_string);
    assert_eq!(why(&first), why(&again));
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("?");
    // The scenario's own message comes last.
    let text = text.rsplit("original panic: ").next().unwrap_or(text);
    text.lines().next().unwrap_or("?").to_string()
}

/// Checks that without these protections some schedule of the case fails. PCT finds more, so random
/// schedules are the second try.
pub fn caught(rule: &Rule, case: &str, mutants: &[Mutant]) {
    if setting("ORDOFS_MODEL_SCHEDULE").is_some() {
        return;
    }
    (rule.prepare)();
    let case = (rule.cases.iter())
        .position(|c| *c == case)
        .expect("a case of the rule");
    let mut quiet = config();
    quiet.failure_persistence = FailurePersistence::None;
    let chosen = Chosen::new(mutants, true);
    let (name, what) = (rule.name, rule.cases[case]);
    let mut tried = String::new();
    for kind in ["PCT", "random"] {
        let (n, result) = if kind == "PCT" {
            run(rule, case, PctScheduler::new(DEPTH, WITHIN), quiet.clone())
        } else {
            run(rule, case, RandomScheduler::new(WITHIN), quiet.clone())
        };
        if let Err(p) = result {
            let why = message(&*p);
            println!("{name} {what}: {mutants:?} caught by {kind} schedule {n}: {why}");
            return;
        }
        tried += &format!(" {n} {kind}");
    }
    drop(chosen);
    panic!("{name} {what}: {mutants:?} not caught by schedules:{tried}");
}

/// Checks that without these protections no schedule fails, because other protections remain.
pub fn harmless(rule: &Rule, case: &str, mutants: &[Mutant]) {
    if setting("ORDOFS_MODEL_SCHEDULE").is_some() {
        return;
    }
    (rule.prepare)();
    let case = (rule.cases.iter())
        .position(|c| *c == case)
        .expect("a case of the rule");
    let _chosen = Chosen::new(mutants, false);
    let random = run(rule, case, RandomScheduler::new(HARMLESS), config());
    let pct = run(rule, case, PctScheduler::new(DEPTH, HARMLESS), config());
    for (_, result) in [random, pct] {
        if let Err(p) = result {
            resume_unwind(p);
        }
    }
    println!(
        "{} {}: {mutants:?} harmless in {HARMLESS} random and as many PCT schedules",
        rule.name, rule.cases[case]
    );
}
