// SPDX-License-Identifier: GPL-2.0

//! The OS contract (docs/DESIGN.md §1) of `ordofs-engine`, with a clock and random numbers that
//! start again with every workload, in each thread.

pub use ordofs_engine::os::*;

use std::cell::Cell;

std::thread_local! {
    static TICKS: Cell<u64> = const { Cell::new(0) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

/// 2026-01-01, the time at which every workload begins.
const EPOCH: i64 = 1_767_225_600;

/// The time; each call returns a time one microsecond later than the last.
pub fn now() -> Time {
    let t = TICKS.get();
    TICKS.set(t + 1);
    Time {
        sec: EPOCH + (t / 1_000_000) as i64,
        nsec: (t % 1_000_000) as u32 * 1000,
    }
}

/// Seconds since boot, by the same clock.
pub fn uptime() -> u64 {
    TICKS.get() / 1_000_000
}

/// The next "random" number of this thread.
pub fn random_u64() -> u64 {
    let n = RANDOM.get() + 1;
    RANDOM.set(n);
    siphash([n, 0x6f72_646f], b"crash")
}

/// How often this thread has read the clock.
pub fn clock() -> u64 {
    TICKS.get()
}

/// Sets this thread's clock to `ticks` ticks after the beginning.
pub fn set_clock(ticks: u64) {
    TICKS.set(ticks);
}

/// Restarts the random numbers of this thread after the `n`-th.
pub fn set_random(n: u64) {
    RANDOM.set(n);
}
