// SPDX-License-Identifier: GPL-2.0

//! Operations on names, and on attributes. Each is one transaction; freeing an inode takes several.
//!
//! The steps that can fail come first. If a step fails after another succeeded, the operation
//! undoes the first one; if that fails too, the filesystem shuts down rather than commit half an
//! operation.
//!
//! Locks: the glue holds `i_rwsem` of the directories, so names do not change during an operation.
//! The engine takes `dir` and `meta` of one inode at a time. The log record of an operation is
//! appended under a lock that orders it with others on the same inode (docs/DESIGN.md §7).
//!
//! Tests: tools/engine/tests/state_machine.rs, attrs.rs, rename_data.rs, threads.rs, abort.rs;
//! tools/crash/tests/attributes.rs; tests/vm/t/020-names.sh, 031-handles.sh, 053-attrs.sh.

use crate::engine::alloc::Priority;
use crate::engine::format::inode::impossible;
use crate::engine::fs::Fs;
use crate::engine::inode::{Inode, Meta};
use crate::engine::invariant::{broken, Invariant};
use crate::engine::log::record::Record;
use crate::engine::mutant::{self, Mutant};
use crate::engine::ops::dir::check_name;
use crate::engine::ops::space::Resize;
use crate::engine::txn::Txn;
use crate::engine::types::*;
use crate::os::atomic::Ordering;
use crate::os::{Shared, Window};
use kernel::prelude::*;

/// The most nodes that an operation on one name dirties.
const NODES: u64 = 24;

/// A random number that is not 0, for [`NewId`].
pub(crate) fn new_generation() -> u32 {
    let random = crate::os::random_u64();
    // Each half alone, so that no value is more likely than others but for the rarest of cases.
    match (random as u32, (random >> 32) as u32) {
        (0, 0) => 1,
        (0, high) => high,
        (low, _) => low,
    }
}

/// The arguments of [`Fs::rename`].
pub struct Rename<'a> {
    /// Directory of the old name.
    pub old_dir: &'a Shared<Inode>,
    /// Old name.
    pub old_name: &'a [u8],
    /// The inode that is renamed.
    pub inode: &'a Shared<Inode>,
    /// Directory of the new name.
    pub new_dir: &'a Shared<Inode>,
    /// New name.
    pub new_name: &'a [u8],
    /// The inode of the new name before the rename, if there is one.
    pub target: Option<&'a Shared<Inode>>,
    /// Flags.
    pub flags: RenameFlags,
    /// RENAME_WHITEOUT: the inode that the old name gets.
    pub whiteout: Option<&'a NewInode<'a>>,
}

impl Fs {
    /// Updates the times and the link count of a directory whose entries have changed.
    fn touch(txn: &Txn<'_>, dir: &Inode, links: i32) {
        let mut m = dir.meta.lock();
        m.raise_change();
        m.attrs.mtime = txn.time();
        m.attrs.ctime = txn.time();
        m.attrs.nlink = m.attrs.nlink.saturating_add_signed(links);
    }

    /// Changes the link count of an inode by `by`, and its change time.
    fn relink(txn: &Txn<'_>, inode: &Inode, by: i32) {
        Self::relink_locked(txn, &mut inode.meta.lock(), by);
    }

    /// [`Fs::relink`] with `meta` locked.
    fn relink_locked(txn: &Txn<'_>, m: &mut Meta, by: i32) {
        m.raise_change();
        m.attrs.ctime = txn.time();
        m.attrs.nlink = m.attrs.nlink.saturating_add_signed(by);
    }

    /// [`Fs::relink`], and the log record of the operation in the same critical section. So a
    /// write-back of the inode's times, which holds no `i_rwsem`, comes before or after both. This
    /// is the last step of an operation: everything that the record says about other inodes is
    /// done.
    fn relink_and_log(txn: &Txn<'_>, inode: &Inode, by: i32, record: &Record<'_>) {
        let mut m = inode.meta.lock();
        Self::relink_locked(txn, &mut m, by);
        txn.log(record);
    }

