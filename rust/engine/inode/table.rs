// SPDX-License-Identifier: GPL-2.0

//! The table of inodes in memory.
//!
//! An inode is in the table while the VFS uses it (`users`) or while it is dirty: a commit finds
//! changed inodes here and nowhere else, so the inode tree is true for every inode that is *not* in
//! the table. Shards with a mutex each; only the look-up is under it.

use crate::engine::inode::Inode;
use crate::engine::lock_class;
use crate::os::atomic::{AtomicU64, Ordering};
use crate::os::{Map, Mutex, Shared};
use kernel::prelude::*;

const SHARDS: usize = 16;

struct Entry {
    inode: Shared<Inode>,
    users: u32,
}

struct Shard {
    map: Map<u64, Entry>,
    /// Number of entries that were removed so far.
    removed: u64,
}

impl Shard {
    fn remove_idle(&mut self, ino: u64) -> Option<Shared<Inode>> {
        let e = self.map.get(&ino)?;
        if e.users != 0 || e.inode.is_dirty() {
            return None;
        }
        self.removed = self.removed.wrapping_add(1);
        self.map.remove(&ino).map(|e| e.inode)
    }
}

/// Inode number to inode.
pub struct InodeTable {
    shards: KVec<Mutex<Shard>>,
    /// The inode with which the next [`InodeTable::sweep`] begins.
    hand: AtomicU64,
}

/// Answer of [`InodeTable::get`].
pub enum Lookup {
    /// The inode, with one more user.
    Here(Shared<Inode>),
    /// It is not in the table: the inode tree is true for it, as long as this ticket is valid.
    Not(u64),
}

impl InodeTable {
    /// An empty table.
    pub fn new() -> Result<Self> {
        let mut shards = KVec::with_capacity(SHARDS, GFP_KERNEL)?;
        for _ in 0..SHARDS {
            shards.push(
                Mutex::new(
                    &lock_class::INODE_SHARD,
                    Shard {
                        map: Map::new(),
                        removed: 0,
                    },
                )?,
                GFP_KERNEL,
            )?;
        }
        Ok(Self {
            shards,
            hand: AtomicU64::new(0),
        })
    }

    fn shard(&self, ino: u64) -> Result<&Mutex<Shard>> {
        self.shards.get((ino % SHARDS as u64) as usize).ok_or(EIO)
    }

    /// The inode, with one more user, or a ticket for [`InodeTable::add_loaded`].
    pub fn get(&self, ino: u64) -> Result<Lookup> {
        let mut shard = self.shard(ino)?.lock();
        let removed = shard.removed;
        Ok(match shard.map.get_mut(&ino) {
            Some(e) => {
                e.users += 1;
                Lookup::Here(e.inode.clone())
            }
            None => Lookup::Not(removed),
        })
    }

    /// Adds a new inode with one user.
    pub fn add(&self, inode: Shared<Inode>) -> Result<Shared<Inode>> {
        let ino = inode.ino();
        self.shard(ino)?.lock().map.insert(
            ino,
            Entry {
                inode: inode.clone(),
                users: 1,
            },
        )?;
        Ok(inode)
    }

    /// Adds an inode that was read after [`InodeTable::get`] gave the ticket, with one user, unless
    /// somebody was faster: then theirs, with one more user. `None` when the ticket has expired: in
    /// between the inode may have been here, have been changed, committed and removed, so that what
    /// was read is old.
    pub fn add_loaded(&self, inode: Shared<Inode>, ticket: u64) -> Result<Option<Shared<Inode>>> {
        let ino = inode.ino();
        let mut shard = self.shard(ino)?.lock();
        if let Some(e) = shard.map.get_mut(&ino) {
            e.users += 1;
            return Ok(Some(e.inode.clone()));
        }
        if shard.removed != ticket {
            return Ok(None);
        }
        shard.map.insert(
            ino,
            Entry {
                inode: inode.clone(),
                users: 1,
            },
        )?;
        Ok(Some(inode))
    }

    /// One user less; the inode is removed and returned when it is clean and nobody uses it.
    #[must_use = "what its extent maps count for must be given back"]
    pub fn put(&self, ino: u64) -> Option<Shared<Inode>> {
        let mut shard = self.shard(ino).ok()?.lock();
        let e = shard.map.get_mut(&ino)?;
        e.users = e.users.saturating_sub(1);
        shard.remove_idle(ino)
    }

    /// After a commit: removes and returns the inode if nobody uses it and nobody dirtied it again.
    #[must_use = "what its extent maps count for must be given back"]
    pub fn reap(&self, ino: u64) -> Option<Shared<Inode>> {
        self.shard(ino).ok()?.lock().remove_idle(ino)
    }

    /// Calls `f` for inodes until it returns false, beginning with the one at which it did so the last
    /// time. Each is called without the shard's lock. For the shrinker: it does not wait for locks.
    pub fn sweep(&self, mut f: impl FnMut(&Shared<Inode>) -> bool) {
        let hand = self.hand.load(Ordering::Relaxed);
        let first = (hand % SHARDS as u64) as usize;
        // The first shard twice: from the hand on, and up to it.
        for turn in 0..=SHARDS {
            let Some(shard) = self.shards.get((first + turn) % SHARDS) else {
                return;
            };
            let mut from = if turn == 0 { hand } else { 0 };
            loop {
                let Some(shard) = shard.try_lock() else { break };
                let next = shard.map.first_ge(from).map(|(k, e)| (k, e.inode.clone()));
                drop(shard);
                let Some((ino, inode)) = next else { break };
                if turn == SHARDS && ino >= hand {
                    break;
                }
                if !f(&inode) {
                    self.hand.store(ino, Ordering::Relaxed);
                    return;
                }
                from = ino.saturating_add(1);
            }
        }
    }

    /// Empties the table (unmount); the number of inodes that still had users.
    pub fn clear(&self) -> usize {
        let mut users = 0;
        for shard in self.shards.iter() {
            while let Some((_, e)) = { shard.lock().map.pop_first() } {
                users += usize::from(e.users != 0);
            }
        }
        users
    }
}
