// SPDX-License-Identifier: GPL-2.0

//! R6, I/O owns its buffer: reads of metadata || release || write-out || eviction. No use after
//! release, no lost dirty node, no double read.

use crate::bed::{mount, new_file, prepare, Base};
use crate::explore::{caught, holds, Rule};
use crate::judge::judge;
use ordofs_models::engine::mutant::Mutant;
use ordofs_models::engine::AttrChange;
use shuttle::rand::Rng;
use shuttle::thread;
use std::sync::Arc;

/// Files in addition to that of the bed, so that the inode tree has several leaves.
const FILES: u32 = 60;

const BASE: Base = Base {
    name: "r6",
    make: |b| {
        let root = b.fs.iget(b.fs.root_ino()).expect("root");
        for i in 0..FILES {
            let name = format!("{i:03}");
            let new = b.fs.create(&root, name.as_bytes(), &new_file());
            b.fs.iput(new.expect("create"));
        }
        b.fs.iput(root);
    },
};

const RULE: Rule = Rule {
    name: "r6",
    cases: &["reads", "write-out"],
    run,
    prepare: || drop(prepare(&BASE)),
};

fn run(case: usize) {
    let b = Arc::new(mount(prepare(&BASE)));
    let first = b.file.ino() + 1;
    // One file on the first leaf, one on a later leaf.
    let inodes = [first, first + u64::from(FILES) - 1];
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let b = b.clone();
            thread::spawn(move || {
                for ino in inodes {
                    let i = b.fs.iget(ino).expect("an inode that is there");
                    assert_eq!(i.ino(), ino);
                    b.fs.iput(i);
                }
            })
        })
        .collect();
    let b2 = b.clone();
    let memory = thread::spawn(move || {
        for _ in 0..3 {
            // Some or all: a sweep that stops in the middle continues there the next time.
            let n = shuttle::rand::thread_rng().gen_range(1..40u64);
            b2.fs.shrink_scan(n);
            thread::yield_now();
        }
    });
    if case == 1 {
        let owner = AttrChange {
            uid: Some(3),
            ..AttrChange::default()
        };
        let last = b.fs.iget(inodes[1]).expect("an inode that is there");
        b.fs.set_attrs(&last, &owner).expect("set_attrs");
        b.fs.iput(last);
        b.fs.sync().expect("commit");
    }
    readers.into_iter().for_each(|t| t.join().expect("reader"));
    memory.join().expect("memory");
    assert_eq!(
        b.disk.read_twice(),
        None,
        "two read a node at the same time"
    );
    if case == 1 {
        b.fs.shrink_scan(u64::MAX);
        let last = b.fs.iget(inodes[1]).expect("an inode that is there");
        assert_eq!(last.attrs().uid, 3, "a change was lost");
        b.fs.iput(last);
        let r = judge(BASE.name, &b.disk.image());
        assert!(r.problems.is_empty(), "{:?}", r.problems);
    }
}

#[test]
fn r6_io_owns_its_buffer() {
    holds(&RULE);
}

/// With the hand-weakened reader of `rust/engine/btree/store/weakened.rs`. A reader that kept no
/// reference and went on to use the node would not compile (tests/types.rs).
#[test]
fn r6_mutant_is_caught() {
    caught(&RULE, "reads", &[Mutant::R6]);
    caught(&RULE, "write-out", &[Mutant::R6]);
}
