// SPDX-License-Identifier: GPL-2.0

//! R8, acknowledged is durable: fsync || sync || power cut. What was done before one of them began is
//! there after it returned, whichever commit or batch carried it.

use crate::bed::{mount, prepare, Base};
use crate::explore::{caught, holds, Rule};
use crate::judge::{judge, Found};
use ordofs_models::engine::mutant::Mutant;
use ordofs_models::engine::AttrChange;
use shuttle::thread;
use std::sync::{Arc, Mutex};

const BASE: Base = Base {
    name: "r8",
    make: |b| b.write(0, &[[1, 1]; 2], false).expect("write"),
};

const RULE: Rule = Rule {
    name: "r8",
    cases: &["sync and fsync", "two fsyncs"],
    run,
    prepare: || drop(prepare(&BASE)),
};

fn run(case: usize) {
    let b = Arc::new(mount(prepare(&BASE)));
    // The calls that have returned and made everything durable, in order.
    let told = Arc::new(Mutex::new(Vec::new()));
    let (b2, t2) = (b.clone(), told.clone());
    let other = thread::spawn(move || {
        let owner = AttrChange {
            uid: Some(3),
            ..AttrChange::default()
        };
        b2.fs.set_attrs(&b2.file, &owner).expect("set_attrs");
        if case == 0 {
            b2.fs.sync().expect("sync");
        } else {
            b2.fs.sync_inode(&b2.file).expect("fsync");
        }
        t2.lock().expect("told").push("owner");
        b2.disk.event();
        b2.disk.may_fail_now();
    });
    b.write(0, &[[2, 2]; 2], true).expect("write");
    b.fs.sync_inode(&b.file).expect("fsync");
    told.lock().expect("told").push("data");
    b.disk.event();
    b.disk.may_fail_now();
    other.join().expect("other");
    let told = told.lock().expect("told").clone();
    for cut in b.disk.cuts() {
        let r = judge(BASE.name, &cut.image);
        assert!(r.problems.is_empty(), "after a power cut: {:?}", r.problems);
        let told = &told[..cut.events];
        let data = r.blocks[..2].iter().all(|b| *b == Found::Data([2, 2]));
        assert!(data || !told.contains(&"data"), "told {told:?}, but {r:?}");
        let owner = r.uid == 3;
        assert!(
            owner || !told.contains(&"owner"),
            "told {told:?}, but {r:?}"
        );
    }
}

#[test]
fn r8_acknowledged_is_durable() {
    holds(&RULE);
}

#[test]
fn r8_mutant_is_caught() {
    caught(&RULE, "two fsyncs", &[Mutant::LogSkipFlush]);
}
