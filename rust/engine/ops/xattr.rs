// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.
//!
//! The Xattr tree of an inode has one or more items, *pieces*, for each attribute. Bits 16..63 of a
//! key are a keyed hash of namespace and name (the hash key is in the superblock, so a user cannot
//! choose names that collide), bits 8..15 count the attributes with the same hash, and bits 0..7
//! count the pieces. Piece 0 begins with a head: namespace u8, length of the name u8, length of the
//! value u32, name. The value follows; all pieces but the last are full.
//!
//! A change is one transaction and one log record, so a crash leaves the old value or the new one.
//! Within the transaction, a checkpoint of the tree makes a change of several pieces whole: after
//! an error half-way the tree is put back as it was.
//!
//! # Locks
//!
//! The inode's `xattr` lock orders everything: changes and their log records are made under the
//! exclusive side, look-ups and listings under the shared side. `meta` is taken under it. The glue
//! also holds `i_rwsem` for changes.
//!
//! Lengths are in bytes.
//!
//! Tests: tools/engine/tests/xattr.rs; tools/crash/tests/attributes.rs; tests/vm/t/022-xattr.sh,
//! 053-attrs.sh.

use crate::engine::alloc::Priority;
use crate::engine::btree::{Tree, ValueBuf, MAX_VALUE};
use crate::engine::format::{corrupt, le32};
use crate::engine::fs::Fs;
use crate::engine::inode::Inode;
use crate::engine::log::record::Record;
use crate::engine::txn::Txn;
use crate::engine::types::*;
use crate::os::{NoFs, Shared};
use kernel::prelude::*;

/// Namespace `user.`.
pub const USER: u8 = 1;
/// Namespace `trusted.`.
pub const TRUSTED: u8 = 2;
/// Namespace `security.`.
pub const SECURITY: u8 = 3;
/// `system.posix_acl_access`; its name is empty.
pub const ACL_ACCESS: u8 = 4;
/// `system.posix_acl_default`; its name is empty.
pub const ACL_DEFAULT: u8 = 5;

/// The longest value in bytes.
pub const VALUE_MAX: usize = 65536;
/// Bytes of a head before its name.
pub const HEAD: usize = 6;
const _: () = assert!(HEAD + NAME_MAX < MAX_VALUE && NAME_MAX <= u8::MAX as usize);
// Bits 0..7 of a key count the pieces.
const _: () = assert!(VALUE_MAX.div_ceil(MAX_VALUE) < 255);

/// What [`Fs::set_xattr`] requires of the attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XattrSet {
    /// It may exist or not.
    #[default]
    Any,
    /// It must not exist; EEXIST otherwise.
    Create,
    /// It must exist; ENODATA otherwise.
    Replace,
}

/// A decoded head.
pub struct Head<'a> {
    /// Namespace.
    pub index: u8,
    /// Name without the namespace's prefix.
    pub name: &'a [u8],
    /// Bytes of the value.
    pub len: usize,
    /// The bytes of the value that the first piece holds.
    pub start: &'a [u8],
}

/// Decodes the first piece of an attribute of inode `owner`. EUCLEAN if it is malformed.
pub fn decode(owner: u64, v: &[u8]) -> Result<Head<'_>> {
    let bad = || corrupt("xattr", owner, "malformed");
    let index = *v.first().ok_or_else(bad)?;
    let end = HEAD + usize::from(*v.get(1).ok_or_else(bad)?);
    let len = le32(v, 2).ok_or_else(bad)? as usize;
    let name = v.get(HEAD..end).ok_or_else(bad)?;
    let start = v.get(end..).ok_or_else(bad)?;
    if len > VALUE_MAX || check_name(index, name).is_err() || start.len() != first_part(name, len) {
        return Err(bad());
    }
    Ok(Head {
        index,
        name,
        len,
        start,
    })
}

