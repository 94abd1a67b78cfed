// SPDX-License-Identifier: GPL-2.0

//! Records of the log that are lost for want of memory while a commit is under way: whatever generation
//! they are of, no fsync is acknowledged that would have needed them.

mod common;

use common::hooked::{hooked, Ask};
use common::{file, make, mount, mount_on, regular, write};
use kernel::fault::{self, Mode};
use kernel::prelude::Result;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Device, Shared};
use std::sync::{mpsc, Arc, Mutex, OnceLock};
use std::time::Duration;

type Hook = Box<dyn FnOnce() + Send>;

/// What a device does before the next write: when a commit writes, its transaction is frozen and the
/// next one runs. The commit's mutex is held then, so nothing in it may need another commit.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<Option<Hook>>>);

impl Gate {
    fn before_the_next_write(&self, f: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(f));
    }

    fn on(&self, disk: &MemDisk) -> Device {
        let gate = self.clone();
        hooked(disk, move |ask| {
            let hook = match ask {
                Ask::Read(_) => None,
                Ask::Write | Ask::Fua => gate.0.lock().unwrap().take(),
            };
            if let Some(f) = hook {
                f();
            }
            Ok(())
        })
    }
}

/// The outcome of an operation whose n-th allocation failed.
struct Outcome {
    fired: bool,
    done: bool,
}

struct Bed {
    disk: MemDisk,
    gate: Gate,
    fs: Shared<Fs>,
    root: Shared<Inode>,
    /// Its data was completed in the running transaction, and no fsync has recorded it.
    f: Shared<Inode>,
}

const BLOCKS: u64 = 2000;

fn bed() -> Bed {
    // The same for all: an operation makes as many allocations in each.
    static DISK: OnceLock<MemDisk> = OnceLock::new();
    let disk = DISK.get_or_init(|| make(8192)).fork();
    let gate = Gate::default();
    let fs = mount_on(gate.on(&disk));
    let root = fs.iget(fs.root_ino()).expect("root");
    let f = fs.create(&root, b"f", &regular()).expect("create");
    fs.sync().expect("sync");
    let seeds: Vec<u64> = (0..BLOCKS).collect();
    write(&disk.device(), &fs, &f, 0, &seeds).expect("write");
    Bed {
        disk,
        gate,
        fs,
        root,
        f,
    }
}

impl Bed {
    /// Commits, and does `f` when the transaction is frozen.
    fn commit_and<R: Send + 'static>(
        &self,
        f: impl FnOnce(&Fs, &Shared<Inode>, &Shared<Inode>) -> R + Send + 'static,
    ) -> R {
        let (fs, root, file) = (self.fs.clone(), self.root.clone(), self.f.clone());
        let out = Arc::new(Mutex::new(None));
        let put = out.clone();
        self.gate.before_the_next_write(move || {
            *put.lock().unwrap() = Some(f(&fs, &root, &file));
        });
        let durable = self.fs.durable_generation();
        self.fs.sync().expect("commit");
        assert_eq!(self.fs.durable_generation(), durable + 1);
        let out = out.lock().unwrap().take();
        out.expect("the commit wrote something")
    }

    /// fsync of the root directory, then a power cut. Returns which names are there, and whether it was a commit.
    fn after_fsync(&self, names: &[&[u8]]) -> (Vec<bool>, bool) {
        let durable = self.fs.durable_generation();
        self.fs.sync_inode(&self.root).expect("fsync");
        let commit = self.fs.durable_generation() > durable;
        let fs = mount(&self.disk.fork());
        let root = fs.iget(fs.root_ino()).expect("root");
        let there = |n: &&[u8]| fs.lookup(&root, n).expect("lookup").is_some();
        (names.iter().map(there).collect(), commit)
    }
}

fn failing<R>(n: u64, f: impl FnOnce() -> Result<R>) -> Outcome {
    let fail = fault::nth(n, Mode::Once);
    let done = f().is_ok();
    let fired = fail.fired();
    drop(fail);
    Outcome { fired, done }
}

