// SPDX-License-Identifier: GPL-2.0

//! Healing: bad copies of nodes are written anew from the good copy, in their places.
//!
//! # Why this cannot hit a block of something else
//!
//! A copy is written under the commit mutex, and only if its pointer is part of a tree of the newest
//! durable superblock. So its block is in use by that generation. No transaction gets such a block: if
//! the running one frees it, it stays used until its commit is durable (R7), and a commit writes to no
//! block that the generation before refers to. A commit needs the mutex. So as long as the mutex is held
//! and the superblock is that one, the block is the node's.
//!
//! That holds if the records of groups are right. So a block that they do not call used is left alone,
//! and so is one in an AG of which they cannot be read. Two owners of a block that is used are not
//! noticed here.
//!
//! Whether the pointer is part of the tree is looked up before the mutex is taken, because it may need
//! reads. If the superblock is another one then, the look is repeated in the node cache alone, where the
//! first look and the commit have left what it needs, and only if that does not do, with reads. The
//! copies are read once: as long as the pointer is part of the tree, so was the block that was read.
//!
//! The content is the one that the pointer demands, by its checksum and generation. So nothing changes
//! for a reader, and a power cut in the middle leaves a copy that was bad before. It needs no space, so it
//! works on a full disk. Nothing depends on the write: if it fails, no commit fails for that, and the copy
//! is left alone until a scrub comes to it. The next flush covers it; a device that has accepted the write
//! and then fails that flush shuts the filesystem down, as it would for any other write.
//!
//! # What waits for it
//!
//! The commit thread does this after its commit, with no lock held, at most [`MOST`] copies and about
//! [`SLOW`] seconds at a time, and scrub does. A commit of another task, or the freezing of the
//! filesystem, may have to wait for one write of a block. The commit thread writes no copy twice in a
//! mount; each scrub tries once. No task waits for the reads of copies and of the nodes above them. The
//! records of space are read as an allocation reads them, with the mutex of the AG: a commit that needs
//! that AG waits for such a read as for any other. If the device is slow the commit thread is late by
//! one copy; then none is healed for a minute ([`REST`]), in which it commits as always. Before each
//! read it asks whether its task has to end, or the system goes to sleep.
//!
//! While the filesystem is frozen nothing is written ([`Fs::pause_healing`]).
//!
//! Locks: the commit mutex, for the write of the copies of one node at a time; under it a shard of the
//! node cache. Before it, that of an AG.
//!
//! Tests: tools/engine/tests/copies; tools/crash.

use crate::engine::alloc::ag::Ag;
use crate::engine::alloc::deferred::DEFERRED_TREE;
use crate::engine::btree::descend::Found;
use crate::engine::btree::heal::BadCopy;
use crate::engine::btree::reader::Reader;
use crate::engine::btree::scrub::Examined;
use crate::engine::btree::{TreeId, TreeKind};
use crate::engine::format::ag::{AgRecord, RootForm as AgRoot};
use crate::engine::format::inode::{InodeRecord, RootForm};
use crate::engine::format::{NodePtr, Superblock};
use crate::engine::fs::Fs;
use crate::engine::invariant::Limit;
use crate::engine::mutant::{self, Mutant};
use crate::os::atomic::Ordering;
use crate::os::{is_freezing, uptime, Block, NoFs};
use kernel::prelude::*;

/// The most notes that the commit thread takes in one round.
const MOST: usize = 16;
/// A copy that takes longer than this, in seconds, is on a slow device. A round that does ends.
const SLOW: u64 = 2;
/// How long healing rests then, in seconds.
const REST: u64 = 60;
/// How often a node is looked up, if commits come in between.
const LOOKS: usize = 4;

/// The roots in a superblock.
#[derive(Clone, Copy)]
struct Roots {
    generation: u64,
    inode: Option<NodePtr>,
    orphan: Option<NodePtr>,
    ag: Option<NodePtr>,
    deferred: Option<NodePtr>,
}

impl Roots {
    fn of(sb: &Superblock) -> Self {
        Self {
            generation: sb.generation,
            inode: sb.inode_root,
            orphan: sb.orphan_root,
            ag: sb.ag_root,
            deferred: sb.deferred_root,
        }
    }
}

/// What a look at a tree has shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The pointer is part of it.
    Yes,
    /// It is not.
    No,
    /// A node above it cannot be read, or is not in the cache.
    Unknown,
}

/// The root of a tree.
enum Root {
    /// It is this one, or the tree is empty or inline.
    Known(Option<NodePtr>),
    /// The record that has it cannot be read, or is not in the cache.
    Unread,
}

