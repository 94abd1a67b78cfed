// SPDX-License-Identifier: GPL-2.0

//! What several workloads need: opening a file, threads that begin together.

use crate::counters::Meter;
use anyhow::Result;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

/// A workload whose files are there: it measures itself.
pub type Ready<'a> = Box<dyn FnOnce(&mut Meter<'_>) -> Result<()> + 'a>;

/// Opens a file for reading and writing, and creates it if it is not there.
pub fn open(path: &Path, flags: i32) -> Result<File> {
    Ok(OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags)
        .open(path)?)
}

/// Measures threads that begin at the same time, until the last one has ended.
pub fn together<'a>(
    meter: &mut Meter<'_>,
    jobs: Vec<Box<dyn FnOnce() -> Result<()> + Send + 'a>>,
) -> Result<()> {
    let gate = Barrier::new(jobs.len() + 1);
    thread::scope(|scope| {
        let all: Vec<_> = jobs
            .into_iter()
            .map(|job| {
                scope.spawn(|| {
                    gate.wait();
                    job()
                })
            })
            .collect();
        // The threads wait at the gate whatever happens here, so it is opened first.
        let running = meter.start();
        gate.wait();
        for thread in all {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        meter.stop(running?)
    })
}
