// SPDX-License-Identifier: GPL-2.0

//! A failed writeback is reported for its range, and for no other range.

mod common;

use common::hooked::{hooked, Ask};
use common::*;
use kernel::prelude::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::Shared;
use std::sync::mpsc::channel;
use std::sync::Mutex;
use std::time::Duration;

/// Writeback of a range that the device refuses.
fn lose(fs: &Fs, f: &Shared<Inode>, start: u64, len: usize) {
    dirty(fs, f, start, len as u64).unwrap();
    let s = fs.start_write(f, start, &vec![1; len], false).unwrap();
    assert_eq!(s.len, len as u64);
    let end = block_to_bytes(start + s.len);
    assert_eq!(fs.finish_write(s.ordered, end, Err(EIO)), Err(EIO));
}

#[test]
fn a_loss_is_told_of_its_range_and_of_no_other() {
    let disk = make(8192);
    let dev = disk.device();
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let before = fs.losses(&f);
    lose(&fs, &f, 10, 5);
    // The same error again is a new loss.
    let between = fs.losses(&f);
    lose(&fs, &f, 12, 2);
    assert_eq!(fs.lost_since(&f, before, 0, 11), Err(EIO));
    assert_eq!(fs.lost_since(&f, between, 0, 12), Ok(()));
    assert_eq!(fs.lost_since(&f, between, 13, 90), Err(EIO));
    assert_eq!(fs.lost_since(&f, between, 14, 90), Ok(()));
    // What was lost before is no reason to refuse an operation.
    let now = fs.losses(&f);
    write(&dev, &fs, &f, 10, &[1, 2, 3, 4, 5]).unwrap();
    assert_eq!(fs.lost_since(&f, now, 0, 100), Ok(()));
    // Pages that could not even be started.
    dirty(&fs, &f, 50, 7).unwrap();
    let bfree = fs.statfs().bavail;
    fs.lose_dirty(&f, 50, 7, ENOMEM);
    assert!(fs.statfs().bavail > bfree, "the reservation was given back");
    assert_eq!(fs.lost_since(&f, now, 56, 1), Err(ENOMEM));
    assert_eq!(fs.lost_since(&f, now, 57, 1), Ok(()));
    // More of them than are remembered: none may be missed.
    for i in 0..20 {
        lose(&fs, &f, 200 + i, 1);
    }
    assert!(fs.lost_since(&f, now, 56, 1).is_err());
    let late = fs.losses(&f);
    lose(&fs, &f, 300, 1);
    assert_eq!(fs.lost_since(&f, late, 0, 300), Ok(()));
    fs.iput(f);
    fs.iput(root);
}

/// The caller of a failed direct write gets the error; nothing that was dirty is lost with it.
#[test]
fn a_failed_direct_write_loses_no_dirty_page() {
    let disk = make(8192);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let before = fs.losses(&f);
    let s = fs.start_write(&f, 3, &[1], true).unwrap();
    assert_eq!(fs.finish_write(s.ordered, 0, Err(EIO)), Err(EIO));
    assert_eq!(fs.lost_since(&f, before, 0, 100), Ok(()));
    fs.iput(f);
    fs.iput(root);
}

/// A task reads a node of the extent tree from a slow device, with the maps held.
/// Reclaim asks for the maps meanwhile, and must not wait for the device.
#[test]
fn reclaim_does_not_wait_for_a_reader_of_the_maps() {
    let disk = make(8192);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let ino = f.ino();
    let dev = disk.device();
    for i in 0..300 {
        write(&dev, &fs, &f, 2 * i, &[i]).unwrap();
    }
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();
    drop(fs);
    let (asked, ask) = channel();
    let (go, gate) = channel::<()>();
    let slow = Mutex::new(None);
    let slow = std::sync::Arc::new(slow);
    let hook = slow.clone();
    let fs = mount_on(hooked(&disk, move |ask| {
        if let (Ask::Read(_), Some(gate)) = (ask, hook.lock().unwrap().take()) {
            asked.send(()).unwrap();
            let gate: std::sync::mpsc::Receiver<()> = gate;
            gate.recv().unwrap();
        }
        Ok(())
    }));
    let f = fs.iget(ino).unwrap();
    *slow.lock().unwrap() = Some(gate);
    std::thread::scope(|s| {
        s.spawn(|| fs.map_read(&f, 0, 1).unwrap());
        ask.recv().unwrap();
        let (done, end) = channel();
        s.spawn({
            let (fs, f) = (&fs, &f);
            move || done.send(fs.release_maps(f, 0, 100)).unwrap()
        });
        let dropped = end.recv_timeout(Duration::from_secs(2));
        go.send(()).unwrap();
        assert_eq!(dropped, Ok(false), "reclaim waited");
    });
    assert!(fs.release_maps(&f, 0, 100));
    fs.iput(f);
}
