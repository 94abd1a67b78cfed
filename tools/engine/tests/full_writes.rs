// SPDX-License-Identifier: GPL-2.0

//! What a full disk must still do: the space accounting of generic/256, 274, 275 and 416, without a VM.

mod common;

use common::*;
use kernel::prelude::{Result, ENOSPC};
use ordofs_engine::engine::*;
use ordofs_engine::os::{Device, Shared};
use std::vec::Vec;

/// Buffered writes of `len` blocks each from the end of a file on, until there is no space. With `sync`, an
/// fsync follows each.
fn fill(dev: &Device, fs: &Fs, inode: &Shared<Inode>, len: u64, sync: bool) -> u64 {
    let mut at = inode.attrs().size / 4096;
    let first = at;
    loop {
        // write(2) is short where the space ends within it.
        let mut end = at;
        while end < at + len {
            match fs.map_write(inode, end, at + len - end) {
                Ok(w) => end += w.map.len,
                Err(e) => {
                    assert_eq!(e, ENOSPC);
                    break;
                }
            }
        }
        let end = end.min(at + len);
        let seeds: Vec<u64> = (at..end).collect();
        flush(dev, fs, inode, at, &seeds, false).unwrap();
        if sync {
            fs.sync_inode(inode).unwrap();
        }
        if end < at + len {
            return end - first;
        }
        at = end;
    }
}

fn create(fs: &Fs, name: &[u8]) -> Result<Shared<Inode>> {
    let root = fs.iget(fs.root_ino())?;
    let r = fs.create(&root, name, &regular());
    fs.iput(root);
    r
}

fn remove(fs: &Fs, name: &[u8], inode: Shared<Inode>) {
    let root = fs.iget(fs.root_ino()).unwrap();
    fs.unlink(&root, name, &inode).unwrap();
    fs.delete_inode(inode).unwrap();
    fs.iput(root);
}

/// Fills everything as dd does it: 1 MiB at a time, then 4 KiB, then 4 KiB with O_SYNC.
fn fill_all(dev: &Device, fs: &Fs) {
    let files: Vec<_> = (0..3)
        .map(|i| create(fs, format!("fill{i}").as_bytes()).unwrap())
        .collect();
    fill(dev, fs, &files[0], 256, false);
    fs.sync().unwrap();
    fill(dev, fs, &files[1], 1, false);
    fs.sync().unwrap();
    fill(dev, fs, &files[2], 1, true);
    files.into_iter().for_each(|f| fs.iput(f));
}

/// generic/274.
#[test]
fn preallocated_space_takes_its_writes_on_a_full_disk() {
    let disk = make(1 << 16);
    let (dev, fs) = (disk.device(), mount(&disk));
    let test = create(&fs, b"test").unwrap();
    write(&dev, &fs, &test, 0, &(0..16).collect::<Vec<_>>()).unwrap();
    fs.preallocate(&test, 16, 16 << 10, None).unwrap();
    fill_all(&dev, &fs);
    for parity in 0..2 {
        for i in (1..1024).filter(|i| i % 2 != parity) {
            let seeds: Vec<u64> = (i * 16..i * 16 + 16).collect();
            write(&dev, &fs, &test, i * 16, &seeds)
                .unwrap_or_else(|e| panic!("block {}: {e:?}, {:?}", i * 16, fs.statfs()));
        }
        fs.sync().unwrap();
    }
    fs.iput(test);
    fs.unmount().unwrap();
    fsck(&disk);
}

/// generic/275.
#[test]
fn removed_space_can_be_written_at_once() {
    let disk = make(1 << 16);
    let (dev, fs) = (disk.device(), mount(&disk));
    let later = create(&fs, b"later").unwrap();
    let small = create(&fs, b"small").unwrap();
    write(&dev, &fs, &small, 0, &(0..64).collect::<Vec<_>>()).unwrap();
    fill_all(&dev, &fs);
    remove(&fs, b"small", small);
    fs.sync().unwrap();
    let s = fs.statfs();
    assert!(s.bavail * 4 <= 1024, "not full: {s:?}");
    let wrote = fill(&dev, &fs, &later, 32, false);
    assert!(wrote >= 32, "only {wrote} blocks: {:?}", fs.statfs());
    fs.iput(later);
    fs.unmount().unwrap();
    fsck(&disk);
}

