// SPDX-License-Identifier: GPL-2.0

//! What the workloads do.
//!
//! | module | what is in it |
//! |---|---|
//! | [`common`] | what several of them need |
//! | [`data`] | reading and writing one file |
//! | [`durable`] | small writes, each of them durable |
//! | [`mapped`] | stores to mappings |
//! | [`names`] | many files: creating, looking up, removing |
//! | [`space`] | punching and truncating |
//! | [`whole`] | mounting, unmounting, recovering |

mod common;
mod data;
mod durable;
mod mapped;
mod names;
mod space;
mod whole;

use crate::catalog::{Action, Caches, Workload};
use crate::counters::Meter;
use crate::sys;
use crate::volume::Volume;
use anyhow::Result;
use common::Ready;

/// Makes the filesystem, prepares the workload's files, and runs it.
pub fn carry_out(
    workload: &Workload,
    volume: &Volume,
    ops: u64,
    meter: &mut Meter<'_>,
) -> Result<()> {
    volume.make()?;
    match workload.action {
        Action::Mount => return whole::mount(volume, ops, meter),
        Action::Unmount => return whole::unmount(volume, ops, meter),
        Action::Recover => return whole::recover(volume, ops, meter),
        _ => volume.mount()?,
    }
    let ready = prepare(workload.action, volume, ops)?;
    sys::sync_filesystem(&volume.dir)?;
    if workload.caches == Caches::Cold {
        volume.cool()?;
    }
    ready(meter)
}

fn prepare(action: Action, volume: &Volume, ops: u64) -> Result<Ready<'_>> {
    let dir = volume.dir.as_path();
    match action {
        Action::Append { threads } => durable::append(dir, threads, ops),
        Action::Overwrite { threads } => durable::overwrite(dir, threads, ops),
        Action::Dsync { depth } => durable::dsync(volume, depth, ops),
        Action::Create(files) => names::create(dir, files, ops),
        Action::Stat => names::stat(dir, ops),
        Action::Readdir => names::readdir(dir, ops),
        Action::Unlink => names::unlink(dir, ops),
        Action::Rename => names::rename(dir, ops),
        Action::Mkdir => names::mkdir(dir, ops),
        Action::Rmdir => names::rmdir(dir, ops),
        Action::WriteNew { block, path } => data::write_new(dir, block, path, ops),
        Action::Rewrite { block, order, path } => data::rewrite(dir, block, order, path, ops),
        Action::Read { block, order, path } => data::read(dir, block, order, path, ops),
        Action::ReadScattered => data::read_scattered(dir, ops),
        Action::Fault { threads } => mapped::fault(dir, threads, ops),
        Action::Msync => mapped::msync(dir, ops),
        Action::Punch => space::punch(dir, ops),
        Action::Truncate => space::truncate(dir, ops),
        Action::Mount | Action::Unmount | Action::Recover => {
            unreachable!("they mount the filesystem themselves")
        }
    }
}