    /// Chooses the number, the birth time and the generation number of a new inode. Not an
    /// operation: a commit may come before the one that makes the inode, and counts the number all
    /// the same. One that is never used is lost.
    ///
    /// After a crash a number may be given out a second time. The generation number keeps file
    /// handles of the lost inode from finding the new one.
    pub fn new_id(&self) -> NewId {
        NewId {
            ino: self.next_ino.fetch_add(1, Ordering::Relaxed),
            born: self.time(),
            generation: new_generation(),
        }
    }

    /// Makes a new inode, in the inode table and on the commit's list. The time of the operation
    /// becomes its birth time. EINVAL for attributes that no inode can have.
    fn new_inode(
        &self,
        txn: &mut Txn<'_>,
        new: &NewInode<'_>,
        nlink: u32,
        (parent, home_ag): (u64, u32),
    ) -> Result<Shared<Inode>> {
        let NewId {
            ino,
            born: t,
            generation,
        } = new.id.unwrap_or_else(|| self.new_id());
        txn.set_time(t);
        let attrs = Attrs {
            mode: new.mode,
            nlink,
            uid: new.uid,
            gid: new.gid,
            rdev: new.rdev,
            size: new.symlink.map_or(0, |s| s.len() as u64),
            flags: new.flags,
            atime: t,
            mtime: t,
            ctime: t,
            btime: t,
            project: new.project,
            handle_generation: generation,
            change: 1,
            home_ag,
            ..Attrs::default()
        };
        if impossible(&attrs).is_some() {
            return Err(EINVAL);
        }
        let parent = if attrs.is_dir() { parent } else { 0 };
        let inode = self
            .itable
            .add(Shared::new(Inode::new(ino, attrs, parent)?)?)?;
        let r = match new.symlink {
            Some(target) => self.put_symlink(txn, &inode, target),
            None => Ok(()),
        };
        let r = r.and_then(|()| self.put_new_xattrs(txn, &inode, new.xattrs));
        match r.and_then(|()| txn.dirty(&inode)) {
            Ok(()) => {
                self.inodes.fetch_add(1, Ordering::Relaxed);
                Ok(inode)
            }
            Err(e) => {
                drop(inode);
                self.evict(self.itable.put(ino));
                Err(e)
            }
        }
    }

    /// Drops an inode that `new_inode` made, after the operation failed.
    fn drop_new(&self, inode: &Shared<Inode>) {
        inode.meta.lock().deleted = true;
        self.inodes.fetch_sub(1, Ordering::Relaxed);
        self.evict(self.itable.put(inode.ino()));
    }

    /// EMLINK if the directory cannot have one more subdirectory.
    fn check_links(dir: &Inode) -> Result {
        match dir.meta.lock().attrs.nlink < LINK_MAX {
            true => Ok(()),
            false => Err(EMLINK),
        }
    }

    /// Checks that a name can be created: the directory exists, and the name does not.
    fn check_new(&self, dir: &Inode, name: &[u8]) -> Result {
        check_name(name)?;
        if dir.meta.lock().attrs.nlink == 0 {
            return Err(ENOENT);
        }
        match self.lookup(dir, name)? {
            Some(_) => Err(EEXIST),
            None => Ok(()),
        }
    }

    /// Creates an inode of any type under a name that does not exist yet. EEXIST, ENOENT if the
    /// directory was removed, ENAMETOOLONG, EINVAL, EMLINK, ENOSPC. The caller drops the reference
    /// with [`Fs::iput`].
    pub fn create(
        &self,
        dir: &Shared<Inode>,
        name: &[u8],
        new: &NewInode<'_>,
    ) -> Result<Shared<Inode>> {
        self.check_new(dir, name)?;
        let nodes = NODES + Self::new_xattrs_cost(new.xattrs)?;
        let is_dir = new.mode & S_IFMT == S_IFDIR;
        if new
            .symlink
            .is_some_and(|s| s.is_empty() || s.len() > SYMLINK_MAX)
        {
            return Err(ENAMETOOLONG);
        }
        if is_dir {
            Self::check_links(dir)?;
        }
        let mut txn = self.begin(nodes, Priority::Normal)?;
        txn.dirty(dir)?;
        // In the transaction: a commit that does not have the directory does not have the turn
        // either, so that a replay mostly gives it the same home.
        let home = match is_dir {
            true => self.space.next_home(&self.node_store),
            false => dir.meta.lock().attrs.home_ag,
        };
        let links = if is_dir { 2 } else { 1 };
        let inode = self.new_inode(&mut txn, new, links, (dir.ino(), home))?;
        let kind = mode_to_kind(new.mode);
        if let Err(e) = self.add_entry(&mut txn, dir, name, inode.ino(), kind) {
            self.drop_new(&inode);
            return Err(e);
        }
        Self::touch(&txn, dir, i32::from(is_dir));
        let create = Self::create_record(dir.ino(), &inode, name, new);
        txn.log_all(&create, new.xattrs.iter().map(|x| x.record(inode.ino())));
        Ok(inode)
    }

