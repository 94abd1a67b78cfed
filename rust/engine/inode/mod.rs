// SPDX-License-Identifier: GPL-2.0

//! An inode in memory.
//!
//! | lock | protects |
//! |---|---|
//! | `submitting` | nothing in memory: held shared while dirty pages are being turned into writes in flight |
//! | `snap` | the snapshot that the running commit takes of the inode |
//! | `ordered_sem` | R1: shared while a write starts, exclusive while a fast fsync collects |
//! | `maps` | extent tree, extent maps, delalloc; `seq` changes only with it held for writing |
//! | `dir` | the entries of a directory, or the target of a symbolic link |
//! | `xattr` | extended attributes |
//! | `meta` | attributes |
//! | `ordered` | ordered extents |
//!
//! They nest in the order of the table, outermost first. A task never holds the same lock of two
//! inodes. The other fields are atomics. Sizes are in bytes, everything else in blocks.
//!
//! Tests: `tools/engine/tests/attrs.rs`, `tools/engine/tests/threads.rs`,
//! `tools/models/tests/rules/r1.rs` to `tools/models/tests/rules/r5.rs`, `tests/vm/t/053-attrs.sh`.

pub(crate) mod listed;
pub mod maps;
pub mod ordered;
pub(crate) mod snapshot;
pub mod starting;
pub mod table;

use crate::engine::btree::{Tree, TreeId, TreeKind};
use crate::engine::format::inode::{
    inline_tree_max, InodeRecord, RootForm, MAX_CHANGE, STATE_TRUNCATE,
};
use crate::engine::lock_class;
use crate::engine::types::{AttrChange, Attrs, Time, Times, S_IFMT};
use crate::os::atomic::{AtomicU64, Ordering};
use crate::os::{Mutex, RwLock, WaitQueue};
use kernel::prelude::*;
use listed::Listed;
use maps::Maps;
use ordered::{Collecting, OrderedSet};
use snapshot::{InodeSnap, TreeSnap};

/// The attributes of an inode, and the state that goes into its record with them. Under
/// `Inode.meta`.
pub struct Meta {
    /// The attributes; `size` is the size on disk.
    pub attrs: Attrs,
    /// `STATE_*` of the record.
    pub state: u32,
    /// With [`STATE_TRUNCATE`]: mappings from this file block on have been cut off, and some of
    /// them may still exist; else 0.
    pub cut: u64,
    /// Inode number of the parent, for directories; else 0.
    pub parent: u64,
    /// The inode is deleted: the next commit removes its record.
    pub deleted: bool,
    /// The inode is being deleted: it cannot be looked up any more, and is not recorded in the log.
    pub doomed: bool,
    /// The change time that was last copied from here to the VFS inode, or from there to here. If
    /// the VFS inode has another one, the VFS has changed it by itself since then.
    pub shown: Time,
    /// The change counter that the VFS inode and this one last had in common. What the VFS inode
    /// has more, the VFS has raised by itself since then; what `attrs.change` has more, the VFS
    /// inode does not have yet.
    pub shown_change: u64,
    /// The change counter that the VFS inode had when the I/O of a write ended, for the completion
    /// of that write. Copies of the counter to the VFS inode raise both alike.
    vfs_change: u64,
}

impl Meta {
    fn new(attrs: Attrs, state: u32, cut: u64, parent: u64) -> Self {
        Self {
            attrs,
            state,
            cut,
            parent,
            deleted: false,
            doomed: false,
            shown: attrs.ctime,
            shown_change: attrs.change,
            vfs_change: attrs.change,
        }
    }

