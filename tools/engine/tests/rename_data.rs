// SPDX-License-Identifier: GPL-2.0

//! A file that is renamed over another one brings its data along (docs/GUARANTEES.md, 4), and the rename
//! does not wait for it: the call that makes the rename durable does.

mod common;

use common::*;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::record::Recorder;
use ordofs_engine::os::Shared;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

const BLOCKS: u64 = 4;
const OLD: u64 = 100;
const NEW: u64 = 200;
/// Longer than anything here takes that does not hang.
const LONG: Duration = Duration::from_secs(30);

/// "new" is written, with its I/O in flight, and renamed over "old".
struct Bed {
    rec: Recorder,
    fs: Shared<Fs>,
    root: Shared<Inode>,
    new: Shared<Inode>,
    flights: Vec<Started>,
}

/// "new" over "old".
fn over<'a>(root: &'a Shared<Inode>, new: &'a Shared<Inode>, old: &'a Shared<Inode>) -> Rename<'a> {
    Rename {
        old_dir: root,
        old_name: b"new",
        inode: new,
        new_dir: root,
        new_name: b"old",
        target: Some(old),
        flags: RenameFlags::default(),
        whiteout: None,
    }
}

/// Renames "new" over "old" in a thread of its own, and waits until that returns.
fn rename_over(fs: &Shared<Fs>, root: &Shared<Inode>, new: &Shared<Inode>, old: &Shared<Inode>) {
    let (tell, told) = channel();
    let (fs, root, new, old) = (fs.clone(), root.clone(), new.clone(), old.clone());
    thread::spawn(move || {
        let r = fs.rename(&over(&root, &new, &old));
        let _ = tell.send(r);
    });
    told.recv_timeout(LONG)
        .expect("the rename waits for data in flight")
        .unwrap();
}

fn bed() -> Bed {
    let rec = Recorder::new(make(1 << 14));
    let fs = mount_on(rec.device());
    let root = fs.iget(fs.root_ino()).unwrap();
    let old = fs.create(&root, b"old", &regular()).unwrap();
    let seeds: Vec<u64> = (0..BLOCKS).map(|i| OLD + i).collect();
    write(&rec.device(), &fs, &old, 0, &seeds).unwrap();
    let new = fs.create(&root, b"new", &regular()).unwrap();
    fs.sync().unwrap();
    dirty(&fs, &new, 0, BLOCKS).unwrap();
    let crcs: Vec<u32> = (0..BLOCKS)
        .map(|i| ordofs_engine::os::crc32c(0, &data(NEW + i)[..]))
        .collect();
    let mut flights = Vec::new();
    let mut at = 0;
    while at < BLOCKS {
        let s = fs
            .start_write(&new, at, &crcs[at as usize..], false)
            .unwrap();
        at += s.len;
        flights.push(s);
    }
    // The rename must return while the data is in flight.
    rename_over(&fs, &root, &new, &old);
    fs.delete_inode(old).unwrap();
    Bed {
        rec,
        fs,
        root,
        new,
        flights,
    }
}

/// The file "old" after a crash: the seeds of its blocks, less those of the first.
fn found(disk: &MemDisk) -> u64 {
    let fs = mount(disk);
    let root = fs.iget(fs.root_ino()).unwrap();
    let e = fs
        .lookup(&root, b"old")
        .unwrap()
        .expect("neither file is there");
    let f = fs.iget(e.ino).unwrap();
    assert_eq!(f.attrs().size, block_to_bytes(BLOCKS), "the file is short");
    let seeds: Vec<u64> = (0..BLOCKS)
        .map(|i| read(&disk.device(), &fs, &f, i).unwrap().expect("a hole") - i)
        .collect();
    assert!(seeds.iter().all(|s| *s == seeds[0]), "{seeds:?}");
    fs.iput(f);
    fs.iput(root);
    fs.unmount().unwrap();
    fsck(disk);
    seeds[0]
}

impl Bed {
    fn land(&mut self) {
        let mut at = 0;
        for s in std::mem::take(&mut self.flights) {
            for k in 0..s.len {
                let block = data(NEW + at + k);
                self.rec.device().write(&[(s.phys + k, &block)]).unwrap();
            }
            at += s.len;
            self.fs
                .finish_write(s.ordered, block_to_bytes(at), Ok(()))
                .unwrap();
        }
    }

    /// `durable` must not return before the data is there. Wherever the power goes, there is the old
    /// file or the new one; afterwards it is the new one.
    fn check(mut self, durable: impl FnOnce(&Fs, &Shared<Inode>) + Send + 'static) {
        let before = self.rec.len();
        let (tell, told) = channel();
        let (fs, root) = (self.fs.clone(), self.root.clone());
        let waits = thread::spawn(move || {
            durable(&fs, &root);
            drop((fs, root));
            let _ = tell.send(());
        });
        assert!(
            told.recv_timeout(Duration::from_millis(300)).is_err(),
            "a rename was made durable without its data"
        );
        self.land();
        told.recv_timeout(LONG).expect("it does not come back");
        waits.join().unwrap();
        for n in before..=self.rec.len() {
            for arrive in [false, true] {
                let seed = found(&self.rec.crash_image(n, |_| arrive));
                assert!(seed == OLD || seed == NEW, "{seed}");
                assert!(n < self.rec.len() || seed == NEW, "acknowledged and lost");
            }
        }
        self.fs.iput(self.new);
    }
}

