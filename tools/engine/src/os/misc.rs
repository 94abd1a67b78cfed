// SPDX-License-Identifier: GPL-2.0

//! Checksums, hashes, time and randomness.

use core::hash::Hasher;
use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A point in time.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Time {
    /// Seconds since 1970.
    pub sec: i64,
    /// Nanoseconds, below 10^9.
    pub nsec: u32,
}

/// The clocks of a thread, if a test has set them.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Seconds of the wall clock since 1970.
    pub wall: i64,
    /// Seconds since boot.
    pub uptime: u64,
}

std::thread_local! {
    static CLOCK: Cell<Option<Clock>> = const { Cell::new(None) };
}

/// Sets both clocks of this thread, which stand still from then on. `None` returns to the clocks of
/// the system.
pub fn set_clock(clock: Option<Clock>) {
    CLOCK.set(clock);
}

/// Seconds since the first call, on a clock that no process can set: for intervals.
pub fn uptime() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    match CLOCK.get() {
        Some(c) => c.uptime,
        None => START.get_or_init(Instant::now).elapsed().as_secs(),
    }
}

/// The wall clock.
pub fn now() -> Time {
    if let Some(c) = CLOCK.get() {
        return Time {
            sec: c.wall,
            nsec: 0,
        };
    }
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(d) => Time {
            sec: d.as_secs() as i64,
            nsec: d.subsec_nanos(),
        },
        Err(e) => Time {
            sec: -(e.duration().as_secs() as i64) - 1,
            nsec: 0,
        },
    }
}

/// CRC-32C. `seed` is the checksum of the bytes before `data`, or 0.
pub fn crc32c(seed: u32, data: &[u8]) -> u32 {
    ::crc32c::crc32c_append(seed, data)
}

/// SipHash-2-4.
pub fn siphash(key: [u64; 2], data: &[u8]) -> u64 {
    let mut h = siphasher::sip::SipHasher24::new_with_keys(key[0], key[1]);
    h.write(data);
    h.finish()
}

/// A random number from the operating system.
pub fn random_u64() -> u64 {
    // A running Linux system always has random numbers.
    getrandom::u64().unwrap_or_else(|e| panic!("no random numbers from the system: {e}"))
}

/// The system never sleeps.
pub fn is_freezing() -> bool {
    false
}

/// Lets others run.
pub fn cond_resched() {}

/// In the kernel: allocations do not enter the filesystem while this lives.
pub struct NoFs(());

impl NoFs {
    /// Begins the scope.
    pub fn enter() -> Self {
        Self(())
    }
}

impl Drop for NoFs {
    fn drop(&mut self) {}
}

std::thread_local! {
    static HELD: std::cell::Cell<Option<fn(bool)>> = const { std::cell::Cell::new(None) };
}

/// From now on calls `f` in this thread: with `true` before a [`LockMap`] is taken exclusively, with
/// `false` after one has been released.
pub fn on_exclusive(f: Option<fn(bool)>) {
    HELD.set(f);
}

/// In the kernel: lockdep's view of a wait that is no lock's.
pub struct LockMap(());

impl LockMap {
    /// A wait of this class.
    pub fn new(_class: &'static super::LockClass) -> kernel::prelude::Result<Self> {
        Ok(Self(()))
    }

    /// This task waits for it, shared or exclusively, and then holds it.
    pub fn acquire(&self, exclusive: bool) {
        if let Some(f) = HELD.get().filter(|_| exclusive) {
            f(true);
        }
    }

    /// As [`LockMap::acquire`], without waiting.
    pub fn acquired(&self, _exclusive: bool) {}

    /// This task no longer holds it.
    pub fn release(&self) {
        if let Some(f) = HELD.get() {
            f(false);
        }
    }

    /// This task may wait for the tasks that hold it.
    pub fn might_wait(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_check_value_and_chaining() {
        assert_eq!(crc32c(0, b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(crc32c(0, b"1234"), b"56789"), 0xE306_9283);
    }

    #[test]
    fn siphash_reference_vector() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let data: [u8; 15] = core::array::from_fn(|i| i as u8);
        assert_eq!(siphash(key, &data), 0xa129_ca61_49be_45e5);
    }
}