    /// [`Fs::create`] with these extended attributes.
    pub fn create_with(
        &self,
        dir: &Shared<Inode>,
        name: &[u8],
        new: &NewInode<'_>,
        xattrs: &[NewXattr<'_>],
    ) -> Result<Shared<Inode>> {
        self.create(dir, name, &NewInode { xattrs, ..*new })
    }

    /// Creates an inode without a name (O_TMPFILE). After a crash the next mount frees it.
    pub fn tmpfile(&self, new: &NewInode<'_>) -> Result<Shared<Inode>> {
        let nodes = NODES + Self::new_xattrs_cost(new.xattrs)?;
        let mut txn = self.begin(nodes, Priority::Normal)?;
        let inode = self.new_inode(&mut txn, new, 0, (0, self.space.no_home()))?;
        let create = Self::create_record(0, &inode, &[], new);
        txn.log_all(&create, new.xattrs.iter().map(|x| x.record(inode.ino())));
        Ok(inode)
    }

    /// [`Fs::tmpfile`] with these extended attributes.
    pub fn tmpfile_with(
        &self,
        new: &NewInode<'_>,
        xattrs: &[NewXattr<'_>],
    ) -> Result<Shared<Inode>> {
        self.tmpfile(&NewInode { xattrs, ..*new })
    }

    /// The log record of a creation.
    fn create_record<'a>(
        dir: u64,
        inode: &Inode,
        name: &'a [u8],
        new: &NewInode<'a>,
    ) -> Record<'a> {
        Record::Create {
            dir,
            ino: inode.ino(),
            attrs: inode.attrs(),
            name,
            target: new.symlink.unwrap_or(&[]),
        }
    }

    /// Adds a name for `target`. EEXIST, EMLINK, ENOSPC.
    pub fn link(&self, dir: &Shared<Inode>, name: &[u8], target: &Shared<Inode>) -> Result {
        self.check_new(dir, name)?;
        if target.meta.lock().attrs.nlink >= LINK_MAX {
            return Err(EMLINK);
        }
        let mut txn = self.begin(NODES, Priority::Normal)?;
        txn.dirty(dir)?;
        txn.dirty(target)?;
        self.add_entry(
            &mut txn,
            dir,
            name,
            target.ino(),
            mode_to_kind(target.kind()),
        )?;
        Self::touch(&txn, dir, 0);
        let link = Record::Link {
            dir: dir.ino(),
            ino: target.ino(),
            name,
        };
        Self::relink_and_log(&txn, target, 1, &link);
        Ok(())
    }

    /// Removes a name. ENOTEMPTY for a directory with entries. An inode without names lives until
    /// [`Fs::delete_inode`].
    pub fn unlink(&self, dir: &Shared<Inode>, name: &[u8], victim: &Shared<Inode>) -> Result {
        let is_dir = victim.kind() == S_IFDIR;
        if is_dir && !self.dir_empty(victim)? {
            return Err(ENOTEMPTY);
        }
        let mut txn = self.begin(NODES, Priority::Reclaim)?;
        txn.dirty(dir)?;
        txn.dirty(victim)?;
        let e = self.remove_entry(&mut txn, dir, name)?;
        if e.ino != victim.ino() {
            self.abort("a name changed under its directory's lock");
            return Err(broken(
                Invariant::Name,
                format_args!("inode {} and not {}", e.ino, victim.ino()),
            ));
        }
        Self::touch(&txn, dir, -i32::from(is_dir));
        let unlink = Record::Unlink {
            dir: dir.ino(),
            ino: victim.ino(),
            name,
        };
        Self::relink_and_log(&txn, victim, Self::links_of_name(is_dir), &unlink);
        Ok(())
    }

