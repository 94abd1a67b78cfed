// SPDX-License-Identifier: GPL-2.0

//! Broken invariants of the engine (rust/engine/invariant.rs): each is planted where it is checked, and has
//! to be reported by its name. A debug build stops, any other ends the operation with an error.

use ordofs_crash::bases::Bases;
use ordofs_crash::disk::Scratch;
use ordofs_crash::engine::invariant::{plant, reported, Invariant};
use ordofs_crash::engine::{Fs, Inode, MountOptions, NewInode, S_IFREG};
use ordofs_crash::os::Shared;
use ordofs_crash::workload::Start;
use std::panic::{catch_unwind, AssertUnwindSafe};

type Outcome = Result<(), kernel::prelude::Error>;

/// A new filesystem with a file in it that is not durable.
fn file() -> (Shared<Fs>, Shared<Inode>) {
    let base = Bases::new().expect("bases");
    let disk = Scratch::new(base.of(Start::Fresh, 1).image.clone());
    let fs = Fs::mount(disk.device(), MountOptions::default()).expect("mount");
    let root = fs.iget(fs.root_ino()).expect("root");
    let new = NewInode {
        mode: S_IFREG | 0o644,
        ..NewInode::default()
    };
    let f = fs.create(&root, b"planted", &new).expect("create");
    fs.iput(root);
    (fs, f)
}

/// Plants the invariant for `act`: it is reported, with its name, and what was done fails.
fn is_reported(which: Invariant, act: impl FnOnce(&Shared<Fs>, &Shared<Inode>) -> Outcome) {
    kernel::print::set_level(kernel::print::SILENT);
    let (fs, f) = file();
    plant(Some(which));
    let done = catch_unwind(AssertUnwindSafe(|| act(&fs, &f)));
    plant(None);
    assert_eq!(reported(), Some(which));
    match done {
        Ok(done) => {
            assert!(!cfg!(debug_assertions), "{which:?}: it went on");
            assert!(done.is_err(), "{which:?}: no error");
        }
        Err(message) => {
            let message = message.downcast_ref::<String>().expect("a message");
            let expected = format!("broken invariant {which:?} (");
            assert!(message.starts_with(&expected), "{message}");
            assert!(message.contains(".rs:"), "no place: {message}");
        }
    }
    // What a panic left behind is of no use.
    std::mem::forget((fs, f));
}

#[test]
fn a_commit_reports_what_must_not_be_written() {
    for which in [
        Invariant::FreeCount,
        Invariant::Generation,
        Invariant::Slot,
        Invariant::NodeBlocks,
    ] {
        is_reported(which, |fs, _| fs.sync());
    }
}

#[test]
fn a_batch_of_the_log_reports_what_must_not_be_written() {
    for which in [Invariant::LogGeneration, Invariant::LogPosition] {
        is_reported(which, |fs, f| {
            fs.sync_inode(f)?;
            // Without the log it is a commit.
            match reported() {
                Some(_) => Err(kernel::prelude::EUCLEAN),
                None => Ok(()),
            }
        });
    }
}

#[test]
fn a_reservation_that_does_not_come_out_even_is_reported_at_unmount() {
    is_reported(Invariant::Reserved, |fs, f| {
        fs.iput(f.clone());
        fs.unmount()
    });
}

#[test]
fn without_a_plant_nothing_is_reported() {
    kernel::print::set_level(kernel::print::SILENT);
    let (fs, f) = file();
    fs.sync_inode(&f).expect("fsync");
    fs.sync().expect("sync");
    fs.iput(f);
    fs.unmount().expect("unmount");
    assert_eq!(reported(), None);
}
