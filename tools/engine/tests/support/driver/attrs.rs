// SPDX-License-Identifier: GPL-2.0

//! Attributes, plain and extended.

use super::super::content::{pick, value};
use super::Driver;
use kernel::prelude::{EEXIST, ENODATA};
use ordofs_engine::engine::ops::xattr::{ACL_ACCESS, SECURITY, TRUSTED, USER};
use ordofs_engine::engine::{AttrChange, XattrSet, NAME_MAX, S_IFMT};
use std::vec::Vec as StdVec;

/// Namespaces and names to choose from.
fn name_of(n: u8) -> (u8, StdVec<u8>) {
    match n % 8 {
        0 => (ACL_ACCESS, StdVec::new()),
        1 => (SECURITY, b"label".to_vec()),
        2 => (TRUSTED, b"same".to_vec()),
        3 => (USER, b"same".to_vec()),
        4 => (USER, std::vec![b'n'; NAME_MAX]),
        _ => (USER, std::format!("name{}", n % 32).into_bytes()),
    }
}

impl Driver {
    pub(super) fn set_attrs(&mut self, target: u8, mode: u16, uid: u32) {
        let all = self.model.select(|_| true);
        let Some(ino) = pick(&all, target) else {
            return;
        };
        let a = AttrChange {
            mode: Some(mode.into()),
            uid: Some(uid),
            ..AttrChange::default()
        };
        let r = self.with(ino, |fs, i| fs.set_attrs(i, &a));
        if self.check("set_attrs", r).is_some() {
            let n = self.model.get_mut(ino);
            n.mode = n.mode & S_IFMT | u32::from(mode) & !S_IFMT;
            n.uid = uid;
        }
    }

    pub(super) fn set_xattr(&mut self, target: u8, name: u8, len: u32, how: XattrSet) {
        let Some(ino) = pick(&self.model.select(|_| true), target) else {
            return;
        };
        let (index, name) = name_of(name);
        let tag = self.next_tag();
        let bytes = value(tag, len as usize);
        let r = self.with(ino, |fs, i| {
            fs.set_xattr(i, index, &name, Some(&bytes), how)
        });
        let key = (index, name);
        match (how, self.model.get(ino).xattrs.contains_key(&key)) {
            (XattrSet::Create, true) => return assert_eq!(r, Err(EEXIST)),
            (XattrSet::Replace, false) => return assert_eq!(r, Err(ENODATA)),
            _ => {}
        }
        if self.check("set_xattr", r).is_some() {
            self.model.get_mut(ino).xattrs.insert(key, (tag, len));
        }
    }

    pub(super) fn remove_xattr(&mut self, target: u8, name: u8) {
        let with = self.model.select(|n| !n.xattrs.is_empty());
        let Some(ino) = pick(&with, target) else {
            return;
        };
        // One that is there, or any.
        let there: StdVec<_> = self.model.get(ino).xattrs.keys().cloned().collect();
        let key = match name % 8 {
            0 => name_of(name),
            _ => there[usize::from(name) % there.len()].clone(),
        };
        let r = self.with(ino, |fs, i| {
            fs.set_xattr(i, key.0, &key.1, None, XattrSet::Any)
        });
        match self.model.get_mut(ino).xattrs.remove(&key) {
            Some(_) => r.expect("removing an attribute must not fail"),
            None => assert_eq!(r, Err(ENODATA)),
        }
    }
}
