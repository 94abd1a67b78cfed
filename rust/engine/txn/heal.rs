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
//! Whether the pointer is part of the tree is looked up before the mutex is taken, because it needs
//! reads. If the superblock is another one then, the look is repeated.
//!
//! The content is the one that the pointer demands, by its checksum and generation. So nothing changes
//! for a reader, and a power cut in the middle leaves a copy that was bad before. It needs no space, so it
//! works on a full disk. Nothing depends on the write: if it fails, no commit fails for that, and the copy
//! is left alone until a scrub comes to it.
//!
//! # What waits for it
//!
//! The commit thread does this after its commit, at most [`MOST`] copies at a time, and scrub does. A
//! commit of another task may have to wait for one write of a block, never for a read, and not for the
//! same copy twice. If the device is slow the commit thread is late; then no copy is healed for a
//! minute ([`REST`]), in which it commits as always.
//!
//! Locks: the commit mutex, for the write of one copy at a time.
//!
//! Tests: tools/engine/tests/copies.rs; tools/crash.

use crate::engine::alloc::ag::Ag;
use crate::engine::alloc::deferred::DEFERRED_TREE;
use crate::engine::btree::descend::Found;
use crate::engine::btree::heal::BadCopy;
use crate::engine::btree::scrub::Examined;
use crate::engine::btree::{TreeId, TreeKind};
use crate::engine::format::ag::{AgRecord, RootForm as AgRoot};
use crate::engine::format::inode::{InodeRecord, RootForm};
use crate::engine::format::NodePtr;
use crate::engine::fs::Fs;
use crate::engine::mutant::{self, Mutant};
use crate::os::atomic::Ordering;
use crate::os::{uptime, NoFs};
use kernel::prelude::*;

/// The most notes that the commit thread takes in one round.
const MOST: usize = 16;
/// A copy that takes longer than this, in seconds, is healed by a slow device.
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

impl Fs {
    /// Writes copies of nodes anew that readers have found bad. Does nothing on a read-only mount.
    /// Must not be called inside a transaction, nor with a lock held.
    pub fn heal(&self) {
        let _nofs = NoFs::enter();
        let bad_copies = self.node_store.bad_copies();
        for _ in 0..MOST {
            let began = uptime();
            if self.healable().is_err() || began < bad_copies.rests_until() {
                return;
            }
            let Some(bad) = bad_copies.take() else {
                return;
            };
            // Without memory, the next reader leaves another note.
            let _ = self.heal_node(&bad, |ptr| bad_copies.may_try(ptr));
            let now = uptime();
            if now.saturating_sub(began) > SLOW {
                bad_copies.rest_until(now.saturating_add(REST));
            }
        }
    }

    /// Writes the bad copy of a node anew that a scrub has found. Returns how many copies were.
    pub(crate) fn heal_scrubbed(&self, bad: &BadCopy) -> u64 {
        match self.healable() {
            Ok(()) => self.heal_node(bad, |_| true).unwrap_or(0),
            Err(_) => 0,
        }
    }

    /// Whether the mount may write.
    fn healable(&self) -> Result {
        match self.replaying.load(Ordering::Acquire) {
            true => Err(EROFS),
            false => self.writable(),
        }
    }

    /// The roots of the newest durable superblock. EIO after a shutdown: a commit that failed may have
    /// left others.
    fn durable_roots(&self) -> Result<Roots> {
        let c = self.commit.lock();
        self.readable()?;
        Ok(Roots {
            generation: c.sb.generation,
            inode: c.sb.inode_root,
            orphan: c.sb.orphan_root,
            ag: c.sb.ag_root,
            deferred: c.sb.deferred_root,
        })
    }

    /// Writes the bad copy of a node anew, if `may` agrees and the node is still part of its tree.
    /// Returns how many copies were written. ENOMEM.
    fn heal_node(&self, bad: &BadCopy, may: impl Fn(&NodePtr) -> bool) -> Result<u64> {
        for _ in 0..LOOKS {
            let roots = self.durable_roots()?;
            let Some(examined) = self.look_again(&roots, bad)? else {
                return Ok(0);
            };
            let Some(image) = examined.image().filter(|_| examined.is_bad()) else {
                // Good now, or none is.
                return Ok(0);
            };
            let c = self.commit.lock();
            self.healable()?;
            if c.sb.generation != roots.generation && !mutant::is(Mutant::HealStale) {
                continue;
            }
            if !may(&bad.ptr) {
                return Ok(0);
            }
            let mut written = 0;
            let places = [bad.ptr.addr, bad.ptr.addr2];
            for (at, _) in places
                .into_iter()
                .zip(&examined.faults)
                .filter(|(_, f)| f.is_some())
            {
                let r = self.node_store.device().write_spare(at, image);
                self.node_store.bad_copies().written(r);
                written += u64::from(r.is_ok());
                self.say_healed(bad, at, r);
            }
            return Ok(written);
        }
        Ok(0)
    }

    fn say_healed(&self, bad: &BadCopy, at: u64, r: Result) {
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

    /// The copies of the node, if it is part of a tree under `roots`. ENOMEM.
    fn look_again(&self, roots: &Roots, bad: &BadCopy) -> Result<Option<Examined>> {
        if mutant::is(Mutant::HealStale) {
            return self.node_store.examine(&bad.ptr, &bad.id).map(Some);
        }
        let root = self.root_of(roots, &bad.id)?;
        let found = self
            .node_store
            .descend(root, &bad.id, bad.key, Some(&bad.ptr))?;
        Ok(match found {
            Found::Node(examined) => Some(examined),
            _ => None,
        })
    }

    /// The root of a tree, as the superblock or the owner's record has it. ENOMEM.
    fn root_of(&self, roots: &Roots, id: &TreeId) -> Result<Option<NodePtr>> {
        let outer = |root, kind| self.record_of(root, TreeId::new(kind, 0), id.owner);
        Ok(match id.kind {
            TreeKind::Inode => roots.inode,
            TreeKind::Orphan => roots.orphan,
            TreeKind::Ag => roots.ag,
            TreeKind::Deferred if *id == DEFERRED_TREE => roots.deferred,
            TreeKind::Groups => outer(roots.ag, TreeKind::Ag)?.and_then(|v| {
                let len = self.space.ag_len(id.owner);
                match AgRecord::decode(id.owner, len, &v).ok()?.groups {
                    AgRoot::Ptr(p) if *id == Ag::tree_id(id.owner) => Some(p),
                    _ => None,
                }
            }),
            TreeKind::Extent | TreeKind::Dir | TreeKind::Xattr => {
                outer(roots.inode, TreeKind::Inode)?.and_then(|v| {
                    let rec = InodeRecord::decode(id.owner, &v).ok()?;
                    let form = match id.kind {
                        TreeKind::Extent => rec.extents,
                        TreeKind::Dir => rec.dir,
                        _ => rec.xattr,
                    };
                    match form {
                        RootForm::Ptr(p) => Some(p),
                        _ => None,
                    }
                })
            }
            _ => None,
        })
    }

    /// A copy of the record with this key. ENOMEM.
    fn record_of(&self, root: Option<NodePtr>, id: TreeId, key: u64) -> Result<Option<KVec<u8>>> {
        let found = self.node_store.descend(root, &id, key, None)?;
        let Found::Leaf(leaf) = found else {
            return Ok(None);
        };
        let Some(value) = leaf.item(key) else {
            return Ok(None);
        };
        let mut v = KVec::new();
        v.extend_from_slice(value, GFP_KERNEL)?;
        Ok(Some(v))
    }
}
