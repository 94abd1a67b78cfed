// SPDX-License-Identifier: GPL-2.0

//! Does each operation to an engine and to the model, and compares them.
//!
//! It stands in for the glue: it has a page cache of tags, writes dirty pages back by
//! `start_write`/`finish_write`, keeps open inodes, and deletes inodes without names when they are
//! closed. Everything runs on one thread.

use super::model::{Model, Node};
use super::ops::{How, Op, What};
use kernel::prelude::*;
use ordofs_engine::engine::mkfs::{format, FormatOptions};
use ordofs_engine::engine::namei::Rename;
use ordofs_engine::engine::*;
use ordofs_engine::os::{crc32c, Block, Device, Shared};
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
    /// Files as they were at their last fsync since the last commit.
    fsynced: BTreeMap<u64, Node>,
}

/// The content of a block.
pub fn fill(tag: u64) -> Block {
    let mut b = Block::zeroed().unwrap();
    if tag != 0 {
        let bytes = tag.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        b.chunks_exact_mut(8)
            .for_each(|c| c.copy_from_slice(&bytes));
        b[..8].copy_from_slice(&tag.to_le_bytes());
    }
    b
}

fn name_of(n: u8) -> StdVec<u8> {
    match n {
        0..=15 => std::format!("{n}-{}", "x".repeat(250)).into_bytes(),
        _ => std::format!("name{}", n % 60).into_bytes(),
    }
}

fn pick<T: Copy>(v: &[T], n: u8) -> Option<T> {
    v.get(usize::from(n) % v.len().max(1)).copied()
}

