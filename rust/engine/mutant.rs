// SPDX-License-Identifier: GPL-2.0

//! Mutants: the same engine with one protection taken away, to prove that the tests would notice.
//!
//! Each protection that a test has to prove asks [`is`] whether it is to be left out. In the kernel
//! module the answer is a constant (`--cfg ordofs_mutant_<name>`, never set in a normal build). The
//! user-space crates that test the rules are compiled with `ordofs_mutants` and choose at run time,
//! per thread, so that one build holds the real engine and all of its mutants.
//!
//! Some protections are types, and what they forbid cannot be written down. Where a mutant needs it
//! all the same, a hand-weakened protocol stands beside the real one, under the same cfgs, and says so.

/// Declares the mutants: name, the cfg that makes it in the module, what is missing.
macro_rules! mutants {
    ($($name:ident $cfg:ident $what:literal,)*) => {
        /// A protection that is missing.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(dead_code)] // Those of rust/vfs have no place in the engine.
        pub enum Mutant {
            $(#[doc = $what] $name,)*
        }

        /// All of them, with what is missing in each.
        #[cfg(ordofs_mutants)]
        pub const ALL: &[(Mutant, &str, &str)] =
            &[$((Mutant::$name, stringify!($name), $what),)*];

        /// Is this build without that protection?
        #[cfg(not(ordofs_mutants))]
        #[inline(always)]
        #[allow(dead_code)]
        pub(crate) const fn is(m: Mutant) -> bool {
            match m {
                $(Mutant::$name => cfg!($cfg),)*
            }
        }
    };
}

mutants! {
    R1Order ordofs_mutant_r1_order "R1: the extent map is inserted before the ordered extent",
    R1Lock ordofs_mutant_r1_lock "R1: nobody takes ordered_sem",
    R1Trust ordofs_mutant_r1_trust "R1: fsync logs mappings that it believes to have waited for at their word",
    R2 ordofs_mutant_r2 "R2: release_folio drops modified extent maps too",
    R3 ordofs_mutant_r3 "R3: layout changes do not take the invalidate lock",
    R4 ordofs_mutant_r4 "R4: delalloc is inserted without a second look",
    R5 ordofs_mutant_r5 "R5: a mapping's cookie is not compared",
    R6 ordofs_mutant_r6 "R6: I/O on a node holds no reference of its own",
    LeftBehind ordofs_mutant_left_behind "space: what a failed truncation left behind the end of a file stays when it grows",
    AttrsEarly ordofs_mutant_attrs_early "attributes: a write-back of an inode reads them before it waits",
    LogSkipFlush ordofs_mutant_log_flush "log: fsync is acknowledged without a flush",
    LogSkipCsum ordofs_mutant_log_csum "log: a batch's checksum is not compared at replay",
    LogTrustData ordofs_mutant_log_trust "log: the last batch is believed without looking at its data",
    LogFlagOnly ordofs_mutant_log_flag "log: a batch says that its data was flushed before, and it was not",
    LogRenameAhead ordofs_mutant_log_rename "log: nothing waits for the data of a file that was renamed over another one",
    LogSplit ordofs_mutant_log_split "log: another fsync may come between the records of one change",
    LogNoWait ordofs_mutant_log_nowait "log: the next batch is written before the flush of the last",
    DamageSlot ordofs_mutant_damage_slot "superblock: a damaged slot passes for the older one",
    DamageLog ordofs_mutant_damage_log "log: it ends before a damaged batch, whatever follows",
}

#[cfg(ordofs_mutants)]
std::thread_local! {
    static CHOSEN: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
}

/// Is this thread's engine without that protection? The models of what is outside of the engine ask too.
#[cfg(ordofs_mutants)]
pub fn is(m: Mutant) -> bool {
    CHOSEN.with(|c| c.get() & (1 << m as u32) != 0)
}

/// Takes a protection away from what this thread does from now on (`None`: the real engine).
#[cfg(ordofs_mutants)]
pub fn choose(m: Option<Mutant>) {
    choose_all(m.as_slice());
}

/// Takes several protections away.
#[cfg(ordofs_mutants)]
pub fn choose_all(all: &[Mutant]) {
    CHOSEN.with(|c| c.set(all.iter().fold(0, |set, m| set | 1 << *m as u32)));
}

#[cfg(ordofs_mutants)]
std::thread_local! {
    static FSYNC_AT: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
}

/// An fsync of another task comes right after this thread's `n`-th addition to the log from now on (0: none
/// does). For the crash simulator: what an operation adds in several pieces, a crash can leave in pieces.
#[cfg(ordofs_mutants)]
pub fn fsync_at(n: u32) {
    FSYNC_AT.with(|c| c.set(n));
}

/// Something was added to the log: does the fsync come now?
#[cfg(ordofs_mutants)]
pub(crate) fn fsync_comes() -> bool {
    FSYNC_AT.with(|c| {
        let n = c.get();
        c.set(n.saturating_sub(1));
        n == 1
    })
}

#[cfg(ordofs_mutants)]
std::thread_local! {
    static WRITE_BACK: core::cell::Cell<Option<std::boxed::Box<dyn FnOnce()>>> =
        const { core::cell::Cell::new(None) };
}

/// The next write-back of an inode by this thread calls `f` before its transaction begins, as if it had to
/// wait for that.
#[cfg(ordofs_mutants)]
pub fn write_back_waits(f: std::boxed::Box<dyn FnOnce()>) {
    WRITE_BACK.with(|c| c.set(Some(f)));
}

/// A write-back of an inode is about to begin its transaction.
#[cfg(ordofs_mutants)]
pub(crate) fn write_back() {
    if let Some(f) = WRITE_BACK.with(|c| c.take()) {
        f();
    }
}
