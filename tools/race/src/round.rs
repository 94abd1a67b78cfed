// SPDX-License-Identifier: GPL-2.0

//! One round: a new file, all workers at once, then every check.

use crate::check::{self, View};
use crate::mapping::Mapping;
use crate::plan::{Plan, Role};
use crate::sys::{self, Falloc};
use crate::table::Table;
use crate::worker;
use anyhow::{bail, Context, Result};
use std::path::Path;
use std::time::{Duration, Instant};

/// Are the workers threads or processes?
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Flavour {
    /// Threads that share one mapping in every other round.
    Thread,
    /// Processes with mappings of their own.
    Process,
}

impl Flavour {
    /// Name in file names and in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Thread => "thread",
            Self::Process => "process",
        }
    }
}

/// How a round ended.
pub struct Outcome {
    /// Units with wrong content.
    pub bad: u64,
    /// A worker failed.
    pub failed: bool,
    /// Operations by kind.
    pub counts: [u64; crate::table::OPS.len()],
}

/// Runs a round on the new file `path`; the workers stop at `deadline`.
pub fn run(
    path: &Path,
    plan: &Plan,
    flavour: Flavour,
    share: bool,
    deadline: Instant,
) -> Result<Outcome> {
    let table = Table::new(plan.pages as usize, plan.per_page).context("no shared memory")?;
    let file = sys::open(path, true, false)?;
    file.set_len(plan.bytes()).context("ftruncate")?;
    if plan.prealloc {
        sys::fallocate(&file, Falloc::Reserve, 0, plan.bytes()).context("fallocate")?;
    }
    match flavour {
        Flavour::Thread => {
            let map = Mapping::new(&file, plan.bytes() as usize).context("mmap")?;
            threads(plan, &table, path, share.then_some(&map), deadline);
        }
        Flavour::Process => processes(plan, &table, path, deadline)?,
    }
    let mut out = Outcome {
        bad: 0,
        failed: table.failed(),
        counts: table.counts(),
    };
    let direct = plan.workers.contains(&Role::Direct);
    let views: &[View] = &[View::Read, View::Mmap, View::Direct, View::Reread];
    for view in views.iter().filter(|v| direct || **v != View::Direct) {
        if *view == View::Direct || *view == View::Reread {
            plan.sync(|| file.sync_all()).context("fsync")?;
        }
        let bad = check::check_file(path, plan, &table, *view)
            .with_context(|| format!("checking {} by {view:?}", path.display()))?;
        out.bad += bad;
    }
    Ok(out)
}

fn report(table: &Table, result: Result<()>) -> bool {
    if let Err(e) = &result {
        ordofs_cli::complain!("ordofs-race: {e:#}");
        table.fail();
    }
    result.is_ok()
}

fn threads(plan: &Plan, table: &Table, path: &Path, shared: Option<&Mapping>, deadline: Instant) {
    std::thread::scope(|s| {
        let handles: Vec<_> = (0..plan.workers.len())
            .map(|w| s.spawn(move || report(table, worker::run(w, plan, table, path, shared))))
            .collect();
        while handles.iter().any(|h| !h.is_finished()) {
            wait(table, deadline);
        }
    });
}

fn wait(table: &Table, deadline: Instant) {
    if Instant::now() >= deadline {
        table.stop();
    }
    std::thread::sleep(Duration::from_millis(2));
}

fn processes(plan: &Plan, table: &Table, path: &Path, deadline: Instant) -> Result<()> {
    let mut children = Vec::new();
    for w in 0..plan.workers.len() {
        // SAFETY: this process has one thread at this point (thread rounds have joined theirs), so
        // the child may go on like any process.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            table.stop();
            bail!("fork: {}", std::io::Error::last_os_error());
        }
        if pid == 0 {
            let ok = report(table, worker::run(w, plan, table, path, None));
            // SAFETY: ends the child at once, without the parent's clean-up.
            unsafe { libc::_exit(if ok { 0 } else { 1 }) };
        }
        children.push(pid);
    }
    while !children.is_empty() {
        wait(table, deadline);
        children.retain(|pid| {
            let mut status = 0;
            // SAFETY: the status goes to a local; the child is ours and not yet waited for.
            let r = unsafe { libc::waitpid(*pid, &mut status, libc::WNOHANG) };
            if r == *pid && status != 0 {
                ordofs_cli::complain!(
                    "ordofs-race: a worker process ended with status {status:#x}"
                );
                table.fail();
            }
            r == 0
        });
    }
    Ok(())
}
