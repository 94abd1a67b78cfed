// SPDX-License-Identifier: GPL-2.0

//! Error tags: what holds a [`Window`] open, or fails the task that comes to it. Only in debug builds.
//!
//! # Model
//!
//! Each mount has one tag for each window. A tag is set by writing words to its file:
//!
//! | word | meaning |
//! |---|---|
//! | `delay=MS`, or a number alone | a task that comes waits so long (at most 60 s) |
//! | `error=ERRNO` | and fails with this error, where the window can fail |
//! | `after=N` | the first N tasks pass |
//! | `times=N` | the next N are held, all tasks after them pass (0: all are held) |
//! | `off` | all tasks pass |
//!
//! Each write replaces all of it and ends all waiting: a test holds a task as long as it needs,
//! not as long as it guessed. The tasks go on with the error that the tag has then. Reading
//! gives the same words, and how many have been held since mount (`hits`) and are being held (`waiting`).
//!
//! # Locking
//!
//! A tag's lock is innermost and not held while a task waits. The waiting task holds what the window says.
//!
//! Tests: tests/vm/t/047-error-tags.sh.

use core::ffi::CStr;
use core::fmt;

use kernel::prelude::*;

use super::trace;
use super::window::Window;
use crate::vfs::os::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::vfs::os::{LockClass, Mutex, Shared, WaitQueue};

static STATE: LockClass = LockClass::new(c"ordofs_errortag");

/// The longest delay in milliseconds: less than what the kernel takes for a hung task.
const MAX_DELAY: u32 = 60_000;

impl Window {
    /// Number of windows.
    pub(crate) const COUNT: usize = Self::ALL.len();
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: &'static [Self] = &[
        Self::OrderedInserted,
        Self::DataIo,
        Self::FsyncCollect,
        Self::PagesDropped,
        Self::MapWrite,
        Self::Mapped,
        Self::NodeRead,
        Self::NodeCached,
        Self::LogBatch,
        Self::InodeWrite,
    ];

    /// Its name in sysfs and in traces.
    pub(crate) const fn name(self) -> &'static CStr {
        match self {
            Self::OrderedInserted => c"ordered_inserted",
            Self::DataIo => c"data_io",
            Self::FsyncCollect => c"fsync_collect",
            Self::PagesDropped => c"pages_dropped",
            Self::MapWrite => c"map_write",
            Self::Mapped => c"mapped",
            Self::NodeRead => c"node_read",
            Self::NodeCached => c"node_cached",
            Self::LogBatch => c"log_batch",
            Self::InodeWrite => c"inode_write",
        }
    }
}

/// What was written to a tag.
#[derive(Clone, Copy, Default)]
struct Setting {
    on: bool,
    delay: u32,
    error: i32,
    after: u64,
    times: u64,
}

impl Setting {
    fn parse(text: &[u8]) -> Result<Self> {
        let mut s = Self::default();
        let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;
        for word in text.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').unwrap_or(("", word));
            if (key, value) == ("", "off") {
                return Ok(Self::default());
            }
            let n: u32 = value.parse().map_err(|_| EINVAL)?;
            match key {
                "" | "delay" => s.delay = n.min(MAX_DELAY),
                "error" if (1..4096).contains(&n) => s.error = -(n as i32),
                "after" => s.after = u64::from(n),
                "times" => s.times = u64::from(n),
                _ => return Err(EINVAL),
            }
        }
        s.on = s.delay != 0 || s.error != 0;
        Ok(s)
    }
}

/// One tag under its lock.
struct State {
    set: Setting,
    /// Who came while it was on and was not let pass.
    held: u64,
    hits: u64,
    waiting: u64,
}

struct Tag {
    /// A look without the lock.
    on: AtomicBool,
    state: Mutex<State>,
    /// Grows with every write.
    writes: AtomicU64,
    wait: WaitQueue,
}

impl Tag {
    fn set(&self, set: Setting) {
        {
            let mut s = self.state.lock();
            s.set = set;
            s.held = 0;
            self.on.store(set.on, Ordering::Release);
            self.writes.fetch_add(1, Ordering::AcqRel);
        }
        self.wait.wake_all();
    }
}

/// The tags of one mount.
#[derive(Clone)]
pub(crate) struct Tags(Shared<KVec<Tag>>);

impl Tags {
    /// All off.
    pub(crate) fn new() -> Result<Self> {
        let mut tags = KVec::with_capacity(Window::COUNT, GFP_KERNEL)?;
        for _ in Window::ALL {
            let tag = Tag {
                on: AtomicBool::new(false),
                state: Mutex::new(
                    &STATE,
                    State {
                        set: Setting::default(),
                        held: 0,
                        hits: 0,
                        waiting: 0,
                    },
                )?,
                writes: AtomicU64::new(0),
                wait: WaitQueue::new()?,
            };
            tags.push(tag, GFP_KERNEL)?;
        }
        Ok(Self(Shared::new(tags)?))
    }

    /// Turns all tags off; every task goes on.
    pub(crate) fn off(&self) {
        for tag in self.0.iter() {
            tag.set(Setting::default());
        }
    }

    /// The current task has come to a place: waits and fails as the tag says. May sleep.
    pub(crate) fn pass(&self, dev: u32, window: Window) -> Result {
        let Some(tag) = self.0.get(window as usize) else {
            return Ok(());
        };
        if !tag.on.load(Ordering::Acquire) {
            return Ok(());
        }
        let (delay, seen) = {
            let mut s = tag.state.lock();
            if !s.set.on {
                return Ok(());
            }
            if s.set.after > 0 {
                s.set.after -= 1;
                return Ok(());
            }
            if s.set.times > 0 && s.held >= s.set.times {
                return Ok(());
            }
            // Before `waiting` says so: a test that reads it and then acts comes later in the trace.
            trace::window(dev, window as u32, true, 0);
            s.held = s.held.saturating_add(1);
            s.hits = s.hits.saturating_add(1);
            s.waiting = s.waiting.saturating_add(1);
            (s.set.delay, tag.writes.load(Ordering::Acquire))
        };
        if delay > 0 {
            tag.wait.wait_timeout(u64::from(delay), || {
                tag.writes.load(Ordering::Acquire) != seen
            });
        }
        let error = {
            let mut s = tag.state.lock();
            s.waiting = s.waiting.saturating_sub(1);
            s.set.error
        };
        trace::window(dev, window as u32, false, error);
        kernel::error::to_result(error)
    }

    /// What a tag is set to.
    pub(crate) fn show(&self, window: Window, out: &mut dyn fmt::Write) -> fmt::Result {
        let Some(tag) = self.0.get(window as usize) else {
            return Err(fmt::Error);
        };
        let s = tag.state.lock();
        write!(
            out,
            "delay={} error={} after={} times={} hits={} waiting={}",
            s.set.delay, -s.set.error, s.set.after, s.set.times, s.hits, s.waiting
        )
    }

    /// Sets a tag.
    pub(crate) fn store(&self, window: Window, text: &[u8]) -> Result {
        let set = Setting::parse(text)?;
        self.0.get(window as usize).ok_or(EINVAL)?.set(set);
        Ok(())
    }
}
