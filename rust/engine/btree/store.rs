// SPDX-License-Identifier: GPL-2.0

//! Reading nodes, and the cache of clean nodes.
//!
//! # Reading
//!
//! A node that comes from the device is checked before any other task sees it: its checksum against
//! its header *and* against the pointer that led to it, then filesystem, address, generation, tree,
//! level, and its whole structure. If a check fails, or the device cannot read the block, the node is
//! read from its second copy, provided that the pointer has one, and the bad copy is noted, to be
//! written anew later ([`super::heal`]).
//!
//! # The cache
//!
//! The cache maps addresses to nodes, in shards with a lock each. A cached node is used only if its
//! generation and checksum are those of the pointer, so an entry that is left over from before its
//! block was reused does not pass for the new node. Replacement follows the clock algorithm: an
//! entry is spared once if it was used since the hand last passed it, not counting the read that
//! put it there.
//!
//! While a task reads a node, the entry is a marker. Other tasks that need the node wait for the
//! reader and look again.
//!
//! # Rule R6
//!
//! I/O owns its buffer. A block being read belongs to the reader alone. It enters the cache as a
//! node to which the reader holds a reference of its own, taken before the entry becomes visible.
//! Reclaim ([`Shard::sweep`]) drops only nodes to which the cache holds the only reference. Blocks
//! being written are private copies that belong to the commit ([`crate::engine::btree::NodeSink`]).
//! So a release never meets an I/O on the same buffer.
//!
//! # Locking
//!
//! A shard's lock is innermost: a task reads nothing and waits for nothing while it holds one, and
//! allocates memory in a NOFS scope. The shrinker takes a shard's lock only if it is free, because
//! its holder may be waiting for memory.
//!
//! Tests: `tools/models/tests/rules/r6.rs`, `tests/vm/t/046-r6.sh`,
//! `tools/engine/tests/btree_damage.rs`, `tools/engine/tests/slow_reads.rs`,
//! `tests/vm/t/091-reclaim.sh`.

use super::heal::BadCopy;
use super::{BadCopies, Node, Reads};
use crate::engine::format::node::NodeHeader;
use crate::engine::format::{corrupt_fmt, NodePtr, Room as Space, Superblock, TreeId};
use crate::engine::invariant::{broken, Invariant, Limit};
use crate::engine::lock_class;
#[cfg(any(ordofs_mutants, ordofs_mutant_r6))]
use crate::engine::mutant::{self, Mutant};
use crate::os::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::os::{trace, Block, Device, Map, Mutex, NoFs, Shared, WaitQueue, Window};
use core::fmt;
use core::ops::{Deref, DerefMut};
use kernel::prelude::*;

#[cfg(any(ordofs_mutants, ordofs_mutant_r6))]
mod weakened;

/// Nodes per shard, from which the number of shards follows. Few, so that a look-up in a shard
/// costs little.
const NODES_PER_SHARD: usize = 32;

/// An entry of the cache.
enum Entry {
    /// A marker: a task reads the node.
    Reading,
    /// The node. The flag says that it was used since the hand passed.
    Ready(Shared<Node>, bool),
}

/// The entries of a shard, by address.
struct Shard {
    nodes: Map<u64, Entry>,
    /// The number of `Ready` entries.
    ready: usize,
    /// Address from which the next sweep goes on.
    hand: u64,
}

/// The result of a sweep, in numbers of entries.
#[derive(Default)]
struct Swept {
    dropped: usize,
    /// Left alone, because a task or a tree holds a reference.
    held: usize,
    /// Left alone, because it is a marker.
    reading: usize,
}

/// A shard with its lock, and the queue of the tasks that wait for a reader.
struct Room {
    shard: Mutex<Shard>,
    /// The number of reads that have ended, which waiters watch.
    ended: AtomicU64,
    wait: WaitQueue,
}