impl Fs {
    /// Writes copies of nodes anew that readers have found bad. Ends early if `stop` says so, which is
    /// asked before each read. Does nothing on a read-only mount, and on a frozen one. Must not be
    /// called inside a transaction, nor with a lock held.
    pub fn heal(&self, stop: &dyn Fn() -> bool) {
        let _nofs = NoFs::enter();
        let stop = || stop() || is_freezing();
        let bad_copies = self.node_store.bad_copies();
        let round = uptime();
        for _ in 0..MOST {
            let began = uptime();
            let late = began.saturating_sub(round) > SLOW || began < bad_copies.rests_until();
            if late || stop() || self.healable().is_err() {
                return;
            }
            let Some(bad) = bad_copies.take() else {
                return;
            };
            // After an error, the next reader leaves another note.
            let reader = Reader::waited(&stop);
            let healed = self.heal_node(&bad, None, &reader, |ptr| bad_copies.may_try(ptr));
            let now = uptime();
            if now.saturating_sub(began) > SLOW {
                bad_copies.rest_until(now.saturating_add(REST));
            }
            if healed.is_err() {
                return;
            }
        }
    }

    /// Writes the bad copy of a node anew that a scrub has examined. Returns how many copies were, and
    /// how many blocks were read for that.
    pub(crate) fn heal_scrubbed(&self, bad: &BadCopy, examined: &Examined) -> (u64, u64) {
        let stop = || self.scrub.is_cancelled() || is_freezing();
        let reader = Reader::background(&stop);
        let healed = match self.healable() {
            Ok(()) => self.heal_node(bad, Some(examined), &reader, |_| true),
            Err(_) => Ok(0),
        };
        (healed.unwrap_or(0), reader.blocks())
    }

    /// From now on no copy is healed, because the filesystem is frozen, or they are again. Waits for the
    /// one that is being written.
    pub fn pause_healing(&self, on: bool) {
        let _c = self.commit.lock();
        self.healing_paused.store(on, Ordering::Release);
    }

    /// Whether the mount may write, and is not frozen. Both change under the commit mutex.
    fn healable(&self) -> Result {
        let not_now =
            self.replaying.load(Ordering::Acquire) || self.healing_paused.load(Ordering::Acquire);
        match not_now {
            true => Err(EROFS),
            false => self.writable(),
        }
    }

    /// Writes the bad copies of a node anew, if `may` agrees and the node is still part of its tree.
    /// They are as in `examined`, or else are read. Returns how many were written. ENOMEM, EINTR if the
    /// reader is to stop, EROFS, EIO after a shutdown.
    fn heal_node(
        &self,
        bad: &BadCopy,
        examined: Option<&Examined>,
        reader: &Reader<'_>,
        may: impl Fn(&NodePtr) -> bool,
    ) -> Result<u64> {
        // A scrub has no next reader to wait for.
        let end = match examined {
            Some(_) => u64::MAX,
            None => uptime().saturating_add(SLOW),
        };
        let read_now;
        let mut known = self.confirmed(bad, reader, end)?;
        let examined = match (examined, known) {
            (_, None) => return Ok(0),
            (Some(examined), _) => examined,
            (None, _) => {
                read_now = self.node_store.examine(&bad.ptr, &bad.id, reader)?;
                &read_now
            }
        };
        let Some(image) = examined.image().filter(|_| examined.is_bad()) else {
            // Good now, or none is.
            return Ok(0);
        };
        let places = self.places_to_heal(bad, examined);
        for _ in 0..LOOKS {
            let Some(roots) = known else {
                return Ok(0);
            };
            let part = {
                let c = self.commit.lock();
                self.healable()?;
                let part = match c.sb.generation == roots.generation {
                    true => Part::Yes,
                    false => self.look(&Roots::of(&c.sb), bad, None)?,
                };
                if part == Part::Yes && may(&bad.ptr) {
                    return Ok(self.write_copies(bad, places, image));
                }
                part
            };
            if part != Part::Unknown {
                return Ok(0);
            }
            known = self.confirmed(bad, reader, end)?;
        }
        Ok(0)
    }

    /// The roots of the newest durable superblock, if the pointer is part of a tree under them. `None`
    /// also if that takes longer than to `end`. EIO after a shutdown: a commit that failed may
    /// have left other roots. ENOMEM, EINTR if the reader is to stop.
    fn confirmed(&self, bad: &BadCopy, reader: &Reader<'_>, end: u64) -> Result<Option<Roots>> {
        for _ in 0..LOOKS {
            if uptime() > end {
                break;
            }
            let roots = {
                let c = self.commit.lock();
                self.readable()?;
                Roots::of(&c.sb)
            };
            match self.look(&roots, bad, Some(reader))? {
                Part::Yes => return Ok(Some(roots)),
                Part::No => break,
                // Blocks above may have been reused meanwhile, or the device cannot read them.
                Part::Unknown if self.durable_generation() == roots.generation => break,
                Part::Unknown => {}
            }
        }
        Ok(None)
    }

