// SPDX-License-Identifier: GPL-2.0

//! A disk with everything on it that can fail, and what the tests share.

use crate::common::*;
use kernel::prelude::{Result, EIO};
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::ops::scrub::{From, Go};
use ordofs_engine::engine::state::scrub::{Damage, ScrubStatus};
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Backend, Device, Shared};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::vec::Vec;

/// What a device does wrong.
#[derive(Default)]
pub struct Faults {
    /// Blocks that cannot be read until they are written.
    pub unreadable: BTreeSet<u64>,
    /// Blocks that cannot be written.
    pub stuck: BTreeSet<u64>,
    /// The reads and the writes of each block.
    pub reads: BTreeMap<u64, u32>,
    pub writes: BTreeMap<u64, u32>,
    /// Blocks of which a read does not end, and how many such reads there were.
    pub held: BTreeSet<u64>,
    pub waiting: u32,
    /// What had been written at each flush.
    pub at_flush: Vec<BTreeSet<u64>>,
}

pub struct Faulty(pub MemDisk, pub Arc<Mutex<Faults>>);

impl Backend for Faulty {
    fn blocks(&self) -> u64 {
        self.0.blocks()
    }
    fn readonly(&self) -> bool {
        false
    }
    fn read(&self, block: u64, buf: &mut [u8; 4096]) -> Result {
        *self.1.lock().unwrap().reads.entry(block).or_default() += 1;
        if self.1.lock().unwrap().held.contains(&block) {
            self.1.lock().unwrap().waiting += 1;
            while self.1.lock().unwrap().held.contains(&block) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if self.1.lock().unwrap().unreadable.contains(&block) {
            return Err(EIO);
        }
        self.0.read(block, buf)
    }
    fn write(&self, block: u64, data: &[u8; 4096]) -> Result {
        let mut f = self.1.lock().unwrap();
        *f.writes.entry(block).or_default() += 1;
        if f.stuck.contains(&block) {
            return Err(EIO);
        }
        f.unreadable.remove(&block);
        drop(f);
        self.0.write(block, data)
    }
    fn flush(&self) -> Result {
        let mut f = self.1.lock().unwrap();
        let written = f.writes.keys().copied().collect();
        f.at_flush.push(written);
        self.0.flush()
    }
    fn write_fua(&self, block: u64, data: &[u8; 4096]) -> Result {
        self.0.write_fua(block, data)
    }
    fn discard(&self, start: u64, len: u64) -> Result {
        self.0.discard(start, len)
    }
}

pub fn faulty(disk: &MemDisk) -> (Device, Arc<Mutex<Faults>>) {
    let faults = Arc::<Mutex<Faults>>::default();
    (Device::new(Faulty(disk.clone(), faults.clone())), faults)
}

/// A small device with a tree of each kind that is on nodes. The inode tree, an extent tree, a directory
/// and a tree of groups have several levels or leaves.
pub fn furnished() -> MemDisk {
    let disk = make(1 << 17);
    let fs = mount(&disk);
    let dev = disk.device();
    let root = fs.iget(fs.root_ino()).unwrap();
    let dir = fs.create(&root, b"dir", &file(S_IFDIR | 0o755)).unwrap();
    for n in 0..100u64 {
        let name = format!("a file with a rather long name, number {n}");
        let f = fs.create(&dir, name.as_bytes(), &regular()).unwrap();
        if n < 3 {
            (0..400).for_each(|i| write(&dev, &fs, &f, i * 5, &[n * 1000 + i]).unwrap());
            for x in 0..4u8 {
                let (name, value) = ([b'x', b'a' + x], [x; 900]);
                fs.set_xattr(&f, 1, &name, Some(&value), XattrSet::Any)
                    .unwrap();
            }
        }
        fs.iput(f);
    }
    // Groups with bitmaps.
    let f = fs.create(&root, b"holes", &regular()).unwrap();
    fs.preallocate(&f, 0, 5 * 8192, None).unwrap();
    for g in 0..5 {
        (0..70).for_each(|i| fs.punch(&f, g * 8192 + 2 * i, 1).unwrap());
    }
    fs.iput(f);
    fs.iput(dir);
    // An orphan.
    let gone = fs.create(&root, b"gone", &regular()).unwrap();
    fs.sync().unwrap();
    fs.unlink(&root, b"gone", &gone).unwrap();
    fs.sync().unwrap();
    let crashed = disk.fork();
    fs.abort("the power is cut");
    crashed
}

/// Everything that is to be found on it.
pub type Content = BTreeMap<u64, Found>;

/// Reads everything through the mount. Returns the inodes of which something cannot be read; what can be
/// read must be right.
pub fn unreadable(fs: &Shared<Fs>, dev: &Device, all: &Content) -> BTreeSet<u64> {
    let mut bad = BTreeSet::new();
    for (ino, found) in all.iter().filter(|(_, f)| !f.orphan) {
        let Ok(inode) = fs.iget(*ino) else {
            bad.insert(*ino);
            continue;
        };
        let names = found.names.iter().all(|(name, to)| {
            fs.lookup(&inode, name)
                .is_ok_and(|e| e.is_some_and(|e| e.ino == *to))
        });
        let blocks = found.blocks.iter().all(|(b, seed)| {
            let r = read(dev, fs, &inode, *b);
            assert!(r.is_err() || r == Ok(Some(*seed)), "inode {ino} block {b}");
            r.is_ok()
        });
        // The records of preallocated blocks.
        let mut at = 0;
        let end = found.size / 4096 + 50_000;
        let mut extents = true;
        while at < end && extents {
            match fs.map_read(&inode, at, end - at) {
                Ok(m) => at += m.len,
                Err(_) => extents = false,
            }
        }
        let mut values = Vec::new();
        let listed = fs.list_xattr(&inode, &mut |index, name, len| {
            values.push((index, name.to_vec(), len));
            Ok(())
        });
        let values = listed.is_ok()
            && values.iter().all(|(index, name, len)| {
                let mut out = vec![0; *len];
                fs.get_xattr(&inode, *index, name, &mut out) == Ok(Some(*len))
            });
        if !(names && blocks && extents && values) {
            bad.insert(*ino);
        }
        fs.iput(inode);
    }
    bad
}

pub fn scrub(fs: &Fs) -> (ScrubStatus, Vec<Damage>) {
    let s = fs.scrub_start(From::Start, 0).unwrap();
    fs.scrub_run(s, &mut || Go::On);
    let mut list = Vec::new();
    fs.scrub_damage(0, &mut |d| {
        list.push(*d);
        true
    });
    (fs.scrub_status(), list)
}

pub fn copies(sb: &Superblock) -> u64 {
    sb.copies.into()
}

pub fn superblock(disk: &MemDisk) -> Superblock {
    Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason))
}