    /// The change of an inode's link count when it loses a name.
    const fn links_of_name(is_dir: bool) -> i32 {
        if is_dir {
            -2
        } else {
            -1
        }
    }

    /// Renames, with all flags of renameat2(2). EEXIST, ENOENT if the new directory was removed,
    /// ENOTEMPTY, EMLINK, ENOSPC. On an error nothing has changed.
    pub fn rename(&self, r: &Rename<'_>) -> Result {
        check_name(r.new_name)?;
        if r.flags.noreplace && r.target.is_some() {
            return Err(EEXIST);
        }
        if r.inode.kind() == S_IFDIR && !Shared::ptr_eq(r.old_dir, r.new_dir) {
            Self::check_links(r.new_dir)?;
        }
        if r.flags.exchange {
            return self.exchange(r);
        }
        if r.new_dir.meta.lock().attrs.nlink == 0 {
            return Err(ENOENT);
        }
        if let Some(t) = r.target {
            if t.ino() == r.inode.ino() {
                return Ok(());
            }
            if t.kind() == S_IFDIR && !self.dir_empty(t)? {
                return Err(ENOTEMPTY);
            }
            // The file's data must be durable no later than the name that replaces another file.
            self.owe(r.inode);
        }
        // A whiteout is a new inode, so such a rename makes no room.
        let prio = if r.target.is_some() && r.whiteout.is_none() {
            Priority::Reclaim
        } else {
            Priority::Normal
        };
        let nodes = 2 * NODES + Self::new_xattrs_cost(r.whiteout.map_or(&[], |w| w.xattrs))?;
        let mut txn = self.begin(nodes, prio)?;
        for i in [Some(r.old_dir), Some(r.new_dir), Some(r.inode), r.target]
            .into_iter()
            .flatten()
        {
            txn.dirty(i)?;
        }
        let white = match r.whiteout {
            Some(new) => Some((
                self.new_inode(&mut txn, new, 1, (0, self.space.no_home()))?,
                new,
            )),
            None => None,
        };
        let whiteout = white.as_ref().map(|(w, new)| (&**w, *new));
        if let Err(e) = self.move_entry(&mut txn, r, whiteout) {
            if let Some((w, _)) = &white {
                self.drop_new(w);
            }
            return Err(e);
        }
        Self::relink_renamed(&txn, r);
        let rename = Self::rename_record(r);
        match &white {
            Some((w, new)) => {
                // As in the replay, which links an inode that had no name to the old name.
                Self::touch(&txn, r.old_dir, 0);
                w.meta.lock().raise_change();
                Self::log_whiteout(&txn, r, &rename, w, new);
                self.evict(self.itable.put(w.ino()));
            }
            None => Self::relink_and_log(&txn, r.inode, 0, &rename),
        }
        Ok(())
    }

