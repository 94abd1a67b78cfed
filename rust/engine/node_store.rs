// SPDX-License-Identifier: GPL-2.0

//! Reading nodes, and the cache of clean ones.
//!
//! # Reading
//!
//! A node that comes from the device is checked before anybody sees it: checksum against its header
//! *and* against the pointer that led to it, filesystem, address, generation, tree, level, and its
//! whole structure. A node that fails is read from its second copy, if the pointer has one.
//!
//! # The cache
//!
//! Nodes by address, in shards with a lock each. A cached node is used only if generation and
//! checksum are those of the pointer: an entry left over from before a block was reused is not taken
//! for the new node. Replacement is by the clock algorithm: a use since the last round of the hand
//! saves an entry.
//!
//! While a node is read, its entry is a marker; others who want it wait for the reader, and look
//! again.
//!
//! # Rule R6
//!
//! I/O owns its buffer. A block being read belongs to the reader alone, and it enters the cache as a
//! node to which the reader holds a reference of its own, taken before the entry becomes visible.
//! Reclaim ([`Shard::sweep`]) drops only nodes to which the cache holds the only reference. Blocks
//! being written are private copies that belong to the commit ([`crate::engine::btree::NodeSink`]).
//! So a release can never meet an I/O on the same buffer.
//!
//! # Locking
//!
//! A shard's lock is innermost: nothing is read or waited for under it, and memory is allocated in a
//! NOFS scope, because the shrinker takes this lock.

use crate::engine::btree::{Node, TreeId};
use crate::engine::format::node::NodeHeader;
use crate::engine::format::{corrupt_fmt, NodePtr};
use crate::os::atomic::{AtomicU64, Ordering};
use crate::os::{Block, Device, Map, Mutex, NoFs, Shared, WaitQueue};
use kernel::prelude::*;

const SHARDS: usize = 64;

enum Entry {
    /// Somebody reads it.
    Reading,
    /// Here it is. The flag says that it was used since the hand passed.
    Ready(Shared<Node>, bool),
}

struct Shard {
    nodes: Map<u64, Entry>,
    /// Number of `Ready` entries.
    ready: usize,
    /// Address from which the next sweep goes on.
    hand: u64,
}

struct Room {
    shard: Mutex<Shard>,
    /// Number of reads that have ended; what waiters watch.
    ended: AtomicU64,
    wait: WaitQueue,
}

impl Shard {
    /// Drops up to `want` nodes that nobody else has a reference to; all that were not used
    /// recently come first. Answers how many it dropped.
    fn sweep(&mut self, want: usize) -> usize {
        let mut dropped = 0;
        let mut steps = 2 * self.nodes.len() + 2;
        while dropped < want && steps > 0 {
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
                // R6: only what nobody else holds.
                Some(Entry::Ready(node, _)) => Shared::get_mut(node).is_some(),
                _ => false,
            };
            if drop_it {
                self.remove_ready(addr);
                dropped += 1;
            }
        }
        dropped
    }

    fn remove_ready(&mut self, addr: u64) {
        if let Some(Entry::Ready(..)) = self.nodes.get_mut(&addr) {
            self.nodes.remove(&addr);
            self.ready = self.ready.saturating_sub(1);
        }
    }

    /// Puts a node in, in the place of whatever was there.
    fn put(&mut self, node: Shared<Node>, max: usize) {
        if self.ready >= max {
            self.sweep(self.ready - max + 1);
        }
        let addr = node.addr();
        match self.nodes.insert(addr, Entry::Ready(node, true)) {
            Ok(Some(Entry::Ready(..))) => {}
            Ok(_) => self.ready += 1,
            // Without memory it is not cached.
            Err(_) => {}
        }
    }
}

/// Reads, checks and caches nodes.
pub struct NodeStore {
    dev: Shared<Device>,
    fsid: u64,
    /// Blocks of the device.
    blocks: u64,
    rooms: KVec<Room>,
    max_per_shard: usize,
}

impl NodeStore {
    /// A store for the filesystem whose nodes carry `fsid`. It caches up to about `max_nodes` nodes
    /// (of 4 KiB).
    pub fn new(dev: Shared<Device>, fsid: u64, max_nodes: usize) -> Result<Self> {
        let mut rooms = KVec::with_capacity(SHARDS, GFP_KERNEL)?;
        for _ in 0..SHARDS {
            let room = Room {
                shard: Mutex::new(Shard { nodes: Map::new(), ready: 0, hand: 0 })?,
                ended: AtomicU64::new(0),
                wait: WaitQueue::new()?,
            };
            rooms.push(room, GFP_KERNEL)?;
        }
        let blocks = dev.blocks();
        Ok(Self { dev, fsid, blocks, rooms, max_per_shard: (max_nodes / SHARDS).max(4) })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.dev
    }

