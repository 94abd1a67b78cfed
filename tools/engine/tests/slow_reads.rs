// SPDX-License-Identifier: GPL-2.0

//! A read that the device does not complete holds up the task that reads, and the commit, and no other task.
//! A commit closes the barrier in front of all operations; it must not wait there for an operation, or
//! for a lock, that waits for the device.

mod common;

use common::hooked::{hooked, Ask};
use common::*;
use kernel::fault::{nth, Mode};
use ordofs_engine::engine::ops::xattr;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{crc32c, Shared};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, sleep, Scope};
use std::time::{Duration, Instant};

std::thread_local! {
    /// Reads of this thread do not complete before the gate is open.
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// Longer than anything here takes that does not hang.
const LONG: Duration = Duration::from_secs(30);
/// How long operations go on beside the commit: it has closed the barrier by then.
const WHILE: Duration = Duration::from_millis(400);

#[derive(Default)]
struct Gate {
    /// Is it open; how many wait at it.
    state: Mutex<(bool, u64)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut s = self.state.lock().unwrap();
        s.1 += 1;
        self.changed.notify_all();
        while !s.0 {
            s = self.changed.wait(s).unwrap();
        }
    }

    /// Waits until a read waits.
    fn reached(&self) {
        let mut s = self.state.lock().unwrap();
        let end = Instant::now() + LONG;
        while s.1 == 0 {
            assert!(Instant::now() < end, "nothing was read");
            s = self.changed.wait_timeout(s, LONG).unwrap().0;
        }
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }
}

struct Bed {
    disk: MemDisk,
    gate: Arc<Gate>,
    fs: Shared<Fs>,
    root: Shared<Inode>,
    /// A directory with many names, of which none is in memory.
    dir: Shared<Inode>,
    /// A file with many extents, of which none is in memory.
    file: Shared<Inode>,
}

const NAMES: u64 = 2000;

fn name(i: u64) -> String {
    format!("name{i}")
}

fn bed() -> Bed {
    // With one copy of each node: second ones would be in the other allocation group.
    let disk = make_single(1 << 16);
    {
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        let dir = fs.create(&root, b"dir", &file(S_IFDIR | 0o755)).unwrap();
        for i in 0..NAMES {
            fs.iput(fs.create(&dir, name(i).as_bytes(), &regular()).unwrap());
        }
        let f = fs.create(&root, b"file", &regular()).unwrap();
        for i in 0..NAMES {
            write(&disk.device(), &fs, &f, 2 * i, &[i]).unwrap();
        }
        for i in [dir, f, root] {
            fs.iput(i);
        }
        fs.unmount().unwrap();
    }
    let gate = Arc::new(Gate::default());
    let at = gate.clone();
    let dev = hooked(&disk, move |ask| {
        if matches!(ask, Ask::Read(_)) && HELD.get() {
            at.pass();
        }
        Ok(())
    });
    let fs = mount_on(dev);
    let root = fs.iget(fs.root_ino()).unwrap();
    let get = |name: &[u8]| {
        fs.iget(fs.lookup(&root, name).unwrap().unwrap().ino)
            .unwrap()
    };
    let (dir, file) = (get(b"dir"), get(b"file"));
    Bed {
        disk,
        gate,
        fs,
        root,
        dir,
        file,
    }
}

impl Bed {
    /// `slow` is done by a task whose reads are held, `beside` by another one while that waits; then
    /// there is a commit, and meanwhile files are created. Nothing may wait for the read but the three.
    fn run(self, slow: impl FnOnce(&Self) + Send, beside: impl FnOnce(&Self) + Send) {
        // There is something to commit.
        self.fs
            .iput(self.fs.create(&self.root, b"dirty", &regular()).unwrap());
        let b = &self;
        let done = thread::scope(|s| {
            s.spawn(move || {
                HELD.set(true);
                slow(b);
                HELD.set(false);
            });
            b.gate.reached();
            s.spawn(move || beside(b));
            // It comes to wait for a lock.
            sleep(Duration::from_millis(50));
            s.spawn(move || b.fs.sync().unwrap());
            let done = b.create(s);
            b.gate.open();
            done
        });
        let created = done.expect("a read that the device does not answer stopped an operation");
        assert!(created > 20, "only {created} files were created");
        self.end();
    }

    /// Nothing is cached any more.
    fn forget(&self) {
        // What was used lately goes the second time.
        for _ in 0..3 {
            self.fs.shrink_scan(u64::MAX);
        }
    }

    /// Creates files for a while; `None` if that hangs.
    fn create<'s>(&'s self, s: &'s Scope<'s, '_>) -> Option<u64> {
        let (tell, told) = channel();
        s.spawn(move || {
            let end = Instant::now() + WHILE;
            let mut n = 0;
            while Instant::now() < end {
                let name = format!("new{n}");
                let new = self.fs.create(&self.root, name.as_bytes(), &regular());
                self.fs.iput(new.unwrap());
                n += 1;
                sleep(Duration::from_millis(1));
            }
            let _ = tell.send(n);
        });
        told.recv_timeout(LONG).ok()
    }

    fn end(self) {
        let Self {
            disk,
            fs,
            root,
            dir,
            file,
            ..
        } = self;
        fs.sync().unwrap();
        for i in [root, dir, file] {
            fs.iput(i);
        }
        fs.unmount().unwrap();
        fsck(&disk);
    }
}

