// SPDX-License-Identifier: GPL-2.0

//! Does each operation to an engine and to the model, and compares them.
//!
//! It stands in for the glue: it has a page cache of tags, writes dirty pages back by
//! `start_write`/`finish_write`, keeps open inodes, and deletes inodes without names when they are
//! closed. Everything runs on one thread.

mod attrs;
mod data;
mod names;
mod verify;

pub use verify::verify;

use super::content::{name_of, pick};
use super::model::{Model, Node};
use super::ops::Op;
use kernel::prelude::*;
use ordofs_engine::engine::volume::mkfs::{format, FormatOptions};
use ordofs_engine::engine::*;
use ordofs_engine::os::{Device, Shared};
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::vec::Vec as StdVec;

const S_IFIFO: u32 = 0o010000;
const S_IFCHR: u32 = 0o020000;

/// Dirty pages of a file and its size as the VFS sees it. Holds the inode: the VFS evicts none that
/// has dirty pages.
struct Cache {
    inode: Shared<Inode>,
    size: u64,
    dirty: BTreeMap<u64, u64>,
}

/// The engine, the model and the page cache.
pub struct Driver {
    make: std::boxed::Box<dyn Fn() -> Device>,
    fs: Option<Shared<Fs>>,
    pub model: Model,
    /// What the last commit made durable.
    pub durable: Model,
    /// The model at each generation that is known.
    pub history: BTreeMap<u64, Model>,
    cache: BTreeMap<u64, Cache>,
    open: BTreeMap<u64, Shared<Inode>>,
    tag: u64,
    seen: u64,
    /// Operations that ended with ENOSPC.
    pub nospace: u64,
    /// Files with data that was written after the last commit and not fsynced: a power cut may take it.
    fuzzy: BTreeSet<u64>,
    /// What the log made durable since the last commit: the model at the last fsync, and its `fuzzy`.
    logged: Option<(Model, BTreeSet<u64>)>,
    /// Files as the log may have recorded them since the last commit.
    fsynced: BTreeMap<u64, StdVec<Node>>,
}

pub fn mkfs(dev: Device) {
    let o = FormatOptions {
        uuid: *b"0123456789abcdef",
        label: [0; 64],
        blocks: 0,
        root_owner: (0, 0),
        copies: 0,
    };
    format(dev, &o).expect("mkfs");
}

pub fn clean(dev: Device, data: bool, place: &str) {
    let report = ordofs_fsck::check(dev, ordofs_fsck::Options { data }).expect("superblock");
    let list: StdVec<String> = report
        .problems
        .iter()
        .map(|p| std::format!("{p}"))
        .collect();
    assert!(report.is_clean(), "fsck {place}:\n{}", list.join("\n"));
}

impl Driver {
    /// Makes a filesystem and mounts it. `make` gives the device, each time with the present content.
    pub fn new(make: impl Fn() -> Device + 'static) -> Self {
        mkfs(make());
        clean(make(), true, "after mkfs");
        let mut d = Self {
            make: std::boxed::Box::new(make),
            fs: None,
            model: Model::new(2),
            durable: Model::new(2),
            history: BTreeMap::new(),
            cache: BTreeMap::new(),
            open: BTreeMap::new(),
            tag: 0,
            seen: 0,
            nospace: 0,
            fuzzy: BTreeSet::new(),
            logged: None,
            fsynced: BTreeMap::new(),
        };
        d.mount();
        d.snapshot();
        d
    }

    fn fs(&self) -> Shared<Fs> {
        self.fs.as_ref().expect("mounted").clone()
    }

    fn mount(&mut self) {
        let fs = Fs::mount((self.make)(), MountOptions::default()).expect("mount");
        self.seen = fs.durable_generation();
        self.fs = Some(fs);
    }

    fn snapshot(&mut self) {
        self.durable = self.model.clone();
        self.seen = self.fs().durable_generation();
        self.history.insert(self.seen, self.durable.clone());
        self.fuzzy.clear();
        self.logged = None;
        self.fsynced.clear();
    }

