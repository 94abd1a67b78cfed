// SPDX-License-Identifier: GPL-2.0

//! R2, modified maps stay: writeback completion || release_folio || shrinker || fast fsync || power
//! cut. No acknowledged extent is missing.

use crate::bed::{mount, prepare, Base, Halves};
use crate::explore::{caught, fails_again, holds, Rule};
use crate::judge::{judge, Found};
use crate::page_cache::File;
use ordofs_models::engine::mutant::Mutant;
use shuttle::thread;
use std::sync::Arc;

const OLD: Halves = [1, 1];
const NEW: Halves = [5, 5];

/// Block 0 is overwritten, block 1 was a hole.
const BASE: Base = Base {
    name: "r2",
    make: |b| {
        b.write(0, &[OLD; 2], false).expect("write");
        b.fs.punch(&b.file, 1, 1).expect("punch");
    },
};

const RULE: Rule = Rule {
    name: "r2",
    cases: &["release_folio", "shrinker"],
    run,
    prepare: || drop(prepare(&BASE)),
};

fn run(case: usize) {
    let f = Arc::new(File::new(mount(prepare(&BASE))));
    f.write(0, &[5; 4]).expect("write");
    let f2 = f.clone();
    let flusher = thread::spawn(move || f2.writeback(0, 2).expect("writeback"));
    let f3 = f.clone();
    let memory = thread::spawn(move || {
        // The shrinker waits for nothing, so that most calls come while the write is in flight.
        let calls = if case == 0 { 3 } else { 24 };
        for _ in 0..calls {
            if case == 0 {
                f3.reclaim(0);
                f3.reclaim(1);
            } else {
                f3.bed.fs.shrink_scan(100);
            }
            thread::yield_now();
        }
    });
    f.fsync().expect("fsync");
    // The only event: acknowledged.
    f.bed.disk.event();
    f.bed.disk.may_fail_now();
    flusher.join().expect("flusher");
    memory.join().expect("memory");
    for cut in f.bed.disk.cuts() {
        let r = judge(BASE.name, &cut.image);
        assert!(r.problems.is_empty(), "after a power cut: {:?}", r.problems);
        for (i, old) in [Found::Data(OLD), Found::Hole].into_iter().enumerate() {
            let found = r.blocks[i];
            let good = found == Found::Data(NEW) || (cut.events == 0 && found == old);
            let acknowledged = cut.events;
            assert!(
                good,
                "block {i} is {found:?} after a power cut, acknowledged: {acknowledged}"
            );
        }
    }
}

#[test]
fn r2_modified_maps_stay() {
    holds(&RULE);
}

#[test]
fn r2_mutant_is_caught() {
    caught(&RULE, "release_folio", &[Mutant::R2]);
    caught(&RULE, "shrinker", &[Mutant::R2]);
}

#[test]
fn a_failing_schedule_fails_again() {
    fails_again(&RULE, 0, &[Mutant::R2]);
}