    /// The places of the bad copies that are in use by the records of groups.
    fn places_to_heal(&self, bad: &BadCopy, examined: &Examined) -> [Option<u64>; 2] {
        let [first, second] = examined.faults.map(|f| f.is_some());
        [(first, bad.ptr.addr), (second, bad.ptr.addr2)].map(|(is_bad, at)| {
            let used =
                is_bad && matches!(self.space.is_used(&self.node_store, at, 1), Ok(Some(true)));
            used.then_some(at)
        })
    }

    /// Writes copies of a node, under the commit mutex. Returns how many were written.
    fn write_copies(&self, bad: &BadCopy, places: [Option<u64>; 2], image: &Block) -> u64 {
        let mut written = 0;
        for at in places.into_iter().flatten() {
            let r = self.node_store.device().write_spare(at, image);
            self.node_store.bad_copies().written(r);
            written += u64::from(r.is_ok());
            self.say_healed(bad, at, r);
        }
        written
    }

    fn say_healed(&self, bad: &BadCopy, at: u64, r: Result) {
        static LIMIT: Limit = Limit::new();
        if !LIMIT.allows() {
            return;
        }
        let (kind, owner) = (bad.id.kind.name(), bad.id.owner);
        match r {
            Ok(()) => pr_info!(
                "{}: {kind} tree of {owner}: the copy of a node at block {at} was written anew\n",
                self.device_name()
            ),
            Err(e) => pr_warn!(
                "{}: {kind} tree of {owner}: the copy of a node at block {at} cannot be written anew: {}\n",
                self.device_name(),
                e.to_errno()
            ),
        }
    }

    /// Is the pointer part of a tree under `roots`? Without a reader the node cache alone is asked.
    /// ENOMEM, EINTR if the reader is to stop.
    fn look(&self, roots: &Roots, bad: &BadCopy, reader: Option<&Reader<'_>>) -> Result<Part> {
        if mutant::is(Mutant::HealStale) {
            return Ok(Part::Yes);
        }
        let Root::Known(root) = self.root_of(roots, &bad.id, reader)? else {
            return Ok(Part::Unknown);
        };
        let store = &self.node_store;
        Ok(
            match store.descend(root, &bad.id, bad.key, Some(&bad.ptr), reader)? {
                Found::Node => Part::Yes,
                Found::Unread => Part::Unknown,
                Found::Leaf(_) | Found::Nothing => Part::No,
            },
        )
    }

    /// The root of a tree, as the superblock or the owner's record has it. ENOMEM, EINTR if the reader
    /// is to stop.
    fn root_of(&self, roots: &Roots, id: &TreeId, reader: Option<&Reader<'_>>) -> Result<Root> {
        let (outer, kind) = match id.kind {
            TreeKind::Inode => return Ok(Root::Known(roots.inode)),
            TreeKind::Orphan => return Ok(Root::Known(roots.orphan)),
            TreeKind::Ag => return Ok(Root::Known(roots.ag)),
            TreeKind::Deferred if *id == DEFERRED_TREE => return Ok(Root::Known(roots.deferred)),
            TreeKind::Groups => (roots.ag, TreeKind::Ag),
            TreeKind::Extent | TreeKind::Dir | TreeKind::Xattr => (roots.inode, TreeKind::Inode),
            _ => return Ok(Root::Known(None)),
        };
        let outer_id = TreeId::new(kind, 0);
        let store = &self.node_store;
        let leaf = match store.descend(outer, &outer_id, id.owner, None, reader)? {
            Found::Leaf(leaf) => leaf,
            Found::Unread => return Ok(Root::Unread),
            Found::Node | Found::Nothing => return Ok(Root::Known(None)),
        };
        let record = leaf.item(id.owner);
        Ok(Root::Known(record.and_then(|v| self.root_in_record(id, v))))
    }

    /// The root of a tree in the record of its owner.
    fn root_in_record(&self, id: &TreeId, record: &[u8]) -> Option<NodePtr> {
        if id.kind == TreeKind::Groups {
            let len = self.space.ag_len(id.owner);
            return match AgRecord::decode(id.owner, len, record).ok()?.groups {
                AgRoot::Ptr(p) if *id == Ag::tree_id(id.owner) => Some(p),
                _ => None,
            };
        }
        let rec = InodeRecord::decode(id.owner, record).ok()?;
        let form = match id.kind {
            TreeKind::Extent => rec.extents,
            TreeKind::Dir => rec.dir,
            _ => rec.xattr,
        };
        match form {
            RootForm::Ptr(p) => Some(p),
            _ => None,
        }
    }
}
