// SPDX-License-Identifier: GPL-2.0

//! What the tests of resizes share: a workload with both ends, on filesystems with one copy of each node and
//! with two.

use ordofs_crash::bases::Bases;
use ordofs_crash::engine::mutant::Mutant;
use ordofs_crash::run::{run, Effort, Violation};
use ordofs_crash::workload::{End, Op, Start, Workload};

pub const EFFORT: Effort = Effort {
    states: 80,
    deep: 16,
};
/// A resize in the middle of which nothing happens.
pub const NOTHING: usize = usize::MAX;

pub fn bases() -> Bases {
    kernel::print::set_level(kernel::print::SILENT);
    Bases::new().expect("bases")
}

/// The first violation of operations that start from `start`.
pub fn violation(
    bases: &Bases,
    start: Start,
    ops: &[Op],
    mutant: Option<Mutant>,
) -> Option<Violation> {
    for end in [End::Fsync, End::Commit] {
        for seed in [1, 2] {
            let w = Workload {
                seed,
                start,
                ops: ops.to_vec(),
                end,
            };
            let out = run(bases, &w, EFFORT, mutant, None);
            if out.violation.is_some() {
                return out.violation;
            }
            assert!(out.states > 10, "{w}: {} states", out.states);
        }
    }
    None
}
