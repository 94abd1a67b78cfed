// SPDX-License-Identifier: GPL-2.0

//! R3, faults exclude layout changes: page faults || truncate, punch, zero || writeback. No dirty folio
//! over a freed block, no lost zeroing, no leaked reservation.

use crate::bed::{mount, prepare, Base};
use crate::explore::{caught, holds, Rule};
use crate::page_cache::File;
use ordofs_models::engine::mutant::Mutant;
use shuttle::thread;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Halves of the file.
const SIZE: u64 = 8;

const BASE: Base = Base {
    name: "r3",
    make: |b| b.write(0, &[[1, 1]; 4], false).expect("write"),
};

const CASES: &[&str] = &["punch", "punch-parts", "zero", "truncate"];

const RULE: Rule = Rule {
    name: "r3",
    cases: CASES,
    run,
    prepare: || drop(prepare(&BASE)),
};

/// The range that becomes zero in a case, in halves.
fn zeroed(case: usize) -> Range<u64> {
    match case {
        0 => 2..6,
        1 | 2 => 1..5,
        _ => 3..SIZE,
    }
}

/// The stores: half and byte.
const STORES: [(u64, u8); 2] = [(2, 7), (5, 8)];

fn run(case: usize) {
    let free = mount(prepare(&BASE));
    let before = free.fs.statfs().bfree;
    let f = Arc::new(File::new(free));
    // Orders the moments of the scenario. Not an atomic of shuttle, because it is no part of what
    // is tested.
    let clock = Arc::new(AtomicUsize::new(1));
    let tick = |c: &AtomicUsize| c.fetch_add(1, Ordering::SeqCst);

    let (f2, c2) = (f.clone(), clock.clone());
    let mapper = thread::spawn(move || {
        STORES.map(|(half, byte)| {
            let begun = tick(&c2);
            let stored = f2.store(half, byte).expect("store");
            (stored, begun, tick(&c2))
        })
    });
    let f3 = f.clone();
    let flusher = thread::spawn(move || {
        f3.writeback(0, 4).expect("writeback");
        f3.writeback(0, 4).expect("writeback");
    });
    let begun = tick(&clock);
    match case {
        0 | 1 => f.punch(zeroed(case)).expect("punch"),
        2 => f.zero_range(zeroed(case)).expect("zero"),
        _ => {
            f.truncate(zeroed(case).start).expect("truncate");
            f.truncate(SIZE).expect("truncate");
        }
    }
    let ended = tick(&clock);
    let stores = mapper.join().expect("mapper");
    flusher.join().expect("flusher");

    f.check_quiet();
    let data = f.settle(SIZE / 2);
    f.check_quiet();
    for half in 0..SIZE {
        let is = data[half as usize / 2][half as usize % 2];
        let rest = if zeroed(case).contains(&half) { 0 } else { 1 };
        let store = STORES.iter().position(|(h, _)| *h == half);
        let good = match store.map(|i| (STORES[i].1, stores[i])) {
            None => is == rest,
            Some((_, (false, ..))) => is == rest,
            Some((byte, _)) if rest == 1 => is == byte,
            // The store ended before the operation began, or began after it ended, or overlapped
            // with it.
            Some((_, (true, _, e))) if e < begun => is == 0,
            Some((byte, (true, b, _))) if b > ended => is == byte,
            Some((byte, _)) => is == byte || is == 0,
        };
        assert!(good, "{}: half {half} is {is}", CASES[case]);
    }
    // R4, too: no reservation is left.
    f.truncate(0).expect("truncate");
    f.bed.fs.sync().expect("sync");
    f.bed.fs.sync().expect("sync");
    let after = f.bed.fs.statfs().bfree;
    assert_eq!(after, before + SIZE / 2, "reservations leaked");
}

#[test]
fn r3_faults_exclude_layout_changes() {
    holds(&RULE);
}

#[test]
fn r3_mutant_is_caught() {
    for case in CASES {
        caught(&RULE, case, &[Mutant::R3]);
    }
}