    /// Number of blocks of the device.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// First 8 bytes of the UUID.
    pub fn fsid(&self) -> u64 {
        self.fsid
    }

    fn room(&self, addr: u64) -> Result<&Room> {
        // Fibonacci hashing: neighbouring addresses go to different shards.
        let h = addr.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58;
        self.rooms.get(h as usize % SHARDS).ok_or(EIO)
    }

    /// The node at `ptr`, which belongs to tree `id`.
    pub fn read(&self, ptr: &NodePtr, id: &TreeId) -> Result<Shared<Node>> {
        let room = self.room(ptr.addr)?;
        let _nofs = NoFs::enter();
        loop {
            let ended;
            {
                let mut shard = room.shard.lock();
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
            // The count is taken under the lock under which the marker was seen, and grows after
            // the marker is gone: no end is missed.
            if let Some(seen) = ended {
                room.wait.wait_until(|| room.ended.load(Ordering::Acquire) != seen);
                continue;
            }
            let read = self.read_copies(ptr, id).and_then(Shared::new);
            {
                let mut shard = room.shard.lock();
                if let Some(Entry::Reading) = shard.nodes.get_mut(&ptr.addr) {
                    shard.nodes.remove(&ptr.addr);
                }
                if let Ok(node) = &read {
                    // R6: our own reference exists before the entry does.
                    shard.put(node.clone(), self.max_per_shard);
                }
            }
            room.ended.fetch_add(1, Ordering::Release);
            room.wait.wake_all();
            return read;
        }
    }

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

    /// Reads the node, from its second copy if the first one fails.
    fn read_copies(&self, ptr: &NodePtr, id: &TreeId) -> Result<Node> {
        match self.read_at(ptr.addr, ptr, id) {
            Err(e) if ptr.addr2 == 0 => Err(e),
            Err(_) => self.read_at(ptr.addr2, ptr, id),
            good => good,
        }
    }

    fn read_at(&self, addr: u64, ptr: &NodePtr, id: &TreeId) -> Result<Node> {
        if addr >= self.blocks {
            return Err(self.complain(ptr, id, "beyond the end of the device"));
        }
        let mut image = Block::zeroed()?;
        self.dev.read(addr, &mut image)?;
        let bad = |what| self.complain(ptr, id, what);
        let (h, crc) = NodeHeader::decode(&image).map_err(bad)?;
        let wrong = if h.fsid != self.fsid {
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
        if let Some(what) = wrong {
            return Err(bad(what));
        }
        Node::parse(image, &h, ptr, self.blocks).map_err(bad)
    }

    /// Puts a written node without children in memory into the cache. What is on the device must be
    /// the same.
    pub(crate) fn insert(&self, node: Shared<Node>) {
        let Ok(room) = self.room(node.addr()) else { return };
        let _nofs = NoFs::enter();
        let mut shard = room.shard.lock();
        // A reader of an older node at this address must find its marker.
        if !matches!(shard.nodes.get_mut(&node.addr()), Some(Entry::Reading)) {
            shard.put(node, self.max_per_shard);
        }
    }

    /// Drops the node at `addr`: its block was freed. Only saves memory: see the module's
    /// description.
    pub fn forget(&self, addr: u64) {
        if let Ok(room) = self.room(addr) {
            room.shard.lock().remove_ready(addr);
        }
    }

    /// Number of nodes in the cache. For the shrinker.
    pub fn cached(&self) -> u64 {
        self.rooms.iter().map(|r| r.shard.lock().ready as u64).sum()
    }

    /// Drops up to about `want` nodes; answers how many. For the shrinker.
    pub fn shrink(&self, want: u64) -> u64 {
        let mut dropped = 0;
        let share = usize::try_from(want).unwrap_or(usize::MAX).div_ceil(SHARDS);
        for room in self.rooms.iter() {
            if dropped >= want {
                break;
            }
            dropped += room.shard.lock().sweep(share) as u64;
        }
        dropped
    }
}
