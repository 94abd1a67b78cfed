// SPDX-License-Identifier: GPL-2.0

//! Bugs on purpose: they show that the checks of the debug kernels see this module. Only in builds with
//! `ordofs_planted` (scripts/lane).
//!
//! # Model
//!
//! Writing a name to the mount's file `planted` makes the bug happen once:
//!
//! | name | what happens | who sees it |
//! |---|---|---|
//! | `inversion` | two of our locks are taken in both orders | lockdep |
//! | `use-after-free` | freed memory is read | KASAN |
//! | `leak` | memory is forgotten | KMEMLEAK |
//! | `race` | two threads write a number, unmarked and without a lock | KCSAN |

use core::cell::UnsafeCell;

use kernel::prelude::*;

use crate::vfs::os::kthread;
use crate::vfs::os::{cond_resched, uptime, LockClass, Mutex};

/// How long the race lasts at least, in seconds. KCSAN looks at one access in some thousands.
const RACE: u64 = 5;

struct Racy(UnsafeCell<u64>);

// SAFETY: It is not: two threads write it at a time, which is what has to be seen.
unsafe impl Sync for Racy {}

static RACY: Racy = Racy(UnsafeCell::new(0));

/// Makes the bug of that name happen.
pub(crate) fn plant(name: &[u8]) -> Result {
    match name.trim_ascii() {
        b"inversion" => inversion(),
        b"use-after-free" => use_after_free(),
        b"leak" => leak(),
        b"race" => race(),
        _ => Err(EINVAL),
    }
}

fn inversion() -> Result {
    static ONE: LockClass = LockClass::new(c"planted_one");
    static TWO: LockClass = LockClass::new(c"planted_two");
    let one = Mutex::new(&ONE, 1u32)?;
    let two = Mutex::new(&TWO, 2u32)?;
    {
        let _one = one.lock();
        let _two = two.lock();
    }
    let _two = two.lock();
    let _one = one.lock();
    Ok(())
}

fn use_after_free() -> Result {
    let p = KBox::into_raw(KBox::new([0u64; 16], GFP_KERNEL)?);
    // SAFETY: From `into_raw`, once.
    drop(unsafe { KBox::from_raw(p) });
    // SAFETY: There is none: the memory is gone, which is what has to be seen. It is mapped, and
    // nothing depends on what is read.
    let stale = unsafe { p.cast::<u64>().add(5).read_volatile() };
    pr_info!("planted: read {stale} from freed memory\n");
    Ok(())
}

fn leak() -> Result {
    // Many: pointers to the last ones are left on a stack, and in the allocator's sheaves, which do not
    // forget what they gave away before they are filled again.
    for i in 0..200u8 {
        KBox::leak(KBox::new([i; 512], GFP_KERNEL)?);
    }
    Ok(())
}

/// Adds to the number until it is time to stop.
fn add_to(racy: &Racy, mut stop: impl FnMut() -> bool) {
    while !stop() {
        for _ in 0..100 {
            // SAFETY: There is none, see `Racy`. The memory is valid.
            unsafe { *racy.0.get() = (*racy.0.get()).wrapping_add(1) };
            // The compiler does not know what this does: memory is read and written each time.
            cond_resched();
        }
    }
}

fn race() -> Result {
    let other = kthread::spawn(c"planted", c"race", || {
        add_to(&RACY, kthread::should_stop);
    })?;
    let end = uptime().saturating_add(RACE);
    add_to(&RACY, || uptime() > end);
    drop(other);
    Ok(())
}
