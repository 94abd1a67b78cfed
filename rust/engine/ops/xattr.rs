// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.
//!
//! The Xattr tree of an inode has one or more items, *pieces*, for each attribute. Bits 16..63 of a
//! key are a keyed hash of namespace and name (the hash key is in the superblock, so nobody can
//! make names collide on purpose), bits 8..15 count the attributes that have the same hash, bits
//! 0..7 the pieces. Piece 0 begins with a head: namespace u8, length of the name u8, length of the
//! value u32, name. The value follows, in pieces that are full but for the last.
//!
//! A change is one transaction and one log record, so that a crash leaves the old value or the new
//! one. Within the transaction a change of several pieces is made whole by a checkpoint of the
//! tree: an error half-way puts back the tree as it was.
//!
//! # Locking
//!
//! The inode's `xattr` lock orders everything: changes and their records under the exclusive side,
//! looking and listing under the shared one. The glue also holds i_rwsem for changes.

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
/// Bytes of the head before the name.
pub const HEAD: usize = 6;

/// What [`Fs::set_xattr`] finds acceptable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XattrSet {
    /// The attribute may exist or not.
    #[default]
    Any,
    /// EEXIST if it does.
    Create,
    /// ENODATA if it does not.
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
    /// The value's first bytes.
    pub start: &'a [u8],
}

/// Decodes the first piece of an attribute.
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

/// Is it a name that an attribute of this namespace can have? ERANGE for one that is too long.
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

/// Bytes of a value that are in the first piece.
fn first_part(name: &[u8], len: usize) -> usize {
    len.min(MAX_VALUE.saturating_sub(HEAD + name.len()))
}

/// The pieces of an attribute.
pub fn pieces(name: &[u8], len: usize) -> u64 {
    1 + (len - first_part(name, len)).div_ceil(MAX_VALUE) as u64
}

/// The first key for attributes with this hash.
pub fn bucket(key: [u64; 2], index: u8, name: &[u8]) -> u64 {
    let mut text = [index; 1 + NAME_MAX];
    let n = name.len().min(NAME_MAX);
    for (to, from) in text.iter_mut().skip(1).zip(name) {
        *to = *from;
    }
    crate::os::siphash(key, text.get(..=n).unwrap_or(&[])) & !0xffff
}

/// Where an attribute is, or can be.
enum Place {
    /// Its first key and the bytes of its value.
    Found(u64, usize),
    /// There is none: the first free key of its hash, if there is one.
    Free(Option<u64>),
}

/// A change that was checked: what is there, where the new value goes, and what that may cost.
struct Plan {
    old: u64,
    key: u64,
    /// The tree gets no larger: space need not be refused.
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
    fn of_acl(index: u8, value: Option<&'a [u8]>) -> Self {
        Self {
            index,
            name: &[],
            value,
            how: XattrSet::Any,
        }
    }

    fn check(&self) -> Result {
        check_name(self.index, self.name)?;
        if self.value.is_some_and(|v| v.len() > VALUE_MAX) {
            return Err(E2BIG);
        }
        Ok(())
    }

    fn pieces(&self) -> u64 {
        self.value.map_or(0, |v| pieces(self.name, v.len()))
    }
}

/// Nodes that replacing `old` pieces by `new` ones may dirty. Pieces are neighbours in the tree:
/// each can add or touch a leaf of its own, and besides there is the path to both ends of them,
/// with a neighbour or a split on each level.
fn cost(height: u64, old: u64, new: u64) -> u64 {
    4 * (height + 2) + old + new
}

impl Fs {
    /// Looks for an attribute; if it is there, its head is in `v`.
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
        while let Some(key) = tree.find_ge(&self.st, at, v)?.filter(same) {
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

    /// The value of an attribute, copied to `out`: answers its bytes, `None` if there is no such
    /// attribute. With an empty `out` only that; ERANGE if `out` is too short.
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
            if piece > 0 && !tree.get(&self.st, key | piece, &mut v)? {
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

    /// Calls `emit(namespace, name, bytes of the value)` for every attribute, under the lock. Ends
    /// with the first error that it returns.
    pub fn list_xattr(
        &self,
        inode: &Inode,
        emit: &mut dyn FnMut(u8, &[u8], usize) -> Result,
    ) -> Result {
        let _nofs = NoFs::enter();
        let tree = inode.xattr.read();
        let mut v = ValueBuf::new();
        let mut at = 0;
        while let Some(key) = tree.find_ge(&self.st, at, &mut v)? {
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

    /// Sets an attribute, or removes it (`value` is `None`; ENODATA if there is none). The change
    /// time becomes now. E2BIG for a value of more than [`VALUE_MAX`] bytes, ERANGE for a name that
    /// is too long, EEXIST and ENODATA as `how` says, ENOSPC. On an error nothing has changed. The
    /// caller holds i_rwsem.
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

    /// Sets an access control list or removes it (which may not be there), and sets the permissions
    /// that go with it, as one change. Otherwise as [`Fs::set_xattr`].
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

    /// Changes an extended attribute, and in the same critical section what `attrs` returns.
    fn change_xattr(
        &self,
        inode: &Shared<Inode>,
        change: &Change<'_>,
        attrs: impl FnOnce() -> Option<AttrChange>,
    ) -> Result {
        change.check()?;
        self.writable()?;
        loop {
            // What it may cost must be known before the transaction begins, and is looked at again
            // in it.
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
            txn.charged(
                &mut *tree,
                |t| t.dirty_nodes(),
                |t| self.put_xattr(t, &now, change),
            )?;
            let mut meta = inode.meta.lock();
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

    /// Carries out a change in the tree: all of it, or on an error nothing.
    fn put_xattr(&self, tree: &mut Tree, plan: &Plan, change: &Change<'_>) -> Result {
        if plan.old <= 1 && change.pieces() <= 1 {
            // One change of the tree is whole by itself.
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

    fn put_pieces(&self, tree: &mut Tree, plan: &Plan, change: &Change<'_>) -> Result {
        for piece in change.pieces()..plan.old {
            tree.remove(&self.st, plan.key | piece)?;
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
        tree.insert(&self.st, plan.key, &head)?;
        for (piece, part) in (1..).zip(rest.chunks(MAX_VALUE)) {
            tree.insert(&self.st, plan.key | piece, part)?;
        }
        Ok(())
    }

    /// Nodes that the attributes of a new inode may dirty; also checks them.
    pub(crate) fn new_xattrs_cost(xattrs: &[NewXattr<'_>]) -> Result<u64> {
        let mut sum = 0;
        for x in xattrs {
            let change = x.change();
            change.check()?;
            sum += cost(1, 0, change.pieces());
        }
        Ok(sum)
    }

    /// Gives a new inode, which nobody else knows yet, its attributes. On an error it is of no use.
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
            txn.charged(
                &mut *tree,
                |t| t.dirty_nodes(),
                |t| self.put_pieces(t, &plan, &change),
            )?;
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

    /// The log's record of it.
    pub(crate) fn record(&self, ino: u64) -> Record<'a> {
        Record::Xattr {
            ino,
            index: self.index,
            name: self.name,
            value: Some(self.value),
        }
    }
}
