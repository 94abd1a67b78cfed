// SPDX-License-Identifier: GPL-2.0

//! A filesystem becomes smaller, and every allocation of that fails. It has a disk of its own, because
//! it must be larger than those of the other operations.

use super::bed::{new, write};
use super::mounts::{each, faulty, Outcome};
use super::picture::picture;
use super::tally::Tally;
use super::trial::{found, mounted, same};
use kernel::prelude::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;

/// Blocks of an AG.
const AG: u64 = 1 << 15;

/// Data and preallocated blocks are behind the first AG.
fn with_tail() -> MemDisk {
    let disk = MemDisk::new(2 * AG);
    super::support::driver::mkfs(disk.device());
    let fs = mounted(&disk, MountOptions::default(), "shrink");
    let root = fs.iget(fs.root_ino()).expect("root");
    let file = fs.create(&root, b"file", &new(S_IFREG)).expect("create");
    let mut at = 0;
    while fs.statfs().bavail > 600 {
        fs.preallocate(&file, at, 512, None).expect("preallocate");
        at += 512;
    }
    // What is behind the first AG, and written to in part.
    let behind = |at: &u64| fs.map_read(&file, *at, 1).expect("map").phys > AG;
    let first = (0..at).step_by(512).find(behind).expect("behind");
    for i in 0..6 {
        write(&fs, &file, first + 3 * i, 2, i % 2 == 0, 1).expect("write");
    }
    fs.punch(&file, 0, first).expect("punch");
    fs.punch(&file, first + 40, 2 * AG).expect("punch");
    for i in [file, root] {
        fs.iput(i);
    }
    fs.unmount().expect("unmount");
    disk
}

fn shrink(fs: &Fs) -> Result {
    let mut s = fs.shrink_begin(AG)?;
    while fs.shrink_step(&mut s)? {}
    Ok(())
}

pub fn shrinks(tally: &mut Tally) {
    let full = with_tail();
    let want = found(&full.fork(), "shrink").0;
    each("shrink of a filesystem", tally, |n, mode, place| {
        let disk = full.fork();
        let fs = mounted(&disk, MountOptions::default(), place);
        let (r, fired) = faulty(n, mode, || shrink(&fs));
        let shut = fs.is_shutdown();
        if !shut {
            let now = picture(&fs);
            for (k, v) in want.iter().filter(|(k, v)| now.get(*k) != Some(v)) {
                println!("DIFF {r:?} {k}: {v} {:?}", now.get(k));
            }
            same(&now, &want, place, "shrunk");
            assert_eq!(fs.blocks() == AG, r.is_ok(), "{place}");
            fs.unmount()
                .unwrap_or_else(|e| panic!("{place}: unmount: {e:?}"));
        }
        drop(fs);
        same(&found(&disk, place).0, &want, place, "after the remount");
        // A commit that fails shuts down.
        let error = r.err().map(|e| match shut && e == EIO {
            true => ENOMEM,
            false => e,
        });
        Outcome { fired, error }
    });
}
