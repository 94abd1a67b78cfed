// SPDX-License-Identifier: GPL-2.0

//! Operations on names. Each is one transaction. The glue holds i_rwsem of the directories, so
//! names do not change under us; the engine's locks are taken one at a time.
//!
//! Steps that can fail come first; a step that fails after another one succeeded undoes it, and if
//! that fails too the filesystem shuts down rather than commit half an operation.

use crate::engine::alloc::Priority;
use crate::engine::fs::Fs;
use crate::engine::inode::{Inode, Meta};
use crate::engine::log::record::Record;
use crate::engine::mutant::{self, Mutant};
use crate::engine::ops::dir::check_name;
use crate::engine::ops::space::Resize;
use crate::engine::txn::Txn;
use crate::engine::types::*;
use crate::os::atomic::Ordering;
use crate::os::{Shared, Window};
use kernel::prelude::*;

/// Nodes that an operation on a name may dirty.
const NODES: u64 = 24;
/// More names than that: EMLINK.
const LINK_MAX: u32 = 1 << 30;

/// A rename.
pub struct Rename<'a> {
    /// Directory of the old name.
    pub old_dir: &'a Shared<Inode>,
    /// Old name.
    pub old_name: &'a [u8],
    /// What is renamed.
    pub inode: &'a Shared<Inode>,
    /// Directory of the new name.
    pub new_dir: &'a Shared<Inode>,
    /// New name.
    pub new_name: &'a [u8],
    /// What the new name named so far.
    pub target: Option<&'a Shared<Inode>>,
    /// Flags.
    pub flags: RenameFlags,
    /// RENAME_WHITEOUT: what the old name names afterwards.
    pub whiteout: Option<&'a NewInode<'a>>,
}

impl Fs {
    /// The entries of a directory have changed.
    fn touch(txn: &Txn<'_>, dir: &Inode, links: i32) {
        let mut m = dir.meta.lock();
        m.attrs.mtime = txn.time();
        m.attrs.ctime = txn.time();
        m.attrs.nlink = m.attrs.nlink.saturating_add_signed(links);
    }

    fn relink(txn: &Txn<'_>, inode: &Inode, by: i32) {
        Self::relink_locked(txn, &mut inode.meta.lock(), by);
    }

    fn relink_locked(txn: &Txn<'_>, m: &mut Meta, by: i32) {
        m.attrs.ctime = txn.time();
        m.attrs.nlink = m.attrs.nlink.saturating_add_signed(by);
    }

    /// [`Fs::relink`], and the record of the operation under the same lock: a write-back of the
    /// inode's times, which holds no `i_rwsem`, comes before or after both. Last step of an
    /// operation: what the record says of other inodes has happened to them.
    fn relink_and_log(txn: &Txn<'_>, inode: &Inode, by: i32, record: &Record<'_>) {
        let mut m = inode.meta.lock();
        Self::relink_locked(txn, &mut m, by);
        txn.log(record);
    }

    /// Chooses what a new inode will be known by.
    pub fn new_id(&self) -> NewId {
        NewId {
            ino: self.next_ino.fetch_add(1, Ordering::Relaxed),
            born: self.time(),
        }
    }

    /// The generation of an inode, for file handles. A number that was given out and lost in a
    /// crash is given out again, to an inode that is born later and has another generation (with a
    /// probability of 1 - 2^-32). Made of what is in every record of an inode and never changes,
    /// replay included.
    pub fn generation(&self, ino: u64, born: Time) -> u32 {
        let mut text = [0; 20];
        let parts = [
            &ino.to_le_bytes()[..],
            &born.sec.to_le_bytes(),
            &born.nsec.to_le_bytes(),
        ];
        for (to, from) in text.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        crate::os::siphash(self.hash_key, &text) as u32
    }

