// SPDX-License-Identifier: GPL-2.0

//! A node in memory.
//!
//! # Model
//!
//! A node is a page image and, in interior nodes, the children that are in memory. It has three
//! states:
//!
//! - *fresh*: it has no address yet. The tree that holds the only reference changes it in place.
//! - *assigned*: it has an address and is not written yet. It is changed in place like a fresh
//!   node.
//! - *written*: it is frozen for ever. Address, generation and checksum are set and never change.
//!
//! A node with more than one reference is frozen as well, in any state, because a snapshot may be
//! writing it.
//!
//! A node in the cache is written and has no children in memory, so it keeps no other node alive.
//!
//! A node of a tree with sums knows its own sums from the moment that it is written or read; until
//! then they change with its content, and the entry of its parent has none.
//!
//! # Locking
//!
//! The lock of the tree protects the content. The state is in atomics, because write-out moves
//! shared nodes from one state to the next without that lock; `written` is set last (release) and
//! read first (acquire).
//!
//! Tests: `tools/engine/tests/btree.rs`, `tools/engine/tests/btree_damage.rs`,
//! `tools/models/tests/rules/r6.rs`.

use super::page::{self, Page};
use super::Places;
use crate::engine::format::node::{
    NodeHeader, LEAF_SPACE, MAX_LEVEL, MAX_VALUE, NODE_HEADER, SLOT_LEN,
};
use crate::engine::format::sums::Sums;
use crate::engine::format::{NodePtr, TreeId, BLOCK_SIZE};
use crate::engine::invariant::{broken, Invariant};
use crate::os::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::os::{Block, Shared};
use kernel::prelude::*;

/// A reference to a root or a child.
pub enum Link {
    /// On disk, and perhaps in the cache.
    Disk(NodePtr),
    /// In memory: not written yet, or written by a commit after which
    /// [`Tree::demote`](super::Tree::demote) has not run yet.
    Mem(Shared<Node>),
}

impl Clone for Link {
    fn clone(&self) -> Self {
        match self {
            Self::Disk(p) => Self::Disk(*p),
            Self::Mem(n) => Self::Mem(n.clone()),
        }
    }
}

/// A node in memory: see the module's header.
pub struct Node {
    image: Block,
    /// In interior nodes, the children in memory; `None` is a child on disk, with its pointer in
    /// the image. Empty if no child is in memory, else of length `nr` and with room for all children
    /// that the node may get.
    kids: KVec<Option<Shared<Node>>>,
    id: TreeId,
    level: u8,
    nr: usize,
    addr: AtomicU64,
    addr2: AtomicU64,
    generation: AtomicU64,
    crc: AtomicU32,
    /// [`Sums::to_words`] of a written node of a tree with sums.
    sums: [AtomicU64; 2],
    written: AtomicBool,
}

impl Node {
    /// A fresh, empty node.
    pub(super) fn new(id: TreeId, level: u8) -> Result<Self> {
        let kids = match level {
            0 => KVec::new(),
            _ => KVec::with_capacity(id.kind.max_children(), GFP_KERNEL)?,
        };
        Ok(Self {
            image: Block::zeroed()?,
            kids,
            id,
            level,
            nr: 0,
            addr: AtomicU64::new(0),
            addr2: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            crc: AtomicU32::new(0),
            sums: [const { AtomicU64::new(0) }; 2],
            written: AtomicBool::new(false),
        })
    }

    /// A fresh copy, which shares the children in memory.
    pub(super) fn copy_of(old: &Self) -> Result<Self> {
        let mut new = Self::new(old.id, old.level)?;
        new.image.copy_from_slice(&old.image[..]);
        new.nr = old.nr;
        if new.level > 0 {
            for i in 0..new.nr {
                new.kids.push(old.kid(i).cloned(), GFP_KERNEL)?;
            }
        }
        Ok(new)
    }

    /// A copy of a written node for the cache, with all children on disk.
    pub(super) fn clean_copy(old: &Self) -> Result<Self> {
        let mut new = Self::new(old.id, old.level)?;
        new.image.copy_from_slice(&old.image[..]);
        new.nr = old.nr;
        old.put_kids(&mut new.image);
        let p = old.ptr();
        new.set_identity(&p, old.sums().unwrap_or_default());
        Ok(new)
    }