    /// Everything is durable afterwards.
    pub fn sync(&mut self) {
        self.fs().sync().expect("sync");
        self.snapshot();
    }

    /// Does an operation; a commit that it caused on the way is followed by a complete one, so that
    /// what is durable is known.
    pub fn step(&mut self, op: &Op) {
        self.apply(op);
        for c in self.cache.values() {
            let ino = c.inode.ino();
            let want = verify::count_blocks(&self.fs(), &c.inode);
            assert_eq!(c.inode.blocks(), want, "blocks of inode {ino} after {op:?}");
        }
        assert!(
            !self.fs().is_shutdown(),
            "the filesystem shut down in {op:?}"
        );
        if self.fs().durable_generation() != self.seen {
            self.sync();
        }
    }

    fn with<R>(&self, ino: u64, f: impl FnOnce(&Fs, &Shared<Inode>) -> R) -> R {
        let fs = self.fs();
        let inode = fs.iget(ino).unwrap_or_else(|e| panic!("iget {ino}: {e:?}"));
        let r = f(&fs, &inode);
        fs.iput(inode);
        r
    }

    fn check<T>(&mut self, what: &str, r: Result<T>) -> Option<T> {
        match r {
            Ok(v) => Some(v),
            Err(e) if e == ENOSPC => {
                self.nospace += 1;
                None
            }
            Err(e) => panic!("{what}: {e:?}"),
        }
    }

    fn files(&self) -> StdVec<u64> {
        self.model.select(|n| n.mode & S_IFMT == S_IFREG)
    }

