// SPDX-License-Identifier: GPL-2.0

//! Operations on attributes.

use super::action::{whole, Action};
use super::bed::Bed;
use kernel::prelude::*;
use ordofs_engine::engine::ops::xattr::{ACL_ACCESS, ACL_DEFAULT, USER};
use ordofs_engine::engine::*;
use ordofs_engine::os::now;

fn set(b: &Bed, name: &[u8], value: Option<&[u8]>) -> Result {
    b.fs.set_xattr(&b.file, USER, name, value, XattrSet::Any)
}

pub const ATTRS: &[Action] = &[
    whole("set attributes", |b| {
        let a = AttrChange {
            uid: Some(5),
            mode: Some(0o600),
            ..AttrChange::default()
        };
        b.fs.set_attrs(&b.file, &a)
    }),
    whole("attributes that the VFS changes", |b| {
        b.fs.set_attrs_with(&b.file, || AttrChange {
            mode: Some(0o640),
            ..AttrChange::default()
        })
    }),
    whole("times that the VFS has kept", |b| {
        b.fs.push_times(&b.file, || Times {
            atime: now(),
            ..Times::default()
        })
    }),
    whole("mode and acl", |b| {
        b.fs.set_attrs_and_acl(&b.file, b"acl", || AttrChange {
            mode: Some(0o604),
            ..AttrChange::default()
        })
    }),
    whole("xattr", |b| set(b, b"new", Some(&[b'v'; 30]))),
    whole("long xattr", |b| set(b, b"new", Some(&[b'v'; 65536]))),
    whole("longer xattr", |b| {
        set(b, b"attribute 9", Some(&[b'v'; 30_000]))
    }),
    whole("shorter xattr", |b| {
        set(b, b"attribute 29", Some(&[b'v'; 5000]))
    }),
    whole("no xattr", |b| set(b, b"attribute 28", None)),
    whole("xattr that exists", |b| {
        match b
            .fs
            .set_xattr(&b.file, USER, b"attribute 9", Some(b"v"), XattrSet::Create)
        {
            Err(e) if e == EEXIST => Ok(()),
            r => r.and(Err(EINVAL)),
        }
    }),
    whole("get xattr", |b| {
        let mut buf = [0; 20_000];
        let n = b.fs.get_xattr(&b.file, USER, b"attribute 29", &mut buf)?;
        assert_eq!(n, Some(29 * 400));
        assert!(buf[..29 * 400].iter().all(|v| *v == 29));
        assert_eq!(b.fs.get_xattr(&b.file, USER, b"none", &mut buf)?, None);
        Ok(())
    }),
    whole("list xattrs", |b| {
        let mut n = 0;
        b.fs.list_xattr(&b.file, &mut |_, _, _| {
            n += 1;
            Ok(())
        })?;
        assert_eq!(n, 30);
        Ok(())
    }),
    whole("acl", |b| {
        b.fs.set_acl(&b.file, ACL_ACCESS, Some(b"acl"), Some(0o604))
    }),
    whole("no acl", |b| b.fs.set_acl(&b.dir, ACL_DEFAULT, None, None)),
    whole("mode instead of an acl", |b| {
        b.fs.set_acl(&b.file, ACL_ACCESS, None, Some(0o604))
    }),
];