/// Checks that an attribute of this namespace can have the name: ERANGE if it is too long, EINVAL.
pub fn check_name(index: u8, name: &[u8]) -> Result {
    if name.len() > NAME_MAX {
        return Err(ERANGE);
    }
    let fits = match index {
        USER | TRUSTED | SECURITY => !name.is_empty() && !name.contains(&0),
        ACL_ACCESS | ACL_DEFAULT => name.is_empty(),
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// The number of bytes of a value that are in the first piece.
fn first_part(name: &[u8], len: usize) -> usize {
    len.min(MAX_VALUE.saturating_sub(HEAD + name.len()))
}

/// The number of pieces of an attribute with a value of `len` bytes.
pub fn pieces(name: &[u8], len: usize) -> u64 {
    1 + (len - first_part(name, len)).div_ceil(MAX_VALUE) as u64
}

/// The first key of attributes with this hash.
pub fn bucket(key: [u64; 2], index: u8, name: &[u8]) -> u64 {
    let mut text = [index; 1 + NAME_MAX];
    let n = name.len().min(NAME_MAX);
    for (to, from) in text.iter_mut().skip(1).zip(name) {
        *to = *from;
    }
    crate::os::siphash(key, text.get(..=n).unwrap_or(&[])) & !0xffff
}

/// Where an attribute is, or where it can go.
enum Place {
    /// It exists: its first key, and the length of its value.
    Found(u64, usize),
    /// It does not exist: the first free key of its hash, if there is one.
    Free(Option<u64>),
}

/// A checked change: the number of old pieces, the key of the new ones, and what the change may
/// cost.
struct Plan {
    old: u64,
    key: u64,
    /// The value does not grow, so the change may use the pool.
    shrinks: bool,
    nodes: u64,
}

/// A change of an attribute.
struct Change<'a> {
    index: u8,
    name: &'a [u8],
    value: Option<&'a [u8]>,
    how: XattrSet,
}

impl<'a> Change<'a> {
    /// The change of an access control list.
    fn of_acl(index: u8, value: Option<&'a [u8]>) -> Self {
        Self {
            index,
            name: &[],
            value,
            how: XattrSet::Any,
        }
    }

    /// Checks name and length: EINVAL, ERANGE, E2BIG.
    fn check(&self) -> Result {
        check_name(self.index, self.name)?;
        if self.value.is_some_and(|v| v.len() > VALUE_MAX) {
            return Err(E2BIG);
        }
        Ok(())
    }

    /// The number of pieces of the new value, 0 for a removal.
    fn pieces(&self) -> u64 {
        self.value.map_or(0, |v| pieces(self.name, v.len()))
    }
}

/// The most nodes that replacing `old` pieces by `new` ones dirties. Pieces are neighbours in the
/// tree: each may add or touch a leaf of its own. Besides there is the path to both ends of them,
/// with a neighbour or a split on each level.
fn cost(height: u64, old: u64, new: u64) -> u64 {
    4 * (height + 2) + old + new
}

impl Fs {
    /// Looks for an attribute. If it exists, its first piece is in `v`. The caller holds
    /// `Inode.xattr`; `tree` is the tree under it.
    fn find_xattr(
        &self,
        inode: &Inode,
        tree: &Tree,
        index: u8,
        name: &[u8],
        v: &mut ValueBuf,
    ) -> Result<Place> {
        let first = bucket(self.hash_key, index, name);
        let same = |key: &u64| key >> 16 == first >> 16;
        let mut at = first;
        let mut free = Some(first);
        while let Some(key) = tree.find_ge(&self.node_store, at, v)?.filter(same) {
            if key & 0xff != 0 {
                return Err(corrupt("xattr", inode.ino(), "a piece without a head"));
            }
            let h = decode(inode.ino(), v.as_slice())?;
            if h.index == index && h.name == name {
                return Ok(Place::Found(key, h.len));
            }
            let next = (key | 0xff).checked_add(1);
            if free == Some(key) {
                free = next.filter(same);
            }
            match next {
                Some(n) => at = n,
                None => break,
            }
        }
        Ok(Place::Free(free))
    }

    /// Copies the value of an attribute to `out` and returns its length; `None` if there is no such
    /// attribute. If `out` is empty, only returns the length. ERANGE if `out` is too short, EUCLEAN
    /// if a piece is missing.
    pub fn get_xattr(
        &self,
        inode: &Inode,
        index: u8,
        name: &[u8],
        out: &mut [u8],
    ) -> Result<Option<usize>> {
        check_name(index, name)?;
        let _nofs = NoFs::enter();
        let tree = inode.xattr.read();
        let mut v = ValueBuf::new();
        let (key, len) = match self.find_xattr(inode, &tree, index, name, &mut v)? {
            Place::Found(key, len) => (key, len),
            Place::Free(_) => return Ok(None),
        };
        if out.is_empty() {
            return Ok(Some(len));
        }
        let mut rest = out.get_mut(..len).ok_or(ERANGE)?;
        let bad = || corrupt("xattr", inode.ino(), "a piece is missing or cut off");
        let start = decode(inode.ino(), v.as_slice())?.start.len();
        let mut skip = v.len().saturating_sub(start);
        for piece in 0..pieces(name, len) {
            if piece > 0 && !tree.get(&self.node_store, key | piece, &mut v)? {
                return Err(bad());
            }
            let part = v.get(skip..).ok_or_else(bad)?;
            skip = 0;
            let (to, later) = rest.split_at_mut_checked(part.len()).ok_or_else(bad)?;
            to.copy_from_slice(part);
            rest = later;
        }
        if !rest.is_empty() {
            return Err(bad());
        }
        Ok(Some(len))
    }

    /// Calls `emit(namespace, name, length of the value)` for every attribute, with the lock held.
    /// Returns the first error that `emit` returns.
    pub fn list_xattr(
        &self,
        inode: &Inode,
        emit: &mut dyn FnMut(u8, &[u8], usize) -> Result,
    ) -> Result {
        let _nofs = NoFs::enter();
        let tree = inode.xattr.read();
        let mut v = ValueBuf::new();
        let mut at = 0;
        while let Some(key) = tree.find_ge(&self.node_store, at, &mut v)? {
            if key & 0xff != 0 {
                return Err(corrupt("xattr", inode.ino(), "a piece without a head"));
            }
            let h = decode(inode.ino(), v.as_slice())?;
            emit(h.index, h.name, h.len)?;
            match (key | 0xff).checked_add(1) {
                Some(next) => at = next,
                None => break,
            }
        }
        Ok(())
    }

    /// Sets an attribute, or removes it if `value` is `None` (ENODATA if there is none). The change
    /// time becomes the time of the operation. E2BIG for a value of more than [`VALUE_MAX`] bytes,
    /// ERANGE for a name that is too long, EEXIST and ENODATA as `how` says, ENOSPC. On an error
    /// nothing has changed. The caller holds `i_rwsem`.
    pub fn set_xattr(
        &self,
        inode: &Shared<Inode>,
        index: u8,
        name: &[u8],
        value: Option<&[u8]>,
        how: XattrSet,
    ) -> Result {
        let change = Change {
            index,
            name,
            value,
            how,
        };
        self.change_xattr(inode, &change, || None)
    }

    /// Sets or removes an access control list, and sets the permissions that go with it, as one
    /// change. Removing one that does not exist is no error. Otherwise like [`Fs::set_xattr`].
    pub fn set_acl(
        &self,
        inode: &Shared<Inode>,
        index: u8,
        value: Option<&[u8]>,
        mode: Option<u32>,
    ) -> Result {
        if value.is_none() && self.get_xattr(inode, index, &[], &mut [])?.is_none() {
            let Some(mode) = mode else { return Ok(()) };
            return self.set_attrs(
                inode,
                &AttrChange {
                    mode: Some(mode),
                    ctime: Some(self.time()),
                    ..AttrChange::default()
                },
            );
        }
        let change = Change::of_acl(index, value);
        self.change_xattr(inode, &change, || {
            mode.map(|m| AttrChange {
                mode: Some(m),
                ..AttrChange::default()
            })
        })
    }

    /// Changes attributes as [`Fs::set_attrs_with`] does, and replaces the access control list that
    /// goes with them, as one change.
    pub fn set_attrs_and_acl(
        &self,
        inode: &Shared<Inode>,
        acl: &[u8],
        attrs: impl FnOnce() -> AttrChange,
    ) -> Result {
        let change = Change::of_acl(ACL_ACCESS, Some(acl));
        self.change_xattr(inode, &change, || Some(attrs()))
    }

    /// Changes an extended attribute, and in the same critical section the attributes that `attrs`
    /// returns.
    fn change_xattr(
        &self,
        inode: &Shared<Inode>,
        change: &Change<'_>,
        attrs: impl FnOnce() -> Option<AttrChange>,
    ) -> Result {
        change.check()?;
        self.writable()?;
        loop {
            // The cost must be known before the transaction begins. It is computed again inside,
            // since another task may have changed the tree.
            let plan = {
                let _nofs = NoFs::enter();
                self.plan_xattr(inode, &inode.xattr.read(), change)?
            };
            let prio = if plan.shrinks {
                Priority::Reclaim
            } else {
                Priority::Normal
            };
            let mut txn = self.begin(plan.nodes, prio)?;
            txn.dirty(inode)?;
            let mut tree = inode.xattr.write();
            let now = self.plan_xattr(inode, &tree, change)?;
            if now.nodes > plan.nodes {
                continue;
            }
            txn.charged(&mut tree, |t| self.put_xattr(t, &now, change))?;
            let mut meta = inode.meta.lock();
            meta.raise_change();
            meta.attrs.ctime = txn.time();
            let attrs = attrs().map(|a| {
                meta.change(&a);
                Record::attrs_but_size(inode.ino(), &meta.attrs)
            });
            let xattr = Record::Xattr {
                ino: inode.ino(),
                index: change.index,
                name: change.name,
                value: change.value,
            };
            txn.log_all(&xattr, attrs);
            return Ok(());
        }
    }

    /// Checks a change against the tree, and finds its place and its cost. The caller holds
    /// `Inode.xattr`.
    fn plan_xattr(&self, inode: &Inode, tree: &Tree, change: &Change<'_>) -> Result<Plan> {
        let mut v = ValueBuf::new();
        let place = self.find_xattr(inode, tree, change.index, change.name, &mut v)?;
        let new = change.pieces();
        let (key, old, shrinks) = match place {
            Place::Found(_, _) if change.how == XattrSet::Create => return Err(EEXIST),
            Place::Found(key, len) => {
                let shrinks = change.value.is_none_or(|v| v.len() <= len);
                (key, pieces(change.name, len), shrinks)
            }
            Place::Free(_) if new == 0 || change.how == XattrSet::Replace => return Err(ENODATA),
            Place::Free(key) => (key.ok_or(ENOSPC)?, 0, false),
        };
        Ok(Plan {
            old,
            key,
            shrinks,
            nodes: cost(tree.height(), old, new),
        })
    }

    /// Makes a change in the tree: all of it, or on an error nothing.
    fn put_xattr(&self, tree: &mut Tree, plan: &Plan, change: &Change<'_>) -> Result {
        if plan.old <= 1 && change.pieces() <= 1 {
            // A single change of the tree is whole by itself.
            return self.put_pieces(tree, plan, change);
        }
        let before = tree.checkpoint();
        let done = self.put_pieces(tree, plan, change);
        match done {
            Ok(()) => tree.settle(before),
            Err(_) => tree.roll_back(before),
        }
        done
    }

    /// Removes surplus old pieces and writes the new ones. After an error a part may be done.
    fn put_pieces(&self, tree: &mut Tree, plan: &Plan, change: &Change<'_>) -> Result {
        for piece in change.pieces()..plan.old {
            tree.remove(&self.node_store, plan.key | piece)?;
        }
        let Some(value) = change.value else {
            return Ok(());
        };
        let (start, rest) = value
            .split_at_checked(first_part(change.name, value.len()))
            .ok_or(EINVAL)?;
        let mut head = KVec::with_capacity(HEAD + change.name.len() + start.len(), GFP_KERNEL)?;
        head.extend_from_slice(&[change.index, change.name.len() as u8], GFP_KERNEL)?;
        head.extend_from_slice(&(value.len() as u32).to_le_bytes(), GFP_KERNEL)?;
        head.extend_from_slice(change.name, GFP_KERNEL)?;
        head.extend_from_slice(start, GFP_KERNEL)?;
        tree.insert(&self.node_store, plan.key, &head)?;
        for (piece, part) in (1..).zip(rest.chunks(MAX_VALUE)) {
            tree.insert(&self.node_store, plan.key | piece, part)?;
        }
        Ok(())
    }

    /// The most nodes that the attributes of a new inode dirty. Also checks the attributes.
    pub(crate) fn new_xattrs_cost(xattrs: &[NewXattr<'_>]) -> Result<u64> {
        let mut sum = 0;
        for x in xattrs {
            let change = x.change();
            change.check()?;
            sum += cost(1, 0, change.pieces());
        }
        Ok(sum)
    }

    /// Gives a new inode, which no other task knows yet, its attributes. After an error the caller
    /// drops the inode.
    pub(crate) fn put_new_xattrs(
        &self,
        txn: &mut Txn<'_>,
        inode: &Inode,
        xattrs: &[NewXattr<'_>],
    ) -> Result {
        let mut tree = inode.xattr.write();
        for x in xattrs {
            let change = x.change();
            let plan = self.plan_xattr(inode, &tree, &change)?;
            txn.charged(&mut tree, |t| self.put_pieces(t, &plan, &change))?;
        }
        Ok(())
    }
}

impl<'a> NewXattr<'a> {
    fn change(&self) -> Change<'a> {
        Change {
            index: self.index,
            name: self.name,
            value: Some(self.value),
            how: XattrSet::Create,
        }
    }

    /// Its log record.
    pub(crate) fn record(&self, ino: u64) -> Record<'a> {
        Record::Xattr {
            ino,
            index: self.index,
            name: self.name,
            value: Some(self.value),
        }
    }
}
