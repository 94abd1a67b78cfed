// SPDX-License-Identifier: GPL-2.0

//! The first pass: the inode tree, and the trees of each inode.
//!
//! Items that cannot be true go, each with a sentence for the report. What is left is claimed, and
//! names are noted for [`super::names`].
//!
//! Tests: `tools/fuzz/tests/repair`.

use super::forest::{open, Edge, Known, Pending, Work};
use super::found::POSTPONED;
use super::record::{self, Mended};
use crate::Claim;
use ordofs_engine::engine::btree::{Tree, TreeId, TreeKind, WalkItem, MAX_VALUE};
use ordofs_engine::engine::format::extent::Extent;
use ordofs_engine::engine::format::inode::{InodeRecord, RootForm, STATE_TRUNCATE};
use ordofs_engine::engine::format::{Superblock, MAX_INO};
use ordofs_engine::engine::ops::{dir, xattr};
use ordofs_engine::engine::volume::mount::{tree_of, INODE_TREE};
use ordofs_engine::engine::{
    block_to_bytes, bytes_to_blocks, SYMLINK_MAX, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG,
};
use std::collections::BTreeSet;

/// Items that go: their keys, and why.
type Bad = Vec<(u64, String)>;

/// What is gathered from extents.
#[derive(Default)]
struct Extents {
    bad: Bad,
    newer: Option<&'static str>,
    /// Disk blocks of neighbouring extents, as runs.
    runs: Vec<(u64, u64)>,
    end: u64,
    blocks: u64,
    written_end: u64,
}

/// What is gathered from the entries of a directory.
#[derive(Default)]
struct Entries {
    bad: Bad,
    edges: Vec<(u64, u64, u8)>,
    bucket: u64,
    names: BTreeSet<Vec<u8>>,
}

/// What is gathered from the pieces of attributes.
#[derive(Default)]
struct Xattrs {
    bad: Bad,
    /// The pieces of the present attribute, and the bytes that are still missing.
    open: Vec<u64>,
    rest: usize,
    names: BTreeSet<(u8, Vec<u8>)>,
    bucket: Option<u64>,
}

impl Xattrs {
    /// Gives up the present attribute.
    fn drop_open(&mut self, why: &str) {
        let keys = std::mem::take(&mut self.open);
        self.bad.extend(keys.into_iter().map(|k| (k, why.into())));
        self.rest = 0;
    }

    fn end(&mut self) {
        if self.rest > 0 {
            self.drop_open("its other pieces are lost");
        }
        self.open.clear();
    }
}

/// What is gathered from the target of a symbolic link.
#[derive(Default)]
struct Target {
    len: u64,
    next: u64,
    odd: bool,
}

