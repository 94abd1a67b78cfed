// SPDX-License-Identifier: GPL-2.0

//! The table of inodes in memory.
//!
//! # Model
//!
//! An inode is in the table while the VFS uses it (`users`) or while it is dirty. A commit finds
//! changed inodes here and nowhere else, so the inode tree is up to date for every inode that is
//! *not* in the table.
//!
//! # Locks
//!
//! The table consists of shards with a mutex each. Only the look-up is under it; inodes are read
//! without it, and a ticket shows whether what was read may be old.
//!
//! Tests: `tools/engine/tests/threads.rs`, `tools/engine/tests/stress.rs`,
//! `tools/engine/tests/memory/main.rs`.

use crate::engine::inode::Inode;
use crate::engine::invariant::{broken, Invariant};
use crate::engine::lock_class;
use crate::os::atomic::{AtomicU64, Ordering};
use crate::os::{Map, Mutex, Shared};
use kernel::prelude::*;

const SHARDS: usize = 16;

/// An inode and the number of its users, which the VFS counts.
struct Entry {
    inode: Shared<Inode>,
    users: u32,
}

struct Shard {
    map: Map<u64, Entry>,
    /// The number of entries removed so far.
    removed: u64,
}

impl Shard {
    /// Removes an inode without users that is clean.
    fn remove_idle(&mut self, ino: u64) -> Option<Shared<Inode>> {
        let e = self.map.get(&ino)?;
        if e.users != 0 || e.inode.is_dirty() {
            return None;
        }
        self.removed = self.removed.wrapping_add(1);
        self.map.remove(&ino).map(|e| e.inode)
    }
}

/// The table: inodes by number.
pub struct InodeTable {
    shards: KVec<Mutex<Shard>>,
    /// The inode number with which the next [`InodeTable::sweep`] begins.
    hand: AtomicU64,
}

/// The result of [`InodeTable::get`].
pub enum Lookup {
    /// The inode, with one more user.
    Here(Shared<Inode>),
    /// The inode is not in the table, and the inode tree is up to date for it, as long as this
    /// ticket is valid.
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
        self.shards
            .get((ino % SHARDS as u64) as usize)
            .ok_or_else(|| {
                broken(
                    Invariant::Contents,
                    format_args!("no shard for inode {ino}"),
                )
            })
    }

    /// Looks an inode up: the inode, with one more user, or a ticket for
    /// [`InodeTable::add_loaded`].
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

    /// Adds a new inode with one user. ENOMEM.
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

    /// Adds an inode, with one user, that was read after [`InodeTable::get`] gave the ticket. If
    /// another task was faster, returns that task's inode with one more user. `None` if the ticket
    /// has expired: meanwhile the inode may have been here, been changed, committed and removed, so
    /// what was read may be old. ENOMEM.
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

    /// Drops one user. Removes and returns the inode if it is clean and has no user left.
    #[must_use = "what its extent maps count for must be given back"]
    pub fn put(&self, ino: u64) -> Option<Shared<Inode>> {
        let mut shard = self.shard(ino).ok()?.lock();
        let e = shard.map.get_mut(&ino)?;
        e.users = e.users.saturating_sub(1);
        shard.remove_idle(ino)
    }

    /// After a commit: removes and returns the inode if it has no user and has not been dirtied
    /// again.
    #[must_use = "what its extent maps count for must be given back"]
    pub fn reap(&self, ino: u64) -> Option<Shared<Inode>> {
        self.shard(ino).ok()?.lock().remove_idle(ino)
    }

    /// Calls `f` for inodes until it returns false, beginning with the one at which it did so the
    /// last time. Calls `f` without the shard's lock. For the shrinker: it skips shards with a lock
    /// that is held.
    pub fn sweep(&self, mut f: impl FnMut(&Shared<Inode>) -> bool) {
        let hand = self.hand.load(Ordering::Relaxed);
        let first = (hand % SHARDS as u64) as usize;
        // The first shard comes twice: from the hand on, and up to it.
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

    /// The lowest number of at least `from` of an inode in the table.
    pub fn first_from(&self, from: u64) -> Option<u64> {
        let firsts = self.shards.iter();
        firsts
            .filter_map(|shard| shard.lock().map.first_ge(from).map(|(ino, _)| ino))
            .min()
    }

    /// Empties the table at unmount. Returns the number of inodes that still had users.
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