    /// Changes the directory entries of a rename: first the new name, then the old one, which the
    /// whiteout gets if there is one. On an error both are as they were.
    fn move_entry(
        &self,
        txn: &mut Txn<'_>,
        r: &Rename<'_>,
        whiteout: Option<(&Inode, &NewInode<'_>)>,
    ) -> Result {
        let kind = mode_to_kind(r.inode.kind());
        match r.target {
            Some(_) => self.replace_entry(txn, r.new_dir, r.new_name, r.inode.ino(), kind)?,
            None => self.add_entry(txn, r.new_dir, r.new_name, r.inode.ino(), kind)?,
        }
        let old = match whiteout {
            Some((w, new)) => {
                let kind = mode_to_kind(new.mode);
                self.replace_entry(txn, r.old_dir, r.old_name, w.ino(), kind)
            }
            None => self.remove_entry(txn, r.old_dir, r.old_name).map(|_| ()),
        };
        old.inspect_err(|_| {
            let undo = match r.target {
                Some(t) => {
                    let kind = mode_to_kind(t.kind());
                    self.replace_entry(txn, r.new_dir, r.new_name, t.ino(), kind)
                }
                None => self.remove_entry(txn, r.new_dir, r.new_name).map(|_| ()),
            };
            undo.unwrap_or_else(|_| self.abort("cannot undo a rename"));
        })
    }

    /// Updates link counts, times and parent after a rename, except what must change together with
    /// its log record.
    fn relink_renamed(txn: &Txn<'_>, r: &Rename<'_>) {
        let is_dir = r.inode.kind() == S_IFDIR;
        let replaced_dir = r.target.is_some_and(|t| t.kind() == S_IFDIR);
        if let Some(t) = r.target {
            Self::relink(txn, t, Self::links_of_name(replaced_dir));
        }
        if Shared::ptr_eq(r.old_dir, r.new_dir) {
            Self::touch(txn, r.old_dir, -i32::from(replaced_dir));
            return;
        }
        if is_dir {
            r.inode.meta.lock().parent = r.new_dir.ino();
        }
        Self::touch(txn, r.old_dir, -i32::from(is_dir));
        let links = i32::from(is_dir) - i32::from(replaced_dir);
        Self::touch(txn, r.new_dir, links);
    }

    /// Appends the records of a rename that leaves a whiteout, all or none of them: an inode
    /// without a name and its attributes, the rename, and a link of the old name to that inode.
    fn log_whiteout(
        txn: &Txn<'_>,
        r: &Rename<'_>,
        rename: &Record<'_>,
        white: &Inode,
        new: &NewInode<'_>,
    ) {
        let create = Self::create_record(0, white, &[], new);
        let link = Record::Link {
            dir: r.old_dir.ino(),
            ino: white.ino(),
            name: r.old_name,
        };
        let attributes = new.xattrs.iter().map(|x| x.record(white.ino()));
        let group = Iterator::chain(attributes, [*rename, link]);
        let mut m = r.inode.meta.lock();
        Self::relink_locked(txn, &mut m, 0);
        txn.log_all(&create, group);
    }

    /// The log record of a rename.
    fn rename_record<'a>(r: &Rename<'a>) -> Record<'a> {
        Record::Rename {
            old_dir: r.old_dir.ino(),
            new_dir: r.new_dir.ino(),
            ino: r.inode.ino(),
            target: r.target.map_or(0, |t| t.ino()),
            exchange: r.flags.exchange,
            old_name: r.old_name,
            new_name: r.new_name,
        }
    }

    /// RENAME_EXCHANGE. On an error nothing has changed.
    fn exchange(&self, r: &Rename<'_>) -> Result {
        let target = r.target.ok_or(ENOENT)?;
        if target.kind() == S_IFDIR && !Shared::ptr_eq(r.old_dir, r.new_dir) {
            Self::check_links(r.old_dir)?;
        }
        let mut txn = self.begin(2 * NODES, Priority::Normal)?;
        for i in [r.old_dir, r.new_dir, r.inode, target] {
            txn.dirty(i)?;
        }
        let (a, b) = (mode_to_kind(r.inode.kind()), mode_to_kind(target.kind()));
        self.replace_entry(&mut txn, r.new_dir, r.new_name, r.inode.ino(), a)?;
        if let Err(e) = self.replace_entry(&mut txn, r.old_dir, r.old_name, target.ino(), b) {
            self.replace_entry(&mut txn, r.new_dir, r.new_name, target.ino(), b)
                .unwrap_or_else(|_| self.abort("cannot undo an exchange"));
            return Err(e);
        }
        let (da, db) = (
            i32::from(r.inode.kind() == S_IFDIR),
            i32::from(target.kind() == S_IFDIR),
        );
        if Shared::ptr_eq(r.old_dir, r.new_dir) {
            Self::touch(&txn, r.old_dir, 0);
        } else {
            Self::touch(&txn, r.old_dir, db - da);
            Self::touch(&txn, r.new_dir, da - db);
            if da != 0 {
                r.inode.meta.lock().parent = r.new_dir.ino();
            }
            if db != 0 {
                target.meta.lock().parent = r.old_dir.ino();
            }
        }
        Self::relink(&txn, target, 0);
        Self::relink_and_log(&txn, r.inode, 0, &Self::rename_record(r));
        Ok(())
    }

    /// Changes attributes other than the size, for which there is [`Fs::set_size`].
    pub fn set_attrs(&self, inode: &Shared<Inode>, a: &AttrChange) -> Result {
        self.set_attrs_with(inode, || *a)
    }

    /// Changes attributes here and in the VFS inode, as one change. `change` changes the VFS inode
    /// and returns the new values. It is called once, in the critical section in which the
    /// attributes change here, unless this function fails. So a write-back of the inode never sees
    /// one change without the other.
    pub fn set_attrs_with(
        &self,
        inode: &Shared<Inode>,
        change: impl FnOnce() -> AttrChange,
    ) -> Result {
        let mut txn = self.begin(4, Priority::Reclaim)?;
        txn.dirty(inode)?;
        let mut m = inode.meta.lock();
        m.raise_change();
        m.change(&change());
        txn.log(&Record::attrs_but_size(inode.ino(), &m.attrs));
        Ok(())
    }

    /// Write-back of an inode: copies the times and the change counter that the VFS changes by
    /// itself, and nothing else, because all other attributes are changed here first. Runs without
    /// `i_rwsem`, while other tasks change both.
    ///
    /// `vfs` reads the times of the VFS inode, and may be called more than once. What counts is
    /// what it reads in the critical section, after all waiting; an earlier value may be outdated
    /// by then.
    pub fn push_times(&self, inode: &Shared<Inode>, vfs: impl Fn() -> Times) -> Result {
        if inode.meta.lock().news(&vfs()).is_none() {
            return Ok(());
        }
        let early = mutant::is(Mutant::AttrsEarly).then(|| (vfs(), inode.attrs()));
        #[cfg(ordofs_mutants)]
        mutant::write_back();
        self.node_store.device().pass(Window::InodeWrite)?;
        let mut txn = self.begin(4, Priority::Reclaim)?;
        txn.dirty(inode)?;
        let mut m = inode.meta.lock();
        match early {
            None => {
                let news = m.news(&vfs());
                m.change(&news);
            }
            Some((t, a)) => m.change(&AttrChange::stale(&t, &a)),
        }
        txn.log(&Record::attrs_but_size(inode.ino(), &m.attrs));
        Ok(())
    }

    /// Frees an inode without names, when its VFS inode is evicted. Drops the caller's reference,
    /// as [`Fs::iput`] does, whatever it returns.
    pub fn delete_inode(&self, inode: Shared<Inode>) -> Result {
        let r = self.free_inode(&inode);
        self.iput(inode);
        r
    }

    /// Frees everything that an inode without names has, and marks it as deleted. Takes several
    /// transactions.
    pub(crate) fn free_inode(&self, inode: &Shared<Inode>) -> Result {
        inode.meta.lock().doomed = true;
        self.resize(inode, 0, Resize::Silent)?;
        while !self.free_items(inode)? {}
        Ok(())
    }

    /// One transaction of the deletion of an inode that has no data: removes entries and attributes.
    /// Returns whether that was all; the inode is marked as deleted then.
    pub(super) fn free_items(&self, inode: &Shared<Inode>) -> Result<bool> {
        let mut txn = self.begin(NODES, Priority::Reclaim)?;
        txn.dirty(inode)?;
        let done = self.clear_items(&mut txn, inode)?;
        if done {
            inode.meta.lock().deleted = true;
            self.inodes.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(done)
    }

    /// Removes a few items of the inode's `dir` and `xattr` trees. True when none are left.
    fn clear_items(&self, txn: &mut Txn<'_>, inode: &Inode) -> Result<bool> {
        let mut v = crate::engine::btree::ValueBuf::new();
        for lock in [&inode.dir, &inode.xattr] {
            let mut tree = lock.write();
            for _ in 0..16 {
                let Some(k) = tree.find_ge(&self.node_store, 0, &mut v)? else {
                    break;
                };
                txn.charged(&mut tree, |t| t.remove(&self.node_store, k))?;
            }
            if !tree.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