impl Work<'_> {
    /// Reads the inode tree and all that its records lead to.
    pub fn inodes(&mut self) -> Result<(), String> {
        let tree = tree_of(INODE_TREE, self.sb.inode_root);
        let all = self.scan("inode tree", tree, &mut |(): &mut (), _, _| {})?;
        let st = self.st;
        // Those that have to wait for a search.
        let mut later = Vec::new();
        let mut failed = None;
        let mut leaf = 0;
        let walked = all.tree.walk(st, &mut |w| {
            if let WalkItem::Node(n) = &w {
                leaf = n.addr;
            }
            if let (WalkItem::Item(ino, value), None) = (w, &failed) {
                if self.search.leaves.contains(&leaf) {
                    self.search.doubtful.insert(ino);
                }
                let (said, edges) = (self.said.len(), self.edges.len());
                self.claimed.clear();
                match self.inode(ino, value) {
                    Ok(()) => {}
                    Err(why) if why == POSTPONED => {
                        self.take_back(said, edges);
                        later.push(ino);
                    }
                    Err(why) => failed = Some(why),
                }
            }
            Ok(())
        });
        walked.map_err(|e| format!("inode tree: {e:?}"))?;
        self.itree = all.tree;
        failed.map_or(Ok(()), Err)?;
        self.after_search(later)
    }

    /// Reads the inodes again that have trees with lost interior nodes. One inode may have several
    /// such trees, so there are as many searches as that, for all inodes together.
    fn after_search(&mut self, mut later: Vec<u64>) -> Result<(), String> {
        while !later.is_empty() {
            self.look()?;
            for ino in std::mem::take(&mut later) {
                let value = self.itree.get_with(self.st, ino, <[u8]>::to_vec);
                let value = value.map_err(|e| format!("inode {ino}: {e:?}"))?;
                let (said, edges) = (self.said.len(), self.edges.len());
                self.claimed.clear();
                match self.inode(ino, &value.unwrap_or_default()) {
                    Err(why) if why == POSTPONED => {
                        self.take_back(said, edges);
                        later.push(ino);
                    }
                    r => r?,
                }
            }
        }
        self.inodes.sort_unstable_by_key(|k| k.ino);
        Ok(())
    }

    /// An inode that goes.
    fn lose(&mut self, ino: u64, why: impl std::fmt::Display) {
        self.say(format_args!("inode {ino}"), format_args!("removed: {why}"));
        self.lost = true;
        let gone = Pending {
            gone: true,
            ..Pending::default()
        };
        self.pending.insert(ino, gone);
    }

    fn inode(&mut self, ino: u64, value: &[u8]) -> Result<(), String> {
        if ino < self.sb.root_ino || ino >= MAX_INO {
            self.lose(ino, "no inode can have this number");
            return Ok(());
        }
        let mended = record::mend(value, &self.sb);
        let (bytes, mut changed) = match mended {
            Mended::Good => (value.to_vec(), false),
            Mended::Changed(bytes) => (bytes, true),
            Mended::Newer(why) => {
                return Err(format!("inode {ino}: {why}; a later version is needed"));
            }
            Mended::Hopeless => {
                self.lose(ino, "its record makes no sense");
                return Ok(());
            }
        };
        if changed {
            let place = format!("inode {ino}");
            self.say(place, "its record had impossible fields, which were set");
        }
        let rec = InodeRecord::parse(&bytes).map_err(|e| format!("inode {ino}: {e}"))?;
        if let Some(why) = rec.unsupported() {
            return Err(format!("inode {ino}: {why}"));
        }
        let kind = rec.attrs.mode & S_IFMT;
        if ino == self.sb.root_ino && kind != S_IFDIR {
            self.lose(ino, "the root is no directory");
            return Ok(());
        }
        let mut p = Pending::default();
        if kind == S_IFLNK && !self.symlink(ino, &rec, &mut p)? {
            return Ok(());
        }
        if kind == S_IFREG {
            self.extents(ino, &rec, &mut p)?;
        }
        let entries = match kind {
            S_IFDIR => self.directory(ino, &rec, &mut p)?,
            _ => 0,
        };
        self.xattrs(ino, &rec, &mut p)?;
        self.sb.next_ino = self.sb.next_ino.max(ino + 1);
        self.inodes.push(Known {
            ino,
            mode: rec.attrs.mode,
            nlink: rec.attrs.nlink,
            truncated: rec.state & STATE_TRUNCATE != 0,
            parent: rec.parent,
            names: 0,
            named_in: 0,
            entries,
            subdirs: 0,
        });
        changed |= p.extents.is_some() || p.dir.is_some() || p.xattr.is_some();
        changed |= p.blocks.is_some() || p.size.is_some();
        if changed {
            p.record = bytes;
            self.pending.insert(ino, p);
        }
        Ok(())
    }

    /// Opens and scans a tree of an inode, and takes out what `bad` returns of what was gathered.
    fn part<B: Default>(
        &mut self,
        ino: u64,
        kind: TreeKind,
        root: &RootForm<'_>,
        item: &mut dyn FnMut(&mut B, u64, &[u8]),
        bad: impl Fn(&mut B) -> Bad,
    ) -> Result<(B, Option<Tree>), String> {
        let (place, id) = (format!("inode {ino}"), TreeId::new(kind, ino));
        let (tree, mut changed) = match open(id, root) {
            Some(tree) => (tree, false),
            None => {
                self.say(
                    &place,
                    format_args!(
                        "its {} tree, in its record, is damaged: all of it is lost",
                        kind.name()
                    ),
                );
                self.lost = true;
                (Tree::empty(id), true)
            }
        };
        let mut all = self.scan(&place, tree, item)?;
        changed |= all.changed;
        for (key, why) in bad(&mut all.found) {
            self.say(
                format_args!("{place}, {} item {key:#x}", kind.name()),
                format_args!("removed: {why}"),
            );
            let removed = all.tree.remove(self.st, key);
            removed.map_err(|e| format!("{place}: {e:?}"))?;
            changed = true;
        }
        self.retire_dead(&mut all.tree);
        Ok((all.found, changed.then_some(all.tree)))
    }

    fn extents(&mut self, ino: u64, rec: &InodeRecord<'_>, p: &mut Pending) -> Result<(), String> {
        let sb = self.sb.clone();
        let truncated = rec.state & STATE_TRUNCATE != 0;
        let cut = if truncated { rec.cut } else { u64::MAX };
        let mut item = |x: &mut Extents, key: u64, value: &[u8]| extent(x, &sb, cut, key, value);
        let (found, tree) = self.part(ino, TreeKind::Extent, &rec.extents, &mut item, |x| {
            std::mem::take(&mut x.bad)
        })?;
        if let Some(why) = found.newer {
            return Err(format!("inode {ino}: {why}; a later version is needed"));
        }
        for (start, len) in found.runs {
            self.claim(start, len, Claim::Data(ino));
        }
        if tree.is_some() {
            self.say(
                format_args!("inode {ino}"),
                "its file has lost blocks: they read as zeros",
            );
        }
        p.extents = tree;
        if found.blocks != rec.blocks {
            let (said, seen) = (rec.blocks, found.blocks);
            self.say(
                format_args!("inode {ino}"),
                format_args!("counted {said} blocks, has {seen}"),
            );
            p.blocks = Some(seen);
        }
        if found.written_end > bytes_to_blocks(rec.attrs.size) {
            let size = block_to_bytes(found.written_end);
            self.say(
                format_args!("inode {ino}"),
                format_args!(
                    "its size was {}, but data goes on to {size}",
                    rec.attrs.size
                ),
            );
            p.size = Some(size);
        }
        Ok(())
    }

    /// Scans a directory. Returns the number of its entries.
    fn directory(
        &mut self,
        ino: u64,
        rec: &InodeRecord<'_>,
        p: &mut Pending,
    ) -> Result<u64, String> {
        let key = self.sb.hash_key;
        let mut item =
            |x: &mut Entries, cookie: u64, value: &[u8]| entry(x, key, ino, cookie, value);
        let (found, tree) = self.part(ino, TreeKind::Dir, &rec.dir, &mut item, |x| {
            std::mem::take(&mut x.bad)
        })?;
        p.dir = tree;
        let n = found.edges.len() as u64;
        let edges = found.edges.into_iter().map(|(cookie, child, kind)| Edge {
            dir: ino,
            child,
            kind,
            cookie,
            keep: true,
        });
        self.edges.extend(edges);
        Ok(n)
    }

    /// Scans the target of a symbolic link. False if it is lost, and the link with it.
    fn symlink(
        &mut self,
        ino: u64,
        rec: &InodeRecord<'_>,
        p: &mut Pending,
    ) -> Result<bool, String> {
        let mut item = |t: &mut Target, key: u64, value: &[u8]| {
            let full_before = t.len % dir::SYMLINK_PIECE as u64 == 0;
            let expected = dir::FIRST_COOKIE + t.next;
            t.odd |= key != expected || !full_before || value.len() > dir::SYMLINK_PIECE;
            t.odd |= value.contains(&0);
            t.next += 1;
            t.len += value.len() as u64;
        };
        let (found, tree) = self.part(ino, TreeKind::Dir, &rec.dir, &mut item, |_| Bad::new())?;
        if found.odd || !(1..=SYMLINK_MAX as u64).contains(&found.len) {
            let of = |kind, root| open(TreeId::new(kind, ino), root);
            let dir = tree.or_else(|| of(TreeKind::Dir, &rec.dir));
            let xattr = of(TreeKind::Xattr, &rec.xattr);
            dir.iter().chain(&xattr).for_each(|t| self.retire_tree(t));
            self.lose(ino, "the target of the symbolic link is lost");
            return Ok(false);
        }
        p.dir = tree;
        if found.len != rec.attrs.size {
            p.size = Some(found.len);
        }
        Ok(true)
    }

    fn xattrs(&mut self, ino: u64, rec: &InodeRecord<'_>, p: &mut Pending) -> Result<(), String> {
        let (key, mode) = (self.sb.hash_key, rec.attrs.mode);
        let deleting = rec.attrs.nlink == 0;
        let mut item = |x: &mut Xattrs, at: u64, value: &[u8]| {
            piece(x, key, (ino, mode, deleting), at, value);
        };
        let (_, tree) = self.part(ino, TreeKind::Xattr, &rec.xattr, &mut item, |x| {
            x.end();
            std::mem::take(&mut x.bad)
        })?;
        p.xattr = tree;
        Ok(())
    }
}

