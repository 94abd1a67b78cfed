// SPDX-License-Identifier: GPL-2.0

//! Single blocks and runs are freed and allocated at random on a full disk with AGs of 1 GiB, at the ends
//! of AGs and groups: records of full groups are split and joined, and fsck checks their form after each
//! commit.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "support/counting.rs"]
mod counting;

use common::{format_on, mount_on, regular};
use counting::{device, peak_of, sparse};
use kernel::prelude::ENOSPC;
use ordofs_engine::engine::format::GROUP_BLOCKS;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;

const GIB: u64 = 1 << 18;
/// The last AG is short, and so is its last group.
const BLOCKS: u64 = 18 * GIB + 5 * GROUP_BLOCKS + 777;

fn clean(disk: &MemDisk, when: &str) {
    let o = ordofs_fsck::Options { data: false };
    let report = ordofs_fsck::check(disk.device(), o).expect("superblock");
    let list: Vec<String> = report.problems.iter().map(|p| format!("{p}")).collect();
    assert!(report.is_clean(), "fsck {when}:\n{}", list.join("\n"));
}

/// Where the runs of `f` are on the device: (device block, file block, length).
fn places(fs: &Fs, f: &Inode, len: u64) -> Vec<(u64, u64, u64)> {
    let (mut at, mut found) = (0, Vec::new());
    while at < len {
        let m = fs.map_read(f, at, len - at).unwrap();
        if m.kind != MapKind::Hole {
            found.push((m.phys, at, m.len));
        }
        at += m.len;
    }
    found
}

fn run(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let disk = device(|| MemDisk::new(BLOCKS));
    format_on(sparse(&disk, |_| ()));
    let fs = mount_on(sparse(&disk, |_| ()));
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let len = fs.statfs().bavail - 400;
    fs.preallocate(&f, 0, len, None).unwrap();
    fs.sync().unwrap();
    clean(&disk, "when it is full");
    let groups = [0, 1, 14, 15, 16, 30, 31];
    let ags = [0, 1, 9, 16, 17, 18];
    let mut holes = Vec::new();
    for round in 0..60 {
        for _ in 0..rng.u64(1..12) {
            if rng.bool() || holes.is_empty() {
                // Around the first, the last or any block of a group.
                let ag = ags[rng.usize(..ags.len())];
                let g = groups[rng.usize(..groups.len())] % if ag == 18 { 6 } else { 32 };
                let at = [0, GROUP_BLOCKS - 1, rng.u64(..GROUP_BLOCKS)][rng.usize(..3)];
                let at = (ag * GIB + g * GROUP_BLOCKS + at).min(BLOCKS - 300);
                let n = [1, 2, 64, GROUP_BLOCKS, 3 * GROUP_BLOCKS][rng.usize(..5)];
                let place = places(&fs, &f, len);
                let Some((phys, file, have)) = place.iter().find(|p| p.0 <= at && at < p.0 + p.2)
                else {
                    continue;
                };
                let off = at - phys;
                let n = n.min(have - off);
                fs.punch(&f, file + off, n).unwrap();
                holes.push((file + off, n));
            } else {
                let (at, n) = holes.swap_remove(rng.usize(..holes.len()));
                match fs.preallocate(&f, at, n, None) {
                    Ok(()) => {}
                    Err(e) => {
                        assert_eq!(e, ENOSPC);
                        holes.push((at, n));
                    }
                }
            }
        }
        if round % 10 == 9 {
            for (at, n) in std::mem::take(&mut holes) {
                fs.preallocate(&f, at, n, None).unwrap();
            }
        }
        fs.sync().unwrap();
        clean(&disk, &format!("seed {seed}, round {round}"));
    }
    fs.set_size(&f, 0).unwrap();
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();
    clean(&disk, "at the end");
}

#[test]
fn records_of_full_groups_are_split_and_joined() {
    let memory = peak_of(|| (0..24).for_each(run));
    assert!(memory < 64 << 20, "{memory} bytes");
}
