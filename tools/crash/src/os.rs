// SPDX-License-Identifier: GPL-2.0

//! The OS contract (docs/DESIGN.md §1): that of `ordofs-engine`, with a clock and random numbers that
//! begin anew with every workload, per thread.

pub use ordofs_engine::os::*;

use std::cell::Cell;

std::thread_local! {
    static TICKS: Cell<u64> = const { Cell::new(0) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

/// 2026-01-01, when every workload begins.
const EPOCH: i64 = 1_767_225_600;

/// The clock: each call returns a time one microsecond later than the call before.
pub fn now() -> Time {
    let t = TICKS.get();
    TICKS.set(t + 1);
    Time {
        sec: EPOCH + (t / 1_000_000) as i64,
        nsec: (t % 1_000_000) as u32 * 1000,
    }
}

/// Seconds since boot, of the same clock.
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

/// Sets this thread's clock to so many ticks after the beginning.
pub fn set_clock(ticks: u64) {
    TICKS.set(ticks);
}

/// Begins the random numbers of this thread again.
pub fn set_random(n: u64) {
    RANDOM.set(n);
}