impl Shard {
    /// Drops up to `want` nodes to which the cache holds the only reference. Nodes that were not
    /// used recently go first.
    fn sweep(&mut self, want: usize) -> Swept {
        let mut swept = Swept::default();
        // At most twice around, and no longer than it takes to find a few; the next sweep goes on
        // where the hand stops.
        let mut steps = (2 * self.nodes.len() + 2).min(want.saturating_mul(16).saturating_add(64));
        while swept.dropped < want && steps > 0 {
            steps -= 1;
            let Some(addr) = self.nodes.first_ge(self.hand).map(|(a, _)| a) else {
                self.hand = 0;
                continue;
            };
            self.hand = addr.wrapping_add(1);
            let drop_it = match self.nodes.get_mut(&addr) {
                Some(Entry::Ready(_, used)) if *used => {
                    *used = false;
                    false
                }
                // R6: only if the cache holds the only reference.
                Some(Entry::Ready(node, _)) => {
                    let free = Shared::get_mut(node).is_some();
                    swept.held += usize::from(!free);
                    free
                }
                Some(Entry::Reading) => {
                    swept.reading += 1;
                    false
                }
                None => false,
            };
            if drop_it && self.remove_ready(addr) {
                swept.dropped += 1;
            }
        }
        swept
    }

    /// Removes the entry of a node; leaves a marker alone. Returns whether there was a node.
    fn remove_ready(&mut self, addr: u64) -> bool {
        let there = matches!(self.nodes.get_mut(&addr), Some(Entry::Ready(..)));
        if there {
            self.nodes.remove(&addr);
            self.ready = self.ready.saturating_sub(1);
        }
        there
    }

    /// Puts a node into the cache in place of any other entry at its address, and keeps the shard
    /// below `max` nodes.
    fn put(&mut self, node: Shared<Node>, max: usize) {
        if self.ready >= max {
            self.sweep(self.ready - max + 1);
        }
        let addr = node.addr();
        match self.nodes.insert(addr, Entry::Ready(node, false)) {
            Ok(Some(Entry::Ready(..))) => {}
            Ok(_) => self.ready += 1,
            // Without memory the node is not cached.
            Err(_) => {}
        }
    }
}

/// A locked shard. Unlocking it updates the number of cached nodes.
struct Locked<'a, G: DerefMut<Target = Shard>> {
    shard: G,
    before: usize,
    total: &'a AtomicU64,
}

impl<G: DerefMut<Target = Shard>> Deref for Locked<'_, G> {
    type Target = Shard;
    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl<G: DerefMut<Target = Shard>> DerefMut for Locked<'_, G> {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl<G: DerefMut<Target = Shard>> Drop for Locked<'_, G> {
    fn drop(&mut self) {
        let (now, before) = (self.shard.ready as u64, self.before as u64);
        if now != before {
            self.total
                .fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }
}

/// How urgent a read is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// An operation waits for it.
    Waited,
    /// No operation waits for it, or for a task that does.
    Background,
}

/// Why a copy of a node cannot be used.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// EUCLEAN for damage; else the error of the device, or ENOMEM.
    pub error: Error,
    /// The damage in words.
    what: &'static str,
}

impl Fault {
    pub(super) const fn damage(what: &'static str) -> Self {
        Self {
            error: EUCLEAN,
            what,
        }
    }

