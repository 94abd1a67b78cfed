// SPDX-License-Identifier: GPL-2.0

//! The scrub of a mount: its thread, and the ioctls that start, watch and cancel it.
//!
//! # Model
//!
//! A mount has a thread for its scrub only while one runs. The thread works on read-only mounts,
//! too, and pauses while the filesystem or the system is frozen. It ends before the filesystem is
//! unmounted. How far it came is not kept beyond that.
//!
//! The structures of the ioctls are in `words.rs`; docs/MOUNT.md has a table of each.
//!
//! # Locking
//!
//! `scrubber` is taken with none of the engine's locks held, and is held while the thread is stopped.
//! The thread does not take it. It looks at `frozen` only if that is free.
//!
//! Tests: tests/vm/t/068-scrub.sh.

use kernel::prelude::*;

use super::words::{has_words, read, write, VERSION};
use super::OrdoFs;
use crate::{
    engine::{
        ops::scrub::{From, Go},
        state::scrub::Damage,
    },
    vfs::{os::kthread, traits::super_block::Ioctl, SuperBlock},
};

/// `_IOWR('O', 0x80, u64[8])`: starts a scrub, and returns its number.
const ORDOFS_IOC_SCRUB_START: c_uint = 0xc040_4f80;
/// `_IO('O', 0x81)`: cancels it, and waits until it has ended.
const ORDOFS_IOC_SCRUB_CANCEL: c_uint = 0x0000_4f81;
/// `_IOWR('O', 0x82, u64[32])`: its state and its numbers.
const ORDOFS_IOC_SCRUB_STATUS: c_uint = 0xc100_4f82;
/// `_IOWR('O', 0x83, u64[392])`: entries of its list of damage.
const ORDOFS_IOC_SCRUB_DAMAGE: c_uint = 0xcc40_4f83;

/// Flag of [`ORDOFS_IOC_SCRUB_START`]: go on where the last scrub was cancelled.
const RESUME: u64 = 1;

/// Words of the structures.
const START_WORDS: usize = 8;
const STATUS_WORDS: usize = 32;
const HEAD_WORDS: usize = 8;
const ENTRY_WORDS: usize = 6;
const ENTRIES: usize = 64;
const DAMAGE_WORDS: usize = HEAD_WORDS + ENTRIES * ENTRY_WORDS;

has_words!(ORDOFS_IOC_SCRUB_START, START_WORDS);
has_words!(ORDOFS_IOC_SCRUB_STATUS, STATUS_WORDS);
has_words!(ORDOFS_IOC_SCRUB_DAMAGE, DAMAGE_WORDS);

/// An ioctl that the VFS does not know.
pub(super) fn ioctl(sb: &SuperBlock<OrdoFs>, call: &Ioctl) -> Result {
    let run = match call.cmd() {
        ORDOFS_IOC_SCRUB_START => start,
        ORDOFS_IOC_SCRUB_CANCEL => cancel,
        ORDOFS_IOC_SCRUB_STATUS => status,
        ORDOFS_IOC_SCRUB_DAMAGE => damage,
        _ => return Err(ENOTTY),
    };
    call.needs_admin()?;
    run(sb, call)
}

fn start(sb: &SuperBlock<OrdoFs>, call: &Ioctl) -> Result {
    let [_, flags, rate, rest @ ..] = read::<START_WORDS>(call)?;
    if flags & !RESUME != 0 || rest.iter().any(|w| *w != 0) {
        return Err(EINVAL);
    }
    let from = match flags & RESUME {
        0 => From::Start,
        _ => From::Cancelled,
    };
    let run = sb.fs().start_scrubber(sb, from, rate)?;
    write(call, &[VERSION, flags, rate, run, 0, 0, 0, 0])
}

fn cancel(sb: &SuperBlock<OrdoFs>, _call: &Ioctl) -> Result {
    sb.fs().stop_scrubber()
}

