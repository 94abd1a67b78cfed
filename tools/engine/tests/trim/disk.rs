// SPDX-License-Identifier: GPL-2.0

//! The disk that forgets, and what the tests share.

use crate::common::*;
use crate::counting::device;
use kernel::prelude::*;
use ordofs_engine::engine::alloc::ag::{self};
use ordofs_engine::engine::btree::*;
use ordofs_engine::engine::format::ag::AgRecord;
use ordofs_engine::engine::format::bits::Bits;
use ordofs_engine::engine::format::group::{group_len, GroupRecord};
use ordofs_engine::engine::format::Superblock;
use ordofs_engine::engine::ops::trim::TrimRange;
use ordofs_engine::engine::volume::mount::tree_of;
use ordofs_engine::engine::*;
use ordofs_engine::os::mem::MemDisk;
use ordofs_engine::os::{Backend, Device, Shared};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

pub const GIB: u64 = 1 << 18;

pub const GROUP: u64 = 8192;

/// Reads that fail: none, all, those of nodes with records of groups.
pub const NOTHING: u64 = 0;

pub const ALL_BLOCKS: u64 = 1;

pub const GROUPS: u64 = 2;

pub const ALL: TrimRange = TrimRange {
    start: 0,
    len: u64::MAX,
    min_len: 0,
};

/// Some tests give tasks a time, so one test runs at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub type Hook = Arc<dyn Fn(u64, u64) -> Result + Send + Sync>;

pub struct Inner {
    pub disk: MemDisk,
    pub unit: AtomicU64,
    /// Which reads fail.
    pub unreadable: AtomicU64,
    pub hook: Mutex<Option<Hook>>,
    /// First block, length.
    pub discards: Mutex<Vec<(u64, u64)>>,
}

/// A device that really forgets what is discarded, and notes it.
#[derive(Clone)]
pub struct Forgetful(pub Arc<Inner>);

impl Forgetful {
    pub fn new(disk: &MemDisk) -> Self {
        Self(Arc::new(Inner {
            disk: disk.clone(),
            unit: AtomicU64::new(4096),
            unreadable: AtomicU64::new(NOTHING),
            hook: Mutex::default(),
            discards: Mutex::default(),
        }))
    }

    pub fn device(&self) -> Device {
        Device::new(self.clone())
    }

    /// Calls `hook` before each discard from now on.
    pub fn before_discard(&self, hook: impl Fn(u64, u64) -> Result + Send + Sync + 'static) {
        *self.0.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    pub fn take(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.0.discards.lock().unwrap())
    }
}

impl Backend for Forgetful {
    fn blocks(&self) -> u64 {
        self.0.disk.blocks()
    }
    fn readonly(&self) -> bool {
        false
    }
    fn read(&self, block: u64, buf: &mut [u8; 4096]) -> Result {
        device(|| self.0.disk.read(block, buf))?;
        let is_group = buf.starts_with(b"ORDN") && buf[40] == TreeKind::Groups as u8;
        match self.0.unreadable.load(Ordering::Relaxed) {
            ALL_BLOCKS => Err(EIO),
            GROUPS if is_group => Err(EIO),
            _ => Ok(()),
        }
    }
    fn write(&self, block: u64, data: &[u8; 4096]) -> Result {
        device(|| self.0.disk.write(block, data))
    }
    fn flush(&self) -> Result {
        self.0.disk.flush()
    }
    fn write_fua(&self, block: u64, data: &[u8; 4096]) -> Result {
        device(|| self.0.disk.write_fua(block, data))
    }
    fn discard(&self, start: u64, len: u64) -> Result {
        let hook = self.0.hook.lock().unwrap().clone();
        hook.map_or(Ok(()), |h| h(start, len))?;
        device(|| {
            self.0.discards.lock().unwrap().push((start, len));
            self.0.disk.discard(start, len)
        })
    }
    fn discard_unit(&self) -> u64 {
        self.0.unit.load(Ordering::Relaxed)
    }
}

/// Stops other tasks when this one ends or fails.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a trim to its end, and returns how many blocks it says it has discarded.
pub fn trim(fs: &Fs, mut range: TrimRange) -> Result<u64> {
    let mut trim = fs.trim_begin(&mut range)?;
    while fs.trim_step(&mut trim, &mut || false)? {}
    Ok(trim.trimmed)
}

