// SPDX-License-Identifier: GPL-2.0

//! Large disks, filled by one preallocated file until nothing is available: deleting it works, at once
//! and after a crash, in bounded memory, and what statfs calls available can be had.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "support/counting.rs"]
mod counting;

use common::*;
use counting::{device, peak_of};
use kernel::prelude::ENOSPC;
use ordofs_engine::engine::alloc::Priority;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Device, Shared};
use std::cell::Cell;

fn sparse(disk: &MemDisk) -> Device {
    counting::sparse(disk, |_| ())
}

const GIB: u64 = 1 << 18;

/// What an operation may need besides the blocks that it is asked for: nodes of the trees that it changes.
const SLACK: u64 = 128;

/// Takes all that statfs calls available, and again what a commit gives back, until nothing is left.
fn fill(fs: &Fs, file: &Shared<Inode>) {
    let available = fs.statfs().bavail;
    fs.preallocate(file, 0, available - SLACK, None)
        .expect("what statfs calls available");
    loop {
        fs.sync().unwrap();
        let before = file.blocks();
        let available = fs.statfs().bavail;
        if available == 0 {
            return;
        }
        match fs.preallocate(file, before, available, None) {
            Ok(()) => assert_eq!(file.blocks(), before + available),
            Err(e) => assert_eq!(e, ENOSPC),
        }
        if file.blocks() == before {
            return;
        }
    }
}

fn clean(disk: &MemDisk, when: &str) {
    let o = ordofs_fsck::Options { data: false };
    let report = ordofs_fsck::check(disk.device(), o).expect("superblock");
    let list: Vec<String> = report.problems.iter().map(|p| format!("{p}")).collect();
    assert!(report.is_clean(), "fsck {when}:\n{}", list.join("\n"));
}

/// A device of `gib` GiB with a file `big` on it that has all the space, mounted.
fn full(gib: u64) -> (MemDisk, Shared<Fs>) {
    let disk = device(|| MemDisk::new(gib * GIB));
    format_on(sparse(&disk));
    let fs = mount_on(sparse(&disk));
    let root = fs.iget(fs.root_ino()).unwrap();
    let file = fs.create(&root, b"big", &regular()).unwrap();
    fill(&fs, &file);
    assert!(fs.statfs().bavail <= 32, "{:?}", fs.statfs());
    fs.iput(file);
    fs.iput(root);
    (disk, fs)
}

/// The root directory and the file `big`.
fn open(fs: &Fs) -> (Shared<Inode>, Shared<Inode>) {
    let root = fs.iget(fs.root_ino()).unwrap();
    let e = fs.lookup(&root, b"big").unwrap().expect("big");
    let file = fs.iget(e.ino).unwrap();
    (root, file)
}

/// Everything but what the metadata of an empty filesystem needs is free again.
fn empty(fs: &Fs, disk: &MemDisk, when: &str) {
    fs.sync().unwrap();
    let s = fs.statfs();
    let sb = format::Superblock::read(&disk.device()).unwrap();
    let own: u64 = sb.fixed_areas().map(|(_, len)| len).sum();
    // Groups that are free have no records: the trees are as small as they were, but for leaves of
    // the AG tree that are only half full.
    // A leaf that is half full has 45 records; a node above them has about as many leaves.
    let leaves = u64::from(sb.ag_count) / 45;
    let records = leaves + leaves / 40;
    let copies = u64::from(sb.copies);
    assert!(
        s.blocks - s.bfree - own < copies * (64 + records),
        "{when}: {s:?}"
    );
    clean(disk, when);
    let again = mount(&disk.fork());
    assert_eq!(again.statfs().bavail, s.bavail, "{when}");
}

/// What a deletion may have in memory: the bitmaps of a transaction that is being committed and of the
/// next one, and the nodes of their trees.
const MEMORY: i64 = 64 << 20;