/// What the transaction being committed wrote is recorded late, when a record of the next one waits
/// already. If there is no memory for the late one, both are lost: the commit makes up only for the one.
#[test]
fn a_late_record_that_is_lost_takes_newer_ones_along() {
    let mut commits = 0;
    for n in 0.. {
        let b = bed();
        let out = b.commit_and(move |fs, root, f| {
            let newer = fs.create(root, b"newer", &regular()).expect("create");
            fs.iput(newer);
            // To a size inside of a block: what the file has is recorded before.
            failing(n, || fs.set_size(f, BLOCKS * 4096 - 100))
        });
        let (there, commit) = b.after_fsync(&[b"newer"]);
        assert_eq!(there, [true], "allocation {n}");
        if !out.fired {
            // The way without a commit is there, too, or this would prove nothing.
            assert!(out.done && !commit);
            assert!(commits > 3, "{commits} times records were lost");
            return;
        }
        commits += u64::from(commit);
    }
}

/// A record that is lost is not durable when the transaction before its own is.
#[test]
fn the_commit_of_an_older_transaction_brings_no_lost_record_back() {
    let mut lost = 0;
    for n in 0.. {
        let b = bed();
        let out = b.commit_and(move |fs, root, _| {
            let one = fs.create(root, b"one", &regular()).expect("create");
            fs.iput(one);
            let target = [b't'; SYMLINK_MAX];
            let two = NewInode {
                symlink: Some(&target),
                ..file(S_IFLNK | 0o777)
            };
            let out = failing(n, || fs.create(root, b"two", &two).map(|i| fs.iput(i)));
            let three = fs.create(root, b"three", &regular()).expect("create");
            fs.iput(three);
            out
        });
        let (there, commit) = b.after_fsync(&[b"one", b"two", b"three"]);
        assert_eq!(there, [true, out.done, true], "allocation {n}");
        if !out.fired {
            assert!(out.done && !commit);
            assert!(lost > 0, "no record was ever lost");
            return;
        }
        lost += u64::from(out.done && commit);
    }
}

/// The records that a commit makes superfluous may be in a batch by then: those that came after stay.
#[test]
fn records_behind_a_batch_survive_the_commit_that_it_met() {
    let b = bed();
    let before = b.fs.create(&b.root, b"before", &regular()).expect("create");
    b.fs.iput(before);
    b.commit_and(|fs, root, _| {
        fs.sync_inode(root).expect("fsync");
        for name in [&b"one"[..], b"two", b"three"] {
            let i = fs.create(root, name, &regular()).expect("create");
            fs.iput(i);
        }
    });
    let (there, commit) = b.after_fsync(&[b"before", b"one", b"two", b"three"]);
    assert_eq!(there, [true; 4]);
    assert!(!commit);
}

/// A batch that does not fit into the log is lost, and its fsync commits. Another fsync, whose own batch
/// would fit, must not be acknowledged before that commit is durable.
#[test]
fn an_fsync_beside_one_that_has_to_commit_waits_for_it() {
    let b = bed();
    let target = [b't'; SYMLINK_MAX];
    let link = NewInode {
        symlink: Some(&target),
        ..file(S_IFLNK | 0o777)
    };
    // The log has 256 blocks.
    for i in 0..300 {
        let name = format!("link {i}");
        let i = b.fs.create(&b.root, name.as_bytes(), &link);
        b.fs.iput(i.expect("create"));
    }
    let (fs, root, disk) = (b.fs.clone(), b.root.clone(), b.disk.clone());
    let (say, hear) = mpsc::channel();
    let early = Arc::new(Mutex::new(None));
    let put = early.clone();
    b.gate.before_the_next_write(move || {
        std::thread::spawn(move || {
            let _ = say.send(fs.sync_inode(&root));
        });
        if let Ok(r) = hear.recv_timeout(Duration::from_millis(500)) {
            r.expect("fsync");
            *put.lock().unwrap() = Some(disk.fork());
        }
    });
    let durable = b.fs.durable_generation();
    b.fs.sync_inode(&b.f).expect("fsync");
    assert_eq!(b.fs.durable_generation(), durable + 1, "it did fit");
    let early = early.lock().unwrap().take();
    if let Some(disk) = early {
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).expect("root");
        let there = fs.lookup(&root, b"link 7").expect("lookup").is_some();
        assert!(there, "acknowledged and lost");
    }
}