/// An operation reads inside its transaction.
#[test]
fn a_transaction_that_reads_does_not_stop_others() {
    let b = bed();
    let victim = b.fs.lookup(&b.dir, name(7).as_bytes()).unwrap().unwrap();
    let victim = b.fs.iget(victim.ino).unwrap();
    b.forget();
    b.run(
        |b| {
            b.fs.unlink(&b.dir, name(7).as_bytes(), &victim).unwrap();
            b.fs.delete_inode(victim).unwrap();
        },
        |_| (),
    );
}

/// A reader holds a lock of an inode that the commit has to take a snapshot of.
#[test]
fn a_reader_of_a_dirty_inode_does_not_stop_others() {
    let b = bed();
    let change = AttrChange {
        mode: Some(0o600),
        ..AttrChange::default()
    };
    b.fs.set_attrs(&b.file, &change).unwrap();
    b.run(
        |b| {
            b.fs.map_read(&b.file, 1000, 1).unwrap();
        },
        |_| (),
    );
}

/// An operation waits, inside its transaction, for a lock whose holder reads.
#[test]
fn a_transaction_that_waits_for_a_reader_does_not_stop_others() {
    let b = bed();
    b.fs.map_write(&b.file, 1, 1).unwrap();
    let block = data(1);
    let write =
        b.fs.start_write(&b.file, 1, &[crc32c(0, &block[..])], false);
    let write = write.unwrap();
    b.disk.device().write(&[(write.phys, &block)]).unwrap();
    b.forget();
    b.run(
        |b| {
            b.fs.map_read(&b.file, 1000, 1).unwrap();
        },
        |b| {
            b.fs.finish_write(write.ordered, 0, Ok(())).unwrap();
        },
    );
}

/// A write reads the record of an allocation group, under that group's lock.
#[test]
fn a_bitmap_that_is_read_does_not_stop_others() {
    let b = bed();
    // Its blocks are in its home, an allocation group that was not used since the mount.
    let new = file(S_IFDIR | 0o755);
    let dir = b.fs.create(&b.root, b"other", &new).unwrap();
    assert_eq!(dir.attrs().home_ag, 1);
    let new = b.fs.create(&dir, b"new", &regular()).unwrap();
    b.fs.iput(dir);
    b.fs.map_write(&new, 0, 1).unwrap();
    b.forget();
    b.run(
        |b| {
            let s = b.fs.start_write(&new, 0, &[1], false).unwrap();
            b.fs.finish_write(s.ordered, 0, Err(kernel::prelude::EIO))
                .unwrap_err();
            b.fs.iput(new);
        },
        |_| (),
    );
}

/// An operation takes the snapshot that a commit under way needs, and has no memory for it.
#[test]
fn a_snapshot_that_fails_in_an_operation_loses_nothing() {
    let b = bed();
    let change = AttrChange {
        mode: Some(0o600),
        ..AttrChange::default()
    };
    // In this order: the commit waits for the reader of the file before it comes to the directory.
    b.fs.set_attrs(&b.file, &change).unwrap();
    let value = Some(&b"value"[..]);
    b.fs.set_xattr(&b.dir, xattr::USER, b"name", value, XattrSet::Any)
        .unwrap();
    b.fs.iput(b.fs.create(&b.dir, b"before", &regular()).unwrap());
    b.forget();
    let generation = b.fs.running_generation();
    let created = thread::scope(|s| {
        s.spawn(|| {
            HELD.set(true);
            b.fs.map_read(&b.file, 1000, 1).unwrap();
            HELD.set(false);
        });
        b.gate.reached();
        s.spawn(|| b.fs.sync().unwrap());
        let end = Instant::now() + LONG;
        while b.fs.running_generation() == generation && Instant::now() < end {
            sleep(Duration::from_millis(1));
        }
        // Each allocation fails once, up to the last one. None is for reading a node, which the next
        // attempt would do without.
        assert!(b.fs.lookup(&b.dir, b"after").unwrap().is_none());
        let created = (0..10_000).find_map(|n| {
            let fail = nth(n, Mode::Once);
            let new = b.fs.create(&b.dir, b"after", &regular());
            drop(fail);
            new.ok()
        });
        b.gate.open();
        created
    });
    b.fs.iput(created.expect("it always failed"));
    b.end();
}

/// Commits get their turn, however many reads there are.
#[test]
fn a_commit_is_not_held_up_for_ever() {
    let b = bed();
    let stop = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    thread::scope(|s| {
        for t in 0..4 {
            let (b, stop, reads) = (&b, &stop, &reads);
            s.spawn(move || {
                let mut i = t;
                while !stop.load(Ordering::Relaxed) {
                    i = (i + 37) % NAMES;
                    b.fs.shrink_scan(u64::MAX);
                    b.fs.map_read(&b.file, 2 * i, 1).unwrap();
                    b.fs.lookup(&b.dir, name(i).as_bytes()).unwrap();
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while reads.load(Ordering::Relaxed) < 4 {
            thread::yield_now();
        }
        for i in 0..20 {
            let new = b.fs.create(&b.dir, format!("c{i}").as_bytes(), &regular());
            b.fs.iput(new.unwrap());
            b.fs.sync().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    b.end();
}
