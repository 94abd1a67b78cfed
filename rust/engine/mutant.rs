// SPDX-License-Identifier: GPL-2.0

//! Mutants: the same engine with one protection taken away, to prove that the tests notice.
//!
//! Each protection that a test has to prove calls [`is`] to see whether it is left out. In the
//! kernel module [`is`] is a constant (`--cfg ordofs_mutant_<name>`, never set in a normal build).
//! The user-space crates that test the rules are compiled with `ordofs_mutants` and choose a mutant
//! at run time, per thread, so that one build holds the real engine and all of its mutants.
//!
//! Some protections are types: the compiler rejects the code that would break them. Where a mutant
//! needs that code all the same, a hand-weakened protocol stands beside the real one, under the
//! same cfgs, and its comment says so.
//!
//! Tests: `make mutants` (`scripts/mutants`) runs models and VM tests that must fail;
//! `tools/models/tests/rules/main.rs`, `tools/crash/tests/attributes.rs`, `grow.rs`, `shrink.rs`
//! and `tools/fuzz/tests/corpus.rs` choose mutants in user space.

/// Declares the mutants: the name, the cfg that selects it in the module, and the missing
/// protection.
macro_rules! mutants {
    ($($name:ident $cfg:ident $what:literal,)*) => {
        /// The protection that a mutant lacks.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(dead_code)] // The engine does not use those of rust/vfs.
        pub enum Mutant {
            $(#[doc = $what] $name,)*
        }

        /// All mutants: value, name, and the missing protection.
        #[cfg(ordofs_mutants)]
        pub const ALL: &[(Mutant, &str, &str)] =
            &[$((Mutant::$name, stringify!($name), $what),)*];

        /// Whether this build lacks the protection.
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
    R1Lock ordofs_mutant_r1_lock "R1: neither side takes ordered_sem",
    R1Trust ordofs_mutant_r1_trust "R1: fsync trusts the extent maps of writes that it should have waited for",
    R2 ordofs_mutant_r2 "R2: release_folio drops modified extent maps too",
    R3 ordofs_mutant_r3 "R3: layout changes do not take the invalidate lock",
    R4 ordofs_mutant_r4 "R4: delalloc is inserted without a second look",
    R5 ordofs_mutant_r5 "R5: a mapping's cookie is not compared",
    R6 ordofs_mutant_r6 "R6: I/O on a node holds no reference of its own",
    LeftBehind ordofs_mutant_left_behind "space: mappings that a failed truncation left past the end of a file stay when it grows",
    AttrsEarly ordofs_mutant_attrs_early "attributes: the write-back of an inode reads them before it waits",
    LogSkipFlush ordofs_mutant_log_flush "log: fsync is acknowledged without a flush",
    LogSkipCsum ordofs_mutant_log_csum "log: a batch's checksum is not compared at replay",
    LogTrustData ordofs_mutant_log_trust "log: the last batch is believed without looking at its data",
    LogFlagOnly ordofs_mutant_log_flag "log: a batch says that its data was flushed before, and it was not",
    LogRenameAhead ordofs_mutant_log_rename "log: nothing waits for the data of a file that was renamed over another one",
    LogSplit ordofs_mutant_log_split "log: another fsync may come between the records of one change",
    LogNoWait ordofs_mutant_log_nowait "log: the next batch is written before the flush of the last, and says that it was flushed",
    LogFlushedOwn ordofs_mutant_log_flushed "log: a batch says that it was flushed itself",
    NewGeneration ordofs_mutant_new_generation "log: a replayed creation gets another generation number than its file handles have",
    ChangeBack ordofs_mutant_change_back "log: replay does not restore the change counter",
    CutForgotten ordofs_mutant_cut_forgotten "space: the record of a truncation under way does not say from which block on",
    DamageSlot ordofs_mutant_damage_slot "superblock: a slot whose copies are both damaged passes for the older one",
    OneCopy ordofs_mutant_one_copy "superblock: a commit writes only the first copy",
    CleanStays ordofs_mutant_clean_stays "superblock: it says that the filesystem was unmounted cleanly, and fsync logs",
    DeferredForgotten ordofs_mutant_deferred_forgotten "space: a commit forgets the old addresses of the nodes of space trees",
    DeferredAtOnce ordofs_mutant_deferred_at_once "R7: a commit writes to the old addresses of the nodes of space trees that it replaces",
    TrimFreed ordofs_mutant_trim_freed "R7: a trim discards blocks that a transaction has freed that is not durable",
    ScrubOneLook ordofs_mutant_scrub_one_look "scrub: what does not match counts as damaged without a second look",
    DamageLog ordofs_mutant_damage_log "log: replay does not ask which batches were flushed",
    NodeOneCopy ordofs_mutant_node_one_copy "copies: a commit writes only the first copy of each node",
    HealStale ordofs_mutant_heal_stale "copies: a copy is healed although its node is not part of the tree any more",
    GrowEarly ordofs_mutant_grow_early "growing: operations may have new blocks before the superblock with them is durable",
    GrowOldBackup ordofs_mutant_grow_old_backup "growing: the backup at the old end stays",
    ShrinkEarly ordofs_mutant_shrink_early "shrinking: backups with the new size are written before the superblock is",
    ShrinkOldBackup ordofs_mutant_shrink_old_backup "shrinking: the backups behind the new end stay",
    ForgedRecord ordofs_mutant_forged_record "log: replay does not ask whether a record fits the filesystem",
}

#[cfg(ordofs_mutants)]
std::thread_local! {
    static CHOSEN: core::cell::Cell<u64> = const { core::cell::Cell::new(0) };
}

/// Whether this thread's engine lacks the protection. The models of code outside of the engine call
/// it, too.
#[cfg(ordofs_mutants)]
pub fn is(m: Mutant) -> bool {
    CHOSEN.with(|c| c.get() & (1 << m as u64) != 0)
}

/// Takes a protection away from all that this thread does from now on (`None`: the real engine).
#[cfg(ordofs_mutants)]
pub fn choose(m: Option<Mutant>) {
    choose_all(m.as_slice());
}

/// Takes several protections away from this thread.
#[cfg(ordofs_mutants)]
pub fn choose_all(all: &[Mutant]) {
    CHOSEN.with(|c| c.set(all.iter().fold(0, |set, m| set | 1 << *m as u64)));
}

#[cfg(ordofs_mutants)]
std::thread_local! {
    static FSYNC_AT: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
}

/// Lets an fsync of another task come right after this thread's `n`-th addition to the log from now
/// on (0: never). The crash simulator uses it: if an operation adds several pieces, this is the
/// crash between two of them.
#[cfg(ordofs_mutants)]
pub fn fsync_at(n: u32) {
    FSYNC_AT.with(|c| c.set(n));
}

/// Counts an addition to the log. True if the fsync of [`fsync_at`] comes now.
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

/// Makes the next write-back of an inode by this thread call `f` before its transaction begins, as
/// if it had to wait there.
#[cfg(ordofs_mutants)]
pub fn write_back_waits(f: std::boxed::Box<dyn FnOnce()>) {
    WRITE_BACK.with(|c| c.set(Some(f)));
}

/// Called by a write-back of an inode right before it begins its transaction.
#[cfg(ordofs_mutants)]
pub(crate) fn write_back() {
    if let Some(f) = WRITE_BACK.with(|c| c.take()) {
        f();
    }
}