fn status(sb: &SuperBlock<OrdoFs>, call: &Ioctl) -> Result {
    let [_, rest @ ..] = read::<STATUS_WORDS>(call)?;
    if rest.iter().any(|w| *w != 0) {
        return Err(EINVAL);
    }
    let s = sb.fs().engine.scrub_status();
    let mut out = [0; STATUS_WORDS];
    let words = [
        VERSION,
        u64::from(s.phase as u32),
        u64::from(s.cursor.stage as u32),
        s.cursor.owner,
        s.cursor.key,
        s.cursor.done,
        s.rate,
        s.total_blocks,
        s.nodes,
        s.data_blocks,
        s.inodes,
        s.bad_copies,
        s.lost_nodes,
        s.bad_records,
        s.bad_blocks,
        s.bad_inodes,
        s.moved_blocks,
        s.healed,
        s.listed,
        s.unlisted,
        s.started.sec as u64,
        s.ended.sec as u64,
        s.run,
        s.left_out,
    ];
    for (to, from) in out.iter_mut().zip(words) {
        *to = from;
    }
    write(call, &out)
}

/// The words of an entry.
fn entry(d: &Damage) -> [u64; ENTRY_WORDS] {
    let [kind, tree] = [d.kind as u8, d.tree];
    let what = u32::from_le_bytes([kind, tree, d.level, d.copies]);
    [what.into(), d.owner, d.block, d.start, d.end, 0]
}

fn damage(sb: &SuperBlock<OrdoFs>, call: &Ioctl) -> Result {
    let [_, first, rest @ ..] = read::<HEAD_WORDS>(call)?;
    if rest.iter().any(|w| *w != 0) {
        return Err(EINVAL);
    }
    let head = [VERSION, first, 0, 0, 0, 0, 0, 0];
    let mut out = KVec::with_capacity(DAMAGE_WORDS, GFP_KERNEL)?;
    out.extend_from_slice(&head, GFP_KERNEL)?;
    let mut n = 0;
    let run = sb.fs().engine.scrub_damage(first, &mut |d| {
        // There is room for all of them.
        if n == ENTRIES || out.extend_from_slice(&entry(d), GFP_KERNEL).is_err() {
            return false;
        }
        n += 1;
        true
    });
    for (at, word) in [(2, n as u64), (3, run)] {
        if let Some(to) = out.get_mut(at) {
            *to = word;
        }
    }
    write(call, &out)
}

impl OrdoFs {
    /// Starts a scrub, and the thread that runs it. Returns the number of the scrub. EBUSY if one
    /// runs.
    fn start_scrubber(&self, sb: &SuperBlock<Self>, from: From, rate: u64) -> Result<u64> {
        let mut scrubber = self.scrubber.lock();
        let scrub = self.engine.scrub_start(from, rate)?;
        // No other one begins while the lock is held.
        let run = self.engine.scrub_status().run;
        // The thread of the last one has nothing left to do.
        drop(scrubber.take());
        let engine = self.engine.clone();
        let frozen = self.frozen.clone();
        let thread = kthread::spawn(c"ordofs-scrub", sb.id(), move || {
            kthread::set_freezable();
            engine.scrub_run(scrub, &mut || {
                kthread::try_to_freeze();
                if kthread::should_stop() {
                    Go::Stop
                } else if frozen.try_lock().is_some_and(|f| *f) {
                    Go::Pause
                } else {
                    Go::On
                }
            });
        });
        match thread {
            Ok(thread) => *scrubber = Some(thread),
            Err(e) => {
                self.engine.scrub_abandoned();
                return Err(e);
            }
        }
        Ok(run)
    }

    /// Stops the thread of the scrub and waits for it. ENOTCONN if no scrub runs.
    pub(super) fn stop_scrubber(&self) -> Result {
        let mut scrubber = self.scrubber.lock();
        let cancelled = self.engine.scrub_cancel();
        drop(scrubber.take());
        self.engine.scrub_abandoned();
        cancelled
    }
}