    /// Whether the inode is deleted, or is being deleted: it cannot be looked up any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.deleted || self.doomed
    }

    /// Raises the change counter. Every operation that changes data or attributes does so once.
    pub(crate) fn raise_change(&mut self) {
        self.attrs.change = self.attrs.change.saturating_add(1).min(MAX_CHANGE);
    }

    /// Adds what the VFS has raised the change counter by; the VFS inode now has `vfs`.
    pub(crate) fn take_change(&mut self, vfs: u64) {
        let by = vfs.saturating_sub(self.shown_change);
        self.attrs.change = self.attrs.change.saturating_add(by).min(MAX_CHANGE);
        self.shown_change = self.shown_change.max(vfs);
    }

    /// [`Meta::take_change`] with the counter that was noted last ([`Inode::note_change`]).
    pub(crate) fn take_noted_change(&mut self) {
        self.take_change(self.vfs_change);
    }

    /// Marks a truncation as under way: mappings from file block `cut` on are to be freed.
    pub(crate) fn begin_cut(&mut self, cut: u64) {
        self.state |= STATE_TRUNCATE;
        self.cut = cut;
    }

    /// No truncation is under way any more.
    pub(crate) fn end_cut(&mut self) {
        self.state &= !STATE_TRUNCATE;
        self.cut = 0;
    }

    /// Applies a change that the VFS inode gets, too.
    pub(crate) fn change(&mut self, change: &AttrChange) {
        change.apply(&mut self.attrs);
        self.shown = change.ctime.unwrap_or(self.shown);
        if let Some(vfs) = change.change {
            self.take_change(vfs);
        }
    }

    /// The times that the VFS has changed by itself, given those in its inode, and its change
    /// counter if the VFS has raised that. The modification time of a directory is never among them.
    /// The change time is among them only if it differs from the one last copied: otherwise the
    /// engine's may be newer and not copied to the VFS inode yet.
    pub(crate) fn news(&self, vfs: &Times) -> AttrChange {
        let t = &self.attrs;
        let file = !t.is_dir();
        AttrChange {
            atime: Some(vfs.atime).filter(|a| *a != t.atime),
            mtime: Some(vfs.mtime).filter(|m| file && *m != t.mtime),
            ctime: Some(vfs.ctime).filter(|c| file && *c != self.shown),
            change: Some(vfs.change).filter(|c| *c > self.shown_change),
            ..AttrChange::default()
        }
    }
}

/// The engine's inode.
pub struct Inode {
    ino: u64,
    kind: u32,
    /// The snapshot, from when it is taken until the commit fetches it.
    pub(crate) snap: Mutex<Option<KBox<InodeSnap>>>,
    /// Held shared by tasks that write dirty pages back, while they start the writes.
    submitting: RwLock<()>,
    /// R1: see [`starting`].
    pub(crate) ordered_sem: RwLock<()>,
    pub(crate) maps: RwLock<Maps>,
    pub(crate) dir: RwLock<Tree>,
    pub(crate) xattr: RwLock<Tree>,
    pub(crate) meta: Mutex<Meta>,
    pub(crate) ordered: Mutex<OrderedSet>,
    /// The queue of tasks that wait for ordered extents to end.
    pub(crate) ordered_wait: WaitQueue,
    /// R5: raised by every change of `maps`.
    pub(crate) seq: AtomicU64,
    /// The number of direct writes in flight; reads look for them only if there are any.
    pub(crate) direct: AtomicU64,
    /// The lists of dirty inodes that the inode is on.
    pub(crate) listed: Listed,
    /// Generation of the transaction that last changed the inode.
    pub(crate) changed: AtomicU64,
    /// The sections of the record that this code does not know and must keep.
    ignorable: KVec<u8>,
}

/// The tree with this root. Nodes on disk are not read.
fn tree(id: TreeId, root: &RootForm<'_>) -> Result<Tree> {
    match root {
        RootForm::Empty => Ok(Tree::empty(id)),
        RootForm::Inline(items) => Tree::from_inline(id, items),
        RootForm::Ptr(p) => Ok(Tree::from_ptr(id, *p)),
    }
}

