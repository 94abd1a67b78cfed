// SPDX-License-Identifier: GPL-2.0

//! Many threads at once: names, data, syncs and reclaim, each as the glue allows it.

mod support;

use fastrand::Rng;
use kernel::prelude::*;
use ordofs_engine::engine::ops::namei::Rename;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{crc32c, Block, Shared};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use support::content::fill;
use support::driver::{clean, mkfs};

const WORKERS: u64 = 4;

fn new(mode: u32) -> NewInode<'static> {
    NewInode {
        mode,
        ..Default::default()
    }
}

/// ENOSPC is a valid result, every other error is a failure.
fn ok<T>(what: &str, r: Result<T>) -> Option<T> {
    match r {
        Ok(v) => Some(v),
        Err(e) if e == ENOSPC => None,
        Err(e) => panic!("{what}: {e:?}"),
    }
}

fn write(fs: &Fs, file: &Shared<Inode>, start: u64, n: u64, tag: u64, direct: bool) -> Option<()> {
    let data = fill(tag);
    let sums = [crc32c(0, &data[..]); 32];
    let mut end = start + n;
    if !direct {
        let mut at = start;
        while at < end {
            let Some(w) = ok("map_write", fs.map_write(file, at, end - at)) else {
                break;
            };
            at = (w.map.start + w.map.len).min(end);
        }
        end = at;
    }
    let mut at = start;
    while at < end {
        let s = ok(
            "start_write",
            fs.start_write(file, at, &sums[..(end - at) as usize], direct),
        )?;
        let reqs: std::vec::Vec<(u64, &Block)> =
            (s.phys..s.phys + s.len).map(|b| (b, &data)).collect();
        fs.node_store().device().write(&reqs).expect("device");
        at += s.len;
        fs.finish_write(s.ordered, at * 4096, Ok(()))
            .expect("finish_write");
    }
    Some(())
}

fn read(fs: &Fs, file: &Inode, block: u64) {
    let m = fs.map_read(file, block, 1).expect("map_read");
    if m.kind != MapKind::Written {
        return;
    }
    let mut buf = Block::zeroed().expect("memory");
    fs.node_store()
        .device()
        .read(m.phys, &mut buf)
        .expect("device");
    let v = fs
        .verify(file, block, m.phys, crc32c(0, &buf[..]))
        .expect("verify");
    assert!(
        matches!(v, Verdict::Good | Verdict::Moved),
        "inode {} block {block}: {v:?}",
        file.ino()
    );
}

/// Makes or removes a file in the shared directory.
fn shared_name(fs: &Fs, me: u64, shared: &Mutex<Shared<Inode>>, number: u64) {
    let dir = shared.lock().expect("lock");
    let name = format!("s{me}-{number}");
    if let Some(e) = fs.lookup(&dir, name.as_bytes()).expect("lookup") {
        let i = fs.iget(e.ino).expect("iget");
        fs.unlink(&dir, name.as_bytes(), &i).expect("unlink");
        fs.delete_inode(i).expect("delete");
    } else if let Some(i) = ok("create", fs.create(&dir, name.as_bytes(), &new(S_IFREG))) {
        write(fs, &i, 0, 3, me, true);
        fs.iput(i);
    }
}

/// Moves a file into the shared directory and back. False: it has no name any more.
fn there_and_back(
    fs: &Fs,
    me: u64,
    mine: &Shared<Inode>,
    shared: &Mutex<Shared<Inode>>,
    name: &str,
    i: &Shared<Inode>,
) -> bool {
    let away = format!("moved{me}");
    let dir = shared.lock().expect("lock");
    let mv = |od: &Shared<Inode>, on: &str, nd: &Shared<Inode>, nn: &str| {
        fs.rename(&Rename {
            old_dir: od,
            old_name: on.as_bytes(),
            inode: i,
            new_dir: nd,
            new_name: nn.as_bytes(),
            target: None,
            flags: RenameFlags::default(),
            whiteout: None,
        })
    };
    if ok("rename", mv(mine, name, &dir, &away)).is_some()
        && ok("rename back", mv(&dir, &away, mine, name)).is_none()
    {
        // No space for the way back, but always for removal.
        fs.unlink(&dir, away.as_bytes(), i).expect("unlink");
        return false;
    }
    true
}