fn deleted_on_the_full_disk(gib: u64) {
    let (disk, fs) = full(gib);
    clean(&disk, "when it is full");
    let before = device(|| disk.fork());

    let m = peak_of(|| {
        let (root, file) = open(&fs);
        fs.unlink(&root, b"big", &file).expect("unlink");
        fs.iput(root);
        fs.delete_inode(file).expect("delete on the full disk");
        empty(&fs, &disk, "after the deletion");
    });
    println!("{gib} GiB, deleted: {} KiB at most", m >> 10);
    assert!(m < MEMORY, "{m} bytes for the deletion");
    fs.unmount().unwrap();
    drop((fs, disk));

    // The unlink is in the log, and nothing that came after it.
    let fs = mount_on(sparse(&before));
    let (root, file) = open(&fs);
    fs.unlink(&root, b"big", &file).unwrap();
    fs.sync_inode(&root).unwrap();
    let crashed = device(|| before.fork());
    fs.abort("the power is cut");
    drop((file, root, fs, before));
    let m = peak_of(|| {
        let fs = mount_on(sparse(&crashed));
        empty(&fs, &crashed, "after the crash");
        fs.unmount().unwrap();
    });
    println!("{gib} GiB, after a crash: {} KiB at most", m >> 10);
    assert!(m < MEMORY, "{m} bytes for the mount");
}

#[test]
fn a_file_of_64_gib_is_deleted_on_a_full_disk() {
    deleted_on_the_full_disk(64);
}

#[test]
fn a_file_of_512_gib_is_deleted_on_a_full_disk() {
    deleted_on_the_full_disk(512);
}

#[test]
fn a_file_of_2_tib_is_deleted_on_a_full_disk() {
    deleted_on_the_full_disk(2048);
}

#[test]
fn a_file_of_100_tib_is_deleted_on_a_full_disk() {
    deleted_on_the_full_disk(100 << 10);
}

/// The log may say no more of a truncation than that it began: the mount that replays it does the rest, in
/// as many transactions as it took.
#[test]
fn a_truncation_in_the_log_is_replayed_in_bounded_memory() {
    use common::hooked::{hooked, Ask};
    use std::sync::mpsc::channel;
    let (disk, fs) = full(2048);
    fs.unmount().unwrap();
    drop(fs);
    // The commit that the truncation waits for stops at its first write.
    std::thread_local! {
        static TRUNCATES: Cell<bool> = const { Cell::new(false) };
    }
    let (came, waits) = channel();
    let came = std::sync::Mutex::new(came);
    let dev = hooked(&disk, move |ask| {
        if !matches!(ask, Ask::Read(_)) && TRUNCATES.replace(false) {
            let (go, on) = channel::<()>();
            came.lock().unwrap().send(go).unwrap();
            let _ = on.recv();
        }
        Ok(())
    });
    let fs = mount_on(dev);
    // The first transaction of a mount waits for a commit of its own.
    drop(fs.begin(0, Priority::Reclaim).expect("a transaction"));
    let (root, file) = open(&fs);
    let crashed = std::thread::scope(|s| {
        let (fs, file) = (&fs, &file);
        s.spawn(move || {
            TRUNCATES.set(true);
            fs.set_size(file, 0).expect("truncate");
        });
        let go = waits.recv().unwrap();
        fs.sync_inode(&root).expect("fsync beside the commit");
        let crashed = device(|| disk.fork());
        drop(go);
        crashed
    });
    fs.abort("the power is cut");
    drop((root, file, fs, disk));
    let m = peak_of(|| {
        let fs = mount_on(sparse(&crashed));
        assert!(fs.replayed().records > 0);
        let (root, file) = open(&fs);
        assert_eq!((file.attrs().size, file.blocks()), (0, 0));
        fs.iput(file);
        fs.iput(root);
        empty(&fs, &crashed, "after the crash");
        fs.unmount().unwrap();
    });
    println!("2048 GiB, truncation replayed: {} KiB at most", m >> 10);
    assert!(m < MEMORY, "{m} bytes for the mount");
}

