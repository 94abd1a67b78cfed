// SPDX-License-Identifier: GPL-2.0

//! Becoming smaller and power cuts: the size is the old or the new one, what was moved is there, and
//! backups have the size of the filesystem. Each test also shows that the check fails without the
//! protection.

#[path = "common/resizes.rs"]
mod resizes;

use ordofs_crash::base::AG;
use ordofs_crash::bases::Bases;
use ordofs_crash::disk::Recorder;
use ordofs_crash::engine::mutant::Mutant;
use ordofs_crash::run::Violation;
use ordofs_crash::workload::{Op, Start};
use ordofs_crash::world::World;
use resizes::{bases, NOTHING};

fn violation(bases: &Bases, ops: &[Op], mutant: Option<Mutant>) -> Option<Violation> {
    resizes::violation(bases, Start::Roomy, ops, mutant)
}

/// Data and nodes are behind the new end before, and everything is before it then.
#[test]
fn what_is_in_use_is_moved() {
    let bases = bases();
    for seed in [1, 2] {
        let base = bases.of(Start::Roomy, seed);
        let (before, _) = ordofs_crash::observe::recovered(&base.image).expect("recovery");
        let rec = Recorder::new(base.image.clone());
        let mut w = World::new(base, &rec, None).expect("mount");
        let ops = [Op::Shrink(70_000), Op::Fsync("A/f")];
        w.steps(&ops).expect("operations");
        assert_eq!(w.fs().blocks(), AG);
        assert!(before.used > AG, "nothing is behind block {AG}");
        let (view, _) = ordofs_crash::observe::recovered(&rec.image()).expect("recovery");
        assert_eq!(view.blocks, AG);
        assert!(view.used <= AG, "something is behind block {AG}");
    }
}

#[test]
fn backups_have_the_new_size_when_the_superblock_has_it() {
    let bases = bases();
    for (by, mutant) in [
        (1, Mutant::ShrinkEarly),
        (70_000, Mutant::ShrinkEarly),
        (1, Mutant::ShrinkOldBackup),
        (70_000, Mutant::ShrinkOldBackup),
    ] {
        let ops = [Op::Write("A/f", 0, 9000), Op::Shrink(by), Op::Fsync("A/f")];
        let real = violation(&bases, &ops, None);
        assert!(real.is_none(), "{ops:?}: {real:?}");
        let mutated = violation(&bases, &ops, Some(mutant));
        assert!(mutated.is_some(), "{ops:?} does not notice {mutant:?}");
    }
}

/// With the log in use, with trims and growth in between, and with all kinds of content.
#[test]
fn smaller_again() {
    let bases = bases();
    let workloads: [&[Op]; 5] = [
        &[
            Op::Append("A/f", 20_000),
            Op::Fsync("A/f"),
            Op::Shrink(1),
            Op::Truncate("A/f", 5000),
            Op::Shrink(40_000),
            Op::Fsync("A/f"),
        ],
        &[
            Op::Direct("B/g", 0, 16_384),
            Op::Rename("A/f", "B/g"),
            Op::Shrink(70_000),
            Op::Fsync("A"),
            Op::Grow(50_000, 9),
            Op::Append("B/g", 9000),
        ],
        &[
            Op::Unlink("A/f"),
            Op::Shrink(30_000),
            Op::Trim,
            Op::Append("B/g", 9000),
            Op::Fsync("B/g"),
        ],
        &[
            Op::Submit("A/f", 0, 8192),
            Op::Rename("A/f", "B/g"),
            Op::Shrink(90_000),
            Op::Write("B/g", 100, 5000),
            Op::Commit(4),
            Op::Punch("B/g", 0, 4096),
        ],
        &[
            Op::UnlinkOpen("A/f"),
            Op::TruncateInVain("B/g", 5000),
            Op::Shrink(1),
            Op::Grow(1 << 20, NOTHING),
            Op::Shrink(1 << 16),
            Op::Fsync("B/g"),
        ],
    ];
    for ops in workloads {
        let real = violation(&bases, ops, None);
        assert!(real.is_none(), "{ops:?}: {real:?}");
    }
}
