// SPDX-License-Identifier: GPL-2.0

//! R5, cached mappings expire: a long buffered write that keeps a mapping || a store, its writeback,
//! reclaim of the written folio || punch. Never a zeroed or misdirected byte.

use crate::bed::{mount, prepare, Base};
use crate::explore::{caught, holds, Rule};
use crate::page_cache::File;
use ordofs_models::engine::mutant::Mutant;
use shuttle::thread;
use std::sync::Arc;

/// Blocks 0, 1: preallocated; 2, 3: holes; 4, 5: written; all inside `i_size`.
const BASE: Base = Base {
    name: "r5",
    make: |b| {
        b.write(2, &[[1, 1]; 4], false).expect("write");
        b.fs.preallocate(&b.file, 0, 2, None).expect("preallocate");
        b.fs.punch(&b.file, 2, 2).expect("punch");
    },
};

const CASES: &[&str] = &["unwritten", "hole", "overwrite", "punch"];

const RULE: Rule = Rule {
    name: "r5",
    cases: CASES,
    run,
    prepare: || drop(prepare(&BASE)),
};

fn run(case: usize) {
    let f = Arc::new(File::new(mount(prepare(&BASE))));
    let first = [0, 2, 4, 0][case];
    let f2 = f.clone();
    // The process that has mapped the file stores into the half that the write leaves out; then
    // reclaim runs.
    let other = thread::spawn(move || {
        assert!(f2.store(2 * first + 3, 7).expect("store"));
        f2.writeback(first, first + 2).expect("writeback");
        f2.reclaim(first + 1);
        f2.reclaim(first);
    });
    let f3 = f.clone();
    let punch = (case == 3).then(|| thread::spawn(move || f3.punch(0..2).expect("punch")));
    f.write(2 * first, &[5, 5, 5]).expect("write");
    other.join().expect("other");
    let punched = punch.is_some();
    if let Some(p) = punch {
        p.join().expect("punch");
    }
    let data: Vec<_> = (0..6).map(|i| f.read(i).expect("read")).collect();
    let first = first as usize;
    let good = data[first] == [5, 5] || (punched && data[first] == [0, 0]);
    assert!(
        good && data[first + 1] == [5, 7],
        "{}: {:?} instead of [5, 5], [5, 7]",
        CASES[case],
        &data[first..first + 2]
    );
    f.check_quiet();
    f.settle(6);
    f.check_quiet();
}

#[test]
fn r5_cached_mappings_expire() {
    holds(&RULE);
}

#[test]
fn r5_mutant_is_caught() {
    for case in CASES {
        caught(&RULE, case, &[Mutant::R5]);
    }
}