impl Inode {
    fn build(
        ino: u64,
        meta: Meta,
        extents: Tree,
        blocks: u64,
        dir: Tree,
        xattr: Tree,
    ) -> Result<Self> {
        Ok(Self {
            ino,
            kind: meta.attrs.mode & S_IFMT,
            snap: Mutex::new(&lock_class::SNAP, None)?,
            submitting: RwLock::new(&lock_class::SUBMITTING, ())?,
            ordered_sem: RwLock::new(&lock_class::ORDERED_SEM, ())?,
            maps: RwLock::new(&lock_class::MAPS, Maps::new(extents, blocks))?,
            dir: RwLock::new(&lock_class::DIR, dir)?,
            xattr: RwLock::new(&lock_class::XATTR, xattr)?,
            meta: Mutex::new(&lock_class::META, meta)?,
            ordered: Mutex::new(&lock_class::ORDERED, OrderedSet::new())?,
            ordered_wait: WaitQueue::new()?,
            seq: AtomicU64::new(1),
            direct: AtomicU64::new(0),
            listed: Listed::new(),
            changed: AtomicU64::new(0),
            ignorable: KVec::new(),
        })
    }

    /// A new inode without content. ENOMEM.
    pub fn new(ino: u64, attrs: Attrs, parent: u64) -> Result<Self> {
        let t = |kind| Tree::empty(TreeId { kind, owner: ino });
        let meta = Meta::new(attrs, 0, 0, parent);
        Self::build(
            ino,
            meta,
            t(TreeKind::Extent),
            0,
            t(TreeKind::Dir),
            t(TreeKind::Xattr),
        )
    }

    /// The inode of a record. EUCLEAN if an inline tree cannot be true, ENOMEM.
    pub fn from_record(ino: u64, rec: &InodeRecord<'_>) -> Result<Self> {
        let id = |kind| TreeId { kind, owner: ino };
        let meta = Meta::new(rec.attrs, rec.state, rec.cut, rec.parent);
        let extents = tree(id(TreeKind::Extent), &rec.extents)?;
        let dir = tree(id(TreeKind::Dir), &rec.dir)?;
        let xattr = tree(id(TreeKind::Xattr), &rec.xattr)?;
        let mut inode = Self::build(ino, meta, extents, rec.blocks, dir, xattr)?;
        inode
            .ignorable
            .extend_from_slice(rec.ignorable, GFP_KERNEL)?;
        Ok(inode)
    }

    /// The sections of the record that this code does not know, for the next record.
    pub(crate) fn ignorable(&self) -> &[u8] {
        &self.ignorable
    }

    /// Inode number.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// The type bits of the mode, which never change.
    pub fn kind(&self) -> u32 {
        self.kind
    }

    /// Runs `f`, which writes dirty pages back: the pages that it finds dirty are in flight when it
    /// returns.
    pub fn while_submitting<R>(&self, f: impl FnOnce() -> R) -> R {
        let _shared = self.submitting.read();
        f()
    }

    /// Waits for the tasks that write dirty pages back, so that what was dirty is in flight. Does
    /// not wait for the I/O. Takes `submitting`, so no folio lock may be held.
    pub fn wait_submitted(&self) {
        drop(self.submitting.write());
    }

    /// A copy of the attributes.
    pub fn attrs(&self) -> Attrs {
        self.meta.lock().attrs
    }

    /// The size in bytes, and the AG in which the file begins.
    pub(crate) fn size_and_home(&self) -> (u64, u64) {
        let meta = self.meta.lock();
        (meta.attrs.size, meta.attrs.home_ag.into())
    }

    /// The file block from which a truncation has left mappings that must go before the file may
    /// reach `end`; `None` if there are none below `end`.
    pub(crate) fn left_behind(&self, end: u64) -> Option<u64> {
        let meta = self.meta.lock();
        (meta.state & STATE_TRUNCATE != 0 && end > meta.cut).then_some(meta.cut)
    }