/// One worker with files of its own in the directory `mine`; the shared directory is under a lock, like
/// i_rwsem.
fn work(
    fs: &Fs,
    me: u64,
    mine: Shared<Inode>,
    shared: &Mutex<Shared<Inode>>,
    stop: &AtomicBool,
) -> u64 {
    let mut rng = Rng::with_seed(me * 7919 + 12345);
    let mut files: std::vec::Vec<(std::string::String, Shared<Inode>)> = std::vec::Vec::new();
    let mut ops = 0;
    while !stop.load(Ordering::Relaxed) {
        ops += 1;
        let file = files
            .get(rng.u64(..files.len().max(1) as u64) as usize)
            .map(|(_, i)| i.clone());
        match (rng.u64(..12), file) {
            (0 | 1, _) | (_, None) if files.len() < 40 => {
                let name = format!("f{ops}");
                if let Some(i) = ok("create", fs.create(&mine, name.as_bytes(), &new(S_IFREG))) {
                    files.push((name, i));
                }
            }
            (2, Some(_)) => {
                let (name, i) = files.swap_remove(rng.u64(..files.len() as u64) as usize);
                fs.unlink(&mine, name.as_bytes(), &i).expect("unlink");
                fs.delete_inode(i).expect("delete");
            }
            (3, Some(f)) => {
                ok(
                    "preallocate",
                    fs.preallocate(&f, rng.u64(..64), 1 + rng.u64(..40), None),
                );
            }
            (4, Some(f)) => {
                fs.punch(&f, rng.u64(..64), 1 + rng.u64(..20))
                    .expect("punch");
            }
            (5, Some(f)) => fs.set_size(&f, rng.u64(..100 * 4096)).expect("truncate"),
            (6, Some(f)) => fs.sync_inode(&f).expect("fsync"),
            (7, _) => shared_name(fs, me, shared, rng.u64(..8)),
            (8, Some(_)) => {
                let n = rng.u64(..files.len() as u64) as usize;
                let (name, i) = files.swap_remove(n);
                if there_and_back(fs, me, &mine, shared, &name, &i) {
                    files.push((name, i));
                } else {
                    fs.delete_inode(i).expect("delete");
                }
            }
            (k, Some(f)) => {
                let start = rng.u64(..80);
                write(fs, &f, start, 1 + rng.u64(..20), ops, k % 2 == 0);
                read(fs, &f, start);
            }
            _ => {}
        }
    }
    for (_, i) in files {
        fs.iput(i);
    }
    fs.iput(mine);
    ops
}

fn storm(blocks: u64, secs: u64) {
    let disk = MemDisk::new(blocks);
    mkfs(disk.device());
    let fs = Fs::mount(
        disk.device(),
        MountOptions {
            commit_secs: 1,
            ..MountOptions::default()
        },
    )
    .expect("mount");
    let root = fs.iget(fs.root_ino()).expect("root");
    // Before any worker begins: the first one may fill the disk before the last one is there.
    let mkdir = |me| {
        let name = format!("worker{me}");
        let dir = fs.create(&root, name.as_bytes(), &new(S_IFDIR | 0o755));
        (me, dir.expect("mkdir"))
    };
    let homes: std::vec::Vec<_> = (0..WORKERS).map(mkdir).collect();
    let shared = Mutex::new(root.clone());
    let stop = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(secs);
    let mut images = std::vec::Vec::new();
    std::thread::scope(|s| {
        let workers: std::vec::Vec<_> = homes
            .into_iter()
            .map(|(me, mine)| {
                let (fs, shared, stop) = (&fs, &shared, &stop);
                s.spawn(move || work(fs, me, mine, shared, stop))
            })
            .collect();
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs.commit_wait(50);
                fs.commit_tick().expect("commit");
            }
        });
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs.shrink_scan(500);
                fs.statfs();
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        while Instant::now() < end && workers.iter().all(|w| !w.is_finished()) {
            std::thread::sleep(Duration::from_millis(150));
            fs.sync().expect("sync");
            images.push(disk.fork());
        }
        stop.store(true, Ordering::Relaxed);
        for w in workers {
            let ops = w.join().expect("a worker failed");
            assert!(ops > 10, "a worker was starved: {ops} operations");
        }
    });
    drop(shared);
    fs.sync().expect("sync");
    let before = fs.statfs();
    fs.iput(root);
    fs.unmount().expect("unmount");
    drop(fs);
    clean(disk.device(), true, "after the storm");
    let fs = Fs::mount(disk.device(), MountOptions::default()).expect("mount");
    assert_eq!(fs.statfs().bfree, before.bfree, "reservations leaked");
    // What was on the medium in the middle of it, as after a power cut. A copy of the device is not
    // taken in one moment with writes, so data is left out, and the superblock decides.
    for (i, image) in images.iter().enumerate().take(12) {
        clean(image.device(), false, &format!("image {i} of the storm"));
    }
}

#[test]
fn a_storm_on_a_roomy_disk_leaves_it_clean() {
    storm(65536, 5);
}

#[test]
fn a_storm_on_a_small_disk_leaves_it_clean() {
    storm(4096, 5);
}