/// generic/256.
#[test]
fn punching_makes_room_on_a_full_disk() {
    let disk = make(1 << 16);
    let (dev, fs) = (disk.device(), mount(&disk));
    let test = create(&fs, b"test").unwrap();
    write(&dev, &fs, &test, 0, &(0..1500).collect::<Vec<_>>()).unwrap();
    fs.sync_inode(&test).unwrap();
    fill_all(&dev, &fs);
    let mut wrote = 0;
    for i in 0..500 {
        fs.punch(&test, i * 3, 2).unwrap();
        if let Ok(f) = create(&fs, format!("fill.{i}").as_bytes()) {
            wrote += fill(&dev, &fs, &f, 1, false);
            fs.iput(f);
        }
    }
    // Some of it goes to the metadata of the holes and the new files.
    assert!(wrote >= 500, "{wrote} of 1000 blocks");
    fs.iput(test);
    fs.unmount().unwrap();
    fsck(&disk);
}

/// generic/416.
#[test]
fn every_other_file_removed_makes_room_for_a_large_one() {
    let disk = make(128 << 8);
    let (dev, fs) = (disk.device(), mount(&disk));
    let mut files = Vec::new();
    for i in 0..32768u64 {
        let Ok(f) = create(&fs, format!("{i:05}").as_bytes()) else {
            break;
        };
        let r = write(&dev, &fs, &f, 0, &[i]);
        files.push((i, f.ino()));
        fs.iput(f);
        if r.is_err() {
            break;
        }
    }
    fs.unmount().unwrap();
    let fs = mount(&disk);
    for (i, ino) in files.iter().filter(|(i, _)| i % 2 == 1) {
        let f = fs.iget(*ino).unwrap();
        remove(&fs, format!("{i:05}").as_bytes(), f);
    }
    fs.sync().unwrap();
    let large = create(&fs, b"large").unwrap();
    write(&dev, &fs, &large, 0, &(0..4096).collect::<Vec<_>>()).unwrap();
    fs.iput(large);
    fs.unmount().unwrap();
    fsck(&disk);
}

/// Many threads at once on a disk with little space: nothing but ENOSPC happens, and the counts are right
/// afterwards.
#[test]
fn many_threads_share_the_last_blocks() {
    for blocks in [4096, 20_000] {
        let disk = make(blocks);
        let fs = mount(&disk);
        let file = create(&fs, b"big").unwrap();
        fs.preallocate(&file, 0, fs.statfs().bavail - 600, None)
            .unwrap();
        fs.sync().unwrap();
        std::thread::scope(|scope| {
            for t in 0..64u64 {
                let (fs, disk) = (&fs, &disk);
                scope.spawn(move || {
                    let dev = disk.device();
                    let mut rng = fastrand::Rng::with_seed(t);
                    let may_fail = |r: Result| match r {
                        Ok(()) => {}
                        Err(e) => assert_eq!(e, ENOSPC, "thread {t}"),
                    };
                    for i in 0..30 {
                        let name = format!("{t}-{i}");
                        let f = match create(fs, name.as_bytes()) {
                            Ok(f) => f,
                            Err(e) => {
                                assert_eq!(e, ENOSPC);
                                continue;
                            }
                        };
                        let n = rng.u64(1..24);
                        match rng.u64(..3) {
                            0 => may_fail(fs.preallocate(&f, 0, n, None)),
                            _ => may_fail((0..n).try_for_each(|b| write(&dev, fs, &f, b, &[t]))),
                        }
                        match rng.u64(..8) {
                            0 => fs.sync().unwrap(),
                            1 => fs.sync_inode(&f).unwrap(),
                            _ => {}
                        }
                        match rng.bool() {
                            true => remove(fs, name.as_bytes(), f),
                            false => fs.iput(f),
                        }
                    }
                });
            }
        });
        fs.iput(file);
        at_rest(&disk, &fs);
        fs.unmount().unwrap();
    }
}
