// SPDX-License-Identifier: GPL-2.0

//! What the tests share: one workload, from all starts and with both ends.

use ordofs_crash::bases::Bases;
use ordofs_crash::engine::mutant::Mutant;
use ordofs_crash::run::{run, Effort, Violation};
use ordofs_crash::workload::{End, Op, Start, Workload};

/// Runs operations with both ends, from all starts, each with at least `least` crash states. Returns the first
/// violation.
pub fn first_violation(
    ops: &[Op],
    effort: Effort,
    mutant: Option<Mutant>,
    least: u64,
) -> Option<Violation> {
    kernel::print::set_level(kernel::print::SILENT);
    let bases = Bases::new().expect("bases");
    for end in [End::Fsync, End::Commit] {
        for start in [Start::Fresh, Start::Wrap, Start::Full] {
            let w = Workload {
                seed: 1,
                start,
                ops: ops.to_vec(),
                end,
            };
            let out = run(&bases, &w, effort, mutant, None);
            if out.violation.is_some() {
                return out.violation;
            }
            assert!(out.states >= least, "{w}: {} states", out.states);
        }
    }
    None
}