    /// Checks the body of a node that was read, as far as that does not need the parent. `blocks`
    /// is the size of the device. Returns what is wrong.
    pub(crate) fn parse(
        image: Block,
        h: &NodeHeader,
        ptr: &NodePtr,
        blocks: u64,
    ) -> core::result::Result<Self, &'static str> {
        let nr = usize::from(h.nr);
        if h.level > MAX_LEVEL {
            return Err("impossible level");
        }
        if h.level == 0 {
            check_leaf(&image, nr)?;
        } else {
            check_interior(&image, nr, h, blocks)?;
        }
        let sums = match h.id.kind.has_sums() {
            true => image_sums(&image, h.id, h.level, nr),
            false => Sums::default(),
        };
        let node = Self {
            image,
            kids: KVec::new(),
            id: h.id,
            level: h.level,
            nr,
            addr: AtomicU64::new(0),
            addr2: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            crc: AtomicU32::new(0),
            sums: [const { AtomicU64::new(0) }; 2],
            written: AtomicBool::new(false),
        };
        node.set_identity(ptr, sums);
        Ok(node)
    }

    /// Puts the pointers to the children in memory, and their sums, into an image of this node. All
    /// of them must be written.
    fn put_kids(&self, image: &mut Page) {
        let stride = self.stride();
        for (i, kid) in self.kids.iter().enumerate() {
            let Some(kid) = kid else { continue };
            page::set_entry_ptr(image, stride, i, &kid.ptr());
            if let Some(sums) = kid.sums() {
                page::set_entry_sums(image, stride, i, sums);
            }
        }
    }

    /// Makes a node written, with this pointer to it.
    fn set_identity(&self, p: &NodePtr, sums: Sums) {
        self.set_sums(sums);
        self.addr.store(p.addr, Ordering::Relaxed);
        self.addr2.store(p.addr2, Ordering::Relaxed);
        self.generation.store(p.generation, Ordering::Relaxed);
        self.crc.store(p.crc, Ordering::Relaxed);
        self.written.store(true, Ordering::Release);
    }

    /// The tree that the node belongs to.
    pub fn id(&self) -> TreeId {
        self.id
    }

    /// Level, 0 = leaf.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// The block of a node that was read from the device.
    pub(super) fn disk_image(&self) -> &Block {
        &self.image
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.nr
    }

    /// The key of the first entry; 0 if there is none.
    pub(super) fn first_key(&self) -> u64 {
        match self.nr {
            0 => 0,
            _ => self.key(0),
        }
    }

    /// The key of the last entry; 0 if there is none.
    pub(super) fn last_key(&self) -> u64 {
        match self.nr.checked_sub(1) {
            None => 0,
            Some(last) => self.key(last),
        }
    }

    /// Whether an interior node has all the children that it can have.
    pub(super) fn is_full(&self) -> bool {
        self.nr >= self.id.kind.max_children()
    }

    /// Whether the node has no entries.
    pub fn is_empty(&self) -> bool {
        self.nr == 0
    }

    /// Whether the content is frozen and has been passed to the sink of a commit.
    pub fn is_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    /// Block address; 0 if the node has none yet.
    pub fn addr(&self) -> u64 {
        self.addr.load(Ordering::Acquire)
    }

    /// The pointer to a written node.
    pub fn ptr(&self) -> NodePtr {
        NodePtr {
            addr: self.addr(),
            addr2: self.addr2.load(Ordering::Relaxed),
            generation: self.generation.load(Ordering::Relaxed),
            crc: self.crc.load(Ordering::Relaxed),
            level: self.level,
        }
    }

    fn set_sums(&self, sums: Sums) {
        for (to, word) in self.sums.iter().zip(sums.to_words()) {
            to.store(word, Ordering::Relaxed);
        }
    }

    /// The sums of a written node of a tree with sums; `None` for other nodes.
    pub(super) fn sums(&self) -> Option<Sums> {
        let [a, b] = &self.sums;
        (self.id.kind.has_sums() && self.is_written())
            .then(|| Sums::from_words([a.load(Ordering::Relaxed), b.load(Ordering::Relaxed)]))
    }

    /// The sums under child `i` of a node of a tree with sums; `None` if the child is in memory and
    /// not written.
    pub(super) fn sums_under(&self, i: usize) -> Option<Sums> {
        match self.kid(i) {
            Some(kid) => kid.sums(),
            None => Some(page::entry_sums(&self.image, self.stride(), i)),
        }
    }

    /// Bytes of an entry.
    fn stride(&self) -> usize {
        self.id.kind.entry_len()
    }

    /// Where the copies of the node are; nowhere if it has no address yet.
    pub fn places(&self) -> Places {
        let first = self.addr();
        Places {
            first,
            second: self.addr2.load(Ordering::Relaxed),
        }
    }

    /// Gives the node its places: fresh becomes assigned.
    pub(super) fn set_places(&self, places: Places) {
        self.addr2.store(places.second, Ordering::Relaxed);
        self.addr.store(places.first, Ordering::Release);
    }

    /// The image to write at the node's address, with its checksum and its sums. All children must
    /// be written.
    pub(super) fn sealed_image(&self, node_id: u64, generation: u64) -> Result<(Block, u32, Sums)> {
        let mut image = Block::zeroed()?;
        image.copy_from_slice(&self.image[..]);
        self.put_kids(&mut image);
        match self.level {
            0 => page::zero_behind_slots(&mut image, self.nr),
            _ => page::zero_behind_entries(&mut image, self.nr, self.stride()),
        }
        let sums = match self.id.kind.has_sums() {
            true => image_sums(&image, self.id, self.level, self.nr),
            false => Sums::default(),
        };
        let header = NodeHeader {
            node_id,
            addr: self.addr(),
            generation,
            id: self.id,
            level: self.level,
            nr: self.nr as u16,
        };
        let crc = header.seal(&mut image);
        Ok((image, crc, sums))
    }

    /// Freezes the node: assigned becomes written. The caller has passed its image to the sink.
    pub(super) fn set_written(&self, generation: u64, crc: u32, sums: Sums) {
        self.set_sums(sums);
        self.generation.store(generation, Ordering::Relaxed);
        self.crc.store(crc, Ordering::Relaxed);
        self.written.store(true, Ordering::Release);
    }

    /// The bytes in use, of [`LEAF_SPACE`].
    pub(super) fn used(&self) -> usize {
        match self.level {
            0 => page::leaf_used(&self.image, self.nr),
            _ => self.nr * self.stride(),
        }
    }

    /// Key of entry `i`.
    pub(super) fn key(&self, i: usize) -> u64 {
        match self.level {
            0 => page::slot_key(&self.image, i),
            _ => page::entry_key(&self.image, self.stride(), i),
        }
    }

    /// Value `i` of a leaf.
    pub(super) fn value(&self, i: usize) -> &[u8] {
        page::value(&self.image, i)
    }

    /// The first slot of a leaf with a key not below `key`.
    pub(super) fn lower_bound(&self, key: u64) -> usize {
        page::leaf_lower_bound(&self.image, self.nr, key)
    }

    /// The child to follow for `key`.
    pub(super) fn child_for(&self, key: u64) -> usize {
        page::entry_for(&self.image, self.nr, self.stride(), key)
    }

    // Children.

    /// Child `i`, if it is in memory.
    pub(super) fn kid(&self, i: usize) -> Option<&Shared<Node>> {
        self.kids.get(i).and_then(|k| k.as_ref())
    }

    /// Exclusive access to child `i`, if this is the only reference to it.
    pub(super) fn kid_unique(&mut self, i: usize) -> Option<&mut Node> {
        self.kids
            .get_mut(i)
            .and_then(|k| k.as_mut())
            .and_then(Shared::get_mut)
    }

    /// Replaces child `i` of a node that has its list of children.
    pub(super) fn set_kid(&mut self, i: usize, kid: Shared<Node>) -> Result {
        *self
            .kids
            .get_mut(i)
            .ok_or_else(|| broken(Invariant::TreeShape, format_args!("no such child")))? =
            Some(kid);
        Ok(())
    }

    /// Takes child `i` out. The caller must put it back by [`Self::set_kid`].
    pub(super) fn take_kid(&mut self, i: usize) -> Option<Shared<Node>> {
        self.kids.get_mut(i).and_then(|k| k.take())
    }

    /// The link to child `i`.
    pub(super) fn link(&self, i: usize) -> Result<Link> {
        if let Some(kid) = self.kid(i) {
            return Ok(Link::Mem(kid.clone()));
        }
        page::entry_ptr(&self.image, self.stride(), i)
            .map(Link::Disk)
            .ok_or_else(|| broken(Invariant::TreeShape, format_args!("no pointer to a child")))
    }

    /// Calls `f` for every child in memory. If `f` returns a pointer, that child is on disk from
    /// now on.
    pub(super) fn demote_kids(&mut self, mut f: impl FnMut(&mut Shared<Node>) -> Option<NodePtr>) {
        let stride = self.stride();
        for (i, slot) in self.kids.iter_mut().enumerate() {
            let Some(kid) = slot.as_mut() else { continue };
            if let Some(ptr) = f(kid) {
                page::set_entry_ptr(&mut self.image, stride, i, &ptr);
                if let Some(sums) = kid.sums() {
                    page::set_entry_sums(&mut self.image, stride, i, sums);
                }
                *slot = None;
            }
        }
    }

    /// Drops the list of children, all of which must be on disk: for nodes that go into the cache.
    pub(super) fn drop_kid_list(&mut self) {
        self.kids = KVec::new();
    }

    // Changes. The caller must hold the only reference to the node, the node must not be written,
    // and an interior node must have its full list of children, as every copy has.

    /// Inserts or replaces an item of a leaf. Returns false and changes nothing if it does not fit.
    pub(super) fn put_item(&mut self, key: u64, v: &[u8]) -> bool {
        let i = self.lower_bound(key);
        if i < self.nr && self.key(i) == key {
            if page::leaf_overwrite(&mut self.image, i, v) {
                return true;
            }
            let rest = self.used().saturating_sub(page::slot_len(&self.image, i));
            if rest + v.len() > LEAF_SPACE {
                return false;
            }
            self.remove_item(i);
        }
        self.insert_item(i, key, v)
    }

    /// Inserts an item as slot `i` of a leaf; false if it does not fit.
    pub(super) fn insert_item(&mut self, i: usize, key: u64, v: &[u8]) -> bool {
        let done = page::leaf_insert(&mut self.image, self.nr, i, key, v);
        if done {
            self.nr += 1;
        }
        done
    }

    /// Removes slot `i` of a leaf.
    pub(super) fn remove_item(&mut self, i: usize) {
        if page::leaf_remove(&mut self.image, self.nr, i) {
            self.nr -= 1;
        }
    }

    pub(super) fn set_entry_key(&mut self, i: usize, key: u64) {
        let stride = self.stride();
        page::set_entry_key(&mut self.image, stride, i, key);
    }

    /// Inserts a child as entry `i`; false if the node is full.
    pub(super) fn insert_link(&mut self, i: usize, key: u64, link: Link) -> bool {
        let stride = self.stride();
        if self.is_full() || i > self.nr {
            return false;
        }
        let (ptr, kid) = match link {
            Link::Disk(p) => (Some(p), None),
            Link::Mem(n) => (None, Some(n)),
        };
        if self.kids.insert_within_capacity(i, kid).is_err() {
            return false;
        }
        if !page::entry_insert(&mut self.image, self.nr, stride, i, key) {
            return false;
        }
        if let Some(p) = ptr {
            page::set_entry_ptr(&mut self.image, stride, i, &p);
        }
        self.nr += 1;
        true
    }

    /// Removes entry `i` and returns the link to the child.
    pub(super) fn remove_link(&mut self, i: usize) -> Result<Link> {
        let stride = self.stride();
        let disk = page::entry_ptr(&self.image, stride, i);
        let kid = self.kids.remove(i).map_err(|_| {
            broken(
                Invariant::TreeShape,
                format_args!("no such child to remove"),
            )
        })?;
        if page::entry_remove(&mut self.image, self.nr, stride, i) {
            self.nr -= 1;
        }
        match (kid, disk) {
            (Some(n), _) => Ok(Link::Mem(n)),
            (None, Some(p)) => Ok(Link::Disk(p)),
            (None, None) => Err(broken(
                Invariant::TreeShape,
                format_args!("removed child has no pointer"),
            )),
        }
    }

    /// Appends entries `from..to` of `src`, a node of the same level; false if they do not fit.
    pub(super) fn append(&mut self, src: &Node, from: usize, to: usize) -> bool {
        if self.level == 0 {
            if !page::leaf_append(&mut self.image, self.nr, &src.image, from, to) {
                return false;
            }
        } else {
            let stride = self.stride();
            if !page::entry_append(&mut self.image, self.nr, stride, &src.image, from, to) {
                return false;
            }
            for i in from..to {
                let end = self.kids.len();
                if self
                    .kids
                    .insert_within_capacity(end, src.kid(i).cloned())
                    .is_err()
                {
                    return false;
                }
            }
        }
        self.nr += to.saturating_sub(from);
        true
    }

    /// Drops the entries from `nr` on.
    pub(super) fn truncate(&mut self, nr: usize) {
        self.nr = self.nr.min(nr);
        self.kids.truncate(nr);
    }

    /// Moves the last entry to the front of `to` (`last`), or the first one to its end. False if
    /// there is no room, or if only one entry is left.
    pub(super) fn shift_one(&mut self, to: &mut Node, last: bool) -> Result<bool> {
        let i = if last { self.nr.saturating_sub(1) } else { 0 };
        let at = if last { 0 } else { to.nr };
        let key = self.key(i);
        if self.nr <= 1 {
            return Ok(false);
        }
        if self.level == 0 {
            let fits = to.insert_item(at, key, page::value(&self.image, i));
            if fits {
                self.remove_item(i);
            }
            return Ok(fits);
        }
        if to.is_full() {
            return Ok(false);
        }
        // A child on disk takes the sums of its entry along.
        let sums = self.sums_under(i).filter(|_| self.id.kind.has_sums());
        let link = self.remove_link(i)?;
        if !to.insert_link(at, key, link) {
            return Err(broken(
                Invariant::TreeShape,
                format_args!("no room for a child"),
            ));
        }
        if let Some(sums) = sums {
            let stride = to.stride();
            page::set_entry_sums(&mut to.image, stride, at, sums);
        }
        Ok(true)
    }
}

