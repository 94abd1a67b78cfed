// SPDX-License-Identifier: GPL-2.0

//! Random sequences of all operations against the model, with remounts, crashes and a full disk.

mod support;

use ordofs_engine::os::mem::MemDisk;
use proptest::prelude::*;
use support::driver::Driver;
use support::ops::{op, Op};

fn run(blocks: u64, ops: &[Op]) -> u64 {
    let disk = MemDisk::new(blocks);
    let mut d = Driver::new(move || disk.device());
    for op in ops {
        d.step(op);
    }
    d.remount();
    d.nospace
}

/// ORDOFS_TEST_FACTOR=20 makes the tests run twenty times as many cases.
fn config(cases: u32) -> ProptestConfig {
    let factor = std::env::var("ORDOFS_TEST_FACTOR")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(1);
    let cases = cases * factor;
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(150))]
    #[test]
    fn any_sequence_matches_the_model(ops in prop::collection::vec(op(), 1..120)) {
        run(16384, &ops);
    }
}

proptest! {
    #![proptest_config(config(60))]
    #[test]
    fn also_on_a_small_disk(ops in prop::collection::vec(op(), 60..250)) {
        run(4096, &ops);
    }
}
