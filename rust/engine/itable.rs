// SPDX-License-Identifier: GPL-2.0

//! The table of inodes in memory.
//!
//! An inode is in the table while the VFS uses it (`users`) or while it is dirty: a commit finds
//! changed inodes here and nowhere else, so the inode tree is true for every inode that is *not* in
//! the table. Shards with a mutex each; only the look-up is under it.

use crate::engine::inode::Inode;
use crate::os::{Map, Mutex, Shared};
use kernel::prelude::*;

const SHARDS: usize = 16;

struct Entry {
    inode: Shared<Inode>,
    users: u32,
}

/// Inode number to inode.
pub struct InodeTable {
    shards: KVec<Mutex<Map<u64, Entry>>>,
}

impl InodeTable {
    /// An empty table.
    pub fn new() -> Result<Self> {
        let mut shards = KVec::with_capacity(SHARDS, GFP_KERNEL)?;
        for _ in 0..SHARDS {
            shards.push(Mutex::new(Map::new())?, GFP_KERNEL)?;
        }
        Ok(Self { shards })
    }

    fn shard(&self, ino: u64) -> Result<&Mutex<Map<u64, Entry>>> {
        self.shards.get((ino % SHARDS as u64) as usize).ok_or(EIO)
    }

    /// The inode, with one more user.
    pub fn get(&self, ino: u64) -> Result<Option<Shared<Inode>>> {
        let mut map = self.shard(ino)?.lock();
        Ok(map.get_mut(&ino).map(|e| {
            e.users += 1;
            e.inode.clone()
        }))
    }

    /// Adds an inode with one user, unless somebody was faster: then theirs, with one more user.
    pub fn add(&self, inode: Shared<Inode>) -> Result<Shared<Inode>> {
        let ino = inode.ino();
        let mut map = self.shard(ino)?.lock();
        if let Some(e) = map.get_mut(&ino) {
            e.users += 1;
            return Ok(e.inode.clone());
        }
        map.insert(ino, Entry { inode: inode.clone(), users: 1 })?;
        Ok(inode)
    }

    /// One user less; the inode goes when it is clean.
    pub fn put(&self, ino: u64) {
        let gone = self.shard(ino).ok().and_then(|s| {
            let mut map = s.lock();
            let e = map.get_mut(&ino)?;
            e.users = e.users.saturating_sub(1);
            let drop = e.users == 0 && !e.inode.is_dirty();
            if drop {
                map.remove(&ino)
            } else {
                None
            }
        });
        // Freed here, after the shard is unlocked.
        drop(gone);
    }

    /// After a commit: drops the inode if nobody uses it and nobody dirtied it again.
    pub fn reap(&self, ino: u64) {
        let gone = self.shard(ino).ok().and_then(|s| {
            let mut map = s.lock();
            let e = map.get(&ino)?;
            if e.users == 0 && !e.inode.is_dirty() {
                map.remove(&ino)
            } else {
                None
            }
        });
        drop(gone);
    }

    /// Calls `f` for inodes until it returns false. Each is called without the shard's lock.
    pub fn for_each(&self, mut f: impl FnMut(&Shared<Inode>) -> bool) {
        for shard in self.shards.iter() {
            let mut from = 0;
            loop {
                let next = shard.lock().first_ge(from).map(|(k, e)| (k, e.inode.clone()));
                let Some((ino, inode)) = next else { break };
                if !f(&inode) {
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
            while let Some((_, e)) = { shard.lock().pop_first() } {
                users += usize::from(e.users != 0);
            }
        }
        users
    }
}
