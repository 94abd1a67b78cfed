// SPDX-License-Identifier: GPL-2.0

//! Growing and power cuts: the size is the old or the new one, what was promised is there, and no backup
//! of the superblock has a size that leaves data out. Each test also shows that the check fails without
//! the protection.

#[path = "common/resizes.rs"]
mod resizes;

use ordofs_crash::bases::Bases;
use ordofs_crash::disk::Recorder;
use ordofs_crash::engine::mutant::Mutant;
use ordofs_crash::run::{carry_out, run, Violation};
use ordofs_crash::workload::{End, Op, Start, Workload};
use ordofs_crash::world::World;
use resizes::{bases, EFFORT, NOTHING};

fn workload(ops: &[Op], start: Start) -> Workload {
    Workload {
        seed: 1,
        start,
        ops: ops.to_vec(),
        end: End::Fsync,
    }
}

fn violation(bases: &Bases, ops: &[Op], mutant: Option<Mutant>) -> Option<Violation> {
    resizes::violation(bases, Start::Crowded, ops, mutant)
}

/// Without a resize, what needs several blocks gets them where they are; after one, in the new blocks.
#[test]
fn a_crowded_filesystem_writes_to_its_new_blocks() {
    let bases = bases();
    for seed in [1, 2] {
        let base = bases.of(Start::Crowded, seed);
        let rec = Recorder::new(base.image.clone());
        let mut w = World::new(base, &rec, None).expect("mount");
        let old = w.fs().blocks();
        let ops = [
            Op::Grow(40_000, NOTHING),
            // More than what was the area of the backup.
            Op::Append("A/f", 1_200_000),
            Op::Fsync("A/f"),
        ];
        w.steps(&ops).expect("operations");
        assert_eq!(w.fs().blocks(), old + 40_000);
        let (view, _) = ordofs_crash::observe::recovered(&rec.image()).expect("recovery");
        assert_eq!(view.blocks, old + 40_000);
        assert!(view.used > old, "nothing is behind block {old}");
    }
}

#[test]
fn new_blocks_are_had_when_the_superblock_is_durable() {
    let bases = bases();
    for reach in [0, 3, 8] {
        let ops = [
            Op::Append("A/f", 9000),
            Op::Grow(40_000, reach),
            Op::Fsync("A/f"),
        ];
        let real = violation(&bases, &ops, None);
        assert!(real.is_none(), "{ops:?}: {real:?}");
        let mutated = violation(&bases, &ops, Some(Mutant::GrowEarly));
        assert!(mutated.is_some(), "{ops:?} does not notice it");
    }
}

#[test]
fn no_backup_of_the_old_size_is_left() {
    let bases = bases();
    for by in [256, 300, 40_000] {
        let ops = [
            Op::Grow(by, NOTHING),
            Op::Append("A/f", 9000),
            Op::Fsync("A/f"),
        ];
        let real = violation(&bases, &ops, None);
        assert!(real.is_none(), "{ops:?}: {real:?}");
        let mutated = violation(&bases, &ops, Some(Mutant::GrowOldBackup));
        assert!(mutated.is_some(), "{ops:?} does not notice it");
    }
}

/// Twice, to the end of the device, with all kinds of things in the middle, and on the smallest
/// filesystem.
#[test]
fn growing_again() {
    let bases = bases();
    let workloads: [&[Op]; 4] = [
        &[
            Op::Grow(256, 6),
            Op::Truncate("A/f", 0),
            Op::Append("B/g", 20_000),
            Op::Grow(1 << 20, 2),
            Op::Trim,
            Op::Fsync("B/g"),
        ],
        &[
            Op::Grow(32_000, 9),
            Op::Rename("A/f", "B/g"),
            Op::Fsync("A"),
            Op::Grow(1000, 12),
            Op::Direct("B/g", 0, 16_384),
        ],
        &[
            Op::Write("A/f", 0, 9000),
            Op::Grow(70_000, 14),
            Op::Fsync("A/f"),
            Op::Unlink("A/f"),
            Op::Commit(3),
            Op::Append("B/g", 9000),
        ],
        &[
            Op::Submit("A/f", 0, 8192),
            Op::Rename("A/f", "B/g"),
            Op::Grow(5000, 3),
            Op::Fsync("B/g"),
        ],
    ];
    for ops in workloads {
        let real = violation(&bases, ops, None);
        assert!(real.is_none(), "{ops:?}: {real:?}");
        let small = workload(ops, Start::Fresh);
        let real = run(&bases, &small, EFFORT, None, None).violation;
        assert!(real.is_none(), "{ops:?}: {real:?}");
    }
}

/// The oracle: a size that was promised, and one that has not begun.
#[test]
fn a_size_is_not_any_of_those_that_there_were() {
    let bases = bases();
    let w = workload(&[Op::Grow(300, NOTHING), Op::Sync], Start::Crowded);
    let (crashes, oracle) = carry_out(&bases, &w, None).expect("the workload");
    let sizes: Vec<u64> = oracle.fs_sizes().collect();
    assert_eq!(sizes, [sizes[0], sizes[0] + 300]);
    let last = ordofs_crash::oracle::Cut {
        returned: u64::MAX,
        begun: u64::MAX,
    };
    let all = crashes.states(usize::MAX, &mut fastrand::Rng::with_seed(1));
    let states: Vec<_> = all.iter().map(|s| crashes.image(s).0).collect();
    let seen = |i: usize| {
        let (view, _) = ordofs_crash::observe::recovered(&states[i]).ok()?;
        Some(view)
    };
    let old = (0..states.len())
        .filter_map(seen)
        .find(|v| v.blocks == sizes[0]);
    let error = oracle.judge(last, &old.expect("the old size"));
    assert!(error.is_err_and(|e| e.contains("promised")));
}
