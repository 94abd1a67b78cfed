// SPDX-License-Identifier: GPL-2.0

//! The beginning and the end: mkfs, mount, unmount.

use super::action::Action;
use super::bed::{disk, new, with, write, Bed, Scene};
use super::durable::work;
use super::picture::{picture, Picture};
use super::support::driver::clean;
use super::tally::Tally;
use super::trial::{among, found, mounted, same, MODES};
use kernel::fault::{nth, Mode};
use kernel::prelude::*;
use ordofs_engine::engine::ops::xattr;
use ordofs_engine::engine::volume::mkfs::{format, FormatOptions};
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;

/// States that mounting does not distinguish.
const SCENE: Scene = Scene::Cold;

/// Calls `one` for each allocation until it says that none failed.
pub fn each(
    name: &'static str,
    tally: &mut Tally,
    mut one: impl FnMut(u64, Mode, &str) -> Outcome,
) {
    tally.operation(name, SCENE, false);
    for mode in MODES {
        for n in 0.. {
            assert!(n < 100_000, "{name} never ends");
            let place = std::format!("{name}, allocation {n} fails ({mode:?})");
            let o = one(n, mode, &place);
            if let Some(e) = o.error {
                assert!(o.fired, "{place}: nothing failed: {e:?}");
                assert_eq!(e, ENOMEM, "{place}");
            }
            if !o.fired {
                break;
            }
            tally.failure(name, SCENE, o.error.is_some(), false);
        }
    }
}

pub struct Outcome {
    pub fired: bool,
    pub error: Option<Error>,
}

/// Runs `f` with a fault ahead.
pub fn faulty<R>(n: u64, mode: Mode, f: impl FnOnce() -> R) -> (R, bool) {
    let armed = nth(n, mode);
    let r = f();
    (r, armed.fired())
}

/// Free blocks and inodes.
fn numbers(disk: &MemDisk) -> (u64, u64) {
    let s = mount_read_only(disk).expect("mount").statfs();
    (s.bfree, s.files - s.ffree)
}

/// `left` is what a power cut left behind, `how` mounts it.
fn try_mounts(
    name: &'static str,
    left: &MemDisk,
    read_only: bool,
    how: impl Fn(&MemDisk) -> Result<Shared<Fs>>,
    tally: &mut Tally,
) {
    let whole = left.fork();
    let want = found(&whole, name).0;
    let end = numbers(&whole);
    each(name, tally, |n, mode, place| {
        let disk = left.fork();
        let (r, fired) = faulty(n, mode, || how(&disk));
        let error = r.as_ref().err().copied();
        if let Ok(fs) = r {
            same(&picture(&fs), &want, place, "mounted");
            fs.unmount()
                .unwrap_or_else(|e| panic!("{place}: unmount: {e:?}"));
        }
        assert!(
            !read_only || disk.image() == left.image(),
            "{place}: written to"
        );
        // What the mount did not do the next one does. When nothing was written it is known.
        if disk.image() != left.image() {
            same(&found(&disk, place).0, &want, place, "mounted again");
            let (blocks, inodes) = numbers(&disk);
            // A tree that had no memory to tidy up may have another shape.
            let about = blocks.abs_diff(end.0) <= 4;
            assert!(about, "{place}: {blocks} free blocks, not {}", end.0);
            assert_eq!(inodes, end.1, "{place}: inodes");
        }
        Outcome { fired, error }
    });
}

/// A lack of memory is not damage, and no message may call it so.
fn tried(disk: &MemDisk, opts: MountOptions) -> Result<Shared<Fs>> {
    Fs::mount(disk.device(), opts).map_err(|e| {
        assert!(!e.reason.contains("damage"), "{}", e.reason);
        e.error
    })
}

fn mount(disk: &MemDisk) -> Result<Shared<Fs>> {
    tried(disk, MountOptions::default())
}

fn mount_read_only(disk: &MemDisk) -> Result<Shared<Fs>> {
    let read_only = MountOptions {
        read_only: true,
        ..MountOptions::default()
    };
    tried(disk, read_only)
}

/// Mounts for reading, and then for writing.
fn remount(disk: &MemDisk) -> Result<Shared<Fs>> {
    let fs = mount_read_only(disk)?;
    fs.set_read_only(false);
    fs.clean_orphans()?;
    Ok(fs)
}

/// What the log gets to hold. The last one moves the file, which others want.
const LOGGED: &[&str] = &[
    "create",
    "mkdir",
    "symlink",
    "create with xattrs",
    "tmpfile",
    "link",
    "unlink",
    "rmdir",
    "rename of a directory",
    "set attributes",
    "xattr",
    "long xattr",
    "no xattr",
    "acl",
    "truncate in several transactions",
    "punch",
    "zero",
    "preallocate",
    "buffered write",
    "direct write",
    "grow",
    "exchange between directories",
];