    /// Whether it says nothing of the copy: there is no memory, or the device is busy.
    pub(super) fn is_passing(&self) -> bool {
        self.error == ENOMEM || self.error == EAGAIN
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self {
            error,
            what: "cannot be read",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

/// Reads, checks and caches nodes.
pub struct NodeStore {
    dev: Shared<Device>,
    node_id: u64,
    /// The number of blocks of the device.
    blocks: AtomicU64,
    /// The blocks where nodes and data may be, when the store was made.
    space: Space,
    /// The number of blocks of the filesystem, or of the device if nothing else is known.
    total: AtomicU64,
    /// The shards; their number is a power of two.
    rooms: KVVec<Room>,
    max_per_shard: AtomicUsize,
    /// The number of cached nodes in all shards.
    cached: AtomicU64,
    /// The shard with which the next [`Self::shrink`] starts.
    next: AtomicU64,
    reads: Shared<Reads>,
    bad_copies: BadCopies,
}

impl NodeStore {
    /// A store for the filesystem whose nodes carry this node id. It caches about `max_nodes` nodes (of 4
    /// KiB). ENOMEM.
    pub fn new(dev: Shared<Device>, node_id: u64, max_nodes: usize) -> Result<Self> {
        let shards = (max_nodes / NODES_PER_SHARD)
            .clamp(16, 512)
            .next_power_of_two();
        let mut rooms = KVVec::with_capacity(shards, GFP_KERNEL)?;
        for _ in 0..shards {
            let room = Room {
                shard: Mutex::new(
                    &lock_class::NODE_SHARD,
                    Shard {
                        nodes: Map::new(),
                        ready: 0,
                        hand: 0,
                    },
                )?,
                ended: AtomicU64::new(0),
                wait: WaitQueue::new()?,
            };
            rooms.push(room, GFP_KERNEL)?;
        }
        let blocks = dev.blocks();
        Ok(Self {
            dev,
            node_id,
            blocks: AtomicU64::new(blocks),
            space: blocks.into(),
            total: AtomicU64::new(blocks),
            rooms,
            max_per_shard: AtomicUsize::new((max_nodes / shards).max(4)),
            cached: AtomicU64::new(0),
            next: AtomicU64::new(0),
            reads: Shared::new(Reads::new()?)?,
            bad_copies: BadCopies::new()?,
        })
    }

    fn max_per_shard(&self) -> usize {
        self.max_per_shard.load(Ordering::Relaxed)
    }

    /// Sets the size of the cache to about `max_nodes` nodes.
    pub fn set_max(&self, max_nodes: usize) {
        let max = (max_nodes / self.rooms.len().max(1)).max(4);
        self.max_per_shard.store(max, Ordering::Relaxed);
    }

    /// The reads in progress, which the barrier watches.
    pub fn reads(&self) -> &Shared<Reads> {
        &self.reads
    }

    /// The copies of nodes that were found bad.
    pub fn bad_copies(&self) -> &BadCopies {
        &self.bad_copies
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.dev
    }

    /// Limits nodes and data to the blocks where the filesystem of `sb` may have them.
    pub fn confine(mut self, sb: &Superblock) -> Self {
        self.space = sb.into();
        self.total = AtomicU64::new(sb.blocks);
        self
    }

    /// The blocks where nodes and data may be.
    pub fn space(&self) -> Space {
        self.space.grown(self.total.load(Ordering::Acquire))
    }

    /// The device has at least `blocks` blocks.
    pub fn device_has(&self, blocks: u64) {
        self.blocks.fetch_max(blocks, Ordering::AcqRel);
    }

    /// The filesystem has `blocks` blocks from now on.
    pub fn resized(&self, blocks: u64) {
        self.total.store(blocks, Ordering::Release);
    }

    /// The number of blocks of the device.
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Acquire)
    }

    /// The number that every node of this filesystem carries.
    pub fn node_id(&self) -> u64 {
        self.node_id
    }

    /// The shard of an address.
    fn room(&self, addr: u64) -> Result<&Room> {
        // Fibonacci hashing spreads neighbouring addresses over different shards.
        let h = addr.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        self.rooms
            .get(h as usize & (self.rooms.len() - 1))
            .ok_or_else(|| {
                broken(
                    Invariant::Contents,
                    format_args!("no shard for block {addr}"),
                )
            })
    }

    /// Locks a shard.
    fn lock<'a>(&'a self, room: &'a Room) -> impl DerefMut<Target = Shard> + 'a {
        self.locked(room.shard.lock())
    }

    fn locked<'a, G: DerefMut<Target = Shard> + 'a>(
        &'a self,
        shard: G,
    ) -> impl DerefMut<Target = Shard> + 'a {
        Locked {
            before: shard.ready,
            shard,
            total: &self.cached,
        }
    }

