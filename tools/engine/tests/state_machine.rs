// SPDX-License-Identifier: GPL-2.0

//! Random sequences of all operations against the model, with remounts, crashes and a full disk.

mod support;

use ordofs_engine::os::mem::MemDisk;
use proptest::prelude::*;
use support::driver::Driver;
use support::ops::{op, Op, What};

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

/// The size record of a preallocation takes the file's data along, so the fsync of another file makes it durable.
/// The file is removed after that; the removal is lost with the power, and the data is as the log has it.
#[test]
fn a_crash_undoes_the_removal_of_a_file_that_the_log_has() {
    let file = |name| Op::Create {
        dir: 0,
        name,
        what: What::File,
    };
    let ops = [
        file(0),
        file(1),
        Op::Write {
            file: 0,
            start: 0,
            len: 1,
        },
        Op::Writeback {
            file: 0,
            fail: false,
        },
        Op::Preallocate {
            file: 0,
            start: 0,
            len: 2,
            keep: false,
        },
        Op::SyncFile { file: 1 },
        Op::Unlink { dir: 0, entry: 0 },
        Op::Crash,
    ];
    run(16384, &ops);
}