/// Judges an extent.
fn extent(x: &mut Extents, sb: &Superblock, cut: u64, key: u64, value: &[u8]) {
    let e = match Extent::parse(key, value, sb) {
        Ok(e) => e,
        Err(why) if why.ends_with("not supported") || why == "unknown flags" => {
            x.newer = Some(why);
            return;
        }
        Err(why) => return x.bad.push((key, why.into())),
    };
    if e.start < x.end {
        return x.bad.push((key, "it overlaps with the one before".into()));
    }
    x.end = e.end();
    x.blocks += e.len;
    if !e.unwritten && e.start < cut {
        x.written_end = x.written_end.max(e.end().min(cut));
    }
    match x.runs.last_mut() {
        Some((start, len)) if *start + *len == e.phys => *len += e.len,
        _ => x.runs.push((e.phys, e.len)),
    }
}

/// Judges a directory entry.
fn entry(x: &mut Entries, key: [u64; 2], dir: u64, cookie: u64, value: &[u8]) {
    let good = dir::decode(dir, value).ok();
    let Some(e) = good.filter(|e| dir::check_name(e.name).is_ok()) else {
        return x.bad.push((cookie, "the entry is malformed".into()));
    };
    if dir::bucket(key, e.name) >> 8 != cookie >> 8 {
        let name = String::from_utf8_lossy(e.name);
        return x
            .bad
            .push((cookie, format!("{name:?} does not belong at this hash")));
    }
    if cookie >> 8 != x.bucket {
        x.names.clear();
        x.bucket = cookie >> 8;
    }
    if !x.names.insert(e.name.to_vec()) {
        let name = String::from_utf8_lossy(e.name);
        return x.bad.push((cookie, format!("{name:?} exists twice")));
    }
    x.edges.push((cookie, e.ino, e.kind));
}