    /// The node at `ptr`, which must belong to tree `id`. Sleeps in a read from the device if the
    /// node is not cached, or while another task reads it. EUCLEAN if it is damaged, EIO if the
    /// device cannot read it, ENOMEM.
    pub fn read(&self, ptr: &NodePtr, id: &TreeId) -> Result<Shared<Node>> {
        let room = self.room(ptr.addr)?;
        let _nofs = NoFs::enter();
        loop {
            let ended;
            {
                let mut shard = self.lock(room);
                match shard.nodes.get_mut(&ptr.addr) {
                    Some(Entry::Ready(node, used)) if node.ptr() == *ptr => {
                        *used = true;
                        let node = node.clone();
                        drop(shard);
                        return match node.id() == *id {
                            true => Ok(node),
                            false => Err(self.complain(ptr, id, "node of another tree")),
                        };
                    }
                    Some(Entry::Reading) => ended = Some(room.ended.load(Ordering::Acquire)),
                    _ => {
                        shard.remove_ready(ptr.addr);
                        shard.nodes.insert(ptr.addr, Entry::Reading)?;
                        ended = None;
                    }
                }
            }
            // The count was taken under the lock under which the marker was seen, and the reader
            // raises it after it has removed the marker. So no end of a read is missed.
            if let Some(seen) = ended {
                room.wait
                    .wait_until(|| room.ended.load(Ordering::Acquire) != seen);
                continue;
            }
            let reading = self.reads.begin();
            let read = self
                .read_copies(ptr, id)
                .and_then(|node| self.dev.pass(Window::NodeRead).map(|()| node))
                .and_then(Shared::new);
            #[cfg(any(ordofs_mutants, ordofs_mutant_r6))]
            let read = match read {
                Ok(node) if mutant::is(Mutant::R6) => {
                    let node = self.hand_over(room, node);
                    room.ended.fetch_add(1, Ordering::Release);
                    room.wait.wake_all();
                    return node;
                }
                other => other,
            };
            {
                let mut shard = self.lock(room);
                if let Some(Entry::Reading) = shard.nodes.get_mut(&ptr.addr) {
                    shard.nodes.remove(&ptr.addr);
                }
                if let Ok(node) = &read {
                    // R6: this task's own reference exists before the entry does.
                    shard.put(node.clone(), self.max_per_shard());
                }
            }
            room.ended.fetch_add(1, Ordering::Release);
            room.wait.wake_all();
            drop(reading);
            let error = read.as_ref().err().map_or(0, |e| e.to_errno());
            let level = u32::from(ptr.level);
            trace::node_read(self.dev.id(), ptr.addr, level, id.owner, error);
            let _ = self.dev.pass(Window::NodeCached);
            return read;
        }
    }

    /// The node at `ptr`, which must belong to tree `id`, if it is in the cache. Waits for no read.
    pub(super) fn cached_node(&self, ptr: &NodePtr, id: &TreeId) -> Option<Shared<Node>> {
        let room = self.room(ptr.addr).ok()?;
        match self.lock(room).nodes.get_mut(&ptr.addr) {
            Some(Entry::Ready(node, used)) if node.ptr() == *ptr && node.id() == *id => {
                *used = true;
                Some(node.clone())
            }
            _ => None,
        }
    }

    /// Reports a damaged node in the kernel's log; returns EUCLEAN.
    fn complain(&self, ptr: &NodePtr, id: &TreeId, what: &str) -> Error {
        corrupt_fmt(format_args!(
            "{} tree of {}: node at block {} (level {}, generation {}): {}",
            id.kind.name(),
            id.owner,
            ptr.addr,
            ptr.level,
            ptr.generation,
            what
        ))
    }

    /// Reads the node; from its second copy if the first one fails. A pointer of which one copy is where no
    /// node can be is refused as a whole: if the other one were used, a commit would free that block.
    fn read_copies(&self, ptr: &NodePtr, id: &TreeId) -> Result<Node> {
        let report = |fault| self.report(ptr, id, fault);
        if let Some(what) = self.misplaced(ptr) {
            return Err(self.complain(ptr, id, what));
        }
        match self.read_at(ptr.addr, ptr, id, Urgency::Waited) {
            Ok(node) => Ok(node),
            Err(first) if ptr.addr2 == 0 => Err(report(first)),
            Err(first) => match self.read_at(ptr.addr2, ptr, id, Urgency::Waited) {
                Ok(node) => {
                    self.note_bad(ptr, id, &node, first);
                    Ok(node)
                }
                Err(second) => {
                    let (first, second) = (report(first), report(second));
                    // The node is lost only if both copies are damaged.
                    Err(if first == EUCLEAN { second } else { first })
                }
            },
        }
    }

