// SPDX-License-Identifier: GPL-2.0

//! Changes of attributes, and the write-back of inodes that comes between them, as rust/vfs makes
//! them.
//!
//! Tests: tools/crash/tests/attributes.rs.

use super::sync::Beside;
use super::*;
use std::sync::mpsc;

impl World {
    /// Passes to the engine the times that only the VFS knows.
    pub(super) fn push_times(&mut self, id: Id) -> Result {
        let Some(h) = self.handles.get_mut(&id).filter(|h| h.dirty) else {
            return Ok(());
        };
        h.dirty = false;
        self.fs.push_times(&h.inode, || *h.lock_times())
    }

    /// Writes an inode back, as the kernel does by itself. While that waits for its transaction,
    /// `ops` happen. Returns how many did.
    pub(super) fn write_inode(&mut self, path: Path, ops: &[Op]) -> Result<usize> {
        let Some(h) = self.find(path).and_then(|id| self.handles.get_mut(&id)) else {
            return Ok(0);
        };
        // A read has updated the access time.
        h.lock_times().atime = now();
        h.dirty = false;
        let (fs, inode, times) = (self.fs.clone(), h.inode.clone(), h.times.clone());
        let (say, hear) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let said = say.clone();
        let (r, n) = std::thread::scope(|s| {
            let other = self.beside(s, Some(say), move || {
                mutant::write_back_waits(Box::new(move || {
                    if said.send(Beside::Reached).is_ok() {
                        let _ = wait.recv();
                    }
                }));
                fs.push_times(&inode, || {
                    *times.lock().unwrap_or_else(PoisonError::into_inner)
                })
            });
            let mut n = Ok(0);
            if matches!(hear.recv(), Ok(Beside::Reached)) {
                let each = (0..ops.len()).try_for_each(|i| self.step(ops, i).map(|_| ()));
                n = each.map(|()| ops.len());
            }
            drop(go);
            (other.join(), n)
        });
        r.unwrap_or(Err(EIO))?;
        n
    }

    /// setattr: makes `change` in the engine's inode and the VFS inode at once.
    fn set_attrs(&mut self, id: Id, change: AttrChange) -> Result {
        let h = &self.handles[&id];
        let list = change
            .mode
            .filter(|_| self.oracle.xattrs(id).contains_key(ACL));
        let both = || {
            let mut t = h.lock_times();
            t.mtime = change.mtime.unwrap_or(t.mtime);
            t.ctime = change.ctime.unwrap_or(t.ctime);
            change
        };
        match list {
            Some(mode) => self.fs.set_attrs_and_acl(&h.inode, &acl(mode), both),
            None => self.fs.set_attrs_with(&h.inode, both),
        }
    }

    /// The object, unless it is a symbolic link.
    fn find_no_link(&self, path: Path) -> Option<Id> {
        let id = self.find(path)?;
        let kind = self.oracle.objects[id].mode & S_IFMT;
        (kind != S_IFLNK).then_some(id)
    }

    /// Sets the time of a truncation, which is a change of attributes, too.
    pub(super) fn truncated(&mut self, id: Id) -> Result {
        let t = self.handles.get(&id).map(|h| *h.lock_times());
        let Some(t) = t else { return Ok(()) };
        self.set_attrs(
            id,
            AttrChange {
                mtime: Some(t.mtime),
                ctime: Some(t.ctime),
                ..AttrChange::default()
            },
        )
    }

    pub(super) fn chmod(&mut self, path: Path, mode: u32) -> Result {
        let Some(id) = self.find_no_link(path) else {
            return Ok(());
        };
        let mode = self.oracle.objects[id].mode & S_IFMT | mode;
        let change = AttrChange {
            mode: Some(mode),
            ctime: Some(now()),
            ..AttrChange::default()
        };
        self.set_attrs(id, change)?;
        self.oracle.set_mode(id, mode);
        if self.oracle.xattrs(id).contains_key(ACL) {
            let mut all = self.oracle.xattrs(id).clone();
            all.insert(ACL, acl(mode));
            self.oracle.set_xattrs(id, all);
        }
        Ok(())
    }

    pub(super) fn chown(&mut self, path: Path, uid: u32) -> Result {
        let Some(id) = self.find_no_link(path) else {
            return Ok(());
        };
        self.oracle.set_owner(id, uid);
        let change = AttrChange {
            uid: Some(uid),
            ctime: Some(now()),
            ..AttrChange::default()
        };
        self.set_attrs(id, change)
    }

    pub(super) fn utimes(&mut self, path: Path, sec: i64) -> Result {
        let Some(id) = self.find_no_link(path) else {
            return Ok(());
        };
        let mtime = Time { sec, nsec: 0 };
        self.oracle.set_mtime(id, mtime);
        let change = AttrChange {
            mtime: Some(mtime),
            ctime: Some(now()),
            ..AttrChange::default()
        };
        self.set_attrs(id, change)
    }

    pub(super) fn set_acl(&mut self, path: Path, mode: u32) -> Result {
        let Some(id) = self.find_no_link(path) else {
            return Ok(());
        };
        let mode = self.oracle.objects[id].mode & !0o777 | mode;
        let mut all = self.oracle.xattrs(id).clone();
        all.insert(ACL, acl(mode));
        self.oracle.set_mode(id, mode);
        self.oracle.set_xattrs(id, all);
        self.fs
            .set_acl(&self.inode(id), ACL_ACCESS, Some(&acl(mode)), Some(mode))
    }

    pub(super) fn set_xattr(&mut self, path: Path, name: usize, len: Option<usize>) -> Result {
        let Some(id) = self.find(path) else {
            return Ok(());
        };
        if !matches!(self.oracle.objects[id].mode & S_IFMT, S_IFREG | S_IFDIR) {
            return Ok(());
        }
        let name = XATTRS[name % XATTRS.len()];
        let mut all = self.oracle.xattrs(id).clone();
        let value = len.map(|n| {
            self.stamp += 1;
            let mut v = vec![0; n];
            fill(self.stamp, 0, &mut v);
            v
        });
        let there = match &value {
            Some(v) => all.insert(name, v.clone()).is_some(),
            None => all.remove(name).is_some(),
        };
        if value.is_none() && !there {
            return Ok(());
        }
        self.oracle.set_xattrs(id, all);
        let inode = self.inode(id);
        self.fs.set_xattr(
            &inode,
            USER,
            name.as_bytes(),
            value.as_deref(),
            XattrSet::Any,
        )
    }
}