/// A filesystem with many operations in its log.
fn left_behind(actions: &[&[Action]]) -> MemDisk {
    let disk = disk(Scene::Warm);
    let b = Bed::open(&disk, Scene::Warm);
    for name in LOGGED {
        let action = actions.iter().copied().flatten().find(|a| a.name == *name);
        let action = action.unwrap_or_else(|| panic!("no operation {name}"));
        (action.run)(&b).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    }
    b.fs.sync_inode(&b.file).expect("fsync");
    let left = disk.fork();
    let fs = mounted(&left.fork(), MountOptions::default(), "log");
    assert!(fs.replayed().records > 20, "{}", fs.replayed().records);
    same(&picture(&fs), &picture(&b.fs), "log", "all of it");
    left
}

/// A truncation that stopped half-way, and inodes without names.
fn with_orphans() -> MemDisk {
    let disk = disk(Scene::Warm);
    let b = Bed::open(&disk, Scene::Warm);
    let half = with(&b.fs, &b.root, b"long", |i| {
        // It fails later and later, until it has begun.
        for n in 0.. {
            if faulty(n, Mode::Onward, || b.fs.set_size(i, 4096)).0 == Ok(()) {
                panic!("no truncation stops half-way");
            }
            if i.blocks() < 80 {
                break;
            }
        }
        Ok(i.blocks())
    });
    assert!((2..80).contains(&half.expect("truncate")), "{half:?}");
    let open = b.fs.tmpfile(&new(S_IFREG)).expect("tmpfile");
    for i in 0..80 {
        write(&b.fs, &open, 2 * i, 1, true, 5).expect("write");
    }
    b.fs.set_xattr(&open, xattr::USER, b"a", Some(&[1; 65536]), XattrSet::Any)
        .expect("set_xattr");
    b.fs.unlink(&b.root, b"file", &b.file).expect("unlink");
    with(&b.fs, &b.root, b"empty", |i| {
        b.fs.unlink(&b.root, b"empty", i)
    })
    .expect("rmdir");
    b.fs.sync().expect("sync");
    disk.fork()
}

pub fn mounts(actions: &[&[Action]], tally: &mut Tally) {
    let log = left_behind(actions);
    let orphans = with_orphans();
    let cleaned = orphans.fork();
    found(&cleaned, "orphans");
    assert_ne!(numbers(&cleaned), numbers(&orphans), "nothing to clean");
    try_mounts("mount", &disk(Scene::Warm), false, mount, tally);
    try_mounts("replay", &log, false, mount, tally);
    try_mounts("replay in memory", &log, true, mount_read_only, tally);
    try_mounts("cleaning of orphans", &orphans, false, mount, tally);
    try_mounts("remount", &orphans, false, remount, tally);
}

pub fn unmount(tally: &mut Tally) {
    let states = |f: &dyn Fn(&MemDisk, Shared<Fs>)| -> Picture {
        let disk = disk(Scene::Warm);
        let b = Bed::open(&disk, Scene::Warm);
        work(&b);
        f(&disk, b.close());
        found(&disk, "unmount").0
    };
    let durable = states(&|_, _| ());
    let after = states(&|_, fs| fs.unmount().expect("unmount"));
    each("unmount", tally, |n, mode, place| {
        let disk = disk(Scene::Warm);
        let b = Bed::open(&disk, Scene::Warm);
        work(&b);
        let fs = b.close();
        let (r, fired) = faulty(n, mode, || {
            fs.stop_caching();
            fs.unmount()
        });
        drop(fs);
        let now = found(&disk, place).0;
        match r {
            Ok(()) => same(&now, &after, place, "after the remount"),
            Err(_) => among(&now, &[&durable, &after], false, place, "after the remount"),
        }
        Outcome {
            fired,
            error: r.err(),
        }
    });
}

/// mkfs on an empty disk and over a filesystem: whatever mounts afterwards is whole.
pub fn mkfs(tally: &mut Tally) {
    let options = FormatOptions {
        uuid: *b"0123456789abcdef",
        label: [0; 64],
        blocks: 0,
        root_owner: (1, 2),
        copies: 0,
    };
    for (name, old) in [
        ("mkfs", MemDisk::new(8192)),
        ("mkfs over a filesystem", disk(Scene::Warm)),
    ] {
        let pictured = |disk: MemDisk| match Fs::mount(disk.device(), MountOptions::default()) {
            Ok(fs) => picture(&fs),
            Err(_) => Picture::new(),
        };
        let before = pictured(old.fork());
        let made = old.fork();
        format(made.device(), &options).unwrap_or_else(|e| panic!("{name}: {}", e.reason));
        let fresh = pictured(made);
        assert_eq!(fresh.len(), 3, "{fresh:?}");
        each(name, tally, |n, mode, place| {
            let disk = old.fork();
            let (r, fired) = faulty(n, mode, || format(disk.device(), &options));
            if r.is_ok() || Fs::mount(disk.fork().device(), MountOptions::default()).is_ok() {
                // Before anything was written the old one is still there.
                let (now, _) = found(&disk, place);
                assert!(now == fresh || (r.is_err() && now == before), "{place}");
            }
            format(disk.device(), &options).unwrap_or_else(|e| panic!("{place}: {}", e.reason));
            clean(disk.device(), true, place);
            Outcome {
                fired,
                error: r.err().map(|e| e.error),
            }
        });
    }
}