    /// A new inode in the table, on the commit's list. The time of the operation becomes its birth
    /// time.
    fn new_inode(
        &self,
        txn: &mut Txn<'_>,
        new: &NewInode<'_>,
        nlink: u32,
        parent: u64,
    ) -> Result<Shared<Inode>> {
        let NewId { ino, born: t } = new.id.unwrap_or_else(|| self.new_id());
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
        };
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
                self.let_go(self.itable.put(ino));
                Err(e)
            }
        }
    }

    /// An inode that `new_inode` made is not wanted after all.
    fn drop_new(&self, inode: &Shared<Inode>) {
        inode.meta.lock().deleted = true;
        self.inodes.fetch_sub(1, Ordering::Relaxed);
        self.let_go(self.itable.put(inode.ino()));
    }

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

    /// Creates an inode of any type under a name that does not exist yet.
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
            self.space.turn();
        }
        let mut txn = self.begin(nodes, Priority::Normal)?;
        txn.dirty(dir)?;
        let links = if is_dir { 2 } else { 1 };
        let inode = self.new_inode(&mut txn, new, links, dir.ino())?;
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

    /// [`Fs::create`] of an inode with these extended attributes.
    pub fn create_with(
        &self,
        dir: &Shared<Inode>,
        name: &[u8],
        new: &NewInode<'_>,
        xattrs: &[NewXattr<'_>],
    ) -> Result<Shared<Inode>> {
        self.create(dir, name, &NewInode { xattrs, ..*new })
    }

    /// An inode without a name (O_TMPFILE). A crash frees it.
    pub fn tmpfile(&self, new: &NewInode<'_>) -> Result<Shared<Inode>> {
        let nodes = NODES + Self::new_xattrs_cost(new.xattrs)?;
        let mut txn = self.begin(nodes, Priority::Normal)?;
        let inode = self.new_inode(&mut txn, new, 0, 0)?;
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

    /// One more name for `target`.
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

    /// Removes a name; for a directory it must be empty (ENOTEMPTY). An inode without names lives
    /// until [`Fs::delete_inode`].
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
            return Err(EIO);
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

    /// What losing its name takes from an inode's link count.
    const fn links_of_name(is_dir: bool) -> i32 {
        if is_dir {
            -2
        } else {
            -1
        }
    }

    /// Renames, with all of renameat2(2)'s flags.
    pub fn rename(&self, r: &Rename<'_>) -> Result {
        check_name(r.new_name)?;
        if r.flags.noreplace && r.target.is_some() {
            return Err(EEXIST);
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
            // What the file has goes into the log before the name that replaces another file, or
            // with it.
            self.owe(r.inode);
        }
        // A whiteout is a new inode.
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
            Some(new) => Some((self.new_inode(&mut txn, new, 1, 0)?, new)),
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
                Self::log_whiteout(&txn, r, &rename, w, new);
                self.let_go(self.itable.put(w.ino()));
            }
            None => Self::relink_and_log(&txn, r.inode, 0, &rename),
        }
        Ok(())
    }

    /// Changes the directory entries of a rename: the new name first, then the old one, which the whiteout
    /// gets if there is one. An error leaves both as they were.
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
            undo.unwrap_or_else(|_| self.abort("undoing a rename"));
        })
    }

    /// Link counts, times and parent after a rename, but for what goes with its record.
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

    /// What a rename that leaves a whiteout is in the log, all or none of it: an inode without a
    /// name and its attributes, the rename, and the old name for it.
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

    fn exchange(&self, r: &Rename<'_>) -> Result {
        let target = r.target.ok_or(ENOENT)?;
        let mut txn = self.begin(2 * NODES, Priority::Normal)?;
        for i in [r.old_dir, r.new_dir, r.inode, target] {
            txn.dirty(i)?;
        }
        let (a, b) = (mode_to_kind(r.inode.kind()), mode_to_kind(target.kind()));
        self.replace_entry(&mut txn, r.new_dir, r.new_name, r.inode.ino(), a)?;
        if let Err(e) = self.replace_entry(&mut txn, r.old_dir, r.old_name, target.ino(), b) {
            self.replace_entry(&mut txn, r.new_dir, r.new_name, target.ino(), b)
                .unwrap_or_else(|_| self.abort("undoing an exchange"));
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

    /// Changes attributes; the size has [`Fs::set_size`].
    pub fn set_attrs(&self, inode: &Shared<Inode>, a: &AttrChange) -> Result {
        self.set_attrs_with(inode, || *a)
    }

    /// Changes attributes, here and in the VFS inode: `change` changes the latter, and returns what
    /// it has now. It is called once, in the critical section in which the attributes change here,
    /// unless this fails. So a write-back of the inode never sees one without the other.
    pub fn set_attrs_with(
        &self,
        inode: &Shared<Inode>,
        change: impl FnOnce() -> AttrChange,
    ) -> Result {
        let mut txn = self.begin(4, Priority::Reclaim)?;
        txn.dirty(inode)?;
        let mut m = inode.meta.lock();
        m.change(&change());
        txn.log(&Record::attrs_but_size(inode.ino(), &m.attrs));
        Ok(())
    }

    /// Write-back of an inode: takes over the times that the VFS has changed by itself, and nothing
    /// else: everything else is changed here first. `vfs` reads what the VFS inode has, and may be
    /// called more than once. It runs without `i_rwsem`, while others change both. What counts is
    /// what it reads in the critical section, after all waiting: what was read before may be old by
    /// then.
    pub fn push_times(&self, inode: &Shared<Inode>, vfs: impl Fn() -> Times) -> Result {
        if inode.meta.lock().news(&vfs()).is_none() {
            return Ok(());
        }
        let early = mutant::is(Mutant::AttrsEarly).then(|| (vfs(), inode.attrs()));
        #[cfg(ordofs_mutants)]
        mutant::write_back();
        self.st.device().pass(Window::InodeWrite)?;
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

    /// The VFS inode of an inode without names is evicted: frees everything it has. Also ends the
    /// use of the inode, as [`Fs::iput`], whatever it returns.
    pub fn delete_inode(&self, inode: Shared<Inode>) -> Result {
        let r = self.free_inode(&inode);
        self.iput(inode);
        r
    }

    pub(crate) fn free_inode(&self, inode: &Shared<Inode>) -> Result {
        self.resize(inode, 0, Resize::Silent)?;
        loop {
            let mut txn = self.begin(NODES, Priority::Reclaim)?;
            txn.dirty(inode)?;
            let done = self.clear_items(&mut txn, inode)?;
            if done {
                inode.meta.lock().deleted = true;
                self.inodes.fetch_sub(1, Ordering::Relaxed);
                return Ok(());
            }
        }
    }

    /// Removes a few items of the inode's dir and xattr trees; true when there are none left.
    fn clear_items(&self, txn: &mut Txn<'_>, inode: &Inode) -> Result<bool> {
        let mut v = crate::engine::btree::ValueBuf::new();
        for lock in [&inode.dir, &inode.xattr] {
            let mut tree = lock.write();
            for _ in 0..16 {
                let Some(k) = tree.find_ge(&self.st, 0, &mut v)? else {
                    break;
                };
                txn.charged(&mut *tree, |t| t.dirty_nodes(), |t| t.remove(&self.st, k))?;
            }
            if !tree.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