    /// Why a copy of a node cannot be where a pointer says, if so.
    pub(super) fn misplaced(&self, ptr: &NodePtr) -> Option<&'static str> {
        let mut places = ptr.places().each();
        places.find_map(|at| self.space().refuses(at, 1))
    }

    /// The first copy of `node` is bad, and the second one is used. Nothing is written here: the reader
    /// may hold locks, and reclaim may wait for it.
    fn note_bad(&self, ptr: &NodePtr, id: &TreeId, node: &Node, fault: Fault) {
        if fault.is_passing() {
            return;
        }
        let bad = BadCopy {
            ptr: *ptr,
            id: *id,
            key: node.key(0),
        };
        static LIMIT: Limit = Limit::new();
        if self.bad_copies.found(bad) && LIMIT.allows() {
            pr_warn!(
                "{}: {} tree of {}: first copy of a node at block {} (level {}, generation {}): {}; the second one is used\n",
                self.dev.name(),
                id.kind.name(),
                id.owner,
                ptr.addr,
                ptr.level,
                ptr.generation,
                fault.what
            );
        }
    }

    /// Reports what is wrong with a copy, unless the error comes from the device or from a lack of
    /// memory; returns the error.
    fn report(&self, ptr: &NodePtr, id: &TreeId, fault: Fault) -> Error {
        match fault.error == EUCLEAN {
            true => self.complain(ptr, id, fault.what),
            false => fault.error,
        }
    }

    /// Reads and checks the copy of a node at block `addr`.
    pub(super) fn read_at(
        &self,
        addr: u64,
        ptr: &NodePtr,
        id: &TreeId,
        urgency: Urgency,
    ) -> Result<Node, Fault> {
        if let Some(what) = self.space().refuses(addr, 1) {
            return Err(Fault::damage(what));
        }
        let mut image = Block::zeroed()?;
        match urgency {
            Urgency::Waited => self.dev.read(addr, &mut image)?,
            Urgency::Background => {
                let run = core::slice::from_mut(&mut image);
                self.dev.read_background(addr, run)?;
            }
        }
        let (h, crc) = NodeHeader::decode(&image).map_err(Fault::damage)?;
        let wrong = if h.node_id != self.node_id {
            Some("node of another filesystem")
        } else if h.addr != ptr.addr {
            Some("misplaced: its header has another address")
        } else if h.id != *id {
            Some("node of another tree")
        } else if h.level != ptr.level {
            Some("wrong level")
        } else if h.generation != ptr.generation {
            Some("wrong generation: a lost or misdirected write")
        } else if crc != ptr.crc {
            Some("not the node that its parent describes")
        } else {
            None
        };
        match wrong {
            Some(what) => Err(Fault::damage(what)),
            None => Node::parse(image, &h, ptr, self.blocks()).map_err(Fault::damage),
        }
    }

    /// Puts a written node without children in memory into the cache. The device must have the same
    /// content.
    pub(crate) fn insert(&self, node: Shared<Node>) {
        let Ok(room) = self.room(node.addr()) else {
            return;
        };
        let _nofs = NoFs::enter();
        let mut shard = self.lock(room);
        // A reader of an older node at this address must find its marker.
        if !matches!(shard.nodes.get_mut(&node.addr()), Some(Entry::Reading)) {
            shard.put(node, self.max_per_shard());
        }
    }

    /// Drops the node at `addr`, because its block is being freed or reused. That only saves
    /// memory: a stale entry is never used (see the module's header).
    pub fn forget(&self, addr: u64) {
        if let Ok(room) = self.room(addr) {
            self.lock(room).remove_ready(addr);
        }
    }

    /// The number of nodes in the cache. For the shrinker.
    pub fn cached(&self) -> u64 {
        self.cached.load(Ordering::Relaxed)
    }

    /// Drops up to about `want` nodes and returns how many it dropped. For the shrinker: it skips a
    /// shard if its lock is held, because the holder may be waiting for memory.
    pub fn shrink(&self, want: u64) -> u64 {
        let rooms = self.rooms.len();
        let share = usize::try_from(want)
            .unwrap_or(usize::MAX)
            .div_ceil(rooms.max(1));
        let start = self.next.load(Ordering::Relaxed) as usize;
        let mut all = Swept::default();
        let mut visited = 0;
        while visited < rooms && (all.dropped as u64) < want {
            if let Some(room) = self.rooms.get(start.wrapping_add(visited) & (rooms - 1)) {
                if let Some(shard) = room.shard.try_lock() {
                    let one = self.locked(shard).sweep(share);
                    all.dropped += one.dropped;
                    all.held += one.held;
                    all.reading += one.reading;
                }
            }
            visited += 1;
        }
        self.next.fetch_add(visited as u64, Ordering::Relaxed);
        let (dropped, held, reading) = (all.dropped as u64, all.held as u64, all.reading as u64);
        trace::node_shrink(self.dev.id(), dropped, held, reading);
        dropped
    }
}
