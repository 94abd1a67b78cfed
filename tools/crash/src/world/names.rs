// SPDX-License-Identifier: GPL-2.0

//! Operations on names, as the VFS and rust/fs/namei.rs make them.
//!
//! Tests: tools/crash/tests/attributes.rs, recovery.rs.

use super::{World, XATTRS};
use crate::engine::ops::xattr::USER;
use crate::engine::*;
use crate::oracle::{Id, Xattrs, ROOT};
use crate::os::Shared;
use crate::pages::Io;
use crate::workload::Path;
use kernel::prelude::{Result, ENOENT};

impl World {
    /// What to create, with the number chosen after the last creation, and the time of now.
    fn new_inode<'a>(&mut self, mode: u32, symlink: Option<&'a [u8]>) -> NewInode<'a> {
        let next = self.fs.new_id();
        let chosen = core::mem::replace(&mut self.next, next);
        NewInode {
            mode,
            symlink,
            id: Some(NewId {
                born: next.born,
                ..chosen
            }),
            ..Default::default()
        }
    }

    /// The directory and the last name of a path, and the object there. `None` if there is no such
    /// directory.
    pub(super) fn resolve(&self, path: Path) -> Option<(Id, Path, Option<Id>)> {
        let mut dir = ROOT;
        let mut rest = path;
        while let Some((first, more)) = rest.split_once('/') {
            dir = *self.oracle.names.get(&(dir, first))?;
            if self.oracle.objects[dir].mode & S_IFMT != S_IFDIR {
                return None;
            }
            rest = more;
        }
        Some((dir, rest, self.oracle.names.get(&(dir, rest)).copied()))
    }

    /// The object that a path names.
    pub(super) fn find(&self, path: Path) -> Option<Id> {
        self.resolve(path)?.2
    }

    pub(super) fn is_dir(&self, id: Id) -> bool {
        self.oracle.objects[id].mode & S_IFMT == S_IFDIR
    }

    pub(super) fn inode(&self, id: Id) -> Shared<Inode> {
        self.handles[&id].inode.clone()
    }

    /// Reports the times of changed directories to the oracle.
    pub(super) fn touched(&mut self, ids: &[Id]) {
        for id in ids {
            let mtime = self.inode(*id).attrs().mtime;
            self.oracle.set_mtime(*id, mtime);
        }
    }

    pub(super) fn create(&mut self, path: Path, mode: u32, target: Option<Vec<u8>>) -> Result {
        let Some((dir, name, None)) = self.resolve(path) else {
            return Ok(());
        };
        let new = self.new_inode(mode, target.as_deref());
        let inode = self.fs.create(&self.inode(dir), name.as_bytes(), &new)?;
        let a = inode.attrs();
        let id = self
            .oracle
            .add((inode.ino(), a.handle_generation), a.mode, a.mtime, target);
        self.hold(id, inode);
        self.oracle.names.insert((dir, name), id);
        self.oracle.names_changed();
        self.touched(&[dir]);
        Ok(())
    }

    pub(super) fn link(&mut self, old: Path, new: Path) -> Result {
        let (Some(id), Some((dir, name, None))) = (self.find(old), self.resolve(new)) else {
            return Ok(());
        };
        if self.is_dir(id) {
            return Ok(());
        }
        self.link_to(id, dir, name)
    }

    pub(super) fn link_to(&mut self, id: Id, dir: Id, name: Path) -> Result {
        self.fs
            .link(&self.inode(dir), name.as_bytes(), &self.inode(id))?;
        self.oracle.names.insert((dir, name), id);
        self.oracle.names_changed();
        self.touched(&[dir]);
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: Path, open: bool, dirs: bool) -> Result {
        let Some((dir, name, Some(id))) = self.resolve(path) else {
            return Ok(());
        };
        if self.is_dir(id) != dirs || self.oracle.has_entries(id) {
            return Ok(());
        }
        self.fs
            .unlink(&self.inode(dir), name.as_bytes(), &self.inode(id))?;
        self.oracle.names.remove(&(dir, name));
        self.oracle.objects[id].open |= open;
        self.oracle.names_changed();
        self.touched(&[dir]);
        self.lost_name(id)
    }

    /// Evicts an inode that has no name and no user left.
    pub(super) fn lost_name(&mut self, id: Id) -> Result {
        if self.oracle.links(id) > 0 || self.oracle.objects[id].open {
            return Ok(());
        }
        let Some(mut h) = self.handles.remove(&id) else {
            return Ok(());
        };
        if let Some(f) = &mut h.file {
            f.finish_flights(&Io {
                fs: &self.fs,
                dev: &self.dev,
                rec: &self.rec,
                inode: &h.inode,
                change: 0,
            })?;
        }
        self.fs.delete_inode(h.inode)
    }

    pub(super) fn rename(&mut self, old: Path, new: Path, whiteout: bool) -> Result {
        let (Some((from, old_name, Some(id))), Some((to, new_name, target))) =
            (self.resolve(old), self.resolve(new))
        else {
            return Ok(());
        };
        let into_itself = new.strip_prefix(old).is_some_and(|r| r.starts_with('/'));
        let bad = target.is_some_and(|t| {
            t == id || self.is_dir(t) != self.is_dir(id) || self.oracle.has_entries(t)
        });
        if into_itself || bad || (from, old_name) == (to, new_name) {
            return Ok(());
        }
        if target.is_some() {
            // As rust/fs/namei.rs does: starts all writes and does not wait for them.
            self.with_file(id, |f, io| {
                f.finish_flights(io)?;
                f.start_writeback(io)
            })?;
        }
        let (old_dir, new_dir, inode) = (self.inode(from), self.inode(to), self.inode(id));
        let t = target.map(|t| self.inode(t));
        let label = [NewXattr {
            index: USER,
            name: XATTRS[0].as_bytes(),
            value: b"label",
        }];
        let white = NewInode {
            xattrs: &label,
            ..self.new_inode(0o020000, None)
        };
        self.fs.rename(&Rename {
            old_dir: &old_dir,
            old_name: old_name.as_bytes(),
            inode: &inode,
            new_dir: &new_dir,
            new_name: new_name.as_bytes(),
            target: t.as_ref(),
            flags: RenameFlags::default(),
            whiteout: whiteout.then_some(&white),
        })?;
        drop(t);
        self.oracle.names.remove(&(from, old_name));
        self.oracle.names.insert((to, new_name), id);
        if whiteout {
            let e = self
                .fs
                .lookup(&old_dir, old_name.as_bytes())?
                .ok_or(ENOENT)?;
            let inode = self.fs.iget(e.ino)?;
            let a = inode.attrs();
            let id = (e.ino, a.handle_generation);
            let w = self.oracle.add(id, white.mode, a.mtime, None);
            let xattrs = Xattrs::from([(XATTRS[0], b"label".to_vec())]);
            self.oracle.set_xattrs(w, xattrs);
            self.hold(w, inode);
            self.oracle.names.insert((from, old_name), w);
        }
        self.oracle.names_changed();
        self.touched(&[from, to]);
        if let Some(t) = target {
            self.oracle.replaced_by(id);
            self.lost_name(t)?;
        }
        Ok(())
    }

    pub(super) fn exchange(&mut self, a: Path, b: Path) -> Result {
        let (Some((da, na, Some(ia))), Some((db, nb, Some(ib)))) =
            (self.resolve(a), self.resolve(b))
        else {
            return Ok(());
        };
        let inside = |x: Path, y: Path| y.strip_prefix(x).is_some_and(|r| r.starts_with('/'));
        if ia == ib || inside(a, b) || inside(b, a) {
            return Ok(());
        }
        self.fs.rename(&Rename {
            old_dir: &self.inode(da),
            old_name: na.as_bytes(),
            inode: &self.inode(ia),
            new_dir: &self.inode(db),
            new_name: nb.as_bytes(),
            target: Some(&self.inode(ib)),
            flags: RenameFlags {
                exchange: true,
                noreplace: false,
            },
            whiteout: None,
        })?;
        self.oracle.names.insert((da, na), ib);
        self.oracle.names.insert((db, nb), ia);
        self.oracle.names_changed();
        self.touched(&[da, db]);
        Ok(())
    }

    pub(super) fn tmpfile(&mut self) -> Result {
        if let Some(old) = self.tmp.take() {
            self.oracle.objects[old].open = false;
            self.lost_name(old)?;
        }
        let new = self.new_inode(S_IFREG | 0o600, None);
        let inode = self.fs.tmpfile(&new)?;
        let a = inode.attrs();
        let id = self
            .oracle
            .add((inode.ino(), a.handle_generation), a.mode, a.mtime, None);
        self.oracle.objects[id].open = true;
        self.hold(id, inode);
        self.tmp = Some(id);
        self.write(id, 0, 6000)
    }

    pub(super) fn link_tmp(&mut self, path: Path) -> Result {
        if let (Some(id), Some((dir, name, None))) = (self.tmp, self.resolve(path)) {
            self.tmp = None;
            return self.link_to(id, dir, name);
        }
        Ok(())
    }
}
