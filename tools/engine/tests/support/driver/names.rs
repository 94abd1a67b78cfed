// SPDX-License-Identifier: GPL-2.0

//! Operations on names, and the life of inodes.

use super::super::content::pick;
use super::super::model::Node;
use super::super::ops::{How, What};
use super::{Driver, S_IFCHR, S_IFIFO};
use kernel::prelude::{EEXIST, ENOTEMPTY};
use ordofs_engine::engine::ops::namei::Rename;
use ordofs_engine::engine::*;
use ordofs_engine::os::Shared;
use std::vec::Vec as StdVec;

impl Driver {
    pub(super) fn tmpfile(&mut self) {
        let new = NewInode {
            mode: S_IFREG | 0o600,
            ..Default::default()
        };
        let r = self.fs().tmpfile(&new);
        if let Some(i) = self.check("tmpfile", r) {
            let ino = i.ino();
            let node = Node {
                mode: new.mode,
                ..Node::default()
            };
            self.model.nodes.insert(ino, node);
            self.open.insert(ino, i);
        }
    }

    pub(super) fn create(&mut self, dir: u8, name: &[u8], what: What) {
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
            symlink,
            ..Default::default()
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

    pub(super) fn link(&mut self, dir: u8, name: &[u8], target: u8) {
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

    pub(super) fn unlink(&mut self, dir: u8, entry: u8) {
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

    pub(super) fn lost_name(&mut self, ino: u64) {
        let n = self.model.get_mut(ino);
        n.nlink = if n.is_dir() { 0 } else { n.nlink - 1 };
        if n.nlink == 0 && !self.open.contains_key(&ino) {
            let inode = self.fs().iget(ino).expect("iget of an unlinked inode");
            self.delete(ino, inode);
        }
    }

    pub(super) fn delete(&mut self, ino: u64, inode: Shared<Inode>) {
        self.forget_pages(ino, 0, u64::MAX);
        self.uncache(ino);
        self.fs()
            .delete_inode(inode)
            .expect("delete_inode must not fail");
        self.model.nodes.remove(&ino);
    }

    pub(super) fn close(&mut self, ino: u64) {
        let Some(inode) = self.open.remove(&ino) else {
            return;
        };
        if self.model.get(ino).nlink == 0 {
            self.delete(ino, inode);
        } else {
            self.fs().iput(inode);
        }
    }

    /// Does the VFS pass this rename to the filesystem?
    fn may_rename(&self, ino: u64, dir: u64, to: u64, target: Option<u64>, how: How) -> bool {
        let moved_dir = self.model.get(ino).is_dir();
        if moved_dir && self.model.within(to, ino) || target == Some(ino) {
            return false;
        }
        let Some(t) = target else {
            return how != How::Exchange;
        };
        let t_dir = self.model.get(t).is_dir();
        let crossed = t_dir && self.model.within(dir, t);
        let mixed = how != How::Exchange && t_dir != moved_dir;
        !crossed && !mixed
    }

    pub(super) fn rename(&mut self, dir: u8, entry: u8, to: u8, name: &[u8], how: How) {
        let Some((d, old, ino)) = self.entry(dir, entry) else {
            return;
        };
        let Some(nd) = pick(&self.model.dirs(), to) else {
            return;
        };
        let target = self.model.get(nd).entries.get(name).copied();
        if (nd == d && old == name) || !self.may_rename(ino, d, nd, target, how) {
            return;
        }
        let flags = RenameFlags {
            noreplace: how == How::NoReplace,
            exchange: how == How::Exchange,
        };
        let white = NewInode {
            mode: S_IFCHR,
            ..Default::default()
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
        self.renamed((d, &old), (nd, name), ino, target, how);
    }

    /// The model after a rename.
    fn renamed(
        &mut self,
        old: (u64, &[u8]),
        new: (u64, &[u8]),
        ino: u64,
        target: Option<u64>,
        how: How,
    ) {
        self.model.unname(old.0, old.1);
        if target.is_some() {
            self.model.unname(new.0, new.1);
        }
        self.model.name_in(new.0, new.1, ino);
        match (how, target) {
            (How::Exchange, Some(t)) => self.model.name_in(old.0, old.1, t),
            (_, Some(t)) => self.lost_name(t),
            _ => {}
        }
        if how == How::Whiteout {
            let e = self
                .with(old.0, |fs, di| fs.lookup(di, old.1))
                .expect("lookup")
                .expect("whiteout");
            let node = Node {
                mode: S_IFCHR,
                nlink: 1,
                ..Node::default()
            };
            self.model.nodes.insert(e.ino, node);
            self.model.name_in(old.0, old.1, e.ino);
        }
    }
}