pub fn mkfs(dev: Device) {
    let o = FormatOptions {
        uuid: *b"0123456789abcdef",
        label: [0; 64],
        blocks: 0,
        root_owner: (0, 0),
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
            Op::Tmpfile => {
                let new = NewInode {
                    mode: S_IFREG | 0o600,
                    uid: 0,
                    gid: 0,
                    rdev: 0,
                    flags: 0,
                    symlink: None,
                };
                let r = self.fs().tmpfile(&new);
                if let Some(i) = self.check("tmpfile", r) {
                    let ino = i.ino();
                    self.model.nodes.insert(
                        ino,
                        Node {
                            mode: new.mode,
                            ..Node::default()
                        },
                    );
                    self.open.insert(ino, i);
                }
            }
            Op::Link { dir, name, target } => self.link(dir, &name_of(name), target),
            Op::Unlink { dir, entry } => self.unlink(dir, entry),
            Op::Rename {
                dir,
                entry,
                to,
                name,
                how,
            } => self.rename(dir, entry, to, &name_of(name), how),
            Op::SetAttrs { target, mode, uid } => {
                let all = self.model.select(|_| true);
                let Some(ino) = pick(&all, target) else {
                    return;
                };
                let a = AttrChange {
                    mode: Some(mode.into()),
                    uid: Some(uid),
                    ..AttrChange::default()
                };
                let r = self.with(ino, |fs, i| fs.set_attrs(i, &a));
                if self.check("set_attrs", r).is_some() {
                    let n = self.model.get_mut(ino);
                    n.mode = n.mode & S_IFMT | u32::from(mode) & !S_IFMT;
                    n.uid = uid;
                }
            }
            Op::SetSize {
                file,
                blocks,
                extra,
            } => self.set_size(file, blocks * 4096 + u64::from(extra)),
            Op::Punch { file, start, len } => {
                let Some(ino) = pick(&self.files(), file) else {
                    return;
                };
                self.forget_pages(ino, start, len);
                let r = self.with(ino, |fs, i| fs.punch(i, start, len));
                r.expect("punch must not fail");
                self.erase(ino, start, len);
            }
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
            Op::Sync => self.sync(),
            Op::SyncFile { file } => {
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
                    self.fsynced.insert(ino, self.model.get(ino).clone());
                    self.logged = Some((self.model.clone(), self.fuzzy.clone()));
                }
            }
            Op::Open { file } => {
                let Some(ino) = pick(&self.files(), file) else {
                    return;
                };
                if !self.open.contains_key(&ino) {
                    let inode = self.fs().iget(ino).expect("iget");
                    self.open.insert(ino, inode);
                }
            }
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

    fn create(&mut self, dir: u8, name: &[u8], what: What) {
        let Some(d) = pick(&self.model.dirs(), dir) else {
            return;
        };
        let target: StdVec<u8> = match what {
            What::Symlink(n) => (0..n).map(|i| b'a' + (i % 26) as u8).collect(),
            _ => StdVec::new(),
        };
        let mode = match what {
            What::File => S_IFREG | 0o644,
            What::Dir => S_IFDIR | 0o755,
            What::Symlink(_) => S_IFLNK | 0o777,
            What::Fifo => S_IFIFO | 0o600,
        };
        let symlink = (!target.is_empty()).then_some(&target[..]);
        let new = NewInode {
            mode,
            uid: 7,
            gid: 8,
            rdev: 0,
            flags: 0,
            symlink,
        };
        let r = self.with(d, |fs, i| fs.create(i, name, &new));
        if self.model.get(d).entries.contains_key(name) {
            assert_eq!(r.err(), Some(EEXIST));
            return;
        }
        let Some(inode) = self.check("create", r) else {
            return;
        };
        let ino = inode.ino();
        let nlink = if mode & S_IFMT == S_IFDIR { 2 } else { 1 };
        let node = Node {
            mode,
            uid: 7,
            nlink,
            size: target.len() as u64,
            target,
            ..Node::default()
        };
        assert!(
            self.model.nodes.insert(ino, node).is_none(),
            "inode number {ino} given twice"
        );
        self.model.name_in(d, name, ino);
        self.fs().iput(inode);
    }

    fn link(&mut self, dir: u8, name: &[u8], target: u8) {
        let Some(d) = pick(&self.model.dirs(), dir) else {
            return;
        };
        let Some(t) = pick(&self.model.select(|n| !n.is_dir()), target) else {
            return;
        };
        let r = self.with(d, |fs, di| self.with(t, |_, ti| fs.link(di, name, ti)));
        if self.model.get(d).entries.contains_key(name) {
            assert_eq!(r.err(), Some(EEXIST));
        } else if self.check("link", r).is_some() {
            self.model.name_in(d, name, t);
            self.model.get_mut(t).nlink += 1;
        }
    }

    fn unlink(&mut self, dir: u8, entry: u8) {
        let Some((d, name, ino)) = self.entry(dir, entry) else {
            return;
        };
        let r = self.with(d, |fs, di| self.with(ino, |_, i| fs.unlink(di, &name, i)));
        if !self.model.get(ino).entries.is_empty() {
            assert_eq!(r.err(), Some(ENOTEMPTY));
            return;
        }
        r.expect("unlink must not fail");
        self.model.unname(d, &name);
        self.lost_name(ino);
    }

    fn lost_name(&mut self, ino: u64) {
        let n = self.model.get_mut(ino);
        n.nlink = if n.is_dir() { 0 } else { n.nlink - 1 };
        if n.nlink == 0 && !self.open.contains_key(&ino) {
            let inode = self.fs().iget(ino).expect("iget of an unlinked inode");
            self.delete(ino, inode);
        }
    }

    fn delete(&mut self, ino: u64, inode: Shared<Inode>) {
        self.forget_pages(ino, 0, u64::MAX);
        self.uncache(ino);
        self.fs()
            .delete_inode(inode)
            .expect("delete_inode must not fail");
        self.model.nodes.remove(&ino);
    }

    fn close(&mut self, ino: u64) {
        let Some(inode) = self.open.remove(&ino) else {
            return;
        };
        if self.model.get(ino).nlink == 0 {
            self.delete(ino, inode);
        } else {
            self.fs().iput(inode);
        }
    }

    fn rename(&mut self, dir: u8, entry: u8, to: u8, name: &[u8], how: How) {
        let Some((d, old, ino)) = self.entry(dir, entry) else {
            return;
        };
        let Some(nd) = pick(&self.model.dirs(), to) else {
            return;
        };
        let target = self.model.get(nd).entries.get(name).copied();
        let moved_dir = self.model.get(ino).is_dir();
        // What the VFS refuses never reaches the engine.
        if moved_dir && self.model.within(nd, ino)
            || target == Some(ino)
            || (nd == d && old == name)
        {
            return;
        }
        if let Some(t) = target {
            let t_dir = self.model.get(t).is_dir();
            let crossed = how == How::Exchange && t_dir && self.model.within(d, t);
            let mixed = how != How::Exchange && t_dir != moved_dir;
            if crossed || mixed || (how != How::Exchange && t_dir && self.model.within(d, t)) {
                return;
            }
        } else if how == How::Exchange {
            return;
        }
        let flags = RenameFlags {
            noreplace: how == How::NoReplace,
            exchange: how == How::Exchange,
        };
        let white = NewInode {
            mode: S_IFCHR,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            symlink: None,
        };
        let whiteout = (how == How::Whiteout).then_some(&white);
        let fs = self.fs();
        let get = |ino: u64| fs.iget(ino).expect("iget");
        let (od, ndi, i, t) = (get(d), get(nd), get(ino), target.map(get));
        let r = fs.rename(&Rename {
            old_dir: &od,
            old_name: &old,
            inode: &i,
            new_dir: &ndi,
            new_name: name,
            target: t.as_ref(),
            flags,
            whiteout,
        });
        for x in [Some(od), Some(ndi), Some(i), t].into_iter().flatten() {
            fs.iput(x);
        }
        if let (How::NoReplace, Some(_)) = (how, target) {
            assert_eq!(r.err(), Some(EEXIST));
            return;
        }
        if let Some(t) = target.filter(|_| how != How::Exchange) {
            if !self.model.get(t).entries.is_empty() {
                assert_eq!(r.err(), Some(ENOTEMPTY));
                return;
            }
        }
        if self.check("rename", r).is_none() {
            return;
        }
        self.model.unname(d, &old);
        if target.is_some() {
            self.model.unname(nd, name);
        }
        self.model.name_in(nd, name, ino);
        match (how, target) {
            (How::Exchange, Some(t)) => self.model.name_in(d, &old, t),
            (_, Some(t)) => self.lost_name(t),
            _ => {}
        }
        if how == How::Whiteout {
            let e = self
                .with(d, |fs, di| fs.lookup(di, &old))
                .expect("lookup")
                .expect("whiteout");
            let node = Node {
                mode: S_IFCHR,
                nlink: 1,
                ..Node::default()
            };
            self.model.nodes.insert(e.ino, node);
            self.model.name_in(d, &old, e.ino);
        }
    }

    /// Pages are dropped from the cache before space operations, as the glue does.
    fn forget_pages(&mut self, ino: u64, start: u64, len: u64) {
        if let Some(c) = self.cache.get_mut(&ino) {
            c.dirty
                .retain(|b, _| *b < start || *b >= start.saturating_add(len));
        }
    }

    fn erase(&mut self, ino: u64, start: u64, len: u64) {
        let end = start.saturating_add(len);
        self.model
            .get_mut(ino)
            .blocks
            .retain(|b, _| *b < start || *b >= end);
    }

    fn cached(&mut self, ino: u64) -> &mut Cache {
        let size = self.model.get(ino).size;
        let fs = self.fs();
        let new = || Cache {
            inode: fs.iget(ino).expect("iget"),
            size,
            dirty: BTreeMap::new(),
        };
        let c = self.cache.entry(ino).or_insert_with(new);
        c.size = c.size.max(size);
        c
    }

    /// The VFS lets go of a clean inode.
    fn uncache(&mut self, ino: u64) {
        if let Some(c) = self.cache.remove(&ino) {
            self.fs().iput(c.inode);
        }
    }

    fn set_size(&mut self, file: u8, bytes: u64) {
        let Some(ino) = pick(&self.files(), file) else {
            return;
        };
        let from = bytes_to_blocks(bytes);
        self.forget_pages(ino, from, u64::MAX);
        let r = self.with(ino, |fs, i| fs.set_size(i, bytes));
        r.expect("truncate must not fail");
        self.erase(ino, from, u64::MAX);
        self.model.get_mut(ino).size = bytes;
        self.cached(ino).size = bytes;
    }

    fn preallocate(&mut self, file: u8, start: u64, len: u64, keep: bool) {
        let Some(ino) = pick(&self.files(), file) else {
            return;
        };
        let end = (start + len) * 4096;
        let r = self.with(ino, |fs, i| {
            fs.preallocate(i, start, len, (!keep).then_some(end))
        });
        if self.check("preallocate", r).is_some() && !keep {
            let n = self.model.get_mut(ino);
            n.size = n.size.max(end);
        }
    }

    fn zero(&mut self, file: u8, start: u64, len: u64) {
        let Some(ino) = pick(&self.files(), file) else {
            return;
        };
        self.forget_pages(ino, start, len);
        let r = self.with(ino, |fs, i| fs.zero_range(i, start, len, None));
        // Zeroes first, space second: without space it is a hole.
        let _ = self.check("zero_range", r);
        self.erase(ino, start, len);
    }

    fn next_tag(&mut self) -> u64 {
        self.tag += 1;
        self.tag
    }

    /// A buffered write: makes the range writable, then dirties it (or does not).
    fn write(&mut self, file: u8, start: u64, len: u64, dirty: bool) {
        let Some(ino) = pick(&self.files(), file) else {
            return;
        };
        let mut at = start;
        while at < start + len {
            let r = self.with(ino, |fs, i| fs.map_write(i, at, start + len - at));
            let Some(w) = self.check("map_write", r) else {
                break;
            };
            let m = w.map;
            assert!(
                m.start <= at && at < m.start + m.len,
                "map_write at {at} gave {m:?}"
            );
            assert!(
                matches!(m.kind, MapKind::Delalloc | MapKind::Unwritten),
                "{m:?}"
            );
            let end = (m.start + m.len).min(start + len);
            for b in at..end {
                let was = self.cached(ino).dirty.contains_key(&b);
                if dirty {
                    let tag = self.next_tag();
                    self.cached(ino).dirty.insert(b, tag);
                } else if !was && m.kind == MapKind::Delalloc {
                    self.with(ino, |fs, i| fs.release_delalloc(i, b, 1));
                }
            }
            at = end;
        }
        if dirty && at > start {
            let c = self.cached(ino);
            c.size = c.size.max(at * 4096);
        }
    }

    /// Writes dirty pages back; with `fail` the device says EIO and the pages are lost.
    fn writeback(&mut self, ino: u64, fail: bool) {
        let dirty = std::mem::take(&mut self.cached(ino).dirty);
        let all: StdVec<(u64, u64)> = dirty.into_iter().collect();
        let mut rest = &all[..];
        while let Some((start, _)) = rest.first() {
            let run = rest
                .iter()
                .zip(*start..)
                .take_while(|((b, _), want)| b == want)
                .count();
            let (now, later) = rest.split_at(run);
            self.write_run(ino, now, false, fail, false);
            rest = later;
        }
    }

    /// Writes a run of blocks out; true if all of it could be started.
    fn write_run(
        &mut self,
        ino: u64,
        run: &[(u64, u64)],
        direct: bool,
        fail: bool,
        sync: bool,
    ) -> bool {
        let size = self.cached(ino).size;
        let data: StdVec<Block> = run.iter().map(|(_, t)| fill(*t)).collect();
        let sums: StdVec<u32> = data.iter().map(|b| crc32c(0, &b[..])).collect();
        let mut i = 0;
        while i < run.len() {
            let r = self.with(ino, |fs, inode| {
                fs.start_write(inode, run[i].0, &sums[i..], direct)
            });
            let s = match r {
                Ok(s) => s,
                Err(e) if direct && e == ENOSPC => {
                    self.nospace += 1;
                    return false;
                }
                Err(e) => panic!("start_write of inode {ino} block {}: {e:?}", run[i].0),
            };
            let n = s.len as usize;
            assert!(
                n > 0 && i + n <= run.len(),
                "start_write gave {n} blocks of {}",
                run.len() - i
            );
            let fs = self.fs();
            if !fail {
                let reqs: StdVec<(u64, &Block)> = data[i..i + n]
                    .iter()
                    .zip(s.phys..)
                    .map(|(b, p)| (p, b))
                    .collect();
                fs.node_store().device().write(&reqs).expect("device write");
            }
            if sync {
                // The write in flight is in no transaction yet.
                self.sync();
            }
            let new_size = size.min((run[i].0 + s.len) * 4096);
            let r = fs.finish_write(s.ordered, new_size, if fail { Err(EIO) } else { Ok(()) });
            if fail {
                assert_eq!(r, Err(EIO));
            } else {
                r.expect("finish_write");
                let node = self.model.get_mut(ino);
                node.blocks.extend(run[i..i + n].iter().copied());
                node.size = node.size.max(new_size);
                self.fuzzy.insert(ino);
            }
            i += n;
        }
        true
    }

    fn direct(&mut self, file: u8, start: u64, len: u64, fail: bool, sync: bool) {
        let Some(ino) = pick(&self.files(), file) else {
            return;
        };
        self.writeback(ino, false);
        let run: StdVec<(u64, u64)> = (start..start + len).map(|b| (b, self.next_tag())).collect();
        let c = self.cached(ino);
        let before = c.size;
        c.size = c.size.max((start + len) * 4096);
        self.write_run(ino, &run, true, fail, sync);
        let on_disk = self.model.get(ino).size;
        self.cached(ino).size = before.max(on_disk);
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

    /// The power goes; what was durable must be there, exactly. Of files with data that nobody
    /// synced, each block is as it was at some time.
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
        let (size, found) = self.with(ino, |fs, i| (i.attrs().size, contents(fs, i)));
        let old = self.durable.nodes.get(&ino);
        let new = newest.nodes.get(&ino);
        for (block, tag) in &found {
            let known = [old, new, self.fsynced.get(&ino)];
            let known = known
                .iter()
                .flatten()
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

/// Compares the whole filesystem, as it is on disk, with a model.
pub fn verify(fs: &Fs, model: &Model) {
    let mut seen = BTreeSet::new();
    for (ino, node) in &model.nodes {
        let inode = fs
            .iget(*ino)
            .unwrap_or_else(|e| panic!("inode {ino} is missing: {e:?}"));
        let a = inode.attrs();
        let have = (a.mode, a.uid, a.nlink, a.size);
        let size = if node.is_dir() { a.size } else { node.size };
        assert_eq!(
            have,
            (node.mode, node.uid, node.nlink, size),
            "mode, uid, nlink, size of inode {ino}"
        );
        verify_names(fs, &inode, node, &mut seen);
        if node.mode & S_IFMT == S_IFLNK {
            assert_eq!(
                fs.readlink(&inode).expect("readlink"),
                &node.target[..],
                "target of {ino}"
            );
        }
        if node.mode & S_IFMT == S_IFREG {
            verify_data(fs, &inode, node);
        }
        fs.iput(inode);
    }
}

fn verify_names(fs: &Fs, inode: &Shared<Inode>, node: &Node, seen: &mut BTreeSet<u64>) {
    if !node.is_dir() {
        return;
    }
    let ino = inode.ino();
    let mut listed = BTreeMap::new();
    let mut last = 0;
    fs.readdir(inode, 0, &mut |name, child, _, cookie| {
        assert!(cookie > last, "cookies of directory {ino} do not grow");
        last = cookie;
        assert!(
            listed.insert(name.to_vec(), child).is_none(),
            "a name twice in directory {ino}"
        );
        true
    })
    .expect("readdir");
    assert_eq!(listed, node.entries, "entries of directory {ino}");
    for (name, child) in &node.entries {
        let e = fs.lookup(inode, name).expect("lookup").expect("entry");
        assert_eq!(e.ino, *child);
        seen.insert(*child);
    }
}

/// The tags of all written blocks.
fn contents(fs: &Fs, inode: &Shared<Inode>) -> BTreeMap<u64, u64> {
    let mut found = BTreeMap::new();
    let mut buf = Block::zeroed().unwrap();
    let mut at = 0;
    while at < MAX_FILE_BLOCKS {
        let m = fs
            .map_read(inode, at, MAX_FILE_BLOCKS - at)
            .expect("map_read");
        // Holes reach to the end of the largest file.
        let blocks = if m.kind == MapKind::Written { m.len } else { 0 };
        for i in 0..blocks {
            fs.node_store()
                .device()
                .read(m.phys + i, &mut buf)
                .expect("read");
            found.insert(
                at + i,
                u64::from_le_bytes(buf[..8].try_into().expect("8 bytes")),
            );
        }
        at += m.len;
    }
    found
}

fn verify_data(fs: &Fs, inode: &Shared<Inode>, node: &Node) {
    let ino = inode.ino();
    let (mut at, mut found) = (0, 0);
    let mut buf = Block::zeroed().unwrap();
    while at < MAX_FILE_BLOCKS {
        let m = fs
            .map_read(inode, at, MAX_FILE_BLOCKS - at)
            .expect("map_read");
        assert!(
            m.start == at && m.len > 0,
            "map_read of inode {ino} at {at} gave {m:?}"
        );
        if m.kind == MapKind::Written {
            for i in 0..m.len {
                let want = node.blocks.get(&(at + i));
                let want = *want.unwrap_or_else(|| {
                    panic!(
                        "inode {ino} has data at block {} that must be a hole",
                        at + i
                    )
                });
                fs.node_store()
                    .device()
                    .read(m.phys + i, &mut buf)
                    .expect("read");
                assert!(
                    buf[..] == fill(want)[..],
                    "inode {ino} block {}: wrong content",
                    at + i
                );
                let verdict = fs
                    .verify(inode, at + i, m.phys + i, crc32c(0, &buf[..]))
                    .expect("verify");
                assert_eq!(verdict, Verdict::Good, "inode {ino} block {}", at + i);
                found += 1;
            }
        }
        at += m.len;
    }
    assert_eq!(
        found,
        node.blocks.len(),
        "inode {ino}: blocks that have data"
    );
}
