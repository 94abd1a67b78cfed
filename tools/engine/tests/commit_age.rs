// SPDX-License-Identifier: GPL-2.0

//! The commit thread commits after as many seconds as the mount says, whatever happens to the wall clock.

mod common;

use common::*;
use ordofs_engine::os::{set_clock, Clock};

const NOON: i64 = 1_800_000_000;

fn clock(wall: i64, uptime: u64) {
    set_clock(Some(Clock { wall, uptime }));
}

/// Creates a file, sets the clocks, and calls the commit thread. Returns whether it committed.
fn committed(wall: i64, uptime: u64) -> bool {
    clock(NOON, 100);
    let disk = make(1 << 14);
    let fs = mount(&disk);
    let secs = u64::from(fs.options().commit_secs);
    let root = fs.iget(fs.root_ino()).unwrap();
    fs.sync().unwrap();
    let file = fs.create(&root, b"a", &regular()).unwrap();
    fs.iput(file);
    let before = fs.durable_generation();
    clock(wall, 100 + secs - 1);
    fs.commit_tick().unwrap();
    assert_eq!(fs.durable_generation(), before, "committed too early");
    clock(wall, 100 + secs + uptime);
    fs.commit_tick().unwrap();
    fs.durable_generation() > before
}

#[test]
fn a_wall_clock_set_back_stops_no_commit() {
    assert!(committed(NOON - 86_400 * 365, 0));
    // As far as a clock without a battery goes.
    assert!(committed(0, 0));
    assert!(committed(-1, 0));
}

#[test]
fn a_wall_clock_set_forward_makes_no_commit() {
    assert!(committed(NOON + 86_400, 0));
}
