// SPDX-License-Identifier: GPL-2.0

//! Operations on a full disk: they commit to find space.

use super::action::{steps, whole, Action};
use super::bed::{new, with, write, write_out, Bed};
use super::durable::promise;
use kernel::prelude::*;
use ordofs_engine::engine::*;

/// Frees blocks, which cannot be allocated before the next commit.
fn free(b: &Bed) {
    with(&b.fs, &b.root, b"ballast", |i| b.fs.set_size(i, 0)).expect("truncate");
}

/// Only a commit finds out that none of this is needed, and it has nothing to write.
fn hoard(b: &Bed) {
    b.fs.sync().expect("sync");
    promise(b, 400);
}

pub const FULL: &[Action] = &[
    whole("create without space", |b| {
        match b.fs.create(&b.dir, b"new", &new(S_IFREG)) {
            Err(e) if e == ENOSPC => Ok(()),
            r => r.map(|i| b.fs.iput(i)).and(Err(EINVAL)),
        }
    }),
    whole("create in freed space", |b| {
        b.fs.create(&b.dir, b"new", &new(S_IFREG))
            .map(|i| b.fs.iput(i))
    })
    .after(free),
    steps("buffered write into freed space", |b| {
        write(&b.fs, &b.file, 60, 20, false, 9)
    })
    .after(free),
    steps("direct write into freed space", |b| {
        write(&b.fs, &b.file, 60, 20, true, 9)
    })
    .after(free),
    steps("preallocation of freed space", |b| {
        b.fs.preallocate(&b.file, 60, 100, None)
    })
    .after(free),
    steps("writeback without reservation", |b| {
        write_out(&b.fs, &b.file, 60, 20, false, 9)
    }),
    steps("truncate as the last resort", |b| {
        b.fs.set_size(&b.file, 8 * 4096)
    })
    .after(hoard),
    whole("unlink as the last resort", |b| {
        b.fs.unlink(&b.root, b"file", &b.file)
    })
    .after(hoard),
    whole("set attributes as the last resort", |b| {
        let uid = AttrChange {
            uid: Some(5),
            ..AttrChange::default()
        };
        b.fs.set_attrs(&b.file, &uid)
    })
    .after(hoard),
];
