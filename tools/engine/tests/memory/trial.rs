// SPDX-License-Identifier: GPL-2.0

//! One operation, every allocation of which fails, and what must be true afterwards.

use super::action::Action;
use super::bed::{disk, Bed, Scene};
use super::picture::{picture, strange, Picture};
use super::support::driver::clean;
use super::tally::Tally;
use kernel::fault::{nth, Mode};
use kernel::prelude::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;

pub const MODES: [Mode; 2] = [Mode::Once, Mode::Onward];

/// The states between which an operation goes.
struct Course {
    /// What a power cut leaves of the moment before.
    durable: Picture,
    before: Picture,
    after: Picture,
}

pub fn mounted(disk: &MemDisk, opts: MountOptions, place: &str) -> Shared<Fs> {
    Fs::mount(disk.device(), opts).unwrap_or_else(|e| panic!("{place}: mount: {}", e.reason))
}

/// Mounts, and looks at everything twice: before anything is written, and when all is cleaned up.
pub fn found(disk: &MemDisk, place: &str) -> (Picture, StatFs) {
    clean(disk.device(), true, place);
    let image = disk.image();
    let read_only = MountOptions {
        read_only: true,
        ..MountOptions::default()
    };
    let fs = mounted(disk, read_only, place);
    let (seen, numbers) = (picture(&fs), fs.statfs());
    drop(fs);
    assert!(disk.image() == image, "{place}: a mount for reading writes");
    let fs = mounted(disk, MountOptions::default(), place);
    same(
        &picture(&fs),
        &seen,
        place,
        "when it is mounted for writing",
    );
    fs.unmount()
        .unwrap_or_else(|e| panic!("{place}: unmount: {e:?}"));
    drop(fs);
    clean(disk.device(), true, place);
    (seen, numbers)
}

pub fn same(now: &Picture, want: &Picture, place: &str, when: &str) {
    if now != want {
        let list = strange(now, &[want]).join("\n");
        panic!("{place}: {when}:\n{list}");
    }
}

/// Is `now` one of the states, or for `steps` something between them?
pub fn among(now: &Picture, states: &[&Picture], steps: bool, place: &str, when: &str) {
    if states.contains(&now) {
        return;
    }
    let list = strange(now, states).join("\n");
    assert!(steps, "{place}: {when}: half of it was done:\n{list}");
    assert!(list.is_empty(), "{place}: {when}:\n{list}");
}

impl Course {
    fn of(action: &Action, scene: Scene) -> Self {
        let disk = disk(scene);
        let b = Bed::open(&disk, scene);
        (action.before)(&b);
        let durable = found(&disk.fork(), action.name).0;
        let before = picture(&b.fs);
        (action.run)(&b).unwrap_or_else(|e| panic!("{}: {e:?}", action.name));
        let after = picture(&b.fs);
        drop(b);
        Self {
            durable,
            before,
            after,
        }
    }

    /// The power goes, or the filesystem refused to go on: what was acknowledged is there.
    fn cut(&self, action: &Action, disk: &MemDisk, r: Result, place: &str) {
        let place = format!("{place}, power cut");
        let (now, _) = found(disk, &place);
        let all = [&self.durable, &self.before, &self.after];
        match r {
            Ok(()) if action.durable => same(&now, &self.after, &place, "acknowledged"),
            _ => among(&now, &all, action.steps, &place, "recovered"),
        }
    }

    /// It goes on, and ends in good order.
    fn go_on(&self, action: &Action, disk: &MemDisk, b: Bed, r: Result, place: &str) {
        let now = picture(&b.fs);
        match r {
            Ok(()) => same(&now, &self.after, place, "it succeeded"),
            Err(_) if action.steps => {
                among(&now, &[&self.before, &self.after], true, place, "it failed")
            }
            Err(_) => same(
                &now,
                &self.before,
                place,
                "it failed, yet something changed",
            ),
        }
        b.fs.release_delalloc(&b.file, 0, 1 << 40);
        let fs = b.close();
        fs.sync().unwrap_or_else(|e| panic!("{place}: sync: {e:?}"));
        let live = fs.statfs();
        fs.unmount()
            .unwrap_or_else(|e| panic!("{place}: unmount: {e:?}"));
        drop(fs);
        let (later, numbers) = found(disk, place);
        same(&later, &now, place, "after the remount");
        let counted = |s: &StatFs| (s.bfree, s.files - s.ffree);
        assert_eq!(
            counted(&live),
            counted(&numbers),
            "{place}: free blocks and inodes, before and after the remount"
        );
    }

    /// True when the fault came: then there may be a later one to try.
    fn one(&self, action: &Action, scene: Scene, n: u64, mode: Mode, tally: &mut Tally) -> bool {
        let disk = disk(scene);
        let b = Bed::open(&disk, scene);
        (action.before)(&b);
        let image = disk.image();
        let armed = nth(n, mode);
        let r = (action.run)(&b);
        let fired = armed.fired();
        drop(armed);
        let shut = b.fs.is_shutdown();
        let name = action.name;
        let place = format!("{name}, {scene:?}, allocation {n} fails ({mode:?}), answer {r:?}");
        match r {
            Ok(()) => (),
            Err(_) if !fired => panic!("{place}: nothing failed"),
            Err(e) => assert!(
                e == ENOMEM || (shut && e == EIO),
                "{place}: shut down: {shut}"
            ),
        }
        // What a power cut leaves when nothing was written is known.
        if disk.image() != image || (r.is_ok() && action.durable) {
            self.cut(action, &disk.fork(), r, &place);
        }
        if !shut {
            self.go_on(action, &disk, b, r, &place);
        }
        if fired {
            tally.failure(name, scene, r.is_err(), shut);
        }
        fired
    }
}

/// Makes each allocation of the operation fail, one after the other.
pub fn try_all(action: &Action, scene: Scene, tally: &mut Tally) {
    let course = Course::of(action, scene);
    tally.operation(action.name, scene, action.frugal);
    for mode in MODES {
        let mut n = 0;
        while course.one(action, scene, n, mode, tally) {
            n += 1;
            assert!(n < 100_000, "{} never ends", action.name);
        }
    }
}
