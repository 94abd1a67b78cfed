// SPDX-License-Identifier: GPL-2.0

//! Damage, repairs, and what the checker says of them.

use crate::album::*;
use kernel::prelude::Result;
use ordofs_engine::engine::format::{NodePtr, Superblock};
use ordofs_engine::engine::Fs;
use ordofs_engine::os::mem::{Image, MemDisk};
use ordofs_engine::os::Device;
use ordofs_fsck::repair::{self, undo};
use ordofs_fsck::{check, Options};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Seeds of each run, for each image.
const SEEDS: u64 = 60;

/// Lets the search for blocks of nodes begin at a block.
pub fn search_from(disk: &MemDisk, block: u64) {
    let mut sb = Superblock::read(&disk.device()).expect("one");
    sb.node_goal = block;
    sb.write(&disk.device()).expect("a write");
}

/// Damages some blocks. Returns which.
pub fn damage(disk: &MemDisk, image: &Image, rng: &mut fastrand::Rng) -> BTreeSet<u64> {
    let written: Vec<u64> = image.keys().copied().collect();
    let mut bad = BTreeSet::new();
    for _ in 0..rng.usize(1..6) {
        let block = written[rng.usize(..written.len())];
        // Superblocks have tests of their own.
        if [16, 128, 2064, 2176, 16400, 16512].contains(&block) {
            continue;
        }
        bad.insert(block);
        match rng.u8(..4) {
            0 => disk.corrupt(block, rng.usize(..4096), 1 << rng.u8(..8)),
            1 => (0..4096).for_each(|i| disk.corrupt(block, i, rng.u8(..))),
            2 => {
                let old = disk.image()[&block].clone();
                (0..4096).for_each(|i| disk.corrupt(block, i, old[i]));
            }
            _ => {
                let from = rng.usize(..8) * 512;
                (from..from + 512).for_each(|i| disk.corrupt(block, i, rng.u8(..)));
            }
        }
    }
    bad
}

pub fn same(a: &Image, b: &Image) -> bool {
    let zero = [0; 4096];
    let of = |i: &Image, k: &u64| i.get(k).map_or(zero, |b| **b);
    a.keys().chain(b.keys()).all(|k| of(a, k) == of(b, k))
}

pub fn silent() {
    kernel::print::set_level(kernel::print::SILENT);
}

pub fn undo_path(seed: u64, name: &str) -> PathBuf {
    let name = name.replace(' ', "-");
    let path = format!("/dev/shm/ordofs-undo.{}.{name}.{seed}", std::process::id());
    PathBuf::from(path)
}

/// Repairs as fsck.ordofs does: the plan, and then a mount.
pub fn mended(disk: &MemDisk, undo: Option<&PathBuf>) -> std::result::Result<Vec<String>, String> {
    let plan = repair::plan(disk.device())?;
    let file = undo.map(|path| {
        let made = undo::Undo::create(path, disk.device().blocks(), plan.superblock());
        made.expect("an undo file")
    });
    let saving = undo::Shared::new(undo::Saving::new(disk.device(), file));
    repair::apply(&plan, &saving.device())?;
    finish(saving.device()).map_err(|e| format!("the mount after it: {e:?}"))?;
    Ok(plan.said)
}

pub fn finish(device: Device) -> Result {
    let fs = Fs::mount(device, repair::rescue()).map_err(|e| {
        eprintln!("{}", e.reason);
        e.error
    })?;
    fs.unmount()
}

pub fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("ORDOFS_REPAIR_SEEDS").ok();
    let asked = asked.as_deref().and_then(|s| s.split_once(".."));
    asked.map_or(0..SEEDS, |(from, to)| {
        from.parse().expect("a number")..to.parse().expect("a number")
    })
}

/// What the checker says, and about which generation.
pub fn verdict(disk: &MemDisk) -> std::result::Result<(u64, Vec<String>), String> {
    let report = check(disk.device(), Options::default()).map_err(|e| e.reason.to_owned())?;
    let said = report.problems.iter().map(ToString::to_string);
    Ok((report.generation, said.collect()))
}

/// Repairs a damaged image. What lies in the blocks `bad` may be lost. Returns what the repair said.
pub fn rebuilt(o: &Original, disk: &MemDisk, bad: &BTreeSet<u64>, what: &str) -> Vec<String> {
    let fail = |e: String| -> Vec<String> { panic!("{}, {what}: {e}", o.name) };
    let said = mended(disk, None).unwrap_or_else(fail);
    if let Err(e) = judged(o, disk, bad) {
        fail(format!("{e}\n{said:#?}"));
    }
    let again = repair::plan(disk.device())
        .map(|p| p.said)
        .unwrap_or_else(fail);
    assert_eq!(again, [""; 0], "{}, {what}", o.name);
    said
}

pub fn garbage(disk: &MemDisk, block: u64, from: usize, to: usize) {
    (from..to).for_each(|i| disk.corrupt(block, i, (i % 251) as u8 | 1));
}

/// Destroys all copies of a node.
pub fn lose(disk: &MemDisk, p: &NodePtr) {
    let copies = p.places();
    copies.each().for_each(|at| garbage(disk, at, 0, 4096));
}

pub fn superblocks(blocks: u64) -> Vec<u64> {
    let twins = ordofs_engine::engine::format::places::twin_base(blocks);
    vec![16, 128, twins + 16, twins + 128]
}
