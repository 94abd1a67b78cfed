// SPDX-License-Identifier: GPL-2.0

//! Reads || overwrites || commits: a reader gets data that matches its checksum, old or new, or
//! learns that the block has moved. Good data is never reported as damaged.

use crate::bed::{mount, prepare, Base};
use crate::explore::{holds, Rule};
use shuttle::thread;
use std::sync::Arc;

const BASE: Base = Base {
    name: "reads",
    make: |b| b.write(0, &[[1, 1]; 2], false).expect("write"),
};

const RULE: Rule = Rule {
    name: "reads",
    cases: &["overwrite"],
    run,
    prepare: || drop(prepare(&BASE)),
};

fn run(_: usize) {
    let b = Arc::new(mount(prepare(&BASE)));
    let b2 = b.clone();
    let writer = thread::spawn(move || {
        b2.write(0, &[[2, 2]; 2], true).expect("write");
        b2.fs.sync().expect("sync");
        b2.write(0, &[[3, 3]; 2], true).expect("write");
    });
    let mut last = 0;
    for _ in 0..3 {
        let is = b.read(0).expect("read");
        assert!(is[0] == is[1] && is[0] >= last, "{is:?} after {last}");
        last = is[0];
    }
    writer.join().expect("writer");
    assert_eq!(b.read(0), Ok([3, 3]));
}

#[test]
fn reads_race_with_overwrites() {
    holds(&RULE);
}
