// SPDX-License-Identifier: GPL-2.0

//! FITRIM and power cuts: what is discarded is in no state that a mount may come back to.

mod common;

use common::first_violation;
use ordofs_crash::engine::mutant::Mutant;
use ordofs_crash::run::Effort;
use ordofs_crash::workload::Op;

const EFFORT: Effort = Effort {
    states: 600,
    deep: 8,
};

/// What the running transaction has freed is discarded, and so is what a commit under way frees.
const WORKLOADS: [&[Op]; 5] = [
    &[Op::Sync, Op::Truncate("A/f", 0), Op::Trim],
    &[Op::Write("A/f", 0, 4096), Op::Writeback("A/f"), Op::Trim],
    &[Op::Truncate("A/f", 0), Op::Commit(3), Op::Trim],
    // Replay needs the blocks of a file that is gone by now.
    &[
        Op::Append("A/f", 9000),
        Op::Fsync("A/f"),
        Op::Truncate("A/f", 0),
        Op::Trim,
    ],
    &[
        Op::Unlink("B/g"),
        Op::Trim,
        Op::Append("A/f", 9000),
        Op::Trim,
    ],
];

#[test]
fn nothing_that_a_mount_needs_is_discarded() {
    for ops in WORKLOADS {
        let real = first_violation(ops, EFFORT, None, 2);
        assert!(real.is_none(), "{ops:?}: {real:?}");
    }
}

#[test]
fn discarding_what_is_freed_and_not_durable_is_noticed() {
    for ops in WORKLOADS {
        let mutated = first_violation(ops, EFFORT, Some(Mutant::TrimFreed), 2);
        assert!(mutated.is_some(), "{ops:?} does not notice it");
    }
}