#[test]
fn an_fsync_of_another_file_waits_for_the_data() {
    bed().check(|fs, root| {
        let other = fs.create(root, b"other", &regular()).unwrap();
        fs.sync_inode(&other).unwrap();
        fs.iput(other);
    });
}

#[test]
fn an_fsync_of_the_directory_waits_for_the_data() {
    bed().check(|fs, root| fs.sync_inode(root).unwrap());
}

#[test]
fn a_commit_waits_for_the_data() {
    bed().check(|fs, _| fs.sync().unwrap());
}

/// The barrier is open meanwhile.
#[test]
fn other_operations_do_not_wait_for_the_data() {
    let mut b = bed();
    let fs = b.fs.clone();
    let commit = thread::spawn(move || fs.sync().unwrap());
    for i in 0..100 {
        let new = b.fs.create(&b.root, format!("n{i}").as_bytes(), &regular());
        b.fs.iput(new.unwrap());
        thread::sleep(Duration::from_millis(1));
    }
    b.land();
    commit.join().unwrap();
    assert_eq!(found(&b.rec.crash_image(b.rec.len(), |_| false)), NEW);
}

/// A write that fails is for fsync to report; nothing waits for it any longer.
#[test]
fn data_that_cannot_be_written_is_waited_for_no_longer() {
    let mut b = bed();
    for s in std::mem::take(&mut b.flights) {
        b.fs.finish_write(s.ordered, 0, Err(kernel::prelude::EIO))
            .unwrap_err();
    }
    b.fs.sync_inode(&b.root).unwrap();
    b.fs.sync().unwrap();
}

/// While something waits for data, renames go on, and it does come to an end.
#[test]
fn renames_without_end_do_not_put_off_a_commit() {
    let rec = Recorder::new(make(1 << 14));
    let fs = mount_on(rec.device());
    let root = fs.iget(fs.root_ino()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| {
            let mut old = fs.create(&root, b"old", &regular()).unwrap();
            let mut n = 0u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                let new = fs.create(&root, b"new", &regular()).unwrap();
                dirty(&fs, &new, 0, 1).unwrap();
                let w = fs.start_write(&new, 0, &[n], false).unwrap();
                // Another task's completion.
                let end = fs.clone();
                let io = thread::spawn(move || {
                    thread::sleep(Duration::from_millis(2));
                    end.finish_write(w.ordered, 4096, Ok(())).unwrap();
                });
                fs.rename(&over(&root, &new, &old)).unwrap();
                io.join().unwrap();
                let gone = std::mem::replace(&mut old, new);
                fs.delete_inode(gone).unwrap();
            }
            fs.iput(old);
        });
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(3));
            fs.sync().unwrap();
            fs.sync_inode(&root).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// A completion cannot wait for data that a rename owes. It commits, if it has to, as soon as the data is
/// there, whether or not another task has come to pay.
#[test]
fn a_completion_commits_when_the_data_has_arrived() {
    /// More nodes than a transaction may promise before the next one commits.
    const MANY: u64 = 20_000;
    let mut b = bed();
    let before = b.fs.durable_generation();
    let promise = |fs: &Fs| fs.begin_forced(MANY).unwrap().charge(MANY);
    promise(&b.fs);
    drop(b.fs.begin_forced(1).unwrap());
    assert_eq!(
        b.fs.durable_generation(),
        before,
        "committed without the data"
    );
    b.land();
    drop(b.fs.begin_forced(1).unwrap());
    assert!(b.fs.durable_generation() > before, "no completion commits");
    assert_eq!(found(&b.rec.crash_image(b.rec.len(), |_| false)), NEW);
}

/// The first change after a clean unmount is a rename over a file, with the data in flight. The commit that
/// takes the mark of the unmount back must not wait for that data, whose completion waits for the commit.
#[test]
fn a_rename_may_be_the_first_change_of_a_mount() {
    let rec = Recorder::new(make(1 << 14));
    let fs = mount_on(rec.device());
    let root = fs.iget(fs.root_ino()).unwrap();
    for name in [b"old", b"new"] {
        let f = fs.create(&root, name, &regular()).unwrap();
        write(&rec.device(), &fs, &f, 0, &[OLD]).unwrap();
        fs.iput(f);
    }
    fs.iput(root);
    fs.unmount().unwrap();
    drop(fs);
    let fs = mount_on(rec.device());
    let root = fs.iget(fs.root_ino()).unwrap();
    let find = |name| {
        fs.iget(fs.lookup(&root, name).unwrap().unwrap().ino)
            .unwrap()
    };
    let (old, new) = (find(b"old"), find(b"new"));
    dirty(&fs, &new, 0, 1).unwrap();
    let block = data(NEW);
    let s = fs
        .start_write(&new, 0, &[ordofs_engine::os::crc32c(0, &block[..])], false)
        .unwrap();
    rename_over(&fs, &root, &new, &old);
    fs.delete_inode(old).unwrap();
    rec.device().write(&[(s.phys, &block)]).unwrap();
    fs.finish_write(s.ordered, BLOCK_SIZE as u64, Ok(()))
        .unwrap();
    fs.sync_inode(&new).unwrap();
}