/// Judges a piece of an attribute of inode `of`: its number, its mode, whether it is being deleted.
fn piece(x: &mut Xattrs, hash_key: [u64; 2], of: (u64, u32, bool), key: u64, value: &[u8]) {
    let (ino, mode, deleting) = of;
    if key & 0xff != 0 {
        let next = x.open.last().map(|k| k.wrapping_add(1));
        if next == Some(key) && x.rest > 0 && value.len() == x.rest.min(MAX_VALUE) {
            x.rest -= value.len();
            x.open.push(key);
        } else if !(deleting && x.bucket.is_none() && x.open.is_empty()) {
            if x.rest > 0 {
                x.drop_open("its other pieces are lost");
            }
            x.bad.push((key, "a piece without its attribute".into()));
        }
        return;
    }
    x.end();
    let Ok(head) = xattr::decode(ino, value) else {
        x.bucket.get_or_insert(key >> 16);
        return x.bad.push((key, "the attribute is malformed".into()));
    };
    if x.bucket != Some(key >> 16) {
        x.names.clear();
        x.bucket = Some(key >> 16);
    }
    let wrong = if xattr::bucket(hash_key, head.index, head.name) >> 16 != key >> 16 {
        Some("does not belong at this hash")
    } else if head.index == xattr::ACL_DEFAULT && mode & S_IFMT != S_IFDIR {
        Some("is a default ACL of what is no directory")
    } else if !x.names.insert((head.index, head.name.to_vec())) {
        Some("is there twice")
    } else {
        None
    };
    if let Some(why) = wrong {
        let name = String::from_utf8_lossy(head.name);
        return x.bad.push((key, format!("attribute {name:?} {why}")));
    }
    x.open = vec![key];
    x.rest = head.len - head.start.len();
}
