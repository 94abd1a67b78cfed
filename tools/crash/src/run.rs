// SPDX-License-Identifier: GPL-2.0

//! Runs one workload and checks all its crash states.
//!
//! Tests: tools/crash/tests/recovery.rs, attributes.rs, grow.rs.

use crate::bases::Bases;
use crate::crash::{Crashes, State};
use crate::damage;
use crate::disk::{Image, Recorder};
use crate::engine::mutant::{self, Mutant};
use crate::observe;
use crate::oracle::{Cut, Oracle, View};
use crate::os;
use crate::workload::Workload;
use crate::world::World;
use std::collections::HashSet;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// The most states of one workload.
    pub states: usize,
    /// Every n-th state is also mounted read-only, and every n-th has its recovery interrupted.
    pub deep: usize,
}

/// The result of a workload.
#[derive(Default)]
pub struct Outcome {
    /// Checked states, each content with each set of promises once.
    pub states: u64,
    /// Hashes of the contents.
    pub images: Vec<u64>,
    /// Recoveries that a second power cut interrupted.
    pub recoveries: u64,
    /// Damaged states, and those among them that the mount refused to write to.
    pub damaged: (u64, u64),
    /// The first violation.
    pub violation: Option<Violation>,
}

/// A result that docs/GUARANTEES.md does not allow.
#[derive(Debug)]
pub struct Violation {
    /// Number of the state; `None` if the workload itself failed.
    pub state: Option<usize>,
    /// What the state is.
    pub what: String,
    /// What is wrong.
    pub text: String,
}

/// Runs `f`; a panic counts as a violation.
fn caught<R>(f: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|p| {
        let text = p
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| p.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// Runs a workload. Returns its crash states and the oracle.
pub fn carry_out(
    bases: &Bases,
    w: &Workload,
    mutant: Option<Mutant>,
) -> Result<(Crashes, Oracle), String> {
    mutant::choose(mutant);
    let base = bases.of(w.start, w.seed);
    os::set_clock(base.clock);
    let rec = Recorder::new(base.image.clone());
    let mut world = World::new(base, &rec, mutant)?;
    caught(|| world.run(w))?;
    Ok((Crashes::new(rec.base(), rec.take()), world.oracle))
}

/// Runs a workload and checks all its states, or only state `only`.
pub fn run(
    bases: &Bases,
    w: &Workload,
    effort: Effort,
    mutant: Option<Mutant>,
    only: Option<usize>,
) -> Outcome {
    let mut out = Outcome::default();
    let (crashes, oracle) = match carry_out(bases, w, mutant) {
        Ok(x) => x,
        Err(text) => {
            out.violation = Some(Violation {
                state: None,
                what: "the workload".to_owned(),
                text,
            });
            return out;
        }
    };
    let mut r = fastrand::Rng::with_seed(w.seed);
    let states = crashes.states(effort.states, &mut r);
    let mut seen = HashSet::new();
    for (i, s) in states.iter().enumerate() {
        let salt = r.u64(..);
        if only.is_some_and(|o| o != i) {
            continue;
        }
        let (image, hash) = crashes.image(s);
        let cut = crashes.cut(s);
        if !seen.insert((hash, oracle.window(cut))) {
            continue;
        }
        out.states += 1;
        out.images.push(hash);
        let deep = (salt % effort.deep.max(1) as u64 == 0).then_some(salt);
        let tried = caught(|| {
            try_state(&image, &oracle, cut, deep, &mut out)?;
            try_damage(&image, &oracle, cut, salt, &mut out)
        });
        if let Err(text) = tried {
            out.violation = Some(describe(&crashes, s, i, text));
            return out;
        }
    }
    out
}

fn describe(crashes: &Crashes, s: &State, i: usize, text: String) -> Violation {
    Violation {
        state: Some(i),
        what: crashes.describe(s),
        text,
    }
}

fn try_state(
    image: &Image,
    oracle: &Oracle,
    cut: Cut,
    deep: Option<u64>,
    out: &mut Outcome,
) -> Result<(), String> {
    observe::untouched(image)?;
    let (view, after) = observe::recovered(image)?;
    oracle.judge(cut, &view)?;
    let needed = view.used.max(oracle.promised_size(cut).min(view.blocks));
    let (least, last) = observe::backup_sizes(image, oracle.fs_sizes())?;
    if let Some(n) = least.filter(|n| *n < needed) {
        return Err(format!("a backup says {n} blocks, needed are {needed}"));
    }
    if last.is_some_and(|at| at >= view.blocks) && oracle.is_size_settled(cut) {
        return Err(format!("a backup is behind the end, block {}", view.blocks));
    }
    let Some(salt) = deep else { return Ok(()) };
    let ro = observe::read_only(image).map_err(|e| format!("read-only: {e}"))?;
    same(&view, &ro).map_err(|e| format!("read-only: {e}"))?;
    let (again, _) = observe::recovered(&after).map_err(|e| format!("second mount: {e}"))?;
    same(&view, &again).map_err(|e| format!("second mount: {e}"))?;
    // A second power cut, during recovery.
    let rec = observe::record(image)?;
    let crashes = Crashes::new(rec.base(), rec.take());
    let mut r = fastrand::Rng::with_seed(salt);
    for s in crashes.states(4, &mut r) {
        let (image, _) = crashes.image(&s);
        out.recoveries += 1;
        let say = |e: String| {
            format!(
                "after an interrupted recovery ({}): {e}",
                crashes.describe(&s)
            )
        };
        observe::untouched(&image).map_err(say)?;
        let (again, _) = observe::recovered(&image).map_err(say)?;
        same(&view, &again).map_err(say)?;
    }
    Ok(())
}

/// After damage, either everything that was promised is there, or the mount refuses to write.
/// Damages every fourth state.
fn try_damage(
    image: &Image,
    oracle: &Oracle,
    cut: Cut,
    salt: u64,
    out: &mut Outcome,
) -> Result<(), String> {
    if salt >> 32 & 3 != 0 {
        return Ok(());
    }
    let Some(d) = damage::one(image, salt) else {
        return Ok(());
    };
    out.damaged.0 += 1;
    let say = |e: String| format!("damaged ({}): {e}", d.what);
    if d.node {
        let view = observe::healed(&d.image).map_err(say)?;
        return oracle.judge(cut, &view).map_err(say);
    }
    match damage::mounted(&d.image).map_err(say)? {
        Some(view) => oracle.judge(cut, &view).map_err(say),
        None => {
            out.damaged.1 += 1;
            Ok(())
        }
    }
}

/// Checks that two recoveries of one state have the same result.
fn same(a: &View, b: &View) -> Result<(), String> {
    if a.names != b.names {
        return Err(format!("names {:?}, then {:?}", a.names, b.names));
    }
    if a.blocks != b.blocks {
        return Err(format!("{} blocks, then {}", a.blocks, b.blocks));
    }
    for (ino, x) in &a.inodes {
        let Some(y) = b.inodes.get(ino) else {
            return Err(format!("inode {ino} is gone"));
        };
        if x.size != y.size || x.mode != y.mode || x.blocks != y.blocks || x.target != y.target {
            return Err(format!("inode {ino} reads differently"));
        }
    }
    Ok(())
}
