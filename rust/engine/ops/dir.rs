// SPDX-License-Identifier: GPL-2.0

//! Directory entries, and the targets of symbolic links.
//!
//! The Dir tree of a directory is keyed by cookies: a keyed hash of the name in bits 8..63, and a
//! counter for collisions in bits 0..8. The cookie of an entry never changes while the entry
//! exists, so readdir can continue from any cookie whatever happened meanwhile. Cookies below 256
//! stand for "." and "..". The hash key is in the superblock, so a user cannot choose names that
//! collide.
//!
//! An entry consists of inode number u64, `DT_*` u8 and name. A symbolic link has its target in the
//! Dir tree of its own inode, in pieces with the keys 256, 257, and so on.
//!
//! Locks: `Inode.dir`, shared for look-ups and exclusive for changes. The glue also holds `i_rwsem`
//! of the directory, which keeps a name as it is from its look-up to the change.
//!
//! Tests: tools/engine/tests/bulk.rs (long directories), state_machine.rs,
//! tools/engine/tests/forecast/main.rs; tests/vm/t/020-names.sh, 028-compat.sh, 071-scale.sh.

use crate::engine::btree::{Tree, ValueBuf, MAX_VALUE};
use crate::engine::format::{corrupt, le64};
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::txn::Txn;
use crate::engine::types::*;
use crate::os::NoFs;
use kernel::prelude::*;

/// The lowest cookie of an entry.
pub const FIRST_COOKIE: u64 = 256;
/// Bytes of an entry before its name.
pub const ENTRY_HEADER: usize = 9;
/// Bytes of a symbolic link's target that one item holds.
pub const SYMLINK_PIECE: usize = 1024;
const _: () = assert!(ENTRY_HEADER + NAME_MAX <= MAX_VALUE && SYMLINK_PIECE <= MAX_VALUE);

/// A decoded entry.
pub struct Entry<'a> {
    /// Inode number.
    pub ino: u64,
    /// `DT_*`.
    pub kind: u8,
    /// Name.
    pub name: &'a [u8],
}

/// Receives the entries of a directory one by one: name, inode number, `DT_*`, cookie. Returns
/// false to end the listing.
pub type Emit<'a> = &'a mut dyn FnMut(&[u8], u64, u8, u64) -> bool;

/// Decodes an entry of directory `owner`. EUCLEAN if it is malformed.
pub fn decode(owner: u64, v: &[u8]) -> Result<Entry<'_>> {
    let bad = || corrupt("directory entry", owner, "malformed");
    let ino = le64(v, 0).ok_or_else(bad)?;
    let kind = *v.get(8).ok_or_else(bad)?;
    let name = v
        .get(ENTRY_HEADER..)
        .filter(|n| !n.is_empty() && n.len() <= NAME_MAX)
        .ok_or_else(bad)?;
    if ino == 0 || name.contains(&0) || name.contains(&b'/') {
        return Err(bad());
    }
    Ok(Entry { ino, kind, name })
}

/// Encodes an entry.
fn encode(ino: u64, kind: u8, name: &[u8]) -> Result<KVec<u8>> {
    let mut v = KVec::with_capacity(ENTRY_HEADER + name.len(), GFP_KERNEL)?;
    v.extend_from_slice(&ino.to_le_bytes(), GFP_KERNEL)?;
    v.extend_from_slice(&[kind], GFP_KERNEL)?;
    v.extend_from_slice(name, GFP_KERNEL)?;
    Ok(v)
}

/// The first of the 256 cookies for names with this hash.
pub fn bucket(key: [u64; 2], name: &[u8]) -> u64 {
    let h = crate::os::siphash(key, name) & 0x7fff_ffff_ffff_ff00;
    h.max(FIRST_COOKIE)
}

/// Checks that a directory can hold the name: ENAMETOOLONG or EINVAL.
pub fn check_name(name: &[u8]) -> Result {
    if name.len() > NAME_MAX {
        return Err(ENAMETOOLONG);
    }
    if name.is_empty() || name.contains(&0) || name.contains(&b'/') || name == b"." || name == b".."
    {
        return Err(EINVAL);
    }
    Ok(())
}

impl Fs {
    /// Returns the cookie and the entry of a name. The caller holds `Inode.dir`; `tree` is the tree
    /// under it, and `v` is scratch space.
    pub(crate) fn find_entry(
        &self,
        dir: &Inode,
        tree: &Tree,
        name: &[u8],
        v: &mut ValueBuf,
    ) -> Result<Option<(u64, DirEntry)>> {
        let first = bucket(self.hash_key, name);
        let mut at = first;
        while let Some(cookie) = tree
            .find_ge(&self.node_store, at, v)?
            .filter(|c| c >> 8 == first >> 8)
        {
            let e = decode(dir.ino(), v.as_slice())?;
            if e.name == name {
                return Ok(Some((
                    cookie,
                    DirEntry {
                        ino: e.ino,
                        kind: e.kind,
                    },
                )));
            }
            at = cookie + 1;
        }
        Ok(None)
    }

