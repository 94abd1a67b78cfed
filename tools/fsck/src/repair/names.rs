// SPDX-License-Identifier: GPL-2.0

//! The second pass: names. Afterwards each entry leads to an inode of its type, each inode has its
//! names counted, and each that is not being deleted can be reached from the root.
//!
//! # Model
//!
//! An entry whose inode does not exist goes. A directory keeps one name, the one in the directory that
//! its record calls its parent if there is one. A directory without a name gets the name `#INO` in its
//! parent, if that is left, else in `lost+found`, and so does every other inode that has links and no
//! name. An inode without links and names is one that was deleted while it was open: it stays in the
//! orphan tree, and the next mount frees it.
//!
//! Directories that form a circle: one of them goes to `lost+found`. Each is looked at once.
//!
//! Tests: `tools/fuzz/tests/repair`.

use super::forest::{Edge, Known, Pending, Work};
use kernel::prelude::KVec;
use ordofs_engine::engine::btree::{Tree, TreeId, TreeKind};
use ordofs_engine::engine::format::inode::{InodeRecord, RootForm};
use ordofs_engine::engine::format::MAX_INO;
use ordofs_engine::engine::ops::dir::{bucket, decode, ENTRY_HEADER};
use ordofs_engine::engine::{mode_to_kind, Attrs, S_IFDIR, S_IFMT};
use ordofs_engine::os::{now, random_u64};
use std::collections::{BTreeMap, BTreeSet};

/// The directory for what has lost its name.
const LOST_FOUND: &str = "lost+found";
/// How many other names are tried if there is something else with that name.
const TRIES: u32 = 1000;

impl Known {
    fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }

    /// It was deleted while it was open.
    fn is_orphan(&self) -> bool {
        self.nlink == 0 && self.names == 0 && self.entries == 0
    }
}

