// SPDX-License-Identifier: GPL-2.0

//! R1, ordered before mapped: a write || fast fsync || power cut at any point || replay. No block is
//! ever readable that was not completely written, and none lacks its checksum.

use crate::bed::{mount, prepare, Base, Bed, Halves};
use crate::explore::{caught, harmless, holds, Rule};
use crate::judge::{judge, Found};
use ordofs_models::engine::mutant::Mutant;
use ordofs_models::engine::AttrChange;
use shuttle::thread;
use std::sync::{Arc, Mutex};

const OLD: Halves = [1, 1];
const NEW: Halves = [2, 3];

/// Two blocks of each kind, all inside i_size.
const BASE: Base = Base {
    name: "r1",
    make: |b| {
        b.write(4, &[OLD; 4], false).expect("write");
        b.fs.preallocate(&b.file, 0, 2, None).expect("preallocate");
        b.fs.punch(&b.file, 6, 2).expect("punch");
    },
};

const CASES: &[&str] = &["preallocated", "hole", "copy-on-write", "writeback"];

const RULE: Rule = Rule {
    name: "r1",
    cases: CASES,
    run,
    prepare: || drop(prepare(&BASE)),
};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Event {
    Written,
    FsyncBegins,
    FsyncReturned,
}

/// What happened, in order.
#[derive(Default)]
struct Events(Mutex<Vec<Event>>);

impl Events {
    fn note(&self, b: &Bed, e: Event) {
        self.0.lock().expect("events").push(e);
        b.disk.event();
    }
}

fn run(case: usize) {
    let b = Arc::new(mount(prepare(&BASE)));
    let events = Arc::new(Events::default());
    let start = [0, 2, 4, 6][case];
    // Every write changes the times first. Otherwise fsync would have nothing to do.
    let touch = AttrChange {
        mode: Some(0o100600),
        ..AttrChange::default()
    };
    b.fs.set_attrs(&b.file, &touch).expect("set_attrs");
    let (b2, e2) = (b.clone(), events.clone());
    let writer = thread::spawn(move || {
        let direct = case != 3;
        if !direct {
            // As if two pages were dirty.
            for i in 0..2 {
                b2.fs.map_write(&b2.file, start + i, 1).expect("map_write");
            }
        }
        b2.write(start, &[NEW; 2], direct).expect("write");
        e2.note(&b2, Event::Written);
    });
    let (b3, e3) = (b.clone(), events.clone());
    let syncer = thread::spawn(move || {
        // After a second batch, recovery believes the first without reading its data.
        for _ in 0..2 {
            e3.note(&b3, Event::FsyncBegins);
            b3.fs.sync_inode(&b3.file).expect("fsync");
            e3.note(&b3, Event::FsyncReturned);
        }
    });
    writer.join().expect("writer");
    syncer.join().expect("syncer");
    let events = events.0.lock().expect("events").clone();
    for cut in b.disk.cuts() {
        check(
            case,
            start,
            &judge(BASE.name, &cut.image),
            &events[..cut.events],
        );
    }
}

fn check(case: usize, start: u64, r: &crate::judge::Recovered, events: &[Event]) {
    assert!(r.problems.is_empty(), "after a power cut: {:?}", r.problems);
    // Acknowledged: an fsync began after the write and returned.
    let acknowledged = events
        .iter()
        .position(|e| *e == Event::Written)
        .is_some_and(|w| {
            let rest = &events[w..];
            let begun = rest.iter().position(|e| *e == Event::FsyncBegins);
            begun.is_some_and(|f| rest[f..].contains(&Event::FsyncReturned))
        });
    for (i, found) in r.blocks.iter().enumerate() {
        let old = match i {
            0 | 1 => Found::Unwritten,
            4 | 5 => Found::Data(OLD),
            _ => Found::Hole,
        };
        let new = Found::Data(NEW);
        let target = (start..start + 2).contains(&(i as u64));
        let good = match (target, acknowledged) {
            (true, true) => *found == new,
            (true, false) => *found == old || *found == new,
            (false, _) => *found == old,
        };
        assert!(
            good,
            "{}: block {i} is {found:?} after a power cut, acknowledged: {acknowledged}",
            CASES[case]
        );
    }
}

#[test]
fn r1_ordered_before_mapped() {
    holds(&RULE);
}

/// Without order and lock, and with an fsync that trusts the maps that it waited for, as that of
/// btrfs does.
#[test]
fn r1_mutant_is_caught() {
    use Mutant::{R1Lock, R1Order, R1Trust};
    for case in CASES {
        caught(&RULE, case, &[R1Order, R1Lock, R1Trust]);
    }
}

/// Without order and lock, but with the real fsync: it does not log what is in flight, and its
/// assertion reports that it missed a write.
#[test]
fn r1_mutant_is_caught_by_its_assertion() {
    caught(&RULE, CASES[0], &[Mutant::R1Order, Mutant::R1Lock]);
}

/// Each protection alone suffices.
#[test]
fn r1_defence_in_depth() {
    use Mutant::{R1Lock, R1Order, R1Trust};
    for case in CASES {
        harmless(&RULE, case, &[R1Order]);
        harmless(&RULE, case, &[R1Lock]);
        harmless(&RULE, case, &[R1Trust]);
        harmless(&RULE, case, &[R1Order, R1Trust]);
        harmless(&RULE, case, &[R1Lock, R1Trust]);
    }
}
