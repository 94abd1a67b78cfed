// SPDX-License-Identifier: GPL-2.0

//! Mutants: the same engine with one protection taken away, to prove that the tests would notice.
//!
//! Each protection that a test has to prove asks [`is`] whether it is to be left out. In the kernel
//! module the answer is a constant (`--cfg ordofs_mutant_<name>`, never set in a normal build). The
//! user-space crates that test the rules are compiled with `ordofs_mutants` and choose at run time,
//! per thread, so that one build holds the real engine and all of its mutants.

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
    R2 ordofs_mutant_r2 "R2: release_folio drops modified extent maps too",
    R3 ordofs_mutant_r3 "R3: page_mkwrite does not take the invalidate lock",
    R4 ordofs_mutant_r4 "R4: delalloc is inserted without a second look",
    R5 ordofs_mutant_r5 "R5: a mapping's cookie is not compared",
    R6 ordofs_mutant_r6 "R6: I/O on a node holds no reference of its own",
    LogSkipFlush ordofs_mutant_log_flush "log: fsync is acknowledged without a flush",
    LogSkipCsum ordofs_mutant_log_csum "log: a batch's checksum is not compared at replay",
    LogTrustData ordofs_mutant_log_trust "log: the last batch is believed without looking at its data",
    LogNoWait ordofs_mutant_log_nowait "log: the next batch is written before the flush of the last",
}

#[cfg(ordofs_mutants)]
std::thread_local! {
    static CHOSEN: core::cell::Cell<Option<Mutant>> = const { core::cell::Cell::new(None) };
}

/// Is this thread's engine without that protection?
#[cfg(ordofs_mutants)]
#[allow(dead_code)]
pub(crate) fn is(m: Mutant) -> bool {
    CHOSEN.with(|c| c.get() == Some(m))
}

/// Takes a protection away from what this thread does from now on (`None`: the real engine).
#[cfg(ordofs_mutants)]
pub fn choose(m: Option<Mutant>) {
    CHOSEN.with(|c| c.set(m));
}