impl Work<'_> {
    /// Puts names, parents and link counts in order.
    pub fn names(&mut self) -> Result<(), String> {
        self.root()?;
        let mut edges = std::mem::take(&mut self.edges);
        self.choose(&mut edges);
        self.drop_edges(&edges)?;
        self.count(&edges);
        self.attach()?;
        self.links()
    }

    /// Makes a root directory if there is none.
    fn root(&mut self) -> Result<(), String> {
        let root = self.sb.root_ino;
        if self.known(root).is_some() {
            return Ok(());
        }
        self.say(
            format_args!("inode {root}"),
            "the root directory was lost: made anew",
        );
        self.new_directory(root, 0o755)
    }

    /// Adds an empty directory, its own parent.
    fn new_directory(&mut self, ino: u64, mode: u32) -> Result<(), String> {
        let t = now();
        let rec = InodeRecord {
            attrs: Attrs {
                mode: S_IFDIR | mode,
                nlink: 2,
                handle_generation: (random_u64() as u32).max(1),
                change: 1,
                atime: t,
                mtime: t,
                ctime: t,
                btime: t,
                ..Attrs::default()
            },
            blocks: 0,
            state: 0,
            cut: 0,
            parent: ino,
            generation: self.sb.generation,
            extents: RootForm::Empty,
            dir: RootForm::Empty,
            xattr: RootForm::Empty,
            data: &[],
            crypt: &[],
            verity: &[],
            ignorable: &[],
        };
        let mut v = KVec::new();
        rec.encode(&mut v)
            .map_err(|e| format!("inode {ino}: {e:?}"))?;
        let p = Pending {
            record: v.to_vec(),
            dir: Some(Tree::empty(TreeId::new(TreeKind::Dir, ino))),
            ..Pending::default()
        };
        self.pending.insert(ino, p);
        let known = Known {
            ino,
            mode: S_IFDIR | mode,
            nlink: 2,
            truncated: false,
            parent: ino,
            names: 0,
            named_in: 0,
            entries: 0,
            subdirs: 0,
        };
        let at = self.inodes.partition_point(|k| k.ino < ino);
        self.inodes.insert(at, known);
        Ok(())
    }

    /// Decides which entries stay. Of several names of a directory, one does.
    fn choose(&mut self, edges: &mut [Edge]) {
        let root = self.sb.root_ino;
        // The entry that each directory keeps.
        let mut kept: BTreeMap<u64, (usize, bool)> = BTreeMap::new();
        for i in 0..edges.len() {
            let Some(e) = edges.get(i) else { break };
            let (dir, child) = (e.dir, e.child);
            let found = self.known(child).map(|k| (k.is_dir(), k.parent == dir));
            let keep = match found {
                None => false,
                Some((false, _)) => true,
                Some((true, _)) if child == root => false,
                Some((true, by_parent)) => match kept.get(&child).copied() {
                    None => {
                        kept.insert(child, (i, by_parent));
                        true
                    }
                    Some((other, false)) if by_parent => {
                        if let Some(o) = edges.get_mut(other) {
                            o.keep = false;
                        }
                        kept.insert(child, (i, true));
                        true
                    }
                    Some(_) => false,
                },
            };
            if let Some(e) = edges.get_mut(i) {
                e.keep = keep;
            }
        }
    }

    /// Removes the entries that do not stay, and corrects the types in the others.
    fn drop_edges(&mut self, edges: &[Edge]) -> Result<(), String> {
        for e in edges {
            let kind = self.known(e.child).map(|k| mode_to_kind(k.mode));
            if e.keep && kind == Some(e.kind) {
                continue;
            }
            let place = format!("directory {}, entry {:#x}", e.dir, e.cookie);
            let st = self.st;
            let tree = self.dir_tree(e.dir)?;
            let old = tree
                .get_with(st, e.cookie, <[u8]>::to_vec)
                .map_err(|e| format!("{place}: {e:?}"))?;
            let Some(mut value) = old else { continue };
            let name = decode(e.dir, &value)
                .map(|x| String::from_utf8_lossy(x.name).into_owned())
                .unwrap_or_default();
            let child = e.child;
            let (what, done) = if e.keep {
                let kind = kind.unwrap_or(0);
                if let Some(b) = value.get_mut(8) {
                    *b = kind;
                }
                let what = format!(
                    "{name:?} said type {}, inode {child} has type {kind}",
                    e.kind
                );
                (what, tree.insert(st, e.cookie, &value))
            } else {
                let why = match kind {
                    None => "does not exist",
                    Some(_) => "has another name",
                };
                let what = format!("{name:?} removed: inode {child} {why}");
                (what, tree.remove(st, e.cookie).map(drop))
            };
            done.map_err(|e| format!("{place}: {e:?}"))?;
            self.say(place, what);
        }
        Ok(())
    }

    /// Counts names, entries and subdirectories.
    fn count(&mut self, edges: &[Edge]) {
        for k in &mut self.inodes {
            k.entries = 0;
        }
        for e in edges.iter().filter(|e| e.keep) {
            self.name(e.child, e.dir);
        }
    }

    /// Counts a name.
    fn name(&mut self, child: u64, dir: u64) {
        let mut is_dir = false;
        if let Some(k) = self.known(child) {
            k.names += 1;
            k.named_in = dir;
            is_dir = k.is_dir();
        }
        if let Some(k) = self.known(dir) {
            k.entries += 1;
            k.subdirs += u64::from(is_dir);
        }
    }

    /// Gives a name to what has none.
    fn attach(&mut self) -> Result<(), String> {
        let root = self.sb.root_ino;
        let nameless: Vec<(u64, u64, bool)> = self
            .inodes
            .iter()
            .filter(|k| k.ino != root && k.names == 0 && !k.is_orphan())
            .map(|k| (k.ino, k.parent, k.is_dir()))
            .collect();
        let mut lost = BTreeSet::new();
        let mut by_parent = Vec::new();
        for (ino, parent, is_dir) in nameless {
            let usable = |k: &mut Known| k.is_dir() && !k.is_orphan() && k.ino != ino;
            if is_dir && self.known(parent).is_some_and(usable) {
                if let Some(k) = self.known(ino) {
                    k.named_in = parent;
                }
                by_parent.push((ino, parent));
            } else {
                lost.insert(ino);
            }
        }
        let circles: BTreeSet<u64> = self.circles(&by_parent).into_iter().collect();
        for (ino, parent) in by_parent {
            if circles.contains(&ino) {
                lost.insert(ino);
            } else {
                self.give_name(ino, parent)?;
            }
        }
        for ino in circles {
            if lost.insert(ino) {
                self.unname(ino)?;
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        let at = self.lost_found()?;
        for ino in lost {
            self.give_name(ino, at)?;
        }
        Ok(())
    }

    /// One directory of each circle of directories.
    fn circles(&mut self, by_parent: &[(u64, u64)]) -> Vec<u64> {
        let root = self.sb.root_ino;
        // Whether a directory was on an earlier path; the present path has the number of its start.
        let mut seen: BTreeMap<u64, u64> = BTreeMap::from([(root, 0)]);
        let mut circles = Vec::new();
        let all: Vec<u64> = self
            .inodes
            .iter()
            .filter(|k| k.is_dir())
            .map(|k| k.ino)
            .collect();
        let named: BTreeMap<u64, u64> = by_parent.iter().copied().collect();
        for start in all {
            let mut at = start;
            loop {
                match seen.get(&at) {
                    Some(path) if *path == start && at != root => {
                        circles.push(at);
                        break;
                    }
                    Some(_) => break,
                    None => {}
                }
                seen.insert(at, start);
                let up = match named.get(&at) {
                    Some(parent) => Some(*parent),
                    None => self.known(at).filter(|k| k.names > 0).map(|k| k.named_in),
                };
                match up {
                    Some(up) => at = up,
                    None => break,
                }
            }
        }
        circles
    }

    /// Removes the only name of a directory.
    fn unname(&mut self, ino: u64) -> Result<(), String> {
        let Some(dir) = self.known(ino).map(|k| k.named_in) else {
            return Ok(());
        };
        let st = self.st;
        let mut cookie = None;
        let tree = self.dir_tree(dir)?;
        let walked = tree.walk(st, &mut |w| {
            if let ordofs_engine::engine::btree::WalkItem::Item(key, value) = w {
                if decode(dir, value).is_ok_and(|e| e.ino == ino) {
                    cookie = Some(key);
                }
            }
            Ok(())
        });
        walked.map_err(|e| format!("directory {dir}: {e:?}"))?;
        if let Some(cookie) = cookie {
            tree.remove(st, cookie)
                .map_err(|e| format!("directory {dir}: {e:?}"))?;
        }
        if let Some(k) = self.known(dir) {
            k.entries = k.entries.saturating_sub(1);
            k.subdirs = k.subdirs.saturating_sub(1);
        }
        if let Some(k) = self.known(ino) {
            k.names = 0;
        }
        self.say(
            format_args!("inode {ino}"),
            format_args!("its name in directory {dir} closed a circle: removed"),
        );
        Ok(())
    }

    /// The number of `lost+found`, which is made if it is not there.
    fn lost_found(&mut self) -> Result<u64, String> {
        let root = self.sb.root_ino;
        for n in 0..TRIES {
            let name = match n {
                0 => LOST_FOUND.to_owned(),
                n => format!("{LOST_FOUND}.{n}"),
            };
            match self.look_up(root, name.as_bytes())? {
                None => {
                    let ino = self.sb.next_ino;
                    if ino >= MAX_INO - 1 {
                        return Err("no inode number is left for lost+found".into());
                    }
                    self.sb.next_ino += 1;
                    self.new_directory(ino, 0o700)?;
                    self.add_name(root, name.as_bytes(), ino)?;
                    return Ok(ino);
                }
                Some(ino) if self.known(ino).is_some_and(|k| k.is_dir()) => return Ok(ino),
                Some(_) => {}
            }
        }
        Err("there is no place for lost+found".into())
    }

    fn look_up(&mut self, dir: u64, name: &[u8]) -> Result<Option<u64>, String> {
        let (st, first) = (self.st, bucket(self.sb.hash_key, name));
        let tree = self.dir_tree(dir)?;
        let (mut at, mut v) = (first, KVec::new());
        while let Some(c) = tree
            .find_ge(st, at, &mut v)
            .map_err(|e| format!("directory {dir}: {e:?}"))?
            .filter(|c| c >> 8 == first >> 8)
        {
            if let Some(e) = decode(dir, &v).ok().filter(|e| e.name == name) {
                return Ok(Some(e.ino));
            }
            at = c + 1;
        }
        Ok(None)
    }

    /// Gives an inode the name `#INO` in a directory.
    fn give_name(&mut self, ino: u64, dir: u64) -> Result<(), String> {
        for n in 0..TRIES {
            let name = match n {
                0 => format!("#{ino}"),
                n => format!("#{ino}.{n}"),
            };
            if self.look_up(dir, name.as_bytes())?.is_none() {
                self.say(
                    format_args!("inode {ino}"),
                    format_args!("had no name: is {name:?} in directory {dir}"),
                );
                return self.add_name(dir, name.as_bytes(), ino);
            }
        }
        Err(format!("inode {ino}: no name is free for it"))
    }

    fn add_name(&mut self, dir: u64, name: &[u8], ino: u64) -> Result<(), String> {
        let kind = self.known(ino).map_or(0, |k| mode_to_kind(k.mode));
        let mut value = Vec::with_capacity(ENTRY_HEADER + name.len());
        value.extend_from_slice(&ino.to_le_bytes());
        value.push(kind);
        value.extend_from_slice(name);
        let (st, mut cookie) = (self.st, bucket(self.sb.hash_key, name));
        let top = cookie | 255;
        let tree = self.dir_tree(dir)?;
        let failed = |e| format!("directory {dir}: {e:?}");
        while tree.contains(st, cookie).map_err(failed)? {
            if cookie == top {
                return Err(format!("directory {dir}: too many names with one hash"));
            }
            cookie += 1;
        }
        tree.insert(st, cookie, &value).map_err(failed)?;
        self.name(ino, dir);
        Ok(())
    }

    /// Corrects link counts and parents, and finds the orphans.
    fn links(&mut self) -> Result<(), String> {
        let root = self.sb.root_ino;
        let had = std::mem::take(&mut self.orphans);
        let mut orphans = BTreeSet::new();
        for i in 0..self.inodes.len() {
            let Some(k) = self.inodes.get(i) else { break };
            let (ino, nlink, parent) = (k.ino, k.nlink, k.parent);
            let right = match (k.is_dir(), k.is_orphan() && ino != root) {
                (_, true) => 0,
                (true, false) => 2 + k.subdirs,
                (false, false) => k.names,
            };
            let up = match (k.is_dir(), ino == root) {
                (true, true) => root,
                (true, false) if right != 0 => k.named_in,
                _ => parent,
            };
            if right == 0 || k.truncated {
                orphans.insert(ino);
            }
            if u64::from(nlink) != right {
                let n = u32::try_from(right).unwrap_or(u32::MAX);
                self.change(ino)?.nlink = Some(n);
                self.say(
                    format_args!("inode {ino}"),
                    format_args!("link count was {nlink}, is {right}"),
                );
            }
            if up != parent {
                self.change(ino)?.parent = Some(up);
                self.say(
                    format_args!("inode {ino}"),
                    format_args!("its parent was {parent}, is {up}"),
                );
            }
        }
        for ino in had.symmetric_difference(&orphans) {
            let what = match orphans.contains(ino) {
                true => "was not in the orphan tree, and is",
                false => "was in the orphan tree, and needs it not",
            };
            self.say(format_args!("inode {ino}"), what);
        }
        self.orphans = orphans;
        Ok(())
    }
}