/// Runs in ascending order, with neighbours joined. No block is there twice.
pub fn joined(mut runs: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    runs.sort();
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (at, n) in runs {
        match all.last_mut() {
            Some((start, len)) if *start + *len == at => *len += n,
            Some((start, len)) => {
                assert!(*start + *len < at, "block {at} was discarded twice");
                all.push((at, n));
            }
            None => all.push((at, n)),
        }
    }
    all
}

pub fn sum(runs: &[(u64, u64)]) -> u64 {
    runs.iter().map(|r| r.1).sum()
}

pub fn superblock(disk: &MemDisk) -> Superblock {
    Superblock::read(&disk.device()).unwrap_or_else(|r| panic!("{}", r.reason))
}

/// The runs of each group that are free by the records on disk and have `least` blocks.
pub fn free_on_disk(disk: &MemDisk, least: u64) -> Vec<(u64, u64)> {
    let sb = superblock(disk);
    let dev = Shared::new(disk.device()).unwrap();
    let store = NodeStore::new(dev, sb.node_id, 64).unwrap();
    let mut runs = Vec::new();
    let ags = tree_of(TreeId::new(TreeKind::Ag, 0), sb.ag_root);
    let mut each = |i: u64, record: &[u8]| -> Result {
        let len = sb.ag_len(i as u32);
        let record = AgRecord::decode(i, len, record)?;
        let mut groups = BTreeMap::new();
        ag::Ag::tree_of(i, &record.groups)?.walk(&store, &mut |item| {
            let WalkItem::Item(g, v) = item else {
                return Ok(());
            };
            let group = GroupRecord::parse(len, g, v).unwrap();
            for g in g..g + u64::from(group.groups()) {
                let mut used = Bits::zeroed()?;
                group.load(group_len(len, g), &mut used);
                groups.insert(g, used);
            }
            Ok(())
        })?;
        for g in 0..len.div_ceil(GROUP) {
            let n = group_len(len, g);
            let none = Bits::zeroed()?;
            let used = groups.get(&g).unwrap_or(&none);
            let mut at = used.next_clear(0, n);
            while at < n {
                let end = used.next_set(at, n);
                if u64::from(end - at) >= least {
                    let start = i * u64::from(sb.ag_blocks) + g * GROUP + u64::from(at);
                    runs.push((start, (end - at).into()));
                }
                at = used.next_clear(end, n);
            }
        }
        Ok(())
    };
    ags.walk(&store, &mut |item| match item {
        WalkItem::Item(i, v) => each(i, v),
        _ => Ok(()),
    })
    .unwrap();
    runs
}

/// Formats and mounts a device that forgets.
pub fn fresh(blocks: u64) -> (Forgetful, Shared<Fs>) {
    let disk = device(|| MemDisk::new(blocks));
    let forgetful = Forgetful::new(&disk);
    format_on(forgetful.device());
    let fs = mount_on(forgetful.device());
    (forgetful, fs)
}

/// Removes a file that no other task has open.
pub fn remove(fs: &Fs, dir: &Shared<Inode>, name: &str, f: Shared<Inode>) {
    fs.unlink(dir, name.as_bytes(), &f).unwrap();
    fs.delete_inode(f).unwrap();
}

/// Writes files of these lengths, and removes every second one.
pub fn mixed(dev: &Device, fs: &Fs, lengths: impl Iterator<Item = u64>) {
    let root = fs.iget(fs.root_ino()).unwrap();
    let mut files = Vec::new();
    for (i, len) in lengths.enumerate() {
        let name = format!("{i}");
        let f = fs.create(&root, name.as_bytes(), &regular()).unwrap();
        let seeds: Vec<u64> = (0..len).map(|b| i as u64 * 10_000 + b).collect();
        write(dev, fs, &f, 0, &seeds).unwrap();
        files.push((name, f));
    }
    for (i, (name, f)) in files.into_iter().enumerate() {
        match i % 2 {
            0 => remove(fs, &root, &name, f),
            _ => fs.iput(f),
        }
    }
    fs.iput(root);
}

/// Writes to a new file, block by block, until there is no space; returns how many blocks it got.
pub fn fill(dev: &Device, fs: &Fs) -> u64 {
    let root = fs.iget(fs.root_ino()).unwrap();
    let f = fs.create(&root, b"filler", &regular()).unwrap();
    let mut n = 0;
    loop {
        match write(dev, fs, &f, n, &[n]) {
            Ok(()) => n += 1,
            Err(e) => {
                assert_eq!(e, ENOSPC);
                break;
            }
        }
    }
    fs.iput(f);
    fs.iput(root);
    n
}