/// Checks the layout of a leaf with `nr` items.
fn check_leaf(p: &Page, nr: usize) -> core::result::Result<(), &'static str> {
    let slots_end = NODE_HEADER + nr * SLOT_LEN;
    if nr == 0 || slots_end > BLOCK_SIZE {
        return Err("impossible number of items");
    }
    let mut end = BLOCK_SIZE;
    let mut last = None;
    for i in 0..nr {
        let key = page::slot_key(p, i);
        if last.is_some_and(|l| l >= key) {
            return Err("keys are out of order");
        }
        last = Some(key);
        let (off, len) = (page::slot_off(p, i), page::slot_len(p, i));
        if len == 0 || len > MAX_VALUE {
            return Err("impossible length of a value");
        }
        if off < slots_end || off + len != end {
            return Err("a value is out of place");
        }
        end = off;
    }
    match is_zero(p, slots_end, end) {
        true => Ok(()),
        false => Err("the space between slots and values is in use"),
    }
}

/// Whether the bytes `[from, to)` are zero.
fn is_zero(p: &Page, from: usize, to: usize) -> bool {
    // Without a branch for each byte.
    let some = p.get(from..to).map(|z| z.iter().fold(0, |all, b| all | b));
    some.is_none_or(|all| all == 0)
}

/// Checks the layout of an interior node with `nr` children, and its pointers.
fn check_interior(
    p: &Page,
    nr: usize,
    h: &NodeHeader,
    blocks: u64,
) -> core::result::Result<(), &'static str> {
    let stride = h.id.kind.entry_len();
    if nr == 0 || nr > h.id.kind.max_children() {
        return Err("impossible number of children");
    }
    let mut last = None;
    for i in 0..nr {
        let key = page::entry_key(p, stride, i);
        if last.is_some_and(|l| l >= key) {
            return Err("keys are out of order");
        }
        last = Some(key);
        let ptr = page::entry_ptr(p, stride, i).ok_or("malformed pointer to a child")?;
        if ptr.addr >= blocks || ptr.addr2 >= blocks {
            return Err("child beyond the end of the device");
        }
        if ptr.level.checked_add(1) != Some(h.level) {
            return Err("child of the wrong level");
        }
        if ptr.generation > h.generation {
            return Err("child is newer than its parent");
        }
    }
    match is_zero(p, NODE_HEADER + nr * stride, BLOCK_SIZE) {
        true => Ok(()),
        false => Err("the space behind the entries is in use"),
    }
}

/// The sums of a node of a tree with sums, from its image.
fn image_sums(p: &Page, id: TreeId, level: u8, nr: usize) -> Sums {
    let stride = id.kind.entry_len();
    (0..nr)
        .map(|i| match level {
            0 => Sums::of_record(page::value(p, i)),
            _ => page::entry_sums(p, stride, i),
        })
        .fold(Sums::default(), Sums::and)
}
