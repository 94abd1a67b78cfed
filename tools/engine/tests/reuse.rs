// SPDX-License-Identifier: GPL-2.0

//! Commits write where they wrote before: on a device that costs nothing where it was never written
//! (a file with holes, a thin volume), many small commits take little of it.

mod common;

use common::*;
use fastrand::Rng;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::Shared;

const COMMITS: u64 = 20_000;
/// 8 GiB.
const BLOCKS: u64 = 2 << 20;
/// What the commits may touch: 64 MiB.
const MOST: usize = 64 << 8;

struct Case {
    disk: MemDisk,
    fs: Shared<Fs>,
    root: Shared<Inode>,
}

impl Case {
    fn new(copies: u8) -> Self {
        let disk = MemDisk::new(BLOCKS);
        format_with(disk.device(), copies);
        let fs = mount(&disk);
        let root = fs.iget(fs.root_ino()).unwrap();
        Self { disk, fs, root }
    }

    fn file(&self) -> Shared<Inode> {
        self.fs.create(&self.root, b"f", &regular()).unwrap()
    }

    /// How many blocks of the device were ever written.
    fn touched(&self) -> usize {
        self.disk.image().len()
    }

    /// Commits after each step; at the end all is as it should be, and `own` more blocks than the
    /// limit may have been written.
    fn run(self, what: &str, own: usize, step: impl Fn(&Self, u64)) {
        let before = self.touched();
        for i in 0..COMMITS {
            step(&self, i);
            self.fs.commit_all().unwrap();
        }
        let touched = self.touched() - before;
        println!("{what}: {touched} blocks, {} MiB", touched >> 8);
        self.fs.iput(self.root);
        self.fs.unmount().unwrap();
        fsck(&self.disk);
        assert!(touched <= MOST + own, "{what}: {touched} blocks");
    }
}

#[test]
fn commits_of_new_files_use_old_blocks() {
    for copies in [1, 2] {
        Case::new(copies).run(&format!("create, {copies} copies"), 0, |c, i| {
            let name = i.to_string();
            c.fs.iput(c.fs.create(&c.root, name.as_bytes(), &regular()).unwrap());
        });
    }
}

#[test]
fn commits_of_overwrites_use_old_blocks() {
    for copies in [1, 2] {
        let c = Case::new(copies);
        let f = c.file();
        let n = 4096;
        write(&c.disk.device(), &c.fs, &f, 0, &vec![1; n as usize]).unwrap();
        c.fs.sync().unwrap();
        c.fs.iput(f);
        let what = format!("overwrite, {copies} copies");
        c.run(&what, 0, |c, i| {
            let f = c.fs.iget(c.fs.lookup(&c.root, b"f").unwrap().unwrap().ino);
            let f = f.unwrap();
            let at = Rng::with_seed(i).u64(..n);
            write(&c.disk.device(), &c.fs, &f, at, &[i]).unwrap();
            c.fs.iput(f);
        });
    }
}

/// The file itself counts apart.
#[test]
fn commits_of_appends_use_old_blocks() {
    for copies in [1, 2] {
        let c = Case::new(copies);
        c.fs.iput(c.file());
        let what = format!("append, {copies} copies");
        c.run(&what, COMMITS as usize, |c, i| {
            let f = c.fs.iget(c.fs.lookup(&c.root, b"f").unwrap().unwrap().ino);
            let f = f.unwrap();
            write(&c.disk.device(), &c.fs, &f, i, &[i]).unwrap();
            c.fs.iput(f);
        });
    }
}
