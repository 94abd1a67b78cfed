// SPDX-License-Identifier: GPL-2.0

//! One recipe, from bytes to a verdict; and smaller recipes that fail alike.
//!
//! Tests: tools/fuzz/tests/corpus.rs.

use crate::base::Base;
use crate::changes::Changes;
use crate::exercise::{exercise, How};
use crate::mutate::mutate;
use arbitrary::Unstructured;
use rustix::time::{clock_gettime, ClockId};
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

/// The most CPU time that an image may take: everything is done with it several times over in a few
/// milliseconds.
pub const LIMIT: Duration = Duration::from_secs(1);

std::thread_local! {
    /// Where this thread panicked.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Lets panics be noted and not printed.
pub fn quiet() {
    panic::set_hook(Box::new(|info| {
        PANIC.with(|p| *p.borrow_mut() = Some(info.to_string()));
    }));
}

/// The changes that a recipe makes; `None` if the bytes are no recipe.
pub fn changes<'a>(bases: &'a [Base], recipe: &[u8]) -> Option<Changes<'a>> {
    let mut u = Unstructured::new(recipe);
    let base = bases.get(u.choose_index(bases.len()).ok()?)?;
    mutate(base, &mut u).ok()
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Does everything with the image that a recipe makes. `None` if the bytes are no recipe. The error says
/// what must not be. Panics are errors.
pub fn judge(bases: &[Base], recipe: &[u8]) -> Option<Result<How, String>> {
    let begin = cpu();
    let run = || {
        let c = changes(bases, recipe)?;
        Some(exercise(c.blocks(), c.image()))
    };
    let r = panic::catch_unwind(AssertUnwindSafe(run));
    let r = r.unwrap_or_else(|_| {
        let what = PANIC.with(|p| p.borrow_mut().take());
        Some(Err(format!("panic: {}", what.unwrap_or_default())))
    })?;
    let took = cpu().saturating_sub(begin);
    Some(match r {
        Ok(_) if took > LIMIT => Err(format!("took {} ms of CPU", took.as_millis())),
        r => r,
    })
}

/// The kind of a failure: its text without numbers.
pub fn kind(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// A smaller recipe that fails alike.
pub fn shrink(bases: &[Base], recipe: &[u8], text: &str) -> Vec<u8> {
    let want = kind(text);
    let fails = |r: &[u8]| matches!(judge(bases, r), Some(Err(t)) if kind(&t) == want);
    let mut best = recipe.to_vec();
    let mut size = best.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < best.len() {
            let end = (at + size).min(best.len());
            let mut less = best.clone();
            less.drain(at..end);
            if fails(&less) {
                best = less;
                continue;
            }
            let mut zero = best.clone();
            zero[at..end].fill(0);
            if zero != best && fails(&zero) {
                best = zero;
            }
            at = end;
        }
        size /= 2;
    }
    best
}