/// What a truncation in the log has left for after the replay does not appear in a file that grew again
/// before the crash.
#[test]
fn a_file_that_grows_after_a_truncation_has_nothing_of_it_after_a_crash() {
    for grow in 0..4 {
        let disk = make(65536);
        let dev = disk.device();
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let f = fs.create(&root, b"big", &regular()).unwrap();
        for b in 0..400 {
            write(&dev, &fs, &f, 2 * b, &[b]).unwrap();
        }
        fs.sync().unwrap();
        fs.set_size(&f, 4096).unwrap();
        let end = 1000;
        match grow {
            0 => fs.set_size(&f, end * 4096).unwrap(),
            1 => fs.preallocate(&f, end - 1, 1, Some(end * 4096)).unwrap(),
            2 => write(&dev, &fs, &f, end - 1, &[7]).unwrap(),
            _ => fs.raise_size(&f, end * 4096).unwrap(),
        }
        fs.sync_inode(&f).unwrap();
        let crashed = disk.fork();
        let fs = mount(&crashed);
        assert!(fs.replayed().records > 0, "a commit came in between");
        let (root, f) = open(&fs);
        assert_eq!(f.attrs().size, end * 4096, "grown in way {grow}");
        assert_eq!(read(&crashed.device(), &fs, &f, 0).unwrap(), Some(0));
        for b in 1..end - 1 {
            let found = read(&crashed.device(), &fs, &f, b).unwrap();
            assert_eq!(found, None, "old data at {b}, grown in way {grow}");
        }
        fs.iput(f);
        fs.iput(root);
        at_rest(&crashed, &fs);
    }
}

/// Dirty data holds blocks for metadata that it will not need. The kernel side writes it back before it
/// lets an operation fail for want of space; after that, what is refused stays refused until something is
/// freed.
#[test]
fn what_is_refused_on_a_full_disk_stays_refused() {
    use ordofs_engine::engine::ops::xattr::USER;
    let disk = make(16384);
    let dev = disk.device();
    let fs = mount(&disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"big", &regular()).unwrap();
    fs.sync().unwrap();
    let set = |name: &str, value: &[u8]| {
        fs.set_xattr(&f, USER, name.as_bytes(), Some(value), XattrSet::Any)
    };
    // As write(2) fills the page cache.
    let (mut end, mut written) = (0, 0);
    let mut refused = 0;
    loop {
        match fs.map_write(&f, end, 64) {
            Ok(w) => {
                end += w.map.len;
                continue;
            }
            Err(e) => assert_eq!(e, ENOSPC),
        }
        if fs.held_for_dirty_data() == 0 {
            break;
        }
        refused += usize::from(set("early", &[1; 1024]) == Err(ENOSPC));
        let seeds: Vec<u64> = (written..end).collect();
        flush(&dev, &fs, &f, written, &seeds, false).unwrap();
        written = end;
        assert_eq!(fs.held_for_dirty_data(), 0);
    }
    assert!(refused > 0, "dirty data held nothing that was wanted");
    // A block of data and one for its metadata are more than there is.
    assert!(fs.statfs().bavail < 2);
    let mut large = 0;
    while set(&format!("large{large}"), &[1; 1024]).is_ok() {
        large += 1;
    }
    println!("{large} attributes of 1 KiB");
    for i in 0..1000 {
        fs.sync().unwrap();
        assert_eq!(set(&format!("small{i}"), b""), Err(ENOSPC), "number {i}");
    }
    // Until something is freed.
    fs.set_size(&f, 4096 * (end - 64)).unwrap();
    set("small", b"").expect("an attribute when there is space");
    fs.iput(f);
    fs.iput(root);
    at_rest(&disk, &fs);
    fs.unmount().unwrap();
}