    fn entry(&self, dir: u8, entry: u8) -> Option<(u64, StdVec<u8>, u64)> {
        let dirs = self.model.select(|n| !n.entries.is_empty());
        let d = pick(&dirs, dir)?;
        let names: StdVec<&StdVec<u8>> = self.model.get(d).entries.keys().collect();
        let name = pick(&names, entry)?.clone();
        let ino = self.model.get(d).entries[&name];
        Some((d, name, ino))
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Create { dir, name, what } => self.create(dir, &name_of(name), what),
            Op::Tmpfile => self.tmpfile(),
            Op::Link { dir, name, target } => self.link(dir, &name_of(name), target),
            Op::Unlink { dir, entry } => self.unlink(dir, entry),
            Op::Rename {
                dir,
                entry,
                to,
                name,
                how,
            } => self.rename(dir, entry, to, &name_of(name), how),
            Op::SetAttrs { target, mode, uid } => self.set_attrs(target, mode, uid),
            Op::SetSize {
                file,
                blocks,
                extra,
            } => self.set_size(file, blocks * 4096 + u64::from(extra)),
            Op::Punch { file, start, len } => self.punch(file, start, len),
            Op::Preallocate {
                file,
                start,
                len,
                keep,
            } => self.preallocate(file, start, len, keep),
            Op::Zero { file, start, len } => self.zero(file, start, len),
            Op::Write { file, start, len } => self.write(file, start, len, true),
            Op::ShortWrite { file, start, len } => self.write(file, start, len, false),
            Op::Writeback { file, fail } => {
                if let Some(ino) = pick(&self.files(), file) {
                    self.writeback(ino, fail);
                }
            }
            Op::Direct {
                file,
                start,
                len,
                fail,
                sync,
            } => self.direct(file, start, len, fail, sync),
            Op::SetXattr {
                target,
                name,
                len,
                how,
            } => self.set_xattr(target, name, len, how),
            Op::RemoveXattr { target, name } => self.remove_xattr(target, name),
            Op::Sync => self.sync(),
            Op::SyncFile { file } => self.sync_file(file),
            Op::Open { file } => self.open_file(file),
            Op::Close { file } => {
                let all: StdVec<u64> = self.open.keys().copied().collect();
                if let Some(ino) = pick(&all, file) {
                    self.close(ino);
                }
            }
            Op::Shrink => {
                let fs = self.fs();
                let n = fs.shrink_count();
                fs.shrink_scan(n);
            }
            Op::Remount => self.remount(),
            Op::Crash => self.crash(),
        }
    }

    /// fsync: the log takes the file, or a commit takes everything.
    fn sync_file(&mut self, file: u8) {
        let Some(ino) = pick(&self.files(), file) else {
            return;
        };
        self.writeback(ino, false);
        self.with(ino, |fs, i| fs.sync_inode(i)).expect("fsync");
        if self.fs().durable_generation() != self.seen {
            // It fell back to a commit.
            self.snapshot();
        } else {
            // The log: this file, and every operation on names, attributes and space so far.
            self.fuzzy.remove(&ino);
            self.recorded(ino);
            self.logged = Some((self.model.clone(), self.fuzzy.clone()));
        }
    }

    fn open_file(&mut self, file: u8) {
        let Some(ino) = pick(&self.files(), file) else {
            return;
        };
        if !self.open.contains_key(&ino) {
            let inode = self.fs().iget(ino).expect("iget");
            self.open.insert(ino, inode);
        }
    }

    fn close_all(&mut self) {
        for ino in self.open.keys().copied().collect::<StdVec<_>>() {
            self.close(ino);
        }
    }

    /// Unmounts and mounts again; everything must be as it was, no space may be lost on the way.
    pub fn remount(&mut self) {
        for ino in self.cache.keys().copied().collect::<StdVec<_>>() {
            self.writeback(ino, false);
            self.uncache(ino);
        }
        self.close_all();
        self.sync();
        let before = self.fs().statfs();
        self.fs().unmount().expect("unmount");
        self.fs = None;
        clean((self.make)(), true, "after unmount");
        self.mount();
        let after = self.fs().statfs();
        assert_eq!(
            before.bfree, after.bfree,
            "reservations leaked: {before:?}, after the remount {after:?}"
        );
        assert_eq!(
            after.files - after.ffree,
            self.model.nodes.len() as u64,
            "number of inodes"
        );
        self.snapshot();
        self.verify();
    }

    /// The power goes; what was durable must be there, exactly. Of files with data that was
    /// not synced, each block is as it was at some time.
    pub fn crash(&mut self) {
        self.open.clear();
        self.cache.clear();
        self.fs = None;
        clean((self.make)(), true, "after a crash");
        self.mount();
        let newest = std::mem::replace(&mut self.model, Model::new(2));
        let none = (self.durable.clone(), BTreeSet::new());
        let (expected, mut fuzzy) = self.logged.take().unwrap_or(none);
        self.model = expected.without_orphans();
        fuzzy.retain(|ino| self.model.nodes.contains_key(ino));
        for ino in &fuzzy {
            self.adopt(*ino, &newest);
        }
        self.verify();
        self.sync();
        clean((self.make)(), true, "after recovery");
    }

    /// Takes size and data of a file over into the model; the data must be what was once written.
    fn adopt(&mut self, ino: u64, newest: &Model) {
        let (size, found) = self.with(ino, |fs, i| (i.attrs().size, verify::contents(fs, i)));
        let old = self.durable.nodes.get(&ino);
        // As of the last fsync: the file may be gone from `newest`.
        let logged = self.model.nodes.get(&ino);
        let new = newest.nodes.get(&ino);
        for (block, tag) in &found {
            let fsynced = self.fsynced.get(&ino).into_iter().flatten();
            let known = [old, logged, new];
            let known = known
                .into_iter()
                .flatten()
                .chain(fsynced)
                .any(|n| n.blocks.get(block) == Some(tag));
            assert!(
                known,
                "inode {ino} block {block} has content {tag} that it never had"
            );
        }
        let node = self.model.get_mut(ino);
        node.size = size;
        node.blocks = found;
    }

    /// Compares everything with the model.
    pub fn verify(&self) {
        verify(&self.fs(), &self.model);
    }

    pub fn into_fs(mut self) -> Shared<Fs> {
        self.open.clear();
        self.fs.take().expect("mounted")
    }
}
