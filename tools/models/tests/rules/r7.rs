// SPDX-License-Identifier: GPL-2.0

//! R7, freed is not free: overwrites || commits || power cut. Blocks that were freed are not used again
//! before the commit that freed them is durable, so whatever the superblock refers to is whole.

use crate::bed::{mount, prepare, Base};
use crate::explore::{caught, holds, Rule};
use crate::judge::{judge, Found};
use ordofs_models::engine::mutant::Mutant;
use shuttle::thread;
use std::sync::Arc;

/// Two neighbouring blocks. The preferred place for the copy of the second is as close to the first
/// as possible, so a block that is freed is used next, as soon as it may be.
const BASE: Base = Base {
    name: "r7",
    make: |b| b.write(0, &[[1, 1]; 2], false).expect("write"),
};

const RULE: Rule = Rule {
    name: "r7",
    cases: &["overwrite"],
    run,
    prepare: || drop(prepare(&BASE)),
};

fn run(_: usize) {
    let b = Arc::new(mount(prepare(&BASE)));
    let b2 = b.clone();
    let writer = thread::spawn(move || {
        for tag in 2..5 {
            b2.write(1, &[[tag, tag]], true).expect("write");
        }
    });
    for _ in 0..2 {
        b.fs.sync().expect("sync");
    }
    writer.join().expect("writer");
    for cut in b.disk.cuts() {
        let r = judge(BASE.name, &cut.image);
        assert!(r.problems.is_empty(), "after a power cut: {:?}", r.problems);
        let good = matches!(r.blocks[1], Found::Data([1..5, _]));
        assert!(good, "after a power cut: {:?}", r.blocks[1]);
    }
}

#[test]
fn r7_freed_is_not_free() {
    holds(&RULE);
}

/// The blocks of the nodes of space trees, which a commit leaves to the next one, are used too early.
#[test]
fn r7_mutant_is_caught() {
    caught(&RULE, "overwrite", &[Mutant::DeferredAtOnce]);
}