pub fn problems(disk: &MemDisk) -> Vec<String> {
    let report = ordofs_fsck::check(disk.device(), ordofs_fsck::Options { data: false });
    let report = report.unwrap_or_else(|e| panic!("{}", e.reason));
    report.problems.iter().map(|p| p.to_string()).collect()
}

/// A remount without writes: the orphan is gone, and the filesystem clean.
pub fn settled(disk: &MemDisk) -> MemDisk {
    let disk = disk.fork();
    mount(&disk).unmount().unwrap();
    disk
}

/// How a copy is damaged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    Flip,
    Lost,
    /// The content of another node.
    Misplaced,
    Unreadable,
}

pub fn harm(disk: &MemDisk, faults: &Mutex<Faults>, at: u64, other: u64, how: How) {
    match how {
        How::Flip => disk.corrupt(at, (at * 7 % 4096) as usize, 1 << (at % 8)),
        How::Lost => disk
            .device()
            .write(&[(at, &kernel_block(&[0; 4096]))])
            .unwrap(),
        How::Misplaced => {
            let image = disk.image();
            let block = kernel_block(&image[&other]);
            disk.device().write(&[(at, &block)]).unwrap();
        }
        How::Unreadable => {
            faults.lock().unwrap().unreadable.insert(at);
        }
    }
}

pub fn kernel_block(data: &[u8; 4096]) -> ordofs_engine::os::Block {
    let mut b = ordofs_engine::os::Block::zeroed().unwrap();
    b.copy_from_slice(data);
    b
}
