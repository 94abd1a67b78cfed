// SPDX-License-Identifier: GPL-2.0

//! Small writes, each of them durable before the next one.

use super::common::{open, together, Ready};
use super::data;
use crate::counters::{Meter, Snapshot};
use crate::sys::PAGE;
use crate::volume::{program, Volume};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Blocks of a file that is overwritten.
const BLOCKS: u64 = 256;

fn name(dir: &Path, thread: u64) -> PathBuf {
    dir.join(format!("file{thread}"))
}

/// Each thread runs `one` on its file, with the number of the operation.
fn each_thread(
    meter: &mut Meter<'_>,
    files: Vec<File>,
    ops: u64,
    one: impl Fn(&mut File, u64) -> Result<()> + Sync,
) -> Result<()> {
    let each = ops / files.len() as u64;
    let one = &one;
    let jobs = files.into_iter().map(|mut file| {
        Box::new(move || (0..each).try_for_each(|i| one(&mut file, i)))
            as Box<dyn FnOnce() -> _ + Send>
    });
    together(meter, jobs.collect())
}

/// Appends and fsync.
pub fn append(dir: &Path, threads: u64, ops: u64) -> Result<Ready<'_>> {
    let files = (0..threads)
        .map(|t| open(&name(dir, t), 0))
        .collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move |meter| {
        each_thread(meter, files, ops, |file, i| {
            file.write_all(&[i as u8; PAGE])?;
            Ok(file.sync_all()?)
        })
    }))
}

/// Overwrites and fdatasync, at random places.
pub fn overwrite(dir: &Path, threads: u64, ops: u64) -> Result<Ready<'_>> {
    let files = (0..threads)
        .map(|t| data::filled(&name(dir, t), BLOCKS * PAGE as u64))
        .collect::<Result<Vec<_>>>()?;
    let places = data::shuffled(BLOCKS);
    Ok(Box::new(move |meter| {
        each_thread(meter, files, ops, |file, i| {
            let block = places[(i % BLOCKS) as usize];
            file.write_all_at(&[i as u8; PAGE], block * PAGE as u64)?;
            Ok(file.sync_data()?)
        })
    }))
}

/// The part of fio's report that is used.
#[derive(Deserialize)]
struct Report {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    write: Writes,
    /// Shares of the run time, in percent.
    usr_cpu: f64,
    sys_cpu: f64,
}

#[derive(Deserialize)]
struct Writes {
    /// Milliseconds.
    runtime: u64,
}

/// fio with io_uring. fio runs this program's command `snapshot` right before its first write and
/// after its last one, so that its own start is not counted; the two processes are.
pub fn dsync(volume: &Volume, depth: u32, ops: u64) -> Result<Ready<'_>> {
    let path = volume.dir.join("file");
    let bytes = 16 << 20;
    data::filled(&path, bytes)?;
    Ok(Box::new(move |meter| {
        let work = Path::new("/tmp");
        let file = |suffix: &str| work.join(format!("ordofs-bench.{suffix}"));
        let (before, after, report) = (file("before"), file("after"), file("report"));
        let me = std::env::current_exe()?;
        let hook = |to: &Path| {
            format!(
                "{} snapshot {} {}",
                me.display(),
                volume.disk(),
                to.display()
            )
        };
        let options = [
            "--name=bench".to_string(),
            format!("--filename={}", path.display()),
            format!("--size={bytes}"),
            format!("--number_ios={ops}"),
            format!("--iodepth={depth}"),
            format!("--exec_prerun={}", hook(&before)),
            format!("--exec_postrun={}", hook(&after)),
            format!("--output={}", report.display()),
        ];
        let mut arguments: Vec<&str> = options.iter().map(String::as_str).collect();
        arguments.extend([
            "--ioengine=io_uring",
            "--rw=randwrite",
            "--bs=4k",
            "--direct=1",
            "--sync=dsync",
            "--fallocate=none",
            "--thread",
            "--output-format=json",
        ]);
        program("fio", &arguments)?;
        let text = fs::read_to_string(&report)?;
        // fio says before it that the two commands have run.
        let json = text.find('{').map_or("", |begin| &text[begin..]);
        let parsed: Report = serde_json::from_str(json).context("fio's report")?;
        let job = parsed.jobs.first().context("fio reports no job")?;
        let wall_ns = job.write.runtime * 1_000_000;
        let task_ns = (job.usr_cpu + job.sys_cpu) / 100.0 * wall_ns as f64;
        let (begin, end) = (Snapshot::load(&before)?, Snapshot::load(&after)?);
        for used in [&before, &after, &report] {
            fs::remove_file(used)?;
        }
        meter.add(begin, end, task_ns as u64, wall_ns)
    }))
}