    /// Copies the attributes to the VFS inode: calls `show` with them under the lock that orders
    /// their changes, so that no copy overwrites a newer one. `vfs_ctime` reads the change time of
    /// the VFS inode (`None`: it has none yet). If the VFS has changed that time by itself, the
    /// later of the two stays; the write-back of the VFS's ([`crate::engine::Fs::push_times`]) is
    /// still to come.
    ///
    /// The second argument of `show` is what is to be *added* to the change counter of the VFS
    /// inode, because the VFS may have raised that meanwhile. A VFS inode that is new begins with
    /// the counter in the attributes.
    pub fn show(&self, vfs_ctime: impl FnOnce() -> Option<Time>, show: impl FnOnce(&Attrs, u64)) {
        let mut m = self.meta.lock();
        let mut attrs = m.attrs;
        let raised = attrs.change.saturating_sub(m.shown_change);
        m.shown_change = attrs.change;
        m.vfs_change = m.vfs_change.saturating_add(raised);
        match vfs_ctime().filter(|c| *c != m.shown && *c > attrs.ctime) {
            Some(newer) if !attrs.is_dir() => attrs.ctime = newer,
            _ => m.shown = attrs.ctime,
        }
        show(&attrs, raised);
    }

    /// Notes the change counter of the VFS inode, which `vfs` reads. Called before a write completes:
    /// the VFS has raised the counter when the pages were changed, and the data must not get to the
    /// disk without it. The completion may wait before it takes the counter over, and a copy to the
    /// VFS inode may come first; so both run under one lock, `meta`, which `vfs` must not take.
    pub fn note_change(&self, vfs: impl FnOnce() -> u64) {
        let mut m = self.meta.lock();
        m.vfs_change = m.vfs_change.max(vfs());
    }

    /// The number of data blocks of the file, for stat(2): the allocated ones, and those that dirty
    /// pages and writes in flight will add. A write that replaces allocated blocks adds none. A
    /// file with data being written must never look empty, because backup tools take that for a
    /// hole.
    pub fn blocks(&self) -> u64 {
        self.maps.read().all_blocks()
    }

    /// R1: waits for writes that are being started, and keeps others from starting.
    pub(crate) fn collecting(&self) -> Collecting<'_> {
        Collecting::enter(&self.ordered_sem)
    }

    /// Takes the snapshot of an inode that no operation changes meanwhile. ENOMEM, with the inode
    /// as it was.
    ///
    /// Everything that needs memory comes first, because the snapshot of a tree takes its list of
    /// replaced nodes along. If the snapshot of one tree failed after that of another had been
    /// taken, the list would be dropped, and the commit would never free those blocks.
    pub(crate) fn take_snapshot(&self) -> Result<KBox<InodeSnap>> {
        let max = inline_tree_max(self.ignorable.len());
        let extents = TreeSnap::prepare(&self.maps.read().tree, max)?;
        let dir = TreeSnap::prepare(&self.dir.read(), max)?;
        let xattr = TreeSnap::prepare(&self.xattr.read(), max)?;
        let (attrs, state, cut, parent, deleted) = {
            let m = self.meta.lock();
            (m.attrs, m.state, m.cut, m.parent, m.deleted)
        };
        let snap = InodeSnap {
            attrs,
            state,
            cut,
            parent,
            deleted,
            blocks: 0,
            extents,
            dir,
            xattr,
        };
        let mut snap = KBox::new(snap, GFP_KERNEL)?;
        {
            let mut m = self.maps.write();
            snap.blocks = m.blocks;
            snap.extents.fill(&mut m.tree)?;
        }
        snap.dir.fill(&mut self.dir.write())?;
        snap.xattr.fill(&mut self.xattr.write())?;
        Ok(snap)
    }

    /// Whether the inode has changed since the last commit or is being committed, and so must stay
    /// in the table.
    pub fn is_dirty(&self) -> bool {
        self.listed.is_dirty()
    }

    /// R5: raises the sequence number after a change of the maps. The argument proves that they are
    /// held for writing.
    pub(crate) fn bump(&self, _maps: &mut Maps) -> u64 {
        self.seq.fetch_add(1, Ordering::Release).wrapping_add(1)
    }

    /// R5: the current sequence number.
    pub fn cookie(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }
}