    /// Adds an entry. The caller knows that the name does not exist. ENOSPC if 256 names have the
    /// same hash; on an error nothing has changed.
    pub(crate) fn add_entry(
        &self,
        txn: &mut Txn<'_>,
        dir: &Inode,
        name: &[u8],
        ino: u64,
        kind: u8,
    ) -> Result {
        let value = encode(ino, kind, name)?;
        let mut tree = dir.dir.write();
        let mut cookie = bucket(self.hash_key, name);
        let top = cookie | 255;
        let mut v = ValueBuf::new();
        while let Some(c) = tree
            .find_ge(&self.node_store, cookie, &mut v)?
            .filter(|c| *c <= top)
        {
            if c > cookie {
                break;
            }
            if cookie == top {
                return Err(ENOSPC);
            }
            cookie += 1;
        }
        txn.charged(&mut tree, |t| t.insert(&self.node_store, cookie, &value))
    }

    /// Lets an existing entry refer to another inode; the cookie stays. ENOENT; on an error nothing
    /// has changed.
    pub(crate) fn replace_entry(
        &self,
        txn: &mut Txn<'_>,
        dir: &Inode,
        name: &[u8],
        ino: u64,
        kind: u8,
    ) -> Result {
        let value = encode(ino, kind, name)?;
        let mut tree = dir.dir.write();
        let mut v = ValueBuf::new();
        let (cookie, _) = self.find_entry(dir, &tree, name, &mut v)?.ok_or(ENOENT)?;
        txn.charged(&mut tree, |t| t.insert(&self.node_store, cookie, &value))
    }

    /// Removes an entry and returns it. ENOENT; on an error nothing has changed.
    pub(crate) fn remove_entry(
        &self,
        txn: &mut Txn<'_>,
        dir: &Inode,
        name: &[u8],
    ) -> Result<DirEntry> {
        let mut tree = dir.dir.write();
        let mut v = ValueBuf::new();
        let (cookie, e) = self.find_entry(dir, &tree, name, &mut v)?.ok_or(ENOENT)?;
        txn.charged(&mut tree, |t| t.remove(&self.node_store, cookie))?;
        Ok(e)
    }

    /// Looks up a name; `None` if there is none. ENAMETOOLONG.
    pub fn lookup(&self, dir: &Inode, name: &[u8]) -> Result<Option<DirEntry>> {
        if name.len() > NAME_MAX {
            return Err(ENAMETOOLONG);
        }
        let _nofs = NoFs::enter();
        let tree = dir.dir.read();
        let mut v = ValueBuf::new();
        Ok(self.find_entry(dir, &tree, name, &mut v)?.map(|(_, e)| e))
    }

    /// Calls `emit(name, ino, kind, cookie)` for the entries with a cookie of at least `cookie`, in
    /// the order of cookies, until it returns false. The lock is not held while `emit` runs, so
    /// entries may come and go between two calls.
    pub fn readdir(&self, dir: &Inode, cookie: u64, emit: Emit<'_>) -> Result {
        let mut at = cookie.max(FIRST_COOKIE);
        let mut v = ValueBuf::new();
        loop {
            // Not held while `emit` runs, because it copies to user memory and may fault.
            let found = {
                let _nofs = NoFs::enter();
                dir.dir.read().find_ge(&self.node_store, at, &mut v)?
            };
            let Some(c) = found else { return Ok(()) };
            let e = decode(dir.ino(), v.as_slice())?;
            if !emit(e.name, e.ino, e.kind, c) {
                return Ok(());
            }
            let Some(next) = c.checked_add(1) else {
                return Ok(());
            };
            at = next;
        }
    }

    /// Does the directory have no entries?
    pub(crate) fn dir_empty(&self, dir: &Inode) -> Result<bool> {
        let _nofs = NoFs::enter();
        let mut v = ValueBuf::new();
        Ok(dir
            .dir
            .read()
            .find_ge(&self.node_store, 0, &mut v)?
            .is_none())
    }

    /// Stores the target of a new symbolic link.
    pub(crate) fn put_symlink(&self, txn: &mut Txn<'_>, inode: &Inode, target: &[u8]) -> Result {
        let mut tree = inode.dir.write();
        for (i, piece) in target.chunks(SYMLINK_PIECE).enumerate() {
            let key = FIRST_COOKIE + i as u64;
            txn.charged(&mut tree, |t| t.insert(&self.node_store, key, piece))?;
        }
        Ok(())
    }

    /// Returns the target of a symbolic link. EINVAL for other inodes, EUCLEAN if it is too long.
    pub fn readlink(&self, inode: &Inode) -> Result<KVec<u8>> {
        if inode.kind() != S_IFLNK {
            return Err(EINVAL);
        }
        let _nofs = NoFs::enter();
        let mut out = KVec::new();
        let mut v = ValueBuf::new();
        let tree = inode.dir.read();
        let mut at = FIRST_COOKIE;
        while let Some(k) = tree.find_ge(&self.node_store, at, &mut v)? {
            out.extend_from_slice(v.as_slice(), GFP_KERNEL)?;
            if out.len() > SYMLINK_MAX {
                return Err(corrupt("symbolic link", inode.ino(), "target too long"));
            }
            let Some(next) = k.checked_add(1) else { break };
            at = next;
        }
        Ok(out)
    }
}
