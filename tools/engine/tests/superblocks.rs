// SPDX-License-Identifier: GPL-2.0

//! A superblock that the device cannot give back may be the newest: going on from the other one would undo
//! what a commit had acknowledged.

mod common;

use common::hooked::{hooked, Ask};
use common::{make, mount, regular};
use kernel::error::code::{EIO, ENOMEM};
use kernel::prelude::Error;
use ordofs_engine::engine::format::SB_SLOTS;
use ordofs_engine::engine::{Fs, MountOptions};
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Device, Shared};

/// A filesystem with three commits of a file each, and the slot of the last one.
fn three_commits() -> (MemDisk, u64) {
    kernel::print::set_level(kernel::print::SILENT);
    let disk = make(16384);
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    for name in [b"f0", b"f1", b"f2"] {
        let f = fs.create(&root, name, &regular()).unwrap();
        fs.iput(f);
        fs.sync().unwrap();
    }
    let newest = SB_SLOTS[(fs.durable_generation() & 1) as usize];
    fs.iput(root);
    (disk, newest)
}

/// The device that answers one block with an error.
fn without(disk: &MemDisk, block: u64, error: Error) -> Device {
    hooked(disk, move |ask| match ask {
        Ask::Read(b) if b == block => Err(error),
        _ => Ok(()),
    })
}

fn has(fs: &Shared<Fs>, name: &[u8]) -> bool {
    let root = fs.iget(fs.root_ino()).unwrap();
    let found = fs.lookup(&root, name).unwrap().is_some();
    fs.iput(root);
    found
}

#[test]
fn an_unreadable_superblock_forbids_writing() {
    let (disk, newest) = three_commits();
    let read_only = MountOptions {
        read_only: true,
        ..MountOptions::default()
    };
    let before = disk.image();
    for slot in SB_SLOTS {
        let refused = Fs::mount(without(&disk, slot, EIO), MountOptions::default())
            .err()
            .expect("mounted");
        assert_eq!(refused.error, EIO);
        assert!(refused.reason.contains("superblock"), "{}", refused.reason);

        let fs = Fs::mount(without(&disk, slot, EIO), read_only).unwrap();
        assert_eq!(fs.forbidden().map(|why| why.error), Some(EIO));
        assert!(has(&fs, b"f1"));
        assert_eq!(has(&fs, b"f2"), slot != newest);
        fs.unmount().unwrap();
    }
    assert!(disk.image() == before, "somebody has written");
    let fs = mount(&disk);
    assert!(fs.forbidden().is_none() && has(&fs, b"f2"));
}

#[test]
fn no_memory_is_not_an_unreadable_superblock() {
    let (disk, _) = three_commits();
    for (slot, read_only) in [(0, false), (1, false), (0, true), (1, true)] {
        let options = MountOptions {
            read_only,
            ..MountOptions::default()
        };
        let refused = Fs::mount(without(&disk, SB_SLOTS[slot], ENOMEM), options)
            .err()
            .expect("mounted");
        assert_eq!((refused.error, refused.reason), (ENOMEM, "out of memory"));
    }
}
