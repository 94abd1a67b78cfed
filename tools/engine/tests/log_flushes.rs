// SPDX-License-Identifier: GPL-2.0

//! What a batch of the log costs in flushes, and what replay must verify because of it: little data is
//! flushed with the batch and verified by replay, much data is flushed before and is not.

mod common;

use common::*;
use ordofs_engine::engine::log::state::MAX_UNFLUSHED;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::record::{Op, Recorder};

/// What an fsync of a new file with so many blocks does to the device, from the log on.
struct Fsync {
    rec: Recorder,
    /// Operations before it.
    before: usize,
    ops: Vec<Op>,
    /// The header of its batch.
    flags: u32,
    /// Where the file's first block is.
    first: u64,
}

fn fsync(blocks: u64) -> Fsync {
    let disk = make(1 << 14);
    let rec = Recorder::new(disk);
    let fs = mount_on(rec.device());
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"f", &regular()).unwrap();
    let seeds: Vec<u64> = (0..blocks).map(|i| 1000 + i).collect();
    write(&rec.device(), &fs, &f, 0, &seeds).unwrap();
    let before = rec.len();
    fs.sync_inode(&f).unwrap();
    let first = fs.map_read(&f, 0, 1).unwrap().phys;
    let ops = rec.ops().split_off(before);
    let header = ops.iter().find_map(|op| match op {
        Op::Write { data, .. } if data.starts_with(b"ORDL") => Some(data.clone()),
        _ => None,
    });
    let flags = common::log::u32_at(&header.expect("a batch")[..], common::log::FLAGS);
    fs.iput(f);
    fs.iput(root);
    Fsync {
        rec,
        before,
        ops,
        flags,
        first,
    }
}

impl Fsync {
    fn flushes(&self) -> usize {
        self.ops.iter().filter(|o| matches!(o, Op::Flush)).count()
    }

    /// Everything arrived, but for the file's first block.
    fn without_data(&self) -> MemDisk {
        let n = self.rec.len();
        let image = self.rec.crash_image(n, |_| true);
        image.corrupt(self.first, 100, 0xff);
        image
    }
}

/// The size that a mount recovers; `None`: the file is not there.
fn recovered(disk: &MemDisk) -> (Option<u64>, bool) {
    let fs = mount(disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let size = match fs.lookup(&root, b"f").unwrap() {
        None => None,
        Some(entry) => {
            let f = fs.iget(entry.ino).unwrap();
            let size = f.attrs().size;
            fs.iput(f);
            Some(size)
        }
    };
    fs.iput(root);
    (size, fs.replayed().disbelieved)
}

#[test]
fn little_data_is_flushed_with_its_batch_and_looked_at() {
    let f = fsync(MAX_UNFLUSHED);
    assert_eq!((f.flushes(), f.flags), (1, 0));
    assert_eq!(recovered(&f.without_data()), (None, true));
}

#[test]
fn much_data_is_flushed_before_and_not_looked_at() {
    let f = fsync(MAX_UNFLUSHED + 1);
    assert_eq!((f.flushes(), f.flags), (2, 1));
    assert!(matches!(f.ops.first(), Some(Op::Flush)));
    let size = block_to_bytes(MAX_UNFLUSHED + 1);
    assert_eq!(recovered(&f.without_data()), (Some(size), false));
    // Wherever the power goes: all of the file or nothing, and no block that is not what was written.
    for n in f.before..=f.rec.len() {
        for arrive in [false, true] {
            let image = f.rec.crash_image(n, |_| arrive);
            let (got, _) = recovered(&image);
            assert!(got.is_none() || got == Some(size), "{n}: {got:?}");
            assert!(
                n < f.rec.len() || got.is_some(),
                "an acknowledged fsync is lost"
            );
            mount(&image).unmount().unwrap();
            fsck(&image);
        }
    }
}
